//! The directory that a restore goes into.

use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use backup_core::{BackupId, Error, ErrorKind, Result, io_error};
use rustix::fs::{FlockOperation, flock, statvfs};

use super::catalog::Catalog;
use super::idle;
use super::left_out::is_repository;
use super::names::Names;
use super::place::own;
use super::restore::{failed, is_directory, join};

/// Is in the directory as long as a restore into it is not finished.
const MARK: &str = ".holdfast-restore";

/// What there is in the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// A restore of this backup that was cut short.
    Unfinished,
    /// Something else.
    Something,
}

/// A directory, as it was found.
pub(super) struct Target {
    directory: PathBuf,
    pub(super) found: Found,
}

impl Target {
    pub(super) fn look(directory: &Path, backup: &BackupId) -> Result<Self> {
        let found = match std::fs::read_dir(directory) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Found::Nothing,
            Err(e) => {
                let message = format!("cannot look into {}", directory.display());
                return Err(io_error(e, ErrorKind::Target, message));
            }
            Ok(_) if entries(directory)?.is_empty() => Found::Nothing,
            Ok(_) => match std::fs::read_to_string(directory.join(MARK)) {
                Ok(text) if text.trim_end() == backup.as_str() => Found::Unfinished,
                _ => Found::Something,
            },
        };
        Ok(Target { directory: directory.to_owned(), found })
    }

    /// Whether it looks like a data directory, or like a restore that was cut short: nothing else is
    /// ever emptied.
    pub(super) fn is_datadir(&self) -> bool {
        ["ibdata1", "mysql", MARK].iter().any(|name| self.directory.join(name).exists())
    }

    /// Fails where backups lie below the directory: what is not of the restore is removed, and perhaps this one is read
    /// from there.
    pub(super) fn check_no_backups(&self) -> Result<()> {
        let mut queue = vec![self.directory.clone()];
        while let Some(directory) = queue.pop() {
            if is_repository(&directory) {
                return Err(Error::new(
                    ErrorKind::Target,
                    format!(
                        "{} is a repository of backups, which a restore into {} would remove",
                        directory.display(),
                        self.directory.display()
                    ),
                )
                .with_remedy("move the repository elsewhere, or choose another directory"));
            }
            let inside = std::fs::read_dir(&directory).into_iter().flatten().flatten();
            // Links are removed, and not what is behind them.
            let directories =
                inside.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            queue.extend(directories.map(|entry| entry.path()));
        }
        Ok(())
    }

    /// Fails when a server runs on the directory, or somebody restores into it.
    pub(super) fn check_idle(&self) -> Result<()> {
        // Or what prepares it: that is no server that somebody could stop.
        Mark::left_in(&self.directory)?;
        match idle::server_on(&self.directory)? {
            None => Ok(()),
            Some(sign) => Err(Error::new(
                ErrorKind::Target,
                format!("a server runs on {}: {sign}", self.directory.display()),
            )
            .with_remedy("stop the server, or choose another directory")),
        }
    }

    /// Fails when there is no room for the files, and `more` bytes beside them.
    pub(super) fn check_room(&self, catalog: &Catalog, keeps: bool, more: u64) -> Result<()> {
        let free = Room::of(&self.directory)?.free;
        let mut needed = more;
        let mut given_back = 0u64;
        for entry in catalog.files() {
            needed += entry.bytes;
            if keeps && let Ok(there) = join(&self.directory, &entry.path).symlink_metadata() {
                given_back += (there.blocks() * 512).min(entry.bytes);
            }
        }
        if self.found != Found::Nothing && !keeps {
            given_back = taken(&self.directory);
        }
        if needed <= free.saturating_add(given_back) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Space,
            format!(
                "the files take {needed} bytes, and {} has room for {}",
                self.directory.display(),
                free.saturating_add(given_back)
            ),
        ))
    }

    /// Everything in the directory, from it.
    pub(super) fn all(&self) -> Vec<PathBuf> {
        entries(&self.directory).unwrap_or_default()
    }

    /// What is in the directory, and not in the backup.
    pub(super) fn strangers(&self, catalog: &Catalog) -> Vec<PathBuf> {
        let wanted: HashSet<(&Path, bool)> =
            catalog.entries.iter().map(|e| (Path::new(&e.path), is_directory(e))).collect();
        let mut strangers = Vec::new();
        let mut queue = self.all();
        queue.reverse();
        while let Some(path) = queue.pop() {
            let at = self.directory.join(&path);
            let directory = at.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
            if !wanted.contains(&(path.as_path(), directory)) {
                strangers.push(path);
            } else if directory {
                let inside = entries(&at).unwrap_or_default();
                queue.extend(inside.into_iter().rev().map(|name| path.join(name)));
            }
        }
        strangers
    }

    /// Makes the directory, for nobody else to look into yet, and marks it.
    pub(super) fn begin(&self, backup: &BackupId) -> Result<Mark> {
        let path = &self.directory;
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path))?;
        Mark::set(path, backup)
    }

    /// Removes what is in the way.
    pub(super) fn remove(&self, paths: &[PathBuf]) -> Result<()> {
        for path in paths {
            let at = self.directory.join(path);
            let removed = match at.symlink_metadata() {
                Err(e) => Err(e),
                Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(&at),
                Ok(_) => std::fs::remove_file(&at),
            };
            removed.map_err(|e| {
                io_error(e, ErrorKind::Target, format!("cannot remove {}", at.display()))
            })?;
        }
        Ok(())
    }

    pub(super) fn make_directories(&self, catalog: &Catalog) -> Result<()> {
        for entry in catalog.entries.iter().filter(|entry| is_directory(entry)) {
            let at = join(&self.directory, &entry.path);
            match DirBuilder::new().mode(0o700).create(&at) {
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                other => other.map_err(failed(&at))?,
            }
        }
        Ok(())
    }

    /// Gives directories their owners and permissions, and syncs them. `false`: not every owner could be set.
    pub(super) fn finish(&self, catalog: &Catalog, names: &Names) -> Result<bool> {
        let mut owned = true;
        // Those inside first: a parent that lets nobody in comes last.
        for entry in catalog.entries.iter().rev().filter(|entry| is_directory(entry)) {
            let at = join(&self.directory, &entry.path);
            let finish = || {
                let directory = File::open(&at)?;
                directory.sync_all()?;
                let owned = own(&directory, entry, names)?;
                directory.set_permissions(PermissionsExt::from_mode(entry.mode))?;
                Ok(owned)
            };
            owned &= finish().map_err(failed(&at))?;
        }
        // That of the data directory itself is in no entry: it is that of what is in it.
        if let Some(entry) = catalog.entries.iter().find(|entry| !entry.path.contains('/')) {
            let finish = || own(&File::open(&self.directory)?, entry, names);
            owned &= finish().map_err(failed(&self.directory))?;
        }
        Ok(owned)
    }
}

/// The mark in a directory into which a restore has not ended. It is locked as long as the value lives, or a program
/// that was given it: nobody else restores into the directory meanwhile.
pub struct Mark {
    directory: PathBuf,
    file: File,
}

impl Mark {
    fn set(directory: &Path, backup: &BackupId) -> Result<Mark> {
        let mut mark = Mark::lock(directory, File::options().create(true))?;
        let mut write = || {
            mark.file.set_len(0)?;
            mark.file.write_all(format!("{backup}\n").as_bytes())?;
            mark.file.sync_all()?;
            File::open(directory)?.sync_all()
        };
        write().map_err(failed(directory))?;
        Ok(mark)
    }

    /// The mark that a restore has left for who goes on with the directory
    /// ([`unfinished`](super::FilesRestoreOptions::unfinished)).
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] when somebody works on the directory; [`ErrorKind::Target`] when it cannot be read.
    pub fn left_in(directory: &Path) -> Result<Option<Mark>> {
        match directory.join(MARK).exists() {
            true => Mark::lock(directory, &mut File::options()).map(Some),
            false => Ok(None),
        }
    }

    fn lock(directory: &Path, options: &mut OpenOptions) -> Result<Mark> {
        let file = options.write(true).truncate(false).open(directory.join(MARK));
        let file = file.map_err(failed(directory))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(Error::new(
                ErrorKind::Busy,
                format!("another restore into {} is running", directory.display()),
            )
            .with_remedy("wait for its end: the tool of one that was killed goes on for a while"));
        }
        Ok(Mark { directory: directory.to_owned(), file })
    }

    /// The lock, for a program that works on the directory and may outlive us.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) fn for_program(&self) -> std::io::Result<File> {
        self.file.try_clone()
    }

    /// The restore has ended well: lets others in, and takes the mark away.
    ///
    /// # Errors
    /// [`ErrorKind::Target`] when the directory cannot be written.
    pub fn remove(self) -> Result<()> {
        let finish = || {
            std::fs::remove_file(self.directory.join(MARK))?;
            let directory = File::open(&self.directory)?;
            directory.set_permissions(PermissionsExt::from_mode(0o750))?;
            directory.sync_all()?;
            match self.directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                Some(parent) => File::open(parent)?.sync_all(),
                None => File::open(".")?.sync_all(),
            }
        };
        finish().map_err(failed(&self.directory))
    }
}

/// Room for files.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Which file system it is.
    pub(crate) device: u64,
    /// Bytes that are free there.
    pub(crate) free: u64,
}

impl Room {
    /// Where a directory is, or will be.
    pub(crate) fn of(directory: &Path) -> Result<Room> {
        let existing = directory.ancestors().find(|path| path.is_dir());
        let existing = existing.unwrap_or(Path::new("/"));
        let stat = statvfs(existing).map_err(|e| failed(existing)(e.into()))?;
        let device = existing.metadata().map_err(failed(existing))?.dev();
        Ok(Room { device, free: stat.f_bavail.saturating_mul(stat.f_frsize) })
    }
}

/// The names in a directory, sorted, without those that belong to the file system or are the mark.
fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut names = Vec::new();
    let listed = std::fs::read_dir(directory).and_then(|entries| {
        for entry in entries {
            names.push(PathBuf::from(entry?.file_name()));
        }
        Ok(())
    });
    match listed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            let message = format!("cannot look into {}", directory.display());
            return Err(io_error(e, ErrorKind::Target, message));
        }
        _ => {}
    }
    names.retain(|name| !["lost+found", MARK].iter().any(|kept| name == Path::new(kept)));
    names.sort();
    Ok(names)
}

/// How much room the files in a directory take, in bytes.
fn taken(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => taken(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}
