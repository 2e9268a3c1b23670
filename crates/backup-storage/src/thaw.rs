//! What a backup needs of archive classes, asked for.

use std::collections::BTreeMap;

use backup_core::{Context, Manifest, ObjectDigest, Result};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use crate::key::{BackupObject, Key};
use crate::repo::{AT_ONCE, Repo};
use crate::store::{Availability, ThawRequest};

/// How many objects a backup needs, and their bytes, by what they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Thaw {
    /// Those that can be read.
    pub readable: (u64, u64),
    /// Those that the store was asked for before and has not given yet.
    pub thawing: (u64, u64),
    /// Those in an archive class that nobody had asked for; a [`ThawRequest`] asks for them.
    pub archived: (u64, u64),
    /// Those that are missing.
    pub missing: (u64, u64),
    /// When the first of the readable ones goes back into its archive class.
    pub until: Option<Timestamp>,
}

impl Thaw {
    /// Whether nothing stands in the way of a restore.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.thawing.0 == 0 && self.archived.0 == 0
    }

    fn add(&mut self, seen: Option<Availability>, bytes: u64) {
        let slot = match seen {
            Some(Availability::Readable { until }) => {
                self.until = self.until.into_iter().chain(until).min();
                &mut self.readable
            }
            Some(Availability::Thawing) => &mut self.thawing,
            Some(Availability::Archived) => &mut self.archived,
            None => &mut self.missing,
        };
        *slot = (slot.0 + 1, slot.1 + bytes);
    }
}

/// Looks at the index of a backup and at every pack that it needs, its own and those of others, in whatever
/// tier they are. With a `request` the stores are asked for those in an archive class.
///
/// # Errors
/// When a store fails or refuses.
pub async fn thaw(
    cx: &Context,
    repo: &Repo,
    manifest: &Manifest,
    request: Option<ThawRequest>,
) -> Result<Thaw> {
    let own = std::iter::once(&manifest.index).chain(&manifest.packs);
    let own = own.map(|object| (&manifest.backup, object));
    let others = manifest.needs.iter().flat_map(|n| n.packs.iter().map(|pack| (&n.backup, pack)));
    let mut objects: BTreeMap<Key, u64> = BTreeMap::new();
    for (backup, ObjectDigest { name, bytes, .. }) in own.chain(others) {
        if let Ok(object) = name.parse::<BackupObject>() {
            let key = Key::Backup(manifest.cluster.clone(), backup.clone(), object);
            objects.insert(key, *bytes);
        }
    }
    let mut result = Thaw::default();
    let mut seen = stream::iter(objects)
        .map(|(key, bytes)| async move {
            cx.check()?;
            Ok::<_, backup_core::Error>((repo.shelf().thaw(&key, request).await?, bytes))
        })
        .buffer_unordered(AT_ONCE);
    while let Some((seen, bytes)) = seen.try_next().await? {
        result.add(seen, bytes);
    }
    Ok(result)
}
