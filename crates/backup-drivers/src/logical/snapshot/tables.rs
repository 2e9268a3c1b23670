//! Read locks on tables: on those without transactions until they are read, and on all of them for
//! a moment where the account may not lock the whole server.

use std::time::{Duration, Instant};

use backup_core::{Error, ErrorKind, Result};

use crate::connect::{ConnectOptions, Session};
use crate::logical::select::{TableName, quote_name};

/// `LOCK TABLES … READ` for all of `tables`.
pub(super) fn statement(tables: &[TableName]) -> String {
    let locks: Vec<String> = tables
        .iter()
        .map(|t| format!("{}.{} READ", quote_name(&t.database), quote_name(&t.table)))
        .collect();
    format!("LOCK TABLES {}", locks.join(", "))
}

/// Tables without transactions that nobody can write to until they are read.
pub(in crate::logical) struct TableLocks {
    session: Session,
    since: Instant,
    /// The tables.
    pub(in crate::logical) tables: Vec<TableName>,
}

impl TableLocks {
    /// Locks `tables`. `None` where there are none, or the account may not.
    pub(super) async fn take(
        source: &ConnectOptions,
        tables: &[TableName],
        timeout: Duration,
    ) -> Result<Option<Self>> {
        if tables.is_empty() {
            return Ok(None);
        }
        let mut session = Session::open(source).await?;
        let seconds = timeout.as_secs().max(1);
        session.run(&format!("SET SESSION lock_wait_timeout = {seconds}")).await?;
        let since = Instant::now();
        match session.run(&statement(tables)).await {
            Ok(_) => Ok(Some(TableLocks { session, since, tables: tables.to_vec() })),
            Err(e) if e.kind() == ErrorKind::Privilege => Ok(None),
            Err(e) => Err(Error::new(
                ErrorKind::Source,
                format!("cannot lock the tables without transactions within {seconds} s"),
            )
            .with_source(e.chain())
            .with_remedy(
                "end the long-running statements that SHOW PROCESSLIST names, or run the backup at \
                 a quieter time, or with a longer --lock-timeout",
            )),
        }
    }

    /// Lets writers go on. Gives how long they had to wait at most, and whether the tables were
    /// locked until now.
    pub(in crate::logical) async fn release(mut self) -> (Duration, bool) {
        let held = self.session.run("UNLOCK TABLES").await.is_ok();
        (self.since.elapsed(), held)
    }
}
