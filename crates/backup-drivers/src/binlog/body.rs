//! What is inside the events that this crate has to understand.

use backup_core::{Error, Result};

use super::event::{Event, kind};
use super::inflate;
use super::read::Reader;

/// A ROTATE: u64 position, then the name of the next file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotate {
    /// Where the next events are in the file.
    pub position: u64,
    /// The file.
    pub file: String,
}

impl Rotate {
    /// Reads the event; `None` when it is of another type.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when it cannot be read.
    pub fn parse(event: &Event) -> Result<Option<Self>> {
        if event.kind() != kind::ROTATE {
            return Ok(None);
        }
        let mut body = Reader::new(event.body());
        let read = body.u64().zip(std::str::from_utf8(body.rest()).ok().or(Some("")));
        match read {
            Some((position, _)) => {
                let file = std::str::from_utf8(body.rest()).unwrap_or_default();
                let file = file.trim_end_matches('\0');
                if file.is_empty() || file.len() > 512 || file.contains(['/', '\\']) {
                    return Err(Error::damaged("a ROTATE event names no file"));
                }
                Ok(Some(Rotate { position, file: file.to_owned() }))
            }
            None => Err(Error::damaged("a ROTATE event is cut off")),
        }
    }

    /// The body of such an event.
    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        [&self.position.to_le_bytes(), self.file.as_bytes()].concat()
    }
}

/// A QUERY: a statement, as it was written, and its database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The default database; empty where there was none.
    pub database: Vec<u8>,
    /// The statement. It may be in any character set.
    pub sql: Vec<u8>,
    /// Not zero where the statement failed halfway and changed something all the same.
    pub error: u16,
}

impl Query {
    /// Reads the event; `None` when it is of another type.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when it cannot be read.
    pub fn parse(event: &Event) -> Result<Option<Self>> {
        Query::of(event.kind(), event.body())
    }

    pub(super) fn of(event_kind: u8, body: &[u8]) -> Result<Option<Self>> {
        if !matches!(event_kind, kind::QUERY | kind::MARIADB_QUERY_COMPRESSED) {
            return Ok(None);
        }
        let compressed = event_kind == kind::MARIADB_QUERY_COMPRESSED;
        Query::read(body, compressed)
            .map(Some)
            .ok_or_else(|| Error::damaged("a QUERY event cannot be read"))
    }

    fn read(body: &[u8], compressed: bool) -> Option<Self> {
        // thread u32, seconds u32, length of the database u8, error u16, length of the status u16
        let mut body = Reader::new(body);
        body.skip(8)?;
        let database = body.u8()?;
        let error = body.u16()?;
        let status = body.u16()?;
        body.skip(status.into())?;
        let database = body.take(database.into())?.to_vec();
        body.skip(1)?;
        let sql = match compressed {
            false => body.rest().to_vec(),
            true => inflate::mariadb(body.rest())?,
        };
        Some(Query { database, sql, error })
    }

    /// Whether the statement is exactly these words.
    #[must_use]
    pub fn is(&self, words: &str) -> bool {
        self.sql.eq_ignore_ascii_case(words.as_bytes())
    }

    /// Whether the statement begins with these words.
    #[must_use]
    pub fn begins_with(&self, words: &str) -> bool {
        let start = self.sql.get(..words.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(words.as_bytes()))
    }
}

/// The file and position that a heartbeat tells.
///
/// Version 1: the body is the file name, the position is in the header. Version 2: fields of type u8,
/// length as a length-encoded integer, value; 1 = file name, 2 = position as a length-encoded integer,
/// 0 = the end.
pub(super) fn heartbeat(event: &Event) -> Option<(String, u64)> {
    if event.kind() == kind::HEARTBEAT {
        let name = std::str::from_utf8(event.body()).ok()?.to_owned();
        return Some((name, event.header().end.into()));
    }
    let mut body = Reader::new(event.body());
    let (mut name, mut position) = (None, None);
    while let Some(field @ 1..) = body.u8() {
        let len = usize::try_from(body.lenenc()?).ok()?;
        let value = body.take(len)?;
        match field {
            1 => name = Some(std::str::from_utf8(value).ok()?.to_owned()),
            2 => position = Reader::new(value).lenenc(),
            _ => {}
        }
    }
    name.zip(position)
}

#[cfg(test)]
mod tests {
    use super::super::event::{Checksum, Header};
    use super::super::gtid::plain_query;
    use super::*;

    fn event(kind: u8, body: &[u8]) -> Event {
        let header = Header { time: 1, kind, server_id: 7, len: 0, end: 5, flags: 0 };
        Event::build(header, body, Checksum::Crc32)
    }

    #[test]
    fn bodies() {
        let rotate = Rotate { position: 4, file: "binlog.000002".into() };
        let read = Rotate::parse(&event(kind::ROTATE, &rotate.body())).unwrap();
        assert_eq!(read.unwrap(), rotate);
        assert!(Rotate::parse(&event(kind::ROTATE, &[4; 7])).is_err());
        assert!(Rotate::parse(&event(kind::ROTATE, &[4; 8])).is_err());
        let query = event(kind::QUERY, &plain_query("commit"));
        let query = Query::parse(&query).unwrap().unwrap();
        assert!(query.is("COMMIT") && query.begins_with("COM") && !query.is("COMMITS"));
        assert!(Query::parse(&event(kind::QUERY, &[0; 13])).is_err());
        let beat = event(kind::HEARTBEAT, b"binlog.000001");
        assert_eq!(heartbeat(&beat).unwrap(), ("binlog.000001".into(), 5));
        let beat = event(kind::HEARTBEAT_V2, b"\x01\x03abc\x02\x03\xfc\x10\x27\0");
        assert_eq!(heartbeat(&beat).unwrap(), ("abc".into(), 10_000));
    }
}
