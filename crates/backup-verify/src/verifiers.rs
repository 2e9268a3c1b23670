//! The verifiers that need nothing but the repository.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use backup_core::{
    ArtifactSource, BackupChain, BackupId, Chain, Context, Finding, Level, Manifest, Report,
    Repository, Result, Verifier, pipeline,
};
use backup_storage::{Repo, SamplePlan, check_content, check_objects, check_sample};

use crate::pages::check_pages;

/// Checks that every object of a backup, and of those that it refers to, is there and has its
/// length; of an increment those as well that it follows on. It lists, and reads no data.
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
        let mut report = check_objects(cx, &self.repo, backup).await?;
        if report.ok() {
            for link in ancestors(cx, &self.repo, backup).await? {
                let found = check_objects(cx, &self.repo, &link).await?;
                if !found.ok() {
                    report.findings.extend(of_ancestor(cx, &self.repo, &link, found).await);
                    break;
                }
            }
        }
        Ok(report)
    }
}

/// The backups that one follows on, from the full one on.
async fn ancestors(cx: &Context, repo: &Repo, backup: &Manifest) -> Result<Vec<Manifest>> {
    if backup.parent.is_none() {
        return Ok(Vec::new());
    }
    let known = repo.backups(cx, Some(&backup.cluster)).await?;
    let known: Vec<Manifest> = known.into_iter().filter_map(|l| l.manifest.ok()).collect();
    let chain = BackupChain::to(backup, &known);
    let before = chain.links().iter().take_while(|link| link.backup != backup.backup);
    Ok(before.cloned().collect())
}

/// What is wrong with one that others follow on, which its own history is told, too.
async fn of_ancestor(
    cx: &Context,
    repo: &Repo,
    link: &Manifest,
    mut report: Report,
) -> Vec<Finding> {
    pipeline::prove(cx, repo, &link.cluster, &link.backup, &mut report, 0.0).await;
    report.findings
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

/// Backups that a run found whole, which increments need not read again.
#[derive(Debug, Clone, Default)]
pub struct Whole(Arc<Mutex<BTreeSet<BackupId>>>);

impl Whole {
    fn has(&self, backup: &BackupId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(backup)
    }

    fn add(&self, backup: &BackupId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(backup.clone());
    }
}

/// Reads every byte of a backup, also those in packs of other backups, and checks it against the
/// digests that were recorded when it was made. Of data files every page is checked, too. Of an increment
/// those are read as well that it follows on, without which it is nothing.
#[derive(Clone)]
pub struct ContentVerifier {
    repo: Arc<Repo>,
    whole: Whole,
}

impl ContentVerifier {
    /// For backups of `repo`.
    #[must_use]
    pub fn new(repo: Arc<Repo>) -> Self {
        ContentVerifier { repo, whole: Whole::default() }
    }

    /// Takes note of what is whole, and does not read it again for the increments on it.
    #[must_use]
    pub fn sparing(self, whole: Whole) -> Self {
        ContentVerifier { whole, ..self }
    }

    async fn read(
        &self,
        cx: &Context,
        backup: &Manifest,
        artifacts: Option<Arc<dyn ArtifactSource>>,
    ) -> Result<Report> {
        let mut report = check_content(cx, &self.repo, backup).await?;
        if backup.strategy.has_data_files() && report.ok() {
            // Of one that is damaged they may not be had.
            let artifacts = match artifacts {
                Some(artifacts) => artifacts,
                None => self.repo.artifacts(cx, backup).await?,
            };
            report.findings.extend(check_pages(cx, backup, &artifacts).await?);
        }
        if report.ok() {
            self.whole.add(&backup.backup);
        }
        Ok(report)
    }

    /// What is wrong with the first of those it follows on that is not whole.
    async fn ancestors(&self, cx: &Context, backup: &Manifest) -> Result<Vec<Finding>> {
        let before = ancestors(cx, &self.repo, backup).await?;
        for link in before.iter().filter(|link| !self.whole.has(&link.backup)) {
            cx.phase(format!("verify content of {}", link.backup));
            let report = self.read(cx, link, None).await?;
            if !report.ok() {
                return Ok(of_ancestor(cx, &self.repo, link, report).await);
            }
        }
        Ok(Vec::new())
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
        let mut report = self.read(cx, backup, Some(artifacts)).await?;
        if report.ok() {
            report.findings.extend(self.ancestors(cx, backup).await?);
        }
        Ok(report)
    }
}
