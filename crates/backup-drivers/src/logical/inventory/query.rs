//! Queries that a reading of definitions is made of, with the bytes as the server has them.

use backup_core::{Error, Result};
use mysql_async::prelude::{AsQuery, Queryable};
use mysql_async::{Conn, Row, Value};

use crate::connect::{sql_error, statement_error};

/// Every row; `what` says what was being done.
pub(in crate::logical) async fn rows<Q>(conn: &mut Conn, sql: Q, what: &str) -> Result<Vec<Row>>
where
    Q: AsQuery + Send + Sync,
{
    conn.query(sql).await.map_err(|e| sql_error(e, what.to_owned()))
}

/// A statement without rows; `what` says what was being done.
pub(in crate::logical) async fn run<Q>(conn: &mut Conn, sql: Q, what: &str) -> Result<()>
where
    Q: AsQuery + Send + Sync,
{
    let sql = sql.as_query();
    let done = conn.query_drop(&sql[..]).await;
    done.map_err(|e| statement_error(e, &String::from_utf8_lossy(&sql), what.to_owned()))
}

/// The bytes of a column; none for NULL and for a column that is not there.
pub(in crate::logical) fn bytes(row: &Row, column: usize) -> Option<&[u8]> {
    match row.as_ref(column) {
        Some(Value::Bytes(bytes)) => Some(bytes),
        _ => None,
    }
}

/// The text of a column; none for NULL.
pub(in crate::logical) fn text(row: &Row, column: usize) -> Option<String> {
    bytes(row, column).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// The text of a column that is never NULL.
pub(in crate::logical) fn required(row: &Row, column: usize) -> Result<String> {
    text(row, column).ok_or_else(|| {
        let columns = row.columns_ref();
        let name = columns.get(column).map_or("?".into(), mysql_async::Column::name_str);
        Error::new(
            backup_core::ErrorKind::Source,
            format!("the server gave no value for {name}, which always has one"),
        )
    })
}

/// An unsigned number; 0 for NULL.
pub(in crate::logical) fn number(row: &Row, column: usize) -> u64 {
    bytes(row, column).and_then(|bytes| std::str::from_utf8(bytes).ok()?.parse().ok()).unwrap_or(0)
}
