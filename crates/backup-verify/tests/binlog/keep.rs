//! How long binlogs stay, and copies of them.

use backup_core::retention::Policy;
use backup_core::{BinlogChain, ErrorKind, ReplayBase, ReplayTarget, Repository, SegmentStore};
use backup_storage::{
    CopyConsent, CopyOptions, CopyTarget, PruneOptions, RepoUrl, RepositoryOptions, Unlock,
    copy_backup, copy_binlogs, prune,
};
use jiff::SignedDuration;
use rstest::rstest;

use crate::aside::{back_up, way};
use crate::server::Server;
use crate::store::{Store, cluster};

fn options() -> PruneOptions {
    PruneOptions {
        policy: Policy { keep_last: 1, grace: SignedDuration::ZERO, ..Policy::default() },
        wait: SignedDuration::ZERO,
        ..PruneOptions::default()
    }
}

fn url(store: &Store, name: &str) -> RepoUrl {
    store.path(name).to_str().unwrap().parse().unwrap()
}

#[rstest]
#[tokio::test]
async fn binlogs_stay_as_long_as_a_backup_needs_them(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let source = Server::start(name, |builder| builder).await;
    let store = Store::new().await;
    let work = async |sql: &[&str]| {
        source.run(sql).await;
        source.run(&["FLUSH BINARY LOGS"]).await;
        store.archive(&source).await;
    };
    work(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)"]).await;
    let first = back_up(&store, &source).await;
    work(&["INSERT INTO d.t VALUES (1)"]).await;
    work(&["INSERT INTO d.t VALUES (2)"]).await;
    // Ids of backups are told apart by seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let second = back_up(&store, &source).await;
    work(&["INSERT INTO d.t VALUES (3)"]).await;
    let all = store.segments().await;

    // What the first backup needs stays while it is there, and in the run that removes it.
    let dry = PruneOptions { dry_run: true, ..options() };
    let report = prune(&store.cx, &store.repo, &dry).await.unwrap();
    assert_eq!(report.binlogs[0].kept + report.binlogs[0].removed, all.len() as u64);
    assert_eq!(store.segments().await, all);
    let report = prune(&store.cx, &store.repo, &options()).await.unwrap();
    let needed_by_first = store.segments().await;
    assert!(report.binlogs[0].held.is_none());
    assert!(
        BinlogChain::new(needed_by_first).plan(&ReplayBase::of(&first), &ReplayTarget::End).is_ok()
    );
    assert_eq!(store.repo.backups(&store.cx, None).await.unwrap().len(), 1);
    let long = PruneOptions { keep_binlogs: Some(SignedDuration::from_hours(1)), ..options() };
    assert_eq!(prune(&store.cx, &store.repo, &long).await.unwrap().binlogs[0].removed, 0);
    let waits = PruneOptions { wait: SignedDuration::from_hours(1), ..options() };
    assert_eq!(prune(&store.cx, &store.repo, &waits).await.unwrap().binlogs[0].removed, 0);
    let report = prune(&store.cx, &store.repo, &options()).await.unwrap();
    let left = store.segments().await;
    assert!(report.binlogs[0].removed > 0 && report.binlogs[0].bytes > 0, "{report:?}");
    assert_eq!(left, all[all.len() - left.len()..], "only from the front");
    let route = way(&store, &second, &ReplayTarget::End).await;
    assert!(route.last.is_some());
    assert!(
        BinlogChain::new(left.clone()).plan(&ReplayBase::of(&first), &ReplayTarget::End).is_err()
    );
    // The receiver goes on where it was.
    work(&["INSERT INTO d.t VALUES (4)"]).await;
    assert!(BinlogChain::new(store.segments().await).gaps().is_empty());
    let report = prune(&store.cx, &store.repo, &options()).await.unwrap();
    assert_eq!(report.binlogs[0].removed, 0, "all of them are needed");
}

#[tokio::test]
async fn copies_take_binlogs_along() {
    let source = Server::start("mariadb-10.11", |builder| builder).await;
    let store = Store::new().await;
    let manifest = back_up(&store, &source).await;
    for sql in ["CREATE DATABASE d", "CREATE TABLE d.t (id INT)", "INSERT INTO d.t VALUES (1)"] {
        source.run(&[sql]).await;
        store.archive(&source).await;
    }
    let all = store.segments().await;
    assert!(all.len() > 2);
    let cx = &store.cx;
    let passphrase = || Some(Unlock::Passphrase(backup_core::Secret::new("other".to_owned())));
    let other = RepositoryOptions { unlock: passphrase(), ..RepositoryOptions::default() };
    backup_storage::Repo::init(cx, &url(&store, "other"), other.clone()).await.unwrap();
    for (name, options) in [("same", RepositoryOptions::default()), ("other", other)] {
        let target =
            CopyTarget::open(cx, &store.repo, &url(&store, name), options, CopyConsent::default())
                .await
                .unwrap();
        copy_backup(cx, &store.repo, &target, &manifest, CopyOptions::default()).await.unwrap();
        let copy = async |options: CopyOptions| {
            copy_binlogs(cx, &store.repo, &target, &cluster(), options).await
        };
        let copied =
            copy(CopyOptions::default()).await.unwrap_or_else(|e| panic!("{}", e.report()));
        assert_eq!((copied.segments, copied.sent), (all.len() as u64, all.len() as u64), "{name}");
        let there = target.repo().segments(cx, &cluster()).await.unwrap();
        let there: Vec<_> = there.into_iter().map(|listed| listed.info.unwrap()).collect();
        assert_eq!(there, all);
        for segment in &all {
            let content = store.repo.read(cx, segment).await.unwrap();
            assert_eq!(target.repo().read(cx, segment).await.unwrap(), content);
        }
        assert_eq!(copy(CopyOptions::default()).await.unwrap().sent, 0);

        // Damage there is found by a run that reads, and mended where that is asked for.
        let path = store.path(name).join("clusters/shop/binlog").join(all[1].server.as_str());
        let mut files: Vec<_> =
            std::fs::read_dir(path).unwrap().map(|f| f.unwrap().path()).collect();
        files.sort();
        let mut bytes = std::fs::read(&files[1]).unwrap();
        let at = bytes.len() - 20;
        bytes[at] ^= 1;
        std::fs::write(&files[1], &bytes).unwrap();
        let verify = CopyOptions { verify: true, ..CopyOptions::default() };
        assert_eq!(copy(verify).await.unwrap_err().kind(), ErrorKind::Damaged);
        let mend = CopyOptions { replace_damaged: true, ..verify };
        assert_eq!(copy(mend).await.unwrap().sent, 1);
        assert_eq!(copy(verify).await.unwrap().sent, 0);
        target.close().await.unwrap();
    }
    // Damage here does not arrive.
    let path = store.path("repo").join("clusters/shop/binlog").join(all[1].server.as_str());
    let mut files: Vec<_> = std::fs::read_dir(path).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    let mut bytes = std::fs::read(&files[1]).unwrap();
    let at = bytes.len() - 20;
    bytes[at] ^= 1;
    std::fs::write(&files[1], &bytes).unwrap();
    let options = RepositoryOptions::default();
    let target =
        CopyTarget::open(cx, &store.repo, &url(&store, "third"), options, CopyConsent::default())
            .await
            .unwrap();
    let copied = copy_binlogs(cx, &store.repo, &target, &cluster(), CopyOptions::default()).await;
    assert_eq!(copied.unwrap_err().kind(), ErrorKind::Damaged);
    let there = target.repo().segments(cx, &cluster()).await.unwrap();
    assert!(there.iter().all(|listed| listed.seq != all[1].seq));
    target.close().await.unwrap();
}
