//! Where a copy goes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use backup_core::{
    BackupId, Context, Error, ErrorKind, Event, RecordEvent, Repository, Result, ResultExt,
};
use bytes::Bytes;

use crate::failover::Copies;
use crate::format::{Config, RepositoryId, Slot, hex};
use crate::key::{self, Key, LeaseName, RecordName, SlotName};
use crate::lease::{Lease, holder};
use crate::options::RepositoryOptions;
use crate::repo::{Repo, has_clusters, is_free};
use crate::scan::is_damage;
use crate::shelf::Shelf;
use crate::store::{Created, Store};
use crate::url::RepoUrl;

/// A run that is silent for twice as long may be taken over; sooner where signs of life are to come
/// more often.
const TTL: Duration = Duration::from_secs(15);

/// What is done only where it is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CopyConsent {
    /// Copying into a place that has lost the copies that it had: it is empty, or holds another
    /// repository than when backups were copied there last.
    pub anew: bool,
    /// Copying from an encrypted repository into one that is not.
    pub clear_text: bool,
    /// Putting back a `holdfast.json` that is damaged or lost, where the backups there are those of the source.
    pub replace_damaged: bool,
}

/// A repository that takes copies.
#[derive(Debug)]
pub struct CopyTarget {
    repo: Repo,
    /// A copy of the source, with its id and its keys.
    same: bool,
    name: String,
    history: History,
    /// Held while backups are written anew here: what an earlier run left may be removed then.
    lease: Option<Lease>,
}

impl CopyTarget {
    /// Opens the repository at `url`. In an empty place a copy of `from` is begun; a directory that
    /// is missing is made, unless the history says that there was a copy before: then a disk is
    /// probably not mounted.
    ///
    /// `options` are for a target that is a repository of its own: its key, and how to compress.
    ///
    /// # Errors
    /// [`ErrorKind::Store`] when the place holds something else, is the source itself, or has lost
    /// the copies that it had; [`ErrorKind::Usage`] when it is inside the source, when what is
    /// encrypted would be stored in the clear there, or the key of the target is missing or wrong.
    pub async fn open(
        cx: &Context,
        from: &Repo,
        url: &RepoUrl,
        options: RepositoryOptions,
        consent: CopyConsent,
    ) -> Result<Self> {
        let name = url.absolute()?;
        if from.store().name().parse().is_ok_and(|source: RepoUrl| url.is_inside(&source)) {
            return Err(Error::usage(format!("{name} is inside the repository itself"))
                .with_remedy(
                    "name another place: a copy on the same store protects from nothing",
                ));
        }
        let history = History::read(cx, from, &name).await?;
        let had = history.last.is_some() && !consent.anew;
        let stores = &from.options().stores;
        let opened = match had {
            true => stores.open(url).await,
            false => stores.make(url).await,
        };
        let store = match opened {
            Err(e) if had => {
                return Err(e.with_remedy("see that the disk or share of the copy is mounted"));
            }
            other => other?,
        };
        CopyTarget::begin(cx, from, store, options, (name, history), consent).await
    }

    /// As [`open`](Self::open), in any store.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_on(
        cx: &Context,
        from: &Repo,
        store: Store,
        options: RepositoryOptions,
        consent: CopyConsent,
    ) -> Result<Self> {
        let name = store.name().to_owned();
        let history = History::read(cx, from, &name).await?;
        CopyTarget::begin(cx, from, store, options, (name, history), consent).await
    }

    async fn begin(
        cx: &Context,
        from: &Repo,
        store: Store,
        options: RepositoryOptions,
        (name, history): (String, History),
        consent: CopyConsent,
    ) -> Result<Self> {
        let found = match read_config(&store).await? {
            Found::Whole(config) => Some(config),
            Found::Nothing => None,
            Found::Lost(error) => {
                put_back(cx, from, &store, &name, error, consent).await?;
                Some(from.config().clone())
            }
        };
        let (repo, same) = match found {
            Some(config) if config.repository != *from.id() => {
                history.allows(&name, from, &config.repository, consent)?;
                keeps_secret(&name, from, &config, consent)?;
                (open_other(cx, store, options).await?, false)
            }
            Some(config) => {
                if config != *from.config() {
                    return Err(Error::new(
                        ErrorKind::Store,
                        format!("{name} has the id of this repository and another key"),
                    )
                    .with_remedy("copy into another place"));
                }
                is_elsewhere(cx, from, &store).await?;
                (from.placed(Shelf::new(store, &from.options().stores), Copies::default()), true)
            }
            None => {
                if history.last.is_some() && !consent.anew {
                    return Err(Error::new(
                        ErrorKind::Store,
                        format!(
                            "{name} is empty, and it had copies of {} backups",
                            history.backups().count()
                        ),
                    )
                    .with_remedy(
                        "see that the disk or share is mounted; to begin a new copy there, add \
                         --anew",
                    ));
                }
                if !is_free(&store).await? {
                    return Err(Error::new(
                        ErrorKind::Store,
                        format!("{name} is not empty, and what is in it is no repository"),
                    )
                    .with_remedy("name an empty place, or a repository"));
                }
                store.prove_create_only(&probe(cx).path()).await?;
                // The keys first: a copy that nobody can open must never be there.
                carry_keys(from, &store).await?;
                create(from, &store).await.context(|| format!("cannot begin a copy in {name}"))?;
                (from.placed(Shelf::new(store, &from.options().stores), Copies::default()), true)
            }
        };
        let lease = match same {
            true => None,
            false => Some(lease(cx, &repo).await?),
        };
        let target = CopyTarget { repo, same, name, history, lease };
        if target.same {
            carry_keys(from, target.repo.store()).await?;
        }
        Ok(target)
    }

    /// Fails when another run may copy to here by now.
    pub(crate) fn check(&self) -> Result<()> {
        self.lease.as_ref().map_or(Ok(()), Lease::check)
    }

    /// Lets others copy to here. Without this they have to wait for a minute.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn close(self) -> Result<()> {
        match self.lease {
            Some(lease) => lease.release().await,
            None => Ok(()),
        }
    }

    /// The repository.
    #[must_use]
    pub fn repo(&self) -> &Repo {
        &self.repo
    }

    /// Whether it is a copy of the source byte for byte.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.same
    }

    /// Its address, without secrets.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the history of the source has this copy already.
    pub(crate) fn is_noted(&self, backup: &BackupId) -> bool {
        self.history.copied.contains(&(self.repo.id().to_string(), backup.clone()))
    }
}

/// Waits a little where somebody else holds it: it may be a run that was killed just now.
async fn lease(cx: &Context, repo: &Repo) -> Result<Lease> {
    let ttl = TTL.min(3 * repo.options().heartbeat);
    let holder = holder("copy");
    let since = Instant::now();
    let mut waits = false;
    loop {
        match Lease::acquire(cx, repo.store(), LeaseName::Copy, &holder, ttl).await {
            Err(e) if e.kind() == ErrorKind::Busy && since.elapsed() < 3 * ttl => {
                if !std::mem::replace(&mut waits, true) {
                    cx.phase(format!("waits: {}", e.chain()));
                }
                cx.run(async {
                    tokio::time::sleep(ttl / 10).await;
                    Ok(())
                })
                .await?;
            }
            other => return other,
        }
    }
}

/// What the history of the source says of a place.
#[derive(Debug, Default)]
struct History {
    /// The repository that was there when a backup was copied to it last.
    last: Option<String>,
    /// The copies: repository and backup.
    copied: BTreeSet<(String, BackupId)>,
}

impl History {
    async fn read(cx: &Context, from: &Repo, name: &str) -> Result<History> {
        let mut history = History::default();
        let mut latest = None;
        for cluster in from.clusters().await? {
            for record in from.records(cx, &cluster).await? {
                if let (RecordEvent::Copied { to, repository, .. }, Some(backup)) =
                    (record.event, record.backup)
                    && to == name
                {
                    if latest <= Some(record.time) {
                        (latest, history.last) = (Some(record.time), Some(repository.clone()));
                    }
                    history.copied.insert((repository, backup));
                }
            }
        }
        Ok(history)
    }

    /// The backups that were copied, to whatever was there.
    fn backups(&self) -> impl Iterator<Item = &BackupId> {
        self.copied.iter().map(|(_, backup)| backup).collect::<BTreeSet<_>>().into_iter()
    }

    /// Refuses a repository that has taken the place of another one: who can write there may have put
    /// it there, to be given what is copied every night.
    fn allows(
        &self,
        name: &str,
        from: &Repo,
        found: &RepositoryId,
        consent: CopyConsent,
    ) -> Result<()> {
        let was = match &self.last {
            Some(last) if !consent.anew && last != found.as_str() => last,
            _ => return Ok(()),
        };
        let was = match was == from.id().as_str() {
            true => "a copy of this repository".to_owned(),
            false => format!("repository {was}"),
        };
        Err(Error::new(
            ErrorKind::Store,
            format!(
                "{name} was {was} when backups were copied there last, and is repository {found} now"
            ),
        )
        .with_remedy(
            "see that the right disk or share is mounted, and who put this repository there; to copy \
             into it all the same, add --anew",
        ))
    }
}

/// Refuses to store in the clear what is encrypted.
fn keeps_secret(name: &str, from: &Repo, to: &Config, consent: CopyConsent) -> Result<()> {
    if from.keys().is_none() || to.encryption.is_some() || consent.clear_text {
        return Ok(());
    }
    Err(Error::usage(format!(
        "the repository is encrypted, and the other one in {name} is not: the backups would be \
         stored in the clear"
    ))
    .with_remedy(
        "copy into an empty place, which becomes a copy with the same key, or into an encrypted \
         repository; if it is meant, add --allow-unencrypted",
    ))
}

/// Opens a target that is a repository of its own.
async fn open_other(cx: &Context, store: Store, options: RepositoryOptions) -> Result<Repo> {
    let repo = Repo::open_on(cx, store, options).await.map_err(|e| match e.kind() {
        // Its key is not that of the source, which other flags name.
        ErrorKind::Usage => e.with_remedy(
            "name the target with --to, and give its own key with --to-passphrase-file or \
             --to-key-file",
        ),
        _ => e,
    })?;
    repo.refuse_clear_text("the copy")?;
    Ok(repo)
}

/// What stands in the place of `holdfast.json`.
enum Found {
    Whole(Config),
    Nothing,
    /// A repository that has none that can be read.
    Lost(Error),
}

async fn read_config(store: &Store) -> Result<Found> {
    let read = async {
        let bytes = store.get(&Key::Config, Config::MAX_BYTES).await?;
        bytes.as_deref().map(Config::parse).transpose()
    };
    match read.await {
        Ok(Some(config)) => Ok(Found::Whole(config)),
        Ok(None) if has_clusters(store).await? => {
            Ok(Found::Lost(Error::damaged("its holdfast.json is missing")))
        }
        Ok(None) => Ok(Found::Nothing),
        Err(e) if is_damage(&e) => Ok(Found::Lost(e)),
        Err(e) => Err(e),
    }
}

/// Puts `holdfast.json` back where it is certain that the backups in the store are those of `from`: every manifest is
/// bound to the repository that it was written in, and to its key.
async fn put_back(
    cx: &Context,
    from: &Repo,
    store: &Store,
    name: &str,
    error: Error,
    consent: CopyConsent,
) -> Result<()> {
    let error = error.context(format!("cannot use the repository in {name}"));
    if !consent.replace_damaged {
        return Err(error.with_remedy(
            "add --replace-damaged, which puts it back where the backups there are those of this repository",
        ));
    }
    let shelf = Shelf::new(store.clone(), &from.options().stores);
    let there = from.placed(shelf, Copies::default());
    let listed = there.backups(cx, None).await?;
    if !listed.iter().any(|listed| listed.manifest.is_ok()) {
        return Err(error.with_remedy(
            "no backup there can be told to be of this repository: if it is, copy holdfast.json by hand out of this \
             one, which has the same",
        ));
    }
    // The keys first: a repository that nobody can open must never be there.
    carry_keys(from, store).await?;
    store.delete(&Key::Config).await?;
    create(from, store).await.context(|| format!("cannot put holdfast.json back in {name}"))?;
    cx.event(Event::Warning { text: format!("holdfast.json was put back in {name}") });
    Ok(())
}

/// Begins a copy in an empty store.
async fn create(from: &Repo, store: &Store) -> Result<()> {
    let bytes = from
        .store()
        .get(&Key::Config, Config::MAX_BYTES)
        .await?
        .ok_or_else(|| Error::new(ErrorKind::Store, "holdfast.json of the source is gone"))?;
    // What cannot be read must not be passed on.
    if Config::parse(&bytes)? != *from.config() {
        return Err(Error::new(ErrorKind::Store, "holdfast.json of the source has changed"));
    }
    match store.create(&Key::Config, bytes.clone()).await? {
        Created::New => same(store, &Key::Config, &bytes).await,
        // The same bytes are no conflict; these are others.
        Created::Exists => Err(Error::new(
            ErrorKind::Store,
            format!("somebody else makes a repository in {} at the same moment", store.name()),
        )),
    }
}

/// Sees that an object that was just written is the same when it is read back.
async fn same(store: &Store, key: &Key, bytes: &Bytes) -> Result<()> {
    match store.get(key, bytes.len() as u64).await? {
        Some(found) if found == *bytes => Ok(()),
        _ => Err(Error::damaged(format!(
            "{key} was written to {} and is not the same when it is read back",
            store.name()
        ))
        .with_remedy("see what the log says about the disk or the share; copy to another place")),
    }
}

/// The name of an object that is made to try something, and removed again.
fn probe(cx: &Context) -> Key {
    let name = RecordName::new(&format!("copy-{}", hex(&cx.random::<8>())));
    Key::Now(name.expect("letters, a dash and digits"))
}

/// Sees that what is written to the target does not appear at the source: a copy in the same place,
/// reached by another name, is none.
async fn is_elsewhere(cx: &Context, from: &Repo, store: &Store) -> Result<()> {
    let probe = probe(cx);
    store.create(&probe, "{}\n").await?;
    let seen = from.store().len(&probe).await;
    if let Err(e) = store.delete(&probe).await {
        cx.event(Event::Warning { text: format!("{probe} was left behind: {}", e.chain()) });
    }
    match seen? {
        None => Ok(()),
        Some(_) => Err(Error::usage(format!(
            "{} is the repository itself, reached by another name",
            store.name()
        ))
        .with_remedy("name another place: a copy on the same store protects from nothing")),
    }
}

/// Puts the key slots of the source that the target lacks there too. Those that were removed at the
/// source stay: a copy is told of by nobody.
async fn carry_keys(from: &Repo, to: &Store) -> Result<()> {
    for (name, _) in from.store().list(&key::keys()).await?.objects {
        let Ok(name) = name.parse::<SlotName>() else { continue };
        let key = Key::KeySlot(name.clone());
        // What is no slot is not passed on.
        if let Some(bytes) = from.store().get(&key, Slot::MAX_BYTES).await?
            && Slot::parse(&name, &bytes).is_ok()
        {
            // Slots are never changed: what has the name is the same slot.
            to.create(&key, bytes.clone()).await?;
            same(to, &key, &bytes).await?;
        }
    }
    Ok(())
}
