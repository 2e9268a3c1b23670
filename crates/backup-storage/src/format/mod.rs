//! Format 1 of the repository, without I/O: what `docs/format.md` describes, as code.
//!
//! Every parser here takes bytes from outside: none panics, and none allocates more than the
//! documented bounds, whatever the bytes say.

mod catalog;
mod checked;
mod cipher;
mod codec;
mod config;
mod delta;
mod frame;
mod manifest;
mod map;
mod object;
mod slot;
mod tombstone;
mod unlock;

pub use catalog::{End, Entry, Extent, parse_entry};
pub use cipher::{Cipher, Keys};
pub use codec::{Codec, Compression, Packed, compress, decompress};
pub use config::{Config, Encryption, RepositoryId};
pub use delta::{BasePart, Delta, compress_delta};
pub use frame::{
    DeltaLengths, END_FRAME_LEN, EndOfObject, FRAME_HEADER_LEN, Frame, FrameHeader, FrameKind,
    MAX_MANIFEST, MAX_RAW, open, seal, unseal,
};
pub use manifest::parse_manifest;
pub use map::{MAP_PART, MapPart, Run, RunBase, Spot, UnitHash, unit_hash};
pub use object::{OBJECT_HEADER_LEN, ObjectKind, Place, Seals};
pub use slot::{Argon2Cost, Slot, SlotKind};
pub use tombstone::{GivenUp, Tombstone, parse_tombstone};
pub use unlock::Unlock;

use backup_core::{Error, ErrorKind};
use serde::{Deserialize, Serialize};

/// Something that only a later version can have written.
pub(crate) fn newer(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Store, format!("{what}: this was written by a newer holdfast"))
        .with_remedy("use the newer holdfast that wrote it, or a later one")
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| [b >> 4, b & 15])
        .map(|d| char::from(DIGITS[usize::from(d)]))
        .collect()
}

/// The inverse of [`hex`]; `None` unless `text` is exactly `2 * N` lower-case digits.
pub(crate) fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Bytes that JSON has as hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Hex<const N: usize>(pub(crate) [u8; N]);

impl<const N: usize> TryFrom<String> for Hex<N> {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        unhex(&text)
            .map(Hex)
            .ok_or_else(|| format!("{} lower-case hex digits were expected", 2 * N))
    }
}

impl<const N: usize> From<Hex<N>> for String {
    fn from(bytes: Hex<N>) -> String {
        hex(&bytes.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal() {
        assert_eq!(hex(&[0x00, 0x9a, 0xff]), "009aff");
        assert_eq!(unhex::<3>("009aff"), Some([0x00, 0x9a, 0xff]));
        for bad in ["009af", "009aff0", "009afF", "009a f", "é09af"] {
            assert_eq!(unhex::<3>(bad), None, "{bad}");
        }
    }
}
