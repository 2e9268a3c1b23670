//! Typed names of the objects of a repository.

use std::fmt;
use std::str::FromStr;

use backup_core::{BackupId, BinlogServer, ClusterName, Context, Error};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

/// The name of an object. [`Display`](fmt::Display) gives its path inside the repository.
///
/// ```
/// use backup_storage::{BackupObject, Key};
/// let key = Key::Backup(
///     "shop".parse().unwrap(),
///     "20261120T101530Z-full-7f3a9c".parse().unwrap(),
///     BackupObject::Pack(3),
/// );
/// assert_eq!(
///     key.to_string(),
///     "clusters/shop/backups/20261120T101530Z-full-7f3a9c/pack-3"
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// `holdfast.json`.
    Config,
    /// An object of a backup.
    Backup(ClusterName, BackupId, BackupObject),
    /// A record of a cluster's history, by its file name.
    Record(ClusterName, RecordName),
    /// A piece of a server's binlog, by its number.
    Segment(ClusterName, BinlogServer, u64),
    /// A key slot of an encrypted repository.
    KeySlot(SlotName),
    /// A plan to remove backups, by its file name.
    Mark(RecordName),
    /// An epoch of a lease.
    Lease(LeaseName, u64),
    /// An object that is made to learn what time the store has, and removed again.
    Now(RecordName),
    /// `tiers/<seq>`: where packs move as they age. The highest number is what counts.
    Tiers(u64),
    /// `tier.json`, in the store of a lower tier: whose tier it is.
    TierMark,
}

impl Key {
    /// Its path as the store wants it.
    #[must_use]
    pub fn path(&self) -> Path {
        Path::from(self.to_string())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Config => f.write_str("holdfast.json"),
            Key::Backup(cluster, backup, object) => {
                write!(f, "clusters/{cluster}/backups/{backup}/{object}")
            }
            Key::Record(cluster, name) => write!(f, "clusters/{cluster}/records/{name}"),
            Key::Segment(cluster, server, seq) => {
                write!(f, "clusters/{cluster}/binlog/{server}/{seq:0SEGMENT_DIGITS$}")
            }
            Key::KeySlot(name) => write!(f, "keys/{name}"),
            Key::Mark(name) => write!(f, "marks/{name}"),
            Key::Lease(name, epoch) => write!(f, "locks/{name}/{epoch}"),
            Key::Now(name) => write!(f, "locks/{name}"),
            Key::Tiers(seq) => write!(f, "tiers/{seq}"),
            Key::TierMark => f.write_str("tier.json"),
        }
    }
}

/// The directory of plans to remove backups.
pub(crate) fn marks() -> Path {
    Path::from("marks")
}

/// The directory of all leases.
pub(crate) fn locks() -> Path {
    Path::from("locks")
}

/// The directory of one lease.
pub(crate) fn lease(name: &LeaseName) -> Path {
    Path::from(format!("locks/{name}"))
}

/// The directory of all clusters.
pub(crate) fn clusters() -> Path {
    Path::from("clusters")
}

/// The directory of the key slots.
pub(crate) fn keys() -> Path {
    Path::from("keys")
}

/// The directory of a cluster's backups.
pub(crate) fn backups(cluster: &ClusterName) -> Path {
    Path::from(format!("clusters/{cluster}/backups"))
}

/// The directory of the policies of tiers.
pub(crate) fn tiers() -> Path {
    Path::from("tiers")
}

/// The directory of one backup.
pub(crate) fn backup(cluster: &ClusterName, backup: &BackupId) -> Path {
    Path::from(format!("clusters/{cluster}/backups/{backup}"))
}

/// Numbers of segments have at least so many digits, so that they sort.
const SEGMENT_DIGITS: usize = 10;

/// The directory of a cluster's binlogs.
pub(crate) fn binlogs(cluster: &ClusterName) -> Path {
    Path::from(format!("clusters/{cluster}/binlog"))
}

/// The directory of the binlogs of one server.
pub(crate) fn binlog(cluster: &ClusterName, server: &BinlogServer) -> Path {
    Path::from(format!("clusters/{cluster}/binlog/{server}"))
}

/// The number of the segment of that file name; `None` when it is no segment's.
pub(crate) fn segment_number(name: &str) -> Option<u64> {
    let number = name.parse().ok()?;
    (format!("{number:0SEGMENT_DIGITS$}") == name).then_some(number)
}

/// The directory of a cluster's history.
pub(crate) fn records(cluster: &ClusterName) -> Path {
    Path::from(format!("clusters/{cluster}/records"))
}

/// An object in the directory of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackupObject {
    /// `pack-<n>`, numbered from 0.
    Pack(u32),
    /// `index`.
    Index,
    /// `index-<n>`, numbered from 1: a rebuilt index.
    IndexCopy(u32),
    /// `manifest`.
    Manifest,
    /// `active`.
    Active,
    /// `active-<n>`, numbered from 1: a sign of life.
    Beat(u32),
    /// `retired`.
    Retired,
    /// `suspended`: its writer has ended, and left it to a later backup.
    Suspended,
}

impl fmt::Display for BackupObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackupObject::Pack(n) => write!(f, "pack-{n}"),
            BackupObject::Index => f.write_str("index"),
            BackupObject::IndexCopy(n) => write!(f, "index-{n}"),
            BackupObject::Manifest => f.write_str("manifest"),
            BackupObject::Active => f.write_str("active"),
            BackupObject::Beat(n) => write!(f, "active-{n}"),
            BackupObject::Retired => f.write_str("retired"),
            BackupObject::Suspended => f.write_str("suspended"),
        }
    }
}

impl FromStr for BackupObject {
    type Err = ();
    fn from_str(name: &str) -> Result<Self, ()> {
        let object = match name {
            "index" => BackupObject::Index,
            "manifest" => BackupObject::Manifest,
            "active" => BackupObject::Active,
            "retired" => BackupObject::Retired,
            "suspended" => BackupObject::Suspended,
            _ => {
                let (word, number) = name.split_once('-').ok_or(())?;
                let number = number.parse().map_err(|_| ())?;
                match word {
                    "pack" => BackupObject::Pack(number),
                    "index" if number > 0 => BackupObject::IndexCopy(number),
                    "active" => BackupObject::Beat(number),
                    _ => return Err(()),
                }
            }
        };
        // One name, one object: `pack-03` and `pack-+3` are not ours.
        if object.to_string() == name { Ok(object) } else { Err(()) }
    }
}

/// What a lease is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeaseName {
    /// Removing backups.
    Prune,
    /// Moving packs between tiers.
    Tier,
    /// Copying backups of another repository to here.
    Copy,
    /// Archiving the binlogs of a server of a cluster.
    Binlog(ClusterName, BinlogServer),
}

impl fmt::Display for LeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LeaseName::Prune => f.write_str("prune"),
            LeaseName::Tier => f.write_str("tier"),
            LeaseName::Copy => f.write_str("copy"),
            LeaseName::Binlog(cluster, server) => write!(f, "binlog-{cluster}-{server}"),
        }
    }
}

impl FromStr for LeaseName {
    type Err = ();
    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "prune" => return Ok(LeaseName::Prune),
            "tier" => return Ok(LeaseName::Tier),
            "copy" => return Ok(LeaseName::Copy),
            _ => {}
        }
        // Names of clusters have dashes in them, but only one end of it is the name of a server.
        let rest = name.strip_prefix("binlog-").ok_or(())?;
        rest.match_indices('-')
            .find_map(|(at, _)| {
                let (cluster, server) = (rest[..at].parse().ok()?, rest[at + 1..].parse().ok()?);
                Some(LeaseName::Binlog(cluster, server))
            })
            .ok_or(())
    }
}

/// The file name of a record, `<time>-<kind>-<random>`: `20261120T101530Z-proof-7f3a9c01`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordName(String);

impl RecordName {
    /// A name; `None` when a character is not of `A-Z a-z 0-9 -`.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        ((1..=100).contains(&name.len()) && name.bytes().all(plain))
            .then(|| RecordName(name.to_owned()))
    }
}

impl fmt::Display for RecordName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of a key slot: 8 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SlotName(String);

impl SlotName {
    /// A new one.
    #[must_use]
    pub fn new(cx: &Context) -> Self {
        SlotName(format!("{:08x}", u32::from_le_bytes(cx.random())))
    }
}

impl FromStr for SlotName {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self, Error> {
        if name.len() == 8 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(SlotName(name.to_owned()));
        }
        Err(Error::usage(format!(
            "`{}` is no name of a key slot: those have 8 digits of 0-9 and a-f",
            name.escape_debug()
        ))
        .with_remedy("name one that `holdfast key list` shows"))
    }
}

impl TryFrom<String> for SlotName {
    type Error = Error;
    fn try_from(name: String) -> Result<Self, Error> {
        name.parse()
    }
}

impl From<SlotName> for String {
    fn from(name: SlotName) -> String {
        name.0
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_canonical_name_is_an_object() {
        for name in [
            "pack-0",
            "pack-4294967295",
            "index",
            "index-1",
            "manifest",
            "active",
            "active-1",
            "retired",
        ] {
            let object: BackupObject = name.parse().unwrap();
            assert_eq!(object.to_string(), name);
        }
        for name in [
            "pack-00",
            "pack-+1",
            "pack-",
            "pack--1",
            "pack-4294967296",
            "Index",
            "pack-1#1",
            "",
            "active-",
            "active-01",
            "index-0",
            "index-01",
            "retired-1",
        ] {
            assert_eq!(name.parse::<BackupObject>(), Err(()), "{name}");
        }
    }

    #[test]
    fn leases_have_one_name_each() {
        for name in [
            "prune",
            "tier",
            "copy",
            "binlog-shop-id-7",
            "binlog-a-id-1-id-2",
            "binlog-a-3e11fa47-71ca-11e1-9e33-c80aa9429562",
        ] {
            assert_eq!(name.parse::<LeaseName>().unwrap().to_string(), name);
        }
        for name in ["", "Prune", "binlog-", "binlog-shop", "binlog-id-7", "binlog-shop-id-07"] {
            assert_eq!(name.parse::<LeaseName>(), Err(()), "{name}");
        }
    }

    #[test]
    fn record_names_stay_in_their_directory() {
        assert!(RecordName::new("20261120T101530Z-proof-7f3a9c01").is_some());
        for bad in ["", "..", "a/b", "a#1", "a.b"] {
            assert!(RecordName::new(bad).is_none(), "{bad}");
        }
    }
}
