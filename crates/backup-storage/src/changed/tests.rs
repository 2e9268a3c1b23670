//! Maps that somebody made up, over directories that hold anything.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use backup_core::Layout;

use super::*;
use crate::format::{Run, RunBase, Spot};

#[path = "../../../../fuzz/harness.rs"]
#[allow(dead_code, unreachable_pub, reason = "fuzz tests have it too")]
mod harness;

/// What is there: some bytes of one kind, given out in pieces of some length, other ones each time they are
/// read where `moving`.
struct There {
    bytes: u64,
    byte: u8,
    piece: usize,
    fails_at: u64,
    moving: Option<AtomicU64>,
}

impl Older for There {
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> io::Result<usize> {
        if offset >= self.fails_at {
            return Err(io::Error::other("a bad block"));
        }
        let there = usize::try_from(self.bytes.saturating_sub(offset)).unwrap();
        let some = there.min(bytes.len()).min(self.piece);
        let more = self.moving.as_ref().map_or(0, |n| n.fetch_add(1, Ordering::Relaxed));
        bytes[..some].fill(self.byte.wrapping_add(more as u8));
        // One that claims more than it was asked for.
        Ok(if self.piece == 1 { usize::MAX } else { some })
    }
}

fn whats_there() -> Vec<There> {
    let there = |bytes, byte, piece, fails_at, moving: bool| There {
        bytes,
        byte,
        piece,
        fails_at,
        moving: moving.then(AtomicU64::default),
    };
    vec![
        there(0, 0, 10, u64::MAX, false),
        there(300, 7, 70_000, u64::MAX, false),
        there(1 << 40, 7, 70_000, u64::MAX, true),
        there(1 << 40, 7, 1, u64::MAX, false),
        there(1 << 40, 7, 70_000, 20_000, false),
    ]
}

/// Whatever the map and whatever is there: units are the same, differ, or cannot be read; each that differs is
/// fetched once and in order, and what deltas are made against is as long as they say.
fn compared(bytes: &[u8]) {
    let Ok(map) = MapPart::parse(bytes) else { return };
    // A mebibyte at most, so that an input takes no time.
    if map.lengths.iter().map(|&len| u64::from(len)).sum::<u64>() > 1 << 20 {
        return;
    }
    for there in whats_there() {
        let part = Arc::new(Part::new(map.clone(), Layout::Pages(1024)));
        let jobs = jobs(&part);
        assert_eq!(jobs.iter().map(ExactSizeIterator::len).sum::<usize>(), part.map.hashes.len());
        let there: Arc<dyn Older> = Arc::new(there);
        let changed: Result<Vec<Vec<u32>>> =
            jobs.into_iter().map(|units| differing(&part, units, &*there)).collect();
        let Ok(changed) = changed else { continue };
        let changed = changed.concat();
        assert!(changed.is_sorted_by(|a, b| a < b), "{changed:?}");
        let batches = batches(&part, &changed).expect("each unit has a place");
        let fetched: Vec<u32> =
            batches.iter().flat_map(|batch| batch.units.iter().map(|(n, ..)| *n)).collect();
        assert_eq!(fetched, changed);
        let near = Near { places: places(&part), part: Arc::clone(&part), older: there };
        for base in (0..part.map.hashes.len() as u32).filter_map(|n| part.unit(n)?.base) {
            let at = base.at;
            let part = BasePart {
                backup: at.backup,
                pack: at.pack,
                offset: at.offset,
                frame_len: at.frame_len,
                raw_offset: base.raw_offset,
                len: base.len,
                check: at.check,
            };
            // As one, and with one more that nothing is known of.
            let strange = BasePart { pack: u32::MAX, len: 100, ..part.clone() };
            if let Some(bytes) = near.base(&[strange, part]) {
                assert_eq!(bytes.len(), 100 + base.len as usize);
            }
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let spot = Spot { backup: 0, pack: 2, offset: 16, frame_len: 96, raw_offset: 5, check: [7; 8] };
    let base = |len| Some(RunBase { spot: Spot { pack: 1, ..spot }, len });
    let part = |start, lengths: Vec<u32>, runs| MapPart {
        start,
        backups: vec!["20261120T101530Z-full-7f3a9c".parse().unwrap()],
        hashes: lengths.iter().map(|&len| unit_hash(&vec![7; len as usize])).collect(),
        lengths,
        runs,
    };
    let run = |units, base| Run { units, spot, base };
    [
        part(0, vec![1024; 8], vec![run(8, None)]),
        part(0, vec![1024; 8], vec![run(3, None), run(5, base(5 * 1024))]),
        // As far as numbers go.
        part(u64::MAX - 8 * 1024, vec![1024; 8], vec![run(8, None)]),
        part(32_768, vec![16_384, 100], vec![run(1, base(200)), run(1, base(1))]),
        part(0, vec![100, 200, 7], vec![run(1, None), run(1, base(300)), run(1, base(7))]),
    ]
    .iter()
    .map(MapPart::encode)
    .collect()
}

#[test]
fn any_map_is_compared_with_anything_or_refused() {
    seeds().iter().for_each(|seed| drop(MapPart::parse(seed).unwrap()));
    harness::Harness { name: "changed", run: compared, longest: 8192 }.short(10_000, &seeds());
}

#[test]
#[ignore = "takes as long as one likes"]
fn any_map_is_compared_for_long() {
    harness::Harness { name: "changed", run: compared, longest: 8192 }
        .long(harness::seconds(), seeds());
}
