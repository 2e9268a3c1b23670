//! Removing archived binlogs that no backup needs any more.
//!
//! They need no marks of their own: nothing builds on a segment. What makes one needed is a backup,
//! and that waits under its mark; as long as it is listed, and for the whole run that removes it, its
//! binlogs stay. They go by a later run, from the oldest on, so that no hole is made wherever a run is
//! stopped.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{
    BinlogChain, BinlogServer, ClusterName, ReplayBase, Repository, Result, SegmentInfo,
    SegmentStore,
};
use jiff::{SignedDuration, Timestamp};

use super::Run;
use super::report::{PruneReport, PrunedBinlogs};
use super::survey::{Directory, State};
use super::sweep::Sweep;
use crate::key::Key;

/// The archived binlogs of a cluster.
pub(super) struct Binlogs {
    cluster: ClusterName,
    /// What goes, from the oldest on, with the length of its object.
    unneeded: Vec<(SegmentInfo, u64)>,
    kept: u64,
    /// Why nothing goes.
    held: Option<String>,
}

/// Looks which binlogs no listed backup needs. Before any backup is removed: those that this run
/// removes count too.
pub(super) async fn look(run: &Run<'_>, directories: &[Directory]) -> Result<Vec<Binlogs>> {
    let clusters = match &run.options.cluster {
        Some(cluster) => vec![cluster.clone()],
        None => run.repo.clusters().await?,
    };
    let mut found = Vec::new();
    for cluster in clusters {
        run.check()?;
        let listed = run.repo.segments(run.cx, &cluster).await?;
        if listed.is_empty() {
            continue;
        }
        let mut binlogs = Binlogs {
            cluster: cluster.clone(),
            unneeded: Vec::new(),
            kept: listed.len() as u64,
            held: None,
        };
        let of_cluster = || directories.iter().filter(|d| d.cluster == cluster);
        // It may be of an earlier moment than those that are finished: of a replica that lags.
        if of_cluster().any(|d| matches!(d.state, State::Active(_))) {
            binlogs.held = Some("a backup is in progress, and may need them".to_owned());
            found.push(binlogs);
            continue;
        }
        let mut bases = Vec::new();
        for listed in run.repo.backups(run.cx, Some(&cluster)).await? {
            match listed.manifest {
                Ok(manifest) => bases.push(ReplayBase::of(&manifest)),
                Err(_) => {
                    binlogs.held = Some(format!(
                        "the manifest of {} cannot be read, and it may need them",
                        listed.backup
                    ));
                }
            }
        }
        if binlogs.held.is_none() {
            let damaged: BTreeSet<BinlogServer> =
                listed.iter().filter(|l| l.info.is_err()).map(|l| l.server.clone()).collect();
            if let Some(server) = damaged.first() {
                binlogs.held = Some(format!("segments of {server} cannot be read"));
            }
            let stored: BTreeMap<(BinlogServer, u64), u64> =
                listed.iter().map(|l| ((l.server.clone(), l.seq), l.stored)).collect();
            let infos = listed.into_iter().filter_map(|l| l.info.ok()).collect();
            let chain = BinlogChain::new(infos);
            let mut unneeded: Vec<(SegmentInfo, u64)> = Vec::new();
            for segment in chain.unneeded(&bases) {
                let key = (segment.server.clone(), segment.seq);
                let bytes = stored.get(&key).copied().unwrap_or_default();
                unneeded.push((segment.clone(), bytes));
            }
            unneeded.sort_by(|(a, _), (b, _)| (&a.server, a.seq).cmp(&(&b.server, b.seq)));
            if binlogs.held.is_none() {
                binlogs.unneeded = old_enough(run, unneeded);
            }
        }
        binlogs.kept -= binlogs.unneeded.len() as u64;
        found.push(binlogs);
    }
    Ok(found)
}

/// Those that are older than what stays in any case, of each server up to the first that is not.
fn old_enough(run: &Run<'_>, unneeded: Vec<(SegmentInfo, u64)>) -> Vec<(SegmentInfo, u64)> {
    let options = run.options;
    let reach = options.keep_binlogs.unwrap_or(SignedDuration::ZERO);
    let young = |time: Timestamp, than: SignedDuration| run.now.duration_since(time) < than;
    let mut ended: BTreeSet<BinlogServer> = BTreeSet::new();
    unneeded
        .into_iter()
        .filter(|(segment, _)| {
            // The clock of the server and ours: whichever says that it is younger.
            let last = segment.last_time.unwrap_or(segment.archived_at).max(segment.archived_at);
            let stays = young(last, reach)
                || young(segment.archived_at, options.policy.grace.max(options.wait));
            if stays {
                ended.insert(segment.server.clone());
            }
            !ended.contains(&segment.server)
        })
        .collect()
}

/// Removes what was found.
pub(super) async fn remove(
    sweep: &Sweep<'_>,
    found: Vec<Binlogs>,
    report: &mut PruneReport,
) -> Result<()> {
    for Binlogs { cluster, unneeded, kept, held } in found {
        let mut pruned = PrunedBinlogs { cluster, removed: 0, bytes: 0, upto: None, kept, held };
        let mut refused: BTreeSet<BinlogServer> = BTreeSet::new();
        for (segment, bytes) in unneeded {
            // Behind one that stays nothing goes.
            if refused.contains(&segment.server) {
                pruned.kept += 1;
                continue;
            }
            let key = Key::Segment(segment.cluster.clone(), segment.server.clone(), segment.seq);
            if !sweep.delete(&key, report).await? {
                refused.insert(segment.server);
                pruned.kept += 1;
                continue;
            }
            pruned.removed += 1;
            pruned.bytes += bytes;
            pruned.upto = pruned.upto.max(segment.last_time);
            report.bytes_freed += bytes;
        }
        report.binlogs.push(pruned);
    }
    Ok(())
}
