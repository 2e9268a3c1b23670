//! Tables that rows alone are to be loaded into.

use std::collections::BTreeMap;
use std::fmt;

use backup_core::{ErrorKind, Finding, Result, Severity};
use mysql_async::Conn;

use super::super::catalog::{Catalog, Column, LoadMode, Table};
use super::super::ddl::quote_text;
use super::super::inventory::query;
use super::super::select::quote_name;

/// Looks whether every table of the catalogue is at the target, has the columns of the backup, of types that take the
/// values as they are, is empty, and has no triggers, which would fire for every row. Gives what forbids the restore.
///
/// # Errors
/// Those of [`sql_error`](crate::connect::sql_error).
pub async fn check_empty(conn: &mut Conn, catalog: &Catalog) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for table in &catalog.tables {
        let problem = problem(conn, table).await?;
        findings.extend(problem.map(|(problem, remedy)| {
            Finding::new(Severity::Error, table.full_name().to_string(), problem, remedy)
                .with_kind(ErrorKind::Target)
        }));
    }
    Ok(findings)
}

async fn problem(conn: &mut Conn, table: &Table) -> Result<Option<(String, &'static str)>> {
    let what = format!("cannot look at the table {}", table.full_name());
    let (database, name) = (quote_text(&table.database), quote_text(&table.name));
    let sql = format!(
        "SELECT COLUMN_NAME, DATA_TYPE, CHARACTER_SET_NAME FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA = {database} AND TABLE_NAME = {name}"
    );
    let rows = query::rows(conn, sql, &what).await?;
    if rows.is_empty() {
        return Ok(Some((
            "it is not at the target".to_owned(),
            "create it first, for example with --schema-only",
        )));
    }
    let column = |row: &mysql_async::Row| {
        let form = Form::of(&query::text(row, 1)?, query::text(row, 2));
        Some((query::text(row, 0)?.to_lowercase(), form))
    };
    let there: BTreeMap<String, Form> = rows.iter().filter_map(column).collect();
    let history = |name: &str| table.history && ["row_start", "row_end"].contains(&name);
    let missing = table
        .columns
        .iter()
        .find(|c| !there.contains_key(&c.name.to_lowercase()) && !history(&c.name));
    if let Some(column) = missing {
        return Ok(Some((
            format!("it has no column {} at the target", column.name),
            "give it the columns of the backup, or restore its definition too",
        )));
    }
    for column in &table.columns {
        let Some(there) = there.get(&column.name.to_lowercase()) else { continue };
        let here = Form::of_column(column);
        if !here.goes_into(there) {
            return Ok(Some((
                format!(
                    "its column {} is {here} in the backup and {there} at the target: the values would come out \
                     as others",
                    column.name
                ),
                "give the column the type and character set of the backup, and ALTER TABLE it after the restore, \
                 which converts the values; or restore the definition too",
            )));
        }
    }
    let sql = format!(
        "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS \
         WHERE EVENT_OBJECT_SCHEMA = {database} AND EVENT_OBJECT_TABLE = {name} \
         AND EVENT_MANIPULATION = 'INSERT'"
    );
    if let Some(row) = query::rows(conn, sql, &what).await?.first() {
        return Ok(Some((
            format!(
                "its trigger {} would fire for every row",
                query::text(row, 0).unwrap_or_default()
            ),
            "drop the trigger, and create it again after the restore",
        )));
    }
    let past = if table.history { " FOR SYSTEM_TIME ALL" } else { "" };
    let sql = format!(
        "SELECT 1 FROM {}.{}{past} LIMIT 1",
        quote_name(&table.database),
        quote_name(&table.name)
    );
    if !query::rows(conn, sql, &what).await?.is_empty() {
        return Ok(Some((
            "it holds rows at the target".to_owned(),
            "empty it with TRUNCATE TABLE if they are not needed",
        )));
    }
    Ok(None)
}

/// What the bytes of a column mean.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    /// Text of a character set.
    Text(String),
    Binary,
    /// Moments, which are loaded and read in UTC.
    Timestamp,
    /// Dates with times of no zone.
    Datetime,
    /// Of these the server makes what they say, or what is read back is something else.
    Other,
}

impl Form {
    fn of(data_type: &str, charset: Option<String>) -> Form {
        match (data_type.to_lowercase().as_str(), charset) {
            // Documents are printed in it.
            ("json", None) => Form::Text("utf8mb4".to_owned()),
            ("timestamp", _) => Form::Timestamp,
            ("datetime", _) => Form::Datetime,
            ("binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob", _) => {
                Form::Binary
            }
            (_, Some(charset)) => Form::Text(match charset.to_lowercase().as_str() {
                "utf8" => "utf8mb3".to_owned(),
                charset => charset.to_owned(),
            }),
            (_, None) => Form::Other,
        }
    }

    fn of_column(column: &Column) -> Form {
        match (column.load, column.charset.clone()) {
            (LoadMode::Utf8, None) => Form::Text("utf8mb4".to_owned()),
            (_, charset) => Form::of(&column.data_type, charset),
        }
    }

    /// Whether values of it are the same ones there, or are seen to be others when they are read back. Text goes in as
    /// the bytes that it is.
    fn goes_into(&self, there: &Form) -> bool {
        let unicode = |name: &str| name == "utf8mb3" || name == "utf8mb4";
        match (self, there) {
            (Form::Text(here), Form::Text(there)) => {
                here == there
                    || unicode(here) && unicode(there)
                    || here == "ascii" && !NO_ASCII.contains(&there.as_str())
            }
            (Form::Text(_), Form::Binary) | (Form::Binary, Form::Text(_)) => false,
            (Form::Timestamp, there) => *there == Form::Timestamp,
            (_, Form::Timestamp) => false,
            _ => true,
        }
    }
}

/// Character sets in which the letters of ASCII have other bytes, or its bytes other letters.
const NO_ASCII: [&str; 6] = ["ucs2", "utf16", "utf16le", "utf32", "swe7", "filename"];

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Form::Text(charset) => write!(f, "text in {charset}"),
            Form::Binary => f.write_str("bytes"),
            Form::Timestamp => f.write_str("a TIMESTAMP"),
            Form::Datetime => f.write_str("a DATETIME"),
            Form::Other => f.write_str("of another type"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_go_where_their_bytes_mean_the_same() {
        let form = |text: &str| match text {
            "timestamp" | "datetime" | "varbinary" | "int" | "json" => Form::of(text, None),
            charset => Form::of("varchar", Some(charset.to_owned())),
        };
        for (here, there) in [
            ("ascii", "utf8mb4"),
            ("ascii", "sjis"),
            ("utf8", "utf8mb4"),
            ("utf8mb4", "utf8mb3"),
            ("json", "utf8mb4"),
            ("int", "latin1"),
            ("varbinary", "varbinary"),
            ("datetime", "latin1"),
        ] {
            assert!(form(here).goes_into(&form(there)), "{here} {there}");
        }
        for (here, there) in [
            ("ascii", "utf16"),
            ("ascii", "varbinary"),
            ("latin1", "ascii"),
            ("latin1", "utf8mb4"),
            ("utf8mb4", "latin1"),
            ("gbk", "sjis"),
            ("utf16", "varbinary"),
            ("varbinary", "utf8mb4"),
            ("json", "latin1"),
            ("timestamp", "datetime"),
            ("timestamp", "utf8mb4"),
            ("datetime", "timestamp"),
        ] {
            assert!(!form(here).goes_into(&form(there)), "{here} {there}");
        }
    }
}
