//! Segments that are asked for before they are looked at. A stream archives one every few seconds: where the store is far
//! away it is the number of questions that takes long, not the bytes.

use std::sync::Arc;

use backup_core::{Context, Result, SegmentInfo, SegmentStore};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::sync::Semaphore;

/// How many segments are asked for at once.
pub(super) const AT_ONCE: usize = 32;
/// How many bytes they may have together; one alone may have more.
pub(super) const BYTES: u64 = 32 << 20;

/// The contents of segments in their order, each as [`SegmentStore::read`] gives it, beside what the caller knows of it.
pub fn read_segments<'a, T: Send + 'a>(
    cx: &'a Context,
    store: &'a dyn SegmentStore,
    segments: impl IntoIterator<Item = (T, &'a SegmentInfo), IntoIter: Send + 'a>,
) -> impl Stream<Item = (T, &'a SegmentInfo, Result<Bytes>)> + Send + Unpin {
    let room = Arc::new(Semaphore::new(kib(BYTES) as usize));
    let read = move |(known, segment): (T, &'a SegmentInfo)| {
        let room = Arc::clone(&room);
        async move {
            // Whoever asks first gets room first: the next one in order never waits for a later one. Nobody closes it.
            let taken = room.acquire_many_owned(kib(segment.bytes())).await.ok();
            let content = match cx.check() {
                Ok(()) => store.read(cx, segment).await,
                Err(e) => Err(e),
            };
            (known, segment, content, taken)
        }
    };
    let read = stream::iter(segments).map(read).buffered(AT_ONCE);
    read.map(|(known, segment, content, _taken)| (known, segment, content)).boxed()
}

/// In KiB, from one up to all the room that there is.
fn kib(bytes: u64) -> u32 {
    u32::try_from(bytes.clamp(1, BYTES).div_ceil(1 << 10)).unwrap_or(u32::MAX)
}
