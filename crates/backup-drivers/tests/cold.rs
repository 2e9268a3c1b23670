//! Copies of stopped servers, as the kernel sees them, and of those that stand still.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{
    ArtifactInfo, ArtifactName, ArtifactSink, ArtifactWriter, Backup, Context, ErrorKind, Layout,
    Result,
};
use backup_drivers::connect::{ConnectOptions, Session};
use backup_drivers::files::{ColdBackup, ColdOptions, DataDirectory, LockOptions, LockedBackup};
use backup_drivers::sandbox::Sandbox;
use bytes::Bytes;
use rstest::rstest;

/// Takes artifacts, and notes at each whether this process keeps servers off the directory.
struct Watching {
    locked: Vec<PathBuf>,
    seen: Arc<Mutex<Vec<bool>>>,
}

/// Takes nothing, for ever.
struct Stuck;

#[async_trait]
impl ArtifactSink for Stuck {
    async fn create(&self, _: ArtifactName, _: Layout) -> Result<Box<dyn ArtifactWriter>> {
        std::future::pending().await
    }
}

struct Nowhere(ArtifactName, Layout, u64);

#[async_trait]
impl ArtifactSink for Watching {
    async fn create(&self, name: ArtifactName, layout: Layout) -> Result<Box<dyn ArtifactWriter>> {
        if name.as_str().starts_with("files/") {
            self.seen.lock().unwrap().push(self.locked.iter().all(|path| is_locked(path)));
        }
        Ok(Box::new(Nowhere(name, layout, 0)))
    }
}

#[async_trait]
impl ArtifactWriter for Nowhere {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.2 += bytes.len() as u64;
        Ok(())
    }

    async fn finish(self: Box<Self>, attributes: serde_json::Value) -> Result<ArtifactInfo> {
        let Nowhere(name, layout, bytes) = *self;
        Ok(ArtifactInfo { name, bytes, sha256: "0".repeat(64), layout, attributes })
    }
}

/// Whether this process holds a POSIX lock on a file (`proc_locks(5)`).
fn is_locked(path: &Path) -> bool {
    let metadata = path.metadata().unwrap();
    let (pid, inode) = (std::process::id().to_string(), format!(":{}", metadata.ino()));
    std::fs::read_to_string("/proc/locks").unwrap().lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        words.contains(&"POSIX")
            && words.contains(&&*pid)
            && words.iter().any(|w| w.ends_with(&inode))
    })
}

#[rstest]
#[tokio::test]
async fn no_server_can_start_while_its_files_are_copied(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let cx = Context::builder().build();
    let install = xtask::servers::install(name).unwrap();
    let builder = Sandbox::builder(&install).datadir(&data).durable(false);
    builder.start(&cx).await.unwrap().stop().await.unwrap();
    let files = ["ibdata1", "aria_log_control"].map(|name| data.join(name));
    let locked: Vec<PathBuf> = files.into_iter().filter(|path| path.exists()).collect();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Watching { locked: locked.clone(), seen: Arc::clone(&seen) };
    let backup = ColdBackup::new(DataDirectory::new(&data), ColdOptions::default());
    backup.run(&cx, Arc::new(sink)).await.unwrap();
    let seen = seen.lock().unwrap().clone();
    assert!(seen.len() > 50 && seen.iter().all(|&held| held), "{seen:?}");
    // And afterwards one can.
    assert!(!locked.iter().any(|path| is_locked(path)));
    let builder = Sandbox::builder(&install).datadir(&data).durable(false);
    builder.start(&cx).await.unwrap().stop().await.unwrap();
}

/// A copy that lost its lock is worth nothing, and does not go on.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_locked_copy_ends_with_its_lock(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let cx = Context::builder().build();
    let install = xtask::servers::install(name).unwrap();
    let server = Sandbox::builder(&install).start(&cx).await.unwrap();
    let source = ConnectOptions::socket(server.socket(), "root");
    let limit = Duration::from_secs(5);
    let options = LockOptions { limit, ..LockOptions::default() };
    let copied = LockedBackup::new(source.clone(), options);
    // Far more than it takes.
    let copied = tokio::time::timeout(Duration::from_secs(120), copied.run(&cx, Arc::new(Stuck)));
    let e = copied.await.expect("it goes on without its lock").unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Source, "{}", e.report());
    assert!(e.report().contains("was held for longer than 5 s and taken away"), "{}", e.report());
    let mut session = Session::open(&source).await.unwrap();
    session.run("CREATE DATABASE a").await.unwrap();
}
