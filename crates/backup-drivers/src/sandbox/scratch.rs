//! Private directories of runs: gone with their owner, and where that was killed, with the next run.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::{FdFlags, fcntl_setfd};
use tempfile::TempDir;

/// What every one is called, before what it is for; those beside what belongs to others are hidden.
const NAME: &str = "holdfast-";
const HIDDEN: &str = ".holdfast-";
/// Held as long as its owner lives, and the servers that it started.
const LOCK: &str = "holdfast.lock";

/// A directory that only its user can enter; removed on drop.
#[derive(Debug)]
pub struct Scratch {
    // Before the lock: what is half removed is nobody's left-over.
    directory: TempDir,
    _lock: File,
}

impl Scratch {
    /// Makes one in `parent` whose name tells that it is `what`, and removes those there that nobody has any more.
    ///
    /// # Errors
    /// What the file system fails with.
    pub fn new(parent: &Path, what: &str) -> io::Result<Scratch> {
        Scratch::named(parent, &format!("{NAME}{what}-"))
    }

    /// The same, hidden: beside the files of others.
    pub(crate) fn hidden(parent: &Path, what: &str) -> io::Result<Scratch> {
        Scratch::named(parent, &format!("{HIDDEN}{what}-"))
    }

    fn named(parent: &Path, prefix: &str) -> io::Result<Scratch> {
        // What cannot be removed is in nobody's way.
        let _ = sweep(parent);
        let directory = tempfile::Builder::new()
            .prefix(prefix)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent)?;
        // Locked before it has its name: a lock that is found and that nobody holds is that of a run that died.
        let unnamed = directory.path().join(format!("{LOCK}.new"));
        let lock = File::create(&unnamed)?;
        lock.try_lock()?;
        // A server that outlives us holds it, too.
        fcntl_setfd(&lock, FdFlags::empty())?;
        std::fs::rename(&unnamed, directory.path().join(LOCK))?;
        Ok(Scratch { directory, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes what runs left in `parent` that were killed, and gives what that was.
fn sweep(parent: &Path) -> io::Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for entry in std::fs::read_dir(parent)? {
        let Ok(entry) = entry else { continue };
        let name = entry.file_name();
        if ![NAME, HIDDEN].iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            continue;
        }
        let path = entry.path();
        // Held until it is gone, against a second run that does the same.
        if let Ok(Some(_lock)) = abandoned(&path)
            && std::fs::remove_dir_all(&path).is_ok()
        {
            removed.push(path);
        }
    }
    Ok(removed)
}

/// The lock of a directory of ours whose owner is dead.
fn abandoned(directory: &Path) -> io::Result<Option<File>> {
    let meta = directory.symlink_metadata()?;
    if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() {
        return Ok(None);
    }
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
    let lock = OpenOptions::new().read(true).custom_flags(flags).open(directory.join(LOCK))?;
    Ok(lock.try_lock().is_ok().then_some(lock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_run_left_goes_with_the_next() {
        let parent = tempfile::tempdir().unwrap();
        let live = Scratch::new(parent.path(), "point").unwrap();
        std::fs::write(live.path().join("relay.000001"), "x").unwrap();
        // As `kill -9` leaves it: the lock is there, and nobody holds it.
        let dead = parent.path().join("holdfast-point-dead");
        let hidden = parent.path().join(".holdfast-increments-dead");
        for dead in [&dead, &hidden] {
            std::fs::create_dir_all(dead.join("data")).unwrap();
            std::fs::write(dead.join(LOCK), "").unwrap();
        }
        // Of others.
        for other in ["holdfast-point-young", "mine"] {
            std::fs::create_dir(parent.path().join(other)).unwrap();
        }
        std::fs::write(parent.path().join("mine").join(LOCK), "").unwrap();
        let next = Scratch::new(parent.path(), "drill").unwrap();
        assert!(!dead.exists() && !hidden.exists());
        assert_eq!(next.path().metadata().unwrap().mode() & 0o777, 0o700);
        assert!(live.path().join("relay.000001").exists());
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 4);
        drop((live, next));
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_child_that_outlives_its_owner_keeps_its_ground() {
        let parent = tempfile::tempdir().unwrap();
        let scratch = Scratch::new(parent.path(), "point").unwrap();
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let Scratch { directory, _lock } = scratch;
        let path = directory.keep();
        drop(_lock);
        assert!(sweep(parent.path()).unwrap().is_empty());
        child.kill().unwrap();
        child.wait().unwrap();
        // Other tests start children of their own meanwhile, which may hold it for a moment.
        while sweep(parent.path()).unwrap() != [path.clone()] {
            std::thread::yield_now();
        }
    }
}
