//! What a store holds and when it was made, by the store's own clock; and removing with care.

use std::path::{Path as FsPath, PathBuf};

use backup_core::{Context, Error, ErrorKind, Result};
use jiff::Timestamp;
use object_store::path::Path;

use super::directory::is_unfinished;
use super::{Created, Store, failure, s3};
use crate::format::hex;
use crate::key::{BackupObject, Key, RecordName};

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
    pub(crate) fn get(&self, object: BackupObject) -> Option<&Stored> {
        self.named(&object.to_string())
    }

    /// The object of that name.
    pub(crate) fn named(&self, name: &str) -> Option<&Stored> {
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
    /// Whether its objects are files, here or on a file server.
    pub(crate) fn is_directory(&self) -> bool {
        self.root.is_some()
    }

    /// What a directory holds directly, with times; nothing when there is no such directory.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn contents(&self, directory: &Path) -> Result<Contents> {
        let objects = self
            .list(directory)
            .await?
            .entries()
            .map(|(name, meta)| Stored {
                name: name.to_owned(),
                bytes: meta.bytes,
                modified: meta.modified,
            })
            .collect();
        let mut staging = match &self.root {
            Some(root) => read_staging(root.join(directory.as_ref())).await.map_err(|e| {
                let message = format!("cannot list {directory}/ in {}", self.name());
                backup_core::io_error(e, ErrorKind::Store, message)
            })?,
            None => Vec::new(),
        };
        staging.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Contents { objects, staging })
    }

    /// When an object was made, by the clock of the store; `None` when there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn modified(&self, key: &Key) -> Result<Option<Timestamp>> {
        Ok(self.head(key).await?.map(|meta| meta.modified))
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
    pub(crate) async fn remove_if_allowed(&self, path: &Path) -> Result<Removal> {
        match self.try_remove(path).await {
            Ok(()) => Ok(Removal::Gone),
            Err(e) => {
                let refused = failure::answer(&e).is_some_and(s3::Answer::is_locked)
                    || failure::is_forbidden(&e);
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
        let Some(root) = self.root.as_deref().filter(|_| is_unfinished(name)) else {
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

/// What writers that died left in a directory of this machine.
async fn read_staging(path: PathBuf) -> std::io::Result<Vec<Stored>> {
    tokio::task::spawn_blocking(move || read(&path)).await.map_err(std::io::Error::other)?
}

fn read(path: &FsPath) -> std::io::Result<Vec<Stored>> {
    let mut staging = Vec::new();
    let entries = match std::fs::read_dir(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(staging),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !is_unfinished(&name) {
            continue;
        }
        let meta = match std::fs::symlink_metadata(entry.path()) {
            Ok(meta) => meta,
            // It was finished just now.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        let modified = Timestamp::try_from(meta.modified()?).unwrap_or(Timestamp::MAX);
        staging.push(Stored { name, bytes: meta.len(), modified });
    }
    Ok(staging)
}
