//! The manifest: the record that makes a backup exist.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::id::{BackupId, BackupType, ClusterName, Strategy};
use crate::position::Position;
use crate::server::Flavor;

/// The repository format that this version writes.
pub const FORMAT: u32 = 1;

/// The record of a finished backup, written last. It is small, whatever the size of the backup:
/// what a strategy knows about its objects is an artifact of the backup.
///
/// Readers ignore keys they do not know; a change that old readers must not ignore raises
/// [`FORMAT`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The repository format, [`FORMAT`].
    pub format: u32,
    /// The backup's id.
    pub backup: BackupId,
    /// The cluster it belongs to.
    pub cluster: ClusterName,
    /// How it was made.
    pub strategy: Strategy,
    /// How much it holds by itself.
    #[serde(rename = "type")]
    pub backup_type: BackupType,
    /// The backup that this one needs before it in a restore; `None` for a full one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<BackupId>,
    /// Packs of other backups of the cluster that this one refers to (deduplication, delta frames),
    /// sorted by backup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<Needed>,
    /// When it began.
    pub started_at: Timestamp,
    /// When its last artifact was stored.
    pub finished_at: Timestamp,
    /// The program and version that wrote it.
    pub writer: String,
    /// What was learnt about source and data.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Sums.
    pub totals: Totals,
    /// The packs of this backup, in order of their numbers.
    pub packs: Vec<ObjectDigest>,
    /// The index object.
    pub index: ObjectDigest,
}

/// What a backup needs of another one. The other may have been removed: then these packs of it were
/// kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Needed {
    /// The other backup, of the same cluster.
    pub backup: BackupId,
    /// Those of its packs that are needed, in order of their numbers.
    pub packs: Vec<ObjectDigest>,
}

/// Name, length and digest of an object of the repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectDigest {
    /// Its name inside the backup's directory: `pack-0`, `index`.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// SHA-256 of its bytes, 64 hex digits.
    pub sha256: String,
}

/// Sums over a backup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Number of artifacts.
    pub artifacts: u64,
    /// Bytes that the driver gave to the repository.
    pub bytes_read: u64,
    /// Of these, bytes that the repository did not have yet.
    pub bytes_new: u64,
    /// Bytes that the store took: packs, index; without the manifest itself.
    pub bytes_stored: u64,
}

/// What a [`Backup`](crate::Backup) reports when it is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The source.
    pub source: SourceInfo,
    /// The position in the binary log that the backup stands for.
    pub position: Position,
    /// How consistent the backup is, and why.
    pub consistency: Consistency,
    /// How long a lock was held that other sessions could feel, in seconds.
    pub lock_seconds: f64,
    /// Rows, where the strategy counts them.
    pub rows: Option<u64>,
    /// Objects by kind (`tables`, `views`, …), for people.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub objects: std::collections::BTreeMap<String, u64>,
    /// Whether values were changed on the way (masking): such a backup is no copy of the data.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub masked: bool,
    /// Whether only a part of the server was asked for (`--databases`, `--tables`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// What needs a look.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What only the strategy understands.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub details: serde_json::Value,
}

/// The server that a backup read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// MySQL or MariaDB.
    pub flavor: Flavor,
    /// Its version as it says it.
    pub version: String,
    /// Host and port, or socket, without user and password.
    pub address: String,
    /// `@@server_uuid` (MySQL) or `@@server_uid` (MariaDB, where there is one).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_uuid: Option<String>,
    /// `@@server_id`.
    pub server_id: u64,
    /// `@@hostname`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
}

/// How consistent a backup is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consistency {
    /// The level.
    pub level: ConsistencyLevel,
    /// How it was reached, or why not a better one.
    pub reason: String,
}

/// Levels of consistency, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConsistencyLevel {
    /// Every byte is of the recorded position.
    Exact,
    /// Transactional tables are of the recorded position; others may be of a later moment.
    Transactional,
    /// No common moment.
    None,
}
