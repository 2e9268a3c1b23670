//! Whether a backup has the files of all tables of InnoDB.
//!
//! `mariadb-backup` leaves a file out whose tablespace was dropped since the last checkpoint, by what the redo log
//! says. `IMPORT TABLESPACE` gives a table the number again that `DISCARD TABLESPACE` took from it, and until the
//! next checkpoint its new file is taken for the dropped one. The tool ends well all the same. Pages that came so have no
//! LSN, by which increments choose: none of them is in an increment.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use backup_core::{Error, ErrorKind, Flavor, Result};

use super::details::Parent;
use crate::connect::{ConnectOptions, Session};
use crate::files::Entry;
use crate::innodb::{TableFile, has_page_without_lsn};

/// Has MariaDB forget what was dropped.
pub(crate) const CHECKPOINT: &str = "SET GLOBAL innodb_log_checkpoint_now=ON";
/// What the file of a tablespace ends with: as the server calls it, and as the tool calls one that was made since the
/// last checkpoint. In increments there is more behind it.
const ENDINGS: [&str; 2] = [".ibd", ".new"];

/// How much of a file is looked at.
const LOOKED_AT: u64 = 1 << 20;

/// The tablespaces of tables of a MariaDB, each with its number and the path of its file without the ending. What is
/// being altered is not among them, nor what has no file.
#[derive(Debug, Clone, Default)]
pub(super) struct Tablespaces {
    known: BTreeSet<(u64, String)>,
    /// The largest number of a table. A table gets another one when its tablespace is discarded, whose own number
    /// stays.
    pub(super) last_table: Option<u64>,
}

impl Tablespaces {
    /// Those that a server has now. None of a MySQL: `xtrabackup` takes no table for dropped that is there.
    pub(super) async fn of(source: &ConnectOptions, flavor: Flavor) -> Result<Tablespaces> {
        if flavor == Flavor::MySql {
            return Ok(Tablespaces::default());
        }
        let mut session = Session::open(source).await?;
        let sql = "SELECT SPACE, NAME FROM information_schema.INNODB_SYS_TABLESPACES WHERE NAME LIKE '%/%' AND \
                   NAME NOT LIKE '%/#sql%'";
        let rows: Vec<(u64, String)> = session.query_rows(sql).await?;
        let sql = "SELECT MAX(TABLE_ID) FROM information_schema.INNODB_SYS_TABLES";
        let last_table = session.query_first::<Option<u64>>(sql).await?.flatten();
        session.close().await?;
        Ok(Tablespaces { known: rows.into_iter().collect(), last_table })
    }

    /// Fails where one of those that were there before a backup, and still are, has no file in it.
    pub(super) async fn check(
        &self,
        source: &ConnectOptions,
        flavor: Flavor,
        tool: &str,
        entries: &[Entry],
    ) -> Result<()> {
        let after = Tablespaces::of(source, flavor).await?;
        let missing = self.missing(&after, entries.iter().map(|entry| entry.path.as_str()));
        if missing.is_empty() {
            return Ok(());
        }
        let text = format!("{tool} says that it completed, but left out {}", some(&missing));
        Err(Error::new(ErrorKind::Source, text).with_remedy(format!(
            "run {CHECKPOINT} at the server, and take the backup again: the tool takes tables for dropped that were \
             imported since the last checkpoint (ALTER TABLE … IMPORT TABLESPACE)"
        )))
    }

    /// Which of those that also were there `after` a backup have none of its files.
    fn missing<'a>(
        &self,
        after: &Tablespaces,
        files: impl Iterator<Item = &'a str>,
    ) -> BTreeSet<String> {
        let stem = |path: &'a str| {
            let name = path.rfind('/')?;
            let (stem, ending) = path.split_at(name + path[name..].find('.')?);
            ENDINGS.iter().any(|known| ending.starts_with(known)).then_some(stem)
        };
        let stems: BTreeSet<&str> = files.filter_map(stem).collect();
        let stayed = self.known.intersection(&after.known).map(|(_, name)| name);
        let missing = stayed.filter(|name| !stems.contains(name.as_str()));
        missing.map(|name| shown(name)).collect()
    }
}

/// Fails where a server in `datadir` has tables that were imported since `parent`.
pub(super) async fn refuse_imported(
    session: &mut Session,
    datadir: &Path,
    parent: &Parent,
) -> Result<()> {
    let since = parent.last_table.unwrap_or_default();
    // A server knows the files of what somebody has used since it began.
    let sql = format!(
        "SELECT t.NAME, s.FILENAME FROM information_schema.INNODB_SYS_TABLES t LEFT JOIN \
         information_schema.INNODB_SYS_TABLESPACES s ON s.SPACE = t.SPACE WHERE t.TABLE_ID > {since} AND t.NAME LIKE \
         '%/%' AND t.NAME NOT LIKE '%/#sql%'"
    );
    // An account without PROCESS may not see it, which is told as such.
    let rows: Vec<(String, Option<String>)> = session.query_rows(&sql).await.unwrap_or_default();
    let file = |name: &str, known: Option<String>| {
        datadir.join(known.unwrap_or_else(|| format!("{name}{}", ENDINGS[0])))
    };
    let imported: BTreeSet<String> = rows
        .into_iter()
        .filter_map(|(name, known)| is_imported(&file(&name, known)).then(|| shown(&name)))
        .collect();
    if imported.is_empty() {
        return Ok(());
    }
    let text = format!(
        "an increment has none of the pages of {}, which came by IMPORT TABLESPACE after {}",
        some(&imported),
        parent.backup
    );
    Err(Error::new(ErrorKind::Source, text)
        .with_remedy("take a full backup; or make each table anew before (ALTER TABLE … FORCE)"))
}

/// Whether a file has a page without LSN among its first ones, some of which nothing but growth changes.
fn is_imported(file: &Path) -> bool {
    let mut bytes = Vec::new();
    // Files come and go.
    let read =
        std::fs::File::open(file).and_then(|file| file.take(LOOKED_AT).read_to_end(&mut bytes));
    read.is_ok() && has_page_without_lsn(&bytes)
}

/// The table that a tablespace is of.
fn shown(name: &str) -> String {
    let table = TableFile::of(&format!("{name}{}", ENDINGS[0]));
    table.map_or_else(|| name.to_owned(), |table| table.to_string())
}

/// The first of some names, and how many there are besides.
pub(crate) fn some(names: &BTreeSet<String>) -> String {
    let first = names.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(5) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stayed_and_has_no_file_is_missing() {
        let of = |spaces: &[(u64, &str)]| {
            let known = spaces.iter().map(|(space, name)| (*space, (*name).to_owned())).collect();
            Tablespaces { known, last_table: None }
        };
        let before = [
            (1, "w/t"),
            (2, "w/far@0020off"),
            (3, "w/made_anew"),
            (4, "w/dropped"),
            (5, "w/parts#P#p0"),
            (6, "w/parts#P#p1"),
            (7, "w/fresh"),
        ];
        let after = [
            (1, "w/t"),
            (2, "w/far@0020off"),
            (9, "w/made_anew"),
            (5, "w/parts#P#p0"),
            (6, "w/parts#P#p1"),
            (7, "w/fresh"),
            (8, "w/new"),
        ];
        let files = ["w/t.frm", "w/parts#P#p0.ibd.delta", "w/fresh.new.delta", "w/t.ibd"];
        let missing = of(&before).missing(&of(&after), files.into_iter());
        assert_eq!(some(&missing), "w.far off, w.parts partition p1");
    }
}
