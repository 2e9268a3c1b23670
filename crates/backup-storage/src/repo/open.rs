//! A repository created or opened.

use std::sync::Arc;

use backup_core::{Context, Error, ErrorKind, Event, Result};
use object_store::path::Path;
use zeroize::Zeroizing;

use super::{Repo, WRITER, mend};
use crate::failover::Copies;
use crate::format::{Config, Keys, Seals, Unlock, hex};
use crate::key::{self, Key, SlotName};
use crate::keys;
use crate::options::RepositoryOptions;
use crate::scan::is_damage;
use crate::shelf::Shelf;
use crate::store::{Created, Store, StoreOptions};
use crate::url::RepoUrl;

impl Repo {
    /// Creates a repository, an encrypted one when there is a key in the options. A missing directory
    /// is made, for its owner alone.
    ///
    /// # Errors
    /// [`ErrorKind::Store`] when there is a repository already, or anything else in the place;
    /// [`ErrorKind::Usage`] for an empty passphrase or a key file of the wrong length.
    pub async fn init(cx: &Context, url: &RepoUrl, options: RepositoryOptions) -> Result<Self> {
        options.unlock.as_ref().map_or(Ok(()), Unlock::check)?;
        let store = Store::make(cx, url, &StoreOptions::default()).await?;
        Repo::init_on(cx, store, options).await
    }

    /// Creates a repository in any store.
    ///
    /// # Errors
    /// As [`init`](Self::init).
    pub async fn init_on(cx: &Context, store: Store, options: RepositoryOptions) -> Result<Self> {
        let exists = || {
            Error::new(
                ErrorKind::Store,
                format!("there is a repository in {} already", store.name()),
            )
            .with_remedy("use it as it is, or choose another place for the new one")
        };
        if store.len(&Key::Config).await?.is_some() {
            return Err(exists());
        }
        if !is_free(&store).await? {
            return Err(Error::new(
                ErrorKind::Store,
                format!("{} is not empty, and what is in it is no repository", store.name()),
            )
            .with_remedy("choose an empty or a new place for the repository"));
        }
        store.prove_create_only(&Path::from(format!("probe-{}", hex(&cx.random::<8>())))).await?;
        let mut config = Config::new(cx, WRITER);
        let mut opened = None;
        if let Some(unlock) = &options.unlock {
            let keys = Keys::new(options.cipher, Zeroizing::new(cx.random()));
            // The slot first: a repository that nobody can open must never be there.
            let slot = keys::create(cx, &store, &config.repository, &keys, unlock, "").await?;
            config = config.encrypted(&keys);
            opened = Some((keys, slot.name().clone()));
        }
        match store.create(&Key::Config, config.encode()).await? {
            Created::New => Ok(Repo::with(store, config, opened, options)),
            Created::Exists => {
                if let Some((_, slot)) = opened {
                    // It belongs to no repository; when it stays, it is ignored.
                    let _ = store.delete(&Key::KeySlot(slot)).await;
                }
                Err(exists())
            }
        }
    }

    /// Whether the repository in a store needs a key to be opened.
    ///
    /// # Errors
    /// [`ErrorKind::Store`] when there is none, or it was made by a newer version.
    pub async fn is_encrypted(store: &Store) -> Result<bool> {
        let config = config_of(store).await?;
        Ok(config.encryption.is_some())
    }

    /// Opens a repository.
    ///
    /// # Errors
    /// [`ErrorKind::Store`] when there is none, or it was made by a newer version;
    /// [`ErrorKind::Usage`] when it is encrypted and the key is missing or wrong.
    pub async fn open(cx: &Context, url: &RepoUrl, options: RepositoryOptions) -> Result<Self> {
        let store = Store::open(cx, url, &StoreOptions::default()).await?;
        Repo::open_on(cx, store, options).await
    }

    /// Opens a repository in any store.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_on(cx: &Context, store: Store, options: RepositoryOptions) -> Result<Self> {
        cx.check()?;
        let config = config_of(&store).await?;
        let opened = match (&config.encryption, &options.unlock) {
            (Some(encryption), unlock) => {
                let unlock = unlock.as_ref();
                Some(keys::open(cx, &store, &config.repository, encryption, unlock).await?)
            }
            // What is written is refused, and that says it.
            (None, Some(_)) if options.writes => None,
            (None, Some(_)) => {
                let text = format!(
                    "the repository in {} is not encrypted; the passphrase or key file is not used",
                    store.name()
                );
                cx.event(Event::Warning { text });
                None
            }
            (None, None) => None,
        };
        Ok(Repo::with(store, config, opened, options))
    }

    fn with(
        store: Store,
        config: Config,
        opened: Option<(Keys, SlotName)>,
        mut options: RepositoryOptions,
    ) -> Self {
        let unlock = options.unlock.take();
        let (keys, slot) = opened.unzip();
        Repo {
            shelf: Shelf::new(store.clone(), &options.stores),
            store,
            copies: Copies::default(),
            seals: Seals { repository: config.repository.clone(), keys },
            slot,
            key_without_lock: config.encryption.is_none() && unlock.is_some(),
            config: Arc::new(config),
            options,
        }
    }
}

/// Reads `holdfast.json`; `None` when there is none.
pub(crate) async fn read_config(store: &Store) -> Result<Option<Config>> {
    let read = async {
        let bytes = store.get(&Key::Config, Config::MAX_BYTES).await?;
        bytes.as_deref().map(Config::parse).transpose()
    };
    // No backup is damaged by it, but none can be reached.
    read.await.map_err(|e| {
        let what = format!("cannot use the repository in {}", store.name());
        match is_damage(&e) {
            true => {
                let remedy = mend::config(store.name());
                e.with_kind(ErrorKind::Store).context(what).with_remedy(remedy)
            }
            false => e.context(what),
        }
    })
}

/// Whether a repository may be made here. What mkfs puts into a new file system does not count, nor
/// the key slots of an `init` that came to no end.
pub(crate) async fn is_free(store: &Store) -> Result<bool> {
    let found = store.list(&Path::default()).await?;
    let slots = store.list(&key::keys()).await?;
    let only_slots = slots.directories.is_empty()
        && slots.objects.iter().all(|(name, _)| name.parse::<SlotName>().is_ok());
    Ok(found.objects.is_empty()
        && found.directories.iter().all(|d| d == "lost+found" || (d == "keys" && only_slots)))
}

/// The `holdfast.json` of a repository.
async fn config_of(store: &Store) -> Result<Config> {
    if let Some(config) = read_config(store).await? {
        return Ok(config);
    }
    let name = store.name();
    match has_clusters(store).await? {
        true => {
            Err(Error::damaged(format!("{name} has backups, but its holdfast.json is missing"))
                .with_remedy(mend::config(name)))
        }
        false => Err(no_repository(name)),
    }
}

/// Whether there is what a repository holds.
pub(crate) async fn has_clusters(store: &Store) -> Result<bool> {
    let found = store.list(&Path::default()).await?;
    Ok(found.directories.iter().any(|d| d == "clusters"))
}

fn no_repository(name: &str) -> Error {
    Error::new(ErrorKind::Store, format!("there is no repository in {name}"))
        .with_remedy("check the address; `holdfast init` makes a new repository")
}
