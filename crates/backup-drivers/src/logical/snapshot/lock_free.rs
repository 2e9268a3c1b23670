//! One moment without any lock.
//!
//! **MariaDB**: a consistent snapshot is taken together with the position in the binary log, under the
//! mutex that orders commits, and the status variables `Binlog_snapshot_file` and
//! `Binlog_snapshot_position` belong to that very snapshot. Two snapshots of one position hold the
//! same transactions. So all readers begin, whoever is behind begins again, until they agree.
//! The server answers out of two variables that all its sessions share (`show_binlog_vars` in
//! `sql/log.cc`), so that the answer may be what another session asked for at the same time. One answer
//! proves nothing therefore: each reader is asked alone, several times, and all answers have to be equal.
//!
//! **MySQL** with GTIDs: a transaction owns its GTID from before it is written to the binary log until
//! after the engine has committed it; only then is the GTID among the executed ones. So when the set
//! of executed GTIDs is the same before the readers begin and after, and none is owned in between,
//! nothing was committed meanwhile: all readers see the state of that set. The position in
//! `performance_schema.log_status` alone would not tell: a transaction is in it before other sessions
//! see what it did.
//!
//! Neither sees what a session commits that keeps out of the binary log (`sql_log_bin = 0`).

use std::time::{Duration, Instant};

use backup_core::{Context, Error, Flavor, GtidSet, Position, Result, ResultExt};
use bytes::Bytes;
use futures::future::try_join_all;

use super::BEGIN;
use crate::connect::Session;
use crate::logical::inventory::ServerFacts;
use crate::wire;

/// For how long readers begin again before the lock is taken after all.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a reader of MariaDB is asked for its place, all answers being equal, before it is
/// believed. Between the server's writing its answer down and its reading it again, another session
/// may have written its own: with three that ask without pause it is 1 of 75 answers, and they are
/// not the same.
const ASKED: usize = 5;

/// A place in the binary log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: String,
    pub(super) offset: u64,
}

impl Place {
    /// What places are compared by: a longer number is a later file.
    fn order(&self) -> (usize, &str, u64) {
        (self.file.len(), &self.file, self.offset)
    }
}

/// Whether the server's answers prove that states are equal: everything that commits has to be in the
/// binary log, or at least to have a GTID.
pub(super) async fn is_sound(guard: &mut Session, facts: &ServerFacts) -> Result<bool> {
    let sql = "SHOW GLOBAL VARIABLES WHERE Variable_name IN \
               ('log_bin', 'log_slave_updates', 'wsrep_on', 'gtid_mode')";
    let variables: Vec<(String, String)> = guard.query_rows(sql).await?;
    let is_on = |name: &str| variables.iter().any(|(n, value)| n == name && value == "ON");
    if facts.flavor == Flavor::MySql {
        return Ok(is_on("log_bin") && is_on("gtid_mode"));
    }
    if !facts.capabilities().binlog_snapshot_status {
        return Ok(false);
    }
    // What replication brings goes into the binary log only where it was told to.
    let sql = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Slave%'";
    let applies: Option<u64> = guard.query_first(sql).await?;
    let replicates = is_on("wsrep_on") || applies.unwrap_or(0) > 0;
    Ok(is_on("log_bin") && (is_on("log_slave_updates") || !replicates))
}

/// Begins the transaction of every reader at one moment. `None` where so much commits that there is
/// none, or the server does not tell.
pub(super) async fn open(
    cx: &Context,
    guard: &mut Session,
    facts: &ServerFacts,
    readers: &mut [wire::Connection],
) -> Result<Option<Position>> {
    let began = Instant::now();
    let mut places = vec![None; readers.len()];
    // Nothing is applied here, or the binary log has it too: it may not be of a later moment than the readers.
    let replicated = match facts.flavor {
        Flavor::MariaDb => super::replicated(guard).await?,
        Flavor::MySql => GtidSet::empty(Flavor::MySql),
    };
    while began.elapsed() < PATIENCE {
        cx.check()?;
        match facts.flavor {
            Flavor::MySql => {
                let position = between_commits(guard, facts, readers).await?;
                if position.is_some() {
                    return Ok(position);
                }
            }
            Flavor::MariaDb => match catch_up(readers, &mut places).await? {
                Step::Agreed(place) => {
                    if confirm(readers, &mut places).await? {
                        let Place { file, offset } = place;
                        return super::position_of(guard, file, offset, &replicated)
                            .await
                            .map(Some);
                    }
                }
                Step::Behind => {}
                Step::Untold => return Ok(None),
            },
        }
    }
    Ok(None)
}

/// One attempt to begin everywhere while nothing commits (MySQL).
async fn between_commits(
    guard: &mut Session,
    facts: &ServerFacts,
    readers: &mut [wire::Connection],
) -> Result<Option<Position>> {
    let before = executed(guard).await?;
    try_join_all(readers.iter_mut().map(|reader| reader.query(BEGIN))).await?;
    // In this order: what is owned no more has been executed.
    if owned(guard).await? {
        return Ok(None);
    }
    if executed(guard).await? != before {
        return Ok(None);
    }
    // And the place in the binary log, which a transaction is in before it is executed.
    let statement = facts.capabilities().binlog_status_statement();
    let row: Option<mysql_async::Row> = guard.query_first(statement).await?;
    if owned(guard).await? || executed(guard).await? != before {
        return Ok(None);
    }
    let Some(row) = row else { return Ok(None) };
    let gtid = Some(before)
        .filter(|text| !text.is_empty())
        .map(|text| GtidSet::parse(Flavor::MySql, &text))
        .transpose()
        .context(|| "the server's GTID set cannot be read")?;
    Ok(Some(Position {
        gtid,
        file: row.get_opt::<String, _>(0).and_then(std::result::Result::ok),
        offset: row.get_opt::<u64, _>(1).and_then(std::result::Result::ok),
        ..Position::default()
    }))
}

async fn executed(guard: &mut Session) -> Result<String> {
    let set: Option<String> = guard.query_first("SELECT @@GLOBAL.gtid_executed").await?;
    Ok(set.unwrap_or_default())
}

/// Whether a transaction is on its way from the binary log to the engine.
async fn owned(guard: &mut Session) -> Result<bool> {
    let set: Option<String> = guard.query_first("SELECT @@GLOBAL.gtid_owned").await?;
    Ok(set.is_none_or(|set| !set.is_empty()))
}

/// How far the readers of MariaDB are.
enum Step {
    Agreed(Place),
    Behind,
    Untold,
}

/// Begins again with every reader that is behind the others.
async fn catch_up(readers: &mut [wire::Connection], places: &mut [Option<Place>]) -> Result<Step> {
    let latest = places.iter().flatten().max_by_key(|p| p.order()).cloned();
    let behind = readers
        .iter_mut()
        .zip(places.iter_mut())
        .filter(|(_, place)| place.is_none() || **place != latest);
    let begun = try_join_all(behind.map(|(reader, place)| async move {
        *place = begin(reader).await?;
        Ok::<bool, Error>(place.is_some())
    }));
    if begun.await?.contains(&false) {
        return Ok(Step::Untold);
    }
    Ok(match places.first() {
        Some(Some(first)) if places.iter().flatten().all(|place| place == first) => {
            Step::Agreed(first.clone())
        }
        _ => Step::Behind,
    })
}

async fn begin(reader: &mut wire::Connection) -> Result<Option<Place>> {
    reader.query(BEGIN).await?;
    let rows = reader.query_values("SHOW STATUS LIKE 'binlog_snapshot_%'").await?;
    Ok(place(&rows))
}

/// Asks every reader again, one after the other and more than once, and corrects their places.
/// `false` where one is elsewhere, or got different answers.
async fn confirm(readers: &mut [wire::Connection], places: &mut [Option<Place>]) -> Result<bool> {
    let answer = "SELECT VARIABLE_NAME, VARIABLE_VALUE FROM information_schema.SESSION_STATUS \
                  WHERE VARIABLE_NAME IN ('BINLOG_SNAPSHOT_FILE', 'BINLOG_SNAPSHOT_POSITION')";
    let sql = [answer; ASKED].join(" UNION ALL ");
    let mut confirmed = true;
    for (reader, assumed) in readers.iter_mut().zip(places) {
        let rows = reader.query_values(&sql).await?;
        // Each answer is two rows.
        let mut answers = rows.chunks(2).map(place);
        let told = answers.next().flatten();
        let told = told.filter(|told| answers.all(|answer| answer.as_ref() == Some(told)));
        confirmed &= told.is_some() && told == *assumed;
        *assumed = told;
    }
    Ok(confirmed)
}

/// The place that the server tells in rows of name and value.
fn place(rows: &[Vec<Option<Bytes>>]) -> Option<Place> {
    let value = |name: &str| {
        let row = rows.iter().find(|row| {
            row.first()
                .and_then(Option::as_ref)
                .is_some_and(|n| n.eq_ignore_ascii_case(name.as_bytes()))
        })?;
        let value = row.get(1)?.as_ref()?;
        std::str::from_utf8(value).ok().map(str::to_owned)
    };
    let file = value("binlog_snapshot_file").filter(|file| !file.is_empty())?;
    let offset = value("binlog_snapshot_position")?.parse().ok()?;
    Some(Place { file, offset })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::ConnectOptions;
    use crate::logical::reader::reader;

    #[test]
    fn later_files_are_later() {
        let place = |file: &str, offset| Place { file: file.into(), offset };
        let mut places = [
            place("b.1000000", 4),
            place("b.999999", 9),
            place("b.000001", 7),
            place("b.000001", 5),
        ];
        places.sort_by(|a, b| a.order().cmp(&b.order()));
        let shown: Vec<_> = places.iter().map(|p| format!("{}:{}", p.file, p.offset)).collect();
        assert_eq!(shown, ["b.000001:5", "b.000001:7", "b.999999:9", "b.1000000:4"]);
    }

    /// Three count without pause, and others ask for positions of their own, with snapshots and
    /// without, as monitoring and a second backup do.
    #[rstest::rstest]
    #[tokio::test(flavor = "multi_thread")]
    async fn the_position_is_that_of_every_reader_while_others_ask_for_theirs(
        #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
    ) {
        let cx = Context::builder().build();
        let server = xtask::servers::sandbox(name).await.unwrap().start(&cx).await.unwrap();
        let options = ConnectOptions::socket(server.socket(), "root");
        let mut guard = Session::open(&options).await.unwrap();
        for statement in [
            "CREATE DATABASE a",
            "CREATE TABLE a.counter (id INT PRIMARY KEY, n BIGINT NOT NULL)",
            "INSERT INTO a.counter VALUES (1, 0), (2, 0), (3, 0)",
        ] {
            guard.run(statement).await.unwrap();
        }
        let facts = crate::logical::inventory::server(guard.conn()).await.unwrap();
        assert!(is_sound(&mut guard, &facts).await.unwrap());
        let position = super::super::current_position(&mut guard, &facts).await.unwrap();
        let before = transactions(&position);

        let mut tasks = tokio::task::JoinSet::new();
        for id in 1..=3 {
            let mut writer = Session::open(&options).await.unwrap();
            let sql = format!("UPDATE a.counter SET n = n + 1 WHERE id = {id}");
            tasks.spawn(async move {
                loop {
                    writer.run(&sql).await.unwrap();
                }
            });
        }
        for first in [BEGIN, "DO 1", "DO 1"] {
            let mut asking = reader(&options).await.unwrap();
            tasks.spawn(async move {
                asking.query(first).await.unwrap();
                loop {
                    asking.query("SHOW STATUS LIKE 'binlog_snapshot_%'").await.unwrap();
                }
            });
        }

        let mut readers = Vec::new();
        for _ in 0..4 {
            readers.push(reader(&options).await.unwrap());
        }
        let rounds = std::env::var("HOLDFAST_TEST_ROUNDS").map_or(60, |n| n.parse().unwrap());
        let mut reached = 0;
        for round in 0..rounds {
            let opened = open(&cx, &mut guard, &facts, &mut readers).await.unwrap();
            let Some(position) = opened else { continue };
            reached += 1;
            let expected = (transactions(&position) - before).to_string();
            for reader in &mut readers {
                let rows = reader.query_values("SELECT SUM(n) FROM a.counter").await.unwrap();
                let found = std::str::from_utf8(rows[0][0].as_deref().unwrap()).unwrap();
                assert_eq!(found, expected, "round {round} of {position:?}");
            }
        }
        assert!(reached > rounds / 2, "{reached} of {rounds}");
        tasks.shutdown().await;
    }

    /// How many transactions there were, of one source.
    fn transactions(position: &Position) -> u64 {
        match position.gtid.as_ref().unwrap() {
            GtidSet::MySql(set) => set.count(),
            GtidSet::MariaDb(set) => set.iter().map(|g| g.seq).sum(),
        }
    }
}
