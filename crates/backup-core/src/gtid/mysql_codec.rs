//! The bytes of a MySQL GTID set: the body of a PREVIOUS_GTIDS event and the data of
//! COM_BINLOG_DUMP_GTID.
//!
//! `Gtid_set::encode` and `add_gtid_encoding` of the server (`sql/rpl_gtid_set.cc`), all numbers
//! little-endian:
//!
//! ```text
//! u64 header: byte 7 = 0  plain, bytes 0..7 = number of sources
//!             byte 7 = 1  tagged (8.3 and later), byte 0 = 1, bytes 1..7 = number of sources
//! per source: uuid[16]
//!             tagged: length and text of the tag (length 0: no tag)
//!             u64 number of intervals, then for each: u64 start, u64 end, exclusive
//! ```
//!
//! The server writes the tagged form as soon as one source has a tag. The length of a tag is a
//! variable-length integer of the server's serialization library (as many trailing one bits in the
//! first byte as bytes follow).

use std::collections::BTreeMap;

use uuid::Uuid;

use super::interval::Interval;
use super::{GtidTag, MAX_GNO, MySqlGtidSet, Tsid};
use crate::error::{Error, Result};

const PLAIN: u8 = 0;
const TAGGED: u8 = 1;

impl MySqlGtidSet {
    /// The bytes of the set; tagged only if [`MySqlGtidSet::has_tags`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let tagged = self.has_tags();
        let count = self.lists().len() as u64;
        let header =
            if tagged { u64::from(TAGGED) << 56 | count << 8 | u64::from(TAGGED) } else { count };
        let mut out = header.to_le_bytes().to_vec();
        for (tsid, intervals) in self.lists() {
            out.extend_from_slice(tsid.uuid.as_bytes());
            if tagged {
                let tag = tsid.tag.as_ref().map_or("", GtidTag::as_str);
                // At most 32, so that the variable-length form is always this one byte.
                out.push((tag.len() as u8) << 1);
                out.extend_from_slice(tag.as_bytes());
            }
            out.extend_from_slice(&(intervals.len() as u64).to_le_bytes());
            for interval in intervals {
                out.extend_from_slice(&interval.start.to_le_bytes());
                out.extend_from_slice(&interval.end.to_le_bytes());
            }
        }
        out
    }

    /// Reads what [`MySqlGtidSet::encode`] or a server wrote: all of `bytes`, without a checksum.
    ///
    /// As strict as the server. Takes memory in proportion to `bytes`, whatever the counts in them.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::ErrorKind::Damaged) when the bytes are no GTID set.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader { bytes };
        let header = reader.u64()?;
        let [first, .., format] = header.to_le_bytes();
        let (tagged, sources) = match format {
            PLAIN => (false, header),
            TAGGED if first == TAGGED => (true, header << 8 >> 16),
            _ => return Err(damaged("its format is unknown")),
        };

        // Nothing is reserved by a count: each one is a promise that the bytes must keep.
        let mut lists: BTreeMap<Tsid, Vec<Interval>> = BTreeMap::new();
        for _ in 0..sources {
            let uuid = Uuid::from_bytes(reader.array()?);
            let tag = if tagged { reader.tag()? } else { None };
            let count = reader.u64()?;
            if count == 0 {
                continue;
            }
            let list = lists.entry(Tsid { uuid, tag }).or_default();
            let mut last = 0;
            for _ in 0..count {
                let (start, end) = (reader.u64()?, reader.u64()?);
                if start <= last || end <= start || end > MAX_GNO + 1 {
                    return Err(damaged("its intervals do not rise"));
                }
                list.push(Interval { start, end });
                last = end;
            }
        }
        if !reader.bytes.is_empty() {
            return Err(damaged("bytes follow it"));
        }
        Ok(MySqlGtidSet::from_lists(lists))
    }
}

fn damaged(why: &'static str) -> Error {
    Error::damaged(format!("the binary GTID set cannot be read: {why}"))
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) =
            self.bytes.split_first_chunk().ok_or_else(|| damaged("it is cut off"))?;
        self.bytes = rest;
        Ok(*head)
    }

    fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn tag(&mut self) -> Result<Option<GtidTag>> {
        let length = self.varint()?;
        if length > GtidTag::MAX_LEN as u64 {
            return Err(damaged("a tag is too long"));
        }
        let (tag, rest) =
            self.bytes.split_at_checked(length as usize).ok_or_else(|| damaged("it is cut off"))?;
        self.bytes = rest;
        if tag.is_empty() {
            return Ok(None);
        }
        let text = std::str::from_utf8(tag).map_err(|_| damaged("a tag is no text"))?;
        text.parse().map(Some).map_err(|e: Error| damaged("a tag is invalid").with_source(e))
    }

    fn varint(&mut self) -> Result<u64> {
        let [first] = self.array()?;
        let following = first.trailing_ones() as usize;
        let mut raw = [0; 8];
        if following == 8 {
            return self.u64();
        }
        raw[0] = first;
        for byte in &mut raw[1..=following] {
            [*byte] = self.array()?;
        }
        Ok(u64::from_le_bytes(raw) >> (following + 1))
    }
}
