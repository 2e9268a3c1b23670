//! What servers compress inside events, made long again with a bound on the memory.

use std::io::Read;

use flate2::read::ZlibDecoder;

use super::read::Reader;

/// More than this is not made long again: it is only looked at, to tell people what it holds.
pub(super) const MAX_INFLATED: usize = 64 << 20;

/// MariaDB's form: a byte `0x80 | algorithm << 4 | n` (algorithm 0 = zlib), n bytes of length,
/// big-endian, then the zlib stream (`binlog_buf_uncompress` of `sql/log_event.cc`).
pub(super) fn mariadb(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(bytes);
    let head = reader.u8()?;
    let digits = reader.take((head & 7).into())?;
    if head & 0xf0 != 0x80 || digits.len() > 4 {
        return None;
    }
    let len = digits.iter().fold(0, |sum, &digit| sum << 8 | usize::from(digit));
    if len > MAX_INFLATED {
        return None;
    }
    let mut out = Vec::new();
    let limit = len as u64 + 1;
    ZlibDecoder::new(reader.rest()).take(limit).read_to_end(&mut out).ok()?;
    (out.len() == len).then_some(out)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lengths_are_kept() {
        let raw = b"SELECT 1 ".repeat(100);
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(&raw).unwrap();
        let zlib = zlib.finish().unwrap();
        let with = |len: u16| [&[0x82][..], &len.to_be_bytes(), &zlib].concat();
        assert_eq!(mariadb(&with(900)).unwrap(), raw);
        assert_eq!(mariadb(&with(899)), None);
        assert_eq!(mariadb(&with(901)), None);
        assert_eq!(mariadb(&[]), None);
        assert_eq!(mariadb(b"\x84\xff\xff\xff\xff"), None);
    }
}
