//! Verifying a backup as a repository lists it: its manifest may be what is damaged.

use std::sync::{Arc, PoisonError};

use backup_core::{
    Context, Error, ErrorKind, Finding, Level, Listed, Report, Result, Severity, Verifier, pipeline,
};
use backup_drivers::connect::ConnectOptions;
use backup_drivers::logical::IdleSource;
use backup_storage::{Repo, SamplePlan};

use crate::drill::Differences;
use crate::levels::verifiers;
use crate::{DrillOptions, DrillVerifier, SampleVerifier, Whole, verifiers_for};

/// Verifies a backup up to `level` and records the proof; of a history that cannot be written the report
/// tells. What is in `whole` was read before in this run; what increments follow on and is not in it is read too.
///
/// # Errors
/// When the verification could not be carried out: the level is not in this version, the store
/// fails, or the run is cancelled. Damage, of the manifest too, is in the report.
pub async fn verify_listed(
    cx: &Context,
    repo: &Arc<Repo>,
    level: Level,
    whole: &Whole,
    listed: Listed,
) -> Result<Report> {
    run(cx, repo, verifiers(level, repo, whole, DrillVerifier::default())?, listed).await
}

/// As [`verify_listed`] at level `drill`, held as `options` say. Where a `source` is named, which changed nothing
/// since the backup of its data files, it is read first, and what the drill finds is compared with it; differences
/// are in the report, and not in the proof that is recorded.
///
/// # Errors
/// As [`verify_listed`]; a usage error where there is no server of the backup's version, or the backup has
/// digests of its source's rows itself; those of [`IdleSource::read`].
pub async fn verify_drill(
    cx: &Context,
    repo: &Arc<Repo>,
    whole: &Whole,
    options: DrillOptions,
    source: Option<&ConnectOptions>,
    listed: Listed,
) -> Result<Report> {
    let mut drill = DrillVerifier::new(options);
    let differences = Differences::default();
    if let (Some(source), Ok(manifest)) = (source, &listed.manifest) {
        if !manifest.strategy.has_data_files() {
            let problem = format!(
                "{} is a {} backup, which has digests of its source's rows itself: a drill compares with them",
                manifest.backup, manifest.strategy
            );
            return Err(Error::usage(problem).with_remedy("leave --source out"));
        }
        drill = drill.compared_with(IdleSource::read(cx, source, manifest).await?, &differences);
    }
    let mut report = run(cx, repo, verifiers(Level::Drill, repo, whole, drill)?, listed).await?;
    report.findings.append(&mut differences.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(report)
}

/// As [`verify_listed`] at level `content`, of the packs that a plan chose for the day. The proof says
/// that it is one of a sample.
///
/// # Errors
/// As [`verify_listed`].
pub async fn verify_sample(
    cx: &Context,
    repo: &Arc<Repo>,
    plan: &Arc<SamplePlan>,
    listed: Listed,
) -> Result<Report> {
    let mut verifiers = verifiers_for(Level::Objects, repo)?;
    verifiers.push(Arc::new(SampleVerifier::new(Arc::clone(repo), Arc::clone(plan))));
    run(cx, repo, verifiers, listed).await
}

async fn run(
    cx: &Context,
    repo: &Arc<Repo>,
    verifiers: Vec<Arc<dyn Verifier>>,
    listed: Listed,
) -> Result<Report> {
    let error = match listed.manifest {
        Ok(manifest) => return pipeline::verify(cx, &**repo, &verifiers, &manifest).await,
        Err(e) if e.kind() == ErrorKind::Damaged => e,
        Err(e) => return Err(e),
    };
    let object = format!("{}/manifest", listed.backup);
    let finding = Finding::new(Severity::Error, object, error.chain(), error.remedy().to_owned())
        .with_kind(ErrorKind::Damaged);
    let mut report = Report::new(Level::Objects, vec![finding]);
    pipeline::prove(cx, &**repo, &listed.cluster, &listed.backup, &mut report, 0.0).await;
    Ok(report)
}
