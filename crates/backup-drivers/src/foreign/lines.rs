//! Files of rows that `LOAD DATA` takes: counted, and looked at for what makes no sense.
//!
//! What counts is what `READ_INFO` of the servers does (`sql/sql_load.cc`): a byte behind that of an escape means
//! nothing; a field that begins with the enclosing byte ends with one that stands before the end of a field or line.

use super::scan::{Contents, Fault, MOST};
use super::token::Place;

/// How the rows of a file are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Format {
    /// Between two fields.
    pub(super) field: Vec<u8>,
    /// Around a field that may hold anything.
    pub(super) enclosed: Option<u8>,
    pub(super) escape: Option<u8>,
    /// Behind each row.
    pub(super) line: Vec<u8>,
    /// So many lines at the beginning are no rows.
    pub(super) ignored: u64,
    /// So many fields a row has, where the statement lists them.
    pub(super) columns: Option<u64>,
}

/// A statement that loads a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Load {
    /// The file, as it stands in the statement.
    pub(super) file: String,
    /// The table, with its database.
    pub(super) table: String,
    /// Unknown where fields have widths, or lines a beginning of their own: such files are not counted.
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
    /// The last bytes of the field that may be a part of what ends it.
    end: Vec<u8>,
    /// The bytes that mean something, or may be the last of what ends a field.
    special: [bool; 256],
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
        let mut special = [false; 256];
        let ends = [format.field.last(), format.line.last(), Some(&b'\n')];
        let marks = [format.enclosed.as_ref(), format.escape.as_ref()];
        for &byte in ends.into_iter().chain(marks).flatten() {
            special[usize::from(byte)] = true;
        }
        Lines {
            special,
            format,
            table,
            place: start,
            row: start,
            fields: 1,
            width: None,
            end: Vec::new(),
            lines: 0,
            rows: 0,
            in_field: Field::Fresh,
            faults: Vec::new(),
        }
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(&first) = bytes.first() {
            // What begins and ends nothing is passed over at once.
            let run = match self.in_field {
                Field::Plain | Field::Enclosed => {
                    bytes.iter().take_while(|byte| !self.special[usize::from(**byte)]).count()
                }
                _ => 0,
            };
            if run > 0 {
                if self.in_field == Field::Plain {
                    self.remember(&bytes[..run]);
                }
                self.place.offset += run as u64;
            } else {
                self.place.offset += 1;
                self.place.line += u64::from(first == b'\n');
                self.take(first);
            }
            bytes = &bytes[run.max(1)..];
        }
    }

    /// Keeps as many bytes as an end has.
    fn remember(&mut self, bytes: &[u8]) {
        let longest = self.format.field.len().max(self.format.line.len());
        self.end.extend_from_slice(&bytes[bytes.len().saturating_sub(longest)..]);
        self.end.drain(..self.end.len().saturating_sub(longest));
    }

    fn take(&mut self, byte: u8) {
        let Format { enclosed, escape, .. } = self.format;
        self.in_field = match self.in_field {
            Field::Escaped(false) => Field::Plain,
            Field::Escaped(true) => Field::Enclosed,
            Field::Enclosed if Some(byte) == enclosed => {
                self.end.clear();
                Field::Closing
            }
            Field::Enclosed if Some(byte) == escape => Field::Escaped(true),
            Field::Enclosed => Field::Enclosed,
            Field::Fresh if Some(byte) == enclosed => Field::Enclosed,
            // A doubled one.
            Field::Closing if self.end.is_empty() && Some(byte) == enclosed => Field::Enclosed,
            now => return self.take_plain(byte, now),
        };
    }

    /// Takes a byte that may be of what ends a field or a line.
    fn take_plain(&mut self, byte: u8, now: Field) {
        self.remember(&[byte]);
        let Format { field, escape, line, .. } = &self.format;
        if self.end.ends_with(line) {
            return self.end_row();
        }
        if self.end.ends_with(field) {
            self.fields += 1;
            self.in_field = Field::Fresh;
            self.end.clear();
            return;
        }
        self.in_field = match now {
            Field::Closing if line.starts_with(&self.end) || field.starts_with(&self.end) => now,
            // It was one within the field.
            Field::Closing => Field::Enclosed,
            _ if Some(byte) == *escape => {
                self.end.clear();
                Field::Escaped(false)
            }
            _ => Field::Plain,
        };
    }

    fn end_row(&mut self) {
        self.lines += 1;
        let fields = std::mem::replace(&mut self.fields, 1);
        self.in_field = Field::Fresh;
        self.end.clear();
        let row = std::mem::replace(&mut self.row, self.place);
        if self.lines <= self.format.ignored {
            return;
        }
        if let Some(columns) = self.format.columns
            && fields != columns
        {
            let problem = format!(
                "a row has {fields} values, for {columns} columns of the statement that loads it"
            );
            return self.fault(row, problem);
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

    fn read(format: &Format, text: &[u8]) -> (u64, Vec<Fault>) {
        let mut whole = Lines::of(format.clone(), "d.t".into());
        whole.feed(text);
        let (contents, faults) = whole.finish();
        for size in 1..text.len().min(9) {
            let mut pieces = Lines::of(format.clone(), "d.t".into());
            text.chunks(size).for_each(|piece| pieces.feed(piece));
            assert_eq!(pieces.finish(), (contents.clone(), faults.clone()));
        }
        (contents.rows(), faults)
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_rows_or_faults(
            text in proptest::collection::vec(proptest::sample::select(&b"a1\t,\"\\\n\0\xff"[..]), 0..60),
        ) {
            for format in [tabs(), commas(), quotes(), long()] {
                let (rows, faults) = read(&format, &text);
                assert!(rows <= text.len() as u64 && faults.len() <= text.len());
                assert!(faults.iter().all(|f| f.start < f.end && f.end.offset <= text.len() as u64));
            }
        }
    }

    fn tabs() -> Format {
        Format {
            field: b"\t".to_vec(),
            enclosed: None,
            escape: Some(b'\\'),
            line: b"\n".to_vec(),
            ignored: 0,
            columns: None,
        }
    }

    fn commas() -> Format {
        Format { field: b",".to_vec(), enclosed: Some(b'"'), ignored: 1, ..tabs() }
    }

    /// As spreadsheets write them.
    fn quotes() -> Format {
        Format { escape: Some(b'"'), ignored: 0, columns: Some(2), ..commas() }
    }

    fn long() -> Format {
        Format { field: b"||".to_vec(), line: b"\r\n".to_vec(), ignored: 0, ..commas() }
    }

    #[test]
    fn rows_are_counted_as_servers_read_them() {
        assert_eq!(read(&tabs(), b""), (0, vec![]));
        assert_eq!(read(&tabs(), b"1\ta\\\tb\\\nc\\\\\n2\t\\N\n"), (2, vec![]));
        assert_eq!(read(&tabs(), b"1\t\"a\n"), (1, vec![]));
        let text = b"\"a\",\"b\"\n1,\"x,\n\"\"y\\\"\n\"\n2,\\N\n\"3\",\"in \"side\"\n";
        assert_eq!(read(&commas(), text), (3, vec![]));
        assert_eq!(read(&quotes(), b"1,\"say \"\"hi\"\"\"\n2,\"\"\n"), (2, vec![]));
        let text = b"1||\"a|\"|b\r\"\r\n2||x|\r|\r\n\"3\"||\"\r\n\"\r\n";
        assert_eq!(read(&long(), text), (3, vec![]));
    }

    #[test]
    fn what_is_cut_or_has_other_fields_is_found() {
        for (format, text, rows, line, problem) in [
            (tabs(), &b"1\ta\n2\tb"[..], 1, 2, "the file ends within a row"),
            (tabs(), b"1\ta\n2\tb\\", 1, 2, "the file ends within a value"),
            (tabs(), b"1\ta\n2\n3\tc\n", 2, 2, "a row has 1 values, and the first one 2"),
            (commas(), b"a,b\n1,\"x\n2,y\n", 0, 2, "the file ends within a value"),
            (long(), b"1||a\r\n2||b\r", 1, 2, "the file ends within a row"),
            (
                quotes(),
                b"1,2\n3\n",
                1,
                2,
                "a row has 1 values, for 2 columns of the statement that loads it",
            ),
        ] {
            let (counted, faults) = read(&format, text);
            assert_eq!((counted, faults.len()), (rows, 1), "{faults:?}");
            assert_eq!((faults[0].start.line, &*faults[0].problem), (line, problem));
        }
    }
}
