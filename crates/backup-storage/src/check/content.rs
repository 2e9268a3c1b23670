//! Level `content`: is every byte what it was?

use std::collections::BTreeMap;

use backup_core::{
    ArtifactName, BackupId, Context, Error, ErrorKind, Finding, Level, Manifest, ObjectDigest,
    Report, Result, Severity, Strategy,
};
use futures::{StreamExt, TryStreamExt, stream};

use super::pack::{Lines, Pass, Unit};
use super::stream::prove;
use super::users::{self, Problem};
use super::{RESTORE_ANOTHER, check_manifest, damage, damage_of};
use crate::format::{Config, FrameKind, ObjectKind};
use crate::index::{Index, Line, key as object_key};
use crate::key::{self, BackupObject, Key};
use crate::repair;
use crate::repo::Repo;
use crate::scan::{Scanner, is_damage};
use crate::shelf::Found;
use crate::source::Source;

/// From this length on an artifact is long.
const LONG: u64 = 16 << 20;
/// How many damaged tables or files are named.
const NAMES: usize = 100;

/// Reads every byte of every object of a backup and compares it with what was recorded when it was
/// made: `holdfast.json`, the manifest, the digests of packs and index, the catalog in the packs
/// against the index, and each artifact from its first byte to its last, wherever its frames are.
///
/// What is in the backup's own packs is read once. Goes on after damage, and says what is hit and
/// what is not: here, and in other backups that need the same packs.
///
/// # Errors
/// When a store fails or the run is cancelled. Damage is in the report.
pub async fn check_content(cx: &Context, repo: &Repo, manifest: &Manifest) -> Result<Report> {
    // What a copy could give is no sign that this repository is whole.
    let repo = &repo.alone();
    let (mut findings, index) = outside(cx, repo, manifest).await?;
    let stored = manifest.packs.iter().fold(0, |sum: u64, pack| sum.saturating_add(pack.bytes));
    cx.progress().expect_bytes(stored);

    let units = (0..).zip(&manifest.packs).map(|(number, digest)| Unit {
        key: object_key(manifest, BackupObject::Pack(number)),
        digest: digest.clone(),
    });
    let mut pass = Pass::start(cx, repo, units.collect());
    let mut whole_index = false;
    let lost = index.as_ref().map_or(0, |(index, _)| index.lost);
    let (source, left) = match index {
        Some((index, whole)) => {
            whole_index = whole;
            // In the order of the catalog, so that each of its frames is read once.
            let mut order: Vec<u32> = (0..index.artifacts.len() as u32).collect();
            order.sort_by_key(|&n| index.artifacts[n as usize].parts.first().map(Line::place));
            let source = Source::new(cx, repo, manifest, index);
            let left = prove(cx, &source.0, &mut pass, order).await?;
            (Some(source), left)
        }
        None => (None, Vec::new()),
    };

    let mut catalog = Lines::default();
    let mut problems = Vec::new();
    for (pack, seen) in manifest.packs.iter().zip(pass.finish().await?) {
        catalog.add(seen.lines);
        problems.extend(seen.problem.map(|problem| Problem {
            backup: manifest.backup.clone(),
            object: pack.name.clone(),
            problem,
        }));
    }
    if whole_index && problems.is_empty() && index_lines(repo, manifest).await? != catalog {
        let name = object_key(manifest, BackupObject::Index).to_string();
        findings.push(damage(name, "it tells another story than the catalog in the packs"));
    }
    let (cluster, backup) = (&manifest.cluster, &manifest.backup);
    findings.extend(users::findings(cx, repo, cluster, backup, problems).await?);
    let Some(source) = source else {
        return Ok(Report::new(Level::Content, findings));
    };

    // Long ones first: one that is left for the end has the cores to itself and cannot use them. The
    // others stay in the order of the catalog, for they share frames.
    let mut left = left;
    left.sort_by_cached_key(|&number| {
        let artifact = source.0.artifact(number);
        let length = std::cmp::Reverse(artifact.info.bytes / LONG);
        (length, artifact.parts.first().map(Line::place))
    });
    let source = &source;
    let damaged: Vec<(ArtifactName, Error)> = stream::iter(left)
        .map(|number| async move {
            let name = source.0.artifact(number).info.name.clone();
            match source.0.prove(&name).await {
                Ok(()) => Ok(None),
                Err(e) if is_damage(&e) => Ok(Some((name, e))),
                Err(e) => Err(e),
            }
        })
        // More than there are cores: each waits in turn for the store, its slowest frame, its digest.
        .buffered(2 * cx.threads())
        .try_filter_map(async |damaged| Ok(damaged))
        .try_collect()
        .await?;
    if !damaged.is_empty() {
        findings.extend(needed(cx, repo, manifest).await?);
    }
    let hit = findings.iter().any(|f| f.severity == Severity::Error);
    findings.extend(consequences(manifest, &damaged, lost, hit));
    Ok(Report::new(Level::Content, findings))
}

/// Looks at everything but the packs, and loads the index, from the packs where it is damaged. The
/// flag says that it is the original; nothing is given where no index can be had.
pub(super) async fn outside(
    cx: &Context,
    repo: &Repo,
    manifest: &Manifest,
) -> Result<(Vec<Finding>, Option<(Index, bool)>)> {
    let mut findings = Vec::new();
    findings.extend(check_config(repo).await?);
    findings.extend(check_manifest(repo, manifest).await?);

    // A digest covers what was written; what was added behind it shows in the listing alone.
    let directory = key::backup(&manifest.cluster, &manifest.backup);
    let digests = manifest.packs.iter().chain([&manifest.index]);
    let wanted: BTreeMap<&str, u64> = digests.map(|d| (d.name.as_str(), d.bytes)).collect();
    for Found { name, bytes, .. } in repo.shelf().list(&directory).await? {
        if let Some(more) = wanted.get(&*name).and_then(|wanted| bytes.checked_sub(*wanted))
            && more > 0
        {
            let object = format!("{directory}/{name}");
            findings.push(damage(object, format!("{more} bytes were added to it")));
        }
    }

    let name = object_key(manifest, BackupObject::Index).to_string();
    let error = match Index::read(cx, repo, manifest).await {
        Ok(index) => return Ok((findings, Some((index, true)))),
        Err(e) if is_damage(&e) => e,
        Err(e) => return Err(e),
    };
    if let Some((object, index)) = repair::newest_copy(cx, repo, manifest).await? {
        let problem =
            format!("{}; the rebuilt {object} is whole and stands in for it", error.chain());
        findings.push(Finding::new(Severity::Warning, name, problem, "none is needed"));
        return Ok((findings, Some((index, false))));
    }
    findings.push(damage_of(name, error.with_remedy("run `holdfast repair index`"))?);
    match Index::rebuild(cx, repo, manifest).await {
        Ok(index) => Ok((findings, Some((index, false)))),
        Err(e) => {
            findings.push(damage_of(manifest.backup.as_str(), e)?);
            Ok((findings, None))
        }
    }
}

/// Looks for damage in the packs of other backups that this one needs, once something cannot be
/// read: to say which, and whom else they hit.
async fn needed(cx: &Context, repo: &Repo, manifest: &Manifest) -> Result<Vec<Finding>> {
    let units: Vec<(BackupId, Unit)> = others(manifest);
    let pass = Pass::start(cx, repo, units.iter().map(|(_, unit)| unit.clone()).collect());
    let seen = pass.finish().await?;
    let problems = units.into_iter().zip(seen).filter_map(|((backup, unit), seen)| {
        let object = unit.digest.name;
        seen.problem.map(|problem| Problem { backup, object, problem })
    });
    let problems = problems.collect();
    users::findings(cx, repo, &manifest.cluster, &manifest.backup, problems).await
}

/// The packs of other backups that a backup needs.
pub(super) fn others(manifest: &Manifest) -> Vec<(BackupId, Unit)> {
    let unit = |backup: &BackupId, digest: &ObjectDigest| {
        let object @ BackupObject::Pack(_) = digest.name.parse().ok()? else { return None };
        let key = Key::Backup(manifest.cluster.clone(), backup.clone(), object);
        Some((backup.clone(), Unit { key, digest: digest.clone() }))
    };
    let needs = manifest.needs.iter();
    needs.flat_map(|n| n.packs.iter().filter_map(|pack| unit(&n.backup, pack))).collect()
}

async fn check_config(repo: &Repo) -> Result<Option<Finding>> {
    let found = repo.store().get(&Key::Config, Config::MAX_BYTES).await;
    let problem = match found.map(|bytes| bytes.as_deref().map(Config::parse)) {
        Ok(None) => "it is missing".to_owned(),
        Ok(Some(Ok(config))) if &config == repo.config() => return Ok(None),
        Ok(Some(Ok(config))) if &config.repository == repo.id() => {
            "it is another one than when the repository was opened".to_owned()
        }
        Ok(Some(Ok(_))) => "it is that of another repository".to_owned(),
        Ok(Some(Err(e))) => e.chain(),
        Err(e) => return damage_of(Key::Config.to_string(), e).map(Some),
    };
    Ok(Some(damage(Key::Config.to_string(), problem)))
}

async fn index_lines(repo: &Repo, manifest: &Manifest) -> Result<Lines> {
    let key = object_key(manifest, BackupObject::Index);
    let place = repo.place(&key);
    let mut lines = Lines::default();
    let bytes = manifest.index.bytes;
    let kind = ObjectKind::Index;
    let mut scanner = Scanner::open(repo.shelf(), &key, &place, kind, bytes, false).await?;
    while let Some(frame) = scanner.next().await? {
        if frame.header.kind == FrameKind::Catalog {
            lines.add_frame(&scanner.open_frame(frame).await?);
        }
    }
    Ok(lines)
}

/// What a person would call the thing that an artifact is a part of.
fn thing(name: &ArtifactName) -> String {
    match name.parts().as_slice() {
        [kind, database, table, ..] if kind == "tables" => format!("table `{database}`.`{table}`"),
        _ => name.to_string(),
    }
}

/// Says which tables and files are hit, and what can still be had.
fn consequences(
    manifest: &Manifest,
    damaged: &[(ArtifactName, Error)],
    lost: u64,
    objects_are_damaged: bool,
) -> Vec<Finding> {
    let mut things: BTreeMap<String, Vec<&(ArtifactName, Error)>> = BTreeMap::new();
    for hit in damaged {
        things.entry(thing(&hit.0)).or_default().push(hit);
    }
    let mut findings: Vec<Finding> = things
        .iter()
        .take(NAMES)
        .map(|(thing, hits)| {
            let others = match hits.len() - 1 {
                0 => String::new(),
                n => format!(" (and {n} more of its artifacts)"),
            };
            let problem = format!("it cannot be restored: {}{others}", hits[0].1.chain());
            damage(thing, problem)
        })
        .collect();
    let backup = manifest.backup.as_str();
    if things.len() > NAMES {
        let problem = format!("{} more tables and files are damaged", things.len() - NAMES);
        findings.push(damage(backup, problem));
    }
    if lost > 0 {
        let problem = format!(
            "{lost} of {} artifacts cannot be found: index and catalog are damaged",
            manifest.totals.artifacts
        );
        findings.push(damage(backup, problem));
    }
    if objects_are_damaged || !findings.is_empty() {
        let all = manifest.totals.artifacts;
        let intact = all.saturating_sub(lost + damaged.len() as u64);
        let (problem, remedy) = if intact == all {
            (format!("all {all} artifacts are intact and can be restored"), RESTORE_ANOTHER)
        } else {
            let problem = format!("{intact} of {all} artifacts are intact");
            // Only there the tables do not need what they have in common.
            match manifest.strategy {
                Strategy::Logical => (
                    problem,
                    "restore what is intact with --tables, and the rest from another backup",
                ),
                _ => (problem, RESTORE_ANOTHER),
            }
        };
        findings.push(
            Finding::new(Severity::Info, backup, problem, remedy).with_kind(ErrorKind::Damaged),
        );
    }
    findings
}
