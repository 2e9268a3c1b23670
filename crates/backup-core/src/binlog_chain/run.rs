//! Segments of one server, each joining the one before.

use crate::gtid::{GtidSet, MariaDbGtid};
use crate::segment::{BinlogServer, SegmentInfo};

#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) segments: Vec<SegmentInfo>,
}

impl Run {
    pub(super) fn server(&self) -> &BinlogServer {
        &self.segments[0].server
    }

    pub(super) fn last(&self) -> &SegmentInfo {
        &self.segments[self.segments.len() - 1]
    }

    /// The same of a backup of this very server, whose place is in this run. What the server got of others may be in no
    /// binary log of its own, and its own numbers go on behind theirs.
    fn agrees_as_own(&self, applied: &GtidSet) -> bool {
        let (GtidSet::MariaDb(set), Some(state)) = (applied, &self.last().state_after) else {
            return self.agrees(applied);
        };
        let logged = |gtid: &MariaDbGtid| {
            state.iter().any(|last| (last.domain, last.server) == (gtid.domain, gtid.server))
        };
        self.agrees(&GtidSet::MariaDb(set.iter().filter(logged).collect()))
    }

    /// Whether what the target has is in the history of this server, as far as that can be told.
    pub(super) fn agrees(&self, applied: &GtidSet) -> bool {
        let last = self.last();
        match (applied, &last.after, &last.state_after) {
            // Under the numbers that this server has, it has the same transactions.
            (GtidSet::MariaDb(applied), GtidSet::MariaDb(after), Some(state)) => {
                applied.iter().all(|gtid| !after.covers(gtid) || state.contains(gtid))
            }
            // What has nothing in common never was one history.
            (GtidSet::MySql(applied), GtidSet::MySql(after), _) => {
                let apart = applied.intersect(after).is_empty();
                applied.is_empty() || after.is_empty() || !apart
            }
            _ => true,
        }
    }

    /// Whether the server has all these transactions.
    pub(super) fn has(&self, set: &GtidSet) -> bool {
        self.agrees(set) && set.is_subset(&self.last().after).unwrap_or(false)
    }

    /// What of these transactions the server never had, and wrote others of its own instead: they are of servers that it
    /// knows, behind the last that it has of them. `None` where nothing is.
    pub(super) fn lost(&self, have: &GtidSet) -> Option<GtidSet> {
        let last = self.last();
        let lost = match (have, &last.after, &last.state_after) {
            (GtidSet::MySql(have), GtidSet::MySql(after), _) => GtidSet::MySql(have.behind(after)),
            (GtidSet::MariaDb(have), GtidSet::MariaDb(after), Some(state)) => {
                let knows = |of: &MariaDbGtid| {
                    let mut of_server =
                        state.iter().filter(|s| (s.domain, s.server) == (of.domain, of.server));
                    of_server.any(|last| last.seq < of.seq)
                };
                let went_on = |of: &MariaDbGtid| {
                    after.iter().any(|own| own.domain == of.domain && own.server != of.server)
                };
                let lost = have.iter().filter(|of| knows(of) && went_on(of));
                GtidSet::MariaDb(lost.collect())
            }
            _ => return None,
        };
        Some(lost).filter(|lost| !lost.is_empty())
    }

    /// The last place, up to segment `upto`, where the run can be entered with these transactions.
    /// `own`: they are of a backup of this very server, whose place is in this run.
    pub(super) fn entry(&self, applied: &GtidSet, own: bool, upto: usize) -> Option<usize> {
        let agrees = if own { self.agrees_as_own(applied) } else { self.agrees(applied) };
        if !agrees {
            return None;
        }
        (0..=upto).rev().find(|&at| {
            let segment = &self.segments[at];
            !segment.begins_inside && segment.before.is_subset(applied).unwrap_or(false)
        })
    }
}

/// Whether `next` joins `last`.
pub(super) fn joins(last: &SegmentInfo, next: &SegmentInfo) -> bool {
    if last.continues_in(next) {
        return true;
    }
    // Of a file whose first event nobody has, what comes behind that is the beginning.
    let begins = next.range.start == 0 || next.range.file_started == 0;
    if last.server != next.server || !begins || last.ends_inside {
        return false;
    }
    last.file_after().as_ref() == Some(&next.range.file)
        && next.gap_before.is_none()
        && last.after.is_subset(&next.before).unwrap_or(false)
        // What came in without a transaction (a physical restore, gtid_purged) is in no binlog.
        && next.before.is_subset(&last.after).unwrap_or(false)
}
