//! Lines of a backup's catalog, read again where they stand in the store.

use std::collections::VecDeque;
use std::sync::Mutex;

use backup_core::{BackupId, ClusterName, Error, Result};
use bytes::Bytes;

use crate::format::{Entry, FrameKind, parse_entry};
use crate::frames::decode_whole;
use crate::index::{CatalogFrame, Line};
use crate::key::Key;
use crate::repo::Repo;
use crate::scan::missing_object;
use crate::sync::{lock, lost_task};

/// How many bytes of decoded catalog frames are kept.
const KEPT: usize = 4 << 20;

/// Reads lines of the catalog of one backup.
pub(crate) struct Catalog {
    repo: Repo,
    cluster: ClusterName,
    backup: BackupId,
    frames: Vec<CatalogFrame>,
    kept: Mutex<VecDeque<(u32, Bytes)>>,
}

impl Catalog {
    pub(crate) fn new(
        repo: &Repo,
        cluster: &ClusterName,
        backup: &BackupId,
        frames: Vec<CatalogFrame>,
    ) -> Self {
        Catalog {
            repo: repo.clone(),
            cluster: cluster.clone(),
            backup: backup.clone(),
            frames,
            kept: Mutex::default(),
        }
    }

    /// Reads a line.
    pub(crate) async fn entry(&self, line: Line) -> Result<Entry> {
        let raw = match self.kept(line.frame) {
            Some(raw) => raw,
            None => {
                let raw = self.fetch(line.frame).await?;
                self.keep(line.frame, &raw);
                raw
            }
        };
        // The lines were counted when the index was loaded; the frame's check passed then and now.
        raw.get(line.start as usize..(line.start + line.len) as usize)
            .ok_or_else(|| {
                Error::damaged(format!("the catalog of {} changed while it was read", self.backup))
            })
            .and_then(parse_entry)
    }

    async fn fetch(&self, number: u32) -> Result<Bytes> {
        let frame = &self.frames[number as usize];
        let key = Key::Backup(self.cluster.clone(), self.backup.clone(), frame.object);
        let offset = frame.offset;
        let range = offset..offset + u64::from(frame.frame_len);
        let bytes =
            self.repo.read(&key, range.clone()).await?.ok_or_else(|| missing_object(&key))?;
        let place = self.repo.place(&key);
        let decode = move |bytes: Bytes| decode_whole(&place, offset, &bytes, FrameKind::Catalog);
        let again = decode.clone();
        match tokio::task::spawn_blocking(move || decode(bytes)).await.map_err(lost_task)? {
            Err(e) => self.repo.copies().frame(&key, range, e, again).await,
            decoded => decoded,
        }
    }

    fn kept(&self, number: u32) -> Option<Bytes> {
        let mut kept = lock(&self.kept);
        let at = kept.iter().position(|(n, _)| *n == number)?;
        let frame = kept.remove(at)?;
        let raw = frame.1.clone();
        kept.push_front(frame);
        Some(raw)
    }

    fn keep(&self, number: u32, raw: &Bytes) {
        let mut kept = lock(&self.kept);
        kept.push_front((number, raw.clone()));
        let mut sum = 0;
        kept.retain(|(_, raw)| {
            sum += raw.len();
            sum <= KEPT
        });
    }
}
