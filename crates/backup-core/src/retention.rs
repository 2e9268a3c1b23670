//! Retention: which backups stay and which may go. Pure: it decides from records alone.
//!
//! Nothing is removed by accident: what is young, dated in the future, unreadable, needed by a kept
//! backup, or the last that is proven stays whatever the rules say, and takes nobody's place.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp, Zoned};

use crate::id::{BackupId, ClusterName, Strategy};
use crate::repository::{Record, RecordEvent};
use crate::verify::Level;

/// A backup that is dated further ahead than this comes from a clock that is wrong.
const AHEAD: SignedDuration = SignedDuration::from_hours(1);

/// What is to be kept. Every rule is applied to each group by itself: the backups of one cluster and
/// strategy that are alike in being partial and masked. A backup is kept when any rule keeps it.
///
/// ```
/// use backup_core::retention::Policy;
/// let policy = Policy { keep_daily: 7, keep_weekly: 4, ..Policy::default() };
/// assert!(!policy.is_empty());
/// assert!(Policy::default().is_empty(), "which keeps everything");
/// ```
#[derive(Debug, Clone)]
pub struct Policy {
    /// The newest so many.
    pub keep_last: u32,
    /// Everything that is not older than this, counted back from the newest one.
    pub keep_within: Option<Span>,
    /// The newest of each of the last so many hours that have one.
    pub keep_hourly: u32,
    /// The same of days.
    pub keep_daily: u32,
    /// The same of weeks, which begin on Monday.
    pub keep_weekly: u32,
    /// The same of months.
    pub keep_monthly: u32,
    /// The same of years.
    pub keep_yearly: u32,
    /// What is younger is kept and takes no place: so new backups that are worth nothing cannot
    /// push good ones out at once. The default is 24 hours.
    pub grace: SignedDuration,
    /// Where hours, days, weeks, months and years end. The default is UTC.
    pub time_zone: TimeZone,
}

impl Default for Policy {
    fn default() -> Self {
        Policy {
            keep_last: 0,
            keep_within: None,
            keep_hourly: 0,
            keep_daily: 0,
            keep_weekly: 0,
            keep_monthly: 0,
            keep_yearly: 0,
            grace: SignedDuration::from_hours(24),
            time_zone: TimeZone::UTC,
        }
    }
}

/// What is known of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The cluster.
    pub cluster: ClusterName,
    /// The backup; its time is what the rules go by.
    pub backup: BackupId,
    /// When the store got its manifest, by the clock of the store.
    pub modified: Timestamp,
    /// What its manifest says; `None` when it cannot be read.
    pub facts: Option<Facts>,
}

/// What a manifest and the history say about a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// How it was made.
    pub strategy: Strategy,
    /// The backup that a restore needs before it.
    pub parent: Option<BackupId>,
    /// When it was finished, by the clock of the machine that made it.
    pub finished_at: Timestamp,
    /// Whether only a part of the server was asked for.
    pub partial: bool,
    /// Whether values were changed on the way.
    pub masked: bool,
    /// What verifications found.
    pub proof: Proof,
}

/// What verifications found of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// It was never verified.
    None,
    /// The highest level at which it was found to be well, and never again to be bad since.
    Ok(Level),
    /// It was found to be bad, and not found to be well at the same level since.
    Failed(Level),
}

impl Proof {
    /// What the history of a cluster says about one of its backups. `records` must be sorted by
    /// time.
    #[must_use]
    pub fn of(backup: &BackupId, records: &[Record]) -> Proof {
        let mut proof = Proof::None;
        for record in records {
            let RecordEvent::Proof { level, ok, sampled, .. } = record.event else { continue };
            if record.backup.as_ref() == Some(backup) {
                proof = proof.and(level, ok, sampled.is_some());
            }
        }
        proof
    }

    /// What is proven after one more verification. `sampled`: it looked at a sample only.
    #[must_use]
    pub fn and(self, level: Level, ok: bool, sampled: bool) -> Proof {
        // A sample that found nothing proves no more than a look at all objects does.
        let level = if sampled && ok { level.min(Level::Objects) } else { level };
        match (self, ok) {
            (Proof::Failed(worst), false) => Proof::Failed(worst.max(level)),
            (_, false) => Proof::Failed(level),
            (Proof::Failed(worst), true) if level < worst => self,
            (Proof::Ok(best), true) => Proof::Ok(best.max(level)),
            (_, true) => Proof::Ok(level),
        }
    }
}

/// Why a backup is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// There are no rules.
    NoRules,
    /// No plan of an earlier run names it.
    NotMarked,
    /// A rule keeps it.
    Rule {
        /// The rule by its name on the command line, such as `keep-daily`.
        rule: &'static str,
        /// What it stands for there: a day, a week, a number.
        slot: String,
    },
    /// A rule would keep it if it were well: it failed its verification, or a part of its chain is
    /// missing. It takes no place.
    Bad(Box<Reason>),
    /// A backup that is kept cannot be restored without it.
    ChainOf(BackupId),
    /// It is the newest of its group that is proven at the highest level.
    LastProven(Level),
    /// Nothing of its group is proven, and it is the newest that can be restored.
    NewestUnproven,
    /// It is younger than the grace time.
    Young,
    /// It is dated in the future.
    Future,
    /// It can be restored, but only with one that is [`Young`](Self::Young) or of the
    /// [`Future`](Self::Future).
    YoungChain,
    /// Its manifest cannot be read.
    Unreadable,
    /// The manifest of this backup of the cluster cannot be read, so nobody knows what it needs.
    MayBeNeeded(BackupId),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NoRules => f.write_str("there is no rule"),
            Reason::NotMarked => f.write_str("no earlier plan names it"),
            Reason::Rule { rule, slot } => write!(f, "{rule}: {slot}"),
            Reason::Bad(reason) => {
                write!(f, "{reason}; it may not be restorable and takes no place")
            }
            Reason::ChainOf(child) => write!(f, "{child} needs it"),
            Reason::LastProven(level) => write!(f, "the last that is proven ({level})"),
            Reason::NewestUnproven => f.write_str("the newest, and none is proven"),
            Reason::Young => f.write_str("younger than the grace time"),
            Reason::Future => f.write_str("dated in the future"),
            Reason::YoungChain => {
                f.write_str("it needs one that is younger than the grace time or of the future")
            }
            Reason::Unreadable => f.write_str("its manifest cannot be read"),
            Reason::MayBeNeeded(other) => {
                write!(f, "the manifest of {other} cannot be read, and it may need this one")
            }
        }
    }
}

/// What becomes of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It stays, for these reasons; there is at least one.
    Keep(Vec<Reason>),
    /// No rule keeps it, and nothing needs it.
    Remove,
}

/// The decision about one backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The cluster.
    pub cluster: ClusterName,
    /// The backup.
    pub backup: BackupId,
    /// What becomes of it.
    pub decision: Decision,
}

/// The decision about every backup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order of the candidates.
    pub verdicts: Vec<Verdict>,
    /// What needs a look.
    pub warnings: Vec<String>,
}

impl Plan {
    /// The backups to be removed.
    pub fn removed(&self) -> impl Iterator<Item = &Verdict> {
        self.verdicts.iter().filter(|v| v.decision == Decision::Remove)
    }

    /// The backups that stay.
    pub fn kept(&self) -> impl Iterator<Item = &Verdict> {
        self.verdicts.iter().filter(|v| v.decision != Decision::Remove)
    }
}

/// A rule that keeps one backup each of so many periods: its name, how many, and which period a
/// time is in.
type Counted = (&'static str, u32, fn(&Zoned) -> String);

impl Policy {
    /// Whether there is no rule: then everything is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keep_within.is_none() && self.counted().iter().all(|(_, n, _)| *n == 0)
    }

    /// Decides about every candidate. `now` is the time of the store's clock.
    #[must_use]
    pub fn plan(&self, candidates: &[Candidate], now: Timestamp) -> Plan {
        decide(candidates, now, self.grace, |group| {
            if self.is_empty() {
                return group.iter().map(|&one| (one, Reason::NoRules)).collect();
            }
            self.choose(candidates, group)
        })
    }

    fn counted(&self) -> [Counted; 6] {
        [
            ("keep-last", self.keep_last, |_| String::new()),
            ("keep-hourly", self.keep_hourly, |t| t.strftime("%F %H:00 %z").to_string()),
            ("keep-daily", self.keep_daily, |t| t.strftime("%F").to_string()),
            ("keep-weekly", self.keep_weekly, |t| t.strftime("%G week %V").to_string()),
            ("keep-monthly", self.keep_monthly, |t| t.strftime("%Y-%m").to_string()),
            ("keep-yearly", self.keep_yearly, |t| t.strftime("%Y").to_string()),
        ]
    }

    /// What the rules keep of a group, which is sorted, newest first.
    fn choose(&self, candidates: &[Candidate], group: &[usize]) -> Vec<(usize, Reason)> {
        let local =
            |one: usize| candidates[one].backup.started_at().to_zoned(self.time_zone.clone());
        let mut kept = Vec::new();
        for (rule, count, name) in self.counted() {
            let mut slots = BTreeSet::new();
            for (place, &one) in group.iter().enumerate() {
                if slots.len() >= count as usize {
                    break;
                }
                let slot = match rule {
                    "keep-last" => format!("{} of {count}", place + 1),
                    _ => name(&local(one)),
                };
                if slots.insert(slot.clone()) {
                    kept.push((one, Reason::Rule { rule, slot }));
                }
            }
        }
        if let (Some(within), Some(&newest)) = (self.keep_within, group.first()) {
            // A span that no calendar holds reaches back to the beginning.
            let bound = local(newest).checked_sub(within).map(|t| t.timestamp());
            let bound = bound.unwrap_or(Timestamp::MIN);
            let inside = group.iter().filter(|&&o| candidates[o].backup.started_at() >= bound);
            kept.extend(inside.map(|&one| {
                (one, Reason::Rule { rule: "keep-within", slot: format!("{within:#}") })
            }));
        }
        kept
    }
}

/// Decides when only those that earlier plans named may go, for a run without rules. What protects a
/// backup from its rules protects it here too.
#[must_use]
pub fn plan_marked(
    candidates: &[Candidate],
    marked: &BTreeSet<(ClusterName, BackupId)>,
    grace: SignedDuration,
    now: Timestamp,
) -> Plan {
    decide(candidates, now, grace, |group| {
        let named = |one: &usize| {
            let Candidate { cluster, backup, .. } = &candidates[*one];
            marked.contains(&(cluster.clone(), backup.clone()))
        };
        group.iter().filter(|one| !named(one)).map(|&one| (one, Reason::NotMarked)).collect()
    })
}

/// Backups that rules compare with each other.
type Group = (ClusterName, Strategy, bool, bool);

struct Decider<'a> {
    candidates: &'a [Candidate],
    by_id: HashMap<(&'a ClusterName, &'a BackupId), usize>,
    reasons: Vec<Vec<Reason>>,
    /// Those that are compared with others: readable, neither young nor of the future.
    placed: Vec<bool>,
    warnings: Vec<String>,
}

fn decide(
    candidates: &[Candidate],
    now: Timestamp,
    grace: SignedDuration,
    choose: impl Fn(&[usize]) -> Vec<(usize, Reason)>,
) -> Plan {
    let by_id = candidates.iter().enumerate().map(|(i, c)| ((&c.cluster, &c.backup), i)).collect();
    let reasons = vec![Vec::new(); candidates.len()];
    let placed = vec![false; candidates.len()];
    let mut decider = Decider { candidates, by_id, reasons, placed, warnings: Vec::new() };
    let mut groups: BTreeMap<Group, Vec<usize>> = BTreeMap::new();
    for (one, candidate) in candidates.iter().enumerate() {
        if let Some(group) = decider.look(one, candidate, now, grace) {
            decider.placed[one] = true;
            groups.entry(group).or_default().push(one);
        }
    }
    for mut group in groups.into_values() {
        group.sort_by(|&a, &b| candidates[b].backup.cmp(&candidates[a].backup));
        decider.keep_group(&group, &choose);
    }
    decider.keep_chains();
    decider.hold_clusters();
    let verdict = |(candidate, reasons): (&Candidate, Vec<Reason>)| Verdict {
        cluster: candidate.cluster.clone(),
        backup: candidate.backup.clone(),
        decision: if reasons.is_empty() { Decision::Remove } else { Decision::Keep(reasons) },
    };
    Plan {
        verdicts: candidates.iter().zip(decider.reasons).map(verdict).collect(),
        warnings: decider.warnings,
    }
}

impl<'a> Decider<'a> {
    /// The group in which a backup takes a place, unless it is kept without one.
    fn look(
        &mut self,
        one: usize,
        candidate: &Candidate,
        now: Timestamp,
        grace: SignedDuration,
    ) -> Option<Group> {
        let Candidate { cluster, backup, modified, facts } = candidate;
        let Some(facts) = facts else {
            self.reasons[one].push(Reason::Unreadable);
            self.warnings.push(format!(
                "the manifest of {backup} of {cluster} cannot be read: it stays, and so does every \
                 other backup of the cluster, which it may need"
            ));
            return None;
        };
        let started = backup.started_at();
        let latest = started.max(facts.finished_at);
        if latest.duration_since(now) > AHEAD {
            self.reasons[one].push(Reason::Future);
            self.warnings.push(format!(
                "backup {backup} of {cluster} is dated in the future ({latest}; it is {now}): a \
                 clock was or is wrong"
            ));
            return None;
        }
        if now.duration_since(started.max(*modified)) < grace {
            self.reasons[one].push(Reason::Young);
            return None;
        }
        Some((cluster.clone(), facts.strategy, facts.partial, facts.masked))
    }

    fn parent(&self, one: usize) -> Option<Option<usize>> {
        let Candidate { cluster, facts, .. } = &self.candidates[one];
        let parent = facts.as_ref()?.parent.as_ref()?;
        Some(self.by_id.get(&(cluster, parent)).copied())
    }

    /// Whether, for all that is known, a backup can be restored. With `strict`, what came later than
    /// the backup is nothing that its chain can rest on.
    fn is_sound(&self, one: usize, strict: bool) -> bool {
        let mut link = one;
        // A chain is never longer than this, unless it is a circle.
        for _ in 0..=self.candidates.len() {
            match &self.candidates[link].facts {
                Some(facts) if self.placed[link] || !strict => match facts.proof {
                    Proof::Failed(_) => return false,
                    Proof::None | Proof::Ok(_) => {}
                },
                _ => return false,
            }
            match self.parent(link) {
                None => return true,
                Some(None) => return false,
                Some(Some(parent)) => link = parent,
            }
        }
        false
    }

    /// Applies the rules to a group, and keeps the best of it.
    fn keep_group(&mut self, group: &[usize], choose: &impl Fn(&[usize]) -> Vec<(usize, Reason)>) {
        let sound: Vec<usize> =
            group.iter().copied().filter(|&one| self.is_sound(one, true)).collect();
        for (one, reason) in choose(&sound) {
            self.reasons[one].push(reason);
        }
        for (one, reason) in choose(group) {
            if !sound.contains(&one) {
                self.reasons[one].push(Reason::Bad(Box::new(reason)));
            }
        }
        self.keep_best(&sound, group);
        // A parent that was put back lately makes its chain whole again. What rests on it pushes
        // nothing out, and neither does one such chain another: it may be the only one there is.
        for &one in group {
            if !sound.contains(&one) && self.is_sound(one, false) {
                self.reasons[one].push(Reason::YoungChain);
            }
        }
    }

    /// Keeps the last proven of those that can be restored; where none is proven, the newest.
    fn keep_best(&mut self, sound: &[usize], group: &[usize]) {
        let level = |one: usize| match self.candidates[one].facts.as_ref().map(|f| f.proof) {
            Some(Proof::Ok(level)) => Some(level),
            _ => None,
        };
        let best = sound.iter().filter_map(|&one| level(one)).max();
        let proven = best.and_then(|best| {
            let newest = sound.iter().find(|&&one| level(one) == Some(best))?;
            Some((*newest, Reason::LastProven(best)))
        });
        let newest = || Some((*sound.first().or(group.first())?, Reason::NewestUnproven));
        if let Some((one, reason)) = proven.or_else(newest)
            && !self.reasons[one].contains(&reason)
        {
            self.reasons[one].push(reason);
        }
    }

    /// Keeps what kept backups need before them.
    fn keep_chains(&mut self) {
        for end in 0..self.candidates.len() {
            let mut link = end;
            while !self.reasons[link].is_empty()
                && let Some(Some(parent)) = self.parent(link)
            {
                let child = self.candidates[link].backup.clone();
                let reason = Reason::ChainOf(child);
                if self.reasons[parent].contains(&reason) {
                    break;
                }
                self.reasons[parent].push(reason);
                link = parent;
            }
        }
    }

    /// A manifest that cannot be read may name any backup of its cluster as its parent, and any
    /// packs.
    fn hold_clusters(&mut self) {
        let unreadable: BTreeMap<&ClusterName, &BackupId> = self
            .candidates
            .iter()
            .filter(|c| c.facts.is_none())
            .map(|c| (&c.cluster, &c.backup))
            .collect();
        for (candidate, reasons) in self.candidates.iter().zip(&mut self.reasons) {
            if let Some(&other) = unreadable.get(&candidate.cluster)
                && reasons.is_empty()
            {
                reasons.push(Reason::MayBeNeeded(other.clone()));
            }
        }
    }
}
