//! Some tables out of a backup of data files: laid out with only what they need, started privately, and moved
//! to a target that goes on running.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{
    ArtifactInfo, ArtifactName, ArtifactReader, ArtifactSource, Context, ErrorKind, Event, Finding,
    Manifest, Repository, Restore, RestoreSteps, Restored, Result, Severity, Strategy,
};
use backup_drivers::binlog::replay::{ApplyOptions, apply};
use backup_drivers::binlog::{Narrowed, Route, narrow};
use backup_drivers::clone::{Emptied, Marked};
use backup_drivers::connect::{ConnectOptions, Session};
use backup_drivers::files::{
    self, Catalog, Entry, FilesRestore, FilesRestoreOptions, OnFiles, State,
};
use backup_drivers::innodb::{TableFile, is_tablespace};
use backup_drivers::logical::{Parts, Scope, Selection, TableName, inventory};
use backup_drivers::physical::{Link, PhysicalRestore};
use backup_drivers::sandbox::{Sandbox, Scratch, ServerInstall};
use backup_storage::Repo;
use bytes::Bytes;

use crate::aside::{AsideOptions, still_there, with_findings};
use crate::at_target;
use crate::by_file::move_tables;
use crate::foresee::{Foreseen, sequences};

/// How the files become a server.
#[derive(Clone, Default)]
pub struct FilesServer {
    /// The tool that prepares them, where one read them; see [`PhysicalRestore::new`].
    pub tool: Option<PathBuf>,
    /// Where it is looked for, where none is named.
    pub directories: Vec<PathBuf>,
    /// The backups that an increment needs before it.
    pub before: Vec<Link>,
}

/// Restores the tables or databases that `options` choose to their target, out of a backup of data files: as
/// they were at its position, or where `route` leads from there.
///
/// # Errors
/// As a restore of the files, of binlogs, and of the tables; [`ErrorKind::Unreachable`] where a table is not
/// there at that point.
pub async fn restore_tables(
    cx: &Context,
    repo: &Repo,
    manifest: &Manifest,
    server: FilesServer,
    options: AsideOptions,
    route: Option<Arc<Route>>,
) -> Result<Restored> {
    let at_point = route.is_some();
    let route = route.filter(|route| !route.is_empty());
    let (apart, _) = Apart::look(cx, repo, manifest, server, &options, route.as_deref()).await?;
    let ground = match route {
        None => apart.open(None).await?,
        Some(route) => apart.at_point(&route).await?,
    };
    let Ground { scratch, mut sandbox, source, marked } = ground;
    let moved = async {
        if let Some(marked) = marked {
            let how = &options.restore;
            marked.refuse(&source, &how.selection, &how.rename).await?;
        }
        let filed = apart.filed();
        let mut told = still_there(&source, &options.restore.selection, &filed, at_point).await?;
        if options.restore.parts != Parts::Schema {
            told.extend(in_memory(&source, &options.restore.selection).await?);
        }
        let moved = move_tables(cx, &manifest.cluster, scratch.path(), &source, &options).await?;
        Ok(with_findings(cx, moved, &told))
    };
    let moved: Result<Restored> = moved.await;
    // What the server says at its end does not matter; its data goes with it.
    sandbox.kill();
    let mut moved = moved?;
    moved.reached = manifest.outcome.position.clone();
    Ok(moved)
}

/// A private server on the files.
struct Ground {
    scratch: Scratch,
    sandbox: Sandbox,
    source: ConnectOptions,
    /// Tables without their rows, which binlogs may give other names.
    marked: Option<Marked>,
}

/// The restore of some tables, away from the target.
struct Apart<'a> {
    cx: &'a Context,
    repo: &'a Repo,
    manifest: &'a Manifest,
    server: FilesServer,
    options: &'a AsideOptions,
    install: ServerInstall,
    catalog: Catalog,
}

impl<'a> Apart<'a> {
    /// Looks at everything that can be looked at before a file is laid out, and gives what to tell of it.
    async fn look(
        cx: &'a Context,
        repo: &'a Repo,
        manifest: &'a Manifest,
        server: FilesServer,
        options: &'a AsideOptions,
        route: Option<&Route>,
    ) -> Result<(Apart<'a>, Vec<Finding>)> {
        // Accounts and the like of a server that runs, below its feet.
        options.restore.selection.check()?;
        let install = options.server.install(manifest)?;
        let artifacts = repo.artifacts(cx, manifest).await?;
        let catalog = Catalog::read(&*artifacts).await?;
        refuse_emptied(Emptied::of(manifest, &catalog), options)?;
        let binlogs = route.is_some();
        let foreseen = Foreseen {
            manifest,
            catalog: &catalog,
            artifacts: &*artifacts,
            options,
            install: &install,
            binlogs,
        };
        let findings = cx.run(foreseen.look()).await?;
        Ok((Apart { cx, repo, manifest, server, options, install, catalog }, findings))
    }
}

impl Apart<'_> {
    /// Lays the files out and starts a server on them. Where no binlogs are applied, and a tool prepares the
    /// files, those of other tables stay away: a tool leaves out what is not there, and a server that
    /// recovers does not.
    async fn open(&self, route: Option<&Route>) -> Result<Ground> {
        let Apart { cx, options, .. } = *self;
        let scratch = options.server.scratch("tables")?;
        let (driver, artifacts) = self.layout(scratch.path(), route).await?;
        cx.phase("files");
        driver.run(cx, self.manifest, artifacts).await?;
        let install = &self.install;
        cx.phase(format!("starting {} {}", install.flavor(), install.version()));
        let server = OnFiles::new(install, scratch.path(), &self.catalog);
        let server = match route {
            Some(route) => server.for_binlogs(route),
            None => server,
        };
        let (sandbox, source) = server.open(cx).await?;
        let mut marked = None;
        if self.manifest.strategy == Strategy::Clone && options.restore.parts != Parts::Schema {
            // Some the account that took the clone may not have seen.
            let emptied = Emptied::of(self.manifest, &self.catalog).seen_by(&source);
            let emptied = cx.run(emptied).await?.with_flags(&options.server.flags);
            refuse_emptied(emptied.clone(), options)?;
            if route.is_some() {
                marked = Some(cx.run(Marked::set(cx, &source, emptied)).await?);
            }
        }
        Ok(Ground { scratch, sandbox, source, marked })
    }

    /// What lays the files out, and which.
    async fn layout(
        &self,
        scratch: &Path,
        route: Option<&Route>,
    ) -> Result<(Box<dyn Restore>, Arc<dyn ArtifactSource>)> {
        let Apart { cx, options, .. } = *self;
        let unprepared = self.catalog.header.state == State::Unprepared;
        let selection = Some(&options.restore.selection).filter(|_| route.is_none() && unprepared);
        let all = self.repo.artifacts(cx, self.manifest).await?;
        let keep = match selection {
            Some(selection) => Some(Keep::of(&*all, &self.catalog, selection).await?),
            None => None,
        };
        let narrowed = async |artifacts| match &keep {
            Some(keep) => narrow_files(artifacts, keep).await,
            None => Ok(artifacts),
        };
        let (data, how) = (files::data(scratch), FilesRestoreOptions::default());
        let driver: Box<dyn Restore> = match unprepared {
            true => {
                let mut before = Vec::new();
                for link in self.server.before.clone() {
                    let artifacts = narrowed(link.artifacts).await?;
                    before.push(Link { artifacts, ..link });
                }
                let tool = self.server.tool.clone().or_else(|| options.server.server.clone());
                let directories = self.server.directories.clone();
                Box::new(PhysicalRestore::new(data, how, tool, directories).after(before))
            }
            false => Box::new(FilesRestore::new(data, how)),
        };
        let artifacts = narrowed(all).await?;
        Ok((driver, artifacts))
    }

    /// The tables that the backup has files of.
    fn filed(&self) -> Vec<TableName> {
        let files = self.catalog.files().filter_map(|entry| TableFile::of(&entry.path));
        files.map(|TableFile { database, table, .. }| TableName { database, table }).collect()
    }

    /// A server at the point, as far as the tables are concerned.
    async fn at_point(&self, route: &Arc<Route>) -> Result<Ground> {
        let cx = self.cx;
        let ground = self.open(Some(route)).await?;
        cx.phase("looking through the binlogs");
        let Some((scope, narrowed)) = self.narrowed(&ground.source, route).await? else {
            self.apply(&ground.source, route).await?;
            return Ok(ground);
        };
        let mut session = Session::open(&ground.source).await?;
        for sql in scope.filter_statements(self.install.flavor()) {
            session.run(&sql).await?;
        }
        session.close().await?;
        match self.apply(&ground.source, &narrowed).await {
            Err(e) if e.kind() == ErrorKind::Target => {
                cx.event(Event::Warning {
                    text: format!(
                        "the transactions of the tables alone were not enough, so all are applied now: {}",
                        e.chain()
                    ),
                });
                drop(ground);
                let ground = self.open(Some(route)).await?;
                self.apply(&ground.source, route).await?;
                Ok(ground)
            }
            other => other.map(|()| ground),
        }
    }

    /// The part of a route that the tables need; `None` where that may be all of it.
    async fn narrowed(
        &self,
        source: &ConnectOptions,
        route: &Arc<Route>,
    ) -> Result<Option<(Scope, Arc<Route>)>> {
        let cx = self.cx;
        let mut session = Session::open(source).await?;
        let facts = inventory::server(session.conn()).await?;
        let definitions = inventory::read(session.conn(), &facts, &Selection::default()).await?;
        session.close().await?;
        let whole = |why: String| {
            cx.note(format!("all transactions are applied privately, because {why}"));
            Ok(None)
        };
        let scope = match Scope::of(&definitions, &self.options.restore.selection) {
            Ok(scope) => scope,
            Err(why) => return whole(why),
        };
        match narrow(cx, self.repo, route, &scope).await? {
            Narrowed::Whole(why) => whole(why),
            Narrowed::Route(narrowed) => Ok(Some((scope, Arc::new(*narrowed)))),
        }
    }

    async fn apply(&self, source: &ConnectOptions, route: &Arc<Route>) -> Result<()> {
        self.cx.phase("binlogs");
        let store = Arc::new(self.repo.clone());
        let options = ApplyOptions::private();
        apply(self.cx, source, store, Arc::clone(route), &options).await.map(drop)
    }
}

/// What [`restore_tables`] would do.
///
/// # Errors
/// As it, before anything is written.
pub async fn plan_tables(
    cx: &Context,
    repo: &Repo,
    manifest: &Manifest,
    server: FilesServer,
    options: &AsideOptions,
    route: Option<&Route>,
) -> Result<RestoreSteps> {
    let way = route.filter(|route| !route.is_empty());
    let (apart, findings) = Apart::look(cx, repo, manifest, server, options, way).await?;
    // The tool, the chain, keys and room.
    let scratch = options.server.scratch("tables")?;
    let (driver, artifacts) = apart.layout(scratch.path(), way).await?;
    cx.run(driver.plan(cx, manifest, artifacts)).await?;
    let Apart { install, catalog, .. } = apart;
    let entries: Vec<&Entry> = match catalog.header.state {
        State::Unprepared if route.is_none() => {
            let artifacts = repo.artifacts(cx, manifest).await?;
            let keep = Keep::of(&*artifacts, &catalog, &options.restore.selection).await?;
            catalog.files().filter(|entry| keep.wants(&entry.path)).collect()
        }
        State::Unprepared | State::Clean | State::Crashed => catalog.files().collect(),
    };
    let bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
    let chosen = &options.restore.selection;
    let names: Vec<String> = chosen
        .databases
        .iter()
        .cloned()
        .chain(chosen.tables.iter().map(ToString::to_string))
        .collect();
    let mut steps = vec![format!("lay out {} files privately, {bytes} bytes", entries.len())];
    if catalog.header.state == State::Unprepared {
        steps.push("prepare them".to_owned());
    }
    steps.push(format!(
        "start a private {} {} on them, of {}",
        install.flavor(),
        install.version(),
        install.base().display()
    ));
    match route {
        None => {}
        Some(route) if route.is_empty() => {
            steps.push("apply no binlogs there: the backup is at that point".to_owned());
        }
        Some(_) => steps.push(
            "apply archived binlogs up to that point there, those of other tables left out where that is \
             certain to be right"
                .to_owned(),
        ),
    }
    let names = names.join(", ");
    steps.push(match options.restore.binary_log {
        true => format!("read {names} from there, and write it to the target"),
        false => format!(
            "import the files of {names} at the target, where it is on this machine and of the same series; else \
             read the rows from there, and write them to the target"
        ),
    });
    let mut steps = RestoreSteps { steps, findings, ..RestoreSteps::default() };
    // Binlogs may bring other tables than there are files of.
    let catalog = Some(&catalog).filter(|_| route.is_none_or(Route::is_empty));
    cx.run(at_target::foretell(options, catalog, &mut steps)).await?;
    Ok(steps)
}

/// That tables come without the rows that they had in memory only.
async fn in_memory(source: &ConnectOptions, selection: &Selection) -> Result<Vec<Finding>> {
    let mut session = Session::open(source).await?;
    let sql =
        "SELECT table_schema, table_name FROM information_schema.tables WHERE engine = 'MEMORY'";
    let names: Vec<(String, String)> = session.query_rows(sql).await?;
    session.close().await?;
    let finding = |(database, table): (String, String)| {
        let name = TableName { database, table }.to_string();
        let problem = format!(
            "{name} is of engine MEMORY, whose rows are in no file: they are not in the backup"
        );
        Finding::new(Severity::Warning, name, problem, "a logical backup holds them")
    };
    let chosen =
        names.into_iter().filter(|(database, table)| selection.wants_table(database, table));
    Ok(chosen.map(finding).collect())
}

/// Fails where rows are asked for that a clone does not hold.
fn refuse_emptied(emptied: Emptied, options: &AsideOptions) -> Result<()> {
    let emptied = emptied.with_flags(&options.server.flags);
    match options.restore.parts {
        Parts::Schema => Ok(()),
        Parts::All | Parts::Data => {
            emptied.refuse(&options.restore.selection, &options.restore.rename)
        }
    }
}

/// Which files some tables need: their own, those of sequences that they take numbers of, and everything that is no
/// table of a user.
struct Keep {
    databases: BTreeSet<String>,
    tables: BTreeSet<TableName>,
}

impl Keep {
    async fn of(
        artifacts: &dyn ArtifactSource,
        catalog: &Catalog,
        selection: &Selection,
    ) -> Result<Self> {
        let used = sequences(artifacts, catalog, selection).await?;
        let tables = selection.tables.iter().cloned().chain(used.into_values().flatten());
        Ok(Keep { databases: selection.databases.clone(), tables: tables.collect() })
    }

    fn wants(&self, path: &str) -> bool {
        // The list of damaged pages that a backup took along; a tool wants all of their files.
        if path == "innodb_corrupted_pages" {
            return false;
        }
        // What an increment has of a tablespace: its changed pages, and what it was.
        let of = ["delta", "meta"]
            .iter()
            .find_map(|ending| path.strip_suffix(ending)?.strip_suffix('.'));
        let of = of.filter(|of| is_tablespace(of)).unwrap_or(path);
        let Some(table) = path.contains('/').then(|| TableFile::of(of)).flatten() else {
            return true;
        };
        if ["mysql", "sys", "performance_schema", "#innodb_redo"].contains(&table.database.as_str())
            || path.ends_with("/db.opt")
        {
            return true;
        }
        // Auxiliary tables of full-text indexes do not name theirs, files with the name of a trigger have that of its
        // table inside, and some names only the server can read.
        let unclear = table.table.starts_with("FTS_")
            || path.ends_with(".TRN")
            || table.table.starts_with("fts_")
            || table.table.contains('@')
            || table.database.contains('@');
        // With lower_case_table_names the file has another case than the name.
        let same = |a: &str, b: &str| a.to_lowercase() == b.to_lowercase();
        let databases = self.databases.iter().any(|name| same(name, &table.database));
        let tables = self.tables.iter();
        let tables: Vec<_> = tables.filter(|t| same(&t.database, &table.database)).collect();
        databases
            || tables.iter().any(|t| same(&t.table, &table.table))
            || unclear && (!tables.is_empty() || table.database.contains('@'))
    }
}

/// The artifacts of a backup as if it held no other tables.
async fn narrow_files(
    inner: Arc<dyn ArtifactSource>,
    keep: &Keep,
) -> Result<Arc<dyn ArtifactSource>> {
    let mut catalog = Catalog::read(&*inner).await?;
    catalog.entries.retain(|entry| entry.kind == files::Kind::Directory || keep.wants(&entry.path));
    let bytes = catalog.to_bytes()?;
    let names = catalog.files().map(Entry::artifact).collect::<Result<HashSet<_>>>()?;
    Ok(Arc::new(Narrow { inner, catalog: bytes.into(), names }))
}

struct Narrow {
    inner: Arc<dyn ArtifactSource>,
    catalog: Bytes,
    names: HashSet<ArtifactName>,
}

#[async_trait]
impl ArtifactSource for Narrow {
    async fn list(&self) -> Result<Vec<ArtifactInfo>> {
        let all = self.inner.list().await?;
        Ok(all.into_iter().filter(|info| self.names.contains(&info.name)).collect())
    }

    async fn open(&self, name: &ArtifactName) -> Result<Box<dyn ArtifactReader>> {
        match name.as_str() == files::CATALOG {
            true => Ok(Box::new(One(Some(self.catalog.clone())))),
            false => self.inner.open(name).await,
        }
    }
}

struct One(Option<Bytes>);

#[async_trait]
impl ArtifactReader for One {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        Ok(self.0.take())
    }
}
