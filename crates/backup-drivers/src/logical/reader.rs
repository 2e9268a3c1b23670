//! Connections that read rows.

use backup_core::Result;

use super::waits;
use crate::connect::{ConnectOptions, SESSION};
use crate::wire;

/// Statements that make a connection give rows exactly as they are stored, for as long as it takes.
///
/// Results in `binary` are not converted to another character set, `TIMESTAMP` in UTC is not
/// converted to another time zone.
fn reader_settings() -> [&'static str; 5] {
    [
        SESSION,
        "SET NAMES utf8mb4",
        "SET SESSION character_set_results = binary",
        "SET SESSION time_zone = '+00:00', sql_mode = '', net_write_timeout = 3600, \
         net_read_timeout = 3600",
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    ]
}

/// Opens a connection that reads rows.
pub(super) async fn reader(source: &ConnectOptions) -> Result<wire::Connection> {
    let mut connection = wire::Connection::connect(source).await?;
    connection.widen().await?;
    for setting in reader_settings() {
        connection.query(setting).await?;
    }
    connection.query(&waits::at_most(waits::RESTORE)).await?;
    Ok(connection)
}
