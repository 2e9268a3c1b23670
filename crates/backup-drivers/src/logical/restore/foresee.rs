//! What a target says to tables of which the names alone are known.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{Finding, Manifest, Result};

use super::super::catalog::{Catalog, Database, Header, Table, VERSION};
use super::super::select::{TableName, quote_name};
use super::{LogicalRestore, of_target};
use crate::rows::RowDigest;

impl LogicalRestore {
    /// Looks at the target as the restore of these tables will, before their definitions can be had: out of data
    /// files they come by way of a server, which takes its time. `rows` says whether they have some to be loaded.
    /// What is there under their names is not told.
    ///
    /// # Errors
    /// When the target cannot be asked.
    pub async fn foresee(
        &self,
        manifest: &Manifest,
        tables: &BTreeSet<TableName>,
        rows: bool,
    ) -> Result<Vec<Finding>> {
        let rename = &self.options.rename;
        let names: BTreeSet<TableName> = tables.iter().map(|name| rename.table(name)).collect();
        let databases: BTreeSet<String> = names.iter().map(|name| name.database.clone()).collect();
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
            tables: names.into_iter().map(|name| unknown(name, rows)).collect(),
            stored: Vec::new(),
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
fn unknown(name: TableName, rows: bool) -> Table {
    Table {
        database: name.database,
        name: name.table,
        create: String::new(),
        // Every server has it.
        engine: "InnoDB".to_owned(),
        transactional: true,
        columns: Vec::new(),
        key: Vec::new(),
        rows_elsewhere: false,
        histograms: BTreeMap::new(),
        filter: None,
        rows_left_out: false,
        masked: Vec::new(),
        documents: BTreeMap::new(),
        history: false,
        estimated_rows: 0,
        data_bytes: 0,
        digest: RowDigest { rows: rows.into(), ..RowDigest::default() },
        chunks: Vec::new(),
    }
}
