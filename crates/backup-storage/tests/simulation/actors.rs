//! Those who use the repository at once: each does what the program does, with the program's code.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup_core::retention::Policy;
use backup_core::{
    BackupId, BackupType, Context, Error, Level, Manifest, Needed, ObjectDigest, Record,
    RecordEvent, Repository, Result,
};
use backup_storage::format::{
    Codec, FrameKind, OBJECT_HEADER_LEN, ObjectKind, Packed, Place, seal,
};
use backup_storage::{
    BackupObject, Beginning, CopyConsent, CopyOptions, CopyTarget, Key, Marker, PruneOptions, Repo,
    RepositoryOptions, Store, copy_backup, prune,
};
use bytes::Bytes;
use jiff::SignedDuration;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::laws;
use crate::world::{Dice, MachineClock, SeededRandom, View, World};

pub(crate) const CLUSTER: &str = "shop";

/// A program on a machine of its own.
#[derive(Clone)]
pub(crate) struct Actor {
    pub(crate) world: Arc<World>,
    pub(crate) cx: Context,
    pub(crate) store: Store,
    pub(crate) dice: Dice,
}

impl Actor {
    pub(crate) fn new(
        world: &Arc<World>,
        number: usize,
        dice: &mut Dice,
        own_locks: bool,
    ) -> Actor {
        let skew = match dice.below(10) {
            0 => SignedDuration::from_hours(dice.below(100) as i64 - 50),
            1 => SignedDuration::from_mins(dice.below(100) as i64 - 50),
            _ => SignedDuration::ZERO,
        };
        let random = SeededRandom(Mutex::new(Dice::new(dice.next())));
        let cx = Context::builder()
            .clock(Arc::new(MachineClock(Arc::clone(world), skew)))
            .random(Arc::new(random))
            .threads(1)
            .build();
        let view = View::new(world, number, own_locks);
        let store = Store::new(view, "simulation").with_retry(
            Duration::from_millis(1),
            Duration::from_millis(1),
            2,
        );
        Actor { world: Arc::clone(world), cx, store, dice: Dice::new(dice.next()) }
    }

    pub(crate) async fn repo(&self) -> Result<Repo> {
        Repo::open_on(&self.cx, self.store.clone(), RepositoryOptions::default()).await
    }

    /// Takes a backup, on top of one that was there a while ago.
    pub(crate) async fn back_up(mut self) -> Result<()> {
        let repo = self.repo().await?;
        let there = laws::listed(&self.world);
        // The program takes the latest; what is about to be removed is more dangerous.
        let marked = laws::marked(&self.world);
        let base = match self.dice.below(10) {
            0 => None,
            1..4 if !marked.is_empty() => self.dice.pick(&marked).cloned(),
            1..7 => self.dice.pick(&there).cloned(),
            _ => there.last().cloned(),
        };
        let parent = if self.dice.permille(300) { base.clone() } else { None };
        let backup_type = if parent.is_some() { BackupType::Incremental } else { BackupType::Full };
        let cluster: backup_core::ClusterName = CLUSTER.parse()?;
        let beginning = Beginning {
            cluster: cluster.clone(),
            backup_type,
            base: base.clone(),
            parent: parent.clone(),
            resumes: Vec::new(),
            strategy: None,
            heartbeat: Duration::from_secs(600),
        };
        let mut marker = Marker::create(&self.cx, &self.store, beginning).await?;
        let id = marker.backup().clone();
        let wrote = self.write(&repo, &marker, parent).await;
        let (manifest, bytes) = match wrote {
            Ok(done) => done,
            Err(e) => {
                // Removes what it wrote, or leaves it where it is.
                if self.dice.permille(500) {
                    marker.stop().await;
                    for n in 0..3 {
                        self.store.delete(&key(&id, BackupObject::Pack(n))).await?;
                    }
                    self.store.delete(&key(&id, BackupObject::Index)).await?;
                    marker.remove().await?;
                }
                return Err(e);
            }
        };
        match self.store.create(&key(&id, BackupObject::Manifest), bytes).await? {
            backup_storage::Created::New => {}
            backup_storage::Created::Exists => {
                return Err(Error::internal("somebody was quicker with the manifest"));
            }
        }
        laws::committed(&self.world, &manifest);
        let needed = manifest.needs.iter().flat_map(|n| n.packs.iter().map(|p| (&n.backup, p)));
        let own = [BackupObject::Manifest.to_string(), BackupObject::Index.to_string()];
        let own = own.iter().chain(manifest.packs.iter().map(|pack| &pack.name));
        let of =
            |backup: &BackupId, name: &str| format!("clusters/{CLUSTER}/backups/{backup}/{name}");
        let paths: Vec<String> = own
            .map(|name| of(&id, name))
            .chain(needed.map(|(backup, pack)| of(backup, &pack.name)))
            .collect();
        self.world.carry_off(&paths).await;
        marker.remove().await
    }

    async fn write(
        &mut self,
        repo: &Repo,
        marker: &Marker,
        parent: Option<BackupId>,
    ) -> Result<(Manifest, Bytes)> {
        let id = marker.backup().clone();
        let mut needs = Vec::new();
        if let Some(base) = marker.base() {
            let Some(base) = repo.manifest(&CLUSTER.parse()?, base).await? else {
                return Err(Error::damaged("the base is gone"));
            };
            let own = Needed { backup: base.backup.clone(), packs: base.packs.clone() };
            for mut needed in base.needs.iter().cloned().chain([own]) {
                needed.packs.retain(|_| self.dice.permille(600));
                if !needed.packs.is_empty() {
                    needs.push(needed);
                }
            }
            needs.sort_by(|a, b| a.backup.cmp(&b.backup));
        }
        let mut packs = Vec::new();
        for n in 0..1 + self.dice.below(2) {
            packs.push(self.put(&id, BackupObject::Pack(n as u32)).await?);
        }
        let index = self.put(&id, BackupObject::Index).await?;
        let written: Vec<&ObjectDigest> = packs.iter().chain([&index]).collect();
        marker.check(&written).await?;
        let mut manifest = json!({
            "format": 1, "backup": id, "cluster": CLUSTER, "strategy": "logical",
            "type": id.backup_type(), "parent": parent,
            "started_at": marker.started_at(), "finished_at": self.cx.now(), "writer": "simulation",
            "source": {"flavor": "mysql", "version": "9.7.0", "address": "db", "server_id": 1},
            "position": {"gtid": null, "file": null, "offset": null},
            "consistency": {"level": "exact", "reason": "simulated"},
            "lock_seconds": 0.0, "rows": 1,
            "totals": {"artifacts": 1, "bytes_read": 1, "bytes_new": 1, "bytes_stored": 1},
            "packs": packs, "index": index,
        });
        manifest["needs"] = serde_json::to_value(&needs).map_err(|_| Error::internal("json"))?;
        let manifest: Manifest =
            serde_json::from_value(manifest).map_err(|e| Error::internal("json").with_source(e))?;
        let json = serde_json::to_vec(&manifest).map_err(|_| Error::internal("json"))?;
        let place = Place::new(repo.id(), &key(&id, BackupObject::Manifest));
        let packed = Packed {
            codec: Codec::None,
            raw_len: json.len() as u32,
            delta: None,
            stored: json.into(),
        };
        let frame = seal(&place, OBJECT_HEADER_LEN as u64, FrameKind::Manifest, packed)?;
        let header = place.object_header(ObjectKind::Manifest);
        Ok((manifest, [&header[..], &frame.head[..], &frame.payload].concat().into()))
    }

    async fn put(&self, id: &BackupId, object: BackupObject) -> Result<ObjectDigest> {
        let key = key(id, object);
        let bytes = laws::content(&key.to_string());
        self.store.create(&key, bytes.clone()).await?;
        let sha256 = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
        Ok(ObjectDigest { name: object.to_string(), bytes: bytes.len() as u64, sha256 })
    }

    /// Removes backups by some rules.
    pub(crate) async fn prune(mut self) -> Result<()> {
        let repo = self.repo().await?;
        let hours =
            |dice: &mut Dice| SignedDuration::from_hours(*dice.pick(&[0, 0, 0, 1, 24]).unwrap());
        let policy = Policy {
            keep_last: self.dice.below(4) as u32,
            keep_daily: self.dice.below(3) as u32,
            grace: hours(&mut self.dice),
            ..Policy::default()
        };
        let options = PruneOptions {
            policy,
            wait: hours(&mut self.dice),
            holder: "simulated".into(),
            ..PruneOptions::default()
        };
        prune(&self.cx, &repo, &options).await.map(drop)
    }

    /// Brings a backup from the copy: one that was removed here, that is being removed, or that is there.
    pub(crate) async fn copy(mut self) -> Result<()> {
        let elsewhere = Store::new(self.world.elsewhere.clone(), "elsewhere");
        let from = Repo::open_on(&self.cx, elsewhere, RepositoryOptions::default()).await?;
        let listed = from.backups(&self.cx, None).await?.into_iter();
        let there: Vec<Manifest> = listed.filter_map(|listed| listed.manifest.ok()).collect();
        let here = laws::listed(&self.world);
        let gone: Vec<&Manifest> = there.iter().filter(|m| !here.contains(&m.backup)).collect();
        let wanted = match self.dice.pick(&gone) {
            Some(gone) if self.dice.permille(800) => *gone,
            _ => match self.dice.pick(&there) {
                Some(any) => any,
                None => return Ok(()),
            },
        };
        // A parent comes first, as the program does it.
        let mut chain = vec![wanted];
        while let Some(parent) = &chain[chain.len() - 1].parent {
            match there.iter().find(|manifest| manifest.backup == *parent) {
                Some(parent) => chain.push(parent),
                None => return Ok(()),
            }
        }
        let options = RepositoryOptions::default();
        let consent = CopyConsent { anew: true, ..CopyConsent::default() };
        let target =
            CopyTarget::open_on(&self.cx, &from, self.store.clone(), options, consent).await?;
        for manifest in chain.iter().rev() {
            copy_backup(&self.cx, &from, &target, manifest, CopyOptions::default()).await?;
        }
        target.close().await
    }

    /// Proves a backup.
    pub(crate) async fn prove(mut self) -> Result<()> {
        let repo = self.repo().await?;
        let there = laws::listed(&self.world);
        let Some(backup) = self.dice.pick(&there).cloned() else { return Ok(()) };
        let event = RecordEvent::Proof {
            level: Level::Content,
            ok: true,
            findings: Vec::new(),
            duration_seconds: 1.0,
            sampled: None,
        };
        let record = Record { time: self.cx.now(), backup: Some(backup), event };
        repo.record(&self.cx, &CLUSTER.parse()?, &record).await
    }
}

pub(crate) fn key(id: &BackupId, object: BackupObject) -> Key {
    Key::Backup(CLUSTER.parse().unwrap(), id.clone(), object)
}
