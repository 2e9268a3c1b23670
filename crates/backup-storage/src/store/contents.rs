//! What a store holds and when it was made, by the store's own clock; and removing with care.

use std::error::Error as StdError;
use std::path::Path as FsPath;

use backup_core::{Context, Error, ErrorKind, Result, io_error};
use jiff::Timestamp;
use object_store::path::Path;

use super::directory::is_unfinished;
use super::failure::answer;
use super::s3::Answer;
use super::{Created, Meta, Store};
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
    /// The store does not allow it, and why: an object lock, a missing permission.
    Refused(String),
}

impl Store {
    /// What a directory holds directly, with times and what is unfinished; nothing when there is no
    /// such directory.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn contents(&self, directory: &Path) -> Result<Contents> {
        let listing = self.list(directory).await?;
        let stored = |(name, meta): (&str, Meta)| Stored {
            name: name.to_owned(),
            bytes: meta.bytes,
            modified: meta.modified,
        };
        let objects = listing.entries().map(stored).collect();
        let staging = match &self.root {
            None => Vec::new(),
            Some(root) => {
                let path = root.join(directory.as_ref());
                let read = tokio::task::spawn_blocking(move || unfinished(&path));
                read.await.map_err(std::io::Error::other).flatten().map_err(|e| {
                    let message = format!("cannot list {directory}/ in {}", self.name);
                    io_error(e, ErrorKind::Store, message)
                })?
            }
        };
        Ok(Contents { objects, staging })
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
        let now = self.head(&key).await;
        // A leftover of this does no harm; it is removed later with others.
        let _ = self.delete(&key).await;
        match (created, now?) {
            (Created::New, Some(now)) => Ok(now.modified),
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
    pub(crate) async fn remove_if_allowed(&self, key: &Key) -> Result<Removal> {
        let path = key.path();
        match self.try_remove(&path).await {
            Ok(()) => Ok(Removal::Gone),
            Err(e) => {
                let locked = answer(&e).is_some_and(Answer::is_locked);
                let refused = locked || is_forbidden(&e);
                let error = self.failure(e, "remove", &path);
                if refused { Ok(Removal::Refused(error.chain())) } else { Err(error) }
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
        let removed = tokio::task::spawn_blocking(move || std::fs::remove_file(path)).await;
        match removed.map_err(std::io::Error::other).flatten() {
            Ok(()) => Ok(Removal::Gone),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Removal::Gone),
            Err(e) => {
                let refused = e.kind() == std::io::ErrorKind::PermissionDenied;
                let message = format!("cannot remove {directory}/{name} in {}", self.name);
                let error = io_error(e, ErrorKind::Store, message);
                if refused { Ok(Removal::Refused(error.chain())) } else { Err(error) }
            }
        }
    }
}

/// Whether the account may not do it.
fn is_forbidden(error: &object_store::Error) -> bool {
    let mut cause: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(e) = cause {
        if let Some(io) = e.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::PermissionDenied
        {
            return true;
        }
        cause = e.source();
    }
    matches!(error, object_store::Error::PermissionDenied { .. })
}

/// The files in a directory that writers left unfinished, or are writing.
fn unfinished(path: &FsPath) -> std::io::Result<Vec<Stored>> {
    let entries = match std::fs::read_dir(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !is_unfinished(&name) {
            continue;
        }
        let meta = match std::fs::metadata(entry.path()) {
            Ok(meta) if meta.is_file() => meta,
            Ok(_) => continue,
            // It was finished or removed just now.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(_) if entry.file_type()?.is_symlink() => continue,
            Err(e) => return Err(e),
        };
        let modified = Timestamp::try_from(meta.modified()?).unwrap_or(Timestamp::MAX);
        found.push(Stored { name, bytes: meta.len(), modified });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}
