//! A server that stands still for a moment.

use std::time::{Duration, Instant};

use backup_core::{Context, Error, ErrorKind, Position, Result};

use crate::connect::{ConnectOptions, Session};
use crate::logical::inventory::ServerFacts;
use crate::logical::{LongQueries, SnapshotOptions, clear_long_queries, current_position};

/// How long one attempt to get the lock may keep everybody else waiting, in seconds.
const ATTEMPT: u64 = 3;

/// The global read lock, with a deadline: when it is over, a second connection kills the one that
/// holds it. Dropping the value gives the lock back too, with its connection.
pub(crate) struct GlobalLock {
    holder: Session,
    /// Since when other sessions may feel it.
    began: Instant,
    watchdog: tokio::task::JoinHandle<()>,
    limit: Duration,
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
    ) -> Result<Self> {
        let mut second = Session::open(source).await?;
        let mut holder = Session::open(source).await?;
        let long = SnapshotOptions::default().long_query_time;
        clear_long_queries(cx, &mut second, options.long_queries, long, options.limit).await?;
        let seconds = options.limit.as_secs().clamp(1, ATTEMPT);
        holder.run(&format!("SET SESSION lock_wait_timeout = {seconds}")).await?;
        let (id, limit) = (holder.id(), options.limit);
        let asked = Instant::now();
        let watchdog = tokio::spawn(async move {
            tokio::time::sleep(limit).await;
            // When this fails the connection is gone, and with it the lock.
            let _ = second.run(&format!("KILL {id}")).await;
        });
        let mut began = Instant::now();
        loop {
            let locked = cx.run(holder.run("FLUSH TABLES WITH READ LOCK")).await;
            match locked {
                Ok(_) => return Ok(GlobalLock { holder, began, watchdog, limit }),
                // Two writers that wait for each other's rows, one of them behind this lock, would
                // wait for ever: they get their turn, then we try again.
                Err(e) if e.server().is_some_and(|s| s.code == 1205) && asked.elapsed() < limit => {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                    began = Instant::now();
                }
                Err(e) => {
                    watchdog.abort();
                    if e.kind() == ErrorKind::Interrupted || e.kind() == ErrorKind::Privilege {
                        return Err(e);
                    }
                    return Err(Error::new(
                        ErrorKind::Source,
                        format!("the global read lock was not had within {} s", limit.as_secs()),
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

    /// The connection that holds it.
    pub(crate) fn session(&mut self) -> &mut Session {
        &mut self.holder
    }

    /// Gives the lock back. Gives how long others may have felt it.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] when it was lost before.
    pub(crate) async fn release(mut self) -> Result<Duration> {
        let given_back = self.holder.run("UNLOCK TABLES").await;
        let held = self.began.elapsed();
        self.watchdog.abort();
        given_back.map_err(|e| {
            Error::new(
                ErrorKind::Source,
                format!(
                    "the global read lock was held for longer than {} s and taken away",
                    self.limit.as_secs()
                ),
            )
            .with_source(e)
            .with_remedy("allow more with --lock-timeout, or use a strategy that needs no lock")
        })?;
        Ok(held)
    }
}

impl Drop for GlobalLock {
    fn drop(&mut self) {
        self.watchdog.abort();
    }
}
