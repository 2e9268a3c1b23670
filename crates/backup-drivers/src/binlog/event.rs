//! The frame of an event: header, body, checksum.
//!
//! Header of 19 bytes, little-endian: time u32 (seconds), type u8, server id u32, length u32 (of the
//! whole event), end position u32 (in its own file, modulo 2^32; 0 in events that a source makes up),
//! flags u16. Where the file's FORMAT_DESCRIPTION says so, the event ends with a CRC-32 of all bytes
//! before it (`Log_event_footer`, `sql/log_event.h` and libs/mysql/binlog/event of the server).

use backup_core::{Error, Result};
use bytes::{Bytes, BytesMut};

/// Length of the header.
pub const HEADER_LEN: usize = 19;
/// Length of the checksum.
pub(crate) const CHECKSUM_LEN: usize = 4;
/// The longest event that a server writes: `max_allowed_packet` at its greatest, and some more for
/// what is around a row.
pub const MAX_EVENT: usize = (1 << 30) + (1 << 20);

/// Types of events. Those that are not named here are kept and served like all others; nothing needs
/// to know them.
pub mod kind {
    #![expect(missing_docs, reason = "the names are the server's own")]
    pub const QUERY: u8 = 2;
    pub const STOP: u8 = 3;
    pub const ROTATE: u8 = 4;
    pub const INTVAR: u8 = 5;
    pub const APPEND_BLOCK: u8 = 9;
    pub const RAND: u8 = 13;
    pub const USER_VAR: u8 = 14;
    pub const FORMAT_DESCRIPTION: u8 = 15;
    pub const XID: u8 = 16;
    pub const BEGIN_LOAD_QUERY: u8 = 17;
    pub const EXECUTE_LOAD_QUERY: u8 = 18;
    pub const TABLE_MAP: u8 = 19;
    pub const WRITE_ROWS_V1: u8 = 23;
    pub const UPDATE_ROWS_V1: u8 = 24;
    pub const DELETE_ROWS_V1: u8 = 25;
    pub const INCIDENT: u8 = 26;
    pub const HEARTBEAT: u8 = 27;
    pub const ROWS_QUERY: u8 = 29;
    pub const WRITE_ROWS: u8 = 30;
    pub const UPDATE_ROWS: u8 = 31;
    pub const DELETE_ROWS: u8 = 32;
    pub const GTID: u8 = 33;
    pub const ANONYMOUS_GTID: u8 = 34;
    pub const PREVIOUS_GTIDS: u8 = 35;
    pub const XA_PREPARE: u8 = 38;
    pub const PARTIAL_UPDATE_ROWS: u8 = 39;
    pub const TRANSACTION_PAYLOAD: u8 = 40;
    pub const HEARTBEAT_V2: u8 = 41;
    pub const GTID_TAGGED: u8 = 42;
    pub const MARIADB_ANNOTATE_ROWS: u8 = 160;
    pub const MARIADB_BINLOG_CHECKPOINT: u8 = 161;
    pub const MARIADB_GTID: u8 = 162;
    pub const MARIADB_GTID_LIST: u8 = 163;
    pub const MARIADB_START_ENCRYPTION: u8 = 164;
    pub const MARIADB_QUERY_COMPRESSED: u8 = 165;
    pub const MARIADB_WRITE_ROWS_COMPRESSED_V1: u8 = 166;
    pub const MARIADB_UPDATE_ROWS_COMPRESSED_V1: u8 = 167;
    pub const MARIADB_DELETE_ROWS_COMPRESSED_V1: u8 = 168;
    pub const MARIADB_WRITE_ROWS_COMPRESSED: u8 = 169;
    pub const MARIADB_UPDATE_ROWS_COMPRESSED: u8 = 170;
    pub const MARIADB_DELETE_ROWS_COMPRESSED: u8 = 171;
}

/// Flag of a FORMAT_DESCRIPTION: the file is being written, or its server died.
pub(crate) const IN_USE: u16 = 0x0001;
/// The flag of the format description of a relay log.
pub(crate) const RELAY: u16 = 0x0040;
/// Flag of an event that a source made up for a replica; it is in no file.
pub const ARTIFICIAL: u16 = 0x0020;

/// Whether the events of a file carry checksums. The FORMAT_DESCRIPTION itself always has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checksum {
    /// They do not.
    #[default]
    None,
    /// They end with a CRC-32.
    Crc32,
}

impl Checksum {
    /// How many bytes of an event it takes.
    #[must_use]
    pub fn len(self) -> usize {
        match self {
            Checksum::None => 0,
            Checksum::Crc32 => CHECKSUM_LEN,
        }
    }

    /// Whether events carry none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Checksum::None
    }
}

/// The header of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// When the statement began, in seconds since 1970.
    pub time: u32,
    /// The type, see [`kind`].
    pub kind: u8,
    /// The server where it came from.
    pub server_id: u32,
    /// Length of the event with header and checksum.
    pub len: u32,
    /// End of the event in its file, modulo 2^32; 0 where it is in none.
    pub end: u32,
    /// Flags.
    pub flags: u16,
}

impl Header {
    /// Reads a header; `None` where the bytes do not suffice.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_LEN] = bytes.first_chunk()?;
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Some(Header {
            time: u32_at(0),
            kind: bytes[4],
            server_id: u32_at(5),
            len: u32_at(9),
            end: u32_at(13),
            flags: u16::from_le_bytes([bytes[17], bytes[18]]),
        })
    }

    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0..4].copy_from_slice(&self.time.to_le_bytes());
        bytes[4] = self.kind;
        bytes[5..9].copy_from_slice(&self.server_id.to_le_bytes());
        bytes[9..13].copy_from_slice(&self.len.to_le_bytes());
        bytes[13..17].copy_from_slice(&self.end.to_le_bytes());
        bytes[17..19].copy_from_slice(&self.flags.to_le_bytes());
        bytes
    }

    /// Whether a source made it up for a replica: it is in no file.
    #[must_use]
    pub fn is_artificial(&self) -> bool {
        self.flags & ARTIFICIAL != 0 || matches!(self.kind, kind::HEARTBEAT | kind::HEARTBEAT_V2)
    }
}

/// An event whose length and checksum are right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    header: Header,
    bytes: Bytes,
    checksum: Checksum,
}

impl Event {
    /// Checks an event that is exactly `bytes`, in a file whose events carry `checksum`. A
    /// FORMAT_DESCRIPTION is checked by its own word on checksums.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when length or checksum are wrong.
    pub fn check(bytes: Bytes, checksum: Checksum) -> Result<Self> {
        let damaged = |what: String| Err(Error::damaged(what));
        let Some(header) = Header::parse(&bytes) else {
            return damaged(format!(
                "an event of {} bytes is shorter than its header",
                bytes.len()
            ));
        };
        if header.len as usize != bytes.len() {
            return damaged(format!(
                "an event of type {} says that it has {} bytes, and has {}",
                header.kind,
                header.len,
                bytes.len()
            ));
        }
        let checksum = match header.kind {
            kind::FORMAT_DESCRIPTION => Checksum::Crc32,
            _ => checksum,
        };
        if bytes.len() < HEADER_LEN + checksum.len() {
            return damaged(format!(
                "an event of type {} has no room for its checksum",
                header.kind
            ));
        }
        if checksum == Checksum::Crc32 {
            let (covered, stored) = bytes.split_at(bytes.len() - CHECKSUM_LEN);
            if crc(&header, covered) != *stored {
                return damaged(format!(
                    "the checksum of an event of type {} that ends at byte {} is wrong",
                    header.kind, header.end
                ));
            }
        }
        Ok(Event { header, bytes, checksum })
    }

    /// Puts an event together; length and checksum are computed.
    #[must_use]
    pub fn build(header: Header, body: &[u8], checksum: Checksum) -> Self {
        let len = HEADER_LEN + body.len() + checksum.len();
        let header = Header { len: len as u32, ..header };
        let mut bytes = BytesMut::with_capacity(len);
        bytes.extend_from_slice(&header.encode());
        bytes.extend_from_slice(body);
        if checksum == Checksum::Crc32 {
            let crc = crc(&header, &bytes);
            bytes.extend_from_slice(&crc);
        }
        Event { header, bytes: bytes.freeze(), checksum }
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The type.
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.header.kind
    }

    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Without header and checksum. That of a FORMAT_DESCRIPTION still ends with the byte that says
    /// whether there are checksums.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.bytes[HEADER_LEN..self.bytes.len() - self.checksum.len()]
    }

    /// Whether it ends with a checksum.
    #[must_use]
    pub fn checksum(&self) -> Checksum {
        self.checksum
    }
}

/// The CRC-32 of an event without its checksum. A server that marks its file as in use sets the flag
/// after it computed the checksum, and clears it when it closes the file: the checksum is always
/// that of the event without the flag.
fn crc(header: &Header, covered: &[u8]) -> [u8; CHECKSUM_LEN] {
    if header.kind == kind::FORMAT_DESCRIPTION && header.flags & IN_USE != 0 {
        let plain = Header { flags: header.flags & !IN_USE, ..*header };
        let mut crc = crc32fast::Hasher::new();
        crc.update(&plain.encode());
        crc.update(&covered[HEADER_LEN..]);
        return crc.finalize().to_le_bytes();
    }
    crc32fast::hash(covered).to_le_bytes()
}

/// What a file's first event says of the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// The event.
    pub event: Event,
    /// Version of the server.
    pub version: String,
    /// Whether the other events carry checksums.
    pub checksum: Checksum,
}

impl Format {
    /// Reads a FORMAT_DESCRIPTION: format u16 = 4, version `char[50]`, time u32, length of headers
    /// u8 = 19, lengths of the fixed parts, checksum algorithm u8.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when it is none;
    /// [`ErrorKind::Source`](backup_core::ErrorKind::Source) for a format that no server of MySQL 5.0
    /// or later writes.
    pub fn parse(event: Event) -> Result<Self> {
        const FIXED: usize = 2 + 50 + 4 + 1;
        let body = event.body();
        if event.kind() != kind::FORMAT_DESCRIPTION || body.len() <= FIXED {
            return Err(Error::damaged(
                "a binlog does not begin with an event that describes its format",
            ));
        }
        if body[..2] != [4, 0] || usize::from(body[FIXED - 1]) != HEADER_LEN {
            return Err(Error::new(
                backup_core::ErrorKind::Source,
                format!("the binlog has format {}, not 4", body[0]),
            )
            .with_remedy("binlogs of servers before MySQL 5.0 cannot be archived"));
        }
        let version = body[2..52].split(|&b| b == 0).next().unwrap_or_default();
        let checksum = match body[body.len() - 1] {
            0 => Checksum::None,
            1 => Checksum::Crc32,
            other => {
                return Err(Error::damaged(format!(
                    "the binlog names checksum algorithm {other}, which nobody knows"
                )));
            }
        };
        let version = String::from_utf8_lossy(version).into_owned();
        Ok(Format { event, version, checksum })
    }

    /// When the file was begun.
    #[must_use]
    pub fn started(&self) -> u32 {
        self.event.header.time
    }

    /// Whether a MariaDB wrote it.
    #[must_use]
    pub fn is_mariadb(&self) -> bool {
        self.version.to_ascii_lowercase().contains("mariadb")
    }

    /// As a source sends it: not in use; and, to a replica that begins behind it, as an event that
    /// is at no position and tells of no restart.
    #[must_use]
    pub fn to_send(&self, behind: bool) -> Event {
        let mut header = *self.event.header();
        header.flags &= !IN_USE;
        let mut body = self.event.body().to_vec();
        if behind {
            header.end = 0;
            body[52..56].fill(0);
        }
        Event::build(header, &body, Checksum::Crc32)
    }
}

impl Format {
    /// As that of another file, of which nobody knows when it was begun.
    #[must_use]
    pub(super) fn of_unknown_time(&self) -> Format {
        let mut header = *self.event.header();
        header.flags &= !IN_USE;
        header.time = 0;
        let mut body = self.event.body().to_vec();
        body[52..56].fill(0);
        Format { event: Event::build(header, &body, Checksum::Crc32), ..self.clone() }
    }
}

/// The first bytes of a binlog file.
pub const MAGIC: [u8; 4] = *b"\xfebin";
/// The first bytes of one that MySQL encrypted.
pub(crate) const ENCRYPTED_MAGIC: [u8; 4] = *b"\xfdbin";

/// Takes events off the front of a piece of a binlog file.
#[derive(Debug)]
pub struct Events {
    rest: Bytes,
    /// Where `rest` begins in its file.
    at: u64,
    checksum: Checksum,
}

impl Events {
    /// Events of `content`, which begins at byte `at` of its file and does not hold the magic.
    #[must_use]
    pub fn new(content: Bytes, at: u64, checksum: Checksum) -> Self {
        Events { rest: content, at, checksum }
    }

    /// Where the next event begins in its file.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.at
    }

    /// What was not taken.
    #[must_use]
    pub fn rest(&self) -> &Bytes {
        &self.rest
    }

    /// The next event, with its place checked against its header; `None` at the end, and where the
    /// rest is only the beginning of an event.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged).
    pub fn next_whole(&mut self) -> Result<Option<Event>> {
        let Some(header) = Header::parse(&self.rest) else { return Ok(None) };
        let len = header.len as usize;
        if !(HEADER_LEN..=MAX_EVENT).contains(&len) {
            return Err(Error::damaged(format!("no event of {len} bytes is at byte {}", self.at)));
        }
        if len > self.rest.len() {
            return Ok(None);
        }
        let event = Event::check(self.rest.slice(..len), self.checksum)
            .map_err(|e| e.context(format!("at byte {}", self.at)))?;
        let end = self.at + len as u64;
        if header.end != 0 && header.end != end as u32 {
            return Err(Error::damaged(format!(
                "the event at byte {} says that it ends at {}, not at {end}",
                self.at, header.end
            )));
        }
        self.rest = self.rest.slice(len..);
        self.at = end;
        Ok(Some(event))
    }

    /// As [`next_whole`](Self::next_whole), where a piece of an event is damage.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged).
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        match self.next_whole()? {
            None if !self.rest.is_empty() => {
                Err(Error::damaged(format!("the event at byte {} is cut off", self.at)))
            }
            found => Ok(found),
        }
    }
}

/// Whether an event is somewhere in these bytes, which do not begin with one: what comes before it is no end
/// that was being written, but damage.
pub(super) fn holds_event(bytes: &Bytes, checksum: Checksum) -> bool {
    let header = |at: usize| {
        let header = Header::parse(bytes.get(at..)?)?;
        let known = (1..=kind::GTID_TAGGED).contains(&header.kind)
            || (kind::MARIADB_ANNOTATE_ROWS..=kind::MARIADB_DELETE_ROWS_COMPRESSED)
                .contains(&header.kind);
        let len = header.len as usize;
        (known && len >= HEADER_LEN + checksum.len() && header.end >= header.len).then_some(header)
    };
    let is_event = |at: usize| {
        let Some(one) = header(at) else { return false };
        let Some(end) = at.checked_add(one.len as usize).filter(|end| *end <= bytes.len()) else {
            return false;
        };
        match checksum {
            Checksum::Crc32 => Event::check(bytes.slice(at..end), checksum).is_ok(),
            // Without checksums it takes two that follow each other.
            Checksum::None => header(end).is_some_and(|two| two.end - two.len == one.end),
        }
    };
    (0..bytes.len()).any(is_event)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(kind: u8) -> Header {
        Header { time: 1, kind, server_id: 2, len: 0, end: 0, flags: 0 }
    }

    #[test]
    fn every_changed_bit_is_seen() {
        let event = Event::build(header(kind::QUERY), b"hello", Checksum::Crc32);
        assert_eq!(Event::check(event.bytes().clone(), Checksum::Crc32).unwrap(), event);
        assert_eq!(event.body(), b"hello");
        for bit in 0..event.bytes().len() * 8 {
            let mut bad = event.bytes().to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Event::check(bad.into(), Checksum::Crc32).is_err(), "bit {bit}");
        }
        for len in 0..event.bytes().len() {
            assert!(Event::check(event.bytes().slice(..len), Checksum::Crc32).is_err());
        }
    }

    #[test]
    fn a_file_in_use_has_the_checksum_of_one_that_is_not() {
        let mut body = vec![4, 0];
        body.extend([0; 54]);
        body.extend([19, 1, 2, 3, 1]);
        let event = Event::build(header(kind::FORMAT_DESCRIPTION), &body, Checksum::Crc32);
        let mut in_use = event.bytes().to_vec();
        in_use[17] |= 1;
        let event = Event::check(in_use.into(), Checksum::None).unwrap();
        let format = Format::parse(event).unwrap();
        assert_eq!(format.checksum, Checksum::Crc32);
        let sent = format.to_send(true);
        assert_eq!(sent.header().flags, 0);
        assert!(Event::check(sent.bytes().clone(), Checksum::None).is_ok());
    }

    #[test]
    fn events_are_found_behind_damage() {
        let at = |end| Header { end, ..header(kind::XID) };
        for checksum in [Checksum::Crc32, Checksum::None] {
            let len = (HEADER_LEN + checksum.len()) as u32;
            let one = Event::build(at(100 + len), b"", checksum);
            let two = Event::build(at(100 + 2 * len), b"", checksum);
            let behind = |events: &[&[u8]]| Bytes::from([&[7; 50], &events.concat()[..]].concat());
            assert!(holds_event(&behind(&[one.bytes(), two.bytes()]), checksum));
            assert!(!holds_event(&behind(&[&one.bytes()[..15]]), checksum));
            assert!(!holds_event(&behind(&[&[0; 4096]]), checksum));
            assert!(!holds_event(&Bytes::new(), checksum));
        }
    }

    #[test]
    fn events_know_their_places() {
        let at = |end| Header { end, ..header(kind::XID) };
        let one = Event::build(at(100 + 23), b"", Checksum::Crc32);
        let two = Event::build(at(100 + 46), b"", Checksum::Crc32);
        let both: Bytes = [&one.bytes()[..], two.bytes()].concat().into();
        let mut events = Events::new(both.clone(), 100, Checksum::Crc32);
        assert_eq!(events.next_event().unwrap().unwrap(), one);
        assert_eq!(events.next_event().unwrap().unwrap(), two);
        assert!(events.next_event().unwrap().is_none());
        assert!(Events::new(both.clone(), 99, Checksum::Crc32).next_event().is_err());
        let mut torn = Events::new(both.slice(..30), 100, Checksum::Crc32);
        assert!(torn.next_event().unwrap().is_some());
        assert!(torn.next_whole().unwrap().is_none());
        assert!(torn.next_event().is_err());
    }
}
