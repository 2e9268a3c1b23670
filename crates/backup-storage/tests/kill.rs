//! Processes that are killed while they back up. Whatever was there before, and whatever they had
//! finished, can be restored; what they had not is not there.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use backup_core::{Clock, Context, Repository};
use backup_storage::{Repo, RepoUrl, check_content};
use common::{back_up, context, options, restore_all, samples};
use jiff::Timestamp;

const CHILD: &str = "HOLDFAST_TEST_KILLED_IN";

/// A second of this clock is 10 ms of the world: no backup needs to wait for its next second.
struct FastClock;

impl Clock for FastClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(Timestamp::now().as_millisecond() / 10).unwrap()
    }
}

/// Backs up again and again, until it is killed.
async fn child(dir: std::path::PathBuf) {
    let cx = Context::builder().clock(Arc::new(FastClock)).build();
    let repo = Repo::open(&cx, &RepoUrl::from(dir), options()).await.unwrap();
    loop {
        back_up(&cx, &repo, &samples()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_backup_hurts_no_other() {
    if let Some(dir) = std::env::var_os(CHILD) {
        return child(dir.into()).await;
    }
    let cx = context();
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let url = RepoUrl::from(dir.path());
    let repo = Repo::init(&cx, &url, options()).await.unwrap();
    // How long a backup takes just now, process and all, decides when to kill.
    let started = std::time::Instant::now();
    let spare = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let spare = Repo::init(&cx, &spare.path().into(), options()).await.unwrap();
    back_up(&cx, &spare, &samples()).await.unwrap();
    let usual = started.elapsed().max(Duration::from_millis(100));
    let mut finished = 0;
    for round in 0..25u32 {
        let mut killed = Command::new(std::env::current_exe().unwrap())
            .args(["a_killed_backup_hurts_no_other", "--exact", "--nocapture"])
            .env(CHILD, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(usual / 4 + usual * round / 6).await;
        killed.kill().unwrap();
        let status = killed.wait().unwrap();
        assert!(!status.success() && status.code().is_none(), "it ended by itself: {status}");

        let listed = repo.backups(&cx, None).await.unwrap();
        assert!(listed.len() >= finished, "a backup is gone");
        // What was there in the round before was looked at then.
        finished = listed.len();
        for backup in listed.into_iter().rev().take(2) {
            let manifest = backup.manifest.unwrap();
            restore_all(&cx, &repo, &manifest, &samples()).await.unwrap();
            let report = check_content(&cx, &repo, &manifest).await.unwrap();
            assert!(report.findings.is_empty(), "{:?}", report.findings);
        }
    }
    assert!(finished > 0, "no process lived long enough to finish a backup");
}
