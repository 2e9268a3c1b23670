//! A source that is a replica: where it stands in its own source's binary log, and an applier that
//! stands still for the time of a backup.

use backup_core::{Context, Error, ErrorKind, Event, Flavor, Result};
use mysql_async::Row;
use mysql_async::prelude::Queryable;
use serde::{Deserialize, Serialize};

use super::inventory::ServerFacts;
use crate::connect::{ConnectOptions, Session, sql_error};

/// What a replica has applied of one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The channel or connection; empty for the usual one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub channel: String,
    /// The source's host.
    pub host: String,
    /// The source's port.
    pub port: u64,
    /// The source's binary log file up to which everything is applied; `None` where the server does not say so
    /// exactly: a MySQL whose applier has workers and runs tells where it stood at its last checkpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The offset in that file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Whether the applier runs.
    #[serde(skip)]
    pub(super) running: bool,
    /// Whether the receiver runs, or tries to connect.
    #[serde(skip)]
    receiving: bool,
    /// The kind of the condition of `START … UNTIL` that the applier was started with, if any.
    #[serde(skip)]
    until: Option<String>,
}

/// What the server has applied of its sources; empty where it is no replica, or the account may not
/// know. Of the moment of the snapshot only while nothing is applied.
pub(super) async fn applied(session: &mut Session, facts: &ServerFacts) -> Result<Vec<Applied>> {
    let sql = match facts.flavor {
        Flavor::MariaDb => "SHOW ALL SLAVES STATUS",
        Flavor::MySql => facts.capabilities().replica_status_statement(),
    };
    let rows: Vec<Row> = match session.conn().query(sql).await {
        Ok(rows) => rows,
        Err(mysql_async::Error::Server(_)) => return Ok(Vec::new()),
        Err(e) => return Err(sql_error(e, "cannot ask the server what it replicates")),
    };
    let at_checkpoints = facts.flavor == Flavor::MySql
        && !rows.is_empty()
        && {
            let sql = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('replica_parallel_workers', 'slave_parallel_workers')";
            let workers: Vec<(String, u64)> = session.query_rows(sql).await?;
            workers.iter().any(|(_, workers)| *workers > 0)
        };
    let text = |row: &Row, names: [&str; 2]| {
        names.iter().find_map(|name| row.get_opt::<Option<String>, _>(*name)?.ok().flatten())
    };
    let number =
        |row: &Row, names: [&str; 2]| text(row, names).and_then(|n| n.parse().ok()).unwrap_or(0);
    let applied = |row: &Row| {
        let running =
            text(row, ["Replica_SQL_Running", "Slave_SQL_Running"]).as_deref() == Some("Yes");
        let told = !(running && at_checkpoints);
        Applied {
            channel: text(row, ["Channel_Name", "Connection_name"]).unwrap_or_default(),
            host: text(row, ["Source_Host", "Master_Host"]).unwrap_or_default(),
            port: number(row, ["Source_Port", "Master_Port"]),
            file: text(row, ["Relay_Source_Log_File", "Relay_Master_Log_File"]).filter(|_| told),
            offset: told.then(|| number(row, ["Exec_Source_Log_Pos", "Exec_Master_Log_Pos"])),
            running,
            receiving: text(row, ["Replica_IO_Running", "Slave_IO_Running"])
                .is_some_and(|running| running != "No"),
            // Both call it the same.
            until: text(row, ["Until_Condition", "Until_Condition"])
                .filter(|until| !until.is_empty() && until != "None"),
        }
    };
    Ok(rows.iter().map(applied).collect())
}

/// Tells where it is not known how far a replica has come in the binary log of its source. With GTIDs nobody asks for that.
pub(super) fn tell_untold(cx: &Context, applied: &[Applied], has_gtids: bool) {
    let Some(untold) = applied.iter().find(|applied| applied.file.is_none()) else { return };
    let text = format!(
        "how far the replica has come in the binary log of {}:{} is not recorded: an applier with workers \
         (replica_parallel_workers) tells it at its checkpoints only; with --pause-replication it is",
        untold.host, untold.port
    );
    match has_gtids {
        true => cx.note(text),
        false => cx.event(Event::Warning { text }),
    }
}

/// Whether the server receives what it does not apply.
pub(super) async fn is_stopped(session: &mut Session, facts: &ServerFacts) -> Result<bool> {
    Ok(applied(session, facts).await?.iter().any(|applied| applied.receiving && !applied.running))
}

/// The source that the server replicates from at this moment, as host and port. A group that it is a
/// member of is none.
pub(crate) async fn followed(session: &mut Session, facts: &ServerFacts) -> Result<Option<String>> {
    let applied = applied(session, facts).await?;
    let follows = |applied: &&Applied| {
        (applied.running || applied.receiving) && !applied.channel.starts_with("group_replication_")
    };
    Ok(applied.iter().find(follows).map(|applied| format!("{}:{}", applied.host, applied.port)))
}

/// Fails where an applier that runs was started with `UNTIL`, if it may not be stopped: a plain `START` would let it
/// go on past the condition, which the server does not tell in full, so that nobody could say it again.
pub(crate) async fn refuse_until_at(session: &mut Session, facts: &ServerFacts) -> Result<()> {
    refuse_until(&applied(session, facts).await?, facts.flavor)
}

fn refuse_until(applied: &[Applied], flavor: Flavor) -> Result<()> {
    let Some(held) = applied.iter().find(|a| a.running && a.until.is_some()) else { return Ok(()) };
    let (noun, start) = match flavor {
        Flavor::MySql => ("channel", "START REPLICA … UNTIL"),
        Flavor::MariaDb => ("connection", "START SLAVE … UNTIL"),
    };
    let condition = held.until.as_deref().unwrap_or_default();
    Err(Error::new(
        ErrorKind::Source,
        format!(
            "replication cannot be paused: the applier of {noun} '{}' runs until a condition is met ({start}, \
             Until_Condition is {condition}), and would be started again without it",
            held.channel
        ),
    )
    .with_remedy(
        "wait until the condition is met and the applier stands still, or back up without --pause-replication",
    ))
}

/// An applier that stands still. It has to be [started](Paused::resume) again on every way out.
pub(super) struct Paused {
    flavor: Flavor,
    channels: Vec<String>,
}

impl Paused {
    /// Stops the appliers that run. `None` where none does. Fails before any is stopped where one would
    /// come up without the condition that it has.
    pub(super) async fn begin(session: &mut Session, facts: &ServerFacts) -> Result<Option<Self>> {
        let applied = applied(session, facts).await?;
        refuse_until(&applied, facts.flavor)?;
        let running: Vec<String> = applied
            .into_iter()
            .filter(|applied| applied.running)
            .map(|applied| applied.channel)
            .collect();
        if running.is_empty() {
            return Ok(None);
        }
        let mut paused = Paused { flavor: facts.flavor, channels: Vec::new() };
        for channel in running {
            let sql = paused.statement("STOP", &channel);
            if let Err(e) = session.run(&sql).await {
                let remedy = match facts.flavor {
                    Flavor::MySql => {
                        "grant REPLICATION_SLAVE_ADMIN ON *.*, or do without --pause-replication"
                    }
                    Flavor::MariaDb => {
                        "grant REPLICATION SLAVE ADMIN ON *.*, or do without --pause-replication"
                    }
                };
                // Those that were stopped already go on.
                paused.start(session).await?;
                return Err(e.context("cannot pause replication").with_remedy(remedy));
            }
            paused.channels.push(channel);
        }
        Ok(Some(paused))
    }

    fn statement(&self, verb: &str, channel: &str) -> String {
        let quoted = channel.replace('\'', "''");
        match (self.flavor, channel) {
            (Flavor::MySql, "") => format!("{verb} REPLICA SQL_THREAD"),
            (Flavor::MySql, _) => format!("{verb} REPLICA SQL_THREAD FOR CHANNEL '{quoted}'"),
            (Flavor::MariaDb, "") => format!("{verb} SLAVE SQL_THREAD"),
            (Flavor::MariaDb, _) => format!("{verb} SLAVE '{quoted}' SQL_THREAD"),
        }
    }

    async fn start(&self, session: &mut Session) -> Result<()> {
        for channel in &self.channels {
            session.run(&self.statement("START", channel)).await?;
        }
        Ok(())
    }

    /// Starts them again, over a connection of its own: others may be gone. A failure is told as an
    /// event too, since the backup may have failed before it.
    pub(super) async fn resume(self, cx: &Context, source: &ConnectOptions) -> Result<()> {
        let mut last = None;
        for attempt in 0..5u64 {
            let start = async { self.start(&mut Session::open(source).await?).await };
            match start.await {
                Ok(()) => return Ok(()),
                Err(e) => last = Some(e),
            }
            tokio::time::sleep(std::time::Duration::from_secs(attempt)).await;
        }
        let error = last
            .unwrap_or_else(|| Error::internal("replication was not started again"))
            .context("the applier of the replica is still stopped")
            .with_remedy("run START REPLICA SQL_THREAD (MariaDB: START SLAVE SQL_THREAD) on the source of the backup");
        cx.event(Event::Warning { text: error.report() });
        Err(error)
    }
}
