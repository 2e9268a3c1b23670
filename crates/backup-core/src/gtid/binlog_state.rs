//! The GTID state of a MariaDB binlog: per domain, the last transaction of every server.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::mariadb::parse_list;
use super::{MariaDbGtid, MariaDbGtidSet, malformed, separated};
use crate::error::{Error, Result};

/// The bytes after an empty GTID list.
const PADDING: usize = 2;

/// What a binlog of MariaDB holds up to some place: `@@gtid_binlog_state`, or the GTID_LIST event at
/// the start of each file.
///
/// In text and in the event, what was written last of a domain comes last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MariaDbBinlogState {
    domains: BTreeMap<u32, DomainState>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct DomainState {
    /// Server to sequence number. Never empty.
    servers: BTreeMap<u32, u64>,
    /// What was written last.
    last: MariaDbGtid,
}

impl MariaDbBinlogState {
    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// Notes that `gtid` was written after everything else.
    pub fn update(&mut self, gtid: MariaDbGtid) {
        let domain = self
            .domains
            .entry(gtid.domain)
            .or_insert_with(|| DomainState { servers: BTreeMap::new(), last: gtid });
        domain.servers.insert(gtid.server, gtid.seq);
        domain.last = gtid;
    }

    /// The position: the last transaction of each domain.
    #[must_use]
    pub fn position(&self) -> MariaDbGtidSet {
        self.domains.values().map(|domain| domain.last).collect()
    }

    /// Whether this very transaction, of this server, is among what was written.
    #[must_use]
    pub fn contains(&self, gtid: MariaDbGtid) -> bool {
        let seq = self.domains.get(&gtid.domain).and_then(|d| d.servers.get(&gtid.server));
        seq.is_some_and(|last| gtid.seq <= *last)
    }

    /// What is in either: of each server the later transaction.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut all: Vec<MariaDbGtid> = self.iter().chain(other.iter()).collect();
        // What has the highest number was written last.
        all.sort_by_key(|gtid| gtid.seq);
        let mut result = MariaDbBinlogState::default();
        for gtid in all {
            result.update(gtid);
        }
        result
    }

    /// Those of the last transactions of each server that `other` does not have.
    pub fn missing_in<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = MariaDbGtid> + 'a {
        self.iter().filter(|gtid| !other.contains(*gtid))
    }

    /// The last transaction of each server, by domain; what was written last comes last.
    pub fn iter(&self) -> impl Iterator<Item = MariaDbGtid> {
        self.domains.iter().flat_map(|(&domain, state)| {
            let servers = state.servers.iter();
            let all = servers.map(move |(&server, &seq)| MariaDbGtid { domain, server, seq });
            all.filter(|gtid| gtid.server != state.last.server).chain([state.last])
        })
    }

    /// The body of a GTID_LIST event: u32 count, then per GTID u32 domain, u32 server, u64 sequence
    /// number, little-endian.
    /// Without GTIDs two bytes of padding follow, as in the server: events that old replicas must skip
    /// need a body of six bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let list: Vec<_> = self.iter().collect();
        let mut out = (list.len() as u32).to_le_bytes().to_vec();
        for gtid in list {
            out.extend_from_slice(&gtid.domain.to_le_bytes());
            out.extend_from_slice(&gtid.server.to_le_bytes());
            out.extend_from_slice(&gtid.seq.to_le_bytes());
        }
        if self.is_empty() {
            out.extend_from_slice(&[0; PADDING]);
        }
        out
    }

    /// Reads the body of a GTID_LIST event (`Gtid_list_log_event` of the server), without a
    /// checksum. Takes memory in proportion to `body`.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::ErrorKind::Damaged) when the body does not have the length that
    /// its count asks for.
    pub fn decode(body: &[u8]) -> Result<Self> {
        /// The upper bits are flags of events that a source makes for one replica.
        const COUNT: u32 = (1 << 28) - 1;
        let damaged = || Error::damaged("the GTID list of a binlog cannot be read: wrong length");
        let (count, list) = body.split_first_chunk().ok_or_else(damaged)?;
        let (entries, rest) = list.as_chunks::<16>();
        let count = u32::from_le_bytes(*count) & COUNT;
        let padding = if count == 0 { PADDING } else { 0 };
        if entries.len() as u64 != u64::from(count) || rest.len() > padding {
            return Err(damaged());
        }
        let mut state = MariaDbBinlogState::default();
        for entry in entries {
            let number = u128::from_le_bytes(*entry);
            state.update(MariaDbGtid {
                domain: number as u32,
                server: (number >> 32) as u32,
                seq: (number >> 64) as u64,
            });
        }
        Ok(state)
    }
}

impl fmt::Display for MariaDbBinlogState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        separated(f, ",", self.iter())
    }
}

impl FromStr for MariaDbBinlogState {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut state = MariaDbBinlogState::default();
        for gtid in parse_list(text) {
            let gtid = gtid?;
            let domain = state.domains.get(&gtid.domain);
            if domain.is_some_and(|domain| domain.servers.contains_key(&gtid.server)) {
                let at = gtid.to_string();
                return Err(malformed("GTID state", &at, "each server of a domain only once"));
            }
            state.update(gtid);
        }
        Ok(state)
    }
}
