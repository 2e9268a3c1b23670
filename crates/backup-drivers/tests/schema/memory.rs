//! A repository in memory, and a whole backup and restore through it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::{
    ArtifactInfo, ArtifactName, ArtifactReader, ArtifactSink, ArtifactSource, ArtifactWriter,
    Backup, Context, Error, Layout, Manifest, Outcome, Restore, Restored, Result,
};
use backup_drivers::logical::{
    LogicalBackup, LogicalOptions, LogicalRestore, LogicalRestoreOptions,
};
use bytes::Bytes;
use serde_json::json;

use crate::server::Server;

/// Finished artifacts: the pieces as they were written, and what the driver said of them.
type Artifacts = Arc<Mutex<BTreeMap<ArtifactName, (Vec<Bytes>, serde_json::Value)>>>;

#[derive(Default)]
struct Memory(Artifacts);

struct Writer {
    name: ArtifactName,
    pieces: Vec<Bytes>,
    to: Artifacts,
}

#[async_trait]
impl ArtifactSink for Memory {
    async fn create(&self, name: ArtifactName, _: Layout) -> Result<Box<dyn ArtifactWriter>> {
        Ok(Box::new(Writer { name, pieces: Vec::new(), to: Arc::clone(&self.0) }))
    }
}

#[async_trait]
impl ArtifactWriter for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.pieces.push(bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>, attributes: serde_json::Value) -> Result<ArtifactInfo> {
        let bytes = self.pieces.iter().map(|p| p.len() as u64).sum();
        let before =
            self.to.lock().unwrap().insert(self.name.clone(), (self.pieces, attributes.clone()));
        assert!(before.is_none(), "{} is there twice", self.name);
        let layout = Layout::Stream;
        Ok(ArtifactInfo { name: self.name, bytes, sha256: String::new(), layout, attributes })
    }
}

#[async_trait]
impl ArtifactSource for Memory {
    async fn list(&self) -> Result<Vec<ArtifactInfo>> {
        let artifacts = self.0.lock().unwrap();
        let info = artifacts.iter().map(|(name, (pieces, attributes))| ArtifactInfo {
            name: name.clone(),
            bytes: pieces.iter().map(|p| p.len() as u64).sum(),
            sha256: String::new(),
            layout: Layout::Stream,
            attributes: attributes.clone(),
        });
        Ok(info.collect())
    }

    async fn open(&self, name: &ArtifactName) -> Result<Box<dyn ArtifactReader>> {
        let pieces = self.0.lock().unwrap().get(name).map(|(pieces, _)| pieces.clone());
        let mut pieces = pieces.ok_or_else(|| Error::damaged(format!("there is no {name}")))?;
        pieces.reverse();
        Ok(Box::new(Pieces(pieces)))
    }
}

struct Pieces(Vec<Bytes>);

#[async_trait]
impl ArtifactReader for Pieces {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        Ok(self.0.pop())
    }
}

/// A backup that is kept in memory.
pub(crate) struct Kept {
    memory: Arc<Memory>,
    pub(crate) outcome: Outcome,
}

impl Kept {
    /// Backs a server up.
    pub(crate) async fn backup(source: &Server, options: LogicalOptions) -> Result<Kept> {
        Kept::backup_by(LogicalBackup::new(source.as_root(), options)).await
    }

    /// The same with a driver of one's own.
    pub(crate) async fn backup_by(driver: impl Backup) -> Result<Kept> {
        let cx = Context::builder().threads(2).build();
        let memory = Arc::new(Memory::default());
        let sink = Arc::clone(&memory) as Arc<dyn ArtifactSink>;
        let outcome = driver.run(&cx, sink).await?;
        Ok(Kept { memory, outcome })
    }

    /// The bytes of one artifact.
    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        self.memory.0.lock().unwrap()[&name.parse().unwrap()].0.concat()
    }

    /// Every byte that was kept, for looking into it.
    pub(crate) fn text(&self) -> String {
        let artifacts = self.memory.0.lock().unwrap();
        artifacts
            .values()
            .flat_map(|(p, _)| p)
            .map(|p| String::from_utf8_lossy(p).into_owned())
            .collect()
    }

    /// A copy, to be broken.
    pub(crate) fn copy(&self) -> Kept {
        let artifacts = self.memory.0.lock().unwrap().clone();
        let memory = Arc::new(Memory(Arc::new(Mutex::new(artifacts))));
        Kept { memory, outcome: self.outcome.clone() }
    }

    /// The bytes and attributes of an artifact, or of one more.
    pub(crate) fn change(
        &self,
        name: &str,
        change: impl FnOnce(&mut Vec<Bytes>, &mut serde_json::Value),
    ) {
        let mut artifacts = self.memory.0.lock().unwrap();
        let (pieces, attributes) = artifacts.entry(name.parse().unwrap()).or_default();
        change(pieces, attributes);
    }

    /// Loses an artifact.
    pub(crate) fn lose(&self, name: &str) {
        self.memory.0.lock().unwrap().remove(&name.parse().unwrap()).unwrap();
    }

    pub(crate) async fn restore(
        &self,
        target: &Server,
        options: LogicalRestoreOptions,
    ) -> Result<Restored> {
        let driver = LogicalRestore::new(target.as_root(), options);
        self.restore_by(driver).await
    }

    pub(crate) async fn restore_by(&self, driver: LogicalRestore) -> Result<Restored> {
        let cx = Context::builder().threads(2).build();
        driver.run(&cx, &self.manifest(), self.artifacts()).await
    }

    pub(crate) fn artifacts(&self) -> Arc<dyn ArtifactSource> {
        Arc::clone(&self.memory) as Arc<dyn ArtifactSource>
    }

    pub(crate) fn manifest(&self) -> Manifest {
        let mut manifest = serde_json::to_value(&self.outcome).unwrap();
        let rest = json!({
            "format": 1, "backup": "20261120T101530Z-full-7f3a9c", "cluster": "c",
            "strategy": "logical", "type": "full", "started_at": "2026-11-20T10:15:30Z",
            "finished_at": "2026-11-20T10:15:30Z", "writer": "test", "packs": [],
            "totals": {"artifacts": 0, "bytes_read": 0, "bytes_new": 0, "bytes_stored": 0},
            "index": {"name": "index", "bytes": 0, "sha256": ""},
        });
        manifest.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        serde_json::from_value(manifest).unwrap()
    }
}
