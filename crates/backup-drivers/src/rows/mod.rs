//! The columnar row block of repository format 1: how the rows of a table are kept.
//!
//! Rows arrive as row packets of the MySQL binary protocol and go straight into columns, without a
//! tree of values between. A block is self-contained: it gives back the very same packets
//! ([`Block::packets`]), or text for `LOAD DATA` ([`Block::write_tsv`]). Blocks are a pure function
//! of their rows, so that an unchanged chunk of a table gives unchanged bytes and deduplicates.
//!
//! ```text
//! row packet ─ BlockEncoder ─► block ─► frame (compressed and sealed elsewhere)
//!                                 │
//!             BlockReader ─► Block ┬─► row packets ─► digests
//!                                  └─► TSV ─► LOAD DATA
//! ```
//!
//! `docs/format-rows.md` describes every byte. Blocks are checksummed by the frames they travel in;
//! the checks here only see to it that no bytes whatever cause a panic or unbounded memory.
//!
//! ```
//! use backup_drivers::rows::{Block, BlockEncoder, Kind, TextFormat};
//! # fn main() -> backup_core::Result<()> {
//! let kinds = [Kind::I32, Kind::Bytes];
//! let mut encoder = BlockEncoder::new(&kinds, BlockEncoder::DEFAULT_TARGET)?;
//! encoder.push(b"\0\0\x07\0\0\0\x02hi")?;
//! encoder.push(b"\0\x08\x08\0\0\0")?;
//! let encoded = encoder.finish();
//!
//! let block = Block::parse(encoded.bytes)?;
//! assert_eq!(block.verify()?, encoded.digest);
//! let mut text = Vec::new();
//! block.write_tsv(&mut text, &[TextFormat::default(); 2])?;
//! assert_eq!(text, b"7\thi\n8\t\\N\n");
//! # Ok(())
//! # }
//! ```

mod block;
mod charset;
mod csv;
mod decimal;
mod dictionary;
mod digest;
mod document;
mod encode;
mod integers;
mod kind;
mod row;
mod sql;
mod stream;
mod temporal;
#[cfg(test)]
mod tests;
mod text;
mod walk;

pub use block::Block;
pub use charset::{Pairs, TextForm};
pub use csv::{CsvFormat, put_field};
pub use digest::RowDigest;
pub use document::DocumentTypes;
pub use encode::{BlockEncoder, EncodedBlock, NoText};
pub use kind::Kind;
pub use row::{fields, put_fields};
pub use sql::{SqlForm, put_literal};
pub use stream::BlockReader;
pub use text::{TextFormat, append_text, escape_into};

/// The numbers that writer and reader of a block share.
mod format {
    /// The first bytes of a block.
    pub(super) const MAGIC: [u8; 4] = *b"HFRB";
    /// The version of the layout.
    pub(super) const VERSION: u8 = 1;
    /// Bytes of the block header.
    pub(super) const HEADER: usize = 48;
    /// Where the checksum of the header stands; it covers all bytes before.
    pub(super) const HEADER_CRC: usize = 44;
    /// Bytes of one entry of the column directory.
    pub(super) const ENTRY: usize = 12;
    /// Most columns of a block: what both servers allow a table.
    pub(super) const MAX_COLUMNS: usize = 4096;
    /// Most rows of a block. Rows may take no space at all (all values equal), so that only a
    /// limit keeps a small hostile block from standing for endless rows.
    pub(super) const MAX_ROWS: u32 = 1 << 18;
    /// Most bytes of a row packet: four times what `max_allowed_packet` can be.
    pub(super) const MAX_PACKET: usize = u32::MAX as usize;
    /// Most bytes of a body: the largest packet, with room for what came before it.
    pub(super) const MAX_BODY: u64 = 5 << 30;
    /// Flag of a directory entry: the column has a null bitmap.
    pub(super) const HAS_NULLS: u8 = 1;
    /// Values are an integer section.
    pub(super) const ENCODING_INTEGERS: u8 = 0;
    /// Values are their lengths (an integer section) and their bytes, one after the other.
    pub(super) const ENCODING_BYTES: u8 = 1;
    /// Values are decimal numbers of one scale: a scale byte and an integer section.
    pub(super) const ENCODING_DECIMAL: u8 = 2;
    /// Values are numbers of entries of a dictionary: a 16-bit count of entries, their lengths (an
    /// integer section), their bytes, and the numbers (an integer section).
    pub(super) const ENCODING_DICTIONARY: u8 = 3;
}
