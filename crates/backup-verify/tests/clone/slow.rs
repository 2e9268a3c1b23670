//! A store that stands still in the middle of a clone: the donor is not left waiting.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{
    ArtifactInfo, ArtifactName, ArtifactSink, ArtifactWriter, Backup as _, BackupSession, Context,
    ErrorKind, Event, Layout, MemoryBudget, Monitor, Repository as _, Result,
};
use backup_drivers::clone::{CloneBackup, CloneOptions};
use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;

use crate::broken;
use crate::stage::{checksums, run, spec};

/// The repository, which takes nothing while it is not open.
struct Gate {
    session: Arc<dyn BackupSession>,
    open: watch::Receiver<bool>,
    taken: watch::Sender<u64>,
}

struct Gated {
    writer: Box<dyn ArtifactWriter>,
    open: watch::Receiver<bool>,
    taken: watch::Sender<u64>,
}

#[async_trait]
impl ArtifactSink for Gate {
    async fn create(&self, name: ArtifactName, layout: Layout) -> Result<Box<dyn ArtifactWriter>> {
        let writer = self.session.create(name, layout).await?;
        Ok(Box::new(Gated { writer, open: self.open.clone(), taken: self.taken.clone() }))
    }

    fn is_encrypted(&self) -> bool {
        self.session.is_encrypted()
    }
}

#[async_trait]
impl ArtifactWriter for Gated {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.open.wait_for(|open| *open).await.unwrap();
        self.taken.send_modify(|taken| *taken += bytes.len() as u64);
        self.writer.write(bytes).await
    }

    async fn finish(self: Box<Self>, attributes: Value) -> Result<ArtifactInfo> {
        self.writer.finish(attributes).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_stands_still_does_not_keep_the_donor_waiting() {
    let (stage, line) = broken::stage().await;
    let mut donor = stage.session().await;
    run(&mut donor, &["CREATE TABLE d.more SELECT * FROM d.t", "CREATE TABLE d.last (id INT)"])
        .await;
    let sums = checksums(&mut donor).await;

    let session = stage.repository.begin(&stage.cx, spec()).await.unwrap();
    let (gate, open) = watch::channel(true);
    let (taken, mut so_far) = watch::channel(0);
    let sink = Arc::new(Gate { session: Arc::clone(&session), open, taken });
    let driver = CloneBackup::new(line.options("backup", "secret"), stage.options());
    let before = line.carried();
    let backup = tokio::spawn({
        let (cx, sink) = (stage.cx.clone(), Arc::clone(&sink));
        async move { driver.run(&cx, sink).await }
    });
    so_far.wait_for(|taken| *taken > 4 << 20).await.unwrap();
    gate.send_replace(false);
    // All files come all the same, far more than a socket and our memory hold.
    let files: u64 =
        stage.donor.datadir().read_dir().unwrap().flatten().map(|entry| size(&entry)).sum();
    let all_has_come = async {
        while line.carried() - before < files {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert!(!backup.is_finished(), "it ended");
        }
    };
    // Longer than a donor waits for its reader.
    tokio::time::timeout(Duration::from_secs(120), all_has_come).await.unwrap();
    let waiting = *so_far.borrow();
    assert!(
        waiting < files / 2,
        "{waiting} of {files} bytes were taken before the store stood still"
    );
    gate.send_replace(true);
    let outcome = backup.await.unwrap().unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(outcome.details["restarts"], 0);
    let manifest = session.commit(outcome).await.unwrap();
    let restored = stage.restored(&manifest, |builder| builder).await;
    assert_eq!(checksums(&mut restored.session().await).await, sums);
    restored.check_tables().await;
}

/// Neither in memory nor on disk is there room for what comes, and the store takes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_clone_that_waits_for_room_is_given_up_at_once() {
    let (stage, line) = broken::stage().await;
    let cx = Context::builder().memory(MemoryBudget::new(1 << 20)).build();
    let session = stage.repository.begin(&cx, spec()).await.unwrap();
    let (gate, open) = watch::channel(true);
    let (taken, mut so_far) = watch::channel(0);
    let sink = Arc::new(Gate { session: Arc::clone(&session), open, taken });
    let options = CloneOptions { spool_limit: 1 << 20, ..stage.options() };
    let driver = CloneBackup::new(line.options("backup", "secret"), options);
    let backup = tokio::spawn({
        let (cx, sink) = (cx.clone(), Arc::clone(&sink));
        async move { driver.run(&cx, sink).await }
    });
    so_far.wait_for(|taken| *taken > 4 << 20).await.unwrap();
    gate.send_replace(false);
    // Until nothing comes any more: what the store has not is more than sockets hold.
    let mut carried = 0;
    while carried < line.carried() {
        carried = line.carried();
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(!backup.is_finished());
    cx.cancel();
    assert_eq!(backup.await.unwrap().unwrap_err().kind(), ErrorKind::Interrupted);
    // The store has not moved; the donor takes the next clone all the same, which would be refused.
    let next = stage.try_backup(&stage.cx, line.options("backup", "secret")).await;
    assert!(next.is_ok(), "{}", next.unwrap_err().report());
    assert!(!session.abort().await.unwrap());
    let listed = stage.repository.backups(&stage.cx, None).await.unwrap();
    assert_eq!(listed.len(), 1);
}

/// Counts the phases of a backup.
struct Phases(watch::Sender<usize>);

impl Monitor for Phases {
    fn event(&self, event: Event) {
        if matches!(event, Event::Phase { .. }) {
            self.0.send_modify(|phases| *phases += 1);
        }
    }
}

/// Others hold half of the memory, or all of it, and do not give it back.
#[tokio::test(flavor = "multi_thread")]
async fn a_clone_that_waits_for_memory_is_given_up_at_once() {
    let (stage, line) = broken::stage().await;
    for halves in [1, 2] {
        let (phases, mut began) = watch::channel(0);
        let budget = MemoryBudget::new(1 << 20);
        let cx = Context::builder().memory(budget).monitor(Arc::new(Phases(phases))).build();
        let mut held = Vec::new();
        for _ in 0..halves {
            held.push(cx.memory().reserve(usize::MAX).await);
        }
        let backup = async { stage.try_backup(&cx, line.options("backup", "secret")).await };
        let cancel = async {
            // The preflight is over.
            began.wait_for(|phases| *phases == 2).await.unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
            cx.cancel();
        };
        let (e, ()) = tokio::join!(backup, cancel);
        assert_eq!(e.unwrap_err().kind(), ErrorKind::Interrupted, "{halves}");
        assert_eq!(*began.borrow(), 2, "it did not wait");
        assert_eq!(stage.repository.backups(&stage.cx, None).await.unwrap().len(), halves - 1);
        let next = stage.try_backup(&stage.cx, line.options("backup", "secret")).await;
        assert!(next.is_ok(), "{}", next.unwrap_err().report());
    }
}

fn size(entry: &std::fs::DirEntry) -> u64 {
    let name = entry.file_name().into_string().unwrap();
    let data = ["ibdata1", "mysql.ibd", "undo_001", "undo_002"].contains(&name.as_str());
    entry.metadata().unwrap().len() * u64::from(data)
}
