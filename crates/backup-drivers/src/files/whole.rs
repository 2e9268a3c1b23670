//! A file as it is restored, from its first byte to its last: its artifact, with its changes over it.

use backup_core::{ArtifactReader, ArtifactSource, Error, Result};
use bytes::{Bytes, BytesMut};

use super::catalog::Entry;
use super::changes::ChangesReader;

/// Zeros that no artifact holds come in pieces of so many bytes.
const ZEROS: u64 = 256 << 10;

/// Reads such a file.
pub struct WholeFile<'a> {
    entry: &'a Entry,
    artifact: Option<Box<dyn ArtifactReader>>,
    changes: Option<ChangesReader>,
    /// The change that comes next.
    change: Option<(u64, Bytes)>,
    at: u64,
}

impl<'a> WholeFile<'a> {
    /// Opens the artifacts of `entry`.
    ///
    /// # Errors
    /// What they fail with, and as [`next`](Self::next).
    pub async fn open(entry: &'a Entry, artifacts: &dyn ArtifactSource) -> Result<Self> {
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
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let Some(piece) = self.base().await? else {
            return match self.at == self.entry.bytes && self.no_more_changes().await? {
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

    /// Whether nothing is left but changes of no bytes.
    async fn no_more_changes(&mut self) -> Result<bool> {
        while let Some((_, bytes)) = &self.change {
            if !bytes.is_empty() {
                return Ok(false);
            }
            self.change = match &mut self.changes {
                Some(changes) => changes.next().await?,
                None => None,
            };
        }
        Ok(true)
    }

    fn wrong(&self) -> Error {
        Error::damaged(format!(
            "{} is not the {} bytes that the catalog of the backup says",
            self.entry.path, self.entry.bytes
        ))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use backup_core::{ArtifactInfo, ArtifactName, ArtifactWriter, ErrorKind};
    use proptest::prelude::*;

    use super::super::catalog::Kind;
    use super::super::changes::ChangesWriter;
    use super::*;

    /// Artifacts that come in pieces of some length.
    struct Memory {
        artifacts: BTreeMap<String, Bytes>,
        piece: usize,
    }

    #[async_trait]
    impl ArtifactSource for Memory {
        async fn list(&self) -> Result<Vec<ArtifactInfo>> {
            Err(Error::internal("nobody asks"))
        }
        async fn open(&self, name: &ArtifactName) -> Result<Box<dyn ArtifactReader>> {
            Ok(Box::new(Pieces(self.artifacts[name.as_str()].clone(), self.piece)))
        }
    }

    struct Pieces(Bytes, usize);

    #[async_trait]
    impl ArtifactReader for Pieces {
        async fn next(&mut self) -> Result<Option<Bytes>> {
            let count = self.0.len().min(self.1);
            Ok((count > 0).then(|| self.0.split_to(count)))
        }
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<BytesMut>>);

    #[async_trait]
    impl ArtifactWriter for Written {
        async fn write(&mut self, bytes: Bytes) -> Result<()> {
            self.0.lock().unwrap().extend_from_slice(&bytes);
            Ok(())
        }
        async fn finish(self: Box<Self>, _: serde_json::Value) -> Result<ArtifactInfo> {
            Err(Error::internal("nobody asks"))
        }
    }

    fn entry(bytes: usize, changes: bool) -> Entry {
        Entry {
            path: "t".into(),
            kind: Kind::File,
            bytes: bytes as u64,
            page_size: None,
            space_id: None,
            sparse: false,
            mode: 0o660,
            uid: 0,
            gid: 0,
            owner: None,
            group: None,
            modified: jiff::Timestamp::UNIX_EPOCH,
            origin: None,
            stored_as: None,
            changes,
        }
    }

    async fn whole(entry: &Entry, artifacts: &Memory) -> Result<Vec<u8>> {
        let mut file = WholeFile::open(entry, artifacts).await?;
        let mut all = Vec::new();
        while let Some(piece) = file.next().await? {
            assert!(!piece.is_empty());
            all.extend_from_slice(&piece);
        }
        Ok(all)
    }

    proptest! {
        #[test]
        fn changes_lie_over_what_was_read_before(
            base in proptest::collection::vec(1..255u8, 0..60),
            gaps in proptest::collection::vec((0..20usize, 0..20usize), 0..6),
            more in 0..30usize,
            piece in 1..25usize,
        ) {
            let mut changes = Vec::new();
            let mut at = 0;
            for (gap, length) in gaps {
                changes.push((at + gap, vec![255; length]));
                at += gap + length;
            }
            let length = base.len().max(at) + more;
            let mut expected = base.clone();
            expected.resize(length, 0);
            for (at, bytes) in &changes {
                expected[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let written = Written::default();
                let mut writer = ChangesWriter::new(Box::new(written.clone()));
                for (at, bytes) in changes {
                    writer.write(at as u64, bytes.into()).await.unwrap();
                }
                let changes = written.0.lock().unwrap().clone().freeze();
                let artifacts = BTreeMap::from([
                    ("files/t".to_owned(), Bytes::from(base.clone())),
                    ("changes/t".to_owned(), changes),
                ]);
                let artifacts = Memory { artifacts, piece };
                assert_eq!(whole(&entry(length, true), &artifacts).await.unwrap(), expected);
                // Without changes the artifact is all there is.
                assert_eq!(whole(&entry(base.len(), false), &artifacts).await.unwrap(), base);
                for wrong in [base.len() + 1, base.len().saturating_sub(1)] {
                    if wrong != base.len() {
                        let error = whole(&entry(wrong, false), &artifacts).await.unwrap_err();
                        assert_eq!(error.kind(), ErrorKind::Damaged);
                    }
                }
            });
        }
    }
}
