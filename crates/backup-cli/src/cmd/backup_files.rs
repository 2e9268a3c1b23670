//! `holdfast backup` of data files.

use backup_core::{Backup as Driver, Error, Result, Strategy};
use backup_drivers::files::{ColdBackup, ColdOptions};

use super::backup::Backup;
use crate::app::App;

/// Flags of backups that copy files.
#[derive(clap::Args)]
#[command(next_help_heading = "Data files")]
pub(crate) struct FilesFlags {
    /// Copy a stopped server although it was not shut down in order
    #[arg(long)]
    allow_unclean: bool,
}

impl FilesFlags {
    /// The way in which the files of `url` are read.
    pub(super) fn driver(&self, strategy: Strategy, url: Option<&str>) -> Result<Box<dyn Driver>> {
        let url = url.ok_or_else(|| {
            Error::usage("no source was given")
                .with_remedy("name the directory of a stopped server: file:///var/lib/mysql")
        })?;
        match strategy {
            Strategy::Physical if url.starts_with("file:") => {
                let options = ColdOptions { allow_unclean: self.allow_unclean };
                Ok(Box::new(ColdBackup::new(url.parse()?, options)))
            }
            _ => Err(Error::usage(format!(
                "the {strategy} strategy reads no running server in this version"
            ))
            .with_remedy("stop the server and name its directory: file:///var/lib/mysql")),
        }
    }
}

impl Backup {
    /// The way in which data files are read.
    pub(super) fn files_driver(&self, app: &App) -> Result<Box<dyn Driver>> {
        if !self.selection().is_all() || self.chooses_rows() {
            return Err(Error::usage(format!(
                "a {} backup is of a whole server: it takes no choice of databases, tables or rows",
                self.strategy
            ))
            .with_remedy("restore a part of it with --tables, or use --strategy logical"));
        }
        let url = self.source.as_deref().or(app.config.source.as_deref());
        self.files.driver(self.strategy, url)
    }
}
