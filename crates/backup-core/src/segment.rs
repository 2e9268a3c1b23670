//! Segments: pieces of the binlogs of a cluster's servers, as the archive keeps them.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::claim::Claim;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::gtid::{Gtid, GtidSet, MariaDbBinlogState, Tsid};
use crate::id::ClusterName;
use crate::manifest::SourceInfo;
use crate::position::BinlogFile;
use crate::server::Flavor;

/// The server that wrote a binlog, as far as the archive tells servers apart.
///
/// MySQL has its `server_uuid`. MariaDB has none in the versions that are in use; there the
/// `server_id` names it, which replication wants to be unique within a cluster: `id-17`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BinlogServer(String);

impl BinlogServer {
    /// A MySQL server by its `server_uuid`.
    #[must_use]
    pub fn of_uuid(uuid: Uuid) -> Self {
        BinlogServer(uuid.to_string())
    }

    /// Whether it is the MySQL server that counts these transactions.
    #[must_use]
    pub fn counts(&self, tsid: &Tsid) -> bool {
        *self == BinlogServer::of_uuid(tsid.uuid)
    }

    /// A MariaDB server by its `server_id`.
    #[must_use]
    pub fn of_id(server_id: u32) -> Self {
        BinlogServer(format!("id-{server_id}"))
    }

    /// The server that a backup was read from; `None` where it did not say who it is.
    #[must_use]
    pub fn of_source(source: &SourceInfo) -> Option<Self> {
        match source.flavor {
            Flavor::MySql => source.server_uuid.as_ref()?.parse().ok().map(Self::of_uuid),
            Flavor::MariaDb => source.server_id.try_into().ok().map(Self::of_id),
        }
    }

    /// The name, as it is in paths.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BinlogServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for BinlogServer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let read = match text.strip_prefix("id-") {
            Some(id) => id.parse().ok().map(Self::of_id),
            None => text.parse().ok().map(Self::of_uuid),
        };
        // One name, one server: `id-007` is not ours.
        read.filter(|server| server.0 == text).ok_or_else(|| {
            Error::usage(format!("`{}` names no server", text.escape_debug()))
                .with_remedy("name it by its server_uuid (MySQL) or as id-<server_id> (MariaDB)")
        })
    }
}

impl TryFrom<String> for BinlogServer {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<BinlogServer> for String {
    fn from(server: BinlogServer) -> String {
        server.0
    }
}

/// Where a piece of a binlog file lies, and which file that is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BinlogRange {
    /// The name of the file at its server.
    pub file: String,
    /// When the server began the file, in seconds since 1970 (the header of its first event). A
    /// server that starts its numbering again uses names again; this tells the files apart. 0 where
    /// nobody knows: what was saved of the file came without its first event.
    pub file_started: u32,
    /// The first byte of the piece; 0 where the file begins with it.
    pub start: u64,
    /// The byte after the last one.
    pub end: u64,
}

impl BinlogRange {
    /// Whether both are pieces of one file (of one server), as far as that is known.
    #[must_use]
    pub fn same_file(&self, other: &Self) -> bool {
        self.file == other.file && self.began_at(other.file_started)
    }

    /// Whether the file may have been begun then.
    #[must_use]
    pub fn began_at(&self, started: u32) -> bool {
        self.file_started == started || self.file_started == 0 || started == 0
    }
}

impl fmt::Display for BinlogRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}-{}", self.file, self.start, self.end)
    }
}

/// What the archive knows of a segment without reading its events.
///
/// The content of a segment is the bytes of [`range`](Self::range), exactly as the server has them
/// in its file: whole events, each with its checksum. Segments of one file, joined, are the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SegmentInfo {
    /// The cluster.
    pub cluster: ClusterName,
    /// The server that wrote it.
    pub server: BinlogServer,
    /// Its number among the segments of the server, in the order in which they were archived.
    pub seq: u64,
    /// MySQL or MariaDB.
    pub flavor: Flavor,
    /// Version of the server, from the first event of the file.
    pub version: String,
    /// Which bytes of which file.
    #[serde(flatten)]
    pub range: BinlogRange,
    /// The file's first event (FORMAT_DESCRIPTION), which the others cannot be read without, in
    /// hex.
    pub format_description: String,
    /// The transactions that the server's binlogs held before this piece; empty where the server
    /// keeps no GTIDs.
    pub before: GtidSet,
    /// The same after it: only transactions that ended in it or earlier count.
    pub after: GtidSet,
    /// MariaDB: the last transaction of every server in `before`. Numbers alone do not tell what
    /// two servers wrote under the same number, before and after a failover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_before: Option<MariaDbBinlogState>,
    /// MariaDB: the same of `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_after: Option<MariaDbBinlogState>,
    /// Whether the piece begins inside a transaction.
    pub begins_inside: bool,
    /// Whether the piece ends inside a transaction.
    pub ends_inside: bool,
    /// How many transactions begin in it.
    pub transactions: u64,
    /// How many of them have no GTID.
    #[serde(default)]
    pub anonymous: u64,
    /// The earliest time of a commit in it; `None` without transactions.
    pub first_time: Option<Timestamp>,
    /// The latest time of a commit in it.
    pub last_time: Option<Timestamp>,
    /// Whether the server wrote nothing after this piece into the file: it ends with a ROTATE or
    /// STOP.
    pub closes_file: bool,
    /// The file that the server went on with, where the piece ends with a ROTATE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_file: Option<String>,
    /// What was lost before this piece, and the user accepted it: GTIDs, or file names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap_before: Option<String>,
    /// SHA-256 of the content, 64 hex digits.
    pub sha256: String,
    /// When it was archived.
    pub archived_at: Timestamp,
}

impl SegmentInfo {
    /// Length of the content in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.range.end.saturating_sub(self.range.start)
    }

    /// Whether this very transaction is in the server's binlogs up to the end of this piece.
    #[must_use]
    pub fn holds(&self, gtid: &Gtid) -> bool {
        has(&self.after, self.state_after.as_ref(), gtid)
    }

    /// Whether this very transaction is in the server's binlogs before this piece.
    #[must_use]
    pub fn held_before(&self, gtid: &Gtid) -> bool {
        has(&self.before, self.state_before.as_ref(), gtid)
    }

    /// Whether `next` goes on exactly where this one ends, in the same file.
    #[must_use]
    pub fn continues_in(&self, next: &SegmentInfo) -> bool {
        self.server == next.server
            && self.range.same_file(&next.range)
            && self.range.end == next.range.start
    }

    /// The file that its server goes on with behind this one: the one that it named, or, where it was stopped or
    /// died, the one with the next number. `None` where the name has no number.
    #[must_use]
    pub fn file_after(&self) -> Option<String> {
        let counted =
            || self.range.file.parse::<BinlogFile>().ok().map(|file| file.next().to_string());
        self.next_file.clone().or_else(counted)
    }

    /// Whether something in it was committed at this time or later, as far as its server's times tell
    /// (see [`Flavor::commit_limit`]).
    #[must_use]
    pub fn reaches(&self, time: Timestamp) -> bool {
        self.last_time.is_some_and(|last| last >= self.flavor.commit_limit(time))
    }

    /// `server/seq`, for people.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.server, self.seq)
    }
}

fn has(set: &GtidSet, state: Option<&MariaDbBinlogState>, gtid: &Gtid) -> bool {
    match (state, gtid) {
        (Some(state), Gtid::MariaDb(gtid)) => state.contains(*gtid),
        _ => set.contains(gtid).unwrap_or(false),
    }
}

/// Some of the transactions of a stretch of binlogs.
#[derive(Debug, Clone, PartialEq)]
pub struct Only {
    /// These, by GTID set or position.
    pub set: GtidSet,
    /// MariaDB: these, by the last one of every server.
    pub state: Option<MariaDbBinlogState>,
}

impl Only {
    /// Whether a transaction is among them.
    #[must_use]
    pub fn contains(&self, gtid: &Gtid) -> bool {
        has(&self.set, self.state.as_ref(), gtid)
    }
}

impl Flavor {
    /// The least time of a commit, as the binlog has it, that may be `time` or later.
    ///
    /// MySQL writes microseconds. MariaDB writes full seconds, rounded down: what was committed within
    /// the same second may be later than `time`, and counts as later.
    #[must_use]
    pub fn commit_limit(self, time: Timestamp) -> Timestamp {
        match self {
            Flavor::MySql => time,
            Flavor::MariaDb => {
                Timestamp::from_second(time.as_nanosecond().div_euclid(1_000_000_000) as i64)
                    .unwrap_or(time)
            }
        }
    }
}

/// A segment as the archive lists it. One that cannot be read does not hide the others.
#[derive(Debug)]
pub struct ListedSegment {
    /// The server.
    pub server: BinlogServer,
    /// Its number.
    pub seq: u64,
    /// Length of the object in the store, in bytes.
    pub stored: u64,
    /// What is known of it, or why that cannot be read.
    pub info: Result<SegmentInfo>,
}

/// What became of [`SegmentStore::append`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is archived now, so many bytes long in the store.
    Stored(u64),
    /// There is another segment of that number; nothing was changed.
    Taken,
}

/// The archive of a cluster's binlogs. A segment is there as a whole or not at all, and is never
/// changed.
#[async_trait]
pub trait SegmentStore: Send + Sync {
    /// Every segment of the cluster, sorted by server and number.
    async fn segments(&self, cx: &Context, cluster: &ClusterName) -> Result<Vec<ListedSegment>>;

    /// What is known of one segment; `None` when it is not there.
    async fn segment(
        &self,
        cluster: &ClusterName,
        server: &BinlogServer,
        seq: u64,
    ) -> Result<Option<SegmentInfo>>;

    /// The content of a segment, checked against its digest.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::ErrorKind::Damaged) when a bit of it is not what was archived.
    async fn read(&self, cx: &Context, segment: &SegmentInfo) -> Result<Bytes>;

    /// Archives a segment.
    async fn append(&self, cx: &Context, segment: &SegmentInfo, content: Bytes)
    -> Result<Appended>;

    /// Writes a segment again that is damaged. What is whole stays; nothing is removed before `content` is known to
    /// be what is to be there.
    async fn replace_damaged(
        &self,
        cx: &Context,
        segment: &SegmentInfo,
        content: Bytes,
    ) -> Result<()>;

    /// Takes the right to archive the binlogs of a server.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`](crate::ErrorKind::Busy) while another one has it, with who that is.
    async fn claim(
        &self,
        cx: &Context,
        cluster: &ClusterName,
        server: &BinlogServer,
    ) -> Result<Box<dyn Claim>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_one_name_each() {
        for name in ["id-0", "id-4294967295", "3e11fa47-71ca-11e1-9e33-c80aa9429562"] {
            assert_eq!(name.parse::<BinlogServer>().unwrap().as_str(), name);
        }
        for name in
            ["", "id-", "id-007", "id-+7", "..", "3E11FA47-71CA-11E1-9E33-C80AA9429562", "a/b"]
        {
            assert!(name.parse::<BinlogServer>().is_err(), "{name}");
        }
    }
}
