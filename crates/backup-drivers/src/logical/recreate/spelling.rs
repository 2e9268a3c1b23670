//! Names as a source spells them that does not tell cases apart.

use std::collections::BTreeMap;

use backup_core::Result;

use super::super::catalog::{Catalog, StoredObject, Table};
use super::super::pattern::{Glob, TableGlob};
use super::super::rename::Rename;
use super::super::select::{Selection, TableName};

/// What is asked for, with the catalogue's spelling of the names where the source's `lower_case_table_names` is not 0.
/// A name that is not in it stays as it is.
///
/// # Errors
/// A usage error where rules for one name come to differ.
pub(super) fn of_source(
    catalog: &Catalog,
    selection: &Selection,
    rename: &Rename,
) -> Result<(Selection, Rename)> {
    if catalog.header.lower_case_table_names == 0 {
        return Ok((selection.clone(), rename.clone()));
    }
    let databases = catalog.databases.iter().map(|d| (d.name.to_lowercase(), d.name.clone()));
    let databases: BTreeMap<String, String> = databases.collect();
    let stored = catalog.stored.iter().map(StoredObject::full_name);
    let tables = catalog.tables.iter().map(Table::full_name).chain(stored);
    let tables: BTreeMap<(String, String), TableName> = tables
        .map(|name| ((name.database.to_lowercase(), name.table.to_lowercase()), name))
        .collect();
    let database =
        |name: &str| databases.get(&name.to_lowercase()).cloned().unwrap_or(name.to_owned());
    let table = |name: &TableName| {
        let key = (name.database.to_lowercase(), name.table.to_lowercase());
        tables.get(&key).unwrap_or(name).clone()
    };
    // Patterns fit names in lower case where all of them are.
    let lower = catalog.header.lower_case_table_names == 1;
    let pattern = |glob: &Glob| if lower { glob.to_lowercase() } else { glob.clone() };
    let glob = |glob: &Glob| match glob.as_literal() {
        Some(name) => Glob::from(database(name)),
        None => pattern(glob),
    };
    let table_glob = |glob: &TableGlob| match glob.as_literal() {
        Some(name) => {
            let TableName { database, table } = table(&name);
            TableGlob { database: database.into(), table: table.into() }
        }
        None => TableGlob { database: pattern(&glob.database), table: pattern(&glob.table) },
    };
    let selection = Selection {
        databases: selection.databases.iter().map(|name| database(name)).collect(),
        tables: selection.tables.iter().map(table).collect(),
        exclude_tables: selection.exclude_tables.iter().map(table).collect(),
        database_globs: selection.database_globs.iter().map(glob).collect(),
        table_globs: selection.table_globs.iter().map(table_glob).collect(),
        exclude_databases: selection.exclude_databases.iter().map(glob).collect(),
        exclude_table_globs: selection.exclude_table_globs.iter().map(table_glob).collect(),
    };
    Ok((selection, rename.spelled(database, table)?))
}
