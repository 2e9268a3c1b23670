//! What a target has of tables that come out of data files, before a private server has been asked about them.

use std::collections::BTreeSet;

use backup_core::{Error, ErrorKind, Finding, RestoreSteps, Result, Severity};
use backup_drivers::connect::Session;
use backup_drivers::files::Catalog;
use backup_drivers::innodb::TableFile;
use backup_drivers::logical::StoredKind;
use backup_drivers::logical::TableName;
use backup_drivers::logical::recreate::{Existing, ExistingKind};

use crate::aside::AsideOptions;

/// What the target has under the names of chosen tables: those that are named, and of databases those that
/// `catalog` has files of; without a catalog, all of them.
pub(crate) async fn existing(
    options: &AsideOptions,
    catalog: Option<&Catalog>,
) -> Result<Vec<Existing>> {
    let AsideOptions { target, restore, .. } = options;
    let (selection, rename) = (&restore.selection, &restore.rename);
    let mut names = selection.tables.clone();
    let mut session = Session::open(target).await?;
    for database in &selection.databases {
        match catalog {
            Some(catalog) => names.extend(filed(catalog, database)),
            None => {
                let any = TableName { database: database.clone(), table: String::new() };
                let sql = "SELECT table_name FROM information_schema.tables WHERE table_schema = ?";
                let there: Vec<String> =
                    session.exec_rows(sql, (rename.table(&any).database,)).await?;
                let of = |table| TableName { database: database.clone(), table };
                names.extend(there.into_iter().map(of));
            }
        }
    }
    names.retain(|name| selection.wants_table(&name.database, &name.table));
    let mut found = BTreeSet::new();
    for name in names.iter().map(|name| rename.table(name)) {
        let sql = "SELECT table_type, table_rows FROM information_schema.tables \
                   WHERE table_schema = ? AND table_name = ?";
        let rows: Vec<(String, Option<u64>)> =
            session.exec_rows(sql, (&name.database, &name.table)).await?;
        found.extend(rows.into_iter().map(|(kind, rows)| {
            let kind = match kind.as_str() {
                "VIEW" => ExistingKind::Stored(StoredKind::View),
                "SEQUENCE" => ExistingKind::Stored(StoredKind::Sequence),
                _ => ExistingKind::Table,
            };
            let estimated_rows = rows.filter(|_| kind == ExistingKind::Table);
            Existing { name: name.clone(), kind, estimated_rows }
        }));
    }
    session.close().await?;
    Ok(found.into_iter().collect())
}

/// The tables of a database that have files.
pub(crate) fn filed(catalog: &Catalog, database: &str) -> BTreeSet<TableName> {
    let files = catalog.files().filter_map(|entry| TableFile::of(&entry.path));
    files
        .filter(|file| file.database == database)
        .map(|TableFile { database, table, .. }| TableName { database, table })
        .collect()
}

/// Fails where the target cannot be reached, or has one of the tables already: it is asked again at the end, and
/// before that there is much to do.
pub(crate) async fn check(options: &AsideOptions) -> Result<()> {
    if options.restore.overwrite {
        return Session::open(&options.target).await?.close().await;
    }
    let mut named = options.clone();
    named.restore.selection.databases.clear();
    match existing(&named, None).await?.first() {
        None => Ok(()),
        Some(there) => Err(Error::new(
            ErrorKind::Target,
            format!("{} has already: {} {}", options.target, kind(there), there.name),
        )
        .with_remedy(
            "restore under another name with --rename; or use --overwrite, which replaces it",
        )),
    }
}

fn kind(there: &Existing) -> String {
    match there.kind {
        ExistingKind::Table => "table".to_owned(),
        ExistingKind::Stored(kind) => kind.to_string(),
    }
}

/// Adds to a plan what `--overwrite` destroys, as far as that is known.
pub(crate) async fn foretell(
    options: &AsideOptions,
    catalog: Option<&Catalog>,
    steps: &mut RestoreSteps,
) -> Result<()> {
    if !options.restore.overwrite {
        return Ok(());
    }
    steps.destroys = existing(options, catalog).await?.iter().map(ToString::to_string).collect();
    let databases = options.restore.selection.databases.iter().cloned();
    let databases: Vec<String> = databases.collect();
    if !databases.is_empty() {
        steps.findings.push(Finding::new(
            Severity::Info,
            databases.join(", "),
            "which views, routines, triggers and events are replaced is known when the private server runs",
            "name tables with --tables, for those alone to be replaced",
        ));
    }
    Ok(())
}
