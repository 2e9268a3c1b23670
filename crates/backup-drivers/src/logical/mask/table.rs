//! The rules of one table, applied to its row packets.

use std::borrow::Cow;

use aws_lc_rs::{hmac, rand::SecureRandom, rand::SystemRandom};
use backup_core::{Error, Result};

use super::super::catalog::{Catalog, Column, LoadMode, Table};
use super::super::ddl::Parts;
use super::fixed::Fixed;
use super::rules::{Compiled, MaskRules, MaskWith};
use super::value::{self, Stream};
use crate::rows::{Kind, fields, put_fields};

/// All rules, and the secret.
#[derive(Debug)]
pub(in crate::logical) struct Masks {
    rules: Vec<Compiled>,
    key: hmac::Key,
}

impl Masks {
    /// `secret` makes the same of the same values in several backups; without one, each backup has
    /// a random secret of its own.
    pub(in crate::logical) fn new(rules: &MaskRules, secret: Option<&[u8]>) -> Result<Self> {
        let mut random = [0; 32];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| Error::internal("the system gives no random bytes"))?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.unwrap_or(&random));
        let rules = rules.mask.iter().map(Compiled::new).collect::<Result<_>>()?;
        Ok(Masks { rules, key })
    }

    /// Which of a table's columns are changed, and how. `None` where none is.
    pub(in crate::logical) fn table(&self, table: &Table) -> Result<Option<TableMask>> {
        let columns: Vec<Option<ColumnMask>> = table
            .columns
            .iter()
            .map(|column| {
                let fits =
                    |rule: &&Compiled| rule.matches(&table.database, &table.name, &column.name);
                let rule = self.rules.iter().find(fits);
                rule.map(|rule| ColumnMask::new(rule, table, column)).transpose()
            })
            .collect::<Result<_>>()?;
        let any = columns.iter().any(Option::is_some);
        Ok(any.then(|| TableMask { columns, key: self.key.clone() }))
    }

    /// Fails for a rule that fits nothing: a misspelt one would let values through. Takes what the
    /// definitions tell of values out of the catalogue.
    pub(in crate::logical) fn prepare(&self, catalog: &mut Catalog) -> Result<Vec<String>> {
        let mut warnings = Vec::new();
        for rule in &self.rules {
            let fits = catalog
                .tables
                .iter()
                .any(|t| t.columns.iter().any(|c| rule.matches(&t.database, &t.name, &c.name)));
            if !fits {
                return Err(Error::usage(format!(
                    "the rule for {} fits no column of this backup",
                    rule.text
                ))
                .with_remedy(
                    "correct the name, or take the rule out; generated columns follow the columns \
                     that they are made of",
                ));
            }
        }
        for table in &mut catalog.tables {
            let Some(mask) = self.table(table)? else { continue };
            for (column, _) in table.columns.iter().zip(&mask.columns).filter(|(_, m)| m.is_some())
            {
                table.masked.push(column.name.clone());
                table.histograms.remove(&column.name);
            }
            let keys = Parts::of(&table.create).unique_keys();
            let merging = table.columns.iter().zip(&mask.columns).filter(|(column, mask)| {
                let merges = mask.as_ref().is_some_and(ColumnMask::merges);
                merges && keys.iter().any(|key| key.contains(&column.name))
            });
            warnings.extend(merging.map(|(column, _)| {
                format!(
                    "{}.{} is masked and part of a primary or unique key: a restore fails where two values become one",
                    table.full_name(),
                    column.name
                )
            }));
        }
        Ok(warnings)
    }

    /// The unique keys of a table of which one fixed value is all that would be left, by their columns: with a second
    /// row no server takes the backup back.
    pub(in crate::logical) fn fixed_keys(&self, table: &Table) -> Result<Vec<Vec<String>>> {
        let Some(mask) = self.table(table)? else { return Ok(Vec::new()) };
        let fixed = |name: &String| {
            let mut columns = table.columns.iter().zip(&mask.columns);
            columns.any(|(column, mask)| {
                column.name == *name && mask.as_ref().is_some_and(|mask| mask.fixed.is_some())
            })
        };
        let keys = Parts::of(&table.create).unique_keys().into_iter();
        Ok(keys.filter(|key| !key.is_empty() && key.iter().all(fixed)).collect())
    }
}

/// What is done with a column.
#[derive(Debug)]
struct ColumnMask {
    with: MaskWith,
    regex: Option<regex::Regex>,
    name: String,
    data_type: String,
    charset: Option<String>,
    /// Most characters of a text.
    length: usize,
    fixed: Option<Fixed>,
}

const TEXTS: [&str; 6] = ["char", "varchar", "tinytext", "text", "mediumtext", "longtext"];
const BYTES: [&str; 6] = ["binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"];
pub(super) const INTEGERS: [&str; 5] = ["tinyint", "smallint", "mediumint", "int", "bigint"];

impl ColumnMask {
    fn new(rule: &Compiled, table: &Table, column: &Column) -> Result<Self> {
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
            charset: column.charset.clone(),
            length: length(&column.column_type, data_type),
            fixed,
        };
        match &mask.fixed {
            Some(Fixed::Text(text)) if !mask.holds(text) => {
                refuse("the text is too long for it, or none of its character set")
            }
            _ => Ok(mask),
        }
    }

    /// Whether it may make one value of two. NULL is no value, and enough digits are never the same.
    fn merges(&self) -> bool {
        const ENOUGH: usize = 16;
        let digits = TEXTS.contains(&self.data_type.as_str())
            || BYTES.contains(&self.data_type.as_str())
            || self.data_type == "uuid";
        match self.with {
            MaskWith::Null => false,
            MaskWith::Hash => !digits || self.length < ENOUGH,
            MaskWith::Fixed(_) | MaskWith::Shape | MaskWith::Regex { .. } => true,
        }
    }

    /// Whether the column holds a text as it is, neither cut nor in other characters.
    fn holds(&self, text: &str) -> bool {
        match self.data_type.as_str() {
            bytes if BYTES.contains(&bytes) => text.len() <= self.length,
            characters if TEXTS.contains(&characters) => {
                let charset = self.charset.as_deref().unwrap_or("utf8mb4");
                text.chars().count() <= self.length
                    && value::decode(&value::encode(text, charset), charset) == text
            }
            _ => true,
        }
    }

    fn apply<'a>(
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
        let charset = self.charset.as_deref().unwrap_or("utf8mb4");
        let mut stream = Stream::new(key, value);
        if self.data_type == "decimal" || self.data_type == "year" {
            let text = std::str::from_utf8(value).ok()?;
            return Some(match &self.fixed {
                Some(Fixed::Text(fixed)) => fixed.clone().into_bytes(),
                Some(_) => return None,
                None => decimal(text, &mut stream).into_bytes(),
            });
        }
        if self.data_type == "uuid" && self.fixed.is_none() {
            let digits = value::hash(&mut stream, 32);
            let parts =
                [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
            return Some(parts.join("-").into_bytes());
        }
        let text = match (&self.with, &self.fixed) {
            (_, Some(Fixed::Text(fixed))) => fixed.clone(),
            (MaskWith::Hash, _) => value::hash(&mut stream, self.length),
            (MaskWith::Shape, _) => value::shape(&value::decode(value, charset), &mut stream),
            (MaskWith::Regex { replace, .. }, _) => {
                let text = value::decode(value, charset);
                let new = self.regex.as_ref()?.replace_all(&text, replace.as_str());
                // What was not changed the column held.
                if matches!(new, Cow::Owned(_)) && !self.holds(&new) {
                    return None;
                }
                new.into_owned()
            }
            _ => return None,
        };
        let short: String = text.chars().take(self.length).collect();
        // What the server would make of it anyway is no difference when it is read back.
        Some(match self.data_type.as_str() {
            "binary" => {
                let mut bytes: Vec<u8> = short.into_bytes();
                bytes.resize(self.length, 0);
                bytes
            }
            "char" => value::encode(short.trim_end_matches(' '), charset),
            // Blobs have no character set.
            bytes if BYTES.contains(&bytes) => short.into_bytes(),
            _ => value::encode(&short, charset),
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
            // Of the same order of magnitude.
            None => original * (0.1 + Stream::new(key, value).below(900_000) as f64 / 1_000_000.0),
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
            // The zero date is no secret.
            None if value.is_empty() => return Some(Vec::new()),
            None => {
                let year = u16::from_le_bytes([*value.first()?, *value.get(1)?]);
                let mut stream = Stream::new(key, value);
                let mut part = |first: u16, count| first + stream.below(count) as u16;
                let date = [year, part(1, 12), part(1, 28)];
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

/// Most characters of a value: the number in `varchar(20)`; as many as anybody wants for the others.
fn length(column_type: &str, data_type: &str) -> usize {
    match data_type {
        "char" | "varchar" | "binary" | "varbinary" => {
            let digits = column_type.split(['(', ')']).nth(1);
            digits.and_then(|d| d.parse().ok()).unwrap_or(1)
        }
        // In characters of four bytes.
        "tinytext" | "tinyblob" => 63,
        "text" | "blob" => 16_383,
        "mediumtext" | "mediumblob" => 4_194_303,
        _ => usize::MAX,
    }
}

/// Whether a column of a definition takes no NULL.
fn not_null(create: &str, column: &str) -> bool {
    let name = super::super::select::quote_name(column);
    let line = create.lines().find(|line| line.trim_start().starts_with(&name));
    line.is_some_and(|line| line.contains(" NOT NULL"))
}

/// The masks of a table's columns.
#[derive(Debug)]
pub(in crate::logical) struct TableMask {
    columns: Vec<Option<ColumnMask>>,
    key: hmac::Key,
}

impl TableMask {
    /// Whether ranges of the table's key would tell values that are masked.
    pub(in crate::logical) fn hides_key(&self, table: &Table) -> bool {
        let mut masked = table.columns.iter().zip(&self.columns).filter(|(_, mask)| mask.is_some());
        masked.any(|(column, _)| table.key.contains(&column.name))
    }

    /// Puts the masked row of `packet` into `out`.
    pub(in crate::logical) fn apply(
        &self,
        packet: &[u8],
        kinds: &[Kind],
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let values = fields(packet, kinds)?;
        let mut masked: Vec<Option<Cow<'_, [u8]>>> = Vec::with_capacity(values.len());
        for ((value, kind), mask) in values.iter().zip(kinds).zip(&self.columns) {
            masked.push(match (value, mask) {
                (Some(value), Some(mask)) => mask.apply(&self.key, *kind, value)?,
                (value, _) => value.map(Cow::Borrowed),
            });
        }
        let masked: Vec<Option<&[u8]>> = masked.iter().map(|v| v.as_deref()).collect();
        put_fields(out, &masked, kinds);
        Ok(())
    }
}
