//! GTIDs of MariaDB: `domain-server-sequence`, and positions made of them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::{malformed, separated};
use crate::error::{Error, Result};

/// The name of one transaction of MariaDB.
///
/// The sequence number counts within the domain, whichever server wrote the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MariaDbGtid {
    /// The replication domain (`gtid_domain_id`).
    pub domain: u32,
    /// The server where the transaction was first committed (`server_id`).
    pub server: u32,
    /// The sequence number; transactions start at 1.
    pub seq: u64,
}

impl fmt::Display for MariaDbGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.seq)
    }
}

impl FromStr for MariaDbGtid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim_ascii();
        let parse = || {
            let (domain, rest) = text.split_once('-')?;
            let (server, seq) = rest.split_once('-')?;
            Some(MariaDbGtid {
                domain: decimal(domain)?,
                server: decimal(server)?,
                seq: decimal(seq)?,
            })
        };
        parse().ok_or_else(|| malformed("GTID", text, "domain-server-sequence"))
    }
}

/// `str::parse` takes a sign, too.
fn decimal<T: FromStr>(text: &str) -> Option<T> {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// GTIDs between commas; no text, no GTID.
pub(super) fn parse_list(text: &str) -> impl Iterator<Item = Result<MariaDbGtid>> {
    let text = text.trim_ascii();
    let items = if text.is_empty() { None } else { Some(text.split(',')) };
    items.into_iter().flatten().map(str::parse)
}

/// A position of MariaDB, such as `@@gtid_binlog_pos` or `@@gtid_slave_pos`: for each domain the
/// last transaction, and by that every earlier one of the domain.
///
/// Sequence numbers alone decide, as in a replica that connects: the server in a GTID says who wrote
/// that transaction, not who wrote the earlier ones. For what each server wrote there is
/// [`MariaDbBinlogState`](super::MariaDbBinlogState).
///
/// ```
/// use backup_core::{MariaDbGtid, MariaDbGtidSet};
/// let position: MariaDbGtidSet = "0-1-100,7-2-5".parse()?;
/// assert!(position.covers(MariaDbGtid { domain: 0, server: 9, seq: 42 }));
/// assert!(!position.covers(MariaDbGtid { domain: 7, server: 2, seq: 6 }));
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct MariaDbGtidSet {
    /// The key is the domain of the value.
    domains: BTreeMap<u32, MariaDbGtid>,
}

impl MariaDbGtidSet {
    /// Whether it has no domain at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// Whether the transaction lies at or before this position.
    #[must_use]
    pub fn covers(&self, gtid: MariaDbGtid) -> bool {
        self.get(gtid.domain).is_some_and(|last| gtid.seq <= last.seq)
    }

    /// Whether `other` has reached this position in every domain.
    #[must_use]
    pub fn is_covered_by(&self, other: &Self) -> bool {
        self.iter().all(|gtid| other.covers(gtid))
    }

    /// Moves the position to `gtid`. `false`, and no change, when that would not be forward: such a
    /// log is out of order (the source runs without `gtid_strict_mode`).
    pub fn advance(&mut self, gtid: MariaDbGtid) -> bool {
        let forward = !self.covers(gtid);
        if forward {
            self.domains.insert(gtid.domain, gtid);
        }
        forward
    }

    /// In each domain the later of the two positions.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut result = self.clone();
        for gtid in other.iter() {
            result.advance(gtid);
        }
        result
    }

    /// The transactions at or before this position and after `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Vec<DomainRange> {
        let range = |gtid: MariaDbGtid| {
            let reached = other.get(gtid.domain).map_or(0, |last| last.seq);
            (reached < gtid.seq).then(|| DomainRange {
                domain: gtid.domain,
                first: reached + 1,
                last: gtid.seq,
            })
        };
        self.iter().filter_map(range).collect()
    }

    /// The last transaction of a domain.
    #[must_use]
    pub fn get(&self, domain: u32) -> Option<MariaDbGtid> {
        self.domains.get(&domain).copied()
    }

    /// The domains, in rising order.
    pub fn domains(&self) -> impl Iterator<Item = u32> {
        self.domains.keys().copied()
    }

    /// The last transaction of each domain, by rising domain.
    pub fn iter(&self) -> impl Iterator<Item = MariaDbGtid> {
        self.domains.values().copied()
    }
}

impl FromIterator<MariaDbGtid> for MariaDbGtidSet {
    /// The latest GTID of each domain counts.
    fn from_iter<I: IntoIterator<Item = MariaDbGtid>>(gtids: I) -> Self {
        let mut set = MariaDbGtidSet::default();
        for gtid in gtids {
            set.advance(gtid);
        }
        set
    }
}

impl fmt::Display for MariaDbGtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        separated(f, ",", self.domains.values())
    }
}

impl FromStr for MariaDbGtidSet {
    type Err = Error;

    /// A domain may occur once, as in the server (ER_DUPLICATE_GTID_DOMAIN).
    fn from_str(text: &str) -> Result<Self> {
        let mut set = MariaDbGtidSet::default();
        for gtid in parse_list(text) {
            let gtid = gtid?;
            if set.domains.insert(gtid.domain, gtid).is_some() {
                let at = gtid.to_string();
                return Err(malformed("GTID position", &at, "each domain only once"));
            }
        }
        Ok(set)
    }
}

/// Sequence numbers of a domain, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DomainRange {
    /// The replication domain.
    pub domain: u32,
    /// The first sequence number.
    pub first: u64,
    /// The last sequence number.
    pub last: u64,
}

impl fmt::Display for DomainRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "domain {}: {}", self.domain, self.first)?;
        if self.last > self.first { write!(f, "-{}", self.last) } else { Ok(()) }
    }
}
