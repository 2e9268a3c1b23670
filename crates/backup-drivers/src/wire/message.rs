//! The messages that answer a command: OK, ERR, the end of a result set, columns.
//!
//! Layouts: <https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html> and
//! <https://mariadb.com/kb/en/clientserver-protocol/>.

use backup_core::{Result, ServerError};
use mysql_async::Column;
use mysql_common::constants::{CapabilityFlags, StatusFlags};
use mysql_common::io::ParseBuf;
use mysql_common::packets::{
    CommonOkPacket, OkPacket, OkPacketDeserializer, OldEofPacket, ResultSetTerminator,
};

use crate::connect::protocol;

/// First byte of an OK, and of a binary row.
pub(super) const OK: u8 = 0x00;
/// First byte of a request for the client's file.
pub(super) const LOCAL_INFILE: u8 = 0xfb;
/// First byte of the end of a result set (and of a request for another authentication).
pub(super) const EOF: u8 = 0xfe;
/// First byte of an error.
pub(super) const ERR: u8 = 0xff;

const READ: &str = "cannot understand the server";

/// How a statement went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OkInfo {
    /// Rows inserted, updated or deleted.
    pub affected_rows: u64,
    /// The last value of AUTO_INCREMENT, 0 if none.
    pub last_insert_id: u64,
    /// The number of warnings that SHOW WARNINGS would list (65535 means that many or more).
    pub warnings: u16,
    /// State of the session, such as whether a transaction is open.
    pub status: StatusFlags,
    /// The server's summary, such as `Records: 3  Deleted: 0  Skipped: 0  Warnings: 0`.
    pub info: String,
}

impl From<OkPacket<'_>> for OkInfo {
    fn from(ok: OkPacket<'_>) -> Self {
        OkInfo {
            affected_rows: ok.affected_rows(),
            last_insert_id: ok.last_insert_id().unwrap_or(0),
            warnings: ok.warnings(),
            status: ok.status_flags(),
            info: ok.info_str().unwrap_or_default().into_owned(),
        }
    }
}

/// An OK that answers a command.
pub(super) fn ok(payload: &[u8], capabilities: CapabilityFlags) -> Result<OkInfo> {
    ParseBuf(payload)
        .parse::<OkPacketDeserializer<'_, CommonOkPacket>>(capabilities)
        .map(|ok| ok.into_inner().into())
        .map_err(|e| protocol(format!("a broken OK ({e})"), READ))
}

/// The end of a result set, in the form that was agreed on.
pub(super) fn end_of_rows(payload: &[u8], capabilities: CapabilityFlags) -> Result<OkInfo> {
    let mut buffer = ParseBuf(payload);
    let ok = if capabilities.contains(CapabilityFlags::CLIENT_DEPRECATE_EOF) {
        buffer
            .parse::<OkPacketDeserializer<'_, ResultSetTerminator>>(capabilities)
            .map(OkPacketDeserializer::into_inner)
    } else {
        buffer
            .parse::<OkPacketDeserializer<'_, OldEofPacket>>(capabilities)
            .map(OkPacketDeserializer::into_inner)
    };
    ok.map(OkInfo::from).map_err(|e| protocol(format!("a broken end of rows ({e})"), READ))
}

/// The server's error, if the packet is one. Before the handshake is done the SQLSTATE is missing.
pub(super) fn server_error(payload: &[u8]) -> Option<ServerError> {
    let [ERR, rest @ ..] = payload else { return None };
    let (code, rest) = match rest {
        [a, b, rest @ ..] => (u16::from_le_bytes([*a, *b]), rest),
        _ => (0, &[][..]),
    };
    let (state, text) = match rest {
        [b'#', a, b, c, d, e, text @ ..] => (&[*a, *b, *c, *d, *e][..], text),
        text => (&b"HY000"[..], text),
    };
    Some(ServerError {
        code,
        state: String::from_utf8_lossy(state).into_owned(),
        message: String::from_utf8_lossy(text).into_owned(),
    })
}

/// One column's definition.
pub(super) fn column(payload: &[u8]) -> Result<Column> {
    ParseBuf(payload)
        .parse::<Column>(())
        .map_err(|e| protocol(format!("a broken column definition ({e})"), READ))
}

/// A length-encoded integer, taken off the front.
pub(super) fn lenenc(bytes: &mut &[u8]) -> Option<u64> {
    let (&first, rest) = bytes.split_first()?;
    let width = match first {
        0..=0xfa => {
            *bytes = rest;
            return Some(first.into());
        }
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        _ => return None,
    };
    let (number, rest) = rest.split_at_checked(width)?;
    let mut le = [0; 8];
    le[..width].copy_from_slice(number);
    *bytes = rest;
    Some(u64::from_le_bytes(le))
}

/// The bytes up to a NUL, taken off the front with it.
pub(super) fn until_nul<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = memchr::memchr(0, bytes)?;
    let (text, rest) = bytes.split_at(end);
    *bytes = &rest[1..];
    Some(text)
}
