//! What is asked of a chain, and what it answers.

use std::fmt;

use jiff::Timestamp;

use crate::gtid::{Gtid, GtidSet};
use crate::manifest::Manifest;
use crate::position::Position;
use crate::segment::{BinlogServer, Only, SegmentInfo};

/// Where a replay begins: what the target has already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayBase {
    /// The server whose file and offset are in `position`, where that is known. Without a file, the server that is
    /// to be written itself.
    pub server: Option<BinlogServer>,
    /// What is there.
    pub position: Position,
}

impl ReplayBase {
    /// What a restore of this backup gives.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Self {
        ReplayBase {
            server: BinlogServer::of_source(&manifest.outcome.source),
            position: manifest.outcome.position.clone(),
        }
    }

    /// The server that is to be written itself, where it is one.
    pub(super) fn own(&self) -> Option<&BinlogServer> {
        self.server.as_ref().filter(|_| self.position.file.is_none())
    }
}

/// The point that a replay leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayTarget {
    /// All there is; no point where the archive goes on behind a hole.
    End,
    /// All that can be reached, whatever is archived behind a hole.
    Reachable,
    /// Everything that was committed before this time; the first transaction of this time or later,
    /// in the order of the binlog, is left out, and everything behind it.
    Time(Timestamp),
    /// This transaction is the last one.
    Gtid(Gtid),
    /// This transaction is the first that is left out.
    BeforeGtid(Gtid),
    /// Transactions that end up to this offset of a file.
    Position {
        /// The server whose file it is; without it, that of the backup or the only one that has it.
        server: Option<BinlogServer>,
        /// The file.
        file: String,
        /// The offset.
        offset: u64,
    },
}

impl ReplayTarget {
    /// Whether the base is this very point, as far as its position alone tells.
    pub(super) fn is_at(&self, base: &ReplayBase) -> bool {
        let Position { gtid, file: at, offset: place, .. } = &base.position;
        match self {
            ReplayTarget::Position { server, file, offset } => {
                (server.is_none() || *server == base.server)
                    && at.as_ref() == Some(file)
                    && *place == Some(*offset)
            }
            ReplayTarget::Gtid(wanted) => {
                gtid.as_ref().is_some_and(|set| set.last().as_ref() == Some(wanted))
            }
            _ => false,
        }
    }
}

impl fmt::Display for ReplayTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplayTarget::End => f.write_str("the end of the archive"),
            ReplayTarget::Reachable => f.write_str("the last point that can be reached"),
            ReplayTarget::Time(time) => write!(f, "time {time}"),
            ReplayTarget::Gtid(gtid) => write!(f, "GTID {gtid}"),
            ReplayTarget::BeforeGtid(gtid) => write!(f, "the point before GTID {gtid}"),
            ReplayTarget::Position { server: Some(server), file, offset } => {
                write!(f, "position {server}/{file}:{offset}")
            }
            ReplayTarget::Position { file, offset, .. } => write!(f, "position {file}:{offset}"),
        }
    }
}

/// A part of a replay: segments of one server that join each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Stretch {
    /// The segments, in order.
    pub segments: Vec<SegmentInfo>,
    /// Only these transactions of them; `None` for all. Those that the target has are always left
    /// out.
    pub only: Option<Only>,
    /// Where to begin, in a file of the first segments, where transactions have no GTIDs.
    pub begin: Option<(String, u64)>,
}

/// The way to a point.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayPlan {
    /// The parts, in order. The point is in the last segment of the last one. Nothing where the base
    /// is the point.
    pub stretches: Vec<Stretch>,
    /// The transactions that the target has before it begins; `None` where there are no GTIDs and
    /// positions decide.
    pub applied: Option<GtidSet>,
}

impl ReplayPlan {
    /// Length of what is read, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.stretches.iter().flat_map(|s| &s.segments).map(SegmentInfo::bytes).sum()
    }

    /// The segment that the point is in; `None` where the base is the point.
    pub(super) fn last(&self) -> Option<&SegmentInfo> {
        self.stretches.last()?.segments.last()
    }
}

/// A place where the archive of a server has a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The server.
    pub server: BinlogServer,
    /// The last piece before it.
    pub after: String,
    /// The first piece behind it.
    pub before: String,
    /// The transactions in it, as far as GTIDs tell; empty where another server's binlogs, or none,
    /// may have them.
    pub missing: String,
}

/// How far the archive leads from a base.
#[derive(Debug, Clone, PartialEq)]
pub struct Reach {
    /// The last segment of the way; `None` where the base has everything.
    pub last: Option<SegmentInfo>,
    /// The latest commit on the way; `None` where nothing was committed since the base.
    pub time: Option<Timestamp>,
    /// Whether that is the end of the archive.
    pub whole: bool,
}
