//! Deltas: content compressed against bytes that other frames hold.

use backup_core::{BackupId, Error, Result};
use bytes::Bytes;
use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound, get_error_name};

use super::codec::{Codec, Packed};
use super::frame::{DeltaLengths, FRAME_HEADER_LEN, FrameHeader, MAX_RAW};

/// The level at which deltas are compressed: what is the same as the base costs next to nothing at
/// any level.
const LEVEL: i32 = 1;
const PART_LEN: usize = 33;
const ID_LEN: usize = 28;

/// A piece of a delta's base: bytes of a whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BasePart {
    /// The backup that has the pack; of the same cluster.
    pub backup: BackupId,
    /// Number of the pack.
    pub pack: u32,
    /// Where the frame begins in the pack.
    pub offset: u64,
    /// Length of the frame, header and payload.
    pub frame_len: u32,
    /// Where the bytes begin in what the frame holds.
    pub raw_offset: u32,
    /// How many there are, at least 1.
    pub len: u32,
    /// The first 8 bytes of the frame's check.
    pub check: [u8; 8],
}

/// The payload of a delta frame, taken apart.
#[derive(Debug, Clone)]
pub struct Delta {
    /// What the base is made of, in order.
    pub base: Vec<BasePart>,
    raw_len: u32,
    base_len: u32,
    compressed: Bytes,
}

fn failed(code: usize) -> Error {
    Error::internal(format!("zstd cannot compress a delta: {}", get_error_name(code)))
}

/// Compresses `raw` against `base`, which is what `parts` name. `None` when it does not get shorter.
///
/// # Errors
/// When the compressor cannot be set up, or `parts` are too many for a frame.
pub fn compress_delta(raw: &[u8], base: &[u8], parts: &[BasePart]) -> Result<Option<Packed>> {
    let list = encode_list(parts)?;
    let both = raw.len() + base.len();
    let mut context = CCtx::create();
    // The first byte of the base must be within reach from the last byte of the content.
    let window = usize::BITS - both.leading_zeros();
    context.set_parameter(CParameter::CompressionLevel(LEVEL)).map_err(failed)?;
    context.set_parameter(CParameter::WindowLog(window.clamp(10, 27))).map_err(failed)?;
    // zstd takes in no more of a prefix than eight times the entries of its tables.
    let table = window.saturating_sub(3).clamp(16, 24);
    context.set_parameter(CParameter::HashLog(table)).map_err(failed)?;
    context.set_parameter(CParameter::ChainLog(table)).map_err(failed)?;
    context.ref_prefix(base).map_err(failed)?;
    let mut compressed = Vec::with_capacity(compress_bound(raw.len()));
    context.compress2(&mut compressed, raw).map_err(failed)?;
    if list.len() + compressed.len() >= raw.len() {
        return Ok(None);
    }
    // Kept until its pack is stored, with thousands of others: it must not hold on to the room that
    // a delta might have taken.
    let stored = [list.as_slice(), &compressed].concat();
    let length = |n: usize| u32::try_from(n).map_err(|_| Error::internal("a delta is too long"));
    Ok(Some(Packed {
        codec: Codec::Zstd,
        raw_len: length(raw.len())?,
        delta: Some(DeltaLengths { list: length(list.len())?, base: length(base.len())? }),
        stored: stored.into(),
    }))
}

fn encode_list(parts: &[BasePart]) -> Result<Vec<u8>> {
    let too_many = || Error::internal("a delta has too many bases");
    let mut backups: Vec<&BackupId> = parts.iter().map(|part| &part.backup).collect();
    backups.sort();
    backups.dedup();
    let mut list = vec![u8::try_from(backups.len()).map_err(|_| too_many())?];
    for backup in &backups {
        list.extend_from_slice(backup.as_str().as_bytes());
    }
    list.extend_from_slice(&u16::try_from(parts.len()).map_err(|_| too_many())?.to_le_bytes());
    for part in parts {
        let backup = backups.binary_search(&&part.backup).unwrap_or_default();
        list.push(backup as u8);
        list.extend_from_slice(&part.pack.to_le_bytes());
        list.extend_from_slice(&part.offset.to_le_bytes());
        list.extend_from_slice(&part.frame_len.to_le_bytes());
        list.extend_from_slice(&part.raw_offset.to_le_bytes());
        list.extend_from_slice(&part.len.to_le_bytes());
        list.extend_from_slice(&part.check);
    }
    Ok(list)
}

impl Delta {
    /// Takes a payload that was unsealed apart.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when the list is no valid one, or does
    /// not make a base of the length that the header tells.
    pub fn parse(header: &FrameHeader, payload: &Bytes) -> Result<Self> {
        Delta::read(header, payload)
            .ok_or_else(|| Error::damaged("what a delta is made against is not told well"))
    }

    fn read(header: &FrameHeader, payload: &Bytes) -> Option<Self> {
        let lengths = header.delta?;
        let list = payload.get(..lengths.list as usize)?;
        let (&backups, rest) = list.split_first()?;
        let ids = rest.get(..usize::from(backups) * ID_LEN)?;
        let rest = &rest[ids.len()..];
        let backups: Vec<BackupId> = ids
            .chunks_exact(ID_LEN)
            .map(|id| str::from_utf8(id).ok()?.parse().ok())
            .collect::<Option<_>>()?;
        let (count, rest) = rest.split_first_chunk()?;
        if rest.len() != usize::from(u16::from_le_bytes(*count)) * PART_LEN {
            return None;
        }
        let base: Vec<BasePart> = rest
            .chunks_exact(PART_LEN)
            .map(|part| {
                let u32_at = |at: usize| -> Option<u32> {
                    part.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
                };
                let part = BasePart {
                    backup: backups.get(usize::from(part[0]))?.clone(),
                    pack: u32_at(1)?,
                    offset: u64::from_le_bytes(*part.get(5..)?.first_chunk()?),
                    frame_len: u32_at(13)?,
                    raw_offset: u32_at(17)?,
                    len: u32_at(21)?,
                    check: *part.get(25..)?.first_chunk()?,
                };
                let header = FRAME_HEADER_LEN as u32;
                let sound = part.len > 0
                    && part.raw_offset.checked_add(part.len).is_some_and(|end| end <= MAX_RAW)
                    && (header..=header + MAX_RAW).contains(&part.frame_len)
                    && part.offset.checked_add(u64::from(part.frame_len)).is_some();
                sound.then_some(part)
            })
            .collect::<Option<_>>()?;
        let sum: u64 = base.iter().map(|part| u64::from(part.len)).sum();
        (sum == u64::from(lengths.base)).then_some(Delta {
            base,
            raw_len: header.raw_len,
            base_len: lengths.base,
            compressed: payload.slice(lengths.list as usize..),
        })
    }

    /// Length of the content in bytes.
    #[must_use]
    pub fn raw_len(&self) -> u32 {
        self.raw_len
    }

    /// The content, given the base.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when it does not come out.
    pub fn apply(&self, base: &[u8]) -> Result<Bytes> {
        let damaged =
            |problem: &str| Error::damaged(format!("a delta cannot be undone: {problem}"));
        if base.len() != self.base_len as usize {
            return Err(damaged("its base has another length"));
        }
        let mut context = DCtx::create();
        context.ref_prefix(base).map_err(|code| damaged(get_error_name(code)))?;
        let mut raw = Vec::with_capacity(self.raw_len as usize);
        context
            .decompress(&mut raw, &self.compressed)
            .map_err(|code| damaged(get_error_name(code)))?;
        if raw.len() == self.raw_len as usize {
            Ok(raw.into())
        } else {
            Err(damaged("another number of bytes comes out than went in"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{FrameKind, RepositoryId};
    use crate::key::{BackupObject, Key};
    use proptest::prelude::*;

    fn noise(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        (0..len).map(|_| next()).collect()
    }

    fn parts(base: &[u8]) -> Vec<BasePart> {
        let part = |offset: u64, raw_offset, len| BasePart {
            backup: "20261120T101530Z-full-7f3a9c".parse().unwrap(),
            pack: 3,
            offset,
            frame_len: 500,
            raw_offset,
            len,
            check: [9; 8],
        };
        let half = base.len() as u32 / 2;
        vec![part(16, 4, half), part(600, 0, base.len() as u32 - half)]
    }

    /// Seals a delta and opens it again.
    fn through_a_frame(packed: Packed) -> (FrameHeader, Bytes) {
        let id: RepositoryId = "00112233445566778899aabbccddeeff".parse().unwrap();
        let backup = "20261120T101531Z-full-7f3a9d".parse().unwrap();
        let key = Key::Backup("c".parse().unwrap(), backup, BackupObject::Pack(0));
        let place = crate::format::Place::new(&id, &key);
        let frame = crate::format::seal(&place, 16, FrameKind::Data, packed).unwrap();
        let header = FrameHeader::parse(&frame.head).unwrap();
        assert_eq!(header, frame.header);
        let e = crate::format::open(&place, 16, &header, frame.payload.clone()).unwrap_err();
        assert!(e.chain().contains("delta"), "{}", e.chain());
        let payload = crate::format::unseal(&place, 16, &header, frame.payload).unwrap();
        (header, payload)
    }

    #[test]
    fn a_few_changed_bytes_cost_a_few_bytes() {
        for (len, most) in [(1 << 20, 4_000), (4 << 20, 8_000)] {
            let base = noise(1, len);
            let mut raw = base.clone();
            // A byte in each page of 16 KiB, as the first lines of an InnoDB page are.
            for at in (0..raw.len()).step_by(16 << 10) {
                raw[at + 20] ^= 1;
            }
            let packed = compress_delta(&raw, &base, &parts(&base)).unwrap().unwrap();
            assert!(packed.stored.len() < most, "{} for {len}", packed.stored.len());
            let (header, payload) = through_a_frame(packed);
            let delta = Delta::parse(&header, &payload).unwrap();
            assert_eq!(delta.base, parts(&base));
            assert_eq!(delta.apply(&base).unwrap(), raw);
            assert!(delta.apply(&base[1..]).is_err());
            let mut other = base.clone();
            other[len / 2 + 1000] ^= 1;
            assert!(delta.apply(&other).is_ok_and(|out| out != raw));
        }
    }

    #[test]
    fn what_has_nothing_in_common_is_no_delta() {
        let base = noise(1, 1 << 16);
        assert!(compress_delta(&noise(2, 1 << 16), &base, &parts(&base)).unwrap().is_none());
    }

    proptest! {
        #[test]
        fn content_comes_back(raw in prop::collection::vec(0u8..4, 200..3000), base in prop::collection::vec(0u8..4, 2..3000)) {
            if let Some(packed) = compress_delta(&raw, &base, &parts(&base)).unwrap() {
                let (header, payload) = through_a_frame(packed);
                prop_assert_eq!(Delta::parse(&header, &payload).unwrap().apply(&base).unwrap(), raw);
            }
        }

        #[test]
        fn changed_payloads_are_survived(at in 0usize..400, value: u8, cut in 0usize..400) {
            let base = vec![7; 1000];
            let raw = vec![7; 1100];
            let packed = compress_delta(&raw, &base, &parts(&base)).unwrap().unwrap();
            let (header, payload) = through_a_frame(packed);
            let mut bytes = payload.to_vec();
            let at = at % bytes.len();
            bytes[at] = value;
            bytes.truncate(cut.max(1));
            if let Ok(delta) = Delta::parse(&header, &bytes.into()) {
                let _ = delta.apply(&base);
            }
        }
    }
}
