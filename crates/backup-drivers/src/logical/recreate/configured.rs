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
               'enforce_storage_engine', 'innodb_force_primary_key', 'innodb_default_row_format', \
               'innodb_file_per_table', 'innodb_page_size', 'secure_timestamp')";
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
    if let Some(mode @ ("YES" | "REPLICATION")) = setting("secure_timestamp") {
        add(
            Severity::Error,
            tables.iter().filter(|table| table.history && table.digest.rows > 0).collect(),
            format!(
                "the target has secure_timestamp={mode}, and takes no history of a system-versioned table (ERROR \
                 1290)"
            ),
            "start the target with secure_timestamp=NO for the time of the restore, or leave these tables out"
                .to_owned(),
        );
    }
    if setting("innodb_file_per_table") == Some("OFF") {
        let file =
            "SET GLOBAL innodb_file_per_table = ON at the target for the time of the restore";
        let (refused, others): (Vec<_>, Vec<_>) = tables
            .iter()
            .filter(innodb)
            .filter(|table| !Parts::of(&table.create).has_option_word("TABLESPACE"))
            .partition(|table| is_of_own_file(&Parts::of(&table.create)));
        add(
            Severity::Error,
            refused,
            "the target has innodb_file_per_table=OFF, and takes no compressed or encrypted pages and no \
             AUTOEXTEND_SIZE of tables without files of their own (ERROR 1478, 1112, 3825, 1005)"
                .to_owned(),
            file.to_owned(),
        );
        add(
            Severity::Warning,
            others.into_iter().filter(|t| is_zipped(&Parts::of(&t.create))).collect(),
            "the target has innodb_file_per_table=OFF, and makes ROW_FORMAT=COMPRESSED and KEY_BLOCK_SIZE \
             ROW_FORMAT=DYNAMIC"
                .to_owned(),
            format!("{file}, if that is not what is wanted"),
        );
    }
    let page = setting("innodb_page_size").and_then(|size| size.parse().ok()).unwrap_or(16 << 10);
    let longest = match page {
        0..=4096 => 768,
        4097..=8192 => 1536,
        _ => 3072,
    };
    if facts.flavor == Flavor::MySql && longest < 3072 {
        let widths = widths(conn).await?;
        let too_long = |table: &&&Table| {
            let indexes = Parts::of(&table.create).indexed();
            let size = |columns: &[_]| columns.iter().map(|c| length_in(table, c, &widths)).sum();
            indexes.iter().map(|columns| size(columns)).any(|bytes: u64| bytes > longest)
        };
        add(
            Severity::Error,
            tables.iter().filter(innodb).filter(too_long).collect(),
            format!(
                "an index of it has more than {longest} bytes, which a server with innodb_page_size={page} does \
                 not take (ERROR 1071)"
            ),
            "restore to a server with larger pages, which is chosen when its data directory is made; or leave \
             these tables out"
                .to_owned(),
        );
    }
    if facts.flavor == Flavor::MySql && page <= 4096 {
        let pages =
            |table: &&&Table| is_set(&Parts::of(&table.create), "COMPRESSION", &["", "none"]);
        add(
            Severity::Error,
            tables.iter().filter(innodb).filter(pages).collect(),
            format!(
                "the target has innodb_page_size={page}, too small for COMPRESSION (ERROR 4029)"
            ),
            "restore to a server with larger pages; or leave these tables out".to_owned(),
        );
    }
    let zipped_otherwise = |table: &&&Table| {
        let parts = Parts::of(&table.create);
        let block = parts.option("KEY_BLOCK_SIZE").and_then(|size| size.parse::<u64>().ok());
        is_zipped(&parts) && (page > 16 << 10 || block.is_some_and(|block| block << 10 > page))
    };
    add(
        Severity::Warning,
        tables.iter().filter(innodb).filter(zipped_otherwise).collect(),
        format!(
            "the target has innodb_page_size={page}, and passes over ROW_FORMAT=COMPRESSED or a KEY_BLOCK_SIZE \
             that does not fit it"
        ),
        "restore to a server with other pages, if that is not what is wanted".to_owned(),
    );
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
    let columns = Parts::of(&table.create).indexed().concat();
    columns.iter().any(|column| length_in(table, column, widths) > LONGEST)
}

/// The bytes of one of its columns in an index.
fn length_in(
    table: &Table,
    (name, prefix): &(String, Option<u64>),
    widths: &BTreeMap<String, u64>,
) -> u64 {
    let column = table.columns.iter().find(|c| c.name.to_lowercase() == name.to_lowercase());
    column.map_or(0, |column| length(column, *prefix, widths))
}

/// Whether InnoDB refuses to keep a table in its system tablespace.
fn is_of_own_file(parts: &Parts<'_>) -> bool {
    let is = |name, none: &[&str]| is_set(parts, name, none);
    is("AUTOEXTEND_SIZE", &["0"])
        || is("COMPRESSION", &["", "none"])
        || is("ENCRYPTION", &["n"])
        || is("PAGE_COMPRESSED", &["0", "no", "off"])
        || is("ENCRYPTED", &["default"])
}

/// Whether an option has another value than those that mean nothing.
fn is_set(parts: &Parts<'_>, name: &str, none: &[&str]) -> bool {
    let value = parts.engine_option(name);
    value.is_some_and(|value| !none.iter().any(|none| value.eq_ignore_ascii_case(none)))
}

/// Whether a table asks for InnoDB's compressed row format.
fn is_zipped(parts: &Parts<'_>) -> bool {
    let format = parts.option("ROW_FORMAT");
    let block = parts.option("KEY_BLOCK_SIZE");
    format.is_some_and(|format| format.eq_ignore_ascii_case("COMPRESSED"))
        || format.is_none() && block.is_some_and(|block| block != "0")
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
