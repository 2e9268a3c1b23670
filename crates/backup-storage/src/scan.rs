//! Reading an object from its first byte to its last, frame by frame.

use backup_core::{Error, ErrorKind, Result};
use bytes::{Bytes, BytesMut};

use crate::digesting::Digesting;
use crate::format::{
    END_FRAME_LEN, EndOfObject, FRAME_HEADER_LEN, FrameHeader, FrameKind, OBJECT_HEADER_LEN,
    ObjectKind, Place, open, unseal,
};
use crate::key::Key;
use crate::shelf::Shelf;
use crate::store::Store;
use crate::sync::lost_task;

/// How much is asked of the store at once.
const WINDOW: u64 = 2 << 20;

/// A frame as it stands in its object.
pub(crate) struct Scanned {
    pub(crate) offset: u64,
    pub(crate) header: FrameHeader,
    /// As long as the header says; not yet checked.
    pub(crate) payload: Bytes,
}

/// Reads a pack or an index in order, with memory for one frame and one window.
pub(crate) struct Scanner<'a> {
    shelf: &'a Shelf,
    key: &'a Key,
    place: &'a Place,
    /// What was fetched and not yet passed.
    buffer: BytesMut,
    /// Where `buffer` begins in the object.
    offset: u64,
    len: u64,
    digest: Option<Digesting>,
}

impl<'a> Scanner<'a> {
    /// Begins after the header of the object, which is checked. `len` is how long the object should
    /// be; `digest` whether its SHA-256 is wanted.
    pub(crate) async fn open(
        shelf: &'a Shelf,
        key: &'a Key,
        place: &'a Place,
        kind: ObjectKind,
        len: u64,
        digest: bool,
    ) -> Result<Scanner<'a>> {
        let mut scanner = Scanner {
            shelf,
            key,
            place,
            buffer: BytesMut::new(),
            offset: 0,
            len,
            digest: digest.then(Digesting::new),
        };
        scanner.need(OBJECT_HEADER_LEN).await?;
        place.check_object_header(kind, &scanner.buffer)?;
        scanner.take(OBJECT_HEADER_LEN);
        Ok(scanner)
    }

    /// Begins at `offset`, where a frame should begin.
    pub(crate) fn at(
        shelf: &'a Shelf,
        key: &'a Key,
        place: &'a Place,
        offset: u64,
        len: u64,
    ) -> Scanner<'a> {
        Scanner { shelf, key, place, buffer: BytesMut::new(), offset, len, digest: None }
    }

    /// Fetches until `n` bytes are there or the object is at its end.
    async fn need(&mut self, n: usize) -> Result<()> {
        while self.buffer.len() < n {
            let at = self.offset + self.buffer.len() as u64;
            if at >= self.len {
                return Ok(());
            }
            let missing = (n - self.buffer.len()) as u64;
            let end = (at + missing.max(WINDOW)).min(self.len);
            let bytes = self
                .shelf
                .get_range(self.key, at..end)
                .await?
                .ok_or_else(|| missing_object(self.key))?;
            let short = (bytes.len() as u64) < end - at;
            if let Some(digest) = &mut self.digest {
                digest.add(vec![bytes.clone()], ()).await?;
            }
            self.buffer.extend_from_slice(&bytes);
            if short {
                return Err(Error::damaged(format!(
                    "{} ends at byte {} of {}",
                    self.key,
                    at + bytes.len() as u64,
                    self.len
                )));
            }
        }
        Ok(())
    }

    fn take(&mut self, n: usize) -> Bytes {
        self.offset += n as u64;
        self.buffer.split_to(n).freeze()
    }

    /// The next frame, its header parsed and its payload not yet checked; `None` at the end of the
    /// object.
    pub(crate) async fn next(&mut self) -> Result<Option<Scanned>> {
        self.need(FRAME_HEADER_LEN).await?;
        if self.buffer.is_empty() {
            return Ok(None);
        }
        let offset = self.offset;
        let key = self.key;
        let here = |e: Error| e.context(format!("{key} at byte {offset}"));
        let header = self
            .buffer
            .first_chunk()
            .ok_or_else(|| Error::damaged("a frame's header is cut off"))
            .and_then(FrameHeader::parse)
            .map_err(here)?;
        let frame_len = header.frame_len() as usize;
        self.need(frame_len).await?;
        if self.buffer.len() < frame_len {
            return Err(here(Error::damaged("a frame is cut off")));
        }
        let payload = self.take(frame_len).slice(FRAME_HEADER_LEN..);
        Ok(Some(Scanned { offset, header, payload }))
    }

    /// Goes on behind damage: to the next place where a frame seems to begin, or to the end.
    pub(crate) async fn resync(&mut self) -> Result<()> {
        let start = self.offset;
        loop {
            // The frame that could not be read begins where we stand at first.
            let from = usize::from(self.offset == start);
            if let Some(at) = FrameHeader::find(&self.buffer, from) {
                self.take(at);
                return Ok(());
            }
            // A header may begin in the last bytes and end behind them.
            let keep = self.buffer.len().min(FRAME_HEADER_LEN - 1);
            let at = self.buffer.len() - keep;
            self.take(at);
            let have = self.buffer.len();
            self.need(FRAME_HEADER_LEN + WINDOW as usize).await?;
            if self.buffer.len() == have {
                self.take(have);
                return Ok(());
            }
        }
    }

    /// Checks a frame's bytes and gives its content; of a delta, which means nothing without its base,
    /// the payload.
    pub(crate) async fn open_frame(&self, frame: Scanned) -> Result<Bytes> {
        let place = self.place.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let Scanned { offset, header, payload } = frame;
            if header.delta.is_some() {
                return unseal(&place, offset, &header, payload);
            }
            open(&place, offset, &header, payload)
        });
        opened.await.map_err(lost_task)?
    }

    /// Reads what is left and gives the SHA-256 of the object as hex.
    pub(crate) async fn finish(mut self) -> Result<String> {
        loop {
            let all = self.buffer.len();
            self.take(all);
            self.need(1).await?;
            if self.buffer.is_empty() {
                return self.digest.take().unwrap_or_else(Digesting::new).finish().await;
            }
        }
    }
}

/// An object that a backup refers to and the store does not have.
pub(crate) fn missing_object(key: &Key) -> Error {
    Error::damaged(format!("{key} is missing"))
}

/// Reads the content of an object that is one frame: a manifest or a record. `None` when there is no
/// such object.
pub(crate) async fn read_single(
    store: &Store,
    key: &Key,
    place: &Place,
    object: ObjectKind,
    kind: FrameKind,
    max_raw: u32,
) -> Result<Option<Bytes>> {
    let limit = OBJECT_HEADER_LEN as u64 + FRAME_HEADER_LEN as u64 + u64::from(max_raw);
    let Some(bytes) = store.get(key, limit).await? else {
        return Ok(None);
    };
    open_single(key, place, object, kind, &bytes).map(Some)
}

/// The content of an object that is one frame.
pub(crate) fn open_single(
    key: &Key,
    place: &Place,
    object: ObjectKind,
    kind: FrameKind,
    bytes: &Bytes,
) -> Result<Bytes> {
    place.check_object_header(object, bytes)?;
    let offset = OBJECT_HEADER_LEN as u64;
    let frame = bytes.slice(OBJECT_HEADER_LEN..);
    let header = frame
        .first_chunk()
        .ok_or_else(|| Error::damaged("its frame is cut off"))
        .and_then(FrameHeader::parse)
        .map_err(|e| e.context(key.to_string()))?;
    if header.kind != kind || frame.len() != header.frame_len() as usize {
        return Err(Error::damaged(format!("{key} is not one frame of its kind and nothing else")));
    }
    open(place, offset, &header, frame.slice(FRAME_HEADER_LEN..))
}

/// Reads the end frame of a pack or index of `len` bytes.
pub(crate) async fn read_end(
    shelf: &Shelf,
    key: &Key,
    place: &Place,
    len: u64,
) -> Result<EndOfObject> {
    let damaged = || Error::damaged(format!("{key} has no valid end"));
    let offset = len
        .checked_sub(END_FRAME_LEN as u64)
        .filter(|o| *o >= OBJECT_HEADER_LEN as u64)
        .ok_or_else(damaged)?;
    let frame = shelf.get_range(key, offset..len).await?.ok_or_else(|| missing_object(key))?;
    let header = frame
        .first_chunk()
        .ok_or_else(damaged)
        .and_then(FrameHeader::parse)
        .map_err(|e| e.context(key.to_string()))?;
    if header.kind != FrameKind::End || frame.len() != END_FRAME_LEN {
        return Err(damaged());
    }
    let end = EndOfObject::parse(&open(place, offset, &header, frame.slice(FRAME_HEADER_LEN..))?)?;
    if end.catalog < OBJECT_HEADER_LEN as u64 || end.catalog > offset {
        return Err(damaged());
    }
    Ok(end)
}

/// Whether an error tells of damage (and not of a store that failed or a version that is too old).
pub(crate) fn is_damage(error: &Error) -> bool {
    error.kind() == ErrorKind::Damaged
}
