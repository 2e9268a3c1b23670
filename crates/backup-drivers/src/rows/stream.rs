//! Whole blocks out of a stream cut anywhere.

use std::collections::VecDeque;

use backup_core::{Error, Result};
use bytes::{Buf, Bytes, BytesMut};

use super::Block;
use super::block::Header;
use super::format::HEADER;

/// Takes a stream of blocks in pieces of any size and gives whole blocks.
///
/// Holds what arrived of one block, so that memory grows by arriving bytes only, never by a length
/// that a damaged header declares. A block that lies in one piece is not copied.
///
/// ```
/// use backup_drivers::rows::{BlockEncoder, BlockReader, Kind};
/// # fn main() -> backup_core::Result<()> {
/// let mut encoder = BlockEncoder::new(&[Kind::U8], 1)?;
/// encoder.push(&[0, 0, 7])?;
/// let stream = encoder.finish().bytes;
///
/// let mut reader = BlockReader::default();
/// reader.push(stream.slice(..10));
/// assert!(reader.next_block()?.is_none());
/// reader.push(stream.slice(10..));
/// assert_eq!(reader.next_block()?.unwrap().rows(), 1);
/// assert!(reader.next_block()?.is_none());
/// reader.finish()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct BlockReader {
    pieces: VecDeque<Bytes>,
    held: usize,
}

impl BlockReader {
    /// Takes the next piece of the stream.
    pub fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.held += piece.len();
            self.pieces.push_back(piece);
        }
    }

    /// The next block, or nothing before more pieces come.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when the stream is damaged; there
    /// is no going on then.
    pub fn next_block(&mut self) -> Result<Option<Block>> {
        let Some(header) = self.header() else { return Ok(None) };
        let length = Header::parse(&header)?.body + HEADER as u64;
        if (self.held as u64) < length {
            return Ok(None);
        }
        // No more than what is held.
        let block = self.take(length as usize);
        Block::parse(block).map(Some)
    }

    /// Checks that the stream ended where a block did.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when part of a block is left.
    pub fn finish(self) -> Result<()> {
        if self.held == 0 {
            return Ok(());
        }
        Err(Error::damaged(format!(
            "a stream of row blocks ends within a block, after {} bytes of it",
            self.held
        )))
    }

    fn header(&self) -> Option<[u8; HEADER]> {
        let mut header = [0; HEADER];
        let mut filled = 0;
        for piece in &self.pieces {
            let part = piece.len().min(HEADER - filled);
            header[filled..filled + part].copy_from_slice(&piece[..part]);
            filled += part;
            if filled == HEADER {
                return Some(header);
            }
        }
        None
    }

    /// Takes the first `length` bytes; at least as many are held.
    fn take(&mut self, length: usize) -> Bytes {
        self.held -= length;
        let mut joined = BytesMut::new();
        while joined.len() < length {
            let first = self.pieces.front_mut().expect("enough bytes are held");
            let part = first.len().min(length - joined.len());
            if part == length {
                let whole = first.split_to(length);
                self.drop_empty();
                return whole;
            }
            if joined.is_empty() {
                joined.reserve(length);
            }
            joined.extend_from_slice(&first[..part]);
            first.advance(part);
            self.drop_empty();
        }
        joined.freeze()
    }

    fn drop_empty(&mut self) {
        if self.pieces.front().is_some_and(Bytes::is_empty) {
            self.pieces.pop_front();
        }
    }
}
