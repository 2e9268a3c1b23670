//! One moment for many connections.
//!
//! Every reader opens its transaction while a global read lock is held, so that all of them see the
//! very same state, and the position in the binary log is read under that lock, so that it belongs
//! to that state. The lock has a deadline: when it is over, a second connection kills the one that
//! holds it, and the backup fails rather than the server stall.

use std::time::{Duration, Instant};

use backup_core::{
    Capabilities, Context, Error, ErrorKind, Flavor, GtidSet, Position, Result, ResultExt,
};
use futures::future::try_join_all;

use super::fingerprint::{Fingerprints, Partitions};
use super::inventory::{self, ServerFacts};
use super::reader::reader;
use super::select::{Selection, TableName};
use crate::connect::{ConnectOptions, Session};
use crate::wire;

/// Set in each reader's transaction before it touches a table.
const SAVEPOINT: &str = "SAVEPOINT holdfast";

/// Makes a reader let go of the tables it has read, so that DDL on them need not wait, and nobody
/// behind it; the snapshot stays.
pub(super) const LET_GO: &str = "ROLLBACK TO SAVEPOINT holdfast";

/// Readers that all see the same moment.
pub(super) struct Snapshot {
    /// Connections with an open transaction.
    pub readers: Vec<wire::Connection>,
    /// The base tables there were at that moment.
    pub tables: Vec<TableName>,
    /// The position of that moment.
    pub position: Position,
    /// How it was reached, for the manifest.
    pub reason: String,
    /// How long other sessions could feel the lock.
    pub lock: Duration,
    /// What the tables looked like, where DDL is not locked out.
    pub fingerprints: Option<Fingerprints>,
    /// The partitions there were, where DDL is not locked out and the account may see them.
    partitions: Option<Partitions>,
    /// Holds the lock against DDL until it is dropped.
    guard: Session,
}

impl Snapshot {
    /// Fails when the lock against DDL was lost on the way, with the connection that held it, or
    /// when partitions were exchanged.
    pub(super) async fn still_guarded(&mut self) -> Result<()> {
        self.guard.run("DO 1").await.map_err(|e| {
            e.context("the connection that kept DDL out was lost during the backup")
                .with_kind(ErrorKind::Source)
                .with_remedy("run the backup again, and let its connections live")
        })?;
        if let Some(before) = &self.partitions
            && let Some(now) = Partitions::read(&mut self.guard).await?
        {
            before.check(&now)?;
        }
        Ok(())
    }
}

/// Opens `count` readers at one moment.
pub(super) async fn open(
    cx: &Context,
    source: &ConnectOptions,
    facts: &ServerFacts,
    selection: &Selection,
    count: usize,
    lock_timeout: Duration,
) -> Result<Snapshot> {
    let mut guard = Session::open(source).await?;
    let mut watchdog = Session::open(source).await?;
    let seconds = lock_timeout.as_secs().max(1);
    guard.run(&format!("SET SESSION lock_wait_timeout = {seconds}")).await?;
    let capabilities = facts.capabilities();
    let mut reason = String::from("all readers began under one global read lock");
    if capabilities.backup_lock {
        cx.run(guard.run("LOCK INSTANCE FOR BACKUP")).await.context(|| {
            "cannot lock the instance against DDL (another backup, or DDL that is still running)"
        })?;
        reason.push_str("; DDL was locked out until the end");
    } else {
        reason.push_str("; DDL on a table fails the backup");
    }
    let (fingerprints, partitions) = if capabilities.backup_lock {
        (None, None)
    } else {
        let fingerprints = cx.run(Fingerprints::take(&mut guard, selection)).await?;
        (Some(fingerprints), Partitions::read(&mut guard).await?)
    };
    let connecting = (0..count).map(|_| reader(source));
    let mut readers = cx.run(try_join_all(connecting)).await?;
    if facts.flavor == Flavor::MariaDb {
        for reader in &mut readers {
            // With its binary log in the transaction, MariaDB would not let go of tables before the
            // end (see LET_GO). An account that may not ask for that keeps DDL waiting.
            match reader.query("SET SESSION sql_log_bin = 0").await {
                Err(e) if e.server().is_none() => return Err(e),
                _ => {}
            }
        }
    }

    let holder = guard.id();
    let locked = under_lock(&mut guard, &mut readers, facts, &capabilities, selection);
    let outcome = tokio::select! {
        biased;
        outcome = tokio::time::timeout(lock_timeout, locked) => outcome,
        () = cx.cancellation().cancelled() => {
            release(&mut watchdog, holder).await?;
            return Err(Error::interrupted());
        }
    };
    match outcome {
        Ok(Ok((position, tables, lock))) => {
            // A connection that was idle while the lock was waited for is of no more use.
            watchdog.close().await?;
            for reader in &mut readers {
                reader.query(SAVEPOINT).await?;
            }
            Ok(Snapshot {
                readers,
                tables,
                position,
                reason,
                lock,
                fingerprints,
                partitions,
                guard,
            })
        }
        Ok(Err(error)) => {
            release(&mut watchdog, holder).await?;
            Err(error.context("cannot open a consistent snapshot"))
        }
        Err(_) => {
            release(&mut watchdog, holder).await?;
            Err(Error::new(
                ErrorKind::Source,
                format!("the global read lock was not had and released within {seconds} s"),
            )
            .with_remedy(
                "end the long-running statements that SHOW PROCESSLIST names, or run the backup at \
                 a quieter time, or with a longer --lock-timeout",
            ))
        }
    }
}

/// Makes sure that the server lets go of every lock of the connection `holder`.
async fn release(watchdog: &mut Session, holder: u32) -> Result<()> {
    match watchdog.run(&format!("KILL {holder}")).await {
        Ok(_) => Ok(()),
        // It is gone already.
        Err(e) if e.server().is_some_and(|s| s.code == 1094) => Ok(()),
        Err(e) => {
            Err(e.context("cannot release the global read lock; KILL the connection by hand"))
        }
    }
}

async fn under_lock(
    guard: &mut Session,
    readers: &mut [wire::Connection],
    facts: &ServerFacts,
    capabilities: &Capabilities,
    selection: &Selection,
) -> Result<(Position, Vec<TableName>, Duration)> {
    // From here on other sessions may wait, also while we wait for the lock ourselves.
    let began = Instant::now();
    guard.run("FLUSH TABLES WITH READ LOCK").await?;
    for reader in readers.iter_mut() {
        reader.query("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY").await?;
    }
    let position = position(guard, facts, capabilities).await?;
    // Where DDL is locked out the list is as good later; elsewhere only now.
    let early = if capabilities.backup_lock {
        None
    } else {
        Some(inventory::list_tables(guard.conn(), selection).await?)
    };
    guard.run("UNLOCK TABLES").await?;
    let lock = began.elapsed();
    let tables = match early {
        Some(tables) => tables,
        None => inventory::list_tables(guard.conn(), selection).await?,
    };
    Ok((position, tables, lock))
}

/// The position in the server's own binary log. Exact only while nothing can commit.
async fn position(
    guard: &mut Session,
    facts: &ServerFacts,
    capabilities: &Capabilities,
) -> Result<Position> {
    let row: Option<mysql_async::Row> =
        guard.query_first(capabilities.binlog_status_statement()).await?;
    let (file, offset) = match row {
        Some(row) => (
            row.get_opt::<String, _>(0).and_then(std::result::Result::ok),
            row.get_opt::<u64, _>(1).and_then(std::result::Result::ok),
        ),
        None => (None, None),
    };
    let gtid: Option<String> = match (facts.flavor, &file, offset) {
        (Flavor::MySql, _, _) => guard.query_first("SELECT @@GLOBAL.gtid_executed").await?,
        (Flavor::MariaDb, Some(file), Some(offset)) => {
            let sql = format!("SELECT BINLOG_GTID_POS('{}', {offset})", file.replace('\'', "''"));
            guard.query_first::<Option<String>>(&sql).await?.flatten()
        }
        (Flavor::MariaDb, _, _) => guard.query_first("SELECT @@GLOBAL.gtid_slave_pos").await?,
    };
    let gtid = gtid
        .filter(|text| !text.is_empty())
        .map(|text| GtidSet::parse(facts.flavor, &text))
        .transpose()
        .context(|| "the server's GTID set cannot be read")?;
    Ok(Position { gtid, file, offset })
}
