//! Which lower tiers a repository has: objects `tiers/<seq>`, of which the highest counts.

use std::fmt;

use backup_core::{Context, Error, ErrorKind, FORMAT, Result, ResultExt};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::format::hex;
use crate::key::{self, Key};
use crate::repo::{Repo, is_free};
use crate::store::{Availability, Created, Store};
use crate::url::RepoUrl;

/// The longest policy that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// A lower tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TierName {
    /// The first below the repository's own store.
    Warm,
    /// The last.
    Cold,
}

impl fmt::Display for TierName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TierName::Warm => "warm",
            TierName::Cold => "cold",
        })
    }
}

/// A lower tier, as the policy of a repository names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tier {
    /// Which it is.
    pub name: TierName,
    /// The address of its store, without secrets.
    pub url: String,
    /// How old the youngest backup that needs a pack is when the pack moves here.
    pub after: SignedDuration,
    /// 16 random bytes in hex, the same as in the store's `tier.json`: a store that was moved is
    /// known by it, and an empty directory where a disk should be mounted is not taken for one.
    pub id: String,
}

/// Where packs go as they age.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// The format, 1.
    pub format: u32,
    /// When it was written; `None` when there is none yet.
    #[serde(default)]
    pub created_at: Option<Timestamp>,
    /// The lower tiers, the upper ones first.
    pub tiers: Vec<Tier>,
    /// The number of the object; 0 when there is none.
    #[serde(skip)]
    pub(crate) seq: u64,
}

/// A tier that a user wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierSpec {
    /// Which it is.
    pub name: TierName,
    /// Where its store is; it has to be there.
    pub url: RepoUrl,
    /// How old the youngest backup that needs a pack is when the pack moves there.
    pub after: SignedDuration,
}

/// The content of `tier.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    format: u32,
    repository: String,
    tier: TierName,
    id: String,
}

/// The policy of a repository; one without tiers when none was ever set.
///
/// # Errors
/// When the store fails, or the policy is damaged or of a newer version.
pub async fn policy(repo: &Repo) -> Result<Policy> {
    read_policy(repo.store()).await
}

/// Reads the highest `tiers/<seq>`.
pub(crate) async fn read_policy(store: &Store) -> Result<Policy> {
    let found = store.list(&key::tiers()).await?.objects;
    let number = |name: &String| name.parse().ok().filter(|n: &u64| n.to_string() == *name);
    let Some(seq) = found.iter().filter_map(|(name, _)| number(name)).max() else {
        return Ok(Policy { format: FORMAT, ..Policy::default() });
    };
    let key = Key::Tiers(seq);
    let unusable = |problem: &'static str| {
        Error::new(ErrorKind::Store, format!("{key} in {} {problem}", store.name()))
            .with_remedy("set the policy again with `holdfast tier --warm … --warm-after …`")
    };
    let bytes =
        store.get(&key, MAX_BYTES).await?.ok_or_else(|| unusable("went away while it was read"))?;
    let policy: Policy = serde_json::from_slice(&bytes)
        .map_err(|e| unusable("is damaged or of a newer holdfast").with_source(e))?;
    match policy.format {
        FORMAT => Ok(Policy { seq, ..policy }),
        _ => Err(unusable("was written by a newer holdfast")),
    }
}

/// Sets the policy of a repository. A pack that has moved stays where it is; what a lower tier holds
/// must stay within reach, so a tier that is left out or replaced has to be empty.
///
/// Each store gets an object `tier.json` that says whose tier it is.
///
/// # Errors
/// A usage error for tiers that do not follow each other in name and age;
/// [`ErrorKind::Store`] for a store that belongs to another repository or tier, or when a tier that
/// still holds packs would be forgotten; [`ErrorKind::Busy`] when somebody else sets a policy now.
pub async fn set_policy(cx: &Context, repo: &Repo, specs: &[TierSpec]) -> Result<Policy> {
    check(specs)?;
    let old = policy(repo).await?;
    let mut tiers: Vec<Tier> = Vec::new();
    for spec in specs {
        cx.check()?;
        let url = spec.url.absolute()?;
        let store = open(repo, &old, spec).await?;
        let id = mark(cx, repo, spec.name, &store).await?;
        tiers.push(Tier { name: spec.name, url, after: spec.after, id });
    }
    for tier in old.tiers.iter().filter(|old| !tiers.iter().any(|new| new.id == old.id)) {
        let holds = is_in_use(repo, tier).await.context(|| {
            format!("the {} tier in {} may hold packs and cannot be looked at", tier.name, tier.url)
        })?;
        if holds {
            return Err(Error::new(
                ErrorKind::Store,
                format!("the {} tier in {} holds packs of this repository", tier.name, tier.url),
            )
            .with_remedy(
                "keep the tier; to move it, copy all of it, `tier.json` too, to the new place and \
                 name that",
            ));
        }
    }
    write_policy(cx, repo, &old, tiers).await
}

/// Leaves out a tier that is lost for good, with the packs that it held.
///
/// # Errors
/// A usage error when there is no such tier; [`ErrorKind::Store`] when it is there after all and
/// holds packs; [`ErrorKind::Busy`] when somebody else sets a policy now.
pub async fn forget_tier(cx: &Context, repo: &Repo, name: TierName) -> Result<Policy> {
    let old = policy(repo).await?;
    let Some(tier) = old.tiers.iter().find(|tier| tier.name == name) else {
        return Err(Error::usage(format!("this repository has no {name} tier"))
            .with_remedy("see what it has with `holdfast tier --dry-run --json`"));
    };
    if is_in_use(repo, tier).await.unwrap_or(false) {
        return Err(Error::new(
            ErrorKind::Store,
            format!("the {name} tier in {} is there, and holds packs", tier.url),
        )
        .with_remedy("keep it: only what is lost for good is to be forgotten"));
    }
    let tiers = old.tiers.iter().filter(|tier| tier.name != name).cloned().collect();
    write_policy(cx, repo, &old, tiers).await
}

async fn write_policy(cx: &Context, repo: &Repo, old: &Policy, tiers: Vec<Tier>) -> Result<Policy> {
    let policy = Policy { format: FORMAT, created_at: Some(cx.now()), tiers, seq: old.seq + 1 };
    let mut json = serde_json::to_vec_pretty(&policy)
        .map_err(|e| Error::internal("the policy cannot be written as JSON").with_source(e))?;
    json.push(b'\n');
    match repo.store().create(&Key::Tiers(policy.seq), json).await? {
        Created::New => Ok(policy),
        Created::Exists => {
            Err(Error::new(ErrorKind::Busy, "somebody else set another policy at the same moment")
                .with_remedy("look at it with `holdfast tier --dry-run`, then try again"))
        }
    }
}

/// The repository as it would be with other tiers, to plan with: nothing is written.
///
/// # Errors
/// As [`set_policy`], for tiers that do not follow each other, or a store that cannot be opened.
pub async fn preview(repo: &Repo, specs: &[TierSpec]) -> Result<Repo> {
    check(specs)?;
    let old = policy(repo).await?;
    let mut tiers = Vec::new();
    for spec in specs {
        tiers.push((spec.name, spec.after, open(repo, &old, spec).await?));
    }
    Ok(repo.with_tier_stores(tiers))
}

/// Opens the store that a tier is to have. Where it has that one already, it has to be it.
async fn open(repo: &Repo, old: &Policy, spec: &TierSpec) -> Result<Store> {
    let store = repo.options().stores.open(&spec.url).await?;
    let url = spec.url.absolute()?;
    if let Some(known) = old.tiers.iter().find(|t| t.name == spec.name && t.url == url) {
        check_mark(known, &store).await?;
    }
    Ok(store)
}

fn check(specs: &[TierSpec]) -> Result<()> {
    for pair in specs.windows(2) {
        if pair[0].name >= pair[1].name || pair[0].after > pair[1].after {
            return Err(Error::usage("packs become warm first, then cold")
                .with_remedy("make --cold-after at least as long as --warm-after"));
        }
    }
    if specs.iter().any(|spec| spec.after.is_negative()) {
        return Err(Error::usage("an age cannot be negative"));
    }
    Ok(())
}

/// Makes a store ours, or sees that it is. Gives its id.
async fn mark(cx: &Context, repo: &Repo, name: TierName, store: &Store) -> Result<String> {
    if store.len(&Key::Config).await?.is_some() {
        return Err(Error::new(
            ErrorKind::Store,
            format!("there is a repository in {}; it cannot be a tier too", store.name()),
        )
        .with_remedy("name an empty place for the tier"));
    }
    if let Some(found) = read_mark(store).await? {
        return is_ours(repo, name, store, found);
    }
    if !is_free(store).await? {
        return Err(Error::new(
            ErrorKind::Store,
            format!("{} is not empty, and what is in it is no tier", store.name()),
        )
        .with_remedy("name an empty place for the tier"));
    }
    let (format, id) = (FORMAT, hex(&cx.random::<16>()));
    let found = Mark { format, repository: repo.id().to_string(), tier: name, id: id.clone() };
    let mut json = serde_json::to_vec_pretty(&found)
        .map_err(|e| Error::internal("tier.json cannot be written").with_source(e))?;
    json.push(b'\n');
    match store.create(&Key::TierMark, json).await? {
        Created::New => Ok(id),
        Created::Exists => Err(Error::new(
            ErrorKind::Busy,
            format!("somebody else makes a tier of {} at the same moment", store.name()),
        )),
    }
}

async fn read_mark(store: &Store) -> Result<Option<Mark>> {
    let Some(bytes) = store.get(&Key::TierMark, MAX_BYTES).await? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|e| {
        Error::new(ErrorKind::Store, format!("tier.json in {} is damaged", store.name()))
            .with_source(e)
    })
}

fn is_ours(repo: &Repo, name: TierName, store: &Store, found: Mark) -> Result<String> {
    let whose = if found.repository != repo.id().as_str() {
        "a tier of another repository".to_owned()
    } else if found.tier != name {
        format!("the {} tier of this repository", found.tier)
    } else {
        return Ok(found.id);
    };
    Err(Error::new(ErrorKind::Store, format!("{} is {whose}", store.name()))
        .with_remedy("name an empty place for the tier"))
}

/// Sees that an open store is the one that the policy means: an empty directory where its disk should
/// be mounted is not, and what is not in it is not lost.
pub(crate) async fn check_mark(tier: &Tier, store: &Store) -> Result<()> {
    match read_mark(store).await {
        Ok(Some(mark)) if mark.id == tier.id => Ok(()),
        Ok(_) => Err(Error::new(
            ErrorKind::Store,
            format!(
                "{} is not the {} tier of this repository, or its disk is not mounted",
                store.name(),
                tier.name
            ),
        )
        .with_remedy(format!(
            "see that the disk or share of the tier is mounted there; if the tier moved, name the \
             new place with `holdfast tier --{}`",
            tier.name
        ))),
        // A bucket that moved it to an archive class with the packs is no empty directory.
        Err(e) => match store.availability(&Key::TierMark).await {
            Ok(Some(Availability::Archived | Availability::Thawing)) => Ok(()),
            _ => Err(e),
        },
    }
}

/// Whether a tier that is to be left out still holds anything.
async fn is_in_use(repo: &Repo, tier: &Tier) -> Result<bool> {
    let store = repo.options().stores.open(&tier.url.parse()?).await?;
    check_mark(tier, &store).await?;
    for cluster in store.list(&key::clusters()).await?.directories {
        let Ok(cluster) = cluster.parse() else { continue };
        for backup in store.list(&key::backups(&cluster)).await?.directories {
            let Ok(backup) = backup.parse() else { continue };
            if !store.list(&key::backup(&cluster, &backup)).await?.objects.is_empty() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
