//! A file as it is restored, from its first byte to its last: its artifact, with its changes over it.

use backup_core::{ArtifactReader, ArtifactSource, Error, Result};
use bytes::{Bytes, BytesMut};

use super::catalog::Entry;
use super::changes::ChangesReader;

/// Zeros that no artifact holds come in pieces of so many bytes.
const ZEROS: u64 = 256 << 10;

/// Reads such a file.
pub(super) struct WholeFile<'a> {
    entry: &'a Entry,
    artifact: Option<Box<dyn ArtifactReader>>,
    changes: Option<ChangesReader>,
    /// The change that comes next.
    change: Option<(u64, Bytes)>,
    at: u64,
}

impl<'a> WholeFile<'a> {
    pub(super) async fn open(entry: &'a Entry, artifacts: &dyn ArtifactSource) -> Result<Self> {
        let artifact = Some(artifacts.open(&entry.artifact()?).await?);
        let (mut changes, mut change) = (None, None);
        if let Some(name) = entry.changes_artifact()? {
            let mut reader = ChangesReader::new(artifacts.open(&name).await?);
            change = reader.next().await?;
            changes = Some(reader);
        }
        Ok(WholeFile { entry, artifact, changes, change, at: 0 })
    }

    /// The next bytes. `None` at the end.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when there are fewer or more than the catalog
    /// says, and what the artifacts fail with.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        let Some(piece) = self.base().await? else {
            return match self.at == self.entry.bytes && self.change.is_none() {
                true => Ok(None),
                false => Err(self.wrong()),
            };
        };
        let end = self.at + piece.len() as u64;
        if end > self.entry.bytes {
            return Err(self.wrong());
        }
        let piece = self.overlay(piece, end).await?;
        self.at = end;
        Ok(Some(piece))
    }

    /// What is there without changes. Only a file with changes may be longer than its artifact.
    async fn base(&mut self) -> Result<Option<Bytes>> {
        if let Some(artifact) = &mut self.artifact {
            while let Some(piece) = artifact.next().await? {
                if !piece.is_empty() {
                    return Ok(Some(piece));
                }
            }
            self.artifact = None;
        }
        let left = self.entry.bytes.saturating_sub(self.at).min(ZEROS);
        let zeros = || Bytes::from_static(&[0; ZEROS as usize]).slice(..left as usize);
        Ok((self.entry.changes && left > 0).then(zeros))
    }

    async fn overlay(&mut self, piece: Bytes, end: u64) -> Result<Bytes> {
        if self.change.as_ref().is_none_or(|(offset, _)| *offset >= end) {
            return Ok(piece);
        }
        let mut whole = BytesMut::from(piece);
        while let Some((offset, mut bytes)) = self.change.take() {
            if offset >= end {
                self.change = Some((offset, bytes));
                break;
            }
            // Changes come in order, so none begins before what was given.
            let from = (offset - self.at) as usize;
            let here = bytes.split_to(bytes.len().min((end - offset) as usize));
            whole[from..from + here.len()].copy_from_slice(&here);
            self.change = match (bytes.is_empty(), &mut self.changes) {
                (false, _) => Some((end, bytes)),
                (true, Some(changes)) => changes.next().await?,
                (true, None) => None,
            };
        }
        Ok(whole.freeze())
    }

    fn wrong(&self) -> Error {
        Error::damaged(format!(
            "{} is not the {} bytes that the catalog of the backup says",
            self.entry.path, self.entry.bytes
        ))
    }
}
