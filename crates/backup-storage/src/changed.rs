//! One artifact being read where an older state of it differs, by its map: pages that are the same are neither
//! fetched nor decoded.
//!
//! A delta is made against what stood there before, and that is what the older state most likely has: it
//! is tried first, and the hash of each unit tells whether it was right.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{
    ArtifactInfo, ArtifactName, ChangedReader, Error, ErrorKind, Older, Result, ResultExt, io_error,
};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::base::Unit;
use crate::format::{BasePart, Delta, FrameKind, MapPart, unit_hash};
use crate::frames::{FrameAt, Shortcut, WINDOW};
use crate::part::Part;
use crate::pieces::Pieces;
use crate::source::Opened;
use crate::sync::lost_task;

/// How many bytes of units one thread compares before another may have its turn.
const JOB: u64 = 8 << 20;
/// How much of the older state is read at once, unless a unit is longer.
const READ: usize = 1 << 20;
/// How many frames are fetched at once at most.
const FRAMES: usize = 16;
/// Bytes that follow each other are given out together up to this.
const PIECE: usize = 1 << 20;
/// How many pieces wait for their consumer.
const PIECES: usize = 4;

type Piece = (u64, Bytes);

pub(crate) struct Changed {
    pieces: Pieces<Piece>,
    bytes: u64,
}

impl Changed {
    /// Compares with the parts of the map that stand in the frames `map`.
    pub(crate) fn start(
        source: Arc<Opened>,
        info: ArtifactInfo,
        map: Vec<FrameAt>,
        older: Arc<dyn Older>,
    ) -> Self {
        let bytes = info.bytes;
        let pieces = Pieces::start(PIECES, |sender| async move {
            let name = info.name.clone();
            let result = Compare { source, info, older, sender }.run(map).await;
            result.context(|| format!("artifact {name} cannot be compared"))
        });
        Changed { pieces, bytes }
    }
}

#[async_trait]
impl ChangedReader for Changed {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    async fn next(&mut self) -> Result<Option<Piece>> {
        self.pieces.next().await
    }
}

/// Compares, fetches, checks and sends.
struct Compare {
    source: Arc<Opened>,
    info: ArtifactInfo,
    older: Arc<dyn Older>,
    sender: mpsc::Sender<Result<Option<Piece>>>,
}

/// A part of the map, and the numbers of those of its units that differ.
type Compared = (Arc<Part>, Vec<u32>);

impl Compare {
    async fn run(&self, map: Vec<FrameAt>) -> Result<()> {
        // While one part is fetched, the next is compared.
        let mut parts = stream::iter(map).map(|at| self.compare(at)).buffered(2);
        let mut end = 0;
        while let Some((part, changed)) = parts.try_next().await? {
            if part.map.start != end {
                return Err(Error::damaged("the parts of its map do not follow each other"));
            }
            end += part.bytes();
            if !self.send(&part, &changed).await? {
                return Ok(());
            }
        }
        if end != self.info.bytes {
            return Err(Error::damaged(format!(
                "its map is of {end} bytes, and it has {}",
                self.info.bytes
            )));
        }
        Ok(())
    }

    /// Reads a part of the map, and the older state of what it is of.
    async fn compare(&self, at: FrameAt) -> Result<Compared> {
        let content = self.source.frames.get(&[(at, u32::MAX)], FrameKind::Map).await?.pop();
        let content = content.ok_or_else(|| Error::internal("a part of a map was not read"))?;
        let layout = self.info.layout;
        let parse = move || MapPart::parse(&content).map(|map| Part::new(map, layout));
        let part = tokio::task::spawn_blocking(parse).await.map_err(lost_task)??;
        // What is there is read only where the artifact has something.
        if part.start(part.map.hashes.len() as u32) > self.info.bytes {
            return Err(Error::damaged("a part of its map lies behind its end"));
        }
        let part = Arc::new(part);
        let jobs = stream::iter(jobs(&part)).map(|units| {
            let (part, older) = (Arc::clone(&part), Arc::clone(&self.older));
            let workers = Arc::clone(self.source.frames.workers());
            async move {
                self.source.cx.check()?;
                let worker = workers.acquire_owned().await;
                let work = tokio::task::spawn_blocking(move || {
                    let changed = differing(&part, units, &*older);
                    drop(worker);
                    changed
                });
                AbortOnDropHandle::new(work).await.map_err(lost_task)?
            }
        });
        let at_once = self.source.cx.threads();
        let changed: Vec<Vec<u32>> = jobs.buffered(at_once).try_collect().await?;
        Ok((part, changed.concat()))
    }

    /// Gives out the units of a part that differ. `false`: nobody wants them any more.
    async fn send(&self, part: &Arc<Part>, changed: &[u32]) -> Result<bool> {
        let near = Arc::new(Near {
            places: places(part),
            part: Arc::clone(part),
            older: Arc::clone(&self.older),
        });
        let mut batches = stream::iter(batches(part, changed)?)
            .map(|batch| self.fetch(Arc::clone(&near), batch))
            .buffered(2);
        while let Some(pieces) = batches.try_next().await? {
            for piece in pieces {
                if self.sender.send(Ok(Some(piece))).await.is_err() {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    async fn fetch(&self, near: Arc<Near>, batch: Batch) -> Result<Vec<Piece>> {
        self.source.cx.check()?;
        let Batch { units, frames } = batch;
        // Without it, too: what is reserved for reading ahead may be taken by whoever waits for this.
        let content: usize = units.iter().map(|(_, unit, _)| unit.copy.len as usize).sum();
        let _memory = self.source.try_ahead(2 * content);
        let units = Arc::new(units);
        let shortcut: Shortcut = Arc::new({
            let (units, near) = (Arc::clone(&units), Arc::clone(&near));
            move |number: usize, delta: &Delta| near.content(&units, number, delta)
        });
        let contents =
            self.source.frames.get_near(&frames, FrameKind::Data, Some(&shortcut)).await?;
        let work = move || {
            let mut pieces: Vec<(u64, BytesMut)> = Vec::new();
            for (number, unit, frame) in &*units {
                let bytes = unit.of(&contents[*frame]).ok_or_else(|| {
                    let at = &unit.copy.at;
                    Error::damaged(format!(
                        "pack-{} of {}: the frame at byte {} does not hold what the map says",
                        at.pack, at.backup, at.offset
                    ))
                })?;
                let start = near.part.start(*number);
                match pieces.last_mut() {
                    Some((from, piece))
                        if *from + piece.len() as u64 == start && piece.len() < PIECE =>
                    {
                        piece.extend_from_slice(bytes);
                    }
                    _ => pieces.push((start, BytesMut::from(bytes))),
                }
            }
            Ok(pieces.into_iter().map(|(from, piece)| (from, piece.freeze())).collect())
        };
        tokio::task::spawn_blocking(work).await.map_err(lost_task)?
    }
}

/// Cuts the units of a part into what one thread compares.
fn jobs(part: &Part) -> Vec<Range<u32>> {
    let mut jobs = Vec::new();
    let count = part.map.hashes.len() as u32;
    let mut first = 0;
    for number in 0..count {
        if part.start(number + 1) - part.start(first) >= JOB || number + 1 == count {
            jobs.push(first..number + 1);
            first = number + 1;
        }
    }
    jobs
}

/// The numbers of those units that the older state does not have.
fn differing(part: &Part, units: Range<u32>, older: &dyn Older) -> Result<Vec<u32>> {
    let mut changed = Vec::new();
    let mut buffer = Vec::new();
    let mut units = units.peekable();
    while let Some(first) = units.next() {
        let start = part.start(first);
        let mut last = first;
        while let Some(next) = units.next_if(|&next| part.start(next + 1) - start <= READ as u64) {
            last = next;
        }
        buffer.resize((part.start(last + 1) - start) as usize, 0);
        let there = read(older, start, &mut buffer)?;
        for number in first..=last {
            let from = (part.start(number) - start) as usize;
            let to = (part.start(number + 1) - start) as usize;
            let same = to <= there
                && part.map.hashes.get(number as usize) == Some(&unit_hash(&buffer[from..to]));
            if !same {
                changed.push(number);
            }
        }
    }
    Ok(changed)
}

/// Fills `bytes` as far as there is something.
fn read(older: &dyn Older, offset: u64, bytes: &mut [u8]) -> Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        let more = older.read_at(offset + done as u64, &mut bytes[done..]);
        match more {
            Ok(0) => break,
            Ok(more) => done += more.min(bytes.len() - done),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => {
                return Err(io_error(e, ErrorKind::Target, "what is there cannot be read"));
            }
        }
    }
    Ok(done)
}

/// Units that are fetched together.
struct Batch {
    /// Each with its number in the part, and the number of its frame.
    units: Vec<(u32, Unit, usize)>,
    /// Each with how much of it is used.
    frames: Vec<(FrameAt, u32)>,
}

fn batches(part: &Part, changed: &[u32]) -> Result<Vec<Batch>> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut bytes = 0;
    for &number in changed {
        let unit = part
            .unit(number)
            .ok_or_else(|| Error::damaged("a part of its map does not say where a page is"))?;
        let len = unit.copy.len;
        let fits = batches.last().is_some_and(|batch| {
            bytes + u64::from(len) <= WINDOW
                && (batch.frames.len() < FRAMES
                    || batch.frames.iter().any(|(at, _)| *at == unit.copy.at))
        });
        if !fits {
            batches.push(Batch { units: Vec::new(), frames: Vec::new() });
            bytes = 0;
        }
        let Some(batch) = batches.last_mut() else { continue };
        let known = batch.frames.iter().rposition(|(at, _)| *at == unit.copy.at);
        let frame = known.unwrap_or_else(|| {
            batch.frames.push((unit.copy.at.clone(), 0));
            batch.frames.len() - 1
        });
        batch.frames[frame].1 = batch.frames[frame].1.saturating_add(len);
        bytes += u64::from(len);
        batch.units.push((number, unit, frame));
    }
    Ok(batches)
}

/// Where whole versions of units begin in the packs, and where these units are in the artifact.
type Places = HashMap<(FrameAt, u32), (u64, u32)>;

fn places(part: &Part) -> Places {
    let mut places = HashMap::new();
    for number in 0..part.map.hashes.len() as u32 {
        if let Some(base) = part.unit(number).and_then(|unit| unit.base) {
            places.insert((base.at, base.raw_offset), (part.start(number), base.len));
        }
    }
    places
}

/// The older state, as what deltas may be made against.
struct Near {
    part: Arc<Part>,
    places: Places,
    older: Arc<dyn Older>,
}

impl Near {
    /// The content of a delta frame, made with the older state; `None` where a unit that is wanted of it
    /// does not come out right. The others are whatever they are.
    fn content(&self, units: &[(u32, Unit, usize)], frame: usize, delta: &Delta) -> Option<Bytes> {
        let content = delta.apply(&self.base(&delta.base)?).ok()?;
        let mut wanted = units.iter().filter(|(.., of)| *of == frame);
        wanted.all(|(_, unit, _)| unit.of(&content).is_some()).then_some(content)
    }

    /// What stands where the pages of a base stood. What is not known to have stood anywhere is zeros.
    fn base(&self, parts: &[BasePart]) -> Option<Vec<u8>> {
        let mut base = vec![0; parts.iter().map(|part| part.len as usize).sum()];
        let mut at = 0;
        for part in parts {
            let mut done = 0;
            while done < part.len {
                let key = (FrameAt::from(part), part.raw_offset + done);
                let Some(&(offset, len)) = self.places.get(&key) else { break };
                let len = len.min(part.len - done);
                read(&*self.older, offset, base.get_mut(at..)?.get_mut(..len as usize)?).ok()?;
                at += len as usize;
                done += len;
            }
            at += (part.len - done) as usize;
        }
        Some(base)
    }
}

impl Unit {
    /// The unit in the content of its frame, when it is there.
    fn of<'a>(&self, content: &'a [u8]) -> Option<&'a [u8]> {
        let from = self.copy.raw_offset as usize;
        let bytes = content.get(from..from + self.copy.len as usize)?;
        (unit_hash(bytes) == self.hash).then_some(bytes)
    }
}

/// The frames of the map of an artifact, where it has one.
///
/// # Errors
/// When the catalog cannot be read.
pub(crate) async fn map(source: &Opened, name: &ArtifactName) -> Result<Vec<FrameAt>> {
    let Some(&last) = source.parts(name).last() else { return Ok(Vec::new()) };
    let entry = source.catalog.entry(last).await?;
    let Some(end) = entry.end else { return Ok(Vec::new()) };
    let at = |extent: &crate::format::Extent| {
        let backup = match extent.source {
            0 => Some(source.backup()),
            n => entry.sources.get(n as usize - 1),
        };
        let backup = backup.ok_or_else(|| {
            Error::damaged(format!("the catalog entry of {name} has no such source"))
        })?;
        Ok(FrameAt::of(backup, extent))
    };
    end.map.iter().map(at).collect()
}

#[cfg(test)]
mod tests;
