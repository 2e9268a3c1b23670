//! Whether a commit can be lost with its server: what the server says of its semi-synchronous
//! replication, against what has to be so.

use std::collections::BTreeMap;
use std::time::Duration;

use backup_core::Result;
use jiff::Timestamp;
use serde::Serialize;

use crate::connect::{ConnectOptions, Session};

/// How much may be lost when the source is lost.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rpo {
    /// In seconds of commits. 0 only where every commit waits until it is safe with us. Otherwise how long
    /// ago the last moment was of which we know that everything the source had then is safe here: one at
    /// which it said that it has nothing more, by our clock, or the commit of the last transaction that is
    /// safe, by its own; `None` where nothing has come yet.
    pub seconds: Option<f64>,
    /// Why it is not 0; empty where it is.
    pub why: String,
    /// When that was so.
    pub as_of: Timestamp,
}

/// How long the server may take to tell.
const PATIENCE: Duration = Duration::from_secs(5);

/// Asks a server now and then.
#[derive(Debug)]
pub(super) struct Watch {
    source: ConnectOptions,
    session: Option<Session>,
    /// Commits that did not wait, and fallbacks, when we began to look.
    before: Option<(u64, u64)>,
}

impl Watch {
    pub(super) fn new(source: &ConnectOptions) -> Self {
        Watch { source: source.clone(), session: None, before: None }
    }

    /// A connection begins: counters of the server count from here.
    pub(super) fn begin(&mut self) {
        self.session = None;
        self.before = None;
    }

    /// Why a commit could be lost; `None` where none can.
    pub(super) async fn look(&mut self) -> Option<String> {
        let asked = tokio::time::timeout(PATIENCE, self.ask()).await;
        match asked {
            Ok(Ok(problem)) => problem,
            Ok(Err(e)) => {
                self.session = None;
                Some(format!("the server cannot be asked: {}", e.chain()))
            }
            Err(_) => {
                self.session = None;
                Some(format!("the server does not answer within {PATIENCE:?}"))
            }
        }
    }

    async fn ask(&mut self) -> Result<Option<String>> {
        let mut session = match self.session.take() {
            Some(session) => session,
            None => Session::open(&self.source).await?,
        };
        let mut said = BTreeMap::new();
        for what in ["VARIABLES", "STATUS"] {
            let sql = format!("SHOW GLOBAL {what} LIKE 'rpl\\_semi\\_sync\\_%'");
            let rows: Vec<(String, String)> = session.query_rows(&sql).await?;
            said.extend(rows.into_iter().map(|(name, value)| {
                // MariaDB, and MySQL before 8.0.26, say it with older words.
                let name = name
                    .to_lowercase()
                    .replace("_master_", "_source_")
                    .replace("_slave", "_replica");
                (name, value)
            }));
        }
        self.session = Some(session);
        Ok(judge(&said, &mut self.before))
    }
}

fn judge(said: &BTreeMap<String, String>, before: &mut Option<(u64, u64)>) -> Option<String> {
    let of = |name: &str| said.get(&format!("rpl_semi_sync_source_{name}")).map(String::as_str);
    let number = |name: &str| of(name).and_then(|value| value.parse::<u64>().ok());
    if of("enabled") != Some("ON") {
        return Some("the server's semi-synchronous replication is off".into());
    }
    if of("wait_point") != Some("AFTER_SYNC") {
        return Some(
            "the server shows commits to others before they are acknowledged: set \
             rpl_semi_sync_source_wait_point (rpl_semi_sync_master_wait_point) to AFTER_SYNC"
                .into(),
        );
    }
    if of("status") != Some("ON") {
        return Some("the server has fallen back to asynchronous replication".into());
    }
    let counters = (number("no_tx").unwrap_or(0), number("no_times").unwrap_or(0));
    let first = *before.get_or_insert(counters);
    if counters != first {
        return Some(format!(
            "the server fell back {} times since we connected, and {} commits did not wait",
            counters.1.saturating_sub(first.1),
            counters.0.saturating_sub(first.0)
        ));
    }
    let (clients, waits_for) =
        (number("clients").unwrap_or(0), number("wait_for_replica_count").unwrap_or(1));
    match clients {
        0 => Some("the server does not count us among its semi-synchronous replicas".into()),
        n if n > waits_for => Some(format!(
            "commits wait for {waits_for} of {n} semi-synchronous replicas, which need not be us"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_rare() {
        let good = [
            ("enabled", "ON"),
            ("wait_point", "AFTER_SYNC"),
            ("status", "ON"),
            ("no_tx", "3"),
            ("no_times", "1"),
            ("clients", "1"),
            ("wait_for_replica_count", "1"),
        ];
        let said = |changed: &[(&str, &str)]| {
            let all = good.iter().chain(changed);
            let name = |name: &str| format!("rpl_semi_sync_source_{name}");
            all.map(|(n, value)| (name(n), (*value).to_owned())).collect()
        };
        let mut before = None;
        assert_eq!(judge(&said(&[]), &mut before), None);
        assert_eq!(before, Some((3, 1)));
        for (change, part) in [
            (("enabled", "OFF"), "is off"),
            (("wait_point", "AFTER_COMMIT"), "AFTER_SYNC"),
            (("status", "OFF"), "fallen back"),
            (("no_tx", "4"), "1 commits"),
            (("no_times", "2"), "1 times"),
            (("clients", "0"), "count us"),
            (("clients", "2"), "need not be us"),
        ] {
            let problem = judge(&said(&[change]), &mut before).unwrap();
            assert!(problem.contains(part), "{problem}");
        }
        let two = [("clients", "2"), ("wait_for_replica_count", "2")];
        assert_eq!(judge(&said(&two), &mut before), None);
    }
}
