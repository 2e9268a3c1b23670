//! Removing what has to go, in an order that leaves every listed backup whole at every step.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{BackupId, ClusterName, Error, FORMAT, Result};
use jiff::Timestamp;
use serde::Serialize;

use super::report::{PruneReport, Refused};
use super::survey::{Builds, Directory, Held, State};
use super::{Id, Run};
use crate::format::GivenUp;
use crate::key::{self, BackupObject, Key};
use crate::marker;
use crate::marks::ZOMBIE;
use crate::repo::WRITER;
use crate::store::{Created, Deleted};

/// The content of `retired`.
#[derive(Debug, Serialize)]
struct Retired<'a> {
    format: u32,
    backup: &'a BackupId,
    /// By the clock of the store.
    at: Timestamp,
    by: &'a str,
    writer: &'a str,
}

/// Gives up backups in progress that are dead: from now on their manifests cannot be created. True
/// when one was not dead after all, so that things are not as they were.
pub(super) async fn bury(
    run: &Run<'_>,
    directories: &mut [Directory],
    report: &mut PruneReport,
) -> Result<bool> {
    let mut changed = false;
    for directory in directories.iter_mut().filter(|d| matches!(d.state, State::Dead)) {
        run.check()?;
        let (cluster, backup) = directory.id();
        let given_up = GivenUp {
            at: run.now,
            reason: "nothing was written to its directory for a day".to_owned(),
        };
        let created = marker::bury(run.cx, run.repo, &cluster, &backup, given_up).await?;
        if created == Created::New {
            directory.state = State::GivenUp;
            report.leftovers.unfinished += 1;
            report.leftovers.unfinished_bytes += directory.bytes();
        } else {
            // Its writer finished it after all, or somebody takes over what it has: who does so said
            // it before, and is seen by a second look.
            directory.state = State::Active(Builds::Unknown);
            changed = true;
        }
    }
    Ok(changed)
}

/// One sweep.
pub(super) struct Sweep<'a> {
    run: &'a Run<'a>,
    pub(super) directories: Vec<Directory>,
    held: &'a Held,
    /// What may be removed.
    due: &'a BTreeSet<Id>,
    /// What marks named before the look at the directories, as to be removed or as removed.
    marked: &'a BTreeSet<Id>,
    /// What should be removed and stays, and why.
    pub(super) stays: BTreeMap<Id, String>,
    /// What was removed, in this run.
    pub(super) removed: BTreeSet<Id>,
}

impl<'a> Sweep<'a> {
    pub(super) fn new(
        run: &'a Run<'a>,
        directories: Vec<Directory>,
        held: &'a Held,
        due: &'a BTreeSet<Id>,
        marked: &'a BTreeSet<Id>,
    ) -> Self {
        Sweep {
            run,
            directories,
            held,
            due,
            marked,
            stays: BTreeMap::new(),
            removed: BTreeSet::new(),
        }
    }

    /// Removes an object, unless this is a dry run; false when the store does not allow it.
    pub(super) async fn delete(&self, key: &Key, report: &mut PruneReport) -> Result<bool> {
        if self.run.lease.is_none() {
            return Ok(true);
        }
        self.run.check()?;
        for store in self.run.repo.shelf().stores_of(key).await? {
            if let Deleted::Refused(e) = store.try_delete(key).await? {
                report.refused.push(Refused { object: key.to_string(), reason: e.chain() });
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Removes the manifests of what is due, children before their parents: an increment that is
    /// listed has its chain.
    pub(super) async fn retire(&mut self, report: &mut PruneReport) -> Result<BTreeSet<Id>> {
        let mut parents: BTreeMap<Id, Id> = BTreeMap::new();
        for directory in &self.directories {
            if let State::Backup(known) = &directory.state
                && let Some(parent) = &known.facts.parent
            {
                let (cluster, backup) = directory.id();
                parents.insert((cluster.clone(), backup), (cluster, parent.clone()));
            }
        }
        let depth = |id: &Id| {
            std::iter::successors(Some(id), |id| parents.get(*id)).take(parents.len() + 1).count()
        };
        let mut order: Vec<usize> = (0..self.directories.len())
            .filter(|&i| {
                matches!(self.directories[i].state, State::Backup(_))
                    && self.due.contains(&self.directories[i].id())
            })
            .collect();
        order.sort_by_key(|&i| std::cmp::Reverse(depth(&self.directories[i].id())));
        for index in order {
            let id = self.directories[index].id();
            let child = parents.iter().find(|(c, p)| **p == id && !self.removed.contains(*c));
            // It may not know yet that the manifest was stored, stand still, and store it again.
            let signed = self.directories[index].last_sign();
            if signed.is_some_and(|at| self.run.now.duration_since(at) < ZOMBIE) {
                self.stays.insert(id, "its writer has not said yet that it is done".to_owned());
            } else if self.held.holds(&id.0, &id.1) {
                self.stays.insert(id, "a backup in progress builds on it".to_owned());
            } else if let Some(((_, child), _)) = child {
                self.stays.insert(id, format!("{child} goes first"));
            } else if self.retire_one(index, report).await? {
                self.directories[index].state = State::Retired;
                self.removed.insert(id);
            } else {
                self.stays.insert(id, "the store does not let its manifest go".to_owned());
            }
        }
        Ok(self.removed.clone())
    }

    async fn retire_one(&self, index: usize, report: &mut PruneReport) -> Result<bool> {
        let directory = &self.directories[index];
        if self.run.lease.is_some() {
            let retired = Retired {
                format: FORMAT,
                backup: &directory.backup,
                at: self.run.now,
                by: &self.run.options.holder,
                writer: WRITER,
            };
            let mut json = serde_json::to_vec_pretty(&retired).map_err(|e| {
                Error::internal("what retires a backup cannot be written").with_source(e)
            })?;
            json.push(b'\n');
            self.run.check()?;
            // Where it is there already, an earlier run got as far as this.
            self.run.repo.store().create(&directory.key(BackupObject::Retired), json).await?;
        }
        self.delete(&directory.key(BackupObject::Manifest), report).await
    }

    /// The packs that listed backups need of others.
    fn needed(&self) -> BTreeSet<(&ClusterName, &BackupId, &str)> {
        let mut needed = BTreeSet::new();
        for directory in &self.directories {
            if let State::Backup(known) = &directory.state {
                for (backup, packs) in &known.needs {
                    let packs = packs.iter().map(|p| (&directory.cluster, backup, p.as_str()));
                    needed.extend(packs);
                }
            }
        }
        needed
    }

    /// Frees what is left of removed and given up backups, as far as nothing needs it.
    pub(super) async fn free(&self, report: &mut PruneReport) -> Result<()> {
        let needed = self.needed();
        for directory in &self.directories {
            match &directory.state {
                State::Retired
                    if !self.held.holds_all(&directory.cluster) && self.may_go(directory) =>
                {
                    self.free_retired(directory, &needed, report).await?;
                }
                // A later backup may be taking over what this one had finished.
                State::GivenUp if self.held.holds(&directory.cluster, &directory.backup) => {}
                State::GivenUp => self.free_given_up(directory, &needed, report).await?,
                State::Dead => {
                    // Only a dry run finds one here.
                    report.leftovers.unfinished += 1;
                    report.leftovers.unfinished_bytes += directory.bytes();
                    report.bytes_freed += directory.bytes();
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether no copy can have begun to bring a removed backup back, unseen: a mark named it before.
    fn may_go(&self, directory: &Directory) -> bool {
        let id = directory.id();
        self.run.lease.is_none() || self.removed.contains(&id) || self.marked.contains(&id)
    }

    async fn free_retired(
        &self,
        directory: &Directory,
        needed: &BTreeSet<(&ClusterName, &BackupId, &str)>,
        report: &mut PruneReport,
    ) -> Result<()> {
        let earlier = !self.removed.contains(&directory.id());
        let mut left = false;
        for (name, meta) in &directory.found.objects {
            let Ok(kind) = name.parse::<BackupObject>() else {
                left = true;
                let path = format!("{}/{name}", key::backup(&directory.cluster, &directory.backup));
                let text =
                    format!("{path} is not part of a backup; holdfast leaves it where it is");
                report.warnings.push(text);
                continue;
            };
            if matches!(kind, BackupObject::Retired | BackupObject::Manifest) {
                continue;
            }
            if needed.contains(&(&directory.cluster, &directory.backup, name.as_str())) {
                left = true;
                report.bytes_kept += meta.bytes;
            } else if self.delete(&directory.key(kind), report).await? {
                report.bytes_freed += meta.bytes;
                if earlier {
                    report.leftovers.retired += 1;
                    report.leftovers.retired_bytes += meta.bytes;
                }
            } else {
                left = true;
            }
        }
        if !left {
            self.delete(&directory.key(BackupObject::Retired), report).await?;
        }
        Ok(())
    }

    /// Removes everything but the tombstone; that too when no writer can come back any more.
    /// What a later backup took over stays too, and what others need of a backup that was removed and
    /// that a copy did not bring back: `retired` tells of it when the tombstone is gone.
    async fn free_given_up(
        &self,
        directory: &Directory,
        needed: &BTreeSet<(&ClusterName, &BackupId, &str)>,
        report: &mut PruneReport,
    ) -> Result<()> {
        let mut last = Vec::new();
        let mut retired = None;
        let mut left = false;
        for (name, meta) in &directory.found.objects {
            match name.parse::<BackupObject>() {
                Ok(BackupObject::Manifest) => {}
                Ok(BackupObject::Retired) => retired = Some((BackupObject::Retired, meta.bytes)),
                Ok(BackupObject::Active) => last.push((BackupObject::Active, meta.bytes)),
                Ok(_) if needed.contains(&(&directory.cluster, &directory.backup, name)) => {
                    left = true;
                    report.bytes_kept += meta.bytes;
                }
                Ok(kind) => {
                    if self.delete(&directory.key(kind), report).await? {
                        report.bytes_freed += meta.bytes;
                    } else {
                        left = true;
                    }
                }
                Err(()) => left = true,
            }
        }
        let explained = left && retired.is_some();
        for (kind, bytes) in last.into_iter().chain(retired.filter(|_| !left)) {
            if self.delete(&directory.key(kind), report).await? {
                report.bytes_freed += bytes;
            } else {
                left = true;
            }
        }
        // It is missing here when it was created in this run.
        let tombstone = directory.get(BackupObject::Manifest);
        let old = tombstone.is_some_and(|t| self.run.now.duration_since(t.modified) >= ZOMBIE);
        if old
            && (explained || !left)
            && self.delete(&directory.key(BackupObject::Manifest), report).await?
        {
            report.leftovers.other += 1;
        }
        Ok(())
    }
}
