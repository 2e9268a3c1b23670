//! Does a backup have what a restore needs before it?

use std::collections::BTreeSet;

use backup_core::{BackupType, Context, Finding, Manifest, Result};

use super::{damage, damage_of};
use crate::repo::Repo;

/// Follows the parents of a backup to the full one. Says where the chain is broken.
pub(super) async fn check_chain(
    cx: &Context,
    repo: &Repo,
    manifest: &Manifest,
) -> Result<Option<Finding>> {
    let name = manifest.backup.as_str();
    let broken = |problem: String| {
        Ok(Some(damage(name, format!("it cannot be restored: its chain is broken: {problem}"))))
    };
    let mut seen = BTreeSet::from([manifest.backup.clone()]);
    let mut child = manifest.clone();
    while let Some(parent) = child.parent.clone() {
        cx.check()?;
        if parent == child.backup {
            return broken(format!("{parent} is its own parent"));
        }
        if !seen.insert(parent.clone()) {
            return broken(format!("{parent} is its own ancestor"));
        }
        child = match repo.manifest(&manifest.cluster, &parent).await {
            Ok(Some(found)) => found,
            Ok(None) => return broken(format!("its parent {parent} is not there")),
            Err(e) => {
                let found = damage_of(name, e.context(format!("its parent {parent} is damaged")))?;
                return Ok(Some(found));
            }
        };
    }
    match child.backup_type {
        BackupType::Full => Ok(None),
        other => broken(format!("{} is {other} and has no parent", child.backup)),
    }
}
