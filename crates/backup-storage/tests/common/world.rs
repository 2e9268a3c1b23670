//! Stores in memory, looked at and hurt from outside.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backup_core::{Context, Manifest, Repository};
use backup_storage::{Repo, Store};
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::{Sample, noise, options};

pub type Inner = Arc<dyn ObjectStore>;
pub type Objects = BTreeMap<Path, Bytes>;

pub fn memory() -> Inner {
    Arc::new(InMemory::new())
}

/// A store that gives up soon.
pub fn store(inner: &Inner, name: &str) -> Store {
    Store::new(Arc::clone(inner), name).with_retry(
        Duration::from_millis(1),
        Duration::from_millis(2),
        3,
    )
}

pub async fn objects(inner: &Inner) -> Objects {
    let metas: Vec<_> = inner.list(None).try_collect().await.unwrap();
    let mut all = Objects::new();
    for meta in metas {
        // The epoch of a lease may be removed meanwhile.
        let found = match inner.get(&meta.location).await {
            Err(object_store::Error::NotFound { .. }) => continue,
            found => found.unwrap(),
        };
        all.insert(meta.location, found.bytes().await.unwrap());
    }
    all
}

/// The objects of backups, leaving out history, leases and the like.
pub async fn backups(inner: &Inner) -> Objects {
    let mut all = objects(inner).await;
    all.retain(|path, _| path.as_ref().contains("/backups/"));
    all
}

pub async fn open(cx: &Context, inner: &Inner) -> Repo {
    Repo::open_on(cx, store(inner, "memory"), options()).await.unwrap()
}

pub fn path(manifest: &Manifest, object: &str) -> Path {
    Path::from(format!("clusters/{}/backups/{}/{object}", manifest.cluster, manifest.backup))
}

pub async fn lose(inner: &Inner, path: &Path) {
    inner.delete(path).await.unwrap();
}

/// Flips a bit in the middle of an object.
pub async fn hurt(inner: &Inner, path: &Path) {
    let mut bytes = inner.get(path).await.unwrap().bytes().await.unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    inner.put(path, bytes.into()).await.unwrap();
}

pub async fn put(inner: &Inner, path: &Path, bytes: Bytes) {
    inner.put(path, bytes.into()).await.unwrap();
}

/// The manifests of a repository, which all can be read.
pub async fn manifests(cx: &Context, repo: &Repo) -> Vec<Manifest> {
    let listed = repo.backups(cx, None).await.unwrap();
    listed.into_iter().map(|l| l.manifest.unwrap()).collect()
}

/// The samples a day later: half of them as they were, so that a backup refers to the one before.
pub fn later(samples: &[Sample], day: u64) -> Vec<Sample> {
    let mut samples = samples.to_vec();
    for sample in samples.iter_mut().step_by(2) {
        sample.writes.push(noise(1000 + day, 200_000).into());
    }
    samples
}
