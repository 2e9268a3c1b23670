//! A target whose disk fills while binlogs are applied.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use backup_core::{Context, ErrorKind, ReplayTarget};
use backup_drivers::binlog::replay::{self as replaying, ApplyOptions, Means, apply};
use rstest::rstest;

use crate::replay::{beginning, content, route};
use crate::server::Server;
use crate::store::Store;

/// A small file system; it is gone with the value.
struct SmallDisk {
    path: PathBuf,
    /// How many MiB were needed.
    used: u32,
}

impl SmallDisk {
    /// Under the files of a directory, with so many MiB more than they need.
    fn under(path: &Path, room: u32) -> SmallDisk {
        let used = Command::new("du").args(["-sm", "--apparent-size"]).arg(path).output().unwrap();
        let used = String::from_utf8(used.stdout).unwrap();
        let used: u32 = used.split_whitespace().next().unwrap().parse().unwrap();
        let kept = path.with_extension("kept");
        std::fs::rename(path, &kept).unwrap();
        std::fs::create_dir(path).unwrap();
        let disk = SmallDisk { path: path.to_owned(), used };
        disk.mount(&format!("size={}m,mode=755", used + room));
        let copied = Command::new("cp").arg("-a").arg(kept.join(".")).arg(path).status().unwrap();
        assert!(copied.success());
        std::fs::remove_dir_all(kept).unwrap();
        disk
    }

    fn mount(&self, options: &str) {
        let mut mount = Command::new("mount");
        let status =
            mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&self.path).status().unwrap();
        assert!(status.success(), "mounting a tmpfs needs root; run this suite as root");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// The tables, or all that the server writes, have no room any more, and then they have: nothing is lost, nothing is
/// applied twice. Servers say so, or wait; a MariaDB ends itself when InnoDB has no room to write to.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_target_is_told_and_gone_on_with(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
    #[values(Means::Replica, Means::Direct)] means: Means,
    #[values("d", ".")] what: &str,
) {
    let source = Server::start(name, |builder| builder.option("binlog_format", "ROW")).await;
    source.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, a LONGBLOB)"]).await;
    let store = Store::new().await;
    store.archive(&source).await;
    for id in 0..24 {
        let sql = format!("INSERT INTO d.t VALUES ({id}, REPEAT(RANDOM_BYTES(1024), 1024))");
        source.run(&[&sql]).await;
    }
    let mut target = Server::start(name, |builder| builder.binary_log(false)).await;
    let go = async |target: &Server, first: bool| {
        let there = match first {
            true => String::new(),
            false => replaying::position(&target.options()).await.unwrap().to_string(),
        };
        let way = route(&store, &beginning(target, &there), &ReplayTarget::End, &[]).await.unwrap();
        let options = ApplyOptions { tell_applied: first, means, ..ApplyOptions::default() };
        let repo = Arc::new(store.repo.clone());
        apply(&store.cx, &target.options(), repo, Arc::new(way), &options).await.map(drop)
    };
    go(&target, true).await.unwrap_or_else(|e| panic!("{}", e.report()));
    store.archive(&source).await;
    target.0.stop().await.unwrap();
    let datadir = target.0.datadir().to_owned();
    // A server that starts makes files of its own.
    let disk = match what {
        "d" => SmallDisk::under(&datadir.join("d"), 6),
        _ => SmallDisk::under(&datadir, 20),
    };
    target.0.restart(&Context::builder().build()).await.unwrap();

    let e = go(&target, false).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Space, "{}", e.report());
    assert!(e.report().contains("free space"), "{}", e.report());
    disk.mount(&format!("remount,size={}m", disk.used + 200));
    if backup_drivers::connect::Session::open(&target.options()).await.is_err() {
        // It ended itself.
        target.0.kill();
        target.0.restart(&Context::builder().build()).await.unwrap();
    }
    go(&target, false).await.unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(content(&target).await, content(&source).await);
    target.0.stop().await.unwrap();
}

/// What a private server has no room for is nothing that its user could look up at it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_server_without_room_says_where_room_is_needed() {
    let source = Server::start("mysql-9.7", |builder| builder).await;
    source.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, a LONGBLOB)"]).await;
    let store = Store::new().await;
    store.archive(&source).await;
    let mut target = Server::start("mysql-9.7", |builder| builder.binary_log(false)).await;
    let go = async |target: &Server, there: &str| {
        let way = route(&store, &beginning(target, there), &ReplayTarget::End, &[]).await.unwrap();
        let repo = Arc::new(store.repo.clone());
        let options = ApplyOptions { tell_applied: there.is_empty(), ..ApplyOptions::private() };
        apply(&store.cx, &target.options(), repo, Arc::new(way), &options).await.map(drop)
    };
    go(&target, "").await.unwrap_or_else(|e| panic!("{}", e.report()));
    for id in 0..24 {
        let sql = format!("INSERT INTO d.t VALUES ({id}, REPEAT(RANDOM_BYTES(1024), 1024))");
        source.run(&[&sql]).await;
    }
    store.archive(&source).await;
    let there = replaying::position(&target.options()).await.unwrap().to_string();
    target.0.stop().await.unwrap();
    let _disk = SmallDisk::under(&target.0.datadir().join("d"), 6);
    target.0.restart(&Context::builder().build()).await.unwrap();
    let e = go(&target, &there).await.unwrap_err();
    let report = e.report();
    assert_eq!(e.kind(), ErrorKind::Space, "{report}");
    assert!(report.contains("--scratch-dir") && report.contains("the private server"), "{report}");
    assert!(!report.contains("server.sock") && !report.contains("binlog apply"), "{report}");
    target.0.stop().await.unwrap();
}
