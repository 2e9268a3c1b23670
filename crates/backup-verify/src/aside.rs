//! Some tables as they were at a point in time: restored and replayed in a private server, and moved
//! from there to a target that goes on running.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use backup_core::{
    ArtifactSink, Backup, BackupSpec, BackupType, ClusterName, Context, Error, ErrorKind, Event,
    Finding, Manifest, Repository, Restore, RestoreSteps, Restored, Result, Secret, Strategy,
    pipeline,
};
use backup_drivers::binlog::replay::{ApplyOptions, apply};
use backup_drivers::binlog::{Narrowed, Route, narrow};
use backup_drivers::connect::{ConnectOptions, Session};
use backup_drivers::logical::{
    Catalog, LogicalBackup, LogicalOptions, LogicalRestore, LogicalRestoreOptions, Scope,
    Selection, TableName,
};
use backup_drivers::sandbox::{Sandbox, ServerInstall};
use backup_storage::format::Compression;
use backup_storage::{Deltas, Repo, RepoUrl, RepositoryOptions};

use crate::at_target;
use crate::drill::{DrillOptions, engine_libraries, with_libraries};
use crate::foresee::excluded;

/// What is moved, where to, and by way of which server.
#[derive(Debug, Clone)]
pub struct AsideOptions {
    /// The private server.
    pub server: DrillOptions,
    /// The target.
    pub target: ConnectOptions,
    /// What is moved, and how: the selection names tables or databases.
    pub restore: LogicalRestoreOptions,
}

/// A restore of some tables to a point, looked at and not begun.
pub struct Aside<'a> {
    repo: &'a Repo,
    manifest: &'a Manifest,
    options: AsideOptions,
    install: ServerInstall,
    lower_case_table_names: u8,
    /// What the private server loads for the engines of the backup's tables.
    libraries: BTreeSet<String>,
    manner: Manner,
    at_target: RestoreSteps,
}

/// How much of the backup is restored privately.
enum Manner {
    /// What the tables need.
    Narrow(Box<Scope>, Arc<Route>, Arc<Route>),
    /// Everything, and why.
    Whole(String, Arc<Route>),
}

impl<'a> Aside<'a> {
    /// Looks at the target, the backup and the binlogs. Reads all binlogs on the way.
    ///
    /// # Errors
    /// As a restore of the tables without a point; [`ErrorKind::Usage`] where there is no server to
    /// run privately.
    pub async fn prepare(
        cx: &Context,
        repo: &'a Repo,
        manifest: &'a Manifest,
        route: Arc<Route>,
        options: AsideOptions,
    ) -> Result<Aside<'a>> {
        let install = options.server.install(manifest)?;
        let artifacts = repo.artifacts(cx, manifest).await?;
        let catalog = cx.run(Catalog::read(&*artifacts)).await?;
        let selection = &options.restore.selection;
        let scope = Scope::of(&catalog, selection);
        let is_there = |selection: &Selection| {
            let databases = &selection.databases;
            databases.iter().all(|name| catalog.databases.iter().any(|d| d.name == *name))
                && selection
                    .tables
                    .iter()
                    .all(|t| catalog.tables.iter().any(|o| o.full_name() == *t))
        };
        // What came after the backup, the target is asked about when it is known.
        let at_target = if is_there(selection) {
            let driver = LogicalRestore::new(options.target.clone(), options.restore.clone());
            pipeline::plan_restore(cx, repo, &driver, manifest).await?
        } else {
            let mut steps = RestoreSteps::default();
            cx.run(at_target::foretell(&options, None, &mut steps)).await?;
            steps
        };
        cx.phase("looking through the binlogs");
        let manner = match scope {
            Err(why) => Manner::Whole(why, route),
            Ok(scope) => match narrow(cx, repo, &route, &scope).await? {
                Narrowed::Whole(why) => Manner::Whole(why, route),
                Narrowed::Route(narrowed) => {
                    Manner::Narrow(Box::new(scope), Arc::new(*narrowed), route)
                }
            },
        };
        let lower_case_table_names = catalog.header.lower_case_table_names;
        let libraries = engine_libraries(&install, &catalog);
        Ok(Aside {
            repo,
            manifest,
            options,
            install,
            lower_case_table_names,
            libraries,
            manner,
            at_target,
        })
    }

    /// What [`run`](Self::run) would do.
    #[must_use]
    pub fn steps(&self) -> RestoreSteps {
        let (flavor, version) = (self.install.flavor(), self.install.version());
        let base = self.install.base().display();
        let mut steps = vec![format!("start a private {flavor} {version}, of {base}")];
        match &self.manner {
            Manner::Narrow(scope, route, _) => {
                let Selection { databases, tables, .. } = &scope.selection;
                let names: Vec<String> = databases
                    .iter()
                    .cloned()
                    .chain(tables.iter().map(ToString::to_string))
                    .collect();
                steps.push(format!("restore {} there", names.join(", ")));
                steps.push(match route.is_empty() {
                    true => "apply no binlogs there: none of their transactions concerns them"
                        .to_owned(),
                    false => {
                        let n = route.transactions;
                        format!("apply there the {n} transactions that concern them")
                    }
                });
            }
            Manner::Whole(why, route) => {
                steps.push(format!("restore everything there, because {why}"));
                steps.push(match route.is_empty() {
                    true => "apply no binlogs there: the backup is at that point".to_owned(),
                    false => "apply all archived binlogs up to that point there".to_owned(),
                });
            }
        }
        let chosen = &self.options.restore.selection;
        let names: Vec<String> = chosen
            .databases
            .iter()
            .cloned()
            .chain(chosen.tables.iter().map(ToString::to_string))
            .collect();
        let names = names.join(", ");
        steps.push(match self.at_target.steps.is_empty() {
            // What the backup does not have is looked at there first.
            true => format!("read {names} from there, and restore it to the target"),
            false => format!("read {names} from there, and at the target:"),
        });
        steps.extend(self.at_target.steps.iter().cloned());
        RestoreSteps { steps, ..self.at_target.clone() }
    }

    /// Why everything is restored privately; `None` where the tables are enough.
    #[must_use]
    pub fn why_whole(&self) -> Option<&str> {
        match &self.manner {
            Manner::Narrow(..) => None,
            Manner::Whole(why, _) => Some(why),
        }
    }

    /// What the target takes otherwise than it was.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.at_target.findings
    }

    /// Does it. The private server is gone at the end, however it ends.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] where a table is not there at that point; what restores, replays and
    /// backups fail with.
    pub async fn run(self, cx: &Context) -> Result<Restored> {
        let (mut sandbox, source) = match &self.manner {
            Manner::Whole(_, route) => self.replay(cx, None, route).await?,
            Manner::Narrow(scope, route, all) => match self.replay(cx, Some(scope), route).await {
                Err(e) if e.kind() == ErrorKind::Target => {
                    cx.event(Event::Warning {
                        text: format!(
                            "the tables alone were not enough, so everything is restored privately \
                             now: {}",
                            e.chain()
                        ),
                    });
                    self.replay(cx, None, all).await?
                }
                other => other?,
            },
        };
        let moved = async {
            let idle = still_there(&source, &self.options.restore.selection, &[], true).await?;
            let cluster = &self.manifest.cluster;
            let moved = move_over(
                cx,
                cluster,
                sandbox.directory(),
                &source,
                &self.options,
                Rows::Move,
                false,
            );
            moved.await.map(|moved| with_findings(cx, moved, &idle))
        };
        let moved = moved.await;
        // What the server says at its end does not matter; its data goes with it.
        sandbox.kill();
        moved
    }

    /// A private server at the point.
    async fn replay(
        &self,
        cx: &Context,
        scope: Option<&Scope>,
        route: &Arc<Route>,
    ) -> Result<(Sandbox, ConnectOptions)> {
        let (flavor, version) = (self.install.flavor(), self.install.version());
        cx.phase(format!("starting {flavor} {version}"));
        let names = self.lower_case_table_names;
        let sandbox = self
            .options
            .server
            .start(cx, &self.install, names, |mut builder| {
                if flavor == backup_core::Flavor::MySql && route.applied.is_some() {
                    builder =
                        builder.option("gtid_mode", "ON").option("enforce_gtid_consistency", "ON");
                }
                for (name, value) in scope.iter().flat_map(|scope| scope.filters()) {
                    builder = builder.option(name, value);
                }
                with_libraries(builder, self.libraries.iter().cloned())
            })
            .await?;
        let source = own_account(cx, &sandbox).await?;
        let selection = scope.map(|scope| scope.selection.clone()).unwrap_or_default();
        let options = LogicalRestoreOptions { selection, ..LogicalRestoreOptions::default() };
        let driver = LogicalRestore::new(source.clone(), options).private();
        let artifacts = self.repo.artifacts(cx, self.manifest).await?;
        cx.phase("restore");
        driver.run(cx, self.manifest, artifacts).await?;
        cx.phase("binlogs");
        let store = Arc::new(self.repo.clone());
        apply(cx, &source, store, Arc::clone(route), &ApplyOptions::private()).await?;
        Ok((sandbox, source))
    }
}

/// Whether rows are moved with their tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rows {
    /// They are.
    Move,
    /// Tables come empty.
    Leave,
}

/// Reads the tables of the private server `source` and writes them to the target, by way of a repository
/// in `directory` that is as private. With `told`, what may come out otherwise is not told again.
pub(crate) async fn move_over(
    cx: &Context,
    cluster: &ClusterName,
    directory: &Path,
    source: &ConnectOptions,
    options: &AsideOptions,
    rows: Rows,
    told: bool,
) -> Result<Restored> {
    let (repo, manifest, driver) = read_over(cx, cluster, directory, source, options, rows).await?;
    let driver = if told { driver.told() } else { driver };
    let mut restored = pipeline::restore(cx, &repo, &driver, &manifest).await?;
    // They were said while it was read.
    restored.warnings.extend(manifest.outcome.warnings);
    Ok(restored)
}

/// What the target says to that.
pub(crate) async fn look_over(
    cx: &Context,
    cluster: &ClusterName,
    directory: &Path,
    source: &ConnectOptions,
    options: &AsideOptions,
) -> Result<Vec<Finding>> {
    let read = read_over(cx, cluster, directory, source, options, Rows::Leave).await?;
    let (repo, manifest, driver) = read;
    Ok(pipeline::plan_restore(cx, &repo, &driver, &manifest).await?.findings)
}

async fn read_over(
    cx: &Context,
    cluster: &ClusterName,
    directory: &Path,
    source: &ConnectOptions,
    options: &AsideOptions,
    rows: Rows,
) -> Result<(Repo, Manifest, LogicalRestore)> {
    let no_rows = match rows {
        Rows::Move => BTreeSet::new(),
        Rows::Leave => BTreeSet::from(["*.*".parse()?]),
    };
    let selection = options.restore.selection.clone();
    let repo = private_repository(cx, directory).await?;
    cx.phase("reading the tables");
    let spec = BackupSpec {
        cluster: cluster.clone(),
        strategy: Strategy::Logical,
        backup_type: BackupType::Full,
        parent: None,
    };
    let driver = LogicalBackup::new(
        source.clone(),
        LogicalOptions { selection, no_accounts: true, no_rows, ..LogicalOptions::default() },
    );
    let session = repo.begin(cx, spec).await?;
    let sink = Arc::clone(&session) as Arc<dyn ArtifactSink>;
    let outcome = cx.run(driver.run(cx, sink)).await.map_err(unreadable)?;
    let manifest = session.commit(outcome).await?;
    let mut restore = options.restore.clone();
    // That backup lacks them, and they cannot be left out of it again.
    restore.selection.exclude_databases.clear();
    restore.selection.exclude_table_globs.clear();
    let driver = LogicalRestore::new(options.target.clone(), restore).once();
    Ok((repo, manifest, driver))
}

/// What reading from a private server failed with: all that it has came out of the backup, and no other server is
/// concerned.
pub(crate) fn unreadable(error: Error) -> Error {
    use ErrorKind::{Connect, Privilege, Source, Target};
    match error.kind() {
        Connect | Privilege | Source | Target => error
            .context("a private server cannot read what the backup has of the tables")
            .with_kind(ErrorKind::Damaged)
            .with_remedy(
                "restore these tables out of an older backup, and the others without them; \
                 `holdfast verify --level drill` tells which can be read",
            ),
        _ => error,
    }
}

/// Adds what was found besides to what a restore tells.
pub(crate) fn with_findings(cx: &Context, moved: Restored, findings: &[Finding]) -> Restored {
    let texts = findings.iter().map(|finding| finding.problem.clone());
    let texts: Vec<String> = texts.collect();
    for text in &texts {
        cx.event(Event::Warning { text: text.clone() });
    }
    Restored { warnings: [moved.warnings, texts].concat(), ..moved }
}

/// An account of our own: those of the backup and of the binlogs may be others than they were.
async fn own_account(cx: &Context, sandbox: &Sandbox) -> Result<ConnectOptions> {
    let name = format!("holdfast-{:08x}", u32::from_le_bytes(cx.random()));
    let password: String = cx.random::<16>().iter().map(|b| format!("{b:02x}")).collect();
    let mut session = Session::open(&ConnectOptions::socket(sandbox.socket(), "root")).await?;
    session.run(&format!("CREATE USER '{name}'@'localhost' IDENTIFIED BY '{password}'")).await?;
    session.run(&format!("GRANT ALL ON *.* TO '{name}'@'localhost' WITH GRANT OPTION")).await?;
    session.close().await?;
    Ok(ConnectOptions::socket(sandbox.socket(), name).with_password(Secret::new(password)))
}

async fn private_repository(cx: &Context, directory: &Path) -> Result<Repo> {
    let path = directory.join("moved");
    let url: RepoUrl = path
        .to_str()
        .ok_or_else(|| Error::usage(format!("{} is not UTF-8", path.display())))?
        .parse()?;
    let options = RepositoryOptions {
        compression: Compression::Lz4,
        dedup: false,
        deltas: Deltas::Never,
        ..RepositoryOptions::default()
    };
    Repo::init(cx, &url, options).await
}

/// Fails where one of the tables is not there: at the point, or in the backup as it is. Names that are to be left out
/// are looked for there too, and among `filed`, where not everything was laid out.
pub(crate) async fn still_there(
    source: &ConnectOptions,
    selection: &Selection,
    filed: &[TableName],
    at_point: bool,
) -> Result<Vec<Finding>> {
    let mut session = Session::open(source).await?;
    let gone = |what: &str| match at_point {
        false => missing(what),
        true => Error::new(ErrorKind::Unreachable, format!("{what} is not there at that point"))
            .with_remedy(
                "it was dropped, renamed or not created yet: choose an earlier or later point; \
                     `holdfast binlog find --table` helps",
            ),
    };
    for database in &selection.databases {
        let sql = "SELECT 1 FROM information_schema.schemata WHERE schema_name = ?";
        let found: Vec<u8> = session.exec_rows(sql, (database,)).await?;
        if found.is_empty() {
            return Err(gone(&format!("database {database}")));
        }
    }
    for name in &selection.tables {
        let sql = "SELECT table_type FROM information_schema.tables WHERE table_schema = ? AND table_name = ?";
        let found: Vec<String> = session.exec_rows(sql, (&name.database, &name.table)).await?;
        match found.first().map(String::as_str) {
            None if !at_point && filed.contains(name) => return Err(unknown(name)),
            None => return Err(gone(&format!("table {name}"))),
            Some("VIEW") => return Err(no_table(name)),
            Some(_) => {}
        }
    }
    let mut findings = Vec::new();
    if !selection.exclude_databases.is_empty() || !selection.exclude_table_globs.is_empty() {
        let sql = "SELECT table_schema, table_name FROM information_schema.tables";
        let names: Vec<(String, String)> = session.query_rows(sql).await?;
        let names = names.into_iter().map(|(database, table)| TableName { database, table });
        let tables: Vec<TableName> = names.chain(filed.iter().cloned()).collect();
        let mut databases: Vec<String> =
            session.query_rows("SELECT schema_name FROM information_schema.schemata").await?;
        databases.extend(filed.iter().map(|name| name.database.clone()));
        findings = excluded(selection, &databases, &tables)?;
    }
    session.close().await?;
    Ok(findings)
}

/// That a backup does not hold what is asked for.
pub(crate) fn missing(what: &str) -> Error {
    Error::usage(format!("the backup holds no {what}"))
        .with_remedy("see what it holds with `holdfast show`")
}

/// That the backup has a file of a table, and a server on it does not have the table.
fn unknown(table: &TableName) -> Error {
    let text = format!(
        "the backup has the file of table {table}, and a server on it does not know the table"
    );
    Error::damaged(text).with_remedy("restore it out of an older backup")
}

/// That a name is not that of a table.
pub(crate) fn no_table(view: &TableName) -> Error {
    Error::usage(format!("{view} is a view, and --tables takes tables"))
        .with_remedy(format!("--databases {} restores the database with its views", view.database))
}
