//! One artifact being read: fetched ahead, checked, decompressed, in order.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{ArtifactInfo, ArtifactReader, BackupId, Error, Result, ResultExt};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::format::{Extent, FrameKind, hex};
use crate::index::Line;
use crate::key::Key;
use crate::packer::lost_task;
use crate::scan::is_damage;
use crate::source::{Ahead, Opened, decode};

/// How much is asked of the store at once.
const WINDOW: u64 = 4 << 20;
/// Bytes of other artifacts that are read and dropped rather than asked around.
const GAP: u64 = 256 << 10;
/// How many pieces wait for their consumer, besides the one that waits for its turn.
const PIECES: usize = 1;

pub(crate) struct Reader {
    /// `None` after the last piece or an error was given out.
    pieces: Option<mpsc::Receiver<Result<Option<Bytes>>>>,
    /// Whether the end was reached with every digest right.
    whole: bool,
    _work: AbortOnDropHandle<()>,
}

impl Reader {
    pub(crate) fn start(source: Arc<Opened>, info: ArtifactInfo, parts: Vec<Line>) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES);
        let work = tokio::spawn(async move {
            let name = info.name.clone();
            let mut producer = Producer {
                source,
                info,
                parts: parts.into(),
                sources: Vec::new(),
                extents: VecDeque::new(),
                sender,
            };
            let result = producer.run().await.context(|| format!("artifact {name} cannot be read"));
            // Nobody listens any more only when the reader was dropped.
            let _ = producer.sender.send(result.map(|()| None)).await;
        });
        Reader { pieces: Some(pieces), whole: false, _work: AbortOnDropHandle::new(work) }
    }
}

#[async_trait]
impl ArtifactReader for Reader {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        let ended = || Error::internal("the reader of an artifact ended early");
        let Some(pieces) = &mut self.pieces else {
            return if self.whole { Ok(None) } else { Err(ended()) };
        };
        let next = pieces.recv().await.unwrap_or_else(|| Err(ended()));
        if !matches!(next, Ok(Some(_))) {
            self.whole = next.is_ok();
            self.pieces = None;
        }
        next
    }
}

/// Fetches, checks and sends.
struct Producer {
    source: Arc<Opened>,
    info: ArtifactInfo,
    parts: VecDeque<Line>,
    sources: Vec<BackupId>,
    extents: VecDeque<Extent>,
    sender: mpsc::Sender<Result<Option<Bytes>>>,
}

/// Extents whose frames stand close together, and the bytes that hold them.
struct Group {
    key: Key,
    start: u64,
    end: u64,
    extents: Vec<Extent>,
    _ahead: Option<Ahead>,
}

/// How much memory the next group may take.
#[derive(Clone, Copy)]
enum Memory {
    /// What can be reserved; where that is nothing, one frame all the same, or no reader would get
    /// on.
    AtLeastOneFrame,
    /// Only what can be reserved.
    Reserved,
}

/// Tells whether anybody still wants the pieces.
enum Wanted {
    Yes,
    No,
}

impl Producer {
    async fn run(&mut self) -> Result<()> {
        let mut digest = Sha256::new();
        let mut bytes = 0;
        let mut fetching: Option<Fetch> = None;
        loop {
            let (group, data) = match fetching.take() {
                Some(fetch) => fetch.await.map_err(lost_task)??,
                None => match self.next_group(Memory::AtLeastOneFrame).await? {
                    Some(group) => fetch(Arc::clone(&self.source), group).await?,
                    None => break,
                },
            };
            // The next group comes while this one is decoded, where there is memory for both.
            fetching = self.next_group(Memory::Reserved).await?.map(|group| {
                AbortOnDropHandle::new(tokio::spawn(fetch(Arc::clone(&self.source), group)))
            });
            for extent in &group.extents {
                self.source.cx.check()?;
                let (piece, updated) = self.piece(&group, &data, extent, digest).await?;
                digest = updated;
                bytes += piece.len() as u64;
                if let Wanted::No = self.send(piece).await {
                    return Ok(());
                }
            }
        }
        let sha256 = hex(&digest.finalize());
        if bytes != self.info.bytes || sha256 != self.info.sha256 {
            return Err(Error::damaged(format!(
                "its {bytes} bytes do not match the digest of the {} bytes that were backed up",
                self.info.bytes
            )));
        }
        Ok(())
    }

    async fn send(&self, piece: Bytes) -> Wanted {
        match self.sender.send(Ok(Some(piece))).await {
            Ok(()) => Wanted::Yes,
            Err(_) => Wanted::No,
        }
    }

    /// Checks and decompresses one extent's frame, and digests the bytes of the extent.
    async fn piece(
        &self,
        group: &Group,
        data: &Data,
        extent: &Extent,
        digest: Sha256,
    ) -> Result<(Bytes, Sha256)> {
        // Where copies may stand in for a damaged frame.
        let before = (!self.source.repo.copies().is_empty()).then(|| digest.clone());
        let error = match (self.decoded(group, data, extent, digest).await, before) {
            (Err(e), Some(digest)) if is_damage(&e) => (e, digest),
            (result, _) => return result,
        };
        let (error, digest) = error;
        let range = extent.offset..extent.offset + u64::from(extent.frame_len);
        let (key, kind) = (&group.key, FrameKind::Data);
        let raw = self.source.frame_of_copy(key, range, kind, Some(extent), error).await?;
        self.decoded(group, &Data::Content(raw), extent, digest).await
    }

    async fn decoded(
        &self,
        group: &Group,
        data: &Data,
        extent: &Extent,
        mut digest: Sha256,
    ) -> Result<(Bytes, Sha256)> {
        let place = self.source.place(&group.key);
        let (data, start, extent) = (data.clone(), group.start, *extent);
        let (decoded, piece, digest) = tokio::task::spawn_blocking(move || {
            let (raw, decoded) = match data {
                Data::Content(raw) => (raw, None),
                Data::Frames(bytes) => {
                    let from = usize::try_from(extent.offset - start).unwrap_or(usize::MAX);
                    let to = from.saturating_add(extent.frame_len as usize).min(bytes.len());
                    // Where the object ended early, what is left is too short for its frame.
                    let frame = bytes.slice(from.min(to)..to);
                    let raw =
                        decode(&place, extent.offset, &frame, FrameKind::Data, Some(&extent))?;
                    (raw.clone(), Some(raw))
                }
            };
            let end = extent.raw_offset as usize + extent.len as usize;
            if raw.len() < end {
                return Err(Error::damaged(format!(
                    "{}: the frame at byte {} holds less than the index says",
                    place.path(),
                    extent.offset
                )));
            }
            let piece = raw.slice(extent.raw_offset as usize..end);
            digest.update(&piece);
            Ok((decoded, piece, digest))
        })
        .await
        .map_err(lost_task)??;
        if let Some(raw) = decoded.filter(|raw| piece.len() < raw.len()) {
            // Other artifacts have their bytes in the same frame.
            self.source.keep(group.key.clone(), extent.offset, raw);
        }
        Ok((piece, digest))
    }

    /// Takes the next group of extents; `None` when there is no more, or no memory for more.
    async fn next_group(&mut self, memory: Memory) -> Result<Option<Group>> {
        while self.extents.is_empty() {
            let Some(line) = self.parts.pop_front() else {
                return Ok(None);
            };
            let entry = self.source.entry(line).await?;
            self.sources = entry.sources;
            self.extents = entry.extents.into();
        }
        let mut extents = Vec::new();
        let mut end = 0;
        // As much as a window allows.
        while let Some(extent) = self.extents.front() {
            let first = extents.first().unwrap_or(extent);
            let fits = extents.is_empty()
                || (extent.source == first.source
                    && extent.pack == first.pack
                    && extent.offset >= end
                    && extent.offset - end <= GAP
                    && extent.offset + u64::from(extent.frame_len) - first.offset <= WINDOW);
            if !fits {
                break;
            }
            end = extent.offset + u64::from(extent.frame_len);
            extents.push(*extent);
            self.extents.pop_front();
        }
        let first = extents[0];
        let ahead =
            self.source.try_ahead(usize::try_from(end - first.offset).unwrap_or(usize::MAX));
        if ahead.is_none() {
            let kept = match memory {
                Memory::AtLeastOneFrame => 1,
                Memory::Reserved => 0,
            };
            for extent in extents.drain(kept..).rev() {
                self.extents.push_front(extent);
            }
            if extents.is_empty() {
                return Ok(None);
            }
            end = first.offset + u64::from(first.frame_len);
        }
        let backup = match first.source {
            0 => None,
            n => Some(&self.sources[n as usize - 1]),
        };
        Ok(Some(Group {
            key: self.source.pack(backup, first.pack),
            start: first.offset,
            end,
            extents,
            _ahead: ahead,
        }))
    }
}

type Fetch = AbortOnDropHandle<Result<(Group, Data)>>;

/// What was fetched for a group.
#[derive(Clone)]
enum Data {
    /// The bytes from the group's start to its end, as far as the object has them.
    Frames(Bytes),
    /// What the group's only frame holds: another reader wanted it a moment ago.
    Content(Bytes),
}

async fn fetch(source: Arc<Opened>, group: Group) -> Result<(Group, Data)> {
    let cached = match group.extents.len() {
        1 => source.cached(&group.key, group.start),
        _ => None,
    };
    let data = match cached {
        Some(raw) => Data::Content(raw),
        None => Data::Frames(source.fetch(&group.key, group.start..group.end).await?),
    };
    Ok((group, data))
}
