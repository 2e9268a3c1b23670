//! `holdfast backup --strategy clone`

use std::collections::BTreeSet;
use std::path::PathBuf;

use backup_core::{BackupSpec, Context, Error, ErrorKind, Manifest, Result, Strategy, pipeline};
use backup_drivers::clone::{CloneBackup, CloneOptions, Ddl, Others};
use backup_drivers::connect::ConnectOptions;
use backup_drivers::logical::{LogicalBackup, LogicalOptions, Selection, TableName};
use backup_storage::Repo;
use serde_json::json;

use super::backup::{Backup, answer, document, source, text};
use super::backup_ways::{Given, Way};
use crate::answer::Answer;
use crate::app::App;
use crate::human::parse_bytes;

/// Flags of clones.
#[derive(clap::Args)]
#[command(next_help_heading = "Clones (--strategy clone)")]
pub(crate) struct CloneFlags {
    /// Have DDL wait until the clone ends, but no longer than this: then the clone is given up. It waits as
    /// long for DDL that is under way
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    clone_block_ddl: Option<u32>,
    /// Where pages rest that change while the clone is taken [default: the directory for temporary
    /// files]
    #[arg(long, value_name = "DIR")]
    clone_spool: Option<PathBuf>,
    /// The most that may rest there
    #[arg(long, value_name = "BYTES", default_value = "64GiB", value_parser = parse_bytes)]
    clone_spool_limit: u64,
    #[command(flatten)]
    others: OthersFlag,
}

/// What is dumped beside a clone.
#[derive(clap::Args)]
#[command(next_help_heading = "Clones (--strategy clone)")]
pub(super) struct OthersFlag {
    /// Dump the tables that a clone leaves empty (MyISAM, CSV, …) beside it, into a logical backup of
    /// their own
    #[arg(long)]
    pub(super) clone_others: bool,
}

/// How what a clone leaves empty is dumped, if there is something.
pub(super) async fn others(
    cx: &Context,
    source: &ConnectOptions,
) -> Result<Option<LogicalOptions>> {
    let left = cx.run(CloneBackup::left_empty(source)).await?;
    Ok((!left.is_empty()).then(|| LogicalOptions {
        selection: Selection {
            tables: left.into_iter().map(|left| left.table).collect(),
            ..Selection::default()
        },
        no_accounts: true,
        ..LogicalOptions::default()
    }))
}

impl CloneFlags {
    /// What they are for.
    pub(super) fn given(&self) -> [Given; 3] {
        [
            ("--clone-block-ddl", self.clone_block_ddl.is_some(), &[Way::Clone]),
            ("--clone-spool", self.clone_spool.is_some(), &[Way::Clone]),
            ("--clone-others", self.others.clone_others, &[Way::Clone]),
        ]
    }

    fn options(&self) -> CloneOptions {
        let spool = self.clone_spool.clone().unwrap_or_else(std::env::temp_dir);
        CloneOptions {
            ddl: self.clone_block_ddl.map_or(Ddl::Concurrent, |limit| Ddl::Blocked { limit }),
            spool_limit: self.clone_spool_limit,
            ..CloneOptions::new(spool)
        }
    }
}

impl Backup {
    /// Takes a clone, and what it leaves empty before it: the clone is the newest backup then.
    pub(super) async fn by_clone(
        &self,
        app: &App,
        repo: &Repo,
        spec: BackupSpec,
    ) -> Result<Answer> {
        let cx = &app.cx;
        if !self.selection().is_all() || self.chooses_rows() {
            return Err(Error::usage(
                "a clone is of a whole server: it takes no choice of databases, tables or rows",
            )
            .with_remedy("use --strategy logical for a part"));
        }
        let source = source(app, self.source.as_deref(), &self.defaults_file);
        let source = source.resolve(cx).await?;
        let mut options = self.clone.options();
        let others = match self.clone.others.clone_others {
            true => self.others(app, repo, &spec, &source).await?,
            false => None,
        };
        options.others = others.as_ref().map(|(manifest, tables)| Others {
            backup: manifest.backup.to_string(),
            tables: tables.clone(),
        });
        let driver = CloneBackup::new(source, options);
        let manifest = pipeline::backup(cx, repo, &driver, spec).await?;
        let clone = answer(&manifest)?;
        Ok(match &others {
            None => clone,
            Some((others, _)) => {
                let clone = clone.with("others", document(others), &text(others));
                // What there is to look at is in either, and told of in one place.
                let of = |text: &String| format!("backup {}: {text}", others.backup);
                let mut warnings = manifest.outcome.warnings.clone();
                warnings.extend(others.outcome.warnings.iter().map(of));
                let ending = (!warnings.is_empty()).then_some(ErrorKind::Warnings);
                clone.with("warnings", json!(warnings), "").ending(ending)
            }
        })
    }

    /// A logical backup of what a clone leaves empty, if there is something.
    async fn others(
        &self,
        app: &App,
        repo: &Repo,
        spec: &BackupSpec,
        source: &ConnectOptions,
    ) -> Result<Option<(Manifest, BTreeSet<TableName>)>> {
        let Some(options) = others(&app.cx, source).await? else { return Ok(None) };
        let tables = options.selection.tables.clone();
        let options = LogicalOptions { snapshot: self.snapshot(), ..options };
        let spec = BackupSpec { strategy: Strategy::Logical, ..spec.clone() };
        let driver = LogicalBackup::new(source.clone(), options);
        let manifest = pipeline::backup(&app.cx, repo, &driver, spec).await?;
        Ok(Some((manifest, tables)))
    }
}
