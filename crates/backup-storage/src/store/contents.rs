//! What a store holds and when it was made, by the store's own clock; and removing with care.

use std::path::{Path as FsPath, PathBuf};

use backup_core::{Context, Error, ErrorKind, Result};
use jiff::Timestamp;
use object_store::path::Path;
use object_store::{ListResult, ObjectMeta, ObjectStoreExt};

use super::{Created, Store, io_cause, is_unfinished};
use crate::format::hex;
use crate::key::{Key, RecordName};

/// An object as its store lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    /// When it was made, by the clock of the store.
    pub(crate) modified: Timestamp,
}

/// What a directory of the store holds directly, sorted by name.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) objects: Vec<Stored>,
    /// What a local writer left unfinished, under the names of its files.
    pub(crate) staging: Vec<Stored>,
}

impl Contents {
    /// The object of that name.
    pub(crate) fn get(&self, name: impl ToString) -> Option<&Stored> {
        let name = name.to_string();
        self.objects.iter().find(|o| o.name == name)
    }
}

/// What became of a removal.
#[derive(Debug)]
pub(crate) enum Removal {
    /// It is not there any more.
    Gone,
    /// The store does not allow it: an object lock, a missing permission.
    Refused(Error),
}

impl Store {
    /// What a directory holds directly, with times; nothing when there is no such directory.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn contents(&self, directory: &Path) -> Result<Contents> {
        let contents = match &self.directory {
            Some(root) => {
                let path = root.join(directory.as_ref());
                self.retry(&self.counts.lists, || read_contents(path.clone())).await
            }
            None => self
                .retry(&self.counts.lists, || self.inner.list_with_delimiter(Some(directory)))
                .await
                .map(Contents::from),
        };
        let mut contents =
            contents.map_err(|e| self.failure(e, "list", &format!("{directory}/")))?;
        contents.objects.sort_by(|a, b| a.name.cmp(&b.name));
        contents.staging.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(contents)
    }

    /// When an object was made, by the clock of the store; `None` when there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn modified(&self, key: &Key) -> Result<Option<Timestamp>> {
        let path = key.path();
        match self.retry(&self.counts.heads, || self.inner.head(&path)).await {
            Ok(meta) => Ok(Some(modified(&meta))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.failure(e, "look at", key)),
        }
    }

    /// The time of the store's clock, from an object that is made for it and removed again. What
    /// decides about the life of backups goes by this clock: that of this machine may be wrong.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn now(&self, cx: &Context) -> Result<Timestamp> {
        let name = RecordName::new(&format!("now-{}", hex(&cx.random::<16>())))
            .ok_or_else(|| Error::internal("a name for the question of the time is no name"))?;
        let key = Key::Now(name);
        let created = self.create(&key, Vec::from(key.to_string())).await?;
        let now = self.modified(&key).await;
        // A leftover of this does no harm; it is removed later with others.
        let _ = self.delete(&key).await;
        match (created, now?) {
            (Created::New, Some(now)) => Ok(now),
            _ => Err(Error::new(
                ErrorKind::Store,
                format!("{} does not show what was just stored in it", self.name),
            )),
        }
    }

    /// Removes an object; a store that does not allow it is no failure.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn try_delete(&self, path: &Path) -> Result<Removal> {
        match self.retry(&self.counts.deletes, || self.inner.delete(path)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(Removal::Gone),
            Err(e) => {
                let refused = matches!(e, object_store::Error::PermissionDenied { .. })
                    || io_cause(&e)
                        .is_some_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied);
                let error = self.failure(e, "remove", path);
                if refused { Ok(Removal::Refused(error)) } else { Err(error) }
            }
        }
    }

    /// Removes a file that a local writer left unfinished.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn delete_staging(&self, directory: &Path, name: &str) -> Result<Removal> {
        let Some(root) = self.directory.as_deref().filter(|_| is_unfinished(name)) else {
            return Err(Error::internal(format!("{name} is no unfinished file")));
        };
        let path = root.join(directory.as_ref()).join(name);
        match remove_file(path).await {
            Ok(()) => Ok(Removal::Gone),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Removal::Gone),
            Err(e) => {
                let refused = e.kind() == std::io::ErrorKind::PermissionDenied;
                let message = format!("cannot remove {directory}/{name} in {}", self.name);
                let error = backup_core::io_error(e, ErrorKind::Store, message);
                if refused { Ok(Removal::Refused(error)) } else { Err(error) }
            }
        }
    }
}

async fn remove_file(path: PathBuf) -> std::io::Result<()> {
    tokio::task::spawn_blocking(move || std::fs::remove_file(path))
        .await
        .map_err(std::io::Error::other)?
}

fn modified(meta: &ObjectMeta) -> Timestamp {
    let time = meta.last_modified;
    let nanos = i32::try_from(time.timestamp_subsec_nanos()).unwrap_or_default();
    Timestamp::new(time.timestamp(), nanos).unwrap_or(Timestamp::MAX)
}

impl From<ListResult> for Contents {
    fn from(found: ListResult) -> Self {
        let object = |meta: &ObjectMeta| {
            Some(Stored {
                name: meta.location.filename()?.to_owned(),
                bytes: meta.size,
                modified: modified(meta),
            })
        };
        Contents { objects: found.objects.iter().filter_map(object).collect(), staging: Vec::new() }
    }
}

/// As `read_directory` beside [`Store`], for the same reasons.
async fn read_contents(path: PathBuf) -> object_store::Result<Contents> {
    let generic = |source| object_store::Error::Generic { store: "directory", source };
    match tokio::task::spawn_blocking(move || read(&path)).await {
        Ok(contents) => contents.map_err(|e| generic(e.into())),
        Err(e) => Err(generic(e.into())),
    }
}

fn read(path: &FsPath) -> std::io::Result<Contents> {
    let mut contents = Contents::default();
    let entries = match std::fs::read_dir(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(contents),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let meta = match std::fs::metadata(entry.path()) {
            Ok(meta) if meta.is_dir() => continue,
            Ok(meta) => meta,
            // It was removed just now, or is a link to nowhere.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(_) if entry.file_type()?.is_symlink() => continue,
            Err(e) => return Err(e),
        };
        let modified = Timestamp::try_from(meta.modified()?).unwrap_or(Timestamp::MAX);
        let unfinished = is_unfinished(&name);
        let stored = Stored { name, bytes: meta.len(), modified };
        if unfinished { &mut contents.staging } else { &mut contents.objects }.push(stored);
    }
    Ok(contents)
}
