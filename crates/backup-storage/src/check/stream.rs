//! Artifacts, digested while the packs go by: what a pass reads is read once.
//!
//! An artifact whose bytes come in the order of the packs is proven on the way. Any other (its bytes
//! stand in packs of other backups, are deltas, come far out of order, or are damaged) is left to a
//! reader, which says what is wrong with it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use backup_core::{Context, Result};
use sha2::{Digest, Sha256};

use super::pack::{Pass, Segment};
use crate::format::{Extent, hex};
use crate::source::Opened;
use crate::sync::{lock, lost_task};

/// How many segments are kept: bytes that were written at the same time come a little out of order.
const KEPT: usize = 4;
/// How many extents of artifacts that have begun are kept in memory.
const EXTENTS: usize = 500_000;

/// Where a frame begins: unit, offset.
type At = (usize, u64);
/// Which of the index's artifacts. There may be millions of names, and the index has them.
type Number = u32;

/// An artifact that waits for its next frame.
enum Waiting {
    /// Nothing of it went by yet.
    Start(Number),
    Begun(Box<Cursor>),
}

/// An artifact of which a part went by.
struct Cursor {
    number: Number,
    /// The next part of its list of extents.
    part: usize,
    extents: VecDeque<Extent>,
    digest: Sha256,
    bytes: u64,
}

/// How far a cursor came.
enum Step {
    /// Its extents are used up.
    Part(Box<Cursor>),
    /// Its next frame is not among those that are kept.
    Wait(At, Box<Cursor>),
    /// It is for a reader.
    Odd(Number),
}

/// Proves artifacts as the segments of a pass go by. Gives those that are left for a reader.
pub(super) async fn prove(
    cx: &Context,
    source: &Opened,
    pass: &mut Pass,
    order: Vec<Number>,
) -> Result<Vec<Number>> {
    let mut stream = Stream { cx, source, waiting: BTreeMap::new(), odd: Vec::new(), held: 0 };
    for number in order {
        cx.check()?;
        stream.begin(number).await?;
    }
    let mut kept: VecDeque<Arc<Segment>> = VecDeque::new();
    while let Some(segment) = pass.segments.recv().await {
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Arc::new(segment));
        stream.go(&kept).await?;
    }
    let left = std::mem::take(&mut stream.waiting).into_values().flatten();
    stream.odd.extend(left.map(|waiting| match waiting {
        Waiting::Start(number) => number,
        Waiting::Begun(cursor) => cursor.number,
    }));
    Ok(stream.odd)
}

struct Stream<'a> {
    cx: &'a Context,
    source: &'a Opened,
    waiting: BTreeMap<At, Vec<Waiting>>,
    odd: Vec<Number>,
    /// Extents in memory.
    held: usize,
}

impl Stream<'_> {
    /// Finds out where an artifact begins.
    async fn begin(&mut self, number: Number) -> Result<()> {
        let Some(line) = self.source.artifact(number).parts.first().copied() else {
            self.odd.push(number);
            return Ok(());
        };
        let entry = self.source.catalog.entry(line).await?;
        match entry.extents.first() {
            Some(extent) if extent.source == 0 => {
                let at = (extent.pack as usize, extent.offset);
                self.waiting.entry(at).or_default().push(Waiting::Start(number));
            }
            // Without bytes, or in another backup.
            _ => self.odd.push(number),
        }
        Ok(())
    }

    /// Goes on with every artifact that finds its next bytes in what is kept.
    async fn go(&mut self, kept: &VecDeque<Arc<Segment>>) -> Result<()> {
        let Some(newest) = kept.back() else { return Ok(()) };
        let end = (newest.unit, newest.end);
        loop {
            self.cx.check()?;
            // What waits for a place that went by long ago waits in vain; advancing finds that out.
            let later = self.waiting.split_off(&end);
            let ready: Vec<Waiting> =
                std::mem::replace(&mut self.waiting, later).into_values().flatten().collect();
            if ready.is_empty() {
                return Ok(());
            }
            let mut cursors = Vec::with_capacity(ready.len());
            for waiting in ready {
                let cursor = match waiting {
                    Waiting::Begun(cursor) => Some(cursor),
                    Waiting::Start(number) => self.next_part(Cursor::new(number)).await?,
                };
                cursors.extend(cursor);
            }
            for step in advance_all(self.cx, cursors, kept).await? {
                match step {
                    Step::Odd(number) => self.odd.push(number),
                    Step::Wait(at, cursor) => self.wait(at, cursor),
                    Step::Part(cursor) => {
                        if let Some(cursor) = self.next_part(*cursor).await?
                            && let Some(first) = cursor.extents.front()
                        {
                            let at = (first.pack as usize, first.offset);
                            self.wait(at, cursor);
                        }
                    }
                }
            }
            self.held = self.waiting.values().flatten().map(Waiting::held).sum();
        }
    }

    fn wait(&mut self, at: At, cursor: Box<Cursor>) {
        self.held += cursor.extents.len();
        if self.held > EXTENTS {
            self.odd.push(cursor.number);
        } else {
            self.waiting.entry(at).or_default().push(Waiting::Begun(cursor));
        }
    }

    /// Gives a cursor its next extents; `None` when it is at its end, proven or not.
    async fn next_part(&mut self, mut cursor: Cursor) -> Result<Option<Box<Cursor>>> {
        loop {
            let line = self.source.artifact(cursor.number).parts.get(cursor.part).copied();
            let Some(line) = line else {
                let info = &self.source.artifact(cursor.number).info;
                let sha256 = hex(&cursor.digest.finalize());
                if info.bytes != cursor.bytes || info.sha256 != sha256 {
                    self.odd.push(cursor.number);
                }
                return Ok(None);
            };
            cursor.part += 1;
            let entry = self.source.catalog.entry(line).await?;
            if entry.extents.iter().any(|extent| extent.source != 0) {
                self.odd.push(cursor.number);
                return Ok(None);
            }
            if !entry.extents.is_empty() {
                cursor.extents = entry.extents.into();
                return Ok(Some(Box::new(cursor)));
            }
        }
    }
}

impl Waiting {
    fn held(&self) -> usize {
        match self {
            Waiting::Start(_) => 0,
            Waiting::Begun(cursor) => cursor.extents.len(),
        }
    }
}

/// Advances cursors on all cores.
#[expect(clippy::vec_box, reason = "they come boxed and go boxed: a cursor is long")]
async fn advance_all(
    cx: &Context,
    cursors: Vec<Box<Cursor>>,
    kept: &VecDeque<Arc<Segment>>,
) -> Result<Vec<Step>> {
    let workers = cx.threads().min(cursors.len());
    let queue = Arc::new(Mutex::new(cursors.into_iter()));
    let jobs: Vec<_> = (0..workers)
        .map(|_| {
            let (queue, kept) = (Arc::clone(&queue), kept.clone());
            tokio::task::spawn_blocking(move || {
                let mut steps = Vec::new();
                loop {
                    let Some(cursor) = lock(&queue).next() else { return steps };
                    steps.push(cursor.advance(&kept));
                }
            })
        })
        .collect();
    let mut steps = Vec::new();
    for job in jobs {
        steps.extend(job.await.map_err(lost_task)?);
    }
    Ok(steps)
}

impl Cursor {
    fn new(number: Number) -> Self {
        let digest = Sha256::new();
        Cursor { number, part: 0, extents: VecDeque::new(), digest, bytes: 0 }
    }

    /// Digests what is there of the bytes that come next.
    fn advance(mut self: Box<Self>, kept: &VecDeque<Arc<Segment>>) -> Step {
        let newest = kept.back().map_or((0, 0), |segment| (segment.unit, segment.end));
        while let Some(extent) = self.extents.front() {
            let at = (extent.pack as usize, extent.offset);
            if at >= newest {
                return Step::Wait(at, self);
            }
            let content = kept
                .iter()
                .rev()
                .filter(|segment| segment.unit == at.0)
                .find_map(|segment| segment.frames.get(&at.1));
            let range = extent.raw_offset as usize..(extent.raw_offset + extent.len) as usize;
            let piece = content
                .filter(|c| c.frame_len == extent.frame_len && c.check == extent.check)
                .and_then(|c| c.raw.get(range));
            let Some(piece) = piece else {
                return Step::Odd(self.number);
            };
            self.digest.update(piece);
            self.bytes += piece.len() as u64;
            self.extents.pop_front();
        }
        Step::Part(self)
    }
}
