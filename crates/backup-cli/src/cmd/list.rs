//! `holdfast list`

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use backup_core::{
    BackupId, ClusterName, Context, ErrorKind, Event, Level, Listed, Record, RecordEvent,
    Repository, Result, retention,
};
use backup_storage::{RepoUrl, RepositoryOptions, unfinished};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use crate::answer::Answer;
use crate::app::App;
use crate::human::{self, Align};

/// List the backups of a repository
#[derive(clap::Args)]
pub(crate) struct List {
    /// Only those of this cluster [default: all]
    #[arg(long, value_name = "NAME")]
    cluster: Option<ClusterName>,
}

/// The strongest verification of a backup that still counts.
#[derive(Debug, Clone, Serialize)]
struct Proof {
    level: Level,
    ok: bool,
    time: Timestamp,
}

impl List {
    /// Lists.
    pub(crate) async fn run(&self, app: &App) -> Result<Answer> {
        let repo = app.repo_or_copies(RepositoryOptions::default()).await?;
        if let Some(cluster) = &self.cluster {
            app.known(&repo, Some(cluster), cluster).await?;
        }
        let listed = app.cx.run(repo.backups(&app.cx, self.cluster.as_ref())).await?;
        let (known, all_known) = known(&app.cx, &repo, &listed).await?;
        let wanted: BTreeSet<String> =
            app.config.copies()?.iter().map(RepoUrl::absolute).collect::<Result<_>>()?;
        let copies = !wanted.is_empty() || known.values().any(|known| !known.copies.is_empty());
        let none = Known::default();

        let mut document = Vec::new();
        let mut rows = Vec::new();
        let mut ending = (!all_known).then_some(ErrorKind::Warnings);
        for entry in &listed {
            let known = known.get(&entry.backup).unwrap_or(&none);
            let mut line = as_json(entry, known.proof.as_ref());
            line["copies"] = json!(known.copies);
            line["copies_wanted"] = json!(wanted.len());
            document.push(line);
            let mut row = as_row(entry, known.proof.as_ref());
            if copies {
                row.push(known.copies_of(&wanted));
            }
            rows.push(row);
            if let Err(e) = &entry.manifest {
                let text = format!("backup {} cannot be read: {}", entry.backup, e.report());
                app.cx.event(Event::Warning { text });
                ending = Some(ErrorKind::Warnings);
            }
        }
        let left = app.cx.run(unfinished(&app.cx, &repo, self.cluster.as_ref(), &listed)).await?;
        let mut text = if rows.is_empty() {
            "There are no backups here yet.\n".to_owned()
        } else {
            let columns: Vec<_> =
                COLUMNS.into_iter().chain(copies.then_some(("COPIES", Align::Left))).collect();
            human::table(&columns, &rows)
        };
        if !left.backups.is_empty() {
            let backups = human::several(left.backups.len() as u64, "unfinished backup");
            let bytes = human::bytes(left.bytes);
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{backups}, {bytes}; `holdfast prune` removes them:");
            for (cluster, backup) in &left.backups {
                let _ = writeln!(text, "  clusters/{cluster}/backups/{backup}");
            }
        }
        Ok(Answer::new(&document, text)?.ending(ending))
    }
}

/// A copy of a backup, as the history tells it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct CopyLine {
    /// Where: an address without secrets.
    pub(super) to: String,
    repository: String,
    bytes: u64,
    verified: bool,
    pub(super) time: Timestamp,
}

/// What the history tells of a backup.
#[derive(Debug, Default)]
pub(super) struct Known {
    proof: Option<Proof>,
    /// The last one for each place.
    pub(super) copies: Vec<CopyLine>,
}

impl Known {
    /// Takes a record of this backup, after all earlier ones.
    pub(super) fn add(&mut self, time: Timestamp, event: RecordEvent) {
        match event {
            RecordEvent::Proof { level, ok, sampled, .. } => {
                let alone = retention::Proof::None.and(level, ok, sampled.is_some());
                let all = match &self.proof {
                    Some(Proof { level, ok: true, .. }) => retention::Proof::Ok(*level),
                    Some(Proof { level, ok: false, .. }) => retention::Proof::Failed(*level),
                    None => retention::Proof::None,
                }
                .and(level, ok, sampled.is_some());
                // Where it changes nothing, an earlier one is what counts.
                if all == alone {
                    self.proof = match all {
                        retention::Proof::Ok(level) => Some(Proof { level, ok: true, time }),
                        retention::Proof::Failed(level) => Some(Proof { level, ok: false, time }),
                        retention::Proof::None => None,
                    };
                }
            }
            RecordEvent::Copied { to, repository, bytes, verified } => {
                self.copies.retain(|copy| copy.to != to);
                self.copies.push(CopyLine { to, repository, bytes, verified, time });
            }
            _ => {}
        }
    }

    /// `1 of 2` of the places where it should be, and how many others; `1` where it is not said where it
    /// should be.
    fn copies_of(&self, wanted: &BTreeSet<String>) -> String {
        let all = self.copies.len();
        if wanted.is_empty() {
            return all.to_string();
        }
        let there = self.copies.iter().filter(|copy| wanted.contains(&copy.to)).count();
        match all - there {
            0 => format!("{there} of {}", wanted.len()),
            more => format!("{there} of {}, {more} more", wanted.len()),
        }
    }
}

/// What is known of each of the backups, and whether every history could be read for it.
async fn known(
    cx: &Context,
    repo: &dyn Repository,
    listed: &[Listed],
) -> Result<(BTreeMap<BackupId, Known>, bool)> {
    let clusters: BTreeSet<&ClusterName> = listed.iter().map(|entry| &entry.cluster).collect();
    let mut known: BTreeMap<BackupId, Known> = BTreeMap::new();
    let mut all = true;
    for cluster in clusters {
        let Some(records) = history(cx, repo, cluster).await? else {
            all = false;
            continue;
        };
        for Record { time, backup, event } in records {
            if let Some(backup) = backup {
                known.entry(backup).or_default().add(time, event);
            }
        }
    }
    Ok((known, all))
}

/// The history of a cluster. Where it cannot be had, that is told, and no reason to show nothing else.
pub(super) async fn history(
    cx: &Context,
    repo: &dyn Repository,
    cluster: &ClusterName,
) -> Result<Option<Vec<Record>>> {
    match cx.run(repo.records(cx, cluster)).await {
        Err(e) if e.kind() != ErrorKind::Interrupted => {
            let text = format!("the history of {cluster} cannot be read: {}", e.report());
            cx.event(Event::Warning { text });
            Ok(None)
        }
        other => other.map(Some),
    }
}

fn as_json(entry: &Listed, proof: Option<&Proof>) -> serde_json::Value {
    match &entry.manifest {
        Ok(m) => json!({
            "backup": m.backup,
            "cluster": m.cluster,
            "strategy": m.strategy,
            "type": m.backup_type,
            "parent": m.parent,
            "started_at": m.started_at,
            "finished_at": m.finished_at,
            "bytes_stored": m.totals.bytes_stored,
            "rows": m.outcome.rows,
            "proof": proof,
        }),
        Err(e) => json!({
            "backup": entry.backup,
            "cluster": entry.cluster,
            "strategy": null,
            "type": entry.backup.backup_type(),
            "parent": null,
            "started_at": entry.backup.started_at(),
            "finished_at": null,
            "bytes_stored": null,
            "rows": null,
            "proof": proof,
            "error": e.chain(),
        }),
    }
}

const COLUMNS: [(&str, Align); 8] = [
    ("BACKUP", Align::Left),
    ("CLUSTER", Align::Left),
    ("STRATEGY", Align::Left),
    ("FINISHED", Align::Left),
    ("TOOK", Align::Right),
    ("ROWS", Align::Right),
    ("STORED", Align::Right),
    ("PROOF", Align::Left),
];

fn as_row(entry: &Listed, proof: Option<&Proof>) -> Vec<String> {
    let proof = match proof {
        Some(proof) => format!(
            "{} {}, {}",
            proof.level,
            if proof.ok { "ok" } else { "FAILED" },
            human::time(proof.time)
        ),
        None => "none".to_owned(),
    };
    let (backup, cluster) = (entry.backup.to_string(), entry.cluster.to_string());
    match &entry.manifest {
        Ok(m) => vec![
            backup,
            cluster,
            m.strategy.to_string(),
            human::time(m.finished_at),
            human::duration(m.finished_at.duration_since(m.started_at).as_secs_f64()),
            m.outcome.rows.map(human::count).unwrap_or_default(),
            human::bytes(m.totals.bytes_stored),
            proof,
        ],
        Err(_) => {
            let mut row = vec![backup, cluster, "UNREADABLE".to_owned()];
            row.extend(std::iter::repeat_n(String::new(), 4));
            row.push(proof);
            row
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_that_is_shown_is_that_of_retention() {
        let backup: BackupId = "20261120T101530Z-full-7f3a9c".parse().unwrap();
        let levels = [Level::Objects, Level::Content, Level::Logical, Level::Drill];
        let one = levels.into_iter().flat_map(|level| [(level, true), (level, false)]);
        let one: Vec<(Level, bool)> = one.collect();
        let all = one.iter().flat_map(|a| one.iter().map(move |b| (a, b)));
        let all = all.flat_map(|(a, b)| one.iter().map(move |c| [*a, *b, *c]));
        for sequence in all {
            let records = sequence.map(|(level, ok)| Record {
                time: Timestamp::UNIX_EPOCH,
                backup: Some(backup.clone()),
                event: RecordEvent::Proof {
                    level,
                    ok,
                    findings: Vec::new(),
                    duration_seconds: 0.0,
                    sampled: None,
                },
            });
            let mut known = Known::default();
            for record in records.clone() {
                known.add(record.time, record.event);
            }
            let shown = match known.proof.unwrap() {
                Proof { ok: true, level, .. } => retention::Proof::Ok(level),
                Proof { level, .. } => retention::Proof::Failed(level),
            };
            assert_eq!(shown, retention::Proof::of(&backup, &records), "{records:?}");
        }
    }
}
