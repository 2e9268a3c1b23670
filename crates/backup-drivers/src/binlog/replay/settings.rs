//! Settings of the target that are other than its own while a replay runs.

use backup_core::{Context, Event, Flavor, Result};

use crate::connect::Session;

/// Global variables as they were, to be put back.
#[derive(Debug, Default)]
pub(super) struct Settings {
    before: Vec<(String, String)>,
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
        match session.run(&format!("SET GLOBAL {name} = {}", literal(value))).await {
            Ok(_) => {
                self.before.push((name.to_owned(), now));
                Ok(true)
            }
            Err(e) if e.server().is_some() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// What makes a replay fast. A crash of the target in between spoils only what is restored again.
    /// With `in_order` transactions are committed in the order of the binlog, as they are on MariaDB in
    /// any case.
    pub(super) async fn hurry(
        &mut self,
        session: &mut Session,
        flavor: Flavor,
        workers: usize,
        in_order: bool,
    ) -> Result<()> {
        self.set(session, "sync_binlog", "0").await?;
        self.set(session, "innodb_flush_log_at_trx_commit", "0").await?;
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
        for (name, value) in self.before.drain(..).rev() {
            let sql = format!("SET GLOBAL {name} = {}", literal(&value));
            if let Err(e) = session.run(&sql).await {
                cx.event(Event::Warning {
                    text: format!("the target's {name} is not put back to {value}: {}", e.chain()),
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

fn literal(value: &str) -> String {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        value.to_owned()
    } else {
        format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
    }
}
