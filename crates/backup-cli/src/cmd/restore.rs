//! `holdfast restore`

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backup_core::{
    BinlogServer, ClusterName, Error, ErrorKind, Event, Listed, Manifest, ReplayTarget, Repository,
    Result, Strategy, pipeline, select, shell_word,
};
use backup_drivers::clone::Flags;
use backup_drivers::connect::without_password;
use backup_drivers::foreign::ForeignImport;
use backup_drivers::logical::recreate::Definers;
use backup_drivers::logical::{
    AccountName, Glob, InvalidText, LogicalRestore, LogicalRestoreOptions, Parts, Rename,
    RenameRule, Selection, TableGlob,
};
use backup_storage::{Repo, RepositoryOptions};
use backup_verify::{Aside, AsideOptions, DrillOptions};
use jiff::Timestamp;

use super::backup::{Names, Wanted, globs, table_globs};
use super::new_replica::NewReplica;
use super::point::{Point, Way};
use super::restored::{done, plan};
use crate::answer::Answer;
use crate::app::App;
use crate::login::{DefaultsFile, Server};

/// Restore a backup into a server or a directory
#[derive(clap::Args)]
pub(crate) struct Restore {
    /// An id, a unique prefix of one, or `latest`
    #[arg(value_name = "BACKUP", default_value = "latest")]
    backup: String,
    /// The cluster whose backup it is
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
    /// The server to write: mysql://user@host:port/ or mysql://user@localhost/?socket=/path
    #[arg(long, value_name = "DSN")]
    target: Option<String>,
    /// The directory to write a backup of data files into, for a server to start on; missing or empty
    #[arg(long, value_name = "DIR", conflicts_with = "target")]
    target_dir: Option<PathBuf>,
    /// The tool that prepares the files, where one read them: mariadb-backup or xtrabackup, or the directory
    /// of an installation [default: from PATH]
    #[arg(long, value_name = "PATH")]
    pub(super) tool: Option<PathBuf>,
    #[command(flatten)]
    defaults_file: DefaultsFile,
    /// Only these databases, separated by commas; `*` and `?` are wildcards, except in backticks
    #[arg(long, value_name = "DB,…", value_parser = globs, conflicts_with = "tables")]
    databases: Vec<Names<Glob>>,
    /// Without these databases
    #[arg(long, value_name = "DB,…", value_parser = globs)]
    exclude_databases: Vec<Names<Glob>>,
    /// Only these tables
    #[arg(long, value_name = "DB.TABLE,…", value_parser = table_globs)]
    tables: Vec<Names<TableGlob>>,
    /// Without these tables
    #[arg(long, value_name = "DB.TABLE,…", value_parser = table_globs)]
    exclude_tables: Vec<Names<TableGlob>>,
    /// Restore a database or table under another name
    #[arg(long, value_name = "OLD=NEW", value_parser = rename)]
    rename: Vec<RenameRule>,
    /// Whether the restore goes into the target's binary log: off is quicker, and no replica of the
    /// target gets what is restored
    #[arg(
        long,
        value_name = "WHETHER",
        value_enum,
        default_value = "on",
        conflicts_with = "target_dir"
    )]
    binlog: Switch,
    /// Whether MySQL keeps its redo log meanwhile: off only for an empty server that may be lost, for
    /// a crash meanwhile destroys all of it
    #[arg(
        long,
        value_name = "WHETHER",
        value_enum,
        default_value = "on",
        conflicts_with = "target_dir"
    )]
    redo_log: Switch,
    /// For how long rows are loaded again that fail because the target, or the connection to it, went away, or by
    /// a deadlock. A restore that gives up goes on when it is run again
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=86_400), conflicts_with = "target_dir")]
    retry_for: u64,
    /// Without users, roles and grants; those that are there already stay as they are in any case
    #[arg(long, conflicts_with = "target_dir")]
    no_users: bool,
    /// What becomes of the definers of views, routines, triggers and events: `keep`, or `strip`, so
    /// that it is whoever restores
    #[arg(long, value_name = "HOW", value_parser = ["keep", "strip"], default_value = "keep", conflicts_with = "target_dir")]
    definers: String,
    /// Replace a definer by another one
    #[arg(long, value_name = "OLD=NEW", value_parser = map_definer, conflicts_with_all = ["definers", "target_dir"])]
    map_definer: Vec<(AccountName, AccountName)>,
    /// What to do about values that are no text of the character set of their column, which no server takes:
    /// `refuse` to begin, or make their columns ones of bytes, `binary`
    #[arg(long, value_name = "HOW", value_parser = ["refuse", "binary"], default_value = "refuse", conflicts_with = "target_dir")]
    invalid_text: String,
    /// Definitions alone, without any rows
    #[arg(long, conflicts_with_all = ["data_only", "target_dir"])]
    schema_only: bool,
    /// Rows alone, into tables that are there and empty
    #[arg(long, conflicts_with_all = ["overwrite", "target_dir"])]
    data_only: bool,
    #[command(flatten)]
    pub(super) point: Point,
    /// Make the target a replica of this server, mysql://user@host:port/ as the target reaches it, with
    /// the password of HOLDFAST_SOURCE_PASSWORD, and wait until it has caught up. Without a point in time
    /// everything that is archived is applied first. Nothing of it goes into the target's binary log. With
    /// --target-dir the server that is started on the directory is told to
    #[arg(long, value_name = "DSN")]
    pub(super) as_replica_of: Option<String>,
    /// For data files, tables or databases to a point: the server to run privately, the directory that holds
    /// bin/mysqld or usr/sbin/mysqld
    #[arg(long, value_name = "DIR")]
    server_dir: Option<PathBuf>,
    /// For data files, tables or databases to a point: where the private server keeps what is its own
    /// meanwhile
    #[arg(long, value_name = "DIR")]
    scratch_dir: Option<PathBuf>,
    /// The option file of the server that is going to start on the directory: what in it does not fit the backup
    /// is told before anything is written. The server itself reads it, that of --server-dir or of this machine
    #[arg(long, value_name = "FILE", requires = "target_dir")]
    pub(super) server_config: Option<PathBuf>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Replace what is at the target under the same names; --dry-run says what that destroys
    #[arg(long)]
    pub(super) overwrite: bool,
    /// Bring a directory that holds an older state of the same server up to date: only what differs is
    /// written
    #[arg(long, requires = "target_dir", conflicts_with = "overwrite")]
    pub(super) delta: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Switch {
    On,
    Off,
}

fn rename(text: &str) -> Result<RenameRule, String> {
    text.parse::<RenameRule>().map_err(|e| e.report())
}

/// `old@host=new@host`.
fn map_definer(text: &str) -> Result<(AccountName, AccountName), String> {
    let (old, new) = text.split_once('=').ok_or("write old@host=new@host")?;
    let name = |text: &str| text.parse::<AccountName>().map_err(|e| e.report());
    Ok((name(old)?, name(new)?))
}

impl Restore {
    fn selection(&self) -> Selection {
        Wanted {
            databases: &self.databases,
            exclude_databases: &self.exclude_databases,
            tables: &self.tables,
            exclude_tables: &self.exclude_tables,
        }
        .selection()
    }

    fn rename(&self) -> Result<Rename> {
        for (at, rule) in self.rename.iter().enumerate() {
            if self.rename[..at].iter().any(|earlier| earlier.is_of_same(rule)) {
                return Err(Error::usage(format!("two new names are given for {}", rule.old()))
                    .with_remedy("leave one of the --rename out"));
            }
        }
        Ok(self.rename.iter().cloned().collect())
    }

    fn definers(&self) -> Definers {
        match self.definers.as_str() {
            "strip" => Definers::Strip,
            _ if self.map_definer.is_empty() => Definers::Keep,
            _ => Definers::Map(self.map_definer.iter().cloned().collect()),
        }
    }

    /// Restores, or plans to.
    pub(crate) async fn run(&self, app: &App) -> Result<Answer> {
        let cx = &app.cx;
        let cluster = app.cluster(self.cluster.as_ref())?;
        let repo = app.repo_or_copies(RepositoryOptions::default()).await?;
        app.known(&repo, self.cluster.as_ref(), &cluster).await?;
        let listed = cx.run(repo.backups(cx, Some(&cluster))).await?;
        let (manifest, way) = self.choose(app, &repo, &cluster, listed).await?;
        if let Some(directory) = &self.target_dir {
            return self.to_directory(app, &repo, &manifest, directory, way).await;
        }
        if manifest.strategy == Strategy::Foreign {
            return Err(ForeignImport::not_restored(manifest.backup.as_str(), &app.repo_flags));
        }
        let target = Server {
            role: "target",
            variable: "HOLDFAST_TARGET_PASSWORD",
            url: self.target.as_deref(),
            defaults_file: self.defaults_file.defaults_file.as_deref(),
        };
        let target = target.resolve(cx).await?;
        let address = target.to_string();
        let options = LogicalRestoreOptions {
            selection: self.selection(),
            rename: self.rename()?,
            overwrite: self.overwrite,
            // What the target has of its own, its source would lack.
            binary_log: self.binlog == Switch::On && self.as_replica_of.is_none(),
            redo_log: self.redo_log == Switch::On,
            patience: Duration::from_secs(self.retry_for),
            no_accounts: self.no_users,
            definers: self.definers(),
            parts: match (self.schema_only, self.data_only) {
                (true, _) => Parts::Schema,
                (_, true) => Parts::Data,
                _ => Parts::All,
            },
            invalid_text: match self.invalid_text.as_str() {
                "binary" => InvalidText::Binary,
                _ => InvalidText::Refuse,
            },
        };
        let server = self.private_server(app, &manifest);
        if manifest.strategy.has_data_files() {
            if self.selection().has_globs() {
                return Err(Error::usage(
                    "a backup of data files takes no wildcards in --tables and --databases",
                )
                .with_remedy("name what is to be restored in full"));
            }
            let options = AsideOptions { server, target, restore: options };
            return self.tables_of_files(app, &repo, &manifest, options, way).await;
        }
        if let Some(way) = &way
            && !self.is_everything()
        {
            let options = AsideOptions { server, target, restore: options };
            return self.aside(app, &repo, &manifest, way, options).await;
        }
        let replica = match &self.as_replica_of {
            Some(url) => Some(NewReplica::of(cx, url).await?),
            None => None,
        };
        let driver = LogicalRestore::new(target.clone(), options);
        if let Some(replica) = &replica {
            replica.check(cx, &target, &manifest, way.as_ref()).await?;
        }
        if let Some(way) = &way {
            way.preflight(cx, &repo, &target, true).await.map_err(or_apply)?;
        }
        if self.dry_run {
            let steps = pipeline::plan_restore(cx, &repo, &driver, &manifest).await?;
            let answer = plan(&manifest, &address, &steps, way.as_ref())?;
            return Ok(match &replica {
                Some(replica) => answer.with("replica", replica.as_json(None), &replica.step()),
                None => answer,
            });
        }
        let started = cx.now();
        let restored = pipeline::restore(cx, &repo, &driver, &manifest).await;
        let mut restored = match &way {
            Some(_) => restored.map_err(or_apply)?,
            None => restored?,
        };
        if let Some(way) = &way {
            let applied = way.apply(cx, &repo, &target, true).await.map_err(|e| {
                let goes_on = "`holdfast binlog apply` goes on from where the target stands";
                let remedy = match e.kind() {
                    // The rows are there: the same command would begin with them.
                    ErrorKind::Interrupted => goes_on.to_owned(),
                    _ => format!("{}; {goes_on}", e.remedy()),
                };
                e.context(format!("backup {} is restored, the binlogs are not", manifest.backup))
                    .with_remedy(remedy)
            })?;
            restored.bytes += applied.bytes;
            restored.warnings.extend(applied.warnings);
        }
        let Some(replica) = &replica else {
            return done(&manifest, &restored, cx.now().duration_since(started), way.as_ref());
        };
        let following = replica.start_following(cx, &target, &manifest, way.as_ref()).await?;
        for text in &following.warnings {
            cx.event(Event::Warning { text: text.clone() });
        }
        restored.warnings.extend(following.warnings.iter().cloned());
        let answer = done(&manifest, &restored, cx.now().duration_since(started), way.as_ref())?;
        Ok(answer.with("replica", replica.as_json(Some(&following)), &replica.done(&following)))
    }

    /// Some tables to a point, by way of a private server.
    async fn aside(
        &self,
        app: &App,
        repo: &Repo,
        manifest: &Manifest,
        way: &Way,
        options: AsideOptions,
    ) -> Result<Answer> {
        let cx = &app.cx;
        let address = options.target.to_string();
        let started = cx.now();
        let route = Arc::clone(&way.route);
        let aside = Aside::prepare(cx, repo, manifest, route, options).await?;
        if self.dry_run {
            return plan(manifest, &address, &aside.steps(), Some(way));
        }
        let restored = aside.run(cx).await?;
        done(manifest, &restored, cx.now().duration_since(started), Some(way))
    }

    /// The server that is run privately.
    pub(super) fn private_server(&self, app: &App, manifest: &Manifest) -> DrillOptions {
        let server = BinlogServer::of_source(&manifest.outcome.source);
        DrillOptions {
            server: self.server_dir.clone(),
            directory: self.scratch_dir.clone(),
            flags: Flags {
                target: self.target_flags(),
                repository: app.repo_flags.clone(),
                point: self.point.flags(server.as_ref()),
            },
        }
    }

    /// The flags that named the target, without a password, and what may become of it.
    fn target_flags(&self) -> String {
        let file = &self.defaults_file.defaults_file;
        let target = self.target.as_deref().map(without_password);
        let mut flags: String = [
            ("--target", target),
            ("--defaults-file", file.as_ref().map(|file| file.display().to_string())),
        ]
        .into_iter()
        .filter_map(|(flag, value)| Some(format!(" {flag} {}", shell_word(&value?))))
        .collect();
        if self.overwrite && !flags.is_empty() {
            flags.push_str(" --overwrite");
        }
        flags
    }

    /// Whether tables or databases are chosen.
    pub(super) fn chooses_tables(&self) -> bool {
        !self.databases.is_empty() || !self.tables.is_empty()
    }

    /// Whether all of the backup is restored, under its own names.
    pub(super) fn is_everything(&self) -> bool {
        self.selection().is_all() && self.rename.is_empty() && !self.schema_only && !self.data_only
    }

    /// What `latest` is the latest of: a dump of another program that was imported is none that is restored, unless
    /// there is nothing else.
    fn restorable(&self, app: &App, mut listed: Vec<Listed>) -> Vec<Listed> {
        let is_dump = |listed: &Listed| {
            listed.manifest.as_ref().is_ok_and(|m| m.strategy == Strategy::Foreign)
        };
        if self.backup != "latest" || listed.iter().all(is_dump) {
            return listed;
        }
        while let Some(dump) = listed.pop_if(|last| is_dump(last)) {
            let text = format!(
                "backup {} is passed over: it is a dump of another program, which `holdfast export` writes into files",
                dump.backup
            );
            app.cx.event(Event::Warning { text });
        }
        listed
    }

    /// The backup that is restored, and the way on from it, where a point is asked for.
    async fn choose(
        &self,
        app: &App,
        repo: &Repo,
        cluster: &ClusterName,
        listed: Vec<Listed>,
    ) -> Result<(Manifest, Option<Way>)> {
        let target = match (self.point.target(), &self.as_replica_of) {
            (Some(target), _) => target,
            (None, None) => return Ok((select(self.restorable(app, listed), &self.backup)?, None)),
            // What the archive lacks behind that, the source has, or the new replica is refused.
            (None, Some(_)) => ReplayTarget::Reachable,
        };
        if self.as_replica_of.is_some() && !self.is_everything() {
            return Err(Error::usage("a new replica is of everything")
                .with_remedy("leave out --databases, --tables, --rename and their like"));
        }
        if self.selection().has_globs() {
            return Err(Error::usage(
                "a point in time takes no wildcards in --tables and --databases",
            )
            .with_remedy("name what is to be restored in full"));
        }
        if !self.is_everything() && self.databases.is_empty() && self.tables.is_empty() {
            return Err(Error::usage(
                "--rename, --exclude-tables, --schema-only and --data-only need --tables or \
                 --databases where a point in time is asked for: binlogs are applied to all tables, \
                 under their own names",
            )
            .with_remedy("name what is to be restored with --tables or --databases"));
        }
        // A server takes rows; backups of data files go into directories.
        let directory = self.target_dir.is_some();
        let fits = |manifest: &Manifest| match directory {
            true => manifest.strategy.has_data_files(),
            false => manifest.strategy == Strategy::Logical,
        };
        let whole = |manifest: &Manifest| !manifest.outcome.partial && !manifest.outcome.masked;
        let manifests = if self.backup == "latest" {
            for Listed { backup, manifest, .. } in &listed {
                if let Err(e) = manifest {
                    let text = format!("backup {backup} is left out: {}", e.report());
                    app.cx.event(Event::Warning { text });
                }
            }
            let known = listed.into_iter().filter_map(|l| l.manifest.ok()).filter(whole);
            let (fitting, others): (Vec<_>, Vec<_>) = known.partition(fits);
            // Of data files tables come by way of a private server, with all of them.
            let files = others.into_iter().filter(|m| m.strategy.has_data_files());
            let files: Vec<Manifest> =
                files.filter(|_| !directory && self.chooses_tables()).collect();
            let choose = |from| self.point.choose(&app.cx, repo, cluster, from, &target);
            let chosen = match choose(fitting).await {
                Err(e) if e.kind() == ErrorKind::Unreachable && !files.is_empty() => {
                    choose(files).await.map_err(|_| e)?
                }
                chosen => chosen?,
            };
            return Ok((chosen.0, Some(chosen.1)));
        } else {
            let leads_on = |m: &Manifest| {
                let by_tables = m.strategy.has_data_files() && self.chooses_tables();
                whole(m) && (fits(m) || !directory && by_tables)
            };
            let older = match &target {
                ReplayTarget::Time(time) => {
                    let mut known = listed.iter().filter_map(|l| l.manifest.as_ref().ok());
                    known.rfind(|m| m.finished_at <= *time && leads_on(m)).cloned()
                }
                _ => None,
            };
            let manifest = select(listed, &self.backup)?;
            if !whole(&manifest) {
                return Err(Error::usage(format!(
                    "{} does not hold all tables: binlogs cannot be applied to it",
                    manifest.backup
                ))
                .with_remedy("name a backup of everything, or none"));
            }
            if let ReplayTarget::Time(time) = &target
                && manifest.finished_at > *time
            {
                return Err(too_new(&manifest, *time, older.as_ref()));
            }
            vec![manifest]
        };
        let chosen = self.point.choose(&app.cx, repo, cluster, manifests, &target).await?;
        Ok((chosen.0, Some(chosen.1)))
    }
}

/// The error of a backup that was named and is newer than the time that is asked for.
fn too_new(manifest: &Manifest, time: Timestamp, older: Option<&Manifest>) -> Error {
    let problem = format!(
        "backup {} was taken at {}, which is behind {time}",
        manifest.backup, manifest.finished_at
    );
    Error::new(ErrorKind::Unreachable, problem).with_remedy(match older {
        Some(older) => format!(
            "name {}, which was taken at {}, or no backup: then the best one is found",
            older.backup, older.finished_at
        ),
        None => {
            "choose a later time: no backup that binlogs could be applied to is older than that"
                .to_owned()
        }
    })
}

/// A target may be refused for what an earlier run of the same command did there, that was ended while it
/// applied binlogs.
fn or_apply(e: Error) -> Error {
    if e.kind() != ErrorKind::Target {
        return e;
    }
    let remedy = format!(
        "where an earlier run restored the backup there, and was ended while it applied binlogs, `holdfast binlog \
         apply` to the same point goes on; else: {}",
        e.remedy()
    );
    e.with_remedy(remedy)
}
