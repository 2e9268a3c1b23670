//! Where the binary logs of a stopped server end.

use std::path::{Path, PathBuf};

use backup_core::{BinlogFile, BinlogServer, ErrorKind, Position, Result, ResultExt};

use super::event::{Events, MAGIC};
use super::rescue::{LocalFile, all_files, uuid_of};
use super::track::Tracker;

/// What is read at once; more where an event is longer.
const WINDOW: usize = 4 << 20;

/// The end of a server's binary logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BinlogEnd {
    /// The end of the last whole transaction, or of what follows it and is none.
    pub position: Position,
    /// `server_id` of the server that wrote the last file.
    pub server_id: u32,
    /// The version of the server that wrote the last file.
    pub version: String,
    /// The server did not close it: it crashed, or was killed.
    pub in_use: bool,
}

/// Reads the last of the binary logs in a directory. `None` when there are none.
///
/// Where they have several names, since `log_bin` was set anew, they are those of the name that was written to last.
///
/// # Errors
/// [`ErrorKind::Source`] or [`ErrorKind::Damaged`] when it cannot be read.
pub fn binlog_end(directory: &Path) -> Result<Option<BinlogEnd>> {
    let files = match all_files(directory) {
        Err(e) if e.kind() == ErrorKind::Usage => return Ok(None),
        files => files?,
    };
    // The last of each name.
    let mut last: Vec<(BinlogFile, PathBuf)> = Vec::new();
    for (name, path) in files {
        match last.iter_mut().find(|(other, _)| other.same_series(&name)) {
            Some(known) => *known = (name, path),
            None => last.push((name, path)),
        }
    }
    let mut newest = None;
    for (name, path) in last {
        let local = LocalFile::open(&path)?;
        if local.relay {
            continue;
        }
        let (end, written) = end_of(&name, &path, &local)?;
        // Servers that are restarted within a second are told apart by their files.
        let changed = path.metadata().and_then(|file| file.modified()).ok();
        if newest.as_ref().is_none_or(|(at, _)| *at < (written, changed)) {
            newest = Some(((written, changed), end));
        }
    }
    Ok(newest.map(|(_, end)| end))
}

/// The end of one, and when it was written to, in seconds since 1970.
fn end_of(name: &BinlogFile, path: &Path, local: &LocalFile) -> Result<(BinlogEnd, u32)> {
    let mut tracker = Tracker::begin(local.format.clone());
    let start = (MAGIC.len() + local.format.event.bytes().len()) as u64;
    let (mut at, mut window, mut whole) = (start, WINDOW, start);
    let mut written = local.format.started();
    while at < local.len {
        let content = local.read(at, window)?;
        let last = at + content.len() as u64 == local.len;
        let mut events = Events::new(content, at, local.format.checksum);
        while let Some(event) = events.next_whole()? {
            tracker.feed(&event).context(|| format!("cannot read {}", path.display()))?;
            written = written.max(event.header().time);
            if !tracker.is_inside() {
                whole = tracker.position();
            }
        }
        if last {
            break;
        }
        // An event longer than the window.
        window = if events.position() == at { window.saturating_mul(4) } else { WINDOW };
        at = events.position();
    }
    let gtid = Some(tracker.after().clone()).filter(|set| !set.is_empty());
    let end = BinlogEnd {
        position: Position { gtid, ..Position::at(name.to_string(), whole) },
        server_id: local.format.event.header().server_id,
        version: local.format.version.clone(),
        in_use: local.in_use,
    };
    Ok((end, written))
}

/// The identity of the MySQL server whose data directory it is, from `auto.cnf`.
#[must_use]
pub fn auto_cnf(directory: &Path) -> Option<BinlogServer> {
    uuid_of(directory)
}
