//! What stands in the place of a manifest when a backup was given up.

use backup_core::{BackupId, ClusterName, FORMAT};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The content of a manifest frame that says that there is no backup, and that there will be none: the
/// writer of this id cannot create its manifest any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// The repository format.
    pub format: u32,
    /// The backup that will not be.
    pub backup: BackupId,
    /// Its cluster.
    pub cluster: ClusterName,
    /// By whom and why.
    pub given_up: GivenUp,
}

/// When and why a backup was given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// When, by the clock of the store.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
}

impl Tombstone {
    /// For a backup that nothing more is expected of.
    #[must_use]
    pub fn new(cluster: ClusterName, backup: BackupId, given_up: GivenUp) -> Self {
        Tombstone { format: FORMAT, backup, cluster, given_up }
    }
}

/// No tombstone is longer.
const MAX_BYTES: usize = 64 << 10;

/// Reads the JSON of a manifest frame, if it is a tombstone and no manifest.
#[must_use]
pub fn parse_tombstone(json: &[u8]) -> Option<Tombstone> {
    (json.len() <= MAX_BYTES).then(|| serde_json::from_slice(json).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tombstone_is_no_manifest_and_a_manifest_no_tombstone() {
        let text = br#"{"format":1,"backup":"20261120T101530Z-full-7f3a9c","cluster":"shop",
            "given_up":{"at":"2026-11-21T12:00:00Z","reason":"nothing happened for a day"}}"#;
        let tombstone = parse_tombstone(text).unwrap();
        assert_eq!(tombstone.cluster.as_str(), "shop");
        assert!(crate::format::parse_manifest(text).is_err());
        let again = serde_json::to_vec(&tombstone).unwrap();
        assert_eq!(parse_tombstone(&again), Some(tombstone));
        for other in [&b"{}"[..], b"", br#"{"format":1,"backup":"20261120T101530Z-full-7f3a9c"}"#] {
            assert_eq!(parse_tombstone(other), None);
        }
    }
}
