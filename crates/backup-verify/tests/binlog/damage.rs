//! Whatever happens to an archive is found, and no damaged event is applied.

use std::path::{Path, PathBuf};

use backup_core::{BinlogChain, ReplayTarget, SegmentStore};
use backup_drivers::binlog::check_segment;

use crate::replay::{beginning, route};
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
        let mut wrong = 0;
        for at in (n % 11..good.len()).step_by(11) {
            let mut bad = good.clone();
            bad[at] ^= 1 << (at % 8);
            std::fs::write(path, &bad).unwrap();
            wrong += usize::from(!is_well(&store).await);
        }
        assert_eq!(wrong, (n % 11..good.len()).step_by(11).count(), "{}", path.display());
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
