//! Some tables out of a backup of data files: laid out with only what they need, started privately, and moved
//! to a target that goes on running.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{
    ArtifactInfo, ArtifactName, ArtifactReader, ArtifactSource, Context, ErrorKind, Manifest,
    Repository, Restore, RestoreSteps, Restored, Result, io_error,
};
use backup_drivers::files::{self, Catalog, Entry, FilesRestore, FilesRestoreOptions, State};
use backup_drivers::innodb::TableFile;
use backup_drivers::logical::Selection;
use backup_drivers::physical::{Link, PhysicalRestore};
use backup_storage::Repo;
use bytes::Bytes;

use crate::aside::{AsideOptions, move_over, still_there};

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

/// Restores the tables or databases that `options` choose to their target, out of a backup of data files.
///
/// # Errors
/// As a restore of the files, and one of the tables.
pub async fn restore_tables(
    cx: &Context,
    repo: &Repo,
    manifest: &Manifest,
    server: FilesServer,
    options: AsideOptions,
) -> Result<Restored> {
    let install = options.server.install(manifest)?;
    let artifacts = repo.artifacts(cx, manifest).await?;
    let catalog = Catalog::read(&*artifacts).await?;
    let parent = options.server.directory.clone().unwrap_or_else(std::env::temp_dir);
    let scratch = tempfile::Builder::new().prefix("holdfast-tables-").tempdir_in(&parent);
    let scratch = scratch.map_err(|e| {
        io_error(e, ErrorKind::Target, format!("cannot write to {}", parent.display()))
    })?;
    let data = files::data(scratch.path());
    // A tool that prepares leaves out what is not there; a server that recovers does not.
    let selection = &options.restore.selection;
    let driver: Box<dyn Restore> = match catalog.header.state {
        State::Unprepared => {
            let mut before = Vec::new();
            for link in server.before {
                let artifacts = narrow(link.artifacts, selection).await?;
                before.push(Link { artifacts, ..link });
            }
            let tool = server.tool.or_else(|| options.server.server.clone());
            let driver = PhysicalRestore::new(
                data,
                FilesRestoreOptions::default(),
                tool,
                server.directories,
            );
            Box::new(driver.after(before))
        }
        State::Clean | State::Crashed => {
            Box::new(FilesRestore::new(data, FilesRestoreOptions::default()))
        }
    };
    let artifacts = match catalog.header.state {
        State::Unprepared => narrow(artifacts, selection).await?,
        State::Clean | State::Crashed => artifacts,
    };
    cx.phase("files");
    driver.run(cx, manifest, artifacts).await?;
    cx.phase(format!("starting {} {}", install.flavor(), install.version()));
    let (mut sandbox, source) = files::open(cx, &install, scratch.path(), &catalog).await?;
    let moved = async {
        still_there(&source, &options.restore.selection).await?;
        move_over(cx, &manifest.cluster, scratch.path(), &source, &options).await
    };
    let moved = moved.await;
    // What the server says at its end does not matter; its data goes with it.
    sandbox.kill();
    let mut moved = moved?;
    moved.reached = manifest.outcome.position.clone();
    Ok(moved)
}

/// What [`restore_tables`] would do.
///
/// # Errors
/// As it, before anything is written.
pub async fn plan_tables(
    cx: &Context,
    repo: &Repo,
    manifest: &Manifest,
    options: &AsideOptions,
) -> Result<RestoreSteps> {
    let install = options.server.install(manifest)?;
    let artifacts = repo.artifacts(cx, manifest).await?;
    let catalog = Catalog::read(&*artifacts).await?;
    let entries: Vec<&Entry> = match catalog.header.state {
        State::Unprepared => {
            let keep = Keep::new(&options.restore.selection);
            catalog.files().filter(|entry| keep.wants(&entry.path)).collect()
        }
        State::Clean | State::Crashed => catalog.files().collect(),
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
    steps.push(format!("read {} from there, and write it to the target", names.join(", ")));
    Ok(RestoreSteps { steps, ..RestoreSteps::default() })
}

/// Which files some tables need: their own, and everything that is no table of a user.
struct Keep<'a> {
    selection: &'a Selection,
}

impl<'a> Keep<'a> {
    fn new(selection: &'a Selection) -> Self {
        Keep { selection }
    }

    fn wants(&self, path: &str) -> bool {
        let Some(table) = path.contains('/').then(|| TableFile::of(path)).flatten() else {
            return true;
        };
        if ["mysql", "sys", "performance_schema", "#innodb_redo"].contains(&table.database.as_str())
            || path.ends_with("/db.opt")
        {
            return true;
        }
        // Auxiliary tables of full-text indexes do not name theirs, and neither do names that only the server
        // can read.
        let unclear = table.table.starts_with("FTS_")
            || table.table.starts_with("fts_")
            || table.table.contains('@')
            || table.database.contains('@');
        // With lower_case_table_names the file has another case than the name.
        let same = |a: &str, b: &str| a.to_lowercase() == b.to_lowercase();
        let databases = self.selection.databases.iter().any(|name| same(name, &table.database));
        let tables = self.selection.tables.iter();
        let tables: Vec<_> = tables.filter(|t| same(&t.database, &table.database)).collect();
        databases
            || tables.iter().any(|t| same(&t.table, &table.table))
            || unclear && (!tables.is_empty() || table.database.contains('@'))
    }
}

/// The artifacts of a backup as if it held no other tables.
async fn narrow(
    inner: Arc<dyn ArtifactSource>,
    selection: &Selection,
) -> Result<Arc<dyn ArtifactSource>> {
    let mut catalog = Catalog::read(&*inner).await?;
    let keep = Keep::new(selection);
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
