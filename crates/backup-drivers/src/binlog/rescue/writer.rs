//! Who wrote the binlogs that are rescued, by what they say themselves.

use std::ops::Range;
use std::path::{Path, PathBuf};

use backup_core::{BinlogFile, BinlogServer, Error, Gtid, Result};
use bytes::Bytes;

use super::super::event::{Checksum, Event, Events, MAGIC};
use super::super::gtid::{Begin, begins};
use super::{LocalFile, RescueOptions, WINDOW, uuid_of};

/// The server that wrote the binlogs in a directory.
///
/// # Errors
/// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) where nothing tells, or another one is named than
/// they tell of.
pub(super) fn of_directory(
    directory: &Path,
    files: &[(BinlogFile, PathBuf)],
    options: &RescueOptions,
) -> Result<BinlogServer> {
    if let (Some(named), true) = (&options.server, options.anyway) {
        return Ok(named.clone());
    }
    let first = LocalFile::open(&files[0].1)?;
    let beside = match first.format.is_mariadb() {
        true => Some(BinlogServer::of_id(first.format.event.header().server_id)),
        false => uuid_of(directory),
    };
    match (beside, &options.server) {
        (Some(beside), None) => Ok(beside),
        (Some(beside), Some(named)) if beside == *named => Ok(beside),
        (beside, named) => {
            // A directory that was moved may have the identity of another server by now.
            let own = of_events(files)?;
            agreed(directory, own.as_ref().or(beside.as_ref()), named.as_ref())
        }
    }
}

/// The server that is named, where what is told does not contradict it; without one, that which is told.
///
/// # Errors
/// As [`of_directory`].
pub(super) fn agreed(
    path: &Path,
    told: Option<&BinlogServer>,
    named: Option<&BinlogServer>,
) -> Result<BinlogServer> {
    match (told, named) {
        (Some(told), Some(named)) if told != named => Err(Error::usage(format!(
            "the binlogs of {} were written by {told}, by their own word, and not by {named}",
            path.display()
        ))
        .with_remedy("leave --server out; say --anyway where you know better")),
        (_, Some(server)) | (Some(server), None) => Ok(server.clone()),
        (None, None) => {
            Err(Error::usage(format!("{} does not tell which server wrote it", path.display()))
                .with_remedy("name it with --server and its server_uuid"))
        }
    }
}

/// MySQL: what a server committed itself has its `server_id`, and its `server_uuid` in the GTID.
fn of_events(files: &[(BinlogFile, PathBuf)]) -> Result<Option<BinlogServer>> {
    for (_, path) in files {
        let local = LocalFile::open(path)?;
        if local.format.is_mariadb() {
            return Ok(Some(BinlogServer::of_id(local.format.event.header().server_id)));
        }
        let id = local.format.event.header().server_id;
        let from = (MAGIC.len() + local.format.event.bytes().len()) as u64;
        let read = |at, len| local.read(at, len);
        let own =
            find(read, from..local.len, local.format.checksum, |event, begin| match &begin.gtid {
                Some(Gtid::MySql(gtid)) if event.header().server_id == id => Some(gtid.tsid().uuid),
                _ => None,
            })?;
        if let Some(uuid) = own {
            return Ok(Some(BinlogServer::of_uuid(uuid)));
        }
    }
    Ok(None)
}

/// Visits the events in these places that begin a transaction, until `visit` gives something. What is behind
/// damage is not looked at: that is told when it is archived.
pub(super) fn find<T>(
    read: impl Fn(u64, usize) -> Result<Bytes>,
    places: Range<u64>,
    checksum: Checksum,
    mut visit: impl FnMut(&Event, &Begin) -> Option<T>,
) -> Result<Option<T>> {
    let mut at = places.start;
    let mut window = WINDOW;
    while at < places.end {
        let content = read(at, window)?;
        let last = at + content.len() as u64 >= places.end;
        let mut events = Events::new(content, at, checksum);
        while let Ok(Some(event)) = events.next_whole() {
            if begins(event.kind())
                && let Some(begin) = Begin::parse(&event)?
                && let Some(found) = visit(&event, &begin)
            {
                return Ok(Some(found));
            }
        }
        if last {
            break;
        }
        window = if events.position() == at { window.saturating_mul(4) } else { WINDOW };
        at = events.position();
    }
    Ok(None)
}
