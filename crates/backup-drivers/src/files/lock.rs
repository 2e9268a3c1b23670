//! A server that stands still for a moment.

use std::time::{Duration, Instant};

use backup_core::{Context, Error, ErrorKind, Position, Result};

use crate::connect::{ConnectOptions, Session};
use crate::logical::inventory::ServerFacts;
use crate::logical::{LongQueries, SnapshotOptions, clear_long_queries, current_position};

/// How long one attempt to get the lock may keep everybody else waiting, in seconds.
const ATTEMPT: u64 = 3;

/// What waits while a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// Every statement that writes. It is had when every statement has ended that runs, queries too.
    Statements,
    /// Commits, DDL, and writes to tables without transactions (`BACKUP STAGE` of MariaDB). Queries and open
    /// transactions go on, and it does not wait for them.
    Commits,
}

impl Waits {
    /// What is enough for a snapshot, whose server recovers to the last commit in it.
    pub(crate) fn for_a_snapshot(facts: &ServerFacts) -> Waits {
        match facts.capabilities().backup_stage {
            true => Waits::Commits,
            false => Waits::Statements,
        }
    }

    /// What takes the lock, in order; and whether others feel it from there on.
    fn statements(self) -> &'static [(&'static str, bool)] {
        match self {
            Waits::Statements => &[("FLUSH TABLES WITH READ LOCK", true)],
            Waits::Commits => &[
                ("BACKUP STAGE START", false),
                ("BACKUP STAGE FLUSH", false),
                ("BACKUP STAGE BLOCK_DDL", true),
                ("BACKUP STAGE BLOCK_COMMIT", true),
            ],
        }
    }

    fn end(self) -> &'static str {
        match self {
            Waits::Statements => "UNLOCK TABLES",
            Waits::Commits => "BACKUP STAGE END",
        }
    }

    /// What the lock is called.
    pub(crate) fn lock(self) -> &'static str {
        match self {
            Waits::Statements => "global read lock",
            Waits::Commits => "backup lock (BACKUP STAGE)",
        }
    }
}

/// A lock on the whole server, with a deadline: when it is over, a second connection kills the one that
/// holds it. Dropping the value gives the lock back too, with its connection.
pub(crate) struct GlobalLock {
    holder: Session,
    waits: Waits,
    /// Since when other sessions may feel it.
    began: Instant,
    watchdog: tokio::task::JoinHandle<()>,
    limit: Duration,
    /// When it is taken away, at the latest.
    ends: Instant,
}

/// How the lock is asked for.
#[derive(Debug, Clone, Copy)]
pub struct LockOptions {
    /// The longest that it is waited for and held together.
    pub limit: Duration,
    /// What is done about statements that run for long before.
    pub long_queries: LongQueries,
}

impl Default for LockOptions {
    fn default() -> Self {
        LockOptions { limit: Duration::from_secs(30), long_queries: LongQueries::default() }
    }
}

impl GlobalLock {
    /// Takes the lock.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] when it was not had in time; [`ErrorKind::Privilege`].
    pub(crate) async fn take(
        cx: &Context,
        source: &ConnectOptions,
        options: LockOptions,
        waits: Waits,
    ) -> Result<Self> {
        let mut second = Session::open(source).await?;
        let mut holder = Session::open(source).await?;
        if waits == Waits::Statements {
            let long = SnapshotOptions::default().long_query_time;
            clear_long_queries(cx, &mut second, options.long_queries, long, options.limit).await?;
        }
        let seconds = options.limit.as_secs().clamp(1, ATTEMPT);
        holder.run(&format!("SET SESSION lock_wait_timeout = {seconds}")).await?;
        let (id, limit) = (holder.id(), options.limit);
        let asked = Instant::now();
        let ends = asked + limit;
        let watchdog = tokio::spawn(async move {
            tokio::time::sleep(limit).await;
            // When this fails the connection is gone, and with it the lock.
            let _ = second.run(&format!("KILL {id}")).await;
        });
        loop {
            let mut began = Instant::now();
            let locked = cx.run(lock(&mut holder, waits, &mut began)).await;
            match locked {
                Ok(()) => return Ok(GlobalLock { holder, waits, began, watchdog, limit, ends }),
                // Two writers that wait for each other's rows, one of them behind this lock, would
                // wait for ever: they get their turn, then we try again.
                Err(e) if e.server().is_some_and(|s| s.code == 1205) && asked.elapsed() < limit => {
                    if waits == Waits::Commits {
                        holder.run(waits.end()).await?;
                    }
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                Err(e) => {
                    watchdog.abort();
                    if e.kind() == ErrorKind::Interrupted || e.kind() == ErrorKind::Privilege {
                        return Err(e);
                    }
                    return Err(Error::new(
                        ErrorKind::Source,
                        format!("the {} was not had within {} s", waits.lock(), limit.as_secs()),
                    )
                    .with_source(e)
                    .with_remedy(
                        "end the long-running statements that SHOW PROCESSLIST names, or run the \
                         backup at a quieter time, or with a longer --lock-timeout",
                    ));
                }
            }
        }
    }

    /// The position in the binary log; exact, since nothing can be committed.
    pub(crate) async fn position(&mut self, facts: &ServerFacts) -> Result<Position> {
        current_position(&mut self.holder, facts).await
    }

    /// Makes the engines write their logs to the disk. A commit that is in the binary log may be in the
    /// engine's log buffer only: in a copy of the files it would be prepared, and a server without
    /// that binary log could not tell what to do about it.
    pub(crate) async fn flush_engine_logs(&mut self) -> Result<()> {
        self.holder.run("FLUSH NO_WRITE_TO_BINLOG ENGINE LOGS").await.map(drop)
    }

    /// When nothing that is done under it is of any use any more: it was taken away a moment before.
    pub(crate) fn is_lost_at(&self) -> tokio::time::Instant {
        (self.ends + Duration::from_secs(1)).into()
    }

    /// The connection that holds it.
    pub(crate) fn session(&mut self) -> &mut Session {
        &mut self.holder
    }

    /// Gives the lock back. Gives how long others may have felt it.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] when it was lost before.
    pub(crate) async fn release(mut self) -> Result<Duration> {
        if self.holder.is_left() {
            // What was done under it was broken off in the middle of a statement: it goes with its connection.
            return Ok(self.began.elapsed());
        }
        let given_back = self.holder.run(self.waits.end()).await;
        let held = self.began.elapsed();
        self.watchdog.abort();
        given_back.map_err(|e| self.lost().with_source(e))?;
        Ok(held)
    }

    /// The error where it was taken away.
    pub(crate) fn lost(&self) -> Error {
        Error::new(
            ErrorKind::Source,
            format!(
                "the {} was held for longer than {} s and taken away",
                self.waits.lock(),
                self.limit.as_secs()
            ),
        )
        .with_remedy("allow more with --lock-timeout, or use a strategy that needs no lock")
    }
}

/// Takes the lock, step by step. `began` tells from when on others feel it.
async fn lock(holder: &mut Session, waits: Waits, began: &mut Instant) -> Result<()> {
    let mut felt = false;
    for &(statement, feels) in waits.statements() {
        if feels && !felt {
            (felt, *began) = (true, Instant::now());
        }
        holder.run(statement).await?;
    }
    Ok(())
}

impl Drop for GlobalLock {
    fn drop(&mut self) {
        self.watchdog.abort();
    }
}
