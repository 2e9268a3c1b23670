//! The order of keys inside a table, as far as bytes tell it.

use std::cmp::Ordering;

use super::super::catalog::{Chunk, Column, LoadMode, Table};
use crate::rows::Kind;

/// The keys of a table, row by row. Rows were read in the order of the key.
pub(super) struct Keys {
    /// Of each column of the key, its place among the values and how it is compared.
    columns: Vec<(usize, Compare)>,
    /// Whether a key may come twice: versions of a row.
    repeats: bool,
    last: Option<Vec<Vec<u8>>>,
    from: Option<i128>,
    to: Option<i128>,
}

/// How two values of a column are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    /// As what they are: numbers, times, bytes.
    Value,
    /// Only whether they are equal: the order is that of a collation, which servers alone know.
    Equal,
}

impl Keys {
    pub(super) fn of(table: &Table) -> Self {
        let masked = table.key.iter().any(|key| table.masked.contains(key));
        let place = |key: &String| {
            let at = table.columns.iter().position(|c| c.name == *key)?;
            Some((at, compare(&table.columns[at])))
        };
        let columns: Option<Vec<_>> = table.key.iter().map(place).collect();
        // A key of generated columns is not among the values, and a masked one is in no order.
        let columns = columns.filter(|_| !masked).unwrap_or_default();
        Keys { columns, repeats: table.history, last: None, from: None, to: None }
    }

    /// Whether there is anything to be compared.
    pub(super) fn wanted(&self) -> bool {
        !self.columns.is_empty()
    }

    /// A chunk begins.
    pub(super) fn begin(&mut self, chunk: &Chunk) {
        let number = |bound: &Option<String>| bound.as_ref().and_then(|b| b.parse().ok());
        self.from = number(&chunk.from);
        self.to = number(&chunk.to);
    }

    /// The next row. Gives what is wrong with its key.
    pub(super) fn next(&mut self, values: &[Option<&[u8]>], kinds: &[Kind]) -> Option<String> {
        let key: Vec<Vec<u8>> =
            self.columns.iter().map(|(at, _)| values[*at].unwrap_or_default().to_vec()).collect();
        let mut problem = None;
        let outside = |key: &i128| {
            self.from.is_some_and(|from| *key < from) || self.to.is_some_and(|to| *key >= to)
        };
        if let Some(first) = integer(&key[0], kinds[self.columns[0].0]).filter(outside) {
            problem = Some(format!("the key {first} is outside of the range of its chunk"));
        }
        if let Some(last) = &self.last {
            match self.compare(last, &key, kinds) {
                Some(Ordering::Greater) => {
                    problem = Some("its keys are not in order".to_owned());
                }
                Some(Ordering::Equal) if !self.repeats => {
                    problem = Some("a key is there twice".to_owned());
                }
                _ => {}
            }
        }
        self.last = Some(key);
        problem
    }

    /// `None` where only a server could tell.
    fn compare(&self, a: &[Vec<u8>], b: &[Vec<u8>], kinds: &[Kind]) -> Option<Ordering> {
        for (n, (at, how)) in self.columns.iter().enumerate() {
            if a[n] == b[n] {
                continue;
            }
            return match how {
                Compare::Equal => None,
                Compare::Value => Some(order(&a[n], &b[n], kinds[*at])),
            };
        }
        Some(Ordering::Equal)
    }
}

fn compare(column: &Column) -> Compare {
    if column.load != LoadMode::Direct {
        return Compare::Equal;
    }
    match column.data_type.as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "year" | "date" | "datetime"
        | "timestamp" | "time" | "binary" | "varbinary" | "bit" | "tinyblob" | "blob"
        | "mediumblob" | "longblob" => Compare::Value,
        _ => Compare::Equal,
    }
}

/// The number of an integer column.
fn integer(value: &[u8], kind: Kind) -> Option<i128> {
    Some(match kind {
        Kind::I8 => i8::from_le_bytes(value.try_into().ok()?).into(),
        Kind::U8 => u8::from_le_bytes(value.try_into().ok()?).into(),
        Kind::I16 => i16::from_le_bytes(value.try_into().ok()?).into(),
        Kind::U16 | Kind::Year => u16::from_le_bytes(value.try_into().ok()?).into(),
        Kind::I32 => i32::from_le_bytes(value.try_into().ok()?).into(),
        Kind::U32 => u32::from_le_bytes(value.try_into().ok()?).into(),
        Kind::I64 => i64::from_le_bytes(value.try_into().ok()?).into(),
        Kind::U64 => u64::from_le_bytes(value.try_into().ok()?).into(),
        _ => return None,
    })
}

fn order(a: &[u8], b: &[u8], kind: Kind) -> Ordering {
    match kind {
        Kind::Date | Kind::DateTime => moment(a).cmp(&moment(b)),
        Kind::Time => span(a).cmp(&span(b)),
        Kind::Bytes => a.cmp(b),
        _ => integer(a, kind).cmp(&integer(b, kind)),
    }
}

/// A date and time as one number that grows with it; what the protocol leaves out is 0.
fn moment(value: &[u8]) -> u128 {
    let at = |n: usize| u128::from(value.get(n).copied().unwrap_or(0));
    let year = at(0) | at(1) << 8;
    let micros = at(7) | at(8) << 8 | at(9) << 16 | at(10) << 24;
    [at(2), at(3), at(4), at(5), at(6)].into_iter().fold(year, |sum, part| sum << 8 | part) << 32
        | micros
}

/// A TIME in microseconds.
fn span(value: &[u8]) -> i128 {
    let at = |n: usize| i128::from(value.get(n).copied().unwrap_or(0));
    let days = at(1) | at(2) << 8 | at(3) << 16 | at(4) << 24;
    let micros = at(8) | at(9) << 8 | at(10) << 16 | at(11) << 24;
    let all = (((days * 24 + at(5)) * 60 + at(6)) * 60 + at(7)) * 1_000_000 + micros;
    if at(0) == 0 { all } else { -all }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_compared_as_what_they_are() {
        let less = |a: &[u8], b: &[u8], kind| assert_eq!(order(a, b, kind), Ordering::Less);
        less(&(-1_i32).to_le_bytes(), &1_i32.to_le_bytes(), Kind::I32);
        less(&255_u64.to_le_bytes(), &256_u64.to_le_bytes(), Kind::U64);
        less(b"", b"\xe8\x07\x01\x01", Kind::Date);
        less(b"\xe8\x07\x01\x01", b"\xe8\x07\x01\x01\0\0\x01", Kind::DateTime);
        less(b"\x01\0\0\0\0\x02\0\0", b"\x01\0\0\0\0\x01\0\0", Kind::Time);
        less(b"a", b"a\0", Kind::Bytes);
    }
}
