//! What is done with the values of one column.

use std::borrow::Cow;

use aws_lc_rs::hmac;
use backup_core::{Error, Result};

use super::super::catalog::{Column, LoadMode, Table};
use super::charset::Charset;
use super::fixed::{Digits, Fixed, sizes};
use super::rules::{Compiled, MaskWith};
use super::value::{self, Stream};
use crate::rows::Kind;

/// What is done with a column.
#[derive(Debug)]
pub(super) struct ColumnMask {
    pub(super) with: MaskWith,
    regex: Option<regex::Regex>,
    name: String,
    data_type: String,
    charset: Charset,
    /// How long a text can be.
    most: Most,
    /// Of a `FLOAT(7,3)` or `DOUBLE(7,3)`.
    digits: Option<Digits>,
    /// Digits of a `DECIMAL`, and those after the point.
    sizes: Option<(usize, usize)>,
    /// The server shows its numbers with zeros in front.
    zerofill: bool,
    fixed: Option<Fixed>,
}

const TEXTS: [&str; 6] = ["char", "varchar", "tinytext", "text", "mediumtext", "longtext"];
const BYTES: [&str; 6] = ["binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"];
pub(super) const INTEGERS: [&str; 5] = ["tinyint", "smallint", "mediumint", "int", "bigint"];

impl ColumnMask {
    pub(super) fn new(
        rule: &Compiled,
        table: &Table,
        column: &Column,
        charset: Charset,
    ) -> Result<Self> {
        let data_type = column.data_type.as_str();
        let text = TEXTS.contains(&data_type);
        let refuse = |why: &str| {
            Err(Error::usage(format!(
                "{}.{} ({}) cannot be masked by the rule for {}: {why}",
                table.full_name(),
                column.name,
                column.column_type,
                rule.text
            ))
            .with_remedy("choose another way for this column; `null` goes where NULL does"))
        };
        let number =
            INTEGERS.contains(&data_type) || ["float", "double", "decimal"].contains(&data_type);
        let date = ["date", "datetime", "timestamp"].contains(&data_type);
        let fine = match &rule.with {
            MaskWith::Null => !not_null(&table.create, &column.name),
            MaskWith::Fixed(_) => {
                text || number
                    || date
                    || BYTES.contains(&data_type)
                    || ["json", "enum", "uuid", "year"].contains(&data_type)
            }
            MaskWith::Hash => {
                text || number || date || BYTES.contains(&data_type) || data_type == "uuid"
            }
            MaskWith::Shape => text || number || date || data_type == "uuid",
            MaskWith::Regex { .. } => text,
        };
        if !fine {
            return refuse(match rule.with {
                MaskWith::Null => "it is NOT NULL",
                _ => "values of its type cannot be changed so",
            });
        }
        if column.load == LoadMode::Number && rule.with != MaskWith::Null {
            return refuse("it has an empty member");
        }
        let fixed = match &rule.with {
            MaskWith::Fixed(text) => match Fixed::parse(text, column) {
                Some(fixed) => Some(fixed),
                None => return refuse("the text is no value of it"),
            },
            _ => None,
        };
        let mask = ColumnMask {
            with: rule.with.clone(),
            regex: rule.regex.clone(),
            name: column.name.clone(),
            data_type: data_type.to_owned(),
            charset,
            most: Most::of(&column.column_type, data_type),
            digits: Digits::of(&column.column_type),
            zerofill: column.column_type.contains("zerofill"),
            sizes: (data_type == "decimal").then(|| sizes(&column.column_type)).flatten(),
            fixed,
        };
        match (&mask.fixed, &mask.with) {
            (Some(Fixed::Text(text)), _) if !mask.holds(text) => {
                refuse("the text is too long for it, or none of its character set")
            }
            // Signs of ASCII may stand for groups here.
            (_, MaskWith::Regex { replace, .. })
                if !replace.chars().all(|c| c.is_ascii() || mask.charset.has(c)) =>
            {
                refuse("the text for a match has characters that its character set has not")
            }
            _ => Ok(mask),
        }
    }

    /// Whether every value becomes the same one.
    pub(super) fn is_fixed(&self) -> bool {
        self.fixed.is_some()
    }

    /// How many digits a hash has here, where it is text.
    pub(super) fn digits(&self) -> usize {
        self.most.digits().min(value::MOST_DIGITS)
    }

    /// Whether it may make one value of two. NULL is no value, and enough digits are never the same.
    pub(super) fn merges(&self) -> bool {
        const ENOUGH: usize = 16;
        let digits = TEXTS.contains(&self.data_type.as_str())
            || BYTES.contains(&self.data_type.as_str())
            || self.data_type == "uuid";
        match self.with {
            MaskWith::Null => false,
            MaskWith::Hash => !digits || self.digits() < ENOUGH,
            MaskWith::Fixed(_) | MaskWith::Shape | MaskWith::Regex { .. } => true,
        }
    }

    /// Whether the column holds a text as it is, neither cut nor in other characters.
    fn holds(&self, text: &str) -> bool {
        match self.data_type.as_str() {
            texts if TEXTS.contains(&texts) || BYTES.contains(&texts) || texts == "enum" => {
                self.put(text).1
            }
            _ => true,
        }
    }

    /// A text in the bytes of the column, and whether it is all of it: it may be cut, and question marks stand for
    /// what the character set does not have.
    fn put(&self, text: &str) -> (Vec<u8>, bool) {
        let (mut bytes, mut whole) = (Vec::with_capacity(text.len()), true);
        for (i, c) in text.chars().enumerate() {
            let before = bytes.len();
            // Blobs have no character set.
            whole &= match BYTES.contains(&self.data_type.as_str()) {
                true => Charset::Utf8Mb4.push(c, &mut bytes),
                false => self.charset.push(c, &mut bytes),
            };
            if i >= self.most.characters || bytes.len() > self.most.bytes {
                bytes.truncate(before);
                return (bytes, false);
            }
        }
        (bytes, whole)
    }

    pub(super) fn apply<'a>(
        &self,
        key: &hmac::Key,
        kind: Kind,
        value: &'a [u8],
    ) -> Result<Option<Cow<'a, [u8]>>> {
        if self.with == MaskWith::Null {
            return Ok(None);
        }
        let changed = match kind {
            Kind::Bytes => self.bytes(key, value),
            Kind::Date | Kind::DateTime => self.date(key, kind, value),
            Kind::F32 | Kind::F64 => self.float(key, kind, value),
            Kind::Time => None,
            _ => self.integer(key, kind, value),
        };
        match changed {
            Some(changed) => Ok(Some(Cow::Owned(changed))),
            // Never the original.
            None => {
                Err(Error::usage(format!("a value of the column {} cannot be masked", self.name))
                    .with_remedy("choose another way for this column"))
            }
        }
    }

    fn bytes(&self, key: &hmac::Key, value: &[u8]) -> Option<Vec<u8>> {
        if self.data_type == "decimal" || self.data_type == "year" {
            let text = std::str::from_utf8(value).ok()?;
            return Some(match &self.fixed {
                Some(Fixed::Text(fixed)) => fixed.clone().into_bytes(),
                Some(_) => return None,
                None => {
                    let mut stream = Stream::new(key, value);
                    match (&self.with, self.sizes) {
                        (MaskWith::Hash, Some(sizes)) => {
                            any_decimal(sizes, self.zerofill, &mut stream)
                        }
                        (MaskWith::Hash, None) => return None,
                        _ => decimal(text, &mut stream),
                    }
                    .into_bytes()
                }
            });
        }
        if self.data_type == "uuid" && self.fixed.is_none() {
            let digits = value::hash(&mut Stream::new(key, value), value::MOST_DIGITS);
            let parts =
                [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
            return Some(parts.join("-").into_bytes());
        }
        let (text, exact) = match TEXTS.contains(&self.data_type.as_str()) {
            true => self.charset.decode(value),
            false => (Cow::Borrowed(""), false),
        };
        // The same for the same characters, whatever their bytes are in this column.
        let mut stream = Stream::new(key, if exact { text.as_bytes() } else { value });
        let new = match (&self.with, &self.fixed) {
            (_, Some(Fixed::Text(fixed))) => Cow::Borrowed(fixed.as_str()),
            (MaskWith::Hash, _) => value::hash(&mut stream, self.digits()).into(),
            (MaskWith::Shape, _) => value::shape(&text, &mut stream).into(),
            (MaskWith::Regex { replace, .. }, _) => {
                let new = self.regex.as_ref()?.replace_all(&text, replace.as_str());
                // What was not changed the column held.
                if matches!(new, Cow::Owned(_)) && !self.holds(&new) {
                    return None;
                }
                new
            }
            _ => return None,
        };
        // What the server would make of it anyway is no difference when it is read back.
        Some(match self.data_type.as_str() {
            "binary" => {
                let (mut bytes, _) = self.put(&new);
                bytes.resize(self.most.bytes, 0);
                bytes
            }
            "char" => {
                let short = new.chars().take(self.most.characters).collect::<String>();
                self.put(short.trim_end_matches(' ')).0
            }
            _ => self.put(&new).0,
        })
    }

    fn integer(&self, key: &hmac::Key, kind: Kind, value: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = [0; 8];
        bytes.get_mut(..value.len())?.copy_from_slice(value);
        let unsigned = u64::from_le_bytes(bytes);
        let bits = 8 * value.len() as u32;
        let signed = matches!(kind, Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64);
        let max = match (self.data_type.as_str(), signed) {
            ("mediumint", true) => (1 << 23) - 1,
            ("mediumint", false) => (1 << 24) - 1,
            (_, true) => (1u64 << (bits - 1)) - 1,
            (_, false) => u64::MAX >> (64 - bits),
        };
        let original = if signed {
            let shift = 64 - bits;
            i128::from((unsigned << shift).cast_signed() >> shift)
        } else {
            i128::from(unsigned)
        };
        // The same for the same number, whatever the type of its column.
        let text = original.to_string();
        let mut stream = Stream::new(key, text.as_bytes());
        let new = match (&self.with, &self.fixed) {
            (_, Some(Fixed::Integer(fixed))) => *fixed,
            (MaskWith::Hash, _) => i128::from(stream.below(max)),
            (MaskWith::Shape, _) => {
                let magnitude = u64::try_from(original.unsigned_abs()).ok()?.min(max);
                i128::from(stream.like(magnitude, max)) * if original < 0 { -1 } else { 1 }
            }
            _ => return None,
        };
        let low = if signed { -i128::from(max) - 1 } else { 0 };
        if new < low || new > i128::from(max) {
            return None;
        }
        Some(new.to_le_bytes()[..value.len()].to_vec())
    }

    fn float(&self, key: &hmac::Key, kind: Kind, value: &[u8]) -> Option<Vec<u8>> {
        let original = match kind {
            Kind::F32 => f64::from(f32::from_le_bytes(value.try_into().ok()?)),
            _ => f64::from_le_bytes(value.try_into().ok()?),
        };
        let new = match &self.fixed {
            Some(Fixed::Number(fixed)) => *fixed,
            Some(_) => return None,
            None if self.with == MaskWith::Hash => {
                // Whole numbers that either type holds as they are, and prints with all of their digits; 0 is -0.
                let (most, seed) = (if kind == Kind::F32 { 6 } else { 15 }, original + 0.0);
                let seed = seed.to_le_bytes();
                let mut stream = Stream::new(key, &seed);
                match self.digits {
                    Some(digits) => digits.number(most, |limit| stream.below(limit)),
                    None => stream.below(10_u64.pow(most.unsigned_abs())) as f64,
                }
            }
            // Of the same order of magnitude.
            None => {
                let part = 0.1 + Stream::new(key, value).below(900_000) as f64 / 1_000_000.0;
                self.digits.map_or(original * part, |digits| digits.round(original * part))
            }
        };
        Some(match kind {
            Kind::F32 => (new as f32).to_le_bytes().to_vec(),
            _ => new.to_le_bytes().to_vec(),
        })
    }

    fn date(&self, key: &hmac::Key, kind: Kind, value: &[u8]) -> Option<Vec<u8>> {
        let parts = match &self.fixed {
            Some(Fixed::Date(parts)) => *parts,
            Some(_) => return None,
            None if self.with == MaskWith::Hash => {
                let mut stream = Stream::new(key, value);
                let mut part = |first: u16, count| first + stream.below(count) as u16;
                let year = match self.data_type.as_str() {
                    // What those of 32 bits hold, in every time zone.
                    "timestamp" => part(1971, 67),
                    _ => part(1000, 9000),
                };
                let date = [year, part(1, 12), part(1, 28)];
                // A midnight would be seen.
                let time = match kind {
                    Kind::Date => [0; 3],
                    _ => [part(0, 24), part(0, 60), part(0, 60)],
                };
                [date[0], date[1], date[2], time[0], time[1], time[2]]
            }
            // For `shape` the zero date is no secret.
            None if value.is_empty() => return Some(Vec::new()),
            None => {
                let year = u16::from_le_bytes([*value.first()?, *value.get(1)?]);
                let mut stream = Stream::new(key, value);
                let mut part = |first: u16, count| first + stream.below(count) as u16;
                // The first and the last days of a TIMESTAMP of 32 bits, and of one of 64, end within their years.
                let date = match (self.data_type.as_str(), year) {
                    ("timestamp", 1970) => [year, part(1, 12), part(2, 27)],
                    ("timestamp", 2038 | 2106) => [year, 1, part(1, 18)],
                    _ => [year, part(1, 12), part(1, 28)],
                };
                let time =
                    if value.len() > 4 { [part(0, 24), part(0, 60), part(0, 60)] } else { [0; 3] };
                [date[0], date[1], date[2], time[0], time[1], time[2]]
            }
        };
        let [year, rest @ ..] = parts;
        let mut new = year.to_le_bytes().to_vec();
        new.extend(rest.iter().map(|&p| p as u8));
        // Without a time, where there is none: the shortest form is the only one.
        if kind == Kind::Date || parts[3..] == [0; 3] {
            new.truncate(4);
        }
        if parts[..3] == [0; 3] && new.len() == 4 {
            new.clear();
        }
        Some(new)
    }
}

/// A decimal number as its column holds it, of whatever size.
fn any_decimal(
    (precision, scale): (usize, usize),
    zerofill: bool,
    stream: &mut Stream<'_>,
) -> String {
    let digits: String =
        (0..precision).map(|_| char::from(b'0' + stream.below(10) as u8)).collect();
    let (whole, fraction) = digits.split_at(precision.saturating_sub(scale));
    let whole = match whole.trim_start_matches('0') {
        _ if zerofill && !whole.is_empty() => whole,
        "" => "0",
        short => short,
    };
    match fraction {
        "" => whole.to_owned(),
        _ => format!("{whole}.{fraction}"),
    }
}

/// A decimal number with as many digits before and after the point; the sign stays.
fn decimal(text: &str, stream: &mut Stream<'_>) -> String {
    let mut leading = true;
    text.chars()
        .map(|c| match c {
            '0' if leading => '0',
            '1'..='9' => {
                // Not a zero in front, lest a digit go.
                let digit = if leading { 1 + stream.below(9) } else { stream.below(10) };
                leading = false;
                char::from(b'0' + digit as u8)
            }
            '0' => char::from(b'0' + stream.below(10) as u8),
            '.' => {
                leading = false;
                '.'
            }
            c => c,
        })
        .collect()
}

/// How long a value can be; what is not limited in one has no limit there.
#[derive(Debug, Clone, Copy)]
struct Most {
    characters: usize,
    bytes: usize,
}

impl Most {
    fn of(column_type: &str, data_type: &str) -> Self {
        let given = || {
            let digits = column_type.split(['(', ')']).nth(1);
            digits.and_then(|d| d.parse().ok()).unwrap_or(1)
        };
        let no_limit = Most { characters: usize::MAX, bytes: usize::MAX };
        match data_type {
            "char" | "varchar" => Most { characters: given(), ..no_limit },
            "binary" | "varbinary" => Most { bytes: given(), ..no_limit },
            "tinytext" | "tinyblob" => Most { bytes: (1 << 8) - 1, ..no_limit },
            "text" | "blob" => Most { bytes: (1 << 16) - 1, ..no_limit },
            "mediumtext" | "mediumblob" => Most { bytes: (1 << 24) - 1, ..no_limit },
            _ => no_limit,
        }
    }

    /// How many ASCII digits there is room for at least: some character sets give them four bytes.
    fn digits(self) -> usize {
        self.characters.min(match self.bytes {
            wide if wide >= 1 << 8 => wide / 4,
            bytes => bytes,
        })
    }
}

/// Whether a column of a definition takes no NULL.
fn not_null(create: &str, column: &str) -> bool {
    let name = super::super::select::quote_name(column);
    let line = create.lines().find(|line| line.trim_start().starts_with(&name));
    line.is_some_and(|line| line.contains(" NOT NULL"))
}
