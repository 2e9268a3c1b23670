//! Chains: what a restore needs, in order.

use std::collections::HashMap;
use std::fmt;

use crate::error::{Error, ErrorKind};
use crate::id::{BackupId, BackupType};
use crate::manifest::Manifest;

/// What a restore needs, in order. Chains are pure: they decide from records alone.
pub trait Chain {
    /// One element of the chain.
    type Link;
    /// A point that a restore may ask for.
    type Target;

    /// The elements, in the order in which a restore applies them.
    fn links(&self) -> &[Self::Link];

    /// Whether every link joins the one before it.
    ///
    /// # Errors
    /// The first place where it does not.
    fn check(&self) -> Result<(), ChainBreak>;

    /// The links that lead to `target` and nothing more.
    ///
    /// # Errors
    /// When the target is not on the chain.
    fn plan(&self, target: &Self::Target) -> Result<RestorePlan, Unreachable>;
}

/// The place where a chain is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{link}: {problem}")]
pub struct ChainBreak {
    /// The link that does not join.
    pub link: String,
    /// Why not.
    pub problem: String,
}

impl From<ChainBreak> for Error {
    fn from(broken: ChainBreak) -> Error {
        Error::damaged("the chain of backups is broken")
            .with_source(broken)
            .with_remedy("restore an earlier backup, and take a full backup now")
    }
}

/// A target that a chain does not reach.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{target} is not reachable: {problem}")]
pub struct Unreachable {
    /// What was asked for.
    pub target: String,
    /// Why it cannot be had, and the nearest points before and after.
    pub problem: String,
    /// Whether what is there at the beginning goes further than that already.
    pub passed: bool,
}

impl Unreachable {
    /// A point that lies before what is there already.
    #[must_use]
    pub fn passed(target: impl fmt::Display, there: impl fmt::Display) -> Self {
        let problem = format!("it lies before what is there already, up to {there}");
        Unreachable { target: target.to_string(), problem, passed: true }
    }
}

impl From<Unreachable> for Error {
    fn from(unreachable: Unreachable) -> Error {
        let passed = unreachable.passed;
        let error = Error::new(ErrorKind::Unreachable, "there is no way to that point")
            .with_source(unreachable);
        match passed {
            true => error.with_remedy(
                "restore an earlier backup to that point; `holdfast list` shows which there are",
            ),
            false => error,
        }
    }
}

/// The backups to restore, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestorePlan {
    /// Base first.
    pub backups: Vec<BackupId>,
}

/// The chain of backups that ends in one backup: a full one, then increments, each the child of the
/// one before.
#[derive(Debug, Clone)]
pub struct BackupChain {
    links: Vec<Manifest>,
    missing: Option<ChainBreak>,
}

impl BackupChain {
    /// The chain to `last`, its ancestors looked up among `known`.
    #[must_use]
    pub fn to(last: &Manifest, known: &[Manifest]) -> Self {
        let by_id: HashMap<&BackupId, &Manifest> = known.iter().map(|m| (&m.backup, m)).collect();
        let mut links = vec![last.clone()];
        let mut missing = None;
        while let Some(parent) = links.last().and_then(|m| m.parent.clone()) {
            let problem = match by_id.get(&parent) {
                Some(_) if links.iter().any(|m| m.backup == parent) => "is its own ancestor",
                Some(&manifest) => {
                    links.push(manifest.clone());
                    continue;
                }
                None => "is needed but not in the repository",
            };
            missing = Some(ChainBreak { link: parent.to_string(), problem: problem.to_owned() });
            break;
        }
        links.reverse();
        BackupChain { links, missing }
    }
}

impl Chain for BackupChain {
    type Link = Manifest;
    type Target = BackupId;

    fn links(&self) -> &[Manifest] {
        &self.links
    }

    fn check(&self) -> Result<(), ChainBreak> {
        if let Some(missing) = &self.missing {
            return Err(missing.clone());
        }
        let broken =
            |m: &Manifest, problem: String| Err(ChainBreak { link: m.backup.to_string(), problem });
        for (i, link) in self.links.iter().enumerate() {
            let Some(previous) = i.checked_sub(1).map(|p| &self.links[p]) else {
                if link.backup_type != BackupType::Full {
                    return broken(link, format!("is {} but has no parent", link.backup_type));
                }
                continue;
            };
            if link.backup_type == BackupType::Full {
                return broken(link, "is full but has a parent".into());
            }
            if link.backup_type == BackupType::Differential
                && previous.backup_type != BackupType::Full
            {
                return broken(
                    link,
                    format!("is differential but its parent {} is not full", previous.backup),
                );
            }
            if link.cluster != previous.cluster || link.strategy != previous.strategy {
                return broken(
                    link,
                    format!(
                        "is of another cluster or strategy than its parent {}",
                        previous.backup
                    ),
                );
            }
            if link.outcome.source.server_uuid != previous.outcome.source.server_uuid {
                return broken(
                    link,
                    format!("was read from another server than its parent {}", previous.backup),
                );
            }
        }
        Ok(())
    }

    fn plan(&self, target: &BackupId) -> Result<RestorePlan, Unreachable> {
        let unreachable =
            |problem: String| Unreachable { target: target.to_string(), problem, passed: false };
        let Some(end) = self.links.iter().position(|m| &m.backup == target) else {
            return Err(unreachable("it is not on this chain".into()));
        };
        let part =
            BackupChain { links: self.links[..=end].to_vec(), missing: self.missing.clone() };
        part.check().map_err(|b| unreachable(b.to_string()))?;
        Ok(RestorePlan { backups: part.links.into_iter().map(|m| m.backup).collect() })
    }
}
