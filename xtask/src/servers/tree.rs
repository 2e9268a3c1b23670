//! Programs of Debian that are no servers, unpacked, and run with their own libraries.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use backup_core::{Error, Result};

use super::apt::{self, Apt};
use super::{FETCHING, directory, lock, remove_leftovers, write_error};

/// The tree at `name` beside the servers; it is fetched when it is missing. The number in the name goes up when
/// the packages change.
///
/// # Errors
/// Those of [`unpack`].
pub(super) fn have(name: &str, suites: &[(String, String)], packages: &[&str]) -> Result<PathBuf> {
    let root = directory().join(name);
    if !root.is_dir() {
        let _lock = lock()?;
        if !root.is_dir() {
            unpack(&root, suites, |apt| apt.closure(packages))
                .map_err(|e| e.context(format!("cannot fetch {} from Debian", packages[0])))?;
        }
    }
    Ok(root)
}

/// Fetches packages and unpacks them into `root`, in the place of what may be there. The lock is held.
///
/// # Errors
/// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) when this machine has no apt,
/// [`ErrorKind::Connect`](backup_core::ErrorKind::Connect) when the mirror does not answer,
/// [`ErrorKind::Space`](backup_core::ErrorKind::Space).
pub(super) fn unpack(
    root: &Path,
    suites: &[(String, String)],
    packages: impl FnOnce(&Apt) -> Result<BTreeSet<String>>,
) -> Result<()> {
    remove_leftovers();
    let work = tempfile::Builder::new().prefix(FETCHING).tempdir_in(directory());
    let work = work.map_err(|e| write_error(e, &directory()))?;
    let (archives, unpacked) = (work.path().join("archives"), work.path().join("root"));
    for dir in [&archives, &unpacked] {
        std::fs::create_dir(dir).map_err(|e| write_error(e, dir))?;
    }
    let apt = Apt::new(&work.path().join("apt"), suites)?;
    apt.update()?;
    apt.download(&packages(&apt)?, &archives)?;
    for archive in std::fs::read_dir(&archives).map_err(|e| write_error(e, &archives))? {
        let archive = archive.map_err(|e| write_error(e, &archives))?;
        apt::unpack(&archive.path(), &unpacked)?;
    }
    if root.exists() {
        std::fs::rename(root, work.path().join("old")).map_err(|e| write_error(e, root))?;
    }
    std::fs::rename(&unpacked, root).map_err(|e| write_error(e, root))
}

/// A command that runs a program of a tree, with the loader and the libc of the tree: those of the machine may
/// be older.
///
/// # Errors
/// When the tree has no libc.
pub(super) fn command(root: &Path, program: &Path) -> Result<Command> {
    let libraries = libraries(root)?;
    let mut command = Command::new(find(&libraries[0], "ld-linux")?);
    let path: Vec<String> = libraries.iter().map(|dir| dir.display().to_string()).collect();
    command.args(["--library-path", &path.join(":")]).arg(program);
    Ok(command)
}

/// The last file of a directory whose name begins so.
///
/// # Errors
/// When there is none.
pub(super) fn find(directory: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let found = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| entry.path())
        .max();
    found.ok_or_else(|| Error::internal(format!("{} has no {prefix}", directory.display())))
}

/// `x86_64-linux-gnu` and its like.
pub(super) fn triple() -> String {
    format!("{}-linux-gnu", std::env::consts::ARCH)
}

/// The directories of libraries, that of the libc first.
fn libraries(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = ["lib", "usr/lib"]
        .map(|lib| root.join(lib).join(triple()))
        .into_iter()
        .filter(|dir| dir.is_dir())
        .collect();
    found.sort_by_key(|dir| !dir.join("libc.so.6").exists());
    match found.first() {
        Some(dir) if dir.join("libc.so.6").exists() => Ok(found),
        _ => Err(Error::internal(format!("{} has no libc", root.display()))),
    }
}
