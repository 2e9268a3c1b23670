//! The transactions that a MySQL server has executed, as `mysql.gtid_executed` tells of them: those too that are in no
//! binary log of it, because it was cloned or restored, or does not log what it replicates.
//!
//! The table is in `mysql.ibd`, whose dictionary records name the root of its index. Rows are of the compact format
//! (`rem0rec.h`), and none of their columns is NULL: lengths of columns whose length varies, backwards; five bytes of
//! header; the columns in the order of the index.

use backup_core::{Error, ErrorKind, Flavor, GtidSet, Result};
use serde_json::Value;
use std::io::{Read, Seek};

use super::sdi::{Pages, bounded};
use super::tree::compact;
use super::{Sdi, SdiKind, read_sdi, u64_at};

/// Bits of a record's header: it has columns of another version of the table.
const VERSIONED: u8 = 0xc0;
/// Numbers are stored so that they sort: with the sign the other way round.
const SIGN: u64 = 1 << 63;

/// Reads the table out of the `mysql.ibd` of a server that was shut down in order.
///
/// # Errors
/// [`ErrorKind::Source`] where it is encrypted or unknown; as [`read_sdi`].
pub fn gtid_executed(file: &mut (impl Read + Seek)) -> Result<GtidSet> {
    let records = read_sdi(file)?;
    let is_it = |sdi: &&Sdi| sdi.table() == Some(("mysql", "gtid_executed"));
    let sdi = records.iter().filter(|sdi| sdi.kind == SdiKind::Table).find(is_it);
    let sdi = sdi.ok_or_else(|| unknown("its tablespace is encrypted, or does not tell of it"))?;
    let table = Table::of(&sdi.json).ok_or_else(|| unknown("its definition is not known"))?;
    let mut pages = Pages::open(file)?;
    let mut text = Vec::new();
    let key = |page: &[u8], at| Ok(table.columns(page, at, table.keys)?.end);
    compact(&mut pages, table.root, key, |page, at| {
        text.push(table.columns(page, at, table.columns.len())?.interval()?);
        Ok(())
    })?;
    GtidSet::parse(Flavor::MySql, &text.join(","))
}

fn unknown(problem: &'static str) -> Error {
    Error::new(ErrorKind::Source, problem)
}

/// A column, as it is stored.
struct Column {
    name: String,
    /// In bytes; the longest where it varies.
    bytes: usize,
    varies: bool,
}

/// How the table is stored.
struct Table {
    root: u32,
    /// In the order of the index.
    columns: Vec<Column>,
    /// So many of them are the key.
    keys: usize,
}

impl Table {
    fn of(json: &Value) -> Option<Table> {
        let object = json.get("dd_object")?;
        let index = object.get("indexes")?.as_array()?.first()?;
        let data = index.get("se_private_data")?.as_str()?;
        let root = data.split(';').find_map(|pair| pair.strip_prefix("root="))?.parse().ok()?;
        let (columns, elements) =
            (object.get("columns")?.as_array()?, index.get("elements")?.as_array()?);
        let mut stored = Vec::new();
        for element in elements {
            let column =
                columns.get(usize::try_from(element.get("column_opx")?.as_u64()?).ok()?)?;
            let name = column.get("name")?.as_str()?.to_owned();
            let longest = usize::try_from(column.get("char_length")?.as_u64()?).ok()?;
            let (bytes, varies) = match name.as_str() {
                // Of a character set with letters of several bytes.
                "source_uuid" => (longest, longest != 36),
                "gtid_tag" => (longest, longest != 32),
                "interval_start" | "interval_end" => (8, false),
                "DB_TRX_ID" => (6, false),
                "DB_ROLL_PTR" => (7, false),
                _ => return None,
            };
            // Longer ones have lengths of two bytes.
            if longest > 255 || column.get("is_nullable")?.as_bool()? {
                return None;
            }
            stored.push(Column { name, bytes, varies });
        }
        let hidden =
            |element: &&Value| element.get("hidden").and_then(Value::as_bool) == Some(false);
        let keys = elements.iter().take_while(hidden).count();
        Some(Table { root, columns: stored, keys })
    }

    /// The first `count` columns of a record.
    fn columns<'a>(&'a self, page: &'a [u8], record: usize, count: usize) -> Result<Row<'a>> {
        if page[record - 5] & VERSIONED != 0 {
            return Err(unknown("its rows are of several versions"));
        }
        let (mut at, mut lengths) = (record, record - 6);
        let mut values = Vec::new();
        for column in &self.columns[..count] {
            let mut bytes = column.bytes;
            if column.varies {
                bytes = usize::from(page[lengths]);
                lengths -= 1;
            }
            if bytes > column.bytes {
                return Err(unknown("a column is longer than it may be"));
            }
            bounded(page, at, bytes)?;
            values.push((column.name.as_str(), &page[at..at + bytes]));
            at += bytes;
        }
        Ok(Row { values, end: at })
    }
}

/// A row, or the key of one.
struct Row<'a> {
    values: Vec<(&'a str, &'a [u8])>,
    end: usize,
}

impl Row<'_> {
    fn interval(&self) -> Result<String> {
        let column = |name| self.values.iter().find(|(n, _)| *n == name).map(|(_, value)| *value);
        let text = |name| {
            let value = std::str::from_utf8(column(name).unwrap_or_default());
            value.map(str::trim_end).map_err(|_| unknown("a name in it is no text"))
        };
        let number = |name| match column(name) {
            Some(value) if value.len() == 8 => Ok(u64_at(value, 0) ^ SIGN),
            _ => Err(unknown("a number in it is none")),
        };
        let (uuid, tag) = (text("source_uuid")?, text("gtid_tag")?);
        let colon = if tag.is_empty() { "" } else { ":" };
        Ok(format!("{uuid}{colon}{tag}:{}-{}", number("interval_start")?, number("interval_end")?))
    }
}
