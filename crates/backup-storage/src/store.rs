//! The object store under a repository, with our rules.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use backup_core::{Error, ErrorKind, Result, io_error};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    GetOptions, ListResult, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    PutPayload,
};

use crate::key::Key;

mod contents;
pub(crate) use contents::{Contents, Removal};

/// An object store as a repository uses it. Cheap to clone.
///
/// What it promises, given a store that keeps the contract of [`ObjectStore`]:
///
/// - **Atomic**: an object is there as a whole or not at all. On a local file system it is written
///   under another name, synced, then hard-linked to its own, and the directory is synced; so what
///   [`create`](Self::create) reported as done survives a power cut.
/// - **Create-only**: no object is ever overwritten, renamed or appended to.
/// - **Transient failures** (time-outs, connections cut, stale handles of NFS) are tried again a few
///   times with growing pauses; nothing else is. Where the answer to a create was lost, the object is
///   read back and compared, so a create never fails because of its own first attempt.
/// - **Missing** objects are `None`, not errors: what it means that one is missing is the caller's
///   business.
///
/// Dropping a future may leave a call under way; an object may appear after it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    /// Where it is a directory of this machine.
    directory: Option<Arc<FsPath>>,
    name: Arc<str>,
    retry: ExponentialBuilder,
    counts: Arc<Counters>,
}

const UNREADABLE: &str = "see what the system's log says about the disk or the mount; when it is \
                          well again, run `holdfast verify --level content`";

/// What became of a create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The object is there now, with the bytes given.
    New,
    /// Another object has the name; nothing was changed.
    Exists,
}

/// How many calls a [`Store`] made, retries included.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct StoreCounts {
    /// Objects written.
    pub puts: u64,
    /// Objects read, in part or as a whole.
    pub gets: u64,
    /// Lengths asked for.
    pub heads: u64,
    /// Listings.
    pub lists: u64,
    /// Objects removed.
    pub deletes: u64,
}

#[derive(Debug, Default)]
struct Counters {
    puts: AtomicU64,
    gets: AtomicU64,
    heads: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
}

/// What a directory of the store holds directly.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Names of objects with their lengths.
    pub(crate) objects: Vec<(String, u64)>,
    /// Names of directories.
    pub(crate) directories: Vec<String>,
}

impl From<ListResult> for Listing {
    fn from(found: ListResult) -> Self {
        let name = |path: &Path| path.filename().map(str::to_owned);
        let object = |meta: &ObjectMeta| Some((name(&meta.location)?, meta.size));
        Listing {
            objects: found.objects.iter().filter_map(object).collect(),
            directories: found.common_prefixes.iter().filter_map(name).collect(),
        }
    }
}

impl Store {
    /// A store over any [`ObjectStore`]; `name` is what messages call it.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>, name: impl Into<String>) -> Self {
        Store {
            inner,
            directory: None,
            name: name.into().into(),
            retry: ExponentialBuilder::default()
                .with_min_delay(Duration::from_millis(100))
                .with_max_delay(Duration::from_secs(5))
                .with_max_times(5)
                .with_jitter(),
            counts: Arc::default(),
        }
    }

    /// The directory `path` of this machine, which must exist.
    ///
    /// # Errors
    /// [`ErrorKind::Store`] when it is not there, is no directory, or cannot be entered.
    pub fn local(path: &FsPath) -> Result<Self> {
        let shown = path.display();
        let meta = std::fs::metadata(path)
            .map_err(|e| io_error(e, ErrorKind::Store, format!("cannot open {shown}")))?;
        if !meta.is_dir() {
            return Err(Error::new(
                ErrorKind::Store,
                format!("{shown} is a file, not a directory"),
            )
            .with_remedy("name the directory that holds the repository"));
        }
        let inner = LocalFileSystem::new_with_prefix(path)
            .map_err(|e| failure(e, format!("cannot open {shown}")))?
            .with_fsync(true)
            .with_automatic_cleanup(true);
        let directory = std::path::absolute(path)
            .map_err(|e| io_error(e, ErrorKind::Store, format!("cannot open {shown}")))?;
        let store = Store::new(Arc::new(inner), shown.to_string());
        Ok(Store { directory: Some(directory.into()), ..store })
    }

    /// Waits this long before the first and at most that long before a later retry, and tries again
    /// at most `times` times. The default is 100 ms, 5 s and 5 times.
    #[must_use]
    pub fn with_retry(mut self, first: Duration, longest: Duration, times: usize) -> Self {
        self.retry = self.retry.with_min_delay(first).with_max_delay(longest).with_max_times(times);
        self
    }

    /// Whether it is a directory of this machine, cheap to read from.
    pub(crate) fn is_local(&self) -> bool {
        self.directory.is_some()
    }

    /// What messages call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How many calls were made so far, over all clones.
    #[must_use]
    pub fn counts(&self) -> StoreCounts {
        let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
        StoreCounts {
            puts: get(&self.counts.puts),
            gets: get(&self.counts.gets),
            heads: get(&self.counts.heads),
            lists: get(&self.counts.lists),
            deletes: get(&self.counts.deletes),
        }
    }

    async fn retry<T, F: Future<Output = object_store::Result<T>>>(
        &self,
        counter: &AtomicU64,
        call: impl Fn() -> F,
    ) -> object_store::Result<T> {
        let call = || {
            counter.fetch_add(1, Ordering::Relaxed);
            call()
        };
        call.retry(self.retry).when(is_transient).await
    }

    /// Creates an object.
    ///
    /// # Errors
    /// When the store fails. The object may be there all the same if the failure is of the
    /// connection; a later create of the same bytes then succeeds.
    pub async fn create(&self, key: &Key, payload: impl Into<PutPayload>) -> Result<Created> {
        let payload = payload.into();
        let path = key.path();
        let options = PutOptions::from(PutMode::Create);
        let put = || self.inner.put_opts(&path, payload.clone(), options.clone());
        let error = match self.retry(&self.counts.puts, put).await {
            Ok(_) => return Ok(Created::New),
            Err(e) => e,
        };
        let exists = matches!(error, object_store::Error::AlreadyExists { .. });
        if exists || is_transient(&error) {
            // The answer to an earlier attempt may have been lost: to one of ours, or to one that
            // the client of a network file system repeated by itself.
            let limit = payload.content_length() as u64;
            match self.get(key, limit).await {
                Ok(Some(found)) if is_same(&found, &payload) => return Ok(Created::New),
                _ if exists => return Ok(Created::Exists),
                _ => {}
            }
        }
        Err(self.failure(error, "write", key))
    }

    /// Reads a whole object of at most `limit` bytes; `None` when there is none.
    ///
    /// # Errors
    /// When the store fails; [`ErrorKind::Damaged`] when the object is longer than `limit`, or the
    /// medium cannot give it back.
    pub async fn get(&self, key: &Key, limit: u64) -> Result<Option<Bytes>> {
        let path = key.path();
        let result = self
            .retry(&self.counts.gets, || async {
                let found = self.inner.get_opts(&path, GetOptions::default()).await?;
                if found.meta.size > limit {
                    return Ok(Err(found.meta.size));
                }
                found.bytes().await.map(Ok)
            })
            .await;
        match result {
            Ok(Ok(bytes)) => Ok(Some(bytes)),
            Ok(Err(size)) => {
                Err(Error::damaged(format!("{key} has {size} bytes, more than it can have")))
            }
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.unreadable(e, key)),
        }
    }

    /// Reads a part of an object; `None` when there is none. Gives fewer bytes than asked for only
    /// where the object ends before.
    ///
    /// # Errors
    /// When the store fails; [`ErrorKind::Damaged`] when the medium cannot give the bytes back.
    pub async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>> {
        let path = key.path();
        let options = GetOptions::new().with_range(Some(range.clone()));
        let result = self
            .retry(&self.counts.gets, || async {
                self.inner.get_opts(&path, options.clone()).await?.bytes().await
            })
            .await;
        match result {
            Ok(bytes) => Ok(Some(bytes)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => match self.len(key).await {
                // Stores answer a range behind the end in their own ways.
                Ok(Some(len)) if len <= range.start => Ok(Some(Bytes::new())),
                Ok(None) => Ok(None),
                _ => Err(self.unreadable(e, key)),
            },
        }
    }

    /// The length of an object; `None` when there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn len(&self, key: &Key) -> Result<Option<u64>> {
        let path = key.path();
        match self.retry(&self.counts.heads, || self.inner.head(&path)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.failure(e, "look at", key)),
        }
    }

    /// What a directory holds directly, sorted; nothing when there is no such directory.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn list(&self, directory: &Path) -> Result<Listing> {
        let listing = match &self.directory {
            Some(root) => {
                let path = root.join(directory.as_ref());
                self.retry(&self.counts.lists, || read_directory(path.clone())).await
            }
            None => self
                .retry(&self.counts.lists, || self.inner.list_with_delimiter(Some(directory)))
                .await
                .map(Listing::from),
        };
        let mut listing = listing.map_err(|e| self.failure(e, "list", &format!("{directory}/")))?;
        listing.objects.sort();
        listing.directories.sort();
        Ok(listing)
    }

    /// Whether the store holds nothing at all. What mkfs puts into a new file system does not count.
    pub(crate) async fn is_empty(&self) -> Result<bool> {
        let found = self.list(&Path::default()).await?;
        Ok(found.objects.is_empty() && found.directories.iter().all(|d| d == "lost+found"))
    }

    /// Removes whatever stands under a directory, `last` after all others.
    pub(crate) async fn remove_all(&self, directory: &Path, last: &str) -> Result<()> {
        let found: Vec<Path> = self
            .retry(&self.counts.lists, || async {
                self.inner.list(Some(directory)).map_ok(|meta| meta.location).try_collect().await
            })
            .await
            .map_err(|e| self.failure(e, "list", &format!("{directory}/")))?;
        let (end, rest): (Vec<Path>, Vec<Path>) =
            found.into_iter().partition(|path| path.filename() == Some(last));
        for path in rest.iter().chain(&end) {
            self.remove(path).await?;
        }
        Ok(())
    }

    /// Removes an object; it is no error when there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn delete(&self, key: &Key) -> Result<()> {
        self.remove(&key.path()).await
    }

    async fn remove(&self, path: &Path) -> Result<()> {
        match self.retry(&self.counts.deletes, || self.inner.delete(path)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.failure(e, "remove", path)),
        }
    }

    /// A failure to read. A medium that cannot give bytes back that it took is damage of what it
    /// holds, not of the way to it.
    fn unreadable(&self, error: object_store::Error, key: &Key) -> Error {
        const EIO: i32 = 5;
        let lost = io_cause(&error).and_then(std::io::Error::raw_os_error) == Some(EIO);
        let error = self.failure(error, "read", key);
        if lost { error.with_kind(ErrorKind::Damaged).with_remedy(UNREADABLE) } else { error }
    }

    fn failure(&self, error: object_store::Error, verb: &str, what: &dyn fmt::Display) -> Error {
        failure(error, format!("cannot {verb} {what} in {}", self.name))
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.name)
    }
}

/// A directory that is made where it is missing, for its user alone: backups hold everything that
/// the database does.
pub(crate) fn make_directory(path: &FsPath) -> Result<PathBuf> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    let message = || format!("cannot make the directory {}", path.display());
    let absolute =
        std::path::absolute(path).map_err(|e| io_error(e, ErrorKind::Store, message()))?;
    match builder.create(&absolute) {
        Ok(()) => Ok(absolute),
        // A file in the way is named by Store::local.
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(absolute),
        Err(e) => Err(io_error(e, ErrorKind::Store, message())),
    }
}

/// Lists a directory of this machine. `LocalFileSystem` gives up where one name is not UTF-8, holds a
/// control character, or is a link that leads in circles; such a thing is not ours, and must not hide
/// what is.
async fn read_directory(path: PathBuf) -> object_store::Result<Listing> {
    let read = move || {
        let mut listing = Listing::default();
        let entries = match std::fs::read_dir(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(listing),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            match std::fs::metadata(entry.path()) {
                Ok(meta) if meta.is_dir() => listing.directories.push(name),
                Ok(_) if is_unfinished(&name) => {}
                Ok(meta) => listing.objects.push((name, meta.len())),
                // It was removed just now, or is a link to nowhere.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(_) if entry.file_type()?.is_symlink() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(listing)
    };
    let generic = |source| object_store::Error::Generic { store: "directory", source };
    match tokio::task::spawn_blocking(read).await {
        Ok(listing) => listing.map_err(|e: std::io::Error| generic(e.into())),
        Err(e) => Err(generic(e.into())),
    }
}

/// Whether `LocalFileSystem` gives files that are being written such a name.
fn is_unfinished(name: &str) -> bool {
    name.split_once('#')
        .is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn is_same(found: &Bytes, payload: &PutPayload) -> bool {
    let mut rest = &found[..];
    found.len() == payload.content_length()
        && payload.iter().all(|part| {
            let (head, tail) = rest.split_at(part.len());
            rest = tail;
            head == part
        })
}

/// The I/O error at the root of a store's error.
fn io_cause(error: &object_store::Error) -> Option<&std::io::Error> {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(e) = cause {
        if let Some(io) = e.downcast_ref() {
            return Some(io);
        }
        cause = e.source();
    }
    None
}

fn is_transient(error: &object_store::Error) -> bool {
    use std::io::ErrorKind as Io;
    io_cause(error).is_some_and(|e| {
        matches!(
            e.kind(),
            Io::Interrupted
                | Io::WouldBlock
                | Io::TimedOut
                | Io::ConnectionReset
                | Io::ConnectionAborted
                | Io::ConnectionRefused
                | Io::NotConnected
                | Io::BrokenPipe
                | Io::NetworkDown
                | Io::NetworkUnreachable
                | Io::HostUnreachable
                | Io::StaleNetworkFileHandle
        )
    })
}

fn failure(error: object_store::Error, message: String) -> Error {
    let Some(cause) = io_cause(&error) else {
        return Error::new(ErrorKind::Store, message).with_source(error);
    };
    // The same cause without the layers in between, which say "Unable to copy data to file".
    let plain = cause.raw_os_error().map(std::io::Error::from_raw_os_error);
    let judged = io_error(std::io::Error::from(cause.kind()), ErrorKind::Store, message.clone());
    let result = Error::new(judged.kind(), message).with_remedy(judged.remedy().to_owned());
    match plain {
        Some(plain) => result.with_source(plain),
        None => result.with_source(error),
    }
}
