//! `holdfast backup` and `check` of data files.

use std::path::PathBuf;

use backup_core::{Backup as Driver, Error, Result, Strategy};
use backup_drivers::connect::ConnectOptions;
use backup_drivers::files::{ColdBackup, ColdOptions, LockOptions, LockedBackup};
use backup_drivers::snapshot::{Method, SnapshotBackup, SnapshotBackupOptions};

use super::backup::{Backup, source};
use super::backup_ways::{Given, Way};
use crate::app::App;
use crate::login::DefaultsFile;

/// Flags of backups that copy files.
#[derive(clap::Args)]
#[command(next_help_heading = "Data files")]
pub(crate) struct FilesFlags {
    /// Copy a stopped server although it was not shut down in order
    #[arg(long)]
    allow_unclean: bool,
    /// Copy the files of a running server of this machine while nobody can write
    #[arg(long)]
    lock_and_copy: bool,
    /// How a snapshot is taken: `auto` knows btrfs from LVM
    #[arg(long, value_name = "HOW", value_parser = ["auto", "lvm", "btrfs", "commands"], default_value = "auto")]
    snapshot: String,
    /// The size of a thick LVM snapshot, as `lvcreate --size` takes it: what is written to the volume
    /// meanwhile must fit [default: a fifth of the volume]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    snapshot_size: Option<String>,
    /// The command that takes a snapshot
    #[arg(long, value_name = "COMMAND", requires = "snapshot_remove")]
    snapshot_create: Option<PathBuf>,
    /// The command that removes it
    #[arg(long, value_name = "COMMAND", requires = "snapshot_create")]
    snapshot_remove: Option<PathBuf>,
    /// Where it is noted which snapshots those commands took
    #[arg(long, value_name = "DIR", default_value = "/var/lib/holdfast/snapshots")]
    snapshot_notes: PathBuf,
}

/// What `lvcreate` takes, and nothing that it would take for an option.
fn size(text: &str) -> Result<String, String> {
    let digits = text.trim_end_matches(|c: char| "kKmMgGtTpP".contains(c));
    match digits.parse::<f64>() {
        Ok(n) if n > 0.0 && text.len() <= digits.len() + 1 => Ok(text.to_owned()),
        _ => Err("write a number and a unit, such as 20G".to_owned()),
    }
}

impl FilesFlags {
    /// What they are for.
    pub(super) fn given(&self) -> [Given; 5] {
        use Way::{Copy, Snapshot};
        [
            ("--allow-unclean", self.allow_unclean, &[Copy]),
            ("--lock-and-copy", self.lock_and_copy, &[Copy]),
            ("--snapshot", self.snapshot != "auto", &[Snapshot]),
            ("--snapshot-size", self.snapshot_size.is_some(), &[Snapshot]),
            ("--snapshot-create", self.snapshot_create.is_some(), &[Snapshot]),
        ]
    }

    fn method(&self) -> Result<Method> {
        let commands = match (&self.snapshot_create, &self.snapshot_remove) {
            (Some(create), Some(remove)) => Some(Method::Commands {
                create: create.clone(),
                remove: remove.clone(),
                notes: self.snapshot_notes.clone(),
            }),
            _ => None,
        };
        match (self.snapshot.as_str(), commands) {
            ("commands" | "auto", Some(commands)) => Ok(commands),
            ("commands", None) => Err(Error::usage("no commands for snapshots were given")
                .with_remedy("name them with --snapshot-create and --snapshot-remove")),
            ("lvm", _) => Ok(Method::Lvm { size: self.snapshot_size.clone() }),
            ("btrfs", _) => Ok(Method::Btrfs),
            _ if self.snapshot_size.is_some() => {
                Ok(Method::Lvm { size: self.snapshot_size.clone() })
            }
            _ => Ok(Method::Auto),
        }
    }

    /// Whether files are copied by ourselves, and not by a tool.
    pub(super) fn copies(&self, app: &App, url: Option<&str>) -> bool {
        let named = url.is_some() || app.config.source.is_some();
        self.lock_and_copy || !named || FilesFlags::is_directory(app, url)
    }

    /// Whether the source is the directory of a stopped server.
    pub(super) fn is_directory(app: &App, url: Option<&str>) -> bool {
        url.or(app.config.source.as_deref()).is_some_and(|url| url.starts_with("file:"))
    }

    /// The way in which data files are read.
    pub(super) async fn driver(
        &self,
        app: &App,
        strategy: Strategy,
        url: Option<&str>,
        defaults_file: &DefaultsFile,
        lock: LockOptions,
        allow_bad_pages: bool,
    ) -> Result<Box<dyn Driver>> {
        if FilesFlags::is_directory(app, url) {
            if strategy != Strategy::Physical {
                return Err(Error::usage(format!(
                    "the {strategy} strategy needs a running server as its source"
                ))
                .with_remedy("copy a stopped one with --strategy physical"));
            }
            let directory = url.or(app.config.source.as_deref()).unwrap_or_default().parse()?;
            let options = ColdOptions { allow_unclean: self.allow_unclean, allow_bad_pages };
            return Ok(Box::new(ColdBackup::new(directory, options)));
        }
        let server: ConnectOptions = source(app, url, defaults_file).resolve(&app.cx).await?;
        match strategy {
            Strategy::Snapshot => {
                let options = SnapshotBackupOptions { method: self.method()?, lock };
                Ok(Box::new(SnapshotBackup::new(server, options)))
            }
            Strategy::Physical if self.lock_and_copy => {
                let locked = LockedBackup::new(server, lock);
                Ok(Box::new(locked.allow_bad_pages(allow_bad_pages)))
            }
            _ => Err(Error::usage(
                "a running server is copied in several ways, and none was chosen",
            )
            .with_remedy(
                "choose --strategy physical, with or without --lock-and-copy, or --strategy snapshot; or stop the \
                 server and name its directory: file:///var/lib/mysql",
            )),
        }
    }
}

impl Backup {
    /// Data files are backed up all together.
    pub(super) fn check_whole(&self) -> Result<()> {
        if self.selection().is_all() && !self.chooses_rows() {
            return Ok(());
        }
        Err(Error::usage(format!(
            "a {} backup is of a whole server: it takes no choice of databases, tables or rows",
            self.strategy
        ))
        .with_remedy(
            "restore a part of it with --tables, or use --strategy logical for a part of a server",
        ))
    }

    /// The way in which data files are read.
    pub(super) async fn files_driver(&self, app: &App) -> Result<Box<dyn Driver>> {
        self.check_whole()?;
        let snapshot = self.snapshot();
        let lock =
            LockOptions { limit: snapshot.lock_timeout, long_queries: snapshot.long_queries };
        let url = self.source.as_deref();
        let allow_bad_pages = self.tool.allows_bad_pages();
        let (files, login) = (&self.files, &self.defaults_file);
        files.driver(app, self.strategy, url, login, lock, allow_bad_pages).await
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_numbers_and_no_options() {
        for good in ["20G", "500m", "1.5t", "4096"] {
            assert!(size(good).is_ok(), "{good}");
        }
        for bad in ["", "-L", "--force", "G", "1GG", "20G -n x"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
