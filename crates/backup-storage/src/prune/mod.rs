//! Removing backups: plan, mark, wait, sweep.
//!
//! ```text
//! survey ── retention ── marks ── wait ── survey ── sweep ─┬ retire   manifests, children first
//!                                                          ├ free     packs that nothing needs
//!                                                          └ tidy     what others left behind
//! ```
//!
//! Nothing here relies on being alone, on finishing, or on its own clock: see `docs/adr/0009-pruning.md`.

mod binlogs;
mod report;
mod survey;
mod sweep;
mod tidy;
mod unfinished;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use backup_core::retention::{Decision, Plan, Policy, Verdict, plan_marked};
use backup_core::{BackupId, ClusterName, Context, ErrorKind, Event, Result};
use jiff::{SignedDuration, Timestamp};

pub use report::{Fate, Leftovers, PruneReport, Pruned, PrunedBinlogs, Refused};
pub use unfinished::{Unfinished, unfinished};

use crate::key::{Key, LeaseName};
use crate::lease::Lease;
use crate::marks::{self, Named, StoredMark, Victim};
use crate::repo::Repo;
use survey::{Directory, Held, State, candidates, survey};
use sweep::Sweep;
/// The clocks of this machine and the store may differ by so much without a word.
const CLOCKS: SignedDuration = SignedDuration::from_hours(1);
/// A prune that is silent for twice as long may be taken over.
const TTL: Duration = Duration::from_secs(300);

type Id = (ClusterName, BackupId);

/// What a prune is asked to do.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// Only this cluster.
    pub cluster: Option<ClusterName>,
    /// What is to be kept. An empty one removes what earlier plans named, and leftovers.
    pub policy: Policy,
    /// How long a plan is public before anything is removed by it. The default is 24 hours.
    pub wait: SignedDuration,
    /// Binlogs of this time stay, even where no backup needs them. What backups need stays anyway.
    pub keep_binlogs: Option<SignedDuration>,
    /// Whether to say only what would be done. Nothing is written then.
    pub dry_run: bool,
    /// Who this is, for people who find the lease taken: host and process.
    pub holder: String,
}

impl Default for PruneOptions {
    fn default() -> Self {
        PruneOptions {
            cluster: None,
            policy: Policy::default(),
            wait: SignedDuration::from_hours(24),
            keep_binlogs: None,
            dry_run: false,
            holder: "a program".to_owned(),
        }
    }
}

/// Removes backups that no rule keeps and leftovers that nobody needs.
///
/// It may be interrupted anywhere, and run again: at any moment a backup that is listed can be read.
///
/// # Errors
/// [`ErrorKind::Busy`](backup_core::ErrorKind::Busy) while another prune runs, and when the store
/// fails. What the store does not allow to be removed is in the report.
pub async fn prune(cx: &Context, repo: &Repo, options: &PruneOptions) -> Result<PruneReport> {
    run(cx, repo, options).await.map_err(|e| match e.kind() {
        // Who prunes because the disk is full cannot be told to prune.
        ErrorKind::Space => e.with_remedy(
            "a prune writes down what it removes before it does: free a few MiB of the disk by \
             something that is no part of the repository, or run it as root where the file system \
             keeps blocks for root; then run it again",
        ),
        _ => e,
    })
}

async fn run(cx: &Context, repo: &Repo, options: &PruneOptions) -> Result<PruneReport> {
    // Every tier, before anything is decided: what a tier that is away holds of a removed backup
    // would stay there for ever.
    repo.shelf().stores().await?;
    if options.dry_run {
        cx.phase("prune");
        let report = Run { cx, repo, options, lease: None, now: cx.now() }.go().await?;
        return Ok(told(cx, report));
    }
    let store = repo.store();
    let lease = Lease::acquire(cx, store, LeaseName::Prune, &options.holder, TTL).await?;
    cx.phase("prune");
    let now = store.now(cx).await?;
    // What is younger stays; so the clock that is behind is the one to believe.
    let ours = cx.now();
    let run = Run { cx, repo, options, lease: Some(&lease), now: now.min(ours) };
    let result = run.go().await;
    if let Err(e) = lease.release().await {
        cx.note(format!("the lease was not given back: {}", e.chain()));
    }
    let mut report = result?;
    if now.duration_since(ours).abs() > CLOCKS {
        report.warnings.push(format!(
            "the clock of this machine says {ours}, that of the store {now}: the earlier one counts"
        ));
    }
    Ok(told(cx, report))
}

fn told(cx: &Context, report: PruneReport) -> PruneReport {
    for text in &report.warnings {
        cx.event(Event::Warning { text: text.clone() });
    }
    report
}

/// One run.
struct Run<'a> {
    cx: &'a Context,
    repo: &'a Repo,
    options: &'a PruneOptions,
    /// `None` in a dry run.
    lease: Option<&'a Lease>,
    now: Timestamp,
}

/// Backups that marks name.
#[derive(Clone)]
struct Marks {
    stored: Vec<StoredMark>,
    /// The time of the oldest mark that names a backup.
    named: BTreeMap<Id, Timestamp>,
    /// Those, and those that were named and are kept after all.
    barred: BTreeSet<Id>,
    /// Backups that are said to be removed.
    removed: BTreeSet<Id>,
}

impl Run<'_> {
    async fn survey(&self) -> Result<Vec<Directory>> {
        survey(self.cx, self.repo, self.options.cluster.as_ref(), self.now).await
    }

    async fn go(&self) -> Result<PruneReport> {
        let mut report = PruneReport {
            dry_run: self.options.dry_run,
            rules: !self.options.policy.is_empty(),
            ..PruneReport::default()
        };
        // Marks first, always: only what was marked before the look at a directory may be removed
        // from it, since a backup that began after the mark does not build on it.
        let mut known = Marks::read(self).await?;
        let mut directories = self.survey().await?;
        // Before anything is decided: what a dead one built on is free only when it cannot come
        // back.
        if self.lease.is_some() && sweep::bury(self, &mut directories, &mut report).await? {
            directories = self.survey().await?;
        }
        let mut plan = self.plan(&directories, &known);
        let spared = self.spare(&plan, &known).await?;
        let marked = self.mark(&plan, &known, &directories).await?;
        let mut marks = known.clone();
        if spared || marked {
            marks = Marks::read(self).await?;
            if self.options.wait.is_zero() {
                known = marks.clone();
                directories = self.survey().await?;
                plan = self.plan(&directories, &known);
            }
        }
        report.warnings.extend(warnings(&plan, &directories));
        let wanted: BTreeSet<Id> =
            plan.removed().map(|v| (v.cluster.clone(), v.backup.clone())).collect();
        let due = |id: &Id| match known.named.get(id) {
            Some(since) => {
                self.now.duration_since(*since) >= self.options.wait || self.options.wait.is_zero()
            }
            None => self.lease.is_none() && self.options.wait.is_zero(),
        };
        let due: BTreeSet<Id> = wanted.iter().filter(|id| due(id)).cloned().collect();
        let binlogs = binlogs::look(self, &directories).await?;
        let held = Held::by(&directories);
        let marked = known.named.keys().chain(&known.removed).cloned().collect();
        let mut sweep = Sweep::new(self, directories, &held, &due, &marked);
        let removed = sweep.retire(&mut report).await?;
        sweep.free(&mut report).await?;
        binlogs::remove(&sweep, binlogs, &mut report).await?;
        tidy::tidy(self, &sweep, &known.stored, &marks.stored, &mut report).await?;
        for directory in
            sweep.directories.iter().filter(|d| d.is_listed() || removed.contains(&d.id()))
        {
            report.backups.push(self.pruned(
                directory,
                &plan,
                &marks,
                &removed,
                &wanted,
                &sweep.stays,
            ));
        }
        report.backups.sort_by(|a, b| (&a.cluster, &a.backup).cmp(&(&b.cluster, &b.backup)));
        Ok(report)
    }

    fn plan(&self, directories: &[Directory], marks: &Marks) -> Plan {
        let candidates = candidates(directories);
        let policy = &self.options.policy;
        if policy.is_empty() {
            let named = marks.named.keys().cloned().collect();
            plan_marked(&candidates, &named, policy.grace, self.now)
        } else {
            let mut plan = policy.plan(&candidates, self.now);
            // What a mark names may go at any moment, by a prune that stood still: until that is
            // over it takes no place, and is not the last that is proven.
            let clear: Vec<_> = candidates
                .into_iter()
                .filter(|c| !marks.barred.contains(&(c.cluster.clone(), c.backup.clone())))
                .collect();
            let mut strict = policy.plan(&clear, self.now).verdicts.into_iter().peekable();
            for verdict in &mut plan.verdicts {
                let same =
                    |v: &Verdict| (&v.cluster, &v.backup) == (&verdict.cluster, &verdict.backup);
                if let Some(stricter) = strict.next_if(same)
                    && verdict.decision == Decision::Remove
                {
                    verdict.decision = stricter.decision;
                }
            }
            plan
        }
    }

    /// Takes back marks of backups that are kept after all. They stay barred for a while: a prune
    /// that stood still may still remove them.
    async fn spare(&self, plan: &Plan, marks: &Marks) -> Result<bool> {
        if self.lease.is_none() || self.options.policy.is_empty() {
            return Ok(false);
        }
        let kept: BTreeSet<(&ClusterName, &BackupId)> =
            plan.kept().map(|v| (&v.cluster, &v.backup)).collect();
        let mut changed = false;
        for stored in &marks.stored {
            let Some(mark) = &stored.mark else { continue };
            let spared: Vec<Victim> = mark
                .victims
                .iter()
                .filter(|v| kept.contains(&(&v.cluster, &v.backup)))
                .map(|v| Victim { reason: "it is kept after all".into(), ..v.clone() })
                .collect();
            if spared.is_empty() {
                continue;
            }
            // The others are in the new mark too, and wait again: not for a moment may one be in none.
            let others = mark
                .victims
                .iter()
                .filter(|v| !kept.contains(&(&v.cluster, &v.backup)))
                .cloned()
                .collect();
            let named = Named { victims: others, spared, ..Named::default() };
            marks::create(self.cx, self.repo.store(), named).await?;
            if !mark.removed.is_empty() {
                self.say_removed(mark.removed.clone()).await?;
            }
            self.check()?;
            self.repo.store().delete(&Key::Mark(stored.name.clone())).await?;
            changed = true;
        }
        Ok(changed)
    }

    /// Marks what has to go and is in no mark yet; and what is only left of removed backups, so that no
    /// copy begins to bring one back while it is freed.
    async fn mark(&self, plan: &Plan, marks: &Marks, directories: &[Directory]) -> Result<bool> {
        if self.lease.is_none() {
            return Ok(false);
        }
        let new: Vec<Victim> = plan
            .removed()
            .filter(|v| !marks.named.contains_key(&(v.cluster.clone(), v.backup.clone())))
            .map(|v| Victim {
                cluster: v.cluster.clone(),
                backup: v.backup.clone(),
                reason: "no rule keeps it".to_owned(),
            })
            .collect();
        let named = |id: &Id| marks.removed.contains(id) || marks.named.contains_key(id);
        let left = directories.iter().filter(|d| matches!(d.state, State::Retired));
        let removed: Vec<Victim> = left
            .map(Directory::id)
            .filter(|id| !named(id))
            .map(|(cluster, backup)| Victim { cluster, backup, reason: "it is removed".into() })
            .collect();
        if new.is_empty() && removed.is_empty() {
            return Ok(false);
        }
        if !new.is_empty() {
            let named = Named { victims: new, ..Named::default() };
            marks::create(self.cx, self.repo.store(), named).await?;
        }
        if !removed.is_empty() {
            self.say_removed(removed).await?;
        }
        Ok(true)
    }

    /// Says what was removed, in a mark of its own: it stays longer than others.
    async fn say_removed(&self, removed: Vec<Victim>) -> Result<()> {
        let named = Named { removed, ..Named::default() };
        marks::create(self.cx, self.repo.store(), named).await.map(drop)
    }

    /// Fails when this run was asked to stop, or another one took over.
    fn check(&self) -> Result<()> {
        self.cx.check()?;
        self.lease.map_or(Ok(()), Lease::check)
    }

    fn pruned(
        &self,
        directory: &Directory,
        plan: &Plan,
        marks: &Marks,
        removed: &BTreeSet<Id>,
        wanted: &BTreeSet<Id>,
        stays: &BTreeMap<Id, String>,
    ) -> Pruned {
        let id = directory.id();
        let verdict = plan.verdicts.iter().find(|v| (&v.cluster, &v.backup) == (&id.0, &id.1));
        let (fate, reasons) = match verdict.map(|v| &v.decision) {
            _ if removed.contains(&id) => (Fate::Removed, vec!["no rule keeps it".to_owned()]),
            Some(Decision::Keep(reasons)) => {
                (Fate::Kept, reasons.iter().map(ToString::to_string).collect())
            }
            _ if stays.contains_key(&id) => (Fate::Held, vec![stays[&id].clone()]),
            _ if wanted.contains(&id) => {
                let since = marks.named.get(&id).copied().unwrap_or(self.now);
                let due = since.checked_add(self.options.wait).unwrap_or(Timestamp::MAX);
                (Fate::Marked { due }, vec!["no rule keeps it".to_owned()])
            }
            _ => (Fate::Kept, vec!["it is new".to_owned()]),
        };
        let Directory { cluster, backup, .. } = directory;
        let bytes = directory.bytes();
        Pruned { cluster: cluster.clone(), backup: backup.clone(), fate, reasons, bytes }
    }
}

impl Directory {
    fn id(&self) -> Id {
        (self.cluster.clone(), self.backup.clone())
    }
}

impl Marks {
    async fn read(run: &Run<'_>) -> Result<Marks> {
        let stored = marks::read_all(run.cx, run.repo.store()).await?;
        let mut named: BTreeMap<Id, Timestamp> = BTreeMap::new();
        for StoredMark { modified, mark, .. } in &stored {
            for victim in mark.iter().flat_map(|m| &m.victims) {
                let since = named
                    .entry((victim.cluster.clone(), victim.backup.clone()))
                    .or_insert(*modified);
                *since = (*since).min(*modified);
            }
        }
        let spared = stored.iter().flat_map(|s| &s.mark).flat_map(|m| &m.spared);
        let spared = spared.map(|v| (v.cluster.clone(), v.backup.clone()));
        let barred = named.keys().cloned().chain(spared).collect();
        let removed = stored.iter().flat_map(|s| &s.mark).flat_map(|m| &m.removed);
        let removed = removed.map(|v| (v.cluster.clone(), v.backup.clone())).collect();
        Ok(Marks { stored, named, barred, removed })
    }
}

fn warnings(plan: &Plan, directories: &[Directory]) -> Vec<String> {
    let why = directories.iter().filter_map(|d| match &d.state {
        State::Unreadable(why) => Some(format!("{}: {why}", d.backup)),
        _ => None,
    });
    plan.warnings.iter().cloned().chain(why).collect()
}
