//! The artifacts of a backup, for reading.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::{
    ArtifactInfo, ArtifactName, ArtifactReader, ArtifactSource, BackupId, Context, Error, Manifest,
    MemoryPermit, Result,
};
use bytes::Bytes;
use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::format::{
    Entry, Extent, FRAME_HEADER_LEN, FrameHeader, FrameKind, Place, open, parse_entry,
};
use crate::index::{Index, Line};
use crate::key::{BackupObject, Key};
use crate::packer::lost_task;
use crate::reader::Reader;
use crate::repo::Repo;
use crate::scan::{is_damage, missing_object};

/// How many bytes of decoded frames are kept that more than one artifact may want.
const CACHE: usize = 8 << 20;

pub(crate) struct Source(pub(crate) Arc<Opened>);

/// What all readers of a backup share.
pub(crate) struct Opened {
    pub(crate) cx: Context,
    pub(crate) repo: Repo,
    manifest: Manifest,
    index: Index,
    /// Objects of which people were told that a copy stands in.
    pub(crate) told: Mutex<HashSet<Key>>,
    cache: Mutex<VecDeque<(Key, u64, Bytes)>>,
    /// KiB that reading ahead may take: a quarter of the budget, so that what a driver needs to
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

    pub(crate) fn new(cx: &Context, repo: &Repo, manifest: &Manifest, index: Index) -> Self {
        let quarter = usize::try_from(cx.memory().bytes() >> 12).unwrap_or(Semaphore::MAX_PERMITS);
        Source(Arc::new(Opened {
            cx: cx.clone(),
            repo: repo.clone(),
            manifest: manifest.clone(),
            index,
            told: Mutex::default(),
            cache: Mutex::default(),
            ahead: Arc::new(Semaphore::new(quarter)),
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
        Ok(index.artifacts.values().map(|a| a.info.clone()).collect())
    }

    async fn open(&self, name: &ArtifactName) -> Result<Box<dyn ArtifactReader>> {
        let artifact = self.0.index.artifacts.get(name).ok_or_else(|| {
            Error::damaged(format!("backup {} has no artifact {name}", self.0.manifest.backup))
        })?;
        let parts = artifact.parts.clone();
        Ok(Box::new(Reader::start(Arc::clone(&self.0), artifact.info.clone(), parts)))
    }
}

impl Opened {
    /// What is known of an artifact.
    pub(crate) fn info(&self, name: &ArtifactName) -> Option<&ArtifactInfo> {
        self.index.artifacts.get(name).map(|artifact| &artifact.info)
    }

    /// Where the catalog tells of an artifact, in order; nothing when it does not.
    pub(crate) fn parts(&self, name: &ArtifactName) -> &[Line] {
        self.index.artifacts.get(name).map(|a| a.parts.as_slice()).unwrap_or_default()
    }

    /// The key of a pack of this backup or of one that it refers to.
    pub(crate) fn pack(&self, backup: Option<&BackupId>, number: u32) -> Key {
        let backup = backup.unwrap_or(&self.manifest.backup);
        let cluster = self.manifest.cluster.clone();
        Key::Backup(cluster, backup.clone(), BackupObject::Pack(number))
    }

    pub(crate) fn place(&self, key: &Key) -> Place {
        self.repo.place(key)
    }

    /// Reads a range of an object; fewer bytes where it ends before.
    pub(crate) async fn fetch(&self, key: &Key, range: std::ops::Range<u64>) -> Result<Bytes> {
        match self.repo.shelf().get_range(key, range.clone()).await {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => self.fetch_copy(key, range, missing_object(key)).await,
            Err(e) if is_damage(&e) => self.fetch_copy(key, range, e).await,
            Err(e) => Err(e),
        }
    }

    /// Takes memory for reading ahead, unless there is too little just now.
    pub(crate) fn try_ahead(&self, bytes: usize) -> Option<Ahead> {
        let kib = u32::try_from(bytes.div_ceil(1024)).ok()?;
        let share = Arc::clone(&self.ahead).try_acquire_many_owned(kib).ok()?;
        let memory = self.cx.memory().reserve(bytes).now_or_never()?;
        Some(Ahead { _share: share, _memory: memory })
    }

    /// Reads a line of the catalog.
    pub(crate) async fn entry(&self, line: Line) -> Result<Entry> {
        let frame = &self.index.frames[line.frame as usize];
        let key = crate::index::key(&self.manifest, frame.object);
        let raw = match self.cached(&key, frame.offset) {
            Some(raw) => raw,
            None => {
                let end = frame.offset + u64::from(frame.frame_len);
                let bytes = self.fetch(&key, frame.offset..end).await?;
                let place = self.place(&key);
                let offset = frame.offset;
                let raw = tokio::task::spawn_blocking(move || {
                    decode(&place, offset, &bytes, FrameKind::Catalog, None)
                })
                .await
                .map_err(lost_task)?;
                let raw = match raw {
                    Ok(raw) => raw,
                    Err(e) => self.frame_of_copy(&key, offset..end, FrameKind::Catalog, None, e).await?,
                };
                self.keep(key.clone(), frame.offset, raw.clone());
                raw
            }
        };
        // The lines were counted when the index was loaded; the frame's check passed then and now.
        raw.get(line.start as usize..(line.start + line.len) as usize)
            .ok_or_else(|| Error::damaged(format!("{key} changed while it was read")))
            .and_then(parse_entry)
    }

    pub(crate) fn cached(&self, key: &Key, offset: u64) -> Option<Bytes> {
        let mut cache = crate::packer::lock(&self.cache);
        let at = cache.iter().position(|(k, o, _)| *o == offset && k == key)?;
        let found = cache.remove(at)?;
        let bytes = found.2.clone();
        cache.push_front(found);
        Some(bytes)
    }

    pub(crate) fn keep(&self, key: Key, offset: u64, raw: Bytes) {
        let mut cache = crate::packer::lock(&self.cache);
        cache.push_front((key, offset, raw));
        let mut sum = 0;
        cache.retain(|(_, _, raw)| {
            sum += raw.len();
            sum <= CACHE
        });
    }
}

/// Checks a whole frame and gives its content. `expected` is what the index says its check begins
/// with.
pub(crate) fn decode(
    place: &Place,
    offset: u64,
    frame: &Bytes,
    kind: FrameKind,
    expected: Option<&Extent>,
) -> Result<Bytes> {
    let damaged = |problem: &str| {
        Error::damaged(format!("{}: the frame at byte {offset} {problem}", place.path()))
    };
    let header = frame
        .first_chunk()
        .ok_or_else(|| damaged("is cut off"))
        .and_then(FrameHeader::parse)
        .map_err(|e| e.context(format!("{} at byte {offset}", place.path())))?;
    if header.kind != kind || header.frame_len() as usize != frame.len() {
        return Err(damaged("is not the one that the index means"));
    }
    if expected.is_some_and(|extent| header.check[..8] != extent.check) {
        return Err(damaged("is not the one that was written"));
    }
    open(place, offset, &header, frame.slice(FRAME_HEADER_LEN..))
}
