//! The verifiers that need nothing but the repository.

use std::sync::Arc;

use async_trait::async_trait;
use backup_core::{ArtifactSource, Context, Level, Manifest, Report, Result, Verifier};
use backup_storage::{Repo, SamplePlan, check_content, check_objects, check_sample};

use crate::pages::check_pages;

/// Checks that every object of a backup, and of those that it refers to, is there and has its
/// length. It lists, and reads no data.
#[derive(Clone)]
pub struct ObjectsVerifier {
    repo: Arc<Repo>,
}

impl ObjectsVerifier {
    /// For backups of `repo`.
    #[must_use]
    pub fn new(repo: Arc<Repo>) -> Self {
        ObjectsVerifier { repo }
    }
}

#[async_trait]
impl Verifier for ObjectsVerifier {
    fn level(&self) -> Level {
        Level::Objects
    }

    async fn verify(
        &self,
        cx: &Context,
        backup: &Manifest,
        _: Arc<dyn ArtifactSource>,
    ) -> Result<Report> {
        check_objects(cx, &self.repo, backup).await
    }
}

/// Reads a sample of the packs of a backup, as a plan chose them for the day.
#[derive(Clone)]
pub struct SampleVerifier {
    repo: Arc<Repo>,
    plan: Arc<SamplePlan>,
}

impl SampleVerifier {
    /// For backups of `repo`.
    #[must_use]
    pub fn new(repo: Arc<Repo>, plan: Arc<SamplePlan>) -> Self {
        SampleVerifier { repo, plan }
    }
}

#[async_trait]
impl Verifier for SampleVerifier {
    fn level(&self) -> Level {
        Level::Content
    }

    async fn verify(
        &self,
        cx: &Context,
        backup: &Manifest,
        _: Arc<dyn ArtifactSource>,
    ) -> Result<Report> {
        check_sample(cx, &self.repo, backup, &self.plan).await
    }
}

/// Reads every byte of a backup, also those in packs of other backups, and checks it against the
/// digests that were recorded when it was made. Of data files every page is checked, too.
#[derive(Clone)]
pub struct ContentVerifier {
    repo: Arc<Repo>,
}

impl ContentVerifier {
    /// For backups of `repo`.
    #[must_use]
    pub fn new(repo: Arc<Repo>) -> Self {
        ContentVerifier { repo }
    }
}

#[async_trait]
impl Verifier for ContentVerifier {
    fn level(&self) -> Level {
        Level::Content
    }

    async fn verify(
        &self,
        cx: &Context,
        backup: &Manifest,
        artifacts: Arc<dyn ArtifactSource>,
    ) -> Result<Report> {
        let mut report = check_content(cx, &self.repo, backup).await?;
        if backup.strategy.has_data_files() && report.ok() {
            report.findings.extend(check_pages(cx, backup, &artifacts).await?);
        }
        Ok(report)
    }
}
