//! Files into artifacts.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use backup_core::{ArtifactSink, Context, Error, ErrorKind, Event, Result, io_error};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use tokio::sync::mpsc;

use super::catalog::Kind;
use super::tree::{Found, Stamp, Tree, changed, is_replication};

/// How much is read at once, in bytes.
const READ: usize = 1 << 20;
/// How much of a file is read ahead, in reads.
const AHEAD: usize = 2;
/// What a file takes while it is read, in bytes.
const HELD: usize = (AHEAD + 2) * READ;

/// Puts every file of `tree` into `sink`, [`Context::threads`] at once, the longest first. A file
/// that changes meanwhile is an error.
pub(crate) async fn copy_in(
    cx: &Context,
    tree: &Tree,
    sink: &Arc<dyn ArtifactSink>,
    held: &Held,
) -> Result<()> {
    for left in tree.left_out.iter().filter(|left| is_replication(&left.path)) {
        cx.note(format!("{} is left out: {}", left.path, left.reason));
    }
    cx.progress().expect_bytes(tree.bytes());
    let files = tree.found.iter().filter(|found| found.entry.kind == Kind::File);
    let mut files: Vec<Found> = files.cloned().collect();
    // So that no long one is left over at the end.
    files.sort_by_key(|found| std::cmp::Reverse(found.entry.bytes));
    stream::iter(files)
        .map(|found| file_in(cx, found, sink, held))
        .buffer_unordered(cx.threads())
        .try_for_each(|()| async { Ok(()) })
        .await
}

/// As [`copy_in`], where nothing is locked.
pub(crate) async fn copy_tree(
    cx: &Context,
    tree: &Tree,
    sink: &Arc<dyn ArtifactSink>,
) -> Result<()> {
    copy_in(cx, tree, sink, &Held::default()).await
}

/// Files that are open for the sake of a lock. A POSIX lock is lost with the first descriptor of its
/// file that the process closes, so that these are read through the one that has it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Held(pub(crate) Vec<(std::path::PathBuf, Arc<File>)>);

impl Held {
    fn open(&self, path: &Path) -> std::io::Result<Arc<File>> {
        match self.0.iter().find(|(held, _)| held == path) {
            Some((_, file)) => Ok(Arc::clone(file)),
            None => File::open(path).map(Arc::new),
        }
    }
}

async fn file_in(
    cx: &Context,
    found: Found,
    sink: &Arc<dyn ArtifactSink>,
    held: &Held,
) -> Result<()> {
    cx.check()?;
    let entry = found.entry.clone();
    let small = usize::try_from(entry.bytes).map_or(HELD, |bytes| bytes.clamp(1024, HELD));
    let _memory = cx.memory().reserve(small).await;
    let mut writer = sink.create(entry.artifact()?, entry.layout()).await?;
    let (sender, mut pieces) = mpsc::channel::<Result<Bytes>>(AHEAD);
    let held = held.clone();
    let reader = tokio::task::spawn_blocking(move || {
        if let Err(e) = read(&found, &held, &sender) {
            // Nobody listens any more when the writer has failed.
            let _ = sender.blocking_send(Err(e));
        }
    });
    while let Some(piece) = cx.run(async { Ok(pieces.recv().await) }).await? {
        let piece = piece?;
        cx.progress().add_bytes(piece.len() as u64);
        writer.write(piece).await?;
    }
    reader.await.map_err(|e| Error::internal("a reader was lost").with_source(e))?;
    writer.finish(Value::Null).await?;
    cx.event(Event::Done { kind: "file".into(), name: entry.path, rows: None });
    Ok(())
}

fn read(found: &Found, held: &Held, sender: &mpsc::Sender<Result<Bytes>>) -> Result<()> {
    let path = &found.source;
    let failed = |e| match e {
        e if std::io::Error::kind(&e) == std::io::ErrorKind::NotFound => changed(&found.entry.path),
        e => io_error(e, ErrorKind::Source, format!("cannot read {}", path.display())),
    };
    let file = held.open(path).map_err(failed)?;
    let mut at = 0;
    while at < found.entry.bytes {
        let len = usize::try_from(found.entry.bytes - at).map_or(READ, |left| left.min(READ));
        let mut piece = vec![0; len];
        file.read_exact_at(&mut piece, at).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => changed(&found.entry.path),
            _ => failed(e),
        })?;
        at += len as u64;
        if sender.blocking_send(Ok(piece.into())).is_err() {
            return Ok(());
        }
    }
    match Stamp::of(&file.metadata().map_err(failed)?) == found.stamp {
        true => Ok(()),
        false => Err(changed(&found.entry.path)),
    }
}
