//! Reading a stream.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use backup_core::{Error, ErrorKind, Result, io_error};
use bytes::Bytes;
use tokio::io::AsyncRead;

use super::input::{Input, PIECE};
use super::{COMMON, Dialect, IGNORABLE, MAGIC, PATH_LIMIT, REWRITE};

/// More files are in no data directory.
const MAX_FILES: usize = 8 << 20;
/// More entries are in no map of a sparse chunk: a page each, in the largest buffer that tools have.
const MAX_MAP: u32 = 1 << 20;

/// What a stream says next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A file begins. It may be at its end at once. One that was at its end is begun anew then, and what came
    /// of it before is void (MariaDB: a table that was made again while it was backed up).
    Begin {
        /// Its path: components separated by `/`, none of them empty, `.` or `..`.
        path: Arc<str>,
    },
    /// The file goes on with these bytes, which follow those before.
    Data {
        /// The file.
        path: Arc<str>,
        /// At most 256 KiB.
        bytes: Bytes,
    },
    /// The file goes on with so many zeros, which the tool left out.
    Zeros {
        /// The file.
        path: Arc<str>,
        /// How many.
        length: u64,
    },
    /// Bytes that came before are replaced; the file gets no longer (MariaDB: the header of a log, known
    /// only once all of the log is there).
    Patch {
        /// The file.
        path: Arc<str>,
        /// Where.
        offset: u64,
        /// With what.
        bytes: Bytes,
    },
    /// A file that was at its end has another name now, in the place of what had it (MariaDB).
    Rename {
        /// Its path until now.
        from: Arc<str>,
        /// Its path from now on.
        to: Arc<str>,
    },
    /// Files that were at their end are void (MariaDB).
    Remove {
        /// Their paths.
        paths: Vec<Arc<str>>,
    },
    /// The file is at its end.
    End {
        /// The file.
        path: Arc<str>,
        /// Its length in bytes.
        length: u64,
    },
}

/// A file whose end did not come yet.
struct Open {
    path: Arc<str>,
    /// Bytes so far.
    length: u64,
    /// Where the next chunk goes.
    next: u64,
}

/// What is left of the chunk that is being read.
struct Payload {
    path: Arc<str>,
    left: u64,
    expected: u32,
    crc: crc32fast::Hasher,
    /// For a sparse one: what to leave out, what to write, in turns.
    map: VecDeque<(u32, u32)>,
    /// Nobody wants it.
    ignored: bool,
    began: u64,
}

/// Reads a stream to its end. Holds 256 KiB, the names of its files, and no file.
///
/// What it gives out is not proven: only once [`next`](Self::next) gives `None` is the stream whole. The
/// checksum of a chunk is compared behind its last byte.
pub struct StreamReader<R> {
    input: Input<R>,
    dialect: Dialect,
    open: HashMap<Arc<str>, Open>,
    finished: HashSet<Arc<str>>,
    payload: Option<Payload>,
    ready: VecDeque<Event>,
}

fn broken(problem: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Damaged, format!("the stream of files is broken: {problem}"))
        .with_remedy("see why the tool that made it ended, and make it again")
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn long(bytes: &[u8]) -> u64 {
    u64::from(word(bytes)) | u64::from(word(&bytes[4..])) << 32
}

impl<R: AsyncRead + Unpin + Send> StreamReader<R> {
    /// Reads what a tool of that dialect writes.
    pub fn new(source: R, dialect: Dialect) -> Self {
        StreamReader {
            input: Input::new(source),
            dialect,
            open: HashMap::new(),
            finished: HashSet::new(),
            payload: None,
            ready: VecDeque::new(),
        }
    }

    /// Bytes of the stream read so far.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.input.position()
    }

    /// Number of files that are at their end.
    #[must_use]
    pub fn files(&self) -> usize {
        self.finished.len()
    }

    /// What comes next; `None` at the end of a stream that is whole.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`] for a stream that is cut, empty, altered or hostile, with the offset;
    /// errors of reading.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let more = match self.payload.take() {
                Some(payload) => self.go_on(payload).await.map(|()| true)?,
                None => self.chunk().await?,
            };
            if !more {
                return self.end().map(|()| None);
            }
        }
    }

    fn end(&self) -> Result<()> {
        if let Some(open) = self.open.values().min_by(|a, b| a.path.cmp(&b.path)) {
            let more = match self.open.len() - 1 {
                0 => String::new(),
                more => format!(", and {more} more files"),
            };
            return Err(broken(format!(
                "it ends before the end of {}, of which {} bytes came{more}",
                open.path, open.length
            )));
        }
        if self.finished.is_empty() { Err(broken("it is empty")) } else { Ok(()) }
    }

    async fn exactly(&mut self, length: usize, what: &str) -> Result<Bytes> {
        let bytes = self.input.few(length).await.map_err(cannot_read)?;
        if bytes.len() < length {
            return Err(self.cut(what));
        }
        Ok(bytes)
    }

    fn cut(&self, what: &str) -> Error {
        broken(format!("it ends at byte {} inside {what}", self.input.position()))
    }

    /// Reads the next chunk up to its payload. `false` where the stream ends.
    async fn chunk(&mut self) -> Result<bool> {
        let began = self.input.position();
        let common = self.input.few(COMMON).await.map_err(cannot_read)?;
        if common.is_empty() {
            return Ok(false);
        }
        if common.len() < COMMON {
            return Err(self.cut("the header of a chunk"));
        }
        if common[..8] != MAGIC[..] {
            return Err(broken(format!("there is no chunk at byte {began}")));
        }
        let (flags, kind, length) = (common[8], common[9], word(&common[10..]) as usize);
        if length >= PATH_LIMIT {
            return Err(broken(format!("a path of {length} bytes at byte {began}")));
        }
        let path = self.exactly(length, "a path").await?;
        let path = checked_path(&path)?;
        if flags & !(IGNORABLE | REWRITE) != 0 {
            return Err(broken(format!("unknown flags {flags:#04x} of {path} at byte {began}")));
        }
        if self.dialect == Dialect::MariaDb && flags & REWRITE != 0 {
            // Each chunk of the second one says so.
            self.finished.remove(&*path);
        }
        match (kind, self.dialect) {
            (b'P', _) => self.payload(&path, false, began).await?,
            (b'E', _) => {
                let open = self.file(&path)?;
                let (path, length) = (open.path, open.length);
                self.open.remove(&path);
                self.finished.insert(Arc::clone(&path));
                self.ready.push_back(Event::End { path, length });
            }
            (b'S', Dialect::XtraBackup) => self.sparse(&path, began).await?,
            (b'S', Dialect::MariaDb) => {
                let offset = long(&self.exactly(8, "a chunk that seeks").await?);
                let open = self.file(&path)?;
                if offset > open.length {
                    return Err(broken(format!(
                        "{path} has {} bytes and goes on from {offset}",
                        open.length
                    )));
                }
                self.open.insert(Arc::clone(&open.path), Open { next: offset, ..open });
            }
            (b'D', Dialect::MariaDb) => self.remove(&path)?,
            (b'R', Dialect::MariaDb) => self.rename(&path, began).await?,
            // Of an unknown type only one thing is known: the tools read it as if it had a payload.
            _ if flags & IGNORABLE != 0 => self.payload(&path, true, began).await?,
            (kind, _) => {
                let kind = char::from(kind).escape_default();
                return Err(broken(format!("unknown type `{kind}` of {path} at byte {began}")));
            }
        }
        Ok(true)
    }

    /// The open file of that path; begins it where it is new. The caller puts it back.
    fn file(&mut self, path: &str) -> Result<Open> {
        if let Some(open) = self.open.remove(path) {
            return Ok(open);
        }
        if self.finished.contains(path) {
            return Err(broken(format!("{path} comes a second time")));
        }
        if self.open.len() + self.finished.len() >= MAX_FILES {
            return Err(broken(format!("it has more than {MAX_FILES} files")));
        }
        let path: Arc<str> = path.into();
        self.ready.push_back(Event::Begin { path: Arc::clone(&path) });
        Ok(Open { path, length: 0, next: 0 })
    }

    /// Takes files back: one, those in a directory, or those whose names begin with what stands before a `*`.
    /// That there are none is as good.
    fn remove(&mut self, path: &str) -> Result<()> {
        let meant = |file: &str| match path.strip_suffix('*') {
            Some(prefix) => {
                let rest = file.strip_prefix(prefix);
                rest.is_some_and(|rest| !rest.contains('/'))
            }
            None => file.strip_prefix(path).is_some_and(|r| r.is_empty() || r.starts_with('/')),
        };
        if let Some(open) = self.open.keys().find(|file| meant(file)) {
            return Err(broken(format!("{open} is taken back before its end")));
        }
        let mut paths: Vec<Arc<str>> =
            self.finished.iter().filter(|file| meant(file)).map(Arc::clone).collect();
        paths.sort();
        for path in &paths {
            self.finished.remove(path);
        }
        if !paths.is_empty() {
            self.ready.push_back(Event::Remove { paths });
        }
        Ok(())
    }

    /// Gives a file another name. That it is not there is as good: it comes under the new one then.
    async fn rename(&mut self, from: &str, began: u64) -> Result<()> {
        let length = word(&self.exactly(4, "a chunk that renames").await?) as usize;
        if length >= PATH_LIMIT {
            return Err(broken(format!("a path of {length} bytes at byte {began}")));
        }
        let to = self.exactly(length, "a path").await?;
        let to: Arc<str> = checked_path(&to)?.into();
        if let Some(open) = self.open.get(from).or_else(|| self.open.get(&to)) {
            return Err(broken(format!("{} gets another name before its end", open.path)));
        }
        if let Some(from) = self.finished.take(from) {
            self.finished.insert(Arc::clone(&to));
            self.ready.push_back(Event::Rename { from, to });
        }
        Ok(())
    }

    async fn payload(&mut self, path: &str, ignored: bool, began: u64) -> Result<()> {
        let header = self.exactly(20, "the header of a chunk").await?;
        let (left, offset) = (long(&header), long(&header[8..]));
        self.begin(path, offset, left, word(&header[16..]), VecDeque::new(), ignored, began)
    }

    async fn sparse(&mut self, path: &str, began: u64) -> Result<()> {
        let header = self.exactly(24, "the header of a chunk").await?;
        let (entries, left, offset) = (word(&header), long(&header[4..]), long(&header[12..]));
        let expected = word(&header[20..]);
        if entries > MAX_MAP {
            return Err(broken(format!("a map of {entries} entries in {path} at byte {began}")));
        }
        let (mut map, mut crc) = (VecDeque::new(), crc32fast::Hasher::new());
        let mut written = 0;
        for _ in 0..entries {
            let entry = self.exactly(8, "a map").await?;
            crc.update(&entry);
            let (skip, length) = (word(&entry), word(&entry[4..]));
            written += u64::from(length);
            map.push_back((skip, length));
        }
        if written != left {
            return Err(broken(format!(
                "the map of {path} at byte {began} is of {written} bytes, the chunk of {left}"
            )));
        }
        self.begin(path, offset, left, expected, map, false, began)?;
        if let Some(payload) = &mut self.payload {
            payload.crc = crc;
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a chunk")]
    fn begin(
        &mut self,
        path: &str,
        offset: u64,
        left: u64,
        expected: u32,
        map: VecDeque<(u32, u32)>,
        ignored: bool,
        began: u64,
    ) -> Result<()> {
        let mut path: Arc<str> = path.into();
        if !ignored {
            let open = self.file(&path)?;
            path = Arc::clone(&open.path);
            if offset != open.next {
                return Err(broken(format!(
                    "a chunk of {path} at byte {began} goes to {offset} where {} is due",
                    open.next
                )));
            }
            if offset.checked_add(left).is_none() {
                return Err(broken(format!("a chunk of {path} at byte {began} has no end")));
            }
            self.open.insert(Arc::clone(&path), open);
        }
        let crc = crc32fast::Hasher::new();
        self.payload = Some(Payload { path, left, expected, crc, map, ignored, began });
        Ok(())
    }

    /// Reads a piece of the payload, or compares the checksum behind it.
    async fn go_on(&mut self, mut payload: Payload) -> Result<()> {
        if payload.left == 0 && payload.map.iter().all(|&(_, length)| length == 0) {
            let sum = payload.crc.finalize();
            if sum != payload.expected {
                return Err(broken(format!(
                    "the checksum of a chunk of {} at byte {} is {sum:#010x} instead of {:#010x}",
                    payload.path, payload.began, payload.expected
                )));
            }
            for (skip, _) in payload.map {
                self.zeros(&payload.path, u64::from(skip))?;
            }
            return Ok(());
        }
        // An entry of the map: first what it leaves out, then what it writes.
        let mut wanted = payload.left.min(PIECE as u64);
        if let Some((skip, length)) = payload.map.front_mut() {
            let skipped = u64::from(std::mem::take(skip));
            wanted = wanted.min(u64::from(*length));
            let path = Arc::clone(&payload.path);
            self.zeros(&path, skipped)?;
            if wanted == 0 {
                payload.map.pop_front();
                self.payload = Some(payload);
                return Ok(());
            }
        }
        let bytes = self.input.some(wanted).await.map_err(cannot_read)?;
        if bytes.is_empty() {
            return Err(self.cut(&format!("a chunk of {}", payload.path)));
        }
        payload.left -= bytes.len() as u64;
        payload.crc.update(&bytes);
        if let Some((_, length)) = payload.map.front_mut() {
            *length -= u32::try_from(bytes.len()).expect("a piece");
            if *length == 0 {
                payload.map.pop_front();
            }
        }
        if !payload.ignored {
            self.data(&payload.path, bytes)?;
        }
        self.payload = Some(payload);
        Ok(())
    }

    /// Gives bytes out: to the end of the file, or over what came before.
    fn data(&mut self, path: &str, mut bytes: Bytes) -> Result<()> {
        let open = self.open.get_mut(path).ok_or_else(|| broken(format!("{path} is not open")))?;
        if open.next < open.length {
            let over = usize::try_from(open.length - open.next).unwrap_or(usize::MAX);
            let patch = bytes.split_to(over.min(bytes.len()));
            let offset = open.next;
            open.next += patch.len() as u64;
            let path = Arc::clone(&open.path);
            self.ready.push_back(Event::Patch { path, offset, bytes: patch });
        }
        if !bytes.is_empty() {
            open.next += bytes.len() as u64;
            open.length = open.next;
            self.ready.push_back(Event::Data { path: Arc::clone(&open.path), bytes });
        }
        Ok(())
    }

    fn zeros(&mut self, path: &str, length: u64) -> Result<()> {
        if length == 0 {
            return Ok(());
        }
        let open = self.open.get_mut(path).ok_or_else(|| broken(format!("{path} is not open")))?;
        open.next =
            open.next.checked_add(length).ok_or_else(|| broken(format!("{path} has no end")))?;
        open.length = open.next;
        self.ready.push_back(Event::Zeros { path: Arc::clone(&open.path), length });
        Ok(())
    }
}

fn cannot_read(error: std::io::Error) -> Error {
    io_error(error, ErrorKind::Source, "cannot read the stream of files")
}

/// A path that stays where it is put.
fn checked_path(bytes: &[u8]) -> Result<String> {
    let shown = || String::from_utf8_lossy(bytes).escape_debug().to_string();
    let path = std::str::from_utf8(bytes)
        .map_err(|_| broken(format!("the path `{}` is no text", shown())))?;
    let inside = path.strip_prefix("./").unwrap_or(path);
    let safe = |part: &str| !part.is_empty() && part != "." && part != "..";
    if inside.contains(['\0', '\\']) || !inside.split('/').all(safe) {
        return Err(broken(format!("the path `{}` leads elsewhere", shown())));
    }
    Ok(inside.to_owned())
}
