//! What a backup by a tool is known by: in its manifest, and to the increment that goes on from it.

use backup_core::{BackupId, Error, Manifest, Position, Result};
use serde::{Deserialize, Serialize};

/// What the manifest of such a backup has in its `details`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhysicalDetails {
    /// `mariadb-backup` or `xtrabackup`.
    pub tool: String,
    /// Its version.
    pub tool_version: String,
    /// Which server it was, for MariaDB has no identity that goes with the data: host, data directory,
    /// `server_id`.
    #[serde(default)]
    pub instance: String,
    /// The file of the system tablespace, which a restore makes anew: number and time of its making.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_file: Option<String>,
    /// Where it begins: 0 for one that stands alone.
    pub from_lsn: u64,
    /// Where the next increment begins.
    pub to_lsn: u64,
    /// The end of the redo log in it.
    pub last_lsn: u64,
    /// The largest number that a table of MariaDB had before it was read: what was imported since has a larger one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_table: Option<u64>,
    /// When the server was started, in seconds since 1970: the same process has gone on from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_started: Option<u64>,
    /// XXH3-128 of what is in front of the position in the file of the binary log: see `history::tail`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binlog_tail: Option<String>,
    /// Pages that were checked on their way, and are sound.
    pub sound_pages: u64,
    /// Pages that are encrypted, and cannot be checked.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub encrypted_pages: u64,
    /// Damaged pages.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bad_pages: Vec<String>,
    /// What the tool wrote of a replica's source, as it wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_position: Option<String>,
    /// What the tool wrote of a Galera node, as it wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub galera_position: Option<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The backup that an increment goes on from.
#[derive(Debug, Clone)]
pub struct Parent {
    /// Its id.
    pub backup: BackupId,
    /// The server that it was read from.
    pub server_uuid: Option<String>,
    /// See [`PhysicalDetails::instance`].
    pub instance: String,
    /// See [`PhysicalDetails::system_file`].
    pub system_file: Option<String>,
    /// Its flavor and version.
    pub version: String,
    /// The position in the binary log that it is of.
    pub position: Position,
    /// The checkpoint that it ended with.
    pub to_lsn: u64,
    /// See [`PhysicalDetails::last_table`].
    pub last_table: Option<u64>,
    /// See [`PhysicalDetails::server_started`].
    pub server_started: Option<u64>,
    /// See [`PhysicalDetails::binlog_tail`].
    pub binlog_tail: Option<String>,
    /// When that backup began, in seconds since 1970.
    pub began: u64,
}

impl Parent {
    /// Takes it from a manifest.
    ///
    /// # Errors
    /// A usage error when that backup was not made by a tool.
    pub fn of(manifest: &Manifest) -> Result<Parent> {
        let details = details(manifest)?;
        Ok(Parent {
            backup: manifest.backup.clone(),
            server_uuid: manifest.outcome.source.server_uuid.clone(),
            instance: details.instance,
            system_file: details.system_file,
            version: manifest.outcome.source.version.clone(),
            position: manifest.outcome.position.clone(),
            to_lsn: details.to_lsn,
            last_table: details.last_table,
            server_started: details.server_started,
            binlog_tail: details.binlog_tail,
            began: u64::try_from(manifest.started_at.as_second()).unwrap_or_default(),
        })
    }
}

/// What the manifest says of a backup by a tool.
///
/// # Errors
/// A usage error when a tool did not make it.
pub fn details(manifest: &Manifest) -> Result<PhysicalDetails> {
    serde_json::from_value(manifest.outcome.details.clone()).map_err(|_| {
        Error::usage(format!("{} was not made by xtrabackup or mariadb-backup", manifest.backup))
    })
}
