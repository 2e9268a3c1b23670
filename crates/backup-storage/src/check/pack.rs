//! Packs, read from their first byte to their last: their digests, their structure, every frame.
//!
//! ```text
//! read ── segments ── open, on all cores ── what the frames hold
//! ```
//!
//! Reading and digesting runs ahead of opening by a segment, and opening ahead of whoever takes what
//! the frames hold.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use backup_core::{Context, Error, ObjectDigest, Result};
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::format::{EndOfObject, FrameKind, ObjectKind, Place, open, unseal};
use crate::key::Key;
use crate::repo::Repo;
use crate::scan::{Scanned, Scanner, is_damage};
use crate::sync::{lock, lost_task};

/// How many damaged places of an object are named.
const PLACES: usize = 5;
/// Which part of the memory budget the content of a segment may take, unless it is a single frame, and
/// the bounds of that. Half a dozen are under way; what they hold before decompression is half of it.
const CONTENT_SHARE: u64 = 32;
const CONTENT: RangeInclusive<u64> = 4 << 20..=32 << 20;

/// A pack to be read.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    pub(super) key: Key,
    pub(super) digest: ObjectDigest,
}

/// A sum over the lines of a catalog that does not depend on their order.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lines {
    count: u64,
    sum: u128,
}

impl Lines {
    pub(super) fn add(&mut self, other: Lines) {
        self.count += other.count;
        self.sum = self.sum.wrapping_add(other.sum);
    }

    pub(super) fn add_frame(&mut self, raw: &[u8]) {
        for line in raw.split_inclusive(|&b| b == b'\n') {
            let digest = Sha256::digest(line);
            let half = digest.first_chunk().expect("a SHA-256 is longer than 16 bytes");
            self.add(Lines { count: 1, sum: u128::from_le_bytes(*half) });
        }
    }
}

/// What was seen of a pack.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) lines: Lines,
    /// What is wrong with it.
    pub(super) problem: Option<String>,
}

/// Consecutive data frames of a pack, opened.
#[derive(Debug)]
pub(super) struct Segment {
    /// Which of the units.
    pub(super) unit: usize,
    /// Where the last frame ends.
    pub(super) end: u64,
    /// By offset. A frame that is damaged, or a delta, is not here.
    pub(super) frames: BTreeMap<u64, Content>,
}

/// A whole frame whose check passed.
#[derive(Debug, Clone)]
pub(super) struct Content {
    pub(super) frame_len: u32,
    pub(super) check: [u8; 8],
    pub(super) raw: Bytes,
}

/// Frames on their way.
struct Sealed {
    unit: usize,
    place: Place,
    end: u64,
    frames: Vec<Scanned>,
}

/// Damaged places by unit.
type Places = Arc<Mutex<BTreeMap<usize, Vec<String>>>>;

/// A pass over packs.
pub(super) struct Pass {
    /// What the frames hold, in order of units and offsets.
    pub(super) segments: mpsc::Receiver<Segment>,
    reader: AbortOnDropHandle<Result<Vec<Walked>>>,
    opener: AbortOnDropHandle<Result<()>>,
    places: Places,
}

/// What reading alone tells of a pack.
enum Walked {
    Gone(String),
    Read { lines: Lines, same: bool },
}

impl Pass {
    /// Begins to read.
    pub(super) fn start(cx: &Context, repo: &Repo, units: Vec<Unit>) -> Pass {
        let (to_opener, sealed) = mpsc::channel(1);
        let (to_caller, segments) = mpsc::channel(1);
        let places = Places::default();
        let reader = read_all(cx.clone(), repo.clone(), units, to_opener, Arc::clone(&places));
        let opener = open_all(cx.clone(), sealed, to_caller, Arc::clone(&places));
        Pass {
            segments,
            reader: AbortOnDropHandle::new(tokio::spawn(reader)),
            opener: AbortOnDropHandle::new(tokio::spawn(opener)),
            places,
        }
    }

    /// What was seen of each unit, after the last segment.
    pub(super) async fn finish(mut self) -> Result<Vec<Seen>> {
        while self.segments.recv().await.is_some() {}
        let walked = self.reader.await.map_err(lost_task)??;
        self.opener.await.map_err(lost_task)??;
        let mut places = std::mem::take(&mut *lock(&self.places));
        let seen = walked.into_iter().enumerate().map(|(unit, walked)| {
            let places = places.remove(&unit).unwrap_or_default();
            match walked {
                Walked::Gone(problem) => Seen { problem: Some(problem), ..Seen::default() },
                Walked::Read { lines, same: true } => {
                    Seen { lines, problem: places.into_iter().next() }
                }
                Walked::Read { lines, same: false } => {
                    let shown = places.iter().take(PLACES).cloned().collect::<Vec<_>>().join("; ");
                    let more = match places.len().saturating_sub(PLACES) {
                        0 => String::new(),
                        n => format!("; and {n} more places"),
                    };
                    let problem =
                        format!("its bytes do not match the manifest's digest: {shown}{more}");
                    Seen { lines, problem: Some(problem) }
                }
            }
        });
        Ok(seen.collect())
    }
}

async fn read_all(
    cx: Context,
    repo: Repo,
    units: Vec<Unit>,
    out: mpsc::Sender<Sealed>,
    places: Places,
) -> Result<Vec<Walked>> {
    let mut walked = Vec::new();
    for (number, unit) in units.iter().enumerate() {
        let mut walk = Walk { cx: &cx, repo: &repo, number, unit, out: &out, places: &places };
        walked.push(match walk.walk().await {
            Ok(walked) => walked,
            Err(e) if is_damage(&e) => Walked::Gone(e.chain()),
            Err(e) => return Err(e),
        });
    }
    Ok(walked)
}

/// One pack being read.
struct Walk<'a> {
    cx: &'a Context,
    repo: &'a Repo,
    number: usize,
    unit: &'a Unit,
    out: &'a mpsc::Sender<Sealed>,
    places: &'a Places,
}

impl Walk<'_> {
    fn note(&self, place: String) {
        lock(self.places).entry(self.number).or_default().push(place);
    }

    async fn walk(&mut self) -> Result<Walked> {
        let Unit { key, digest } = self.unit;
        let place = self.repo.place(key);
        let kind = ObjectKind::Pack;
        let mut scanner =
            Scanner::open(self.repo.shelf(), key, &place, kind, digest.bytes, true).await?;
        let mut lines = Lines::default();
        let mut frames = 0;
        let mut catalog = None;
        let mut end = None;
        let mut waiting = Vec::new();
        let mut whole = true;
        loop {
            self.cx.check()?;
            let frame = match scanner.next().await {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(e) if is_damage(&e) => {
                    whole = false;
                    self.note(e.chain());
                    scanner.resync().await?;
                    continue;
                }
                Err(e) => return Err(e),
            };
            self.cx.progress().add_bytes(u64::from(frame.header.frame_len()));
            let (kind, offset) = (frame.header.kind, frame.offset);
            if end.is_some() {
                whole = false;
                self.note(format!("a frame at byte {offset} stands behind the end"));
            }
            frames += u32::from(kind != FrameKind::End);
            if matches!(kind, FrameKind::Data | FrameKind::Map) {
                self.collect(&place, &mut waiting, frame).await;
                continue;
            }
            let opened = scanner.open_frame(frame).await.and_then(|raw| match kind {
                FrameKind::Catalog => {
                    catalog = catalog.or(Some(offset));
                    lines.add_frame(&raw);
                    Ok(())
                }
                FrameKind::End => {
                    end = Some((offset, EndOfObject::parse(&raw)?));
                    Ok(())
                }
                _ => {
                    Err(Error::damaged(format!("the frame at byte {offset} belongs into no pack")))
                }
            });
            match opened {
                Err(e) if is_damage(&e) => {
                    whole = false;
                    self.note(e.chain());
                }
                other => other?,
            }
        }
        self.send(&place, &mut waiting).await;
        let right_end = end.is_some_and(|(offset, end)| {
            end == EndOfObject { catalog: catalog.unwrap_or(offset), frames }
        });
        if whole && !right_end {
            self.note("its end frame is missing or does not fit".to_owned());
        }
        let same = scanner.finish().await? == digest.sha256;
        Ok(Walked::Read { lines, same })
    }

    async fn collect(&self, place: &Place, waiting: &mut Vec<Scanned>, frame: Scanned) {
        let stored: u64 = waiting.iter().map(|f| f.payload.len() as u64).sum();
        let content: u64 = waiting.iter().map(|f| u64::from(f.header.raw_len)).sum();
        let share = self.cx.memory().bytes() / CONTENT_SHARE;
        let most = share.clamp(*CONTENT.start(), *CONTENT.end());
        if !waiting.is_empty()
            && (stored + frame.payload.len() as u64 > most / 2
                || content + u64::from(frame.header.raw_len) > most)
        {
            self.send(place, waiting).await;
        }
        waiting.push(frame);
    }

    async fn send(&self, place: &Place, waiting: &mut Vec<Scanned>) {
        let frames = std::mem::take(waiting);
        let Some(last) = frames.last() else { return };
        let end = last.offset + u64::from(last.header.frame_len());
        // Nobody listens any more only when the pass was dropped.
        let _ =
            self.out.send(Sealed { unit: self.number, place: place.clone(), end, frames }).await;
    }
}

async fn open_all(
    cx: Context,
    mut sealed: mpsc::Receiver<Sealed>,
    out: mpsc::Sender<Segment>,
    places: Places,
) -> Result<()> {
    while let Some(Sealed { unit, place, end, frames }) = sealed.recv().await {
        cx.check()?;
        let frames = Arc::new(Mutex::new(frames.into_iter()));
        let jobs: Vec<_> = (0..cx.threads())
            .map(|_| {
                let (frames, place) = (Arc::clone(&frames), place.clone());
                tokio::task::spawn_blocking(move || open_some(&place, &frames))
            })
            .collect();
        let mut segment = Segment { unit, end, frames: BTreeMap::new() };
        for job in jobs {
            let (opened, damaged) = job.await.map_err(lost_task)??;
            segment.frames.extend(opened);
            if !damaged.is_empty() {
                lock(&places).entry(unit).or_default().extend(damaged);
            }
        }
        let _ = out.send(segment).await;
    }
    Ok(())
}

type Opened = (Vec<(u64, Content)>, Vec<String>);

/// Opens frames until there is none left.
fn open_some(place: &Place, frames: &Mutex<std::vec::IntoIter<Scanned>>) -> Result<Opened> {
    let (mut opened, mut damaged) = Opened::default();
    loop {
        let Some(frame) = lock(frames).next() else { return Ok((opened, damaged)) };
        let Scanned { offset, header, payload } = frame;
        let result = if header.delta.is_some() || header.kind != FrameKind::Data {
            // Its check is all that can be looked at without what it builds on.
            unseal(place, offset, &header, payload).map(|_| None)
        } else {
            open(place, offset, &header, payload).map(Some)
        };
        match result {
            Ok(None) => {}
            Ok(Some(raw)) => {
                let check = *header.check.first_chunk().expect("a check has 16 bytes");
                let frame_len = header.frame_len();
                opened.push((offset, Content { frame_len, check, raw }));
            }
            Err(e) if is_damage(&e) => damaged.push(e.chain()),
            Err(e) => return Err(e),
        }
    }
}
