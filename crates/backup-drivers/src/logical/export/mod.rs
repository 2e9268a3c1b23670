//! Backups as files that other programs read: one `.sql`, or a table a file.
//!
//! ```text
//! catalogue ─ choose ─► order ─► Script (statements, settings) ─┐
//! row blocks ─► INSERT, or TSV, or CSV ─────────────────────────┴► FileSet
//! ```

mod accounts;
mod charset;
mod code;
mod files;
mod rows;
mod script;
mod sql;
mod tables;
mod views;

use std::collections::BTreeMap;
use std::fmt;

use backup_core::{ArtifactSource, Context, Error, Manifest, Result, Strategy};

use super::catalog::Catalog;
use super::no_text;
use super::recreate;
use super::rename::Rename;
use super::select::Selection;
use crate::exchange::FileSet;

pub use files::export_artifacts;

/// What an export is made of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ExportFormat {
    /// One file of SQL statements that the servers' own clients run.
    #[default]
    Sql,
    /// A directory with the definitions in SQL, and for each table a file of lines with tabs, as `LOAD
    /// DATA` reads it without being told how.
    Tsv,
    /// The same with fields in quotes and commas between them, below a line with the names of the
    /// columns.
    Csv,
}

impl fmt::Display for ExportFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ExportFormat::Sql => "sql",
            ExportFormat::Tsv => "tsv",
            ExportFormat::Csv => "csv",
        })
    }
}

/// How a backup is exported.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// In which form.
    pub format: ExportFormat,
    /// Which databases and tables of the backup; everything by default.
    pub selection: Selection,
    /// Statements that insert rows end before they are longer than this, in bytes, unless one row
    /// alone is. Default: 1 MiB.
    pub statement_bytes: usize,
    /// Whether users and roles are left out, which come with a whole server otherwise.
    pub no_accounts: bool,
    /// Whether objects of the same names are dropped by the file when it is loaded.
    pub add_drop: bool,
}

impl Default for ExportOptions {
    fn default() -> Self {
        ExportOptions {
            format: ExportFormat::default(),
            selection: Selection::default(),
            statement_bytes: 1 << 20,
            no_accounts: false,
            add_drop: false,
        }
    }
}

/// What was exported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exported {
    /// Tables.
    pub tables: u64,
    /// Rows.
    pub rows: u64,
    /// The longest statement in bytes: what `max_allowed_packet` has to allow.
    pub longest_statement: usize,
    /// What needs a look.
    pub warnings: Vec<String>,
}

/// Writes a logical backup into `files`.
///
/// # Errors
/// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when the backup does not hold what its
/// catalogue says; a usage error for backups of other strategies, and where the form does not fit
/// the place; what the operating system says of the files.
pub async fn export(
    cx: &Context,
    manifest: &Manifest,
    artifacts: &dyn ArtifactSource,
    options: &ExportOptions,
    files: &FileSet,
) -> Result<Exported> {
    if manifest.strategy != Strategy::Logical {
        return Err(Error::usage(format!(
            "{} is a {} backup, which holds no rows to be written as {}",
            manifest.backup, manifest.strategy, options.format
        ))
        .with_remedy("export it with --format files"));
    }
    let catalog = Catalog::read(artifacts).await?;
    let mut catalog = recreate::choose(catalog, &options.selection, &Rename::default())?;
    if options.no_accounts {
        catalog.accounts.clear();
    }
    cx.progress().expect_rows(catalog.tables.iter().map(|t| t.digest.rows).sum());
    let job = Job { cx, manifest, artifacts, options, catalog: &catalog };
    match (options.format, files.is_single()) {
        (ExportFormat::Sql, true) => sql::run(&job, files).await,
        (ExportFormat::Tsv | ExportFormat::Csv, false) => tables::run(&job, files).await,
        _ => Err(Error::usage(format!("{} does not go into one file", options.format))),
    }
}

/// What is exported, and how.
struct Job<'a> {
    cx: &'a Context,
    manifest: &'a Manifest,
    artifacts: &'a dyn ArtifactSource,
    options: &'a ExportOptions,
    catalog: &'a Catalog,
}

impl Job<'_> {
    fn exported(&self, longest_statement: usize, mut warnings: Vec<String>) -> Exported {
        let told = |found: no_text::Found<'_>| format!("{found}, but no server takes them as text");
        warnings.extend(no_text::found(&self.catalog.tables).into_iter().map(told));
        Exported {
            tables: self.catalog.tables.len() as u64,
            rows: self.catalog.tables.iter().map(|t| t.digest.rows).sum(),
            longest_statement,
            warnings,
        }
    }

    /// The options of each database, as it was created: `DEFAULT CHARACTER SET …`.
    fn collations(&self) -> BTreeMap<&str, sql::DatabaseOptions> {
        let options = |create| sql::DatabaseOptions::of(create);
        self.catalog.databases.iter().map(|d| (d.name.as_str(), options(&d.create))).collect()
    }
}
