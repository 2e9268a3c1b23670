//! Frames of a cluster's backups, fetched, checked and decoded; deltas joined with what they are made
//! against.

use std::collections::HashMap;
use std::sync::Arc;

use backup_core::{BackupId, ClusterName, Context, Error, Result, ResultExt};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use crate::format::{
    BasePart, Delta, Extent, FRAME_HEADER_LEN, FrameHeader, FrameKind, Place, open, unseal,
};
use crate::key::{BackupObject, Key};
use crate::recent::{Look, Recent};
use crate::repo::Repo;
use crate::scan::missing_object;
use crate::sync::lost_task;

/// How much is asked of the store at once.
pub(crate) const WINDOW: u64 = 4 << 20;
/// Bytes between wanted frames that are read and dropped rather than asked around.
const GAP: u64 = 256 << 10;
/// How many requests to the store, or frames being decoded, one caller has under way.
const AT_ONCE: usize = 4;
/// Work on fewer bytes than this is done before another thread could begin with it.
const SHORT: u32 = 64 << 10;
/// How many bytes of frames one thread decodes, unless it is a single frame.
const JOB: u64 = 128 << 10;
/// Which part of the memory budget frames may take that are kept.
const KEPT_SHARE: u64 = 8;

/// Where a frame is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct FrameAt {
    pub(crate) backup: BackupId,
    pub(crate) pack: u32,
    pub(crate) offset: u64,
    pub(crate) frame_len: u32,
    /// What its check begins with.
    pub(crate) check: [u8; 8],
}

impl FrameAt {
    pub(crate) fn of(backup: &BackupId, extent: &Extent) -> Self {
        FrameAt {
            backup: backup.clone(),
            pack: extent.pack,
            offset: extent.offset,
            frame_len: extent.frame_len,
            check: extent.check,
        }
    }

    fn end(&self) -> u64 {
        self.offset + u64::from(self.frame_len)
    }
}

impl From<&BasePart> for FrameAt {
    fn from(part: &BasePart) -> Self {
        FrameAt {
            backup: part.backup.clone(),
            pack: part.pack,
            offset: part.offset,
            frame_len: part.frame_len,
            check: part.check,
        }
    }
}

/// Fetches frames, each once for all who want it at the same time, and keeps a few of those that will be
/// wanted again.
pub(crate) struct Frames {
    repo: Repo,
    cluster: ClusterName,
    recent: Arc<Recent>,
    /// As many frames are decoded at once as there are workers: more of them only wait for each other.
    workers: Arc<Semaphore>,
}

/// A frame, and its number among those asked for.
type Wanted = (usize, FrameAt);

/// The content of a delta without its base, given the number of its frame among those asked for: `None` where
/// it cannot be had, or is not what is wanted of it. Is called where it may take its time.
pub(crate) type Shortcut = Arc<dyn Fn(usize, &Delta) -> Option<Bytes> + Send + Sync>;

/// What came out of a frame.
enum Decoded {
    Whole(Bytes),
    Delta(Delta),
}

impl Frames {
    /// For the reads of a run.
    pub(crate) fn new(cx: &Context, repo: &Repo, cluster: &ClusterName) -> Self {
        Frames {
            repo: repo.clone(),
            cluster: cluster.clone(),
            recent: Arc::new(Recent::new(
                usize::try_from(cx.memory().bytes() / KEPT_SHARE).unwrap_or(usize::MAX),
            )),
            workers: Arc::new(Semaphore::new(cx.threads())),
        }
    }

    fn key(&self, at: &FrameAt) -> Key {
        Key::Backup(self.cluster.clone(), at.backup.clone(), BackupObject::Pack(at.pack))
    }

    /// The contents of `wanted`, in this order. With each frame comes how many bytes of it are used now:
    /// where it has more, it is kept, for it may be wanted again soon.
    pub(crate) async fn get(
        &self,
        wanted: &[(FrameAt, u32)],
        kind: FrameKind,
    ) -> Result<Vec<Bytes>> {
        self.get_near(wanted, kind, None).await
    }

    /// As [`get`](Self::get), with deltas made by `shortcut` where it can.
    pub(crate) async fn get_near(
        &self,
        wanted: &[(FrameAt, u32)],
        kind: FrameKind,
        shortcut: Option<&Shortcut>,
    ) -> Result<Vec<Bytes>> {
        let mut contents: Vec<Option<Bytes>> = vec![None; wanted.len()];
        let (mut missing, mut turns, mut coming) = (Vec::new(), HashMap::new(), Vec::new());
        for (i, (at, _)) in wanted.iter().enumerate() {
            match self.recent.look(at) {
                Look::Here(content) => contents[i] = Some(content),
                Look::Coming(content) => coming.push((i, content)),
                Look::Yours(turn) => {
                    turns.insert(i, turn);
                    missing.push((i, at.clone()));
                }
            }
        }
        let groups: Vec<Vec<Wanted>> =
            missing.chunk_by(|(_, a), (_, b)| joins(a, b)).flat_map(windows).collect();
        let mut deltas = Vec::new();
        let mut fetched =
            stream::iter(groups).map(|group| self.fetch(group, kind)).buffer_unordered(AT_ONCE);
        while let Some(group) = fetched.try_next().await? {
            for (i, decoded) in group {
                // Whoever waits for a delta does not any more: two that wait for each other, in a
                // repository that was tampered with, would wait forever.
                let turn = turns.remove(&i);
                match decoded {
                    Decoded::Delta(delta) => deltas.push((i, delta)),
                    Decoded::Whole(content) => {
                        if let Some(turn) = turn {
                            turn.give(&content, content.len() > wanted[i].1 as usize);
                        }
                        contents[i] = Some(content);
                    }
                }
            }
        }
        // After the whole frames: some of those are what the deltas are made against.
        let mut joined = stream::iter(deltas)
            .map(|(i, delta)| async move {
                if let Some(content) = self.shorten(i, &delta, shortcut).await? {
                    return Ok((i, content, false));
                }
                let content = self.join(delta).await.context(|| self.here(&wanted[i].0))?;
                Ok::<_, Error>((i, content, true))
            })
            .buffer_unordered(AT_ONCE);
        while let Some((i, content, proved)) = joined.try_next().await? {
            let (at, used) = &wanted[i];
            // What a shortcut gave is only right where it was asked for.
            if proved && content.len() > *used as usize {
                self.recent.keep(at, &content);
            }
            contents[i] = Some(content);
        }
        let mut again = Vec::new();
        for (i, content) in coming {
            match content.await {
                Some(content) => contents[i] = Some(content),
                None => again.push(i),
            }
        }
        // Somebody else gave up on these, or found that they are deltas.
        for i in again {
            contents[i] = Box::pin(self.get_near(&wanted[i..=i], kind, None)).await?.pop();
        }
        contents
            .into_iter()
            .map(|content| content.ok_or_else(|| Error::internal("a frame was not fetched")))
            .collect()
    }

    /// Reads frames that stand next to each other, and decodes each on a thread of its own.
    async fn fetch(&self, group: Vec<Wanted>, kind: FrameKind) -> Result<Vec<(usize, Decoded)>> {
        let (Some((_, first)), Some((_, last))) = (group.first(), group.last()) else {
            return Ok(Vec::new());
        };
        let key = self.key(first);
        let start = first.offset;
        let range = start..last.end();
        let bytes = self.repo.read(&key, range).await?.ok_or_else(|| missing_object(&key))?;
        let place = self.repo.place(&key);
        let jobs = stream::iter(jobs(&group)).map(|job| {
            let (place, bytes) = (place.clone(), bytes.clone());
            let work = move || {
                let decoded = job.into_iter().map(|(i, at)| {
                    // Where the object ended early, what is left is too short for its frame.
                    let from = usize::try_from(at.offset - start).unwrap_or(usize::MAX);
                    let to = from.saturating_add(at.frame_len as usize).min(bytes.len());
                    let frame = bytes.slice(from.min(to)..to);
                    let decoded = decode(&place, at.offset, &frame, kind, Some(&at.check));
                    (i, at, decoded)
                });
                decoded.collect::<Vec<_>>()
            };
            let workers = Arc::clone(&self.workers);
            async move {
                let worker = workers.acquire_owned().await;
                let work = tokio::task::spawn_blocking(move || {
                    let decoded = work();
                    drop(worker);
                    decoded
                });
                AbortOnDropHandle::new(work).await
            }
        });
        let mut jobs = jobs.buffered(AT_ONCE);
        let mut all = Vec::with_capacity(group.len());
        while let Some(job) = jobs.next().await {
            for (i, at, decoded) in job.map_err(lost_task)? {
                let decoded = match decoded {
                    Err(e) => {
                        let open =
                            |frame: Bytes| decode(&place, at.offset, &frame, kind, Some(&at.check));
                        self.repo.copies().frame(&key, at.offset..at.end(), e, open).await?
                    }
                    Ok(decoded) => decoded,
                };
                all.push((i, decoded));
            }
        }
        Ok(all)
    }

    /// As many threads do something at once as there are permits.
    pub(crate) fn workers(&self) -> &Arc<Semaphore> {
        &self.workers
    }

    async fn shorten(
        &self,
        number: usize,
        delta: &Delta,
        shortcut: Option<&Shortcut>,
    ) -> Result<Option<Bytes>> {
        let Some(shortcut) = shortcut.map(Arc::clone) else { return Ok(None) };
        let delta = delta.clone();
        let worker = Arc::clone(&self.workers).acquire_owned().await;
        let work = move || {
            let content = shortcut(number, &delta);
            drop(worker);
            content
        };
        AbortOnDropHandle::new(tokio::task::spawn_blocking(work)).await.map_err(lost_task)
    }

    /// Joins a delta with its base.
    async fn join(&self, delta: Delta) -> Result<Bytes> {
        let base = self.parts(&delta.base).await?;
        if delta.raw_len() <= SHORT {
            return delta.apply(&base);
        }
        tokio::task::spawn_blocking(move || delta.apply(&base)).await.map_err(lost_task)?
    }

    /// The bytes that `parts` name, one after the other. Their frames must be whole ones.
    pub(crate) async fn parts(&self, parts: &[BasePart]) -> Result<Vec<u8>> {
        self.whole_parts(parts).await?.map_err(|at| {
            Error::damaged(format!(
                "{} is a delta, and another delta is made against it",
                self.here(&at)
            ))
        })
    }

    /// As [`parts`](Self::parts); the inner error is a frame that is a delta.
    pub(crate) async fn whole_parts(
        &self,
        parts: &[BasePart],
    ) -> Result<std::result::Result<Vec<u8>, FrameAt>> {
        let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len as usize).sum());
        // Few frames at a time: a base may be scattered over a hundred of them.
        let frames: Vec<&[BasePart]> = parts
            .chunk_by(|a, b| (&a.backup, a.pack, a.offset) == (&b.backup, b.pack, b.offset))
            .collect();
        for some in frames.chunks(AT_ONCE) {
            let wanted: Vec<FrameAt> = some.iter().map(|parts| (&parts[0]).into()).collect();
            let contents = match self.whole(wanted).await? {
                Ok(contents) => contents,
                Err(delta) => return Ok(Err(delta)),
            };
            for (content, part) in
                contents.iter().zip(some).flat_map(|(c, parts)| parts.iter().map(move |p| (c, p)))
            {
                let end = part.raw_offset as usize + part.len as usize;
                let piece = content.get(part.raw_offset as usize..end).ok_or_else(|| {
                    Error::damaged(format!(
                        "{} holds less than a delta says",
                        self.here(&part.into())
                    ))
                })?;
                bytes.extend_from_slice(piece);
            }
        }
        Ok(Ok(bytes))
    }

    /// The contents of whole frames, or the first among them that is a delta.
    async fn whole(
        &self,
        wanted: Vec<FrameAt>,
    ) -> Result<std::result::Result<Vec<Bytes>, FrameAt>> {
        stream::iter(wanted)
            .map(|at| async move {
                let turn = match self.recent.look(&at) {
                    Look::Here(content) => return Ok(Ok(content)),
                    Look::Yours(turn) => Some(turn),
                    Look::Coming(content) => match content.await {
                        Some(content) => return Ok(Ok(content)),
                        None => None,
                    },
                };
                let decoded = self.fetch(vec![(0, at.clone())], FrameKind::Data).await?.pop();
                let Some((_, Decoded::Whole(content))) = decoded else {
                    return Ok(Err(at));
                };
                match turn {
                    Some(turn) => turn.give(&content, true),
                    None => self.recent.keep(&at, &content),
                }
                Ok(Ok(content))
            })
            .buffered(AT_ONCE)
            .try_collect::<Vec<_>>()
            .await
            .map(|all| all.into_iter().collect())
    }

    fn here(&self, at: &FrameAt) -> String {
        format!("{} at byte {}", self.key(at), at.offset)
    }
}

/// Whether two frames are read with one request.
fn joins(a: &FrameAt, b: &FrameAt) -> bool {
    a.backup == b.backup && a.pack == b.pack && b.offset >= a.end() && b.offset - a.end() <= GAP
}

/// Cuts frames that stand together into requests of about a window.
fn windows(group: &[Wanted]) -> Vec<Vec<Wanted>> {
    let mut windows: Vec<Vec<Wanted>> = Vec::new();
    for (i, at) in group {
        match windows.last_mut() {
            Some(window) if at.end() - window[0].1.offset <= WINDOW => {
                window.push((*i, at.clone()));
            }
            _ => windows.push(vec![(*i, at.clone())]),
        }
    }
    windows
}

/// Cuts frames into what one thread decodes.
fn jobs(group: &[Wanted]) -> Vec<Vec<Wanted>> {
    let mut bytes = group.first().map_or(0, |(_, at)| u64::from(at.frame_len));
    let together = |_: &Wanted, (_, next): &Wanted| {
        bytes += u64::from(next.frame_len);
        let fits = bytes <= JOB;
        if !fits {
            bytes = u64::from(next.frame_len);
        }
        fits
    };
    group.chunk_by(together).map(<[Wanted]>::to_vec).collect()
}

/// Checks a frame and decodes it. `expected` is what the index says its check begins with.
fn decode(
    place: &Place,
    offset: u64,
    frame: &Bytes,
    kind: FrameKind,
    expected: Option<&[u8; 8]>,
) -> Result<Decoded> {
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
    if expected.is_some_and(|check| header.check[..8] != *check) {
        return Err(damaged("is not the one that was written"));
    }
    let payload = frame.slice(FRAME_HEADER_LEN..);
    if header.delta.is_none() {
        return open(place, offset, &header, payload).map(Decoded::Whole);
    }
    let payload = unseal(place, offset, &header, payload)?;
    Delta::parse(&header, &payload)
        .map(Decoded::Delta)
        .map_err(|e| e.context(format!("{} at byte {offset}", place.path())))
}

/// Checks a whole frame that a catalog names by its place alone, and gives its content.
pub(crate) fn decode_whole(
    place: &Place,
    offset: u64,
    frame: &Bytes,
    kind: FrameKind,
) -> Result<Bytes> {
    match decode(place, offset, frame, kind, None)? {
        Decoded::Whole(content) => Ok(content),
        Decoded::Delta(_) => Err(Error::damaged(format!(
            "{}: the frame at byte {offset} is a delta where a whole frame should be",
            place.path()
        ))),
    }
}
