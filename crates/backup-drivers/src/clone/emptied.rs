//! The tables that a clone leaves empty, as its backup tells of them.

use std::collections::BTreeSet;
use std::path::Path;
use std::str::FromStr;

use backup_core::{
    ClusterName, Context, Error, ErrorKind, Finding, Manifest, Result, SegmentStore, Severity,
    Strategy, shell_word,
};

use super::{CloneBackup, LeftEmpty};
use crate::binlog::{Route, first_touch};
use crate::connect::{ConnectOptions, Session};
use crate::files::Catalog;
use crate::logical::{Rename, RenameRule, Selection, TableName, quote_name};

/// The flags of the user that a command in a remedy repeats, each with a space before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// Those that name the target, where one is known.
    pub target: String,
    /// Those that name the repository, its key and the configuration; what the environment names needs none.
    pub repository: String,
    /// Those that name the point in time, where one is asked for.
    pub point: String,
}

/// The logical backup of what a clone leaves empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Others {
    /// Its id.
    pub backup: String,
    /// The tables whose rows it has.
    pub tables: BTreeSet<TableName>,
}

impl Others {
    fn has(&self, left: &LeftEmpty) -> bool {
        self.tables.contains(&left.table)
    }

    /// What the clone's backup says of such a table.
    pub(super) fn reason(backup: &str) -> String {
        format!("its rows are in backup {backup}")
    }
}

/// What of a backup comes back without its rows, and where those are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emptied {
    /// The tables, as far as the account that took the clone might see them.
    pub tables: Vec<LeftEmpty>,
    /// The logical backup that has rows, where one was taken.
    pub others: Option<Others>,
    /// The clone.
    pub backup: String,
    /// Whose it is.
    pub cluster: ClusterName,
    /// What commands repeat.
    pub flags: Flags,
}

impl Emptied {
    /// What of the backup; of one that is no clone nothing.
    #[must_use]
    pub fn of(manifest: &Manifest, catalog: &Catalog) -> Emptied {
        let left_out = catalog.header.left_out.iter();
        let left_out = left_out.filter(|_| manifest.strategy == Strategy::Clone);
        let tables: Vec<(LeftEmpty, &str)> = left_out
            .filter_map(|left| Some((left.path.parse().ok()?, left.reason.as_str())))
            .collect();
        let others = manifest.outcome.details["others"].as_str().map(|backup| {
            let reason = Others::reason(backup);
            let theirs = tables.iter().filter(|(_, why)| *why == reason);
            let tables = theirs.map(|(left, _)| left.table.clone()).collect();
            Others { backup: backup.to_owned(), tables }
        });
        Emptied {
            tables: tables.into_iter().map(|(left, _)| left).collect(),
            others,
            backup: manifest.backup.to_string(),
            cluster: manifest.cluster.clone(),
            flags: Flags::default(),
        }
    }

    /// The same, with flags that the commands in its remedies repeat.
    #[must_use]
    pub fn with_flags(self, flags: &Flags) -> Emptied {
        Emptied { flags: flags.clone(), ..self }
    }

    /// The command that restores the logical backup, `more` with it.
    fn restore(&self, others: &Others, more: &str) -> String {
        let target = match self.flags.target.as_str() {
            "" => " --target …",
            given => given,
        };
        let (backup, cluster, repository) = (&others.backup, &self.cluster, &self.flags.repository);
        format!("holdfast restore {backup} --cluster {cluster}{target}{more}{repository}")
    }

    /// Those of `tables` whose rows the logical backup has, with it, and those of which nothing was dumped.
    fn dumped<'a>(
        &self,
        tables: &'a [LeftEmpty],
    ) -> (Option<(&Others, Vec<&'a LeftEmpty>)>, Vec<&'a LeftEmpty>) {
        let has = |left: &&LeftEmpty| self.others.as_ref().is_some_and(|others| others.has(left));
        let (there, lost): (Vec<_>, Vec<_>) = tables.iter().partition(has);
        (self.others.as_ref().filter(|_| !there.is_empty()).map(|others| (others, there)), lost)
    }

    /// The commands that bring all of the clone, with these tables, to the point that is asked for.
    fn whole_at_point(&self, others: &Others) -> String {
        let Flags { repository, point, .. } = &self.flags;
        let (backup, cluster) = (&self.backup, &self.cluster);
        let rows = format!(
            "holdfast restore {} --cluster {cluster} --target … --overwrite{repository}",
            others.backup
        );
        format!(
            "as they were at that point, they are on a server of all of it: `holdfast restore {backup} --cluster \
             {cluster} --target-dir …{repository}`; start a server on the directory; `{rows}`; `holdfast binlog \
             apply --cluster {cluster} --target …{point}{repository}`"
        )
    }

    /// The same, with those of a server on the restored files that the account might not see.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn seen_by(self, server: &ConnectOptions) -> Result<Emptied> {
        Ok(Emptied { tables: CloneBackup::left_empty(server).await?, ..self })
    }

    /// For whoever restores all of the backup.
    #[must_use]
    pub fn finding(&self) -> Option<Finding> {
        if self.tables.is_empty() {
            return None;
        }
        let problem = format!(
            "these tables come back empty, for they are not InnoDB's: {}",
            list(&self.tables)
        );
        let (dumped, lost) = self.dumped(&self.tables);
        let mut remedy = Vec::new();
        if let Some((others, _)) = &dumped {
            remedy.push(format!(
                "start a server on the files, and bring the rows, before binlogs are applied to it: `{}`",
                self.restore(others, " --overwrite")
            ));
        }
        if !lost.is_empty() {
            remedy.push(format!("{} from another backup; {NEXT_TIME}", bring(&dumped, &lost)));
        }
        let remedy = remedy.join("; ");
        Some(Finding::new(Severity::Warning, &self.backup, problem, remedy))
    }

    /// Fails where the transactions of `route` change one of the tables, or may do so: the rows that they had have
    /// to be there before. `directory` has the clone as it is, and `apply` is the command that goes the route.
    ///
    /// # Errors
    /// [`ErrorKind::Target`]; as [`first_touch`].
    pub async fn refuse_route(
        &self,
        cx: &Context,
        store: &dyn SegmentStore,
        route: &Route,
        directory: &Path,
        apply: &str,
    ) -> Result<()> {
        let tables = self.tables.iter().map(|left| left.table.clone()).collect::<BTreeSet<_>>();
        if tables.is_empty() {
            return Ok(());
        }
        let Some(first) = first_touch(cx, store, route, &tables).await? else { return Ok(()) };
        let (dumped, lost) = self.dumped(&self.tables);
        let mut bringing = Vec::new();
        if let Some((others, _)) = &dumped {
            let restore = self.restore(others, " --overwrite");
            bringing.push(format!("bring the rows from before: `{restore}`"));
        }
        if !lost.is_empty() {
            bringing.push(format!("{} from before out of another backup", bring(&dumped, &lost)));
        }
        let bring = bringing.join("; ");
        Err(Error::new(
            ErrorKind::Target,
            format!(
                "the binlogs change tables whose rows a clone does not hold, from transaction {first} on; none of \
                 them is applied: {}",
                list(&self.tables)
            ),
        )
        .with_remedy(format!(
            "start a server on {}, which has the clone as it is; then {bring}; then `{apply}`",
            directory.display()
        )))
    }

    /// Fails where one of the tables is chosen: an empty one is not what anybody asks for. `rename` says under which
    /// names they were to come.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage).
    pub fn refuse(&self, selection: &Selection, rename: &Rename) -> Result<()> {
        let chosen = |left: &&LeftEmpty| {
            let TableName { database, table } = &left.table;
            selection.wants_table(database, table)
        };
        let chosen: Vec<LeftEmpty> = self.tables.iter().filter(chosen).cloned().collect();
        if chosen.is_empty() {
            return Ok(());
        }
        let (dumped, lost) = self.dumped(&chosen);
        let mut remedy = Vec::new();
        if let Some((others, there)) = &dumped {
            let names = words(there.iter().copied());
            let restore = format!(" --tables {names}{}", renamed(there, rename));
            remedy.push(format!(
                "the rows of {names}, as they were before the clone, are in the logical backup {}: `{}`",
                others.backup,
                self.restore(others, &restore)
            ));
            if !self.flags.point.is_empty() {
                remedy.push(self.whole_at_point(others));
            }
        }
        if !lost.is_empty() {
            let names = words(lost.iter().copied());
            let mut restore = format!("restore {names} from another backup");
            if !renamed(&lost, rename).is_empty() || !self.flags.point.is_empty() {
                let renamed = renamed(&lost, rename);
                restore.push_str(&format!(", with{renamed}{}", self.flags.point));
            }
            remedy.push(format!("{restore}; {NEXT_TIME}"));
        }
        let names = words(&chosen);
        remedy.push(format!("what else was chosen comes with --exclude-tables {names}"));
        Err(Error::usage(format!(
            "{} is a clone, and holds no rows of tables that are not InnoDB's: {}",
            self.backup,
            list(&chosen)
        ))
        .with_remedy(remedy.join("; ")))
    }
}

/// What has the rows beside the next clone. Where it was given, the account may not have seen all tables.
const NEXT_TIME: &str = "--clone-others, with an account that may see all tables (GRANT SELECT ON *.*), dumps them \
                         beside the next clone";

/// Whose rows are to be brought: all of them, or those that were not dumped.
fn bring(dumped: &Option<(&Others, Vec<&LeftEmpty>)>, lost: &[&LeftEmpty]) -> String {
    match dumped {
        None => "bring the rows".to_owned(),
        Some(_) => {
            let names: Vec<String> = lost.iter().map(|left| left.table.to_string()).collect();
            format!("bring those of {}, which were not dumped,", names.join(", "))
        }
    }
}

/// Their names, as `--tables` takes them.
fn words<'a>(tables: impl IntoIterator<Item = &'a LeftEmpty>) -> String {
    let names: Vec<String> = tables.into_iter().map(|left| left.table.to_string()).collect();
    shell_word(&names.join(",")).into_owned()
}

/// The flags that give tables the names that they were to have.
fn renamed(tables: &[&LeftEmpty], rename: &Rename) -> String {
    let rules = tables.iter().filter_map(|left| {
        let new = rename.table(&left.table);
        let rule = format!("{}={new}", left.table);
        (new != left.table).then(|| format!(" --rename {}", shell_word(&rule)))
    });
    rules.collect()
}

/// Tables that a clone left empty, each with a mark that it keeps under whatever name binlogs give it.
#[derive(Debug)]
pub struct Marked {
    emptied: Emptied,
    mark: String,
}

impl Marked {
    /// Marks them at a private server, where no row of them is yet.
    ///
    /// # Errors
    /// What the server fails with.
    pub async fn set(cx: &Context, server: &ConnectOptions, emptied: Emptied) -> Result<Marked> {
        let mark = format!("holdfast-{:016x}", u64::from_le_bytes(cx.random()));
        let mut session = Session::open(server).await?;
        session.run("SET SESSION sql_log_bin = 0").await?;
        for (number, LeftEmpty { table, .. }) in emptied.tables.iter().enumerate() {
            let (database, name) = (quote_name(&table.database), quote_name(&table.table));
            session
                .run(&format!("ALTER TABLE {database}.{name} COMMENT = '{mark}-{number}'"))
                .await?;
        }
        session.close().await?;
        Ok(Marked { emptied, mark })
    }

    /// Fails where one of them is chosen by the name that it has by now.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage).
    pub async fn refuse(
        &self,
        server: &ConnectOptions,
        selection: &Selection,
        rename: &Rename,
    ) -> Result<()> {
        let mut session = Session::open(server).await?;
        let sql = "SELECT table_schema, table_name, table_comment FROM information_schema.tables \
                   WHERE table_comment LIKE ?";
        let found: Vec<(String, String, String)> =
            session.exec_rows(sql, (format!("{}-%", self.mark),)).await?;
        session.close().await?;
        for (database, table, comment) in found {
            let number = comment.rsplit_once('-').and_then(|(_, number)| number.parse().ok());
            let was: Option<&LeftEmpty> =
                number.and_then(|number: usize| self.emptied.tables.get(number));
            if let (Some(was), true) = (was, selection.wants_table(&database, &table)) {
                let only = Selection { tables: [was.table.clone()].into(), ..Selection::default() };
                let now = TableName { database, table };
                // Where the name is another by now, the rows of before are to have that, too.
                let new = rename.table(&now);
                let rename = Rename::from_iter([RenameRule::Table { old: was.table.clone(), new }]);
                return self.emptied.refuse(&only, &rename).map_err(|e| {
                    e.context(format!("{now} was {} when the clone was taken", was.table))
                });
            }
        }
        Ok(())
    }
}

fn list(tables: &[LeftEmpty]) -> String {
    tables.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// As it is displayed.
impl FromStr for LeftEmpty {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.strip_suffix(')').and_then(|text| text.rsplit_once(" ("));
        let (table, engine) =
            parts.ok_or_else(|| Error::usage(format!("`{text}` is no table and its engine")))?;
        Ok(LeftEmpty { table: table.parse()?, engine: engine.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_are_read_as_they_are_written(database in "\\PC{1,8}", table in "\\PC{1,8}") {
            let engine = "MyISAM".to_owned();
            let left = LeftEmpty { table: TableName { database, table }, engine };
            prop_assert_eq!(left.to_string().parse::<LeftEmpty>().unwrap(), left);
        }
    }
}
