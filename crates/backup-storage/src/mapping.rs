//! The map of an artifact being written.

use std::collections::VecDeque;

use backup_core::BackupId;

use crate::base::Copy;
use crate::format::{MAP_PART, MapPart, Run, RunBase, Spot, UnitHash};

/// Collects what is known of units until a part of the map is full. Hashes are known before places.
#[derive(Default)]
pub(crate) struct Mapping {
    hashes: VecDeque<(UnitHash, u32)>,
    runs: Vec<(u32, Copy, Option<Copy>)>,
    /// How many units `runs` are.
    placed: u32,
    /// Where the part begins.
    start: u64,
}

impl Mapping {
    /// Adds a unit.
    pub(crate) fn add(&mut self, hash: UnitHash, len: u32) {
        self.hashes.push_back((hash, len));
    }

    /// Tells where the next units are. Gives the parts that are full now.
    pub(crate) fn place(
        &mut self,
        mut units: u32,
        mut copy: Copy,
        mut base: Option<Copy>,
    ) -> Vec<MapPart> {
        let mut full = Vec::new();
        while units > 0 {
            let some = units.min(MAP_PART - self.placed);
            let lengths = self.hashes.iter().skip(self.placed as usize).take(some as usize);
            let bytes = lengths.map(|(_, len)| len).sum();
            let (head, rest) = split(&copy, bytes);
            // Only where units have the length of their bases are several of them in one run.
            let (base_head, base_rest) = match &base {
                Some(base) if some < units => {
                    let (head, rest) = split(base, bytes);
                    (Some(head), Some(rest))
                }
                other => (other.clone(), None),
            };
            self.push(some, head, base_head);
            (copy, base) = (rest, base_rest);
            units -= some;
            if self.placed == MAP_PART {
                full.push(self.cut());
            }
        }
        full
    }

    fn push(&mut self, units: u32, copy: Copy, base: Option<Copy>) {
        self.placed += units;
        if let Some((last_units, last, last_base)) = self.runs.last_mut() {
            let bases_join = match (&*last_base, &base) {
                (None, None) => true,
                // Each unit must be as long as its base; a run of pages is.
                (Some(a), Some(b)) => a.joins(b) && a.len == last.len && b.len == copy.len,
                _ => false,
            };
            if last.joins(&copy) && bases_join {
                last.len += copy.len;
                *last_units += units;
                if let (Some(a), Some(b)) = (last_base, &base) {
                    a.len += b.len;
                }
                return;
            }
        }
        self.runs.push((units, copy, base));
    }

    /// Ends the part that is being filled.
    fn cut(&mut self) -> MapPart {
        let mut backups: Vec<BackupId> = self
            .runs
            .iter()
            .flat_map(|(_, copy, base)| std::iter::once(copy).chain(base))
            .map(|copy| copy.at.backup.clone())
            .collect();
        backups.sort();
        backups.dedup();
        let spot = |copy: &Copy| Spot {
            backup: backups.binary_search(&copy.at.backup).unwrap_or_default() as u16,
            pack: copy.at.pack,
            offset: copy.at.offset,
            frame_len: copy.at.frame_len,
            raw_offset: copy.raw_offset,
            check: copy.at.check,
        };
        let runs = self
            .runs
            .iter()
            .map(|(units, copy, base)| Run {
                units: *units,
                spot: spot(copy),
                base: base.as_ref().map(|base| RunBase { spot: spot(base), len: base.len }),
            })
            .collect();
        let (hashes, lengths): (Vec<UnitHash>, Vec<u32>) =
            self.hashes.drain(..self.placed as usize).unzip();
        let start = self.start;
        self.start += lengths.iter().map(|&len| u64::from(len)).sum::<u64>();
        self.runs.clear();
        self.placed = 0;
        MapPart { start, backups, hashes, lengths, runs }
    }

    /// The last part, if there is anything in it.
    pub(crate) fn finish(mut self) -> Option<MapPart> {
        (self.placed > 0).then(|| self.cut())
    }
}

fn split(copy: &Copy, bytes: u32) -> (Copy, Copy) {
    let bytes = bytes.min(copy.len);
    let head = Copy { len: bytes, ..copy.clone() };
    let raw_offset = copy.raw_offset + bytes;
    (head, Copy { raw_offset, len: copy.len - bytes, ..copy.clone() })
}
