//! What MySQL 8.0 and later write about a tablespace into it: the dictionary's own records of its tables,
//! as JSON (serialized dictionary information).
//!
//! They stand in an index of their own, whose root page 0 names. Of a partitioned table only the first
//! partition has them. The layout is that of `fsp0fsp.h`,
//! `page0page.h`, `rem0rec.h` and `dict0sdi.h`.

use std::collections::BTreeSet;
use std::io::{Read, Seek, SeekFrom};

use backup_core::{Error, ErrorKind, Result, io_error};

use super::{Geometry, HEAD_BYTES, PageKind, offset, u16_at, u32_at, u64_at};

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SdiKind {
    /// A table, with its columns, indexes and partitions.
    Table,
    /// The tablespace itself.
    Tablespace,
    /// Something that this version does not know.
    Other(u32),
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sdi {
    /// What it is about.
    pub kind: SdiKind,
    /// The id of the object.
    pub id: u64,
    /// The JSON that the server wrote.
    pub json: serde_json::Value,
}

impl Sdi {
    /// Database and name of the table; `None` for other records.
    #[must_use]
    pub fn table(&self) -> Option<(&str, &str)> {
        let object = self.json.get("dd_object")?;
        let text = |key: &str| object.get(key)?.as_str();
        (self.kind == SdiKind::Table).then_some((text("schema_ref")?, text("name")?))
    }
}

/// The flag of tablespaces that have these records (`FSP_FLAGS_POS_SDI`).
const HAS_SDI: u32 = 1 << 14;
/// The descriptors of extents in page 0: where, and how long each is without its two bits a page.
const EXTENTS_AT: usize = 150;
const EXTENT_BYTES: usize = 24;
/// What encryption keeps behind them (`Encryption::INFO_MAX_SIZE`).
const ENCRYPTION_BYTES: usize = 115;

pub(super) const LEVEL_AT: usize = offset::DATA + 26;
/// The smallest record, and the largest, in a page of rows of the new format.
pub(super) const INFIMUM: usize = 99;
const SUPREMUM: usize = 112;

/// No record is longer, packed or not.
const MAX_RECORD: usize = 64 << 20;

/// Reads the records of a tablespace file. There are none in files of MariaDB and MySQL 5.7, and none are
/// found where pages are compressed in the file or encrypted.
///
/// # Errors
/// [`ErrorKind::Damaged`] when the pages are not what they should be, and errors of reading.
pub fn read_sdi(file: &mut (impl Read + Seek)) -> Result<Vec<Sdi>> {
    let mut pages = Pages::open(file)?;
    let geometry = pages.geometry;
    let plain = !geometry.full_crc32 && !geometry.zip && !geometry.mysql_encrypted();
    if !plain || geometry.flags & HAS_SDI == 0 {
        return Ok(Vec::new());
    }
    let extent_pages = usize::try_from(geometry.extent_pages())
        .map_err(|_| damaged("its extents are too large"))?;
    let descriptors = pages.page_bytes() / extent_pages * (EXTENT_BYTES + extent_pages / 4);
    let first = pages.page(0)?;
    let at = EXTENTS_AT + descriptors + ENCRYPTION_BYTES;
    if u32_at(&first, at) != 1 {
        return Err(damaged("its dictionary has an unknown version"));
    }
    let mut number = u32_at(&first, at + 4);
    // Down to the first leaf, then from leaf to leaf.
    let mut page = pages.index(number)?;
    let mut level = u16_at(&page, LEVEL_AT);
    while level > 0 {
        let record = next_record(&page, INFIMUM).ok_or_else(|| damaged("a node has no child"))?;
        number = u32_at(&page, bounded(&page, record + 12, 4)?);
        page = pages.index(number)?;
        let below = u16_at(&page, LEVEL_AT);
        if below + 1 != level {
            return Err(damaged("its dictionary is no tree"));
        }
        level = below;
    }
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    loop {
        if !seen.insert(number) {
            return Err(damaged("the leaves of its dictionary go in circles"));
        }
        records(&page, &mut pages, &mut found)?;
        number = u32_at(&page, offset::NEXT);
        if number == u32::MAX {
            return Ok(found);
        }
        page = pages.index(number)?;
    }
}

pub(super) fn damaged(problem: &'static str) -> Error {
    Error::damaged(format!("the dictionary of the tablespace cannot be read: {problem}"))
}

/// The pages of a tablespace.
pub(super) struct Pages<'a, F> {
    file: &'a mut F,
    geometry: Geometry,
}

impl<'a, F: Read + Seek> Pages<'a, F> {
    pub(super) fn open(file: &'a mut F) -> Result<Self> {
        let mut head = [0; HEAD_BYTES];
        read_at(file, 0, &mut head)?;
        let geometry = Geometry::read(&head).ok_or_else(|| damaged("it is no tablespace"))?;
        Ok(Pages { file, geometry })
    }

    fn page_bytes(&self) -> usize {
        self.geometry.page_bytes as usize
    }

    /// A page of that kind that is sound.
    pub(super) fn checked(&mut self, number: u32, kind: PageKind) -> Result<Vec<u8>> {
        let page = self.page(number)?;
        if let Err(problem) = super::check(&page, number.into(), &self.geometry) {
            return Err(Error::damaged(format!("page {number}: {problem}")));
        }
        match PageKind(u16_at(&page, offset::KIND)) == kind {
            true => Ok(page),
            false => Err(damaged("a page of it is of another kind")),
        }
    }

    /// As [`checked`](Self::checked); `None` where the page is encrypted.
    pub(super) fn plain(&mut self, number: u32, kind: PageKind) -> Result<Option<Vec<u8>>> {
        let page = self.page(number)?;
        let verdict = super::check(&page, number.into(), &self.geometry);
        // MariaDB writes the version of the key where others have the checksum.
        let keyed = self.geometry.full_crc32 && u32_at(&page, offset::CHECKSUM) != 0;
        match keyed || verdict == Ok(super::Verdict::Encrypted) {
            true => Ok(None),
            false => self.checked(number, kind).map(Some),
        }
    }

    fn page(&mut self, number: u32) -> Result<Vec<u8>> {
        let mut page = vec![0; self.page_bytes()];
        read_at(self.file, u64::from(number) * page.len() as u64, &mut page)?;
        if u32_at(&page, offset::NUMBER) != number {
            return Err(damaged("a page is another one"));
        }
        Ok(page)
    }

    fn index(&mut self, number: u32) -> Result<Vec<u8>> {
        let page = self.page(number)?;
        if PageKind(u16_at(&page, offset::KIND)) != PageKind::SDI {
            return Err(damaged("a page of it is of another kind"));
        }
        Ok(page)
    }

    /// A value that did not fit into its record: pages, each with a length and the next one.
    fn blob(&mut self, mut number: u32, mut at: usize, length: usize) -> Result<Vec<u8>> {
        let mut value = Vec::new();
        let mut seen = BTreeSet::new();
        while value.len() < length {
            if !seen.insert(number) {
                return Err(damaged("a long record goes in circles"));
            }
            let page = self.page(number)?;
            bounded(&page, at, 8)?;
            let (part, next) = (u32_at(&page, at) as usize, u32_at(&page, at + 4));
            let begin = bounded(&page, at + 8, part)?;
            value.extend_from_slice(&page[begin..begin + part]);
            (number, at) = (next, offset::DATA);
        }
        value.truncate(length);
        Ok(value)
    }
}

fn read_at(file: &mut (impl Read + Seek), at: u64, buffer: &mut [u8]) -> Result<()> {
    file.seek(SeekFrom::Start(at))
        .and_then(|_| file.read_exact(buffer))
        .map_err(|e| io_error(e, ErrorKind::Damaged, "cannot read the tablespace"))
}

/// Fails unless `length` bytes from `at` are inside the page.
pub(super) fn bounded(page: &[u8], at: usize, length: usize) -> Result<usize> {
    match at.checked_add(length) {
        Some(end) if end <= page.len() => Ok(at),
        _ => Err(damaged("a record is outside its page")),
    }
}

/// The record behind the one at `at`: its header says how far away. `None` behind the last one.
pub(super) fn next_record(page: &[u8], at: usize) -> Option<usize> {
    let distance = u16_at(page, at - 2);
    let next = at.wrapping_add_signed(isize::from(distance.cast_signed())) & 0xffff;
    (next != SUPREMUM && next > SUPREMUM && next < page.len()).then_some(next)
}

fn records<F: Read + Seek>(
    page: &[u8],
    pages: &mut Pages<'_, F>,
    found: &mut Vec<Sdi>,
) -> Result<()> {
    // Each takes five bytes of header and more: a page cannot hold more of them.
    let mut left = page.len() / 5;
    let mut at = INFIMUM;
    while let Some(record) = next_record(page, at) {
        at = record;
        left = left.checked_sub(1).ok_or_else(|| damaged("the records of a page go in circles"))?;
        let deleted = page[record - 5] & 0x20 != 0;
        if deleted {
            continue;
        }
        // type, id, transaction, roll pointer, plain length, packed length, value
        bounded(page, record, 33)?;
        let kind = match u32_at(page, record) {
            1 => SdiKind::Table,
            2 => SdiKind::Tablespace,
            other => SdiKind::Other(other),
        };
        let id = u64_at(page, record + 4);
        let (plain, packed) =
            (u32_at(page, record + 25) as usize, u32_at(page, record + 29) as usize);
        if plain > MAX_RECORD || packed > MAX_RECORD {
            return Err(damaged("a record is too long"));
        }
        // The length of the value stands before the header: one byte, or two with two flags.
        let (low, high) = (page[record - 6], page[record - 7]);
        let (length, outside) = match low & 0x80 {
            0 => (usize::from(low), false),
            _ => (usize::from(low & 0x3f) << 8 | usize::from(high), low & 0x40 != 0),
        };
        let begin = bounded(page, record + 33, length)?;
        let mut value = page[begin..begin + length].to_vec();
        if outside {
            let local =
                length.checked_sub(20).ok_or_else(|| damaged("a reference is too short"))?;
            let (number, at) = (u32_at(&value, local + 4), u32_at(&value, local + 8) as usize);
            let more = packed.saturating_sub(local);
            value.truncate(local);
            value.extend(pages.blob(number, at, more)?);
        }
        if value.len() != packed {
            return Err(damaged("a record has another length than it says"));
        }
        let mut text = Vec::new();
        flate2::read::ZlibDecoder::new(&value[..])
            .take(plain as u64 + 1)
            .read_to_end(&mut text)
            .map_err(|e| damaged("a record cannot be unpacked").with_source(e))?;
        if text.len() != plain {
            return Err(damaged("a record unpacks to another length than it says"));
        }
        let json = serde_json::from_slice(&text)
            .map_err(|e| damaged("a record is no JSON").with_source(e))?;
        found.push(Sdi { kind, id, json });
    }
    Ok(())
}
