//! InnoDB at rest: every change in the tablespaces, none on its way.
//!
//! A read lock of the server keeps statements from changing anything, but InnoDB goes on writing for a
//! while: dirty pages, purge, its log. Files that are copied meanwhile are of no common moment, and
//! pages may be torn. So all of it is written first; then nothing is left to write. That it stayed so
//! until the last file was read is seen by the log sequence number and the count of pages written.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use backup_core::{Context, Error, ErrorKind, Event, Flavor, Result};

use super::due;
use crate::connect::{ConnectOptions, Session};

/// Makes InnoDB write dirty pages as soon as there are any. The order is that of setting; the share at which writing
/// begins must not be above the other.
const EAGER: [&str; 2] = ["innodb_max_dirty_pages_pct_lwm", "innodb_max_dirty_pages_pct"];
/// Keeps InnoDB from finding more tables whose statistics are due.
const NO_MORE_DUE: &str = "innodb_stats_auto_recalc";
/// Keeps a MariaDB from writing those that are: it does so under a read lock, too, one table every ten seconds. A MySQL
/// writes them whatever it is set to, and they are waited for.
const NONE_WRITTEN: &str = "innodb_stats_persistent";

/// How often it is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long it must have been at rest: purge and others look once a second for something to do.
const QUIET: Duration = Duration::from_millis(1300);
/// The same where a checkpoint is behind, which is written into the log once a second.
const QUIET_BEHIND: Duration = Duration::from_secs(3);
/// How far a checkpoint is behind that is at the end: it is a record of the log itself in MariaDB.
const AT_THE_END: u64 = 64;

/// Where InnoDB is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Level {
    /// The end of the redo log.
    lsn: u64,
    checkpoint: u64,
    dirty: u64,
    /// Pages written since the server started.
    written: u64,
}

impl Level {
    async fn read(session: &mut Session, flavor: Flavor) -> Result<Self> {
        let sql = "SHOW GLOBAL STATUS LIKE 'Innodb%'";
        let rows: Vec<(String, String)> = session.query_rows(sql).await?;
        let values: HashMap<String, String> = rows.into_iter().collect();
        let get = |name: &str| {
            values.get(name).and_then(|value| value.parse::<u64>().ok()).ok_or_else(|| {
                Error::new(ErrorKind::Source, format!("the server does not tell {name}"))
                    .with_remedy("copy the stopped server, or use --strategy logical or snapshot")
            })
        };
        let (lsn, checkpoint) = match flavor {
            Flavor::MySql => ("Innodb_redo_log_current_lsn", "Innodb_redo_log_checkpoint_lsn"),
            Flavor::MariaDb => ("Innodb_lsn_current", "Innodb_lsn_last_checkpoint"),
        };
        Ok(Level {
            lsn: get(lsn)?,
            checkpoint: get(checkpoint)?,
            dirty: get("Innodb_buffer_pool_pages_dirty")?,
            written: get("Innodb_pages_written")?,
        })
    }

    /// Every page is in its file. What the log still has behind the checkpoint is in the files too,
    /// and a recovery passes over it.
    fn is_at_rest(&self) -> bool {
        self.dirty == 0
    }

    /// How long it must stay so until nothing more is expected to be written.
    fn quiet(&self) -> Duration {
        if self.lsn.saturating_sub(self.checkpoint) <= AT_THE_END { QUIET } else { QUIET_BEHIND }
    }
}

/// InnoDB, told to write what it has. Its settings are put back by [`Eager::end`]; where that is not
/// reached, a task does it.
pub(super) struct Eager {
    before: Vec<(&'static str, String)>,
    /// Whether the account may tell it that.
    pub(super) allowed: bool,
    source: ConnectOptions,
}

impl Eager {
    pub(super) async fn begin(
        cx: &Context,
        session: &mut Session,
        flavor: Flavor,
        source: &ConnectOptions,
    ) -> Result<Self> {
        let mut eager = Eager { before: Vec::new(), allowed: true, source: source.clone() };
        match eager.set_all(cx, session, flavor).await {
            Ok(()) => Ok(eager),
            Err(e) => {
                eager.end().await?;
                Err(e)
            }
        }
    }

    async fn set_all(&mut self, cx: &Context, session: &mut Session, flavor: Flavor) -> Result<()> {
        let were_found = self.set(session, NO_MORE_DUE).await?;
        match flavor {
            Flavor::MariaDb => {
                self.set(session, NONE_WRITTEN).await?;
            }
            Flavor::MySql if were_found => due::settled(cx, session).await?,
            Flavor::MySql => {}
        }
        for name in EAGER {
            self.set(session, name).await?;
        }
        Ok(())
    }

    /// Sets it to 0, and tells whether it was anything else.
    async fn set(&mut self, session: &mut Session, name: &'static str) -> Result<bool> {
        let value: Option<String> =
            session.query_first(&format!("SELECT CAST(@@GLOBAL.{name} AS CHAR)")).await?;
        let Some(value) = value else { return Ok(false) };
        match session.run(&format!("SET GLOBAL {name} = 0")).await {
            Ok(_) => {
                let other = value != "0";
                self.before.push((name, value));
                Ok(other)
            }
            // Then InnoDB writes when it likes, and where it does so at the wrong moment, that is seen.
            Err(e) if e.kind() == ErrorKind::Privilege => {
                self.allowed = false;
                Ok(false)
            }
            Err(e) => Err(e),
        }
    }

    /// Puts the settings back.
    pub(super) async fn end(mut self) -> Result<()> {
        put_back(&self.source, std::mem::take(&mut self.before)).await
    }
}

async fn put_back(source: &ConnectOptions, before: Vec<(&'static str, String)>) -> Result<()> {
    if before.is_empty() {
        return Ok(());
    }
    let mut session = Session::open(source).await?;
    for (name, value) in before.iter().rev() {
        session.run(&format!("SET GLOBAL {name} = {value}")).await?;
    }
    session.close().await
}

impl Drop for Eager {
    fn drop(&mut self) {
        let (source, before) = (self.source.clone(), std::mem::take(&mut self.before));
        if let (false, Ok(runtime)) = (before.is_empty(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { put_back(&source, before).await });
        }
    }
}

/// Waits until InnoDB has nothing to write, and has had nothing for a moment; `None` where that did not come to be until
/// then. A look is never broken off: its answer would be taken for that of the next statement.
pub(super) async fn rest(
    cx: &Context,
    session: &mut Session,
    flavor: Flavor,
    until: Instant,
) -> Result<Option<Level>> {
    let mut last = Level::read(session, flavor).await?;
    let mut since = Instant::now();
    let mut told = false;
    loop {
        cx.check()?;
        tokio::time::sleep(LOOK).await;
        let now = Level::read(session, flavor).await?;
        if now != last {
            since = Instant::now();
        } else if now.is_at_rest() && since.elapsed() >= now.quiet() {
            return Ok(Some(now));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        if !told {
            cx.event(Event::Note { text: "waiting until InnoDB has written everything".into() });
            told = true;
        }
        last = now;
    }
}

/// Fails when InnoDB wrote anything since it was at rest.
pub(super) async fn check_still(
    session: &mut Session,
    flavor: Flavor,
    before: Level,
) -> Result<()> {
    let now = Level::read(session, flavor).await?;
    if now == before {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Source,
        format!(
            "InnoDB wrote while its files were being copied: from LSN {} to {}, its checkpoint from {} to \
             {}, {} pages",
            before.lsn,
            now.lsn,
            before.checkpoint,
            now.checkpoint,
            now.written.saturating_sub(before.written)
        ),
    )
    .with_remedy("run the backup again at a quieter time, or use --strategy snapshot or logical"))
}
