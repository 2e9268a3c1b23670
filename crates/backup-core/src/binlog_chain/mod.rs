//! The chain of a cluster's binlogs: which archived pieces lead from a backup to a point, what is
//! missing where there is no way, and which pieces no backup needs any more. Pure: it decides from
//! what is known of segments, without reading their events.
//!
//! A **run** is a series of segments of one server, each joining the one before. What is in several
//! runs (those of a primary and its replicas) is taken from one of them. A way leads from run to run:
//! another server may go on where its binlog begins with nothing that is not applied yet. Of the run
//! before, only the transactions are taken that the next one builds on, so that what was lost or
//! errant in a failover is left out.

mod goal;
mod history;
mod plan;
mod run;
mod way;

use jiff::Timestamp;

pub use self::plan::{Gap, Reach, ReplayBase, ReplayPlan, ReplayTarget, Stretch};
use self::run::{Run, joins};
use self::way::Start;
use crate::chain::Unreachable;
use crate::gtid::GtidSet;
use crate::position::Position;
use crate::segment::SegmentInfo;

/// The segments of a cluster.
#[derive(Debug, Clone, Default)]
pub struct BinlogChain {
    runs: Vec<Run>,
}

impl BinlogChain {
    /// Of the segments of one cluster, in any order.
    #[must_use]
    pub fn new(mut segments: Vec<SegmentInfo>) -> Self {
        segments.sort_by(|a, b| (&a.server, a.seq).cmp(&(&b.server, b.seq)));
        let mut runs: Vec<Run> = Vec::new();
        for segment in segments {
            match runs.last_mut() {
                Some(run) if joins(run.last(), &segment) => run.segments.push(segment),
                _ => runs.push(Run { segments: vec![segment] }),
            }
        }
        BinlogChain { runs }
    }

    /// Whether nothing is archived.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Every segment, by server and number.
    pub fn segments(&self) -> impl Iterator<Item = &SegmentInfo> {
        self.runs.iter().flat_map(|run| &run.segments)
    }

    /// All but this segment.
    #[must_use]
    pub fn without(&self, segment: &SegmentInfo) -> Self {
        let others = self.segments().filter(|other| *other != segment);
        BinlogChain::new(others.cloned().collect())
    }

    /// The segment that joins this one.
    #[must_use]
    pub fn next(&self, segment: &SegmentInfo) -> Option<&SegmentInfo> {
        let run = self.runs.iter().find(|run| run.segments.contains(segment))?;
        let at = run.segments.iter().position(|other| other == segment)?;
        run.segments.get(at + 1)
    }

    /// Every hole within the archive of one server.
    #[must_use]
    pub fn gaps(&self) -> Vec<Gap> {
        let pairs = self.runs.windows(2).filter(|pair| pair[0].server() == pair[1].server());
        pairs
            .map(|pair| {
                let (last, next) = (pair[0].last(), &pair[1].segments[0]);
                let missing = next.before.difference(&last.after);
                Gap {
                    server: last.server.clone(),
                    after: last.range.to_string(),
                    before: next.range.to_string(),
                    missing: missing.map(|set| set.to_string()).unwrap_or_default(),
                }
            })
            .collect()
    }

    /// What the same server wrote before a run, on the other side of a hole.
    fn run_before(&self, run: usize) -> Option<&Run> {
        let before = &self.runs[run.checked_sub(1)?];
        (before.server() == self.runs[run].server()).then_some(before)
    }

    /// How far the archive leads from a base.
    ///
    /// # Errors
    /// When no segment can be entered from there.
    pub fn reach(&self, base: &ReplayBase) -> Result<Reach, Unreachable> {
        let whole = self.plan(base, &ReplayTarget::End);
        let plan = self.plan(base, &ReplayTarget::Reachable)?;
        match (plan.last(), whole) {
            (None, Err(e)) => Err(e),
            (last, whole) => {
                let segments = plan.stretches.iter().flat_map(|stretch| &stretch.segments);
                let time = segments.filter_map(|segment| segment.last_time).max();
                Ok(Reach { last: last.cloned(), time, whole: whole.is_ok() })
            }
        }
    }

    /// The shortest way from `base` to `target`: no segment that it could do without.
    ///
    /// # Errors
    /// When there is none: what is missing, and the nearest points that can be reached. The end is
    /// none where later transactions are archived behind a hole; a place or a transaction is none
    /// where the base goes further.
    pub fn plan(
        &self,
        base: &ReplayBase,
        target: &ReplayTarget,
    ) -> Result<ReplayPlan, Unreachable> {
        match self.way_to(base, target) {
            // Whatever is archived.
            Err(_) if target.is_at(base) => {
                let anonymous = self.segments().any(|segment| segment.anonymous > 0);
                let applied = base.position.gtid.clone().filter(|_| !anonymous);
                Ok(ReplayPlan { stretches: Vec::new(), applied })
            }
            way => way,
        }
    }

    fn way_to(&self, base: &ReplayBase, target: &ReplayTarget) -> Result<ReplayPlan, Unreachable> {
        let unreachable =
            |problem: String| Unreachable { target: target.to_string(), problem, passed: false };
        if self.runs.is_empty() {
            if matches!(target, ReplayTarget::End | ReplayTarget::Reachable) {
                let applied = base.position.gtid.clone();
                return Ok(ReplayPlan { stretches: Vec::new(), applied });
            }
            return Err(unreachable("no binlogs of the cluster are archived".into()));
        }
        let start = self.start(base).map_err(unreachable)?;
        let mut goals = self.goals(base, &start, target).map_err(unreachable)?;
        if !goals.is_empty() {
            goals.retain(|goal| !self.passes(base, &start, goal, target));
            if goals.is_empty() {
                return Err(Unreachable::passed(target, &base.position));
            }
        }
        let mut best: Option<Vec<Stretch>> = None;
        let bytes = |way: &[Stretch]| -> u64 {
            way.iter().flat_map(|s| &s.segments).map(SegmentInfo::bytes).sum()
        };
        let mut unreached = Vec::new();
        for goal in &goals {
            match self.way(&start, goal.run, goal.segment, &mut Vec::new()) {
                Some(way) => {
                    let shorter = best.as_ref().is_none_or(|best| bytes(&way) < bytes(best));
                    if shorter {
                        best = Some(way);
                    }
                    if goal.first_wins {
                        break;
                    }
                }
                None => unreached.push(goal.run),
            }
        }
        let applied = match &start {
            Start::Applied { applied, .. } => Some(applied.clone()),
            Start::At { .. } => None,
        };
        match best {
            Some(stretches) => {
                let plan = ReplayPlan { stretches, applied };
                if *target == ReplayTarget::End
                    && let Some(problem) = self.beyond(&start, &plan, &unreached)
                {
                    return Err(unreachable(problem));
                }
                Ok(plan)
            }
            // The archive ends where the base is.
            None if goals.is_empty() || *target == ReplayTarget::Reachable => {
                Ok(ReplayPlan { stretches: Vec::new(), applied })
            }
            None => {
                let problems: Vec<String> =
                    unreached.iter().map(|&run| self.missing(&start, run)).collect();
                let mut problem = problems.join("; ");
                if let Some(last) = self.last_reachable(base) {
                    problem.push_str(&format!("; the last point that can be reached is {last}"));
                }
                Err(unreachable(problem))
            }
        }
    }

    /// Whether a server that has these transactions stands behind a time: the last segment that it has
    /// all of, and something of in it, has a commit of then or later.
    #[must_use]
    pub fn is_behind(&self, applied: &GtidSet, time: Timestamp) -> bool {
        let held = |segment: &&SegmentInfo| {
            segment.transactions > 0 && segment.after.is_subset(applied).unwrap_or(false)
        };
        let last = |run: &Run| run.segments.iter().rfind(held).is_some_and(|s| s.reaches(time));
        self.runs.iter().any(last)
    }

    /// What is archived and newer than the end of a plan, and the hole in front of it. `unreached`:
    /// runs to which there is no way, the newest first.
    fn beyond(&self, start: &Start, plan: &ReplayPlan, unreached: &[usize]) -> Option<String> {
        let (last, stretch) = (plan.last()?, plan.stretches.last()?);
        let commits = stretch.segments.iter().filter_map(|segment| segment.last_time);
        let until = commits.max().unwrap_or(last.archived_at);
        let is_beyond = |at: usize| match &plan.applied {
            Some(applied) => {
                !self.is_apart(applied, at) && !holds_all(applied, last, self.runs[at].last())
            }
            // Another server's places say nothing: what it wrote meanwhile may be the same.
            None => {
                let run = &self.runs[at];
                let first = run.segments.iter().find_map(|segment| segment.first_time);
                *run.server() == last.server || first.is_some_and(|first| first > until)
            }
        };
        let beyond: Vec<usize> = unreached.iter().copied().filter(|&run| is_beyond(run)).collect();
        let (newest, nearest) = (beyond.first()?, beyond.last()?);
        Some(format!(
            "{}; the archive goes on behind that, to {}; the last point that can be reached is {}",
            self.missing(start, *nearest),
            point(self.runs[*newest].last()),
            point(last)
        ))
    }

    fn last_reachable(&self, base: &ReplayBase) -> Option<String> {
        let start = self.start(base).ok()?;
        let ends = self.reachable(&start).map(Run::last);
        ends.max_by_key(|segment| segment.last_time).map(point)
    }

    /// The runs whose ends can be reached.
    fn reachable(&self, start: &Start) -> impl Iterator<Item = &Run> {
        let to = |run: &usize| {
            let last = self.runs[*run].segments.len() - 1;
            self.way(start, *run, last, &mut Vec::new()).is_some()
        };
        (0..self.runs.len()).filter(to).map(|run| &self.runs[run])
    }

    /// Why a run cannot be entered.
    fn missing(&self, start: &Start, run: usize) -> String {
        let first = &self.runs[run].segments[0];
        let hole = match self.run_before(run).map(|before| &before.last().range) {
            Some(last) => format!(
                "between {}:{} and {}:{}",
                last.file, last.end, first.range.file, first.range.start
            ),
            None => format!("before {}", first.range),
        };
        match start {
            Start::Applied { applied, .. } if self.is_apart(applied, run) => format!(
                "what leads on from there is not archived: the binlogs of {} are of another history, from {}",
                first.server, first.range
            ),
            Start::Applied { applied, .. } => {
                let have = self.reachable(start).fold(applied.clone(), |have, run| {
                    have.union(&run.last().after).unwrap_or(have)
                });
                let lacking = first.before.difference(&have);
                let lacking = lacking.map(|set| set.to_string()).unwrap_or_default();
                match lacking.as_str() {
                    "" => format!("a piece of the binlogs is not archived ({hole})"),
                    gtids => format!("these transactions are not archived: {gtids} ({hole})"),
                }
            }
            Start::At { begin: (file, offset), .. } => format!(
                "nothing joins {file}:{offset}, where the backup ends, with {} ({hole})",
                first.range
            ),
        }
    }

    /// The segments that no backup needs: every one of these backups holds all of their
    /// transactions. Where that cannot be told, a segment is needed. Without backups all are.
    ///
    /// What is removed by this rule leaves every point reachable that a retained backup leads to.
    #[must_use]
    pub fn unneeded(&self, backups: &[ReplayBase]) -> Vec<&SegmentInfo> {
        if backups.is_empty() {
            return Vec::new();
        }
        let holds = |backup: &ReplayBase, segment: &SegmentInfo| {
            if segment.ends_inside {
                // The rest of its last transaction is in the next one.
                return false;
            }
            let by_gtid = || {
                let gtid = backup.position.gtid.as_ref()?;
                (segment.anonymous == 0).then(|| segment.after.is_subset(gtid).ok())?
            };
            let by_position = || {
                let end = Position::at(segment.range.file.clone(), segment.range.end);
                (backup.server.as_ref() == Some(&segment.server))
                    .then(|| Some(end.compare_file(&backup.position)?.is_le()))?
            };
            by_gtid().or_else(by_position).unwrap_or(false)
        };
        let unneeded = |segment: &&SegmentInfo| backups.iter().all(|b| holds(b, segment));
        // Only from the front of a run, so that no hole is made. The last segment tells a receiver
        // where to go on.
        let mut all = Vec::new();
        for (at, run) in self.runs.iter().enumerate() {
            let last_of_server =
                self.runs.get(at + 1).is_none_or(|next| next.server() != run.server());
            let keep = usize::from(last_of_server);
            all.extend(
                run.segments[..run.segments.len() - keep].iter().take_while(|s| unneeded(s)),
            );
        }
        all
    }
}

impl ReplayPlan {
    /// Whether the target has, at the end of the way, all that there is up to the end of a segment. Where only
    /// positions tell, that is not known of a segment that the way does not lead through.
    #[must_use]
    pub fn has_all(&self, segment: &SegmentInfo) -> bool {
        match (&self.applied, self.last()) {
            (Some(applied), Some(last)) => holds_all(applied, last, segment),
            (Some(applied), None) => segment.after.is_subset(applied).unwrap_or(false),
            (None, _) => false,
        }
    }
}

/// Whether a target that has `applied`, and then everything up to the end of `last`, has all that
/// there is up to the end of `other`.
fn holds_all(applied: &GtidSet, last: &SegmentInfo, other: &SegmentInfo) -> bool {
    match (applied, &other.state_after) {
        (GtidSet::MariaDb(applied), Some(state)) => {
            state.iter().all(|gtid| applied.covers(gtid) || last.holds(&gtid.into()))
        }
        _ => {
            let both = applied.union(&last.after).ok();
            both.is_some_and(|both| other.after.is_subset(&both).unwrap_or(false))
        }
    }
}

/// When the last thing in a segment happened.
fn age(segment: &SegmentInfo) -> (Timestamp, Timestamp) {
    // MariaDB's times are full seconds.
    (segment.last_time.unwrap_or(segment.archived_at), segment.archived_at)
}

/// The end of a segment, for people.
fn point(segment: &SegmentInfo) -> String {
    let time = segment.last_time.map(|time| format!("{time}, ")).unwrap_or_default();
    format!("{time}{}:{}", segment.range.file, segment.range.end)
}
