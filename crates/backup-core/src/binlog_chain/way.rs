//! The way from what a target has, through the runs, to a segment.

use super::BinlogChain;
use super::plan::{ReplayBase, Stretch};
use super::run::Run;
use crate::gtid::GtidSet;
use crate::segment::{Only, SegmentInfo};

/// What the target has, in the terms of the archive.
pub(super) enum Start {
    Applied {
        applied: GtidSet,
        /// MariaDB: the run that the place of a backup is in, of the server that it is of.
        own: Option<usize>,
    },
    At {
        run: usize,
        segment: usize,
        begin: (String, u64),
    },
}

impl Start {
    /// Whether the target has all of a segment.
    pub(super) fn covers(&self, segment: &SegmentInfo) -> bool {
        match self {
            Start::Applied { applied, .. } => segment.after.is_subset(applied).unwrap_or(false),
            Start::At { .. } => false,
        }
    }

    /// The first segment of a run that may hold something new.
    pub(super) fn entry(&self, run: usize, segments: &Run) -> usize {
        match self {
            Start::Applied { applied, own } => {
                let last = segments.segments.len() - 1;
                segments.entry(applied, *own == Some(run), last).unwrap_or(0)
            }
            Start::At { run: at, segment, .. } if *at == run => *segment,
            Start::At { .. } => 0,
        }
    }
}

impl BinlogChain {
    /// What the target has, in the terms of the archive.
    pub(super) fn start(&self, base: &ReplayBase) -> Result<Start, String> {
        let anonymous = self.segments().any(|segment| segment.anonymous > 0);
        if let Some(gtid) = &base.position.gtid
            && !anonymous
        {
            return Ok(Start::Applied { applied: gtid.clone(), own: self.own_run(base) });
        }
        if base.position.gtid_unknown && !anonymous {
            return Err("which transactions the backup has is not known; a server on what it restores, without a point, \
                        knows its own, and `holdfast binlog apply` goes on from there"
                .into());
        }
        let Some(flavor) = self.segments().next().map(|segment| segment.flavor) else {
            return Err("nothing is archived".into());
        };
        if !anonymous && base.position.file.is_none() {
            return Ok(Start::Applied { applied: GtidSet::empty(flavor), own: None });
        }
        let (Some(file), Some(offset)) = (&base.position.file, base.position.offset) else {
            return Err("the archive has transactions without GTIDs, and no binlog position tells where to begin: a \
                        backup may have one, from which `holdfast restore` goes to the point at once; a server \
                        that runs has none"
                .into());
        };
        match self.place_of(base) {
            Some((run, segment)) if anonymous => {
                Ok(Start::At { run, segment, begin: (file.clone(), offset) })
            }
            // A server that has executed nothing yet has no GTIDs to tell.
            _ if !anonymous => Ok(Start::Applied { applied: GtidSet::empty(flavor), own: None }),
            _ => Err(format!(
                "{file}:{offset}, where the backup ends, is not archived, and without GTIDs no \
                 other place can stand for it"
            )),
        }
    }

    /// The run and the segment that the place of a base is in.
    fn place_of(&self, base: &ReplayBase) -> Option<(usize, usize)> {
        let (file, offset) = (base.position.file.as_ref()?, base.position.offset?);
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
        found
    }

    /// The run of the server itself that a base is of, where its place is archived.
    fn own_run(&self, base: &ReplayBase) -> Option<usize> {
        base.server.as_ref()?;
        self.place_of(base).map(|(run, _)| run)
    }

    /// The way into a run and on to one of its segments; `passed` are runs that it leads through.
    pub(super) fn way(
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
        let (applied, own) = match start {
            Start::At { run: at, segment: from, begin } => {
                let reached = *at == run && *from <= segment;
                return reached.then(|| vec![stretch(*from, Some(begin.clone()))]);
            }
            Start::Applied { applied, own } => (applied, *own == Some(run)),
        };
        if let Some(from) = here.entry(applied, own, segment) {
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
            let from = here.entry(&after, own, segment)?;
            way.push(stretch(from, None));
            let count = |way: &[Stretch]| way.iter().map(|s| s.segments.len()).sum::<usize>();
            if best.as_ref().is_none_or(|best| count(&way) < count(best)) {
                best = Some(way);
            }
        }
        passed.pop();
        best
    }
}
