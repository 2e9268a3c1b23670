//! What every store must do.

use std::time::Duration;

use backup_core::{BackupId, ErrorKind};
use backup_storage::{BackupObject, Created, Deleted, Key, Listing, Meta, RecordName, Store};
use bytes::Bytes;
use futures::{StreamExt, stream};
use object_store::PutPayload;
use object_store::path::Path;

use crate::common::noise;

/// More than a page of any store's listings.
const MANY: usize = 1_100;

/// All of it.
pub(crate) async fn conforms(store: &Store) {
    conforms_without_races(store).await;
    races(store).await;
}

/// All but what needs a store that keeps writers apart.
pub(crate) async fn conforms_without_races(store: &Store) {
    conforms_in_small(store).await;
    big_objects(store).await;
    names(store).await;
    listings(store).await;
}

/// The part with few calls.
pub(crate) async fn conforms_in_small(store: &Store) {
    missing_objects(store).await;
    objects(store).await;
    ranges(store).await;
    limits(store).await;
}

fn backup(cluster: &str) -> (backup_core::ClusterName, BackupId) {
    (cluster.parse().unwrap(), "20261120T101530Z-full-7f3a9c".parse().unwrap())
}

pub(crate) fn key(cluster: &str, object: BackupObject) -> Key {
    let (cluster, backup) = backup(cluster);
    Key::Backup(cluster, backup, object)
}

async fn list(store: &Store, directory: &str) -> Listing {
    store.list(&Path::from(directory)).await.unwrap()
}

fn pack(n: u32) -> Key {
    key("shop", BackupObject::Pack(n))
}

async fn missing_objects(store: &Store) {
    for key in [Key::Config, pack(0), key("nobody", BackupObject::Manifest)] {
        assert_eq!(store.get(&key, 100).await.unwrap(), None);
        assert_eq!(store.get_range(&key, 0..10).await.unwrap(), None);
        assert_eq!(store.get_range(&key, 5..10).await.unwrap(), None);
        assert_eq!(store.len(&key).await.unwrap(), None);
        assert_eq!(store.head(&key).await.unwrap(), None);
        store.delete(&key).await.unwrap();
        assert!(matches!(store.try_delete(&key).await.unwrap(), Deleted::Gone));
    }
}

async fn objects(store: &Store) {
    let key = pack(0);
    let first = Bytes::from_static(b"the first");
    assert_eq!(store.create(&key, first.clone()).await.unwrap(), Created::New);
    assert_eq!(store.get(&key, 100).await.unwrap(), Some(first.clone()));
    assert_eq!(store.len(&key).await.unwrap(), Some(9));
    let meta = store.head(&key).await.unwrap().unwrap();
    assert_eq!(meta.bytes, 9);
    let age = jiff::Timestamp::now().duration_since(meta.modified);
    assert!(age.abs() < jiff::SignedDuration::from_mins(10), "{age}");
    // Another object is not overwritten.
    assert_eq!(store.create(&key, Bytes::from_static(b"another")).await.unwrap(), Created::Exists);
    assert_eq!(store.create(&key, Bytes::new()).await.unwrap(), Created::Exists);
    assert_eq!(store.get(&key, 100).await.unwrap(), Some(first.clone()));
    // The same bytes may be the answer to an attempt of ours that was lost.
    assert_eq!(store.create(&key, first).await.unwrap(), Created::New);
    assert_eq!(store.head(&key).await.unwrap(), Some(meta));
    store.delete(&key).await.unwrap();
    assert_eq!(store.get(&key, 100).await.unwrap(), None);
    assert_eq!(store.create(&key, Bytes::from_static(b"third")).await.unwrap(), Created::New);
    assert_eq!(store.get(&key, 100).await.unwrap().unwrap(), "third");
    store.delete(&key).await.unwrap();
    // One of no bytes is one.
    assert_eq!(store.create(&key, Bytes::new()).await.unwrap(), Created::New);
    assert_eq!(store.get(&key, 0).await.unwrap(), Some(Bytes::new()));
    assert_eq!(store.get_range(&key, 0..5).await.unwrap(), Some(Bytes::new()));
    assert_eq!(store.len(&key).await.unwrap(), Some(0));
    store.delete(&key).await.unwrap();
}

async fn ranges(store: &Store) {
    let key = pack(1);
    store.create(&key, Bytes::from_static(b"0123456789")).await.unwrap();
    for (range, found) in [
        (0..10, "0123456789"),
        (0..1, "0"),
        (3..7, "3456"),
        (9..10, "9"),
        (7..1_000, "789"),
        (0..1_000, "0123456789"),
        (10..11, ""),
        (1_000..2_000, ""),
    ] {
        let read = store.get_range(&key, range.clone()).await.unwrap().unwrap();
        assert_eq!(read, found, "{range:?}");
    }
    store.delete(&key).await.unwrap();
}

async fn limits(store: &Store) {
    let key = pack(2);
    store.create(&key, Bytes::from_static(b"0123456789")).await.unwrap();
    assert_eq!(store.get(&key, 10).await.unwrap().unwrap().len(), 10);
    let error = store.get(&key, 9).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
    store.delete(&key).await.unwrap();
}

async fn big_objects(store: &Store) {
    let key = pack(3);
    let parts: Vec<Bytes> = (0..33).map(|i| Bytes::from(noise(i, 700_001))).collect();
    let whole: Vec<u8> = parts.concat();
    let payload = PutPayload::from_iter(parts);
    assert_eq!(store.create(&key, payload.clone()).await.unwrap(), Created::New);
    assert_eq!(store.get(&key, whole.len() as u64).await.unwrap().unwrap(), whole);
    for start in [0, 700_000, 1_400_003, whole.len() - 5] {
        let end = whole.len().min(start + 1_000_000);
        let part = store.get_range(&key, start as u64..end as u64).await.unwrap().unwrap();
        assert!(part == whole[start..end], "{start}");
    }
    assert_eq!(store.create(&key, payload).await.unwrap(), Created::New);
    store.delete(&key).await.unwrap();
}

/// Every character that a key may have.
async fn names(store: &Store) {
    let longest = "x".repeat(64);
    let clusters = ["a", "A.B", "Aa0._-zZ9..__--.tmp", "0-0", "a..b", "pack-1", &longest];
    for (n, cluster) in clusters.iter().enumerate() {
        let bytes = Bytes::from(format!("{n} {cluster}"));
        let key = key(cluster, BackupObject::Pack(u32::MAX));
        assert_eq!(store.create(&key, bytes).await.unwrap(), Created::New, "{cluster}");
    }
    for (n, cluster) in clusters.iter().enumerate() {
        let key = key(cluster, BackupObject::Pack(u32::MAX));
        assert_eq!(store.get(&key, 100).await.unwrap().unwrap(), format!("{n} {cluster}"));
        let listing = list(store, &format!("clusters/{cluster}/backups")).await;
        assert_eq!(listing.directories, ["20261120T101530Z-full-7f3a9c"], "{cluster}");
    }
    let mut sorted = clusters.to_vec();
    sorted.sort_unstable();
    assert_eq!(list(store, "clusters").await.directories, sorted);
    // A name that another begins with.
    let (one, two) = (pack(1), pack(10));
    store.create(&two, Bytes::from_static(b"ten")).await.unwrap();
    assert_eq!(store.get(&one, 10).await.unwrap(), None);
    store.delete(&two).await.unwrap();
    for cluster in clusters {
        store.delete(&key(cluster, BackupObject::Pack(u32::MAX))).await.unwrap();
    }
}

async fn listings(store: &Store) {
    assert_eq!(list(store, "clusters/lists").await, Default::default());
    let record = |n: usize| {
        let name = RecordName::new(&format!("r{n:05}")).unwrap();
        Key::Record("lists".parse().unwrap(), name)
    };
    stream::iter(0..MANY)
        .for_each_concurrent(16, |n| async move {
            let bytes = Bytes::from(vec![b'x'; n % 7]);
            assert_eq!(store.create(&record(n), bytes).await.unwrap(), Created::New);
        })
        .await;
    store.create(&key("lists", BackupObject::Index), Bytes::new()).await.unwrap();
    let listing = list(store, "clusters/lists/records").await;
    let expected: Vec<(String, u64)> =
        (0..MANY).map(|n| (format!("r{n:05}"), (n % 7) as u64)).collect();
    let found: Vec<(String, u64)> =
        listing.objects.iter().map(|(name, meta)| (name.clone(), meta.bytes)).collect();
    assert_eq!(found, expected);
    assert!(listing.directories.is_empty());
    let last: Meta = store.head(&record(MANY - 1)).await.unwrap().unwrap();
    let listed = listing.get(&format!("r{:05}", MANY - 1)).unwrap();
    assert_eq!(listed.bytes, last.bytes);
    // A listing tells milliseconds where HEAD tells seconds.
    let between = listed.modified.duration_since(last.modified).abs();
    assert!(between < jiff::SignedDuration::from_secs(1), "{between}");
    let listing = list(store, "clusters/lists").await;
    assert_eq!((listing.objects.len(), listing.directories.len()), (0, 2));
    // A directory is not listed through one whose name it begins.
    assert_eq!(list(store, "clusters/list").await, Default::default());
    stream::iter(0..MANY)
        .for_each_concurrent(16, |n| async move { store.delete(&record(n)).await.unwrap() })
        .await;
    store.delete(&key("lists", BackupObject::Index)).await.unwrap();
    assert_eq!(list(store, "clusters/lists/records").await, Default::default());
}

/// Many writers of one name: exactly one is told that it made it, and its bytes are there.
async fn races(store: &Store) {
    for round in 0..5 {
        let key = pack(round);
        let writers = (0..24_u8).map(|n| {
            let (store, key) = (store.clone(), key.clone());
            tokio::spawn(async move {
                let bytes = Bytes::from(vec![n; 10_000 + usize::from(n)]);
                (n, store.create(&key, bytes).await.unwrap())
            })
        });
        let mut winners = Vec::new();
        for writer in writers.collect::<Vec<_>>() {
            let (n, created) = writer.await.unwrap();
            if created == Created::New {
                winners.push(n);
            }
        }
        let [winner] = winners[..] else { panic!("{winners:?}") };
        let found = store.get(&key, 100_000).await.unwrap().unwrap();
        assert_eq!(found, vec![winner; 10_000 + usize::from(winner)]);
        store.delete(&key).await.unwrap();
    }
    // Nobody has to wait for a lock that a writer left.
    tokio::time::timeout(Duration::from_secs(60), store.len(&pack(0))).await.unwrap().unwrap();
}
