//! Artifacts into files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{
    ArtifactSource, Context, Error, ErrorKind, Event, Flavor, Manifest, Restore, RestoreSteps,
    Restored, Result, io_error,
};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;

use super::catalog::{Catalog, Entry, Kind};
use super::changes::ChangesReader;
use super::left_out::is_replication;
use super::names::Names;
use super::place::{Piece, Placed, There, Way, place};
use super::target::{Found, Mark, Target};

/// How many pieces of a file wait to be written.
const AHEAD: usize = 2;
/// What a file takes while it is written, in bytes.
const HELD: usize = 4 << 20;

/// How files are restored.
#[derive(Debug, Clone, Copy, Default)]
pub struct FilesRestoreOptions {
    /// Removes what is in the directory first.
    pub overwrite: bool,
    /// Takes what is in the directory for an older state of the same server: what is equal stays,
    /// what differs is written, what the backup does not have is removed.
    pub delta: bool,
    /// Leaves the directory marked as that of a restore that has not ended, for who goes on with it
    /// ([`Mark::left_in`]).
    pub unfinished: bool,
}

/// Lays the files of a backup out in a directory, on which a server can start then.
#[derive(Debug, Clone)]
pub struct FilesRestore {
    directory: PathBuf,
    options: FilesRestoreOptions,
    /// Bytes that are written beside the directory.
    beside: u64,
}

impl FilesRestore {
    /// Into `directory`, which is made when it is missing.
    pub fn new(directory: impl Into<PathBuf>, options: FilesRestoreOptions) -> Self {
        FilesRestore { directory: directory.into(), options, beside: 0 }
    }

    /// Looks for room for so many more bytes, which are written beside the directory meanwhile.
    pub(crate) fn and_beside(self, bytes: u64) -> Self {
        FilesRestore { beside: bytes, ..self }
    }

    /// Looks at everything that could stand in the way.
    async fn prepare(
        &self,
        manifest: &Manifest,
        artifacts: &dyn ArtifactSource,
    ) -> Result<(Catalog, Target)> {
        let mut catalog = Catalog::read(artifacts).await?;
        // Backups of earlier versions have them.
        catalog.entries.retain(|entry| !is_replication(&entry.path));
        let target = Target::look(&self.directory, &manifest.backup)?;
        let FilesRestoreOptions { overwrite, delta, .. } = self.options;
        if target.found == Found::Something && !overwrite && !delta {
            return Err(Error::new(
                ErrorKind::Target,
                format!("the directory {} is not empty", self.directory.display()),
            )
            .with_remedy(
                "choose an empty one, or read with --dry-run what --overwrite would destroy; --delta \
                 brings an older state of the same server up to date",
            ));
        }
        target.check_idle()?;
        if target.found == Found::Something && !target.is_datadir() {
            return Err(Error::new(
                ErrorKind::Target,
                format!(
                    "the directory {} holds something, and it is no data directory of a server",
                    self.directory.display()
                ),
            )
            .with_remedy("look whether it is the right one; if it is, empty it yourself"));
        }
        target.check_no_backups()?;
        target.check_room(&catalog, self.keeps(&target), self.beside)?;
        Ok((catalog, target))
    }

    /// Whether what is there is looked at file by file, and not removed.
    fn keeps(&self, target: &Target) -> bool {
        match target.found {
            Found::Nothing => false,
            Found::Unfinished => true,
            Found::Something => self.options.delta,
        }
    }
}

#[async_trait]
impl Restore for FilesRestore {
    async fn plan(
        &self,
        _: &Context,
        manifest: &Manifest,
        artifacts: Arc<dyn ArtifactSource>,
    ) -> Result<RestoreSteps> {
        let (catalog, target) = self.prepare(manifest, &*artifacts).await?;
        let shown = self.directory.display();
        let bytes: u64 = catalog.files().map(|entry| entry.bytes).sum();
        let files = catalog.files().count();
        let keeps = self.keeps(&target);
        let mut steps = vec![match (keeps, target.found) {
            (_, Found::Unfinished) => {
                format!("go on with the restore of {files} files into {shown}, {bytes} bytes")
            }
            (true, _) => format!(
                "bring {files} files in {shown} up to date, {bytes} bytes: what is equal stays"
            ),
            (false, _) => format!("write {files} files into {shown}, {bytes} bytes"),
        }];
        steps.push("sync every file and directory to the disk".to_owned());
        steps.push("give everything its owner and permissions".to_owned());
        let destroys = match (keeps, target.found) {
            (_, Found::Nothing) => Vec::new(),
            (true, _) => target.strangers(&catalog),
            (false, _) => target.all(),
        };
        let destroys = destroys.iter().map(|path| path.display().to_string()).collect();
        Ok(RestoreSteps { steps, destroys, findings: Vec::new() })
    }

    async fn run(
        &self,
        cx: &Context,
        manifest: &Manifest,
        artifacts: Arc<dyn ArtifactSource>,
    ) -> Result<Restored> {
        let (restored, mark) = self.lay(cx, manifest, artifacts).await?;
        if !self.options.unfinished {
            mark.remove()?;
        }
        Ok(restored)
    }
}

impl FilesRestore {
    /// Lays the files out. The directory stays marked as one that nothing may start on yet, for whoever goes on with it.
    ///
    /// # Errors
    /// As [`Restore::run`].
    pub(crate) async fn lay(
        &self,
        cx: &Context,
        manifest: &Manifest,
        artifacts: Arc<dyn ArtifactSource>,
    ) -> Result<(Restored, Mark)> {
        let (catalog, target) = self.prepare(manifest, &*artifacts).await?;
        let keeps = self.keeps(&target);
        let remove = match keeps {
            true => target.strangers(&catalog),
            false => target.all(),
        };
        // Held until the end: nobody restores into the directory meanwhile.
        let mark = target.begin(&manifest.backup)?;
        target.remove(&remove)?;
        target.make_directories(&catalog)?;

        let names = Arc::new(Names::load());
        let way = if keeps { Way::Update } else { Way::Fresh };
        cx.progress().expect_bytes(catalog.files().map(|entry| entry.bytes).sum());
        let mut files: Vec<Entry> = catalog.files().cloned().collect();
        files.sort_by_key(|entry| std::cmp::Reverse(entry.bytes));
        let done: Vec<Placed> = stream::iter(files)
            .map(|entry| self.file(cx, entry, way, &artifacts, &names))
            .buffer_unordered(cx.threads())
            .try_collect()
            .await?;
        cx.check()?;
        let mut warnings = Vec::new();
        if done.iter().any(|placed| !placed.owned) | !target.finish(&catalog, &names)? {
            warnings.push(format!(
                "the files in {} belong to the user that runs holdfast, for only root may give them \
                 away: chown them to the user of the server",
                self.directory.display()
            ));
        }
        let written: u64 = done.iter().map(|placed| placed.written).sum();
        let bytes: u64 = done.iter().map(|placed| placed.bytes).sum();
        if keeps {
            cx.note(format!("{written} of {bytes} bytes differed and were written"));
        }
        if let (Flavor::MariaDb, Some(gtid)) =
            (manifest.outcome.source.flavor, &manifest.outcome.position.gtid)
        {
            // MySQL has it in a table; MariaDB had it in binary logs that stayed behind.
            cx.note(format!(
                "before a replica is made of it, or binlogs are applied to it: SET GLOBAL \
                 gtid_slave_pos = '{gtid}'"
            ));
        }
        for text in &warnings {
            cx.event(Event::Warning { text: text.clone() });
        }
        let restored = Restored {
            target: self.directory.display().to_string(),
            reached: manifest.outcome.position.clone(),
            rows: 0,
            bytes,
            warnings,
        };
        Ok((restored, mark))
    }

    async fn file(
        &self,
        cx: &Context,
        entry: Entry,
        way: Way,
        artifacts: &Arc<dyn ArtifactSource>,
        names: &Arc<Names>,
    ) -> Result<Placed> {
        cx.check()?;
        let path = join(&self.directory, &entry.path);
        let size = usize::try_from(entry.bytes).map_or(HELD, |bytes| bytes.clamp(1024, HELD));
        let _memory = cx.memory().reserve(size).await;
        let (sender, pieces) = mpsc::channel::<Piece>(AHEAD);
        let whole = tokio_util::sync::CancellationToken::new();
        let writer = tokio::task::spawn_blocking({
            let (entry, path, names, whole) =
                (entry.clone(), path.clone(), Arc::clone(names), whole.clone());
            move || place(&entry, &path, way, pieces, &names, &whole)
        });
        let read = async {
            if !content(cx, &entry, &path, way, artifacts, &sender).await? {
                return Ok(());
            }
            if let Some(changes) = entry.changes_artifact()? {
                let mut changes = ChangesReader::new(artifacts.open(&changes).await?);
                while let Some((offset, bytes)) = cx.run(changes.next()).await? {
                    if sender.send(Piece::Over(offset, bytes)).await.is_err() {
                        return Ok(());
                    }
                }
            }
            whole.cancel();
            Ok(())
        };
        let read = read.await;
        drop(sender);
        let placed =
            writer.await.map_err(|e| Error::internal("a writer was lost").with_source(e))?;
        // What was wrong with the artifact is the cause of what went wrong after it.
        read.map_err(|e: Error| e.context(format!("cannot restore {}", entry.path)))?;
        let placed = placed?;
        cx.event(Event::Done { kind: "file".into(), name: entry.path.clone(), rows: None });
        Ok(placed)
    }
}

/// Gives the bytes of an artifact to the writer of its file, or only those that differ from what is there.
/// `false`: the writer has failed, and says why.
async fn content(
    cx: &Context,
    entry: &Entry,
    path: &Path,
    way: Way,
    artifacts: &Arc<dyn ArtifactSource>,
    sender: &mpsc::Sender<Piece>,
) -> Result<bool> {
    let name = entry.artifact()?;
    let there = match way {
        Way::Fresh => None,
        Way::Update => There::open(path),
    };
    let changed = match there {
        Some(there) => artifacts.open_over(&name, Arc::new(there)).await?,
        None => None,
    };
    let Some(mut changed) = changed else {
        let mut reader = artifacts.open(&name).await?;
        while let Some(piece) = cx.run(reader.next()).await? {
            cx.progress().add_bytes(piece.len() as u64);
            if sender.send(Piece::Next(piece)).await.is_err() {
                return Ok(false);
            }
        }
        return Ok(true);
    };
    let mut at = 0;
    while let Some((offset, piece)) = cx.run(changed.next()).await? {
        let end = offset + piece.len() as u64;
        cx.progress().add_bytes(end - at);
        at = end;
        if sender.send(Piece::Differs(offset, piece)).await.is_err() {
            return Ok(false);
        }
    }
    let end = changed.bytes();
    cx.progress().add_bytes(end - at);
    Ok(sender.send(Piece::Same(end)).await.is_ok())
}

/// A path of the catalog in a directory.
pub(super) fn join(directory: &Path, path: &str) -> PathBuf {
    path.split('/').fold(directory.to_owned(), |at, part| at.join(part))
}

/// What goes wrong at the target.
pub(super) fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error {
    let message = format!("cannot write {}", path.display());
    move |e| io_error(e, ErrorKind::Target, message.clone())
}

/// Whether an entry is a directory.
pub(super) fn is_directory(entry: &Entry) -> bool {
    entry.kind == Kind::Directory
}
