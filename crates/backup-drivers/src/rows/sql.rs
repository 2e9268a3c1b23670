//! Rows as lists of SQL literals.

use backup_core::{Error, Result};

use super::block::Block;
use super::document::DocumentTypes;
use super::text::{TextFormat, append_text};
use super::walk::{Visitor, walk};
use super::{Kind, decimal};

/// How the values of a column are written as literals that mean the same value to the bit, read under
/// `SET NAMES utf8mb4` and an `sql_mode` without `NO_BACKSLASH_ESCAPES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SqlForm {
    /// Digits: integers, decimal numbers.
    Number,
    /// A DOUBLE literal, which always has an exponent: without one it would be a decimal number, which
    /// has limits of its own.
    Float,
    /// A string of ASCII characters: dates and times, with so many digits of the fraction of seconds.
    Time(u8),
    /// A string, of a column in UTF-8. What is no UTF-8 becomes hexadecimal.
    Utf8,
    /// A string, of a column in `latin1` (Windows-1252 to both servers), converted to UTF-8.
    Latin1,
    /// A string where it is ASCII, and hexadecimal where not: text of other character sets.
    Ascii,
    /// Hexadecimal: bytes.
    Hex,
    /// A JSON document of MySQL, as a string; what is no more than text in it is put in by `JSON_SET`.
    Document(DocumentTypes),
}

impl Block {
    /// Gives each row to `row` as `(1,'a',NULL)`. `forms` has one entry per column.
    ///
    /// # Errors
    /// As [`write_tsv`](Block::write_tsv), and what `row` fails with.
    pub fn each_sql_row(
        &self,
        forms: &[SqlForm],
        row: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        if forms.len() != self.columns.len() {
            return Err(Error::internal(format!(
                "{} forms were given for {} columns",
                forms.len(),
                self.columns.len()
            )));
        }
        walk(self, &mut Literals { forms, text: Vec::new(), line: Vec::new(), row })
    }
}

struct Literals<'a> {
    forms: &'a [SqlForm],
    /// A value before it is quoted.
    text: Vec<u8>,
    line: Vec<u8>,
    row: &'a mut dyn FnMut(&[u8]) -> Result<()>,
}

impl Literals<'_> {
    /// Writes the value in `self.text`.
    fn put(&mut self, column: usize) {
        put_literal(self.forms[column], &self.text, &mut self.line);
        self.line.push(b',');
    }
}

impl Visitor for Literals<'_> {
    fn begin(&mut self) {
        self.line.clear();
        self.line.push(b'(');
    }

    fn null(&mut self, _: usize) {
        self.line.extend_from_slice(b"NULL,");
    }

    fn integer(&mut self, column: usize, kind: Kind, value: u64) -> Result<()> {
        self.text.clear();
        let decimals = match self.forms[column] {
            SqlForm::Time(decimals) => decimals,
            _ => 0,
        };
        super::text::append_integer(kind, value, TextFormat { decimals }, &mut self.text)?;
        self.put(column);
        Ok(())
    }

    fn bytes(&mut self, column: usize, kind: Kind, value: &[u8]) -> Result<()> {
        if kind == Kind::Bytes {
            put_literal(self.forms[column], value, &mut self.line);
            self.line.push(b',');
            return Ok(());
        }
        self.text.clear();
        let decimals = match self.forms[column] {
            SqlForm::Time(decimals) => decimals,
            _ => 0,
        };
        append_text(kind, value, TextFormat { decimals }, &mut self.text)?;
        self.put(column);
        Ok(())
    }

    fn decimal(&mut self, column: usize, value: i64, scale: u8) {
        self.text.clear();
        decimal::append(value, scale, &mut self.text);
        self.put(column);
    }

    fn end(&mut self) -> Result<()> {
        if let Some(last) = self.line.last_mut().filter(|last| **last == b',') {
            *last = b')';
        }
        (self.row)(&self.line)
    }
}

/// Appends `text`, the value as [`append_text`] prints it, as a literal.
pub fn put_literal(form: SqlForm, text: &[u8], out: &mut Vec<u8>) {
    match form {
        SqlForm::Number => out.extend_from_slice(text),
        // The minus of a literal is an operator, and there is no negative zero to apply it to.
        SqlForm::Float if text == b"-0" => out.extend_from_slice(b"'-0'"),
        SqlForm::Float => {
            out.extend_from_slice(text);
            if !text.contains(&b'e') {
                out.extend_from_slice(b"e0");
            }
        }
        SqlForm::Time(_) => quote(text, out),
        SqlForm::Utf8 if std::str::from_utf8(text).is_ok() => quote(text, out),
        SqlForm::Latin1 | SqlForm::Ascii if text.is_ascii() => quote(text, out),
        SqlForm::Latin1 => {
            let text: String = text.iter().map(|byte| windows_1252(*byte)).collect();
            quote(text.as_bytes(), out);
        }
        SqlForm::Document(types) => put_document(types, text, out),
        SqlForm::Utf8 | SqlForm::Ascii | SqlForm::Hex => hex(text, out),
    }
}

fn put_document(types: DocumentTypes, text: &[u8], out: &mut Vec<u8>) {
    let values = types.values(text);
    if values.is_empty() {
        return put_literal(SqlForm::Utf8, text, out);
    }
    out.extend_from_slice(b"JSON_SET(");
    quote(text, out);
    for (path, sql) in values {
        out.push(b',');
        quote(path.as_bytes(), out);
        out.push(b',');
        out.extend_from_slice(sql.as_bytes());
    }
    out.push(b')');
}

fn quote(text: &[u8], out: &mut Vec<u8>) {
    out.reserve(text.len() + 2);
    out.push(b'\'');
    let mut rest = text;
    // Mostly there is nothing to be escaped.
    while let Some(at) =
        rest.iter().position(|byte| matches!(byte, 0 | b'\n' | b'\r' | b'\\' | b'\'' | 26))
    {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(match rest[at] {
            0 => b"\\0",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\\' => b"\\\\",
            b'\'' => b"\\'",
            _ => b"\\Z",
        });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'\'');
}

fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if bytes.is_empty() {
        return out.extend_from_slice(b"''");
    }
    out.reserve(2 * bytes.len() + 2);
    out.extend_from_slice(b"0x");
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// A character of Windows-1252; the five bytes that stand for none are control characters, as both
/// servers have it (`strings/ctype-latin1.c`).
fn windows_1252(byte: u8) -> char {
    const UPPER: [char; 32] = [
        '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž',
        '\u{8f}', '\u{90}', '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}',
        'ž', 'Ÿ',
    ];
    match byte {
        0x80..=0x9f => UPPER[usize::from(byte - 0x80)],
        other => char::from(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn literal(form: SqlForm, text: &[u8]) -> String {
        let mut out = Vec::new();
        put_literal(form, text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_are_written_as_what_they_are() {
        assert_eq!(literal(SqlForm::Number, b"-12.50"), "-12.50");
        assert_eq!(literal(SqlForm::Float, b"0.1"), "0.1e0");
        assert_eq!(literal(SqlForm::Float, b"5e-324"), "5e-324");
        assert_eq!(literal(SqlForm::Float, b"-0"), "'-0'");
        assert_eq!(literal(SqlForm::Time(0), b"0000-00-00"), "'0000-00-00'");
        assert_eq!(
            literal(SqlForm::Utf8, "it's\n\\ü\0\x1a\r".as_bytes()),
            "'it\\'s\\n\\\\ü\\0\\Z\\r'"
        );
        assert_eq!(literal(SqlForm::Utf8, b"a\xff"), "0x61FF");
        assert_eq!(literal(SqlForm::Latin1, b"\xfc\x80\x81"), "'ü€\u{81}'");
        assert_eq!(literal(SqlForm::Ascii, b"a"), "'a'");
        assert_eq!(literal(SqlForm::Ascii, b"\x81\x5c"), "0x815C");
        assert_eq!(literal(SqlForm::Hex, b""), "''");
        assert_eq!(literal(SqlForm::Hex, b"a\0"), "0x6100");
        assert_eq!(
            literal(SqlForm::Document(DocumentTypes::default()), br#"{"it's": 1.5}"#),
            r#"'{"it\'s": 1.5}'"#
        );
        assert_eq!(
            literal(
                SqlForm::Document(DocumentTypes::default()),
                br#"{"it's": 1.50, "a\"": [-2.00]}"#
            ),
            r#"JSON_SET('{"it\'s": 1.50, "a\\"": [-2.00]}','$."it\'s"',1.50,'$."a\\""[0]',-2.00)"#
        );
    }
}
