//! Values as text, and blocks as the lines that `LOAD DATA` reads.

use backup_core::{Error, ErrorKind, Result};

use super::block::{Block, Entries, Values};
use super::temporal::{DateTime, Time};
use super::walk::{Visitor, walk};
use super::{Kind, decimal, row};

/// How the values of a column are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TextFormat {
    /// Digits of the fraction of a DATETIME, TIMESTAMP or TIME: 0 to 6, as the column's definition
    /// says; larger numbers count as 6. A value with more digits than that is printed with 6.
    pub decimals: u8,
}

impl Block {
    /// Appends the rows as `LOAD DATA … CHARACTER SET binary FIELDS TERMINATED BY '\t' ESCAPED BY
    /// '\\' LINES TERMINATED BY '\n'` reads them: NULL is `\N`; NUL, tab, newline and backslash
    /// are escaped and nothing else. `formats` has one entry per column.
    ///
    /// Floats are printed so that the same bits come back. A FLOAT is printed as the DOUBLE of the
    /// same value: the server reads a DOUBLE from the text and rounds it, and the shortest text of
    /// the FLOAT could be rounded twice, to the neighbour.
    ///
    /// # Errors
    /// [`ErrorKind::Target`] for a float that is not finite, which no text can carry;
    /// [`ErrorKind::Damaged`] for a damaged block; [`ErrorKind::Internal`] when `formats` does not
    /// fit the columns. `out` may then hold some of the rows.
    pub fn write_tsv(&self, out: &mut Vec<u8>, formats: &[TextFormat]) -> Result<()> {
        if formats.len() != self.columns.len() {
            return Err(Error::internal(format!(
                "{} formats were given for {} columns",
                formats.len(),
                self.columns.len()
            )));
        }
        let columns = self.columns.iter().zip(formats).map(|(column, &format)| {
            let clean = match &column.values {
                Values::Bytes(data) | Values::Dictionary(Entries { data, .. }) => {
                    !self.column_bytes(data).iter().any_special()
                }
                _ => true,
            };
            (format, clean)
        });
        out.reserve(self.bytes.len());
        walk(self, &mut Tsv { out, columns: columns.collect() })
    }
}

/// Writes lines.
struct Tsv<'o> {
    out: &'o mut Vec<u8>,
    /// Of each column, the format and whether none of its bytes needs an escape.
    columns: Vec<(TextFormat, bool)>,
}

impl Visitor for Tsv<'_> {
    #[inline]
    fn begin(&mut self) {}

    #[inline]
    fn null(&mut self, _: usize) {
        self.out.extend_from_slice(b"\\N\t");
    }

    #[inline]
    fn integer(&mut self, column: usize, kind: Kind, value: u64) -> Result<()> {
        let (format, _) = self.columns[column];
        append_integer(kind, value, format, self.out)?;
        self.out.push(b'\t');
        Ok(())
    }

    #[inline]
    fn bytes(&mut self, column: usize, kind: Kind, value: &[u8]) -> Result<()> {
        let (format, clean) = self.columns[column];
        if kind != Kind::Bytes {
            append_text(kind, value, format, self.out)?;
        } else if clean {
            self.out.extend_from_slice(value);
        } else {
            escape_into(value, self.out);
        }
        self.out.push(b'\t');
        Ok(())
    }

    #[inline]
    fn decimal(&mut self, _: usize, value: i64, scale: u8) {
        decimal::append(value, scale, self.out);
        self.out.push(b'\t');
    }

    #[inline]
    fn end(&mut self) -> Result<()> {
        if let Some(last) = self.out.last_mut() {
            *last = b'\n';
        }
        Ok(())
    }
}

/// Appends the text of a value of an integer section: a number, a temporal value that is packed, the
/// bits of a float.
#[inline]
pub(super) fn append_integer(
    kind: Kind,
    value: u64,
    format: TextFormat,
    out: &mut Vec<u8>,
) -> Result<()> {
    match kind {
        Kind::I8 => append_number(i64::from(value as i8), out),
        Kind::U8 => append_number(u64::from(value as u8), out),
        Kind::I16 => append_number(i64::from(value as i16), out),
        Kind::U16 => append_number(u64::from(value as u16), out),
        Kind::I32 => append_number(i64::from(value as i32), out),
        Kind::U32 => append_number(u64::from(value as u32), out),
        Kind::I64 => append_number(value.cast_signed(), out),
        Kind::U64 | Kind::Bytes => append_number(value, out),
        Kind::F32 => append_float(f64::from(f32::from_bits(value as u32)), out)?,
        Kind::F64 => append_float(f64::from_bits(value), out)?,
        Kind::Year => append_year(value as u16, out),
        Kind::Date => append_date(DateTime::unpack_date(value), out),
        Kind::DateTime => append_datetime(DateTime::unpack(value), format, out),
        Kind::Time => append_time(Time::unpack(value), format, out),
    }
    Ok(())
}

/// Appends the text of a value that [`fields`](super::fields) took from a row packet, without
/// escapes: a number, `2024-02-29 12:00:00.5`, the bytes of a string as they are.
///
/// # Errors
/// [`ErrorKind::Target`] for a float that is not finite, [`ErrorKind::Damaged`] when `value` is no
/// value of `kind`.
pub fn append_text(kind: Kind, value: &[u8], format: TextFormat, out: &mut Vec<u8>) -> Result<()> {
    fn fixed<const N: usize>(value: &[u8]) -> Result<[u8; N]> {
        value.try_into().map_err(|_| no_value(value.len()))
    }
    if kind.is_temporal() && !row::is_temporal_length(kind, value.len()) {
        return Err(no_value(value.len()));
    }
    let no_value = || no_value(value.len());
    match kind {
        Kind::I8 => append_number(i8::from_le_bytes(fixed(value)?), out),
        Kind::U8 => append_number(u8::from_le_bytes(fixed(value)?), out),
        Kind::I16 => append_number(i16::from_le_bytes(fixed(value)?), out),
        Kind::U16 => append_number(u16::from_le_bytes(fixed(value)?), out),
        Kind::I32 => append_number(i32::from_le_bytes(fixed(value)?), out),
        Kind::U32 => append_number(u32::from_le_bytes(fixed(value)?), out),
        Kind::I64 => append_number(i64::from_le_bytes(fixed(value)?), out),
        Kind::U64 => append_number(u64::from_le_bytes(fixed(value)?), out),
        Kind::F32 => append_float(f64::from(f32::from_le_bytes(fixed(value)?)), out)?,
        Kind::F64 => append_float(f64::from_le_bytes(fixed(value)?), out)?,
        Kind::Year => append_year(u16::from_le_bytes(fixed(value)?), out),
        Kind::Date => append_date_or_more(DateTime::from_wire(value).ok_or_else(no_value)?, out),
        Kind::DateTime => {
            append_datetime(DateTime::from_wire(value).ok_or_else(no_value)?, format, out);
        }
        Kind::Time => append_time(Time::from_wire(value).ok_or_else(no_value)?, format, out),
        Kind::Bytes => out.extend_from_slice(value),
    }
    Ok(())
}

fn no_value(length: usize) -> Error {
    Error::damaged(format!("{length} bytes are no value of their column"))
}

/// Appends `value` with NUL, tab, newline and backslash escaped for `LOAD DATA … ESCAPED BY '\\'`.
pub fn escape_into(value: &[u8], out: &mut Vec<u8>) {
    out.reserve(value.len());
    let (chunks, rest) = value.as_chunks::<16>();
    for chunk in chunks {
        if chunk.iter().any_special() {
            escape_each(chunk, out);
        } else {
            out.extend_from_slice(chunk);
        }
    }
    escape_each(rest, out);
}

fn escape_each(value: &[u8], out: &mut Vec<u8>) {
    for &byte in value {
        match byte {
            0 => out.extend_from_slice(b"\\0"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\\' => out.extend_from_slice(b"\\\\"),
            byte => out.push(byte),
        }
    }
}

/// Looks for bytes that need an escape.
trait AnySpecial {
    fn any_special(self) -> bool;
}

impl AnySpecial for std::slice::Iter<'_, u8> {
    /// Without an early end, so that the compiler compares many bytes at once.
    #[inline]
    fn any_special(self) -> bool {
        self.fold(false, |found, &byte| {
            found | (byte == 0) | (byte == b'\t') | (byte == b'\n') | (byte == b'\\')
        })
    }
}

#[inline]
fn append_number(number: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The shortest text that gives the same bits back; `-0` is one.
fn append_float(number: f64, out: &mut Vec<u8>) -> Result<()> {
    if !number.is_finite() {
        return Err(Error::new(
            ErrorKind::Target,
            format!("a column holds the float {number}, which LOAD DATA cannot read"),
        )
        .with_remedy("correct the value on the source, or use the physical strategy"));
    }
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(number);
    out.extend_from_slice(text.strip_suffix(".0").unwrap_or(text).as_bytes());
    Ok(())
}

/// Two decimal digits; of numbers above 99, which no server sends, the last two.
#[inline]
fn two(number: u8) -> [u8; 2] {
    [b'0' + number / 10 % 10, b'0' + number % 10]
}

fn append_year(year: u16, out: &mut Vec<u8>) {
    if year > 9999 {
        return append_number(year, out);
    }
    out.extend_from_slice(&two((year / 100) as u8));
    out.extend_from_slice(&two((year % 100) as u8));
}

#[inline]
fn append_date(date: DateTime, out: &mut Vec<u8>) {
    append_year(date.year, out);
    let ([m0, m1], [d0, d1]) = (two(date.month), two(date.day));
    out.extend_from_slice(&[b'-', m0, m1, b'-', d0, d1]);
}

/// A DATE, with the time of day that a server should not have sent.
fn append_date_or_more(date: DateTime, out: &mut Vec<u8>) {
    let midnight = DateTime { hour: 0, minute: 0, second: 0, micros: 0, ..date };
    if date == midnight {
        append_date(date, out);
    } else {
        append_datetime(date, TextFormat::default(), out);
    }
}

#[inline]
fn append_datetime(value: DateTime, format: TextFormat, out: &mut Vec<u8>) {
    append_date(value, out);
    let ([h0, h1], [m0, m1], [s0, s1]) = (two(value.hour), two(value.minute), two(value.second));
    out.extend_from_slice(&[b' ', h0, h1, b':', m0, m1, b':', s0, s1]);
    append_fraction(value.micros, format, out);
}

fn append_time(value: Time, format: TextFormat, out: &mut Vec<u8>) {
    if value.negative {
        out.push(b'-');
    }
    let hours = u64::from(value.days) * 24 + u64::from(value.hour);
    if hours < 100 {
        out.extend_from_slice(&two(hours as u8));
    } else {
        append_number(hours, out);
    }
    let ([m0, m1], [s0, s1]) = (two(value.minute), two(value.second));
    out.extend_from_slice(&[b':', m0, m1, b':', s0, s1]);
    append_fraction(value.micros, format, out);
}

#[inline]
fn append_fraction(micros: u32, format: TextFormat, out: &mut Vec<u8>) {
    let mut decimals = usize::from(format.decimals.min(6));
    if !micros.is_multiple_of(10u32.pow(6 - decimals as u32)) {
        decimals = 6;
    }
    if decimals == 0 {
        return;
    }
    let micros = micros % 1_000_000;
    let ([a, b], [c, d], [e, f]) =
        (two((micros / 10_000) as u8), two((micros / 100 % 100) as u8), two((micros % 100) as u8));
    out.extend_from_slice(&[b'.', a, b, c, d, e, f][..=decimals]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(kind: Kind, value: &[u8], decimals: u8) -> String {
        let mut out = Vec::new();
        append_text(kind, value, TextFormat { decimals }, &mut out).unwrap();
        // The line of a block says the same.
        let mut packet = vec![0, 0];
        if kind.width().is_none() {
            packet.push(value.len() as u8);
        }
        packet.extend_from_slice(value);
        let mut encoder = super::super::BlockEncoder::new(&[kind], 1).unwrap();
        encoder.push(&packet).unwrap();
        let block = Block::parse(encoder.finish().bytes).unwrap();
        let (mut line, mut escaped) = (Vec::new(), Vec::new());
        block.write_tsv(&mut line, &[TextFormat { decimals }]).unwrap();
        escape_into(&out, &mut escaped);
        escaped.push(b'\n');
        assert_eq!(line, escaped);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn integers_at_their_limits() {
        assert_eq!(text(Kind::I8, &[0x80], 0), "-128");
        assert_eq!(text(Kind::U8, &[0xff], 0), "255");
        assert_eq!(text(Kind::I16, &i16::MIN.to_le_bytes(), 0), "-32768");
        assert_eq!(text(Kind::U16, &[0xff; 2], 0), "65535");
        assert_eq!(text(Kind::I32, &i32::MIN.to_le_bytes(), 0), "-2147483648");
        assert_eq!(text(Kind::U32, &[0xff; 4], 0), "4294967295");
        assert_eq!(text(Kind::I64, &i64::MIN.to_le_bytes(), 0), "-9223372036854775808");
        assert_eq!(text(Kind::U64, &[0xff; 8], 0), "18446744073709551615");
        assert_eq!(text(Kind::Year, &[0, 0], 0), "0000");
        assert_eq!(text(Kind::Year, &2155u16.to_le_bytes(), 0), "2155");
    }

    #[test]
    fn floats_come_back_to_the_bit() {
        for number in [
            0.0,
            -0.0,
            1.0,
            -1.5,
            0.1,
            1e16,
            1e22,
            1e23,
            1e-7,
            5e-324,
            f64::MAX,
            f64::MIN_POSITIVE,
            9_007_199_254_740_993.0,
            123_456_789.125,
        ] {
            let text = text(Kind::F64, &f64::to_le_bytes(number), 0);
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), number.to_bits(), "{text}");
        }
        for number in [0.1f32, 16_777_216.0, f32::MAX, f32::MIN_POSITIVE, 1e-45, -0.0] {
            let text = text(Kind::F32, &number.to_le_bytes(), 0);
            let back = text.parse::<f64>().unwrap();
            assert_eq!(back, f64::from(number), "{text}");
            assert_eq!((back as f32).to_bits(), number.to_bits(), "{text}");
        }
        assert_eq!(text(Kind::F64, &(-0.0f64).to_le_bytes(), 0), "-0");
        assert_eq!(text(Kind::F64, &100f64.to_le_bytes(), 0), "100");
        for bad in [f64::NAN, f64::INFINITY] {
            let error =
                append_text(Kind::F64, &bad.to_le_bytes(), TextFormat::default(), &mut Vec::new());
            assert_eq!(error.unwrap_err().kind(), ErrorKind::Target);
        }
    }

    #[test]
    fn dates_with_zero_parts() {
        assert_eq!(text(Kind::Date, b"", 0), "0000-00-00");
        assert_eq!(text(Kind::Date, b"\xe8\x07\0\0", 0), "2024-00-00");
        assert_eq!(text(Kind::Date, b"\x0f\x27\x0c\x1f", 0), "9999-12-31");
        assert_eq!(text(Kind::Date, b"\0\0\x01\x01", 0), "0000-01-01");
        // Out of form, so kept as bytes.
        assert_eq!(text(Kind::Date, b"\0\0\0\0", 0), "0000-00-00");
        assert_eq!(text(Kind::Date, b"\xe8\x07\x01\x01\x01\0\0", 0), "2024-01-01 01:00:00");
        assert_eq!(text(Kind::DateTime, b"", 0), "0000-00-00 00:00:00");
        assert_eq!(text(Kind::DateTime, b"", 3), "0000-00-00 00:00:00.000");
    }

    #[test]
    fn fractions_follow_the_column_unless_digits_would_be_lost() {
        let value = b"\xe8\x07\x02\x1d\x0c\x22\x38\x20\xa1\x07\0"; // .500000
        assert_eq!(text(Kind::DateTime, value, 0), "2024-02-29 12:34:56.500000");
        assert_eq!(text(Kind::DateTime, value, 1), "2024-02-29 12:34:56.5");
        assert_eq!(text(Kind::DateTime, value, 3), "2024-02-29 12:34:56.500");
        assert_eq!(text(Kind::DateTime, value, 6), "2024-02-29 12:34:56.500000");
        assert_eq!(text(Kind::DateTime, value, 31), "2024-02-29 12:34:56.500000");
        assert_eq!(text(Kind::DateTime, &value[..7], 2), "2024-02-29 12:34:56.00");
        assert_eq!(text(Kind::DateTime, &value[..4], 0), "2024-02-29 00:00:00");
    }

    #[test]
    fn times_with_sign_and_days() {
        assert_eq!(text(Kind::Time, b"", 0), "00:00:00");
        assert_eq!(text(Kind::Time, b"\x01\x22\0\0\0\x16\x3b\x3b", 0), "-838:59:59");
        assert_eq!(text(Kind::Time, b"\0\x04\0\0\0\x03\0\0", 0), "99:00:00");
        assert_eq!(text(Kind::Time, b"\0\x04\0\0\0\x04\0\0", 0), "100:00:00");
        assert_eq!(text(Kind::Time, b"\x01\0\0\0\0\0\0\0\x01\0\0\0", 6), "-00:00:00.000001");
        assert_eq!(text(Kind::Time, b"\0\xff\xff\xff\xff\xff\xff\xff", 0), "103079215335:55:55");
    }

    #[test]
    fn strings_are_escaped_and_nothing_else() {
        let mut out = Vec::new();
        escape_into(b"a\0b\tc\nd\\e\r\x1a'\"\x08,N\xff and some more of it \\N", &mut out);
        assert_eq!(out, b"a\\0b\\tc\\nd\\\\e\r\x1a'\"\x08,N\xff and some more of it \\\\N");
        assert_eq!(text(Kind::Bytes, "\\N".as_bytes(), 0), "\\N");
        assert_eq!(text(Kind::Bytes, b"-12.50", 0), "-12.50");
        assert_eq!(text(Kind::Bytes, b"", 0), "");
        // A tab can stand anywhere in a chunk.
        for at in 0..40 {
            let mut value = [b'x'; 40];
            value[at] = b'\t';
            let mut out = Vec::new();
            escape_into(&value, &mut out);
            assert_eq!(out, [&value[..at], b"\\t", &value[at + 1..]].concat());
        }
    }
}
