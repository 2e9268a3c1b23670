//! Where the binary logs of a stopped server end.

use std::path::Path;

use backup_core::{BinlogServer, ErrorKind, Position, Result, ResultExt};

use super::event::{Events, MAGIC};
use super::rescue::{LocalFile, files, uuid_of};
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
/// # Errors
/// [`ErrorKind::Source`] or [`ErrorKind::Damaged`] when it cannot be read.
pub fn binlog_end(directory: &Path) -> Result<Option<BinlogEnd>> {
    let files = match files(directory) {
        Err(e) if e.kind() == ErrorKind::Usage => return Ok(None),
        files => files?,
    };
    let Some((name, path)) = files.last() else { return Ok(None) };
    let local = LocalFile::open(path)?;
    let mut tracker = Tracker::begin(local.format.clone());
    let start = (MAGIC.len() + local.format.event.bytes().len()) as u64;
    let (mut at, mut window, mut whole) = (start, WINDOW, start);
    while at < local.len {
        let content = local.read(at, window)?;
        let last = at + content.len() as u64 == local.len;
        let mut events = Events::new(content, at, local.format.checksum);
        while let Some(event) = events.next_whole()? {
            tracker.feed(&event).context(|| format!("cannot read {}", path.display()))?;
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
    Ok(Some(BinlogEnd {
        position: Position { gtid, ..Position::at(name.to_string(), whole) },
        server_id: local.format.event.header().server_id,
        version: local.format.version.clone(),
        in_use: local.in_use,
    }))
}

/// The identity of the MySQL server whose data directory it is, from `auto.cnf`.
#[must_use]
pub fn auto_cnf(directory: &Path) -> Option<BinlogServer> {
    uuid_of(directory)
}
