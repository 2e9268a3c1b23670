//! Maps: what the next backup compares an artifact with, and a restore what is there.
//!
//! A map tells of each *unit* of an artifact (a page, a block, a chunk) its hash and where a copy of it
//! is. A restore over an older state compares that by it; no other restore needs it.

use backup_core::{BackupId, Error, Result};

use super::frame::{FRAME_HEADER_LEN, MAX_RAW};

/// The hash of a unit: the first half of its BLAKE3 hash.
pub type UnitHash = [u8; 16];

/// How many units one part of a map tells of, except the last.
pub const MAP_PART: u32 = 16_384;

/// The hash of a unit.
#[must_use]
pub fn unit_hash(unit: &[u8]) -> UnitHash {
    let hash = blake3::hash(unit);
    *hash.as_bytes().first_chunk().expect("a BLAKE3 hash is longer than 16 bytes")
}

/// Where the bytes of a run of units begin: a frame, and an offset in what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Spot {
    /// Which of [`MapPart::backups`].
    pub backup: u16,
    /// Number of the pack.
    pub pack: u32,
    /// Where the frame begins in the pack.
    pub offset: u64,
    /// Length of the frame, header and payload.
    pub frame_len: u32,
    /// Where the bytes begin in what the frame holds.
    pub raw_offset: u32,
    /// The first 8 bytes of the frame's check.
    pub check: [u8; 8],
}

/// Units that follow each other in the artifact and in a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// How many.
    pub units: u32,
    /// Where they are.
    pub spot: Spot,
    /// Where `spot` is in a delta frame: what that is made against.
    pub base: Option<RunBase>,
}

/// The whole version of units that are stored as a delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunBase {
    /// Where it begins, in a whole frame.
    pub spot: Spot,
    /// How long it is. Where the run is of more than one unit, as long as these together: then each
    /// has its base at its own place in it.
    pub len: u32,
}

/// A part of the map of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapPart {
    /// Where the part begins in the artifact.
    pub start: u64,
    /// The backups that spots refer to.
    pub backups: Vec<BackupId>,
    /// The hash of each unit.
    pub hashes: Vec<UnitHash>,
    /// The length of each unit.
    pub lengths: Vec<u32>,
    /// Where they are; as many units as there are hashes.
    pub runs: Vec<Run>,
}

const SPOT_LEN: usize = 30;
const ID_LEN: usize = 28;

fn put_spot(out: &mut Vec<u8>, spot: &Spot) {
    out.extend_from_slice(&spot.backup.to_le_bytes());
    out.extend_from_slice(&spot.pack.to_le_bytes());
    out.extend_from_slice(&spot.offset.to_le_bytes());
    out.extend_from_slice(&spot.frame_len.to_le_bytes());
    out.extend_from_slice(&spot.raw_offset.to_le_bytes());
    out.extend_from_slice(&spot.check);
}

/// Takes little-endian numbers from the front of a slice.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn spot(&mut self) -> Option<Spot> {
        Some(Spot {
            backup: self.u16()?,
            pack: self.u32()?,
            offset: self.u64()?,
            frame_len: self.u32()?,
            raw_offset: self.u32()?,
            check: self.take()?,
        })
    }
}

impl MapPart {
    /// The content of the frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(
            20 + self.backups.len() * ID_LEN
                + self.hashes.len() * 20
                + self.runs.len() * (9 + 2 * SPOT_LEN),
        );
        out.extend_from_slice(&self.start.to_le_bytes());
        out.extend_from_slice(&(self.backups.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.hashes.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.runs.len() as u32).to_le_bytes());
        for backup in &self.backups {
            out.extend_from_slice(backup.as_str().as_bytes());
        }
        for hash in &self.hashes {
            out.extend_from_slice(hash);
        }
        for length in &self.lengths {
            out.extend_from_slice(&length.to_le_bytes());
        }
        for run in &self.runs {
            out.extend_from_slice(&run.units.to_le_bytes());
            out.push(u8::from(run.base.is_some()));
            put_spot(&mut out, &run.spot);
            if let Some(base) = &run.base {
                put_spot(&mut out, &base.spot);
                out.extend_from_slice(&base.len.to_le_bytes());
            }
        }
        out
    }

    /// Reads what [`encode`](Self::encode) made.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when it is anything else.
    pub fn parse(raw: &[u8]) -> Result<Self> {
        MapPart::read(raw).ok_or_else(|| Error::damaged("a part of a map is no valid one"))
    }

    fn read(raw: &[u8]) -> Option<Self> {
        let mut bytes = Bytes(raw);
        let start = bytes.u64()?;
        let [backups, units, runs] = [bytes.u32()?, bytes.u32()?, bytes.u32()?].map(|n| n as usize);
        // Nothing is reserved before the bytes that fill it are known to be there.
        let least = backups.checked_mul(ID_LEN)?.checked_add(units.checked_mul(20)?)?;
        if bytes.0.len() < least.checked_add(runs.checked_mul(5 + SPOT_LEN)?)?
            || units > MAP_PART as usize
            || backups > usize::from(u16::MAX)
        {
            return None;
        }
        let mut part = MapPart {
            start,
            backups: Vec::with_capacity(backups),
            hashes: Vec::with_capacity(units),
            lengths: Vec::with_capacity(units),
            runs: Vec::with_capacity(runs),
        };
        for _ in 0..backups {
            let id = bytes.take::<ID_LEN>()?;
            part.backups.push(str::from_utf8(&id).ok()?.parse().ok()?);
        }
        for _ in 0..units {
            part.hashes.push(bytes.take()?);
        }
        for _ in 0..units {
            part.lengths.push(Some(bytes.u32()?).filter(|n| (1..=MAX_RAW).contains(n))?);
        }
        for _ in 0..runs {
            let units = bytes.u32()?;
            let base = match bytes.take()? {
                [0] => false,
                [1] => true,
                _ => return None,
            };
            let spot = bytes.spot()?;
            let base =
                if base { Some(RunBase { spot: bytes.spot()?, len: bytes.u32()? }) } else { None };
            part.runs.push(Run { units, spot, base });
        }
        (bytes.0.is_empty() && part.is_sound()).then_some(part)
    }

    /// Whether the runs are of as many units as there are, and every spot is within bounds.
    fn is_sound(&self) -> bool {
        let bytes: u64 = self.lengths.iter().map(|&n| u64::from(n)).sum();
        if self.start.checked_add(bytes).is_none() {
            return false;
        }
        let header = FRAME_HEADER_LEN as u32;
        let spot_is_sound = |spot: &Spot, len: u64| {
            usize::from(spot.backup) < self.backups.len()
                && (header..=header + MAX_RAW).contains(&spot.frame_len)
                && u64::from(spot.raw_offset) + len <= u64::from(MAX_RAW)
                && spot.offset.checked_add(u64::from(spot.frame_len)).is_some()
        };
        let mut lengths = self.lengths.iter();
        let runs_are_sound = self.runs.iter().all(|run| {
            let len: u64 = lengths.by_ref().take(run.units as usize).map(|&n| u64::from(n)).sum();
            run.units > 0
                && spot_is_sound(&run.spot, len)
                && run.base.as_ref().is_none_or(|base| {
                    base.len > 0
                        && spot_is_sound(&base.spot, u64::from(base.len))
                        && (run.units == 1 || u64::from(base.len) == len)
                })
        });
        let units: u64 = self.runs.iter().map(|run| u64::from(run.units)).sum();
        runs_are_sound && units == self.hashes.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPOT: Spot = Spot {
        backup: 0,
        pack: 2,
        offset: 16,
        frame_len: 96,
        raw_offset: 5,
        check: [0, 1, 2, 3, 4, 5, 0xfe, 0xff],
    };

    const BASE: RunBase = RunBase { spot: Spot { pack: 1, ..SPOT }, len: 200 };

    fn part() -> MapPart {
        MapPart {
            start: 32_768,
            backups: vec!["20261120T101530Z-full-7f3a9c".parse().unwrap()],
            hashes: vec![[1; 16], [2; 16], [3; 16]],
            lengths: vec![16_384, 16_384, 100],
            runs: vec![
                Run { units: 2, spot: SPOT, base: None },
                Run { units: 1, spot: SPOT, base: Some(BASE) },
            ],
        }
    }

    #[test]
    fn a_part_is_as_documented() {
        let encoded = part().encode();
        let mut expected = Vec::new();
        expected.extend_from_slice(&32_768_u64.to_le_bytes());
        for n in [1_u32, 3, 2] {
            expected.extend_from_slice(&n.to_le_bytes());
        }
        expected.extend_from_slice(b"20261120T101530Z-full-7f3a9c");
        expected.extend_from_slice(&[[1; 16], [2; 16], [3; 16]].concat());
        for n in [16_384_u32, 16_384, 100] {
            expected.extend_from_slice(&n.to_le_bytes());
        }
        let spot = |pack: u8| {
            [
                &[0, 0, pack, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 96, 0, 0, 0, 5, 0, 0, 0][..],
                &SPOT.check,
            ]
            .concat()
        };
        expected.extend_from_slice(&[2, 0, 0, 0, 0]);
        expected.extend_from_slice(&spot(2));
        expected.extend_from_slice(&[1, 0, 0, 0, 1]);
        expected.extend_from_slice(&spot(2));
        expected.extend_from_slice(&spot(1));
        expected.extend_from_slice(&[200, 0, 0, 0]);
        assert_eq!(encoded, expected);
        assert_eq!(MapPart::parse(&encoded).unwrap(), part());
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let refused = |change: fn(&mut MapPart)| {
            let mut bad = part();
            change(&mut bad);
            assert!(MapPart::parse(&bad.encode()).is_err(), "{bad:?}");
        };
        refused(|p| p.runs[0].units = 1);
        refused(|p| p.runs[0].units = 0);
        refused(|p| p.runs[0].spot.backup = 1);
        refused(|p| p.runs[1].base = Some(RunBase { spot: Spot { backup: 1, ..SPOT }, len: 1 }));
        refused(|p| p.runs[1].base = Some(RunBase { len: 0, ..BASE }));
        refused(|p| p.runs[1].base = Some(RunBase { len: MAX_RAW, ..BASE }));
        refused(|p| p.runs[0].base = Some(BASE));
        refused(|p| p.runs[0].spot.frame_len = 79);
        refused(|p| p.runs[0].spot.raw_offset = MAX_RAW);
        refused(|p| p.runs[0].spot.offset = u64::MAX);
        refused(|p| p.lengths[0] = 0);
        refused(|p| p.lengths[2] = MAX_RAW + 1);
        refused(|p| p.start = u64::MAX - 100);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = MapPart::parse(&bytes);
        }

        #[test]
        fn changed_bytes_are_survived(at in 0usize..200, value: u8, cut in 0usize..300) {
            let mut bytes = part().encode();
            let at = at % bytes.len();
            bytes[at] = value;
            bytes.truncate(cut.max(1));
            if let Ok(part) = MapPart::parse(&bytes) {
                prop_assert_eq!(part.encode(), bytes);
            }
        }
    }
}
