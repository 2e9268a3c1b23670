//! Rows as comma-separated values.

use backup_core::{Error, Result};

use super::block::Block;
use super::text::{TextFormat, append_integer, append_text};
use super::walk::{Visitor, walk};
use super::{Kind, decimal};

/// How the values of a column stand in comma-separated lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CsvFormat {
    /// As in [`TextFormat`].
    pub decimals: u8,
    /// Whether values are numbers, which need no quotes.
    pub plain: bool,
}

impl Block {
    /// Appends the rows as `LOAD DATA … CHARACTER SET binary FIELDS TERMINATED BY ',' ENCLOSED BY '"'
    /// ESCAPED BY '' LINES TERMINATED BY '\n'` reads them: values in quotes, a quote in them twice,
    /// everything else as it is; NULL is the word without quotes.
    ///
    /// # Errors
    /// As [`write_tsv`](Block::write_tsv).
    pub fn write_csv(&self, out: &mut Vec<u8>, formats: &[CsvFormat]) -> Result<()> {
        if formats.len() != self.columns.len() {
            return Err(Error::internal(format!(
                "{} formats were given for {} columns",
                formats.len(),
                self.columns.len()
            )));
        }
        walk(self, &mut Csv { out, formats, text: Vec::new() })
    }
}

struct Csv<'a> {
    out: &'a mut Vec<u8>,
    formats: &'a [CsvFormat],
    text: Vec<u8>,
}

impl Csv<'_> {
    fn put(&mut self, column: usize) {
        put_field(&self.text, self.formats[column].plain, self.out);
        self.out.push(b',');
    }

    fn format(&self, column: usize) -> TextFormat {
        TextFormat { decimals: self.formats[column].decimals }
    }
}

impl Visitor for Csv<'_> {
    fn begin(&mut self) {}

    fn null(&mut self, _: usize) {
        self.out.extend_from_slice(b"NULL,");
    }

    fn integer(&mut self, column: usize, kind: Kind, value: u64) -> Result<()> {
        self.text.clear();
        append_integer(kind, value, self.format(column), &mut self.text)?;
        self.put(column);
        Ok(())
    }

    fn bytes(&mut self, column: usize, kind: Kind, value: &[u8]) -> Result<()> {
        self.text.clear();
        append_text(kind, value, self.format(column), &mut self.text)?;
        self.put(column);
        Ok(())
    }

    fn decimal(&mut self, column: usize, value: i64, scale: u8) {
        self.text.clear();
        decimal::append(value, scale, &mut self.text);
        self.put(column);
    }

    fn end(&mut self) -> Result<()> {
        if let Some(last) = self.out.last_mut() {
            *last = b'\n';
        }
        Ok(())
    }
}

/// Appends one field.
pub fn put_field(text: &[u8], plain: bool, out: &mut Vec<u8>) {
    if plain {
        return out.extend_from_slice(text);
    }
    out.push(b'"');
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'"', rest) {
        out.extend_from_slice(&rest[..=at]);
        out.push(b'"');
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::BlockEncoder;

    #[test]
    fn fields_are_quoted_and_null_is_not() {
        let mut encoder =
            BlockEncoder::new(&[Kind::U8, Kind::Bytes], BlockEncoder::DEFAULT_TARGET).unwrap();
        encoder.push(b"\0\0\x07\x06a\",\n\\b").unwrap();
        encoder.push(b"\0\x08\x08").unwrap();
        let block = Block::parse(encoder.finish().bytes).unwrap();
        let formats = [CsvFormat { plain: true, ..CsvFormat::default() }, CsvFormat::default()];
        let mut out = Vec::new();
        block.write_csv(&mut out, &formats).unwrap();
        assert_eq!(out, b"7,\"a\"\",\n\\b\"\n8,NULL\n");
    }
}
