//! What protects a backup while it is written: the `active` marker, its beats, and a last look before
//! the manifest.
//!
//! A writer creates its marker, which names what it builds on, and only then looks for marks; a prune
//! creates its mark, and only then looks for markers. So one of the two always sees the other: what
//! is built on here is not marked, or the prune lets it stay.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup_core::{
    BackupId, BackupType, ClusterName, Context, Error, ErrorKind, Event, FORMAT, Manifest,
    ObjectDigest, Result, Strategy,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio_util::task::AbortOnDropHandle;

use crate::format::{FrameKind, GivenUp, ObjectKind, Tombstone, hex};
use crate::key::{self, BackupObject, Key};
use crate::marks;
use crate::process::Process;
use crate::repo::{Repo, WRITER};
use crate::session::single;
use crate::store::taken;
use crate::store::{Created, Store};
use crate::sync::lock;

/// Who gave no sign of life for so long does not go on: a prune may take it for dead soon, or has done so.
const STILL: SignedDuration = SignedDuration::from_hours(12);

/// The longest `active`.
pub(crate) const MAX_BYTES: u64 = 1 << 20;

/// The content of `active`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Active {
    pub(crate) format: u32,
    backup: BackupId,
    started_at: Timestamp,
    nonce: String,
    writer: String,
    /// The backup whose packs may be referred to. Left out when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) base: Option<BackupId>,
    /// The backup that a restore will need before this one. Left out when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<BackupId>,
    /// Unfinished backups whose packs may be referred to: one whose work this one goes on with, and
    /// those whose work that one had taken over. Left out when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) resumes: Vec<BackupId>,
    /// How the backup is made: another one of the same strategy may go on with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) strategy: Option<Strategy>,
    /// Which process writes it, where that could be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) process: Option<Process>,
    /// It is a copy of a backup of another repository, and may refer to any pack of its cluster.
    /// Left out when it is not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) copy: bool,
}

impl Active {
    /// The backups whose packs may be referred to.
    pub(crate) fn builds_on(self) -> Vec<BackupId> {
        self.base.into_iter().chain(self.parent).chain(self.resumes).collect()
    }
}

/// A backup that is about to be written.
#[derive(Debug, Clone)]
pub struct Beginning {
    /// The cluster.
    pub cluster: ClusterName,
    /// How much it holds by itself.
    pub backup_type: BackupType,
    /// The backup whose packs may be referred to.
    pub base: Option<BackupId>,
    /// The backup that a restore needs before this one.
    pub parent: Option<BackupId>,
    /// Unfinished backups whose packs may be referred to.
    pub resumes: Vec<BackupId>,
    /// How it is made.
    pub strategy: Option<Strategy>,
    /// How often a sign of life is stored, at least 1 ms.
    pub heartbeat: Duration,
}

/// Makes sure that an unfinished backup stays one: its writer cannot create its manifest any more. Who
/// is told that something is there already has not buried it, and may not rely on what it has.
///
/// # Errors
/// When the store fails.
pub(crate) async fn bury(
    cx: &Context,
    repo: &Repo,
    cluster: &ClusterName,
    backup: &BackupId,
    given_up: GivenUp,
) -> Result<Created> {
    let tombstone = Tombstone::new(cluster.clone(), backup.clone(), given_up);
    let mut json = serde_json::to_vec_pretty(&tombstone)
        .map_err(|e| Error::internal("a tombstone cannot be written as JSON").with_source(e))?;
    json.push(b'\n');
    let key = Key::Backup(cluster.clone(), backup.clone(), BackupObject::Manifest);
    let place = repo.new_place(cx, &key);
    let bytes = single(&place, ObjectKind::Manifest, FrameKind::Manifest, json)?;
    repo.store().create(&key, bytes).await
}

/// The marker of a backup in progress. Whoever writes into the directory of a backup holds one.
///
/// Dropping it ends the signs of life; the marker itself stays until [`remove`](Self::remove), or
/// until a prune finds that nothing happened for a day.
#[derive(Debug)]
pub struct Marker {
    store: Store,
    cluster: ClusterName,
    backup: BackupId,
    started_at: Timestamp,
    base: Option<BackupId>,
    beats: Arc<AtomicU32>,
    /// The last sign of life before the first that came too late, by this machine's clock, which goes on
    /// while the machine sleeps.
    alive: Arc<Mutex<Timestamp>>,
    beating: Option<AbortOnDropHandle<()>>,
}

impl Marker {
    /// Reserves an id and says what the backup builds on; then finds out whether it may.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] when the parent is about to be removed, [`ErrorKind::Damaged`] when it is
    /// not there; and when the store fails.
    pub async fn create(cx: &Context, store: &Store, beginning: Beginning) -> Result<Marker> {
        let Beginning { cluster, backup_type, base, parent, resumes, strategy, heartbeat } =
            beginning;
        let started_at = cx.now();
        let mut attempts = 0;
        let backup = loop {
            let backup = BackupId::new(cx, backup_type);
            let key = Key::Backup(cluster.clone(), backup.clone(), BackupObject::Active);
            let active = Active {
                format: FORMAT,
                backup: backup.clone(),
                started_at,
                nonce: hex(&cx.random::<16>()),
                writer: WRITER.to_owned(),
                base: base.clone(),
                parent: parent.clone(),
                resumes: resumes.clone(),
                strategy,
                process: Process::this(),
                copy: false,
            };
            let mut json = serde_json::to_vec_pretty(&active)
                .map_err(|e| Error::internal("cannot write the marker").with_source(e))?;
            json.push(b'\n');
            attempts += 1;
            match store.create(&key, json).await? {
                Created::New => break backup,
                Created::Exists if attempts < 5 => {}
                Created::Exists => return Err(taken(&key)),
            }
        };
        let mut marker = Marker {
            store: store.clone(),
            cluster,
            backup,
            started_at,
            base: None,
            beats: Arc::default(),
            alive: Arc::new(Mutex::new(started_at)),
            beating: None,
        };
        match marker.look(cx, base, parent).await {
            Ok(base) => marker.base = base,
            Err(e) => {
                let _ = marker.remove().await;
                return Err(e);
            }
        }
        marker.beating = Some(marker.beat(cx, heartbeat));
        Ok(marker)
    }

    /// Marks a backup that is copied from another repository, under the id that it has there. A
    /// marker that is there already is of an earlier copy, or of one beside us.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn create_as(
        cx: &Context,
        store: &Store,
        original: &Manifest,
        heartbeat: Duration,
    ) -> Result<Marker> {
        let active = Active {
            format: FORMAT,
            backup: original.backup.clone(),
            started_at: cx.now(),
            nonce: hex(&cx.random::<16>()),
            writer: WRITER.to_owned(),
            base: None,
            parent: original.parent.clone(),
            resumes: Vec::new(),
            strategy: None,
            process: None,
            copy: true,
        };
        let mut json = serde_json::to_vec_pretty(&active)
            .map_err(|e| Error::internal("cannot write the marker").with_source(e))?;
        json.push(b'\n');
        let (cluster, backup) = (original.cluster.clone(), original.backup.clone());
        let key = Key::Backup(cluster.clone(), backup.clone(), BackupObject::Active);
        store.create(&key, json).await?;
        let mut marker = Marker {
            store: store.clone(),
            cluster,
            backup,
            started_at: active.started_at,
            base: None,
            beats: Arc::default(),
            alive: Arc::new(Mutex::new(active.started_at)),
            beating: None,
        };
        marker.beating = Some(marker.beat(cx, heartbeat));
        Ok(marker)
    }

    /// Whether it never stood still for so long that a prune may have taken it for dead. A backup finds
    /// that out by what the prune left ([`check`](Self::check)); a copy refers to packs that were there
    /// before it, and of those nothing tells.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] where it did.
    pub(crate) fn awake(&self, cx: &Context) -> Result<()> {
        let silent = cx.now().duration_since(*lock(&self.alive));
        if silent < STILL {
            return Ok(());
        }
        let hours = silent.as_hours();
        Err(Error::new(
            ErrorKind::Busy,
            format!(
                "{} stood still for {hours} hours: a prune may have taken it for dead",
                self.backup
            ),
        )
        .with_remedy("run it again: what arrived whole is not sent twice"))
    }

    /// What may be built on. It was stored in `active` before: a prune that began to remove it
    /// earlier is seen here, and a later one sees us.
    async fn look(
        &self,
        cx: &Context,
        base: Option<BackupId>,
        parent: Option<BackupId>,
    ) -> Result<Option<BackupId>> {
        if base.is_none() && parent.is_none() {
            return Ok(None);
        }
        let marked = marks::marked(cx, &self.store).await?;
        // After the marks: a prune removes the manifest before its mark.
        let mut usable = Vec::new();
        for backup in [&parent, &base].into_iter().flatten() {
            let manifest =
                Key::Backup(self.cluster.clone(), backup.clone(), BackupObject::Manifest);
            let there = self.store.len(&manifest).await?.is_some();
            usable.push(there && !marked.contains(backup));
            if Some(backup) != parent.as_ref() || usable[0] {
                continue;
            }
            let (kind, problem, remedy) = if there {
                (ErrorKind::Busy, "is about to be removed", "take a full backup")
            } else {
                (ErrorKind::Damaged, "is not there", "take a full backup; see `holdfast list`")
            };
            return Err(Error::new(
                kind,
                format!("backup {backup}, which this one would build on, {problem}"),
            )
            .with_remedy(remedy));
        }
        match (base, usable.last()) {
            (Some(base), Some(true)) => Ok(Some(base)),
            (Some(base), _) => {
                cx.note(format!("nothing is taken from backup {base}: it is about to be removed"));
                Ok(None)
            }
            (None, _) => Ok(None),
        }
    }

    /// The id of the backup.
    #[must_use]
    pub fn backup(&self) -> &BackupId {
        &self.backup
    }

    /// When it began.
    #[must_use]
    pub fn started_at(&self) -> Timestamp {
        self.started_at
    }

    /// The backup whose packs may be referred to: that which was asked for, unless it is about to
    /// be removed.
    #[must_use]
    pub fn base(&self) -> Option<&BackupId> {
        self.base.as_ref()
    }

    /// Stores signs of life until the handle is dropped.
    fn beat(&self, cx: &Context, every: Duration) -> AbortOnDropHandle<()> {
        let (cx, store) = (cx.clone(), self.store.clone());
        let (cluster, backup) = (self.cluster.clone(), self.backup.clone());
        let (beats, alive) = (Arc::clone(&self.beats), Arc::clone(&self.alive));
        AbortOnDropHandle::new(tokio::spawn(async move {
            let key = |n| Key::Backup(cluster.clone(), backup.clone(), BackupObject::Beat(n));
            let mut warned = false;
            loop {
                tokio::time::sleep(every.max(Duration::from_millis(1))).await;
                let number = beats.fetch_add(1, Ordering::SeqCst) + 1;
                // Any bytes do: what counts is when the store got them.
                let beat = store.create(&key(number), Vec::from(number.to_string())).await;
                match beat {
                    Ok(_) => {
                        lives(&alive, cx.now());
                        if number > 1 {
                            let _ = store.delete(&key(number - 1)).await;
                        }
                    }
                    Err(e) if !warned => {
                        warned = true;
                        let text = format!(
                            "no sign of life of backup {backup} could be stored: {}; it goes on, \
                             and a prune may take it for dead after a day",
                            e.chain()
                        );
                        cx.event(Event::Warning { text });
                    }
                    Err(_) => {}
                }
            }
        }))
    }

    /// A last look before the manifest: that nobody took this backup for dead meanwhile, and that
    /// everything it wrote is there.
    ///
    /// # Errors
    /// [`ErrorKind::Store`] when it was given up or something is missing.
    pub async fn check(&self, written: &[&ObjectDigest]) -> Result<()> {
        let directory = key::backup(&self.cluster, &self.backup);
        let found = self.store.list(&directory).await?;
        let lost = |what: String| {
            Err(Error::new(
                ErrorKind::Store,
                format!("backup {} cannot be finished: {what}", self.backup),
            )
            .with_remedy(
                "run the backup again; where the machine slept or the store was away for a day, a \
                 prune took the backup for dead",
            ))
        };
        if found.get(&BackupObject::Manifest.to_string()).is_some() {
            return lost("it was given up as dead while it was written".into());
        }
        if found.get(&BackupObject::Active.to_string()).is_none() {
            return lost("somebody removed its marker while it was written".into());
        }
        for object in written {
            match found.get(&object.name).map(|meta| meta.bytes) {
                None => return lost(format!("somebody removed its {}", object.name)),
                Some(bytes) if bytes != object.bytes => {
                    let (name, wanted) = (&object.name, object.bytes);
                    return lost(format!("{name} has {bytes} bytes where {wanted} were written"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Ends the signs of life, before what was written is removed.
    pub async fn stop(&mut self) {
        if let Some(beating) = self.beating.take() {
            beating.abort();
            // It was told to end; how it ends is no matter.
            let _ = beating.await;
        }
    }

    /// Leaves the backup to a later one. The marker stays: what it names must stay too.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn suspend(&mut self) -> Result<()> {
        self.stop().await;
        let object = BackupObject::Suspended;
        let key = Key::Backup(self.cluster.clone(), self.backup.clone(), object);
        // Any bytes do: what counts is that it is there.
        self.store.create(&key, Vec::from(*b"suspended\n")).await.map(drop)
    }

    /// Removes the marker, when the backup is finished or nothing is left of it.
    ///
    /// # Errors
    /// When the store fails. What is left does no harm to a finished backup.
    pub async fn remove(&mut self) -> Result<()> {
        self.stop().await;
        let key = |object| Key::Backup(self.cluster.clone(), self.backup.clone(), object);
        let last = self.beats.load(Ordering::SeqCst);
        for number in [last.saturating_sub(1), last] {
            if number > 0 {
                self.store.delete(&key(BackupObject::Beat(number))).await?;
            }
        }
        self.store.delete(&key(BackupObject::Active)).await
    }
}

/// Notes a sign of life. What comes after it was still for too long closes no gap: it may have been taken
/// for dead in between.
fn lives(alive: &Mutex<Timestamp>, now: Timestamp) {
    let mut alive = lock(alive);
    if now.duration_since(*alive) < STILL {
        *alive = now;
    }
}
