//! Whether a server is still the one that it was: after a restore it goes on from an earlier point, and may have
//! the same LSNs with other pages.

use backup_core::{BinlogFile, Flavor, GtidSet, Position, Result};

use crate::connect::Session;
use crate::logical::current_position;
use crate::logical::inventory::ServerFacts;

/// What the binary log of a server says of an earlier position in it.
#[derive(Debug, Default)]
pub(super) struct History {
    /// The newest of its files.
    now: Option<String>,
    /// Whether the file of the earlier position is among them, and if so, the GTIDs there.
    then: Option<Option<GtidSet>>,
}

impl History {
    pub(super) async fn ask(
        session: &mut Session,
        facts: &ServerFacts,
        earlier: &Position,
    ) -> Result<History> {
        let (Flavor::MariaDb, Some(file), Some(offset)) =
            (facts.flavor, &earlier.file, earlier.offset)
        else {
            // MySQL gets another identity with each restore.
            return Ok(History::default());
        };
        let now = current_position(session, facts).await?.file;
        if now.is_none() {
            return Ok(History::default());
        }
        let files: Vec<(String, u64)> = session.query_rows("SHOW BINARY LOGS").await?;
        if files.iter().all(|(name, _)| name != file) {
            return Ok(History { now, then: None });
        }
        let sql = format!("SELECT BINLOG_GTID_POS('{}', {offset})", file.replace('\'', "''"));
        let then: Option<Option<String>> = session.query_first(&sql).await?;
        let then = then.flatten().filter(|text| !text.is_empty());
        let then = then.and_then(|text| GtidSet::parse(facts.flavor, &text).ok());
        Ok(History { now, then: Some(then) })
    }

    /// Whether nothing speaks against it that the server has gone on from `earlier`. Logs that were purged since
    /// do not.
    pub(super) fn leads_on_from(&self, earlier: &Position) -> bool {
        if let Some(then) = &self.then {
            return *then == earlier.gtid;
        }
        let number = |file: &Option<String>| {
            let file: BinlogFile = file.as_ref()?.parse().ok()?;
            Some(file.number())
        };
        match (number(&self.now), number(&earlier.file)) {
            (Some(now), Some(earlier)) => now >= earlier,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_was_purged_says_nothing_and_another_one_does() {
        let set = |text: &str| Some(text.parse().unwrap());
        let earlier = Position { gtid: set("0-1-50"), ..Position::at("binlog.000007", 400) };
        for (now, then, leads_on) in [
            ("binlog.000007", Some(set("0-1-50")), true),
            ("binlog.000009", Some(set("0-1-50")), true),
            ("binlog.000009", Some(set("0-1-40")), false),
            ("binlog.000009", Some(set("0-2-50")), false),
            ("binlog.000009", Some(None), false),
            ("binlog.000009", None, true),
            ("binlog.000002", None, false),
        ] {
            let history = History { now: Some(now.to_owned()), then };
            assert_eq!(history.leads_on_from(&earlier), leads_on, "{history:?}");
        }
        assert!(History::default().leads_on_from(&earlier));
    }
}
