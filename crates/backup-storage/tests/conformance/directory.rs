//! What is special about directories.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use backup_core::ErrorKind;
use backup_storage::{
    BackupObject, Created, Key, Repo, RepoUrl, RepositoryOptions, Store, StoreOptions,
};
use bytes::Bytes;

use crate::common::{context, listening};
use crate::suite;

fn pack(n: u32) -> Key {
    suite::key("shop", BackupObject::Pack(n))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stands_in_for_an_object_is_damage_and_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::local(dir.path()).unwrap();
    store.create(&pack(0), Bytes::from_static(b"whole")).await.unwrap();
    let place = dir.path().join(pack(0).to_string());
    let place = place.parent().unwrap();
    assert!(Command::new("mkfifo").arg(place.join("pack-1")).status().unwrap().success());
    symlink("nowhere", place.join("pack-2")).unwrap();
    symlink("pack-3", place.join("pack-3")).unwrap();
    symlink("/dev/zero", place.join("pack-4")).unwrap();
    symlink("pack-0", place.join("pack-5")).unwrap();
    for (n, what) in
        [(1, "named pipe"), (2, "link to nowhere"), (3, "link to itself"), (4, "a device")]
    {
        let wait = Duration::from_secs(60);
        for error in [
            tokio::time::timeout(wait, store.get(&pack(n), 100)).await.unwrap().unwrap_err(),
            tokio::time::timeout(wait, store.get_range(&pack(n), 0..5)).await.unwrap().unwrap_err(),
            tokio::time::timeout(wait, store.head(&pack(n))).await.unwrap().unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
            assert!(error.report().contains(what), "{}", error.report());
        }
        let created = store.create(&pack(n), Bytes::from_static(b"x")).await;
        assert!(matches!(created, Ok(Created::Exists)), "{created:?}");
        // It can be cleared away.
        store.delete(&pack(n)).await.unwrap();
        assert_eq!(store.get(&pack(n), 100).await.unwrap(), None);
    }
    // Whoever moved an object to another disk meant it.
    assert_eq!(store.get(&pack(5), 100).await.unwrap().unwrap(), "whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_goes_away_is_no_missing_object() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::local(dir.path()).unwrap();
    store.create(&pack(0), Bytes::from_static(b"x")).await.unwrap();
    dir.close().unwrap();
    for error in [
        store.get(&pack(0), 100).await.unwrap_err(),
        store.len(&pack(0)).await.unwrap_err(),
        store.create(&pack(1), Bytes::new()).await.map(|_| ()).unwrap_err(),
        store.list(&Default::default()).await.map(|_| ()).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Store, "{error:?}");
        assert!(error.report().contains("unmounted"), "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nfs_urls_are_refused_where_no_nfs_is_mounted() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("new")] {
        let url = RepoUrl::Nfs(path.clone());
        let error = Repo::init(&context(), &url, RepositoryOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Store);
        assert!(error.report().contains("not on a mounted NFS file system"), "{error:?}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_made_only_for_a_new_repository() {
    let (cx, warnings) = listening();
    let dir = tempfile::tempdir().unwrap();
    let url = RepoUrl::from(dir.path().join("a/b"));
    let options = StoreOptions::default();
    let error = Store::open(&cx, &url, &options).await.unwrap_err();
    assert!(error.to_string().contains("there is no repository"), "{error:?}");
    assert!(!dir.path().join("a").exists());
    suite::conforms_in_small(&Store::make(&cx, &url, &options).await.unwrap()).await;
    assert!(Path::new(&url.to_string()).is_dir());
    assert!(warnings.take().is_empty());
}
