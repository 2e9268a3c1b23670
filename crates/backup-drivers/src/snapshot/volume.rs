//! What every way of taking snapshots has in common.

use std::path::PathBuf;

use backup_core::Result;

/// What the names of our snapshots begin with: whatever has such a name and no run of ours may be
/// removed.
pub(super) const MARK: &str = "holdfast-snap-";

/// A volume that snapshots can be taken of. All calls block.
pub(super) trait Volume: Send + Sync {
    /// What it is, for people.
    fn describe(&self) -> String;

    /// Removes what runs that were killed left behind. Gives the names.
    fn sweep(&self) -> Result<Vec<String>>;

    /// Takes the snapshot `name`. Runs while the server is locked: it must be quick.
    fn create(&self, name: &str) -> Result<()>;

    /// Makes it readable. Gives the directory that stands for the data directory.
    fn open(&self, name: &str) -> Result<PathBuf>;

    /// How full the snapshot is, in percent, where it can overflow.
    ///
    /// # Errors
    /// [`ErrorKind::Space`](backup_core::ErrorKind::Space) when it overflowed: what was read of it
    /// is worth nothing.
    fn check(&self, name: &str) -> Result<Option<f64>>;

    /// Unmounts it, if it is mounted.
    fn close(&self, name: &str) -> Result<()>;

    /// Removes it, if it is there.
    fn remove(&self, name: &str) -> Result<()>;
}

/// Where a snapshot is mounted.
pub(super) fn mount_point(name: &str) -> PathBuf {
    PathBuf::from("/run/holdfast").join(name)
}
