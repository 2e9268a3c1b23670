//! Where the objects of a repository may stand: its own store, and the lower tiers that old packs
//! moved to.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use backup_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use object_store::path::Path;
use tokio::sync::OnceCell;

use crate::format::{Config, RepositoryId};
use crate::key::{BackupObject, Key};
use crate::options::Stores;
use crate::store::{Availability, Store, ThawRequest};
use crate::sync::lock;
use crate::tiers::{self, Tier};
use crate::url::RepoUrl;

/// After an object was not found anywhere the policy is read again, but not more often than this.
const FRESH: Duration = Duration::from_secs(1);

/// The store of a repository and those of its lower tiers. Cheap to clone.
///
/// A pack moves downwards only, and is in the lower store before it leaves the upper one. So who
/// looks from the top to the bottom finds it, however often it moves meanwhile. The policy that
/// names the lower tiers is read when a pack is not in the upper one, so a repository without tiers
/// costs nothing more.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    home: Store,
    stores: Stores,
    lower: Arc<Mutex<Option<Loaded>>>,
}

/// The lower tiers as they were read last.
#[derive(Debug, Clone)]
struct Loaded {
    /// When; `None` for tiers that a program gave and no policy changes.
    at: Option<Instant>,
    tiers: Arc<[Lower]>,
}

/// A lower tier.
#[derive(Debug)]
pub(crate) struct Lower {
    pub(crate) tier: Tier,
    pub(crate) place: Elsewhere,
}

impl Lower {
    fn new(tier: Tier, stores: &Stores) -> Self {
        let place = Elsewhere::at(tier.url.clone(), tier.url.parse().ok(), stores);
        Lower { place: Elsewhere { proof: Proof::Tier(tier.clone()), ..place }, tier }
    }

    /// Its store.
    ///
    /// # Errors
    /// When it cannot be opened, or is not this tier: its disk may not be mounted.
    pub(crate) async fn store(&self) -> Result<Store> {
        self.place.store().await.map_err(|e| {
            e.context(format!(
                "the {} tier in {} cannot be used",
                self.tier.name,
                self.place.name()
            ))
        })
    }
}

/// An object of a directory, in one of the stores.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) name: String,
    /// 0 is the repository's own store, which people call `hot`; *n* is the *n*-th lower tier.
    pub(crate) tier: usize,
    pub(crate) bytes: u64,
}

impl Shelf {
    /// The tiers of the repository in `home`, as its policy says.
    pub(crate) fn new(home: Store, stores: &Stores) -> Self {
        Shelf { home, stores: stores.clone(), lower: Arc::default() }
    }

    /// With these lower tiers, whatever the policy says.
    pub(crate) fn with(home: Store, lower: Vec<Lower>) -> Self {
        let loaded = Loaded { at: None, tiers: lower.into() };
        let stores = Stores::default();
        Shelf { home, stores, lower: Arc::new(Mutex::new(Some(loaded))) }
    }

    /// The repository's own store.
    pub(crate) fn home(&self) -> &Store {
        &self.home
    }

    /// The lower tiers, the upper ones first.
    ///
    /// # Errors
    /// When the policy cannot be read.
    pub(crate) async fn lower(&self) -> Result<Arc<[Lower]>> {
        let known = lock(&self.lower).clone();
        match known {
            Some(loaded) => Ok(loaded.tiers),
            None => self.load().await,
        }
    }

    async fn load(&self) -> Result<Arc<[Lower]>> {
        let policy = tiers::read_policy(&self.home).await?.tiers;
        let mut slot = lock(&self.lower);
        // Stores that are open stay open.
        let tiers: Arc<[Lower]> = match &*slot {
            Some(known) if known.tiers.iter().map(|l| &l.tier).eq(&policy) => {
                Arc::clone(&known.tiers)
            }
            _ => policy.into_iter().map(|tier| Lower::new(tier, &self.stores)).collect(),
        };
        *slot = Some(Loaded { at: Some(Instant::now()), tiers: Arc::clone(&tiers) });
        Ok(tiers)
    }

    /// The lower tiers where they changed since they were looked through.
    async fn changed(&self, seen: &Arc<[Lower]>) -> Result<Option<Arc<[Lower]>>> {
        let at = lock(&self.lower).as_ref().and_then(|loaded| loaded.at);
        if at.is_none_or(|at| at.elapsed() < FRESH) {
            return Ok(None);
        }
        let now = self.load().await?;
        Ok((!Arc::ptr_eq(&now, seen)).then_some(now))
    }

    /// Asks one store after the other, from the top.
    async fn first<T, F: Future<Output = Result<Option<T>>>>(
        &self,
        key: &Key,
        ask: impl Fn(Store) -> F,
    ) -> Result<Option<T>> {
        if let Some(found) = ask(self.home.clone()).await? {
            return Ok(Some(found));
        }
        if !moves(key) {
            return Ok(None);
        }
        let mut tiers = self.lower().await?;
        loop {
            for lower in &*tiers {
                if let Some(found) = ask(lower.store().await?).await? {
                    return Ok(Some(found));
                }
            }
            match self.changed(&tiers).await? {
                Some(now) => tiers = now,
                None => return Ok(None),
            }
        }
    }

    /// Reads a part of an object from the first store that has it; see [`Store::get_range`].
    ///
    /// # Errors
    /// As [`Store::get_range`]; also when a pack is not in the upper tiers and a lower one cannot be
    /// opened.
    pub(crate) async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>> {
        let range = &range;
        self.first(key, |store| async move { store.get_range(key, range.clone()).await }).await
    }

    /// The length of an object in the first store that has it.
    ///
    /// # Errors
    /// As [`get_range`](Self::get_range).
    pub(crate) async fn len(&self, key: &Key) -> Result<Option<u64>> {
        self.first(key, |store| async move { store.len(key).await }).await
    }

    /// Whether an object can be read in the first store that has it; with a `request` it is asked for where
    /// it is in an archive class. Gives how it was.
    ///
    /// # Errors
    /// As [`get_range`](Self::get_range), and when the store refuses.
    pub(crate) async fn thaw(
        &self,
        key: &Key,
        request: Option<ThawRequest>,
    ) -> Result<Option<Availability>> {
        let ask = |store: Store| async move {
            match request {
                Some(request) => store.thaw(key, request).await,
                None => store.availability(key).await,
            }
        };
        self.first(key, ask).await
    }

    /// Every store that may have an object, the upper ones first.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub(crate) async fn stores_of(&self, key: &Key) -> Result<Vec<Store>> {
        let stores = match moves(key) {
            true => self.stores().await?,
            false => return Ok(vec![self.home.clone()]),
        };
        Ok(stores.into_iter().map(|(_, store)| store).collect())
    }

    /// Every store, the upper ones first, by what people call it.
    ///
    /// # Errors
    /// When one cannot be opened.
    pub(crate) async fn stores(&self) -> Result<Vec<(String, Store)>> {
        let mut stores = vec![("hot".to_owned(), self.home.clone())];
        for lower in &*self.lower().await? {
            stores.push((lower.tier.name.to_string(), lower.store().await?));
        }
        Ok(stores)
    }

    /// The objects of a directory in every store, sorted by name, then from the top. One that is
    /// being moved is in two.
    ///
    /// # Errors
    /// When a store fails or cannot be opened.
    pub(crate) async fn list(&self, directory: &Path) -> Result<Vec<Found>> {
        let mut all = Vec::new();
        // From the top: what moves meanwhile is seen twice rather than not at all.
        for (tier, (_, store)) in self.stores().await?.into_iter().enumerate() {
            let found = store.list(directory).await?.objects.into_iter();
            all.extend(found.map(|(name, meta)| Found { name, tier, bytes: meta.bytes }));
        }
        all.sort_by(|a, b| (&a.name, a.tier).cmp(&(&b.name, b.tier)));
        Ok(all)
    }
}

/// Only packs move.
fn moves(key: &Key) -> bool {
    matches!(key, Key::Backup(_, _, BackupObject::Pack(_)))
}

/// What a store has to be before it is used.
#[derive(Debug)]
enum Proof {
    /// Whoever gave it knows.
    None,
    /// A copy of this repository.
    Copy(RepositoryId),
    /// This tier. What a store lacks that is not, is not missing.
    Tier(Tier),
}

/// A store that is opened when it is needed.
#[derive(Debug)]
pub(crate) struct Elsewhere {
    name: String,
    url: Option<RepoUrl>,
    stores: Stores,
    proof: Proof,
    store: OnceCell<Store>,
}

impl Elsewhere {
    /// At an address; `None` where this version cannot read it.
    pub(crate) fn at(name: impl Into<String>, url: Option<RepoUrl>, stores: &Stores) -> Self {
        let (name, stores) = (name.into(), stores.clone());
        Elsewhere { name, url, stores, proof: Proof::None, store: OnceCell::new() }
    }

    /// A store that is open already.
    pub(crate) fn open(store: Store) -> Self {
        let name = store.name().to_owned();
        let (stores, store) = (Stores::default(), OnceCell::new_with(Some(store)));
        Elsewhere { name, url: None, stores, proof: Proof::None, store }
    }

    /// It is used only where it is a copy of this repository.
    pub(crate) fn copy_of(self, repository: &RepositoryId) -> Self {
        Elsewhere { proof: Proof::Copy(repository.clone()), ..self }
    }

    /// What messages call it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The store.
    ///
    /// # Errors
    /// When it cannot be opened, or is none of this repository.
    pub(crate) async fn store(&self) -> Result<Store> {
        self.store
            .get_or_try_init(|| async {
                let url = self.url.as_ref().ok_or_else(|| {
                    Error::new(ErrorKind::Store, format!("`{}` is no address", self.name))
                        .with_remedy("use a holdfast that knows this kind of address")
                })?;
                let store = self.stores.open(url).await?;
                match &self.proof {
                    Proof::None => {}
                    Proof::Copy(repository) => is_copy(&store, repository).await?,
                    Proof::Tier(tier) => tiers::check_mark(tier, &store).await?,
                }
                Ok(store)
            })
            .await
            .cloned()
    }
}

async fn is_copy(store: &Store, repository: &RepositoryId) -> Result<()> {
    match crate::repo::read_config(store).await? {
        Some(Config { repository: found, .. }) if found == *repository => Ok(()),
        _ => Err(Error::new(
            ErrorKind::Store,
            format!("{} is no copy of this repository", store.name()),
        )
        .with_remedy("correct `copies` in the configuration")),
    }
}
