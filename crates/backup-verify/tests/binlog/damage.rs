//! Whatever happens to an archive is found, and no damaged event is applied.

use std::path::{Path, PathBuf};

use backup_core::{BinlogChain, ReplayTarget, SegmentStore};
use backup_drivers::binlog::check_segment;

use crate::replay::{beginning, position, route};
use crate::server::{Server, WORK};
use crate::store::{Store, cluster};

fn objects(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(objects(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Whether the archive is as it should be: every segment, and that they join.
async fn is_well(store: &Store) -> bool {
    let mut segments = Vec::new();
    for listed in store.repo.segments(&store.cx, &cluster()).await.unwrap() {
        let Ok(info) = listed.info else { return false };
        let Ok(content) = store.repo.read(&store.cx, &info).await else { return false };
        if check_segment(&info, &content).is_err() {
            return false;
        }
        segments.push(info);
    }
    BinlogChain::new(segments).gaps().is_empty()
}

/// The bits of an object that are flipped, one at a time: one in every eleventh byte, or as many as
/// `HOLDFAST_TEST_FLIPS` says, up to all of them.
fn flips(object: usize, len: usize) -> Vec<usize> {
    let all = len * 8;
    match std::env::var("HOLDFAST_TEST_FLIPS").ok().map(|n| n.parse::<usize>().unwrap()) {
        None => (object % 11..len).step_by(11).map(|at| at * 8 + at % 8).collect(),
        Some(count) if count >= all => (0..all).collect(),
        Some(count) => (0..count).map(|_| rand::random_range(0..all)).collect(),
    }
}

#[tokio::test]
async fn every_damage_is_found() {
    let server = Server::start("mysql-9.7", |builder| builder).await;
    let store = Store::new().await;
    for _ in 0..2 {
        server.run(&WORK).await;
        store.archive(&server).await;
        server.run(&["DROP DATABASE d"]).await;
    }
    let objects = objects(&store.path("repo/clusters/shop/binlog"));
    assert!(objects.len() >= 4 && is_well(&store).await, "{objects:?}");
    for (n, path) in objects.iter().enumerate() {
        let good = std::fs::read(path).unwrap();
        for bit in flips(n, good.len()) {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(path, &bad).unwrap();
            assert!(!is_well(&store).await, "{}: bit {bit} flipped", path.display());
        }
        for len in [0, 15, 16, 95, good.len() / 2, good.len() - 1] {
            std::fs::write(path, &good[..len]).unwrap();
            assert!(!is_well(&store).await, "{} cut to {len}", path.display());
        }
        std::fs::write(path, [&good[..], b"x"].concat()).unwrap();
        assert!(!is_well(&store).await, "{} made longer", path.display());
        // Another segment in its place.
        let other = &objects[(n + 1) % objects.len()];
        std::fs::copy(other, path).unwrap();
        assert!(!is_well(&store).await, "{} swapped", path.display());
        std::fs::remove_file(path).unwrap();
        // Of a chain without its end nobody can know that there was more; without its begin neither.
        let inner = n > 0 && n + 1 < objects.len();
        assert_eq!(!is_well(&store).await, inner, "{} gone", path.display());
        std::fs::write(path, &good).unwrap();
    }
    assert!(is_well(&store).await);

    // The way to the end leads through every segment: a damaged one is an error before anything of it
    // is sent, or makes the end unreachable.
    let base = beginning(&server, "");
    let path = &objects[1];
    let good = std::fs::read(path).unwrap();
    std::fs::remove_file(path).unwrap();
    let e = route(&store, &base, &ReplayTarget::End, &[]).await.map(|route| route.reached);
    let whole = store.segments().await.last().unwrap().after.clone();
    assert!(e.is_err() || e.unwrap() != Some(whole));
    std::fs::write(path, good).unwrap();
}

/// Copies a directory with all that is in it.
fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// What was true of a segment once, and is no more: an archive that went on elsewhere from the same
/// place has the same numbers.
#[tokio::test]
async fn a_stale_segment_is_found() {
    let server = Server::start("mysql-9.7", |builder| builder).await;
    let store = Store::new().await;
    let (repo, fork) = (store.path("repo"), store.path("fork"));
    let insert = |id: u32| format!("INSERT INTO d.t VALUES ({id})");
    server.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)"]).await;
    store.archive(&server).await;
    copy(&repo, &fork);
    server.run(&[&insert(1)]).await;
    // The fork goes on first, then the archive itself, from the same place but further.
    std::fs::rename(&repo, store.path("aside")).unwrap();
    std::fs::rename(&fork, &repo).unwrap();
    store.archive(&server).await;
    std::fs::rename(&repo, &fork).unwrap();
    std::fs::rename(store.path("aside"), &repo).unwrap();
    server.run(&[&insert(2)]).await;
    store.archive(&server).await;
    server.run(&[&insert(3)]).await;
    store.archive(&server).await;
    let here = objects(&repo.join("clusters/shop/binlog"));
    let there = objects(&fork.join("clusters/shop/binlog"));
    assert!((here.len(), there.len()) == (3, 2) && is_well(&store).await, "{here:?} {there:?}");
    std::fs::copy(&there[1], &here[1]).unwrap();
    let mut whole = true;
    for listed in store.repo.segments(&store.cx, &cluster()).await.unwrap() {
        let info = listed.info.unwrap();
        let content = store.repo.read(&store.cx, &info).await.unwrap();
        whole &= check_segment(&info, &content).is_ok();
    }
    assert!(whole, "by itself it is a good one");
    assert!(!is_well(&store).await, "it does not join what comes behind it");
    // Nothing behind the hole is applied.
    let end = position(&server).await;
    let way = route(&store, &beginning(&server, ""), &ReplayTarget::End, &[]).await;
    assert!(way.is_err() || way.unwrap().reached != Some(end));
}

/// A bit that flips after the plan was made: what is applied is whole, and ends before it.
#[rstest::rstest]
#[tokio::test]
async fn no_damaged_event_is_applied(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    use backup_drivers::binlog::replay::{ApplyOptions, apply};
    let server = Server::start(name, |builder| builder.option("binlog_format", "ROW")).await;
    let store = Store::new().await;
    server.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, a TEXT)"]).await;
    for id in 0..30 {
        server.run(&[&format!("INSERT INTO d.t VALUES ({id}, REPEAT('x', 500))")]).await;
        if id % 10 == 9 {
            store.archive(&server).await;
        }
    }
    let base = beginning(&server, "");
    let rounds =
        std::env::var("HOLDFAST_TEST_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let path = objects(&store.path("repo/clusters/shop/binlog")).swap_remove(1);
    let good = std::fs::read(&path).unwrap();
    for round in 0..rounds {
        let way = route(&store, &base, &ReplayTarget::End, &[]).await.unwrap();
        let target = Server::start(name, |builder| builder).await;
        let mut bad = good.clone();
        let bit = rand::random_range(0..good.len() * 8);
        bad[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &bad).unwrap();
        let repo = std::sync::Arc::new(store.repo.clone());
        let options = ApplyOptions { tell_applied: true, ..ApplyOptions::default() };
        let e = apply(&store.cx, &target.options(), repo, std::sync::Arc::new(way), &options)
            .await
            .err()
            .unwrap_or_else(|| panic!("round {round}: bit {bit} was applied"));
        assert_eq!(e.kind(), backup_core::ErrorKind::Damaged, "bit {bit}: {}", e.report());
        let rows: Option<(u64, Option<u64>)> = target
            .session()
            .await
            .query_first("SELECT COUNT(*), MAX(id) FROM d.t")
            .await
            .unwrap_or(Some((0, None)));
        let (count, last) = rows.unwrap();
        assert!(count <= 10 && last.is_none_or(|last| last + 1 == count), "bit {bit}: {rows:?}");
        std::fs::write(&path, &good).unwrap();
    }
}
