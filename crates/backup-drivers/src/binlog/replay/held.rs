//! Scheduled events that a target is not to run before a replay is at its end, written down there with what they are to
//! be then: a run that goes on after a failure, or a `kill -9`, does not see the statements that told it.

use backup_core::Result;

use super::events::{Name, Status};
use super::settings::unlogged;
use crate::connect::Session;

/// The database of the table, which is there only until everything is applied.
const DATABASE: &str = "holdfast_events";

/// What is written down.
pub(super) async fn read(session: &mut Session) -> Result<Vec<(Name, Status)>> {
    let sql = format!(
        "SELECT 1 FROM information_schema.tables WHERE table_schema = '{DATABASE}' AND table_name = 'held'"
    );
    if session.query_first::<u8>(&sql).await?.is_none() {
        return Ok(Vec::new());
    }
    let sql = format!("SELECT of_database, name, status FROM {DATABASE}.held");
    let rows: Vec<(String, String, String)> = session.query_rows(&sql).await?;
    Ok(rows.into_iter().map(|(of, name, status)| ((of, name), Status::named(&status))).collect())
}

/// Writes events down. The session may keep its statements out of the binlog.
pub(super) async fn write(session: &mut Session, events: &[(Name, Status)]) -> Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let mut statements = vec![
        format!("CREATE DATABASE IF NOT EXISTS {DATABASE}"),
        format!(
            "CREATE TABLE IF NOT EXISTS {DATABASE}.held (of_database VARCHAR(64), name VARCHAR(64), status \
             VARCHAR(20) NOT NULL, PRIMARY KEY (of_database, name)) ENGINE = InnoDB CHARACTER SET utf8mb4 \
             COLLATE utf8mb4_bin"
        ),
    ];
    statements.extend(events.iter().map(|((of, name), status)| {
        let (of, name, status) = (text(of), text(name), status.name());
        format!("REPLACE INTO {DATABASE}.held VALUES ({of}, {name}, '{status}')")
    }));
    unlogged(session, &statements).await
}

/// Takes it away, when everything is what it is to be.
pub(super) async fn forget(session: &mut Session) -> Result<()> {
    let sql = format!("SELECT 1 FROM information_schema.schemata WHERE schema_name = '{DATABASE}'");
    match session.query_first::<u8>(&sql).await? {
        Some(_) => unlogged(session, &[format!("DROP DATABASE {DATABASE}")]).await,
        None => Ok(()),
    }
}

/// A text that reads the same in every mode.
fn text(text: &str) -> String {
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("CONVERT(X'{hex}' USING utf8mb4)")
}
