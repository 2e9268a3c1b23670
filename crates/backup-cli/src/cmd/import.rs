//! `holdfast import`

use std::path::PathBuf;

use backup_core::{BackupSpec, BackupType, ClusterName, ErrorKind, Result, Strategy, pipeline};
use backup_drivers::foreign::ForeignImport;
use backup_storage::RepositoryOptions;

use super::backup::{document, text};
use crate::answer::Answer;
use crate::app::App;

/// Keep a dump of mysqldump, mariadb-dump or mydumper in the repository
#[derive(clap::Args)]
pub(crate) struct Import {
    /// The dump: a file, plain or as gz, bz2, xz, zst or lz4, or a directory as mydumper makes one
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// The cluster that it belongs to
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// Leave out what makes no sense of a damaged dump, statement by statement; without it such a dump
    /// is refused
    #[arg(long)]
    salvage: bool,
}

impl Import {
    /// Imports.
    pub(crate) async fn run(&self, app: &App) -> Result<Answer> {
        let spec = BackupSpec {
            cluster: app.cluster(self.cluster.as_ref())?,
            strategy: Strategy::Foreign,
            backup_type: BackupType::Full,
            parent: None,
        };
        let repo =
            app.repo(RepositoryOptions { writes: true, ..RepositoryOptions::default() }).await?;
        let driver = ForeignImport::new(&self.path, self.salvage);
        let manifest = pipeline::backup(&app.cx, &repo, &driver, spec).await?;
        let ending = (!manifest.outcome.warnings.is_empty()).then_some(ErrorKind::Warnings);
        Ok(Answer::new(&document(&manifest), text(&manifest))?.summary().ending(ending))
    }
}
