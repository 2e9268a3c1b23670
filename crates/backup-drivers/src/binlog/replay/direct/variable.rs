//! User variables that statements of a binlog read.

use std::collections::HashMap;

use backup_core::{Error, ErrorKind, Result};

use super::super::super::read::Reader;
use super::super::target::Target;
use crate::logical::quote_name;

/// Sets the variable of a USER_VAR event: length u32 and name, u8 whether it is NULL, then type u8,
/// collation u32, length u32 and value, flags u8 (`User_var_log_event` of both servers).
pub(super) async fn set(
    target: &mut Target,
    body: &[u8],
    collations: &mut HashMap<u32, (String, String)>,
) -> Result<()> {
    let damaged = || Error::damaged("a USER_VAR event cannot be read");
    let Variable { name, kind, collation, value, unsigned } =
        Variable::parse(body).ok_or_else(damaged)?;
    let text = match kind {
        None => "NULL".to_owned(),
        Some(STRING) => {
            let (charset, collation) = self::collation(target, collation, collations).await?;
            let hex: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
            // The name of that of bytes is a word of MySQL's language.
            format!("_{charset} X'{hex}' COLLATE {}", quote_name(&collation))
        }
        Some(REAL) => {
            let bits = value.first_chunk().ok_or_else(damaged)?;
            format!("{:e}", f64::from_le_bytes(*bits))
        }
        Some(INT) => {
            let bits = *value.first_chunk().ok_or_else(damaged)?;
            match unsigned {
                true => u64::from_le_bytes(bits).to_string(),
                false => i64::from_le_bytes(bits).to_string(),
            }
        }
        Some(DECIMAL) => decimal(value).ok_or_else(damaged)?,
        Some(_) => return Err(damaged()),
    };
    let name = String::from_utf8_lossy(name).into_owned();
    target.session.run(&format!("SET @{} := {text}", quote_name(&name))).await.map(drop)
}

/// Names of a character set and a collation by the number of the latter.
pub(super) async fn collation(
    target: &mut Target,
    id: u32,
    known: &mut HashMap<u32, (String, String)>,
) -> Result<(String, String)> {
    if let Some(found) = known.get(&id) {
        return Ok(found.clone());
    }
    let table = match target.mysql() || id <= 255 {
        true => "character_set_name, collation_name FROM information_schema.collations",
        false => {
            "character_set_name, full_collation_name FROM \
             information_schema.collation_character_set_applicability"
        }
    };
    let found: Vec<(String, String)> =
        target.session.exec_rows(&format!("SELECT {table} WHERE id = ?"), (id,)).await?;
    let found = found.into_iter().next().ok_or_else(|| {
        Error::new(ErrorKind::Target, format!("{} does not know collation {id}", target.options))
    })?;
    known.insert(id, found.clone());
    Ok(found)
}

const STRING: u8 = 0;
const REAL: u8 = 1;
const INT: u8 = 2;
const DECIMAL: u8 = 4;

#[derive(Debug, PartialEq)]
struct Variable<'a> {
    name: &'a [u8],
    /// `None` for NULL.
    kind: Option<u8>,
    collation: u32,
    value: &'a [u8],
    unsigned: bool,
}

impl<'a> Variable<'a> {
    fn parse(body: &'a [u8]) -> Option<Self> {
        let mut body = Reader::new(body);
        let len = usize::try_from(body.u32()?).ok()?;
        let name = body.take(len)?;
        if body.u8()? != 0 {
            return Some(Variable { name, kind: None, collation: 0, value: &[], unsigned: false });
        }
        let kind = body.u8()?;
        let collation = body.u32()?;
        let len = usize::try_from(body.u32()?).ok()?;
        let value = body.take(len)?;
        let unsigned = body.u8().is_some_and(|flags| flags & 1 != 0);
        Some(Variable { name, kind: Some(kind), collation, value, unsigned })
    }
}

/// A packed decimal: precision u8, digits behind the point u8, then groups of nine digits in four bytes,
/// big-endian, shorter ones in as many as they need; the first bit is inverted, and all bits of a
/// negative one are (`decimal2bin` of `strings/decimal.c`).
fn decimal(value: &[u8]) -> Option<String> {
    const BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
    let (&[precision, scale], packed) = value.split_first_chunk()?;
    let whole = usize::from(precision.checked_sub(scale)?);
    let scale = usize::from(scale);
    let mut bytes = packed.to_vec();
    let negative = bytes.first()? & 0x80 == 0;
    bytes[0] ^= 0x80;
    if negative {
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
    }
    let mut reader = Reader::new(&bytes);
    let mut digits = |count: usize| {
        let group = reader.take(BYTES[count])?;
        let number = group.iter().fold(0_u64, |sum, &byte| sum << 8 | u64::from(byte));
        Some(format!("{number:0count$}"))
    };
    let mut text = String::new();
    if whole % 9 > 0 {
        text.push_str(&digits(whole % 9)?);
    }
    for _ in 0..whole / 9 {
        text.push_str(&digits(9)?);
    }
    let trimmed = text.trim_start_matches('0');
    let mut text = if trimmed.is_empty() { "0".to_owned() } else { trimmed.to_owned() };
    if scale > 0 {
        text.push('.');
        for _ in 0..scale / 9 {
            text.push_str(&digits(9)?);
        }
        if scale % 9 > 0 {
            text.push_str(&digits(scale % 9)?);
        }
    }
    Some(if negative { format!("-{text}") } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals() {
        // 1234567890.1234 of the servers' own documentation, and its negative.
        let packed = [0x81, 0x0d, 0xfb, 0x38, 0xd2, 0x04, 0xd2];
        let with = |bytes: &[u8]| decimal(&[&[14, 4], bytes].concat());
        assert_eq!(with(&packed).unwrap(), "1234567890.1234");
        let negative: Vec<u8> = packed.iter().map(|byte| !byte).collect();
        assert_eq!(with(&negative).unwrap(), "-1234567890.1234");
        assert_eq!(with(&packed[..3]), None);
    }

    #[test]
    fn variables() {
        let body = b"\x01\0\0\0a\0\x02\x3f\0\0\0\x08\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\0";
        let variable = Variable::parse(body).unwrap();
        assert_eq!(
            (variable.name, variable.kind, variable.unsigned),
            (&b"a"[..], Some(INT), false)
        );
        assert_eq!(Variable::parse(b"\x01\0\0\0a\x01").unwrap().kind, None);
        for end in 0..body.len() - 1 {
            let _ = Variable::parse(&body[..end]);
        }
    }
}
