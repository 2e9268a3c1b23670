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
use super::left_out::is_replication;
use super::tree::{Found, Stamp, Tree, changed};
use crate::innodb::{CopiedPages, Geometry, HEAD_BYTES, PageChecker, PageSummary};

/// How much is read at once, in bytes.
const READ: usize = 1 << 20;
/// How much of a file is read ahead, in reads.
const AHEAD: usize = 2;
/// What a file takes while it is read, in bytes.
const HELD: usize = (AHEAD + 2) * READ;

/// Puts every file of `tree` into `sink`, [`Context::threads`] at once, the longest first. A file
/// that changes meanwhile is an error. Every page of a tablespace is checked on its way.
pub(crate) async fn copy_in(
    cx: &Context,
    tree: &Tree,
    sink: &Arc<dyn ArtifactSink>,
    held: &Held,
) -> Result<CopiedPages> {
    for left in tree.left_out.iter().filter(|left| is_replication(&left.path)) {
        cx.note(format!("{} is left out: {}", left.path, left.reason));
    }
    cx.progress().expect_bytes(tree.bytes());
    let files = tree.found.iter().filter(|found| found.entry.kind == Kind::File);
    let mut files: Vec<Found> = files.cloned().collect();
    // So that no long one is left over at the end.
    files.sort_by_key(|found| std::cmp::Reverse(found.entry.bytes));
    let system = tree.system.as_ref().map(|system| system.geometry);
    stream::iter(files)
        .map(|found| file_in(cx, found, system, sink, held))
        .buffer_unordered(cx.threads())
        .try_fold(CopiedPages::default(), |mut pages, (path, summary)| async move {
            if let Some(summary) = summary {
                pages.add(&path, &summary);
            }
            Ok(pages)
        })
        .await
}

/// As [`copy_in`], where nothing is locked.
pub(crate) async fn copy_tree(
    cx: &Context,
    tree: &Tree,
    sink: &Arc<dyn ArtifactSink>,
) -> Result<CopiedPages> {
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
    system: Option<Geometry>,
    sink: &Arc<dyn ArtifactSink>,
    held: &Held,
) -> Result<(String, Option<PageSummary>)> {
    cx.check()?;
    let entry = found.entry.clone();
    let small = usize::try_from(entry.bytes).map_or(HELD, |bytes| bytes.clamp(1024, HELD));
    let _memory = cx.memory().reserve(small).await;
    let mut writer = sink.create(entry.artifact()?, entry.layout()).await?;
    let (sender, mut pieces) = mpsc::channel::<Result<Bytes>>(AHEAD);
    let held = held.clone();
    let reader = tokio::task::spawn_blocking(move || {
        read(&found, system, &held, &sender).unwrap_or_else(|e| {
            // Nobody listens any more when the writer has failed.
            let _ = sender.blocking_send(Err(e));
            None
        })
    });
    while let Some(piece) = cx.run(async { Ok(pieces.recv().await) }).await? {
        let piece = piece?;
        cx.progress().add_bytes(piece.len() as u64);
        writer.write(piece).await?;
    }
    let pages = reader.await.map_err(|e| Error::internal("a reader was lost").with_source(e))?;
    writer.finish(Value::Null).await?;
    cx.event(Event::Done { kind: "file".into(), name: entry.path.clone(), rows: None });
    Ok((entry.path, pages))
}

/// What checks the pages of a file, of which `head` is the beginning, if it has any.
fn checker(found: &Found, system: Option<Geometry>, head: &[u8]) -> Option<PageChecker> {
    let entry = &found.entry;
    match (entry.page_size, entry.space_id) {
        (Some(_), Some(_)) => Some(PageChecker::new()),
        // Files of the system tablespace after the first.
        (Some(_), None) => system.map(PageChecker::resume),
        (None, _) => {
            // Its first page is damaged. One of zeros was only just made.
            let damaged = head.iter().take(HEAD_BYTES).any(|&byte| byte != 0);
            (entry.path.ends_with(".ibd") && damaged).then(PageChecker::new)
        }
    }
}

fn read(
    found: &Found,
    system: Option<Geometry>,
    held: &Held,
    sender: &mpsc::Sender<Result<Bytes>>,
) -> Result<Option<PageSummary>> {
    let path = &found.source;
    let failed = |e| match e {
        e if std::io::Error::kind(&e) == std::io::ErrorKind::NotFound => changed(&found.entry.path),
        e => io_error(e, ErrorKind::Source, format!("cannot read {}", path.display())),
    };
    let file = held.open(path).map_err(failed)?;
    let (mut at, mut pages) = (0, None);
    while at < found.entry.bytes {
        let len = usize::try_from(found.entry.bytes - at).map_or(READ, |left| left.min(READ));
        let mut piece = vec![0; len];
        file.read_exact_at(&mut piece, at).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => changed(&found.entry.path),
            _ => failed(e),
        })?;
        if at == 0 {
            pages = checker(found, system, &piece);
        }
        if let Some(pages) = &mut pages {
            pages.push(&piece);
        }
        at += len as u64;
        if sender.blocking_send(Ok(piece.into())).is_err() {
            return Ok(None);
        }
    }
    match Stamp::of(&file.metadata().map_err(failed)?) == found.stamp {
        true => Ok(pages.map(PageChecker::finish)),
        false => Err(changed(&found.entry.path)),
    }
}
