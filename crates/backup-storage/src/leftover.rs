//! What an unfinished backup has finished: found, and taken over by a later one.
//!
//! The later one names the unfinished one in its own marker, and only then [buries](marker::bury) it;
//! a prune buries what is dead before it removes anything, and looks for markers after that. Only one
//! of the two succeeds, and where the prune does not it sees the marker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_core::{
    ArtifactInfo, ArtifactName, BackupId, BackupSpec, BackupType, ClusterName, Consistency,
    ConsistencyLevel, Context, Error, ErrorKind, FORMAT, Flavor, Leftover, Manifest, Needed,
    ObjectDigest, Outcome, Position, Result, SourceInfo, Strategy, Totals,
};
use jiff::{SignedDuration, Timestamp};

use crate::base::Copy;
use crate::format::{Delta, Entry, Extent, FrameKind, GivenUp, ObjectKind};
use crate::frames::FrameAt;
use crate::index::Index;
use crate::key::{self, BackupObject, Key};
use crate::marker::{self, Active};
use crate::options::Resume;
use crate::packer::{Draft, Packer};
use crate::process::Process;
use crate::repo::{Commitment, Repo};
use crate::scan::{Scanner, is_damage};
use crate::source::Source;
use crate::store::{Created, Listing};

/// An unfinished backup that can be gone on with.
pub(crate) struct Unfinished {
    backup: BackupId,
    strategy: Strategy,
    /// Those whose work it had taken over itself.
    earlier: Vec<BackupId>,
    found: Listing,
    opened: tokio::sync::OnceCell<Arc<Source>>,
}

impl Unfinished {
    /// The newest one of the cluster and strategy, unless a finished backup is newer.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] when one is required and it still runs; and when the store fails.
    pub(crate) async fn find(
        cx: &Context,
        repo: &Repo,
        spec: &BackupSpec,
    ) -> Result<Option<Unfinished>> {
        let how = repo.options().resume;
        if how == Resume::Never || !repo.options().dedup {
            return Ok(None);
        }
        let cluster = &spec.cluster;
        let listed = repo.store().list(&key::backups(cluster)).await?;
        let ids = listed.directories.iter().rev().filter_map(|d| d.parse::<BackupId>().ok());
        for backup in ids {
            cx.check()?;
            let found = repo.store().list(&key::backup(cluster, &backup)).await?;
            let has = |object: BackupObject| found.get(&object.to_string()).is_some();
            match repo.commitment(cluster, &backup).await {
                Ok(Commitment::Open) => {}
                Ok(Commitment::Made(manifest)) if manifest.strategy == spec.strategy => {
                    return Ok(None);
                }
                Ok(Commitment::Made(_) | Commitment::GivenUp) => continue,
                Err(e) if is_damage(&e) => continue,
                Err(e) => return Err(e),
            }
            if has(BackupObject::Retired) || !has(BackupObject::Active) || packs(&found).is_empty()
            {
                continue;
            }
            let key = Key::Backup(cluster.clone(), backup.clone(), BackupObject::Active);
            let Some(json) = repo.store().get(&key, marker::MAX_BYTES).await? else { continue };
            let Ok(active) = serde_json::from_slice::<Active>(&json) else { continue };
            if active.format > FORMAT || active.copy || active.strategy != Some(spec.strategy) {
                continue;
            }
            if !has(BackupObject::Suspended) {
                match active.process.as_ref().and_then(Process::runs) {
                    Some(false) => {}
                    Some(true) if how == Resume::Require => return Err(runs(&backup)),
                    None if how == Resume::Require => {}
                    Some(true) => continue,
                    None if silent(cx, repo, &found) => {}
                    None => {
                        cx.note(format!(
                            "the unfinished backup {backup} may still run on another machine; with \
                             --resume it is taken over"
                        ));
                        continue;
                    }
                }
            }
            let earlier = active.resumes;
            let opened = tokio::sync::OnceCell::new();
            let strategy = spec.strategy;
            return Ok(Some(Unfinished { backup, strategy, earlier, found, opened }));
        }
        Ok(None)
    }

    /// What the marker of whoever goes on with it has to name.
    pub(crate) fn names(&self) -> Vec<BackupId> {
        std::iter::once(&self.backup).chain(&self.earlier).cloned().collect()
    }

    /// What it has finished.
    pub(crate) async fn leftover(
        &self,
        cx: &Context,
        repo: &Repo,
        packer: &Packer,
    ) -> Result<Leftover> {
        Ok(Leftover {
            backup: self.backup.clone(),
            artifacts: self.source(cx, repo, packer).await?,
        })
    }

    async fn source(&self, cx: &Context, repo: &Repo, packer: &Packer) -> Result<Arc<Source>> {
        let open = async {
            let manifest = self.as_manifest(repo, packer).await?;
            let index = Index::of_leftover(cx, repo, &manifest).await?;
            Ok(Arc::new(Source::new(cx, repo, &manifest, index)))
        };
        self.opened.get_or_try_init(|| open).await.cloned()
    }

    /// A manifest as far as the reading of artifacts needs one.
    async fn as_manifest(&self, repo: &Repo, packer: &Packer) -> Result<Manifest> {
        let cluster = packer.cluster();
        let mut needs: BTreeMap<BackupId, Vec<ObjectDigest>> = BTreeMap::new();
        for backup in &self.earlier {
            let found = repo.store().list(&key::backup(cluster, backup)).await?;
            needs.insert(backup.clone(), packs(&found).into_values().collect());
        }
        if let Some(base) = &packer.base {
            for needed in &base.manifest.needs {
                needs.insert(needed.backup.clone(), needed.packs.clone());
            }
            needs.insert(base.manifest.backup.clone(), base.manifest.packs.clone());
        }
        let there = packs(&self.found);
        let last = there.keys().next_back().map_or(0, |last| last + 1);
        // One that never came to be is empty, so that nothing can be in it.
        let pack = |number| there.get(&number).cloned().unwrap_or_else(|| unknown(number, 0));
        let none = || ObjectDigest { name: String::new(), bytes: 0, sha256: String::new() };
        let now = Timestamp::UNIX_EPOCH;
        Ok(Manifest {
            format: FORMAT,
            backup: self.backup.clone(),
            cluster: cluster.clone(),
            strategy: self.strategy,
            backup_type: BackupType::Full,
            parent: None,
            needs: needs.into_iter().map(|(backup, packs)| Needed { backup, packs }).collect(),
            started_at: now,
            finished_at: now,
            writer: String::new(),
            outcome: nothing(),
            totals: Totals { artifacts: u64::MAX, ..Totals::default() },
            packs: (0..last).map(pack).collect(),
            index: none(),
        })
    }

    /// Makes artifacts part of the backup that `packer` writes. Gives those that could be had.
    pub(crate) async fn take_over(
        &self,
        cx: &Context,
        repo: &Repo,
        packer: &Arc<Packer>,
        names: &[ArtifactName],
    ) -> Result<Vec<ArtifactInfo>> {
        let source = self.source(cx, repo, packer).await?;
        let given_up = GivenUp {
            at: cx.now(),
            reason: format!("backup {} goes on with what it had finished", packer.backup()),
        };
        let cluster = packer.cluster();
        if marker::bury(cx, repo, cluster, &self.backup, given_up).await? == Created::Exists {
            cx.note(format!("backup {} was finished or given up meanwhile", self.backup));
            return Ok(Vec::new());
        }
        let mut taken = Vec::new();
        for name in names {
            cx.check()?;
            let Some(info) = source.0.info(name).cloned() else { continue };
            let entries = self.entries(&source, name).await?;
            if !self.prove(cx, repo, packer, &entries).await? || !packer.claim(name) {
                continue;
            }
            self.write(packer, &info, entries)?;
            taken.push(info);
        }
        Ok(taken)
    }

    async fn entries(&self, source: &Source, name: &ArtifactName) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for line in source.0.parts(name) {
            entries.push(source.0.catalog.entry(*line).await?);
        }
        Ok(entries)
    }

    /// Whether everything that these entries point to is there: packs of unfinished backups are read
    /// from end to end, since nobody else has their digests.
    async fn prove(
        &self,
        cx: &Context,
        repo: &Repo,
        packer: &Packer,
        entries: &[Entry],
    ) -> Result<bool> {
        let mut wanted: BTreeSet<(BackupId, u32)> = BTreeSet::new();
        for entry in entries {
            let map = entry.end.iter().flat_map(|end| &end.map);
            let extents = entry.extents.iter().chain(map);
            wanted.extend(extents.map(|e| (self.backup_of(entry, e.source), e.pack)));
        }
        while let Some((backup, pack)) = wanted.pop_first() {
            if packer.knows(&backup, pack) {
                continue;
            }
            let ours = backup == self.backup || self.earlier.contains(&backup);
            if !ours {
                return Ok(false);
            }
            let read = self.read_pack(cx, repo, packer.cluster(), &backup, pack).await;
            match read {
                Ok((digest, bases)) => {
                    packer.learn(backup, pack, digest, bases.clone());
                    wanted.extend(bases);
                }
                Err(e) if is_damage(&e) => {
                    cx.note(format!("what is in it is read again: {}", e.chain()));
                    return Ok(false);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// Checks every frame of a pack. Gives its digest, and the packs that its deltas are made against.
    async fn read_pack(
        &self,
        cx: &Context,
        repo: &Repo,
        cluster: &ClusterName,
        backup: &BackupId,
        pack: u32,
    ) -> Result<(ObjectDigest, BTreeSet<(BackupId, u32)>)> {
        let key = Key::Backup(cluster.clone(), backup.clone(), BackupObject::Pack(pack));
        let place = repo.place(&key);
        let bytes = repo
            .store()
            .len(&key)
            .await?
            .ok_or_else(|| Error::damaged(format!("{key} is missing")))?;
        let shelf = repo.shelf();
        let kind = ObjectKind::Pack;
        let mut scanner = Scanner::open(shelf, &key, &place, kind, bytes, true).await?;
        let mut bases = BTreeSet::new();
        let mut ended = false;
        while let Some(frame) = scanner.next().await? {
            cx.check()?;
            ended = frame.header.kind == FrameKind::End;
            let header = frame.header.clone();
            let payload = scanner.open_frame(frame).await?;
            if header.delta.is_some() {
                let delta = Delta::parse(&header, &payload)?;
                bases.extend(delta.base.into_iter().map(|part| (part.backup, part.pack)));
            }
        }
        if !ended {
            return Err(Error::damaged(format!("{key} has no end")));
        }
        let sha256 = scanner.finish().await?;
        Ok((ObjectDigest { name: BackupObject::Pack(pack).to_string(), bytes, sha256 }, bases))
    }

    fn backup_of(&self, entry: &Entry, source: u32) -> BackupId {
        match source {
            0 => self.backup.clone(),
            n => entry.sources.get(n as usize - 1).unwrap_or(&self.backup).clone(),
        }
    }

    fn write(&self, packer: &Packer, info: &ArtifactInfo, entries: Vec<Entry>) -> Result<()> {
        let mut draft = Draft::new(packer.next_artifact(), info.name.clone());
        for (seq, entry) in (0..).zip(entries) {
            let copy = |extent: &Extent| Copy {
                at: FrameAt::of(&self.backup_of(&entry, extent.source), extent),
                raw_offset: extent.raw_offset,
                len: extent.len,
            };
            draft.seq = seq;
            draft.extents = entry.extents.iter().map(copy).collect();
            let map: Option<Vec<Copy>> =
                entry.end.as_ref().map(|end| end.map.iter().map(copy).collect());
            let end = entry.end.as_ref().zip(map.as_deref());
            packer.line(&draft, end)?;
        }
        packer.count(info.bytes);
        Ok(())
    }
}

/// The packs in a directory, with their lengths.
fn packs(found: &Listing) -> BTreeMap<u32, ObjectDigest> {
    let packs = found.objects.iter().filter_map(|(name, meta)| match name.parse() {
        Ok(BackupObject::Pack(number)) => Some((number, unknown(number, meta.bytes))),
        _ => None,
    });
    packs.collect()
}

/// A pack whose digest nobody knows.
fn unknown(number: u32, bytes: u64) -> ObjectDigest {
    ObjectDigest { name: BackupObject::Pack(number).to_string(), bytes, sha256: String::new() }
}

/// Whether nothing happened there for two heartbeats.
fn silent(cx: &Context, repo: &Repo, found: &Listing) -> bool {
    let newest = found.objects.iter().map(|(_, meta)| meta.modified).max();
    let heartbeat =
        SignedDuration::try_from(repo.options().heartbeat).unwrap_or(SignedDuration::MAX);
    newest
        .is_some_and(|newest| cx.now().duration_since(newest) > heartbeat.saturating_add(heartbeat))
}

fn runs(backup: &BackupId) -> Error {
    Error::new(ErrorKind::Busy, format!("backup {backup} is not finished, and still being written"))
        .with_remedy("wait until it ends, or end its process; then run the command again")
}

/// What is known of a source that nobody has told of.
fn nothing() -> Outcome {
    Outcome {
        source: SourceInfo {
            flavor: Flavor::MySql,
            version: String::new(),
            address: String::new(),
            server_uuid: None,
            server_id: 0,
            hostname: None,
        },
        position: Position::default(),
        consistency: Consistency { level: ConsistencyLevel::None, reason: String::new() },
        lock_seconds: 0.0,
        rows: None,
        objects: BTreeMap::new(),
        masked: false,
        partial: true,
        warnings: Vec::new(),
        details: serde_json::Value::Null,
    }
}
