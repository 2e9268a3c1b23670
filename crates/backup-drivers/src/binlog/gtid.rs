//! Events that begin a transaction, or say which ones came before.
//!
//! Layouts: `Gtid_log_event` of MySQL (`libs/mysql/binlog/event/control_events.h`; the tagged form is
//! a message of `mysql::serialization`), `Gtid_log_event` of MariaDB (`sql/log_event.h`).

use backup_core::{
    Error, Gtid, GtidSet, MariaDbBinlogState, MariaDbGtid, MySqlGtid, MySqlGtidSet, Result, Tsid,
    Uuid,
};
use jiff::Timestamp;

use super::event::{Checksum, Event, HEADER_LEN, kind};
use super::read::Reader;

/// What begins a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Begin {
    /// Its name; `None` where the server keeps no GTIDs.
    pub gtid: Option<Gtid>,
    /// When it was committed at the server that wrote the file: microseconds in MySQL, seconds in
    /// MariaDB.
    pub time: Timestamp,
    /// Length of the whole transaction in bytes, this event included, where it is told.
    pub len: Option<u64>,
    /// MariaDB: one event follows and no COMMIT (DDL).
    pub standalone: bool,
    /// Where the length is in the event and how wide, for [`with_len`].
    len_at: Option<(usize, usize)>,
}

/// Whether an event of this type begins a transaction.
#[must_use]
pub fn begins(event_kind: u8) -> bool {
    matches!(event_kind, kind::GTID | kind::ANONYMOUS_GTID | kind::GTID_TAGGED | kind::MARIADB_GTID)
}

impl Begin {
    /// Reads the event; `None` when it is of another type.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when it cannot be read.
    pub fn parse(event: &Event) -> Result<Option<Self>> {
        let read = match event.kind() {
            kind::GTID | kind::ANONYMOUS_GTID => mysql(event),
            kind::GTID_TAGGED => tagged(event),
            kind::MARIADB_GTID => mariadb(event),
            _ => return Ok(None),
        };
        read.map(Some).ok_or_else(|| {
            Error::damaged(format!(
                "the GTID event that ends at byte {} cannot be read",
                event.header().end
            ))
        })
    }
}

fn seconds(event: &Event) -> Timestamp {
    // Every u32 is a second that a timestamp can have.
    Timestamp::from_second(event.header().time.into()).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn micros(value: u64) -> Option<Timestamp> {
    Timestamp::from_microsecond(value.try_into().ok()?).ok()
}

fn mysql(event: &Event) -> Option<Begin> {
    let mut body = Reader::new(event.body());
    body.skip(1)?;
    let uuid = Uuid::from_bytes(*body.array()?);
    let gno = body.u64()?;
    let gtid = match event.kind() {
        kind::GTID => Some(MySqlGtid::new(uuid, gno).ok()?.into()),
        _ => None,
    };
    let mut begin =
        Begin { gtid, time: seconds(event), len: None, standalone: false, len_at: None };
    // What follows came with 5.7 and 8.0, each part a few versions after the one before.
    if body.u8() != Some(2) || body.skip(16).is_none() {
        return Some(begin);
    }
    let Some(first) = body.uint(7) else { return Some(begin) };
    if first & 1 << 55 != 0 {
        body.skip(7)?;
    }
    begin.time = micros(first & !(1 << 55))?;
    let at = body.at();
    if let Some(len) = body.lenenc() {
        begin.len = Some(len);
        begin.len_at = Some((at, body.at() - at));
    }
    Some(begin)
}

/// Fields of a tagged GTID event, each behind its number, in rising order.
fn tagged(event: &Event) -> Option<Begin> {
    let mut body = Reader::new(event.body());
    let _version = body.uvar()?;
    let _size = body.uvar()?;
    let _last_needed = body.uvar()?;
    let (mut uuid, mut gno, mut tag, mut time, mut len) = ([0; 16], 0, None, None, None);
    while !body.is_empty() {
        match body.uvar()? {
            0 | 5 => drop(body.uvar()?),
            1 => {
                for byte in &mut uuid {
                    *byte = body.uvar()?.try_into().ok()?;
                }
            }
            2 => gno = body.svar()?,
            3 => {
                let length = body.uvar()?;
                let text = std::str::from_utf8(body.take(length.try_into().ok()?)?).ok()?;
                tag = if text.is_empty() { None } else { Some(text.parse().ok()?) };
            }
            4 => drop(body.svar()?),
            6 => time = Some(micros(body.uvar()?)?),
            7 | 9 | 10 | 11 => drop(body.uvar()?),
            8 => len = Some(body.uvar()?),
            // A later server says more; what is needed came before it, unless it did not.
            _ => break,
        }
    }
    let tsid = Tsid { uuid: Uuid::from_bytes(uuid), tag };
    let gtid = MySqlGtid::new(tsid, gno.try_into().ok()?).ok()?;
    Some(Begin {
        gtid: Some(gtid.into()),
        time: time.unwrap_or_else(|| seconds(event)),
        len,
        standalone: false,
        len_at: None,
    })
}

/// MariaDB's flag of a transaction that is one event without a COMMIT.
const STANDALONE: u8 = 1;
/// Where MariaDB's flags are in the body.
const FLAGS: usize = 12;

fn mariadb(event: &Event) -> Option<Begin> {
    let mut body = Reader::new(event.body());
    let seq = body.u64()?;
    let domain = body.u32()?;
    let flags = body.u8()?;
    let server = event.header().server_id;
    Some(Begin {
        gtid: Some(MariaDbGtid { domain, server, seq }.into()),
        time: seconds(event),
        len: None,
        standalone: flags & STANDALONE != 0,
        len_at: None,
    })
}

/// The event with another length of the transaction, in the same width.
///
/// # Errors
/// When the width does not suffice: lengths only get shorter here.
pub(super) fn with_len(event: &Event, begin: &Begin, len: u64) -> Result<Event> {
    let Some((at, width)) = begin.len_at else { return Ok(event.clone()) };
    let mut body = event.body().to_vec();
    let field = &mut body[at..at + width];
    let digits = &len.to_le_bytes()[..width.saturating_sub(1).max(1)];
    let shorter = begin.len.is_some_and(|before| len <= before);
    if !shorter {
        return Err(Error::internal("an emptied transaction is longer than it was"));
    }
    match width {
        1 => field[0] = digits[0],
        _ => field[1..].copy_from_slice(digits),
    }
    Ok(Event::build(*event.header(), &body, event.checksum()))
}

/// MariaDB's event for a transaction that ends with a COMMIT.
pub(super) fn not_standalone(event: &Event) -> Event {
    let mut body = event.body().to_vec();
    if let Some(flags) = body.get_mut(FLAGS) {
        *flags &= !STANDALONE;
    }
    Event::build(*event.header(), &body, event.checksum())
}

/// The transactions before a file, from its PREVIOUS_GTIDS or GTID_LIST; `None` when the event is
/// neither.
///
/// # Errors
/// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when it cannot be read.
pub fn transactions_before(event: &Event) -> Result<Option<GtidSet>> {
    Ok(match event.kind() {
        kind::PREVIOUS_GTIDS => Some(MySqlGtidSet::decode(event.body())?.into()),
        kind::MARIADB_GTID_LIST => {
            Some(MariaDbBinlogState::decode(event.body())?.position().into())
        }
        _ => None,
    })
}

/// MariaDB: the last transaction of every server before a file, from its GTID_LIST; `None` when the
/// event is none.
///
/// # Errors
/// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when it cannot be read.
pub(super) fn state_before(event: &Event) -> Result<Option<MariaDbBinlogState>> {
    match event.kind() {
        kind::MARIADB_GTID_LIST => MariaDbBinlogState::decode(event.body()).map(Some),
        _ => Ok(None),
    }
}

/// The body of a QUERY event that runs `text` and nothing else.
pub(super) fn plain_query(text: &str) -> Vec<u8> {
    // thread id u32, seconds u32, length of the database u8, error u16, length of the status u16,
    // the database's NUL
    let mut body = vec![0; 14];
    body.extend_from_slice(text.as_bytes());
    body
}

/// Length of an event with such a body.
pub(super) fn plain_query_len(text: &str, checksum: Checksum) -> u64 {
    (HEADER_LEN + 14 + text.len() + checksum.len()) as u64
}

#[cfg(test)]
mod tests {
    use super::super::event::Header;
    use super::*;

    fn made(kind: u8, body: &[u8]) -> Event {
        let header = Header { time: 1_700_000_000, kind, server_id: 7, len: 0, end: 0, flags: 0 };
        Event::build(header, body, Checksum::Crc32)
    }

    fn gtid_body(len: &[u8]) -> Vec<u8> {
        let mut body = vec![1];
        body.extend([0x11; 16]);
        body.extend(42u64.to_le_bytes());
        body.push(2);
        body.extend([0; 16]);
        body.extend(&1_700_000_000_123_456u64.to_le_bytes()[..7]);
        body.extend(len);
        body.extend(90704u32.to_le_bytes());
        body
    }

    #[test]
    fn a_gtid_of_mysql() {
        let event = made(kind::GTID, &gtid_body(&[0xfc, 0x10, 0x27]));
        let begin = Begin::parse(&event).unwrap().unwrap();
        let gtid = begin.gtid.clone().unwrap().to_string();
        assert_eq!(gtid, "11111111-1111-1111-1111-111111111111:42");
        assert_eq!(begin.time.as_microsecond(), 1_700_000_000_123_456);
        assert_eq!(begin.len, Some(10_000));
        let shorter = with_len(&event, &begin, 150).unwrap();
        assert_eq!(shorter.bytes().len(), event.bytes().len());
        assert_eq!(Begin::parse(&shorter).unwrap().unwrap().len, Some(150));
        assert!(with_len(&event, &begin, 10_001).is_err());
        for cut in 0..25 {
            let cut = made(kind::GTID, &gtid_body(&[9])[..cut]);
            assert!(Begin::parse(&cut).is_err());
        }
    }

    #[test]
    fn a_gtid_of_mariadb() {
        let mut body = 9u64.to_le_bytes().to_vec();
        body.extend(3u32.to_le_bytes());
        body.push(STANDALONE | 8);
        body.extend([0; 6]);
        let event = made(kind::MARIADB_GTID, &body);
        let begin = Begin::parse(&event).unwrap().unwrap();
        assert_eq!(begin.gtid.unwrap().to_string(), "3-7-9");
        assert!(begin.standalone);
        assert!(!Begin::parse(&not_standalone(&event)).unwrap().unwrap().standalone);
    }
}
