//! Artifacts: the named byte streams that a backup is made of, and how they go in and come out.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::id::BackupId;

/// The name of an artifact inside its backup: a path of 1 to 2,048 bytes whose components are
/// separated by `/`.
///
/// A component may hold any text: [`ArtifactName::from_parts`] percent-encodes what is not
/// `A-Z a-z 0-9 _ - . ~ #`, and a component that is `.` or `..`. So a name is safe as a path of any
/// file system that tells upper from lower case, and two different names never collide.
///
/// ```
/// use backup_core::ArtifactName;
/// let name = ArtifactName::from_parts(["tables", "my shop", "a/b", "rows-000001"]).unwrap();
/// assert_eq!(name.as_str(), "tables/my%20shop/a%2Fb/rows-000001");
/// assert_eq!(name.parts()[2], "a/b");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ArtifactName(String);

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-.~#".contains(&byte)
}

impl ArtifactName {
    /// Joins components, encoding each.
    ///
    /// # Errors
    /// A usage error when there is no component, one is empty, or the whole is too long.
    pub fn from_parts<'a>(parts: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut name = String::new();
        for part in parts {
            if !name.is_empty() {
                name.push('/');
            }
            let dots = part.bytes().all(|b| b == b'.');
            for byte in part.bytes() {
                if is_plain(byte) && !(dots && byte == b'.') {
                    name.push(char::from(byte));
                } else {
                    name.push_str(&format!("%{byte:02X}"));
                }
            }
        }
        name.parse()
    }

    /// The encoded name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The decoded components.
    #[must_use]
    pub fn parts(&self) -> Vec<String> {
        self.0.split('/').map(decode).collect()
    }
}

fn decode(part: &str) -> String {
    let bytes = part.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        if bytes[i] == b'%' {
            let hex = |b: u8| char::from(b).to_digit(16).unwrap_or_default() as u8;
            out.push(hex(bytes[i + 1]) << 4 | hex(bytes[i + 2]));
            i += 3;
        } else {
            out.push(bytes[i]);
            i += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Whether `part` is an encoded component in the one form that [`ArtifactName::from_parts`] makes.
fn is_encoded(part: &str) -> bool {
    let bytes = part.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        if bytes[i] == b'%' {
            let upper_hex = |b: &u8| matches!(b, b'0'..=b'9' | b'A'..=b'F');
            if !bytes.get(i + 1..i + 3).is_some_and(|h| h.iter().all(upper_hex)) {
                return false;
            }
            i += 3;
        } else if is_plain(bytes[i]) {
            i += 1;
        } else {
            return false;
        }
    }
    !part.is_empty() && !part.bytes().all(|b| b == b'.')
}

impl FromStr for ArtifactName {
    type Err = Error;
    fn from_str(name: &str) -> Result<Self> {
        if name.len() <= 2048 && name.split('/').all(is_encoded) {
            Ok(ArtifactName(name.to_owned()))
        } else {
            let shown: String = name.chars().take(80).collect();
            Err(Error::usage(format!("`{}` is no artifact name", shown.escape_debug())))
        }
    }
}

impl TryFrom<String> for ArtifactName {
    type Error = Error;
    fn try_from(name: String) -> Result<Self> {
        name.parse()
    }
}

impl From<ArtifactName> for String {
    fn from(name: ArtifactName) -> String {
        name.0
    }
}

impl fmt::Display for ArtifactName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How an artifact's bytes are laid out; it decides how the repository cuts them into chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// A plain stream.
    Stream,
    /// Self-contained blocks: each [`ArtifactWriter::write`] gives one, and the repository tries to
    /// keep it in a frame of its own.
    Blocks,
    /// A file of pages of this many bytes (a power of two from 512 to 65,536).
    Pages(u32),
}

/// What the repository recorded about a finished artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactInfo {
    /// Its name.
    pub name: ArtifactName,
    /// Its length in bytes, as the driver gave them.
    pub bytes: u64,
    /// SHA-256 of those bytes, 64 hex digits.
    pub sha256: String,
    /// How it is laid out.
    pub layout: Layout,
    /// What the driver says about it (rows, key range, …); opaque to the repository.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub attributes: serde_json::Value,
}

/// Where a [`Backup`](crate::Backup) puts its artifacts. Several artifacts may be written at once,
/// each by its own task.
#[async_trait]
pub trait ArtifactSink: Send + Sync {
    /// Begins an artifact. Names must be unique within the backup.
    async fn create(&self, name: ArtifactName, layout: Layout) -> Result<Box<dyn ArtifactWriter>>;

    /// Whether everything is encrypted that it keeps: whoever has only the store cannot read it.
    fn is_encrypted(&self) -> bool {
        false
    }

    /// Stores everything that is finished. From now on a backup that fails leaves what it has
    /// finished to a later one, which may [take it over](Self::take_over).
    ///
    /// # Errors
    /// When the store fails.
    async fn checkpoint(&self) -> Result<()> {
        Ok(())
    }

    /// The artifacts of the earlier backup that this one is compared with, if there is one: what is
    /// written as it was written there takes no room.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn previous(&self) -> Result<Option<Arc<dyn ArtifactSource>>> {
        Ok(None)
    }

    /// A backup of the same cluster and strategy that made a [checkpoint](Self::checkpoint), ended
    /// early, and is left to this one.
    async fn leftover(&self) -> Result<Option<Leftover>> {
        Ok(None)
    }

    /// Makes artifacts of the [leftover](Self::leftover) part of this backup, under the same names,
    /// without reading them. Gives those of `names` that could be had. The leftover cannot be
    /// finished by anybody from then on.
    ///
    /// # Errors
    /// When the store fails.
    async fn take_over(&self, names: &[ArtifactName]) -> Result<Vec<ArtifactInfo>> {
        let _ = names;
        Ok(Vec::new())
    }
}

/// What an unfinished backup has finished.
#[derive(Clone)]
pub struct Leftover {
    /// The id that it had.
    pub backup: BackupId,
    /// Its finished artifacts, by name.
    pub artifacts: Arc<dyn ArtifactSource>,
}

/// One artifact being written. Dropping it without [`finish`](Self::finish) leaves no artifact.
#[async_trait]
pub trait ArtifactWriter: Send {
    /// Appends bytes. Returns once they are accepted, which may mean waiting for the store.
    async fn write(&mut self, bytes: Bytes) -> Result<()>;

    /// Ends the artifact and gives what was recorded about it. `attributes` is kept with it.
    async fn finish(self: Box<Self>, attributes: serde_json::Value) -> Result<ArtifactInfo>;
}

/// Where a [`Restore`](crate::Restore) or [`Verifier`](crate::Verifier) takes the artifacts of one
/// backup from.
#[async_trait]
pub trait ArtifactSource: Send + Sync {
    /// Everything the backup holds, sorted by name.
    async fn list(&self) -> Result<Vec<ArtifactInfo>>;

    /// Opens an artifact.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::ErrorKind::Damaged) when the backup has no such artifact.
    async fn open(&self, name: &ArtifactName) -> Result<Box<dyn ArtifactReader>>;

    /// Opens an artifact of which somebody has an older state: what is the same there is not read.
    /// `None` where the backup does not tell enough of the artifact, which is read as a whole then.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    async fn open_over(
        &self,
        name: &ArtifactName,
        older: Arc<dyn Older>,
    ) -> Result<Option<Box<dyn ChangedReader>>> {
        let _ = (name, older);
        Ok(None)
    }

    /// Reads a whole artifact of at most `limit` bytes.
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`ArtifactReader::next`]; also when it is longer than `limit`.
    async fn read(&self, name: &ArtifactName, limit: usize) -> Result<Vec<u8>> {
        let mut reader = self.open(name).await?;
        let mut all = Vec::new();
        while let Some(bytes) = reader.next().await? {
            if all.len() + bytes.len() > limit {
                return Err(Error::damaged(format!(
                    "artifact {name} is longer than {limit} bytes"
                )));
            }
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }
}

/// What somebody has of an artifact already: an older state of it, or anything else.
pub trait Older: Send + Sync {
    /// Reads from `offset` on as much of `bytes` as there is, and says how much that was.
    ///
    /// # Errors
    /// What goes wrong while it is read.
    fn read_at(&self, offset: u64, bytes: &mut [u8]) -> std::io::Result<usize>;
}

/// One artifact being read where an older state of it differs.
#[async_trait]
pub trait ChangedReader: Send {
    /// The length of the artifact.
    fn bytes(&self) -> u64;

    /// The next bytes that differ, with the offset where they begin; offsets only go up. `None` once every
    /// byte of the artifact was either given out or found to be the same: compared by a digest that was
    /// recorded at backup time. What was given out was checked against that too.
    ///
    /// The older state may be written over up to the end of what was given out.
    ///
    /// # Errors
    /// As [`ArtifactReader::next`], and when the older state cannot be read.
    async fn next(&mut self) -> Result<Option<(u64, Bytes)>>;
}

/// One artifact being read.
#[async_trait]
pub trait ArtifactReader: Send {
    /// The next piece, in order; `None` after the last one.
    ///
    /// Every piece was checked against a digest recorded at backup time before it is given out; the
    /// end is only reached when the digest of the whole artifact matches too.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::ErrorKind::Damaged) when a check fails.
    async fn next(&mut self) -> Result<Option<Bytes>>;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_come_back(parts in prop::collection::vec("\\PC{1,12}|\\.{1,3}|[/%\\\\\u{0}]{1,3}", 1..5)) {
            let name = ArtifactName::from_parts(parts.iter().map(String::as_str)).unwrap();
            prop_assert_eq!(name.parts(), parts);
            prop_assert_eq!(name.as_str().parse::<ArtifactName>().unwrap(), name);
        }

        #[test]
        fn what_parses_is_safe_as_a_path(text in "[a./%2Ff~\\\\]{0,12}") {
            if let Ok(name) = text.parse::<ArtifactName>() {
                prop_assert!(name.as_str().split('/').all(|p| !p.is_empty() && p != "." && p != ".."));
                prop_assert!(!name.as_str().contains('\\'));
            }
        }
    }
}
