//! The chain of a cluster's binlogs: which archived pieces lead from a backup to a point, what is
//! missing where there is no way, and which pieces no backup needs any more. Pure: it decides from
//! what is known of segments, without reading their events.
//!
//! A **run** is a series of segments of one server, each joining the one before. What is in several
//! runs (those of a primary and its replicas) is taken from one of them. A way leads from run to run:
//! another server may go on where its binlog begins with nothing that is not applied yet. Of the run
//! before, only the transactions are taken that the next one builds on, so that what was lost or
//! errant in a failover is left out.

use std::cmp::Reverse;
use std::fmt;

use jiff::Timestamp;

use crate::chain::Unreachable;
use crate::gtid::{Gtid, GtidSet};
use crate::manifest::Manifest;
use crate::position::{BinlogFile, Position};
use crate::segment::{BinlogServer, Only, SegmentInfo};

/// Where a replay begins: what the target has already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayBase {
    /// The server whose file and offset are in `position`, where that is known.
    pub server: Option<BinlogServer>,
    /// What is there.
    pub position: Position,
}

impl ReplayBase {
    /// What a restore of this backup gives.
    #[must_use]
    pub fn of(manifest: &Manifest) -> Self {
        ReplayBase {
            server: BinlogServer::of_source(&manifest.outcome.source),
            position: manifest.outcome.position.clone(),
        }
    }
}

/// The point that a replay leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplayTarget {
    /// All there is.
    End,
    /// Everything that was committed before this time; the first transaction of this time or later,
    /// in the order of the binlog, is left out, and everything behind it.
    Time(Timestamp),
    /// This transaction is the last one.
    Gtid(Gtid),
    /// This transaction is the first that is left out.
    BeforeGtid(Gtid),
    /// Transactions that end up to this offset of a file.
    Position {
        /// The server whose file it is; without it, that of the backup or the only one that has it.
        server: Option<BinlogServer>,
        /// The file.
        file: String,
        /// The offset.
        offset: u64,
    },
}

impl fmt::Display for ReplayTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplayTarget::End => f.write_str("the end of the archive"),
            ReplayTarget::Time(time) => write!(f, "time {time}"),
            ReplayTarget::Gtid(gtid) => write!(f, "GTID {gtid}"),
            ReplayTarget::BeforeGtid(gtid) => write!(f, "the point before GTID {gtid}"),
            ReplayTarget::Position { file, offset, .. } => write!(f, "position {file}:{offset}"),
        }
    }
}

/// A part of a replay: segments of one server that join each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Stretch {
    /// The segments, in order.
    pub segments: Vec<SegmentInfo>,
    /// Only these transactions of them; `None` for all. Those that the target has are always left
    /// out.
    pub only: Option<Only>,
    /// Where to begin, in a file of the first segments, where transactions have no GTIDs.
    pub begin: Option<(String, u64)>,
}

/// The way to a point.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplayPlan {
    /// The parts, in order. The point is in the last segment of the last one. Nothing where the base
    /// is the point.
    pub stretches: Vec<Stretch>,
    /// The transactions that the target has before it begins; `None` where there are no GTIDs and
    /// positions decide.
    pub applied: Option<GtidSet>,
}

impl ReplayPlan {
    /// Length of what is read, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.stretches.iter().flat_map(|s| &s.segments).map(SegmentInfo::bytes).sum()
    }
}

/// A place where the archive of a server has a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The server.
    pub server: BinlogServer,
    /// The last piece before it.
    pub after: String,
    /// The first piece behind it.
    pub before: String,
    /// The transactions in it, as far as GTIDs tell; empty where another server's binlogs, or none,
    /// may have them.
    pub missing: String,
}

/// How far the archive leads from a base.
#[derive(Debug, Clone, PartialEq)]
pub struct Reach {
    /// The last segment of the way; `None` where the base has everything.
    pub last: Option<SegmentInfo>,
    /// Whether that is the end of the archive.
    pub whole: bool,
}

/// The segments of a cluster.
#[derive(Debug, Clone, Default)]
pub struct BinlogChain {
    runs: Vec<Run>,
}

#[derive(Debug, Clone)]
struct Run {
    segments: Vec<SegmentInfo>,
}

impl Run {
    fn server(&self) -> &BinlogServer {
        &self.segments[0].server
    }

    fn last(&self) -> &SegmentInfo {
        &self.segments[self.segments.len() - 1]
    }

    /// Whether what the target has is in the history of this server, as far as that can be told.
    fn agrees(&self, applied: &GtidSet) -> bool {
        let (Some(state), GtidSet::MariaDb(applied), GtidSet::MariaDb(after)) =
            (&self.last().state_after, applied, &self.last().after)
        else {
            return true;
        };
        // Under the numbers that this server has, it has the same transactions.
        applied.iter().all(|gtid| !after.covers(gtid) || state.contains(gtid))
    }

    /// The last place, up to segment `upto`, where the run can be entered with these transactions.
    fn entry(&self, applied: &GtidSet, upto: usize) -> Option<usize> {
        if !self.agrees(applied) {
            return None;
        }
        (0..=upto).rev().find(|&at| {
            let segment = &self.segments[at];
            !segment.begins_inside && segment.before.is_subset(applied).unwrap_or(false)
        })
    }
}

/// Whether `next` joins `last`.
fn joins(last: &SegmentInfo, next: &SegmentInfo) -> bool {
    if last.continues_in(next) {
        return true;
    }
    if last.server != next.server || next.range.start != 0 || last.ends_inside {
        return false;
    }
    let follows = match (&last.next_file, last.range.file.parse::<BinlogFile>()) {
        (Some(next_file), _) => *next_file == next.range.file,
        // The server was stopped, or died: its next file has the next number.
        (None, Ok(file)) => file.next().to_string() == next.range.file,
        (None, Err(_)) => false,
    };
    follows
        && next.gap_before.is_none()
        && last.after.is_subset(&next.before).unwrap_or(false)
        // What came in without a transaction (a physical restore, gtid_purged) is in no binlog.
        && next.before.is_subset(&last.after).unwrap_or(false)
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

    /// How far the archive leads from a base.
    ///
    /// # Errors
    /// When no segment can be entered from there.
    pub fn reach(&self, base: &ReplayBase) -> Result<Reach, Unreachable> {
        let plan = self.plan(base, &ReplayTarget::End)?;
        let last = plan.stretches.last().and_then(|stretch| stretch.segments.last()).cloned();
        let newest = self.runs.iter().map(Run::last).max_by_key(|last| age(last));
        let whole = match (&last, newest, &plan.applied) {
            (Some(last), Some(newest), _) => age(last) >= age(newest),
            // Nothing is behind the base.
            (None, Some(newest), Some(applied)) => newest.after.is_subset(applied).unwrap_or(false),
            _ => true,
        };
        Ok(Reach { last, whole })
    }

    /// The shortest way from `base` to `target`: no segment that it could do without.
    ///
    /// # Errors
    /// When there is none: what is missing, and the nearest points that can be reached.
    pub fn plan(
        &self,
        base: &ReplayBase,
        target: &ReplayTarget,
    ) -> Result<ReplayPlan, Unreachable> {
        let unreachable = |problem: String| Unreachable { target: target.to_string(), problem };
        if self.runs.is_empty() {
            if *target == ReplayTarget::End {
                return Ok(ReplayPlan { stretches: Vec::new(), applied: None });
            }
            return Err(unreachable("no binlogs of the cluster are archived".into()));
        }
        let start = self.start(base).map_err(unreachable)?;
        if let (Start::Applied(applied), ReplayTarget::Gtid(gtid) | ReplayTarget::BeforeGtid(gtid)) =
            (&start, target)
            && applied.contains(gtid).unwrap_or(false)
        {
            return Err(unreachable(
                "the backup holds it already, and what came behind it; choose an earlier backup"
                    .into(),
            ));
        }
        let goals = self.goals(base, &start, target).map_err(unreachable)?;
        let mut best: Option<Vec<Stretch>> = None;
        let bytes = |way: &[Stretch]| -> u64 {
            way.iter().flat_map(|s| &s.segments).map(SegmentInfo::bytes).sum()
        };
        let mut problems = Vec::new();
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
                None => problems.push(self.missing(&start, goal.run)),
            }
        }
        let applied = match start {
            Start::Applied(applied) => Some(applied),
            Start::At { .. } => None,
        };
        match best {
            Some(stretches) => Ok(ReplayPlan { stretches, applied }),
            // The archive ends where the base is.
            None if *target == ReplayTarget::End && goals.is_empty() => {
                Ok(ReplayPlan { stretches: Vec::new(), applied })
            }
            None => {
                let mut problem = problems.join("; ");
                if let Some(last) = self.last_reachable(base) {
                    problem.push_str(&format!("; the last point that can be reached is {last}"));
                }
                Err(unreachable(problem))
            }
        }
    }

    fn last_reachable(&self, base: &ReplayBase) -> Option<String> {
        let start = self.start(base).ok()?;
        let ways = (0..self.runs.len()).filter_map(|run| {
            let last = self.runs[run].segments.len() - 1;
            self.way(&start, run, last, &mut Vec::new()).map(|_| self.runs[run].last())
        });
        ways.max_by_key(|segment| segment.last_time).map(point)
    }

    /// What the target has, in the terms of the archive.
    fn start(&self, base: &ReplayBase) -> Result<Start, String> {
        let anonymous = self.segments().any(|segment| segment.anonymous > 0);
        if let Some(gtid) = &base.position.gtid
            && !anonymous
        {
            return Ok(Start::Applied(gtid.clone()));
        }
        let flavor = self.runs[0].segments[0].flavor;
        if !anonymous && base.position.file.is_none() {
            return Ok(Start::Applied(GtidSet::empty(flavor)));
        }
        let (Some(file), Some(offset)) = (&base.position.file, base.position.offset) else {
            return Err("the archive has transactions without GTIDs, and the backup no binlog \
                        position that would tell where to begin"
                .into());
        };
        let here = |segment: &SegmentInfo| {
            base.server.as_ref().is_none_or(|server| *server == segment.server)
                && segment.range.file == *file
                && segment.range.start <= offset
                && offset <= segment.range.end
        };
        // Where names were used again, the newest file of the name.
        let mut found = None;
        for (run, segments) in self.runs.iter().enumerate() {
            if let Some(at) = segments.segments.iter().rposition(here) {
                found = Some((run, at));
            }
        }
        match found {
            Some((run, segment)) if anonymous => {
                Ok(Start::At { run, segment, begin: (file.clone(), offset) })
            }
            // A server that has executed nothing yet has no GTIDs to tell.
            _ if !anonymous => Ok(Start::Applied(GtidSet::empty(flavor))),
            _ => Err(format!(
                "{file}:{offset}, where the backup ends, is not archived, and without GTIDs no \
                 other place can stand for it"
            )),
        }
    }

    /// Where the point may be: in the last of these segments.
    fn goals(
        &self,
        base: &ReplayBase,
        start: &Start,
        target: &ReplayTarget,
    ) -> Result<Vec<Goal>, String> {
        let runs = || self.runs.iter().enumerate();
        match target {
            ReplayTarget::End => {
                let mut goals: Vec<(usize, &SegmentInfo)> = runs()
                    .map(|(at, run)| (at, run.last()))
                    .filter(|(_, last)| !start.covers(last))
                    .collect();
                // The newest that can be reached.
                goals.sort_by_key(|(_, last)| Reverse(age(last)));
                Ok(goals
                    .into_iter()
                    .map(|(run, _)| Goal {
                        run,
                        segment: self.runs[run].segments.len() - 1,
                        first_wins: true,
                    })
                    .collect())
            }
            ReplayTarget::Time(time) => {
                let holds = |segment: &SegmentInfo| segment.reaches(*time);
                // Nothing came any more, and the receiver was there at that time.
                let quiet = |run: &Run| run.last().archived_at >= *time;
                let goal = |(run, segments): (usize, &Run)| {
                    // Behind what the target has already.
                    let from = start.entry(run, segments);
                    let at = segments.segments.iter().skip(from).position(holds);
                    let segment = match at {
                        Some(at) => from + at,
                        None if quiet(segments) => segments.segments.len() - 1,
                        None => return None,
                    };
                    Some(Goal { run, segment, first_wins: true })
                };
                let mut goals: Vec<Goal> = runs().filter_map(goal).collect();
                if goals.is_empty() {
                    let last = self.segments().max_by_key(|segment| segment.last_time);
                    let last = last.map(point).unwrap_or_default();
                    return Err(format!(
                        "nothing that late is archived; the last transaction is {last}"
                    ));
                }
                // After a failover the line that lives on counts, not what the other one wrote alone.
                goals.sort_by_key(|goal| {
                    let last = self.runs[goal.run].last();
                    Reverse(age(last))
                });
                Ok(goals)
            }
            ReplayTarget::Gtid(gtid) | ReplayTarget::BeforeGtid(gtid) => {
                let goals: Vec<Goal> = runs()
                    .filter_map(|(run, segments)| {
                        let holds = |segment: &SegmentInfo| {
                            segment.holds(gtid) && !segment.held_before(gtid)
                        };
                        let segment = segments.segments.iter().position(holds)?;
                        Some(Goal { run, segment, first_wins: false })
                    })
                    .collect();
                if goals.is_empty() {
                    return Err(format!(
                        "{gtid} is in no archived binlog{}",
                        self.neighbours(gtid)
                    ));
                }
                Ok(goals)
            }
            ReplayTarget::Position { server, file, offset } => {
                let holds = |segment: &SegmentInfo| {
                    segment.range.file == *file
                        && segment.range.start < *offset
                        && *offset <= segment.range.end
                };
                let mut goals: Vec<Goal> = runs()
                    .filter(|(_, run)| server.as_ref().is_none_or(|server| server == run.server()))
                    .filter_map(|(run, segments)| {
                        let segment = segments.segments.iter().rposition(holds)?;
                        Some(Goal { run, segment, first_wins: false })
                    })
                    .collect();
                let of_base =
                    |goal: &Goal| base.server.as_ref() == Some(self.runs[goal.run].server());
                if server.is_none() && goals.len() > 1 {
                    if goals.iter().any(of_base) {
                        goals.retain(of_base);
                    } else {
                        return Err("more than one server has a file of that name; name the \
                                    server, or the GTID"
                            .into());
                    }
                }
                if goals.is_empty() {
                    return Err("that place is in no archived binlog".into());
                }
                Ok(goals)
            }
        }
    }

    /// The archived transactions next to one that is not.
    fn neighbours(&self, gtid: &Gtid) -> String {
        let (mut before, mut after): (Option<Gtid>, Option<Gtid>) = (None, None);
        let mut consider = |other: Gtid, number: u64, wanted: u64| {
            let slot = if number < wanted { &mut before } else { &mut after };
            let nearer = |old: &Gtid| number_of(old).abs_diff(wanted) > number.abs_diff(wanted);
            if slot.as_ref().is_none_or(nearer) {
                *slot = Some(other);
            }
        };
        for run in &self.runs {
            for set in [&run.segments[0].before, &run.last().after] {
                match (gtid, set) {
                    (Gtid::MySql(wanted), GtidSet::MySql(set)) => {
                        for (tsid, range) in set.intervals().filter(|(t, _)| *t == wanted.tsid()) {
                            for number in [*range.start(), *range.end()] {
                                if let Ok(other) = crate::MySqlGtid::new(tsid.clone(), number) {
                                    consider(other.into(), number, wanted.gno());
                                }
                            }
                        }
                    }
                    (Gtid::MariaDb(wanted), GtidSet::MariaDb(set)) => {
                        if let Some(other) = set.get(wanted.domain) {
                            consider(other.into(), other.seq, wanted.seq);
                        }
                    }
                    _ => {}
                }
            }
        }
        let tell = |word: &str, gtid: Option<Gtid>| {
            gtid.map(|gtid| format!(" {word} it: {gtid}.")).unwrap_or_default()
        };
        let told = format!("{}{}", tell("nearest before", before), tell("nearest after", after));
        if told.is_empty() { told } else { format!(";{}", told.trim_end_matches('.')) }
    }

    /// The way into a run and on to one of its segments; `passed` are runs that it leads through.
    fn way(
        &self,
        start: &Start,
        run: usize,
        segment: usize,
        passed: &mut Vec<usize>,
    ) -> Option<Vec<Stretch>> {
        let here = &self.runs[run];
        let stretch = |from: usize, begin| Stretch {
            segments: here.segments[from..=segment].to_vec(),
            only: None,
            begin,
        };
        let applied = match start {
            Start::At { run: at, segment: from, begin } => {
                let reached = *at == run && *from <= segment;
                return reached.then(|| vec![stretch(*from, Some(begin.clone()))]);
            }
            Start::Applied(applied) => applied,
        };
        if let Some(from) = here.entry(applied, segment) {
            return Some(vec![stretch(from, None)]);
        }
        // What this run builds on has to come from another one.
        let wanted = &here.segments[0].before;
        if here.segments[0].begins_inside {
            return None;
        }
        passed.push(run);
        let mut best: Option<Vec<Stretch>> = None;
        for (other, there) in self.runs.iter().enumerate() {
            if passed.contains(&other) {
                continue;
            }
            let enough = |segment: &SegmentInfo| match (&here.segments[0].state_before, applied) {
                (Some(state), GtidSet::MariaDb(applied)) => {
                    state.iter().all(|gtid| applied.covers(gtid) || segment.holds(&gtid.into()))
                }
                _ => {
                    let both = applied.union(&segment.after).ok();
                    both.is_some_and(|both| wanted.is_subset(&both).unwrap_or(false))
                }
            };
            let Some(upto) = there.segments.iter().position(enough) else { continue };
            let Some(mut way) = self.way(start, other, upto, passed) else { continue };
            if let Some(last) = way.last_mut() {
                last.only = Some(Only {
                    set: wanted.clone(),
                    state: here.segments[0].state_before.clone(),
                });
            }
            let after = applied.union(wanted).ok()?;
            let from = here.entry(&after, segment)?;
            way.push(stretch(from, None));
            let count = |way: &[Stretch]| way.iter().map(|s| s.segments.len()).sum::<usize>();
            if best.as_ref().is_none_or(|best| count(&way) < count(best)) {
                best = Some(way);
            }
        }
        passed.pop();
        best
    }

    /// Why a run cannot be entered.
    fn missing(&self, start: &Start, run: usize) -> String {
        let first = &self.runs[run].segments[0];
        match start {
            Start::Applied(applied) => {
                let mut have = applied.clone();
                for other in self
                    .runs
                    .iter()
                    .filter(|other| other.entry(applied, other.segments.len() - 1).is_some())
                {
                    have = have.union(&other.last().after).unwrap_or(have);
                }
                let lacking = first.before.difference(&have);
                let lacking = lacking.map(|set| set.to_string()).unwrap_or_default();
                format!("these transactions are not archived: {lacking} (before {})", first.range)
            }
            Start::At { begin: (file, offset), .. } => format!(
                "nothing joins {file}:{offset}, where the backup ends, with {}",
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

/// When the last thing in a segment happened.
fn age(segment: &SegmentInfo) -> (Timestamp, Timestamp) {
    // MariaDB's times are full seconds.
    (segment.last_time.unwrap_or(segment.archived_at), segment.archived_at)
}

fn number_of(gtid: &Gtid) -> u64 {
    match gtid {
        Gtid::MySql(gtid) => gtid.gno(),
        Gtid::MariaDb(gtid) => gtid.seq,
    }
}

/// The end of a segment, for people.
fn point(segment: &SegmentInfo) -> String {
    let time = segment.last_time.map(|time| format!("{time}, ")).unwrap_or_default();
    format!("{time}{}:{}", segment.range.file, segment.range.end)
}

enum Start {
    Applied(GtidSet),
    At { run: usize, segment: usize, begin: (String, u64) },
}

impl Start {
    /// Whether the target has all of a segment.
    fn covers(&self, segment: &SegmentInfo) -> bool {
        match self {
            Start::Applied(applied) => segment.after.is_subset(applied).unwrap_or(false),
            Start::At { .. } => false,
        }
    }

    /// The first segment of a run that may hold something new.
    fn entry(&self, run: usize, segments: &Run) -> usize {
        match self {
            Start::Applied(applied) => {
                segments.entry(applied, segments.segments.len() - 1).unwrap_or(0)
            }
            Start::At { run: at, segment, .. } if *at == run => *segment,
            Start::At { .. } => 0,
        }
    }
}

struct Goal {
    run: usize,
    segment: usize,
    /// Later ones are only looked at when there is no way to this one.
    first_wins: bool,
}
