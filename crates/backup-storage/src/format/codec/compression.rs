//! What a user asks for: a codec and how hard it tries.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use backup_core::{Error, Result};

/// How new frames are compressed. Only the writer needs to know: a frame says itself what it is.
///
/// ```
/// use backup_storage::format::Compression;
/// assert_eq!("zstd:9".parse::<Compression>().unwrap(), Compression::Zstd(9));
/// assert_eq!("xz".parse::<Compression>().unwrap(), Compression::Xz(6));
/// assert!("zstd:99".parse::<Compression>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Compression {
    /// By trying: not at all where a sample does not get smaller, else as hard as the slower of
    /// source and store leaves time for. A frame alone, without a backup around it, gets zstd at
    /// level 1.
    Auto,
    /// Not at all.
    None,
    /// LZ4, the quickest.
    Lz4,
    /// Zstandard at this level, 1 (fast) to 22 (small).
    Zstd(u8),
    /// DEFLATE as gzip has it at this level, 1 (fast) to 9 (small).
    Gzip(u8),
    /// LZMA2 as xz has it at this preset, 0 (fast) to 9 (small).
    Xz(u8),
}

const ZSTD: RangeInclusive<u8> = 1..=22;
const GZIP: RangeInclusive<u8> = 1..=9;
const XZ: RangeInclusive<u8> = 0..=9;

impl Default for Compression {
    /// zstd at level 1: where both cores also serve the database, higher levels cost time and
    /// gain little.
    fn default() -> Self {
        Compression::Zstd(1)
    }
}

impl Compression {
    /// An upper bound of the memory in bytes that compressing a frame of `raw_len` bytes takes beside
    /// the frame itself.
    #[must_use]
    pub fn memory(self, raw_len: usize) -> usize {
        const STATE: usize = 1 << 20;
        // Tables are in proportion to the frame, because no window is longer: zstd's of 4 and 8 bytes
        // for each byte, or fewer, by its table of levels; xz needs 11.75 times its dictionary.
        let tables = match self {
            Compression::None => return 0,
            Compression::Lz4 | Compression::Gzip(_) => 0,
            Compression::Zstd(1..=4) => raw_len / 2,
            Compression::Zstd(5..=8) => 2 * raw_len,
            Compression::Zstd(9) | Compression::Auto => 4 * raw_len,
            Compression::Zstd(10 | 11) => 9 * raw_len,
            Compression::Xz(_) => 12 * raw_len,
            Compression::Zstd(_) => 17 * raw_len,
        };
        STATE + raw_len + raw_len / 128 + tables
    }
}

impl FromStr for Compression {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let (name, level) = text.split_once(':').map_or((text, None), |(n, l)| (n, Some(l)));
        let leveled = |levels: RangeInclusive<u8>, default: u8| match level {
            None => Ok(default),
            Some(level) => level.parse().ok().filter(|l| levels.contains(l)).ok_or_else(|| {
                Error::usage(format!("`{}` is no level of {name}", level.escape_debug()))
                    .with_remedy(format!(
                        "use {name}:{} (fast) to {name}:{} (small)",
                        levels.start(),
                        levels.end()
                    ))
            }),
        };
        match (name, level) {
            ("auto", None) => Ok(Compression::Auto),
            ("none", None) => Ok(Compression::None),
            ("lz4", None) => Ok(Compression::Lz4),
            ("zstd", _) => leveled(ZSTD, 1).map(Compression::Zstd),
            ("gzip", _) => leveled(GZIP, 6).map(Compression::Gzip),
            ("xz", _) => leveled(XZ, 6).map(Compression::Xz),
            _ => Err(Error::usage(format!("there is no compression `{}`", text.escape_debug()))
                .with_remedy(
                    "use auto, none, lz4, zstd, gzip or xz, the last three with a level if you \
                     like: zstd:9",
                )),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compression::Auto => f.write_str("auto"),
            Compression::None => f.write_str("none"),
            Compression::Lz4 => f.write_str("lz4"),
            Compression::Zstd(level) => write!(f, "zstd:{level}"),
            Compression::Gzip(level) => write!(f, "gzip:{level}"),
            Compression::Xz(level) => write!(f, "xz:{level}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (text, expected, shown) in [
            ("auto", Compression::Auto, "auto"),
            ("none", Compression::None, "none"),
            ("lz4", Compression::Lz4, "lz4"),
            ("zstd", Compression::Zstd(1), "zstd:1"),
            ("zstd:22", Compression::Zstd(22), "zstd:22"),
            ("gzip", Compression::Gzip(6), "gzip:6"),
            ("gzip:1", Compression::Gzip(1), "gzip:1"),
            ("xz", Compression::Xz(6), "xz:6"),
            ("xz:0", Compression::Xz(0), "xz:0"),
        ] {
            assert_eq!(text.parse::<Compression>().unwrap(), expected, "{text}");
            assert_eq!(expected.to_string(), shown);
            assert_eq!(shown.parse::<Compression>().unwrap(), expected);
        }
        for bad in [
            "", "zstd:0", "zstd:23", "zstd:", "zstd:-1", "zstd:1:1", "lz4:1", "auto:1", "none:1",
            "gzip:0", "gzip:10", "xz:10", "bzip2", "ZSTD",
        ] {
            assert!(bad.parse::<Compression>().is_err(), "{bad}");
        }
    }
}
