//! Blocks as they were stored: checked, and turned back into row packets.

use std::ops::Range;

use backup_core::{Error, Result};
use bytes::Bytes;

use super::format::{
    ENCODING_BYTES, ENCODING_DECIMAL, ENCODING_DICTIONARY, ENCODING_INTEGERS, ENTRY, HAS_NULLS,
    HEADER, HEADER_CRC, MAGIC, MAX_BODY, MAX_COLUMNS, MAX_ROWS, VERSION,
};
use super::integers::Integers;
use super::walk::{Visitor, walk};
use super::{Kind, RowDigest, decimal, dictionary, row, temporal};

/// Values that a check looks at in one go.
const BATCH: usize = 1024;

/// The fixed part of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) columns: u16,
    pub(super) rows: u32,
    pub(super) body: u64,
    pub(super) raw_bytes: u64,
    pub(super) sum: u128,
}

impl Header {
    /// Reads and checks a header.
    pub(super) fn parse(bytes: &[u8; HEADER]) -> Result<Header> {
        fn part<const N: usize>(bytes: &[u8; HEADER], at: usize) -> [u8; N] {
            bytes[at..at + N].try_into().expect("a part of the header")
        }
        if bytes[..4] != MAGIC {
            return Err(Error::damaged("a row block does not begin with HFRB"));
        }
        if bytes[4] != VERSION {
            return Err(Error::damaged(format!(
                "a row block has the unknown version {}",
                bytes[4]
            ))
            .with_remedy("restore with a newer release of holdfast"));
        }
        if crc32fast::hash(&bytes[..HEADER_CRC]) != u32::from_le_bytes(part(bytes, HEADER_CRC)) {
            return Err(Error::damaged("the header of a row block does not match its checksum"));
        }
        let header = Header {
            columns: u16::from_le_bytes(part(bytes, 6)),
            rows: u32::from_le_bytes(part(bytes, 8)),
            body: u64::from_le_bytes(part(bytes, 12)),
            raw_bytes: u64::from_le_bytes(part(bytes, 20)),
            sum: u128::from_le_bytes(part(bytes, 28)),
        };
        let columns = usize::from(header.columns);
        if columns == 0
            || columns > MAX_COLUMNS
            || header.rows > MAX_ROWS
            || header.body < (columns * ENTRY) as u64
            || header.body > MAX_BODY
            || header.raw_bytes > MAX_BODY
        {
            return Err(Error::damaged(format!(
                "a row block says it has {columns} columns, {} rows, {} bytes and {} of packets",
                header.rows, header.body, header.raw_bytes
            )));
        }
        Ok(header)
    }
}

/// A column of a block.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) kind: Kind,
    pub(super) values: Values,
    pub(super) nulls: Option<Range<usize>>,
    /// Values that are not NULL.
    pub(super) count: usize,
    /// The integer section.
    pub(super) integers: Range<usize>,
    /// Bytes that the values take in row packets, or some fewer.
    packet_bytes: u64,
}

/// What the integers of a column are.
#[derive(Debug, Clone)]
pub(super) enum Values {
    /// The values, temporal ones packed.
    Integers,
    /// Lengths of the values, which lie one after the other.
    Bytes(Range<usize>),
    /// Values times 10 to the power of this.
    Decimal(u8),
    /// Numbers of entries of a dictionary.
    Dictionary(Entries),
}

/// The entries of a dictionary.
#[derive(Debug, Clone)]
pub(super) struct Entries {
    pub(super) count: usize,
    /// The integer section of their lengths.
    pub(super) lengths: Range<usize>,
    /// Their bytes, one after the other.
    pub(super) data: Range<usize>,
}

/// A block of rows that was checked: every length in it is sound.
///
/// Cheap to clone. Reading takes memory for some thousand values, whatever the block's size, and
/// for one row.
#[derive(Debug, Clone)]
pub struct Block {
    pub(super) bytes: Bytes,
    pub(super) header: Header,
    pub(super) columns: Vec<Column>,
}

impl Block {
    /// Checks a block; `bytes` holds it and nothing else.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when it is no sound block.
    pub fn parse(bytes: Bytes) -> Result<Block> {
        let cut = || Error::damaged("a row block is cut short");
        let header = Header::parse(bytes.first_chunk().ok_or_else(cut)?)?;
        if (bytes.len() - HEADER) as u64 != header.body {
            return Err(Error::damaged(format!(
                "a row block has {} bytes after its header instead of {}",
                bytes.len() - HEADER,
                header.body
            )));
        }
        // The header's check leaves room for the directory.
        let (directory, _) = bytes[HEADER..].split_at(ENTRY * usize::from(header.columns));
        let mut at = HEADER + directory.len();
        let mut columns = Vec::with_capacity(usize::from(header.columns));
        for (index, entry) in directory.chunks_exact(ENTRY).enumerate() {
            let length = u64::from_le_bytes(entry[4..].try_into().expect("eight bytes"));
            let length = usize::try_from(length).ok().filter(|n| *n <= bytes.len() - at);
            let end = at + length.ok_or_else(cut)?;
            let column = Column::parse(&bytes, at..end, entry, header.rows)
                .map_err(|e| e.context(format!("column {index} of a row block is damaged")))?;
            columns.push(column);
            at = end;
        }
        if at != bytes.len() {
            return Err(Error::damaged("a row block has bytes after its last column"));
        }
        let frames = u64::from(header.rows) * (1 + row::null_bytes(columns.len())) as u64;
        let least = frames + columns.iter().map(|column| column.packet_bytes).sum::<u64>();
        if least > header.raw_bytes {
            return Err(Error::damaged(format!(
                "a row block of at least {least} bytes says it has {}",
                header.raw_bytes
            )));
        }
        Ok(Block { bytes, header, columns })
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> u32 {
        self.header.rows
    }

    /// Bytes of the row packets, as recorded. Lines of text take up to 27 times as many, mostly
    /// about as many; neither can be more whatever the block holds, so this serves to reserve
    /// memory.
    #[must_use]
    pub fn raw_bytes(&self) -> u64 {
        self.header.raw_bytes
    }

    /// The kinds of the columns.
    pub fn kinds(&self) -> impl ExactSizeIterator<Item = Kind> + '_ {
        self.columns.iter().map(|column| column.kind)
    }

    /// The digest of the rows, as recorded; [`verify`](Self::verify) computes it.
    #[must_use]
    pub fn digest(&self) -> RowDigest {
        RowDigest { rows: u64::from(self.header.rows), sum: self.header.sum }
    }

    /// The block's own bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Gives the row packets, with their leading `0x00`, in the order they came in.
    ///
    /// # Errors
    /// What `each` gives, or [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged).
    pub fn packets(&self, mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let null_end = 1 + row::null_bytes(self.columns.len());
        walk(self, &mut Packets { packet: Vec::new(), null_end, each: &mut each })
    }

    /// Computes the digest of the rows and compares it with the recorded one.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when they differ.
    pub fn verify(&self) -> Result<RowDigest> {
        let mut digest = RowDigest::default();
        let mut raw_bytes = 0;
        self.packets(|packet| {
            digest.add(&packet[1..]);
            raw_bytes += packet.len() as u64;
            Ok(())
        })?;
        if digest != self.digest() || raw_bytes != self.raw_bytes() {
            return Err(Error::damaged(format!(
                "a block of {} rows has the row digest {digest} instead of {}",
                self.rows(),
                self.digest()
            )));
        }
        Ok(digest)
    }

    pub(super) fn column_bytes(&self, range: &Range<usize>) -> &[u8] {
        &self.bytes[range.clone()]
    }
}

impl Column {
    /// Checks the column that `entry` of the directory puts at `section`.
    fn parse(bytes: &[u8], section: Range<usize>, entry: &[u8], rows: u32) -> Result<Column> {
        let damaged = |what: &'static str| Error::damaged(what);
        let (end, mut at) = (section.end, section.start);
        let kind = Kind::from_code(entry[0]).ok_or_else(|| damaged("its kind is unknown"))?;
        let (encoding, flags) = (entry[1], entry[2]);
        if flags & !HAS_NULLS != 0 || entry[3] != 0 {
            return Err(damaged("it has unknown flags"));
        }
        let mut count = rows as usize;
        let nulls = if flags & HAS_NULLS == 0 {
            None
        } else {
            let length = count.div_ceil(8);
            let bitmap = bytes[at..end]
                .get(..length)
                .ok_or_else(|| damaged("its null bitmap is cut short"))?;
            let set: usize = bitmap.iter().map(|byte| byte.count_ones() as usize).sum();
            let beyond = bitmap
                .last()
                .is_some_and(|last| !count.is_multiple_of(8) && last >> (count % 8) != 0);
            if beyond {
                return Err(damaged("its null bitmap has bits beyond the rows"));
            }
            count -= set;
            at += length;
            Some(at - length..at)
        };
        let fits = match encoding {
            ENCODING_INTEGERS => kind != Kind::Bytes,
            ENCODING_BYTES => kind == Kind::Bytes || kind.is_temporal(),
            ENCODING_DECIMAL | ENCODING_DICTIONARY => kind == Kind::Bytes,
            _ => false,
        };
        if !fits {
            return Err(damaged("its encoding does not fit its kind"));
        }
        let mut values = Values::Integers;
        if encoding == ENCODING_DECIMAL {
            let scale = bytes[at..end].first().filter(|scale| **scale <= decimal::MAX_SCALE);
            values = Values::Decimal(*scale.ok_or_else(|| damaged("its scale is out of range"))?);
            at += 1;
        } else if encoding == ENCODING_DICTIONARY {
            let entries = Entries::parse(bytes, at..end)?;
            at = entries.data.end;
            values = Values::Dictionary(entries);
        }
        let (section, rest) = Integers::parse(&bytes[at..end], count)?;
        let integers = at..end - rest.len();
        let mut packet_bytes = count as u64 * kind.width().unwrap_or(1) as u64;
        match &values {
            Values::Dictionary(entries) => {
                let lengths = entries.lengths(bytes)?;
                check(section, |number| {
                    let length = usize::try_from(number).ok().and_then(|at| lengths.get(at));
                    packet_bytes += length.unwrap_or(&0);
                    length.is_some()
                })?;
            }
            _ if encoding == ENCODING_BYTES => {
                let left = take_lengths(kind, section, rest.len())?;
                values = Values::Bytes(integers.end..end - left);
                packet_bytes += (rest.len() - left) as u64;
            }
            _ if kind.is_temporal() => check(section, |value| temporal::in_range(kind, value))?,
            _ => {}
        }
        let used = if let Values::Bytes(data) = &values { data.end } else { integers.end };
        if used != end {
            return Err(damaged("it has bytes after its values"));
        }
        Ok(Column { kind, values, nulls, count, integers, packet_bytes })
    }
}

impl Entries {
    /// Checks the dictionary at the start of `section`.
    fn parse(bytes: &[u8], section: Range<usize>) -> Result<Entries> {
        let count = bytes[section.clone()]
            .first_chunk()
            .map(|count| usize::from(u16::from_le_bytes(*count)))
            .filter(|count| (1..=dictionary::MAX_ENTRIES).contains(count))
            .ok_or_else(|| Error::damaged("its dictionary has too many entries or none"))?;
        let start = section.start + 2;
        let (lengths, rest) = Integers::parse(&bytes[start..section.end], count)?;
        let left = take_lengths(Kind::Bytes, lengths, rest.len())?;
        let data = section.end - rest.len()..section.end - left;
        Ok(Entries { count, lengths: start..data.start, data })
    }

    /// The length of each entry; they add up to `data`.
    pub(super) fn lengths(&self, bytes: &[u8]) -> Result<Vec<u64>> {
        let (mut section, _) = Integers::parse(&bytes[self.lengths.clone()], self.count)?;
        let mut lengths = Vec::new();
        section.take(self.count, &mut lengths);
        Ok(lengths)
    }
}

/// Takes `lengths` off `available` and gives what is left. Lengths of temporal values must be some
/// that the protocol knows.
fn take_lengths(kind: Kind, lengths: Integers<'_>, available: usize) -> Result<usize> {
    let mut left = available as u64;
    check(lengths, |length| {
        let sound = kind == Kind::Bytes || row::is_temporal_length(kind, length as usize);
        let fits = length <= left;
        left = left.saturating_sub(length);
        fits && sound
    })?;
    Ok(left as usize)
}

/// Checks every value of an integer section.
fn check(mut integers: Integers<'_>, mut sound: impl FnMut(u64) -> bool) -> Result<()> {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        integers.take(BATCH, &mut batch);
        if batch.is_empty() {
            return Ok(());
        }
        if !batch.iter().all(|value| sound(*value)) {
            return Err(Error::damaged("it has a length, a number or a time out of range"));
        }
    }
}

/// Builds row packets.
struct Packets<'f> {
    packet: Vec<u8>,
    null_end: usize,
    each: &'f mut dyn FnMut(&[u8]) -> Result<()>,
}

impl Visitor for Packets<'_> {
    #[inline]
    fn begin(&mut self) {
        self.packet.clear();
        self.packet.resize(self.null_end, 0);
    }

    #[inline]
    fn null(&mut self, column: usize) {
        row::set_null(&mut self.packet[1..], column);
    }

    #[inline]
    fn integer(&mut self, _: usize, kind: Kind, value: u64) -> Result<()> {
        match kind {
            Kind::Date | Kind::DateTime | Kind::Time => {
                temporal::put_wire(kind, value, &mut self.packet);
            }
            Kind::I8 | Kind::U8 => self.packet.push(value as u8),
            Kind::I16 | Kind::U16 | Kind::Year => {
                self.packet.extend_from_slice(&(value as u16).to_le_bytes());
            }
            Kind::I32 | Kind::U32 | Kind::F32 => {
                self.packet.extend_from_slice(&(value as u32).to_le_bytes());
            }
            Kind::I64 | Kind::U64 | Kind::F64 | Kind::Bytes => {
                self.packet.extend_from_slice(&value.to_le_bytes());
            }
        }
        Ok(())
    }

    #[inline]
    fn bytes(&mut self, _: usize, _: Kind, value: &[u8]) -> Result<()> {
        // A temporal value has the same form: its length byte is below 251.
        row::put_bytes(&mut self.packet, value);
        Ok(())
    }

    #[inline]
    fn decimal(&mut self, _: usize, value: i64, scale: u8) {
        let start = self.packet.len();
        self.packet.push(0);
        decimal::append(value, scale, &mut self.packet);
        // At most 21 bytes.
        self.packet[start] = (self.packet.len() - start - 1) as u8;
    }

    #[inline]
    fn end(&mut self) -> Result<()> {
        (self.each)(&self.packet)
    }
}
