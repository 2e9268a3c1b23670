//! From an address to a store.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::{Context, Error, ErrorKind, Event, Result};
use object_store::ObjectStore;
use object_store::prefix::PrefixStore;

use super::directory::{Directory, make_directory};
use super::failure::Medium;
use super::mount::{is_nfs, require_nfs};
use super::retry::Retry;
use super::s3::{Bucket, Make};
use super::throttle::Throttle;
use super::{Store, StoreOptions};
use crate::url::{BucketUrl, RepoUrl};

impl Store {
    /// Opens the store at an address. Of an object store nothing is asked yet.
    ///
    /// # Errors
    /// [`ErrorKind::Store`] when a directory is not there, or is not on NFS though the address says so;
    /// [`ErrorKind::Usage`] when an object store cannot be used with these options.
    pub async fn open(cx: &Context, url: &RepoUrl, options: &StoreOptions) -> Result<Self> {
        Store::prepare(cx, url, options, Missing::NoRepository).await
    }

    /// As [`open`](Self::open), and makes a directory where it is missing, for its owner alone. Buckets
    /// are not made: who may make one chooses much that a backup program does not know.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn make(cx: &Context, url: &RepoUrl, options: &StoreOptions) -> Result<Self> {
        Store::prepare(cx, url, options, Missing::Make).await
    }

    /// As [`open`](Self::open), where a repository says that there is something.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) async fn again(cx: &Context, url: &RepoUrl, options: &StoreOptions) -> Result<Self> {
        Store::prepare(cx, url, options, Missing::NotMounted).await
    }

    async fn prepare(
        cx: &Context,
        url: &RepoUrl,
        options: &StoreOptions,
        missing: Missing,
    ) -> Result<Self> {
        cx.check()?;
        let throttle = options.upload_limit.map(|rate| Arc::new(Throttle::new(cx, rate)));
        match url {
            RepoUrl::Local(path) => {
                let inner = directory(path, Medium::Disk, options, missing).await?;
                if is_nfs(path).unwrap_or(false) {
                    cx.event(Event::Note {
                        text: format!(
                            "{} is on NFS; written as {}, Holdfast would refuse to write where it \
                             is not mounted",
                            path.display(),
                            RepoUrl::Nfs(path.clone())
                        ),
                    });
                }
                let store = Store::new(Arc::new(inner), url.to_string());
                let root = Some(path.as_path().into());
                Ok(Store { throttle, medium: Medium::Disk, root, ..store })
            }
            RepoUrl::Nfs(path) => {
                let retry = Retry::file_server(options.patience, options.request_timeout);
                let inner =
                    retry.mounted(|| directory(path, Medium::Nfs, options, missing)).await?;
                let store = Store::new(Arc::new(inner), url.to_string());
                let root = Some(path.as_path().into());
                Ok(Store { throttle, retry, medium: Medium::Nfs, root, ..store })
            }
            RepoUrl::S3(bucket) => Store::bucket("s3", Make::S3, bucket, options, throttle),
            RepoUrl::Oss(bucket) => Store::bucket("oss", Make::Oss, bucket, options, throttle),
        }
    }

    fn bucket(
        scheme: &str,
        make: Make,
        url: &BucketUrl,
        options: &StoreOptions,
        throttle: Option<Arc<Throttle>>,
    ) -> Result<Self> {
        // The transport limits the stream itself.
        let (bucket, archive) = Bucket::open(make, url, options, throttle)?;
        let mut name = format!("{scheme}://{}", url.bucket);
        let inner: Arc<dyn ObjectStore> = if url.prefix.as_ref().is_empty() {
            Arc::new(bucket)
        } else {
            name = format!("{name}/{}", url.prefix);
            Arc::new(PrefixStore::new(bucket, url.prefix.clone()))
        };
        let retry = Retry::remote(options.patience);
        let archive = Some(Arc::new(archive));
        Ok(Store { retry, archive, medium: Medium::Bucket, ..Store::new(inner, name) })
    }
}

/// Opens a directory, or makes it. A file server that is gone answers no question about a path either,
/// so that is asked with a limit too.
async fn directory(
    path: &Path,
    medium: Medium,
    options: &StoreOptions,
    missing: Missing,
) -> Result<Directory> {
    let timeout = options.request_timeout;
    let at = path.to_owned();
    let open = tokio::task::spawn_blocking(move || {
        if medium == Medium::Nfs {
            require_nfs(&at)?;
        }
        let at: PathBuf = match std::fs::metadata(&at) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => match missing {
                Missing::Make => make_directory(&at)?,
                Missing::NoRepository => return Err(no_repository(&at)),
                Missing::NotMounted => return Err(not_mounted(&at)),
            },
            _ => at,
        };
        Directory::open(&at, medium)
    });
    let opened = match medium {
        Medium::Nfs => tokio::time::timeout(timeout, open).await.map_err(|_| {
            Error::new(
                ErrorKind::Store,
                format!("{} does not answer for {} seconds", path.display(), timeout.as_secs_f32()),
            )
            .with_remedy(
                "see that the NFS server runs and can be reached (`dmesg`, `showmount -e SERVER`)",
            )
        })?,
        _ => open.await,
    };
    opened.map_err(|e| Error::internal("the opening of a directory ended early").with_source(e))?
}

/// What it means that a directory is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// It is to be made.
    Make,
    /// There is no repository.
    NoRepository,
    /// A disk is away: to make something new in its place would help nobody.
    NotMounted,
}

fn not_mounted(path: &Path) -> Error {
    Error::new(ErrorKind::Store, format!("there is no directory {}", path.display()))
        .with_remedy("see that its disk or share is mounted, and check the address")
}

fn no_repository(path: &Path) -> Error {
    Error::new(ErrorKind::Store, format!("there is no repository in {}", path.display()))
        .with_remedy("check the address; `holdfast init` makes a new repository")
}
