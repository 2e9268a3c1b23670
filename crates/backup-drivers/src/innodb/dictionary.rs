//! The tablespace files that the dictionary of a server names.
//!
//! MySQL 8.0 and later keep them in `mysql.tablespaces` and `mysql.tablespace_files` (`dd/impl/tables/`), tables of
//! `mysql.ibd` whose records are of the compact format (`rem0rec.h`). MariaDB and older MySQL keep them in `SYS_TABLES`
//! of the system tablespace (`dict0boot.h`), in the redundant format. Either is to be read when the server was shut down
//! in order: what came after the last checkpoint is in the redo log alone.

use std::collections::HashMap;
use std::io::{Read, Seek};

use backup_core::Result;
use serde_json::Value;

use super::sdi::{Pages, bounded, damaged};
use super::tree::{DELETED, compact, leaves};
use super::{PageKind, Sdi, offset, read_sdi, u16_at, u32_at, u64_at};

/// A tablespace file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedFile {
    /// Its path, as it stands in the dictionary of MySQL; database and table with `.ibd` else.
    pub path: String,
    /// The number of its tablespace. Undo tablespaces change theirs.
    pub space: Option<u32>,
}

/// Bits of a record's header: it has columns of another version of the table.
const VERSIONED: u8 = 0xc0;
/// A column of this length or more has its length in two bytes.
const LONG: u8 = 0x80;

/// The files that MySQL's dictionary names, but those of discarded tablespaces. `None` where it is encrypted or unknown.
///
/// # Errors
/// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) where its pages are not what they should be.
pub fn mysql_files(file: &mut (impl Read + Seek)) -> Result<Option<Vec<NamedFile>>> {
    let records = read_sdi(file)?;
    let root = |name: &str, columns: &[&str]| {
        let sdi = records.iter().find(|sdi| sdi.table() == Some(("mysql", name)))?;
        root_of(sdi, columns)
    };
    let spaces = root(
        "tablespaces",
        &["id", "DB_TRX_ID", "DB_ROLL_PTR", "name", "options", "se_private_data"],
    );
    let files = root(
        "tablespace_files",
        &["tablespace_id", "ordinal_position", "DB_TRX_ID", "DB_ROLL_PTR", "file_name"],
    );
    let (Some(spaces), Some(files)) = (spaces, files) else { return Ok(None) };
    let mut pages = Pages::open(file)?;
    let mut known = HashMap::new();
    let mut strange = false;
    compact(
        &mut pages,
        spaces,
        |_, at| Ok(at + 8),
        |page, at| {
            strange |= page[at - 5] & VERSIONED != 0;
            let nulls = page[at - 6];
            let (name, below) = length(page, at - 7)?;
            let mut start = at + 21 + name;
            let mut end = below;
            let mut text = "";
            if nulls & 1 == 0 {
                let (options, below) = length(page, end)?;
                (start, end) = (start + options, below);
            }
            if nulls & 2 == 0 {
                let (private, _) = length(page, end)?;
                let bytes = &page[bounded(page, start, private)?..start + private];
                text = std::str::from_utf8(bytes).unwrap_or_default();
            }
            known.insert(u64_at(page, bounded(page, at, 8)?), Private::read(text));
            Ok(())
        },
    )?;
    let mut found = Vec::new();
    compact(
        &mut pages,
        files,
        |_, at| Ok(at + 12),
        |page, at| {
            strange |= page[at - 5] & VERSIONED != 0;
            let (len, _) = length(page, at - 7)?;
            let start = bounded(page, at + 25, len)?;
            let path = String::from_utf8_lossy(&page[start..start + len]).into_owned();
            let space = known.get(&u64_at(page, at));
            if !space.is_some_and(|space| space.discarded) {
                found.push(NamedFile { path, space: space.and_then(|space| space.id) });
            }
            Ok(())
        },
    )?;
    Ok((!strange).then_some(found))
}

/// What InnoDB keeps of a tablespace: `flags=16417;id=2;…;state=normal;`.
struct Private {
    id: Option<u32>,
    discarded: bool,
}

impl Private {
    fn read(text: &str) -> Self {
        let value =
            |key: &str| text.split(';').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        Private {
            id: value("id").and_then(|id| id.parse().ok()),
            discarded: value("state") == Some("discarded"),
        }
    }
}

/// The root of a table's first index, if that begins with these columns.
fn root_of(sdi: &Sdi, wanted: &[&str]) -> Option<u32> {
    let object = sdi.json.get("dd_object")?;
    let columns = object.get("columns")?.as_array()?;
    let index = object.get("indexes")?.as_array()?.first()?;
    let name = |element: &Value| {
        let at = usize::try_from(element.get("column_opx")?.as_u64()?).ok()?;
        columns.get(at)?.get("name")?.as_str()
    };
    let names = index.get("elements")?.as_array()?.iter().map(name);
    if !names.take(wanted.len()).eq(wanted.iter().map(|name| Some(*name))) {
        return None;
    }
    let data = index.get("se_private_data")?.as_str()?;
    data.split(';').find_map(|pair| pair.strip_prefix("root="))?.parse().ok()
}

/// The length of a column whose length varies, of which the low byte is at `at`, and where that of the next one is.
fn length(page: &[u8], at: usize) -> Result<(usize, usize)> {
    let low = page[at];
    match low & LONG {
        0 => Ok((low.into(), at - 1)),
        // What is not in the record itself is never short.
        _ if low & 0x40 != 0 => Err(damaged("a record goes on outside its page")),
        _ => Ok((usize::from(low & 0x3f) << 8 | usize::from(page[at - 1]), at - 2)),
    }
}

/// The page that says where the dictionary is, its type, and where in it the root of `SYS_TABLES` stands.
const HEADER_PAGE: u32 = 7;
const HEADER_KIND: PageKind = PageKind(6);
const TABLES_AT: usize = offset::DATA + 32;
/// The first and the last record of a page of the redundant format.
const OLD_INFIMUM: usize = 101;
const OLD_SUPREMUM: usize = 116;
/// Columns of `SYS_TABLES`, in their order in the index, and the bit of a tablespace that was discarded
/// (`DICT_TF2_DISCARDED`).
const NAME: usize = 0;
const MIX_LEN: usize = 7;
const SPACE: usize = 9;
const IS_DISCARDED: u32 = 32;
const IS_TEMPORARY: u32 = 1;

/// The tables that InnoDB's own dictionary names, in the first file of a system tablespace: those in it too, without a
/// number. `None` where it is encrypted.
///
/// # Errors
/// As [`mysql_files`].
pub fn innodb_tables(file: &mut (impl Read + Seek)) -> Result<Option<Vec<NamedFile>>> {
    let mut pages = Pages::open(file)?;
    let Some(header) = pages.plain(HEADER_PAGE, HEADER_KIND)? else { return Ok(None) };
    let root = u32_at(&header, TABLES_AT);
    if pages.plain(root, PageKind::INDEX)?.is_none() {
        return Ok(None);
    }
    let mut found = Vec::new();
    let child = |page: &[u8]| {
        let first = usize::from(u16_at(page, OLD_INFIMUM - 2));
        (first > OLD_SUPREMUM && first < page.len()).then_some(())?;
        number(page, first, 1)
    };
    leaves(&mut pages, root, child, |page| {
        let (mut at, mut left) = (OLD_INFIMUM, page.len() / 6);
        loop {
            at = usize::from(u16_at(page, at - 2));
            if at == OLD_SUPREMUM {
                return Ok(());
            }
            left = left.checked_sub(1).ok_or_else(|| damaged("a page goes in circles"))?;
            if !(OLD_SUPREMUM..page.len()).contains(&at) {
                return Err(damaged("a record is outside its page"));
            }
            if page[at - 6] & DELETED != 0 {
                continue;
            }
            let row = || {
                let name = std::str::from_utf8(old_column(page, at, NAME)?).ok()?;
                Some((name, number(page, at, MIX_LEN)?, number(page, at, SPACE)?))
            };
            let (name, flags, space) =
                row().ok_or_else(|| damaged("a record of a table is none"))?;
            if flags & (IS_DISCARDED | IS_TEMPORARY) == 0 {
                let path = format!("{name}.ibd");
                found.push(NamedFile { path, space: (space != 0).then_some(space) });
            }
        }
    })?;
    Ok(Some(found))
}

/// A column of a record of the redundant format: where each ends stands backwards before its header.
fn old_column(page: &[u8], record: usize, n: usize) -> Option<&[u8]> {
    let short = page[record - 3] & 1 != 0;
    let end = |n: usize| -> Option<usize> {
        let ends = match short {
            true => usize::from(*page.get(record.checked_sub(7 + n)?)? & 0x7f),
            false => {
                let at = record.checked_sub(8 + 2 * n)?;
                usize::from(u16_at(page, at) & 0x3fff)
            }
        };
        Some(record + ends)
    };
    let start = if n == 0 { record } else { end(n - 1)? };
    page.get(start..end(n)?)
}

fn number(page: &[u8], record: usize, n: usize) -> Option<u32> {
    Some(u32::from_be_bytes(old_column(page, record, n)?.try_into().ok()?))
}
