//! JSON documents of MySQL, which hold decimal numbers that a server makes doubles of when it reads them
//! from text.
//!
//! A number's text mostly tells which of both it is: a server prints a DOUBLE with the fewest digits that
//! mean it, so that `1.50`, or anything with more than 17 digits, can only be a DECIMAL. Such a number is
//! put in as a literal of SQL, which is a DECIMAL with all of its digits.

use std::ops::Range;

use backup_core::Result;

use super::block::{Block, Entries, Values};
use super::walk::{Visitor, walk};
use super::{Kind, decimal};

/// As deep as a document may be (`JSON_DOCUMENT_MAX_DEPTH`), and some more.
const MAX_DEPTH: usize = 128;
/// The fewest digits that are too many for a BIGINT.
const MANY_DIGITS: usize = 19;

/// Whether `text`, a document or several in a row, may hold a decimal number. Quick, and not sure.
pub fn may_hold_decimals(text: &[u8]) -> bool {
    let mut digits = 0;
    text.iter().any(|byte| {
        digits = if byte.is_ascii_digit() { digits + 1 } else { 0 };
        *byte == b'.' || digits == MANY_DIGITS
    })
}

/// Whether a document holds a number that is no DOUBLE and no BIGINT by its text.
pub fn holds_decimals(document: &[u8]) -> bool {
    may_hold_decimals(document) && !decimals(document).is_empty()
}

impl Block {
    /// Whether a value of one of these columns, by number, is a document that [holds](holds_decimals) a
    /// decimal number.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) for a damaged block.
    pub fn holds_decimals(&self, columns: &[usize]) -> Result<bool> {
        let may =
            columns.iter().filter_map(|column| self.columns.get(*column)).any(
                |column| match &column.values {
                    Values::Bytes(data) | Values::Dictionary(Entries { data, .. }) => {
                        may_hold_decimals(self.column_bytes(data))
                    }
                    Values::Decimal(_) => true,
                    Values::Integers => false,
                },
            );
        let mut finder = Finder { columns, found: false, text: Vec::new() };
        if may {
            walk(self, &mut finder)?;
        }
        Ok(finder.found)
    }
}

struct Finder<'a> {
    columns: &'a [usize],
    found: bool,
    text: Vec<u8>,
}

impl Visitor for Finder<'_> {
    fn begin(&mut self) {}

    fn null(&mut self, _: usize) {}

    fn integer(&mut self, _: usize, _: Kind, _: u64) -> Result<()> {
        Ok(())
    }

    fn bytes(&mut self, column: usize, _: Kind, value: &[u8]) -> Result<()> {
        self.found = self.found || (self.columns.contains(&column) && holds_decimals(value));
        Ok(())
    }

    fn decimal(&mut self, column: usize, value: i64, scale: u8) {
        self.text.clear();
        decimal::append(value, scale, &mut self.text);
        self.found = self.found || (self.columns.contains(&column) && holds_decimals(&self.text));
    }

    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

/// The decimal numbers of a document: of each the path that `JSON_SET` takes, and the digits. Nothing for
/// what is no document.
pub(super) fn decimals(document: &[u8]) -> Vec<(String, &str)> {
    let Ok(text) = std::str::from_utf8(document) else { return Vec::new() };
    let mut scanner = Scanner { text, at: 0, path: "$".to_owned(), found: Vec::new() };
    let whole = scanner.value(0).is_some() && scanner.next().is_none();
    let found = std::mem::take(&mut scanner.found);
    match whole {
        true => found.into_iter().map(|(path, at)| (path, &text[at])).collect(),
        false => Vec::new(),
    }
}

/// Reads a document from its first byte to its last.
struct Scanner<'a> {
    text: &'a str,
    at: usize,
    /// That of the value which is read.
    path: String,
    found: Vec<(String, Range<usize>)>,
}

impl Scanner<'_> {
    /// The next byte that is no space; it is not taken.
    fn next(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn takes(&mut self, byte: u8) -> bool {
        let is = self.next() == Some(byte);
        self.at += usize::from(is);
        is
    }

    /// `None` where this is no value.
    fn value(&mut self, depth: usize) -> Option<()> {
        match self.next()? {
            b'{' => self.members(depth + 1),
            b'[' => self.cells(depth + 1),
            b'"' => self.string().map(drop),
            b'-' | b'0'..=b'9' => self.number(),
            _ => self.word(),
        }
    }

    fn members(&mut self, depth: usize) -> Option<()> {
        self.at += 1;
        if depth > MAX_DEPTH || self.takes(b'}') {
            return (depth <= MAX_DEPTH).then_some(());
        }
        let length = self.path.len();
        loop {
            self.next().filter(|byte| *byte == b'"')?;
            let name = self.string()?;
            self.path.push('.');
            // A path takes a name as a document has it.
            self.path.push_str(&self.text[name]);
            self.takes(b':').then_some(())?;
            self.value(depth)?;
            self.path.truncate(length);
            if !self.takes(b',') {
                return self.takes(b'}').then_some(());
            }
        }
    }

    fn cells(&mut self, depth: usize) -> Option<()> {
        self.at += 1;
        if depth > MAX_DEPTH || self.takes(b']') {
            return (depth <= MAX_DEPTH).then_some(());
        }
        let length = self.path.len();
        for number in 0_usize.. {
            self.path.push_str(&format!("[{number}]"));
            self.value(depth)?;
            self.path.truncate(length);
            if !self.takes(b',') {
                break;
            }
        }
        self.takes(b']').then_some(())
    }

    /// A string with its quotes.
    fn string(&mut self) -> Option<Range<usize>> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut at = start + 1;
        loop {
            at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
            if bytes[at] == b'"' {
                self.at = at + 1;
                return Some(start..self.at);
            }
            at += 2;
        }
    }

    fn number(&mut self) -> Option<()> {
        let start = self.at;
        let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
        self.at += self.text.as_bytes()[start..].iter().take_while(|byte| is_part(byte)).count();
        let number = &self.text[start..self.at];
        number.parse::<f64>().ok()?;
        if is_decimal(number) {
            self.found.push((self.path.clone(), start..self.at));
        }
        Some(())
    }

    /// `true`, `false`, `null`.
    fn word(&mut self) -> Option<()> {
        let rest = &self.text[self.at..];
        let word = ["true", "false", "null"].into_iter().find(|word| rest.starts_with(word))?;
        self.at += word.len();
        Some(())
    }
}

/// Whether a number is neither printed so by a server that has a DOUBLE, nor one that a BIGINT holds.
fn is_decimal(number: &str) -> bool {
    if number.contains(['e', 'E']) {
        return false;
    }
    if !number.contains('.') {
        return number.parse::<i64>().is_err() && number.parse::<u64>().is_err();
    }
    let Ok(double) = number.parse::<f64>() else { return false };
    // Beyond these a DOUBLE is printed with an exponent (`MAX_DECPT_FOR_F_FORMAT` of `my_gcvt`).
    if double != 0.0 && !(1e-15..1e15).contains(&double.abs()) {
        return true;
    }
    let mut printed = double.to_string();
    if !printed.contains('.') {
        printed.push_str(".0");
    }
    printed != number
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(document: &str) -> Vec<String> {
        decimals(document.as_bytes())
            .into_iter()
            .map(|(path, number)| format!("{path} {number}"))
            .collect()
    }

    #[test]
    fn a_decimal_is_known_by_its_digits() {
        for yes in [
            "1.50",
            "-0.10",
            "2.00",
            "0.00",
            "12345678901234567890.25",
            "18446744073709551616",
            "-9223372036854775809",
            "1000000000000000.5",
            "0.0000000000000001",
            "0.12345678901234567890",
        ] {
            assert_eq!(found(yes), [format!("$ {yes}")], "{yes}");
            assert!(holds_decimals(yes.as_bytes()), "{yes}");
        }
        for no in [
            "1.5",
            "1.0",
            "-0.0",
            "0.1",
            "1e100",
            "1.50e10",
            "18446744073709551615",
            "-9223372036854775808",
            "0.30000000000000004",
            "123456789012345.6",
            "\"1.50\"",
            "null",
        ] {
            assert!(found(no).is_empty() && !holds_decimals(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn each_is_found_with_its_path() {
        let document = r#" {"a": [1.50, {"b\"}.c": 2.00}, "1.50"], "": 3.10, "ü": [[], [[4.20]]], "e": {}, "n": 5} "#;
        assert_eq!(
            found(document),
            [r"$.a[0] 1.50", r#"$.a[1]."b\"}.c" 2.00"#, r#"$."" 3.10"#, r#"$."ü"[1][0][0] 4.20"#]
                .map(|found| found.replacen("$.a", r#"$."a""#, 1))
        );
    }

    #[test]
    fn what_is_no_document_has_none_and_nothing_panics() {
        let deep = "[".repeat(100_000) + "1.50";
        for text in [
            "",
            " ",
            "1.50 2",
            "[1.50",
            "{\"a\": 1.50",
            "{a: 1.50}",
            "{\"a\" 1.50}",
            "\"1.50",
            "\"\\",
            "[1.50,]",
            "1.50.1",
            "tru",
            "-",
            "1.50x",
            &deep,
        ] {
            assert!(found(text).is_empty(), "{text}");
        }
        assert!(decimals(b"[1.50, \"\xff\"]").is_empty());
        let nested = "[".repeat(100) + "1.50" + &"]".repeat(100);
        assert_eq!(found(&nested).len(), 1);
    }
}
