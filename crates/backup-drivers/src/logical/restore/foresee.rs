//! What a target says to tables of which the names alone are known.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{Finding, Manifest, Result};

use super::super::catalog::{Catalog, Database, Header, Table, VERSION};
use super::super::recreate;
use super::super::select::{TableName, quote_name};
use super::{LogicalRestore, LogicalRestoreOptions, of_target};
use crate::rows::RowDigest;

/// What is known of tables without a server that describes them.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Their names.
    pub tables: BTreeSet<TableName>,
    /// The sequences that they take numbers of, as far as that is known.
    pub sequences: BTreeMap<TableName, BTreeSet<TableName>>,
    /// Those of them that the backup has.
    pub has: BTreeSet<TableName>,
    /// Whether they have rows to be loaded.
    pub rows: bool,
}

impl LogicalRestore {
    /// Looks at the target as the restore of these tables will, before their definitions can be had: out of data
    /// files they come by way of a server, which takes its time. `rows` says whether they have some to be loaded.
    /// What is there under their names is not told.
    ///
    /// # Errors
    /// When the target cannot be asked.
    pub async fn foresee(&self, manifest: &Manifest, known: &Known) -> Result<Vec<Finding>> {
        let LogicalRestoreOptions { rename, selection, .. } = &self.options;
        let chosen = |name: &TableName| selection.wants_table(&name.database, &name.table);
        let databases: BTreeSet<String> =
            known.tables.iter().map(|name| rename.table(name).database).collect();
        // Those of its own database come along with a table.
        let along = |table: &TableName, name: &TableName| {
            known.has.contains(name) && (name.database == table.database || chosen(name))
        };
        let used: BTreeSet<&TableName> = known
            .sequences
            .iter()
            .flat_map(|(table, names)| names.iter().filter(move |name| along(table, name)))
            .collect();
        let unknown = |table: &TableName| {
            let sequences = known.sequences.get(table).into_iter().flatten();
            // What does not come along keeps its name.
            let sequences = sequences.map(|name| match along(table, name) {
                true => rename.table(name),
                false => name.clone(),
            });
            unknown(rename.table(table), known.rows, sequences)
        };
        let catalog = Catalog {
            header: Header {
                version: VERSION,
                flavor: manifest.outcome.source.flavor,
                server_version: manifest.outcome.source.version.clone(),
                lower_case_table_names: 0,
            },
            databases: databases
                .into_iter()
                .map(|name| {
                    let create = format!("CREATE DATABASE {}", quote_name(&name));
                    Database { name, create }
                })
                .collect(),
            tables: known.tables.iter().map(unknown).collect(),
            stored: used
                .into_iter()
                .map(|name| recreate::unknown_sequence(rename.table(name), !chosen(name)))
                .collect(),
            accounts: Vec::new(),
            warnings: Vec::new(),
        };
        let looked = self.look(&manifest.backup, catalog, BTreeSet::new(), false).await;
        let prepared = looked.map_err(of_target)?;
        prepared.session.close().await?;
        Ok(prepared.plan.findings)
    }
}

/// A table that only a server can describe.
fn unknown(name: TableName, rows: bool, sequences: impl Iterator<Item = TableName>) -> Table {
    let defaults = sequences.map(|name| format!("DEFAULT nextval({})", name.quoted()));
    Table {
        create: Vec::from_iter(defaults).join(", "),
        digest: RowDigest { rows: rows.into(), ..RowDigest::default() },
        ..Table::new(name.database, name.table)
    }
}
