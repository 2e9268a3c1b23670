//! Types inside JSON documents that their text does not tell (MySQL).
//!
//! A document may hold a date, bytes or a decimal number, where SQL put one into it. Both protocols give out
//! text, in which a date is a string. So some rows of each column with documents are looked at. Where all that
//! looks like a date is one, a restore makes dates of it; of what comes back otherwise it tells.

use backup_core::{ErrorKind, Finding, Flavor, Result, Severity};
use serde::Serialize;

use super::catalog::{Catalog, Column, Table};
use super::inventory::ServerFacts;
use super::select::quote_name;
use crate::connect::Session;
use crate::rows::DocumentTypes;

/// How many rows of a table are looked at, at most and at least. A column mostly holds documents of one kind.
const ROWS: (u64, u64) = (10, 200);
/// About how many bytes of a table are looked at.
const BYTES: u64 = 12 << 20;
/// The largest document that is looked at, in bytes.
const LARGEST: u32 = 1 << 20;

/// Those whose text does not tell them. A whole number that is UNSIGNED, or a DECIMAL without a fraction, is
/// the same number afterwards.
const TYPES: [&str; 7] = ["DECIMAL", "DATE", "TIME", "DATETIME", "BLOB", "BIT", "OPAQUE"];

/// Those that can be said in SQL, if nothing else in the column looks so.
const LIKE: [(&str, &str); 4] = [
    ("DECIMAL", "DOUBLE"),
    ("DATE", "STRING like DATE"),
    ("TIME", "STRING like TIME"),
    ("DATETIME", "STRING like DATETIME"),
];

/// What a restore can make of the text.
pub(super) fn known(types: &[String]) -> DocumentTypes {
    let alone = |name: &str| {
        let has = |name: &str| types.iter().any(|found| found == name);
        has(name) && LIKE.iter().any(|(of, like)| *of == name && !has(like))
    };
    DocumentTypes {
        decimals: alone("DECIMAL"),
        dates: alone("DATE"),
        times: alone("TIME"),
        datetimes: alone("DATETIME"),
    }
}

/// What a column of documents holds.
#[derive(Debug, Serialize)]
pub(super) struct Found<'a> {
    table: String,
    column: &'a str,
    types: &'a [String],
}

/// Looks at the documents of tables that have rows, and notes the types.
pub(super) async fn look(
    session: &mut Session,
    facts: &ServerFacts,
    tables: &mut [Table],
) -> Result<()> {
    if facts.flavor != Flavor::MySql || !facts.version.at_least(8, 0, 4) {
        return Ok(());
    }
    for table in tables.iter_mut().filter(|table| table.digest.rows > 0) {
        let is_wanted = |c: &&Column| c.holds_documents() && !table.masked.contains(&c.name);
        let wanted = table.columns.iter().filter(is_wanted).map(|c| c.name.clone());
        for column in wanted.collect::<Vec<_>>() {
            match session.query_rows::<String>(&types_in(table, &column)).await {
                Ok(types) if types.iter().any(|name| TYPES.contains(&name.as_str())) => {
                    table.documents.insert(column, types);
                }
                Ok(_) => {}
                // The table was changed by now, which is for others to see; or the server cannot take a document
                // apart. Nothing is known then.
                Err(e) if e.server().is_some() && e.kind() != ErrorKind::Connect => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

fn types_in(table: &Table, column: &str) -> String {
    let types = TYPES.map(|name| format!("'{name}'")).join(", ");
    let (date, time) = ("[0-9]{4}-[0-9]{2}-[0-9]{2}", "[0-9]{2,3}:[0-9]{2}:[0-9]{2}[.][0-9]{6}");
    let each = table.data_bytes / table.digest.rows.max(1);
    let rows = (BYTES / each.max(1)).clamp(ROWS.0, ROWS.1);
    format!(
        "SELECT DISTINCT CONVERT(CASE WHEN JSON_TYPE(v.v) <> 'STRING' THEN JSON_TYPE(v.v) \
         WHEN JSON_UNQUOTE(v.v) REGEXP '^{date}$' THEN 'STRING like DATE' \
         WHEN JSON_UNQUOTE(v.v) REGEXP '^-?{time}$' THEN 'STRING like TIME' \
         WHEN JSON_UNQUOTE(v.v) REGEXP '^{date} {time}$' THEN 'STRING like DATETIME' END USING utf8mb4) AS type \
         FROM (SELECT {} AS j FROM {}.{} LIMIT {rows}) d \
         JOIN JSON_TABLE(JSON_EXTRACT(IF(JSON_STORAGE_SIZE(d.j) <= {LARGEST}, d.j, NULL), '$', '$**.*', '$**[*]'), \
         '$[*]' COLUMNS (v JSON PATH '$')) v HAVING type IN ({types}, 'DOUBLE') OR type LIKE 'STRING%' ORDER BY 1",
        quote_name(column),
        quote_name(&table.database),
        quote_name(&table.name)
    )
}

/// All of them, by table and column.
pub(super) fn found(tables: &[Table]) -> Vec<Found<'_>> {
    let all = tables.iter().flat_map(|table| table.documents.iter().map(move |of| (table, of)));
    all.map(|(table, (column, types))| Found {
        table: table.full_name().to_string(),
        column,
        types,
    })
    .collect()
}

/// What a restore makes of them.
pub(super) fn findings(catalog: &Catalog) -> Vec<Finding> {
    let mut findings = Vec::new();
    for Found { table, column, types } in found(&catalog.tables) {
        let mut add = |severity, types: String, become_what: &str, remedy: &str| {
            let problem = format!("its documents hold values of type {types}, which {become_what}");
            findings.push(Finding::new(severity, format!("{table}.{column}"), problem, remedy));
        };
        let DocumentTypes { decimals, dates, times, datetimes } = known(types);
        let exact =
            [(decimals, "DECIMAL"), (dates, "DATE"), (times, "TIME"), (datetimes, "DATETIME")];
        let is_lost = |name: &&str| {
            TYPES.contains(name) && !exact.iter().any(|(exact, of)| *exact && of == name)
        };
        let lost: Vec<&str> = types.iter().map(String::as_str).filter(is_lost).collect();
        let strings: Vec<&str> = lost.iter().copied().filter(|name| *name != "DECIMAL").collect();
        if !strings.is_empty() {
            add(
                Severity::Warning,
                strings.join(", "),
                "come back as strings of the same text",
                "see whether programs compare them as what they were; UPDATE with JSON_SET and CAST makes them so \
                 again",
            );
        }
        if lost.contains(&"DECIMAL") {
            add(
                Severity::Info,
                "DECIMAL".to_owned(),
                "come back with all their digits, and as DOUBLE where one is printed the same",
                "",
            );
        }
    }
    findings
}
