//! Packs being filled: frames come from many threads at once, packs go out in the background.

mod catalog;
mod pack;

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use backup_core::{
    ArtifactName, BackupId, ClusterName, Context, Error, ErrorKind, ObjectDigest, Result,
};
use bytes::{Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::auto::{self, Auto, Load};
use crate::base::{Base, Copy};
use crate::cut::Chunker;
use crate::format::{
    BasePart, Codec, Compression, End, FrameKind, Packed, Place, Seals, compress, compress_delta,
};
use crate::frames::FrameAt;
use crate::key::{BackupObject, Key};
use crate::options::{Deltas, RepositoryOptions};
use crate::repo::Repo;
use crate::store::Store;
use crate::sync::{lock, lost_task};
pub(crate) use catalog::Draft;
use catalog::{Catalog, Learned, Used};
use pack::Packs;

/// Small artifacts share frames of this length.
pub(crate) const FRAME_TARGET: usize = 1 << 20;
/// The longest frame that a writer makes.
pub(crate) const FRAME_MAX: usize = 4 << 20;
/// How many artifacts share a frame at most.
const SHARED_MAX: usize = 4096;
/// How many packs are on their way at once.
const UPLOADS: usize = 2;

/// What all parts of a backup in progress share.
pub(crate) struct Packer {
    pub(crate) cx: Context,
    pub(crate) store: Store,
    seals: Seals,
    cluster: ClusterName,
    backup: BackupId,
    options: RepositoryOptions,
    auto: Auto,
    /// The backup that this one is compared with.
    pub(crate) base: Option<Arc<Base>>,
    /// Whether what changed may be stored as a delta.
    pub(crate) deltas: bool,
    pub(crate) chunker: Chunker,
    /// Packs of other backups that this one refers to.
    used: Mutex<Used>,
    /// Packs of unfinished backups that were read, for this one to refer to.
    learned: Mutex<Learned>,
    pack_target: u64,
    runtime: Handle,
    /// Every job and upload; the commit waits for all of them.
    pub(crate) tasks: TaskTracker,
    /// How many frames may be compressed at once.
    stage: Arc<Semaphore>,
    /// KiB that frames on their way may take, from before compression until the pack is stored.
    space: Arc<Semaphore>,
    uploads: Semaphore,
    packs: Mutex<Packs>,
    stored: Mutex<BTreeMap<u32, ObjectDigest>>,
    /// Tells that a pack was stored, or that none will be.
    arrived: Notify,
    shared: Mutex<SharedFrame>,
    catalog: Mutex<Catalog>,
    failure: OnceLock<Failure>,
    pub(crate) names: Mutex<HashSet<ArtifactName>>,
    pub(crate) unfinished: AtomicUsize,
    pub(crate) next_id: AtomicU64,
    pub(crate) artifacts: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// Of these, bytes that no earlier backup had.
    pub(crate) new_bytes: AtomicU64,
}

/// What became of a chunk.
pub(crate) struct Placed {
    /// Where it is, as a whole.
    pub(crate) copy: Copy,
    /// Whether it is stored as a delta to what was given as its base.
    pub(crate) is_delta: bool,
}

/// The first error, kept so that everybody who comes later can be told.
struct Failure {
    kind: ErrorKind,
    text: String,
    remedy: String,
}

/// What is collected of small artifacts for the next shared frame.
#[derive(Default)]
struct SharedFrame {
    raw: BytesMut,
    /// Artifacts that wait for the place of their bytes: where these are in `raw`.
    waiting: Vec<(u32, u32, Draft, End)>,
}

/// Permits for `bytes` of memory.
fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

impl Packer {
    pub(crate) fn new(
        cx: &Context,
        repo: &Repo,
        cluster: &ClusterName,
        backup: &BackupId,
        base: Option<Arc<Base>>,
    ) -> Self {
        let (store, seals, options) = (repo.store(), repo.seals(), repo.options());
        let pack_target = Self::pack_target(cx, options);
        Packer {
            cx: cx.clone(),
            store: store.clone(),
            seals: seals.clone(),
            cluster: cluster.clone(),
            backup: backup.clone(),
            options: options.clone(),
            auto: Auto::default(),
            base,
            deltas: match options.deltas {
                Deltas::Auto => store.is_local(),
                Deltas::Always => true,
                Deltas::Never => false,
            },
            chunker: Chunker::new(seals.keys.as_ref()),
            used: Mutex::default(),
            learned: Mutex::default(),
            pack_target,
            runtime: Handle::current(),
            tasks: TaskTracker::new(),
            stage: Arc::new(Semaphore::new(Self::stage(cx, options))),
            space: Arc::new(Semaphore::new(kib(Self::space(pack_target)) as usize)),
            uploads: Semaphore::new(UPLOADS),
            packs: Mutex::default(),
            stored: Mutex::default(),
            arrived: Notify::new(),
            shared: Mutex::default(),
            catalog: Mutex::default(),
            failure: OnceLock::new(),
            names: Mutex::default(),
            unfinished: AtomicUsize::new(0),
            next_id: AtomicU64::new(0),
            artifacts: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            new_bytes: AtomicU64::new(0),
        }
    }

    /// The length at which a pack is closed.
    fn pack_target(cx: &Context, options: &RepositoryOptions) -> u64 {
        let share = (cx.memory().bytes() / 10).max(1 << 20);
        options.pack_bytes.clamp(1 << 20, 1 << 30).min(share)
    }

    /// What packs take: one that is filled, and those on their way. An open pack never lets go of
    /// its share before it is full, so there must always be room for the longest frame beside it.
    fn space(pack_target: u64) -> usize {
        let target = usize::try_from(pack_target).unwrap_or(usize::MAX / 4);
        ((1 + UPLOADS) * target).max(target + 2 * FRAME_MAX)
    }

    /// How many frames are compressed at once: as many as there are threads, or fewer where a
    /// quarter of the memory budget would not do for them.
    fn stage(cx: &Context, options: &RepositoryOptions) -> usize {
        let share = usize::try_from(cx.memory().bytes() / 4).unwrap_or(usize::MAX);
        cx.threads().min(share / Self::per_frame(options)).max(1)
    }

    /// What it takes to compress a frame.
    fn per_frame(options: &RepositoryOptions) -> usize {
        FRAME_MAX + options.compression.memory(FRAME_MAX)
    }

    /// The memory that a backup takes with these options.
    pub(crate) fn memory(cx: &Context, options: &RepositoryOptions) -> usize {
        Self::space(Self::pack_target(cx, options))
            + Self::stage(cx, options) * Self::per_frame(options)
    }

    /// The cluster.
    pub(crate) fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// The backup that is written.
    pub(crate) fn backup(&self) -> &BackupId {
        &self.backup
    }

    /// A number for the next artifact.
    pub(crate) fn next_artifact(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Reserves the name of an artifact; false when there is one.
    pub(crate) fn claim(&self, name: &ArtifactName) -> bool {
        lock(&self.names).insert(name.clone())
    }

    /// Counts a finished artifact.
    pub(crate) fn count(&self, bytes: u64) {
        self.artifacts.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn key(&self, object: BackupObject) -> Key {
        Key::Backup(self.cluster.clone(), self.backup.clone(), object)
    }

    /// Where an object will stand that is written now.
    pub(crate) fn new_place(&self, object: BackupObject) -> Place {
        self.seals.new_place(&self.cx, &self.key(object))
    }

    /// Keeps the first error and stops everything.
    pub(crate) fn fail(&self, error: &Error) {
        let _ = self.failure.set(Failure {
            kind: error.kind(),
            text: error.chain(),
            remedy: error.remedy().to_owned(),
        });
        self.space.close();
        self.stage.close();
        self.arrived.notify_waiters();
    }

    /// The first error, if there was one.
    pub(crate) fn failed(&self) -> Result<()> {
        match self.failure.get() {
            None => Ok(()),
            Some(f) => Err(Error::new(f.kind, f.text.clone()).with_remedy(f.remedy.clone())),
        }
    }

    async fn permit(&self, semaphore: &Arc<Semaphore>, n: u32) -> Result<OwnedSemaphorePermit> {
        let permit = Arc::clone(semaphore).acquire_many_owned(n).await;
        self.failed()?;
        permit.map_err(|_| Error::internal("a backup that was given up is still being written"))
    }

    /// Begins to compress and place a chunk of an artifact, as a delta to `bases` (joined) where that
    /// pays. Waits while too much is on its way. `held` is how much memory the chunk keeps.
    pub(crate) async fn chunk(
        self: &Arc<Self>,
        chunk: Bytes,
        held: usize,
        bases: Vec<Copy>,
    ) -> Result<JoinHandle<Result<Placed>>> {
        let arrived = Instant::now();
        let space = self.permit(&self.space, kib(held)).await?;
        let room = Instant::now();
        let stage = self.permit(&self.stage, 1).await?;
        let load = Load { for_store: room - arrived, for_thread: room.elapsed() };
        let packer = Arc::clone(self);
        let make = move |base: Option<DeltaBase>| {
            let result =
                packer.place_chunk(FrameKind::Data, chunk, base.as_ref(), Some(space), load);
            drop(stage);
            result.inspect_err(|e| packer.fail(e))
        };
        if bases.is_empty() {
            return Ok(self.tasks.spawn_blocking_on(move || make(None), &self.runtime));
        }
        let packer = Arc::clone(self);
        Ok(self.tasks.spawn_on(
            async move {
                let base = packer.read_bases(bases).await;
                tokio::task::spawn_blocking(move || make(base)).await.map_err(lost_task)?
            },
            &self.runtime,
        ))
    }

    /// Reads what a delta is to be made against; `None` when that cannot be had.
    async fn read_bases(&self, bases: Vec<Copy>) -> Option<DeltaBase> {
        let base = self.base.as_ref()?;
        let parts: Vec<BasePart> = bases.into_iter().map(BasePart::from).collect();
        match base.frames.whole_parts(&parts).await {
            Ok(Ok(bytes)) => Some((bytes, parts)),
            // What was new in a stream that had changed all around it is in a delta without being one. It has no
            // whole version to be compared with, which is no damage.
            Ok(Err(_)) => None,
            Err(e) => {
                base.unreadable(&e);
                None
            }
        }
    }

    /// Stores a part of a map.
    pub(crate) async fn map(self: &Arc<Self>, content: Bytes) -> Result<Copy> {
        let space = self.permit(&self.space, kib(content.len())).await?;
        let packer = Arc::clone(self);
        let place =
            move || packer.place_chunk(FrameKind::Map, content, None, Some(space), Load::default());
        let task = self.tasks.spawn_blocking_on(place, &self.runtime);
        let placed = task.await.map_err(lost_task).flatten().inspect_err(|e| self.fail(e))?;
        Ok(placed.copy)
    }

    /// Adds the bytes of an artifact to the frame that small ones share. The artifact goes to the
    /// catalog when their place is known.
    pub(crate) async fn share(
        self: &Arc<Self>,
        bytes: &[u8],
        draft: Draft,
        end: End,
    ) -> Result<()> {
        let full = {
            let mut shared = lock(&self.shared);
            let full =
                shared.raw.len() + bytes.len() > FRAME_TARGET || shared.waiting.len() == SHARED_MAX;
            let taken = full.then(|| std::mem::take(&mut *shared));
            let at = shared.raw.len() as u32;
            shared.raw.extend_from_slice(bytes);
            shared.waiting.push((at, bytes.len() as u32, draft, end));
            taken
        };
        match full {
            Some(full) => self.close_shared(full).await,
            None => Ok(()),
        }
    }

    /// Places what small artifacts have collected.
    pub(crate) async fn flush_shared(self: &Arc<Self>) -> Result<()> {
        let shared = std::mem::take(&mut *lock(&self.shared));
        if shared.waiting.is_empty() {
            return Ok(());
        }
        self.close_shared(shared).await
    }

    async fn close_shared(self: &Arc<Self>, shared: SharedFrame) -> Result<()> {
        // A task of its own: once the bytes are out of `self.shared` they must get to their place
        // even when the caller is dropped at an await.
        let packer = Arc::clone(self);
        let placed = self.tasks.spawn_on(
            async move {
                let held = shared.raw.capacity();
                let job = packer.chunk(shared.raw.freeze(), held, Vec::new()).await?;
                let placed = job.await.map_err(lost_task)??;
                for (raw_offset, len, mut draft, end) in shared.waiting {
                    draft.extents.push(Copy { raw_offset, len, ..placed.copy.clone() });
                    packer.line(&draft, Some((&end, &[])))?;
                }
                Ok(())
            },
            &self.runtime,
        );
        let result = placed.await.map_err(lost_task).flatten();
        result.inspect_err(|e| self.fail(e))
    }

    /// How a chunk is compressed.
    fn compression(&self, chunk: &[u8], load: Load) -> Compression {
        match self.options.compression {
            Compression::Auto if auto::gets_smaller(chunk) => self.auto.choose(load),
            Compression::Auto => Compression::None,
            chosen => chosen,
        }
    }

    /// Compresses a chunk and puts it into a pack.
    fn place_chunk(
        self: &Arc<Self>,
        kind: FrameKind,
        chunk: Bytes,
        base: Option<&DeltaBase>,
        space: Option<OwnedSemaphorePermit>,
        load: Load,
    ) -> Result<Placed> {
        self.failed()?;
        let len = chunk.len() as u32;
        let packed = self.compress(chunk, base, load)?;
        let is_delta = packed.delta.is_some();
        // What compression saved is free again at once.
        let space = space.map(|mut all| match packed.codec {
            Codec::None => all,
            _ => all.split(kib(packed.stored.len()) as usize).unwrap_or(all),
        });
        let at = self.place(kind, packed, space)?;
        Ok(Placed { copy: Copy { at, raw_offset: 0, len }, is_delta })
    }

    /// Compresses a chunk: against its base where that saves much, by itself where it does not.
    fn compress(&self, chunk: Bytes, base: Option<&DeltaBase>, load: Load) -> Result<Packed> {
        let delta = match base {
            Some((base, parts)) => compress_delta(&chunk, base, parts)?,
            None => None,
        };
        let clearly = |delta: &Packed| delta.stored.len() <= chunk.len() / 8;
        let packed = match delta {
            Some(delta) if clearly(&delta) => delta,
            Some(delta) => {
                // A delta costs a restore the reading of its base.
                let whole = compress(self.compression(&chunk, load), chunk)?;
                if delta.stored.len() <= whole.stored.len() / 2 { delta } else { whole }
            }
            None => compress(self.compression(&chunk, load), chunk)?,
        };
        if packed.delta.is_some() {
            for part in base.into_iter().flat_map(|(_, parts)| parts) {
                self.uses(&part.backup, part.pack);
            }
        }
        Ok(packed)
    }
}

/// What a delta is made against: the bytes, and where they are.
type DeltaBase = (Vec<u8>, Vec<BasePart>);

impl From<Copy> for BasePart {
    fn from(Copy { at, raw_offset, len }: Copy) -> Self {
        let FrameAt { backup, pack, offset, frame_len, check } = at;
        BasePart { backup, pack, offset, frame_len, raw_offset, len, check }
    }
}
