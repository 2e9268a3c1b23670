//! `holdfast backup --strategy clone`

use std::path::PathBuf;

use backup_core::{Error, Result};
use backup_drivers::clone::{CloneBackup, CloneOptions, Ddl};

use super::backup::{Backup, source};
use crate::app::App;
use crate::human::parse_bytes;

/// Flags of clones.
#[derive(clap::Args)]
#[command(next_help_heading = "Clones (--strategy clone)")]
pub(crate) struct CloneFlags {
    /// Have DDL wait until the clone ends, and wait so long for DDL that is under way
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    clone_block_ddl: Option<u32>,
    /// Where pages rest that change while the clone is taken [default: the directory for temporary
    /// files]
    #[arg(long, value_name = "DIR")]
    clone_spool: Option<PathBuf>,
    /// The most that may rest there
    #[arg(long, value_name = "BYTES", default_value = "64GiB", value_parser = parse_bytes)]
    clone_spool_limit: u64,
}

impl CloneFlags {
    fn options(&self) -> CloneOptions {
        let spool = self.clone_spool.clone().unwrap_or_else(std::env::temp_dir);
        CloneOptions {
            ddl: self.clone_block_ddl.map_or(Ddl::Concurrent, |wait| Ddl::Blocked { wait }),
            spool_limit: self.clone_spool_limit,
            ..CloneOptions::new(spool)
        }
    }
}

impl Backup {
    /// The driver that takes a clone.
    pub(super) async fn clone_driver(&self, app: &App) -> Result<CloneBackup> {
        if !self.selection().is_all() || self.chooses_rows() {
            return Err(Error::usage(
                "a clone is of a whole server: it takes no choice of databases, tables or rows",
            )
            .with_remedy("use --strategy logical for a part"));
        }
        let source = source(app, self.source.as_deref(), &self.defaults_file);
        let source = source.resolve(&app.cx).await?;
        Ok(CloneBackup::new(source, self.clone.options()))
    }
}
