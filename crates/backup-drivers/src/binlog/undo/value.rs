//! Values in row images, as exact literals of SQL.
//!
//! Layouts: `Field_*::pack` and `my_time.cc`, `decimal.c` of the servers. Literals are for a session
//! with `time_zone = '+00:00'`, `sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'` and a connection in utf8mb4.

use backup_core::Flavor;

use super::super::read::Reader;
use super::super::rows::Column;
use super::json;
use super::table::ColumnDefinition;

/// A value of a row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Value {
    Null,
    /// A number, or a time between quotes, as SQL writes it.
    Plain(String),
    /// A FLOAT, which compares with nothing but another one. Written with an exponent, or -0 would be
    /// the DECIMAL 0.
    Float(String),
    /// A year, 0 for 0000. As two digits, or as a number, a `YEAR(2)` of MariaDB would take it for another one.
    Year(u32),
    /// Of ENUM, SET and BIT.
    Index(u64),
    /// Bytes, in the character set of the column where it has one.
    Bytes(Vec<u8>),
    /// A document, as text.
    Json(String),
    /// The number of the reference system, then WKB.
    Geometry(u32, Vec<u8>),
    /// Bytes that have no literal of their own type.
    Raw(Vec<u8>),
}

/// What a value cannot be read, or written, for.
pub(super) type Problem = &'static str;

const CUT: Problem = "its row image is cut off";

/// Reads the value of a column off a row image.
pub(super) fn read(
    column: Column,
    definition: &ColumnDefinition,
    rows: &mut Reader<'_>,
) -> Result<Value, Problem> {
    let bytes = column.value(rows).ok_or(CUT)?;
    let mut reader = Reader::new(bytes);
    let plain = |text: String| Ok(Value::Plain(text));
    let quoted = |text: String| Ok(Value::Plain(format!("'{text}'")));
    let integer = |reader: &mut Reader<'_>, width: usize| {
        let number = reader.uint(width).ok_or(CUT)?;
        let shift = 64 - 8 * width as u32;
        Ok(Value::Plain(match definition.unsigned {
            true => number.to_string(),
            false => (((number << shift) as i64) >> shift).to_string(),
        }))
    };
    match column.real_kind() {
        1 => integer(&mut reader, 1),
        2 => integer(&mut reader, 2),
        9 => integer(&mut reader, 3),
        3 => integer(&mut reader, 4),
        8 => integer(&mut reader, 8),
        4 => {
            let number = f32::from_bits(reader.u32().ok_or(CUT)?);
            let negative_zero = number == 0.0 && number.is_sign_negative();
            // MariaDB makes 0 of -0e0, and -0 of what is too small.
            Ok(Value::Float(if negative_zero { "-1e-46".into() } else { format!("{number:e}") }))
        }
        5 => {
            let number = f64::from_bits(reader.u64().ok_or(CUT)?);
            let negative_zero = number == 0.0 && number.is_sign_negative();
            plain(if negative_zero { "-1e-330".into() } else { format!("{number:e}") })
        }
        6 => Ok(Value::Null),
        246 => plain(decimal(column.meta, bytes).ok_or(CUT)?),
        13 => {
            let year = u32::from(reader.u8().ok_or(CUT)?);
            Ok(Value::Year(if year == 0 { 0 } else { 1900 + year }))
        }
        10 | 14 => {
            let date = reader.uint(3).ok_or(CUT)?;
            quoted(format!("{:04}-{:02}-{:02}", date >> 9, date >> 5 & 15, date & 31))
        }
        7 | 17 => quoted(timestamp(column, bytes).ok_or(CUT)?),
        12 => {
            let n = reader.u64().ok_or(CUT)?;
            let (date, time) = (n / 1_000_000, n % 1_000_000);
            quoted(format!("{} {}", dashed(date), coloned(time)))
        }
        11 => {
            let n = reader.uint(3).ok_or(CUT)? as i64;
            let n = if n >= 1 << 23 { n - (1 << 24) } else { n };
            let sign = if n < 0 { "-" } else { "" };
            quoted(format!("{sign}{}", coloned(n.unsigned_abs())))
        }
        18 => quoted(datetime(column.meta, bytes).ok_or(CUT)?),
        19 => quoted(time(column.meta, bytes).ok_or(CUT)?),
        247 | 248 => {
            let mut le = [0; 8];
            le.get_mut(..bytes.len()).ok_or(CUT)?.copy_from_slice(bytes);
            Ok(Value::Index(u64::from_le_bytes(le)))
        }
        16 => {
            let number = bytes
                .iter()
                .try_fold(0_u64, |n, byte| Some(n.checked_mul(256)? + u64::from(*byte)));
            Ok(Value::Index(number.ok_or("a BIT is longer than 64 bits")?))
        }
        245 => json::text(bytes)
            .map(Value::Json)
            .ok_or("a value inside its JSON (a DECIMAL, a date) is nothing that SQL can write"),
        255 => {
            let srid = reader.u32().ok_or(CUT)?;
            Ok(Value::Geometry(srid, reader.rest().to_vec()))
        }
        15 | 249..=254 => match definition.data_type.as_str() {
            "binary" => Ok(Value::Bytes(padded(bytes, definition.octets))),
            "inet4" => Ok(Value::Raw(padded(bytes, 4))),
            "inet6" => Ok(Value::Raw(padded(bytes, 16))),
            "uuid" => uuid(&padded(bytes, 16)).map(Value::Raw).ok_or(CUT),
            _ => Ok(Value::Bytes(bytes.to_vec())),
        },
        242 => Ok(Value::Bytes(bytes.to_vec())),
        140 | 141 => Err("a COMPRESSED column cannot be read from the binlog"),
        _ => Err("it has a type that is not known here"),
    }
}

/// Trailing zeros are not in the image.
fn padded(bytes: &[u8], len: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(bytes.len().max(len), 0);
    bytes
}

/// MariaDB stores the UUIDs of versions 1 to 5 with their parts in reverse order
/// (`plugin/type_uuid/sql_type_uuid.h`).
fn uuid(bytes: &[u8]) -> Option<Vec<u8>> {
    let stored: &[u8; 16] = bytes.try_into().ok()?;
    let swapped = stored[6] & 0x80 != 0 && (1..0x60).contains(&stored[8]);
    Some(match swapped {
        false => stored.to_vec(),
        true => {
            [&stored[12..], &stored[10..12], &stored[8..10], &stored[6..8], &stored[..6]].concat()
        }
    })
}

fn dashed(n: u64) -> String {
    format!("{:04}-{:02}-{:02}", n / 10_000, n / 100 % 100, n % 100)
}

fn coloned(n: u64) -> String {
    format!("{:02}:{:02}:{:02}", n / 10_000, n / 100 % 100, n % 100)
}

/// Microseconds from `digits` of them, as they are shown.
fn fraction(digits: u16, bytes: &[u8]) -> Option<String> {
    let digits = usize::from(digits);
    if digits == 0 {
        return Some(String::new());
    }
    let number = big_endian(bytes)?;
    // One, two or three bytes for up to two, four or six digits.
    let shown = format!("{number:0width$}", width = digits.div_ceil(2) * 2);
    Some(format!(".{}", shown.get(..digits)?))
}

fn big_endian(bytes: &[u8]) -> Option<u64> {
    (bytes.len() <= 8).then(|| bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte)))
}

fn timestamp(column: Column, bytes: &[u8]) -> Option<String> {
    let (seconds, fraction) = match column.kind {
        7 => (Reader::new(bytes).u32()?, String::new()),
        _ => {
            let (seconds, rest) = bytes.split_first_chunk::<4>()?;
            (u32::from_be_bytes(*seconds), fraction(column.meta, rest)?)
        }
    };
    if seconds == 0 && fraction.bytes().all(|b| matches!(b, b'.' | b'0')) {
        return Some(format!("0000-00-00 00:00:00{fraction}"));
    }
    let at = jiff::Timestamp::from_second(seconds.into()).ok()?;
    Some(format!("{}{fraction}", at.strftime("%Y-%m-%d %H:%M:%S")))
}

fn datetime(meta: u16, bytes: &[u8]) -> Option<String> {
    let (packed, rest) = bytes.split_first_chunk::<5>()?;
    let packed = big_endian(packed)? & ((1 << 39) - 1);
    let (date, time) = (packed >> 17, packed & 0x1_ffff);
    let months = date >> 5;
    Some(format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}{}",
        months / 13,
        months % 13,
        date & 31,
        time >> 12,
        time >> 6 & 63,
        time & 63,
        fraction(meta, rest)?
    ))
}

fn time(meta: u16, bytes: &[u8]) -> Option<String> {
    let part = bytes.len().checked_sub(3).filter(|part| *part <= 3)?;
    let offset = 1_i64 << (23 + 8 * part);
    let signed = i64::try_from(big_endian(bytes)?).ok()? - offset;
    let whole = signed.unsigned_abs();
    let (time, rest) = (whole >> (8 * part), whole & ((1 << (8 * part)) - 1));
    let rest = rest.to_be_bytes();
    Some(format!(
        "{}{:02}:{:02}:{:02}{}",
        if signed < 0 { "-" } else { "" },
        time >> 12 & 0x3ff,
        time >> 6 & 63,
        time & 63,
        fraction(meta, &rest[8 - part..])?
    ))
}

/// Groups of nine digits in four bytes, what is left over in fewer; the sign is the highest bit,
/// inverted, and of a negative number all bits are.
fn decimal(meta: u16, bytes: &[u8]) -> Option<String> {
    const LEFT_OVER: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
    let [precision, scale] = meta.to_be_bytes().map(usize::from);
    let whole = precision.checked_sub(scale)?;
    let mut bytes = bytes.to_vec();
    let negative = bytes.first()? & 0x80 == 0;
    *bytes.first_mut()? ^= 0x80;
    if negative {
        bytes.iter_mut().for_each(|byte| *byte = !*byte);
    }
    let mut reader = Reader::new(&bytes);
    let mut group = |digits: usize| {
        let len = if digits == 9 { 4 } else { LEFT_OVER[digits] };
        Some(format!("{:0digits$}", big_endian(reader.take(len)?)?))
    };
    let mut text = String::new();
    if whole % 9 > 0 {
        text.push_str(&group(whole % 9)?);
    }
    for _ in 0..whole / 9 {
        text.push_str(&group(9)?);
    }
    let kept = text.trim_start_matches('0');
    let mut text =
        format!("{}{}", if negative { "-" } else { "" }, if kept.is_empty() { "0" } else { kept });
    if scale > 0 {
        text.push('.');
        for _ in 0..scale / 9 {
            text.push_str(&group(9)?);
        }
        if !scale.is_multiple_of(9) {
            text.push_str(&group(scale % 9)?);
        }
    }
    Some(text)
}

fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("x'{digits}'")
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

impl Value {
    /// As a literal for this column.
    pub(super) fn literal(&self, column: &ColumnDefinition, flavor: Flavor) -> String {
        match self {
            Value::Null => "NULL".into(),
            Value::Plain(text) | Value::Float(text) => text.clone(),
            Value::Year(year) => format!("'{year:04}'"),
            Value::Index(number) => number.to_string(),
            Value::Json(text) => quote(text),
            Value::Raw(bytes) => format!("CAST({} AS {})", hex(bytes), column.data_type),
            Value::Geometry(srid, wkb) => match flavor {
                Flavor::MySql => {
                    format!("ST_GeomFromWKB({}, {srid}, 'axis-order=long-lat')", hex(wkb))
                }
                Flavor::MariaDb => format!("ST_GeomFromWKB({}, {srid})", hex(wkb)),
            },
            Value::Bytes(bytes) => {
                let Some(charset) = &column.charset else { return hex(bytes) };
                let readable = matches!(charset.as_str(), "utf8mb4" | "utf8mb3" | "utf8" | "ascii");
                match std::str::from_utf8(bytes) {
                    Ok(text) if readable && !text.contains(char::is_control) => quote(text),
                    _ => format!("_{charset} {}", hex(bytes)),
                }
            }
        }
    }

    /// A condition that holds where the column has exactly this value.
    pub(super) fn exactly(&self, column: &ColumnDefinition, flavor: Flavor) -> String {
        let name = column.quoted();
        let literal = || self.literal(column, flavor);
        match self {
            Value::Null => format!("{name} IS NULL"),
            // No year is 1900: that is what the function has for 0000 in two digits.
            Value::Year(0) if flavor == Flavor::MariaDb => format!("YEAR({name}) IN (0, 1900)"),
            Value::Year(year) if flavor == Flavor::MariaDb => format!("YEAR({name}) <=> {year}"),
            Value::Plain(_) | Value::Year(_) | Value::Raw(_) => {
                format!("{name} <=> {}", literal())
            }
            Value::Float(_) => format!("{name} <=> CAST({} AS FLOAT)", literal()),
            Value::Index(number) => format!("{name} + 0 <=> {number}"),
            Value::Json(_) => format!("{name} <=> CAST({} AS JSON)", literal()),
            // Whatever the collation takes for equal.
            Value::Bytes(bytes) => format!("CAST({name} AS BINARY) <=> {}", hex(bytes)),
            Value::Geometry(srid, wkb) => {
                let order = match flavor {
                    Flavor::MySql => ", 'axis-order=long-lat'",
                    Flavor::MariaDb => "",
                };
                format!("(ST_SRID({name}) <=> {srid} AND ST_AsWKB({name}{order}) <=> {})", hex(wkb))
            }
        }
    }

    /// A condition that finds the row by this column of a key.
    pub(super) fn found_by(&self, column: &ColumnDefinition, flavor: Flavor) -> String {
        match self {
            Value::Plain(_) | Value::Bytes(_) | Value::Raw(_) => {
                format!("{} = {}", column.quoted(), self.literal(column, flavor))
            }
            _ => self.exactly(column, flavor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_bytes_are_too_strange() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state >> 24
        };
        let types = ["int", "binary", "uuid", "inet6", "varchar", "json"];
        for _ in 0..200_000 {
            let column = Column { kind: next() as u8, meta: next() as u16 };
            let definition = ColumnDefinition {
                name: "c".into(),
                data_type: types[next() as usize % types.len()].into(),
                charset: (next() % 2 == 0).then(|| "utf8mb4".into()),
                unsigned: next() % 2 == 0,
                generated: false,
                on_update: false,
                octets: next() as usize % 20,
            };
            let bytes: Vec<u8> = (0..next() % 90).map(|_| next() as u8).collect();
            let mut rows = Reader::new(&bytes);
            if let Ok(value) = read(column, &definition, &mut rows) {
                assert!(!value.exactly(&definition, Flavor::MySql).is_empty());
                assert!(!value.literal(&definition, Flavor::MariaDb).is_empty());
            }
        }
    }

    #[test]
    fn numbers_and_times() {
        let meta = u16::from_be_bytes([14, 4]);
        let number = [0x81, 0x0d, 0xfb, 0x38, 0xd2, 0x04, 0xd2];
        assert_eq!(decimal(meta, &number).unwrap(), "1234567890.1234");
        let minus = number.map(|byte: u8| !byte);
        assert_eq!(decimal(meta, &minus).unwrap(), "-1234567890.1234");
        assert_eq!(decimal(u16::from_be_bytes([2, 2]), &[0x80 + 5]).unwrap(), "0.05");
        assert_eq!(time(0, &[0x80, 0x10, 0x83]).unwrap(), "01:02:03");
        assert_eq!(time(2, &[0x7f, 0xff, 0xff, 0xf6]).unwrap(), "-00:00:00.10");
        assert_eq!(time(1, &[0x80, 0, 0, 10]).unwrap(), "00:00:00.1");
        let packed: u64 = 1 << 39 | (2024 * 13 + 2) << 22 | 29 << 17 | 23 << 12 | 59 << 6 | 58;
        let bytes = [&packed.to_be_bytes()[3..], &[1, 0xe2, 0x40]].concat();
        assert_eq!(datetime(6, &bytes).unwrap(), "2024-02-29 23:59:58.123456");
    }
}
