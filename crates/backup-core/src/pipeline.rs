//! The two directions, generic over the traits: command line, C ABI and linking programs run this
//! same code.

use std::sync::Arc;

use crate::backup::{Backup, Restore, RestoreSteps, Restored};
use crate::chain::{BackupChain, Chain};
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result, and_again};
use crate::id::{BackupId, ClusterName};
use crate::manifest::Manifest;
use crate::monitor::Event;
use crate::repository::{BackupSession, BackupSpec, Record, RecordEvent, Repository};
use crate::verify::{Finding, Report, Severity, Verifier};

/// Takes a backup: preflight, artifacts, manifest.
///
/// When it fails or is cancelled, what was written is removed, unless a later backup can go on from
/// it, and the failure is recorded in the history of the cluster, both as far as the store allows; the
/// error is always the first one.
///
/// # Errors
/// The first finding of the preflight that forbids the backup, or what driver and repository fail
/// with.
pub async fn backup(
    cx: &Context,
    repository: &dyn Repository,
    driver: &dyn Backup,
    spec: BackupSpec,
) -> Result<Manifest> {
    cx.phase("preflight");
    let findings = cx.run(driver.preflight(cx)).await?;
    refuse(cx, &findings, "the source is not ready")?;
    let cluster = spec.cluster.clone();
    cx.phase("backup");
    let session = cx.run(repository.begin(cx, spec)).await?;
    // Not dropped: what it changed at the source, it puts back by itself.
    match driver.run(cx, Arc::clone(&session) as Arc<dyn crate::ArtifactSink>).await {
        // From here on the backup is complete at the source: it is committed even when the user
        // interrupts now, since a few small writes are all that is left.
        Ok(outcome) => session.commit(outcome).await,
        Err(error) => {
            let kept = give_up(cx, repository, &*session, &cluster, &error).await;
            Err(if kept { with_work(error) } else { error })
        }
    }
}

/// Stops where findings are errors, with all of them in one, and tells of warnings.
///
/// # Errors
/// Of the kind that the first error has ([`ErrorKind::Source`] without one): `what`, for example "the source is
/// not ready", with what is wrong and what to do.
pub fn refuse(cx: &Context, findings: &[Finding], what: &str) -> Result<()> {
    for finding in findings.iter().filter(|finding| finding.severity == Severity::Warning) {
        cx.event(Event::Warning {
            text: format!("{}: {} ({})", finding.object, finding.problem, finding.remedy),
        });
    }
    in_one(findings, what, ErrorKind::Source).map_or(Ok(()), Err)
}

/// All errors among findings in one, of the kind that the first has, else of `kind`: `what` is not as it should be.
#[must_use]
pub fn in_one(findings: &[Finding], what: &str, kind: ErrorKind) -> Option<Error> {
    let errors: Vec<&Finding> =
        findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    let first = errors.first()?;
    let problems: Vec<String> =
        errors.iter().map(|finding| format!("{}: {}", finding.object, finding.problem)).collect();
    let mut remedies: Vec<&str> = Vec::new();
    for finding in &errors {
        if !remedies.contains(&finding.remedy.as_str()) {
            remedies.push(&finding.remedy);
        }
    }
    let kind = first.kind.unwrap_or(kind);
    Some(
        Error::new(kind, format!("{what}: {}", problems.join("; ")))
            .with_remedy(remedies.join("; ")),
    )
}

/// Adds to the error of a backup that a later one can go on with what the user can do.
#[must_use]
pub fn with_work(error: Error) -> Error {
    let again = "run the same command again: it goes on from what is finished, which is kept for a \
                 day (`holdfast prune` removes it then)";
    let remedy = and_again(error.remedy(), again);
    error.with_remedy(remedy)
}

/// Whether something is kept for a later backup to go on from.
async fn give_up(
    cx: &Context,
    repository: &dyn Repository,
    session: &dyn BackupSession,
    cluster: &ClusterName,
    error: &Error,
) -> bool {
    let id = session.id().clone();
    let kept = match session.abort().await {
        Ok(kept) => kept,
        Err(e) => {
            cx.event(Event::Warning {
                text: format!("the unfinished backup {id} was not removed: {}", e.chain()),
            });
            false
        }
    };
    let record = Record {
        time: cx.now(),
        backup: Some(id),
        event: RecordEvent::FailedRun {
            exit_code: error.kind().exit_code(),
            error: error.report(),
        },
    };
    if let Err(e) = repository.record(cx, cluster, &record).await {
        cx.event(Event::Warning {
            text: format!("the failure was not added to the history: {}", e.chain()),
        });
    }
    kept
}

/// Says what [`restore`] would do.
///
/// # Errors
/// As [`restore`], before anything is written.
pub async fn plan_restore(
    cx: &Context,
    repository: &dyn Repository,
    driver: &dyn Restore,
    manifest: &Manifest,
) -> Result<RestoreSteps> {
    let artifacts = repository.artifacts(cx, manifest).await?;
    cx.run(driver.plan(cx, manifest, artifacts)).await
}

/// Restores a backup that stands by itself.
///
/// # Errors
/// When the chain of the backup is broken, and what driver and repository fail with.
pub async fn restore(
    cx: &Context,
    repository: &dyn Repository,
    driver: &dyn Restore,
    manifest: &Manifest,
) -> Result<Restored> {
    let known: Vec<Manifest> = repository
        .backups(cx, Some(&manifest.cluster))
        .await?
        .into_iter()
        .filter_map(|l| l.manifest.ok())
        .collect();
    BackupChain::to(manifest, &known).check()?;
    let artifacts = repository.artifacts(cx, manifest).await?;
    cx.phase("restore");
    driver.run(cx, manifest, artifacts).await
}

/// Runs verifiers one after the other, ends at the first that finds an error, and records the proof.
///
/// # Errors
/// Only when the verification could not be carried out; damage is in the report.
pub async fn verify(
    cx: &Context,
    repository: &dyn Repository,
    verifiers: &[Arc<dyn Verifier>],
    manifest: &Manifest,
) -> Result<Report> {
    let started = cx.now();
    let mut report: Option<Report> = None;
    for verifier in verifiers {
        cx.phase(format!("verify {}", verifier.level()));
        let artifacts = match repository.artifacts(cx, manifest).await {
            Ok(artifacts) => artifacts,
            Err(e) if e.kind() == ErrorKind::Damaged => {
                let finding = Finding::new(
                    Severity::Error,
                    manifest.backup.to_string(),
                    e.chain(),
                    e.remedy().to_owned(),
                );
                let findings = report.map(|r| r.findings).unwrap_or_default();
                let mut all = Report::new(verifier.level(), findings);
                all.findings.push(finding);
                report = Some(all);
                break;
            }
            Err(e) => return Err(e),
        };
        let next = cx.run(verifier.verify(cx, manifest, artifacts)).await?;
        let mut findings = report.map(|r| r.findings).unwrap_or_default();
        findings.extend(next.findings);
        let so_far = Report { sampled: next.sampled, ..Report::new(next.level, findings) };
        let ok = so_far.ok();
        report = Some(so_far);
        if !ok {
            break;
        }
    }
    let mut report = report.ok_or_else(|| Error::internal("no verifier was given"))?;
    let seconds = cx.now().duration_since(started).as_secs_f64();
    prove(cx, repository, &manifest.cluster, &manifest.backup, &mut report, seconds).await;
    Ok(report)
}

/// Adds the result of a verification to the history. Where that cannot be written (a copy that is mounted
/// read-only, a disk that went bad or is full), what was found still has to be told: the report says that it is
/// recorded nowhere.
pub async fn prove(
    cx: &Context,
    repository: &dyn Repository,
    cluster: &ClusterName,
    backup: &BackupId,
    report: &mut Report,
    duration_seconds: f64,
) {
    let record = Record {
        time: cx.now(),
        backup: Some(backup.clone()),
        event: RecordEvent::Proof {
            level: report.level,
            ok: report.ok(),
            findings: report.findings.clone(),
            duration_seconds,
            sampled: report.sampled,
        },
    };
    if let Err(e) = repository.record(cx, cluster, &record).await {
        let text = format!("the proof was not added to the history: {}", e.chain());
        cx.event(Event::Warning { text });
        report.unrecorded = Some(e.chain());
    }
}
