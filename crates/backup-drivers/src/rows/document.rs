//! JSON documents of MySQL, which hold types that a server does not make of text.
//!
//! A number's text mostly tells whether it is a DECIMAL or a DOUBLE: a server prints a DOUBLE with the fewest
//! digits that mean it, so that `1.50`, or anything with more than 17 digits, can only be a DECIMAL. Such a
//! number is put in as a literal of SQL, which is a DECIMAL with all of its digits. What the text does not tell,
//! somebody may know of the column.

use std::ops::Range;

use backup_core::Result;

use super::block::{Block, Entries, Values};
use super::walk::{Visitor, walk};
use super::{Kind, decimal};

/// What the text of the values in a column of documents stands for. Nothing is known by default, and
/// whatever is said here, the text of a document stays the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DocumentTypes {
    /// Every number with a point and without an exponent is a DECIMAL.
    pub decimals: bool,
    /// Every string that is a date is a DATE.
    pub dates: bool,
    /// Every string that is a time with six digits of a fraction is a TIME.
    pub times: bool,
    /// Every string that is a date and such a time is a DATETIME.
    pub datetimes: bool,
}

/// As deep as a document may be (`JSON_DOCUMENT_MAX_DEPTH`), and some more.
const MAX_DEPTH: usize = 128;
/// The fewest digits that are too many for a BIGINT.
const MANY_DIGITS: usize = 19;

impl DocumentTypes {
    fn temporal(self) -> bool {
        self.dates || self.times || self.datetimes
    }

    /// Whether `text`, a document or several in a row, may hold a value that has to be said in SQL. Quick,
    /// and not sure.
    fn may_be_in(self, text: &[u8]) -> bool {
        let mut digits = 0;
        self.temporal()
            || text.iter().any(|byte| {
                digits = if byte.is_ascii_digit() { digits + 1 } else { 0 };
                *byte == b'.' || digits == MANY_DIGITS
            })
    }

    /// Whether a document holds a value that has to be said in SQL.
    #[must_use]
    pub fn are_in(self, document: &[u8]) -> bool {
        self.may_be_in(document) && !self.values(document).is_empty()
    }

    /// The values of a document that have to be said in SQL: of each the path that `JSON_SET` takes, and
    /// the expression. Nothing for what is no document.
    pub(super) fn values(self, document: &[u8]) -> Vec<(String, String)> {
        let Ok(text) = std::str::from_utf8(document) else { return Vec::new() };
        let mut scanner =
            Scanner { types: self, text, at: 0, path: "$".to_owned(), found: Vec::new() };
        let whole = scanner.value(0).is_some() && scanner.next().is_none();
        if whole { scanner.found } else { Vec::new() }
    }

    /// A number with a point or too many digits, as SQL.
    fn number(self, number: &str) -> Option<String> {
        let fixed = number.contains('.') && !number.contains(['e', 'E']);
        // There is no negative zero to be had as a DECIMAL.
        let zero = number.starts_with('-') && !number.contains(|c: char| ('1'..='9').contains(&c));
        let decimal = is_decimal(number) || (self.decimals && fixed && !zero);
        decimal.then(|| number.to_owned())
    }

    /// A string with its quotes, as SQL.
    fn string(self, quoted: &str) -> Option<String> {
        let text = quoted.get(1..quoted.len().checked_sub(1)?)?;
        let (of_type, name) = match text.len() {
            10 => (self.dates && is_date(text), "DATE"),
            26 => {
                let (date, time) = (text.get(..10)?, text.get(11..)?);
                let fits = is_date(date) && text.as_bytes()[10] == b' ' && is_time(time, 23);
                (self.datetimes && fits, "DATETIME(6)")
            }
            15..=17 => {
                let time = text.strip_prefix('-').unwrap_or(text);
                let zero =
                    text.starts_with('-') && !time.contains(|c: char| ('1'..='9').contains(&c));
                (self.times && is_time(time, 837) && !zero, "TIME(6)")
            }
            _ => return None,
        };
        of_type.then(|| format!("CAST('{text}' AS {name})"))
    }
}

/// A date that there is: `CAST` makes NULL of others.
fn is_date(text: &str) -> bool {
    let bytes = text.as_bytes();
    let part = |at: Range<usize>| -> Option<u32> {
        let digits = text.get(at).filter(|part| part.bytes().all(|b| b.is_ascii_digit()))?;
        digits.parse().ok()
    };
    let (Some(year), Some(month), Some(day), 10) =
        (part(0..4), part(5..7), part(8..10), bytes.len())
    else {
        return false;
    };
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return false,
    };
    year > 0 && (1..=days).contains(&day) && bytes[4] == b'-' && bytes[7] == b'-'
}

/// `12:34:56.000000`, with more digits of hours where there are that many.
fn is_time(text: &str, most: u32) -> bool {
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = |text: &str| text.parse::<u32>().unwrap_or(u32::MAX);
    let mut parts = text.split(':');
    let (Some(hours), Some(minutes), Some(seconds), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let Some((seconds, fraction)) = seconds.split_once('.') else { return false };
    let written = match number(hours) {
        0..=99 => hours.len() == 2,
        _ => hours.len() == 3,
    };
    [hours, minutes, seconds, fraction].into_iter().all(all_digits)
        && written
        && number(hours) <= most
        && (minutes.len(), seconds.len(), fraction.len()) == (2, 2, 6)
        && number(minutes) < 60
        && number(seconds) < 60
}

impl Block {
    /// Whether a value of one of these columns, by number, is a document with something that
    /// [has to be said](DocumentTypes::are_in) in SQL.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) for a damaged block.
    pub fn holds_types(&self, columns: &[(usize, DocumentTypes)]) -> Result<bool> {
        let may = columns.iter().filter_map(|(at, types)| Some((self.columns.get(*at)?, types)));
        let may = may.into_iter().any(|(column, types)| match &column.values {
            Values::Bytes(data) | Values::Dictionary(Entries { data, .. }) => {
                types.may_be_in(self.column_bytes(data))
            }
            Values::Decimal(_) => true,
            Values::Integers => false,
        });
        let mut finder = Finder { columns, found: false, text: Vec::new() };
        if may {
            walk(self, &mut finder)?;
        }
        Ok(finder.found)
    }
}

struct Finder<'a> {
    columns: &'a [(usize, DocumentTypes)],
    found: bool,
    text: Vec<u8>,
}

impl Finder<'_> {
    fn look(&mut self, column: usize, value: &[u8]) {
        if !self.found {
            let known = self.columns.iter().find(|(at, _)| *at == column);
            self.found = known.is_some_and(|(_, types)| types.are_in(value));
        }
    }
}

impl Visitor for Finder<'_> {
    fn begin(&mut self) {}

    fn null(&mut self, _: usize) {}

    fn integer(&mut self, _: usize, _: Kind, _: u64) -> Result<()> {
        Ok(())
    }

    fn bytes(&mut self, column: usize, _: Kind, value: &[u8]) -> Result<()> {
        self.look(column, value);
        Ok(())
    }

    fn decimal(&mut self, column: usize, value: i64, scale: u8) {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        decimal::append(value, scale, &mut text);
        self.look(column, &text);
        self.text = text;
    }

    fn end(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Reads a document from its first byte to its last.
struct Scanner<'a> {
    types: DocumentTypes,
    text: &'a str,
    at: usize,
    /// That of the value which is read.
    path: String,
    found: Vec<(String, String)>,
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
            b'"' => {
                let quoted = self.string()?;
                if self.types.temporal()
                    && let Some(sql) = self.types.string(&self.text[quoted])
                {
                    self.found.push((self.path.clone(), sql));
                }
                Some(())
            }
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
        if let Some(sql) = self.types.number(number) {
            self.found.push((self.path.clone(), sql));
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
        found_as(DocumentTypes::default(), document)
    }

    fn found_as(types: DocumentTypes, document: &str) -> Vec<String> {
        let values = types.values(document.as_bytes());
        assert_eq!(types.are_in(document.as_bytes()), !values.is_empty());
        values.into_iter().map(|(path, number)| format!("{path} {number}")).collect()
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
            assert!(found(no).is_empty(), "{no}");
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
        assert!(DocumentTypes::default().values(b"[1.50, \"\xff\"]").is_empty());
        let nested = "[".repeat(100) + "1.50" + &"]".repeat(100);
        assert_eq!(found(&nested).len(), 1);
    }

    #[test]
    fn what_is_known_of_a_column_is_said_and_changes_no_text() {
        let all = DocumentTypes { decimals: true, dates: true, times: true, datetimes: true };
        for (text, sql) in [
            ("1.5", "1.5"),
            ("-0.5", "-0.5"),
            (r#""2024-02-29""#, "CAST('2024-02-29' AS DATE)"),
            (
                r#""2024-02-29 23:59:59.000001""#,
                "CAST('2024-02-29 23:59:59.000001' AS DATETIME(6))",
            ),
            (r#""12:34:56.000000""#, "CAST('12:34:56.000000' AS TIME(6))"),
            (r#""-100:00:00.500000""#, "CAST('-100:00:00.500000' AS TIME(6))"),
        ] {
            assert_eq!(found_as(all, text), [format!("$ {sql}")], "{text}");
            let known = found_as(DocumentTypes::default(), text);
            assert!(known.is_empty(), "{text}");
        }
        for text in [
            "-0.0",
            "1e5",
            "1.5e-20",
            "7",
            r#""2023-02-29""#,
            r#""0000-00-00""#,
            r#""2024-00-10""#,
            r#""2024-02-29T23:59:59.000001""#,
            r#""2024-02-29 24:00:00.000000""#,
            r#""2024-02-29 23:59:59""#,
            r#""012:34:56.000000""#,
            r#""838:59:59.000000""#,
            r#""-00:00:00.000000""#,
            r#""12:34:56.00000é""#,
            r#"{"2024-02-29": "x"}"#,
        ] {
            assert!(found_as(all, text).is_empty(), "{text}");
        }
    }
}
