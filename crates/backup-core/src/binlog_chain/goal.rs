//! Where the point of a replay may be.

use std::cmp::Reverse;

use jiff::Timestamp;

use super::plan::{ReplayBase, ReplayTarget};
use super::run::Run;
use super::way::Start;
use super::{BinlogChain, age, point};
use crate::gtid::{Gtid, GtidSet, MariaDbGtid, Tsid};
use crate::segment::SegmentInfo;

/// A segment that the point may be in.
pub(super) struct Goal {
    pub(super) run: usize,
    pub(super) segment: usize,
    /// Later ones are only looked at when there is no way to this one.
    pub(super) first_wins: bool,
}

impl BinlogChain {
    /// Where the point may be: in the last of these segments.
    pub(super) fn goals(
        &self,
        base: &ReplayBase,
        start: &Start,
        target: &ReplayTarget,
    ) -> Result<Vec<Goal>, String> {
        let runs = || self.runs.iter().enumerate();
        match target {
            ReplayTarget::End | ReplayTarget::Reachable => {
                let ages = self.ages();
                let news = runs().filter(|(_, run)| !start.covers(run.last()));
                let mut goals: Vec<Goal> = news
                    .map(|(run, segments)| Goal {
                        run,
                        segment: segments.segments.len() - 1,
                        first_wins: true,
                    })
                    .collect();
                // The newest that can be reached.
                goals.sort_by_key(|goal| Reverse((ages[goal.run], goal.run)));
                Ok(goals)
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
                let of_base = |goal: &Goal| {
                    let server = base.server.as_ref().filter(|_| base.position.file.is_some());
                    server == Some(self.runs[goal.run].server())
                };
                if server.is_none() && goals.len() > 1 {
                    if goals.iter().any(of_base) {
                        goals.retain(of_base);
                    } else {
                        let places = goals.iter().map(|goal| {
                            format!("{}/{file}:{offset}", self.runs[goal.run].server())
                        });
                        return Err(format!(
                            "more than one server has such a place; say which one, {}, or name the GTID",
                            places
                                .map(|place| format!("--to-position {place}"))
                                .collect::<Vec<_>>()
                                .join(" or ")
                        ));
                    }
                }
                if goals.is_empty() {
                    return Err("that place is in no archived binlog".into());
                }
                Ok(goals)
            }
        }
    }

    /// Whether the base goes further than the segment that the point is in. What it has within that
    /// segment, only the events tell.
    pub(super) fn passes(
        &self,
        base: &ReplayBase,
        start: &Start,
        goal: &Goal,
        target: &ReplayTarget,
    ) -> bool {
        let run = &self.runs[goal.run];
        let segment = &run.segments[goal.segment];
        match (start, target) {
            (Start::Applied { applied, .. }, ReplayTarget::Position { .. }) => {
                self.has_more(base, applied, segment)
            }
            (Start::Applied { applied, .. }, ReplayTarget::Gtid(gtid)) => {
                applied.contains(gtid).unwrap_or(false) && self.has_more(base, applied, segment)
            }
            (Start::Applied { applied, .. }, ReplayTarget::BeforeGtid(gtid)) => {
                applied.contains(gtid).unwrap_or(false)
            }
            (
                Start::At { run: at, segment: from, begin },
                ReplayTarget::Position { offset, .. },
            ) => {
                let same = self.runs[*at].server() == run.server();
                let further = (*at, *from).cmp(&(goal.run, goal.segment)).then(begin.1.cmp(offset));
                same && further.is_gt()
            }
            _ => false,
        }
    }

    /// Whether these are more transactions than there are up to the end of a segment. Those of servers
    /// that no archived binlog knows do not count: a replica may have some of its own. Neither do those that a
    /// server which is to be written has of its own, as those of the restore: they may be archived too.
    fn has_more(&self, base: &ReplayBase, applied: &GtidSet, segment: &SegmentInfo) -> bool {
        let mut known = self.runs.iter().map(|run| &run.last().after);
        match (applied, &segment.after) {
            (GtidSet::MySql(applied), GtidSet::MySql(after)) => {
                let more = applied.subtract(after);
                known.any(|set| {
                    let GtidSet::MySql(set) = set else { return false };
                    let is_own = |tsid: &Tsid| base.own().is_some_and(|own| own.counts(tsid));
                    let mut more = more.tsids().filter(|tsid| !is_own(tsid));
                    more.any(|more| set.tsids().any(|tsid| tsid == more))
                })
            }
            (GtidSet::MariaDb(applied), GtidSet::MariaDb(after)) => known.any(|set| {
                let GtidSet::MariaDb(set) = set else { return false };
                let more =
                    |gtid: MariaDbGtid| !after.covers(gtid) && set.get(gtid.domain).is_some();
                applied.iter().any(more)
            }),
            _ => false,
        }
    }

    /// The last commit up to the end of each run, and when that was archived. What a server wrote behind a
    /// hole is later than what it wrote before, whatever the clocks say.
    fn ages(&self) -> Vec<(Option<Timestamp>, Timestamp)> {
        let mut ages: Vec<(Option<Timestamp>, Timestamp)> = Vec::with_capacity(self.runs.len());
        for (at, run) in self.runs.iter().enumerate() {
            let commit = run.segments.iter().filter_map(|segment| segment.last_time).max();
            let archived = run.last().archived_at;
            ages.push(match self.run_before(at).map(|_| ages[at - 1]) {
                Some(before) => (commit.max(before.0), archived.max(before.1)),
                None => (commit, archived),
            });
        }
        ages
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
}

fn number_of(gtid: &Gtid) -> u64 {
    match gtid {
        Gtid::MySql(gtid) => gtid.gno(),
        Gtid::MariaDb(gtid) => gtid.seq,
    }
}
