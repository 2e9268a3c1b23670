//! The keys of an encrypted repository: slots that each hold the master key, wrapped.

use backup_core::{Context, Error, ErrorKind, Event, Result};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use crate::format::{Argon2Cost, Encryption, Keys, RepositoryId, Slot, SlotKind, Unlock};
use crate::key::{self, Key, SlotName};
use crate::repo::Repo;
use crate::scan::is_damage;
use crate::store::taken;
use crate::store::{Created, Store};

/// The most slots of a repository. Each one with a passphrase takes a part of a second to try.
const MAX_SLOTS: usize = 32;

/// How many slots are read at once.
const AT_ONCE: usize = 16;

/// A key slot of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySlot {
    /// Its name.
    pub name: SlotName,
    /// What opens it.
    pub kind: SlotKind,
    /// What its maker calls it; may be empty. Not to be trusted before the slot was opened.
    pub label: String,
    /// When it was made, by the clock of its maker.
    pub created_at: Timestamp,
    /// Whether the repository was opened with it.
    pub opened: bool,
}

impl Repo {
    /// The key slots, in order of their names; none when the repository is not encrypted. Those that
    /// are damaged, which opening the repository warned of, are left out.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn key_slots(&self, cx: &Context) -> Result<Vec<KeySlot>> {
        let slots = read_slots(cx, self.store(), self.id()).await?;
        Ok(slots.usable.iter().map(|slot| self.describe(slot)).collect())
    }

    /// Adds a slot, which opens with `unlock` from now on. `label` is for people.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`]: the repository is not encrypted, the passphrase is empty, the key file
    /// too short or long, the label too long, or there are 32 slots already.
    pub async fn add_key(&self, cx: &Context, unlock: &Unlock, label: &str) -> Result<KeySlot> {
        let keys = self.keys().ok_or_else(|| self.not_encrypted())?;
        if read_slots(cx, self.store(), self.id()).await?.usable.len() >= MAX_SLOTS {
            return Err(Error::usage(format!("the repository has {MAX_SLOTS} key slots already"))
                .with_remedy("remove one with `holdfast key remove` first"));
        }
        let slot = create(cx, self.store(), self.id(), keys, unlock, label).await?;
        Ok(self.describe(&slot))
    }

    /// Removes a slot. Its passphrase or key file opens the repository no more; but who copied the
    /// slot before, or the master key, can still read what he can get of the repository: nothing is
    /// encrypted anew.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`]: there is no such slot, or it is the last one that can be used.
    /// [`ErrorKind::Busy`]: the others were removed at the same time; this one is there again.
    pub async fn remove_key(&self, cx: &Context, name: &SlotName) -> Result<()> {
        self.keys().ok_or_else(|| self.not_encrypted())?;
        let slots = read_slots(cx, self.store(), self.id()).await?;
        let slot = slots.usable.iter().find(|slot| slot.name() == name);
        if slot.is_none() && !slots.damaged.iter().any(|(damaged, _)| damaged == name) {
            return Err(Error::usage(format!(
                "the repository has no key slot {name}; it has {}",
                list(&slots.usable)
            ))
            .with_remedy("name one of these"));
        }
        if slots.usable.iter().all(|slot| slot.name() == name) {
            return Err(Error::usage(format!(
                "{name} is the last key slot: without it nobody could read the backups again"
            ))
            .with_remedy("add another key first, with `holdfast key add`"));
        }
        let key = Key::KeySlot(name.clone());
        self.store().delete(&key).await?;
        let left = read_slots(cx, self.store(), self.id()).await?;
        match slot {
            Some(slot) if left.usable.is_empty() => {
                self.store().create(&key, slot.encode()).await?;
                Err(Error::new(
                    ErrorKind::Busy,
                    format!(
                        "somebody removed the other key slots at the same time; {name} was put back"
                    ),
                )
                .with_remedy("see `holdfast key list`, then try again"))
            }
            _ => Ok(()),
        }
    }

    fn describe(&self, slot: &Slot) -> KeySlot {
        KeySlot {
            name: slot.name().clone(),
            kind: slot.kind(),
            label: slot.label().to_owned(),
            created_at: slot.created_at(),
            opened: self.opened_with() == Some(slot.name()),
        }
    }

    fn not_encrypted(&self) -> Error {
        Error::usage(format!(
            "the repository in {} is not encrypted: it has no keys",
            self.store().name()
        ))
        .with_remedy("make a new repository with --passphrase-file or --key-file")
    }
}

/// The slots of a repository.
struct Slots {
    /// Those that can be tried, in order of their names.
    usable: Vec<Slot>,
    /// Those that cannot be read.
    damaged: Vec<(SlotName, Error)>,
}

/// Reads all slots. Those of another repository are passed over.
async fn read_slots(cx: &Context, store: &Store, repository: &RepositoryId) -> Result<Slots> {
    let found = store.list(&key::keys()).await?;
    let names: Vec<SlotName> =
        found.objects.iter().filter_map(|(name, _)| name.parse().ok()).collect();
    // Twice as many: of other repositories there may be some that an `init` left.
    if names.len() > 2 * MAX_SLOTS {
        return Err(Error::new(
            ErrorKind::Store,
            format!(
                "keys/ in {} holds {} objects, more than any repository has",
                store.name(),
                names.len()
            ),
        )
        .with_remedy("somebody put them there: move those away that are not yours"));
    }
    let read: Vec<(SlotName, Result<Option<Slot>>)> = stream::iter(names)
        .map(|name| async move {
            cx.check()?;
            let bytes = store.get(&Key::KeySlot(name.clone()), Slot::MAX_BYTES).await;
            let slot = match bytes {
                Ok(bytes) => bytes.map(|bytes| Slot::parse(&name, &bytes)).transpose(),
                Err(e) if is_damage(&e) => Err(e),
                Err(e) => return Err(e),
            };
            Ok((name, slot))
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await?;
    let mut slots = Slots { usable: Vec::new(), damaged: Vec::new() };
    for (name, slot) in read {
        match slot {
            Ok(Some(slot)) if slot.repository() == repository => slots.usable.push(slot),
            Ok(_) => {}
            Err(e) => slots.damaged.push((name, e)),
        }
    }
    Ok(slots)
}

/// Makes a slot and stores it.
pub(crate) async fn create(
    cx: &Context,
    store: &Store,
    repository: &RepositoryId,
    keys: &Keys,
    unlock: &Unlock,
    label: &str,
) -> Result<Slot> {
    let cost = Argon2Cost::default();
    let _memory = cx.memory().reserve(cost.memory_kib as usize * 1024).await;
    let (job, repository, keys) = (cx.clone(), repository.clone(), keys.clone());
    let (unlock, label) = (unlock.clone(), label.to_owned());
    let slot =
        blocking(move || Slot::wrap(&job, &repository, keys.master(), &unlock, &label, cost))
            .await??;
    let (key, bytes) = (Key::KeySlot(slot.name().clone()), slot.encode());
    match store.create(&key, bytes.clone()).await? {
        Created::New => {}
        Created::Exists => return Err(taken(&key)),
    }
    // All backups hang on it: what the store took must be what it gives.
    match store.get(&key, Slot::MAX_BYTES).await? {
        Some(found) if found == bytes => Ok(slot),
        _ => Err(Error::new(
            ErrorKind::Store,
            format!("{key} in {} is not what was written", store.name()),
        )),
    }
}

/// Opens a repository's keys, and names the slot that gave them.
pub(crate) async fn open(
    cx: &Context,
    store: &Store,
    repository: &RepositoryId,
    encryption: &Encryption,
    unlock: Option<&Unlock>,
) -> Result<(Keys, SlotName)> {
    let Some(unlock) = unlock else {
        return Err(Error::usage(format!(
            "repository {repository} in {} is encrypted, and no passphrase or key file was given",
            store.name()
        ))
        .with_remedy(
            "give it with --passphrase-file or --key-file, or in HOLDFAST_PASSPHRASE, \
             HOLDFAST_PASSPHRASE_FILE or HOLDFAST_KEY_FILE",
        ));
    };
    unlock.check()?;
    let slots = read_slots(cx, store, repository).await?;
    for (_, e) in &slots.damaged {
        cx.event(Event::Warning { text: e.report() });
    }
    for slot in slots.usable.iter().filter(|slot| slot.kind() == unlock.kind()) {
        cx.check()?;
        let _memory = cx.memory().reserve(slot.memory()).await;
        let (job, unlock) = (slot.clone(), unlock.clone());
        let Some(master) = blocking(move || job.unwrap(&unlock)).await? else { continue };
        let keys = Keys::new(encryption.cipher, master);
        if encryption.is_key(repository, &keys) {
            return Ok((keys, slot.name().clone()));
        }
        return Err(Error::new(
            ErrorKind::Store,
            format!(
                "the key in slot {} is not the one that holdfast.json in {} tells of",
                slot.name(),
                store.name()
            ),
        )
        .with_remedy("one of the two was replaced: put both back from a copy of the repository"));
    }
    if slots.usable.is_empty() {
        let damaged = match slots.damaged.len() {
            0 => "has no key slot",
            _ => "has no key slot that is whole",
        };
        return Err(Error::new(
            ErrorKind::Store,
            format!("repository {repository} in {} {damaged}: nothing opens it", store.name()),
        )
        .with_remedy("put the objects below keys/ back from a copy of the repository"));
    }
    Err(Error::usage(format!(
        "wrong passphrase or key file for repository {repository}; it has {}",
        list(&slots.usable)
    ))
    .with_remedy("give the right one; without it nobody can read the backups, not even the makers of Holdfast"))
}

/// `2 key slots: 0a1b2c3d (passphrase, "ops"), 4e5f6071 (key-file)`.
fn list(slots: &[Slot]) -> String {
    let one = |slot: &Slot| match slot.label() {
        "" => format!("{} ({})", slot.name(), slot.kind().as_str()),
        label => {
            format!("{} ({}, \"{}\")", slot.name(), slot.kind().as_str(), label.escape_debug())
        }
    };
    let all: Vec<String> = slots.iter().map(one).collect();
    format!("{} key slot{}: {}", all.len(), if all.len() == 1 { "" } else { "s" }, all.join(", "))
}

/// Runs what takes long and does not wait, away from the threads that do.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let task = tokio::task::spawn_blocking(work);
    task.await.map_err(|e| Error::internal("a key could not be derived").with_source(e))
}
