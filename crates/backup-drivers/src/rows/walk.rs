//! Walks over the values of a block, row by row.

use backup_core::Result;

use super::Kind;
use super::block::{Block, Column, Entries, Values};
use super::integers::Integers;

/// What is done with each row and value.
pub(super) trait Visitor {
    /// A row begins.
    fn begin(&mut self);
    /// A NULL.
    fn null(&mut self, column: usize);
    /// A number, a temporal value (packed) or the bits of a float.
    fn integer(&mut self, column: usize, kind: Kind, value: u64) -> Result<()>;
    /// A string, or a temporal value as it was sent.
    fn bytes(&mut self, column: usize, kind: Kind, value: &[u8]) -> Result<()>;
    /// A decimal number.
    fn decimal(&mut self, column: usize, value: i64, scale: u8);
    /// The row is complete.
    fn end(&mut self) -> Result<()>;
}

/// Shows every row of `block` to `visitor`.
pub(super) fn walk(block: &Block, visitor: &mut impl Visitor) -> Result<()> {
    let mut cursors =
        block.columns.iter().map(|c| Cursor::new(block, c)).collect::<Result<Vec<_>>>()?;
    for row in 0..block.rows() as usize {
        visitor.begin();
        for (index, cursor) in cursors.iter_mut().enumerate() {
            cursor.visit(row, index, visitor)?;
        }
        visitor.end()?;
    }
    Ok(())
}

/// A place in a column.
struct Cursor<'a> {
    kind: Kind,
    nulls: Option<&'a [u8]>,
    integers: Integers<'a>,
    form: Form<'a>,
    /// Some integers, how many they are at most, and how many of them were shown.
    batch: Vec<u64>,
    batch_size: usize,
    shown: usize,
}

enum Form<'a> {
    Integers,
    /// What was not shown yet.
    Bytes(&'a [u8]),
    Decimal(u8),
    Dictionary(Vec<&'a [u8]>),
}

impl<'a> Cursor<'a> {
    fn new(block: &'a Block, column: &Column) -> Result<Self> {
        let (integers, _) = Integers::parse(block.column_bytes(&column.integers), column.count)?;
        Ok(Cursor {
            kind: column.kind,
            nulls: column.nulls.as_ref().map(|range| block.column_bytes(range)),
            integers,
            form: match &column.values {
                Values::Integers => Form::Integers,
                Values::Bytes(range) => Form::Bytes(block.column_bytes(range)),
                Values::Decimal(scale) => Form::Decimal(*scale),
                Values::Dictionary(entries) => Form::Dictionary(dictionary(block, entries)?),
            },
            batch: Vec::new(),
            // The batches of all columns together stay in the cache.
            batch_size: (32_768 / block.columns.len()).min(1024),
            shown: 0,
        })
    }

    #[inline]
    fn visit(&mut self, row: usize, index: usize, visitor: &mut impl Visitor) -> Result<()> {
        if let Some(nulls) = self.nulls
            && nulls[row / 8] >> (row % 8) & 1 == 1
        {
            visitor.null(index);
            return Ok(());
        }
        if self.shown == self.batch.len() {
            self.integers.take(self.batch_size, &mut self.batch);
            self.shown = 0;
        }
        let value = self.batch[self.shown];
        self.shown += 1;
        match &mut self.form {
            Form::Integers => visitor.integer(index, self.kind, value),
            Form::Bytes(data) => {
                // The block's check found that the lengths add up.
                let (value, rest) = data.split_at(value as usize);
                *data = rest;
                visitor.bytes(index, self.kind, value)
            }
            Form::Dictionary(entries) => visitor.bytes(index, self.kind, entries[value as usize]),
            Form::Decimal(scale) => {
                visitor.decimal(index, value.cast_signed(), *scale);
                Ok(())
            }
        }
    }
}

/// The entries of a dictionary.
fn dictionary<'a>(block: &'a Block, entries: &Entries) -> Result<Vec<&'a [u8]>> {
    let mut data = block.column_bytes(&entries.data);
    let lengths = entries.lengths(&block.bytes)?;
    let split = lengths.iter().map(|length| {
        // The block's check found that the lengths add up.
        let (entry, rest) = data.split_at(*length as usize);
        data = rest;
        entry
    });
    Ok(split.collect())
}
