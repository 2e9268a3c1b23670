//! Bytes as they come, without a copy.

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What is read at once, and the longest piece that is given out.
pub(super) const PIECE: usize = 256 << 10;

pub(super) struct Input<R> {
    source: R,
    buffer: BytesMut,
    /// Bytes given out.
    position: u64,
}

impl<R: AsyncRead + Unpin> Input<R> {
    pub(super) fn new(source: R) -> Self {
        Input { source, buffer: BytesMut::new(), position: 0 }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    async fn more(&mut self) -> std::io::Result<bool> {
        self.buffer.reserve(PIECE);
        Ok(self.source.read_buf(&mut self.buffer).await? > 0)
    }

    /// Exactly `length` bytes, which must be few; fewer only where the stream ends.
    pub(super) async fn few(&mut self, length: usize) -> std::io::Result<Bytes> {
        while self.buffer.len() < length && self.more().await? {}
        Ok(self.give(length))
    }

    /// At least one byte and at most `length`, or none where the stream ends.
    pub(super) async fn some(&mut self, length: u64) -> std::io::Result<Bytes> {
        if self.buffer.is_empty() {
            self.more().await?;
        }
        Ok(self.give(usize::try_from(length).unwrap_or(PIECE).min(PIECE)))
    }

    fn give(&mut self, length: usize) -> Bytes {
        let length = length.min(self.buffer.remaining());
        self.position += length as u64;
        self.buffer.split_to(length).freeze()
    }
}
