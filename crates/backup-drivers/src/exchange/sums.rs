//! Digests of files in the form that `sha256sum -c` and `md5sum -c` read.

use std::fmt::Write as _;
use std::str::FromStr;

use aws_lc_rs::digest;
use backup_core::{Error, Result};
use md5::Digest as _;

/// Which digests are kept of files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// SHA-256, in `.sha256` files.
    pub sha256: bool,
    /// MD5, in `.md5` files, for those who have to compare with one.
    pub md5: bool,
}

/// A kind of digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SumKind {
    /// SHA-256.
    Sha256,
    /// MD5.
    Md5,
}

impl SumKind {
    /// The extension of a file of such digests, without the dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            SumKind::Sha256 => "sha256",
            SumKind::Md5 => "md5",
        }
    }
}

impl FromStr for SumKind {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "sha256" => Ok(SumKind::Sha256),
            "md5" => Ok(SumKind::Md5),
            _ => Err(Error::usage(format!("`{}` is no kind of digest", text.escape_debug()))
                .with_remedy("write sha256 or md5")),
        }
    }
}

impl FromIterator<SumKind> for Sums {
    fn from_iter<I: IntoIterator<Item = SumKind>>(kinds: I) -> Self {
        let mut sums = Sums::default();
        for kind in kinds {
            match kind {
                SumKind::Sha256 => sums.sha256 = true,
                SumKind::Md5 => sums.md5 = true,
            }
        }
        sums
    }
}

/// Digests of a stream in the making.
pub(super) struct Summing {
    sha256: Option<digest::Context>,
    md5: Option<md5::Md5>,
}

impl Summing {
    pub(super) fn new(sums: Sums) -> Self {
        Summing {
            sha256: sums.sha256.then(|| digest::Context::new(&digest::SHA256)),
            md5: sums.md5.then(md5::Md5::new),
        }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
    }

    pub(super) fn finish(self) -> Vec<(SumKind, String)> {
        let sha256 = self.sha256.map(|c| (SumKind::Sha256, hex(c.finish().as_ref())));
        let md5 = self.md5.map(|c| (SumKind::Md5, hex(&c.finalize())));
        sha256.into_iter().chain(md5).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A line of a file of digests. A backslash before the line says that the name has escapes.
pub(super) fn line(sum: &str, name: &str) -> String {
    if name.contains(['\\', '\n', '\r']) {
        let name = name.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
        format!("\\{sum}  {name}\n")
    } else {
        format!("{sum}  {name}\n")
    }
}
