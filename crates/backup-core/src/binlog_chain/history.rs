//! Histories that went apart: after a failover that lost transactions, or a restore to a point, servers go on without
//! what another one has.

use jiff::Timestamp;

use super::plan::{ReplayBase, ReplayPlan};
use super::run::Run;
use super::way::Start;
use super::{BinlogChain, point};
use crate::gtid::{GtidSet, Tsid};
use crate::segment::{BinlogServer, SegmentInfo};

impl BinlogChain {
    /// What servers wrote that a way to the end of the archive leads past, a line each: after a failover their
    /// histories went apart, and one way goes on in one of them. Where only positions tell, it is not known.
    #[must_use]
    pub fn left_out(&self, base: &ReplayBase, plan: &ReplayPlan) -> Vec<String> {
        let (Ok(start), Some(applied)) = (self.start(base), &plan.applied) else {
            return Vec::new();
        };
        let have = plan.last().map_or(Ok(applied.clone()), |end| applied.union(&end.after));
        let Ok(have) = have else { return Vec::new() };
        // What has nothing in common never was one history.
        let akin = |last: &&SegmentInfo| match last.after.intersection(&have) {
            Ok(GtidSet::MySql(both)) => !both.is_empty(),
            _ => true,
        };
        let followed = plan.last().map(|last| &last.server).or(base.server.as_ref());
        let followed = followed.and_then(|server| self.end_of(server));
        // Numbers that were passed may be those of other transactions.
        let is_other = |run: &Run| followed.is_some_and(|followed| numbers_differ(followed, run));
        let ends = self.reachable(&start).filter(|run| !plan.has_all(run.last()) || is_other(run));
        let apart = ends.map(Run::last).filter(akin);
        apart
            .map(|last| {
                let lacking = match last.after.difference(&have) {
                    Ok(set) if !set.is_empty() => format!(": {set}"),
                    _ => String::new(),
                };
                format!(
                    "{} wrote transactions, up to {}, that are not on the way to the end: its history and that of the \
                     server that the way follows went apart{lacking}",
                    last.server,
                    point(last)
                )
            })
            .collect()
    }

    /// What servers wrote before `time` that a plan to that time leads past, where histories went apart, a line each.
    #[must_use]
    pub fn left_out_before(&self, plan: &ReplayPlan, time: Timestamp) -> Vec<String> {
        let ends: Vec<&Run> = self.ends().map(|run| &self.runs[run]).collect();
        let is_read = |segment: &SegmentInfo| {
            let mut read = plan.stretches.iter().flat_map(|stretch| &stretch.segments);
            read.any(|read| (&read.server, read.seq) == (&segment.server, segment.seq))
        };
        let is_before =
            |segment: &SegmentInfo| segment.first_time.is_some_and(|first| first < time);
        let parted = ends.iter().filter_map(|run| {
            let others: Vec<&&Run> = ends.iter().filter(|other| went_apart(run, other)).collect();
            let of_it = self.runs.iter().filter(|of| of.server() == run.server());
            let mut segments = of_it.flat_map(|run| &run.segments);
            segments.rfind(|segment| {
                let apart = || others.iter().any(|other| !other.has(&segment.after));
                is_before(segment) && !is_read(segment) && apart()
            })
        });
        parted
            .map(|segment| {
                format!(
                    "{} wrote transactions before {time} or about then, in its binlogs up to {}, that are not on the way: \
                     its history and that of another server went apart",
                    segment.server,
                    point(segment)
                )
            })
            .collect()
    }

    /// Why what a plan leads to may be of no server's history: the base has transactions that the server which it
    /// follows never had, and that one went on without them, after a failover that lost them or a restore to before
    /// them. An older base may lead there by one history.
    #[must_use]
    pub fn mixed(&self, base: &ReplayBase, plan: &ReplayPlan) -> Option<String> {
        let (Start::Applied { applied: have, .. }, Some(last)) =
            (self.start(base).ok()?, plan.last())
        else {
            return None;
        };
        if base.server.as_ref() == Some(&last.server) {
            return None;
        }
        let run = self.end_of(&last.server)?;
        let lost = match (run.lost(&have), self.of_others(base, &have, run)) {
            (Some(lost), Some(others)) => lost.union(&others).ok()?,
            (lost, others) => lost.or(others)?,
        };
        let goes_on = last.after.difference(&have).is_ok_and(|new| !new.is_empty());
        goes_on.then(|| {
            format!(
                "{} never had {lost}, which are there, and went on without them: after a failover that lost them, or a \
                 restore to before them, what comes of both may be of neither history",
                last.server
            )
        })
    }

    /// What is there of servers that others in the archive know and this one has nothing of (MySQL). What a server that
    /// is to be written has of its own, as a restore, may be archived too, and does not count.
    fn of_others(&self, base: &ReplayBase, have: &GtidSet, run: &Run) -> Option<GtidSet> {
        let (GtidSet::MySql(have), GtidSet::MySql(after)) = (have, &run.last().after) else {
            return None;
        };
        let known = |tsid: &Tsid| {
            let mut all = self.runs.iter().map(|run| &run.last().after);
            all.any(|set| matches!(set, GtidSet::MySql(set) if set.last(tsid).is_some()))
        };
        let own = |tsid: &Tsid| base.own().is_some_and(|own| own.counts(tsid));
        let of_others = have.only(|tsid| after.last(tsid).is_none() && known(tsid) && !own(tsid));
        Some(GtidSet::MySql(of_others)).filter(|set| !set.is_empty())
    }

    /// What servers wrote to which none of these bases leads, a line each: the newest base (the last one) is of another
    /// history. Where only positions tell, it is not known.
    #[must_use]
    pub fn unreached(&self, bases: &[ReplayBase]) -> Vec<String> {
        let starts: Vec<Start> = bases.iter().filter_map(|base| self.start(base).ok()).collect();
        let Some(Start::Applied { applied: newest, .. }) = starts.last() else { return Vec::new() };
        let reached = |run: usize, start: &Start| {
            let last = self.runs[run].segments.len() - 1;
            let covered = start.covers(self.runs[run].last());
            covered || self.way(start, run, last, &mut Vec::new()).is_some()
        };
        let other = |run: &usize| self.is_apart(newest, *run);
        let unreached = self.ends().filter(other);
        let unreached = unreached.filter(|&run| !starts.iter().any(|start| reached(run, start)));
        unreached
            .map(|run| {
                let last = self.runs[run].last();
                format!(
                    "nothing leads to what {} wrote, up to {}: its binlogs do not lead on from what is there",
                    last.server,
                    point(last)
                )
            })
            .collect()
    }

    /// Whether a run is of another history than what is there: by itself, or because of what its server wrote before,
    /// as in a restore.
    pub(super) fn is_apart(&self, applied: &GtidSet, run: usize) -> bool {
        let here = &self.runs[run];
        let (GtidSet::MySql(have), GtidSet::MySql(before)) = (applied, &here.segments[0].before)
        else {
            return !here.agrees(applied);
        };
        let lacks = before.subtract(have);
        let own = |tsid: &Tsid| here.server().counts(tsid);
        let is_apart =
            |earlier: &Run| earlier.server() == here.server() && !earlier.agrees(applied);
        !here.agrees(applied) || (lacks.tsids().any(own) && self.runs[..run].iter().any(is_apart))
    }

    /// The last run of a server.
    fn end_of(&self, server: &BinlogServer) -> Option<&Run> {
        self.ends().map(|run| &self.runs[run]).find(|run| run.server() == server)
    }

    /// The last run of every server.
    fn ends(&self) -> impl Iterator<Item = usize> {
        let is_last = |run: &usize| {
            self.runs.get(run + 1).is_none_or(|next| next.server() != self.runs[*run].server())
        };
        (0..self.runs.len()).filter(is_last)
    }
}

/// Whether each of two servers has what the other one has not.
fn went_apart(here: &Run, there: &Run) -> bool {
    match (&here.last().after, &there.last().after) {
        (here @ GtidSet::MySql(_), there @ GtidSet::MySql(_)) => {
            !here.is_subset(there).unwrap_or(true) && !there.is_subset(here).unwrap_or(true)
        }
        _ => numbers_differ(here, there) || numbers_differ(there, here),
    }
}

/// Whether a run has other transactions under numbers that another one has passed (MariaDB).
fn numbers_differ(followed: &Run, run: &Run) -> bool {
    let (here, there) = (&followed.last().after, &run.last().after);
    matches!(here, GtidSet::MariaDb(_))
        && !followed.agrees(there)
        && (run.lost(here).is_some() || followed.lost(there).is_some())
}
