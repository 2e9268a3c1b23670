//! One moment without any lock.
//!
//! **MariaDB**: a consistent snapshot is taken together with the position in the binary log, under the
//! mutex that orders commits, and the status variables `Binlog_snapshot_file` and
//! `Binlog_snapshot_position` belong to that very snapshot. Two snapshots of one position hold the
//! same transactions. So all readers begin, whoever is behind begins again, until they agree.
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
use futures::future::try_join_all;

use crate::connect::Session;
use crate::logical::inventory::ServerFacts;
use crate::wire;

/// For how long readers begin again before the lock is taken after all.
const PATIENCE: Duration = Duration::from_secs(5);

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
                    return super::gtid_of(guard, place.file, place.offset).await.map(Some);
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
    try_join_all(readers.iter_mut().map(|reader| reader.query(super::BEGIN))).await?;
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
    reader.query(super::BEGIN).await?;
    let rows = reader.query_values("SHOW STATUS LIKE 'binlog_snapshot_%'").await?;
    let value = |name: &str| {
        let row = rows.iter().find(|row| {
            row.first()
                .and_then(Option::as_ref)
                .is_some_and(|n| n.eq_ignore_ascii_case(name.as_bytes()))
        })?;
        let value = row.get(1)?.as_ref()?;
        std::str::from_utf8(value).ok().map(str::to_owned)
    };
    let file = value("binlog_snapshot_file").filter(|file| !file.is_empty());
    let offset = value("binlog_snapshot_position").and_then(|offset| offset.parse().ok());
    Ok(file.zip(offset).map(|(file, offset)| Place { file, offset }))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
