//! Backups from a snapshot of the volume that the data directory is on.
//!
//! ```text
//! position and lock → snapshot → unlock → mount read-only → copy → unmount → remove
//! ```
//!
//! The last two happen whatever happens before; after a `kill -9`, what is left is known by its name
//! and removed by the next run. InnoDB recovers from the snapshot as after a loss of power; tables that
//! are not InnoDB's were closed by the lock.

mod btrfs;
mod command;
mod lvm;
mod mount;
mod pair;
mod volume;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{
    ArtifactSink, Backup, Consistency, ConsistencyLevel, Context, Error, ErrorKind, Event, Finding,
    Outcome, Position, Result, Severity, Strategy, io_error,
};
use rustix::fs::{FlockOperation, flock};

use crate::connect::{ConnectOptions, Session};
use crate::files::absent;
use crate::files::live::LiveServer;
use crate::files::lock::{GlobalLock, LockOptions, Waits};
use crate::files::locked::{lacking, log_bin, no_position, privileges};
use crate::files::tree::Tree;
use crate::files::{
    CATALOG_FORMAT, Catalog, DataDirectory, Header, State, copy_tree, count_objects, unexpected,
};
use crate::innodb::CopiedPages;
use btrfs::Btrfs;
use lvm::Lvm;
use pair::Pair;
use volume::{MARK, Volume};

/// How often a snapshot that can overflow is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// A lock that was held for longer, in seconds, is worth a word.
const LONG: f64 = 2.0;
/// From when on it is told of, in percent.
const NEARLY_FULL: f64 = 80.0;

/// How snapshots are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// As the file system of the data directory allows: btrfs, else LVM.
    Auto,
    /// LVM. `size` is that of a thick snapshot, as `lvcreate --size` takes it; without it, a fifth of
    /// the volume.
    Lvm {
        /// Such as `20G`.
        size: Option<String>,
    },
    /// btrfs.
    Btrfs,
    /// A command that takes a snapshot and one that removes it; see `docs/snapshots.md`.
    Commands {
        /// Takes the snapshot.
        create: PathBuf,
        /// Removes it.
        remove: PathBuf,
        /// Where it is noted which ones there may be.
        notes: PathBuf,
    },
}

/// How a server is backed up from a snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotBackupOptions {
    /// How the snapshot is taken.
    pub method: Method,
    /// The lock for the moment of the snapshot.
    pub lock: LockOptions,
}

/// Copies the files of a running server of this machine from a snapshot of their volume.
#[derive(Debug, Clone)]
pub struct SnapshotBackup {
    source: ConnectOptions,
    options: SnapshotBackupOptions,
}

impl SnapshotBackup {
    /// A backup of `source`.
    #[must_use]
    pub fn new(source: ConnectOptions, options: SnapshotBackupOptions) -> Self {
        SnapshotBackup { source, options }
    }

    fn volume(&self, live: &LiveServer) -> Result<Arc<dyn Volume>> {
        let datadir = &live.directory.path;
        Ok(match &self.options.method {
            Method::Auto => match mount::Mounted::of(datadir)?.kind.as_str() {
                "btrfs" => Arc::new(Btrfs::find(datadir)?),
                _ => Arc::new(Lvm::find(datadir, None)?),
            },
            Method::Lvm { size } => Arc::new(Lvm::find(datadir, size.clone())?),
            Method::Btrfs => Arc::new(Btrfs::find(datadir)?),
            Method::Commands { create, remove, notes } => {
                Arc::new(Pair::new(create.clone(), remove.clone(), datadir, notes.clone()))
            }
        })
    }

    /// Fails when the files are on several volumes: their snapshots would be of several moments.
    fn one_volume(live: &LiveServer) -> Result<()> {
        let roots = live.directory.roots();
        let tree = Tree::walk(&roots, false)?;
        tree.refuse_dangling()?;
        if let Some(doublewrite) = &live.doublewrite {
            return Err(doublewrite_elsewhere(live, doublewrite));
        }
        if roots.len() == 1 && tree.devices.len() == 1 {
            return no_way_out(&tree, &live.directory.path);
        }
        let linked = tree.found.iter().find(|found| found.entry.origin.is_some());
        let elsewhere = match (roots.get(1), linked) {
            (Some(root), _) => root.directory.display().to_string(),
            (None, Some(found)) => found.source.display().to_string(),
            (None, None) => "a file system that is mounted below it".to_owned(),
        };
        if tree.devices.len() == 1 && roots.len() > 1 {
            return Err(spans(live, &elsewhere, "are in several directories"));
        }
        Err(spans(live, &elsewhere, "are on several file systems"))
    }
}

/// Fails when a link leads out of a directory: in a snapshot, it would lead to files that go on changing.
fn no_way_out(tree: &Tree, directory: &Path) -> Result<()> {
    let real = directory.canonicalize().map_err(|e| {
        io_error(e, ErrorKind::Source, format!("cannot find {}", directory.display()))
    })?;
    let out = tree.found.iter().find_map(|found| {
        let origin =
            found.entry.origin.as_deref().filter(|to| !Path::new(to).starts_with(&real))?;
        Some((found, origin))
    });
    let Some((found, origin)) = out else { return Ok(()) };
    Err(Error::new(
        ErrorKind::Source,
        format!(
            "{} of the server leads to {origin}, out of {}: a snapshot would not hold what is there",
            found.entry.path,
            directory.display()
        ),
    )
    .with_remedy(
        "move it into the data directory, or use --lock-and-copy, --strategy logical, or the tool of the server",
    ))
}

/// The error where pages that a snapshot has half of could not be mended.
fn doublewrite_elsewhere(live: &LiveServer, directory: &Path) -> Error {
    Error::new(
        ErrorKind::Source,
        format!(
            "the doublewrite buffer of the server is in {} (innodb_doublewrite_dir), out of {}: a snapshot has pages that \
             are half written, and without it no server could mend them",
            directory.display(),
            live.directory.path.display()
        ),
    )
    .with_remedy(
        "remove innodb_doublewrite_dir, and start the server again; or use --lock-and-copy, --strategy logical, or the \
         tool of the server",
    )
}

fn spans(live: &LiveServer, elsewhere: &str, how: &str) -> Error {
    Error::new(
        ErrorKind::Source,
        format!(
            "the files of the server {how}: {} and {elsewhere}; snapshots of each would be of \
             different moments",
            live.directory.path.display()
        ),
    )
    .with_remedy(
        "put them on one volume, or use --lock-and-copy, --strategy logical, or the tool of the \
         server",
    )
}

/// Runs what blocks on a thread that may be busy for long.
async fn blocking<T: Send + 'static>(
    volume: &Arc<dyn Volume>,
    work: impl FnOnce(&dyn Volume) -> Result<T> + Send + 'static,
) -> Result<T> {
    let volume = Arc::clone(volume);
    tokio::task::spawn_blocking(move || work(&*volume))
        .await
        .map_err(|e| Error::internal("a thread was lost").with_source(e))?
}

/// A snapshot that is unmounted and removed when the value goes.
struct Snapshot {
    volume: Arc<dyn Volume>,
    name: String,
    /// Held while a command runs, so that nothing is removed while it is being made.
    busy: Arc<Mutex<()>>,
    there: bool,
}

impl Snapshot {
    fn of(cx: &Context, volume: &Arc<dyn Volume>) -> Self {
        let [a, b, c] = cx.random::<3>();
        let name = format!("{MARK}{}-{a:02x}{b:02x}{c:02x}", cx.now().as_second());
        Snapshot { volume: Arc::clone(volume), name, busy: Arc::default(), there: true }
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Volume, &str) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (busy, name) = (Arc::clone(&self.busy), self.name.clone());
        blocking(&self.volume, move |volume| {
            let _busy = busy.lock().unwrap_or_else(PoisonError::into_inner);
            work(volume, &name)
        })
        .await
    }

    /// Unmounts and removes it.
    async fn end(mut self, cx: &Context) -> Result<()> {
        cx.phase("unmount");
        self.run(|volume, name| volume.close(name)).await?;
        cx.phase("remove snapshot");
        self.run(|volume, name| volume.remove(name)).await?;
        self.there = false;
        Ok(())
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if self.there {
            let _busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
            // There is nobody to tell; the next run removes what is left.
            let _ = self.volume.close(&self.name);
            let _ = self.volume.remove(&self.name);
        }
    }
}

/// Fails where what is said to be the snapshot is the data directory itself, or was taken before the binary log came
/// to `position`, as far as that log is in it: commands of users may hand over anything.
fn is_of_now(snapshot: &Path, datadir: &Path, position: &Position) -> Result<()> {
    let failed = |problem: String| {
        Error::new(ErrorKind::Source, format!("{} {problem}", snapshot.display())).with_remedy(
            "see that the command takes a new snapshot each time, and names the data directory in it",
        )
    };
    let identity = |path: &Path| path.metadata().map(|file| (file.dev(), file.ino())).ok();
    if identity(snapshot) == identity(datadir) {
        return Err(failed("is the data directory itself, and no snapshot of it".to_owned()));
    }
    let (Some(file), Some(offset)) = (&position.file, position.offset) else { return Ok(()) };
    if !datadir.join(file).is_file() {
        return Ok(());
    }
    let bytes = snapshot.join(file).metadata().map_or(0, |log| log.len());
    match bytes < offset {
        true => Err(failed(format!(
            "is no snapshot of now: of its binary log {file} it has {bytes} bytes, and the server was at {offset}"
        ))),
        false => Ok(()),
    }
}

/// Keeps a second run off the same data directory: it would take our snapshot for a left-over.
fn alone(datadir: &Path) -> Result<std::fs::File> {
    let failed = |e| io_error(e, ErrorKind::Source, format!("cannot lock {}", datadir.display()));
    let directory = std::fs::File::open(datadir).map_err(failed)?;
    match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(directory),
        Err(rustix::io::Errno::AGAIN) => Err(Error::new(
            ErrorKind::Busy,
            format!("another backup takes a snapshot of {} now", datadir.display()),
        )),
        Err(e) => Err(failed(e.into())),
    }
}

#[async_trait]
impl Backup for SnapshotBackup {
    fn strategy(&self) -> Strategy {
        Strategy::Snapshot
    }

    async fn preflight(&self, _: &Context) -> Result<Vec<Finding>> {
        let mut findings = privileges(&self.source).await?;
        let live = match LiveServer::find_whole(&self.source).await {
            // Told by then, with the others.
            Err(e) if e.kind() == ErrorKind::Privilege && !findings.is_empty() => {
                return Ok(findings);
            }
            found => found?,
        };
        SnapshotBackup::one_volume(&live)?;
        let tree = Tree::walk(&live.directory.roots(), false)?;
        absent::refuse_live(&lacking(&live, &tree).await?)?;
        let volume = self.volume(&live)?;
        findings.extend([
            Finding::new(
                Severity::Info,
                "server",
                format!("{} {}", live.facts.flavor, live.facts.version_text),
                "",
            ),
            Finding::new(Severity::Info, "volume", volume.describe(), ""),
        ]);
        findings.extend(log_bin(&self.source).await?);
        Ok(findings)
    }

    async fn run(&self, cx: &Context, sink: Arc<dyn ArtifactSink>) -> Result<Outcome> {
        let live = LiveServer::find_whole(&self.source).await?;
        SnapshotBackup::one_volume(&live)?;
        let volume = self.volume(&live)?;
        let _alone = alone(&live.directory.path)?;
        for name in blocking(&volume, |volume| volume.sweep()).await? {
            cx.note(format!("removed the snapshot {name}, which a run that was cut short left"));
        }
        let snapshot = Snapshot::of(cx, &volume);
        let (position, held) = match self.take(cx, &live, &snapshot).await {
            Ok(taken) => taken,
            Err(e) => {
                end(cx, snapshot).await;
                return Err(e);
            }
        };
        let copied = self.copy(cx, &live, &position, &snapshot, &sink).await;
        // What was taken away between the first look and the snapshot.
        let copied = match copied {
            Ok(copied) => self.still_there(&live).await.map(|()| copied),
            Err(e) => Err(e),
        };
        // What overflowed may have failed in any way before, or not at all.
        let whole = snapshot.run(|volume, name| volume.check(name)).await;
        let mut warnings = end(cx, snapshot).await;
        let (catalog, pages) = match (copied, whole) {
            (_, Err(e)) if e.kind() == ErrorKind::Space => return Err(e),
            (Err(e), _) | (_, Err(e)) => return Err(e),
            (Ok(copied), Ok(_)) => copied,
        };
        catalog.write(&*sink).await?;
        let held = held.as_secs_f64();
        if held > LONG {
            cx.note(format!("the lock for the snapshot was held for {held:.1} s"));
        }
        warnings.extend(no_position(&position));
        warnings.extend(pages.perhaps_torn(true));
        warnings.extend(unexpected(&catalog.header.left_out));
        for text in &warnings {
            cx.event(Event::Warning { text: text.clone() });
        }
        let mut details = pages.details();
        details["volume"] = volume.describe().into();
        Ok(Outcome {
            source: live.source_info(),
            position,
            consistency: Consistency {
                level: ConsistencyLevel::Exact,
                reason: format!(
                    "a snapshot of the volume was taken under a {}",
                    Waits::for_a_snapshot(&live.facts).lock()
                ),
            },
            lock_seconds: held,
            rows: None,
            objects: count_objects(&catalog),
            masked: false,
            partial: false,
            warnings,
            details,
        })
    }
}

/// Unmounts and removes a snapshot. Gives what is left to be told.
async fn end(cx: &Context, snapshot: Snapshot) -> Vec<String> {
    let name = snapshot.name.clone();
    match snapshot.end(cx).await {
        Ok(()) => Vec::new(),
        Err(e) => vec![format!(
            "the snapshot {name} was not removed; the next run tries again: {}",
            e.chain()
        )],
    }
}

impl SnapshotBackup {
    async fn still_there(&self, live: &LiveServer) -> Result<()> {
        let mut session = Session::open(&self.source).await?;
        live.refuse_unlinked(&mut session).await?;
        session.close().await
    }

    /// The moment: position, lock, snapshot, unlock.
    async fn take(
        &self,
        cx: &Context,
        live: &LiveServer,
        snapshot: &Snapshot,
    ) -> Result<(Position, Duration)> {
        cx.phase("lock");
        let waits = Waits::for_a_snapshot(&live.facts);
        let mut lock = GlobalLock::take(cx, &self.source, self.options.lock, waits).await?;
        let position = cx
            .run(async {
                lock.flush_engine_logs().await?;
                lock.position(&live.facts).await
            })
            .await;
        cx.phase("snapshot");
        let taken = match &position {
            Ok(_) => cx.run(snapshot.run(|volume, name| volume.create(name))).await,
            Err(_) => Ok(()),
        };
        let held = lock.release().await;
        taken?;
        Ok((position?, held?))
    }

    async fn copy(
        &self,
        cx: &Context,
        live: &LiveServer,
        position: &Position,
        snapshot: &Snapshot,
        sink: &Arc<dyn ArtifactSink>,
    ) -> Result<(Catalog, CopiedPages)> {
        cx.phase("mount");
        let directory = cx.run(snapshot.run(|volume, name| volume.open(name))).await?;
        is_of_now(&directory, &live.directory.path, position)?;
        cx.phase("copying files");
        let logs = live.directory.logs.iter();
        let logs = logs.filter_map(|log| log.strip_prefix(&live.directory.path).ok());
        let logs = logs.map(|log| directory.join(log)).collect();
        let roots = DataDirectory { logs, ..DataDirectory::new(&directory) }.roots();
        let tree = Tree::walk(&roots, false)?;
        tree.refuse_dangling()?;
        // Links that were made meanwhile, and those that name their target from the root.
        no_way_out(&tree, &directory)?;
        absent::refuse_live(&absent::of_definitions(&tree)?)?;
        let copied = copy_tree(cx, &tree, sink);
        let watched = async {
            let mut told = false;
            loop {
                tokio::time::sleep(LOOK).await;
                let full = match snapshot.run(|volume, name| volume.check(name)).await {
                    Ok(full) => full,
                    Err(e) => break e,
                };
                if let Some(full) = full.filter(|&full| full >= NEARLY_FULL && !told) {
                    let text = format!("the snapshot is {full:.0} % full");
                    cx.event(Event::Warning { text });
                    told = true;
                }
            }
        };
        let pages = tokio::select! {
            copied = copied => copied?,
            error = watched => return Err(error),
        };
        let catalog = Catalog {
            header: Header {
                files_format: CATALOG_FORMAT,
                state: State::Crashed,
                settings: live.settings.clone(),
                left_out: tree.left_out.clone(),
            },
            entries: tree.found.iter().map(|found| found.entry.clone()).collect(),
        };
        Ok((catalog, pages))
    }
}
