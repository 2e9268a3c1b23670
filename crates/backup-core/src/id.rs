//! Names: of clusters, backups and repositories.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::error::{Error, Result};

/// A backup's type: how much of the data it holds by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupType {
    /// Everything.
    Full,
    /// What changed since the last backup of any type.
    Incremental,
    /// What changed since the last full backup.
    Differential,
}

impl BackupType {
    /// The word used in ids, JSON and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            BackupType::Full => "full",
            BackupType::Incremental => "incremental",
            BackupType::Differential => "differential",
        }
    }
    /// The short word used in a [`BackupId`].
    fn id_word(self) -> &'static str {
        match self {
            BackupType::Full => "full",
            BackupType::Incremental => "incr",
            BackupType::Differential => "diff",
        }
    }
}

impl fmt::Display for BackupType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a backup reads its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// Rows and definitions, by SQL.
    Logical,
    /// Data files, by the server's own tools or a cold copy.
    Physical,
    /// Data files, from a snapshot of the volume.
    Snapshot,
    /// Data files, by MySQL's clone protocol.
    Clone,
    /// The binary log.
    Binlog,
    /// A dump that another program wrote, as it is.
    Foreign,
}

impl Strategy {
    /// Whether such a backup holds the files of a data directory, whose catalog and pages can be looked at and
    /// on which a server can start.
    #[must_use]
    pub fn has_data_files(self) -> bool {
        matches!(self, Strategy::Physical | Strategy::Snapshot | Strategy::Clone)
    }

    /// The word used in JSON and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Strategy::Logical => "logical",
            Strategy::Physical => "physical",
            Strategy::Snapshot => "snapshot",
            Strategy::Clone => "clone",
            Strategy::Binlog => "binlog",
            Strategy::Foreign => "foreign",
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The name of a cluster: 1 to 64 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterName(String);

impl ClusterName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self> {
        let ok = (1..=64).contains(&name.len())
            && name.as_bytes()[0].is_ascii_alphanumeric()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if ok {
            Ok(ClusterName(name.to_owned()))
        } else {
            Err(Error::usage(format!("`{}` is no cluster name", name.escape_debug())).with_remedy(
                "use 1 to 64 letters, digits, dots, dashes or underscores, beginning with a letter \
                 or digit",
            ))
        }
    }
}

impl TryFrom<String> for ClusterName {
    type Error = Error;
    fn try_from(name: String) -> Result<Self> {
        name.parse()
    }
}

impl From<ClusterName> for String {
    fn from(name: ClusterName) -> String {
        name.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of a backup, such as `20261120T101530Z-full-7f3a9c`: UTC time of its start, type, six
/// random hex digits. Ids sort by time and read well.
///
/// ```
/// use backup_core::BackupId;
/// let id: BackupId = "20261120T101530Z-full-7f3a9c".parse().unwrap();
/// assert_eq!(id.backup_type(), backup_core::BackupType::Full);
/// assert_eq!(id.started_at().to_string(), "2026-11-20T10:15:30Z");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId(String);

const ID_TIME: &str = "%Y%m%dT%H%M%SZ";

impl BackupId {
    /// A new id with the context's clock and randomness.
    #[must_use]
    pub fn new(cx: &Context, backup_type: BackupType) -> Self {
        let [a, b, c] = cx.random::<3>();
        let time = cx.now().to_zoned(TimeZone::UTC).strftime(ID_TIME);
        BackupId(format!("{time}-{}-{a:02x}{b:02x}{c:02x}", backup_type.id_word()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The type of the backup.
    #[must_use]
    pub fn backup_type(&self) -> BackupType {
        match &self.0[17..21] {
            "incr" => BackupType::Incremental,
            "diff" => BackupType::Differential,
            _ => BackupType::Full,
        }
    }

    /// When the backup began, to the second.
    #[must_use]
    pub fn started_at(&self) -> Timestamp {
        parse_time(&self.0[..16]).expect("checked when the id was made")
    }
}

fn parse_time(text: &str) -> Option<Timestamp> {
    let civil = jiff::civil::DateTime::strptime(ID_TIME, text).ok()?;
    Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

impl FromStr for BackupId {
    type Err = Error;
    fn from_str(id: &str) -> Result<Self> {
        let ok = id.is_ascii()
            && id.len() == 28
            && parse_time(&id[..16]).is_some()
            && matches!(&id[16..22], "-full-" | "-incr-" | "-diff-")
            && id[22..].bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if ok {
            Ok(BackupId(id.to_owned()))
        } else {
            Err(Error::usage(format!("`{}` is no backup id", id.escape_debug())).with_remedy(
                "take an id from `holdfast list`, a unique prefix of one, or `latest`",
            ))
        }
    }
}

impl TryFrom<String> for BackupId {
    type Error = Error;
    fn try_from(id: String) -> Result<Self> {
        id.parse()
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> String {
        id.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_new_id_parses_to_itself() {
        let cx = Context::builder().build();
        for t in [BackupType::Full, BackupType::Incremental, BackupType::Differential] {
            let id = BackupId::new(&cx, t);
            assert_eq!(id.as_str().parse::<BackupId>().unwrap(), id);
            assert_eq!(id.backup_type(), t);
            assert!((cx.now().as_second() - id.started_at().as_second()).abs() <= 1);
        }
    }

    #[test]
    fn names_that_could_leave_their_directory_are_refused() {
        for bad in ["", ".", "..", ".x", "a/b", "a\\b", "a b", "é", "a\0", &"x".repeat(65)] {
            assert!(bad.parse::<ClusterName>().is_err(), "{bad:?}");
        }
        for bad in ["", "latest", "20261320T101530Z-full-7f3a9c", "20261120T101530Z-full-7F3A9C"] {
            assert!(bad.parse::<BackupId>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<BackupId>();
            let _ = text.parse::<ClusterName>();
        }
    }
}
