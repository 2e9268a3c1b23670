//! Which file system a directory is on, and whether it still is.
//!
//! Where a file server was unmounted, its mount point is an empty directory of the local disk. To write
//! there would fill that disk, and to read there would find every backup gone.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use backup_core::{Error, ErrorKind, Result, io_error};

const REMEDY: &str = "mount the file system again (`mount`, `dmesg`), see that it is the same one, and run \
                      the command again; what was stored before is whole";

/// The file system under a directory, as it was when the store was opened.
#[derive(Debug, Clone)]
pub(super) struct Mount {
    path: PathBuf,
    device: u64,
}

impl Mount {
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let device = std::fs::metadata(path)?.dev();
        Ok(Mount { path: path.to_owned(), device })
    }

    /// Tells when another file system is there now, or nothing at all. Fails when that cannot be seen.
    pub(super) fn check(&self) -> io::Result<Result<()>> {
        let shown = self.path.display();
        let problem = match std::fs::metadata(&self.path) {
            Ok(meta) if meta.dev() == self.device => return Ok(Ok(())),
            Ok(_) => format!("{shown} is on another file system than before: its mount is gone"),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                format!("{shown} is gone: it was removed, or its file system was unmounted")
            }
            Err(e) => return Err(e),
        };
        Ok(Err(Error::new(ErrorKind::Store, problem).with_remedy(REMEDY)))
    }
}

/// Whether `path`, or the nearest directory above it that exists, is on NFS.
pub(super) fn is_nfs(path: &Path) -> io::Result<bool> {
    for path in path.ancestors() {
        match rustix::fs::statfs(path) {
            Ok(found) => return Ok(found.f_type == rustix::fs::NFS_SUPER_MAGIC),
            Err(rustix::io::Errno::NOENT) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(false)
}

/// Fails when `path` is not on a mounted NFS file system.
pub(super) fn require_nfs(path: &Path) -> Result<()> {
    let shown = path.display();
    match is_nfs(path) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::new(
            ErrorKind::Store,
            format!("{shown} is not on a mounted NFS file system"),
        )
        .with_remedy(
            "mount it (`mount`, /etc/fstab) and run the command again; for a directory that is not on \
             NFS write the path without nfs://",
        )),
        Err(e) => {
            Err(io_error(e, ErrorKind::Store, format!("cannot look at {shown}")).with_remedy(REMEDY))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_local_directory_is_not_nfs_and_neither_is_one_to_be_made() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().to_owned(), dir.path().join("a/b/c")] {
            let e = require_nfs(&path).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Store);
            assert!(e.to_string().contains("not on a mounted NFS"), "{e:?}");
        }
    }

    #[test]
    fn a_directory_that_moved_to_another_file_system_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Mount::of(dir.path()).unwrap();
        mount.check().unwrap().unwrap();
        mount.device += 1;
        assert!(mount.check().unwrap().unwrap_err().to_string().contains("mount is gone"));
        let mount = Mount::of(dir.path()).unwrap();
        dir.close().unwrap();
        assert!(mount.check().unwrap().unwrap_err().to_string().contains("is gone"));
    }
}
