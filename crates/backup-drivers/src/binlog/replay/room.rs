//! Whether a target on this machine ran out of room. A MySQL that does waits, or tells of something else; a MariaDB
//! waits, or ends itself. What says why is its error log.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use backup_core::{Error, ErrorKind, Result};

use super::remedy::{FREE_SPACE, is_full};
use super::target::Target;
use crate::connect::Endpoint;

/// How much of what the log says is read.
const MOST: u64 = 1 << 20;
/// A disk with so little left may have been too full for what was to be written.
const LITTLE: u64 = 64 << 20;

/// What can be seen from here.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// The error log, and how long it was.
    log: Option<(PathBuf, u64)>,
    /// Where the server writes.
    places: Vec<PathBuf>,
}

impl Room {
    /// Notes how things are. Nothing is seen of a server on another machine.
    pub(super) async fn of(target: &mut Target) -> Result<Room> {
        let mut room = Room::default();
        if !is_here(target).await? {
            return Ok(room);
        }
        let datadir = PathBuf::from(target.value("SELECT @@GLOBAL.datadir").await?);
        let log = datadir.join(target.value("SELECT @@GLOBAL.log_error").await?);
        room.log = std::fs::metadata(&log)
            .ok()
            .filter(std::fs::Metadata::is_file)
            .map(|meta| (log, meta.len()));
        for name in ["tmpdir", "innodb_data_home_dir", "relay_log_basename", "log_bin_basename"] {
            let sql = format!("SHOW GLOBAL VARIABLES LIKE '{}'", name.replace('_', "\\_"));
            let row: Option<(String, String)> = target.session.query_first(&sql).await?;
            let Some((_, value)) = row.filter(|(_, value)| !value.is_empty()) else { continue };
            let path = datadir.join(value);
            let directory = if name.ends_with("basename") { path.parent() } else { Some(&*path) };
            room.places.extend(directory.map(Path::to_owned));
        }
        // Databases may be elsewhere.
        if let Ok(entries) = std::fs::read_dir(&datadir) {
            room.places.extend(entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.is_dir()));
        }
        room.places.push(datadir);
        Ok(room)
    }

    /// What the log says since then of a disk that is full.
    pub(super) fn told(&self) -> Option<String> {
        let (path, len) = self.log.as_ref()?;
        let mut file = File::open(path).ok()?;
        let now = file.metadata().ok()?.len();
        let from = (*len).max(now.saturating_sub(MOST));
        file.seek(SeekFrom::Start(from)).ok()?;
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        text.lines().rev().find(|line| is_full(0, line)).map(|line| {
            let line: String = line.chars().take(300).collect();
            format!("{} says `{}`", path.display(), line.trim())
        })
    }

    /// A disk of the server that has next to nothing left.
    pub(super) fn scarce(&self) -> Option<String> {
        self.places.iter().find_map(|place| {
            let found = rustix::fs::statvfs(place).ok()?;
            let left = found.f_bavail.saturating_mul(found.f_frsize);
            let whole = found.f_blocks.saturating_mul(found.f_frsize);
            (whole > 0 && left < LITTLE)
                .then(|| format!("the disk of {} has {} KiB left", place.display(), left >> 10))
        })
    }

    /// The error of a target that went away or stopped, where it did so for want of room.
    pub(super) fn explain(&self, error: Error) -> Error {
        if !matches!(error.kind(), ErrorKind::Connect | ErrorKind::Target) {
            return error;
        }
        match self.told().or_else(|| self.scarce().filter(|_| error.kind() == ErrorKind::Connect)) {
            Some(why) => Error::new(ErrorKind::Space, format!("the target has no room: {why}"))
                .with_source(error)
                .with_remedy(FREE_SPACE),
            None => error,
        }
    }
}

/// Whether the server's files are on this machine.
async fn is_here(target: &mut Target) -> Result<bool> {
    match &target.options.endpoint {
        Endpoint::Socket(_) => Ok(true),
        Endpoint::Tcp { .. } => {
            let host = target.value("SELECT @@hostname").await?;
            let ours = rustix::system::uname();
            Ok(!host.is_empty() && ours.nodename().to_str() == Ok(&host))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_log_said_since_counts() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("error.log");
        std::fs::write(&log, "InnoDB: Error (Out of disk space) in rollback.\n").unwrap();
        let len = std::fs::metadata(&log).unwrap().len();
        let room = Room { log: Some((log.clone(), len)), places: Vec::new() };
        assert_eq!(room.told(), None);
        let lost = || Error::new(ErrorKind::Connect, "the server closed the connection");
        assert_eq!(room.explain(lost()).kind(), ErrorKind::Connect);
        for line in [
            "[ERROR] [FATAL] InnoDB: Error (Out of disk space) in rollback.",
            "[ERROR] InnoDB: preallocating 7340032 bytes for file ./d/t.ibd failed with error 28",
            "[Warning] mariadbd: Disk is full writing './relay.000002' (Errcode: 28 \"No space left on device\").",
        ] {
            std::fs::write(&log, format!("{}\n{line}\nnothing", "x".repeat(len as usize))).unwrap();
            let e = room.explain(lost());
            assert!(e.kind() == ErrorKind::Space && e.report().contains(line), "{}", e.report());
        }
        // A log that was begun anew.
        std::fs::write(&log, "").unwrap();
        assert_eq!(room.told(), None);
    }
}
