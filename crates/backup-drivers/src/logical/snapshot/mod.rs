//! One moment for many connections.
//!
//! Every reader opens its transaction at the very same state of the server, and the position in the
//! binary log that is recorded belongs to that state. There are three ways, the first that can be
//! gone is taken:
//! - without a lock, where the server can tell that nothing was committed meanwhile ([`lock_free`]);
//! - a global read lock for the moment in which the readers begin;
//! - read locks on all tables for that moment, where the account may not lock the server.
//!
//! Tables without transactions are of no snapshot: they are locked before it and read first.
//!
//! A lock has a deadline: when it is over, a second connection kills the one that holds it, and the
//! backup fails rather than the server stall.

mod busy;
mod lock_free;
mod tables;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use backup_core::{
    Capabilities, Context, Error, ErrorKind, Flavor, GtidSet, Position, Result, ResultExt,
};
use futures::future::try_join_all;

use super::fingerprint::{Fingerprints, Partitions};
use super::inventory::{self, ServerFacts};
use super::reader::reader;
use super::replica::{self, Applied};
use super::select::{Selection, TableName, quote_name};
use super::waits;
use crate::connect::{ConnectOptions, Session};
use crate::wire;

/// Set in each reader's transaction before it touches a table.
const SAVEPOINT: &str = "SAVEPOINT holdfast";

/// Makes a reader let go of the tables it has read, so that DDL on them need not wait, and nobody
/// behind it; the snapshot stays.
pub(super) const LET_GO: &str = "ROLLBACK TO SAVEPOINT holdfast";

/// Begins a reader's transaction.
const BEGIN: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

/// The longest that everybody waits behind one attempt to get the global lock.
const ATTEMPT_SECONDS: u64 = 3;

pub use busy::LongQueries;
pub(crate) use busy::clear as clear_long_queries;
pub(super) use tables::TableLocks;

/// How the moment is reached.
#[derive(Debug, Clone)]
pub struct SnapshotOptions {
    /// The longest time that a lock of the whole server may be waited for and held together.
    /// Default: 30 seconds.
    pub lock_timeout: Duration,
    /// The longest time that tables without transactions stay locked while they are read. Those that
    /// are not read by then may be of a later moment. Default: 60 seconds.
    pub table_lock_timeout: Duration,
    /// Tables without transactions that are not locked: the server refuses those that are damaged.
    pub unlocked: BTreeSet<TableName>,
    /// Takes the global lock even where it could be done without.
    pub always_lock: bool,
    /// What is done about statements that run for long before the global lock.
    pub long_queries: LongQueries,
    /// From when on a statement runs for long. Default: 10 seconds.
    pub long_query_time: Duration,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        SnapshotOptions {
            lock_timeout: Duration::from_secs(30),
            table_lock_timeout: Duration::from_secs(60),
            unlocked: BTreeSet::new(),
            always_lock: false,
            long_queries: LongQueries::default(),
            long_query_time: Duration::from_secs(10),
        }
    }
}

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
    /// The locks on tables without transactions, until those are read.
    pub table_locks: Option<TableLocks>,
    /// The tables that these locks are on.
    pub locked: BTreeSet<TableName>,
    /// What a replica had applied of its sources at that moment.
    pub applied: Vec<Applied>,
    /// Holds the lock against DDL until it is dropped.
    guard: Session,
    /// Keeps the definitions of tables, where the account may not lock out DDL.
    pin: Option<Session>,
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
        if let Some(pin) = &mut self.pin {
            pin.run("DO 1").await.map_err(|e| {
                e.context("the connection that kept DDL off the tables was lost during the backup")
                    .with_kind(ErrorKind::Source)
                    .with_remedy("run the backup again, and let its connections live")
            })?;
        }
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
    options: &SnapshotOptions,
) -> Result<Snapshot> {
    let mut guard = Session::open(source).await?;
    let (ddl, mut ddl_reason) = (keep_ddl_out(cx, source, &mut guard, facts, selection)).await?;
    let connecting = (0..count).map(|_| reader(source));
    let mut readers = cx.run(try_join_all(connecting)).await?;
    for reader in &mut readers {
        // Behind LOCK TABLES … WRITE of somebody.
        reader.query(&waits::at_most(options.lock_timeout)).await?;
    }
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
    let mut without = inventory::list_non_transactional(guard.conn(), selection).await?;
    without.retain(|name| !options.unlocked.contains(name));

    // Where a replica stands in its source's binary log is known while it applies nothing: in a lock,
    // or when it was paused.
    let applies = replica::applied(&mut guard, facts).await?;
    let still = applies.iter().all(|applied| !applied.running);
    let sound = !options.always_lock && still && lock_free::is_sound(&mut guard, facts).await?;
    let mut table_locks = None;
    let mut place = None;
    if sound {
        table_locks = cx.run(TableLocks::take(source, &without, options.lock_timeout)).await?;
        place = cx.run(lock_free::open(cx, &mut guard, facts, &mut readers)).await?;
    }
    let mut applied = if place.is_some() { applies } else { Vec::new() };
    let (position, tables, lock, reason) = if let Some(position) = place {
        let tables = inventory::list_tables(guard.conn(), selection).await?;
        if let Ddl::Watched(fingerprints, _) = &ddl {
            fingerprints.same_tables(&tables)?;
        }
        let reason = "all readers began at one position of the binary log, without a lock: nothing \
                      was committed meanwhile";
        (position, tables, Duration::ZERO, reason)
    } else {
        // The global lock would wait for them.
        if let Some(locks) = table_locks.take() {
            locks.release().await;
        }
        let seconds = options.lock_timeout.as_secs().clamp(1, ATTEMPT_SECONDS);
        guard.run(&format!("SET SESSION lock_wait_timeout = {seconds}")).await?;
        let ddl_is_out = !matches!(ddl, Ddl::Watched(..));
        let locker = Locker { cx, source, facts, selection, options, without, ddl_is_out };
        locker.lock(&mut guard, &mut readers, &mut applied, &mut table_locks).await?
    };
    replica::tell_untold(cx, &applied, position.gtid.is_some());
    let locked: BTreeSet<TableName> =
        table_locks.iter().flat_map(|locks| locks.tables.iter().cloned()).collect();
    if !locked.is_empty() {
        ddl_reason.push_str("; tables without transactions were locked before and read first");
    }
    for reader in &mut readers {
        reader.query(SAVEPOINT).await?;
    }
    let (fingerprints, partitions, pin) = match ddl {
        Ddl::LockedOut => (None, None, None),
        Ddl::Pinned(pin) => (None, None, Some(pin)),
        Ddl::Watched(fingerprints, partitions) => (Some(fingerprints), partitions, None),
    };
    Ok(Snapshot {
        readers,
        tables,
        position,
        reason: format!("{reason}; {ddl_reason}"),
        lock,
        fingerprints,
        partitions,
        table_locks,
        locked,
        applied,
        guard,
        pin,
    })
}

/// What keeps DDL from spoiling the backup.
enum Ddl {
    /// `LOCK INSTANCE FOR BACKUP`.
    LockedOut,
    /// A transaction that has looked at every table.
    Pinned(Session),
    /// Nothing; but it is noticed.
    Watched(Fingerprints, Option<Partitions>),
}

async fn keep_ddl_out(
    cx: &Context,
    source: &ConnectOptions,
    guard: &mut Session,
    facts: &ServerFacts,
    selection: &Selection,
) -> Result<(Ddl, String)> {
    if !facts.capabilities().backup_lock {
        let fingerprints = cx.run(Fingerprints::take(source, guard, selection)).await?;
        let partitions = Partitions::read(guard).await?;
        let reason = "DDL on a table fails the backup".to_owned();
        return Ok((Ddl::Watched(fingerprints, partitions), reason));
    }
    guard.run("SET SESSION lock_wait_timeout = 30").await?;
    match cx.run(guard.run("LOCK INSTANCE FOR BACKUP")).await {
        Ok(_) => Ok((Ddl::LockedOut, "DDL was locked out until the end".to_owned())),
        // Managed servers give BACKUP_ADMIN to nobody.
        Err(e) if e.kind() == ErrorKind::Privilege => {
            let mut pin = Session::open(source).await?;
            pin.run("SET SESSION lock_wait_timeout = 60").await?;
            pin.run("START TRANSACTION READ ONLY").await?;
            for name in inventory::list_tables(guard.conn(), selection).await? {
                cx.check()?;
                let table = format!("{}.{}", quote_name(&name.database), quote_name(&name.table));
                pin.run(&format!("SELECT 1 FROM {table} LIMIT 0")).await?;
            }
            let reason = "DDL on the tables had to wait until the end".to_owned();
            Ok((Ddl::Pinned(pin), reason))
        }
        Err(e) => Err(e.context(
            "cannot lock the instance against DDL (another backup, or DDL that is still running)",
        )),
    }
}

/// Position, tables, how long others could feel the lock, and how it was done.
type Locked = (Position, Vec<TableName>, Duration, &'static str);

/// The ways that need a lock.
struct Locker<'a> {
    cx: &'a Context,
    source: &'a ConnectOptions,
    facts: &'a ServerFacts,
    selection: &'a Selection,
    options: &'a SnapshotOptions,
    /// The tables without transactions.
    without: Vec<TableName>,
    ddl_is_out: bool,
}

impl Locker<'_> {
    async fn lock(
        &self,
        guard: &mut Session,
        readers: &mut [wire::Connection],
        applied: &mut Vec<Applied>,
        table_locks: &mut Option<TableLocks>,
    ) -> Result<Locked> {
        let mut watchdog = Session::open(self.source).await?;
        let SnapshotOptions { lock_timeout, long_queries, long_query_time, .. } = *self.options;
        busy::clear(self.cx, &mut watchdog, long_queries, long_query_time, lock_timeout).await?;
        let holder = guard.id();
        let locked = self.under_lock(guard, readers, applied, table_locks);
        let outcome = tokio::select! {
            biased;
            outcome = tokio::time::timeout(lock_timeout, locked) => outcome,
            () = self.cx.cancellation().cancelled() => {
                release(&mut watchdog, holder).await?;
                return Err(Error::interrupted());
            }
        };
        match outcome {
            Ok(Ok(locked)) => {
                // A connection that was idle while the lock was waited for is of no more use.
                watchdog.close().await?;
                Ok(locked)
            }
            Ok(Err(error)) => {
                release(&mut watchdog, holder).await?;
                Err(error.context("cannot open a consistent snapshot"))
            }
            Err(_) => {
                release(&mut watchdog, holder).await?;
                let seconds = lock_timeout.as_secs().max(1);
                Err(Error::new(
                    ErrorKind::Source,
                    format!("the global read lock was not had and released within {seconds} s"),
                )
                .with_remedy(
                    "end the long-running statements that SHOW PROCESSLIST names, or run the backup \
                     at a quieter time, or with a longer --lock-timeout",
                ))
            }
        }
    }

    async fn under_lock(
        &self,
        guard: &mut Session,
        readers: &mut [wire::Connection],
        applied: &mut Vec<Applied>,
        table_locks: &mut Option<TableLocks>,
    ) -> Result<Locked> {
        // From here on other sessions may wait, also while we wait for the lock ourselves.
        let mut began = Instant::now();
        let mut reason = "all readers began under one global read lock";
        let asked = loop {
            match guard.run("FLUSH TABLES WITH READ LOCK").await {
                // Two writers that wait for each other's rows, one of them behind this lock, would wait
                // for ever: they get their turn, then we try again. The caller has a deadline.
                Err(e) if e.server().is_some_and(|s| s.code == 1205) => {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    began = Instant::now();
                }
                other => break other,
            }
        };
        match asked {
            Ok(_) => {}
            // Managed servers do not let anybody lock all of them.
            Err(e) if e.kind() == ErrorKind::Privilege => {
                let tables = inventory::list_tables(guard.conn(), self.selection).await?;
                began = Instant::now();
                if !tables.is_empty() {
                    guard.run(&tables::statement(&tables)).await.map_err(|e| {
                        e.with_remedy(
                            "grant RELOAD ON *.*, or LOCK TABLES on the databases where that cannot \
                             be had",
                        )
                    })?;
                }
                reason = "all readers began under read locks on all tables, as the account may not \
                          lock the server";
            }
            Err(e) => return Err(e),
        }
        // The global lock would wait for these, but not the other way round.
        let lock_timeout = self.options.lock_timeout;
        *table_locks = TableLocks::take(self.source, &self.without, lock_timeout).await?;
        for reader in readers.iter_mut() {
            reader.query(BEGIN).await?;
        }
        let position = position(guard, self.facts, &self.facts.capabilities()).await?;
        *applied = replica::applied(guard, self.facts).await?;
        // Where DDL is kept out the list is as good later; elsewhere only now.
        let early = match self.ddl_is_out {
            true => None,
            false => Some(inventory::list_tables(guard.conn(), self.selection).await?),
        };
        guard.run("UNLOCK TABLES").await?;
        let lock = began.elapsed();
        let tables = match early {
            Some(tables) => tables,
            None => inventory::list_tables(guard.conn(), self.selection).await?,
        };
        Ok((position, tables, lock, reason))
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

/// The position of a place in the binary log of a MariaDB that has got `replicated` from others. Its data have that,
/// whether its binary log does or not: where that leaves replication out, where it began anew, and where it stands at
/// what the server wrote itself before it became a replica.
async fn position_of(
    guard: &mut Session,
    file: String,
    offset: u64,
    replicated: &GtidSet,
) -> Result<Position> {
    let logged = logged_until(guard, &file, offset).await?;
    let gtid = match logged {
        Some(logged) => logged.union(replicated)?,
        None => replicated.clone(),
    };
    let gtid = Some(gtid).filter(|gtid| !gtid.is_empty());
    Ok(Position { gtid, ..Position::at(file, offset) })
}

/// The last GTID of each domain in the binary log of a MariaDB up to a place; `None` where it has no such place.
pub(crate) async fn logged_until(
    session: &mut Session,
    file: &str,
    offset: u64,
) -> Result<Option<GtidSet>> {
    let file = file.replace('\\', "\\\\").replace('\'', "''");
    let sql = format!("SELECT BINLOG_GTID_POS('{file}', {offset})");
    let gtid = session.query_first::<Option<String>>(&sql).await?.flatten();
    gtid.map(|text| mariadb_gtids(&text)).transpose()
}

/// What a MariaDB has got from others. Of a moment only while nothing is applied.
async fn replicated(session: &mut Session) -> Result<GtidSet> {
    let text: Option<String> = session.query_first("SELECT @@GLOBAL.gtid_slave_pos").await?;
    mariadb_gtids(&text.unwrap_or_default())
}

fn mariadb_gtids(text: &str) -> Result<GtidSet> {
    GtidSet::parse(Flavor::MariaDb, text).context(|| "the server's GTID set cannot be read")
}

/// The position in the server's own binary log. Exact only while nothing can commit.
pub(crate) async fn current_position(guard: &mut Session, facts: &ServerFacts) -> Result<Position> {
    position(guard, facts, &facts.capabilities()).await
}

/// As [`current_position`], for what the server can do.
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
    if facts.flavor == Flavor::MariaDb {
        let replicated = replicated(guard).await?;
        return match (file, offset) {
            (Some(file), Some(offset)) => position_of(guard, file, offset, &replicated).await,
            _ => {
                let gtid = Some(replicated).filter(|gtid| !gtid.is_empty());
                Ok(Position { gtid, ..Position::default() })
            }
        };
    }
    let gtid: Option<String> = guard.query_first("SELECT @@GLOBAL.gtid_executed").await?;
    let gtid = gtid
        .filter(|text| !text.is_empty())
        .map(|text| GtidSet::parse(facts.flavor, &text))
        .transpose()
        .context(|| "the server's GTID set cannot be read")?;
    Ok(Position { gtid, file, offset, ..Position::default() })
}
