//! A repository that need not take proofs.

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{
    ArtifactSource, BackupSession, BackupSpec, ClusterName, Context, Event, Listed, Manifest,
    Record, Repository, Result,
};
use backup_storage::Repo;

/// Where the history cannot be written (a copy that is mounted read-only, a disk that went bad or
/// is full), what was found still has to be told: such a failure becomes a warning.
pub(crate) struct OptionalHistory<'a>(pub(crate) &'a Repo);

#[async_trait]
impl Repository for OptionalHistory<'_> {
    async fn record(&self, cx: &Context, cluster: &ClusterName, record: &Record) -> Result<()> {
        if let Err(e) = self.0.record(cx, cluster, record).await {
            let text = format!("the proof was not added to the history: {}", e.chain());
            cx.event(Event::Warning { text });
        }
        Ok(())
    }

    async fn backups(&self, cx: &Context, cluster: Option<&ClusterName>) -> Result<Vec<Listed>> {
        self.0.backups(cx, cluster).await
    }

    async fn artifacts(
        &self,
        cx: &Context,
        manifest: &Manifest,
    ) -> Result<Arc<dyn ArtifactSource>> {
        self.0.artifacts(cx, manifest).await
    }

    async fn begin(&self, cx: &Context, spec: BackupSpec) -> Result<Arc<dyn BackupSession>> {
        self.0.begin(cx, spec).await
    }

    async fn records(&self, cx: &Context, cluster: &ClusterName) -> Result<Vec<Record>> {
        self.0.records(cx, cluster).await
    }
}
