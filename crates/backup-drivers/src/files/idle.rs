//! Whether a server runs on a directory.
//!
//! InnoDB holds a write lock (`fcntl`) on the first file of its system tablespace as long as it runs,
//! Aria on its control file. A read lock of ours is refused then; and while we have one, no server
//! starts.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::{Error, ErrorKind, Result, io_error};
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

use super::copy::Held;

/// The files that a running server has locked.
const LOCKED: [&str; 2] = ["ibdata1", "aria_log_control"];

/// The file whose lock a server holds, if one runs on `directory`. It locks nothing.
pub(super) fn holder(directory: &Path) -> Result<Option<PathBuf>> {
    for name in LOCKED {
        let path = directory.join(name);
        if let Some(file) = open(&path)? {
            match lock(&file) {
                Ok(()) => {}
                Err(Errno::AGAIN | Errno::ACCESS) => return Ok(Some(path)),
                Err(e) => return Err(failed(&path, e.into())),
            }
        }
    }
    Ok(None)
}

/// Keeps servers off a directory.
///
/// # Errors
/// [`ErrorKind::Source`] when one runs.
pub(super) fn hold(directory: &Path) -> Result<Held> {
    let mut held = Held::default();
    for name in LOCKED {
        let path = directory.join(name);
        let Some(file) = open(&path)? else { continue };
        match lock(&file) {
            Ok(()) => held.0.push((path, Arc::new(file))),
            Err(Errno::AGAIN | Errno::ACCESS) => {
                return Err(Error::new(
                    ErrorKind::Source,
                    format!(
                        "a server runs on {}: it holds the lock of {name}",
                        directory.display()
                    ),
                )
                .with_remedy(
                    "stop it in order, or name the running server as the source: \
                     mysql://user@localhost/",
                ));
            }
            Err(e) => return Err(failed(&path, e.into())),
        }
    }
    Ok(held)
}

fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(path, e)),
    }
}

fn lock(file: &File) -> rustix::io::Result<()> {
    loop {
        match fcntl_lock(file, FlockOperation::NonBlockingLockShared) {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

fn failed(path: &Path, error: std::io::Error) -> Error {
    let message = format!("cannot see whether a server holds the lock of {}", path.display());
    io_error(error, ErrorKind::Source, message)
}
