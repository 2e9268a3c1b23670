//! What the tests of the repository share.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use backup_core::{
    ArtifactInfo, ArtifactSink, ArtifactSource, BackupSpec, BackupType, Clock, Context,
    ContextBuilder, Error, Event, Layout, Manifest, Monitor, Outcome, Repository, Result,
    SecretBytes, Strategy,
};
use backup_storage::{Repo, RepositoryOptions, Store, Unlock};
use bytes::Bytes;
use futures::TryStreamExt;
use jiff::Timestamp;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::json;

pub mod aged;
pub mod fault;
pub mod world;

/// Collects warnings.
#[derive(Default)]
pub struct Warnings(Mutex<Vec<String>>);

impl Monitor for Warnings {
    fn event(&self, event: Event) {
        if let Event::Warning { text } = event {
            self.0.lock().unwrap().push(text);
        }
    }
}

impl Warnings {
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// A clock that moves by a second each time it is looked at: no two backups begin in one second.
struct SteppingClock;

impl Clock for SteppingClock {
    fn now(&self) -> Timestamp {
        static SECONDS: AtomicI64 = AtomicI64::new(1_795_169_730);
        Timestamp::from_second(SECONDS.fetch_add(1, Ordering::Relaxed)).unwrap()
    }
}

pub fn builder() -> ContextBuilder {
    Context::builder().clock(Arc::new(SteppingClock))
}

pub fn context() -> Context {
    builder().threads(3).build()
}

pub fn listening() -> (Context, Arc<Warnings>) {
    let warnings = Arc::new(Warnings::default());
    let monitor = Arc::clone(&warnings) as Arc<dyn Monitor>;
    (builder().threads(3).monitor(monitor).build(), warnings)
}

pub fn spec() -> BackupSpec {
    BackupSpec {
        cluster: "shop".parse().unwrap(),
        strategy: Strategy::Logical,
        backup_type: BackupType::Full,
        parent: None,
    }
}

pub fn outcome() -> Outcome {
    serde_json::from_value(json!({
        "source": {"flavor": "mysql", "version": "9.7.0", "address": "db:3306", "server_id": 1},
        "position": {"gtid": null, "file": null, "offset": null},
        "consistency": {"level": "exact", "reason": "one snapshot"},
        "lock_seconds": 0.25,
        "rows": 5,
    }))
    .unwrap()
}

/// Small packs, so that little data makes many.
pub fn options() -> RepositoryOptions {
    RepositoryOptions { pack_bytes: 1 << 20, ..RepositoryOptions::default() }
}

/// What a test is done with, once each.
#[derive(Debug, Clone, Copy)]
pub enum Lock {
    Open,
    Encrypted,
}

impl Lock {
    /// [`options`], with a key where there is a lock.
    pub fn options(self) -> RepositoryOptions {
        let unlock = match self {
            Lock::Open => None,
            Lock::Encrypted => Some(key_file(7)),
        };
        RepositoryOptions { unlock, ..options() }
    }
}

/// A key file of 64 equal bytes.
pub fn key_file(byte: u8) -> Unlock {
    Unlock::KeyFile(SecretBytes::new(vec![byte; 64]))
}

pub async fn memory_repo(cx: &Context) -> (Repo, Arc<dyn ObjectStore>) {
    memory_repo_of(cx, Lock::Open).await
}

pub async fn memory_repo_of(cx: &Context, lock: Lock) -> (Repo, Arc<dyn ObjectStore>) {
    memory_repo_with(cx, lock.options()).await
}

pub async fn memory_repo_with(
    cx: &Context,
    options: RepositoryOptions,
) -> (Repo, Arc<dyn ObjectStore>) {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store = Store::new(Arc::clone(&inner), "memory");
    (Repo::init_on(cx, store, options).await.unwrap(), inner)
}

/// Everything that a store holds.
pub async fn objects(store: &dyn ObjectStore) -> BTreeMap<Path, Bytes> {
    let mut objects = BTreeMap::new();
    let metas: Vec<_> = store.list(None).try_collect().await.unwrap();
    for meta in metas {
        let bytes = store.get(&meta.location).await.unwrap().bytes().await.unwrap();
        objects.insert(meta.location, bytes);
    }
    objects
}

/// A store that holds just that.
pub async fn put_all(objects: &BTreeMap<Path, Bytes>) -> Arc<dyn ObjectStore> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    for (path, bytes) in objects {
        store.put(path, bytes.clone().into()).await.unwrap();
    }
    store
}

/// An artifact to be written: its name, how it is cut, what each write gives.
#[derive(Debug, Clone)]
pub struct Sample {
    pub name: String,
    pub layout: Layout,
    pub writes: Vec<Bytes>,
}

impl Sample {
    pub fn content(&self) -> Vec<u8> {
        self.writes.concat()
    }
}

/// Bytes that look random and are always the same for a seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

/// A backup of three packs at least: two large artifacts, blocks, pages, small ones and an empty one.
pub fn samples() -> Vec<Sample> {
    let sample = |name: &str, layout, writes: Vec<Vec<u8>>| Sample {
        name: name.to_owned(),
        layout,
        writes: writes.into_iter().map(Bytes::from).collect(),
    };
    vec![
        sample(
            "tables/shop/orders/rows-000001",
            Layout::Blocks,
            (1..5).map(|i| noise(i, 300_000)).collect(),
        ),
        sample("tables/shop/items/rows-000001", Layout::Stream, vec![noise(10, 1_500_000)]),
        sample(
            "files/shop/orders.ibd",
            Layout::Pages(16_384),
            vec![noise(20, 16_384 * 9), vec![0; 16_384 * 80]],
        ),
        sample("files/shop/items.ibd", Layout::Pages(16_384), vec![noise(30, 16_384 * 64)]),
        sample("tables/shop/orders/schema", Layout::Stream, vec![b"create table orders".to_vec()]),
        sample("tables/shop/items/schema", Layout::Stream, vec![b"create table items".to_vec()]),
        sample("empty", Layout::Stream, vec![]),
    ]
}

pub async fn write(sink: &dyn ArtifactSink, sample: &Sample) -> Result<ArtifactInfo> {
    let mut writer = sink.create(sample.name.parse()?, sample.layout).await?;
    for bytes in &sample.writes {
        writer.write(bytes.clone()).await?;
    }
    writer.finish(json!({"sample": sample.name})).await
}

/// Writes samples, several at once, and commits; on an error aborts, as the pipeline does.
pub async fn back_up(cx: &Context, repo: &dyn Repository, samples: &[Sample]) -> Result<Manifest> {
    let session = repo.begin(cx, spec()).await?;
    let writes = samples.iter().map(|s| write(&*session, s));
    match futures::future::try_join_all(writes).await {
        Ok(_) => session.commit(outcome()).await,
        Err(e) => {
            let _ = session.abort().await;
            Err(e)
        }
    }
}

/// Reads an artifact and checks every piece against the truth as it comes. Gives how it ended.
pub async fn read_checked(source: &dyn ArtifactSource, name: &str, truth: &[u8]) -> Result<()> {
    let mut reader = source.open(&name.parse()?).await?;
    let mut at = 0;
    while let Some(piece) = reader.next().await? {
        assert!(!piece.is_empty(), "{name}: an empty piece at {at}");
        assert_eq!(
            truth.get(at..at + piece.len()),
            Some(&piece[..]),
            "{name}: wrong bytes at {at}"
        );
        at += piece.len();
    }
    assert_eq!(at, truth.len(), "{name}: ended early without an error");
    assert_eq!(reader.next().await?, None, "{name}: the end stays the end");
    Ok(())
}

/// Reads all samples from a backup, each one whole.
pub async fn restore_all(
    cx: &Context,
    repo: &dyn Repository,
    manifest: &Manifest,
    samples: &[Sample],
) -> Result<()> {
    let source = repo.artifacts(cx, manifest).await?;
    let listed = source.list().await?;
    let mut names: Vec<&str> = samples.iter().map(|s| s.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(listed.iter().map(|i| i.name.as_str()).collect::<Vec<_>>(), names);
    for sample in samples {
        read_checked(&*source, &sample.name, &sample.content()).await?;
    }
    Ok(())
}

pub fn no_panic(error: &Error) {
    assert_ne!(error.kind(), backup_core::ErrorKind::Internal, "{error:?}");
}
