//! What a restore of single tables out of data files would end with, told before a file is laid out.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{
    ArtifactSource, Error, ErrorKind, Finding, Flavor, Manifest, Result, Severity, pipeline,
};
use backup_drivers::clone::Emptied;
use backup_drivers::files::{Catalog, Entry, State, is_encrypted};
use backup_drivers::innodb::TableFile;
use backup_drivers::logical::{self, Known, LogicalRestore, Parts, Selection, TableName};
use backup_drivers::sandbox::ServerInstall;

use crate::aside::{AsideOptions, missing, no_table};
use crate::at_target;

/// A definition of MariaDB is a few kilobytes.
const MAX_DEFINITION: usize = 16 << 20;
/// Two names of 64 letters, each in quotes and maybe one of them.
const MAX_CALL: usize = 300;

/// What is known before a server runs on the files.
pub(crate) struct Foreseen<'a> {
    pub(crate) manifest: &'a Manifest,
    pub(crate) catalog: &'a Catalog,
    pub(crate) artifacts: &'a dyn ArtifactSource,
    pub(crate) options: &'a AsideOptions,
    /// What the private server is of.
    pub(crate) install: &'a ServerInstall,
    /// Whether binlogs are applied, which may bring other tables than there are files of.
    pub(crate) binlogs: bool,
}

impl Foreseen<'_> {
    /// Looks at everything: names, keys, and the target. Gives what does not forbid the restore.
    ///
    /// # Errors
    /// As the restore would, if it went on.
    pub(crate) async fn look(&self) -> Result<Vec<Finding>> {
        let mut findings = self.names().await?;
        self.keys().await?;
        at_target::check(self.options).await?;
        let AsideOptions { target, restore, .. } = self.options;
        let mut tables = restore.selection.tables.clone();
        for database in &restore.selection.databases {
            tables.extend(at_target::filed(self.catalog, database));
        }
        tables.retain(|name| restore.selection.wants_table(&name.database, &name.table));
        // What may come as files needs no rows to be loaded.
        let as_files = restore.selection.only_tables() && restore.parts == Parts::All;
        let known = Known {
            sequences: match self.binlogs {
                // Definitions may be others at the point.
                true => BTreeMap::new(),
                false => sequences(self.artifacts, self.catalog, &restore.selection).await?,
            },
            has: Definitions::of(self.catalog).tables.into_iter().map(|(name, _)| name).collect(),
            rows: restore.binary_log || !as_files,
            tables,
        };
        let driver = LogicalRestore::new(target.clone(), restore.clone());
        findings.extend(driver.foresee(self.manifest, &known).await?);
        if restore.parts != Parts::Data && !known.tables.is_empty() {
            findings.push(Finding::new(
                Severity::Info,
                Vec::from_iter(known.tables.iter().map(ToString::to_string)).join(", "),
                "whether foreign keys refer to tables that the target does not have is known when the private server \
                 runs, before anything is made at the target",
                "a table without its parent is a warning then: choose both",
            ));
        }
        let cannot = format!("{target} cannot take the restore");
        match pipeline::in_one(&findings, &cannot, ErrorKind::Target) {
            Some(error) => Err(error),
            None => Ok(findings),
        }
    }

    /// The names that are asked for. MariaDB has a file of each table and view; of MySQL, what has none may still be in
    /// a tablespace that it shares, and views are in the dictionary alone.
    async fn names(&self) -> Result<Vec<Finding>> {
        let selection = &self.options.restore.selection;
        if self.binlogs {
            return Ok(Vec::new());
        }
        if self.manifest.outcome.source.flavor == Flavor::MySql {
            return Ok(self.unsure());
        }
        let Definitions { databases, tables, all } = Definitions::of(self.catalog);
        // Where a file has a name that only a server can read, it is none of these.
        let readable = |name: &str| all || is_plain(name);
        for name in &selection.databases {
            let found = databases.iter().any(|database| same(database, name));
            if !found && readable(name) {
                return Err(missing(&format!("database {name}")));
            }
        }
        for name in &selection.tables {
            let Some((_, entry)) = tables.iter().find(|(table, _)| same_table(table, name)) else {
                if readable(&name.database) && readable(&name.table) {
                    return Err(missing(&format!("table {name}")));
                }
                continue;
            };
            let definition = self.artifacts.read(&entry.artifact()?, MAX_DEFINITION).await?;
            if definition.starts_with(b"TYPE=VIEW") {
                return Err(no_table(name));
            }
        }
        if !all {
            return Ok(Vec::new());
        }
        let tables: Vec<TableName> = tables.into_iter().map(|(name, _)| name).collect();
        let databases: Vec<String> = databases.into_iter().collect();
        excluded(selection, &databases, &tables)
    }

    /// Names that no file of MySQL has.
    fn unsure(&self) -> Vec<Finding> {
        let selection = &self.options.restore.selection;
        let filed: Vec<TableFile> =
            self.catalog.files().filter_map(|entry| TableFile::of(&entry.path)).collect();
        // A name that only the server can read may be the one.
        let unclear = |file: &TableFile| file.table.contains('@') || file.database.contains('@');
        let all = !filed.iter().any(unclear);
        let named = |name: &TableName| {
            let readable = all || is_plain(&name.database) && is_plain(&name.table);
            let is_of = |file: &TableFile| {
                same(&file.database, &name.database) && same(&file.table, &name.table)
            };
            !readable || filed.iter().any(is_of)
        };
        let finding = |name: &TableName| {
            Finding::new(
                Severity::Warning,
                name.to_string(),
                "the backup has no file of it: unless it is in a tablespace that it shares with others, the restore \
                 ends with exit code 2",
                "see what there is with `holdfast show`; views come with --databases",
            )
        };
        let mut findings: Vec<Finding> =
            selection.tables.iter().filter(|name| !named(name)).map(finding).collect();
        // A clone has no files of these, and names them.
        let emptied = Emptied::of(self.manifest, self.catalog).tables;
        let emptied: Vec<TableName> = emptied.into_iter().map(|left| left.table).collect();
        for name in &selection.databases {
            let has = filed.iter().map(|file| &file.database);
            let has = has.chain(emptied.iter().map(|table| &table.database));
            let found = has.into_iter().any(|database| same(database, name));
            if !found && (all || is_plain(name)) {
                findings.push(Finding::new(
                    Severity::Warning,
                    name.clone(),
                    "the backup has no file of this database: unless it is empty, or all in tablespaces that it shares \
                     with others, the restore ends with exit code 2",
                    "see what there is with `holdfast show`",
                ));
            }
        }
        if !all {
            return findings;
        }
        let databases = selection.databases.iter().cloned();
        let databases: Vec<String> =
            databases.chain(filed.iter().map(|file| file.database.clone())).collect();
        let tables = filed.into_iter();
        let tables = tables.map(|TableFile { database, table, .. }| TableName { database, table });
        let tables: Vec<TableName> = tables.chain(emptied).collect();
        match excluded(selection, &databases, &tables) {
            Ok(idle) => findings.extend(idle),
            Err(e) => findings.push(Finding::new(
                Severity::Warning,
                self.manifest.backup.as_str(),
                format!("{e}, unless it is in a tablespace that it shares with others, or a view"),
                e.remedy().to_owned(),
            )),
        }
        findings
    }

    /// Tables of MySQL whose keys are nowhere: neither in the files, nor does the private server load a keyring.
    async fn keys(&self) -> Result<()> {
        let selection = &self.options.restore.selection;
        let settings = &self.catalog.header.settings;
        let server = self.install.server_path();
        let server = server.canonicalize().unwrap_or_else(|_| server.to_owned());
        let in_backup = |entry: &Entry| {
            let top = !entry.path.contains('/');
            top && (entry.path.contains("keyring") || entry.path == "mysqld.my")
        };
        if self.manifest.outcome.source.flavor != Flavor::MySql
            || self.catalog.header.state == State::Unprepared
            || settings.keys_in_files
            || self.catalog.files().any(in_backup)
            || server.with_file_name("mysqld.my").is_file()
        {
            return Ok(());
        }
        for entry in self.catalog.files().filter(|entry| entry.path.ends_with(".ibd")) {
            let Some(file) = TableFile::of(&entry.path) else { continue };
            if selection.wants_table(&file.database, &file.table)
                && is_encrypted(self.artifacts, entry).await?
            {
                let keyring = settings.keyring.join(", ");
                let of = if keyring.is_empty() { String::new() } else { format!(" ({keyring})") };
                return Err(Error::new(
                    ErrorKind::Target,
                    format!("{file} is encrypted, and its key is in the keyring of the source{of}, which no backup has"),
                )
                .with_remedy(
                    "restore all files with --target-dir, and start a server with that keyring on them; or restore it \
                     from a logical backup or a clone",
                ));
            }
        }
        Ok(())
    }
}

/// The sequences of which the tables that are chosen take numbers, as MariaDB's files of definitions say.
pub(crate) async fn sequences(
    artifacts: &dyn ArtifactSource,
    catalog: &Catalog,
    selection: &Selection,
) -> Result<BTreeMap<TableName, BTreeSet<TableName>>> {
    let mut found = BTreeMap::new();
    for (name, entry) in Definitions::of(catalog).tables {
        let named = selection.tables.iter().any(|table| same_table(table, &name));
        let of_database = selection.databases.iter().any(|database| same(database, &name.database));
        if !named && !of_database {
            continue;
        }
        let definition = artifacts.read(&entry.artifact()?, MAX_DEFINITION).await?;
        let text = String::from_utf8_lossy(&definition);
        // Expressions stand in it as they are printed, between bytes that are no text.
        let calls = text.match_indices("nextval(").chain(text.match_indices("setval("));
        let calls = calls.chain(text.match_indices("lastval("));
        let used: BTreeSet<TableName> = calls
            .flat_map(|(at, _)| {
                let call: String = text[at..].chars().take(MAX_CALL).collect();
                logical::sequences(&call)
            })
            .collect();
        if !used.is_empty() {
            found.insert(name, used);
        }
    }
    Ok(found)
}

/// Fails where a name that is to be left out is none, and warns of patterns that fit nothing.
pub(crate) fn excluded(
    selection: &Selection,
    databases: &[String],
    tables: &[TableName],
) -> Result<Vec<Finding>> {
    let idle = selection.idle_exclusions(databases, tables)?;
    let finding = |glob: String| {
        let problem = format!("nothing in the backup fits `{glob}`, which is to be left out");
        Finding::new(Severity::Warning, glob, problem, "correct the pattern, or leave it out")
    };
    Ok(idle.into_iter().map(finding).collect())
}

/// What MariaDB's files of definitions name: tables, views and sequences.
pub(crate) struct Definitions<'a> {
    pub(crate) databases: BTreeSet<String>,
    pub(crate) tables: Vec<(TableName, &'a Entry)>,
    /// Whether each name can be read without a server.
    pub(crate) all: bool,
}

impl<'a> Definitions<'a> {
    pub(crate) fn of(catalog: &'a Catalog) -> Definitions<'a> {
        let mut found = Definitions { databases: BTreeSet::new(), tables: Vec::new(), all: true };
        for entry in catalog.files() {
            let Some(TableFile { database, table, .. }) = TableFile::of(&entry.path) else {
                continue;
            };
            found.all &= !database.contains('@');
            found.databases.insert(database.clone());
            if entry.path.ends_with(".frm") {
                found.all &= !table.contains('@');
                found.tables.push((TableName { database, table }, entry));
            }
        }
        found
    }
}

/// Whether a file has exactly this name.
fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// With `lower_case_table_names` a file has another case than the name.
fn same(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
}

fn same_table(a: &TableName, b: &TableName) -> bool {
    same(&a.database, &b.database) && same(&a.table, &b.table)
}
