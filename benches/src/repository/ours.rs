//! holdfast's side: directories as artifacts of a repository, in a process of its own, so that its
//! time and memory can be measured.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::{
    ArtifactInfo, ArtifactName, ArtifactSource, ArtifactWriter, BackupSession, BackupSpec,
    BackupType, Context, Error, ErrorKind, Layout, Manifest, Outcome, Repository, Result, Secret,
    Strategy, io_error, select,
};
use backup_storage::format::{Compression, Unlock};
use backup_storage::{Repo, RepositoryOptions, check_content};
use bytes::Bytes;
use clap::{Parser, Subcommand};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// How many files are read or written at once.
const FILES: usize = 2;
/// How much is read at once.
const READ: u64 = 1 << 20;
/// How much of a file is read ahead, in reads.
const AHEAD: usize = 2;
/// InnoDB's default.
const PAGE: u32 = 16_384;

/// What the process is to do.
#[derive(Parser)]
#[command(name = "ours")]
pub(crate) struct Ours {
    /// The repository
    #[arg(long)]
    repository: PathBuf,
    #[arg(long, default_value = "zstd")]
    compression: Compression,
    /// Without encryption
    #[arg(long)]
    plain: bool,
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    /// Makes the repository.
    Init,
    /// Backs a directory up.
    BackUp { directory: PathBuf },
    /// Reads and checks every byte of the latest backup.
    Verify,
    /// Writes the latest backup to a directory.
    Restore { directory: PathBuf },
}

impl Ours {
    /// Does it.
    pub(crate) async fn run(self) -> Result<()> {
        let cx = Context::builder().build();
        let options = RepositoryOptions {
            compression: self.compression,
            // No secret, like that of restic here.
            unlock: (!self.plain).then(|| Unlock::Passphrase(Secret::new("bench"))),
            ..RepositoryOptions::default()
        };
        let url = self.repository.as_path().into();
        if matches!(self.work, Work::Init) {
            return Repo::init(&cx, &url, options).await.map(drop);
        }
        let repo = Repo::open(&cx, &url, options).await?;
        match self.work {
            Work::Init => Ok(()),
            Work::BackUp { directory } => back_up(&cx, &repo, &directory).await,
            Work::Verify => {
                let report = check_content(&cx, &repo, &latest(&cx, &repo).await?).await?;
                match report.findings.first() {
                    None => Ok(()),
                    Some(finding) => Err(Error::damaged(finding.problem.clone())),
                }
            }
            Work::Restore { directory } => restore(&cx, &repo, &directory).await,
        }
    }
}

async fn latest(cx: &Context, repo: &Repo) -> Result<Manifest> {
    select(repo.backups(cx, None).await?, "latest")
}

fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let message = format!("cannot read or write {}", path.display());
    move |e| io_error(e, ErrorKind::Internal, message)
}

async fn back_up(cx: &Context, repo: &Repo, directory: &Path) -> Result<()> {
    let spec = BackupSpec {
        cluster: "bench".parse()?,
        strategy: Strategy::Physical,
        backup_type: BackupType::Full,
        parent: None,
    };
    let session = repo.begin(cx, spec).await?;
    let mut files = super::files(directory)?;
    // The longest first, so that none is left over at the end.
    files.sort_by_key(|file| std::cmp::Reverse(file.bytes));
    let copied = stream::iter(files)
        .map(|file| copy_in(Arc::clone(&session), directory.join(&file.path), file.path))
        .buffer_unordered(FILES)
        .try_for_each(|()| async { Ok(()) })
        .await;
    if let Err(e) = copied {
        let _ = session.abort().await;
        return Err(e);
    }
    session.commit(outcome()?).await.map(drop)
}

async fn copy_in(session: Arc<dyn BackupSession>, from: PathBuf, path: PathBuf) -> Result<()> {
    let parts: Vec<&str> = path.iter().filter_map(|part| part.to_str()).collect();
    let name = ArtifactName::from_parts(parts.iter().copied())?;
    let paged = parts.last().is_some_and(|n| n.ends_with(".ibd") || n.starts_with("undo_"));
    let layout = if paged { Layout::Pages(PAGE) } else { Layout::Stream };
    let mut writer: Box<dyn ArtifactWriter> = session.create(name, layout).await?;
    let (sender, mut pieces) = mpsc::channel::<Result<Bytes>>(AHEAD);
    let reader = tokio::task::spawn_blocking(move || {
        let pieces = File::open(&from).map(|file| {
            std::iter::from_fn(move || {
                let mut piece = Vec::with_capacity(READ as usize);
                match (&file).take(READ).read_to_end(&mut piece) {
                    Ok(0) => None,
                    Ok(_) => Some(Ok(Bytes::from(piece))),
                    Err(e) => Some(Err(e)),
                }
            })
        });
        match pieces {
            Err(e) => drop(sender.blocking_send(Err(file_error(&from)(e)))),
            Ok(pieces) => {
                for piece in pieces {
                    if sender.blocking_send(piece.map_err(file_error(&from))).is_err() {
                        return;
                    }
                }
            }
        }
    });
    while let Some(piece) = pieces.recv().await {
        writer.write(piece?).await?;
    }
    reader.await.map_err(|e| Error::internal("a reader was lost").with_source(e))?;
    writer.finish(Value::Null).await.map(drop)
}

async fn restore(cx: &Context, repo: &Repo, directory: &Path) -> Result<()> {
    let manifest = latest(cx, repo).await?;
    let source = repo.artifacts(cx, &manifest).await?;
    let mut artifacts = source.list().await?;
    artifacts.sort_by_key(|artifact| std::cmp::Reverse(artifact.bytes));
    stream::iter(artifacts)
        .map(|artifact| copy_out(Arc::clone(&source), artifact, directory))
        .buffer_unordered(FILES)
        .try_for_each(|()| async { Ok(()) })
        .await
}

async fn copy_out(
    source: Arc<dyn ArtifactSource>,
    artifact: ArtifactInfo,
    directory: &Path,
) -> Result<()> {
    let path = directory.join(artifact.name.parts().iter().collect::<PathBuf>());
    let (sender, mut pieces) = mpsc::channel::<Bytes>(AHEAD);
    let writer = tokio::task::spawn_blocking(move || {
        let mut write = || {
            std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
            let mut file = File::create(&path)?;
            while let Some(piece) = pieces.blocking_recv() {
                file.write_all(&piece)?;
            }
            Ok(())
        };
        write().map_err(file_error(&path))
    });
    let mut reader = source.open(&artifact.name).await?;
    while let Some(piece) = reader.next().await? {
        if sender.send(piece).await.is_err() {
            break;
        }
    }
    drop(sender);
    writer.await.map_err(|e| Error::internal("a writer was lost").with_source(e))?
}

fn outcome() -> Result<Outcome> {
    serde_json::from_value(json!({
        "source": {"flavor": "mysql", "version": "9.7.0", "address": "bench", "server_id": 1},
        "position": {},
        "consistency": {"level": "exact", "reason": "the server is down"},
        "lock_seconds": 0.0,
        "rows": null,
    }))
    .map_err(|e| Error::internal("the outcome of a benchmark").with_source(e))
}
