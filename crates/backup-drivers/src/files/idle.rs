//! Whether a server runs on a directory.
//!
//! InnoDB holds a write lock (`fcntl`) on each file of its own that it has open, Aria on its control file. A read lock
//! of ours is refused then; and while we have one, no server starts. But such a lock is lost with the first descriptor
//! of the file that the process closes, and a MySQL that is cloned opens and closes every tablespace. So other files
//! are asked too, those that no clone has; and where the system lets us look, whether a process has one of them open.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::{Error, ErrorKind, Result, io_error};
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;

use super::copy::Held;
use super::system::System;

/// By what a running server was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sign {
    /// It holds the lock of a file.
    Lock(PathBuf),
    /// A process has a file open.
    Open(u32, PathBuf),
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sign::Lock(path) => write!(f, "it holds the lock of {}", path.display()),
            Sign::Open(process, path) => write!(f, "process {process} has {} open", path.display()),
        }
    }
}

/// The sign of a server that runs on `directory`, if one does. It locks nothing.
pub(super) fn server_on(directory: &Path) -> Result<Option<Sign>> {
    let files = always_open(directory)?;
    for path in &files {
        if let Some(file) = open(path)? {
            match lock(&file) {
                Ok(()) => {}
                Err(Errno::AGAIN | Errno::ACCESS) => return Ok(Some(Sign::Lock(path.clone()))),
                Err(e) => return Err(failed(path, e.into())),
            }
        }
    }
    Ok(opened(directory, &files))
}

/// Keeps servers off a directory.
///
/// # Errors
/// [`ErrorKind::Source`] when one runs.
pub(super) fn hold(directory: &Path) -> Result<Held> {
    let runs = |sign: Sign| {
        Error::new(
            ErrorKind::Source,
            format!("a server runs on {}: {sign}", directory.display()),
        )
        .with_remedy(
            "stop it in order, or name the running server as the source: mysql://user@localhost/",
        )
    };
    let mut held = Held::default();
    let files = always_open(directory)?;
    for path in &files {
        let Some(file) = open(path)? else { continue };
        match lock(&file) {
            Ok(()) => held.0.push((path.clone(), Arc::new(file))),
            Err(Errno::AGAIN | Errno::ACCESS) => return Err(runs(Sign::Lock(path.clone()))),
            Err(e) => return Err(failed(path, e.into())),
        }
    }
    match opened(directory, &files) {
        Some(sign) => Err(runs(sign)),
        None => Ok(held),
    }
}

/// The files in a directory that a server has open as long as it runs, as far as they are there.
fn always_open(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for (directory, wanted) in [
        (directory.to_owned(), is_always_open as fn(&str) -> bool),
        // Tables of sessions, which no clone has.
        (directory.join("#innodb_temp"), |name| name.ends_with(".ibt")),
    ] {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let path = entry.path();
            // Nothing else may be opened: a pipe would wait.
            if name.to_str().is_some_and(wanted) && path.is_file() {
                files.push(path);
            }
        }
    }
    // Whatever it is called.
    if let Some(first) =
        System::within([directory])?.and_then(|system| system.files.into_iter().next())
        && !files.contains(&first.source)
    {
        files.push(first.source);
    }
    files.sort();
    Ok(files)
}

fn is_always_open(name: &str) -> bool {
    let undo = name.strip_prefix("undo").is_some_and(|number| {
        number.trim_start_matches('_').bytes().all(|byte| byte.is_ascii_digit())
    });
    ["ibdata1", "aria_log_control", "mysql.ibd", "ib_logfile0"].contains(&name)
        || name.starts_with("ibtmp")
        || name.ends_with(".dblwr")
        || undo
}

/// A process that has one of the files open as a server has: to be written, or from inside of the directory, into
/// which servers go. Which files a process has open only its user and root may see.
fn opened(directory: &Path, files: &[PathBuf]) -> Option<Sign> {
    let identity = |path: &Path| path.metadata().ok().map(|file| (file.dev(), file.ino()));
    let wanted: HashMap<(u64, u64), &PathBuf> =
        files.iter().filter_map(|path| Some((identity(path)?, path))).collect();
    let names: HashSet<OsString> = files
        .iter()
        .filter_map(|path| Some(path.canonicalize().ok()?.file_name()?.to_owned()))
        .collect();
    let here = identity(directory);
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        if process == std::process::id() {
            continue;
        }
        let inside = || identity(&entry.path().join("cwd")) == here;
        let Ok(descriptors) = std::fs::read_dir(entry.path().join("fd")) else { continue };
        for descriptor in descriptors.flatten().map(|descriptor| descriptor.path()) {
            // By the name first: to look at a file on a share that is gone would take for ever.
            let name = descriptor.read_link().ok().and_then(|to| Some(to.file_name()?.to_owned()));
            if !name.is_some_and(|name| names.contains(&name)) {
                continue;
            }
            let Some(path) = identity(&descriptor).and_then(|file| wanted.get(&file)) else {
                continue;
            };
            // The permissions of such a link are what the file was opened for (`proc_pid_fd(5)`).
            let link = descriptor.symlink_metadata();
            let writes = link.is_ok_and(|link| link.permissions().mode() & 0o200 != 0);
            if writes || inside() {
                return Some(Sign::Open(process, (*path).clone()));
            }
        }
    }
    None
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
