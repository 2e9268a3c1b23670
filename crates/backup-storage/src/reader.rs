//! One artifact being read: fetched ahead, checked, decompressed, in order.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{ArtifactInfo, ArtifactReader, BackupId, Error, Result, ResultExt};
use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::digesting::Digesting;
use crate::format::{Extent, FrameKind};
use crate::frames::{FrameAt, WINDOW};
use crate::index::Line;
use crate::pieces::Pieces;
use crate::source::{Ahead, Opened};
use crate::sync::lost_task;

/// How many frames a batch is made of at most.
const FRAMES: usize = 16;
/// How many batches one reader fetches at once: each has steps that wait for each other (the store, the
/// slowest frame, bases of deltas), and the next ones fill the gaps.
const BATCHES: usize = 3;
/// How many extents a batch has at most.
const EXTENTS: usize = 2048;
/// Extents shorter than this are collected into pieces of up to [`PIECE`].
const SHORT: usize = 128 << 10;
const PIECE: usize = 1 << 20;
/// How many pieces wait for their consumer, besides the one that waits for its turn.
const PIECES: usize = 1;

pub(crate) struct Reader(Pieces<Bytes>);

impl Reader {
    pub(crate) fn start(source: Arc<Opened>, info: ArtifactInfo, parts: Vec<Line>) -> Self {
        Reader(Pieces::start(PIECES, |sender| {
            Producer::new(source, info, parts, Some(sender)).run()
        }))
    }
}

/// Reads an artifact to its end and compares it with its digest, and gives it to nobody.
///
/// # Errors
/// As a reader's.
pub(crate) async fn prove(source: Arc<Opened>, info: ArtifactInfo, parts: Vec<Line>) -> Result<()> {
    Producer::new(source, info, parts, None).run().await
}

#[async_trait]
impl ArtifactReader for Reader {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        self.0.next().await
    }
}

/// Fetches, checks and sends.
struct Producer {
    source: Arc<Opened>,
    info: ArtifactInfo,
    parts: VecDeque<Line>,
    sources: Vec<BackupId>,
    extents: VecDeque<Extent>,
    /// `None` where nobody wants more than to know that it is whole.
    sender: Option<mpsc::Sender<Result<Option<Bytes>>>>,
    /// Of what was handed out: whoever reads does not wait for it before the end.
    digest: Digesting,
    bytes: u64,
}

/// Extents that follow each other in the artifact, and the frames that hold them.
struct Batch {
    /// Each with the number of its frame.
    extents: Vec<(Extent, usize)>,
    /// Each with how much of it is used.
    frames: Vec<(FrameAt, u32)>,
    ahead: Option<Ahead>,
}

/// How much memory the next batch may take.
#[derive(Clone, Copy)]
enum Memory {
    /// What can be reserved; where that is nothing, one frame all the same, or no reader would get
    /// on.
    AtLeastOneFrame,
    /// Only what can be reserved.
    Reserved,
}

type Fetch = AbortOnDropHandle<Result<(Batch, Vec<Bytes>)>>;

impl Producer {
    fn new(
        source: Arc<Opened>,
        info: ArtifactInfo,
        parts: Vec<Line>,
        sender: Option<mpsc::Sender<Result<Option<Bytes>>>>,
    ) -> Self {
        Producer {
            source,
            info,
            parts: parts.into(),
            sources: Vec::new(),
            extents: VecDeque::new(),
            sender,
            digest: Digesting::new(),
            bytes: 0,
        }
    }

    /// Fetches the frames of a batch in the background.
    fn fetch(&self, batch: Batch) -> Fetch {
        let source = Arc::clone(&self.source);
        AbortOnDropHandle::new(tokio::spawn(async move {
            let contents = source.frames.get(&batch.frames, FrameKind::Data).await?;
            Ok((batch, contents))
        }))
    }

    async fn run(mut self) -> Result<()> {
        let name = self.info.name.clone();
        self.read().await.context(|| format!("artifact {name} cannot be read"))
    }

    async fn read(&mut self) -> Result<()> {
        let mut fetching: VecDeque<Fetch> = VecDeque::new();
        loop {
            if fetching.is_empty() {
                match self.next_batch(Memory::AtLeastOneFrame).await? {
                    Some(batch) => fetching.push_back(self.fetch(batch)),
                    None => break,
                }
            }
            // Others come while this one is waited for and used, where there is memory for them.
            while fetching.len() < BATCHES {
                match self.next_batch(Memory::Reserved).await? {
                    Some(batch) => fetching.push_back(self.fetch(batch)),
                    None => break,
                }
            }
            let Some(next) = fetching.pop_front() else { break };
            let (batch, contents) = next.await.map_err(lost_task)??;
            let pieces = self.pieces(&batch, &contents)?;
            let Some(sender) = &self.sender else {
                self.source.cx.check()?;
                self.digest.add(pieces, batch.ahead).await?;
                continue;
            };
            self.digest.add(pieces.clone(), batch.ahead).await?;
            for piece in pieces {
                self.source.cx.check()?;
                if sender.send(Ok(Some(piece))).await.is_err() {
                    // The consumer went away.
                    return Ok(());
                }
            }
        }
        let sha256 = std::mem::replace(&mut self.digest, Digesting::new()).finish().await?;
        if self.bytes != self.info.bytes || sha256 != self.info.sha256 {
            return Err(Error::damaged(format!(
                "its {} bytes do not match the digest of the {} bytes that were backed up",
                self.bytes, self.info.bytes
            )));
        }
        Ok(())
    }

    /// What a batch holds of the artifact, in pieces that are worth handing out, where they are.
    fn pieces(&mut self, batch: &Batch, contents: &[Bytes]) -> Result<Vec<Bytes>> {
        let short = if self.sender.is_some() { SHORT } else { 0 };
        let mut pieces = Vec::new();
        let mut collected = BytesMut::new();
        for (extent, frame) in &batch.extents {
            let content = &contents[*frame];
            let end = extent.raw_offset as usize + extent.len as usize;
            if content.len() < end {
                let at = &batch.frames[*frame].0;
                return Err(Error::damaged(format!(
                    "pack-{} of {}: the frame at byte {} holds less than the index says",
                    at.pack, at.backup, at.offset
                )));
            }
            let piece = content.slice(extent.raw_offset as usize..end);
            self.bytes += piece.len() as u64;
            if !collected.is_empty() && (piece.len() >= short || collected.len() >= PIECE) {
                pieces.push(collected.split().freeze());
            }
            if piece.len() >= short {
                pieces.push(piece);
            } else {
                collected.extend_from_slice(&piece);
            }
        }
        if !collected.is_empty() {
            pieces.push(collected.freeze());
        }
        Ok(pieces)
    }

    /// Takes the next extents; `None` when there are no more, or no memory for more.
    async fn next_batch(&mut self, memory: Memory) -> Result<Option<Batch>> {
        while self.extents.is_empty() {
            let Some(line) = self.parts.pop_front() else {
                return Ok(None);
            };
            let entry = self.source.catalog.entry(line).await?;
            self.sources = entry.sources;
            self.extents = entry.extents.into();
        }
        let mut batch = Batch { extents: Vec::new(), frames: Vec::new(), ahead: None };
        // What the frames take as they are stored, and what is used of their content.
        let (mut stored, mut content) = (0, 0);
        while let Some(extent) = self.extents.front() {
            let backup = match extent.source {
                0 => self.source.backup(),
                n => &self.sources[n as usize - 1],
            };
            let at = FrameAt::of(backup, extent);
            let frame = batch.frames.iter().rposition(|(frame, _)| *frame == at);
            let more = u64::from(extent.frame_len);
            let fits = batch.extents.is_empty()
                || (content + u64::from(extent.len) <= WINDOW
                    && batch.extents.len() < EXTENTS
                    && (frame.is_some()
                        || (batch.frames.len() < FRAMES && stored + more <= WINDOW)));
            if !fits {
                break;
            }
            let frame = frame.unwrap_or_else(|| {
                batch.frames.push((at, 0));
                stored += more;
                batch.frames.len() - 1
            });
            batch.frames[frame].1 = batch.frames[frame].1.saturating_add(extent.len);
            content += u64::from(extent.len);
            batch.extents.push((*extent, frame));
            self.extents.pop_front();
        }
        let needed = stored + content;
        batch.ahead = self.source.try_ahead(usize::try_from(needed).unwrap_or(usize::MAX));
        if batch.ahead.is_none() {
            let kept = match memory {
                Memory::AtLeastOneFrame => 1,
                Memory::Reserved => 0,
            };
            for (extent, _) in batch.extents.drain(kept..).rev() {
                self.extents.push_front(extent);
            }
            batch.frames.truncate(kept);
        }
        Ok((!batch.extents.is_empty()).then_some(batch))
    }
}
