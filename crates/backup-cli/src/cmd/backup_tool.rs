//! `holdfast backup` of a running server's data files, by `mariadb-backup` or `xtrabackup`.

use std::path::PathBuf;
use std::time::Duration;

use backup_core::{
    BackupId, BackupSpec, BackupType, Error, Manifest, Repository, Result, Strategy, pipeline,
};
use backup_drivers::connect::ConnectOptions;
use backup_drivers::physical::{LockDdl, Parent, PhysicalBackup, ToolOptions, details};
use backup_storage::Repo;

use super::backup::{Backup, answer, source};
use super::backup_ways::{Given, Way};
use crate::answer::Answer;
use crate::app::App;

/// How long a paused replica may take to close its temporary tables.
const SAFE_REPLICA: Duration = Duration::from_secs(300);
/// Statements that run for longer stand in the way of a lock.
const LONG_QUERY: Duration = Duration::from_secs(10);

/// Flags of backups by a tool.
#[derive(clap::Args)]
#[command(next_help_heading = "mariadb-backup and xtrabackup")]
pub(crate) struct ToolFlags {
    /// The tool: a program, or the directory of an installation of the server [default: from PATH]
    #[arg(long, value_name = "PATH")]
    tool: Option<PathBuf>,
    /// When DDL is kept off (xtrabackup; mariadb-backup follows DDL by itself)
    #[arg(long, value_name = "WHEN", value_parser = ["default", "on", "reduced", "off"], default_value = "default")]
    lock_ddl: String,
    /// Keep the position in the source of a replica, too
    #[arg(long)]
    replica_position: bool,
    /// Keep the state of a Galera node
    #[arg(long)]
    galera_position: bool,
    /// Make the server keep its redo log until it is copied (xtrabackup 8.0.30 and later)
    #[arg(long)]
    keep_redo: bool,
    /// Go on where a page of the source is damaged, and say which (mariadb-backup, copies)
    #[arg(long)]
    allow_bad_pages: bool,
}

impl ToolFlags {
    /// What they are for.
    pub(super) fn given(&self) -> [Given; 6] {
        [
            ("--tool", self.tool.is_some(), &[Way::Tool]),
            ("--lock-ddl", self.lock_ddl != "default", &[Way::Tool]),
            ("--replica-position", self.replica_position, &[Way::Tool]),
            ("--galera-position", self.galera_position, &[Way::Tool]),
            ("--keep-redo", self.keep_redo, &[Way::Tool]),
            ("--allow-bad-pages", self.allow_bad_pages, &[Way::Tool, Way::Copy]),
        ]
    }

    /// Whether a page of the source may be damaged.
    pub(super) fn allows_bad_pages(&self) -> bool {
        self.allow_bad_pages
    }

    /// What these flags say of a backup.
    pub(super) fn options(&self) -> ToolOptions {
        ToolOptions {
            lock_ddl: match self.lock_ddl.as_str() {
                "on" => LockDdl::On,
                "reduced" => LockDdl::Reduced,
                "off" => LockDdl::Off,
                _ => LockDdl::Default,
            },
            replica_position: self.replica_position,
            galera_position: self.galera_position,
            keep_redo: self.keep_redo,
            allow_bad_pages: self.allow_bad_pages,
            ..ToolOptions::default()
        }
    }

    /// A backup of `source` by the tool that they name.
    pub(super) fn driver(&self, source: ConnectOptions, options: ToolOptions) -> PhysicalBackup {
        PhysicalBackup::new(source, self.tool.clone(), search_path(), options)
    }
}

/// The directories of `PATH`.
pub(super) fn search_path() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// The number that tools throttle by.
fn pairs(text: &str) -> Result<u32> {
    text.parse().map_err(|_| {
        Error::usage(format!(
            "`{text}` is no number of reads and writes a second, which tools throttle by"
        ))
        .with_remedy("write a number such as 100; limits of the load are for --strategy logical")
    })
}

impl Backup {
    /// Takes a backup by a tool.
    pub(super) async fn by_tool(
        &self,
        app: &App,
        repo: &Repo,
        mut spec: BackupSpec,
    ) -> Result<Answer> {
        self.check_whole()?;
        let options = self.tool_options()?;
        let source = source(app, self.source.as_deref(), &self.defaults_file);
        let source = source.resolve(&app.cx).await?;
        let mut driver = self.tool.driver(source, options);
        if spec.backup_type != BackupType::Full {
            let (parent, passed_over) = parent(app, repo, &spec).await?;
            driver = driver.since(Parent::of(&parent)?);
            if let Some(text) = passed_over {
                driver = driver.remarking(text);
            }
            spec.parent = Some(parent.backup);
        }
        answer(&pipeline::backup(&app.cx, repo, &driver, spec).await?)
    }

    fn tool_options(&self) -> Result<ToolOptions> {
        let lock = Duration::from_secs(self.lock_timeout);
        Ok(ToolOptions {
            kill_long_queries: (self.long_queries == "kill").then_some(LONG_QUERY),
            wait_for_queries: (self.long_queries == "wait").then_some(lock),
            lock_deadline: lock,
            safe_replica: self.pause_replication.then_some(SAFE_REPLICA),
            throttle: self.throttle.as_deref().map(pairs).transpose()?,
            ..self.tool.options()
        })
    }
}

/// The backup that an increment goes on from: the newest that a tool made, for a differential one the newest
/// full one of these, whose chain is whole; and what is to be said where that is not the newest.
async fn parent(app: &App, repo: &Repo, spec: &BackupSpec) -> Result<(Manifest, Option<String>)> {
    let listed = app.cx.run(repo.backups(&app.cx, Some(&spec.cluster))).await?;
    let known: Vec<Manifest> = listed.into_iter().filter_map(|l| l.manifest.ok()).collect();
    let fits = |m: &&Manifest| {
        m.strategy == Strategy::Physical
            && details(m).is_ok()
            && (spec.backup_type == BackupType::Incremental || m.backup_type == BackupType::Full)
    };
    let kind = spec.backup_type;
    let mut newest = None;
    for manifest in known.iter().rev().filter(fits) {
        let broken = app.cx.run(repo.broken_chain(&app.cx, manifest, &known)).await?;
        let Some(why) = broken else {
            let passed_over = newest.map(|(newest, why): (BackupId, String)| {
                format!(
                    "{newest} cannot be restored ({why}): this backup has all that changed since {}, the newest that \
                     is whole; take a full backup soon",
                    manifest.backup
                )
            });
            return Ok((manifest.clone(), passed_over));
        };
        newest.get_or_insert_with(|| (manifest.backup.clone(), why));
    }
    match newest {
        Some((newest, why)) => Err(Error::damaged(format!(
            "there is nothing whole that a backup of type {kind} could go on from: {newest} cannot be restored ({why})"
        ))
        .with_remedy("take a full backup")),
        None => Err(Error::usage(format!(
            "there is no full backup of {} by a tool that a backup of type {kind} could go on from",
            spec.cluster
        ))
        .with_remedy("take one with --strategy physical --type full")),
    }
}
