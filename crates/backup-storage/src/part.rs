//! A part of the map of an artifact, for those who look units up in it.

use std::collections::HashMap;

use backup_core::Layout;

use crate::base::{Copy, Unit};
use crate::format::{MapPart, Spot, UnitHash};
use crate::frames::FrameAt;
use crate::packer::FRAME_TARGET;
use crate::writer::STREAM;

/// An artifact that takes more frames than this for each one that it would fill is written anew.
const SCATTERED: u64 = 3;
/// An artifact whose units are spread over more backups than this is written anew.
const BACKUPS: usize = 200;

/// A part of a map, with what is needed to find units in it.
pub(crate) struct Part {
    pub(crate) map: MapPart,
    /// Where each unit begins in the part; one more at the end.
    starts: Vec<u64>,
    /// The first unit of each run.
    runs: Vec<u32>,
    /// Where units are by their hashes, for those that may have moved.
    pub(crate) places: HashMap<UnitHash, u32>,
}

impl Part {
    pub(crate) fn new(map: MapPart, layout: Layout) -> Self {
        let starts = std::iter::once(0)
            .chain(map.lengths.iter().scan(0, |sum, &len| {
                *sum += u64::from(len);
                Some(*sum)
            }))
            .collect();
        let runs = map
            .runs
            .iter()
            .scan(0, |unit, run| Some(std::mem::replace(unit, *unit + run.units)))
            .collect();
        let places = match layout {
            Layout::Pages(_) => HashMap::new(),
            // Of several the first.
            Layout::Stream | Layout::Blocks => {
                map.hashes.iter().copied().zip(0..).collect::<Vec<_>>().into_iter().rev().collect()
            }
        };
        Part { map, starts, runs, places }
    }

    /// Where a unit begins in the artifact; of the number behind the last one, where the part ends.
    pub(crate) fn start(&self, number: u32) -> u64 {
        self.map.start + self.starts.get(number as usize).or(self.starts.last()).unwrap_or(&0)
    }

    /// How many bytes of the artifact it is of.
    pub(crate) fn bytes(&self) -> u64 {
        self.starts.last().copied().unwrap_or(0)
    }

    /// What is known of a unit.
    pub(crate) fn unit(&self, number: u32) -> Option<Unit> {
        let hash = *self.map.hashes.get(number as usize)?;
        let len = *self.map.lengths.get(number as usize)?;
        let run = self.runs.partition_point(|&first| first <= number).checked_sub(1)?;
        let (first, run) = (self.runs[run], self.map.runs.get(run)?);
        // Within a run, and so within a frame.
        let inside = (self.starts[number as usize] - self.starts[first as usize]) as u32;
        let base = match run.base {
            None => None,
            Some(base) if run.units == 1 => Some(self.copy(&base.spot, 0, base.len)?),
            Some(base) => Some(self.copy(&base.spot, inside, len)?),
        };
        Some(Unit { hash, copy: self.copy(&run.spot, inside, len)?, base })
    }

    fn copy(&self, spot: &Spot, inside: u32, len: u32) -> Option<Copy> {
        let at = FrameAt {
            backup: self.map.backups.get(usize::from(spot.backup))?.clone(),
            pack: spot.pack,
            offset: spot.offset,
            frame_len: spot.frame_len,
            check: spot.check,
        };
        Some(Copy { at, raw_offset: spot.raw_offset + inside, len })
    }

    /// Whether reading the part takes much more than it holds.
    pub(crate) fn is_scattered(&self, layout: Layout) -> bool {
        let spots = self
            .map
            .runs
            .iter()
            .flat_map(|run| std::iter::once(run.spot).chain(run.base.map(|base| base.spot)));
        let frames: std::collections::HashSet<_> =
            spots.map(|spot| (spot.backup, spot.pack, spot.offset)).collect();
        let bytes = self.bytes();
        // As short as the frames of one that is written anew may be.
        let frame = match layout {
            Layout::Pages(_) => FRAME_TARGET,
            Layout::Stream | Layout::Blocks => STREAM / 2,
        };
        let ideal = bytes.div_ceil(frame as u64);
        frames.len() as u64 > SCATTERED * ideal + 8 || self.map.backups.len() > BACKUPS
    }
}
