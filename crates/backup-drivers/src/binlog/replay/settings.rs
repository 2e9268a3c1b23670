//! Settings of the target that are other than its own while a replay runs.

use backup_core::{Context, Event, Flavor, Result};

use crate::connect::Session;

/// Where it is written down at the target what has to be put back, for the run after one that was killed.
const DATABASE: &str = "holdfast_settings";

const SYNC_BINLOG: &str = "sync_binlog";
const FLUSH_LOG: &str = "innodb_flush_log_at_trx_commit";

/// How a MariaDB applies together only what its source committed together.
pub(super) const CAREFUL_MODE: &str = "conservative";

/// Which stays off after a failure.
pub(super) const SCHEDULER: &str = "event_scheduler";

/// What an earlier run left at the target.
#[derive(Debug, Default)]
pub(super) struct Recalled {
    /// There was one that did not clean up.
    pub killed: bool,
    /// What is put back at the end of this one only.
    pub kept: Settings,
    /// The server was restarted since, and commits had not waited for its disk.
    pub restarted: bool,
}

/// Global variables as they were, to be put back.
#[derive(Debug, Default)]
pub(super) struct Settings {
    before: Vec<(String, String)>,
    /// Whether they are written down at the target; `None` before it was tried.
    recorded: Option<bool>,
}

impl Settings {
    /// Sets a variable, unless it has the value already. `false` where the account may not, or the
    /// server has no such variable.
    pub(super) async fn set(
        &mut self,
        session: &mut Session,
        name: &str,
        value: &str,
    ) -> Result<bool> {
        let Some(now) = global(session, name).await? else { return Ok(false) };
        if now.eq_ignore_ascii_case(value) {
            return Ok(true);
        }
        if !self.is_changed(name) {
            self.record(session, name, &now).await?;
        }
        match session.run(&format!("SET GLOBAL {name} = {}", literal(value))).await {
            Ok(_) => {
                if !self.is_changed(name) {
                    self.before.push((name.to_owned(), now));
                }
                Ok(true)
            }
            Err(e) if e.server().is_some() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Sets a variable that may be set to something else later.
    async fn set_for_now(&mut self, session: &mut Session, name: &str, value: &str) -> Result<()> {
        let Some(now) = global(session, name).await? else { return Ok(()) };
        if self.set(session, name, value).await? && !self.is_changed(name) {
            self.record(session, name, &now).await?;
            self.before.push((name.to_owned(), now));
        }
        Ok(())
    }

    /// Writes down how a variable was, where that can be.
    async fn record(&mut self, session: &mut Session, name: &str, now: &str) -> Result<()> {
        if !self.begin_record(session).await? {
            return Ok(());
        }
        let now = now.replace('\\', "\\\\").replace('\'', "''");
        let sql = format!("INSERT INTO {DATABASE}.was (name, value) VALUES ('{name}', '{now}')");
        unlogged(session, &[sql]).await
    }

    /// Makes the table that says how things were; `false` where it cannot be.
    async fn begin_record(&mut self, session: &mut Session) -> Result<bool> {
        if let Some(recorded) = self.recorded {
            return Ok(recorded);
        }
        let made = unlogged(
            session,
            &[
                format!("CREATE DATABASE IF NOT EXISTS {DATABASE}"),
                format!(
                    "CREATE TABLE {DATABASE}.was (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(64) \
                     NOT NULL, value TEXT NOT NULL) ENGINE = InnoDB"
                ),
            ],
        )
        .await;
        let recorded = match made {
            Ok(()) => true,
            Err(e) if e.server().is_some() => false,
            Err(e) => return Err(e),
        };
        self.recorded = Some(recorded);
        Ok(recorded)
    }

    /// Puts back what a run left changed that was killed; with `look`, tells of it alone.
    pub(super) async fn recall(
        cx: &Context,
        session: &mut Session,
        look: bool,
    ) -> Result<Recalled> {
        let sql = format!(
            "SELECT 1 FROM information_schema.tables WHERE table_schema = '{DATABASE}' AND table_name = \
             'was'"
        );
        if session.query_first::<u8>(&sql).await?.is_none() {
            // It was killed before it wrote anything, or after it had put everything back.
            let sql = format!(
                "SELECT 1 FROM information_schema.schemata WHERE schema_name = '{DATABASE}'"
            );
            if session.query_first::<u8>(&sql).await?.is_some() {
                unlogged(session, &[format!("DROP DATABASE {DATABASE}")]).await?;
            }
            return Ok(Recalled::default());
        }
        let sql = format!("SELECT name, value FROM {DATABASE}.was ORDER BY id");
        let before: Vec<(String, String)> = session.query_rows(&sql).await?;
        let restarted = durable_again(session, &before).await?;
        let others = before.iter().filter(|(name, _)| name != SCHEDULER);
        let told: Vec<String> = others.map(|(n, v)| format!("{n} = {v}")).collect();
        let mut recalled = Recalled { killed: !told.is_empty(), restarted, ..Recalled::default() };
        if look {
            return Ok(recalled);
        }
        if recalled.killed {
            let told = told.join(", ");
            cx.note(format!("an earlier run was killed; put back at the target: {told}"));
        }
        recalled.kept = Settings { before, recorded: Some(true) };
        recalled.kept.put_back(cx, session, true).await;
        Ok(recalled)
    }

    /// Lets commits wait for no disk. A server that dies and is started again takes for applied what is in its
    /// binlog: where transactions are `logged` there, InnoDB has to have handed them to the system before. Where
    /// they are not, what says that they are applied is lost with them, or there with them.
    pub(super) async fn wait_for_no_disk(
        &mut self,
        session: &mut Session,
        logged: bool,
    ) -> Result<()> {
        let flush = if logged { "2" } else { "0" };
        self.set(session, SYNC_BINLOG, "0").await?;
        self.set(session, FLUSH_LOG, flush).await.map(drop)
    }

    /// What makes a replay fast. With `in_order` transactions are committed in the order of the binlog, as they
    /// are on MariaDB in any case. A `careful` MariaDB does not try what may be in each other's way.
    pub(super) async fn hurry(
        &mut self,
        session: &mut Session,
        flavor: Flavor,
        workers: usize,
        in_order: bool,
        careful: bool,
    ) -> Result<()> {
        let workers = workers.to_string();
        match flavor {
            Flavor::MySql => {
                let order = if in_order { "ON" } else { "OFF" };
                self.set(session, "replica_preserve_commit_order", order).await?;
                self.set(session, "replica_parallel_workers", &workers).await?;
            }
            Flavor::MariaDb => {
                let mode = if careful { CAREFUL_MODE } else { "optimistic" };
                self.set_for_now(session, "slave_parallel_mode", mode).await?;
                self.set_for_now(session, "slave_parallel_threads", &workers).await?;
            }
        }
        Ok(())
    }

    /// Puts everything back; what cannot be put back is told. What is to go on later may keep the event scheduler off
    /// until then.
    pub(super) async fn put_back(
        &mut self,
        cx: &Context,
        session: &mut Session,
        keep_scheduler: bool,
    ) {
        let (kept, before): (Vec<_>, Vec<_>) = std::mem::take(&mut self.before)
            .into_iter()
            .partition(|(name, _)| keep_scheduler && name == SCHEDULER);
        self.before = kept;
        // The last one first: some may be set only while others are as they were.
        let mut all = true;
        for (name, value) in before.into_iter().rev() {
            let sql = format!("SET GLOBAL {name} = {}", literal(&value));
            if let Err(e) = session.run(&sql).await {
                all = false;
                cx.event(Event::Warning {
                    text: format!("the target's {name} is not put back to {value}: {}", e.chain()),
                });
            }
        }
        if self.recorded != Some(true) || !all {
            return;
        }
        let sql = if self.before.is_empty() {
            self.recorded = None;
            format!("DROP DATABASE IF EXISTS {DATABASE}")
        } else {
            format!("DELETE FROM {DATABASE}.was WHERE name <> '{SCHEDULER}'")
        };
        if let Err(e) = unlogged(session, &[sql]).await {
            cx.event(Event::Warning {
                text: format!(
                    "the database {DATABASE} of the target was left behind: {}",
                    e.chain()
                ),
            });
        }
    }

    /// Whether a variable is other than it was.
    pub(super) fn is_changed(&self, name: &str) -> bool {
        self.before.iter().any(|(changed, _)| changed == name)
    }

    /// `name = value` of what was changed.
    pub(super) fn told(&self) -> String {
        let told: Vec<String> =
            self.before.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        told.join(", ")
    }
}

/// The value of a variable; `None` where there is none.
async fn global(session: &mut Session, name: &str) -> Result<Option<String>> {
    let sql = format!("SHOW GLOBAL VARIABLES LIKE '{}'", name.replace('_', "\\_"));
    let row: Option<(String, String)> = session.query_first(&sql).await?;
    Ok(row.map(|(_, value)| value))
}

/// Whether commits wait for the disk again that did not: only a restart puts that back with its record left.
async fn durable_again(session: &mut Session, before: &[(String, String)]) -> Result<bool> {
    for (name, was) in before.iter().filter(|(name, _)| name == SYNC_BINLOG || name == FLUSH_LOG) {
        if session.query_first::<String>(&format!("SELECT @@GLOBAL.{name}")).await?.as_ref()
            == Some(was)
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Runs statements that go into no binlog: they concern this server alone.
pub(super) async fn unlogged(session: &mut Session, statements: &[String]) -> Result<()> {
    session.run("SET SESSION sql_log_bin = 0").await?;
    let mut done = Ok(());
    for sql in statements {
        done = session.run(sql).await.map(drop);
        if done.is_err() {
            break;
        }
    }
    session.run("SET SESSION sql_log_bin = 1").await?;
    done
}

fn literal(value: &str) -> String {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
    }
}
