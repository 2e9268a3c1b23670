//! What the binary log of a server tells of its changes: what it leaves out is in no point in time after a backup.

use backup_core::{Finding, Flavor, Result, Severity};

use crate::connect::Session;
use crate::logical::followed;
use crate::logical::inventory::ServerFacts;

/// What is missing for points in time after a backup.
pub(crate) async fn findings(session: &mut Session, facts: &ServerFacts) -> Result<Vec<Finding>> {
    let on: Option<u8> = session.query_first("SELECT @@GLOBAL.log_bin").await?;
    if on != Some(1) {
        return Ok(vec![Finding::new(
            Severity::Warning,
            "log_bin",
            "the binary log is off, so nothing after this backup can be restored",
            "set log_bin in the server's configuration and restart it",
        )]);
    }
    let mut findings = Vec::new();
    // The backup itself has everything.
    let mut note = |what: String, remedy| {
        let problem = format!("{what}: no point in time after this backup will have it");
        findings.push(Finding::new(Severity::Info, "log_bin", problem, remedy));
    };
    if let Some(what) = unlogged(session, facts).await? {
        note(what, UNLOGGED);
    }
    match filters(session, facts).await {
        Ok(Some(what)) => note(what, "do without these options"),
        Ok(None) => {}
        // Who may not ask is told so elsewhere.
        Err(e) if e.server().is_some() => {}
        Err(e) => return Err(e),
    }
    Ok(findings)
}

/// What to do about a server that replicates and does not log it.
pub(crate) const UNLOGGED: &str = "set log_slave_updates=ON (MySQL: log_replica_updates) and restart the server, or archive the binary logs of its \
     source and restore backups of that one";

/// What a server gets from others at this moment and does not log, if there is such.
pub(crate) async fn unlogged(session: &mut Session, facts: &ServerFacts) -> Result<Option<String>> {
    let mut from = followed(session, facts).await?;
    if from.is_none() && facts.flavor == Flavor::MariaDb {
        // Who may not see the replication sees that there is one.
        let running: Option<(String, u64)> =
            session.query_first("SHOW GLOBAL STATUS LIKE 'Slaves\\_running'").await?;
        from = running.filter(|(_, running)| *running > 0).map(|_| "its source".to_owned());
    }
    let Some(from) = from else { return Ok(None) };
    let sql = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_slave_updates', 'log_replica_updates') AND Value = 'ON'";
    let logs: Option<(String, String)> = session.query_first(sql).await?;
    let name = match facts.flavor {
        Flavor::MySql => "log_replica_updates",
        Flavor::MariaDb => "log_slave_updates",
    };
    Ok(logs.is_none().then(|| {
        format!("what the server replicates from {from} is not in its binary log ({name}=OFF)")
    }))
}

/// Databases that the binary log leaves out, if it does.
pub(crate) async fn filters(session: &mut Session, facts: &ServerFacts) -> Result<Option<String>> {
    let sql = facts.capabilities().binlog_status_statement();
    let row: Option<mysql_async::Row> = session.query_first(sql).await?;
    let set = |row: &mysql_async::Row, i: usize| {
        let text = row.get_opt::<Option<String>, _>(i).and_then(std::result::Result::ok).flatten();
        text.filter(|text| !text.is_empty())
    };
    let Some(row) = row else { return Ok(None) };
    let filters = [(2, "binlog_do_db"), (3, "binlog_ignore_db")];
    let filters =
        filters.into_iter().filter_map(|(i, name)| Some(format!("{name}={}", set(&row, i)?)));
    let filters: Vec<String> = filters.collect();
    Ok((!filters.is_empty())
        .then(|| format!("the binary log leaves out databases ({})", filters.join(", "))))
}
