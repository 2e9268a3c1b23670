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
use crate::logical::{Selection, TableName, quote_name};

/// The flags of the user that a command in a remedy repeats, each with a space before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// Those that name the target, where one is known.
    pub target: String,
    /// Those that name the repository, its key and the configuration; what the environment names needs none.
    pub repository: String,
}

/// What of a backup comes back without its rows, and where those are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emptied {
    /// The tables, as far as the account that took the clone might see them.
    pub tables: Vec<LeftEmpty>,
    /// The logical backup that has the rows, where one was taken.
    pub others: Option<String>,
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
        let tables = left_out.filter(|_| manifest.strategy == Strategy::Clone);
        Emptied {
            tables: tables.filter_map(|left| left.path.parse().ok()).collect(),
            others: manifest.outcome.details["others"].as_str().map(str::to_owned),
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
    fn restore(&self, others: &str, more: &str) -> String {
        let target = match self.flags.target.as_str() {
            "" => " --target …",
            given => given,
        };
        let (cluster, repository) = (&self.cluster, &self.flags.repository);
        format!("holdfast restore {others} --cluster {cluster}{target}{more}{repository}")
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
        let remedy = match &self.others {
            Some(others) => format!(
                "start a server on the files, and bring the rows, before binlogs are applied to it: `{}`",
                self.restore(others, " --overwrite")
            ),
            None => "bring the rows from another backup; --clone-others dumps them beside the next clone"
                .to_owned(),
        };
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
        let bring = match &self.others {
            Some(others) => {
                format!("bring the rows from before: `{}`", self.restore(others, " --overwrite"))
            }
            None => "bring the rows from before out of another backup".to_owned(),
        };
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

    /// Fails where one of the tables is chosen: an empty one is not what anybody asks for.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage).
    pub fn refuse(&self, selection: &Selection) -> Result<()> {
        let chosen = |left: &&LeftEmpty| {
            let TableName { database, table } = &left.table;
            selection.wants_table(database, table)
        };
        let chosen: Vec<LeftEmpty> = self.tables.iter().filter(chosen).cloned().collect();
        if chosen.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = chosen.iter().map(|left| left.table.to_string()).collect();
        let names = names.join(",");
        let names = shell_word(&names);
        let remedy = match &self.others {
            Some(others) => format!(
                "their rows, as they were before the clone, are in the logical backup {others}: `{}`; what else was \
                 chosen comes with --exclude-tables {names}",
                self.restore(others, &format!(" --tables {names}"))
            ),
            None => format!(
                "restore them from another backup, and what else was chosen with --exclude-tables {names}; \
                 --clone-others dumps them beside the next clone"
            ),
        };
        Err(Error::usage(format!(
            "{} is a clone, and holds no rows of tables that are not InnoDB's: {}",
            self.backup,
            list(&chosen)
        ))
        .with_remedy(remedy))
    }
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
    pub async fn refuse(&self, server: &ConnectOptions, selection: &Selection) -> Result<()> {
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
                return self.emptied.refuse(&only).map_err(|e| {
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
