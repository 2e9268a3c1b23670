//! Level `objects`: is every object there, and as long as it was?

use std::collections::BTreeMap;

use backup_core::{
    BackupId, Context, Finding, Level, Manifest, ObjectDigest, Report, Result, Severity,
};

use super::chain::check_chain;
use super::users::{Problem, findings};
use super::{MISSING, check_manifest};
use crate::key::{self, BackupObject};
use crate::repo::Repo;
use crate::shelf::Found;

/// Compares what the store lists, and the stores of lower tiers, with what the manifest names, for
/// the backup and for those whose packs it refers to. Follows the chain of parents. Reads manifests
/// and no data.
///
/// # Errors
/// When a store fails. Damage is in the report.
pub async fn check_objects(cx: &Context, repo: &Repo, manifest: &Manifest) -> Result<Report> {
    let repo = &repo.alone();
    let mut all = Vec::new();
    all.extend(check_manifest(repo, manifest).await?);
    all.extend(check_chain(cx, repo, manifest).await?);
    let mut seen = Seen::default();
    own(cx, repo, manifest, &mut seen).await?;
    for needed in &manifest.needs {
        cx.check()?;
        let directory = key::backup(&manifest.cluster, &needed.backup);
        let mut there = Listed::new(repo.shelf().list(&directory).await?);
        compare(&needed.backup, needed.packs.iter(), &mut there, &mut seen);
    }
    let (cluster, backup) = (&manifest.cluster, &manifest.backup);
    all.extend(findings(cx, repo, cluster, backup, seen.problems).await?);
    all.extend(seen.remarks);
    Ok(Report::new(Level::Objects, all))
}

/// What was seen.
#[derive(Default)]
struct Seen {
    problems: Vec<Problem>,
    remarks: Vec<Finding>,
}

/// The objects of a directory by name: where they are, and how long.
struct Listed(BTreeMap<String, Vec<Found>>);

impl Listed {
    fn new(found: Vec<Found>) -> Self {
        let mut all: BTreeMap<String, Vec<Found>> = BTreeMap::new();
        for object in found {
            all.entry(object.name.clone()).or_default().push(object);
        }
        Listed(all)
    }

    fn take(&mut self, object: BackupObject) -> bool {
        self.0.remove(&object.to_string()).is_some()
    }
}

async fn own(cx: &Context, repo: &Repo, manifest: &Manifest, seen: &mut Seen) -> Result<()> {
    cx.check()?;
    let directory = key::backup(&manifest.cluster, &manifest.backup);
    let directories = repo.store().list(&directory).await?.directories;
    let mut there = Listed::new(repo.shelf().list(&directory).await?);
    compare(&manifest.backup, manifest.packs.iter(), &mut there, seen);

    let rebuilt: Vec<BackupObject> = there
        .0
        .keys()
        .filter_map(|name| name.parse().ok())
        .filter(|object| matches!(object, BackupObject::IndexCopy(_)))
        .collect();
    let before = seen.problems.len();
    compare(&manifest.backup, [&manifest.index].into_iter(), &mut there, seen);
    if let Some(newest) = rebuilt.iter().max()
        && let Some(problem) = seen.problems.drain(before..).next()
    {
        seen.remarks.push(Finding::new(
            Severity::Warning,
            format!("{directory}/{}", problem.object),
            format!("{}; the rebuilt {newest} stands in for it", problem.problem),
            "none is needed; `holdfast verify --level content` proves the rebuilt one",
        ));
    }
    for object in rebuilt {
        there.take(object);
    }
    there.take(BackupObject::Manifest);
    there.0.retain(|name, _| {
        let problem = match name.parse() {
            Ok(BackupObject::Active | BackupObject::Beat(_) | BackupObject::Suspended) => {
                "the marker of a backup in progress was left behind; the backup is finished"
            }
            Ok(BackupObject::Retired) => "a prune began to remove the backup, and it is kept",
            _ => return true,
        };
        let object = format!("{directory}/{name}");
        let remedy = "none is needed; it does no harm, and a later prune removes it";
        seen.remarks.push(Finding::new(Severity::Info, object, problem, remedy));
        false
    });
    for name in there.0.into_keys().chain(directories) {
        seen.remarks.push(Finding::new(
            Severity::Warning,
            format!("{directory}/{name}"),
            "it is not part of the backup",
            "see where it comes from, then move it away; holdfast does not read it",
        ));
    }
    Ok(())
}

/// Takes the objects of `wanted` out of `there`, and notes which are missing or of another length.
fn compare<'a>(
    backup: &BackupId,
    wanted: impl Iterator<Item = &'a ObjectDigest>,
    there: &mut Listed,
    seen: &mut Seen,
) {
    for digest in wanted {
        let found = there.0.remove(&digest.name).unwrap_or_default();
        let wrong = found.iter().find(|f| f.bytes != digest.bytes);
        let problem = match (found.as_slice(), wrong) {
            ([], _) => MISSING.to_owned(),
            (_, Some(wrong)) => {
                format!("it has {} bytes where {} were written", wrong.bytes, digest.bytes)
            }
            ([_], None) => continue,
            (_, None) => {
                seen.remarks.push(Finding::new(
                    Severity::Info,
                    format!("{backup}/{}", digest.name),
                    "it is in two tiers: a move between them did not end",
                    "run `holdfast tier`, which ends it",
                ));
                continue;
            }
        };
        let (backup, object) = (backup.clone(), digest.name.clone());
        seen.problems.push(Problem { backup, object, problem });
    }
}
