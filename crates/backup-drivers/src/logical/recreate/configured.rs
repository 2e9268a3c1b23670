//! Tables that the target's own settings keep from being made, or make otherwise.

use std::collections::BTreeMap;

use backup_core::{ErrorKind, Finding, Flavor, Result, Severity};
use mysql_async::Conn;

use super::super::catalog::{Catalog, Column, Table};
use super::super::ddl::Parts;
use super::super::inventory::{ServerFacts, query};
use super::compat::listed;

/// The longest column of an index in the row formats COMPACT and REDUNDANT.
const LONGEST: u64 = 767;

/// What stands against tables that are to be made.
///
/// # Errors
/// Those of [`sql_error`](crate::connect::sql_error).
pub(in crate::logical) async fn configured(
    conn: &mut Conn,
    facts: &ServerFacts,
    catalog: &Catalog,
) -> Result<Vec<Finding>> {
    // Of some the names alone are known.
    let tables: Vec<&Table> = catalog.tables.iter().filter(|t| !t.columns.is_empty()).collect();
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let what = "cannot read the target's settings";
    let sql = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('disabled_storage_engines', \
               'enforce_storage_engine', 'innodb_force_primary_key', 'innodb_default_row_format')";
    let settings: BTreeMap<String, String> = query::rows(conn, sql, what)
        .await?
        .iter()
        .filter_map(|row| Some((query::text(row, 0)?, query::text(row, 1)?)))
        .collect();
    let setting = |name: &str| settings.get(name).map(String::as_str).filter(|v| !v.is_empty());
    let mut findings = Vec::new();
    let mut add = |severity, found: Vec<&&Table>, problem: String, remedy: String| {
        if !found.is_empty() {
            let names = Vec::from_iter(found.iter().map(|table| table.full_name().to_string()));
            let finding = Finding::new(severity, listed(&names), problem, remedy);
            findings.push(finding.with_kind(ErrorKind::Target));
        }
    };
    if let Some(disabled) = setting("disabled_storage_engines") {
        let is_disabled = |table: &&&Table| {
            disabled.split(',').any(|name| same_engine(name.trim(), &table.engine))
        };
        add(
            Severity::Error,
            tables.iter().filter(is_disabled).collect(),
            format!("the target has disabled_storage_engines={disabled} (ERROR 3161)"),
            "take their engine out of that setting, for which the target has to be restarted; or \
             leave these tables out"
                .to_owned(),
        );
    }
    if let Some(only) = setting("enforce_storage_engine") {
        add(
            Severity::Error,
            tables.iter().filter(|table| !same_engine(only, &table.engine)).collect(),
            format!("the target has enforce_storage_engine={only} (ERROR 1286)"),
            "SET GLOBAL enforce_storage_engine = NULL at the target for the time of the restore; or \
             leave these tables out"
                .to_owned(),
        );
    }
    let innodb = |table: &&&Table| same_engine("InnoDB", &table.engine);
    if facts.flavor == Flavor::MariaDb && setting("innodb_force_primary_key") == Some("ON") {
        add(
            Severity::Error,
            tables.iter().filter(innodb).filter(|table| table.key.is_empty()).collect(),
            "the target has innodb_force_primary_key=ON, and takes no table without a key (ERROR 1173)"
                .to_owned(),
            "SET GLOBAL innodb_force_primary_key = OFF at the target for the time of the restore; or \
             leave these tables out"
                .to_owned(),
        );
    }
    let format =
        setting("innodb_default_row_format").filter(|f| !f.eq_ignore_ascii_case("dynamic"));
    if let Some(format) = format {
        let widths = widths(conn).await?;
        let names_none = |table: &&&Table| {
            let parts = Parts::of(&table.create);
            ["ROW_FORMAT", "KEY_BLOCK_SIZE"].iter().all(|name| parts.option(name).is_none())
        };
        let (too_long, others): (Vec<_>, Vec<_>) = tables
            .iter()
            .filter(innodb)
            .filter(names_none)
            .partition(|t| has_long_index(t, &widths));
        let format = format.to_uppercase();
        let remedy = "SET GLOBAL innodb_default_row_format = DYNAMIC at the target";
        add(
            Severity::Error,
            too_long,
            format!(
                "an index of it has a column of more than {LONGEST} bytes, which the row format {format} \
                 does not take (ERROR 1709); the target has it by innodb_default_row_format"
            ),
            remedy.to_owned(),
        );
        add(
            Severity::Warning,
            others,
            format!(
                "its definition names no row format, and the target's innodb_default_row_format makes \
                 it {format}; servers come with DYNAMIC"
            ),
            format!("{remedy}, if that is not what is wanted"),
        );
    }
    Ok(findings)
}

/// The servers know some engines by two names.
fn same_engine(one: &str, other: &str) -> bool {
    let known = |name: &str| match name.to_lowercase().as_str() {
        "merge" => "mrg_myisam".to_owned(),
        "heap" => "memory".to_owned(),
        other => other.to_owned(),
    };
    known(one) == known(other)
}

/// How many bytes a character takes at most, by character set.
async fn widths(conn: &mut Conn) -> Result<BTreeMap<String, u64>> {
    let sql = "SELECT CHARACTER_SET_NAME, MAXLEN FROM information_schema.CHARACTER_SETS";
    let rows = query::rows(conn, sql, "cannot list the target's character sets").await?;
    let width = |row| Some((query::text(row, 0)?, query::number(row, 1)));
    Ok(rows.iter().filter_map(width).collect())
}

fn has_long_index(table: &Table, widths: &BTreeMap<String, u64>) -> bool {
    Parts::of(&table.create).indexed().iter().any(|(name, prefix)| {
        let column = table.columns.iter().find(|c| c.name.to_lowercase() == name.to_lowercase());
        column.is_some_and(|column| length(column, *prefix, widths) > LONGEST)
    })
}

/// The bytes of a column in an index; 0 for types that are never long.
fn length(column: &Column, prefix: Option<u64>, widths: &BTreeMap<String, u64>) -> u64 {
    let kinds = ["char", "binary", "text", "blob"];
    if !kinds.iter().any(|kind| column.data_type.ends_with(kind)) {
        return 0;
    }
    let declared = || {
        let (_, rest) = column.column_type.split_once('(')?;
        rest.split_once(')')?.0.parse().ok()
    };
    let width = column.charset.as_ref().and_then(|charset| widths.get(charset)).copied();
    prefix.or_else(declared).unwrap_or(0) * width.unwrap_or(1)
}
