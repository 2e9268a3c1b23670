//! Backups of a tool back into a directory, as a [`Restore`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{
    ArtifactSource, ChainBreak, Context, Error, ErrorKind, Flavor, Manifest, Restore, RestoreSteps,
    Restored, Result, ServerVersion, io_error,
};

use super::details::{PhysicalDetails, details};
use super::prepare::prepare;
use super::tool::Tool;
use crate::files::{Catalog, FilesRestore, FilesRestoreOptions, KeyPlugin, Room, State, settle};
use crate::sandbox::Scratch;
use crate::xbstream::Dialect;

/// A backup of a chain, with its artifacts.
#[derive(Clone)]
pub struct Link {
    /// The backup.
    pub manifest: Manifest,
    /// What it holds.
    pub artifacts: Arc<dyn ArtifactSource>,
}

/// Lays the files of a full backup out, and those of its increments beside them, and prepares them.
#[derive(Clone)]
pub struct PhysicalRestore {
    directory: PathBuf,
    options: FilesRestoreOptions,
    tool: Option<PathBuf>,
    directories: Vec<PathBuf>,
    before: Vec<Link>,
}

/// Whether every increment begins where the one before it ended, on the same server in the same version.
///
/// # Errors
/// The first link that does not.
pub fn check_lsn_chain(links: &[&Manifest]) -> Result<(), ChainBreak> {
    let mut before: Option<(&Manifest, PhysicalDetails)> = None;
    for &link in links {
        let broken = |problem: String| ChainBreak { link: link.backup.to_string(), problem };
        let own = details(link).map_err(|e| broken(e.to_string()))?;
        match &before {
            None if own.from_lsn != 0 => {
                return Err(broken(format!(
                    "begins at LSN {}, and nothing is before it",
                    own.from_lsn
                )));
            }
            None => {}
            Some((previous, earlier)) => {
                if own.from_lsn != earlier.to_lsn {
                    return Err(broken(format!(
                        "begins at LSN {}, and {} ended at {}",
                        own.from_lsn, previous.backup, earlier.to_lsn
                    )));
                }
                let (a, b) = (&link.outcome.source, &previous.outcome.source);
                let moved = a.flavor == Flavor::MariaDb && own.instance != earlier.instance;
                if moved || a.server_uuid != b.server_uuid || a.version != b.version {
                    return Err(broken(format!(
                        "was read from another server or version than {}",
                        previous.backup
                    )));
                }
            }
        }
        before = Some((link, own));
    }
    Ok(())
}

impl PhysicalRestore {
    /// Into `directory`, prepared by `tool`, or the one that fits in `directories`.
    pub fn new(
        directory: impl Into<PathBuf>,
        options: FilesRestoreOptions,
        tool: Option<PathBuf>,
        directories: Vec<PathBuf>,
    ) -> Self {
        PhysicalRestore {
            directory: directory.into(),
            options,
            tool,
            directories,
            before: Vec::new(),
        }
    }

    /// The backups that an increment needs before it, the full one first.
    #[must_use]
    pub fn after(mut self, before: Vec<Link>) -> Self {
        self.before = before;
        self
    }

    /// The chain with its last link, checked; and the tool.
    fn check(
        &self,
        manifest: &Manifest,
        artifacts: &Arc<dyn ArtifactSource>,
    ) -> Result<(Vec<Link>, Tool)> {
        let last = Link { manifest: manifest.clone(), artifacts: Arc::clone(artifacts) };
        let links: Vec<Link> = self.before.iter().cloned().chain([last]).collect();
        check_lsn_chain(&links.iter().map(|link| &link.manifest).collect::<Vec<_>>())?;
        let source = &manifest.outcome.source;
        let tool = Tool::find(source.flavor, self.tool.as_deref(), &self.directories)?;
        tool.check(&ServerVersion::parse(&source.version, "")?)?;
        Ok((links, tool))
    }
}

impl PhysicalRestore {
    /// Where increments are laid out.
    fn beside(&self) -> &Path {
        self.directory.parent().unwrap_or(Path::new("/"))
    }

    /// The plugin that has the keys of the files, where they may be encrypted; looked for before anything is written.
    async fn keys(&self, tool: &Tool, full: &Link) -> Result<Option<KeyPlugin>> {
        if tool.dialect() != Dialect::MariaDb {
            return Ok(None);
        }
        let keys = KeyPlugin::of(&*full.artifacts).await?;
        if let Some(keys) = &keys {
            keys.find(tool.plugins().as_deref())?;
        }
        Ok(keys)
    }

    /// The restore of the full backup, when there is room for the increments too.
    async fn files(&self, increments: &[Link]) -> Result<FilesRestore> {
        let files = FilesRestore::new(&self.directory, self.options);
        let mut more = 0;
        for link in increments {
            let catalog = Catalog::read(&*link.artifacts).await?;
            more += catalog.files().map(|entry| entry.bytes).sum::<u64>();
        }
        let (room, beside) = (Room::of(&self.directory)?, Room::of(self.beside())?);
        if room.device == beside.device {
            return Ok(files.and_beside(more));
        }
        if more > beside.free {
            return Err(Error::new(
                ErrorKind::Space,
                format!(
                    "the increments take {more} bytes for a while, and {} has room for {}",
                    self.beside().display(),
                    beside.free
                ),
            ));
        }
        Ok(files)
    }
}

#[async_trait]
impl Restore for PhysicalRestore {
    async fn plan(
        &self,
        cx: &Context,
        manifest: &Manifest,
        artifacts: Arc<dyn ArtifactSource>,
    ) -> Result<RestoreSteps> {
        let (links, tool) = self.check(manifest, &artifacts)?;
        let Some(full) = links.first() else {
            return Err(Error::internal("a chain without links"));
        };
        self.keys(&tool, full).await?;
        let files = self.files(&links[1..]).await?;
        let mut plan = files.plan(cx, &full.manifest, Arc::clone(&full.artifacts)).await?;
        for link in &links[1..] {
            plan.steps.push(format!("write the files of {} beside them", link.manifest.backup));
        }
        plan.steps.push(format!("prepare them with {}", tool.name()));
        for link in &links[1..] {
            plan.steps.push(format!("apply {}", link.manifest.backup));
        }
        Ok(plan)
    }

    async fn run(
        &self,
        cx: &Context,
        manifest: &Manifest,
        artifacts: Arc<dyn ArtifactSource>,
    ) -> Result<Restored> {
        let (links, tool) = self.check(manifest, &artifacts)?;
        let Some((full, increments)) = links.split_first() else {
            return Err(Error::internal("a chain without links"));
        };
        let keys = self.keys(&tool, full).await?;
        let files = self.files(increments).await?;
        // Marked until it is ready: before that a server would start on it too, in the state of the full backup.
        let laid = files.lay(cx, &full.manifest, Arc::clone(&full.artifacts)).await?;
        let (mut restored, mark) = laid;

        // On the same disk as the target, where there is room for it, and gone with the end of this, or with the next.
        let beside = self.beside();
        let work = Scratch::hidden(beside, "increments").map_err(|e| {
            io_error(e, ErrorKind::Target, format!("cannot write {}", beside.display()))
        })?;
        let mut directories = Vec::new();
        for (n, link) in increments.iter().enumerate() {
            let directory = work.path().join(n.to_string());
            let files = FilesRestore::new(&directory, FilesRestoreOptions::default());
            let part = files.run(cx, &link.manifest, Arc::clone(&link.artifacts)).await?;
            restored.bytes += part.bytes;
            directories.push(directory);
        }
        prepare(cx, &tool, &self.directory, &mark, &directories, keys.as_ref()).await?;
        remove_places(&self.directory)?;
        let catalog = Catalog::read(&*full.artifacts).await?;
        debug_assert_eq!(catalog.header.state, State::Unprepared);
        settle(&self.directory, &catalog)?;
        if !self.options.unfinished {
            mark.remove()?;
        }
        restored.reached = manifest.outcome.position.clone();
        Ok(restored)
    }
}

/// Removes what says of tablespaces that they are elsewhere (`.isl`): they are here, in their places. A server would
/// look for them there, and find those of the source, or what is left of them.
fn remove_places(directory: &Path) -> Result<()> {
    let failed = |path: &Path| {
        let message = format!("cannot finish {}", path.display());
        move |e| io_error(e, ErrorKind::Target, message)
    };
    for database in std::fs::read_dir(directory).map_err(failed(directory))?.flatten() {
        for entry in std::fs::read_dir(database.path()).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|ending| ending == "isl")
                && path.with_extension("ibd").exists()
            {
                std::fs::remove_file(&path).map_err(failed(&path))?;
            }
        }
    }
    Ok(())
}
