//! A store that stands still in the middle of a clone: the donor is not left waiting.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{
    ArtifactInfo, ArtifactName, ArtifactSink, ArtifactWriter, Backup as _, BackupSession, Layout,
    Repository as _, Result,
};
use backup_drivers::clone::CloneBackup;
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

fn size(entry: &std::fs::DirEntry) -> u64 {
    let name = entry.file_name().into_string().unwrap();
    let data = ["ibdata1", "mysql.ibd", "undo_001", "undo_002"].contains(&name.as_str());
    entry.metadata().unwrap().len() * u64::from(data)
}
