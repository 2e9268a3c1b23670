//! Codecs: how the bytes of a frame are compressed.

use std::str::FromStr;

use backup_core::{Error, Result};
use bytes::Bytes;

use super::frame::DeltaLengths;

/// A codec as a frame names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// The bytes themselves.
    None = 0,
    /// One Zstandard frame (RFC 8878).
    Zstd = 1,
}

impl Codec {
    /// The codec of a number; `Err` says which one it is that this build does not have.
    pub(super) fn from_number(number: u8) -> Result<Self, String> {
        match number {
            0 => Ok(Codec::None),
            1 => Ok(Codec::Zstd),
            2 => Err("codec lz4".to_owned()),
            3 => Err("codec gzip".to_owned()),
            4 => Err("codec xz".to_owned()),
            n => Err(format!("codec {n}")),
        }
    }
}

/// How new frames are compressed.
///
/// ```
/// use backup_storage::format::Compression;
/// assert_eq!("zstd:9".parse::<Compression>().unwrap(), Compression::Zstd(9));
/// assert!("zstd:99".parse::<Compression>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// Not at all.
    None,
    /// Zstandard at this level, 1 (fast) to 22 (small).
    Zstd(u8),
}

impl Default for Compression {
    /// zstd at level 1: where both cores also serve the database, higher levels cost time and
    /// gain little.
    fn default() -> Self {
        Compression::Zstd(1)
    }
}

impl FromStr for Compression {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        const REMEDY: &str = "use none, zstd, or zstd:1 to zstd:22";
        match text.split_once(':').map_or((text, None), |(n, l)| (n, Some(l))) {
            ("none", None) => Ok(Compression::None),
            ("zstd", None) => Ok(Compression::default()),
            ("zstd", Some(level)) => level
                .parse()
                .ok()
                .filter(|l| (1..=22).contains(l))
                .map(Compression::Zstd)
                .ok_or_else(|| {
                    Error::usage(format!("`{}` is no level of zstd", level.escape_debug()))
                        .with_remedy(REMEDY)
                }),
            _ => Err(Error::usage(format!(
                "this build has no compression `{}`",
                text.escape_debug()
            ))
            .with_remedy(REMEDY)),
        }
    }
}

/// Bytes ready to become the payload of a frame.
#[derive(Debug, Clone)]
pub struct Packed {
    /// How they are compressed.
    pub codec: Codec,
    /// Their length before.
    pub raw_len: u32,
    /// Where they are a delta: the lengths of the base and of the list of its parts, with which
    /// `stored` begins.
    pub delta: Option<DeltaLengths>,
    /// The payload.
    pub stored: Bytes,
}

/// Compresses `raw`, or leaves it as it is where that gains nothing.
///
/// # Errors
/// When the compressor cannot be set up (out of memory).
pub fn compress(compression: Compression, raw: Bytes) -> Result<Packed> {
    let raw_len = u32::try_from(raw.len())
        .map_err(|_| Error::internal(format!("a frame of {} bytes", raw.len())))?;
    if let Compression::Zstd(level) = compression {
        let smaller = zstd::bulk::compress(&raw, i32::from(level))
            .map_err(|e| Error::internal("zstd cannot compress a frame").with_source(e))?;
        if smaller.len() < raw.len() {
            return Ok(Packed { codec: Codec::Zstd, raw_len, delta: None, stored: smaller.into() });
        }
    }
    Ok(Packed { codec: Codec::None, raw_len, delta: None, stored: raw })
}

/// The inverse of [`compress`]; takes no more memory than `raw_len` and a window of that size.
///
/// # Errors
/// What is wrong with `stored`, when it does not give exactly `raw_len` bytes.
pub fn decompress(codec: Codec, raw_len: u32, stored: Bytes) -> Result<Bytes, String> {
    let raw_len = raw_len as usize;
    let raw = match codec {
        Codec::None => stored,
        Codec::Zstd => zstd::bulk::decompress(&stored, raw_len)
            .map_err(|e| format!("zstd cannot decompress it: {e}"))?
            .into(),
    };
    if raw.len() == raw_len {
        Ok(raw)
    } else {
        Err(format!("{} bytes came out where {raw_len} went in", raw.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn bytes_come_back(raw in prop::collection::vec(prop_oneof![Just(7u8), any::<u8>()], 0..5000), level in 0u8..5) {
            let compression = if level == 0 { Compression::None } else { Compression::Zstd(level) };
            let raw = Bytes::from(raw);
            let packed = compress(compression, raw.clone()).unwrap();
            prop_assert!(packed.stored.len() <= raw.len());
            prop_assert_eq!(packed.codec == Codec::Zstd, packed.stored.len() < raw.len());
            prop_assert_eq!(decompress(packed.codec, packed.raw_len, packed.stored).unwrap(), raw);
        }

        #[test]
        fn any_bytes_are_survived(stored in prop::collection::vec(any::<u8>(), 0..300), raw_len in 0u32..1000) {
            if let Ok(raw) = decompress(Codec::Zstd, raw_len, stored.into()) {
                prop_assert_eq!(raw.len(), raw_len as usize);
            }
        }
    }

    #[test]
    fn a_bomb_gives_no_more_than_its_frame_says() {
        let packed = compress(Compression::Zstd(1), vec![0; 8 << 20].into()).unwrap();
        assert!(packed.stored.len() < 2000);
        assert!(decompress(Codec::Zstd, 1000, packed.stored.clone()).is_err());
        assert!(decompress(Codec::Zstd, (8 << 20) + 1, packed.stored).is_err());
    }

    #[test]
    fn names() {
        assert_eq!("none".parse::<Compression>().unwrap(), Compression::None);
        assert_eq!("zstd".parse::<Compression>().unwrap(), Compression::Zstd(1));
        assert_eq!("zstd:22".parse::<Compression>().unwrap(), Compression::Zstd(22));
        for bad in ["", "zstd:0", "zstd:23", "zstd:", "lz4", "none:1", "ZSTD"] {
            assert!(bad.parse::<Compression>().is_err(), "{bad}");
        }
    }
}
