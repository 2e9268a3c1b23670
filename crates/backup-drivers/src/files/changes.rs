//! What has to be written over a file after its artifact: an artifact of pieces, each
//! `offset u64 LE, length u32 LE, bytes`, in the order of their offsets and without overlaps.
//!
//! Some sources give whole files while they change, and the pages that changed meanwhile later.

use backup_core::{ArtifactReader, ArtifactWriter, Error, Result};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde_json::Value;

/// The first component of the names of such artifacts.
pub(super) const CHANGES: &str = "changes";

const HEADER: usize = 12;
/// The longest piece, in bytes.
const MAX_PIECE: usize = 16 << 20;

/// Writes pieces.
pub(crate) struct ChangesWriter {
    writer: Box<dyn ArtifactWriter>,
    end: u64,
}

impl ChangesWriter {
    pub(crate) fn new(writer: Box<dyn ArtifactWriter>) -> Self {
        ChangesWriter { writer, end: 0 }
    }

    /// Adds the piece that begins at `offset`.
    ///
    /// # Errors
    /// When it overlaps the one before, and what the sink fails with.
    pub(crate) async fn write(&mut self, offset: u64, bytes: Bytes) -> Result<()> {
        if offset < self.end || bytes.len() > MAX_PIECE {
            return Err(Error::internal("pieces of changes overlap, or one is too long"));
        }
        self.end = offset + bytes.len() as u64;
        let mut header = BytesMut::with_capacity(HEADER);
        header.put_u64_le(offset);
        header.put_u32_le(bytes.len() as u32);
        self.writer.write(header.freeze()).await?;
        self.writer.write(bytes).await
    }

    /// Ends the artifact.
    ///
    /// # Errors
    /// What the sink fails with.
    pub(crate) async fn finish(self) -> Result<()> {
        self.writer.finish(Value::Null).await.map(drop)
    }
}

/// Reads pieces.
pub(crate) struct ChangesReader {
    reader: Box<dyn ArtifactReader>,
    buffer: BytesMut,
    end: u64,
}

impl ChangesReader {
    pub(crate) fn new(reader: Box<dyn ArtifactReader>) -> Self {
        ChangesReader { reader, buffer: BytesMut::new(), end: 0 }
    }

    /// Whether that many bytes are there. `false` at the end of the artifact.
    async fn fill(&mut self, count: usize) -> Result<bool> {
        while self.buffer.len() < count {
            match self.reader.next().await? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None if self.buffer.is_empty() => return Ok(false),
                None => return Err(Error::damaged("an artifact of changes is cut short")),
            }
        }
        Ok(true)
    }

    /// The next piece and its offset.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when the artifact is not what
    /// [`ChangesWriter`] writes, and what the source fails with.
    pub(crate) async fn next(&mut self) -> Result<Option<(u64, Bytes)>> {
        if !self.fill(HEADER).await? {
            return Ok(None);
        }
        let (offset, count) = (self.buffer.get_u64_le(), self.buffer.get_u32_le() as usize);
        if offset < self.end || count > MAX_PIECE || offset.checked_add(count as u64).is_none() {
            return Err(Error::damaged("pieces of changes overlap, or one is too long"));
        }
        self.end = offset + count as u64;
        if count > 0 && !self.fill(count).await? {
            return Err(Error::damaged("an artifact of changes is cut short"));
        }
        Ok(Some((offset, self.buffer.split_to(count).freeze())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_core::ArtifactInfo;
    use std::sync::{Arc, Mutex};

    #[derive(Default, Clone)]
    struct Memory(Arc<Mutex<BytesMut>>);

    #[async_trait::async_trait]
    impl ArtifactWriter for Memory {
        async fn write(&mut self, bytes: Bytes) -> Result<()> {
            self.0.lock().unwrap().extend_from_slice(&bytes);
            Ok(())
        }
        async fn finish(self: Box<Self>, _: Value) -> Result<ArtifactInfo> {
            Err(Error::internal("nobody asks"))
        }
    }

    /// Gives bytes in pieces of seven.
    struct Sevens(Bytes);

    #[async_trait::async_trait]
    impl ArtifactReader for Sevens {
        async fn next(&mut self) -> Result<Option<Bytes>> {
            let count = self.0.len().min(7);
            Ok((count > 0).then(|| self.0.split_to(count)))
        }
    }

    async fn written() -> Bytes {
        let memory = Memory::default();
        let mut writer = ChangesWriter::new(Box::new(memory.clone()));
        writer.write(0, Bytes::from_static(b"first")).await.unwrap();
        writer.write(5, Bytes::new()).await.unwrap();
        writer.write(1 << 40, Bytes::from_static(b"second piece")).await.unwrap();
        assert!(writer.write(1 << 40, Bytes::from_static(b"x")).await.is_err());
        let bytes = memory.0.lock().unwrap().clone();
        bytes.freeze()
    }

    async fn read(bytes: Bytes) -> Result<Vec<(u64, Bytes)>> {
        let mut reader = ChangesReader::new(Box::new(Sevens(bytes)));
        let mut pieces = Vec::new();
        while let Some(piece) = reader.next().await? {
            pieces.push(piece);
        }
        Ok(pieces)
    }

    #[tokio::test]
    async fn pieces_come_back_and_a_cut_is_noticed() {
        let bytes = written().await;
        let pieces = read(bytes.clone()).await.unwrap();
        let expected = [(0, &b"first"[..]), (5, b""), (1 << 40, b"second piece")];
        assert!(pieces.iter().map(|(at, piece)| (*at, &piece[..])).eq(expected));
        let ends = [0, 17, 29, bytes.len()];
        for end in 0..=bytes.len() {
            assert_eq!(read(bytes.slice(..end)).await.is_ok(), ends.contains(&end), "{end}");
        }
        let mut back = BytesMut::from(&bytes[..]);
        back[17..25].copy_from_slice(&4u64.to_le_bytes());
        assert!(read(back.freeze()).await.is_err());
    }
}
