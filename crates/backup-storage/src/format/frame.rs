//! Frames: the unit that is compressed, sealed and checked.

use backup_core::{Error, Result};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::cipher::{Cipher, Salt};
use super::codec::{Codec, Packed, decompress};
use super::{Place, newer};

/// Length of the header of a frame.
pub const FRAME_HEADER_LEN: usize = 80;

/// The most bytes that a frame may hold before compression, other than a manifest.
pub const MAX_RAW: u32 = 16 << 20;

/// The most bytes that a manifest may have.
pub const MAX_MANIFEST: u32 = 64 << 20;

/// Length of an end frame, header and payload.
pub const END_FRAME_LEN: usize = FRAME_HEADER_LEN + END_PAYLOAD_LEN;
const END_PAYLOAD_LEN: usize = 16;

const MAGIC: &[u8; 4] = b"HFF1";
const VERSION: u8 = 1;
/// The bytes of the header that the check covers: all before the check itself.
const COVERED: usize = 60;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// Bytes of artifacts.
    Data = 1,
    /// Lines of the catalog.
    Catalog = 2,
    /// A manifest.
    Manifest = 3,
    /// A record of the history.
    Record = 4,
    /// The end of a pack or index.
    End = 5,
    /// What the next backup compares an artifact with.
    Map = 6,
    /// What is known of a piece of a binlog.
    Segment = 7,
}

impl FrameKind {
    fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => FrameKind::Data,
            2 => FrameKind::Catalog,
            3 => FrameKind::Manifest,
            4 => FrameKind::Record,
            5 => FrameKind::End,
            6 => FrameKind::Map,
            7 => FrameKind::Segment,
            _ => return None,
        })
    }

    fn max_raw(self) -> u32 {
        match self {
            FrameKind::Manifest => MAX_MANIFEST,
            FrameKind::End => END_PAYLOAD_LEN as u32,
            FrameKind::Data
            | FrameKind::Catalog
            | FrameKind::Record
            | FrameKind::Map
            | FrameKind::Segment => MAX_RAW,
        }
    }
}

/// The header of a frame, with its lengths within their bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameHeader {
    /// What the frame holds.
    pub kind: FrameKind,
    /// How its payload is compressed.
    pub codec: Codec,
    /// Length of the content before compression; at most [`MAX_RAW`] ([`MAX_MANIFEST`] for a
    /// manifest, 16 for an end).
    pub raw_len: u32,
    /// Length of the payload; never more than `raw_len`.
    pub stored_len: u32,
    /// How the payload is encrypted, and with what the key of the object was derived.
    pub sealed: Option<(Cipher, [u8; 16])>,
    /// What the content is a delta to; `None` for a whole frame.
    pub delta: Option<DeltaLengths>,
    /// The first half of the SHA-256 of place, offset, header and payload; with a cipher its tag.
    pub check: [u8; 16],
}

/// The lengths that the header of a delta frame tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaLengths {
    /// Of the list of what the base is made of, at the beginning of the payload.
    pub list: u32,
    /// Of the base.
    pub base: u32,
}

/// Flag of a delta frame.
const DELTA: u16 = 1;

impl FrameHeader {
    /// Length of the whole frame.
    #[must_use]
    pub fn frame_len(&self) -> u32 {
        // Cannot overflow: stored_len is at most MAX_MANIFEST.
        FRAME_HEADER_LEN as u32 + self.stored_len
    }

    fn encode(&self) -> [u8; FRAME_HEADER_LEN] {
        let mut bytes = [0; FRAME_HEADER_LEN];
        bytes[..4].copy_from_slice(MAGIC);
        bytes[4] = VERSION;
        bytes[5] = self.kind as u8;
        bytes[6] = self.codec as u8;
        if let Some((cipher, salt)) = &self.sealed {
            bytes[7] = *cipher as u8;
            bytes[24..40].copy_from_slice(salt);
        }
        if let Some(delta) = &self.delta {
            bytes[8..10].copy_from_slice(&DELTA.to_le_bytes());
            bytes[20..24].copy_from_slice(&delta.list.to_le_bytes());
            bytes[48..52].copy_from_slice(&delta.base.to_le_bytes());
        }
        bytes[12..16].copy_from_slice(&self.raw_len.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.stored_len.to_le_bytes());
        bytes[60..76].copy_from_slice(&self.check);
        let crc = crc32fast::hash(&bytes[..76]);
        bytes[76..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a header. This checks form and bounds; only [`open`] checks the frame.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when the bytes are no header,
    /// [`ErrorKind::Store`](backup_core::ErrorKind::Store) when they are one that needs a newer
    /// version. The message says what is wrong, not where.
    pub fn parse(bytes: &[u8; FRAME_HEADER_LEN]) -> Result<Self> {
        let u32_at = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if &bytes[..4] != MAGIC {
            return Err(Error::damaged("no frame begins here"));
        }
        if u32_at(76) != crc32fast::hash(&bytes[..76]) {
            return Err(Error::damaged("the header of the frame is damaged"));
        }
        // From here on the header is as its writer meant it.
        if bytes[4] != VERSION {
            return Err(newer(format!("frame version {}", bytes[4])));
        }
        let kind = FrameKind::from_number(bytes[5])
            .ok_or_else(|| newer(format!("frame kind {}", bytes[5])))?;
        let codec = Codec::from_number(bytes[6]).map_err(newer)?;
        let cipher = match bytes[7] {
            0 => None,
            n => Some(Cipher::from_number(n).ok_or_else(|| newer(format!("cipher {n}")))?),
        };
        let salt: [u8; 16] = bytes[24..40].try_into().expect("sixteen bytes from 24 to 40");
        let delta = match u16::from_le_bytes([bytes[8], bytes[9]]) {
            0 => None,
            DELTA => Some(DeltaLengths { list: u32_at(20), base: u32_at(48) }),
            _ => return Err(newer("frame flags")),
        };
        let zero = |range: std::ops::Range<usize>| bytes[range].iter().all(|&b| b == 0);
        if !(zero(10..12) && zero(40..48) && zero(52..COVERED))
            || (cipher.is_none() && !zero(24..40))
            || (delta.is_none() && !(zero(20..24) && zero(48..52)))
        {
            return Err(newer("frame flags"));
        }
        let header = FrameHeader {
            kind,
            codec,
            raw_len: u32_at(12),
            stored_len: u32_at(16),
            sealed: cipher.map(|cipher| (cipher, salt)),
            delta,
            check: bytes[COVERED..76].try_into().expect("sixteen bytes from 60 to 76"),
        };
        let lengths_fit = match (codec, delta) {
            (Codec::None, None) => header.stored_len == header.raw_len,
            (Codec::None, Some(_)) => false,
            (_, None) => header.stored_len < header.raw_len,
            (_, Some(delta)) => {
                kind == FrameKind::Data
                    && header.stored_len < header.raw_len
                    && delta.list < header.stored_len
                    && (1..=MAX_RAW).contains(&delta.base)
            }
        };
        if !lengths_fit || header.raw_len > kind.max_raw() {
            return Err(Error::damaged(format!(
                "the frame claims lengths that no writer gives it: {} bytes, stored as {}",
                header.raw_len, header.stored_len
            )));
        }
        Ok(header)
    }

    /// Finds the first well-formed header at or after `from`, for getting past damage.
    #[must_use]
    pub fn find(bytes: &[u8], from: usize) -> Option<usize> {
        let mut at = from;
        while let Some(candidate) = bytes.get(at..)?.first_chunk::<FRAME_HEADER_LEN>() {
            if candidate.starts_with(MAGIC) && FrameHeader::parse(candidate).is_ok() {
                return Some(at);
            }
            at += 1;
        }
        None
    }
}

fn check(place: &Place, offset: u64, header: &[u8; FRAME_HEADER_LEN], payload: &[u8]) -> [u8; 16] {
    let mut digest = Sha256::new();
    digest.update(place.data());
    digest.update(offset.to_le_bytes());
    digest.update(&header[..COVERED]);
    digest.update(payload);
    let digest = digest.finalize();
    *digest.first_chunk().expect("a SHA-256 is longer than 16 bytes")
}

/// A frame as it is stored.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The header.
    pub header: FrameHeader,
    /// Its bytes.
    pub head: [u8; FRAME_HEADER_LEN],
    /// What follows them.
    pub payload: Bytes,
}

/// Makes the frame that will stand at `offset` of the object at `place`. In an encrypted repository
/// no two frames may be sealed for the same offset of one [`Place`].
///
/// # Errors
/// When there is too much in it for a frame of its kind.
pub fn seal(place: &Place, offset: u64, kind: FrameKind, packed: Packed) -> Result<Frame> {
    if packed.raw_len > kind.max_raw() {
        return Err(Error::internal(format!(
            "a {kind:?} frame of {} bytes is too long for {}",
            packed.raw_len,
            place.path()
        )));
    }
    let sealing = place.sealing()?;
    let mut header = FrameHeader {
        kind,
        codec: packed.codec,
        raw_len: packed.raw_len,
        stored_len: u32::try_from(packed.stored.len())
            .map_err(|_| Error::internal("a payload longer than what it holds"))?,
        sealed: sealing.map(|(keys, salt)| (keys.cipher(), *salt)),
        delta: packed.delta,
        check: [0; 16],
    };
    let mut payload = packed.stored;
    header.check = match sealing {
        None => check(place, offset, &header.encode(), &payload),
        Some((keys, salt)) => {
            let mut bytes = payload.try_into_mut().unwrap_or_else(|shared| shared[..].into());
            let head = &header.encode()[..COVERED];
            let tag = keys.seal(salt, place.data(), offset, head, &mut bytes)?;
            payload = bytes.freeze();
            tag
        }
    };
    let head = header.encode();
    Ok(Frame { header, head, payload })
}

/// Checks a frame that was read at `offset` of the object at `place`, and gives its payload: the
/// content, compressed, behind the list of its base where it is a delta.
///
/// # Errors
/// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when one bit of place, header or payload
/// is not what the writer had.
pub fn unseal(place: &Place, offset: u64, header: &FrameHeader, payload: Bytes) -> Result<Bytes> {
    let damaged = |problem: &str| Err(damaged(place, offset, problem));
    if payload.len() != header.stored_len as usize {
        return damaged("its end is missing");
    }
    match (&header.sealed, place.keys()) {
        (None, None) => {
            if check(place, offset, &header.encode(), &payload) != header.check {
                return damaged("its bytes do not match its digest");
            }
            Ok(payload)
        }
        (Some((cipher, salt)), Some(keys)) => {
            let head = &header.encode()[..COVERED];
            let sealed: (Cipher, &Salt, &[u8; 16]) = (*cipher, salt, &header.check);
            match keys.open(sealed, place.data(), offset, head, &payload) {
                Ok(clear) => Ok(clear.into()),
                Err(_) => damaged("its bytes do not match its seal"),
            }
        }
        // Anybody can make a frame that is not encrypted; only who has the key, one that is.
        (None, Some(_)) => damaged("it is not encrypted, and the repository is"),
        (Some(_), None) => damaged("it is encrypted, and the repository is not"),
    }
}

/// Checks a whole frame that was read at `offset` of the object at `place`, and gives what it holds.
///
/// # Errors
/// As [`unseal`]; also when the frame is a delta.
pub fn open(place: &Place, offset: u64, header: &FrameHeader, payload: Bytes) -> Result<Bytes> {
    let payload = unseal(place, offset, header, payload)?;
    if header.delta.is_some() {
        return Err(damaged(place, offset, "it is a delta where a whole frame should be"));
    }
    decompress(header.codec, header.raw_len, payload).map_err(|e| damaged(place, offset, &e))
}

pub(super) fn damaged(place: &Place, offset: u64, problem: &str) -> Error {
    Error::damaged(format!("{}: the frame at byte {offset} is damaged: {problem}", place.path()))
}

/// What the end frame of a pack or index says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndOfObject {
    /// Where the first catalog frame begins; the end frame's own offset where there is none.
    pub catalog: u64,
    /// How many frames the object has before this one.
    pub frames: u32,
}

impl EndOfObject {
    /// The content of the end frame.
    #[must_use]
    pub fn pack(self) -> Packed {
        let mut raw = [0; END_PAYLOAD_LEN];
        raw[..8].copy_from_slice(&self.catalog.to_le_bytes());
        raw[8..12].copy_from_slice(&self.frames.to_le_bytes());
        Packed {
            codec: Codec::None,
            raw_len: END_PAYLOAD_LEN as u32,
            delta: None,
            stored: Bytes::copy_from_slice(&raw),
        }
    }

    /// Reads the content of an end frame.
    ///
    /// # Errors
    /// When it is not 16 bytes.
    pub fn parse(raw: &[u8]) -> Result<Self> {
        let raw: &[u8; END_PAYLOAD_LEN] =
            raw.try_into().map_err(|_| Error::damaged("an end frame has the wrong length"))?;
        let (catalog, rest) = raw.split_first_chunk().expect("16 bytes begin with 8");
        let (frames, _) = rest.split_first_chunk().expect("8 bytes begin with 4");
        Ok(EndOfObject {
            catalog: u64::from_le_bytes(*catalog),
            frames: u32::from_le_bytes(*frames),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{Compression, RepositoryId, compress};
    use crate::key::{BackupObject, Key};
    use backup_core::ErrorKind;
    use proptest::prelude::*;

    fn place(pack: u32) -> Place {
        let id: RepositoryId = "00112233445566778899aabbccddeeff".parse().unwrap();
        Place::new(
            &id,
            &Key::Backup(
                "c".parse().unwrap(),
                "20261120T101530Z-full-7f3a9c".parse().unwrap(),
                BackupObject::Pack(pack),
            ),
        )
    }

    fn sample() -> (Packed, FrameHeader, [u8; FRAME_HEADER_LEN]) {
        let packed = compress(Compression::Zstd(1), vec![b'x'; 1000].into()).unwrap();
        let frame = seal(&place(3), 16, FrameKind::Data, packed.clone()).unwrap();
        assert_eq!(frame.payload, packed.stored);
        (packed, frame.header, frame.head)
    }

    /// Makes a change to a header that its CRC agrees with.
    fn forged(change: impl FnOnce(&mut [u8; FRAME_HEADER_LEN])) -> [u8; FRAME_HEADER_LEN] {
        let (_, _, mut bytes) = sample();
        change(&mut bytes);
        let crc = crc32fast::hash(&bytes[..76]);
        bytes[76..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn the_header_is_as_documented() {
        let (packed, header, bytes) = sample();
        let stored = u32::try_from(packed.stored.len()).unwrap();
        let mut expected = Vec::new();
        expected.extend_from_slice(b"HFF1\x01\x01\x01\x00\x00\x00\x00\x00");
        expected.extend_from_slice(&1000u32.to_le_bytes());
        expected.extend_from_slice(&stored.to_le_bytes());
        expected.extend_from_slice(&[0; 40]);
        let mut covered = b"HOLDFAST00112233445566778899aabbccddeeff".to_vec();
        let path = b"clusters/c/backups/20261120T101530Z-full-7f3a9c/pack-3";
        covered.extend_from_slice(&[path.len() as u8, 0]);
        covered.extend_from_slice(path);
        covered.extend_from_slice(&16u64.to_le_bytes());
        covered.extend_from_slice(&expected);
        covered.extend_from_slice(&packed.stored);
        expected.extend_from_slice(&Sha256::digest(&covered)[..16]);
        expected.extend_from_slice(&crc32fast::hash(&expected).to_le_bytes());
        assert_eq!(bytes.as_slice(), expected);
        assert_eq!(FrameHeader::parse(&bytes).unwrap(), header);
        assert_eq!(header.frame_len(), 80 + stored);
    }

    #[test]
    fn every_changed_bit_of_a_header_is_seen() {
        let (_, _, good) = sample();
        for bit in 0..FRAME_HEADER_LEN * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            let e = FrameHeader::parse(&bad).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Damaged, "bit {bit}");
        }
    }

    /// Where a forged header passes its CRC, the check still covers every byte of it.
    #[test]
    fn a_forged_header_never_opens() {
        let (packed, _, _) = sample();
        for byte in 0..76 {
            let bad = forged(|b| b[byte] ^= 1);
            if let Ok(header) = FrameHeader::parse(&bad) {
                let e = open(&place(3), 16, &header, packed.stored.clone()).unwrap_err();
                assert_eq!(e.kind(), ErrorKind::Damaged, "byte {byte}");
            }
        }
    }

    #[test]
    fn what_is_unknown_is_refused_as_newer() {
        for (at, value) in [(4, 2), (5, 0), (5, 8), (6, 9), (7, 3), (8, 2), (9, 1)]
            .into_iter()
            .chain((10..12).map(|at| (at, 1)))
            .chain((20..60).map(|at| (at, 1)))
        {
            let e = FrameHeader::parse(&forged(|b| b[at] = value)).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::Store, "byte {at} = {value}");
            assert!(e.report().contains("newer holdfast"), "{}", e.report());
        }
    }

    #[test]
    fn lengths_are_bounded() {
        let with = |kind: FrameKind, codec: Codec, raw: u32, stored: u32| {
            FrameHeader::parse(&forged(|b| {
                b[5] = kind as u8;
                b[6] = codec as u8;
                b[12..16].copy_from_slice(&raw.to_le_bytes());
                b[16..20].copy_from_slice(&stored.to_le_bytes());
            }))
        };
        use Codec::{None, Zstd};
        use FrameKind::{Catalog, Data, End, Manifest, Map, Record};
        for kind in [Data, Catalog, Record, Map] {
            assert!(with(kind, None, MAX_RAW, MAX_RAW).is_ok());
            assert!(with(kind, Zstd, MAX_RAW, MAX_RAW - 1).is_ok());
            assert!(with(kind, None, MAX_RAW + 1, MAX_RAW + 1).is_err());
            assert!(with(kind, Zstd, MAX_RAW + 1, 10).is_err());
        }
        assert!(with(Manifest, None, MAX_MANIFEST, MAX_MANIFEST).is_ok());
        assert!(with(Manifest, None, MAX_MANIFEST + 1, MAX_MANIFEST + 1).is_err());
        assert!(with(End, None, 16, 16).is_ok());
        assert!(with(End, None, 17, 17).is_err());
        assert!(with(Data, Zstd, 100, 100).is_err());
        assert!(with(Data, Zstd, 100, u32::MAX).is_err());
        assert!(with(Data, None, 100, 99).is_err());
        assert!(with(Data, None, u32::MAX, u32::MAX).is_err());
        assert!(with(Data, None, 0, 0).is_ok());
        assert!(with(Data, Zstd, 0, 0).is_err());
    }

    #[test]
    fn a_frame_opens_only_where_it_was_sealed() {
        let (packed, header, _) = sample();
        let stored = packed.stored;
        assert_eq!(open(&place(3), 16, &header, stored.clone()).unwrap(), vec![b'x'; 1000]);
        for (place, offset) in [(place(2), 16), (place(3), 17), (place(3), 96)] {
            assert!(open(&place, offset, &header, stored.clone()).is_err());
        }
        for bit in 0..stored.len() * 8 {
            let mut bad = stored.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&place(3), 16, &header, bad.into()).is_err(), "bit {bit}");
        }
        for length in 0..stored.len() {
            assert!(open(&place(3), 16, &header, stored.slice(..length)).is_err());
        }
    }

    #[test]
    fn a_frame_too_long_for_its_kind_is_not_written() {
        let packed = compress(Compression::Zstd(1), vec![0; MAX_RAW as usize + 1].into()).unwrap();
        for kind in [FrameKind::Data, FrameKind::Catalog, FrameKind::Record, FrameKind::End] {
            assert!(seal(&place(0), 16, kind, packed.clone()).is_err());
        }
        assert!(seal(&place(0), 16, FrameKind::Manifest, packed).is_ok());
    }

    #[test]
    fn the_end_comes_back() {
        let end = EndOfObject { catalog: 0x0102_0304_0506_0708, frames: 0x0a0b_0c0d };
        let packed = end.pack();
        assert_eq!(
            packed.stored.as_ref(),
            [8, 7, 6, 5, 4, 3, 2, 1, 0xd, 0xc, 0xb, 0xa, 0, 0, 0, 0]
        );
        assert_eq!(EndOfObject::parse(&packed.stored).unwrap(), end);
        assert!(EndOfObject::parse(&packed.stored[..15]).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::array::uniform32(any::<u8>()), seed in any::<[u8; 32]>()) {
            let mut all = [0; FRAME_HEADER_LEN];
            all[..32].copy_from_slice(&bytes);
            all[32..64].copy_from_slice(&seed);
            prop_assert!(FrameHeader::parse(&all).is_err());
            let _ = FrameHeader::find(&all, 0);
        }

        #[test]
        fn a_header_is_found_behind_garbage(garbage in prop::collection::vec(prop_oneof![Just(b'H'), Just(b'F'), any::<u8>()], 0..300)) {
            let (_, _, bytes) = sample();
            let mut all = garbage.clone();
            all.extend_from_slice(&bytes);
            prop_assert_eq!(FrameHeader::find(&all, 0), Some(garbage.len()));
            prop_assert_eq!(FrameHeader::find(&all, garbage.len() + 1), None);
            prop_assert_eq!(FrameHeader::find(&all, all.len() + 9), None);
        }
    }
}
