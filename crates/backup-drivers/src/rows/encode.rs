//! Row packets into blocks.

use backup_core::{Error, Result};
use bytes::Bytes;

use super::dictionary::Dictionary;
use super::format::{
    ENCODING_BYTES, ENCODING_DECIMAL, ENCODING_DICTIONARY, ENCODING_INTEGERS, ENTRY, HAS_NULLS,
    HEADER, MAGIC, MAX_COLUMNS, MAX_PACKET, MAX_ROWS, VERSION,
};
use super::integers::{self, Order};
use super::{Kind, RowDigest, TextForm, decimal, row, temporal};

/// Collects row packets and makes blocks of them. Its buffers serve block after block.
#[derive(Debug)]
pub struct BlockEncoder {
    columns: Vec<Column>,
    target: usize,
    raw_bytes: u64,
    digest: RowDigest,
    dictionary: Dictionary,
}

/// A finished block.
#[derive(Debug, Clone)]
pub struct EncodedBlock {
    /// The block.
    pub bytes: Bytes,
    /// Its rows.
    pub rows: u32,
    /// Bytes of the row packets that went into it.
    pub raw_bytes: u64,
    /// The digest of its rows, as also recorded in it.
    pub digest: RowDigest,
    /// Columns with values that are no text of their character set.
    pub no_text: Vec<NoText>,
    /// Columns of documents with values of no byte, which are none.
    pub no_document: Vec<NoText>,
}

/// Values of a column that are no text of its character set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoText {
    /// The column, from 0.
    pub column: usize,
    /// How many values.
    pub values: u64,
    /// The first row with one, from 0.
    pub first_row: u32,
}

impl BlockEncoder {
    /// The usual size of a block before compression: 1 MiB of row packets.
    pub const DEFAULT_TARGET: usize = 1 << 20;
    /// The largest size that can be asked for.
    pub const MAX_TARGET: usize = 64 << 20;

    /// An encoder of rows whose columns are of `kinds`. A block is full when it holds
    /// `target_bytes` of row packets (cut to 1 byte … [`MAX_TARGET`](Self::MAX_TARGET)) or
    /// 262,144 rows.
    ///
    /// # Errors
    /// [`ErrorKind::Source`](backup_core::ErrorKind::Source) when there is no column, or more than
    /// the 4,096 that servers allow.
    pub fn new(kinds: &[Kind], target_bytes: usize) -> Result<Self> {
        if kinds.is_empty() || kinds.len() > MAX_COLUMNS {
            return Err(Error::new(
                backup_core::ErrorKind::Source,
                format!("a table of {} columns cannot be stored", kinds.len()),
            ));
        }
        Ok(BlockEncoder {
            columns: kinds.iter().map(|&kind| Column::new(kind)).collect(),
            target: target_bytes.clamp(1, Self::MAX_TARGET),
            raw_bytes: 0,
            digest: RowDigest::default(),
            dictionary: Dictionary::new(),
        })
    }

    /// Tells which columns are text, and of which form: values that are not are counted in
    /// [`EncodedBlock::no_text`], and kept as they are. Columns beyond `forms` are not looked at.
    #[must_use]
    pub fn with_texts(mut self, forms: impl IntoIterator<Item = Option<TextForm>>) -> Self {
        for (column, form) in self.columns.iter_mut().zip(forms) {
            column.form = form.filter(|_| column.kind == Kind::Bytes);
        }
        self
    }

    /// Tells which columns hold documents: a server that cannot give one out sends an empty string in its place.
    /// They are counted in [`EncodedBlock::no_document`]. Columns beyond `documents` are taken for none.
    #[must_use]
    pub fn with_documents(mut self, documents: impl IntoIterator<Item = bool>) -> Self {
        for (column, document) in self.columns.iter_mut().zip(documents) {
            column.document = document && column.kind == Kind::Bytes;
        }
        self
    }

    /// Adds a row: the payload of its packet (joined, where it came as several of 16 MiB), with the
    /// leading `0x00`.
    ///
    /// # Errors
    /// [`ErrorKind::Source`](backup_core::ErrorKind::Source) when the packet is no row of these
    /// columns, and [`ErrorKind::Internal`](backup_core::ErrorKind::Internal) when the block is
    /// full; then nothing was added.
    pub fn push(&mut self, packet: &[u8]) -> Result<()> {
        if self.is_full() {
            return Err(Error::internal("a row was pushed onto a full row block"));
        }
        let malformed = || row::malformed(self.columns.len(), packet.len());
        let (nulls, values) = row::split(packet, self.columns.len()).ok_or_else(malformed)?;
        if packet.len() > MAX_PACKET {
            return Err(malformed());
        }
        let no_nulls = nulls.iter().all(|byte| *byte == 0);
        let taken = if no_nulls { self.take_values(values) } else { self.take_some(nulls, values) };
        if let Err(columns) = taken {
            for (index, column) in self.columns[..columns].iter_mut().enumerate() {
                column.undo(row::is_null(nulls, index), self.digest.rows);
            }
            return Err(row::malformed(self.columns.len(), packet.len()));
        }
        self.raw_bytes += packet.len() as u64;
        self.digest.add(&packet[1..]);
        Ok(())
    }

    /// Takes a row without NULLs; fails with the number of columns that took their value.
    fn take_values(&mut self, mut rest: &[u8]) -> Result<(), usize> {
        for (index, column) in self.columns.iter_mut().enumerate() {
            rest = column.take(rest).ok_or(index)?;
        }
        if rest.is_empty() { Ok(()) } else { Err(self.columns.len()) }
    }

    /// Takes a row with NULLs; fails with the number of columns that took their value.
    fn take_some(&mut self, nulls: &[u8], mut rest: &[u8]) -> Result<(), usize> {
        for (index, column) in self.columns.iter_mut().enumerate() {
            if row::is_null(nulls, index) {
                column.take_null(self.digest.rows);
            } else {
                rest = column.take(rest).ok_or(index)?;
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(self.columns.len()) }
    }

    /// Whether the block should be finished before another row comes.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.raw_bytes >= self.target as u64 || self.digest.rows >= u64::from(MAX_ROWS)
    }

    /// Whether no row was pushed since the last block.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.digest.rows == 0
    }

    /// Bytes of row packets in the block so far.
    #[must_use]
    pub fn raw_bytes(&self) -> u64 {
        self.raw_bytes
    }

    /// Makes a block of the rows so far, also of none, and starts the next one.
    pub fn finish(&mut self) -> EncodedBlock {
        let digest = std::mem::take(&mut self.digest);
        let raw_bytes = std::mem::take(&mut self.raw_bytes);
        let rows = u32::try_from(digest.rows).expect("is_full keeps rows below 2^18");
        let directory = HEADER + ENTRY * self.columns.len();
        // Columns are mostly smaller than rows, but for a little text per column.
        let mut out = Vec::with_capacity(directory * 4 + raw_bytes as usize);
        out.resize(directory, 0);
        let (mut no_text, mut no_document) = (Vec::new(), Vec::new());
        for (index, column) in self.columns.iter_mut().enumerate() {
            no_text.extend(column.no_text(index));
            no_document.extend(column.no_document(index));
            let start = out.len();
            let nulls = column.finish_nulls(rows, &mut out);
            let encoding = column.finish_values(&mut self.dictionary, &mut out);
            // One huge value does not keep its memory for the rest of the backup.
            column.data.shrink_to(2 * self.target);
            let length = (out.len() - start) as u64;
            let entry = &mut out[HEADER + ENTRY * index..][..ENTRY];
            entry[..4].copy_from_slice(&[column.kind.code(), encoding, nulls, 0]);
            entry[4..].copy_from_slice(&length.to_le_bytes());
        }
        let body = (out.len() - HEADER) as u64;
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&[VERSION, 0]);
        header.extend_from_slice(&(self.columns.len() as u16).to_le_bytes());
        header.extend_from_slice(&rows.to_le_bytes());
        header.extend_from_slice(&body.to_le_bytes());
        header.extend_from_slice(&raw_bytes.to_le_bytes());
        header.extend_from_slice(&digest.sum.to_le_bytes());
        header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        out[..HEADER].copy_from_slice(&header);
        EncodedBlock { bytes: Bytes::from(out), rows, raw_bytes, digest, no_text, no_document }
    }
}

/// A column of the block that is being collected.
#[derive(Debug)]
struct Column {
    kind: Kind,
    /// What its values should be, where that can be told.
    form: Option<TextForm>,
    /// Whether its values are documents.
    document: bool,
    /// Whether the values are in `data`, with their lengths in `values`. So are those of a temporal
    /// column after a value that cannot be packed.
    as_bytes: bool,
    /// Numbers, packed temporal values or lengths.
    values: Vec<u64>,
    data: Vec<u8>,
    /// Null bitmap, as far as the last NULL.
    nulls: Vec<u8>,
}

impl Column {
    fn new(kind: Kind) -> Self {
        Column {
            kind,
            form: None,
            document: false,
            as_bytes: kind == Kind::Bytes,
            values: Vec::new(),
            data: Vec::new(),
            nulls: Vec::new(),
        }
    }

    /// Takes a value off `rest` and gives what follows; takes nothing when it gives `None`.
    // The hot loop: a call for each value costs a tenth of its speed.
    #[inline(always)]
    fn take<'a>(&mut self, rest: &'a [u8]) -> Option<&'a [u8]> {
        macro_rules! fixed {
            ($number:ty => $wide:ty) => {{
                let (value, rest) = rest.split_first_chunk()?;
                self.values.push(<$wide>::from(<$number>::from_le_bytes(*value)) as u64);
                rest
            }};
        }
        Some(match self.kind {
            Kind::Bytes => {
                let (value, rest) = row::take_bytes(rest)?;
                self.values.push(value.len() as u64);
                self.data.extend_from_slice(value);
                rest
            }
            Kind::I8 => fixed!(i8 => i64),
            Kind::U8 => fixed!(u8 => u64),
            Kind::I16 => fixed!(i16 => i64),
            Kind::U16 | Kind::Year => fixed!(u16 => u64),
            Kind::I32 => fixed!(i32 => i64),
            Kind::U32 | Kind::F32 => fixed!(u32 => u64),
            Kind::I64 | Kind::U64 | Kind::F64 => fixed!(u64 => u64),
            Kind::Date | Kind::DateTime | Kind::Time => {
                let (value, rest) = row::take_temporal(self.kind, rest)?;
                self.take_temporal(value);
                rest
            }
        })
    }

    #[inline]
    fn take_temporal(&mut self, value: &[u8]) {
        if !self.as_bytes {
            if let Some(packed) = temporal::pack(self.kind, value) {
                return self.values.push(packed);
            }
            self.unpack();
        }
        self.values.push(value.len() as u64);
        self.data.extend_from_slice(value);
    }

    /// Turns packed temporal values into bytes, for the rest of this block.
    #[cold]
    fn unpack(&mut self) {
        let mut wire = Vec::with_capacity(13);
        for value in &mut self.values {
            wire.clear();
            temporal::put_wire(self.kind, *value, &mut wire);
            *value = wire.len() as u64 - 1;
            self.data.extend_from_slice(&wire[1..]);
        }
        self.as_bytes = true;
    }

    fn take_null(&mut self, row: u64) {
        let byte = (row / 8) as usize;
        if self.nulls.len() <= byte {
            self.nulls.resize(byte + 1, 0);
        }
        self.nulls[byte] |= 1 << (row % 8);
    }

    /// Undoes what the column took for `row`.
    #[cold]
    fn undo(&mut self, null: bool, row: u64) {
        if null {
            self.nulls[(row / 8) as usize] &= !(1 << (row % 8));
            // So that a column without NULLs has no bitmap.
            let used = self.nulls.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
            self.nulls.truncate(used);
        } else {
            let value = self.values.pop().expect("the column took a value");
            if self.as_bytes {
                self.data.truncate(self.data.len() - value as usize);
            }
        }
    }

    /// The values so far that are not what they should be.
    fn no_text(&self, column: usize) -> Option<NoText> {
        let form = self.form.filter(|form| !form.is_plain(&self.data))?;
        self.count(column, |value| !form.is_text(value))
    }

    /// The values so far that should be documents, and are empty.
    fn no_document(&self, column: usize) -> Option<NoText> {
        (self.document && self.values.contains(&0))
            .then(|| self.count(column, <[u8]>::is_empty))
            .flatten()
    }

    /// The values that are such.
    fn count(&self, column: usize, such: impl Fn(&[u8]) -> bool) -> Option<NoText> {
        let (mut rest, mut row) = (&self.data[..], 0);
        let mut found: Option<NoText> = None;
        for length in &self.values {
            while self.nulls.get(row / 8).is_some_and(|byte| byte >> (row % 8) & 1 == 1) {
                row += 1;
            }
            let (value, after) = rest.split_at(*length as usize);
            rest = after;
            if such(value) {
                let first_row = u32::try_from(row).unwrap_or(u32::MAX);
                found.get_or_insert(NoText { column, values: 0, first_row }).values += 1;
            }
            row += 1;
        }
        found
    }

    /// Appends the null bitmap where there is one, and gives the flag that says so.
    fn finish_nulls(&mut self, rows: u32, out: &mut Vec<u8>) -> u8 {
        if self.nulls.is_empty() {
            return 0;
        }
        self.nulls.resize(rows.div_ceil(8) as usize, 0);
        out.extend_from_slice(&self.nulls);
        self.nulls.clear();
        HAS_NULLS
    }

    /// Appends the values and gives their encoding.
    fn finish_values(&mut self, dictionary: &mut Dictionary, out: &mut Vec<u8>) -> u8 {
        let encoding = if !self.as_bytes {
            integers::encode(&mut self.values, order(self.kind), out);
            ENCODING_INTEGERS
        } else if let Some(scale) = self.decimals(&mut dictionary.numbers) {
            out.push(scale);
            integers::encode(&mut dictionary.numbers, Order::Signed, out);
            ENCODING_DECIMAL
        } else if self.kind == Kind::Bytes && dictionary.build(&self.values, &self.data) {
            let entries = dictionary.entries(&self.data);
            out.extend_from_slice(&(entries.len() as u16).to_le_bytes());
            self.values.clear();
            self.values.extend(entries.map(|entry| entry.len() as u64));
            integers::encode(&mut self.values, Order::Unsigned, out);
            dictionary.entries(&self.data).for_each(|entry| out.extend_from_slice(entry));
            integers::encode(&mut dictionary.numbers, Order::Unsigned, out);
            ENCODING_DICTIONARY
        } else {
            integers::encode(&mut self.values, Order::Unsigned, out);
            out.extend_from_slice(&self.data);
            ENCODING_BYTES
        };
        self.values.clear();
        self.data.clear();
        self.as_bytes = self.kind == Kind::Bytes;
        encoding
    }

    /// Puts the values into `numbers` and gives their scale when all are decimals of one scale.
    fn decimals(&self, numbers: &mut Vec<u64>) -> Option<u8> {
        if self.kind != Kind::Bytes {
            return None;
        }
        numbers.clear();
        let (first, mut data) = (*self.values.first()? as usize, &self.data[..]);
        let scale = decimal::scale(&data[..first]);
        for length in &self.values {
            let (text, rest) = data.split_at(*length as usize);
            data = rest;
            numbers.push(decimal::parse(text, scale)?.cast_unsigned());
        }
        Some(scale)
    }
}

fn order(kind: Kind) -> Order {
    match kind {
        Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64 | Kind::Time => Order::Signed,
        Kind::F32 | Kind::F64 => Order::Bits,
        _ => Order::Unsigned,
    }
}
