//! What there is: every directory of a backup, and what it stands for.

use std::collections::BTreeSet;

use backup_core::retention::{Candidate, Facts, Proof};
use backup_core::{BackupId, ClusterName, Context, ErrorKind, Manifest, Repository, Result};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};

use crate::key::{self, BackupObject, Key};
use crate::marker::{self, Active};
use crate::repo::{AT_ONCE, Commitment, Repo};
use crate::scan::is_damage;
use crate::store::{Listing, Meta};

/// A backup in progress in whose directory nothing happens for so long is dead.
pub(super) const DEAD: SignedDuration = SignedDuration::from_hours(24);

/// The directory of a backup.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) cluster: ClusterName,
    pub(super) backup: BackupId,
    /// Its objects, on whichever tier.
    pub(super) found: Listing,
    /// Files that a writer left half written.
    staging: Vec<(String, Meta)>,
    pub(super) state: State,
}

/// What a directory stands for.
#[derive(Debug)]
pub(super) enum State {
    /// A backup.
    Backup(Known),
    /// A backup whose manifest cannot be read, and why, or is lost.
    Unreadable(String),
    /// Packs of a backup that was removed.
    Retired,
    /// What is left of a backup that was never finished.
    GivenUp,
    /// A backup in progress.
    Active(Builds),
    /// A backup that was never finished, and will not be.
    Dead,
}

/// What counts of a manifest.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) facts: Facts,
    /// Packs of other backups.
    pub(super) needs: Vec<(BackupId, Vec<String>)>,
}

/// What a backup in progress builds on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Builds {
    /// On these.
    On(Vec<BackupId>),
    /// Its marker cannot be read: on anything in its cluster.
    Unknown,
}

impl Directory {
    /// What its objects take.
    pub(super) fn bytes(&self) -> u64 {
        self.found.objects.iter().chain(&self.staging).map(|(_, meta)| meta.bytes).sum()
    }

    /// One of its objects.
    pub(super) fn get(&self, object: BackupObject) -> Option<Meta> {
        self.found.get(&object.to_string())
    }

    /// The path of an object in it.
    pub(super) fn key(&self, object: BackupObject) -> Key {
        Key::Backup(self.cluster.clone(), self.backup.clone(), object)
    }

    /// When its writer gave the last sign of life, where it has not said yet that it is done.
    pub(super) fn last_sign(&self) -> Option<Timestamp> {
        let is_sign =
            |name: &str| matches!(name.parse(), Ok(BackupObject::Active | BackupObject::Beat(_)));
        let signs = self.found.objects.iter().filter(|(name, _)| is_sign(name));
        signs.map(|(_, meta)| meta.modified).max()
    }

    pub(super) fn is_listed(&self) -> bool {
        matches!(self.state, State::Backup(_) | State::Unreadable(_))
    }
}

/// Looks at all directories of these clusters, or of all. `now` is the store's time.
pub(super) async fn survey(
    cx: &Context,
    repo: &Repo,
    cluster: Option<&ClusterName>,
    now: Timestamp,
) -> Result<Vec<Directory>> {
    let clusters = match cluster {
        Some(cluster) => vec![cluster.clone()],
        None => repo.clusters().await?,
    };
    let mut found = Vec::new();
    for cluster in clusters {
        let ids: Vec<BackupId> = repo
            .store()
            .list(&key::backups(&cluster))
            .await?
            .directories
            .iter()
            .filter_map(|d| d.parse().ok())
            .collect();
        let mut directories: Vec<Directory> = stream::iter(ids)
            .map(|backup| look(cx, repo, &cluster, backup, now))
            .buffered(AT_ONCE)
            .try_filter_map(|d| async { Ok(d) })
            .try_collect()
            .await?;
        if directories.iter().any(|d| matches!(d.state, State::Backup(_))) {
            let records = repo.records(cx, &cluster).await?;
            for directory in &mut directories {
                if let State::Backup(known) = &mut directory.state {
                    known.facts.proof = Proof::of(&directory.backup, &records);
                }
            }
        }
        found.append(&mut directories);
    }
    Ok(found)
}

/// Looks at one directory; `None` when nothing is in it.
pub(super) async fn look(
    cx: &Context,
    repo: &Repo,
    cluster: &ClusterName,
    backup: BackupId,
    now: Timestamp,
) -> Result<Option<Directory>> {
    cx.check()?;
    let path = key::backup(cluster, &backup);
    let mut found = repo.store().list(&path).await?;
    let staging = repo.store().staging(&path).await?;
    for lower in &*repo.shelf().lower().await? {
        // Packs that moved are as much part of it as the others.
        found.merge(lower.store().await?.list(&path).await?);
    }
    // After the listing: a writer removes its marker after it stored its manifest. So what had no
    // marker then has its manifest now, or has never been in progress.
    let state = match repo.commitment(cluster, &backup).await {
        Ok(Commitment::Made(manifest)) => State::Backup(known(&manifest)),
        Ok(Commitment::GivenUp) => State::GivenUp,
        Ok(Commitment::Open) => {
            let newest = found.objects.iter().chain(&staging).map(|(_, meta)| meta.modified).max();
            let still = newest.is_none_or(|newest| now.duration_since(newest) >= DEAD);
            without_manifest(repo, cluster, &backup, &found, still).await?
        }
        Err(e) if e.kind() == ErrorKind::Interrupted => return Err(e),
        // Damaged, of a newer version, not allowed: nobody knows what it needs.
        Err(e) => State::Unreadable(e.chain()),
    };
    if found.objects.is_empty() && staging.is_empty() && !matches!(state, State::Backup(_)) {
        return Ok(None);
    }
    Ok(Some(Directory { cluster: cluster.clone(), backup, found, staging, state }))
}

/// `still` says that nothing happened there for long.
async fn without_manifest(
    repo: &Repo,
    cluster: &ClusterName,
    backup: &BackupId,
    found: &Listing,
    still: bool,
) -> Result<State> {
    let has = |object: BackupObject| found.get(&object.to_string()).is_some();
    if has(BackupObject::Retired) {
        // A copy may be bringing it back; one that stands still must not finish it when it goes on.
        return Ok(match (has(BackupObject::Active), still) {
            (true, false) => State::Active(Builds::Unknown),
            (true, true) => State::Dead,
            (false, _) => State::Retired,
        });
    }
    if has(BackupObject::Index) && !has(BackupObject::Active) {
        return Ok(State::Unreadable("it is missing".to_owned()));
    }
    if still {
        return Ok(State::Dead);
    }
    let key = Key::Backup(cluster.clone(), backup.clone(), BackupObject::Active);
    let builds = match repo.store().get(&key, marker::MAX_BYTES).await {
        Ok(Some(bytes)) => match serde_json::from_slice::<Active>(&bytes) {
            Ok(active) if active.format <= backup_core::FORMAT && !active.copy => {
                Builds::On(active.builds_on())
            }
            _ => Builds::Unknown,
        },
        Ok(None) if !has(BackupObject::Active) => Builds::On(Vec::new()),
        // It ended between the two looks, one way or the other. A later run sees which.
        Ok(None) => Builds::Unknown,
        Err(e) if is_damage(&e) => Builds::Unknown,
        Err(e) => return Err(e),
    };
    Ok(State::Active(builds))
}

fn known(manifest: &Manifest) -> Known {
    let names = |n: &backup_core::Needed| n.packs.iter().map(|p| p.name.clone()).collect();
    Known {
        facts: Facts {
            strategy: manifest.strategy,
            parent: manifest.parent.clone(),
            finished_at: manifest.finished_at,
            partial: manifest.outcome.partial,
            masked: manifest.outcome.masked,
            proof: Proof::None,
        },
        needs: manifest.needs.iter().map(|n| (n.backup.clone(), names(n))).collect(),
    }
}

/// What retention decides about.
pub(super) fn candidates(directories: &[Directory]) -> Vec<Candidate> {
    directories
        .iter()
        .filter(|d| d.is_listed())
        .map(|d| Candidate {
            cluster: d.cluster.clone(),
            backup: d.backup.clone(),
            modified: d
                .get(BackupObject::Manifest)
                // Without one it was stored after the listing.
                .map_or(Timestamp::MAX, |m| m.modified),
            facts: match &d.state {
                State::Backup(known) => Some(known.facts.clone()),
                _ => None,
            },
        })
        .collect()
}

/// Backups that must stay because one in progress builds on them, with those that they need
/// themselves in a restore; and clusters of which nobody can say.
#[derive(Debug, Default)]
pub(super) struct Held {
    backups: BTreeSet<(ClusterName, BackupId)>,
    clusters: BTreeSet<ClusterName>,
}

impl Held {
    pub(super) fn by(directories: &[Directory]) -> Held {
        let mut held = Held::default();
        for directory in directories {
            let cluster = &directory.cluster;
            match &directory.state {
                State::Active(Builds::On(backups)) => {
                    let keys = backups.iter().map(|b| (cluster.clone(), b.clone()));
                    held.backups.extend(keys);
                }
                State::Active(Builds::Unknown) | State::Unreadable(_) => {
                    held.clusters.insert(cluster.clone());
                }
                _ => {}
            }
        }
        loop {
            let parents: Vec<_> = directories
                .iter()
                .filter(|d| held.backups.contains(&(d.cluster.clone(), d.backup.clone())))
                .filter_map(|d| match &d.state {
                    State::Backup(known) => Some((d.cluster.clone(), known.facts.parent.clone()?)),
                    _ => None,
                })
                .filter(|parent| !held.backups.contains(parent))
                .collect();
            if parents.is_empty() {
                return held;
            }
            held.backups.extend(parents);
        }
    }

    pub(super) fn holds(&self, cluster: &ClusterName, backup: &BackupId) -> bool {
        self.clusters.contains(cluster) || self.backups.contains(&(cluster.clone(), backup.clone()))
    }

    /// Whether nothing in a cluster may be removed.
    pub(super) fn holds_all(&self, cluster: &ClusterName) -> bool {
        self.clusters.contains(cluster)
    }
}
