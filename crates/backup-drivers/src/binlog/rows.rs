//! Tables, and how many rows an event changes in them.
//!
//! Row images cannot be counted without walking through them. The width of each value follows from
//! type and metadata in the TABLE_MAP (`calc_field_size` of `libs/mysql/binlog/event`).

use super::event::kind;
use super::inflate;
use super::read::Reader;

/// A table that following events change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TableMap {
    pub(super) id: u64,
    pub(super) database: String,
    pub(super) table: String,
    pub(super) columns: Vec<Column>,
}

/// What a TABLE_MAP says of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) kind: u8,
    pub(super) meta: u16,
}

/// A rows event of MariaDB that is compressed, as if it were not: type and body. `None` where it is not
/// compressed, or cannot be read.
pub(super) fn inflated(event_kind: u8, body: &[u8]) -> Option<(u8, Vec<u8>)> {
    let (change, v2, true) = shape(event_kind)? else { return None };
    let mut reader = Reader::new(body);
    reader.skip(8)?;
    if v2 {
        let extra = usize::from(reader.u16()?);
        reader.skip(extra.checked_sub(2)?)?;
    }
    let width = usize::try_from(reader.lenenc()?).ok()?;
    let images = if change == Change::Update { 2 } else { 1 };
    reader.skip(width.div_ceil(8).checked_mul(images)?)?;
    let rows = inflate::mariadb(reader.rest())?;
    let plain = match (change, v2) {
        (Change::Insert, false) => kind::WRITE_ROWS_V1,
        (Change::Update, false) => kind::UPDATE_ROWS_V1,
        (Change::Delete, false) => kind::DELETE_ROWS_V1,
        (Change::Insert, true) => kind::WRITE_ROWS,
        (Change::Update, true) => kind::UPDATE_ROWS,
        (Change::Delete, true) => kind::DELETE_ROWS,
    };
    Some((plain, [&body[..reader.at()], &rows].concat()))
}

/// What rows events do to rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Insert,
    Update,
    Delete,
}

const JSON: u8 = 245;

impl TableMap {
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        // id u48, flags u16, u8 + database NUL, u8 + table NUL, lenenc columns, types, metadata
        let mut body = Reader::new(body);
        let id = body.uint(6)?;
        body.skip(2)?;
        let mut name = || {
            let len = body.u8()?;
            let name = String::from_utf8_lossy(body.take(len.into())?).into_owned();
            body.skip(1)?;
            Some(name)
        };
        let (database, table) = (name()?, name()?);
        let count = usize::try_from(body.lenenc()?).ok()?;
        let types = body.take(count)?;
        let len = usize::try_from(body.lenenc()?).ok()?;
        let mut meta = Reader::new(body.take(len)?);
        let mut columns = Vec::with_capacity(types.len());
        for &kind in types {
            let meta = match kind {
                4 | 5 | 17..=19 | 140 | 242..=245 | 249..=252 | 255 => meta.u8()?.into(),
                // The type comes first here, so it is the high byte.
                246..=248 | 254 => u16::from_be_bytes(*meta.array()?),
                15 | 16 | 141 | 253 => meta.u16()?,
                _ => 0,
            };
            columns.push(Column { kind, meta });
        }
        Some(TableMap { id, database, table, columns })
    }

    /// The number of rows in a rows event on this table.
    pub(super) fn count(&self, event_kind: u8, body: &[u8]) -> Option<u64> {
        let mut count = 0;
        self.rows(event_kind, body, |images, rows| {
            self.image(rows, &images.first)?;
            if let Some(second) = &images.second {
                self.partial_json(event_kind, rows)?;
                self.image(rows, second)?;
            }
            count += 1;
            Some(())
        })?;
        Some(count)
    }

    /// Passes what says which documents are there as differences only; gives whether any is.
    pub(super) fn partial_json(&self, event_kind: u8, rows: &mut Reader<'_>) -> Option<bool> {
        if event_kind != kind::PARTIAL_UPDATE_ROWS || rows.lenenc()? & 1 == 0 {
            return Some(false);
        }
        let json = self.columns.iter().filter(|c| c.kind == JSON).count();
        let bits = rows.take(json.div_ceil(8))?;
        Some(bits.iter().any(|byte| *byte != 0))
    }

    /// Calls `take` at the start of each row of a rows event on this table; it takes the images off.
    /// `None` where the event cannot be read.
    pub(super) fn rows(
        &self,
        event_kind: u8,
        body: &[u8],
        mut take: impl FnMut(&Images<'_>, &mut Reader<'_>) -> Option<()>,
    ) -> Option<()> {
        let (change, v2, compressed) = shape(event_kind)?;
        let mut body = Reader::new(body);
        body.skip(8)?;
        if v2 {
            let extra = usize::from(body.u16()?);
            body.skip(extra.checked_sub(2)?)?;
        }
        let width = usize::try_from(body.lenenc()?).ok()?;
        if width != self.columns.len() {
            return None;
        }
        let mut present = || Some(Bits(body.take(width.div_ceil(8))?));
        let first = present()?;
        let second = if change == Change::Update { Some(present()?) } else { None };
        let images = Images { change, first, second };
        let inflated;
        let mut rows = match compressed {
            false => body,
            true => {
                inflated = inflate::mariadb(body.rest())?;
                Reader::new(&inflated)
            }
        };
        while !rows.is_empty() {
            let before = rows.at();
            take(&images, &mut rows)?;
            if rows.at() == before {
                // A table without columns in the image: its rows cannot be told apart.
                return None;
            }
        }
        Some(())
    }

    /// Passes one image of a row.
    fn image(&self, rows: &mut Reader<'_>, present: &Bits<'_>) -> Option<()> {
        let columns = || self.columns.iter().enumerate().filter(|(i, _)| present.get(*i));
        let nulls = Bits(rows.take(columns().count().div_ceil(8))?);
        for (n, (_, column)) in columns().enumerate() {
            if !nulls.get(n) {
                column.pass(rows)?;
            }
        }
        Some(())
    }
}

/// Which columns are in the images of a rows event.
pub(super) struct Images<'a> {
    pub(super) change: Change,
    /// Of what was there before; of an INSERT, what is there then.
    pub(super) first: Bits<'a>,
    /// Of an UPDATE: what is there then.
    pub(super) second: Option<Bits<'a>>,
}

/// A bit a column.
pub(super) struct Bits<'a>(pub(super) &'a [u8]);

impl Bits<'_> {
    pub(super) fn get(&self, bit: usize) -> bool {
        self.0.get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 != 0)
    }
}

/// What a rows event does, whether it has room for extra data, whether its rows are compressed.
fn shape(event_kind: u8) -> Option<(Change, bool, bool)> {
    Some(match event_kind {
        kind::WRITE_ROWS_V1 => (Change::Insert, false, false),
        kind::UPDATE_ROWS_V1 => (Change::Update, false, false),
        kind::DELETE_ROWS_V1 => (Change::Delete, false, false),
        kind::WRITE_ROWS => (Change::Insert, true, false),
        kind::UPDATE_ROWS | kind::PARTIAL_UPDATE_ROWS => (Change::Update, true, false),
        kind::DELETE_ROWS => (Change::Delete, true, false),
        kind::MARIADB_WRITE_ROWS_COMPRESSED_V1 => (Change::Insert, false, true),
        kind::MARIADB_UPDATE_ROWS_COMPRESSED_V1 => (Change::Update, false, true),
        kind::MARIADB_DELETE_ROWS_COMPRESSED_V1 => (Change::Delete, false, true),
        kind::MARIADB_WRITE_ROWS_COMPRESSED => (Change::Insert, true, true),
        kind::MARIADB_UPDATE_ROWS_COMPRESSED => (Change::Update, true, true),
        kind::MARIADB_DELETE_ROWS_COMPRESSED => (Change::Delete, true, true),
        _ => return None,
    })
}

/// What a rows event does, and to the table of which id; `None` for other events.
pub(super) fn change(event_kind: u8, body: &[u8]) -> Option<(Change, u64)> {
    Some((shape(event_kind)?.0, Reader::new(body).uint(6)?))
}

impl Column {
    /// The type, where another one stands for it.
    pub(super) fn real_kind(self) -> u8 {
        match (self.kind, self.meta.to_be_bytes()[0]) {
            (254, real @ (247 | 248)) => real,
            (kind, _) => kind,
        }
    }

    /// Passes a value.
    fn pass(self, rows: &mut Reader<'_>) -> Option<()> {
        self.value(rows).map(drop)
    }

    /// The bytes of a value, without the length that goes before it.
    pub(super) fn value<'a>(self, rows: &mut Reader<'a>) -> Option<&'a [u8]> {
        let fraction = usize::from(self.meta).div_ceil(2);
        let len = match self.kind {
            1 | 13 => 1,
            2 => 2,
            9..=11 | 14 => 3,
            3 | 4 | 7 => 4,
            5 | 8 | 12 => 8,
            6 => 0,
            17 => 4 + fraction,
            18 => 5 + fraction,
            19 => 3 + fraction,
            15 | 141 | 253 => {
                usize::try_from(rows.uint(if self.meta > 255 { 2 } else { 1 })?).ok()?
            }
            16 => {
                let [bits, bytes] = self.meta.to_le_bytes();
                usize::from(bytes) + usize::from(bits > 0)
            }
            140 | 242 | 243 | JSON | 249..=252 | 255 => {
                let width = usize::from(self.meta);
                usize::try_from(rows.uint(width)?).ok()?
            }
            246 => decimal(self.meta),
            247 | 248 => usize::from(self.meta & 0xff),
            254 => {
                let [real, low] = self.meta.to_be_bytes();
                match real {
                    247 | 248 => low.into(),
                    _ => {
                        // Two bits of the length hide in the type, inverted.
                        let longest = usize::from((real & 0x30) ^ 0x30) << 4 | usize::from(low);
                        usize::try_from(rows.uint(if longest > 255 { 2 } else { 1 })?).ok()?
                    }
                }
            }
            _ => return None,
        };
        rows.take(len)
    }
}

/// Length of a DECIMAL: nine digits take four bytes, what is left over as many as it needs.
fn decimal(meta: u16) -> usize {
    const LEFT_OVER: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
    let [precision, scale] = meta.to_be_bytes().map(usize::from);
    let bytes = |digits: usize| digits / 9 * 4 + LEFT_OVER[digits % 9];
    bytes(precision.saturating_sub(scale)) + bytes(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(types: &[u8], meta: &[u8]) -> TableMap {
        let mut body = vec![7, 0, 0, 0, 0, 0, 1, 0, 1, b'd', 0, 2, b't', b't', 0];
        body.push(types.len() as u8);
        body.extend(types);
        body.push(meta.len() as u8);
        body.extend(meta);
        body.push(0);
        TableMap::parse(&body).unwrap()
    }

    #[test]
    fn rows_are_counted() {
        // INT, VARCHAR(300), DECIMAL(10,2), CHAR(4)
        let table = map(&[3, 15, 246, 254], &[0x2c, 1, 10, 2, 254, 16]);
        assert_eq!((table.database.as_str(), table.table.as_str(), table.id), ("d", "tt", 7));
        let mut body = vec![7, 0, 0, 0, 0, 0, 1, 0, 2, 0, 4, 0x0f];
        let row = [&[0][..], &[1, 0, 0, 0], &[2, 0, b'a', b'b'], &[0; 5], &[1, b'x']].concat();
        body.extend(&row);
        // VARCHAR and CHAR are NULL.
        body.extend([0x0a, 2, 0, 0, 0, 1, 2, 3, 4, 5]);
        assert_eq!(table.count(kind::WRITE_ROWS, &body), Some(2));
        assert_eq!(change(kind::DELETE_ROWS, &body), Some((Change::Delete, 7)));
        body.pop();
        assert_eq!(table.count(kind::WRITE_ROWS, &body), None);
        let mut update = vec![7, 0, 0, 0, 0, 0, 1, 0, 2, 0, 4, 0x0f, 0x01];
        update.extend(&row);
        update.extend([0, 9, 0, 0, 0]);
        assert_eq!(table.count(kind::UPDATE_ROWS, &update), Some(1));
    }
}
