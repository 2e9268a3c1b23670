//! The transactions of a route, one after the other, as they are sent.

use std::collections::VecDeque;
use std::sync::Arc;

use backup_core::{Context, Gtid, GtidSet, Result, SegmentInfo, SegmentStore};
use bytes::Bytes;
use tokio_util::task::AbortOnDropHandle;

use super::super::ahead::{AT_ONCE, BYTES};
use super::super::event::{Event, Header, kind};
use super::super::group::Part;
use super::super::gtid::{Begin, not_standalone, plain_query, plain_query_len, with_len};
use super::super::route::{Route, ServedFile, Skipping};
use super::super::segment::{Placed, SegmentReader};

/// What is to be sent next.
pub(super) enum Step {
    /// From here on events are those of this file, from this position; the last ones did not lead
    /// there.
    Seek {
        /// Its number in the route.
        file: usize,
        /// Where the next event begins.
        position: u64,
    },
    /// An event that ends at this position.
    Event {
        /// The event.
        event: Event,
        /// Whether a transaction ends with it.
        last: bool,
        /// Where it is in the route: file and offset.
        place: (usize, u64),
    },
    /// Nothing more.
    End,
}

/// Where a replica begins.
pub(super) enum From {
    /// With everything that is not in this set.
    Lacking(GtidSet),
    /// At this position of this file of ours.
    Position {
        /// Its number in the route.
        file: usize,
        /// The position.
        position: u64,
    },
}

/// A part of what there is to do.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Amount {
    pub(super) bytes: u64,
    pub(super) transactions: u64,
}

impl Amount {
    pub(super) fn add(&mut self, other: Amount) {
        self.bytes += other.bytes;
        self.transactions += other.transactions;
    }

    fn of(segment: &SegmentInfo) -> Self {
        Amount { bytes: segment.bytes(), transactions: segment.transactions }
    }

    /// Of one event.
    fn one(event: &Event, begins: bool) -> Self {
        Amount { bytes: event.bytes().len() as u64, transactions: begins.into() }
    }

    fn less(&mut self, other: Amount) {
        self.bytes = self.bytes.saturating_sub(other.bytes);
        self.transactions = self.transactions.saturating_sub(other.transactions);
    }
}

/// A segment that is read ahead: which one, and its bytes.
type Ahead = ((usize, usize), AbortOnDropHandle<Result<Bytes>>);

/// Reads the route from the archive, some segments ahead.
pub(super) struct Groups {
    cx: Context,
    store: Arc<dyn SegmentStore>,
    route: Arc<Route>,
    from: From,
    file: usize,
    segment: usize,
    reader: Option<SegmentReader>,
    ahead: VecDeque<Ahead>,
    /// Where the replica thinks it is: file and position.
    at: Option<(usize, u64)>,
    /// The transaction that events belong to is sent.
    serving: bool,
    /// What goes before the next event.
    queue: VecDeque<Step>,
    /// What is still to come of the segment.
    rest: Amount,
    /// What was passed over since that was asked last.
    passed: Amount,
}

impl Groups {
    pub(super) fn new(
        cx: &Context,
        store: Arc<dyn SegmentStore>,
        route: Arc<Route>,
        from: From,
    ) -> Self {
        let file = match &from {
            From::Position { file, .. } => *file,
            From::Lacking(_) => 0,
        };
        Groups {
            cx: cx.clone(),
            store,
            route,
            from,
            file,
            segment: 0,
            reader: None,
            ahead: VecDeque::new(),
            at: None,
            serving: false,
            queue: VecDeque::new(),
            rest: Amount::default(),
            passed: Amount::default(),
        }
    }

    /// What of the route is not sent, and was passed over since this was asked last.
    pub(super) fn take_passed(&mut self) -> Amount {
        std::mem::take(&mut self.passed)
    }

    /// Begins to read segments in the background: the one at `place`, and what is needed behind it, as far as there
    /// is room.
    fn read_ahead(&mut self, place: (usize, usize)) {
        let mut before = std::mem::take(&mut self.ahead);
        while before.front().is_some_and(|(at, _)| *at < place) {
            before.pop_front();
        }
        let route = Arc::clone(&self.route);
        let numbered = route.files.iter().enumerate().skip(place.0).flat_map(|(f, file)| {
            let from = if f == place.0 { place.1 } else { 0 };
            let segments = file.segments.iter().enumerate().skip(from);
            segments.map(move |(s, segment)| ((f, s), file, segment))
        });
        let needed =
            numbered.filter(|((f, s), file, _)| (*f, *s) == place || !self.is_known(file, *s));
        let mut room = BYTES;
        let mut begun = VecDeque::new();
        for (at, _, segment) in needed.take(AT_ONCE) {
            match room.checked_sub(segment.bytes()) {
                Some(rest) => room = rest,
                // One at least.
                None if begun.is_empty() => room = 0,
                None => break,
            }
            if before.front().is_some_and(|(ahead, _)| *ahead == at) {
                begun.extend(before.pop_front());
                continue;
            }
            let (cx, store, segment) = (self.cx.clone(), Arc::clone(&self.store), segment.clone());
            let task = tokio::spawn(async move { store.read(&cx, &segment).await });
            begun.push_back((at, AbortOnDropHandle::new(task)));
        }
        self.ahead = begun;
    }

    /// Whether nothing of a segment is sent: the replica has it.
    fn is_known(&self, file: &ServedFile, segment: usize) -> bool {
        let info = &file.segments[segment];
        if let Some(kept) = &file.kept {
            let next = kept.partition_point(|&start| start < info.range.start);
            if kept.get(next).is_none_or(|&start| start >= info.range.end) {
                return true;
            }
        }
        match &self.from {
            From::Lacking(have) => {
                info.anonymous == 0
                    && !info.ends_inside
                    && info.after.is_subset(have).unwrap_or(false)
            }
            From::Position { file: at, position } => {
                *at == self.file && info.range.end <= *position && !info.ends_inside
            }
        }
    }

    /// The next step. The events of a transaction are the same every time it is sent.
    pub(super) async fn next(&mut self) -> Result<Step> {
        loop {
            if let Some(step) = self.queue.pop_front() {
                return Ok(step);
            }
            let placed = match &mut self.reader {
                Some(reader) => reader.next_event()?,
                None => match self.open().await? {
                    true => continue,
                    false => return Ok(Step::End),
                },
            };
            match placed {
                Some(placed) => {
                    let amount = Amount::one(&placed.event, matches!(placed.part, Part::Begin(_)));
                    self.rest.less(amount);
                    let queued = self.queue.len();
                    self.take(&placed)?;
                    if self.queue.len() == queued {
                        self.passed.add(amount);
                    }
                }
                None => {
                    self.passed.add(std::mem::take(&mut self.rest));
                    self.reader = None;
                    self.segment += 1;
                }
            }
        }
    }

    /// Opens the next segment that is needed.
    async fn open(&mut self) -> Result<bool> {
        loop {
            let route = Arc::clone(&self.route);
            let Some(file) = route.files.get(self.file) else { return Ok(false) };
            if self.segment >= file.segments.len() {
                (self.file, self.segment, self.serving) = (self.file + 1, 0, false);
                continue;
            }
            if !self.serving && self.is_known(file, self.segment) {
                self.passed.add(Amount::of(&file.segments[self.segment]));
                self.segment += 1;
                continue;
            }
            let place = (self.file, self.segment);
            self.read_ahead(place);
            let Some((_, task)) = self.ahead.pop_front() else { return Ok(false) };
            let content = task.await.map_err(|e| {
                backup_core::Error::internal("a task of the replay ended early").with_source(e)
            })??;
            self.rest = Amount::of(&file.segments[self.segment]);
            self.reader = Some(SegmentReader::new(&file.segments[self.segment], content)?);
            return Ok(true);
        }
    }

    fn take(&mut self, placed: &Placed) -> Result<()> {
        let Placed { event, part, start, end } = placed;
        match part {
            // These say what came before, or what comes next, in the files of the source; the target
            // reads files of ours.
            Part::Between => self.serving = false,
            Part::Begin(begin) => {
                let route = Arc::clone(&self.route);
                let file = &route.files[self.file];
                self.serving = match &self.from {
                    From::Lacking(have) => {
                        file.serves(begin, *start, route.applied.as_ref())?
                            && begin
                                .gtid
                                .as_ref()
                                .map_or(Ok(true), |g| have.contains(g).map(|h| !h))?
                    }
                    From::Position { file: at, position } => {
                        file.serves(begin, *start, route.applied.as_ref())?
                            && (*at != self.file || start >= position)
                    }
                };
                if !self.serving {
                    return Ok(());
                }
                if begin.gtid.as_ref().is_some_and(|gtid| route.skip.contains(gtid)) {
                    self.serving = false;
                    if route.skipping == Skipping::Emptied {
                        self.seek(*start);
                        self.emptied(event, begin)?;
                        // Its length is not that of the transaction.
                        self.at = None;
                    }
                    return Ok(());
                }
                self.seek(*start);
                self.push(event.clone(), *end, false);
            }
            Part::Inside | Part::End if self.serving => {
                self.push(event.clone(), *end, *part == Part::End);
            }
            Part::Inside | Part::End => {}
        }
        if *part == Part::End {
            self.serving = false;
        }
        Ok(())
    }

    /// Tells the replica where it is, where it cannot know.
    fn seek(&mut self, position: u64) {
        if self.at != Some((self.file, position)) {
            self.queue.push_back(Step::Seek { file: self.file, position });
        }
    }

    fn push(&mut self, event: Event, end: u64, last: bool) {
        self.at = Some((self.file, end));
        self.queue.push_back(Step::Event { event, last, place: (self.file, end) });
    }

    /// The transaction under its GTID, without what it did.
    fn emptied(&mut self, event: &Event, begin: &Begin) -> Result<()> {
        let mariadb = matches!(begin.gtid, Some(Gtid::MariaDb(_)));
        let checksum = event.checksum();
        let query = |text: &str, flags: u16, end: u32| {
            let header = Header { kind: kind::QUERY, flags, end, ..*event.header() };
            Event::build(header, &plain_query(text), checksum)
        };
        // MariaDB's GTID is the BEGIN.
        let words: &[&str] = if mariadb { &["COMMIT"] } else { &["BEGIN", "COMMIT"] };
        let len = event.bytes().len() as u64
            + words.iter().map(|text| plain_query_len(text, checksum)).sum::<u64>();
        let first = if mariadb { not_standalone(event) } else { with_len(event, begin, len)? };
        let mut at = event.header().end;
        let place = (self.file, at.into());
        self.queue.push_back(Step::Event { event: first, last: false, place });
        for (n, text) in words.iter().enumerate() {
            let last = n + 1 == words.len();
            /// "The statement may have no effect on the default database": set on every BEGIN.
            const SUPPRESS_USE: u16 = 8;
            at = at.wrapping_add(plain_query_len(text, checksum) as u32);
            let flags = if last { 0 } else { SUPPRESS_USE };
            self.queue.push_back(Step::Event { event: query(text, flags, at), last, place });
        }
        Ok(())
    }
}
