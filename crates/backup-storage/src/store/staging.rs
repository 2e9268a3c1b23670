//! Files that writers to a directory left half written when they died.

use std::io;
use std::path::Path as FsPath;

use backup_core::{Error, Result};
use jiff::Timestamp;
use object_store::path::Path;

use super::directory::is_unfinished;
use super::{Deleted, Meta, Store};

impl Store {
    /// Files of that kind in a directory, under the names that they have there, sorted; none where
    /// objects are no files.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn staging(&self, directory: &Path) -> Result<Vec<(String, Meta)>> {
        let Some(root) = &self.root else { return Ok(Vec::new()) };
        let path = root.join(directory.as_ref());
        let list = || {
            let path = path.clone();
            on_disk(move || read(&path))
        };
        self.retry(&self.counts.lists, list)
            .await
            .map_err(|e| self.failure(e, "list", &format!("{directory}/")))
    }

    /// Removes such a file.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn delete_staging(&self, directory: &Path, name: &str) -> Result<Deleted> {
        let Some(root) = self.root.as_deref().filter(|_| is_unfinished(name)) else {
            return Err(Error::internal(format!("{name} is no unfinished file")));
        };
        let path = root.join(directory.as_ref()).join(name);
        let remove = || {
            let path = path.clone();
            on_disk(move || match std::fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                _ => Ok(()),
            })
        };
        let removed = self.retry(&self.counts.deletes, remove).await;
        self.deleted(removed, &format!("{directory}/{name}"))
    }
}

/// Where no other task has to wait for the disk.
async fn on_disk<T: Send + 'static>(
    call: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> object_store::Result<T> {
    let result = tokio::task::spawn_blocking(call).await.map_err(io::Error::other).flatten();
    result.map_err(|e| object_store::Error::Generic { store: "directory", source: e.into() })
}

fn read(path: &FsPath) -> io::Result<Vec<(String, Meta)>> {
    let mut staging = Vec::new();
    let entries = match std::fs::read_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(staging),
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
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        let modified = Timestamp::try_from(meta.modified()?).unwrap_or(Timestamp::MAX);
        staging.push((name, Meta { bytes: meta.len(), modified }));
    }
    staging.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(staging)
}
