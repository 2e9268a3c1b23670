//! The object store under a repository, with our rules.

mod clock;
mod directory;
mod failure;
mod listing;
mod mount;
mod open;
mod options;
mod retry;
mod s3;
mod staging;
mod thaw;
mod throttle;

use std::fmt;
use std::ops::Range;
use std::path::Path as FsPath;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backup_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use crate::key::Key;
use directory::Directory;
use failure::{Medium, failure, is_lost, is_refused, is_transient};
use retry::Retry;
use s3::Archive;
use throttle::Throttle;

pub(crate) use failure::taken;
pub use listing::{Listing, Meta};
pub use options::{Credentials, Proxy, StoreOptions};
pub use thaw::{Availability, ThawRequest, ThawSpeed};

/// An object store as a repository uses it. Cheap to clone.
///
/// What it promises, given a store that keeps the contract of [`ObjectStore`]:
///
/// - **Atomic**: an object is there as a whole or not at all. On a file system it is written under
///   another name, synced, then hard-linked to its own, and the directory is synced; in an object
///   store it is one PUT with its SHA-256, which the store checks. So what [`create`](Self::create)
///   reported as done survives a power cut.
/// - **Create-only**: no object is ever overwritten, renamed or appended to. [`CreateOnly`] has the
///   ways in which object stores are told so.
/// - **Transient failures** (time-outs, connections cut, stale handles of NFS, 408, 429, 500, 502, 503
///   and 504) are tried again a few times with growing, random pauses, or after the time that the
///   store asks for; nothing else is, and not beyond [`StoreOptions::patience`]. Where the answer to a
///   create was lost, the object is read back and compared, so a create never fails because of its own
///   first attempt.
/// - **Missing** objects are `None`, not errors: what it means that one is missing is the caller's
///   business. A missing bucket, mount or file server is an error.
/// - **Times** are those of the store's clock.
///
/// Dropping a future may leave a call under way; an object may appear after it.
///
/// [`CreateOnly`]: crate::CreateOnly
#[derive(Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    name: Arc<str>,
    medium: Medium,
    /// Where it is a directory.
    root: Option<Arc<FsPath>>,
    retry: Retry,
    /// For media that cannot limit a stream themselves.
    throttle: Option<Arc<Throttle>>,
    /// Where objects may be in an archive class.
    archive: Option<Arc<Archive>>,
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

/// What became of a removal.
#[derive(Debug)]
pub enum Deleted {
    /// The object is not there, any more or at all.
    Gone,
    /// The store does not allow it, and says why: a lock (WORM, retention, legal hold), or a missing
    /// permission. Nothing was changed.
    Refused(Error),
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
    /// Calls that were answered, whatever the answer.
    answered: AtomicU64,
}

impl Store {
    /// A store over any [`ObjectStore`]; `name` is what messages call it.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>, name: impl Into<String>) -> Self {
        Store {
            inner,
            name: name.into().into(),
            medium: Medium::Any,
            root: None,
            retry: Retry::default(),
            throttle: None,
            archive: None,
            counts: Arc::default(),
        }
    }

    /// The directory `path` of this machine, which must exist.
    ///
    /// # Errors
    /// [`ErrorKind::Store`] when it is not there, is no directory, or cannot be entered.
    pub fn local(path: &FsPath) -> Result<Self> {
        let inner = Directory::open(path, Medium::Disk)?;
        let store = Store::new(Arc::new(inner), path.display().to_string());
        Ok(Store { medium: Medium::Disk, root: Some(path.into()), ..store })
    }

    /// Waits this long before the first and at most that long before a later retry, and tries again
    /// at most `times` times. The default is 100 ms, 5 s and 5 times; for object stores and NFS 200 ms,
    /// 20 s and 12 times.
    #[must_use]
    pub fn with_retry(mut self, first: Duration, longest: Duration, times: usize) -> Self {
        self.retry = self.retry.with(first, longest, times);
        self
    }

    /// Whether its objects are files, here or on a file server.
    pub(crate) fn is_directory(&self) -> bool {
        self.root.is_some()
    }

    /// Whether it is a directory of this machine, cheap to read from.
    pub(crate) fn is_local(&self) -> bool {
        self.medium == Medium::Disk
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

    /// Creates an object.
    ///
    /// # Errors
    /// When the store fails. The object may be there all the same if the failure is of the
    /// connection; a later create of the same bytes then succeeds.
    pub async fn create(&self, key: &Key, payload: impl Into<PutPayload>) -> Result<Created> {
        let payload = payload.into();
        let path = key.path();
        let options = PutOptions::from(PutMode::Create);
        if let Some(throttle) = &self.throttle {
            throttle.pay(payload.content_length() as u64).await;
        }
        let put = || self.inner.put_opts(&path, payload.clone(), options.clone());
        let error = match self.retry(&self.counts.puts, put).await {
            Ok(_) => return Ok(Created::New),
            Err(e) => e,
        };
        let exists = matches!(error, object_store::Error::AlreadyExists { .. });
        if exists || is_transient(&error, self.medium) {
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
        Ok(self.head(key).await?.map(|meta| meta.bytes))
    }

    /// The length of an object and when it was written; `None` when there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn head(&self, key: &Key) -> Result<Option<Meta>> {
        let path = key.path();
        match self.retry(&self.counts.heads, || self.inner.head(&path)).await {
            Ok(meta) => Ok(Some(Meta::from(&meta))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.failure(e, "look at", key)),
        }
    }

    /// What a directory holds directly, sorted; nothing when there is no such directory.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list(&self, directory: &Path) -> Result<Listing> {
        self.retry(&self.counts.lists, || self.inner.list_with_delimiter(Some(directory)))
            .await
            .map(Listing::from)
            .map_err(|e| self.failure(e, "list", &format!("{directory}/")))
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
    /// When the store fails, or does not allow it ([`try_delete`](Self::try_delete) tells that
    /// apart).
    pub async fn delete(&self, key: &Key) -> Result<()> {
        self.remove(&key.path()).await
    }

    /// Removes an object, or says that the store does not allow it. In a bucket with versions, what is
    /// removed is the name; a lock keeps the bytes until it ends.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn try_delete(&self, key: &Key) -> Result<Deleted> {
        let path = key.path();
        let removed = self.try_remove(&path).await;
        self.deleted(removed, &path)
    }

    fn deleted(
        &self,
        removed: object_store::Result<()>,
        what: &dyn fmt::Display,
    ) -> Result<Deleted> {
        let Err(e) = removed else { return Ok(Deleted::Gone) };
        let refused = is_refused(&e);
        let error = self.failure(e, "remove", what);
        if refused { Ok(Deleted::Refused(error)) } else { Err(error) }
    }

    async fn remove(&self, path: &Path) -> Result<()> {
        self.try_remove(path).await.map_err(|e| self.failure(e, "remove", path))
    }

    async fn try_remove(&self, path: &Path) -> object_store::Result<()> {
        match self.retry(&self.counts.deletes, || self.inner.delete(path)).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            result => result,
        }
    }

    /// Makes sure that the store does not overwrite. Some that speak S3 ignore that they were asked not
    /// to, and Holdfast's rules are worth nothing there. `name` must be one that nobody else uses.
    pub(crate) async fn prove_create_only(&self, name: &Path) -> Result<()> {
        if self.medium != Medium::Bucket {
            return Ok(());
        }
        let put = |text: &'static str| {
            let options = PutOptions::from(PutMode::Create);
            self.retry(&self.counts.puts, move || {
                self.inner.put_opts(
                    name,
                    Bytes::from_static(text.as_bytes()).into(),
                    options.clone(),
                )
            })
        };
        let first = put("first").await;
        let second = if first.is_ok() { Some(put("second").await) } else { None };
        self.remove(name).await?;
        first.map_err(|e| self.failure(e, "write", name))?;
        match second {
            Some(Err(object_store::Error::AlreadyExists { .. })) => Ok(()),
            Some(Err(e)) => Err(self.failure(e, "write", name)),
            _ => Err(Error::new(
                ErrorKind::Store,
                format!("{} overwrites objects though it is told not to", self.name),
            )
            .with_remedy(
                "use a store with create-only puts, or add create-only=look-first to the URL after \
                 reading in docs/stores.md what that gives up",
            )),
        }
    }

    /// A failure to read. A medium that cannot give bytes back that it took is damage of what it
    /// holds, not of the way to it.
    fn unreadable(&self, error: object_store::Error, key: &Key) -> Error {
        let lost = is_lost(&error, self.medium);
        let error = self.failure(error, "read", key);
        if lost { error.with_kind(ErrorKind::Damaged).with_remedy(UNREADABLE) } else { error }
    }

    fn failure(&self, error: object_store::Error, verb: &str, what: &dyn fmt::Display) -> Error {
        failure(error, format!("cannot {verb} {what} in {}", self.name), self.medium)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.name)
    }
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
