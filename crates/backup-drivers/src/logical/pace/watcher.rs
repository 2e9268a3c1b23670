//! Looks whether a source has more to do than it should.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use backup_core::{Context, Error, ErrorKind, Flavor, Result, io_error};
use mysql_async::Row;

use super::{LOOK, Throttle};
use crate::connect::{ConnectOptions, Endpoint, Session};
use crate::logical::inventory;

/// Watches a source over a connection of its own.
pub(in crate::logical) struct Watcher {
    session: Session,
    limits: Throttle,
    /// What tells how far the source is behind its own source.
    replica_status: &'static str,
    /// Connections that do not count.
    own: BTreeSet<u64>,
    /// Since when a limit is exceeded.
    exceeded: Option<Instant>,
    /// Up to when that is in `throttled`.
    counted: Instant,
    throttled: Duration,
}

impl Watcher {
    /// Connects.
    ///
    /// # Errors
    /// A usage error for a limit that cannot be watched at this source, and what connections fail
    /// with.
    pub(in crate::logical) async fn open(
        source: &ConnectOptions,
        limits: &Throttle,
    ) -> Result<Self> {
        for (resource, limit) in pressures(limits) {
            if limit.is_some() {
                local(source, resource)?;
            }
        }
        let mut session = Session::open(source).await?;
        let facts = inventory::server(session.conn()).await?;
        let own = BTreeSet::from([u64::from(session.id())]);
        let replica_status = match facts.flavor {
            Flavor::MariaDb => "SHOW ALL SLAVES STATUS",
            Flavor::MySql => facts.capabilities().replica_status_statement(),
        };
        let mut watcher = Watcher {
            session,
            limits: limits.clone(),
            replica_status,
            own,
            exceeded: None,
            counted: Instant::now(),
            throttled: Duration::ZERO,
        };
        if limits.replica_lag.is_some() && watcher.lags().await?.is_empty() {
            return Err(Error::usage(format!(
                "{source} is no replica, and how far its own replicas lag is not seen from there"
            ))
            .with_remedy("back up one of the replicas, or leave replica-lag out of --throttle"));
        }
        Ok(watcher)
    }

    /// Leaves connections out of the count.
    pub(in crate::logical) fn ignore(&mut self, connections: impl IntoIterator<Item = u32>) {
        self.own.extend(connections.into_iter().map(u64::from));
    }

    /// Signs off.
    pub(in crate::logical) async fn close(self) -> Result<()> {
        self.session.close().await
    }

    /// How long limits were exceeded in all.
    pub(in crate::logical) fn throttled(&self) -> Duration {
        self.throttled
    }

    /// Waits until no limit is exceeded.
    pub(in crate::logical) async fn calm(&mut self, cx: &Context) -> Result<()> {
        while self.exceeded(cx).await? {
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Whether a limit is exceeded now. Tells when that changes, and counts the time.
    pub(super) async fn exceeded(&mut self, cx: &Context) -> Result<bool> {
        let found = self.look().await;
        let why = found.map_err(|e| e.context("cannot see how busy the source is"))?;
        let now = Instant::now();
        if self.exceeded.is_some() {
            let more = now.duration_since(self.counted);
            self.throttled += more;
            cx.progress().add_throttled(more);
        }
        self.counted = now;
        match (&why, self.exceeded) {
            (Some(why), None) => {
                cx.note(format!("throttled: {why}"));
                self.exceeded = Some(now);
            }
            (None, Some(since)) => {
                let seconds = now.duration_since(since).as_secs();
                cx.note(format!("no longer throttled, after {seconds} s"));
                self.exceeded = None;
            }
            _ => {}
        }
        Ok(why.is_some())
    }

    /// Which limit is exceeded, and by what.
    async fn look(&mut self) -> Result<Option<String>> {
        if let Some(limit) = self.limits.threads_running {
            let others = self.others_running(limit).await?;
            if others > limit {
                return Ok(Some(format!("{others} threads run at the source, more than {limit}")));
            }
        }
        if let Some(limit) = self.limits.replica_lag {
            // Where replication stands still, its lag is not known, and nothing is gained by waiting.
            let lag = self.lags().await?.into_iter().flatten().max().unwrap_or(0);
            if lag > limit {
                return Ok(Some(format!("the source lags {lag} s, more than {limit} s")));
            }
        }
        for (resource, limit) in pressures(&self.limits) {
            let Some(limit) = limit else { continue };
            let share = pressure(resource)?;
            if share > f64::from(limit) {
                return Ok(Some(format!("{resource} pressure is {share} %, more than {limit} %")));
            }
        }
        Ok(None)
    }

    /// How many threads run, but for those of this backup. The list of connections is costly on a
    /// busy server: it is asked for only when it decides.
    async fn others_running(&mut self, limit: u64) -> Result<u64> {
        let status: Option<(String, u64)> =
            self.session.query_first("SHOW GLOBAL STATUS LIKE 'Threads_running'").await?;
        let running = status.map_or(0, |(_, running)| running);
        // This very statement runs too, and the others of this backup may or may not.
        let (fewest, most) = (1, self.own.len() as u64);
        if running.saturating_sub(fewest) <= limit || running.saturating_sub(most) > limit {
            return Ok(running.saturating_sub(most));
        }
        let rows: Vec<Row> = self.session.query_rows("SHOW PROCESSLIST").await?;
        let runs = |row: &&Row| {
            let command =
                row.get_opt::<Option<String>, _>(4).and_then(std::result::Result::ok).flatten();
            let id = row.get_opt::<u64, _>(0).and_then(std::result::Result::ok);
            id.is_some_and(|id| self.own.contains(&id)) && command.as_deref() != Some("Sleep")
        };
        Ok(running.saturating_sub(rows.iter().filter(runs).count() as u64))
    }

    /// How far the source is behind each of its own sources, in seconds; `None` where replication
    /// stands still.
    async fn lags(&mut self) -> Result<Vec<Option<u64>>> {
        let rows: Vec<Row> = self.session.query_rows(self.replica_status).await?;
        let lag = |row: &Row| {
            ["Seconds_Behind_Source", "Seconds_Behind_Master"]
                .into_iter()
                .find_map(|name| row.get_opt::<Option<u64>, _>(name)?.ok().flatten())
        };
        Ok(rows.iter().map(lag).collect())
    }
}

fn pressures(limits: &Throttle) -> [(&'static str, Option<u8>); 2] {
    [("cpu", limits.cpu_pressure), ("io", limits.io_pressure)]
}

/// Fails where the pressure on this machine is not that on the source's, or is not known.
fn local(source: &ConnectOptions, resource: &str) -> Result<()> {
    if !matches!(source.endpoint, Endpoint::Socket(_)) {
        return Err(Error::usage(format!(
            "{resource}-pressure is that of this machine, and {source} is not reached by a socket of it"
        ))
        .with_remedy(
            "run the backup on the source's host over its socket \
             (mysql://user@localhost/?socket=/path), or throttle by threads-running",
        ));
    }
    pressure(resource).map(drop)
}

/// The share of the last ten seconds in which something waited for a resource of this machine, in
/// percent. See `Documentation/accounting/psi.rst` of Linux.
fn pressure(resource: &str) -> Result<f64> {
    let file = format!("/proc/pressure/{resource}");
    let remedy = "the kernel has to keep pressure stall information (boot it with psi=1); or leave \
                  the limit out of --throttle";
    let text = std::fs::read_to_string(&file).map_err(|e| {
        io_error(e, ErrorKind::Usage, format!("cannot read {file}")).with_remedy(remedy)
    })?;
    some_avg10(&text)
        .ok_or_else(|| Error::usage(format!("{file} is not understood")).with_remedy(remedy))
}

fn some_avg10(text: &str) -> Option<f64> {
    let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
    some.split(' ').find_map(|word| word.strip_prefix("avg10="))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_that_of_the_last_ten_seconds_on_some() {
        let text = "some avg10=12.34 avg60=5.00 avg300=1.00 total=99\n\
                    full avg10=1.00 avg60=0.00 avg300=0.00 total=9\n";
        assert_eq!(some_avg10(text), Some(12.34));
        assert_eq!(some_avg10("full avg10=1.00 avg60=0.00 avg300=0.00 total=9\n"), None);
    }

    #[test]
    fn pressure_elsewhere_is_not_seen() {
        let remote = ConnectOptions::tcp("db1", 3306, "backup");
        let error = local(&remote, "io").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.report().contains("io-pressure"), "{}", error.report());
    }
}
