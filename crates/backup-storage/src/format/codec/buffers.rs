//! Buffers that content is decompressed into, used again: the kernel clears every page that it gives
//! out anew.

use bytes::Bytes;

use super::pool::Pool;

/// How long one is.
const LENGTH: usize = 1 << 20;
/// Shorter content would take much more memory than it is accounted for.
const SHORTEST: usize = LENGTH / 2;

static FREE: Pool<Vec<u8>, 8> = Pool::new();

/// An empty buffer with room for `len` bytes.
pub(super) fn take(len: usize) -> Vec<u8> {
    if !(SHORTEST..=LENGTH).contains(&len) {
        return Vec::with_capacity(len);
    }
    FREE.take(|_| true).unwrap_or_else(|| Vec::with_capacity(LENGTH))
}

/// What is in a buffer, which is used again when nobody needs it any more.
pub(super) fn freeze(buffer: Vec<u8>) -> Bytes {
    if buffer.capacity() == LENGTH { Bytes::from_owner(Lent(buffer)) } else { buffer.into() }
}

struct Lent(Vec<u8>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.0);
        buffer.clear();
        FREE.give_back(buffer);
    }
}
