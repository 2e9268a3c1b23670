//! What must hold after every single call.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backup_core::{BackupId, Manifest, RecordEvent};
use backup_storage::format::{parse_manifest, parse_tombstone};
use bytes::Bytes;

use crate::actors::CLUSTER;
use crate::world::World;

/// Where the text of a manifest or record begins.
const TEXT: usize = 96;

/// What the packs and the index of a backup hold.
pub(crate) fn content(path: &str) -> Bytes {
    Bytes::from(format!("the one content of {path}"))
}

fn directory() -> String {
    format!("clusters/{CLUSTER}/backups/")
}

/// The ids that have manifests, sorted; read past the scheduler.
pub(crate) fn listed(world: &World) -> Vec<BackupId> {
    ids(&world.state().objects).into_iter().collect()
}

/// Those of them that somebody wants to remove.
pub(crate) fn marked(world: &World) -> Vec<BackupId> {
    let state = world.state();
    ids(&state.objects).into_iter().filter(|id| is_marked(&state.objects, id)).collect()
}

/// The ids that have manifests; a tombstone is none.
fn ids(objects: &BTreeMap<String, Bytes>) -> BTreeSet<BackupId> {
    let is_tomb = |bytes: &Bytes| bytes.len() < 600 && parse_tombstone(&bytes[TEXT..]).is_some();
    objects
        .range(directory()..)
        .filter_map(|(path, bytes)| {
            let id = path.strip_prefix(&directory())?.strip_suffix("/manifest")?;
            (!is_tomb(bytes)).then(|| id.parse().unwrap())
        })
        .collect()
}

/// A backup told its user that it is done.
pub(crate) fn committed(world: &World, manifest: &Manifest) {
    let there = listed(world);
    // A prune with no grace and no wait may have been quicker than the answer.
    let retired = format!("{}{}/retired", directory(), manifest.backup);
    let marked = world.state().objects.contains_key(&retired);
    let id = &manifest.backup;
    assert!(there.contains(id) || marked || world.state().removed(id), "{id} is not there");
}

impl crate::world::State {
    fn removed(&self, id: &BackupId) -> bool {
        let prefix = format!("{}{id}/", directory());
        !self.objects.keys().any(|path| path.starts_with(&prefix))
    }
}

/// What was seen at the step before.
#[derive(Default)]
pub(crate) struct Laws {
    listed: BTreeSet<BackupId>,
    /// There was a proven backup that nobody wanted to remove.
    proven: bool,
    /// What was read before: no object ever changes.
    manifests: BTreeMap<BackupId, Manifest>,
    proofs: BTreeMap<String, Option<BackupId>>,
    pub(crate) removed: usize,
    pub(crate) with_needs: usize,
    gone: BTreeSet<BackupId>,
    /// How many were removed, and are there again.
    pub(crate) back: usize,
}

impl Laws {
    /// Checks what holds at any moment.
    pub(crate) fn check(&mut self, world: &Arc<World>) {
        let mut state = world.state();
        if !std::mem::take(&mut state.changed) {
            return;
        }
        let objects = &state.objects;
        let now: BTreeSet<BackupId> = ids(objects);
        self.manifests.retain(|id, _| now.contains(id));
        for id in &now {
            if !self.manifests.contains_key(id) {
                let bytes = &objects[&format!("{}{id}/manifest", directory())];
                self.manifests.insert(id.clone(), parse_manifest(&bytes[TEXT..]).unwrap());
            }
        }
        let manifests = &self.manifests;
        for (id, manifest) in manifests {
            let own = manifest.packs.iter().chain([&manifest.index]).map(|d| (id, d));
            let needed = manifest.needs.iter().flat_map(|n| n.packs.iter().map(|p| (&n.backup, p)));
            for (owner, digest) in own.chain(needed) {
                let path = format!("{}{owner}/{}", directory(), digest.name);
                assert_eq!(objects.get(&path), Some(&content(&path)), "{id} needs {path}");
            }
            if let Some(parent) = &manifest.parent {
                assert!(manifests.contains_key(parent), "{id} has lost its parent {parent}");
            }
        }
        for gone in self.listed.difference(&now) {
            let retired = format!("{}{gone}/retired", directory());
            assert!(objects.contains_key(&retired), "{gone} is gone and was not retired");
            assert!(is_marked(objects, gone), "{gone} is gone and nobody said that it would be");
            self.removed += 1;
            self.gone.insert(gone.clone());
        }
        self.back += now.difference(&self.listed).filter(|id| self.gone.contains(*id)).count();
        let new = now.difference(&self.listed).filter(|id| !manifests[*id].needs.is_empty());
        self.with_needs += new.count();
        lost_manifests(objects);
        let records = format!("clusters/{CLUSTER}/records/");
        let records = objects.range(records.clone()..).take_while(|(p, _)| p.starts_with(&records));
        for (path, bytes) in records {
            if !self.proofs.contains_key(path) {
                let record: backup_core::Record = serde_json::from_slice(&bytes[TEXT..]).unwrap();
                let ok = matches!(record.event, RecordEvent::Proof { ok: true, .. });
                self.proofs.insert(path.clone(), record.backup.filter(|_| ok));
            }
        }
        let proven: Vec<&BackupId> =
            self.proofs.values().flatten().filter(|id| now.contains(*id)).collect();
        assert!(!self.proven || !proven.is_empty(), "the last proven backup is gone");
        // A proof that comes after the mark may come too late.
        self.proven = proven.iter().any(|id| !is_marked(objects, id));
        self.listed = now;
    }

    /// Checks that nothing useless is left, after prunes that nobody disturbed.
    pub(crate) fn check_clean(&self, world: &Arc<World>) {
        let state = world.state();
        let manifests = &self.manifests;
        let needed: BTreeSet<String> = manifests
            .values()
            .flat_map(|m| &m.needs)
            .flat_map(|n| n.packs.iter().map(|p| format!("{}{}/{}", directory(), n.backup, p.name)))
            .collect();
        for path in state.objects.keys() {
            let Some((id, name)) = path.strip_prefix(&directory()).and_then(|p| p.split_once('/'))
            else {
                assert!(!path.starts_with("marks/") || !manifests.is_empty(), "{path} is left");
                continue;
            };
            let of_backup = manifests.contains_key(&id.parse::<BackupId>().unwrap())
                && (name == "manifest" || name == "index" || name.starts_with("pack-"));
            let retired = name == "retired"
                && needed.iter().any(|n| n.starts_with(&format!("{}{id}/", directory())));
            assert!(of_backup || retired || needed.contains(path), "{path} is left");
        }
    }
}

/// Whether a mark names a backup.
fn is_marked(objects: &BTreeMap<String, Bytes>, id: &BackupId) -> bool {
    objects
        .range("marks/".to_owned()..)
        .take_while(|(path, _)| path.starts_with("marks/"))
        .any(|(_, bytes)| String::from_utf8_lossy(bytes).contains(id.as_str()))
}

/// A directory that looks like a backup which lost its manifest.
fn lost_manifests(objects: &BTreeMap<String, Bytes>) {
    for path in objects.keys().filter(|p| p.ends_with("/index")) {
        let directory = path.strip_suffix("index").unwrap();
        let explained = ["manifest", "active", "retired"]
            .iter()
            .any(|name| objects.contains_key(&format!("{directory}{name}")));
        assert!(explained, "{directory} looks like a backup that lost its manifest");
    }
}
