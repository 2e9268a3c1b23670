//! Files into artifacts.

use std::collections::BTreeMap;
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
use crate::innodb::{self, CopiedPages, Geometry, PageChecker, PageSummary};

/// How much is read at once, in bytes.
const READ: usize = 1 << 20;
/// How much of a file is read ahead, in reads.
const AHEAD: usize = 2;
/// What a file takes while it is read, in bytes.
const HELD: usize = (AHEAD + 2) * READ;

/// How the server was when its files became what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Was {
    /// At rest: every file is what it was to be.
    Still,
    /// In the middle of something: files that it was making may be empty, or hold nothing but zeros.
    Busy,
}

/// Puts every file of `tree` into `sink`, [`Context::threads`] at once, the longest first. A file
/// that changes meanwhile is an error. Every page of a tablespace is checked on its way.
pub(crate) async fn copy_in(
    cx: &Context,
    tree: &Tree,
    sink: &Arc<dyn ArtifactSink>,
    held: &Held,
    was: Was,
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
    let mut pages = stream::iter(files)
        .map(|found| file_in(cx, found, system, sink, held, was))
        .buffer_unordered(cx.threads())
        .try_fold(CopiedPages::default(), |mut pages, (path, summary)| async move {
            if let Some(summary) = summary {
                pages.add(&path, &summary);
            }
            Ok(pages)
        })
        .await?;
    pages.bad.extend(twice(tree));
    Ok(pages)
}

/// Files that say that they are of one tablespace, of which at most one is: a MySQL does not start on them.
fn twice(tree: &Tree) -> Vec<String> {
    let mut files: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
    for found in &tree.found {
        if let Some(space) = found.entry.space_id.filter(|space| *space != 0) {
            files.entry(space).or_default().push(&found.entry.path);
        }
    }
    let told = |(space, paths): (u32, Vec<&str>)| {
        (paths.len() > 1).then(|| {
            format!("{} are all of the tablespace with the number {space}", paths.join(", "))
        })
    };
    files.into_iter().filter_map(told).collect()
}

/// As [`copy_in`], where nothing is locked, of a server that was in the middle of something.
pub(crate) async fn copy_tree(
    cx: &Context,
    tree: &Tree,
    sink: &Arc<dyn ArtifactSink>,
) -> Result<CopiedPages> {
    copy_in(cx, tree, sink, &Held::default(), Was::Busy).await
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
    was: Was,
) -> Result<(String, Option<PageSummary>)> {
    cx.check()?;
    let entry = found.entry.clone();
    let small = usize::try_from(entry.bytes).map_or(HELD, |bytes| bytes.clamp(1024, HELD));
    let _memory = cx.memory().reserve(small).await;
    let mut writer = sink.create(entry.artifact()?, entry.layout()).await?;
    let (sender, mut pieces) = mpsc::channel::<Result<Bytes>>(AHEAD);
    let held = held.clone();
    let reader = tokio::task::spawn_blocking(move || {
        read(&found, system, &held, was, &sender).unwrap_or_else(|e| {
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

/// What checks the pages of a file.
fn checker(found: &Found, system: Option<Geometry>) -> Option<PageChecker> {
    let entry = &found.entry;
    match (entry.page_size, entry.space_id) {
        // Files of the system tablespace after the first.
        (Some(_), None) => system.map(PageChecker::resume),
        (Some(_), Some(_)) => Some(PageChecker::new()),
        // Its first page is damaged, or it has none.
        (None, _) => is_tablespace(&entry.path).then(PageChecker::new),
    }
}

/// Whether a file is to begin a tablespace of its own. One that a server makes for a while may be left of a crash.
fn is_tablespace(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    innodb::is_tablespace(path) && !name.starts_with("ibdata") && !name.starts_with("#sql")
}

fn read(
    found: &Found,
    system: Option<Geometry>,
    held: &Held,
    was: Was,
    sender: &mpsc::Sender<Result<Bytes>>,
) -> Result<Option<PageSummary>> {
    let path = &found.source;
    let failed = |e| match e {
        e if std::io::Error::kind(&e) == std::io::ErrorKind::NotFound => changed(&found.entry.path),
        e => io_error(e, ErrorKind::Source, format!("cannot read {}", path.display())),
    };
    let file = held.open(path).map_err(failed)?;
    let mut pages = checker(found, system);
    let (mut at, mut zeros) = (0, true);
    while at < found.entry.bytes {
        let len = usize::try_from(found.entry.bytes - at).map_or(READ, |left| left.min(READ));
        let mut piece = vec![0; len];
        file.read_exact_at(&mut piece, at).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => changed(&found.entry.path),
            _ => failed(e),
        })?;
        if let Some(pages) = &mut pages {
            pages.push(&piece);
            zeros = zeros && piece.iter().all(|&byte| byte == 0);
        }
        at += len as u64;
        if sender.blocking_send(Ok(piece.into())).is_err() {
            return Ok(None);
        }
    }
    match Stamp::of(&file.metadata().map_err(failed)?) == found.stamp {
        true if was == Was::Busy && zeros => Ok(None),
        true => Ok(pages.map(|pages| match may_be_cut(&found.entry.path, was) {
            true => pages.finish(),
            false => pages.finish_whole(),
        })),
        false => Err(changed(&found.entry.path)),
    }
}

/// Whether a server that was in the middle of something may have been making the file shorter: undo tablespaces it does.
fn may_be_cut(path: &str, was: Was) -> bool {
    was == Was::Busy && !path.ends_with(".ibd")
}
