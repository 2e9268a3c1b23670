//! A directory of this machine, or of a file server, as an object store.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};

use async_trait::async_trait;
use backup_core::{Error, ErrorKind, Result, io_error};
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

use super::failure::{Medium, failure};
use super::mount::Mount;

/// [`LocalFileSystem`], and what it does not do: keep off a mount point whose file system is gone,
/// never wait for a named pipe, and tell an object that is missing from one that something else
/// stands in for.
#[derive(Debug)]
pub(super) struct Directory {
    inner: LocalFileSystem,
    root: PathBuf,
    mount: Mount,
}

const ENOENT: i32 = 2;
const ELOOP: i32 = 40;

type StoreResult<T> = object_store::Result<T>;

impl Directory {
    /// The directory `path`, which must exist.
    pub(super) fn open(path: &FsPath, medium: Medium) -> Result<Self> {
        let shown = path.display();
        let cannot = |e| io_error(e, ErrorKind::Store, format!("cannot open {shown}"));
        let meta = std::fs::metadata(path).map_err(cannot)?;
        if !meta.is_dir() {
            return Err(Error::new(
                ErrorKind::Store,
                format!("{shown} is a file, not a directory"),
            )
            .with_remedy("name the directory that holds the repository"));
        }
        let root = std::path::absolute(path).map_err(cannot)?;
        let mount = Mount::of(&root).map_err(cannot)?;
        let inner = LocalFileSystem::new_with_prefix(path)
            .map_err(|e| failure(e, format!("cannot open {shown}"), medium))?
            .with_fsync(true)
            .with_automatic_cleanup(true);
        Ok(Directory { inner, root, mount })
    }

    /// Whether the file system is still the one that was there when the store was opened.
    async fn check_mount(&self) -> StoreResult<()> {
        let mount = self.mount.clone();
        blocking(move || mount.check()).await?.map_err(|e| generic(e.into()))
    }

    /// What an object is, without opening it: to open a named pipe would wait for a writer.
    async fn check_object(&self, at: &Path) -> StoreResult<()> {
        let path = self.inner.path_to_filesystem(at)?;
        let what = blocking(move || what_else(&path)).await?;
        match what {
            None => Ok(()),
            Some(what) => Err(generic(
                Error::damaged(format!("{at} is {what}, not a file"))
                    .with_remedy("put the file back from a copy of the repository")
                    .into(),
            )),
        }
    }

    /// A missing object in a file system that is gone is not missing.
    async fn or_mount_is_lost<T>(&self, result: StoreResult<T>) -> StoreResult<T> {
        if matches!(result, Err(object_store::Error::NotFound { .. })) {
            self.check_mount().await?;
        }
        result
    }
}

/// Runs what blocks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> StoreResult<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|e| generic(e.into())),
        Err(e) => Err(generic(e.into())),
    }
}

fn generic(source: Box<dyn std::error::Error + Send + Sync>) -> object_store::Error {
    object_store::Error::Generic { store: "directory", source }
}

/// What stands where an object could be; `None` for an object, a directory and nothing.
fn what_else(path: &FsPath) -> io::Result<Option<&'static str>> {
    use std::os::unix::fs::FileTypeExt;
    let found = match std::fs::metadata(path) {
        Ok(meta) => meta.file_type(),
        Err(e) => {
            let link = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
            return Ok(match e.raw_os_error() {
                Some(ENOENT) if link => Some("a symbolic link to nowhere"),
                Some(ELOOP) if link => Some("a symbolic link to itself"),
                // What opens it says what is wrong.
                _ => None,
            });
        }
    };
    Ok(if found.is_fifo() {
        Some("a named pipe")
    } else if found.is_socket() {
        Some("a socket")
    } else if found.is_block_device() || found.is_char_device() {
        Some("a device")
    } else {
        None
    })
}

#[async_trait]
impl ObjectStore for Directory {
    async fn put_opts(
        &self,
        at: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        self.check_mount().await?;
        self.inner.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.check_mount().await?;
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.check_object(at).await?;
        let found = self.inner.get_opts(at, options).await;
        self.or_mount_is_lost(found).await
    }

    async fn get_ranges(&self, at: &Path, ranges: &[Range<u64>]) -> StoreResult<Vec<Bytes>> {
        self.check_object(at).await?;
        let found = self.inner.get_ranges(at, ranges).await;
        self.or_mount_is_lost(found).await
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(at)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    /// `LocalFileSystem` gives up where one name is not UTF-8, holds a control character, or is a link
    /// that leads in circles; such a thing is not ours, and must not hide what is.
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        let prefix = prefix.cloned().unwrap_or_default();
        let path = self.root.join(prefix.as_ref());
        let (found, is_there) = blocking(move || read_directory(&path, &prefix)).await?;
        if !is_there {
            self.check_mount().await?;
        }
        Ok(found)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.check_mount().await?;
        self.inner.copy_opts(from, to, options).await
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Directory({})", self.root.display())
    }
}

/// Lists a directory, and whether it is there.
fn read_directory(path: &FsPath, prefix: &Path) -> io::Result<(ListResult, bool)> {
    let mut found = ListResult {
        common_prefixes: Vec::new(),
        objects: Vec::new(),
        extensions: Default::default(),
    };
    let entries = match std::fs::read_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((found, false)),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // No key has such a name.
        let Ok(location) = Path::parse(format!("{prefix}/{name}")) else { continue };
        match std::fs::metadata(entry.path()) {
            Ok(meta) if meta.is_dir() => found.common_prefixes.push(location),
            Ok(_) if is_unfinished(&name) => {}
            Ok(meta) => {
                found.objects.push(ObjectMeta {
                    location,
                    last_modified: meta.modified()?.into(),
                    size: meta.len(),
                    e_tag: None,
                    version: None,
                });
            }
            // It was removed just now, or is a link to nowhere.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(_) if entry.file_type()?.is_symlink() => {}
            Err(e) => return Err(e),
        }
    }
    Ok((found, true))
}

/// Whether `LocalFileSystem` gives files that are being written such a name.
pub(super) fn is_unfinished(name: &str) -> bool {
    name.split_once('#')
        .is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

/// A directory that is made where it is missing, for its user alone: backups hold everything that
/// the database does.
pub(super) fn make_directory(path: &FsPath) -> Result<PathBuf> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    let message = || format!("cannot make the directory {}", path.display());
    let absolute =
        std::path::absolute(path).map_err(|e| io_error(e, ErrorKind::Store, message()))?;
    match builder.create(&absolute) {
        Ok(()) => Ok(absolute),
        // A file in the way is named when it is opened.
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(absolute),
        Err(e) => Err(io_error(e, ErrorKind::Store, message())),
    }
}
