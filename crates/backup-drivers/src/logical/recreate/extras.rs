//! What belongs to a server or a table besides definition and rows.

use backup_core::{Error, ErrorKind, Finding, Flavor, Result, ServerVersion, Severity};
use mysql_async::Conn;

use super::super::catalog::{Catalog, LoadMode, StoredKind, StoredObject};
use super::super::ddl::quote_text;
use super::super::inventory::{ServerFacts, query};
use super::super::select::quote_name;
use super::definitions::{is_read_only, prepare};
use super::target_error;

/// Adapts the catalogue to the server that it is restored to. Gives what forbids the restore.
///
/// Timestamps of MariaDB end in 2038 before version 11.5 and in 2106 since; a row version of the
/// present is one that ends then.
pub fn adapt(catalog: &mut Catalog, facts: &ServerFacts) -> Vec<Finding> {
    let has_history = catalog.tables.iter().any(|t| t.history);
    if !has_history || facts.flavor != Flavor::MariaDb {
        return Vec::new();
    }
    let source = ServerVersion::parse(&catalog.header.server_version, "");
    let source_later = source.is_ok_and(|version| version.at_least(11, 5, 0));
    let mut findings = Vec::new();
    for table in catalog.tables.iter_mut().filter(|t| t.history) {
        let refuse = |problem: &str, remedy: &str| {
            Finding::new(Severity::Error, table.full_name().to_string(), problem, remedy)
                .with_kind(ErrorKind::Target)
        };
        if !facts.version.at_least(10, 11, 0) {
            findings.push(refuse(
                "the backup holds the past of its rows, which the target cannot load",
                "restore to MariaDB 10.11 or later",
            ));
        } else if source_later && !facts.version.at_least(11, 5, 0) {
            findings.push(refuse(
                "its rows of the present end in 2106, which the target has no timestamp for",
                "restore to MariaDB 11.5 or later",
            ));
        } else if !source_later
            && facts.version.at_least(11, 5, 0)
            && let Some(end) = table.columns.last_mut()
        {
            end.load = LoadMode::RowEnd;
        }
    }
    findings
}

/// What is done when rows, code and triggers are there: resource groups, histograms, databases that
/// were read-only. Gives warnings.
///
/// # Errors
/// When the connection is lost.
pub async fn finish_tables(
    conn: &mut Conn,
    facts: &ServerFacts,
    catalog: &Catalog,
) -> Result<Vec<String>> {
    prepare(conn, facts).await?;
    let mut warnings = Vec::new();
    for object in catalog.stored.iter().filter(|o| o.kind == StoredKind::ResourceGroup) {
        let what = format!("cannot create the resource group {}", object.name);
        match query::run(conn, object.create.clone(), &what).await {
            // It is there already.
            Err(e) if e.server().is_some_and(|s| s.code == 3650) => {}
            other => note(other, &mut warnings)?,
        }
    }
    if facts.flavor == Flavor::MySql && facts.version.at_least(8, 0, 31) {
        for table in &catalog.tables {
            for (column, data) in &table.histograms {
                let what = format!("the histogram of {}.{column}", table.full_name());
                let sql = format!(
                    "ANALYZE TABLE {}.{} UPDATE HISTOGRAM ON {} USING DATA {}",
                    quote_name(&table.database),
                    quote_name(&table.name),
                    quote_name(column),
                    quote_text(data)
                );
                match query::rows(conn, sql, &what).await {
                    Ok(rows) => {
                        let failed = rows.iter().find(|r| {
                            query::text(r, 2).is_some_and(|t| t.eq_ignore_ascii_case("error"))
                        });
                        if let Some(row) = failed {
                            let text = query::text(row, 3).unwrap_or_default();
                            warnings.push(format!("{what} is not restored: {text}"));
                        }
                    }
                    Err(e) => note(Err(e), &mut warnings)?,
                }
            }
        }
    }
    for database in catalog.databases.iter().filter(|d| is_read_only(&d.create)) {
        let what = format!("cannot make the database {} read-only again", database.name);
        let sql = format!("ALTER DATABASE {} READ ONLY = 1", quote_name(&database.name));
        note(query::run(conn, sql, &what).await, &mut warnings)?;
    }
    Ok(warnings)
}

fn note(result: Result<()>, warnings: &mut Vec<String>) -> Result<()> {
    match result {
        Err(e) if e.server().is_some() => {
            warnings.push(e.chain());
            Ok(())
        }
        other => other,
    }
}

/// Creates a spatial reference system, or sees that the one of its number is the same.
pub(super) async fn spatial_reference_system(
    conn: &mut Conn,
    facts: &ServerFacts,
    object: &StoredObject,
) -> Result<()> {
    let what = format!("cannot create the spatial reference system {}", object.name);
    let number: u32 = object
        .name
        .parse()
        .map_err(|_| Error::damaged("a spatial reference system has no number"))?;
    let sql = format!(
        "SELECT DEFINITION FROM information_schema.ST_SPATIAL_REFERENCE_SYSTEMS WHERE SRS_ID = {number}"
    );
    let rows = query::rows(conn, sql, &what).await.map_err(|e| target_error(e, facts))?;
    match rows.first().and_then(|row| query::text(row, 0)) {
        None => {
            query::run(conn, object.create.clone(), &what).await.map_err(|e| target_error(e, facts))
        }
        Some(there) if object.create.contains(&quote_text(&there)) => Ok(()),
        Some(_) => Err(Error::new(
            ErrorKind::Target,
            format!("the target has another spatial reference system of the number {number}"),
        )
        .with_remedy("restore to another server: geometries would mean other places")),
    }
}
