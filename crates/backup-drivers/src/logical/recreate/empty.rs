//! Tables that rows alone are to be loaded into.

use std::collections::BTreeSet;

use backup_core::{ErrorKind, Finding, Result, Severity};
use mysql_async::Conn;

use super::super::catalog::{Catalog, Table};
use super::super::ddl::quote_text;
use super::super::inventory::query;
use super::super::select::quote_name;

/// Looks whether every table of the catalogue is at the target, has the columns of the backup, is
/// empty, and has no triggers, which would fire for every row. Gives what forbids the restore.
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
        "SELECT COLUMN_NAME FROM information_schema.COLUMNS \
         WHERE TABLE_SCHEMA = {database} AND TABLE_NAME = {name}"
    );
    let rows = query::rows(conn, sql, &what).await?;
    if rows.is_empty() {
        return Ok(Some((
            "it is not at the target".to_owned(),
            "create it first, for example with --schema-only",
        )));
    }
    let there: BTreeSet<String> =
        rows.iter().filter_map(|row| Some(query::text(row, 0)?.to_lowercase())).collect();
    let history = |name: &str| table.history && ["row_start", "row_end"].contains(&name);
    let missing =
        table.columns.iter().find(|c| !there.contains(&c.name.to_lowercase()) && !history(&c.name));
    if let Some(column) = missing {
        return Ok(Some((
            format!("it has no column {} at the target", column.name),
            "give it the columns of the backup, or restore its definition too",
        )));
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
