//! What goes in comes out.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::sync::Arc;

use backup_core::{
    Clock, Context, ErrorKind, Layout, MemoryBudget, Record, RecordEvent, Repository, select,
};
use backup_storage::format::Compression;
use backup_storage::{Repo, RepoUrl, RepositoryOptions, Store};
use bytes::Bytes;
use common::{
    Lock, Sample, Warnings, back_up, builder, context, listening, memory_repo, memory_repo_of,
    noise, options, outcome, restore_all, samples, spec, write,
};
use object_store::ObjectStoreExt;
use proptest::prelude::*;
use rstest::rstest;

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_in_a_directory_comes_back(#[values(Lock::Open, Lock::Encrypted)] lock: Lock) {
    let (cx, warnings) = listening();
    let dir = tempfile::tempdir().unwrap();
    let url = RepoUrl::from(dir.path().join("new/repo"));
    let repo = Repo::init(&cx, &url, lock.options()).await.unwrap();
    let manifest = back_up(&cx, &repo, &samples()).await.unwrap();
    assert_eq!(manifest.totals.artifacts, 7);
    assert!(manifest.packs.len() >= 2, "{:?}", manifest.packs);

    let repo = Repo::open(&cx, &url, lock.options()).await.unwrap();
    let listed = repo.backups(&cx, None).await.unwrap();
    assert_eq!(select(listed, "latest").unwrap(), manifest);
    restore_all(&cx, &repo, &manifest, &samples()).await.unwrap();
    assert_eq!(warnings.take(), Vec::<String>::new());
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_listed_is_what_finish_gave(#[values(Lock::Open, Lock::Encrypted)] lock: Lock) {
    let cx = context();
    let (repo, _) = memory_repo_of(&cx, lock).await;
    let session = repo.begin(&cx, spec()).await.unwrap();
    let mut given = Vec::new();
    for sample in samples() {
        given.push(write(&*session, &sample).await.unwrap());
    }
    let manifest = session.commit(outcome()).await.unwrap();
    given.sort_by(|a, b| a.name.cmp(&b.name));
    let source = repo.artifacts(&cx, &manifest).await.unwrap();
    assert_eq!(source.list().await.unwrap(), given);
    let none = source.open(&"none".parse().unwrap()).await.err().unwrap();
    assert_eq!(none.kind(), ErrorKind::Damaged);
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_of_many_extents_is_continued(
    #[values(Lock::Open, Lock::Encrypted)] lock: Lock,
) {
    let cx = context();
    let inner = Arc::new(object_store::memory::InMemory::new());
    let options = RepositoryOptions { compression: Compression::None, ..lock.options() };
    let repo = Repo::init_on(&cx, Store::new(inner, "memory"), options).await.unwrap();
    // More extents than a line of the catalog holds.
    let sample = Sample {
        name: "blocks".into(),
        layout: Layout::Blocks,
        writes: vec![Bytes::from(noise(1, 65_536)); 4200],
    };
    let manifest = back_up(&cx, &repo, std::slice::from_ref(&sample)).await.unwrap();
    restore_all(&cx, &repo, &manifest, &[sample]).await.unwrap();
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn unfinished_and_aborted_backups_are_not_there(
    #[values(Lock::Open, Lock::Encrypted)] lock: Lock,
) {
    let cx = context();
    let (repo, inner) = memory_repo_of(&cx, lock).await;
    let all = samples();
    let session = repo.begin(&cx, spec()).await.unwrap();
    write(&*session, &all[0]).await.unwrap();
    let marker = format!("clusters/shop/backups/{}/active", session.id());
    inner.head(&marker.as_str().into()).await.unwrap();
    assert!(repo.backups(&cx, None).await.unwrap().is_empty());

    // Writers may outlive the abort; what they do comes to nothing.
    let mut late = session.create("late".parse().unwrap(), Layout::Stream).await.unwrap();
    session.abort().await.unwrap();
    assert!(late.write(Bytes::from(noise(1, 3 << 20))).await.is_err());
    assert!(late.finish(serde_json::Value::Null).await.is_err());
    assert!(session.create("x".parse().unwrap(), Layout::Stream).await.is_err());
    assert!(session.commit(outcome()).await.is_err());
    let left = inner.list_with_delimiter(Some(&"clusters/shop/backups".into())).await.unwrap();
    assert!(left.common_prefixes.is_empty(), "{left:?}");

    // One that was committed can no longer be aborted.
    let session = repo.begin(&cx, spec()).await.unwrap();
    write(&*session, &all[0]).await.unwrap();
    let manifest = session.commit(outcome()).await.unwrap();
    assert!(session.abort().await.is_err());
    assert!(session.commit(outcome()).await.is_err());
    assert!(session.create("x".parse().unwrap(), Layout::Stream).await.is_err());
    drop(session);
    restore_all(&cx, &repo, &manifest, &all[..1]).await.unwrap();
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_is_dropped_leaves_no_artifact(
    #[values(Lock::Open, Lock::Encrypted)] lock: Lock,
) {
    let cx = context();
    let (repo, _) = memory_repo_of(&cx, lock).await;
    let all = samples();
    let session = repo.begin(&cx, spec()).await.unwrap();
    let mut dropped = session.create(all[0].name.parse().unwrap(), Layout::Stream).await.unwrap();
    dropped.write(Bytes::from(noise(99, 5_000_000))).await.unwrap();
    assert!(
        session.create(all[0].name.parse().unwrap(), Layout::Stream).await.is_err(),
        "a name twice"
    );
    drop(dropped);
    // The name is free again.
    write(&*session, &all[0]).await.unwrap();
    assert!(
        session.create(all[0].name.parse().unwrap(), Layout::Stream).await.is_err(),
        "a name twice"
    );
    let manifest = session.commit(outcome()).await.unwrap();
    assert_eq!(manifest.totals.artifacts, 1);
    restore_all(&cx, &repo, &manifest, &all[..1]).await.unwrap();

    let session = repo.begin(&cx, spec()).await.unwrap();
    let _writing = session.create("open".parse().unwrap(), Layout::Stream).await.unwrap();
    assert!(session.commit(outcome()).await.is_err(), "an artifact is not finished");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_smallest_budget_is_enough(#[values(Lock::Open, Lock::Encrypted)] lock: Lock) {
    let memory = MemoryBudget::new(1 << 20);
    let cx = builder().threads(2).memory(memory.clone()).build();
    let (repo, _) = memory_repo_of(&cx, lock).await;
    let session = repo.begin(&cx, spec()).await.unwrap();
    // A driver always has its half.
    let half = memory.reserve(1 << 19).await;
    for sample in samples() {
        write(&*session, &sample).await.unwrap();
    }
    let manifest = session.commit(outcome()).await.unwrap();
    restore_all(&cx, &repo, &manifest, &samples()).await.unwrap();
    drop(half);
    let all = memory.reserve(1 << 20);
    tokio::time::timeout(std::time::Duration::from_secs(60), all)
        .await
        .expect("the backup gave its memory back");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn history_is_kept_in_order(#[values(Lock::Open, Lock::Encrypted)] lock: Lock) {
    let (cx, warnings) = listening();
    let (repo, inner) = memory_repo_of(&cx, lock).await;
    let cluster = spec().cluster;
    let record = |time: &str, error: &str| Record {
        time: time.parse().unwrap(),
        backup: None,
        event: RecordEvent::FailedRun { exit_code: 5, error: error.to_owned() },
    };
    let second = record("2026-11-20T10:15:30.5Z", "b");
    let first = record("2026-11-20T10:15:30.25Z", "a");
    repo.record(&cx, &cluster, &second).await.unwrap();
    repo.record(&cx, &cluster, &first).await.unwrap();
    assert_eq!(repo.records(&cx, &cluster).await.unwrap(), [first.clone(), second.clone()]);
    assert!(repo.records(&cx, &"other".parse().unwrap()).await.unwrap().is_empty());
    assert_eq!(warnings.take(), Vec::<String>::new());

    // A record that is damaged is left out, and said so.
    let found = inner.list_with_delimiter(Some(&"clusters/shop/records".into())).await.unwrap();
    let at = &found.objects[0].location;
    assert!(at.filename().unwrap().starts_with("20261120T101530Z-failed-run-"), "{at}");
    let mut bytes = inner.get(at).await.unwrap().bytes().await.unwrap().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    inner.put(at, bytes.into()).await.unwrap();
    assert_eq!(repo.records(&cx, &cluster).await.unwrap().len(), 1);
    let warnings = warnings.take();
    assert!(warnings.len() == 1 && warnings[0].contains(at.filename().unwrap()), "{warnings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn places_that_are_no_repository() {
    let cx = context();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| RepoUrl::from(dir.path().join(name));
    let open = async |url: &RepoUrl| Repo::open(&cx, url, options()).await.unwrap_err();
    let init = async |url: &RepoUrl| Repo::init(&cx, url, options()).await.unwrap_err();

    for e in [open(&at("none")).await, open(&dir.path().into()).await] {
        assert_eq!(e.kind(), ErrorKind::Store);
        assert!(e.report().contains("holdfast init"), "{}", e.report());
    }
    std::fs::write(dir.path().join("file"), "x").unwrap();
    for e in [open(&at("file")).await, init(&at("file")).await, init(&at("file/below")).await] {
        assert_eq!(e.kind(), ErrorKind::Store);
        assert!(e.report().contains("file"), "{}", e.report());
        assert!(e.report().contains("directory"), "{}", e.report());
    }
    let e = init(&dir.path().into()).await;
    assert!(e.report().contains("not empty"), "{}", e.report());

    std::fs::create_dir_all(dir.path().join("disk/lost+found")).unwrap();
    Repo::init(&cx, &at("disk"), options()).await.unwrap();
    let e = init(&at("disk")).await;
    assert!(e.report().contains("already"), "{}", e.report());
    std::fs::create_dir_all(dir.path().join("other/something")).unwrap();
    assert!(init(&at("other")).await.report().contains("not empty"));
}

#[cfg(unix)]
#[tokio::test]
async fn a_new_directory_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("repo");
    Repo::init(&context(), &path.as_path().into(), options()).await.unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

/// Ids sort by time; the latest backup is the one that began last, also within one second.
#[tokio::test(flavor = "multi_thread")]
async fn the_latest_is_the_last() {
    let cx = Context::builder().build();
    let (repo, _) = memory_repo(&cx).await;
    let mut last = None;
    for _ in 0..3 {
        last = Some(back_up(&cx, &repo, &samples()[..1]).await.unwrap());
    }
    let listed = repo.backups(&cx, None).await.unwrap();
    assert_eq!(Some(select(listed, "latest").unwrap()), last);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_set_back_is_told_of() {
    struct Fixed(&'static str);
    impl Clock for Fixed {
        fn now(&self) -> jiff::Timestamp {
            self.0.parse().unwrap()
        }
    }
    let (repo, _) = memory_repo(&context()).await;
    for (time, told) in [("2026-11-20T10:15:30Z", false), ("2026-11-20T09:15:30Z", true)] {
        let warnings = Arc::new(Warnings::default());
        let cx = Context::builder().clock(Arc::new(Fixed(time))).monitor(warnings.clone()).build();
        let manifest = back_up(&cx, &repo, &samples()[..1]).await.unwrap();
        assert_eq!(warnings.take().iter().any(|w| w.contains("clock")), told, "{time}");
        // Who reads no log sees it in the backup.
        let kept = manifest.outcome.warnings.iter().any(|w| w.contains("clock"));
        assert_eq!(kept, told, "{time}");
    }
}

/// A staging file of a crashed put is no object.
#[tokio::test(flavor = "multi_thread")]
async fn staging_files_are_never_seen() {
    let (cx, warnings) = listening();
    let dir = tempfile::tempdir().unwrap();
    let repo = Repo::init(&cx, &dir.path().into(), options()).await.unwrap();
    let manifest = back_up(&cx, &repo, &samples()).await.unwrap();
    let backups = dir.path().join("clusters/shop/backups");
    let unfinished = backups.join("20261120T101530Z-full-000000");
    std::fs::create_dir(&unfinished).unwrap();
    std::fs::write(unfinished.join("manifest#1"), "half").unwrap();
    std::fs::write(backups.join(manifest.backup.as_str()).join("pack-0#1"), "half").unwrap();
    std::fs::create_dir_all(dir.path().join("clusters/shop/records")).unwrap();
    std::fs::write(dir.path().join("clusters/shop/records/20261120T101530Z-proof-00#1"), "half")
        .unwrap();

    assert_eq!(repo.backups(&cx, None).await.unwrap().len(), 1);
    assert!(repo.records(&cx, &spec().cluster).await.unwrap().is_empty());
    restore_all(&cx, &repo, &manifest, &samples()).await.unwrap();
    assert_eq!(warnings.take(), Vec::<String>::new());
}

fn layout() -> impl Strategy<Value = Layout> {
    prop_oneof![Just(Layout::Stream), Just(Layout::Blocks), Just(Layout::Pages(4096))]
}

fn artifact() -> impl Strategy<Value = (Layout, Vec<(u64, usize)>)> {
    let len = prop_oneof![
        4 => 0usize..2000,
        2 => 60_000usize..70_000,
        1 => (1usize << 20) - 2..(1 << 20) + 3,
        1 => 4_000_000usize..4_400_000,
    ];
    (layout(), prop::collection::vec((0u64..4, len), 0..5))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_artifacts_come_back(
        artifacts in prop::collection::vec(artifact(), 0..12),
        level in 0u8..3,
        threads in 1usize..5,
        lock in prop_oneof![Just(Lock::Open), Just(Lock::Encrypted)],
    ) {
        let samples: Vec<Sample> = artifacts
            .into_iter()
            .enumerate()
            .map(|(i, (layout, writes))| Sample {
                name: format!("a/{i}"),
                layout,
                // Seed 0 compresses well.
                writes: writes
                    .into_iter()
                    .map(|(seed, len)| if seed == 0 { vec![7; len] } else { noise(seed, len) })
                    .map(Bytes::from)
                    .collect(),
            })
            .collect();
        let compression = if level == 0 { Compression::None } else { Compression::Zstd(level) };
        let options = RepositoryOptions { compression, ..lock.options() };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let cx = builder().threads(threads).build();
            let inner = Arc::new(object_store::memory::InMemory::new());
            let repo = Repo::init_on(&cx, Store::new(inner, "memory"), options).await.unwrap();
            let session = repo.begin(&cx, spec()).await.unwrap();
            let tasks: Vec<_> = samples
                .iter()
                .cloned()
                .map(|sample| {
                    let session = Arc::clone(&session);
                    tokio::spawn(async move { write(&*session, &sample).await.unwrap() })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            let manifest = session.commit(outcome()).await.unwrap();
            let sum: usize = samples.iter().map(|s| s.content().len()).sum();
            assert_eq!(manifest.totals.bytes_read, sum as u64);
            restore_all(&cx, &repo, &manifest, &samples).await.unwrap();
        });
    }
}
