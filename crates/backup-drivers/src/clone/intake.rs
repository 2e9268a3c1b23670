//! A clone as artifacts.
//!
//! Whole files come first, each from its beginning to its end, and go straight into the repository,
//! where each is compared with the same file of the backup before. They are of no one moment. The pages
//! that changed meanwhile come later, in no order; they rest in the [spool](super::spool) until the donor
//! is free, and become one artifact of changes a file. So nothing is held in memory but the places of
//! changed pages, and no copy of the database is made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_core::{ArtifactName, ArtifactSink, ArtifactWriter, Context, Event, Layout, Result};
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use serde_json::Value;

use super::broken;
use super::descriptor::{Block, FileEntry, Stage, Tablespace};
use super::donor::has_redo_directory;
use super::names::Place;
use super::page_zero;
use super::pages::Pages;
use super::secrecy::Secrecy;
use super::session::Receive;
use super::spool::{Pieces, Spool};
use crate::files::{ChangesWriter, Entry, Kind};
use crate::innodb::{self, Key};
use crate::logical::inventory::ServerFacts;

/// More files than this no server has.
const MAX_FILES: usize = 8 << 20;
/// Pages of a tablespace that DDL has just made.
const NEW_PAGES: u64 = 7;
/// Bytes of an undo tablespace that DDL has just made.
const NEW_UNDO: u64 = 16 << 20;
/// Space ids of undo tablespaces: 400,000 for each of 127 numbers, below that of the redo log.
const UNDO_SPACES: std::ops::RangeInclusive<u32> = 0xffff_fff0 - 127 * 400_000..=0xffff_ffef;

/// A data file of the donor.
#[derive(Debug)]
struct DataFile {
    /// The path by which the backup knows it: that when the clone began.
    stored: String,
    /// Where it is now.
    place: Place,
    /// Its place from the next stage on: names may go round in a circle.
    renamed: Option<Place>,
    tablespace: Option<Tablespace>,
    /// What it is encrypted with. It does not stand in `changes`.
    key: Option<Key>,
    bytes: u64,
    /// How long the donor's description of it says that it is: its own length, where `bytes` may be that of the
    /// tablespace, which a first page tells.
    described: u64,
    /// Whether another file goes on with its tablespace: it does not grow.
    goes_on: bool,
    /// How much of it is an artifact, from its beginning; `None` where there is no artifact.
    base: Option<u64>,
    changes: Pieces,
    dropped: bool,
    pages: Pages,
}

impl DataFile {
    /// Looks at what came of the file, and takes its key out of the first page.
    fn look(
        &mut self,
        secrecy: Secrecy,
        offset: u64,
        bytes: &mut Bytes,
        page_size: u32,
    ) -> Result<()> {
        let Some(space) = self.tablespace else { return Ok(()) };
        self.pages.look(offset, bytes);
        let first = space.page_size().filter(|_| offset == 0);
        let at = first.map(|bytes| innodb::key_place(bytes, page_size));
        if let Some(key) = at.and_then(|at| Key::take(bytes, at)) {
            secrecy.check(&self.place.path)?;
            self.key = Some(key);
        }
        Ok(())
    }

    /// Whether a block is inside of the file, as long as the donor says that it is by now.
    fn holds(&self, block: &Block) -> Result<()> {
        let end = block.offset.saturating_add(block.bytes.into());
        match end <= self.bytes.max(block.file_bytes) && end <= most_bytes(self.tablespace) {
            true => Ok(()),
            false => Err(broken(format!("it sends data beyond the end of {}", self.place.path))),
        }
    }

    fn is_undo(&self) -> bool {
        self.tablespace.is_some_and(|space| UNDO_SPACES.contains(&space.id))
    }

    /// The length that a server expects.
    fn final_bytes(&self, page_size: u32) -> u64 {
        if self.goes_on {
            return self.described;
        }
        let changed = self.changes.extents().last().map_or(0, |(at, len)| at + u64::from(len));
        let bytes = self.bytes.max(self.base.unwrap_or(0)).max(changed);
        let Some(page) = self.tablespace.and_then(Tablespace::page_size) else { return bytes };
        let extent = u64::from(page) * u64::from(innodb::extent_pages(page_size));
        if bytes > extent { bytes.next_multiple_of(extent) } else { bytes }
    }
}

/// A file of the redo log.
#[derive(Debug, Default)]
struct RedoFile {
    bytes: u64,
    pieces: Pieces,
    /// What the log is encrypted with. It does not stand in `pieces`.
    key: Option<Key>,
}

/// The artifact that is being written.
struct Open {
    file: u32,
    writer: Box<dyn ArtifactWriter>,
    at: u64,
}

/// What a clone became.
pub(super) struct Taken {
    /// Directories and files, parents before children.
    pub(super) entries: Vec<Entry>,
    /// Pages that are damaged at the source: file and number.
    pub(super) damaged: Vec<(String, u64)>,
    /// Bytes of pages that changed while the clone was taken.
    pub(super) changed: u64,
    /// Whether there are keys in the files.
    pub(super) keys: bool,
}

impl Taken {
    /// The databases that have files.
    pub(super) fn databases(&self) -> BTreeSet<String> {
        let files = self.entries.iter().filter(|entry| entry.space_id.is_some());
        files
            .filter_map(|entry| innodb::TableFile::of(&entry.path))
            .map(|file| file.database)
            .collect()
    }
}

/// What takes a clone.
pub(super) struct Intake {
    cx: Context,
    sink: Arc<dyn ArtifactSink>,
    spool: Spool,
    stage: Stage,
    files: BTreeMap<u32, DataFile>,
    redo: BTreeMap<u32, RedoFile>,
    open: Option<Open>,
    /// `innodb_page_size` of the donor.
    page_size: u32,
    secrecy: Secrecy,
}

impl Intake {
    pub(super) fn new(
        cx: &Context,
        sink: Arc<dyn ArtifactSink>,
        spool: Spool,
        page_size: u32,
        wire_is_encrypted: bool,
    ) -> Intake {
        let secrecy = Secrecy { wire: wire_is_encrypted, repository: sink.is_encrypted() };
        Intake {
            cx: cx.clone(),
            sink,
            spool,
            stage: Stage::Init,
            files: BTreeMap::new(),
            redo: BTreeMap::new(),
            open: None,
            page_size,
            secrecy,
        }
    }

    fn known(&mut self, file: u32) -> Result<&mut DataFile> {
        self.files.get_mut(&file).ok_or_else(|| broken("data is of a file that it did not name"))
    }

    /// Ends the artifact that is being written.
    async fn close(&mut self) -> Result<()> {
        let Some(open) = self.open.take() else { return Ok(()) };
        open.writer.finish(Value::Null).await?;
        let file = self.known(open.file)?;
        file.base = Some(open.at);
        let name = file.place.path.clone();
        self.cx.event(Event::Done { kind: "file".into(), name, rows: None });
        Ok(())
    }

    /// Bytes of a whole file.
    async fn base(&mut self, block: Block, mut bytes: Bytes) -> Result<()> {
        if self.open.as_ref().is_some_and(|open| open.file != block.file) {
            self.close().await?;
        }
        let file = self.files.get_mut(&block.file);
        let file = file.ok_or_else(|| broken("data is of a file that it did not name"))?;
        if file.dropped {
            return Ok(());
        }
        file.holds(&block)?;
        let page = file.tablespace.and_then(Tablespace::page_size);
        if self.open.is_none() && file.base.is_none() && block.offset == 0 {
            let layout = page.map_or(Layout::Stream, Layout::Pages);
            let writer = self.sink.create(artifact("files", &file.stored)?, layout).await?;
            self.open = Some(Open { file: block.file, writer, at: 0 });
        }
        file.look(self.secrecy, block.offset, &mut bytes, self.page_size)?;
        match &mut self.open {
            Some(open) if open.at == block.offset => {
                open.at += bytes.len() as u64;
                self.cx.progress().add_bytes(bytes.len() as u64);
                open.writer.write(bytes).await
            }
            // A donor that lost us may send again what we have. Each page is a piece of its own, as those
            // that changed are: the one may replace the other.
            _ => {
                let mut at = block.offset;
                for piece in bytes.chunks(page.map_or(usize::MAX, |page| page as usize)) {
                    self.spool.keep(&mut file.changes, at, piece).await?;
                    at += piece.len() as u64;
                }
                Ok(())
            }
        }
    }

    /// Writes what is in the spool, and says what there is.
    pub(super) async fn finish(mut self, donor: &ServerFacts) -> Result<Taken> {
        self.spool.flush().await?;
        let mut taken = Taken { entries: Vec::new(), damaged: Vec::new(), changed: 0, keys: false };
        let mut directories = BTreeSet::from(["#clone".to_owned(), "mysql".to_owned()]);
        let mut places = BTreeSet::new();
        let now = self.cx.now();
        let mut files = std::mem::take(&mut self.files);
        settle_system(&mut files);
        for file in files.into_values().filter(|file| !file.dropped) {
            self.cx.check()?;
            if !places.insert(file.place.path.clone()) {
                return Err(broken(format!("it has two files {}", file.place.path)));
            }
            directories.extend(file.place.directories().map(str::to_owned));
            let entry = self.data_file(file, now, &mut taken).await?;
            taken.entries.push(entry);
        }
        let redo = std::mem::take(&mut self.redo);
        for (number, file) in redo {
            let path = if has_redo_directory(&donor.version) {
                directories.insert(REDO.to_owned());
                format!("{REDO}/#ib_redo{number}")
            } else {
                format!("ib_logfile{number}")
            };
            taken.keys |= file.key.is_some();
            taken.entries.push(self.redo_file(path, file, now).await?);
        }
        // The first start makes the directories and the tables without transactions that are no part
        // of a clone (`clone0clone.cc`), and tells the position in #clone/#status_recovery.
        for mark in ["#clone/#status_fix", "#clone/#replace_files"] {
            self.sink
                .create(artifact("files", mark)?, Layout::Stream)
                .await?
                .finish(Value::Null)
                .await?;
            taken.entries.push(entry(mark.to_owned(), Kind::File, now));
        }
        let directories = directories.into_iter().map(|path| entry(path, Kind::Directory, now));
        taken.entries.splice(0..0, directories);
        Ok(taken)
    }

    async fn data_file(
        &mut self,
        mut file: DataFile,
        now: Timestamp,
        taken: &mut Taken,
    ) -> Result<Entry> {
        let page = file.tablespace.and_then(Tablespace::page_size);
        taken.keys |= file.key.is_some();
        taken.damaged.extend(file.pages.bad().map(|number| (file.place.path.clone(), number)));
        if file.base.is_none() {
            let layout = page.map_or(Layout::Stream, Layout::Pages);
            let writer = self.sink.create(artifact("files", &file.stored)?, layout).await?;
            writer.finish(Value::Null).await?;
        }
        let first = match (file.base, file.tablespace) {
            // Made by DDL: its first page may come out of the redo log, which needs one to begin with.
            (None, Some(space)) if !file.changes.begins_at(0) => {
                file.bytes = file.bytes.max(match file.is_undo() {
                    true => NEW_UNDO,
                    false => NEW_PAGES * u64::from(page.unwrap_or(self.page_size)),
                });
                page_zero::new(space)
            }
            _ => None,
        };
        let changes = first.is_some() || !file.changes.is_empty();
        if changes {
            let writer =
                self.sink.create(artifact("changes", &file.stored)?, Layout::Stream).await?;
            let mut writer = ChangesWriter::new(writer);
            let key = file.key.as_ref().zip(file.tablespace);
            let with_key = |page: Bytes| -> Result<Bytes> {
                match key {
                    Some((key, space)) => {
                        let bytes = space.page_size().unwrap_or(self.page_size);
                        let at = innodb::key_place(bytes, self.page_size);
                        let mut page = BytesMut::from(page);
                        key.put_into_page(&mut page, at, space.is_zip())?;
                        Ok(page.freeze())
                    }
                    None => Ok(page),
                }
            };
            if let Some(first) = first {
                writer.write(0, with_key(first)?).await?;
            }
            let extents: Vec<(u64, u32)> = file.changes.extents().collect();
            for (offset, bytes) in extents {
                taken.changed += u64::from(bytes);
                let mut piece = self.spool.read(&file.changes, offset).await?;
                if offset == 0 {
                    piece = with_key(piece)?;
                }
                writer.write(offset, piece).await?;
            }
            writer.finish().await?;
        }
        let bytes = file.final_bytes(self.page_size);
        let stored_as = (file.stored != file.place.path).then_some(file.stored);
        Ok(Entry {
            bytes,
            page_size: page,
            space_id: file.tablespace.map(|space| space.id),
            origin: file.place.origin,
            stored_as,
            changes,
            ..entry(file.place.path, Kind::File, now)
        })
    }

    async fn redo_file(&mut self, path: String, file: RedoFile, now: Timestamp) -> Result<Entry> {
        let mut writer = self.sink.create(artifact("files", &path)?, Layout::Stream).await?;
        let mut at = 0;
        let extents: Vec<(u64, u32)> = file.pieces.extents().collect();
        for (offset, bytes) in extents {
            if offset < at || offset + u64::from(bytes) > file.bytes {
                return Err(broken("pieces of the redo log overlap, or are beyond its end"));
            }
            zeros(&mut *writer, offset - at).await?;
            let mut piece = self.spool.read(&file.pieces, offset).await?;
            if let (Some(key), 0) = (&file.key, offset) {
                let mut header = BytesMut::from(piece);
                key.put(&mut header, innodb::REDO_KEY_AT)?;
                piece = header.freeze();
            }
            writer.write(piece).await?;
            at = offset + u64::from(bytes);
        }
        zeros(&mut *writer, file.bytes - at).await?;
        writer.finish(Value::Null).await?;
        Ok(Entry { bytes: file.bytes, ..entry(path, Kind::File, now) })
    }
}

/// Where the redo log is since 8.0.30.
const REDO: &str = "#innodb_redo";

impl Receive for Intake {
    async fn begin(&mut self, stage: Stage) -> Result<()> {
        if stage != self.stage {
            self.close().await?;
            for file in self.files.values_mut() {
                if let Some(place) = file.renamed.take() {
                    file.place = place;
                }
            }
            self.stage = stage;
        }
        Ok(())
    }

    async fn file(&mut self, entry: FileEntry, ddl: bool) -> Result<()> {
        if self.stage == Stage::Redo && !ddl {
            self.redo.entry(entry.index).or_default().bytes = entry.bytes;
            return Ok(());
        }
        if entry.encrypted {
            self.secrecy.check(&entry.name)?;
        }
        if entry.tablespace.is_some_and(|space| space.page_size().is_none()) {
            return Err(broken(format!("{} has pages of no size that there is", entry.name)));
        }
        if entry.bytes > most_bytes(entry.tablespace) {
            return Err(broken(format!("{} is larger than a file can be", entry.name)));
        }
        let Some(file) = self.files.get_mut(&entry.index) else {
            if self.files.len() >= MAX_FILES {
                return Err(broken("it has more files than any server"));
            }
            let place = entry.place()?;
            // A file that DDL made may have the name of one that DDL renamed or dropped.
            let stored = match ddl {
                true => format!("#new/{}", entry.index),
                false => place.path.clone(),
            };
            self.cx.progress().expect_bytes(entry.bytes);
            let file = DataFile {
                stored,
                place,
                renamed: None,
                tablespace: entry.tablespace,
                key: entry.key,
                bytes: entry.bytes,
                described: entry.bytes,
                goes_on: false,
                base: None,
                changes: Pieces::default(),
                dropped: entry.deleted,
                pages: match entry.tablespace {
                    Some(space) if ddl => Pages::made(space),
                    _ => Pages::default(),
                },
            };
            self.files.insert(entry.index, file);
            return Ok(());
        };
        if entry.deleted {
            file.dropped = true;
            file.changes = Pieces::default();
            if self.open.as_ref().is_some_and(|open| open.file == entry.index) {
                // Without its end there is no artifact.
                self.open = None;
            }
            return Ok(());
        }
        file.bytes = file.bytes.max(entry.bytes);
        file.described = file.described.max(entry.bytes);
        file.key = entry.key.clone().or_else(|| file.key.take());
        if entry.renamed {
            file.renamed = Some(entry.place()?);
        } else if ddl {
            file.tablespace = entry.tablespace;
        }
        Ok(())
    }

    async fn block(&mut self, block: Block, mut bytes: Bytes) -> Result<()> {
        match self.stage {
            Stage::Files => self.base(block, bytes).await,
            Stage::Pages => {
                let file = self.files.get_mut(&block.file);
                let file =
                    file.ok_or_else(|| broken("a page is of a file that it did not name"))?;
                if file.dropped {
                    return Ok(());
                }
                file.holds(&block)?;
                if block.offset == 0 {
                    file.bytes = file.bytes.max(block.file_bytes);
                }
                file.look(self.secrecy, block.offset, &mut bytes, self.page_size)?;
                self.spool.keep(&mut file.changes, block.offset, &bytes).await
            }
            Stage::Redo => {
                let file = self.redo.get_mut(&block.file);
                let file = file.ok_or_else(|| broken("redo is of a file that it did not name"))?;
                if block.offset == 0
                    && let Some(key) = Key::take(&mut bytes, innodb::REDO_KEY_AT)
                {
                    self.secrecy.check("the redo log")?;
                    file.key = Some(key);
                }
                self.spool.keep(&mut file.pieces, block.offset, &bytes).await
            }
            Stage::Init | Stage::Done => Err(broken("data comes at the wrong time")),
        }
    }

    async fn end(&mut self, _: Stage) -> Result<()> {
        self.close().await?;
        self.spool.flush().await
    }
}

/// Tells the lengths of the files of the system tablespace, where it has several: its first page, in the first of them,
/// says how long they are together, and only the last may have grown.
fn settle_system(files: &mut BTreeMap<u32, DataFile>) {
    let is_system =
        |file: &&mut DataFile| !file.dropped && file.tablespace.is_some_and(|space| space.id == 0);
    let mut system: Vec<&mut DataFile> = files.values_mut().filter(is_system).collect();
    let Some((last, before)) = system.split_last_mut().filter(|(_, before)| !before.is_empty())
    else {
        return;
    };
    let whole = before[0].bytes;
    let mut rest = whole;
    for file in before {
        file.goes_on = true;
        rest = rest.saturating_sub(file.described);
    }
    last.bytes = last.bytes.max(rest);
}

fn artifact(kind: &str, path: &str) -> Result<ArtifactName> {
    ArtifactName::from_parts(std::iter::once(kind).chain(path.split('/')))
}

/// The largest file: pages are counted in 32 bits.
fn most_bytes(space: Option<Tablespace>) -> u64 {
    let page = space.and_then(Tablespace::page_size).unwrap_or(64 << 10);
    u64::from(u32::MAX) * u64::from(page)
}

/// A file or directory as servers have them. Whose it is a clone does not tell.
fn entry(path: String, kind: Kind, now: Timestamp) -> Entry {
    let mode = match kind {
        Kind::Directory => 0o750,
        Kind::File => 0o640,
    };
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    Entry {
        path,
        kind,
        bytes: 0,
        page_size: None,
        space_id: None,
        sparse: false,
        mode,
        uid,
        gid,
        owner: Some("mysql".to_owned()),
        group: Some("mysql".to_owned()),
        modified: now,
        origin: None,
        stored_as: None,
        changes: false,
    }
}

/// Writes `count` zeros.
async fn zeros(writer: &mut dyn ArtifactWriter, mut count: u64) -> Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    while count > 0 {
        let some = count.min(ZEROS.len() as u64);
        writer.write(Bytes::from_static(&ZEROS[..some as usize])).await?;
        count -= some;
    }
    Ok(())
}
