//! Archived binlogs, copied with the backups that need them.

use std::collections::BTreeMap;

use backup_core::{
    Appended, BinlogChain, BinlogServer, ClusterName, Context, Error, ListedSegment, ReplayBase,
    Repository, Result, ResultExt, SegmentInfo, SegmentStore,
};
use futures::{StreamExt, TryStreamExt, stream};

use super::object::{Arrival, arrived, differs, digest_of, put};
use super::{CopyOptions, CopyTarget};
use crate::key::Key;
use crate::repo::Repo;
use crate::scan::missing_object;

/// What became of the binlogs of a cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopiedBinlogs {
    /// Segments that are at the target now.
    pub segments: u64,
    /// Of these, those that were sent now.
    pub sent: u64,
    /// Length of the objects that were sent, in bytes.
    pub bytes: u64,
}

/// Copies the archived binlogs of a cluster that a backup at the target needs, or that come after all
/// of them. Every one is read back there and compared. Those that are there already are only looked
/// for, unless `options` ask for more.
///
/// # Errors
/// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when a segment is damaged here or there;
/// else what the stores fail with. What was copied before that stays.
pub async fn copy_binlogs(
    cx: &Context,
    from: &Repo,
    target: &CopyTarget,
    cluster: &ClusterName,
    options: CopyOptions,
) -> Result<CopiedBinlogs> {
    let to = target.repo();
    let mut infos = Vec::new();
    for listed in from.segments(cx, cluster).await? {
        let name = format!("{}/{}", listed.server, listed.seq);
        infos.push(listed.info.context(|| format!("segment {name} was not copied"))?);
    }
    let mut bases = Vec::new();
    for listed in to.backups(cx, Some(cluster)).await? {
        bases.push(ReplayBase::of(&listed.manifest?));
    }
    let chain = BinlogChain::new(infos);
    let unneeded: Vec<(BinlogServer, u64)> =
        chain.unneeded(&bases).into_iter().map(|s| (s.server.clone(), s.seq)).collect();
    let there: BTreeMap<(BinlogServer, u64), ListedSegment> = to
        .segments(cx, cluster)
        .await?
        .into_iter()
        .map(|listed| ((listed.server.clone(), listed.seq), listed))
        .collect();
    let wanted: Vec<&SegmentInfo> = chain
        .segments()
        .filter(|s| {
            let key = (s.server.clone(), s.seq);
            there.contains_key(&key) || !unneeded.contains(&key)
        })
        .collect();
    let segments = wanted.len() as u64;
    // In their order: what is there is of one piece, wherever a run is stopped.
    let sent: Vec<u64> = stream::iter(wanted)
        .map(|segment| {
            let known = there.get(&(segment.server.clone(), segment.seq));
            async move {
                cx.check()?;
                let name =
                    || format!("segment {} was not copied to {}", segment.name(), target.name());
                copy(cx, from, target, segment, known, options).await.context(name)
            }
        })
        .buffered(cx.threads())
        .try_collect()
        .await?;
    Ok(CopiedBinlogs {
        segments,
        sent: sent.iter().filter(|bytes| **bytes > 0).count() as u64,
        bytes: sent.iter().sum(),
    })
}

/// Copies one. Gives the bytes that were sent, 0 where it was there.
async fn copy(
    cx: &Context,
    from: &Repo,
    target: &CopyTarget,
    segment: &SegmentInfo,
    known: Option<&ListedSegment>,
    options: CopyOptions,
) -> Result<u64> {
    let to = target.repo();
    let key = Key::Segment(segment.cluster.clone(), segment.server.clone(), segment.seq);
    if let Some(listed) = known {
        let same = listed.info.as_ref().is_ok_and(|info| info == segment);
        if same && !options.verify {
            return Ok(0);
        }
        if same && SegmentStore::read(to, cx, segment).await.is_ok() {
            return Ok(0);
        }
        if !options.replace_damaged {
            return Err(differs(to.store(), &key));
        }
        // Only what can be written again is removed.
        SegmentStore::read(from, cx, segment).await?;
        to.store().delete(&key).await?;
    }
    // Damage is not passed on.
    let content = SegmentStore::read(from, cx, segment).await?;
    let length = usize::try_from(segment.bytes()).unwrap_or(usize::MAX);
    let _memory = cx.memory().reserve(length).await;
    if target.is_same() {
        let bytes = from.store().get(&key, u64::MAX).await?.ok_or_else(|| missing_object(&key))?;
        let digest = digest_of(segment.name(), &bytes);
        if arrived(to.shelf(), &key, &digest).await? != Arrival::Whole {
            put(to.store(), &key, &digest, bytes.clone()).await?;
        }
        cx.progress().add_stored(digest.bytes);
        return Ok(digest.bytes);
    }
    let stored = match to.append(cx, segment, content.clone()).await? {
        Appended::Stored(bytes) => bytes,
        // Another copy was quicker.
        Appended::Taken => 0,
    };
    if SegmentStore::read(to, cx, segment).await? != content {
        return Err(Error::damaged(format!(
            "segment {} was written to {} and is not the same when it is read back",
            segment.name(),
            target.name()
        )));
    }
    cx.progress().add_stored(stored);
    Ok(stored)
}
