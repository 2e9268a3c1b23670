//! Sorted lists of ranges of transaction numbers: the arithmetic under [`MySqlGtidSet`].
//!
//! [`MySqlGtidSet`]: super::MySqlGtidSet

/// The numbers from `start` up to, but not including, `end`: as on the wire. Never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Interval {
    pub(super) start: u64,
    pub(super) end: u64,
}

/// Intervals in rising order that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Intervals(Vec<Interval>);

impl Intervals {
    /// Brings intervals in any order into the canonical form.
    pub(super) fn new(mut list: Vec<Interval>) -> Self {
        list.sort_unstable();
        list.dedup_by(|next, kept| {
            let touches = next.start <= kept.end;
            if touches {
                kept.end = kept.end.max(next.end);
            }
            touches
        });
        Intervals(list)
    }

    pub(super) fn as_slice(&self) -> &[Interval] {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|i| i.end - i.start).sum()
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        let after = self.0.partition_point(|i| i.start <= number);
        after.checked_sub(1).is_some_and(|at| number < self.0[at].end)
    }

    pub(super) fn add(&mut self, new: Interval) {
        // What touches the new interval lies in from..to.
        let from = match self.0.last() {
            // The usual case by far: the next number of a source that counts up.
            Some(last) if last.start <= new.start => {
                self.0.len() - usize::from(last.end >= new.start)
            }
            _ => self.0.partition_point(|i| i.end < new.start),
        };
        let to = from + self.0[from..].partition_point(|i| i.start <= new.end);
        let joined = match &self.0[from..to] {
            [] => new,
            [first, .., last] => {
                Interval { start: first.start.min(new.start), end: last.end.max(new.end) }
            }
            [one] => Interval { start: one.start.min(new.start), end: one.end.max(new.end) },
        };
        self.0.splice(from..to, [joined]);
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        Intervals::new([&self.0[..], &other.0[..]].concat())
    }

    pub(super) fn intersect(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut result = Vec::new();
        while let (Some(&&a), Some(&&b)) = (left.peek(), right.peek()) {
            let common = Interval { start: a.start.max(b.start), end: a.end.min(b.end) };
            if common.start < common.end {
                result.push(common);
            }
            if a.end <= b.end {
                left.next();
            } else {
                right.next();
            }
        }
        Intervals(result)
    }

    pub(super) fn subtract(&self, other: &Self) -> Self {
        let mut result = Vec::new();
        let mut cuts = other.0.iter().peekable();
        for &Interval { mut start, end } in &self.0 {
            while let Some(cut) = cuts.peek().filter(|cut| cut.start < end) {
                if start < cut.start {
                    result.push(Interval { start, end: cut.start });
                }
                start = start.max(cut.end);
                if cut.end > end {
                    // It may cut the next interval as well.
                    break;
                }
                cuts.next();
            }
            if start < end {
                result.push(Interval { start, end });
            }
        }
        Intervals(result)
    }

    pub(super) fn is_subset(&self, other: &Self) -> bool {
        self.0.iter().all(|i| {
            let after = other.0.partition_point(|o| o.start <= i.start);
            after.checked_sub(1).is_some_and(|at| i.end <= other.0[at].end)
        })
    }
}
