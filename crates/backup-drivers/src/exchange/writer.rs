//! Files that appear whole or not at all.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use backup_core::{Error, ErrorKind, Result, io_error};
use bytes::Bytes;
use tempfile::{NamedTempFile, TempDir};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::codec::Codec;
use super::sums::{self, SumKind, Summing, Sums};

/// How many pieces wait for the thread that writes.
const QUEUE: usize = 8;

/// Where files go: one file, a directory of them, or a pipe. Nothing that is there is written over;
/// file and directory get their name when everything is in them and on the disk.
pub struct FileSet {
    place: Place,
    codec: Codec,
    sums: Sums,
    written: Mutex<Vec<WrittenFile>>,
}

enum Place {
    Stdout,
    File(PathBuf),
    Directory { path: PathBuf, partial: TempDir },
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFile {
    /// Its path: relative to the directory, where it is in one.
    pub name: String,
    /// Its length as it is on the disk.
    pub bytes: u64,
    /// Its digests, as 32 or 64 hexadecimal digits.
    pub sums: Vec<(SumKind, String)>,
}

impl FileSet {
    /// One stream to standard output.
    #[must_use]
    pub fn stdout(codec: Codec) -> Self {
        FileSet { place: Place::Stdout, codec, sums: Sums::default(), written: Mutex::default() }
    }

    /// One file. Its digests go into files beside it.
    ///
    /// # Errors
    /// [`ErrorKind::Target`] when it, or a file of digests, is there already.
    pub fn file(path: &Path, codec: Codec, sums: Sums) -> Result<Self> {
        let kinds = [(SumKind::Sha256, sums.sha256), (SumKind::Md5, sums.md5)];
        let beside = kinds.iter().filter(|(_, wanted)| *wanted).map(|(k, _)| beside(path, *k));
        for path in [path.to_owned()].into_iter().chain(beside) {
            if path.symlink_metadata().is_ok() {
                return Err(is_there(&path));
            }
        }
        Ok(FileSet { place: Place::File(path.to_owned()), codec, sums, written: Mutex::default() })
    }

    /// A directory, which may be there if it is empty. The digests of its files go into
    /// `holdfast.sha256` and `holdfast.md5` in it.
    ///
    /// # Errors
    /// [`ErrorKind::Target`] when something is in it; what the operating system says.
    pub fn directory(path: &Path, codec: Codec, sums: Sums) -> Result<Self> {
        match std::fs::read_dir(path) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(is_there(path));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(cannot(e, path)),
        }
        let partial = tempfile::Builder::new()
            .prefix(".holdfast-export-")
            .tempdir_in(parent(path))
            .map_err(|e| cannot(e, path))?;
        let place = Place::Directory { path: path.to_owned(), partial };
        Ok(FileSet { place, codec, sums, written: Mutex::default() })
    }

    /// Whether everything goes into one stream.
    #[must_use]
    pub fn is_single(&self) -> bool {
        !matches!(self.place, Place::Directory { .. })
    }

    /// Begins a file, which is the file where there is only one. The extension of the codec is added
    /// to names in a directory.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn create(&self, name: &str) -> Result<FileWriter> {
        self.create_as(name, self.codec)
    }

    /// Begins a file that is not compressed, whatever the others are.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_plain(&self, name: &str) -> Result<FileWriter> {
        self.create_as(name, Codec::Plain)
    }

    fn create_as(&self, name: &str, codec: Codec) -> Result<FileWriter> {
        let (out, shown, name) = match &self.place {
            Place::Stdout => (Out::Stdout(io::stdout()), PathBuf::from("-"), "-".to_owned()),
            Place::File(path) => {
                let file = NamedTempFile::with_prefix_in(".holdfast-export-", parent(path))
                    .map_err(|e| cannot(e, path))?;
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                (
                    Out::Temporary(BufWriter::with_capacity(256 << 10, file), path.clone()),
                    path.clone(),
                    name,
                )
            }
            Place::Directory { partial, .. } => {
                let name = format!("{name}{}", codec.extension());
                let path = partial.path().join(&name);
                std::fs::create_dir_all(parent(&path)).map_err(|e| cannot(e, &path))?;
                let file = File::create_new(&path).map_err(|e| cannot(e, &path))?;
                (Out::File(BufWriter::with_capacity(256 << 10, file)), path, name)
            }
        };
        let sink = Sink { out, summing: Summing::new(self.sums), bytes: 0 };
        let (pieces, queue) = mpsc::channel(QUEUE);
        let thread = tokio::task::spawn_blocking(move || {
            write_all(sink, codec, queue).map_err(|e| match e {
                Failed::Io(e) => cannot(e, &shown),
                Failed::There(path) => is_there(&path),
            })
        });
        Ok(FileWriter { pieces, thread, name })
    }

    /// Takes note of a finished file.
    fn add(&self, file: WrittenFile) {
        self.written.lock().expect("no panic while the list is locked").push(file);
    }

    /// Ends the set: writes the digests, gives the directory its name. Gives what was written.
    ///
    /// # Errors
    /// [`ErrorKind::Target`] when something came to be at the place meanwhile; what the operating
    /// system says.
    pub async fn finish(self) -> Result<Vec<WrittenFile>> {
        tokio::task::spawn_blocking(move || self.finish_now())
            .await
            .map_err(|e| Error::internal("the end of an export panicked").with_source(e))?
    }

    fn finish_now(self) -> Result<Vec<WrittenFile>> {
        let mut written = self.written.into_inner().expect("no panic while the list is locked");
        written.sort_by(|a, b| a.name.cmp(&b.name));
        for kind in [SumKind::Sha256, SumKind::Md5] {
            let mut text = String::new();
            for file in &written {
                if let Some((_, sum)) = file.sums.iter().find(|(k, _)| *k == kind) {
                    text.push_str(&sums::line(sum, &file.name));
                }
            }
            let path = match &self.place {
                _ if text.is_empty() => continue,
                Place::Stdout => continue,
                Place::File(path) => beside(path, kind),
                Place::Directory { partial, .. } => {
                    partial.path().join(format!("holdfast.{}", kind.extension()))
                }
            };
            let write = || {
                let mut file = File::create_new(&path)?;
                file.write_all(text.as_bytes())?;
                file.sync_all()
            };
            write().map_err(|e| match e.kind() {
                io::ErrorKind::AlreadyExists => is_there(&path),
                _ => cannot(e, &path),
            })?;
        }
        match self.place {
            Place::Stdout => {}
            Place::File(path) => sync_directory(parent(&path)).map_err(|e| cannot(e, &path))?,
            Place::Directory { path, partial } => {
                let fail = |e| cannot(e, &path);
                sync_tree(partial.path()).map_err(fail)?;
                // Takes the place of an empty directory, and of nothing else.
                std::fs::rename(partial.path(), &path).map_err(|e| match e.kind() {
                    io::ErrorKind::DirectoryNotEmpty
                    | io::ErrorKind::AlreadyExists
                    | io::ErrorKind::NotADirectory => is_there(&path),
                    _ => fail(e),
                })?;
                // There is nothing under its old name to be removed.
                let _ = partial.keep();
                sync_directory(parent(&path)).map_err(fail)?;
            }
        }
        Ok(written)
    }
}

/// One file being written. Dropped before its end it leaves nothing, but for a pipe.
pub struct FileWriter {
    pieces: mpsc::Sender<Bytes>,
    thread: JoinHandle<Result<WrittenFile>>,
    name: String,
}

impl FileWriter {
    /// Appends bytes, before they are compressed.
    ///
    /// # Errors
    /// What the operating system says of those before, such as [`ErrorKind::Space`].
    pub async fn write(&mut self, bytes: impl Into<Bytes>) -> Result<()> {
        if self.pieces.send(bytes.into()).await.is_ok() {
            return Ok(());
        }
        match (&mut self.thread).await {
            Ok(Err(e)) => Err(e),
            Ok(Ok(_)) => Err(Error::internal("a file ended before its last byte")),
            Err(e) => Err(Error::internal("the writing of a file panicked").with_source(e)),
        }
    }

    /// Ends the file: all of it is on the disk.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn finish(self, set: &FileSet) -> Result<WrittenFile> {
        let FileWriter { pieces, thread, name } = self;
        // An empty piece says that this is the end and not a failure.
        let _ = pieces.send(Bytes::new()).await;
        drop(pieces);
        let written = thread
            .await
            .map_err(|e| Error::internal("the writing of a file panicked").with_source(e))??;
        let written = WrittenFile { name, ..written };
        set.add(written.clone());
        Ok(written)
    }
}

enum Failed {
    Io(io::Error),
    There(PathBuf),
}

fn write_all(
    sink: Sink,
    codec: Codec,
    mut queue: mpsc::Receiver<Bytes>,
) -> std::result::Result<WrittenFile, Failed> {
    let shared = SharedSink(Arc::new(Mutex::new(Some(sink))));
    let mut encoder = codec.encoder(shared.clone()).map_err(Failed::Io)?;
    let mut whole = false;
    while let Some(piece) = queue.blocking_recv() {
        whole = piece.is_empty();
        encoder.write_all(&piece).map_err(Failed::Io)?;
    }
    if !whole {
        // Its reader is gone: nobody wants the file any more.
        return Err(Failed::Io(io::ErrorKind::Interrupted.into()));
    }
    encoder.finish().map_err(Failed::Io)?;
    let sink = shared.0.lock().expect("one thread alone uses it").take();
    sink.expect("it is taken once").finish()
}

/// The sink, shared with an encoder that does not give it back.
#[derive(Clone)]
struct SharedSink(Arc<Mutex<Option<Sink>>>);

impl Write for SharedSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *self.0.lock().expect("one thread alone uses it") {
            Some(sink) => sink.write(bytes),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The compressed bytes on their way.
struct Sink {
    out: Out,
    summing: Summing,
    bytes: u64,
}

enum Out {
    Stdout(io::Stdout),
    File(BufWriter<File>),
    Temporary(BufWriter<NamedTempFile>, PathBuf),
}

impl Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match &mut self.out {
            Out::Stdout(out) => out.write(bytes),
            Out::File(out) => out.write(bytes),
            Out::Temporary(out, _) => out.write(bytes),
        }?;
        self.summing.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn finish(self) -> std::result::Result<WrittenFile, Failed> {
        let io = Failed::Io;
        match self.out {
            Out::Stdout(mut out) => out.flush().map_err(io)?,
            Out::File(out) => {
                let file = out.into_inner().map_err(|e| io(e.into_error()))?;
                file.sync_all().map_err(io)?;
            }
            Out::Temporary(out, path) => {
                let file = out.into_inner().map_err(|e| io(e.into_error()))?;
                file.as_file().sync_all().map_err(io)?;
                file.persist_noclobber(&path).map_err(|e| match e.error.kind() {
                    io::ErrorKind::AlreadyExists => Failed::There(path),
                    _ => io(e.error),
                })?;
            }
        }
        Ok(WrittenFile { name: String::new(), bytes: self.bytes, sums: self.summing.finish() })
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Where the digest of a single file goes.
fn beside(path: &Path, kind: SumKind) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(kind.extension());
    name.into()
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn sync_tree(path: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        }
    }
    sync_directory(path)
}

fn is_there(path: &Path) -> Error {
    Error::new(ErrorKind::Target, format!("{} is there already", path.display()))
        .with_remedy("give another --output, or remove it: nothing is written over")
}

fn cannot(error: io::Error, path: &Path) -> Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Error::new(ErrorKind::Target, "whatever reads standard output has ended")
            .with_source(error)
            .with_remedy("see what it said, and export again");
    }
    let error = io_error(error, ErrorKind::Target, format!("cannot write {}", path.display()));
    match error.kind() {
        ErrorKind::Target => {
            error.with_remedy("name a place in a directory that is there and can be written")
        }
        _ => error,
    }
}
