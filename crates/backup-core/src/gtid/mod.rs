//! GTIDs: what names a transaction, and which transactions a server, a backup or a file holds.
//!
//! MySQL and MariaDB share the word and little else. MySQL keeps *sets*: every source counts its own
//! transactions and a set may have holes ([`MySqlGtidSet`]). MariaDB keeps *positions*: one GTID per
//! domain, and everything before it ([`MariaDbGtidSet`]). [`GtidSet`] holds either, with the
//! operations that mean the same for both.

mod binlog_state;
mod interval;
mod mariadb;
mod mysql;
mod mysql_codec;

use std::fmt;
use std::str::FromStr;

pub use binlog_state::MariaDbBinlogState;
pub use mariadb::{DomainRange, MariaDbGtid, MariaDbGtidSet};
pub use mysql::{GtidTag, MySqlGtid, MySqlGtidSet, Tsid};

use crate::error::{Error, ErrorKind, Result};
use crate::server::Flavor;

/// The largest transaction number of MySQL, 2^63 - 2 (`GNO_END` of the server is one more).
pub const MAX_GNO: u64 = i64::MAX as u64 - 1;

/// The name of one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Gtid {
    /// `uuid:number` or `uuid:tag:number`.
    MySql(MySqlGtid),
    /// `domain-server-sequence`.
    MariaDb(MariaDbGtid),
}

impl Gtid {
    /// Whose GTID it is.
    #[must_use]
    pub fn flavor(&self) -> Flavor {
        match self {
            Gtid::MySql(_) => Flavor::MySql,
            Gtid::MariaDb(_) => Flavor::MariaDb,
        }
    }
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Gtid::MySql(gtid) => gtid.fmt(f),
            Gtid::MariaDb(gtid) => gtid.fmt(f),
        }
    }
}

impl FromStr for Gtid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match flavor_of(text) {
            Flavor::MySql => text.parse().map(Gtid::MySql),
            Flavor::MariaDb => text.parse().map(Gtid::MariaDb),
        }
    }
}

impl From<MySqlGtid> for Gtid {
    fn from(gtid: MySqlGtid) -> Self {
        Gtid::MySql(gtid)
    }
}

impl From<MariaDbGtid> for Gtid {
    fn from(gtid: MariaDbGtid) -> Self {
        Gtid::MariaDb(gtid)
    }
}

/// The transactions that a server, a backup or a file holds.
///
/// An empty set belongs to neither flavor: its text is empty, so it cannot say. Two empty sets are
/// equal, and an empty one mixes with either flavor.
///
/// ```
/// use backup_core::GtidSet;
/// let backup: GtidSet = "0-1-100,1-2-7".parse()?;
/// let server: GtidSet = "0-3-140,1-2-7".parse()?;
/// assert!(backup.is_subset(&server)?);
/// assert_eq!(server.difference(&backup)?.to_string(), "domain 0: 101-140");
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub enum GtidSet {
    /// A set of MySQL, such as `@@gtid_executed`.
    MySql(MySqlGtidSet),
    /// A position of MariaDB, such as `@@gtid_binlog_pos`.
    MariaDb(MariaDbGtidSet),
}

impl GtidSet {
    /// Reads the text of a server whose flavor is known.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when it is no set of that flavor.
    pub fn parse(flavor: Flavor, text: &str) -> Result<Self> {
        match flavor {
            Flavor::MySql => text.parse().map(GtidSet::MySql),
            Flavor::MariaDb => text.parse().map(GtidSet::MariaDb),
        }
    }

    /// The set that holds nothing.
    #[must_use]
    pub fn empty(flavor: Flavor) -> Self {
        match flavor {
            Flavor::MySql => GtidSet::MySql(MySqlGtidSet::default()),
            Flavor::MariaDb => GtidSet::MariaDb(MariaDbGtidSet::default()),
        }
    }

    /// Whose set it is; `None` for an empty one, which is anybody's.
    #[must_use]
    pub fn flavor(&self) -> Option<Flavor> {
        match self {
            _ if self.is_empty() => None,
            GtidSet::MySql(_) => Some(Flavor::MySql),
            GtidSet::MariaDb(_) => Some(Flavor::MariaDb),
        }
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            GtidSet::MySql(set) => set.is_empty(),
            GtidSet::MariaDb(set) => set.is_empty(),
        }
    }

    /// Whether the transaction is in the set.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when the flavors differ.
    pub fn contains(&self, gtid: &Gtid) -> Result<bool> {
        match (self, gtid) {
            (GtidSet::MySql(set), Gtid::MySql(gtid)) => Ok(set.contains(gtid)),
            (GtidSet::MariaDb(set), Gtid::MariaDb(gtid)) => Ok(set.covers(*gtid)),
            (set, _) if set.is_empty() => Ok(false),
            (_, gtid) => Err(mixed(gtid.flavor())),
        }
    }

    /// Adds a transaction. In a set of MariaDB the position moves to it, unless it is there already
    /// (see [`MariaDbGtidSet::advance`]).
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when the flavors differ.
    pub fn insert(&mut self, gtid: &Gtid) -> Result<()> {
        match (&mut *self, gtid) {
            (GtidSet::MySql(set), Gtid::MySql(gtid)) => set.add(gtid),
            (GtidSet::MariaDb(set), Gtid::MariaDb(gtid)) => drop(set.advance(*gtid)),
            (set, gtid) if set.is_empty() => {
                *set = GtidSet::empty(gtid.flavor());
                return set.insert(gtid);
            }
            (_, gtid) => return Err(mixed(gtid.flavor())),
        }
        Ok(())
    }

    /// The last transaction, where all are numbered by one counter.
    #[must_use]
    pub fn last(&self) -> Option<Gtid> {
        match self {
            GtidSet::MySql(set) => {
                let (tsid, last) = set.intervals().last()?;
                let one = set.intervals().all(|(other, _)| other == tsid);
                let gtid = one.then(|| MySqlGtid::new(tsid.clone(), *last.end()).ok())?;
                gtid.map(Gtid::from)
            }
            GtidSet::MariaDb(set) => {
                let mut all = set.iter();
                let first = all.next()?;
                all.next().is_none().then(|| first.into())
            }
        }
    }

    /// Whether every transaction of this set is in `other`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when the flavors differ.
    pub fn is_subset(&self, other: &Self) -> Result<bool> {
        match (self, other) {
            (GtidSet::MySql(a), GtidSet::MySql(b)) => Ok(a.is_subset(b)),
            (GtidSet::MariaDb(a), GtidSet::MariaDb(b)) => Ok(a.is_covered_by(b)),
            (a, _) if a.is_empty() => Ok(true),
            (_, b) if b.is_empty() => Ok(false),
            (_, b) => Err(mixed_with(b)),
        }
    }

    /// What is in this set or in `other`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when the flavors differ.
    pub fn union(&self, other: &Self) -> Result<Self> {
        match (self, other) {
            (GtidSet::MySql(a), GtidSet::MySql(b)) => Ok(GtidSet::MySql(a.union(b))),
            (GtidSet::MariaDb(a), GtidSet::MariaDb(b)) => Ok(GtidSet::MariaDb(a.union(b))),
            (a, b) if a.is_empty() => Ok(b.clone()),
            (a, b) if b.is_empty() => Ok(a.clone()),
            (_, b) => Err(mixed_with(b)),
        }
    }

    /// What is in both. Of two positions of MariaDB, in each domain the earlier one.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when the flavors differ.
    pub fn intersection(&self, other: &Self) -> Result<Self> {
        match (self, other) {
            (GtidSet::MySql(a), GtidSet::MySql(b)) => Ok(GtidSet::MySql(a.intersect(b))),
            (GtidSet::MariaDb(a), GtidSet::MariaDb(b)) => {
                let earlier = |gtid: MariaDbGtid| {
                    let there = b.get(gtid.domain)?;
                    Some(if there.seq < gtid.seq { there } else { gtid })
                };
                Ok(GtidSet::MariaDb(a.iter().filter_map(earlier).collect()))
            }
            (a, b) if a.is_empty() || b.is_empty() => {
                Ok(a.clone()).map(|a| a.flavor().or(b.flavor()).map_or(a, GtidSet::empty))
            }
            (_, b) => Err(mixed_with(b)),
        }
    }

    /// What is in this set and not in `other`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when the flavors differ.
    pub fn difference(&self, other: &Self) -> Result<GtidDifference> {
        match (self, other) {
            (GtidSet::MySql(a), GtidSet::MySql(b)) => Ok(GtidDifference::MySql(a.subtract(b))),
            (GtidSet::MariaDb(a), GtidSet::MariaDb(b)) => {
                Ok(GtidDifference::MariaDb(a.difference(b)))
            }
            (GtidSet::MySql(a), b) if a.is_empty() || b.is_empty() => {
                Ok(GtidDifference::MySql(a.clone()))
            }
            (GtidSet::MariaDb(a), b) if a.is_empty() || b.is_empty() => {
                Ok(GtidDifference::MariaDb(a.difference(&MariaDbGtidSet::default())))
            }
            (_, b) => Err(mixed_with(b)),
        }
    }
}

impl PartialEq for GtidSet {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (GtidSet::MySql(a), GtidSet::MySql(b)) => a == b,
            (GtidSet::MariaDb(a), GtidSet::MariaDb(b)) => a == b,
            (a, b) => a.is_empty() && b.is_empty(),
        }
    }
}

impl Eq for GtidSet {}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GtidSet::MySql(set) => set.fmt(f),
            GtidSet::MariaDb(set) => set.fmt(f),
        }
    }
}

impl FromStr for GtidSet {
    type Err = Error;

    /// Tells the flavor by the form; empty text is the empty set.
    fn from_str(text: &str) -> Result<Self> {
        GtidSet::parse(flavor_of(text), text)
    }
}

impl From<MySqlGtidSet> for GtidSet {
    fn from(set: MySqlGtidSet) -> Self {
        GtidSet::MySql(set)
    }
}

impl From<MariaDbGtidSet> for GtidSet {
    fn from(set: MariaDbGtidSet) -> Self {
        GtidSet::MariaDb(set)
    }
}

/// What one [`GtidSet`] has and another lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GtidDifference {
    /// Exactly these transactions.
    MySql(MySqlGtidSet),
    /// The transactions of each domain that lie in these ranges; MariaDB's numbers may have holes,
    /// so not every number need exist.
    MariaDb(Vec<DomainRange>),
}

impl GtidDifference {
    /// Whether nothing is missing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            GtidDifference::MySql(set) => set.is_empty(),
            GtidDifference::MariaDb(ranges) => ranges.is_empty(),
        }
    }
}

impl fmt::Display for GtidDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GtidDifference::MySql(set) => set.fmt(f),
            GtidDifference::MariaDb(ranges) => separated(f, ", ", ranges),
        }
    }
}

/// A colon is in every GTID of MySQL and in none of MariaDB.
fn flavor_of(text: &str) -> Flavor {
    let mariadb = text.contains(|c: char| c.is_ascii_digit()) && !text.contains(':');
    if mariadb { Flavor::MariaDb } else { Flavor::MySql }
}

fn mixed_with(set: &GtidSet) -> Error {
    mixed(set.flavor().unwrap_or(Flavor::MySql))
}

fn mixed(second: Flavor) -> Error {
    let first = match second {
        Flavor::MySql => Flavor::MariaDb,
        Flavor::MariaDb => Flavor::MySql,
    };
    Error::usage(format!("cannot compare GTIDs of {first} with GTIDs of {second}"))
        .with_remedy(format!("give the GTID in the form of {first}"))
}

/// The error of every text parser here; `rest` is where it could not go on.
fn malformed(what: &str, rest: &str, expected: &str) -> Error {
    let mut shown: String = rest.chars().take(40).collect();
    if shown.is_empty() {
        shown = "the end".to_owned();
    } else {
        shown = format!("\"{}\"", shown.escape_debug());
    }
    Error::new(ErrorKind::Usage, format!("malformed {what}: expected {expected} at {shown}"))
        .with_remedy(
            "write GTIDs as the server prints them: uuid:1-5 or uuid:tag:1-5 (MySQL), \
             domain-server-sequence (MariaDB)",
        )
}

/// Writes items with a separator between them.
fn separated<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    separator: &str,
    items: impl IntoIterator<Item = T>,
) -> fmt::Result {
    let mut between = "";
    for item in items {
        write!(f, "{between}{item}")?;
        between = separator;
    }
    Ok(())
}

/// In JSON all of these are the text that the server prints.
macro_rules! serde_as_text {
    ($($type:ty),*) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
                let text: String = serde::Deserialize::deserialize(from)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

serde_as_text!(
    Gtid,
    GtidSet,
    MySqlGtid,
    MySqlGtidSet,
    GtidTag,
    MariaDbGtid,
    MariaDbGtidSet,
    MariaDbBinlogState
);
