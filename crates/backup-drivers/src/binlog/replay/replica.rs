//! The target as a replica of ours: told where its source is, started, watched, and rid of it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use backup_core::{Context, Error, ErrorKind, Gtid, GtidSet, Result, Secret, SegmentStore};
use mysql_async::Row;
use tokio::time::timeout;

use super::super::route::{Route, Skipping};
use super::lookup;
use super::remedy::{FREE_SPACE, is_full, remedy};
use super::room::Room;
use super::serve::Server;
use super::stall::{self, Still};
use super::target::{Target, text};
use crate::connect::applier_said;

/// How long a target may take for an answer about replication, or to stop it after a failure.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The name of the channel, where channels have names.
const CHANNEL: &str = "holdfast";
/// How long one question to the server waits, in seconds.
const ROUND: u32 = 1;
/// How often the target's error log is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long the target may take to connect to us.
const REACH: Duration = Duration::from_secs(60);
/// `ER_REPLICA_CHANNEL_DOES_NOT_EXIST`
const NO_SUCH_CHANNEL: u16 = 3074;
/// What our accounts begin with.
pub(super) const USER: &str = "holdfast-";

/// Where the target finds us, and what it signs in with.
pub(super) struct Replica {
    pub(super) address: SocketAddr,
    pub(super) user: String,
    pub(super) password: Secret,
    /// Whether the connection is encrypted.
    pub(super) tls: bool,
}

impl Replica {
    /// Removes what a replay left that was killed.
    pub(super) async fn remove_leftover(target: &mut Target) -> Result<()> {
        let mysql = target.mysql();
        let ours = |row: &Row| match mysql {
            true => text(row, "Channel_Name") == CHANNEL,
            false => text(row, "Master_User").starts_with(USER),
        };
        if target.channels().await?.iter().any(ours) {
            Replica::stop(target).await?;
        }
        Ok(())
    }

    /// Tells the target to replicate from us.
    pub(super) async fn start(&self, target: &mut Target, route: &Route) -> Result<()> {
        let password = self.password.expose();
        let (host, port, user) = (self.address.ip(), self.address.port(), &self.user);
        let tls = u8::from(self.tls);
        let statements = if target.mysql() {
            let place = match &route.applied {
                Some(_) => "SOURCE_AUTO_POSITION = 1".to_owned(),
                None => {
                    let file = &route.files[0];
                    let position = file.begin.max(file.segments[0].range.start).max(4);
                    format!(
                        "SOURCE_AUTO_POSITION = 0, SOURCE_LOG_FILE = '{}', SOURCE_LOG_POS = {position}",
                        file.name
                    )
                }
            };
            [
                format!(
                    "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '{host}', SOURCE_PORT = {port}, \
                     {place}, SOURCE_SSL = {tls}, SOURCE_SSL_VERIFY_SERVER_CERT = 0, SOURCE_CONNECT_RETRY = 1, SOURCE_RETRY_COUNT = 100, \
                     SOURCE_HEARTBEAT_PERIOD = 2 FOR CHANNEL '{CHANNEL}'"
                ),
                format!(
                    "START REPLICA USER = '{user}' PASSWORD = '{password}' FOR CHANNEL '{CHANNEL}'"
                ),
            ]
        } else {
            [
                format!(
                    "CHANGE MASTER TO MASTER_HOST = '{host}', MASTER_PORT = {port}, \
                     MASTER_USER = '{user}', MASTER_PASSWORD = '{password}', \
                     MASTER_USE_GTID = slave_pos, MASTER_SSL = {tls}, \
                     MASTER_SSL_VERIFY_SERVER_CERT = 0, MASTER_HEARTBEAT_PERIOD = 2, \
                     MASTER_CONNECT_RETRY = 1"
                ),
                "START SLAVE".to_owned(),
            ]
        };
        for sql in &statements {
            target.session.run(sql).await?;
        }
        Ok(())
    }

    /// Waits until the target has applied everything, and fails when it cannot.
    pub(super) async fn wait(
        cx: &Context,
        target: &mut Target,
        store: &dyn SegmentStore,
        server: &Server,
        route: &Route,
        room: &Room,
    ) -> Result<()> {
        let question = match (&route.reached, target.mysql()) {
            (Some(reached), true) => format!(
                "SELECT WAIT_FOR_EXECUTED_GTID_SET('{}', {ROUND})",
                served_set(reached, route)
            ),
            (Some(reached), false) => format!("SELECT MASTER_GTID_WAIT('{reached}', {ROUND})"),
            (None, _) => {
                let (file, end) = route.ends_at();
                format!("SELECT SOURCE_POS_WAIT('{file}', {end}, {ROUND}, '{CHANNEL}')")
            }
        };
        let since = Instant::now();
        let mut looked = Instant::now();
        let mut still = Still::default();
        loop {
            cx.check()?;
            let row: Option<Row> = target.session.query_first(&question).await?;
            let answer = row.and_then(|row| row.get_opt::<Option<i64>, _>(0)?.ok()?);
            // 0: it is there. 1 (MySQL) and -1: the time is over. NULL: the applier does not run.
            let there = match (&route.reached, answer) {
                (None, Some(n)) => n >= 0,
                (Some(_), answer) => answer == Some(0),
                (None, None) => false,
            };
            if there {
                let executed = target.executed().await?;
                server.state.count(cx, &executed);
                return Ok(());
            }
            if let Some(error) = server.state.take_failure() {
                return Err(error.context("the archive cannot be served to the target"));
            }
            // A MariaDB whose receiver waits for room answers nothing about replication before it has some.
            let Ok(stop) = timeout(PATIENCE, Stop::of(target)).await else {
                target.open_again().await?;
                return Err(match room.told().or_else(|| room.scarce()) {
                    Some(why) => no_room(format!("{} waits for room: {why}", target.name)),
                    None => unanswered(target),
                });
            };
            if let Some(stop) = stop? {
                return Err(stop.explain(cx, target, store, route).await);
            }
            if looked.elapsed() > LOOK_EVERY {
                // Both servers wait for room where a log of theirs has none.
                looked = Instant::now();
                if let Some(why) = room.told() {
                    return Err(no_room(format!("{} waits for room: {why}", target.name)));
                }
            }
            if !server.state.is_reached() && since.elapsed() > REACH {
                let text = why_unreached(target).await?;
                return Err(Error::new(
                    ErrorKind::Target,
                    format!(
                        "{} does not connect to {}: {text}",
                        target.options, server.replica.address
                    ),
                )
                .with_source(OutOfReach)
                .with_remedy(
                    "open that way for the target, name the address that it can reach with --listen, or \
                     say --apply direct",
                ));
            }
            let executed = target.executed().await?;
            server.state.count(cx, &executed);
            if server.state.waits_for_care() {
                cx.note(
                    "sequences come: the target applies together only what was committed together",
                );
                let mode = format!("'{}'", stall::MODE);
                stall::be_careful(target, "slave_parallel_mode", &mode).await?;
                server.state.is_careful();
            }
            still.look(cx, target, &executed).await?;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Stops the replication from us and removes it.
    pub(super) async fn stop(target: &mut Target) -> Result<()> {
        let statements = if target.mysql() {
            [
                format!("STOP REPLICA FOR CHANNEL '{CHANNEL}'"),
                format!("RESET REPLICA ALL FOR CHANNEL '{CHANNEL}'"),
            ]
        } else {
            ["STOP SLAVE".to_owned(), "RESET SLAVE ALL".to_owned()]
        };
        for sql in statements {
            match target.session.run(&sql).await {
                // It was never made.
                Err(e) if e.server().is_some_and(|said| said.code == NO_SUCH_CHANNEL) => {}
                other => drop(other?),
            }
        }
        Ok(())
    }
}

fn no_room(text: String) -> Error {
    Error::new(ErrorKind::Space, text).with_remedy(FREE_SPACE)
}

/// The target cannot reach us.
#[derive(Debug, thiserror::Error)]
#[error("it has not connected in time")]
struct OutOfReach;

/// Whether that is what an error says.
pub(super) fn is_out_of_reach(error: &Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(e) = source {
        if e.is::<OutOfReach>() {
            return true;
        }
        source = e.source();
    }
    false
}

/// What the target says about connecting to us.
async fn why_unreached(target: &mut Target) -> Result<String> {
    let rows = target.channels().await?;
    let said = rows.iter().map(|row| text(row, "Last_IO_Error")).find(|text| !text.is_empty());
    Ok(said.unwrap_or_else(|| "no connection came in".to_owned()))
}

/// Why receiver or applier stopped.
struct Stop {
    number: u32,
    text: String,
    /// The transaction, where the server tells it.
    gtid: String,
}

impl Stop {
    async fn of(target: &mut Target) -> Result<Option<Stop>> {
        if target.mysql() {
            // 3030 is of workers that only follow another one; 2003 and 2013 of a receiver that will
            // connect again.
            let sql = "SELECT LAST_ERROR_NUMBER, LAST_ERROR_MESSAGE, LAST_SEEN_TRANSACTION \
                       FROM (SELECT LAST_ERROR_NUMBER, LAST_ERROR_MESSAGE, \
                             APPLYING_TRANSACTION AS LAST_SEEN_TRANSACTION \
                             FROM performance_schema.replication_applier_status_by_worker \
                             WHERE CHANNEL_NAME = 'holdfast' AND LAST_ERROR_NUMBER NOT IN (0, 3030) \
                             UNION ALL \
                             SELECT LAST_ERROR_NUMBER, LAST_ERROR_MESSAGE, '' \
                             FROM performance_schema.replication_applier_status_by_coordinator \
                             WHERE CHANNEL_NAME = 'holdfast' AND LAST_ERROR_NUMBER <> 0 \
                             AND SERVICE_STATE = 'OFF' \
                             UNION ALL \
                             SELECT LAST_ERROR_NUMBER, LAST_ERROR_MESSAGE, '' \
                             FROM performance_schema.replication_connection_status \
                             WHERE CHANNEL_NAME = 'holdfast' AND LAST_ERROR_NUMBER NOT IN (0, 2003, 2013) \
                             AND SERVICE_STATE = 'OFF') AS errors LIMIT 1";
            let row: Option<(u32, String, String)> = target.session.query_first(sql).await?;
            return Ok(row.map(|(number, text, gtid)| Stop { number, text, gtid }));
        }
        let rows = target.channels().await?;
        let Some(row) = rows.first() else {
            return Err(
                target.refuse("its replication was removed by somebody else", "start again")
            );
        };
        for (number, message, running) in [
            ("Last_SQL_Errno", "Last_SQL_Error", "Slave_SQL_Running"),
            ("Last_IO_Errno", "Last_IO_Error", "Slave_IO_Running"),
        ] {
            let number: u32 = text(row, number).parse().unwrap_or(0);
            if number != 0 && text(row, running) == "No" {
                let text = text(row, message);
                return Ok(Some(Stop { number, text, gtid: String::new() }));
            }
        }
        Ok(None)
    }

    /// The error, with the transaction as the archive has it.
    async fn explain(
        self,
        cx: &Context,
        target: &mut Target,
        store: &dyn SegmentStore,
        route: &Route,
    ) -> Error {
        let Stop { number, text, gtid } = self;
        let text = applier_said(&text);
        let failed = match target.executed().await {
            Ok(executed) => {
                let gtid = gtid.parse::<Gtid>().ok();
                lookup::find(cx, store, route, &executed, gtid.as_ref()).await.unwrap_or(None)
            }
            Err(_) => None,
        };
        let which = match (&failed, gtid.is_empty()) {
            (Some(failed), _) => format!(" at {failed}"),
            (None, true) => String::new(),
            (None, false) => format!(" at {gtid}"),
        };
        let text =
            format!("{} cannot apply the binlog{which}: error {number}: {text}", target.name);
        match is_full(number, &text) {
            true => no_room(text),
            false => Error::new(ErrorKind::Target, text).with_remedy(remedy(number)),
        }
    }
}

/// The set without what was omitted.
pub(super) fn served_set(reached: &GtidSet, route: &Route) -> GtidSet {
    match (reached, route.skipping) {
        (GtidSet::MySql(set), Skipping::Omitted) => {
            let omitted = route.skip.iter().filter_map(|gtid| match gtid {
                Gtid::MySql(gtid) => Some(gtid.clone()),
                Gtid::MariaDb(_) => None,
            });
            GtidSet::MySql(set.subtract(&omitted.collect()))
        }
        _ => reached.clone(),
    }
}

/// The error of a target that answers nothing about replication.
pub(super) fn unanswered(target: &Target) -> Error {
    Error::new(
        ErrorKind::Target,
        format!(
            "{} gives no answer about replication within {} s",
            target.name,
            PATIENCE.as_secs()
        ),
    )
    .with_remedy("see its error log: it may wait for room on a disk")
}
