//! Row packets of the binary protocol and the values in them.
//!
//! A row packet is `0x00`, a null bitmap that starts at bit 2, and the values that are not NULL
//! (MySQL: "Binary Protocol Resultset Row"; MariaDB: "Resultset row", binary). The servers' own
//! writers are `Protocol_binary` and `Protocol_prep`.

use backup_core::{Error, ErrorKind, Result};

use super::Kind;

/// Bytes of the null bitmap of a row of `columns`.
pub(super) fn null_bytes(columns: usize) -> usize {
    (columns + 9) / 8
}

/// Whether `column` is NULL in a row's bitmap.
pub(super) fn is_null(bitmap: &[u8], column: usize) -> bool {
    let bit = column + 2;
    bitmap[bit / 8] >> (bit % 8) & 1 == 1
}

/// Marks `column` as NULL in a row's bitmap.
pub(super) fn set_null(bitmap: &mut [u8], column: usize) {
    let bit = column + 2;
    bitmap[bit / 8] |= 1 << (bit % 8);
}

/// Splits a packet into null bitmap and values. Refuses what no server writes, bits beside the
/// columns', because it could not be given back.
pub(super) fn split(packet: &[u8], columns: usize) -> Option<(&[u8], &[u8])> {
    let (&zero, rest) = packet.split_first()?;
    let (bitmap, values) = rest.split_at_checked(null_bytes(columns))?;
    let used = (columns + 2) % 8;
    let beyond = if used == 0 { 0 } else { u8::MAX << used };
    let clean = zero == 0 && bitmap[0] & 0b11 == 0 && bitmap[bitmap.len() - 1] & beyond == 0;
    clean.then_some((bitmap, values))
}

/// Takes a length-encoded string off `rest`: (string, what follows). Refuses lengths that are not
/// written the shortest way, because they could not be given back.
#[inline]
pub(super) fn take_bytes(rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = rest.split_first()?;
    if first < 251 {
        return rest.split_at_checked(usize::from(first));
    }
    take_long_bytes(first, rest)
}

fn take_long_bytes(first: u8, rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest, least) = match first {
        0xfc => {
            let (n, rest) = rest.split_first_chunk::<2>()?;
            (u64::from(u16::from_le_bytes(*n)), rest, 251)
        }
        0xfd => {
            let (&[a, b, c], rest) = rest.split_first_chunk::<3>()?;
            (u64::from(u32::from_le_bytes([a, b, c, 0])), rest, 1 << 16)
        }
        0xfe => {
            let (n, rest) = rest.split_first_chunk::<8>()?;
            (u64::from_le_bytes(*n), rest, 1 << 24)
        }
        _ => return None,
    };
    if length < least {
        return None;
    }
    rest.split_at_checked(usize::try_from(length).ok()?)
}

/// Appends `value` as a length-encoded string.
#[inline]
pub(super) fn put_bytes(out: &mut Vec<u8>, value: &[u8]) {
    let length = value.len() as u64;
    let bytes = length.to_le_bytes();
    match length {
        0..251 => out.push(bytes[0]),
        251..0x1_0000 => out.extend_from_slice(&[0xfc, bytes[0], bytes[1]]),
        0x1_0000..0x100_0000 => out.extend_from_slice(&[0xfd, bytes[0], bytes[1], bytes[2]]),
        _ => {
            out.push(0xfe);
            out.extend_from_slice(&bytes);
        }
    }
    out.extend_from_slice(value);
}

/// Takes the value of a temporal column off `rest`, without its length byte.
#[inline]
pub(super) fn take_temporal(kind: Kind, rest: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = rest.split_first()?;
    is_temporal_length(kind, usize::from(length))
        .then(|| rest.split_at_checked(usize::from(length)))
        .flatten()
}

/// Whether the protocol knows temporal values of this length.
#[inline]
pub(super) fn is_temporal_length(kind: Kind, length: usize) -> bool {
    match kind {
        Kind::Time => matches!(length, 0 | 8 | 12),
        _ => matches!(length, 0 | 4 | 7 | 11),
    }
}

/// The error for a packet that is no row of these columns.
pub(super) fn malformed(columns: usize, length: usize) -> Error {
    Error::new(
        ErrorKind::Source,
        format!("the server sent {length} bytes that are no row of {columns} columns"),
    )
    .with_remedy("check the server and any proxy before it, then take the backup again")
}

/// The values of a row packet, in the order of its columns; `None` is NULL.
///
/// A value is what stands in the packet without its length: little-endian numbers, the parts of a
/// temporal value (0 to 12 bytes), the bytes of a string. [`append_text`](super::append_text) makes
/// text of it.
///
/// # Errors
/// [`ErrorKind::Source`] when `packet` is no row of such columns.
pub fn fields<'a>(packet: &'a [u8], kinds: &[Kind]) -> Result<Vec<Option<&'a [u8]>>> {
    let take_all = || {
        let (bitmap, mut rest) = split(packet, kinds.len())?;
        let mut values = Vec::with_capacity(kinds.len());
        for (column, &kind) in kinds.iter().enumerate() {
            if is_null(bitmap, column) {
                values.push(None);
                continue;
            }
            let (value, after) = match kind.width() {
                Some(width) => rest.split_at_checked(width)?,
                None if kind.is_temporal() => take_temporal(kind, rest)?,
                None => take_bytes(rest)?,
            };
            values.push(Some(value));
            rest = after;
        }
        rest.is_empty().then_some(values)
    };
    take_all().ok_or_else(|| malformed(kinds.len(), packet.len()))
}

/// Makes a row packet of values as [`fields`] gives them, in place of what is in `packet`.
pub fn put_fields(packet: &mut Vec<u8>, values: &[Option<&[u8]>], kinds: &[Kind]) {
    packet.clear();
    packet.resize(1 + null_bytes(values.len()), 0);
    for (column, (value, kind)) in values.iter().zip(kinds).enumerate() {
        match value {
            None => set_null(&mut packet[1..], column),
            Some(value) if kind.width().is_some() => packet.extend_from_slice(value),
            Some(value) if kind.is_temporal() => {
                // 12 at most.
                packet.push(value.len() as u8);
                packet.extend_from_slice(value);
            }
            Some(value) => put_bytes(packet, value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_every_form() {
        let kinds = [Kind::I16, Kind::Bytes, Kind::Time, Kind::Bytes, Kind::U8];
        let packet = b"\0\x20\x01\x02\x03abc\0\x09";
        assert_eq!(
            fields(packet, &kinds).unwrap(),
            [Some(&b"\x01\x02"[..]), Some(b"abc"), Some(b""), None, Some(b"\x09")]
        );
        let mut again = vec![1, 2, 3];
        put_fields(&mut again, &fields(packet, &kinds).unwrap(), &kinds);
        assert_eq!(again, packet);
    }

    #[test]
    fn what_could_not_be_given_back_is_refused() {
        let ok = b"\0\0\x03abc";
        assert!(fields(ok, &[Kind::Bytes]).is_ok());
        for bad in [
            &b"\x01\0\x03abc"[..],                       // not a row
            b"\0\x01\x03abc",                            // a bit before the columns
            b"\0\x80\x03abc",                            // a bit after them
            b"\0\0\x03ab",                               // short
            b"\0\0\x03abcd",                             // long
            b"\0\0\xfc\x03\0abc",                        // a length in the wrong form
            b"\0\0\xfb",                                 // NULL is told by the bitmap alone
            b"\0\0\xfe\xff\xff\xff\xff\xff\xff\xff\xff", // a hostile length
            b"\0",
            b"",
        ] {
            assert_eq!(fields(bad, &[Kind::Bytes]).unwrap_err().kind(), ErrorKind::Source);
        }
        assert!(fields(b"\0\0\x05abcde", &[Kind::DateTime]).is_err());
    }

    #[test]
    fn lengths_round_trip_at_their_limits() {
        for length in [0, 250, 251, 0xffff, 0x1_0000, 0xff_ffff, 0x100_0000] {
            let value = vec![7; length];
            let mut out = Vec::new();
            put_bytes(&mut out, &value);
            assert_eq!(take_bytes(&out), Some((&value[..], &[][..])));
        }
    }
}
