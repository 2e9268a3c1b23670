//! A MariaDB whose appliers stand in each other's way. Where they apply as much together as they can (`optimistic`), a
//! change of a sequence waits for the metadata lock of a later transaction that uses it, and that one waits for the
//! change to be committed first: for ever, and no `STOP SLAVE` ends it (seen on 10.11 and 11.8).

use std::time::{Duration, Instant};

use backup_core::{Context, GtidSet, Result};
use tokio::time::{sleep, timeout};

use super::super::body::Query;
use super::groups::Step;
use super::replica::{PATIENCE, unanswered};
pub(super) use super::settings::CAREFUL_MODE as MODE;
use super::target::{Target, text};
use crate::connect::Session;

/// How long nothing may be committed before it is looked why.
const STILL: Duration = Duration::from_secs(60);
/// What an applier says that has nothing to do.
const IDLE: &str = "Waiting for work";
/// What one says that waits for its turn to commit.
const BEHIND: &str = "Waiting for prior transaction";

/// Whether a server has sequences.
pub(super) async fn has_sequences(session: &mut Session) -> Result<bool> {
    let sql =
        "SELECT EXISTS (SELECT 1 FROM information_schema.tables WHERE table_type = 'SEQUENCE')";
    Ok(session.query_first::<u8>(sql).await? == Some(1))
}

/// Whether a statement may make a sequence, or change one. Of some that do not it is said too.
pub(super) fn makes_a_sequence(step: &Step) -> bool {
    let Step::Event { event, .. } = step else { return false };
    let Ok(Some(query)) = Query::parse(event) else { return false };
    (query.begins_with("CREATE") || query.begins_with("ALTER"))
        && query.sql.to_ascii_uppercase().windows(8).any(|word| word == b"SEQUENCE")
}

/// Lets the target go on with another value of a setting that only a stopped applier takes. It was written down before
/// what it is to be put back to.
pub(super) async fn be_careful(target: &mut Target, name: &str, value: &str) -> Result<()> {
    let set = format!("SET GLOBAL {name} = {value}");
    let statements = ["STOP SLAVE", &set, "START SLAVE"];
    let done = timeout(PATIENCE, async {
        for sql in statements {
            target.session.run(sql).await?;
        }
        Ok(())
    });
    match done.await {
        Ok(done) => done,
        Err(_) => {
            target.open_again().await?;
            Err(unanswered(target))
        }
    }
}

/// Watches whether anything is committed.
pub(super) struct Still {
    executed: Option<GtidSet>,
    since: Instant,
    looked: Instant,
    /// The appliers were freed once.
    freed: bool,
}

impl Default for Still {
    fn default() -> Self {
        let now = Instant::now();
        Still { executed: None, since: now, looked: now, freed: false }
    }
}

/// An applier of a MariaDB: its number, and what it does.
type Applier = (u64, String);

impl Still {
    /// Says so where nothing was committed for long, and frees appliers that wait for each other.
    pub(super) async fn look(
        &mut self,
        cx: &Context,
        target: &mut Target,
        executed: &GtidSet,
    ) -> Result<()> {
        let now = Instant::now();
        if self.executed.as_ref() != Some(executed) {
            self.executed = Some(executed.clone());
            (self.since, self.looked) = (now, now);
            return Ok(());
        }
        if self.looked.elapsed() < STILL {
            return Ok(());
        }
        self.looked = now;
        let seconds = self.since.elapsed().as_secs();
        let appliers = appliers(target).await?;
        let does = appliers.iter().filter(|(_, state)| !state.starts_with(IDLE));
        let does: Vec<&str> = does.map(|(_, state)| state.as_str()).collect();
        cx.note(format!(
            "{} has committed nothing for {seconds} s; its appliers: {}",
            target.name,
            if does.is_empty() { "not seen".to_owned() } else { does.join(", ") }
        ));
        let stuck = stuck(&appliers);
        if !self.freed && !stuck.is_empty() {
            self.freed = true;
            return free(cx, target, &stuck).await;
        }
        Ok(())
    }
}

/// What the appliers of a server do; nothing where that is not seen.
async fn appliers(target: &mut Target) -> Result<Vec<Applier>> {
    let sql = match target.mysql() {
        true => {
            "SELECT PROCESSLIST_ID, COALESCE(PROCESSLIST_STATE, '') FROM performance_schema.threads WHERE NAME = \
             'thread/sql/replica_worker' AND PROCESSLIST_ID IS NOT NULL"
        }
        false => {
            "SELECT ID, COALESCE(STATE, '') FROM information_schema.PROCESSLIST WHERE COMMAND = 'Slave_worker'"
        }
    };
    match target.session.query_rows(sql).await {
        Ok(rows) => Ok(rows),
        Err(e) if e.server().is_some() => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

/// Those that wait for a lock on a definition, where all others wait for them: a lock of another session is waited for
/// by one applier as well, and nothing that is done is lost.
fn stuck(appliers: &[Applier]) -> Vec<u64> {
    let is_locked = |state: &str| state.contains("metadata lock");
    let all = appliers
        .iter()
        .all(|(_, state)| is_locked(state) || state.starts_with(BEHIND) || state.starts_with(IDLE));
    if !all || !appliers.iter().any(|(_, state)| state.starts_with(BEHIND)) {
        return Vec::new();
    }
    appliers.iter().filter(|(_, state)| is_locked(state)).map(|(id, _)| *id).collect()
}

/// Ends these appliers, and goes on with one.
async fn free(cx: &Context, target: &mut Target, stuck: &[u64]) -> Result<()> {
    cx.note("they wait for each other: one of them goes on alone, which is slower");
    for id in stuck {
        if let Err(e) = target.session.run(&format!("KILL {id}")).await {
            if e.server().is_none() {
                return Err(e);
            }
            cx.note(format!("an applier cannot be ended: {}; run KILL {id} there", e.chain()));
            return Ok(());
        }
    }
    let stopped = timeout(PATIENCE, async {
        loop {
            let channels = target.channels().await?;
            if channels.iter().all(|row| text(row, "Slave_SQL_Running") != "Yes") {
                return Ok::<_, backup_core::Error>(());
            }
            sleep(Duration::from_millis(100)).await;
        }
    });
    match stopped.await {
        Ok(stopped) => stopped?,
        Err(_) => {
            target.open_again().await?;
            return Err(unanswered(target));
        }
    }
    be_careful(target, "slave_parallel_threads", "0").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_freed() {
        let of = |states: &[&str]| {
            let all: Vec<Applier> =
                states.iter().enumerate().map(|(n, s)| (n as u64, (*s).to_owned())).collect();
            stuck(&all)
        };
        let locked = "Waiting for table metadata lock";
        let behind = "Waiting for prior transaction to commit";
        let idle = "Waiting for work from SQL thread";
        assert_eq!(of(&[behind, locked, idle, behind]), [1]);
        // One that works, however long.
        assert_eq!(of(&[behind, locked, "Updating"]), [0; 0]);
        assert_eq!(of(&[behind, "copy to tmp table", idle]), [0; 0]);
        assert_eq!(of(&[locked, idle]), [0; 0]);
        assert_eq!(of(&[]), [0; 0]);
    }
}
