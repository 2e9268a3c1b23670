//! Files of rows that `LOAD DATA` takes: counted, and looked at for what makes no sense.
//!
//! What counts is what `READ_INFO` of the servers does (`sql/sql_load.cc`): a byte behind that of an escape means
//! nothing; a field that begins with the enclosing byte ends with one that stands before the end of a field or line.

use super::scan::{Contents, Fault};
use super::token::Place;

/// More faults of one file than this say nothing more.
const MOST: usize = 1000;

/// How the rows of a file are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    /// Between two fields.
    pub(super) field: u8,
    /// Around a field that may hold anything.
    pub(super) enclosed: Option<u8>,
    pub(super) escape: Option<u8>,
    /// Behind each row.
    pub(super) line: u8,
    /// So many lines at the beginning are no rows.
    pub(super) ignored: u64,
}

/// A statement that loads a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// The file, as it stands in the statement.
    pub(super) file: String,
    /// The table, with its database.
    pub(super) table: String,
    /// Unknown where terminators are longer than a byte: such files are not counted.
    pub(super) format: Option<Format>,
}

/// Takes a file of rows in pieces.
pub(super) struct Lines {
    format: Format,
    table: String,
    place: Place,
    /// Where the row begins, and its fields so far.
    row: Place,
    fields: u64,
    width: Option<u64>,
    lines: u64,
    rows: u64,
    in_field: Field,
    faults: Vec<Fault>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    /// Nothing of it was seen.
    Fresh,
    Plain,
    Enclosed,
    /// Behind an enclosing byte that may be its end.
    Closing,
    /// Behind an escape, in a field that is enclosed or not.
    Escaped(bool),
}

impl Lines {
    pub(super) fn of(format: Format, table: String) -> Self {
        let start = Place { line: 1, offset: 0 };
        Lines {
            format,
            table,
            place: start,
            row: start,
            fields: 1,
            width: None,
            lines: 0,
            rows: 0,
            in_field: Field::Fresh,
            faults: Vec::new(),
        }
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.place.offset += 1;
            self.place.line += u64::from(byte == b'\n');
            self.take(byte);
        }
    }

    fn take(&mut self, byte: u8) {
        let Format { field, enclosed, escape, line, .. } = self.format;
        self.in_field = match self.in_field {
            Field::Escaped(false) => Field::Plain,
            Field::Escaped(true) => Field::Enclosed,
            Field::Enclosed if Some(byte) == escape => Field::Escaped(true),
            Field::Enclosed if Some(byte) == enclosed => Field::Closing,
            Field::Enclosed => Field::Enclosed,
            Field::Fresh if Some(byte) == enclosed => Field::Enclosed,
            _ if byte == line => return self.end_row(),
            _ if byte == field => {
                self.fields += 1;
                Field::Fresh
            }
            // A doubled one, or one within the field.
            Field::Closing => Field::Enclosed,
            _ if Some(byte) == escape => Field::Escaped(false),
            Field::Fresh | Field::Plain => Field::Plain,
        };
    }

    fn end_row(&mut self) {
        self.lines += 1;
        let fields = std::mem::replace(&mut self.fields, 1);
        self.in_field = Field::Fresh;
        let row = std::mem::replace(&mut self.row, self.place);
        if self.lines <= self.format.ignored {
            return;
        }
        let first = *self.width.get_or_insert(fields);
        match fields == first {
            true => self.rows += 1,
            false => {
                self.fault(row, format!("a row has {fields} values, and the first one {first}"));
            }
        }
    }

    fn fault(&mut self, start: Place, problem: String) {
        if self.faults.len() < MOST {
            let end = self.place;
            self.faults.push(Fault { start, good_end: None, end, at: start, problem });
        }
    }

    /// The end of the file: what is in it, and what makes no sense.
    pub(super) fn finish(mut self) -> (Contents, Vec<Fault>) {
        if self.row.offset < self.place.offset {
            let problem = match self.in_field {
                Field::Enclosed | Field::Escaped(_) => "the file ends within a value",
                _ => "the file ends within a row",
            };
            self.fault(self.row, problem.to_owned());
        }
        let contents = Contents {
            bytes: self.place.offset,
            lines: self.place.line,
            tables: [(self.table, self.rows)].into(),
            ..Contents::default()
        };
        (contents, self.faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: Format, text: &[u8]) -> (u64, Vec<Fault>) {
        let mut whole = Lines::of(format, "d.t".into());
        whole.feed(text);
        let (contents, faults) = whole.finish();
        for size in 1..text.len().min(9) {
            let mut pieces = Lines::of(format, "d.t".into());
            text.chunks(size).for_each(|piece| pieces.feed(piece));
            assert_eq!(pieces.finish(), (contents.clone(), faults.clone()));
        }
        (contents.rows(), faults)
    }

    const TABS: Format =
        Format { field: b'\t', enclosed: None, escape: Some(b'\\'), line: b'\n', ignored: 0 };
    const COMMAS: Format = Format { field: b',', enclosed: Some(b'"'), ignored: 1, ..TABS };

    #[test]
    fn rows_are_counted_as_servers_read_them() {
        assert_eq!(read(TABS, b""), (0, vec![]));
        assert_eq!(read(TABS, b"1\ta\\\tb\\\nc\\\\\n2\t\\N\n"), (2, vec![]));
        assert_eq!(read(TABS, b"1\t\"a\n"), (1, vec![]));
        let text = b"\"a\",\"b\"\n1,\"x,\n\"\"y\\\"\n\"\n2,\\N\n\"3\",\"in \"side\"\n";
        assert_eq!(read(COMMAS, text), (3, vec![]));
    }

    #[test]
    fn what_is_cut_or_has_other_fields_is_found() {
        for (format, text, rows, line, problem) in [
            (TABS, &b"1\ta\n2\tb"[..], 1, 2, "the file ends within a row"),
            (TABS, b"1\ta\n2\tb\\", 1, 2, "the file ends within a value"),
            (TABS, b"1\ta\n2\n3\tc\n", 2, 2, "a row has 1 values, and the first one 2"),
            (COMMAS, b"a,b\n1,\"x\n2,y\n", 0, 2, "the file ends within a value"),
        ] {
            let (counted, faults) = read(format, text);
            assert_eq!((counted, faults.len()), (rows, 1), "{faults:?}");
            assert_eq!((faults[0].start.line, &*faults[0].problem), (line, problem));
        }
    }
}
