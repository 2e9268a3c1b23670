//! What a restore has done so far, in a table of the target.
//!
//! A mark of rows is written in the transaction of those rows, so that both are there or neither
//! is, whatever dies and whenever. The primary key makes a second attempt of the same rows wait
//! until the first one is over, and fail where it went in.

use std::collections::BTreeMap;
use std::fmt;

use backup_core::{BackupId, Error, ErrorKind, Result};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::super::catalog::Catalog;
use super::super::ddl::{hex_text, quote_text};
use super::super::select::TableName;
use crate::connect::Session;

/// How long to wait for another restore of the same kind to end: its connection may be closing.
const LOCK_SECONDS: u32 = 10;

/// How the marks of grants begin.
const GRANT: &str = "grant ";

/// Something that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::logical) enum Mark {
    /// What was in the way has been dropped.
    Cleared,
    /// `local_infile` was off and has to be off again.
    LocalInfile,
    /// `log_bin_trust_function_creators` was off and has to be off again.
    Trust,
    /// The redo log was on and has to be on again.
    RedoLog,
    /// The redo log was made larger and has to be of this size again.
    RedoSize,
    /// `max_allowed_packet` was made larger and has to be this again.
    Packet,
    /// What an account may do with a routine, and loses when that is dropped; by the hash of the statement, so that
    /// one is marked once, whoever marks it.
    Grant(u64),
    /// All tables have been created.
    Defined,
    /// A table was created; with its [identity](super::work).
    Created(usize),
    /// A unit of a table is in.
    Loaded(usize, usize),
    /// A table has its rows, indexes and statistics.
    Finished(usize),
    /// Every row was read back.
    Checked,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Mark::Cleared => f.write_str("cleared"),
            Mark::LocalInfile => f.write_str("local_infile"),
            Mark::Trust => f.write_str("trust"),
            Mark::RedoLog => f.write_str("redo_log"),
            Mark::RedoSize => f.write_str("redo_size"),
            Mark::Packet => f.write_str("packet"),
            Mark::Grant(hash) => write!(f, "{GRANT}{hash:016x}"),
            Mark::Defined => f.write_str("defined"),
            Mark::Created(table) => write!(f, "created {table}"),
            Mark::Loaded(table, unit) => write!(f, "loaded {table} {unit}"),
            Mark::Finished(table) => write!(f, "finished {table}"),
            Mark::Checked => f.write_str("checked"),
        }
    }
}

/// The marks that are there, by name, each with its value.
#[derive(Debug, Clone, Default)]
pub(in crate::logical) struct State {
    marks: BTreeMap<String, String>,
    resumed: bool,
}

impl State {
    /// Whether an earlier run left them.
    pub(in crate::logical) fn is_resumed(&self) -> bool {
        self.resumed
    }

    pub(in crate::logical) fn has(&self, mark: Mark) -> bool {
        self.marks.contains_key(&mark.to_string())
    }

    pub(in crate::logical) fn forget(&mut self, mark: Mark) {
        self.marks.remove(&mark.to_string());
    }

    /// The grants that were marked, as statements.
    pub(in crate::logical) fn grants(&self) -> Vec<String> {
        let grants = self.marks.iter().filter(|(name, _)| name.starts_with(GRANT));
        grants.map(|(_, statement)| statement.clone()).collect()
    }

    pub(in crate::logical) fn value(&self, mark: Mark) -> Option<&str> {
        self.marks.get(&mark.to_string()).map(String::as_str)
    }
}

/// The table that holds the marks of one restore.
#[derive(Debug, Clone)]
pub(in crate::logical) struct Progress {
    id: String,
    name: TableName,
    table: String,
}

impl Progress {
    /// That of the restore of what `catalog` holds, under the names it has there. `None` where there
    /// is no database to hold it, nor anything to mark.
    pub(in crate::logical) fn of(backup: &BackupId, catalog: &Catalog) -> Option<Self> {
        let database = &catalog.databases.first()?.name;
        // The same backup, the same objects under the same names: the same restore.
        let mut text = format!("1\n{backup}\n");
        let stored = catalog.stored.iter().map(|o| (o.kind.to_string(), o.full_name()));
        let tables = catalog.tables.iter().map(|t| (String::new(), t.full_name()));
        for (kind, name) in tables.chain(stored) {
            text.push_str(&format!("{kind} {name}\n"));
        }
        let id = format!("{:016x}", xxh3_128(text.as_bytes()) as u64);
        let name =
            TableName { database: database.clone(), table: format!("holdfast_restore_{id}") };
        Some(Progress { id, table: name.quoted(), name })
    }

    /// Its name.
    pub(in crate::logical) fn name(&self) -> &TableName {
        &self.name
    }

    /// Sixteen hexadecimal digits that are in every statement which a process that died may have
    /// left running.
    pub(in crate::logical) fn id(&self) -> &str {
        &self.id
    }

    /// Keeps other processes from doing this restore, for as long as the session lives.
    pub(in crate::logical) async fn lock(&self, session: &mut Session) -> Result<()> {
        let name = quote_text(&format!("holdfast:{}", self.id));
        let sql = format!("SELECT GET_LOCK({name}, {LOCK_SECONDS})");
        if session.query_first::<Option<i64>>(&sql).await?.flatten() == Some(1) {
            return Ok(());
        }
        let holder: Option<Option<u64>> =
            session.query_first(&format!("SELECT IS_USED_LOCK({name})")).await?;
        let holder = holder.flatten().unwrap_or_default();
        Err(Error::new(ErrorKind::Busy, "another process is doing the same restore").with_remedy(
            format!(
                "wait until it ends; if that process is dead, run KILL {holder} at the target and \
                 try again"
            ),
        ))
    }

    /// Stops what a process that died left running at the target.
    pub(in crate::logical) async fn stop_leftovers(&self, session: &mut Session) -> Result<()> {
        let sql = format!(
            "SELECT ID FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND INFO LIKE \
             '%holdfast-{}%'",
            self.id
        );
        for id in session.query_rows::<u64>(&sql).await? {
            match session.run(&format!("KILL {id}")).await {
                // It is gone already.
                Err(e) if e.server().is_some_and(|s| s.code == 1094) => {}
                other => drop(other?),
            }
        }
        Ok(())
    }

    /// What an earlier run has done, if there was one.
    pub(in crate::logical) async fn read(&self, session: &mut Session) -> Result<Option<State>> {
        let sql = format!("SELECT item, value FROM {}", self.table);
        match session.query_rows::<(String, String)>(&sql).await {
            Ok(marks) => Ok(Some(State { marks: marks.into_iter().collect(), resumed: true })),
            // No such table or database, or none that this account could see.
            Err(e) if e.server().is_some_and(|s| [1146, 1049, 1142, 1044].contains(&s.code)) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Makes the table, with the grants that go with what is dropped next and no other mark. Grants that an earlier
    /// run marked stay in it all the while: what they speak of may be gone already.
    pub(in crate::logical) async fn begin(
        &self,
        session: &mut Session,
        grants: &[String],
    ) -> Result<()> {
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS {} (item VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY \
             KEY, value VARCHAR(1024) CHARACTER SET utf8mb4 NOT NULL) ENGINE=InnoDB \
             COMMENT='what an unfinished restore of holdfast has done'",
            self.table
        );
        session.run(&sql).await?;
        self.set_grants(session, grants).await?;
        let sql = format!("DELETE FROM {} WHERE item NOT LIKE '{GRANT}%'", self.table);
        session.run(&sql).await.map(drop)
    }

    /// Drops the table.
    pub(in crate::logical) async fn end(&self, session: &mut Session) -> Result<()> {
        session.run(&format!("DROP TABLE IF EXISTS {}", self.table)).await.map(drop)
    }

    /// The statement that sets a mark, and fails where it is set.
    pub(in crate::logical) fn insert(&self, mark: Mark) -> String {
        format!("INSERT INTO {} VALUES ('{mark}', '')", self.table)
    }

    /// Sets a mark to a value.
    pub(in crate::logical) async fn set(
        &self,
        session: &mut Session,
        mark: Mark,
        value: &str,
    ) -> Result<()> {
        let value = hex_text(value);
        session.run(&format!("REPLACE INTO {} VALUES ('{mark}', {value})", self.table)).await?;
        Ok(())
    }

    /// Marks the grants that go with what is dropped next.
    pub(in crate::logical) async fn set_grants(
        &self,
        session: &mut Session,
        grants: &[String],
    ) -> Result<()> {
        for grant in grants {
            self.set(session, Mark::Grant(xxh3_64(grant.as_bytes())), grant).await?;
        }
        Ok(())
    }

    /// Takes a mark away.
    pub(in crate::logical) async fn unset(&self, session: &mut Session, mark: Mark) -> Result<()> {
        session.run(&format!("DELETE FROM {} WHERE item = '{mark}'", self.table)).await.map(drop)
    }
}
