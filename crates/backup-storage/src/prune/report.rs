//! What a prune did, or would do.

use backup_core::{BackupId, ClusterName};
use jiff::Timestamp;
use serde::Serialize;

/// What a prune did; with `dry_run`, what it would do.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PruneReport {
    /// Whether nothing was touched.
    pub dry_run: bool,
    /// Whether rules were given. Without, only what earlier plans named, and leftovers, may go.
    pub rules: bool,
    /// Every backup, sorted by cluster and id.
    pub backups: Vec<Pruned>,
    /// Archived binlogs, by cluster.
    pub binlogs: Vec<PrunedBinlogs>,
    /// What is no backup.
    pub leftovers: Leftovers,
    /// Bytes that were freed in all.
    pub bytes_freed: u64,
    /// Bytes of removed backups that stay, because backups that are kept need them.
    pub bytes_kept: u64,
    /// What the store did not allow to be removed.
    pub refused: Vec<Refused>,
    /// What needs a look.
    pub warnings: Vec<String>,
}

/// What became of the archived binlogs of a cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PrunedBinlogs {
    /// The cluster.
    pub cluster: ClusterName,
    /// Segments that are removed: no backup needs them.
    pub removed: u64,
    /// Length of their objects in bytes.
    pub bytes: u64,
    /// The latest commit in them.
    pub upto: Option<Timestamp>,
    /// Segments that stay.
    pub kept: u64,
    /// Why all of them stay, where it is not that they are needed.
    pub held: Option<String>,
}

/// What became of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// The cluster.
    pub cluster: ClusterName,
    /// The backup.
    pub backup: BackupId,
    /// What became of it.
    pub fate: Fate,
    /// Why.
    pub reasons: Vec<String>,
    /// Bytes in its directory.
    pub bytes: u64,
}

/// What became of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "fate", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Fate {
    /// It is kept.
    Kept,
    /// It is marked: a prune after this time removes it.
    Marked {
        /// By the clock of the store.
        due: Timestamp,
    },
    /// It should go, and stays for now.
    Held,
    /// It is removed.
    Removed,
}

/// What was left by others and removed, or would be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Leftovers {
    /// Backups that were never finished.
    pub unfinished: u64,
    /// Bytes of theirs.
    pub unfinished_bytes: u64,
    /// Objects of removed backups that nothing needs any more.
    pub retired: u64,
    /// Bytes of theirs.
    pub retired_bytes: u64,
    /// Markers, plans, epochs of leases and files that are of no more use.
    pub other: u64,
}

/// An object that the store does not let go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Its path.
    pub object: String,
    /// What the store said.
    pub reason: String,
}
