//! The last step of what others than us wrote into a restored directory.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;

use backup_core::{ErrorKind, Result, io_error};

use super::catalog::Catalog;

/// Gives what a tool or a private server made there to whom the other files belong, and syncs everything.
///
/// # Errors
/// [`ErrorKind::Target`] when the directory cannot be read or written.
pub(crate) fn settle(directory: &Path, catalog: &Catalog) -> Result<()> {
    let failed =
        |e| io_error(e, ErrorKind::Target, format!("cannot finish {}", directory.display()));
    let first = catalog.files().find(|entry| !entry.path.contains('/'));
    let of = first.map_or_else(|| directory.to_owned(), |entry| directory.join(&entry.path));
    let owner = std::fs::metadata(of).or_else(|_| std::fs::metadata(directory)).map_err(failed)?;
    if rustix::process::geteuid().is_root() {
        give(directory, owner.uid(), owner.gid()).map_err(failed)?;
    }
    let open = std::fs::File::open(directory).map_err(failed)?;
    rustix::fs::syncfs(&open).map_err(|e| failed(e.into()))
}

fn give(directory: &Path, uid: u32, gid: u32) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            give(&entry.path(), uid, gid)?;
        }
        if !metadata.is_symlink() && (metadata.uid(), metadata.gid()) != (uid, gid) {
            chown(entry.path(), Some(uid), Some(gid))?;
        }
    }
    Ok(())
}
