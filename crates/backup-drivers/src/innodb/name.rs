//! What the names of tablespace files say.

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

/// Letters that file names have in three bytes, as `@0gà`: the code is a digit or letter twice, and `@` may be one.
/// Printed by MariaDB 11.8 (`CONVERT(… USING filename)`); MySQL has the same
/// (<https://dev.mysql.com/doc/refman/9.7/en/identifier-mapping.html>).
static LETTERS: LazyLock<HashMap<&str, char>> = LazyLock::new(|| {
    let entries = include_str!("letters.txt").split_whitespace();
    entries.filter_map(|entry| Some((entry.get(..2)?, entry.get(2..)?.chars().next()?))).collect()
});

/// Whether a file of a data directory, by its path below it, is a tablespace: a table, a general
/// tablespace, undo logs, or the system tablespace. Temporary tablespaces are none that count.
#[must_use]
pub fn is_tablespace(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    let top = !path.contains('/');
    let numbered = |prefix: &str| {
        file.strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    };
    let undo = numbered("undo") || numbered("undo_");
    file.ends_with(".ibd") || file.ends_with(".ibu") || top && (undo || numbered("ibdata"))
}

/// The table that a file `database/table#P#partition.ibd` belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TableFile {
    /// The database, as people write it.
    pub database: String,
    /// The table.
    pub table: String,
    /// The partition, and subpartition.
    pub partition: Option<String>,
}

impl TableFile {
    /// Reads the path of a file below the data directory. `None` for one that is no part of a database.
    #[must_use]
    pub fn of(path: &str) -> Option<TableFile> {
        let (database, file) = path.split_once('/')?;
        if file.contains('/') {
            return None;
        }
        // Increments of the tools have changed pages, and what they are of, of each tablespace.
        let increment = file.strip_suffix(".delta").or_else(|| file.strip_suffix(".meta"));
        let file = increment.filter(|file| file.ends_with(".ibd")).unwrap_or(file);
        let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
        // MariaDB writes #P#, MySQL since 8.0 #p#.
        let lower = stem.to_ascii_lowercase();
        let (table, partition) = match lower.find("#p#") {
            Some(at) => (&stem[..at], Some(&stem[at + 3..])),
            None => (stem, None),
        };
        let partition = partition.map(|text| {
            let lower = text.to_ascii_lowercase();
            match lower.find("#sp#") {
                Some(at) => format!("{}/{}", decode(&text[..at]), decode(&text[at + 4..])),
                None => decode(text),
            }
        });
        Some(TableFile { database: decode(database), table: decode(table), partition })
    }
}

impl fmt::Display for TableFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.table)?;
        match &self.partition {
            Some(partition) => write!(f, " partition {partition}"),
            None => Ok(()),
        }
    }
}

/// What servers put behind names that are devices elsewhere (`check_if_legal_tablename`). A letter of the name itself is
/// never written so.
const DEVICE: &str = "@@@";

/// Whether it is the name of a device of other operating systems, which a server writes in another way.
#[must_use]
pub fn is_device(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let numbered = ["com", "lpt"].iter().find_map(|kind| name.strip_prefix(kind));
    ["con", "prn", "aux", "nul"].contains(&&*name)
        || numbered.is_some_and(|number| matches!(number.as_bytes(), [b'1'..=b'9']))
}

/// Undoes `@0020` and `@0g` (`my_charset_filename`).
fn decode(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    let mut rest = name.strip_suffix(DEVICE).filter(|name| !name.is_empty()).unwrap_or(name);
    while let Some(at) = rest.find('@') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let letter = rest.get(1..3).and_then(|code| Some((*LETTERS.get(code)?, 3)));
        let number = || {
            let hex = rest.get(1..5).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
            Some((char::from_u32(u32::from_str_radix(hex, 16).ok()?)?, 5))
        };
        let (letter, bytes) = letter.or_else(number).unwrap_or(('@', 1));
        text.push(letter);
        rest = &rest[bytes..];
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told() {
        for (path, told) in [
            ("shop/orders.ibd", "shop.orders"),
            ("my@0020shop/a@002fb.ibd", "my shop.a/b"),
            ("shop/t#P#p0.ibd", "shop.t partition p0"),
            ("shop/t#p#p0#sp#s1.ibd", "shop.t partition p0/s1"),
            ("shop/t.ibd.delta", "shop.t"),
            ("shop/t#P#p0.ibd.meta", "shop.t partition p0"),
            ("gr@1i@1je/GR@1I.ibd", "größe.GRÖ"),
            ("shop/odd@.ibd", "shop.odd@"),
            ("shop/odd@00.ibd", "shop.odd@00"),
            ("shop/odd@0.ibd", "shop.odd@0"),
            ("shop/odd@é.ibd", "shop.odd@é"),
            ("shop/@d800.ibd", "shop.@d800"),
            ("con@@@/CON@@@.ibd", "con.CON"),
            ("shop/aux@@@#P#p0.ibd", "shop.aux partition p0"),
        ] {
            assert_eq!(TableFile::of(path).unwrap().to_string(), told);
        }
        assert_eq!(TableFile::of("ibdata1"), None);
        assert_eq!(TableFile::of("a/b/c.ibd"), None);
    }

    #[test]
    fn tablespaces_are_told_from_others() {
        for path in ["ibdata1", "ibdata12", "undo_001", "undo001", "a/b.ibd", "mysql.ibd", "x.ibu"]
        {
            assert!(is_tablespace(path), "{path}");
        }
        for path in [
            "ib_logfile0",
            "ibdata",
            "ibtmp1",
            "a/undo001",
            "a/b.frm",
            "ib_buffer_pool",
            "a/ibdata1",
        ] {
            assert!(!is_tablespace(path), "{path}");
        }
    }

    /// Databases whose names are made of all these letters, and of others, have the directories of those names.
    #[rstest::rstest]
    #[tokio::test(flavor = "multi_thread")]
    async fn letters_are_those_of_the_servers(
        #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
    ) {
        let cx = backup_core::Context::builder().build();
        let server = xtask::servers::sandbox(name).await.unwrap().start(&cx).await.unwrap();
        let options = crate::connect::ConnectOptions::socket(server.socket(), "root");
        let mut session = crate::connect::Session::open(&options).await.unwrap();
        let mut letters: Vec<char> = LETTERS.values().copied().collect();
        letters.sort_unstable();
        letters.extend("漢字кириллицаا€\u{3000}@#+.-".chars());
        let names: Vec<String> = letters
            .chunks(40)
            .map(|letters| format!("x{}x", letters.iter().collect::<String>()))
            .chain(["con", "Prn", "aux", "NUL", "com1", "lpt9", "com0", "con1"].map(Into::into))
            .collect();
        for name in &names {
            session.run(&format!("CREATE DATABASE `{name}`")).await.unwrap();
        }
        let data: String = session.query_first("SELECT @@datadir").await.unwrap().unwrap();
        let entries = std::fs::read_dir(data).unwrap().map(|entry| entry.unwrap().file_name());
        let entries: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
        let directories: std::collections::BTreeSet<String> =
            entries.iter().map(|name| decode(name)).collect();
        for name in &names {
            let device = entries.iter().any(|entry| *entry == format!("{name}{DEVICE}"));
            assert_eq!(device, is_device(name), "{name}");
            assert!(directories.contains(name), "{name} is in none of {directories:?}");
        }
        assert!(names.len() > 37, "{}", names.len());
    }
}
