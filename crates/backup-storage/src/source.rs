//! The artifacts of a backup, for reading.

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{
    ArtifactInfo, ArtifactName, ArtifactReader, ArtifactSource, BackupId, ChangedReader, Context,
    Error, Manifest, MemoryPermit, Older, Result,
};
use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::catalog::Catalog;
use crate::changed::{self, Changed};
use crate::frames::Frames;
use crate::index::{Index, Indexed, Line};
use crate::reader::{Reader, prove};
use crate::repo::Repo;

pub(crate) struct Source(pub(crate) Arc<Opened>);

/// What all readers of a backup share.
pub(crate) struct Opened {
    pub(crate) cx: Context,
    manifest: Manifest,
    index: Index,
    pub(crate) catalog: Catalog,
    pub(crate) frames: Frames,
    /// KiB that reading ahead may take: an eighth of the budget, so that what a driver needs to
    /// use up what was read is never all taken.
    ahead: Arc<Semaphore>,
}

/// Memory for reading ahead.
pub(crate) struct Ahead {
    _share: OwnedSemaphorePermit,
    _memory: MemoryPermit,
}

impl Source {
    pub(crate) async fn load(cx: &Context, repo: &Repo, manifest: &Manifest) -> Result<Self> {
        let index = Index::load(cx, repo, manifest).await?;
        Ok(Source::new(cx, repo, manifest, index))
    }

    pub(crate) fn new(cx: &Context, repo: &Repo, manifest: &Manifest, mut index: Index) -> Self {
        let share = usize::try_from(cx.memory().bytes() >> 13).unwrap_or(Semaphore::MAX_PERMITS);
        let Manifest { cluster, backup, .. } = manifest;
        let catalog = Catalog::new(repo, cluster, backup, std::mem::take(&mut index.frames));
        Source(Arc::new(Opened {
            cx: cx.clone(),
            manifest: manifest.clone(),
            index,
            catalog,
            frames: Frames::new(cx, repo, cluster),
            ahead: Arc::new(Semaphore::new(share)),
        }))
    }
}

#[async_trait]
impl ArtifactSource for Source {
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when the index had to be rebuilt and
    /// does not tell of every artifact: a list that is silently too short would make a restore that
    /// looks complete. Those that are known can still be opened by name.
    async fn list(&self) -> Result<Vec<ArtifactInfo>> {
        let index = &self.0.index;
        if index.lost > 0 {
            return Err(Error::damaged(format!(
                "the index of backup {} is damaged, and so are packs that could replace it: {} of \
                 its {} artifacts cannot be found",
                self.0.manifest.backup, index.lost, self.0.manifest.totals.artifacts
            ))
            .with_remedy(
                "restore another backup, or repair this one from a copy of the repository",
            ));
        }
        Ok(index.artifacts.iter().map(|a| a.info.clone()).collect())
    }

    async fn open(&self, name: &ArtifactName) -> Result<Box<dyn ArtifactReader>> {
        let (info, parts) = self.0.known(name)?;
        Ok(Box::new(Reader::start(Arc::clone(&self.0), info, parts)))
    }

    async fn open_over(
        &self,
        name: &ArtifactName,
        older: Arc<dyn Older>,
    ) -> Result<Option<Box<dyn ChangedReader>>> {
        let (info, _) = self.0.known(name)?;
        let map = changed::map(&self.0, name).await?;
        if map.is_empty() {
            return Ok(None);
        }
        Ok(Some(Box::new(Changed::start(Arc::clone(&self.0), info, map, older))))
    }
}

impl Opened {
    fn known(&self, name: &ArtifactName) -> Result<(ArtifactInfo, Vec<Line>)> {
        let artifact = self.index.get(name).ok_or_else(|| {
            Error::damaged(format!("backup {} has no artifact {name}", self.manifest.backup))
        })?;
        Ok((artifact.info.clone(), artifact.parts.clone()))
    }

    /// Reads an artifact to its end, and compares it with its digest.
    ///
    /// # Errors
    /// When it cannot be read, or is not what it was.
    pub(crate) async fn prove(self: &Arc<Self>, name: &ArtifactName) -> Result<()> {
        let (info, parts) = self.known(name)?;
        prove(Arc::clone(self), info, parts).await
    }

    /// What the index knows of an artifact.
    pub(crate) fn info(&self, name: &ArtifactName) -> Option<&ArtifactInfo> {
        self.index.get(name).map(|artifact| &artifact.info)
    }

    /// Where the catalog tells of an artifact, in order; nothing when it does not.
    pub(crate) fn parts(&self, name: &ArtifactName) -> &[Line] {
        self.index.get(name).map(|artifact| artifact.parts.as_slice()).unwrap_or_default()
    }

    /// An artifact by its place in the index.
    pub(crate) fn artifact(&self, number: u32) -> &Indexed {
        &self.index.artifacts[number as usize]
    }

    /// The backup itself.
    pub(crate) fn backup(&self) -> &BackupId {
        &self.manifest.backup
    }

    /// Takes memory for reading ahead, unless there is too little just now.
    pub(crate) fn try_ahead(&self, bytes: usize) -> Option<Ahead> {
        let kib = u32::try_from(bytes.div_ceil(1024)).ok()?;
        let share = Arc::clone(&self.ahead).try_acquire_many_owned(kib).ok()?;
        let memory = self.cx.memory().reserve(bytes).now_or_never()?;
        Some(Ahead { _share: share, _memory: memory })
    }
}
