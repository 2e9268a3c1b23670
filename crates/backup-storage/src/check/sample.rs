//! A part of level `content`: some packs each day, all of them within some days.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{BackupId, Context, Finding, Level, Manifest, Report, Result, Sampled, Severity};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::content::{others, outside};
use super::pack::{Pass, Unit};
use super::users::{self, Problem};
use crate::format::RepositoryId;
use crate::index::key as object_key;
use crate::key::{BackupObject, Key};
use crate::repo::Repo;

/// How much is read a day.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SampleRule {
    /// So many of a hundred packs of every backup, more than 0 and at most 100.
    Percent(f64),
    /// Packs of at most so many bytes over all backups; one pack where it alone is longer.
    Bytes(u64),
}

/// Which packs are read on one day.
///
/// The choice depends on the repository, the pack and the day alone: whoever asks on the same day
/// gets the same packs, and after [`days`](Self::days) days without a gap every pack was read once.
/// Backups that come or go meanwhile change the turn of others only under [`SampleRule::Bytes`].
#[derive(Debug, Clone)]
pub struct SamplePlan {
    chosen: BTreeMap<BackupId, BTreeSet<Key>>,
    days: u64,
}

/// A pack, in the order in which packs have their turn.
struct Turn {
    rank: u64,
    backup: BackupId,
    key: Key,
    bytes: u64,
}

impl SamplePlan {
    /// Chooses among the packs of `manifests`, and among those of other backups that they need.
    #[must_use]
    pub fn new(
        repo: &Repo,
        manifests: &[Manifest],
        rule: SampleRule,
        today: Timestamp,
    ) -> SamplePlan {
        let day = u64::try_from(today.as_second().div_euclid(86_400)).unwrap_or_default();
        let mut seen = BTreeSet::new();
        let mut turns = Vec::new();
        for manifest in manifests {
            for unit in units(manifest) {
                // A pack that several need has one turn.
                if seen.insert(unit.key.clone()) {
                    turns.push(Turn {
                        rank: rank(repo.id(), &unit.key),
                        backup: manifest.backup.clone(),
                        bytes: unit.digest.bytes,
                        key: unit.key,
                    });
                }
            }
        }
        turns.sort_by(|a, b| (a.rank, &a.key).cmp(&(b.rank, &b.key)));
        let (days, chosen) = match rule {
            SampleRule::Percent(percent) => of_each(turns, percent, day),
            SampleRule::Bytes(bytes) => of_all(turns, bytes, day),
        };
        let mut plan = SamplePlan { chosen: BTreeMap::new(), days };
        for turn in chosen {
            plan.chosen.entry(turn.backup).or_default().insert(turn.key);
        }
        plan
    }

    /// After so many days every pack had its turn.
    #[must_use]
    pub fn days(&self) -> u64 {
        self.days
    }

    /// The packs to be read today because of a backup.
    #[must_use]
    pub fn of(&self, backup: &BackupId) -> Vec<&Key> {
        self.chosen.get(backup).into_iter().flatten().collect()
    }
}

/// A number that depends on nothing but repository and pack, and looks random.
fn rank(repository: &RepositoryId, key: &Key) -> u64 {
    let digest = Sha256::digest(format!("sample {repository} {key}"));
    u64::from_le_bytes(*digest.first_chunk().expect("a SHA-256 is longer than 8 bytes"))
}

/// The share of each backup. Where a backup has fewer packs than there are days, some days have none
/// of it; which ones differs from backup to backup.
fn of_each(turns: Vec<Turn>, percent: f64, day: u64) -> (u64, Vec<Turn>) {
    let days = (100.0 / percent.clamp(0.01, 100.0)).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to 10,000")]
    let days = days as u64;
    let mut by_backup: BTreeMap<BackupId, Vec<Turn>> = BTreeMap::new();
    for turn in turns {
        by_backup.entry(turn.backup.clone()).or_default().push(turn);
    }
    let mut chosen = Vec::new();
    for of_one in by_backup.into_values() {
        let count = of_one.len() as u64;
        let start = of_one.first().map_or(0, |first| first.rank) % days;
        let today = (day + start) % days;
        let mine = of_one.into_iter().zip(0..).filter(|(_, n)| n * days / count == today);
        chosen.extend(mine.map(|(turn, _)| turn));
    }
    (days, chosen)
}

/// As many of all as fit into a day, in days of their own one after the other.
fn of_all(turns: Vec<Turn>, limit: u64, day: u64) -> (u64, Vec<Turn>) {
    let mut days: Vec<Vec<Turn>> = Vec::new();
    let mut full = u64::MAX;
    for turn in turns {
        if full.saturating_add(turn.bytes) > limit {
            days.push(Vec::new());
            full = 0;
        }
        full = full.saturating_add(turn.bytes);
        if let Some(last) = days.last_mut() {
            last.push(turn);
        }
    }
    let count = days.len().max(1) as u64;
    let today = usize::try_from(day % count).unwrap_or_default();
    let chosen = if days.is_empty() { Vec::new() } else { days.swap_remove(today) };
    (count, chosen)
}

fn units(manifest: &Manifest) -> Vec<Unit> {
    let own = (0..).zip(&manifest.packs).map(|(number, digest)| Unit {
        key: object_key(manifest, BackupObject::Pack(number)),
        digest: digest.clone(),
    });
    own.chain(others(manifest).into_iter().map(|(_, unit)| unit)).collect()
}

/// Reads the packs that a plan chose of a backup, every frame of them, and the manifest and index as
/// [`check_content`](super::check_content) does.
///
/// An artifact is proven by a digest over all of its bytes; a sample cannot prove that, and the
/// report says so.
///
/// # Errors
/// When a store fails or the run is cancelled. Damage is in the report.
pub async fn check_sample(
    cx: &Context,
    repo: &Repo,
    manifest: &Manifest,
    plan: &SamplePlan,
) -> Result<Report> {
    let repo = &repo.alone();
    let (mut findings, index) = outside(cx, repo, manifest).await?;
    let all = units(manifest);
    let chosen = plan.chosen.get(&manifest.backup).cloned().unwrap_or_default();
    let of = all.len() as u64;
    let units: Vec<Unit> = all.into_iter().filter(|unit| chosen.contains(&unit.key)).collect();
    let bytes = units.iter().map(|unit| unit.digest.bytes).sum();
    let sampled = Sampled { packs: units.len() as u64, of, bytes, days: plan.days };
    cx.progress().expect_bytes(bytes);
    let seen = Pass::start(cx, repo, units.clone()).finish().await?;
    let problems = units.iter().zip(seen).filter_map(|(unit, seen)| {
        let Key::Backup(_, backup, object) = &unit.key else { return None };
        let (backup, object) = (backup.clone(), object.to_string());
        seen.problem.map(|problem| Problem { backup, object, problem })
    });
    let problems = problems.collect();
    let (cluster, backup) = (&manifest.cluster, &manifest.backup);
    findings.extend(users::findings(cx, repo, cluster, backup, problems).await?);
    if let Some(lost) = index.map(|(index, _)| index.lost).filter(|lost| *lost > 0) {
        let problem = format!("the catalog of {lost} artifacts is damaged");
        findings.push(super::damage(backup.as_str(), problem));
    }
    let days = match sampled.days {
        1 => "today".to_owned(),
        n => format!("in {n} days, with a sample on each"),
    };
    findings.push(Finding::new(
        Severity::Info,
        backup.as_str(),
        format!(
            "a sample: {} of {of} packs were read; every pack had its turn {days}; the digests of \
             whole tables and files are not proven by samples",
            sampled.packs
        ),
        "for a proof of the whole, verify without --percent and --max-bytes",
    ));
    Ok(Report { sampled: Some(sampled), ..Report::new(Level::Content, findings) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn turns(backups: &[u8], seed: u64) -> Vec<Turn> {
        let mut turns = Vec::new();
        for (b, packs) in backups.iter().enumerate() {
            let backup: BackupId = format!("20261120T101530Z-full-{b:06x}").parse().unwrap();
            for n in 0..u32::from(*packs) {
                let key = Key::Backup("c".parse().unwrap(), backup.clone(), BackupObject::Pack(n));
                let rank = u64::from_le_bytes(
                    *Sha256::digest(format!("{seed} {key}")).first_chunk().unwrap(),
                );
                turns.push(Turn { rank, backup: backup.clone(), key, bytes: 10 + u64::from(n) });
            }
        }
        turns.sort_by(|a, b| (a.rank, &a.key).cmp(&(b.rank, &b.key)));
        turns
    }

    proptest! {
        #[test]
        fn every_pack_has_its_turn_once(
            backups in prop::collection::vec(0u8..40, 0..6),
            seed: u64,
            percent in 0.5f64..100.0,
            start in 0u64..50_000,
        ) {
            let all = turns(&backups, seed).len();
            let days = of_each(turns(&backups, seed), percent, start).0;
            prop_assert_eq!(days, (100.0 / percent).ceil() as u64);
            let mut seen = BTreeSet::new();
            for day in start..start + days {
                for turn in of_each(turns(&backups, seed), percent, day).1 {
                    prop_assert!(seen.insert(turn.key));
                }
            }
            prop_assert_eq!(seen.len(), all);
        }

        #[test]
        fn no_day_reads_more_than_it_may(
            backups in prop::collection::vec(0u8..40, 0..6),
            seed: u64,
            limit in 1u64..2_000,
            start in 0u64..50_000,
        ) {
            let all = turns(&backups, seed).len();
            let days = of_all(turns(&backups, seed), limit, start).0;
            let mut seen = BTreeSet::new();
            for day in start..start + days {
                let today = of_all(turns(&backups, seed), limit, day).1;
                let bytes: u64 = today.iter().map(|turn| turn.bytes).sum();
                prop_assert!(bytes <= limit || today.len() == 1);
                for turn in today {
                    prop_assert!(seen.insert(turn.key));
                }
            }
            prop_assert_eq!(seen.len(), all);
        }
    }
}
