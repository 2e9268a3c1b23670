//! Packs being filled: frames come from many threads at once, packs go out in the background.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use backup_core::{
    ArtifactName, BackupId, ClusterName, Context, Error, ErrorKind, Needed, ObjectDigest, Result,
};
use bytes::{Bytes, BytesMut};
use object_store::PutPayload;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::auto::{self, Auto, Load};
use crate::base::{Base, Copy};
use crate::cut::Chunker;
use crate::format::{
    BasePart, Codec, Compression, End, EndOfObject, Entry, Extent, FRAME_HEADER_LEN, Frame,
    FrameKind, OBJECT_HEADER_LEN, ObjectKind, Packed, Place, Seals, compress, compress_delta, hex,
    seal,
};
use crate::frames::FrameAt;
use crate::key::{BackupObject, Key};
use crate::options::{Deltas, RepositoryOptions};
use crate::repo::Repo;
use crate::store::{Created, Store};

/// Small artifacts share frames of this length.
pub(crate) const FRAME_TARGET: usize = 1 << 20;
/// The longest frame that a writer makes.
pub(crate) const FRAME_MAX: usize = 4 << 20;
/// How many artifacts share a frame at most.
const SHARED_MAX: usize = 4096;
/// Lines of the catalog are cut into frames of about this length: one is read to open an artifact.
const CATALOG_TARGET: usize = 256 << 10;
/// How many packs are on their way at once.
const UPLOADS: usize = 2;
/// More packs than this do not fit into a manifest.
const MAX_PACKS: u32 = 400_000;

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
    used: Mutex<BTreeMap<BackupId, BTreeSet<u32>>>,
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
    shared: Mutex<SharedFrame>,
    catalog: Mutex<Catalog>,
    failure: OnceLock<Failure>,
    pub(crate) names: Mutex<std::collections::HashSet<ArtifactName>>,
    pub(crate) unfinished: AtomicUsize,
    pub(crate) next_id: AtomicU64,
    pub(crate) artifacts: AtomicU64,
    pub(crate) bytes: AtomicU64,
    /// Of these, bytes that no earlier backup had.
    pub(crate) new_bytes: AtomicU64,
}

/// What a line of the catalog will say.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) id: u64,
    pub(crate) seq: u32,
    pub(crate) name: ArtifactName,
    pub(crate) extents: Vec<Copy>,
}

impl Draft {
    pub(crate) fn new(id: u64, name: ArtifactName) -> Self {
        Draft { id, seq: 0, name, extents: Vec::new() }
    }
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

#[derive(Default)]
struct Packs {
    open: Option<Arc<Pack>>,
    next: u32,
}

struct Pack {
    number: u32,
    place: Place,
    state: Mutex<PackState>,
}

struct PackState {
    /// Where the next frame goes.
    offset: u64,
    frames: Vec<Option<(Bytes, Bytes)>>,
    /// Frames that have a place and are not there yet.
    missing: usize,
    /// No more frames will come.
    closed: bool,
    permits: Vec<OwnedSemaphorePermit>,
}

/// What is collected of small artifacts for the next shared frame.
#[derive(Default)]
struct SharedFrame {
    raw: BytesMut,
    /// Artifacts that wait for the place of their bytes: where these are in `raw`.
    waiting: Vec<(u32, u32, Draft, End)>,
}

#[derive(Default)]
struct Catalog {
    lines: Vec<u8>,
    /// Frames that are in no pack yet.
    fresh: Vec<Packed>,
    /// All frames, for the index.
    all: Vec<Packed>,
}

/// A lock that a panic elsewhere does not spoil: the failure is reported by the task that had it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
            pack_target,
            runtime: Handle::current(),
            tasks: TaskTracker::new(),
            stage: Arc::new(Semaphore::new(Self::stage(cx, options))),
            space: Arc::new(Semaphore::new(kib(Self::space(pack_target)) as usize)),
            uploads: Semaphore::new(UPLOADS),
            packs: Mutex::default(),
            stored: Mutex::default(),
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
        let each = FRAME_MAX + options.compression.memory(FRAME_MAX);
        cx.threads().min(share / each).max(1)
    }

    /// The memory that a backup takes with these options.
    pub(crate) fn memory(cx: &Context, options: &RepositoryOptions) -> usize {
        let each = FRAME_MAX + options.compression.memory(FRAME_MAX);
        Self::space(Self::pack_target(cx, options)) + Self::stage(cx, options) * each
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
        match base.frames.parts(&parts).await {
            Ok(bytes) => Some((bytes, parts)),
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

    /// Adds a line to the catalog: the last one of its artifact, with the map, where `end` is given.
    pub(crate) fn line(&self, draft: &Draft, end: Option<(&End, &[Copy])>) -> Result<()> {
        let mut sources: Vec<BackupId> = Vec::new();
        let mut extent = |copy: &Copy| {
            let FrameAt { backup, pack, offset, frame_len, check } = &copy.at;
            let source = if *backup == self.backup {
                0
            } else {
                self.uses(backup, *pack);
                let known = sources.iter().position(|id| id == backup);
                known.unwrap_or_else(|| {
                    sources.push(backup.clone());
                    sources.len() - 1
                }) as u32
                    + 1
            };
            Extent {
                source,
                pack: *pack,
                offset: *offset,
                frame_len: *frame_len,
                raw_offset: copy.raw_offset,
                len: copy.len,
                check: *check,
            }
        };
        let extents = draft.extents.iter().map(&mut extent).collect();
        let end =
            end.map(|(end, map)| End { map: map.iter().map(&mut extent).collect(), ..end.clone() });
        let (id, seq, name) = (draft.id, draft.seq, draft.name.clone());
        let entry = Entry { id, seq, name, sources, extents, end };
        let line = serde_json::to_vec(&entry).map_err(|e| {
            Error::internal("an entry of the catalog cannot be written").with_source(e)
        })?;
        let mut catalog = lock(&self.catalog);
        if catalog.lines.len() + line.len() >= CATALOG_TARGET {
            self.cut(&mut catalog)?;
        }
        catalog.lines.extend_from_slice(&line);
        catalog.lines.push(b'\n');
        Ok(())
    }

    /// Takes note that a pack of another backup is needed.
    fn uses(&self, backup: &BackupId, pack: u32) {
        let mut used = lock(&self.used);
        match used.get_mut(backup) {
            Some(packs) => {
                packs.insert(pack);
            }
            None => {
                used.insert(backup.clone(), BTreeSet::from([pack]));
            }
        }
    }

    /// What the manifest has to say about other backups.
    pub(crate) fn needs(&self) -> Result<Vec<Needed>> {
        let used = lock(&self.used);
        let lost = || Error::internal("the base of the backup does not know its packs");
        used.iter()
            .map(|(backup, packs)| {
                let base = self.base.as_ref().ok_or_else(lost)?;
                let packs = packs
                    .iter()
                    .map(|&number| base.pack(backup, number).cloned().ok_or_else(lost))
                    .collect::<Result<_>>()?;
                Ok(Needed { backup: backup.clone(), packs })
            })
            .collect()
    }

    /// Makes a frame of the lines collected.
    fn cut(&self, catalog: &mut Catalog) -> Result<()> {
        let lines = std::mem::take(&mut catalog.lines);
        if !lines.is_empty() {
            // Done wherever a line happens to be added, so never the slow way.
            let compression = match self.options.compression {
                Compression::None => Compression::None,
                _ => Compression::Zstd(1),
            };
            let packed = compress(compression, lines.into())?;
            catalog.fresh.push(packed.clone());
            catalog.all.push(packed);
        }
        Ok(())
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
        let (pack, reserved, full) = {
            let mut packs = lock(&self.packs);
            let pack = self.open_pack(&mut packs)?;
            let reserved = pack.reserve(&packed);
            let full = reserved.end >= self.pack_target;
            if full {
                packs.open = None;
            }
            (pack, reserved, full)
        };
        let at = self.fill(&pack, &reserved, kind, packed, space)?;
        if full {
            self.close(&pack)?;
        }
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

    fn open_pack(&self, packs: &mut Packs) -> Result<Arc<Pack>> {
        if let Some(pack) = &packs.open {
            return Ok(Arc::clone(pack));
        }
        if packs.next == MAX_PACKS {
            return Err(Error::new(
                ErrorKind::Store,
                format!("backup {} has more than {MAX_PACKS} packs", self.backup),
            )
            .with_remedy("choose larger packs"));
        }
        let number = packs.next;
        packs.next += 1;
        let pack = Arc::new(Pack {
            number,
            place: self.new_place(BackupObject::Pack(number)),
            state: Mutex::new(PackState {
                offset: OBJECT_HEADER_LEN as u64,
                frames: Vec::new(),
                missing: 0,
                closed: false,
                permits: Vec::new(),
            }),
        });
        packs.open = Some(Arc::clone(&pack));
        Ok(pack)
    }

    /// Seals a frame for its place and puts it there; the digest is computed without a lock.
    fn fill(
        self: &Arc<Self>,
        pack: &Arc<Pack>,
        reserved: &Reserved,
        kind: FrameKind,
        packed: Packed,
        space: Option<OwnedSemaphorePermit>,
    ) -> Result<FrameAt> {
        let Frame { header, head, payload } = seal(&pack.place, reserved.offset, kind, packed)?;
        let complete = {
            let mut state = lock(&pack.state);
            state.frames[reserved.slot] = Some((Bytes::copy_from_slice(&head), payload));
            state.permits.extend(space);
            state.missing -= 1;
            state.complete()
        };
        if complete {
            self.ship(pack);
        }
        let check = header.check.first_chunk();
        Ok(FrameAt {
            backup: self.backup.clone(),
            pack: pack.number,
            offset: reserved.offset,
            frame_len: header.frame_len(),
            check: *check.expect("a check has 16 bytes"),
        })
    }

    /// Ends a pack that is no longer open: catalog, end frame, then off it goes once every frame is
    /// in its place.
    fn close(self: &Arc<Self>, pack: &Arc<Pack>) -> Result<()> {
        let fresh = {
            let mut catalog = lock(&self.catalog);
            self.cut(&mut catalog)?;
            std::mem::take(&mut catalog.fresh)
        };
        let (at, frames) = {
            let state = lock(&pack.state);
            (state.offset, state.frames.len() + fresh.len())
        };
        for packed in fresh {
            let reserved = pack.reserve(&packed);
            self.fill(pack, &reserved, FrameKind::Catalog, packed, None)?;
        }
        let end = EndOfObject { catalog: at, frames: frames as u32 };
        let packed = end.pack();
        let reserved = pack.reserve(&packed);
        lock(&pack.state).closed = true;
        self.fill(pack, &reserved, FrameKind::End, packed, None)?;
        Ok(())
    }

    /// Closes the open pack; where there is none but lines of the catalog wait, in a new one.
    pub(crate) fn close_last(self: &Arc<Self>) -> Result<()> {
        let pack = {
            let mut packs = lock(&self.packs);
            let waiting = {
                let catalog = lock(&self.catalog);
                !catalog.lines.is_empty() || !catalog.fresh.is_empty()
            };
            if waiting && packs.open.is_none() {
                self.open_pack(&mut packs)?;
            }
            packs.open.take()
        };
        pack.map_or(Ok(()), |pack| self.close(&pack))
    }

    /// Sends a complete pack to the store, in the background.
    fn ship(self: &Arc<Self>, pack: &Arc<Pack>) {
        let (frames, permits) = {
            let mut state = lock(&pack.state);
            (std::mem::take(&mut state.frames), std::mem::take(&mut state.permits))
        };
        let header = pack.place.object_header(ObjectKind::Pack);
        let parts: Vec<Bytes> = std::iter::once(Bytes::copy_from_slice(&header))
            .chain(frames.into_iter().flatten().flat_map(|(head, body)| [head, body]))
            .collect();
        let packer = Arc::clone(self);
        let number = pack.number;
        self.tasks.spawn_on(
            async move {
                match packer.upload(BackupObject::Pack(number), parts).await {
                    Ok(digest) => {
                        lock(&packer.stored).insert(number, digest);
                    }
                    Err(e) => packer.fail(&e),
                }
                drop(permits);
            },
            &self.runtime,
        );
    }

    /// Stores an object of this backup and says what was stored.
    pub(crate) async fn upload(
        &self,
        object: BackupObject,
        parts: Vec<Bytes>,
    ) -> Result<ObjectDigest> {
        let _turn = self
            .uploads
            .acquire()
            .await
            .map_err(|_| Error::internal("the semaphore of the uploads was closed"))?;
        self.failed()?;
        let payload = PutPayload::from_iter(parts);
        let bytes = payload.content_length() as u64;
        let digested = payload.clone();
        let sha256 = tokio::task::spawn_blocking(move || {
            let mut digest = Sha256::new();
            digested.iter().for_each(|part| digest.update(part));
            hex(&digest.finalize())
        })
        .await
        .map_err(lost_task)?;
        let key = self.key(object);
        match self.store.create(&key, payload).await? {
            Created::New => {}
            Created::Exists => return Err(taken(&key)),
        }
        self.cx.progress().add_stored(bytes);
        Ok(ObjectDigest { name: object.to_string(), bytes, sha256 })
    }

    /// The packs stored, in order of their numbers. All tasks must have ended.
    pub(crate) fn stored(&self) -> Result<Vec<ObjectDigest>> {
        let stored: Vec<ObjectDigest> =
            std::mem::take(&mut *lock(&self.stored)).into_values().collect();
        if stored.len() == lock(&self.packs).next as usize {
            Ok(stored)
        } else {
            Err(Error::internal(format!("a pack of backup {} was lost on its way", self.backup)))
        }
    }

    /// The bytes of the index: every frame of the catalog, sealed for its place there.
    pub(crate) fn index(&self) -> Result<Vec<Bytes>> {
        let place = self.new_place(BackupObject::Index);
        let frames = {
            let mut catalog = lock(&self.catalog);
            self.cut(&mut catalog)?;
            std::mem::take(&mut catalog.all)
        };
        let end = EndOfObject { catalog: OBJECT_HEADER_LEN as u64, frames: frames.len() as u32 };
        let mut parts = vec![Bytes::copy_from_slice(&place.object_header(ObjectKind::Index))];
        let mut offset = OBJECT_HEADER_LEN as u64;
        let catalog = frames.into_iter().map(|packed| (FrameKind::Catalog, packed));
        for (kind, packed) in catalog.chain([(FrameKind::End, end.pack())]) {
            let frame = seal(&place, offset, kind, packed)?;
            offset += u64::from(frame.header.frame_len());
            parts.extend([Bytes::copy_from_slice(&frame.head), frame.payload]);
        }
        Ok(parts)
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

/// Where a frame will stand in a pack.
struct Reserved {
    slot: usize,
    offset: u64,
    end: u64,
}

impl Pack {
    fn reserve(&self, packed: &Packed) -> Reserved {
        let mut state = lock(&self.state);
        let offset = state.offset;
        state.offset += (FRAME_HEADER_LEN + packed.stored.len()) as u64;
        state.frames.push(None);
        state.missing += 1;
        Reserved { slot: state.frames.len() - 1, offset, end: state.offset }
    }
}

impl PackState {
    fn complete(&self) -> bool {
        self.closed && self.missing == 0
    }
}

/// A task that panicked or was stopped with its runtime.
pub(crate) fn lost_task(error: tokio::task::JoinError) -> Error {
    Error::internal("a task of the repository ended early").with_source(error)
}

/// Somebody else writes what only we can be writing.
pub(crate) fn taken(key: &Key) -> Error {
    Error::new(
        ErrorKind::Store,
        format!("{key} exists already, though this backup has only begun to write it"),
    )
    .with_remedy("see that nothing else writes below this directory, then run the backup again")
}
