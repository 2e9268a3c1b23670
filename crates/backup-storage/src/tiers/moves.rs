//! Moving packs to the tier that fits their age.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use backup_core::{
    BackupId, ClusterName, Context, Event, Manifest, ObjectDigest, Repository, Result,
};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use crate::copy::object::{Arrival, arrived, put, read_whole};
use crate::key::{self, BackupObject, Key, LeaseName};
use crate::lease::Lease;
use crate::repo::Repo;
use crate::scan::is_damage;
use crate::shelf::Shelf;
use crate::store::Store;

/// A run that is silent for twice as long may be taken over.
const TTL: Duration = Duration::from_secs(300);

/// A pack that is to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Its name in the repository.
    pub key: Key,
    /// The backup that made it.
    pub backup: BackupId,
    /// Length and digest.
    pub pack: ObjectDigest,
    /// Where it is: 0 is the repository's own store, *n* the *n*-th lower tier.
    pub from: usize,
    /// Where it goes, a number as in `from`, always greater.
    pub to: usize,
}

/// What [`move_packs`] would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TierPlan {
    /// The names of the tiers by their numbers: `hot`, then the lower ones.
    pub names: Vec<String>,
    /// For each tier, how many packs are there now, and their bytes.
    pub held: Vec<(u64, u64)>,
    /// Packs to move, by name.
    pub moves: Vec<Move>,
    /// Backups that were left out, because their manifests cannot be read; so were all others of
    /// their clusters.
    pub unreadable: Vec<BackupId>,
}

/// What [`move_packs`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TierReport {
    /// How many packs moved.
    pub packs: u64,
    /// Their length in bytes.
    pub bytes: u64,
    /// Packs that were left where they are, and why.
    pub problems: Vec<(Key, String)>,
}

/// A pack and the youngest backup that needs it.
struct Needed {
    pack: ObjectDigest,
    youngest: Timestamp,
}

/// Says which packs are old enough to move. A pack is as old as the youngest backup that needs it:
/// what a restore of last night's backup reads stays in the upper tier.
///
/// # Errors
/// When a store fails or cannot be opened.
pub async fn plan_moves(cx: &Context, repo: &Repo) -> Result<TierPlan> {
    let lower = repo.shelf().lower().await?;
    let names = repo.shelf().stores().await?.into_iter().map(|(name, _)| name).collect();
    let mut plan = TierPlan { names, ..TierPlan::default() };
    plan.held = vec![(0, 0); plan.names.len()];
    if lower.is_empty() {
        return Ok(plan);
    }
    let mut clusters: BTreeMap<ClusterName, Vec<Manifest>> = BTreeMap::new();
    let mut unreadable: HashMap<ClusterName, Vec<BackupId>> = HashMap::new();
    for listed in repo.backups(cx, None).await? {
        match listed.manifest {
            Ok(manifest) => clusters.entry(listed.cluster).or_default().push(manifest),
            Err(_) => unreadable.entry(listed.cluster).or_default().push(listed.backup),
        }
    }
    let now = cx.now();
    for (cluster, manifests) in clusters {
        // What an unreadable manifest needs is not known: it may be any pack.
        let blocked = unreadable.contains_key(&cluster);
        for (backup, packs) in needed(&manifests) {
            cx.check()?;
            let directory = key::backup(&cluster, &backup);
            for found in repo.shelf().list(&directory).await? {
                let Some(needed) = packs.get(&found.name) else { continue };
                let held = &mut plan.held[found.tier];
                *held = (held.0 + 1, held.1 + found.bytes);
                let age = now.duration_since(needed.youngest);
                let fits = |tier: &usize| age >= lower[tier - 1].tier.after;
                let to = (found.tier + 1..=lower.len()).rev().find(fits);
                let (Some(to), false) = (to, blocked) else { continue };
                let Ok(object @ BackupObject::Pack(_)) = found.name.parse() else { continue };
                plan.moves.push(Move {
                    key: Key::Backup(cluster.clone(), backup.clone(), object),
                    backup: backup.clone(),
                    pack: needed.pack.clone(),
                    from: found.tier,
                    to,
                });
            }
        }
    }
    plan.unreadable = unreadable.into_values().flatten().collect();
    plan.moves.sort_by(|a, b| (&a.key, a.from).cmp(&(&b.key, b.from)));
    Ok(plan)
}

/// Where the packs of a backup are, its own and those that it needs of others: for each tier its name,
/// how many packs, and their bytes.
///
/// # Errors
/// When a store fails or cannot be opened.
pub async fn places(repo: &Repo, manifest: &Manifest) -> Result<Vec<(String, u64, u64)>> {
    let stores = repo.shelf().stores().await?.into_iter();
    let mut places: Vec<(String, u64, u64)> = stores.map(|(name, _)| (name, 0, 0)).collect();
    for (backup, packs) in needed(std::slice::from_ref(manifest)) {
        let directory = key::backup(&manifest.cluster, &backup);
        for found in repo.shelf().list(&directory).await? {
            if packs.contains_key(&found.name) {
                let place = &mut places[found.tier];
                (place.1, place.2) = (place.1 + 1, place.2 + found.bytes);
            }
        }
    }
    Ok(places)
}

/// Every pack that a backup has or needs, by the backup that made it.
fn needed(manifests: &[Manifest]) -> BTreeMap<BackupId, HashMap<String, Needed>> {
    let mut all: BTreeMap<BackupId, HashMap<String, Needed>> = BTreeMap::new();
    for manifest in manifests {
        let own = manifest.packs.iter().map(|pack| (&manifest.backup, pack));
        let others = manifest.needs.iter().flat_map(|n| n.packs.iter().map(|p| (&n.backup, p)));
        for (backup, pack) in own.chain(others) {
            all.entry(backup.clone())
                .or_default()
                .entry(pack.name.clone())
                .and_modify(|n| n.youngest = n.youngest.max(manifest.finished_at))
                .or_insert(Needed { pack: pack.clone(), youngest: manifest.finished_at });
        }
    }
    all
}

/// Moves every pack that is old enough. Each is created in its new store, read back and compared with
/// the digest of backup time before it is removed from the old one; a run that ended early is
/// finished by the next. `holder` is a name that people know this run by, such as host and process.
///
/// # Errors
/// [`ErrorKind::Busy`](backup_core::ErrorKind::Busy) while packs are moved or backups are removed by
/// somebody else, and when a store fails. Damaged packs stay where they are and are in the report.
pub async fn move_packs(cx: &Context, repo: &Repo, holder: &str) -> Result<(TierPlan, TierReport)> {
    // A pack that is on its way must not be removed: it would come to rest in the lower tier.
    let mut leases = Vec::new();
    for name in [LeaseName::Tier, LeaseName::Prune] {
        leases.push(Lease::acquire(cx, repo.store(), name, holder, TTL).await?);
    }
    cx.phase("tier");
    let result = async {
        let plan = plan_moves(cx, repo).await?;
        let report = carry_out(cx, repo, &plan, &leases).await?;
        Ok((plan, report))
    };
    let result = result.await;
    for lease in leases {
        if let Err(e) = lease.release().await {
            cx.note(format!("a lease was not given back: {}", e.chain()));
        }
    }
    result
}

async fn carry_out(
    cx: &Context,
    repo: &Repo,
    plan: &TierPlan,
    leases: &[Lease],
) -> Result<TierReport> {
    let lower = repo.shelf().lower().await?;
    let mut stores: Vec<Store> = vec![repo.store().clone()];
    for lower in &*lower {
        stores.push(lower.store().await?);
    }
    let stores = &stores;
    cx.progress().expect_bytes(plan.moves.iter().map(|m| m.pack.bytes).sum());
    let mut report = TierReport::default();
    let mut results = stream::iter(plan.moves.clone())
        .map(|planned| async move {
            cx.check()?;
            match move_pack(cx, stores, &planned, leases).await {
                Ok(()) => Ok((planned, None)),
                Err(e) if is_damage(&e) => Ok((planned, Some(e.chain()))),
                Err(e) => Err(e),
            }
        })
        .buffer_unordered(cx.threads());
    while let Some((planned, problem)) = results.try_next().await? {
        match problem {
            Some(text) => {
                let key = planned.key.clone();
                cx.event(Event::Warning { text: format!("{key} stays where it is: {text}") });
                report.problems.push((key, text));
            }
            None => {
                report.packs += 1;
                report.bytes += planned.pack.bytes;
            }
        }
    }
    report.problems.sort();
    Ok(report)
}

async fn move_pack(cx: &Context, stores: &[Store], planned: &Move, leases: &[Lease]) -> Result<()> {
    let Move { key, pack, .. } = planned;
    let (from, to) = (&stores[planned.from], &stores[planned.to]);
    let _memory = cx.memory().reserve(usize::try_from(pack.bytes).unwrap_or(usize::MAX)).await;
    let only = |store: &Store| Shelf::with(store.clone(), Vec::new());
    let arrival = arrived(&only(to), key, pack).await?;
    if arrival != Arrival::Whole {
        let bytes = read_whole(&only(from), key, pack).await?;
        if arrival == Arrival::Differs {
            // What replaces it was compared a moment ago, and still stands above.
            to.delete(key).await?;
        }
        put(to, key, pack, bytes).await?;
    }
    leases.iter().try_for_each(Lease::check)?;
    cx.progress().add_bytes(pack.bytes);
    from.delete(key).await
}

impl TierPlan {
    /// The bytes that would move.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.moves.iter().map(|m| m.pack.bytes).sum()
    }
}
