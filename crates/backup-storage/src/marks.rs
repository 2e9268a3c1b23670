//! Marks: plans to remove backups, written down before anything is removed.
//!
//! A prune creates a mark, and only then looks for backups in progress; a backup creates its `active`
//! marker, and only then looks for marks. So one of the two always sees the other.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{BackupId, ClusterName, Context, Error, FORMAT, Result};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::format::{hex, newer};
use crate::key::{self, BackupObject, Key, RecordName};
use crate::repo::WRITER;
use crate::store::taken;
use crate::store::{Created, Store};

/// How long a process may stand still between two of its steps, and go on after it. What would be
/// dangerous if one did that is put off for so long.
pub(crate) const ZOMBIE: SignedDuration = SignedDuration::from_hours(7 * 24);

/// The longest mark: it names more backups than a repository can hold.
const MAX_BYTES: u64 = 64 << 20;

/// The content of a mark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    format: u32,
    /// By the clock of the machine that wrote it, for people. What counts is the store's time.
    at: Timestamp,
    writer: String,
    nonce: String,
    /// Backups to be removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) victims: Vec<Victim>,
    /// Backups that an earlier mark named and that are kept after all. A prune that was stopped for
    /// long may still remove them, so nothing builds on them for a while.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) spared: Vec<Victim>,
    /// Backups that were removed. A prune that was stopped for long may still free their packs, so no
    /// copy brings them back for a while.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) removed: Vec<Victim>,
}

/// A backup that a mark names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Victim {
    pub(crate) cluster: ClusterName,
    pub(crate) backup: BackupId,
    pub(crate) reason: String,
}

/// A mark as the store has it.
#[derive(Debug, Clone)]
pub(crate) struct StoredMark {
    pub(crate) name: RecordName,
    /// When it was made, by the clock of the store.
    pub(crate) modified: Timestamp,
    /// `None` when it cannot be read.
    pub(crate) mark: Option<Mark>,
}

/// The backups that are to be removed, and must not be built on.
#[derive(Debug, Default)]
pub(crate) struct Marked {
    ids: BTreeSet<BackupId>,
    /// When it was written that they were removed.
    removed: BTreeMap<BackupId, Timestamp>,
    /// There is a mark that cannot be read: nobody knows what it names.
    unreadable: bool,
}

impl Marked {
    /// Whether a backup is, or may be, about to be removed.
    pub(crate) fn contains(&self, backup: &BackupId) -> bool {
        self.unreadable || self.ids.contains(backup)
    }

    /// Whether a backup was removed, and may not come back yet: something is left of it, which any prune
    /// may take away; or it was removed so lately that a prune that stood still may go on with it.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn is_removed(
        &self,
        cx: &Context,
        store: &Store,
        cluster: &ClusterName,
        backup: &BackupId,
    ) -> Result<bool> {
        let Some(at) = self.removed.get(backup) else { return Ok(false) };
        let retired = Key::Backup(cluster.clone(), backup.clone(), BackupObject::Retired);
        Ok(store.len(&retired).await?.is_some()
            || store.now(cx).await?.duration_since(*at) < ZOMBIE)
    }
}

/// The backups that some plan wants to remove. A backup in progress asks after its own `active` is
/// stored, never before.
///
/// # Errors
/// When the store fails.
pub(crate) async fn marked(cx: &Context, store: &Store) -> Result<Marked> {
    let mut marked = Marked::default();
    for stored in read_all(cx, store).await? {
        match stored.mark {
            None => marked.unreadable = true,
            Some(mark) => {
                let named = mark.victims.into_iter().chain(mark.spared);
                marked.ids.extend(named.map(|victim| victim.backup));
                for victim in mark.removed {
                    let at = marked.removed.entry(victim.backup).or_insert(stored.modified);
                    *at = (*at).max(stored.modified);
                }
            }
        }
    }
    Ok(marked)
}

/// All marks, oldest name first.
///
/// # Errors
/// When the store fails. A mark that is damaged, or of a newer version, is not an error.
pub(crate) async fn read_all(cx: &Context, store: &Store) -> Result<Vec<StoredMark>> {
    'again: loop {
        let mut marks = Vec::new();
        for (name, meta) in store.list(&key::marks()).await?.objects {
            cx.check()?;
            let Some(name) = RecordName::new(&name) else { continue };
            let mark = match store.get(&Key::Mark(name.clone()), MAX_BYTES).await {
                // It was removed just now. What it named may be in one that came after the list.
                Ok(None) => continue 'again,
                Ok(Some(bytes)) => parse(&bytes).ok(),
                Err(e) if crate::scan::is_damage(&e) => None,
                Err(e) => return Err(e),
            };
            marks.push(StoredMark { name, modified: meta.modified, mark });
        }
        return Ok(marks);
    }
}

/// What a mark says of backups.
#[derive(Debug, Default)]
pub(crate) struct Named {
    pub(crate) victims: Vec<Victim>,
    pub(crate) spared: Vec<Victim>,
    pub(crate) removed: Vec<Victim>,
}

/// Stores a mark and gives its name.
///
/// # Errors
/// When the store fails.
pub(crate) async fn create(cx: &Context, store: &Store, named: Named) -> Result<RecordName> {
    let Named { victims, spared, removed } = named;
    let at = cx.now();
    let mark = Mark {
        format: FORMAT,
        at,
        writer: WRITER.to_owned(),
        nonce: hex(&cx.random::<16>()),
        victims,
        spared,
        removed,
    };
    let time = at.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ");
    let name = RecordName::new(&format!("{time}-{}", &mark.nonce[..16]))
        .ok_or_else(|| Error::internal("a mark has a name that is none"))?;
    let mut json = serde_json::to_vec_pretty(&mark)
        .map_err(|e| Error::internal("a mark cannot be written as JSON").with_source(e))?;
    json.push(b'\n');
    let key = Key::Mark(name.clone());
    match store.create(&key, json).await? {
        Created::New => Ok(name),
        // Eight random bytes do not meet twice.
        Created::Exists => Err(taken(&key)),
    }
}

fn parse(bytes: &[u8]) -> Result<Mark> {
    let mark: Mark = serde_json::from_slice(bytes)
        .map_err(|e| Error::damaged("a mark is not valid").with_source(e))?;
    if mark.format > FORMAT {
        return Err(newer(format!("a mark has format {}", mark.format)));
    }
    Ok(mark)
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::ObjectStoreExt;
    use std::sync::Arc;

    fn victim(backup: &str) -> Victim {
        Victim {
            cluster: "shop".parse().unwrap(),
            backup: backup.parse().unwrap(),
            reason: "no rule keeps it".into(),
        }
    }

    #[tokio::test]
    async fn what_a_mark_names_is_marked_and_a_damaged_mark_may_name_anything() {
        let cx = Context::builder().build();
        let inner = Arc::new(object_store::memory::InMemory::new());
        let store = Store::new(inner.clone(), "memory");
        let [a, b, c] = [
            "20261120T101530Z-full-00000a",
            "20261120T101530Z-full-00000b",
            "20261120T101530Z-full-00000c",
        ];
        assert!(!marked(&cx, &store).await.unwrap().contains(&a.parse().unwrap()));
        let (victims, spared, removed) = (vec![victim(a)], vec![victim(b)], vec![victim(c)]);
        create(&cx, &store, Named { victims, spared, removed }).await.unwrap();
        let found = marked(&cx, &store).await.unwrap();
        let has = |id: &str| found.contains(&id.parse().unwrap());
        assert_eq!([a, b, c].map(has), [true, true, false]);
        for (id, removed) in [(a, false), (b, false), (c, true)] {
            let id = id.parse().unwrap();
            let cluster = "shop".parse().unwrap();
            let found = found.is_removed(&cx, &store, &cluster, &id).await.unwrap();
            assert_eq!(found, removed, "{id}");
        }
        for bad in ["{", "{\"format\": 2}"] {
            inner.put(&"marks/x".into(), bad.into()).await.unwrap();
            assert!(marked(&cx, &store).await.unwrap().contains(&c.parse().unwrap()));
        }
    }
}
