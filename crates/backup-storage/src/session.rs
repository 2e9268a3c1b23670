//! A backup being written, from its marker to its manifest.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{
    ArtifactInfo, ArtifactName, ArtifactSink, ArtifactSource, ArtifactWriter, BackupId,
    BackupSession, BackupSpec, BackupType, ClusterName, Context, Error, ErrorKind, Event, FORMAT,
    Layout, Leftover, Manifest, MemoryPermit, Outcome, Repository, Result, Totals,
};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use crate::base::Base;
use crate::copy::all_arrived;
use crate::format::{Codec, FrameKind, OBJECT_HEADER_LEN, ObjectKind, Packed, seal};
use crate::key::{self, BackupObject};
use crate::leftover::Unfinished;
use crate::marker::{Beginning, Marker};
use crate::marks;
use crate::options::{RepositoryOptions, Resume};
use crate::packer::Packer;
use crate::repo::{Repo, WRITER};
use crate::scan::is_damage;
use crate::source::Source;
use crate::store::taken;
use crate::store::{Created, Store};
use crate::sync::{lock, lost_task};
use crate::writer::Writer;

pub(crate) struct Session {
    packer: Arc<Packer>,
    spec: BackupSpec,
    id: BackupId,
    started_at: Timestamp,
    marker: tokio::sync::Mutex<Marker>,
    /// What the manifest has to warn of besides what the driver says.
    warnings: Vec<String>,
    memory: Mutex<Option<MemoryPermit>>,
    repo: Repo,
    /// An unfinished backup that this one may go on with.
    unfinished: Option<Unfinished>,
    /// A later backup may go on with this one when it fails.
    resumable: AtomicBool,
    /// Committed, aborted, or on the way there.
    ended: AtomicBool,
    /// When the backup was finished of which this is a copy: a copy keeps its times, and nothing of
    /// it counts before it was read back.
    copied: Option<Timestamp>,
}

impl Session {
    /// Reserves an id in the store, and memory.
    pub(crate) async fn begin(cx: &Context, repo: &Repo, spec: BackupSpec) -> Result<Self> {
        let (store, options) = (repo.store(), repo.options());
        let memory = reserve(cx, options).await;
        let newest = wait_for_newer_id(cx, store, &spec.cluster).await?;
        // Named in the marker before it is used: a prune lets it stay then.
        let mut warnings = Vec::new();
        let base = choose_base(cx, repo, &spec, None, &mut warnings).await;
        let unfinished = Unfinished::find(cx, repo, &spec).await?;
        let marker = Marker::create(
            cx,
            store,
            Beginning {
                cluster: spec.cluster.clone(),
                backup_type: spec.backup_type,
                base: base.as_ref().map(|base| base.backup.clone()),
                parent: spec.parent.clone(),
                resumes: unfinished.iter().flat_map(Unfinished::names).collect(),
                strategy: Some(spec.strategy),
                heartbeat: options.heartbeat,
            },
        )
        .await?;
        let id = marker.backup().clone();
        let usable = |base: &Manifest| marker.base() == Some(&base.backup) && base.backup < id;
        let base = load_base(cx, repo, base.filter(usable), &mut warnings).await;
        let mut session = Session::new(cx, repo, spec, marker, base, memory);
        session.unfinished = unfinished;
        if let Some(newest) = newest.filter(|newest| *newest > id) {
            let text = format!(
                "the clock of this machine is behind: backup {id} begins after {newest}, which \
                 stays the latest by its name"
            );
            cx.event(Event::Warning { text: text.clone() });
            warnings.push(text);
        }
        session.warnings = warnings;
        Ok(session)
    }

    /// Begins to write a copy of `original` from another repository, under the same id and with the
    /// same times. Nothing may stand in its directory.
    pub(crate) async fn begin_as(cx: &Context, repo: &Repo, original: &Manifest) -> Result<Self> {
        let memory = reserve(cx, repo.options()).await;
        let heartbeat = repo.options().heartbeat;
        let marker = Marker::create_as(cx, repo.store(), original, heartbeat).await?;
        let spec = BackupSpec {
            cluster: original.cluster.clone(),
            strategy: original.strategy,
            backup_type: original.backup_type,
            parent: original.parent.clone(),
        };
        // The marker of a copy protects the whole cluster from prunes that begin now. What was
        // marked before it is seen here, and not used.
        // Which are of this repository; the manifest is that of the original.
        let mut warnings = Vec::new();
        let base = choose_base(cx, repo, &spec, Some(&original.backup), &mut warnings).await;
        let base = load_base(cx, repo, base, &mut warnings).await;
        let mut session = Session::new(cx, repo, spec, marker, base, memory);
        session.started_at = original.started_at;
        session.copied = Some(original.finished_at);
        Ok(session)
    }

    fn new(
        cx: &Context,
        repo: &Repo,
        spec: BackupSpec,
        marker: Marker,
        base: Option<Arc<Base>>,
        memory: MemoryPermit,
    ) -> Self {
        let id = marker.backup().clone();
        Session {
            packer: Arc::new(Packer::new(cx, repo, &spec.cluster, &id, base)),
            spec,
            id,
            started_at: marker.started_at(),
            marker: tokio::sync::Mutex::new(marker),
            warnings: Vec::new(),
            memory: Mutex::new(Some(memory)),
            repo: repo.clone(),
            unfinished: None,
            resumable: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            copied: None,
        }
    }

    /// Makes sure that a backup ends once: what was committed is never removed.
    fn end(&self) -> Result<()> {
        if self.ended.swap(true, Ordering::SeqCst) {
            return Err(Error::internal(format!("backup {} has ended already", self.id)));
        }
        Ok(())
    }

    /// Waits until no task of this backup runs any more.
    async fn settle(&self) {
        self.packer.tasks.close();
        self.packer.tasks.wait().await;
    }

    /// Removes what was written, the marker last. Nothing of this backup may be running.
    async fn remove(&self) -> Result<()> {
        self.marker.lock().await.stop().await;
        let directory = key::backup(&self.spec.cluster, &self.id);
        let marker = BackupObject::Active.to_string();
        self.packer.store.remove_all(&directory, &marker).await
    }

    /// Leaves what is finished to a later backup. False when there is nothing.
    async fn suspend(&self) -> Result<bool> {
        if !self.resumable.load(Ordering::SeqCst) {
            return Ok(false);
        }
        let packer = &self.packer;
        // What failed in the store already cannot be added to.
        if packer.failed().is_ok() && packer.flush_shared().await.is_ok() {
            let _ = on_worker(packer, Packer::close_last).await;
        }
        self.settle().await;
        self.marker.lock().await.suspend().await?;
        Ok(true)
    }

    /// Ends a backup that cannot be finished. True when a later one can go on with it.
    async fn give_up(&self, error: &Error) -> bool {
        match self.suspend().await {
            Ok(false) => {}
            Ok(true) => {
                self.packer.fail(error);
                return true;
            }
            Err(e) => {
                let text = format!("backup {} may seem to run on: {}", self.id, e.chain());
                self.packer.cx.event(Event::Warning { text });
                self.packer.fail(error);
                return true;
            }
        }
        self.packer.fail(error);
        self.settle().await;
        if let Err(e) = self.remove().await {
            self.packer.cx.event(Event::Warning {
                text: format!("the unfinished backup {} was not removed: {}", self.id, e.chain()),
            });
        }
        false
    }

    /// Gives up, and adds to the error what can be done.
    async fn failed(&self, error: Error) -> Error {
        match self.give_up(&error).await {
            true => backup_core::pipeline::with_work(error),
            false => error,
        }
    }

    /// Everything up to the manifest.
    async fn write_objects(&self, outcome: Outcome) -> Result<Manifest> {
        let packer = &self.packer;
        packer.failed()?;
        if packer.unfinished.load(Ordering::Relaxed) > 0 {
            return Err(Error::internal(format!(
                "backup {} is committed while an artifact is being written",
                self.id
            )));
        }
        packer.flush_shared().await?;
        on_worker(packer, Packer::close_last).await?;
        self.settle().await;
        packer.failed()?;
        let packs = packer.stored()?;
        let index = on_worker(packer, |packer| packer.index()).await?;
        let index = packer.upload(BackupObject::Index, index).await?;
        // When all is stored: a store that takes its time, or is given it, takes part in how long a backup takes.
        let finished_at = self.copied.unwrap_or_else(|| packer.cx.now());
        let written: Vec<_> = packs.iter().chain([&index]).collect();
        let marker = self.marker.lock().await;
        if self.copied.is_some() {
            marker.awake(&packer.cx)?;
        }
        marker.check(&written).await?;
        drop(marker);
        let bytes = packer.bytes.load(Ordering::Relaxed);
        let manifest = Manifest {
            format: FORMAT,
            backup: self.id.clone(),
            cluster: self.spec.cluster.clone(),
            strategy: self.spec.strategy,
            backup_type: self.spec.backup_type,
            parent: self.spec.parent.clone(),
            needs: packer.needs()?,
            started_at: self.started_at,
            finished_at,
            writer: WRITER.to_owned(),
            outcome,
            totals: Totals {
                artifacts: packer.artifacts.load(Ordering::Relaxed),
                bytes_read: bytes,
                bytes_new: packer.new_bytes.load(Ordering::Relaxed),
                bytes_stored: packs.iter().map(|p| p.bytes).sum::<u64>() + index.bytes,
            },
            packs,
            index,
        };
        if self.copied.is_some() {
            all_arrived(&packer.cx, &packer.store, &manifest).await?;
        }
        Ok(manifest)
    }

    async fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        let mut json = serde_json::to_vec_pretty(manifest).map_err(|e| {
            Error::internal("the manifest cannot be written as JSON").with_source(e)
        })?;
        json.push(b'\n');
        let place = self.packer.new_place(BackupObject::Manifest);
        let bytes = single(&place, ObjectKind::Manifest, FrameKind::Manifest, json)?;
        let key = self.packer.key(BackupObject::Manifest);
        match self.packer.store.create(&key, bytes).await? {
            Created::New => Ok(()),
            Created::Exists => Err(taken(&key)),
        }
    }
}

/// Takes the memory of a backup once: a writer that waited for some while its driver holds some could
/// wait forever.
async fn reserve(cx: &Context, options: &RepositoryOptions) -> MemoryPermit {
    cx.memory().reserve(Packer::memory(cx, options)).await
}

/// Compresses and seals where no other task has to wait for it.
async fn on_worker<T: Send + 'static>(
    packer: &Arc<Packer>,
    work: fn(&Arc<Packer>) -> Result<T>,
) -> Result<T> {
    let worker = Arc::clone(packer);
    packer.tasks.spawn_blocking(move || work(&worker)).await.map_err(lost_task)?
}

/// Finds an earlier backup to compare with. There is always the other way, to store everything: what
/// goes wrong here is told, and no more.
async fn choose_base(
    cx: &Context,
    repo: &Repo,
    spec: &BackupSpec,
    before: Option<&BackupId>,
    warnings: &mut Vec<String>,
) -> Option<Manifest> {
    if !repo.options().dedup {
        return None;
    }
    let find = async {
        // Those that are about to be removed are left out here so that another one may serve; what
        // counts is the second look, of the marker.
        let marked = marks::marked(cx, repo.store()).await?;
        let listed = repo.backups(cx, Some(&spec.cluster)).await?;
        let now = cx.now();
        let earlier = |m: &Manifest| match before {
            Some(before) => m.backup < *before,
            None => m.backup.started_at() < now,
        };
        // An increment of a tool has other files than a full backup.
        let full = |kind: BackupType| kind == BackupType::Full;
        let alike = |m: &Manifest| {
            m.strategy == spec.strategy && full(m.backup_type) == full(spec.backup_type)
        };
        let fits = |m: &Manifest| alike(m) && earlier(m) && !marked.contains(&m.backup);
        Base::choose(cx, repo, &listed, fits, warnings).await
    };
    match find.await {
        Ok(base) => base,
        Err(e) => anew(cx, &e, warnings),
    }
}

/// Loads what is to be compared with.
async fn load_base(
    cx: &Context,
    repo: &Repo,
    base: Option<Manifest>,
    warnings: &mut Vec<String>,
) -> Option<Arc<Base>> {
    match Base::load(cx, repo, base?).await {
        Ok(base) => Some(Arc::new(base)),
        Err(e) => anew(cx, &e, warnings),
    }
}

/// Says that there is no base. What is damaged needs a look; what cannot be reached may be in an archive, by
/// intent.
fn anew<T>(cx: &Context, error: &Error, warnings: &mut Vec<String>) -> Option<T> {
    let text = format!(
        "no earlier backup can be compared with, and everything is stored anew: {}",
        error.chain()
    );
    if is_damage(error) {
        warnings.push(text.clone());
    }
    cx.event(Event::Warning { text });
    None
}

/// Ids sort by the second of their time, so a backup does not begin in the same second as the
/// newest one. Gives the newest one.
async fn wait_for_newer_id(
    cx: &Context,
    store: &Store,
    cluster: &ClusterName,
) -> Result<Option<BackupId>> {
    let found = store.list(&key::backups(cluster)).await?;
    let newest = found.directories.iter().rev().find_map(|d| d.parse::<BackupId>().ok());
    if let Some(newest) = &newest {
        let ahead = newest.started_at() + SignedDuration::from_secs(1);
        let wait = cx.now().duration_until(ahead);
        // Longer is a clock that was set back; no waiting helps there.
        if wait <= SignedDuration::from_secs(2)
            && let Ok(wait) = Duration::try_from(wait)
        {
            cx.run(async {
                tokio::time::sleep(wait).await;
                Ok(())
            })
            .await?;
        }
    }
    Ok(newest)
}

/// An object that is one uncompressed frame.
pub(crate) fn single(
    place: &crate::format::Place,
    object: ObjectKind,
    kind: FrameKind,
    content: Vec<u8>,
) -> Result<Bytes> {
    let packed = Packed {
        codec: Codec::None,
        raw_len: u32::try_from(content.len()).unwrap_or(u32::MAX),
        delta: None,
        stored: content.into(),
    };
    let frame = seal(place, OBJECT_HEADER_LEN as u64, kind, packed)?;
    Ok([&place.object_header(object), &frame.head[..], &frame.payload].concat().into())
}

#[async_trait]
impl ArtifactSink for Session {
    async fn create(&self, name: ArtifactName, layout: Layout) -> Result<Box<dyn ArtifactWriter>> {
        Ok(Box::new(Writer::new(&self.packer, name, layout)?))
    }

    fn is_encrypted(&self) -> bool {
        self.repo.keys().is_some()
    }

    async fn checkpoint(&self) -> Result<()> {
        self.packer.failed()?;
        self.packer.flush_shared().await?;
        on_worker(&self.packer, Packer::close_last).await?;
        self.packer.all_stored().await?;
        // Where nothing may be referred to that another backup holds, nobody could go on with this.
        let dedup = self.repo.options().dedup && self.repo.options().resume != Resume::Never;
        self.resumable.store(dedup, Ordering::SeqCst);
        Ok(())
    }

    async fn previous(&self) -> Result<Option<Arc<dyn ArtifactSource>>> {
        let Some(base) = &self.packer.base else { return Ok(None) };
        let source = Source::load(&self.packer.cx, &self.repo, &base.manifest).await?;
        Ok(Some(Arc::new(source)))
    }

    async fn leftover(&self) -> Result<Option<Leftover>> {
        let Some(unfinished) = &self.unfinished else { return Ok(None) };
        unfinished.leftover(&self.packer.cx, &self.repo, &self.packer).await.map(Some)
    }

    async fn take_over(&self, names: &[ArtifactName]) -> Result<Vec<ArtifactInfo>> {
        let Some(unfinished) = &self.unfinished else { return Ok(Vec::new()) };
        unfinished.take_over(&self.packer.cx, &self.repo, &self.packer, names).await
    }
}

#[async_trait]
impl BackupSession for Session {
    fn id(&self) -> &BackupId {
        &self.id
    }

    async fn commit(&self, mut outcome: Outcome) -> Result<Manifest> {
        self.end()?;
        if self.copied.is_none() {
            outcome.warnings.extend_from_slice(&self.warnings);
            outcome.warnings.extend(
                self.packer.base.iter().filter_map(|base| base.damage()).map(str::to_owned),
            );
        }
        let manifest = match self.write_objects(outcome).await {
            Ok(manifest) => manifest,
            Err(e) => return Err(self.failed(e).await),
        };
        lock(&self.memory).take();
        if let Err(e) = self.write_manifest(&manifest).await {
            // From the first attempt on the manifest may come to be, even after an answer that
            // failed: then its packs must be there. Only a full disk is a sure no.
            let key = self.packer.key(BackupObject::Manifest);
            let absent = matches!(self.packer.store.len(&key).await, Ok(None));
            if e.kind() == ErrorKind::Space && absent {
                return Err(self.failed(e).await);
            }
            return Err(e
                .context(format!("the manifest of backup {} may not be stored", self.id))
                .with_remedy(format!(
                    "see with `holdfast list` whether {} is there; if not, run the backup again",
                    self.id
                )));
        }
        let message = format!("backup {} has been committed", self.id);
        self.packer.fail(&Error::internal(message));
        // There is a backup now; the marker is of no more use.
        if let Err(e) = self.marker.lock().await.remove().await {
            self.packer.cx.event(Event::Warning {
                text: format!("the marker of backup {} was not removed: {}", self.id, e.chain()),
            });
        }
        Ok(manifest)
    }

    async fn abort(&self) -> Result<bool> {
        self.end()?;
        if self.suspend().await? {
            self.packer.fail(&Error::interrupted());
            lock(&self.memory).take();
            return Ok(true);
        }
        self.packer.fail(&Error::interrupted());
        self.settle().await;
        lock(&self.memory).take();
        self.remove().await.map(|()| false)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // After a commit or an abort nothing is left that could hear this.
        self.packer.fail(&Error::interrupted());
    }
}
