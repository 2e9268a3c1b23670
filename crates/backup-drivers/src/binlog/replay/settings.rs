//! Settings of the target that are other than its own while a replay runs.

use backup_core::{Context, Event, Flavor, Result};

use crate::connect::Session;

/// Where it is written down at the target what has to be put back, for the run after one that was killed.
const DATABASE: &str = "holdfast_settings";

const SYNC_BINLOG: &str = "sync_binlog";
const FLUSH_LOG: &str = "innodb_flush_log_at_trx_commit";

/// What an earlier run left at the target.
#[derive(Debug, Default)]
pub(super) struct Recalled {
    /// There was one that did not clean up.
    pub killed: bool,
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
        let sql = format!("SHOW GLOBAL VARIABLES LIKE '{}'", name.replace('_', "\\_"));
        let row: Option<(String, String)> = session.query_first(&sql).await?;
        let Some((_, now)) = row else { return Ok(false) };
        if now.eq_ignore_ascii_case(value) {
            return Ok(true);
        }
        if self.begin_record(session).await? {
            let now = now.replace('\\', "\\\\").replace('\'', "''");
            let sql =
                format!("INSERT INTO {DATABASE}.was (name, value) VALUES ('{name}', '{now}')");
            unlogged(session, &[sql]).await?;
        }
        match session.run(&format!("SET GLOBAL {name} = {}", literal(value))).await {
            Ok(_) => {
                self.before.push((name.to_owned(), now));
                Ok(true)
            }
            Err(e) if e.server().is_some() => Ok(false),
            Err(e) => Err(e),
        }
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
        let recalled = Recalled { killed: true, restarted };
        if look {
            return Ok(recalled);
        }
        let told: Vec<String> = before.iter().map(|(n, v)| format!("{n} = {v}")).collect();
        cx.note(format!("an earlier run was killed; put back at the target: {}", told.join(", ")));
        let mut settings = Settings { before, recorded: Some(true) };
        settings.put_back(cx, session).await;
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
    /// are on MariaDB in any case.
    pub(super) async fn hurry(
        &mut self,
        session: &mut Session,
        flavor: Flavor,
        workers: usize,
        in_order: bool,
    ) -> Result<()> {
        let workers = workers.to_string();
        match flavor {
            Flavor::MySql => {
                let order = if in_order { "ON" } else { "OFF" };
                self.set(session, "replica_preserve_commit_order", order).await?;
                self.set(session, "replica_parallel_workers", &workers).await?;
            }
            Flavor::MariaDb => {
                self.set(session, "slave_parallel_mode", "optimistic").await?;
                self.set(session, "slave_parallel_threads", &workers).await?;
            }
        }
        Ok(())
    }

    /// Puts everything back; what cannot be put back is told.
    pub(super) async fn put_back(&mut self, cx: &Context, session: &mut Session) {
        // The last one first: some may be set only while others are as they were.
        let mut all = true;
        for (name, value) in self.before.drain(..).rev() {
            let sql = format!("SET GLOBAL {name} = {}", literal(&value));
            if let Err(e) = session.run(&sql).await {
                all = false;
                cx.event(Event::Warning {
                    text: format!("the target's {name} is not put back to {value}: {}", e.chain()),
                });
            }
        }
        if self.recorded.take() == Some(true) && all {
            let sql = format!("DROP DATABASE IF EXISTS {DATABASE}");
            if let Err(e) = unlogged(session, &[sql]).await {
                cx.event(Event::Warning {
                    text: format!(
                        "the database {DATABASE} of the target was left behind: {}",
                        e.chain()
                    ),
                });
            }
        }
    }

    /// `name = value` of what was changed.
    pub(super) fn told(&self) -> String {
        let told: Vec<String> =
            self.before.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        told.join(", ")
    }
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
async fn unlogged(session: &mut Session, statements: &[String]) -> Result<()> {
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
