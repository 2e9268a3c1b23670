//! Level `objects`: is every object there, and as long as it was?

use std::collections::BTreeMap;

use backup_core::{Context, Finding, Level, Manifest, ObjectDigest, Report, Result, Severity};
use object_store::path::Path;

use super::{check_manifest, damage};
use crate::key::{self, BackupObject};
use crate::repo::Repo;

/// Compares what the store lists with what the manifest names, for the backup and for those whose
/// packs it refers to. Reads manifests and no data.
///
/// # Errors
/// When the store fails. Damage is in the report.
pub async fn check_objects(cx: &Context, repo: &Repo, manifest: &Manifest) -> Result<Report> {
    let mut findings = Vec::new();
    findings.extend(check_manifest(repo, manifest).await?);
    list(cx, repo, manifest, &mut findings).await?;
    for needed in &manifest.needs {
        cx.check()?;
        let directory = key::backup(&manifest.cluster, &needed.backup);
        let mut there = repo.store().list(&directory).await?.objects.into_iter().collect();
        findings.extend(compare(&directory, needed.packs.iter(), &mut there));
    }
    Ok(Report { level: Level::Objects, findings })
}

async fn list(
    cx: &Context,
    repo: &Repo,
    manifest: &Manifest,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    cx.check()?;
    let directory = key::backup(&manifest.cluster, &manifest.backup);
    let listing = repo.store().list(&directory).await?;
    let mut there: BTreeMap<String, u64> = listing.objects.into_iter().collect();
    findings.extend(compare(
        &directory,
        manifest.packs.iter().chain([&manifest.index]),
        &mut there,
    ));
    there.remove(&BackupObject::Manifest.to_string());
    there.retain(|name, _| {
        let problem = match name.parse() {
            Ok(BackupObject::Active | BackupObject::Beat(_)) => {
                "the marker of a backup in progress was left behind; the backup is finished"
            }
            Ok(BackupObject::Retired) => "a prune began to remove the backup, and it is kept",
            _ => return true,
        };
        let object = format!("{directory}/{name}");
        let remedy = "none is needed; it does no harm, and a later prune removes it";
        findings.push(Finding::new(Severity::Info, object, problem, remedy));
        false
    });
    for name in there.into_keys().chain(listing.directories) {
        findings.push(Finding::new(
            Severity::Warning,
            format!("{directory}/{name}"),
            "it is not part of the backup",
            "see where it comes from, then move it away; holdfast does not read it",
        ));
    }
    Ok(())
}

/// Takes the objects of `wanted` out of `there`, and says which are missing or of another length.
fn compare<'a>(
    directory: &Path,
    wanted: impl Iterator<Item = &'a ObjectDigest>,
    there: &mut BTreeMap<String, u64>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for digest in wanted {
        let object = format!("{directory}/{}", digest.name);
        match there.remove(&digest.name) {
            None => findings.push(damage(object, "it is missing")),
            Some(bytes) if bytes != digest.bytes => findings.push(damage(
                object,
                format!("it has {bytes} bytes where {} were written", digest.bytes),
            )),
            Some(_) => {}
        }
    }
    findings
}
