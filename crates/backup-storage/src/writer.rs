//! One artifact being written: cut into units, compared with the base, digested, and what is new of it
//! handed to the packer.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use backup_core::{ArtifactInfo, ArtifactName, ArtifactWriter, Error, Layout, Result};
use bytes::{Bytes, BytesMut};
use tokio::task::JoinHandle;

use crate::base::{BaseArtifact, Copy, Found, Unit};
use crate::cut;
use crate::digesting::Digesting;
use crate::format::{End, MapPart, UnitHash, unit_hash};
use crate::mapping::Mapping;
use crate::packer::{Draft, FRAME_MAX, FRAME_TARGET, Packer, Placed};
use crate::sync::{lock, lost_task};

/// Shorter artifacts share frames; shorter blocks are collected.
pub(crate) const SMALL: usize = 64 << 10;
/// How many frames of one artifact may be on their way.
const AHEAD: usize = 4;
/// How many extents a line of the catalog holds at most.
const PART: usize = 4096;
/// How many runs of units may wait for the frame of one of them.
const WAITING: usize = 4096;
/// Streams are cut in pieces of this length.
pub(crate) const STREAM: usize = 512 << 10;
/// The longest attributes, in bytes of JSON.
const ATTRIBUTES: usize = 1 << 20;

pub(crate) struct Writer {
    packer: Arc<Packer>,
    layout: Layout,
    /// What the catalog will say next about the artifact.
    draft: Draft,
    buffer: BytesMut,
    bytes: u64,
    digest: Digesting,
    /// The same artifact in the base; `None` before it was looked for.
    base: Option<Option<BaseArtifact>>,
    /// How many units there were so far.
    units: u64,
    mapping: Mapping,
    /// Parts of the map that are stored, as far as there is a map.
    map: Vec<Copy>,
    /// Units in the order of the artifact whose place is not in the catalog yet.
    items: VecDeque<Item>,
    fresh: Fresh,
    jobs: VecDeque<JoinHandle<Result<Placed>>>,
    /// The number of the first of `jobs`.
    first_job: u64,
    /// A write is under way, or was given up.
    busy: bool,
    finished: bool,
}

/// Units that follow each other.
struct Item {
    units: u32,
    place: Place,
}

/// Where units are.
enum Place {
    /// In a frame of the base, with what that is a delta to.
    Known(Copy, Option<Copy>),
    /// In the frame that a job makes. `base` is what it may become a delta to.
    Coming { job: u64, raw_offset: u32, len: u32, base: Option<Copy> },
}

/// New units that wait until they are enough for a frame.
#[derive(Default)]
struct Fresh {
    /// Of earlier pieces, or from before a gap in this one.
    collected: BytesMut,
    /// What follows: a part of the piece that is looked at, not copied as long as it may come to be
    /// a frame by itself.
    range: Range<usize>,
    bases: Vec<Copy>,
}

impl Fresh {
    fn len(&self) -> usize {
        self.collected.len() + self.range.len()
    }

    /// Adds a part of `piece`.
    fn push(&mut self, piece: &Bytes, range: Range<usize>) {
        if self.range.is_empty() {
            self.range = range;
        } else if self.range.end == range.start {
            self.range.end = range.end;
        } else {
            self.collect(piece);
            self.range = range;
        }
    }

    /// Copies what is left in `piece`, so that it can go.
    fn collect(&mut self, piece: &Bytes) {
        if self.range.is_empty() {
            return;
        }
        if self.collected.is_empty() {
            // Of one size from the beginning: buffers that grow leave holes in the heap.
            self.collected = BytesMut::with_capacity(FRAME_TARGET);
        }
        self.collected.extend_from_slice(&piece[std::mem::take(&mut self.range)]);
    }

    /// Gives what there is, and how much memory it keeps.
    fn take(&mut self, piece: &Bytes) -> (Bytes, usize, Vec<Copy>) {
        let bases = std::mem::take(&mut self.bases);
        if self.collected.is_empty() {
            return (piece.slice(std::mem::take(&mut self.range)), piece.len(), bases);
        }
        self.collect(piece);
        let collected = std::mem::take(&mut self.collected);
        let held = collected.capacity();
        (collected.freeze(), held, bases)
    }
}

/// Gives the lengths of the units that bytes begin with.
type Cut = Box<dyn FnOnce(&[u8]) -> Vec<usize> + Send>;

impl Writer {
    pub(crate) fn new(packer: &Arc<Packer>, name: ArtifactName, layout: Layout) -> Result<Self> {
        if let Layout::Pages(size) = layout
            && !(size.is_power_of_two() && (512..=65_536).contains(&size))
        {
            return Err(Error::internal(format!("artifact {name} has pages of {size} bytes")));
        }
        packer.failed()?;
        if !lock(&packer.names).insert(name.clone()) {
            return Err(Error::internal(format!("artifact {name} is written twice")));
        }
        packer.unfinished.fetch_add(1, Ordering::Relaxed);
        Ok(Writer {
            packer: Arc::clone(packer),
            layout,
            draft: Draft::new(packer.next_id.fetch_add(1, Ordering::Relaxed), name),
            buffer: BytesMut::new(),
            bytes: 0,
            digest: Digesting::new(),
            base: None,
            units: 0,
            mapping: Mapping::default(),
            map: Vec::new(),
            items: VecDeque::new(),
            fresh: Fresh::default(),
            jobs: VecDeque::new(),
            first_job: 0,
            busy: false,
            finished: false,
        })
    }

    /// Collects bytes into pieces of `target`, and sends those on that are full.
    async fn collect(&mut self, mut bytes: Bytes, target: usize) -> Result<()> {
        while self.buffer.len() + bytes.len() >= target {
            let piece = if self.buffer.is_empty() {
                bytes.split_to(target)
            } else {
                let missing = target - self.buffer.len();
                self.keep(&bytes.split_to(missing), target);
                std::mem::take(&mut self.buffer).freeze()
            };
            self.piece(piece, false).await?;
        }
        self.keep(&bytes, target);
        Ok(())
    }

    /// Adds to what waits for more.
    fn keep(&mut self, bytes: &[u8], target: usize) {
        // Short artifacts have short buffers, all others one of full length from the beginning:
        // buffers that grow leave holes in the heap.
        if self.buffer.capacity() < target && self.buffer.len() + bytes.len() > SMALL {
            let mut buffer = BytesMut::with_capacity(target);
            buffer.extend_from_slice(&self.buffer);
            self.buffer = buffer;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Keeps a block together where it is neither too small nor too large for a frame.
    async fn block(&mut self, bytes: Bytes) -> Result<()> {
        let alone = (SMALL..=FRAME_MAX).contains(&bytes.len());
        if (alone || self.buffer.len() + bytes.len() > FRAME_TARGET) && !self.buffer.is_empty() {
            let piece = std::mem::take(&mut self.buffer).freeze();
            self.piece(piece, false).await?;
        }
        if alone { self.piece(bytes, false).await } else { self.collect(bytes, FRAME_TARGET).await }
    }

    /// Cuts a piece into units, digests it, and finds out what of it is new. `last` says that nothing
    /// follows. What may belong to a unit that goes on stays in the buffer.
    async fn piece(&mut self, mut piece: Bytes, last: bool) -> Result<()> {
        let cut: Cut = match self.layout {
            Layout::Blocks => Box::new(|piece| vec![piece.len()]),
            Layout::Pages(size) => {
                Box::new(move |piece| piece.chunks(size as usize).map(<[u8]>::len).collect())
            }
            Layout::Stream => {
                let chunker = self.packer.chunker.clone();
                Box::new(move |mut rest| {
                    std::iter::from_fn(|| {
                        let len = chunker.cut(rest, last).filter(|&len| len > 0)?;
                        rest = &rest[len..];
                        Some(len)
                    })
                    .collect()
                })
            }
        };
        let (lengths, hashes) = self.examine(piece.clone(), cut).await?;
        let rest = piece.split_off(lengths.iter().sum());
        // Goes on while the piece is compared, and the next one comes.
        self.digest.add(vec![piece.clone()], ()).await?;
        self.keep(&rest, STREAM);
        drop(rest);
        self.compare(&piece, &lengths, &hashes).await
    }

    /// Cuts and hashes on a thread that may be busy for long.
    async fn examine(&mut self, piece: Bytes, cut: Cut) -> Result<(Vec<usize>, Vec<UnitHash>)> {
        let task = tokio::task::spawn_blocking(move || {
            let lengths = cut(&piece);
            let mut rest = &piece[..];
            let hashes = lengths
                .iter()
                .map(|&len| {
                    let (unit, tail) = rest.split_at(len);
                    rest = tail;
                    unit_hash(unit)
                })
                .collect();
            (lengths, hashes)
        });
        task.await.map_err(lost_task)
    }

    fn given_up(&self) -> Error {
        Error::internal(format!(
            "artifact {} is written on after a write that was given up",
            self.draft.name
        ))
    }

    /// The same artifact in the base, if it can be compared with.
    async fn base(&mut self) -> Option<&mut BaseArtifact> {
        if self.base.is_none() {
            let found = match &self.packer.base {
                Some(base) => base.artifact(&self.draft.name).await,
                None => None,
            };
            self.base = Some(found);
        }
        self.base.as_mut()?.as_mut()
    }

    async fn compare(
        &mut self,
        piece: &Bytes,
        lengths: &[usize],
        hashes: &[UnitHash],
    ) -> Result<()> {
        let mut start = 0;
        for (&len, hash) in lengths.iter().zip(hashes) {
            let range = start..start + len;
            start += len;
            let found = self.find(hash).await;
            self.units += 1;
            self.mapping.add(*hash, len as u32);
            match found {
                Found::Same(Unit { copy, base, .. }) if copy.len as usize == len => {
                    self.known(piece, copy, base).await?;
                }
                Found::Same(_) | Found::Nothing => self.new_unit(piece, range, None).await?,
                Found::Changed(there) => {
                    let whole = there.base.unwrap_or(there.copy);
                    self.new_unit(piece, range, Some(whole)).await?;
                }
            }
        }
        // Enough for a frame of its own need not be copied.
        if self.fresh.collected.is_empty() && self.fresh.range.len() >= piece.len().max(STREAM) / 2
        {
            return self.flush(piece).await;
        }
        self.fresh.collect(piece);
        Ok(())
    }

    async fn find(&mut self, hash: &UnitHash) -> Found {
        let (layout, unit) = (self.layout, self.units);
        let Some(base) = self.base().await.filter(|base| base.layout() == layout) else {
            return Found::Nothing;
        };
        match layout {
            Layout::Pages(_) => match base.at(unit).await {
                Some(unit) if unit.hash == *hash => Found::Same(unit),
                Some(unit) => Found::Changed(unit),
                None => Found::Nothing,
            },
            Layout::Stream | Layout::Blocks => base.find(hash).await,
        }
    }

    /// Adds a unit that the base has.
    async fn known(&mut self, piece: &Bytes, copy: Copy, base: Option<Copy>) -> Result<()> {
        if self.items.is_empty() {
            return self.placed(1, copy, base).await;
        }
        if let Some(Item { units, place: Place::Known(last, last_base) }) = self.items.back_mut()
            && last.joins(&copy)
            && joined(last.len, last_base.as_mut(), copy.len, base.as_ref())
        {
            last.len += copy.len;
            *units += 1;
            return Ok(());
        }
        self.items.push_back(Item { units: 1, place: Place::Known(copy, base) });
        if self.items.len() > WAITING {
            self.flush(piece).await?;
            while !self.jobs.is_empty() {
                self.await_job().await?;
            }
        }
        Ok(())
    }

    /// Adds a unit that is new. `whole` is an earlier version of it.
    async fn new_unit(
        &mut self,
        piece: &Bytes,
        range: Range<usize>,
        whole: Option<Copy>,
    ) -> Result<()> {
        if self.fresh.len() + range.len() > FRAME_TARGET {
            self.flush(piece).await?;
        }
        // A base that is much longer than what it helps with is not worth reading.
        let useful = |base: &Copy| self.packer.deltas && base.len as usize <= 2 * range.len();
        let whole = whole.filter(useful);
        // A page without an earlier version, at the end of a file that grew, is not made part of a delta: the
        // next backup could not be compared with it.
        let mixed = self.fresh.len() > 0 && self.fresh.bases.is_empty() == whole.is_some();
        if mixed && matches!(self.layout, Layout::Pages(_)) {
            self.flush(piece).await?;
        }
        let raw_offset = self.fresh.len() as u32;
        let len32 = range.len() as u32;
        self.packer.new_bytes.fetch_add(u64::from(len32), Ordering::Relaxed);
        if let Some(base) = &whole {
            match self.fresh.bases.last_mut() {
                Some(last) if last.joins(base) => last.len += base.len,
                _ => self.fresh.bases.push(base.clone()),
            }
        }
        self.fresh.push(piece, range);
        let job = self.first_job + self.jobs.len() as u64;
        if let Some(Item { units, place: Place::Coming { job: last, len, base, .. } }) =
            self.items.back_mut()
            && *last == job
            && joined(*len, base.as_mut(), len32, whole.as_ref())
        {
            *len += len32;
            *units += 1;
        } else {
            let place = Place::Coming { job, raw_offset, len: len32, base: whole };
            self.items.push_back(Item { units: 1, place });
        }
        if self.fresh.len() >= FRAME_TARGET { self.flush(piece).await } else { Ok(()) }
    }

    /// Sends what is new on its way, as one frame.
    async fn flush(&mut self, piece: &Bytes) -> Result<()> {
        if self.fresh.len() == 0 {
            return Ok(());
        }
        while self.jobs.len() >= AHEAD {
            self.await_job().await?;
        }
        let (raw, held, bases) = self.fresh.take(piece);
        let job = self.packer.chunk(raw, held, bases).await?;
        self.jobs.push_back(job);
        Ok(())
    }

    /// Waits for the oldest frame on its way, and passes on what waited for it.
    async fn await_job(&mut self) -> Result<()> {
        let Some(job) = self.jobs.front_mut() else {
            return Ok(());
        };
        let placed = job.await.map_err(lost_task)??;
        let number = self.first_job;
        self.jobs.pop_front();
        self.first_job += 1;
        while let Some(item) = self.items.front() {
            if matches!(item.place, Place::Coming { job, .. } if job != number) {
                break;
            }
            let Some(Item { units, place }) = self.items.pop_front() else { break };
            match place {
                Place::Known(copy, base) => self.placed(units, copy, base).await?,
                Place::Coming { raw_offset, len, base, .. } => {
                    let copy = Copy { raw_offset, len, ..placed.copy.clone() };
                    self.placed(units, copy, base.filter(|_| placed.is_delta)).await?;
                }
            }
        }
        Ok(())
    }

    /// Takes note of where the next units are.
    async fn placed(&mut self, units: u32, copy: Copy, base: Option<Copy>) -> Result<()> {
        if let Some(base) = &base {
            // A delta of an earlier backup needs what it was made against, now as then.
            self.packer.uses(&base.at.backup, base.at.pack);
        }
        let full = self.mapping.place(units, copy.clone(), base);
        match self.draft.extents.last_mut() {
            Some(last) if last.joins(&copy) => last.len += copy.len,
            _ => {
                if self.draft.extents.len() == PART {
                    self.packer.line(&self.draft, None)?;
                    self.draft.extents.clear();
                    self.draft.seq += 1;
                }
                self.draft.extents.push(copy);
            }
        }
        for part in full {
            self.store_map(&part).await?;
        }
        Ok(())
    }

    /// Stores a part of the map, unless the base has the very same.
    async fn store_map(&mut self, part: &MapPart) -> Result<()> {
        let content = part.encode();
        let number = self.map.len();
        let same = match self.base().await {
            Some(base) => base.same_map(number, &content).await,
            None => None,
        };
        let copy = match same {
            Some(copy) => copy,
            None => self.packer.map(content.into()).await?,
        };
        self.map.push(copy);
        Ok(())
    }

    /// Ends an artifact that is too short for a frame of its own.
    async fn finish_small(&mut self, end: End) -> Result<()> {
        let bytes = self.buffer.split().freeze();
        if bytes.is_empty() {
            return self.packer.line(&self.draft, Some((&end, &[])));
        }
        let known = self.base().await.and_then(|base| base.same(&end.sha256, end.bytes));
        match known.filter(|copies| !copies.is_empty()) {
            Some(copies) => {
                self.draft.extents = copies;
                self.packer.line(&self.draft, Some((&end, &[])))
            }
            None => {
                self.packer.new_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                self.packer.share(&bytes, self.draft.clone(), end).await
            }
        }
    }

    async fn finish_large(&mut self, end: &End) -> Result<()> {
        self.flush(&Bytes::new()).await?;
        while !self.jobs.is_empty() {
            self.await_job().await?;
        }
        if let Some(part) = std::mem::take(&mut self.mapping).finish() {
            self.store_map(&part).await?;
        }
        self.packer.line(&self.draft, Some((end, &self.map)))
    }
}

/// Whether a unit and its base continue units and theirs; if so, the base grows.
fn joined(len: u32, base: Option<&mut Copy>, more: u32, more_base: Option<&Copy>) -> bool {
    match (base, more_base) {
        (None, None) => true,
        // Only units as long as their bases stand in one run: then each has its own at its place.
        (Some(a), Some(b)) if a.len == len && b.len == more && a.joins(b) => {
            a.len += b.len;
            true
        }
        _ => false,
    }
}

#[async_trait]
impl ArtifactWriter for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.packer.failed()?;
        if bytes.is_empty() {
            return Ok(());
        }
        if std::mem::replace(&mut self.busy, true) {
            return Err(self.given_up());
        }
        self.bytes += bytes.len() as u64;
        match self.layout {
            Layout::Blocks => self.block(bytes).await?,
            Layout::Pages(_) => self.collect(bytes, FRAME_TARGET).await?,
            Layout::Stream => self.collect(bytes, STREAM).await?,
        }
        self.busy = false;
        Ok(())
    }

    async fn finish(mut self: Box<Self>, attributes: serde_json::Value) -> Result<ArtifactInfo> {
        self.packer.failed()?;
        let length = serde_json::to_string(&attributes).map_or(usize::MAX, |json| json.len());
        if length > ATTRIBUTES {
            return Err(Error::internal(format!(
                "the attributes of artifact {} are longer than {ATTRIBUTES} bytes",
                self.draft.name
            )));
        }
        if self.busy {
            return Err(self.given_up());
        }
        let small = self.units == 0 && self.buffer.len() < SMALL;
        if small {
            self.digest.add_short(&self.buffer).await?;
        }
        while !small && !self.buffer.is_empty() {
            let piece = std::mem::take(&mut self.buffer).freeze();
            self.piece(piece, true).await?;
        }
        let info = ArtifactInfo {
            name: self.draft.name.clone(),
            bytes: self.bytes,
            sha256: std::mem::replace(&mut self.digest, Digesting::new()).finish().await?,
            layout: self.layout,
            attributes,
        };
        let end = End {
            layout: info.layout,
            bytes: info.bytes,
            sha256: info.sha256.clone(),
            map: Vec::new(),
            attributes: info.attributes.clone(),
        };
        if small {
            self.finish_small(end).await?;
        } else {
            self.finish_large(&end).await?;
        }
        self.finished = true;
        self.packer.artifacts.fetch_add(1, Ordering::Relaxed);
        self.packer.bytes.fetch_add(info.bytes, Ordering::Relaxed);
        Ok(info)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.packer.unfinished.fetch_sub(1, Ordering::Relaxed);
        if !self.finished {
            lock(&self.packer.names).remove(&self.draft.name);
        }
    }
}

const _: () = assert!(STREAM >= 2 * cut::MAX, "each piece of a stream has a chunk that is cut");
