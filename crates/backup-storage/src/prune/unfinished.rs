//! Backups that were begun and never finished, for those who list.

use std::collections::BTreeSet;

use backup_core::{BackupId, ClusterName, Context, Listed, Result};

use super::survey::{State, look};
use crate::key;
use crate::repo::Repo;

/// What takes space and is no backup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// Backups that were begun, and to which nothing was written for a day.
    pub backups: Vec<(ClusterName, BackupId)>,
    /// What they take.
    pub bytes: u64,
}

/// Finds what the next prune removes of backups that were never finished, besides those `listed`.
/// The clock of this machine decides, so it may be wrong by as much.
///
/// # Errors
/// When the store fails.
pub async fn unfinished(
    cx: &Context,
    repo: &Repo,
    cluster: Option<&ClusterName>,
    listed: &[Listed],
) -> Result<Unfinished> {
    let known: BTreeSet<(&ClusterName, &BackupId)> =
        listed.iter().map(|l| (&l.cluster, &l.backup)).collect();
    let clusters = match cluster {
        Some(cluster) => vec![cluster.clone()],
        None => repo.clusters().await?,
    };
    let mut found = Unfinished::default();
    for cluster in clusters {
        for name in repo.store().list(&key::backups(&cluster)).await?.directories {
            let Ok(backup) = name.parse::<BackupId>() else { continue };
            if known.contains(&(&cluster, &backup)) {
                continue;
            }
            let directory = look(cx, repo, &cluster, backup.clone(), cx.now()).await?;
            if let Some(directory) = directory.filter(|d| matches!(d.state, State::Dead)) {
                found.bytes += directory.bytes();
                found.backups.push((cluster.clone(), backup));
            }
        }
    }
    Ok(found)
}
