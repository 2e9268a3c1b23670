//! JSON as MySQL has it in row images, made text again (`sql-common/json_binary.h` of the server).

use super::super::read::Reader;

/// As deep as the server lets documents be.
const DEPTH: u32 = 100;
/// Entries may lie about where their values are, and name the same bytes again and again.
const LONGEST: usize = 64 << 20;

/// The text of a document. `None` where it cannot be read, or where a scalar of it (a DECIMAL, a date,
/// binary data) has no text that a statement would make the same value of.
pub(super) fn text(bytes: &[u8]) -> Option<String> {
    let mut out = String::new();
    if bytes.is_empty() {
        return None;
    }
    value(bytes[0], &bytes[1..], DEPTH, &mut out)?;
    Some(out)
}

fn value(kind: u8, bytes: &[u8], depth: u32, out: &mut String) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    if out.len() > LONGEST {
        return None;
    }
    let mut reader = Reader::new(bytes);
    match kind {
        0..=3 => return container(kind < 2, kind & 1 == 1, bytes, depth, out),
        4 => out.push_str(["null", "true", "false"].get(usize::from(reader.u8()?))?),
        5 => out.push_str(&(reader.u16()? as i16).to_string()),
        6 => out.push_str(&reader.u16()?.to_string()),
        7 => out.push_str(&(reader.u32()? as i32).to_string()),
        8 => out.push_str(&reader.u32()?.to_string()),
        9 => out.push_str(&(reader.u64()? as i64).to_string()),
        10 => out.push_str(&reader.u64()?.to_string()),
        // With a point or an exponent, or the server would make an integer of it.
        11 => out.push_str(&format!("{:?}", f64::from_bits(reader.u64()?))),
        12 => {
            let len = variable(&mut reader)?;
            string(reader.take(len)?, out)?;
        }
        _ => return None,
    }
    Some(())
}

/// An object or an array: count, length, entries of keys (offset, length), entries of values (type,
/// offset or the value itself), keys, values.
fn container(object: bool, large: bool, bytes: &[u8], depth: u32, out: &mut String) -> Option<()> {
    let width = if large { 4 } else { 2 };
    let mut reader = Reader::new(bytes);
    let number = |reader: &mut Reader<'_>| usize::try_from(reader.uint(width)?).ok();
    let count = number(&mut reader)?;
    let len = number(&mut reader)?;
    let bytes = bytes.get(..len)?;
    let mut keys = Vec::new();
    if object {
        for _ in 0..count {
            let at = number(&mut reader)?;
            let len = usize::from(reader.u16()?);
            keys.push(bytes.get(at..at.checked_add(len)?)?);
        }
    }
    out.push(if object { '{' } else { '[' });
    for n in 0..count {
        if n > 0 {
            out.push_str(", ");
        }
        if object {
            string(keys.get(n)?, out)?;
            out.push_str(": ");
        }
        let kind = reader.u8()?;
        let inlined = matches!(kind, 4..=6) || (large && matches!(kind, 7 | 8));
        let field = reader.take(width)?;
        if inlined {
            value(kind, field, depth, out)?;
        } else {
            let at = usize::try_from(Reader::new(field).uint(width)?).ok()?;
            value(kind, bytes.get(at..)?, depth, out)?;
        }
    }
    out.push(if object { '}' } else { ']' });
    Some(())
}

/// A length of seven bits a byte.
fn variable(reader: &mut Reader<'_>) -> Option<usize> {
    let mut len = 0_usize;
    for shift in (0..35).step_by(7) {
        let byte = reader.u8()?;
        len |= usize::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(len);
        }
    }
    None
}

fn string(bytes: &[u8], out: &mut String) -> Option<()> {
    let text = std::str::from_utf8(bytes).ok()?;
    out.push_str(&serde_json::to_string(text).ok()?);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents() {
        // {"a": 1, "b": [true, 1.5]}
        let array = [&[2, 0, 19, 0, 4, 1, 0, 11, 10, 0][..], &[0], &1.5_f64.to_le_bytes()].concat();
        let array = [&array[..10], &array[11..]].concat();
        let mut array = array;
        array[2] = array.len() as u8;
        array[8] = 10;
        let mut object = vec![2, 0, 0, 0, 18, 0, 1, 0, 19, 0, 1, 0, 5, 1, 0, 2, 20, 0, b'a', b'b'];
        object.extend(&array);
        object[2] = object.len() as u8;
        let whole = [&[0][..], &object].concat();
        assert_eq!(text(&whole).unwrap(), r#"{"a": 1, "b": [true, 1.5]}"#);
        assert_eq!(text(b"\x0c\x03a\"b").unwrap(), r#""a\"b""#);
        assert_eq!(text(&[5, 0xff, 0xff]).unwrap(), "-1");
        assert_eq!(text(&[15, 246, 1, 0]), None, "a DECIMAL");
        for cut in 0..whole.len() {
            assert_eq!(text(&whole[..cut]), None, "{cut}");
        }
        // One that holds itself.
        assert_eq!(text(&[2, 1, 0, 7, 0, 2, 0, 0]), None);
    }
}
