//! The files of a stream into artifacts, while they come.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use backup_core::{ArtifactSink, ArtifactWriter, Context, Error, Event, Layout, Result};
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use tokio::io::AsyncRead;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::files::{ChangesWriter, Entry, Kind};
use crate::innodb::{
    CopiedPages, DeltaChecker, Geometry, HEAD_BYTES, PageChecker, PageSummary, TableFile,
    is_tablespace,
};
use crate::xbstream::{Dialect, Event as Stream, StreamReader};

/// Bytes of one file that a tool writes over what it wrote before, and an artifact cannot take any more: the
/// header of MariaDB's log of Aria, which names the end of the log. There are seven of them.
const MAX_CHANGES: usize = 64 << 10;
/// Pieces of a file that wait: files come in turns, and one that is slow must not hold up the others.
const AHEAD: usize = 8;
/// Zeros that a tool left out are written in such pieces.
const ZEROS: usize = 256 << 10;
/// The tool's own files are shorter.
const MAX_METADATA: usize = 4 << 20;

/// Who the files belong to, and what may be done with them: a stream does not say.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) owner: Option<String>,
    pub(super) group: Option<String>,
    /// The data directory: what it has a database's directory for, that is as it is there.
    pub(super) datadir: PathBuf,
}

/// What came out of a stream.
#[derive(Debug, Default)]
pub(super) struct Demuxed {
    pub(super) entries: Vec<Entry>,
    /// The tool's own files, by name.
    pub(super) metadata: BTreeMap<String, String>,
    /// What the pages of tablespaces are.
    pub(super) pages: CopiedPages,
    /// Tables that are not InnoDB's and were changed as a whole while they were read.
    pub(super) reworked: BTreeSet<String>,
    /// Files without which a server cannot open a table that has others.
    pub(super) missing: BTreeSet<String>,
}

/// Tables of these engines have two files, rows and indexes.
const PAIRS: [(&str, &str); 3] = [(".MAD", ".MAI"), (".MYD", ".MYI"), (".CSV", ".CSM")];

enum Piece {
    Data(Bytes),
    Zeros(u64),
    Over(u64, Bytes),
    End,
}

struct File {
    pieces: mpsc::Sender<Piece>,
    task: JoinHandle<Result<Finished>>,
}

struct Finished {
    entry: Entry,
    summary: Option<PageSummary>,
    metadata: Option<String>,
}

/// Reads a stream to its end into `sink`.
///
/// # Errors
/// What is wrong with the stream, and what the sink fails with.
pub(super) async fn demux(
    cx: &Context,
    stream: impl AsyncRead + Unpin + Send,
    dialect: Dialect,
    sink: &Arc<dyn ArtifactSink>,
    owner: &Owner,
) -> Result<Demuxed> {
    let mut reader = StreamReader::new(stream, dialect);
    let mut open: HashMap<Arc<str>, File> = HashMap::new();
    let mut done = Files::default();
    while let Some(event) = cx.run(reader.next()).await? {
        match event {
            Stream::Begin { path } => {
                let (sender, pieces) = mpsc::channel(AHEAD);
                let task = tokio::spawn(file(
                    cx.clone(),
                    path.to_string(),
                    done.stored_as(&path),
                    done.delta(&path),
                    Arc::clone(sink),
                    owner.clone(),
                    pieces,
                ));
                open.insert(path, File { pieces: sender, task });
            }
            Stream::Data { path, bytes } => {
                cx.progress().add_bytes(bytes.len() as u64);
                send(&mut open, &path, Piece::Data(bytes)).await?;
            }
            Stream::Zeros { path, length } => send(&mut open, &path, Piece::Zeros(length)).await?,
            Stream::Patch { path, offset, bytes } => {
                send(&mut open, &path, Piece::Over(offset, bytes)).await?;
            }
            Stream::End { path, .. } => {
                send(&mut open, &path, Piece::End).await?;
                if let Some(file) = open.remove(&path) {
                    done.take(finished(file.task).await?);
                }
            }
            Stream::Rename { from, to } => done.rename(&from, &to),
            Stream::Remove { paths } => paths.iter().for_each(|path| done.remove(path)),
        }
    }
    Ok(done.demuxed(owner))
}

/// Files that are at their end, by their paths.
#[derive(Default)]
struct Files {
    done: BTreeMap<String, Finished>,
    /// How often a file was begun under a path.
    begun: HashMap<Arc<str>, u32>,
    /// See [`Demuxed::reworked`].
    reworked: BTreeSet<String>,
}

impl Files {
    /// What the artifacts of the next file of that path are called by: a name is not used twice. No server has
    /// files that are called so.
    fn stored_as(&mut self, path: &Arc<str>) -> Option<String> {
        let begun = self.begun.entry(Arc::clone(path)).or_default();
        *begun += 1;
        if *begun == 1 {
            return None;
        }
        let stored_as = format!("{path}@{begun}");
        self.note(path);
        Some(stored_as)
    }

    /// What checks an increment of a tablespace: the tools tell before what it is of.
    fn delta(&self, path: &str) -> Option<DeltaChecker> {
        let meta = format!("{}.meta", path.strip_suffix(".delta")?);
        DeltaChecker::new(self.done.get(&meta)?.metadata.as_deref()?)
    }

    /// Notes a table, as it was or is called.
    fn note(&mut self, path: &str) {
        let rows = [".MAD", ".MAI", ".MYD", ".MYI", ".ARZ", ".CSV", ".MRG"];
        if rows.iter().any(|ending| path.ends_with(ending)) {
            let table = TableFile::of(path);
            self.reworked.insert(table.map_or_else(|| path.to_owned(), |table| table.to_string()));
        }
    }

    /// The newest of a path counts.
    fn take(&mut self, file: Finished) {
        self.done.insert(file.entry.path.clone(), file);
    }

    fn rename(&mut self, from: &str, to: &str) {
        if let Some(mut file) = self.done.remove(from) {
            self.note(to);
            file.entry.stored_as.get_or_insert_with(|| from.to_owned());
            file.entry.path = to.to_owned();
            self.take(file);
        }
    }

    fn remove(&mut self, path: &str) {
        self.done.remove(path);
    }

    /// See [`Demuxed::missing`]. The tool may miss a file of a table that changes its engine meanwhile.
    fn missing(&self) -> BTreeSet<String> {
        let other = |path: &str| {
            let pairs = PAIRS.into_iter().flat_map(|(a, b)| [(a, b), (b, a)]);
            let mut others = pairs.filter_map(|(own, other)| {
                path.strip_suffix(own).map(|stem| format!("{stem}{other}"))
            });
            others.next().filter(|other| !self.done.contains_key(other))
        };
        self.done.keys().filter_map(|path| other(path)).collect()
    }

    fn demuxed(self, owner: &Owner) -> Demuxed {
        let missing = self.missing();
        let mut done = Demuxed { reworked: self.reworked, missing, ..Demuxed::default() };
        self.done.into_values().for_each(|file| take(&mut done, file));
        done.entries.extend(directories(&done.entries, owner));
        done.entries.sort_by(|a, b| a.path.cmp(&b.path));
        done
    }
}

async fn send(open: &mut HashMap<Arc<str>, File>, path: &Arc<str>, piece: Piece) -> Result<()> {
    let Some(file) = open.get(path) else {
        return Err(Error::internal(format!("{path} is not open")));
    };
    if file.pieces.send(piece).await.is_ok() {
        return Ok(());
    }
    // The task has ended, and says why.
    let file = open.remove(path).ok_or_else(|| Error::internal("a file was lost"))?;
    finished(file.task).await?;
    Err(Error::internal(format!("{path} ended too early")))
}

async fn finished(task: JoinHandle<Result<Finished>>) -> Result<Finished> {
    task.await.map_err(|e| Error::internal("a writer of files was lost").with_source(e))?
}

fn take(done: &mut Demuxed, file: Finished) {
    if let Some(text) = file.metadata.filter(|_| is_metadata(&file.entry.path)) {
        done.metadata.insert(file.entry.path.clone(), text);
    }
    if let Some(summary) = file.summary {
        done.pages.add(&file.entry.path, &summary);
    }
    done.entries.push(file.entry);
}

/// The directories that the files are in.
fn directories(files: &[Entry], owner: &Owner) -> Vec<Entry> {
    let mut paths = BTreeSet::new();
    for file in files {
        for (at, _) in file.path.match_indices('/') {
            paths.insert(&file.path[..at]);
        }
    }
    // A server makes them so that nobody else may look in.
    let mode = |path: &str| match std::fs::metadata(owner.datadir.join(path)) {
        Ok(directory) if directory.is_dir() => 0o700 | (directory.mode() & 0o777),
        _ => 0o700,
    };
    let entry =
        |path: &str| Entry { kind: Kind::Directory, mode: mode(path), ..entry(path, owner) };
    paths.into_iter().map(entry).collect()
}

fn entry(path: &str, owner: &Owner) -> Entry {
    Entry {
        path: path.to_owned(),
        kind: Kind::File,
        bytes: 0,
        page_size: None,
        space_id: None,
        sparse: false,
        // What servers give their files.
        mode: 0o660,
        uid: owner.uid,
        gid: owner.gid,
        owner: owner.owner.clone(),
        group: owner.group.clone(),
        modified: Timestamp::UNIX_EPOCH,
        origin: None,
        stored_as: None,
        changes: false,
    }
}

/// Whether a file of the stream may be a tablespace. MariaDB's tool gives those that came during the backup
/// another ending.
fn may_have_pages(path: &str) -> bool {
    is_tablespace(path) || path.contains('/') && path.ends_with(".new")
}

/// Whether the tool itself made the file.
pub(super) fn is_metadata(path: &str) -> bool {
    !path.contains('/')
        && (path.starts_with("xtrabackup_")
            || path.starts_with("mariadb_backup_")
            || path == "backup-my.cnf")
        && !path.ends_with("logfile")
}

/// One file: from its pieces to its artifact.
struct Writing {
    entry: Entry,
    sink: Arc<dyn ArtifactSink>,
    /// What came before it is known what the file is.
    head: BytesMut,
    undecided: bool,
    writer: Option<Box<dyn ArtifactWriter>>,
    checker: Option<PageChecker>,
    delta: Option<DeltaChecker>,
    metadata: Option<Vec<u8>>,
    /// What is to be written over it, byte by byte.
    over: BTreeMap<u64, u8>,
}

async fn file(
    cx: Context,
    path: String,
    stored_as: Option<String>,
    delta: Option<DeltaChecker>,
    sink: Arc<dyn ArtifactSink>,
    owner: Owner,
    mut pieces: mpsc::Receiver<Piece>,
) -> Result<Finished> {
    let mut writing = Writing {
        undecided: may_have_pages(&path),
        metadata: (is_metadata(&path) || path.ends_with(".meta")).then(Vec::new),
        entry: Entry { modified: cx.now(), stored_as, ..entry(&path, &owner) },
        sink,
        head: BytesMut::new(),
        writer: None,
        checker: None,
        delta,
        over: BTreeMap::new(),
    };
    let zeros = Bytes::from_static(&[0; ZEROS]);
    loop {
        match pieces.recv().await {
            Some(Piece::Data(bytes)) => writing.write(bytes).await?,
            Some(Piece::Zeros(mut left)) => {
                while left > 0 {
                    let length = usize::try_from(left).map_or(ZEROS, |left| left.min(ZEROS));
                    writing.write(zeros.slice(..length)).await?;
                    left -= length as u64;
                }
            }
            Some(Piece::Over(offset, bytes)) => writing.over(offset, &bytes)?,
            Some(Piece::End) => break,
            // The stream has failed. An artifact that is not finished is none.
            None => return Err(Error::interrupted()),
        }
    }
    let finished = writing.finish().await?;
    cx.event(Event::Done { kind: "file".into(), name: path, rows: None });
    Ok(finished)
}

impl Writing {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.entry.bytes += bytes.len() as u64;
        if let Some(text) = &mut self.metadata {
            if text.len() + bytes.len() > MAX_METADATA {
                return Err(Error::damaged(format!("{} is too long", self.entry.path)));
            }
            text.extend_from_slice(&bytes);
        }
        if self.undecided {
            if self.head.is_empty() && bytes.len() >= HEAD_BYTES {
                self.decide(&bytes).await?;
            } else {
                self.head.extend_from_slice(&bytes);
                if self.head.len() < HEAD_BYTES {
                    return Ok(());
                }
                let head = std::mem::take(&mut self.head).freeze();
                self.decide(&head).await?;
                return self.give(head).await;
            }
        }
        self.give(bytes).await
    }

    /// Creates the artifact, now that it is known what the file is.
    async fn decide(&mut self, head: &[u8]) -> Result<()> {
        self.undecided = false;
        if let Some(geometry) = Geometry::read(head) {
            self.entry.page_size = Some(geometry.page_bytes);
            self.entry.space_id = Some(geometry.space);
            self.checker = Some(PageChecker::new());
        } else if !self.entry.path.starts_with("ibdata")
            && head[..HEAD_BYTES].iter().any(|&byte| byte != 0)
        {
            // Its first page is damaged. One of zeros was only just made.
            self.checker = Some(PageChecker::new());
        }
        self.create().await
    }

    async fn create(&mut self) -> Result<()> {
        let layout = match self.entry.page_size {
            Some(size) => Layout::Pages(size),
            None => Layout::Stream,
        };
        self.writer = Some(self.sink.create(self.entry.artifact()?, layout).await?);
        Ok(())
    }

    async fn give(&mut self, bytes: Bytes) -> Result<()> {
        if self.writer.is_none() {
            self.create().await?;
        }
        if let Some(checker) = &mut self.checker {
            checker.push(&bytes);
        }
        if let Some(delta) = &mut self.delta {
            delta.push(&bytes);
        }
        match &mut self.writer {
            Some(writer) => writer.write(bytes).await,
            None => Err(Error::internal("no artifact was created")),
        }
    }

    fn over(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.over.extend((offset..).zip(bytes.iter().copied()));
        if self.over.len() > MAX_CHANGES
            || self.checker.is_some()
            || self.delta.is_some()
            || self.metadata.is_some()
        {
            return Err(Error::damaged(format!(
                "the tool wrote over what it had written of {} before",
                self.entry.path
            )));
        }
        Ok(())
    }

    /// Stores what is to be written over the file, in runs.
    async fn store_changes(&mut self) -> Result<()> {
        if self.over.is_empty() {
            return Ok(());
        }
        self.entry.changes = true;
        let Some(name) = self.entry.changes_artifact()? else { return Ok(()) };
        let mut writer = ChangesWriter::new(self.sink.create(name, Layout::Stream).await?);
        let mut run: (u64, Vec<u8>) = (0, Vec::new());
        for (offset, byte) in std::mem::take(&mut self.over) {
            if offset != run.0 + run.1.len() as u64 {
                if !run.1.is_empty() {
                    writer.write(run.0, std::mem::take(&mut run.1).into()).await?;
                }
                run.0 = offset;
            }
            run.1.push(byte);
        }
        writer.write(run.0, run.1.into()).await?;
        writer.finish().await
    }

    async fn finish(mut self) -> Result<Finished> {
        if self.undecided {
            // Shorter than the header of a tablespace.
            self.undecided = false;
            let head = std::mem::take(&mut self.head).freeze();
            if !head.is_empty() {
                self.give(head).await?;
            }
        }
        if self.writer.is_none() {
            self.create().await?;
        }
        if let Some(writer) = self.writer.take() {
            writer.finish(serde_json::Value::Null).await?;
        }
        self.store_changes().await?;
        let metadata = self.metadata.take().map(|text| String::from_utf8_lossy(&text).into_owned());
        let summary = match self.delta.take() {
            Some(delta) => Some(delta.finish()),
            None => self.checker.take().map(PageChecker::finish),
        };
        Ok(Finished { entry: self.entry, summary, metadata })
    }
}
