//! The events inside a compressed transaction (TRANSACTION_PAYLOAD).

use std::io::Read;

use super::event::{HEADER_LEN, Header};
use super::inflate::MAX_INFLATED;
use super::read::Reader;

/// Gives every event of the body of a payload to `each`: header, and body without checksum, which
/// they have none of. `None` where they cannot all be read.
pub(super) fn events(body: &[u8], each: impl FnMut(&Header, &[u8]) -> Option<()>) -> Option<()> {
    // Fields: type and length as length-encoded integers, value; 0 = the end, 1 = length of the
    // payload, 2 = algorithm (0 zstd, 255 none), 3 = length before compression.
    let mut reader = Reader::new(body);
    let mut algorithm = None;
    loop {
        let field = reader.lenenc()?;
        if field == 0 {
            break;
        }
        let len = usize::try_from(reader.lenenc()?).ok()?;
        let value = reader.take(len)?;
        if field == 2 {
            algorithm = Reader::new(value).lenenc();
        }
    }
    let payload = reader.rest();
    match algorithm? {
        255 => walk(payload, each),
        0 => walk(zstd::stream::read::Decoder::with_buffer(payload).ok()?, each),
        _ => None,
    }
}

fn walk(mut from: impl Read, mut each: impl FnMut(&Header, &[u8]) -> Option<()>) -> Option<()> {
    let mut total = 0;
    loop {
        let mut head = [0; HEADER_LEN];
        let mut have = 0;
        while have < HEADER_LEN {
            match from.read(&mut head[have..]).ok()? {
                0 if have == 0 => return Some(()),
                0 => return None,
                n => have += n,
            }
        }
        let header = Header::parse(&head)?;
        let len = (header.len as usize).checked_sub(HEADER_LEN)?;
        total += len;
        if total > MAX_INFLATED {
            return None;
        }
        let mut body = Vec::new();
        from.by_ref().take(len as u64).read_to_end(&mut body).ok()?;
        if body.len() != len {
            return None;
        }
        each(&header, &body)?;
    }
}
