//! From a plan to the very events: where the last one ends that is applied, and what the transactions
//! on both sides of that place are. Resolved once, before anything is applied, to an offset at the
//! border of a transaction, which no later question can move.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use backup_core::{
    BinlogChain, Context, Error, ErrorKind, Flavor, Gtid, GtidSet, Only, ReplayPlan, ReplayTarget,
    Result, SegmentInfo, SegmentStore, Stretch, Unreachable,
};
use bytes::Bytes;
use jiff::Timestamp;

use super::event::Format;
use super::group::Part;
use super::gtid::Begin;
use super::replay::Demands;
use super::segment::{Placed, SegmentReader, format_of};
use super::summary::{Summary, Transaction};

/// What becomes of a transaction that is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Skipping {
    /// It is applied under its GTID, with nothing in it: no hole is left that a replica would fill.
    #[default]
    Emptied,
    /// It is not sent at all.
    Omitted,
}

/// Everything that a replay applies.
#[derive(Debug, Clone)]
pub struct Route {
    pub(super) files: Vec<ServedFile>,
    /// The transactions that the target has before; `None` where there are no GTIDs.
    pub applied: Option<GtidSet>,
    /// The transactions that it has then.
    pub reached: Option<GtidSet>,
    /// The last transaction that is applied; `None` where none is.
    pub last: Option<Transaction>,
    /// The first one that is left out; `None` where nothing is behind the last one.
    pub first_left_out: Option<Transaction>,
    /// The first transaction that the target has before, and that comes behind the point.
    pub passed: Option<Gtid>,
    /// What needs a look before it is gone.
    pub warnings: Vec<String>,
    /// Transactions that are applied without effect.
    pub skip: BTreeSet<Gtid>,
    /// What becomes of those.
    pub skipping: Skipping,
    /// Length of what is read, in bytes.
    pub bytes: u64,
    /// About how many transactions are read.
    pub transactions: u64,
    /// What its statements need where they are run as such, once that was looked for.
    pub(super) demands: Arc<OnceLock<Demands>>,
}

/// A file as the target sees it: pieces of one file of a server, under a name of ours.
#[derive(Debug, Clone)]
pub(super) struct ServedFile {
    pub(super) name: String,
    pub(super) format: Format,
    pub(super) segments: Vec<SegmentInfo>,
    /// Only these transactions.
    pub(super) only: Option<Only>,
    /// Transactions that begin before this offset are not sent.
    pub(super) begin: u64,
    /// Transactions that begin at this offset or behind it are not sent.
    pub(super) stop: u64,
    /// Only transactions that begin at these offsets, sorted.
    pub(super) kept: Option<Arc<Vec<u64>>>,
}

impl ServedFile {
    /// Whether a transaction of this file is sent to a target that has `applied`.
    pub(super) fn serves(
        &self,
        begin: &Begin,
        start: u64,
        applied: Option<&GtidSet>,
    ) -> Result<bool> {
        if start < self.begin || start >= self.stop {
            return Ok(false);
        }
        if let Some(kept) = &self.kept
            && kept.binary_search(&start).is_err()
        {
            return Ok(false);
        }
        let Some(gtid) = &begin.gtid else { return Ok(true) };
        if let Some(only) = &self.only
            && !only.contains(gtid)
        {
            return Ok(false);
        }
        Ok(match applied {
            Some(applied) => !applied.contains(gtid)?,
            None => true,
        })
    }
}

/// The names that the target sees; numbers from 1.
const SERIES: &str = "holdfast";

impl Route {
    /// Resolves a plan.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`](backup_core::ErrorKind::Unreachable) when the point is not in the segments after all;
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when one of them is damaged; [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) when a transaction is
    /// to be skipped that is not applied.
    pub async fn resolve(
        cx: &Context,
        store: &dyn SegmentStore,
        chain: &BinlogChain,
        plan: &ReplayPlan,
        target: &ReplayTarget,
        skip: BTreeSet<Gtid>,
        skipping: Skipping,
    ) -> Result<Route> {
        let mut route = Route {
            files: served_files(plan)?,
            applied: plan.applied.clone(),
            reached: plan.applied.clone(),
            last: None,
            first_left_out: None,
            passed: None,
            warnings: Vec::new(),
            skip,
            skipping,
            bytes: 0,
            transactions: 0,
            demands: Arc::default(),
        };
        if !route.files.is_empty() {
            route.find_stop(cx, store, chain, target).await?;
        }
        // Whether a time is passed may be told otherwise: by when a backup was taken.
        if let Some(gtid) =
            route.passed.as_ref().filter(|_| !matches!(target, ReplayTarget::Time(_)))
        {
            let there =
                route.applied.as_ref().map_or_else(|| gtid.to_string(), ToString::to_string);
            return Err(Unreachable::passed(target, there).into());
        }
        route.bytes = route.segments().map(|(_, segment)| segment.bytes()).sum();
        route.transactions = route.segments().map(|(_, segment)| segment.transactions).sum();
        route.check_skipped()?;
        Ok(route)
    }

    /// Its segments in order, each with the file that it is a piece of, and that one's number.
    pub(super) fn segments(&self) -> impl Iterator<Item = ((usize, &ServedFile), &SegmentInfo)> {
        self.files.iter().enumerate().flat_map(|(number, file)| {
            file.segments.iter().map(move |segment| ((number, file), segment))
        })
    }

    /// Whether transactions are left out that the target will never have.
    pub(super) fn is_narrowed(&self) -> bool {
        self.files.iter().any(|file| file.kept.is_some())
    }

    /// Whether there is nothing to apply.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() || self.last.is_none()
    }

    /// Where the last transaction ends, in the names that the target sees. Files may follow that have none.
    pub(super) fn ends_at(&self) -> (&str, u64) {
        let Some(last) = &self.last else { return ("", 0) };
        let has = |segment: &SegmentInfo| {
            let range = &segment.range;
            range.file == last.file && range.start < last.end && last.end <= range.end
        };
        let file = self.files.iter().rfind(|file| file.segments.iter().any(has));
        (file.map_or("", |file| &file.name), last.end)
    }

    fn check_skipped(&mut self) -> Result<()> {
        for gtid in &self.skip {
            let inside = |set: &Option<GtidSet>| {
                set.as_ref().is_some_and(|set| set.contains(gtid).unwrap_or(false))
            };
            if inside(&self.applied) || !inside(&self.reached) {
                return Err(Error::usage(format!(
                    "{gtid} is to be skipped, and is not among the transactions that are applied"
                ))
                .with_remedy("see with --dry-run what is applied"));
            }
        }
        Ok(())
    }

    /// Finds the place of the stop, and sets everything by it.
    async fn find_stop(
        &mut self,
        cx: &Context,
        store: &dyn SegmentStore,
        chain: &BinlogChain,
        target: &ReplayTarget,
    ) -> Result<()> {
        let places: Vec<(usize, usize)> = self
            .files
            .iter()
            .enumerate()
            .flat_map(|(f, file)| (0..file.segments.len()).map(move |s| (f, s)))
            .collect();
        let at = |place: (usize, usize)| &self.files[place.0].segments[place.1];
        let last = places.len() - 1;
        let mut from = match target {
            ReplayTarget::Time(time) => {
                places.iter().position(|&place| at(place).reaches(*time)).unwrap_or(last)
            }
            _ => last,
        };
        // To the start of a transaction, and far enough to meet the one before the stop.
        let open_end = matches!(target, ReplayTarget::End | ReplayTarget::Reachable);
        let mut met = at(places[from]).transactions > 0 && open_end;
        while from > 0 && (at(places[from]).begins_inside || !met) {
            from -= 1;
            met |= at(places[from]).transactions > 0;
        }
        let mut scan = Scan {
            target,
            applied: self.applied.as_ref(),
            state: self.state_before(places[from])?,
            last: None,
            stop: None,
            left_out: None,
            passed: None,
            open: None,
            last_file: places[last].0,
            flavor: at(places[last]).flavor,
        };
        for &(f, s) in &places[from..] {
            let file = &self.files[f];
            let content = store.read(cx, &file.segments[s]).await?;
            scan.segment(f, file, &file.segments[s], content)?;
            if scan.left_out.is_some() {
                break;
            }
            if s + 1 == file.segments.len() && (f, s) != places[last] {
                scan.open = None;
            }
        }
        if scan.stop.is_none()
            && matches!(target, ReplayTarget::Gtid(_) | ReplayTarget::BeforeGtid(_))
        {
            return Err(Unreachable {
                target: target.to_string(),
                problem: "no transaction of exactly that name is archived".into(),
                passed: false,
            }
            .into());
        }
        if scan.left_out.is_none()
            && scan.stop.is_some()
            && let Some(next) = chain.next(at(places[last]))
        {
            // It is only named: the way ends before it.
            // So it may be damaged.
            let content = match store.read(cx, next).await {
                Err(e) if e.kind() == ErrorKind::Damaged => None,
                content => Some(content?),
            };
            let (f, file) = (places[last].0, &self.files[places[last].0]);
            let beyond = ServedFile { stop: u64::MAX, begin: 0, ..file.clone() };
            if let Some(content) = content {
                scan.segment(f, &beyond, next, content)?;
            }
        }
        if let (None, Some(open)) = (scan.stop, &scan.open) {
            // The archive ends inside a transaction: it is left out.
            scan.stop = Some((places[last].0, open.start));
        }
        let Scan { state, last, stop, left_out, passed, .. } = scan;
        if let Some((f, offset)) = stop {
            self.files.truncate(f + 1);
            let file = &mut self.files[f];
            file.stop = offset;
            file.segments.retain(|segment| segment.range.start < offset);
        }
        self.files.retain(|file| !file.segments.is_empty());
        self.reached = state;
        self.last = last;
        self.first_left_out = left_out;
        self.passed = passed;
        Ok(())
    }

    /// What the target has when everything before this segment is applied.
    fn state_before(&self, (f, s): (usize, usize)) -> Result<Option<GtidSet>> {
        let Some(mut state) = self.applied.clone() else { return Ok(None) };
        for (at, file) in self.files[..=f].iter().enumerate() {
            let reached = if at == f {
                file.segments[s].before.clone()
            } else {
                file.segments[file.segments.len() - 1].after.clone()
            };
            let reached = match &file.only {
                Some(only) => reached.intersection(&only.set)?,
                None => reached,
            };
            state = state.union(&reached)?;
        }
        Ok(Some(state))
    }
}

/// Looks for the stop, transaction by transaction.
struct Scan<'a> {
    target: &'a ReplayTarget,
    applied: Option<&'a GtidSet>,
    state: Option<GtidSet>,
    last: Option<Transaction>,
    /// File and offset.
    stop: Option<(usize, u64)>,
    left_out: Option<Transaction>,
    /// The first one behind the point that the target has.
    passed: Option<Gtid>,
    open: Option<Open>,
    /// The file that the point is in.
    last_file: usize,
    flavor: Flavor,
}

/// A transaction whose end has not come yet.
struct Open {
    summary: Summary,
    gtid: Option<Gtid>,
    time: Timestamp,
    start: u64,
    served: bool,
}

impl Scan<'_> {
    fn segment(
        &mut self,
        f: usize,
        file: &ServedFile,
        info: &SegmentInfo,
        content: Bytes,
    ) -> Result<()> {
        let mut reader = SegmentReader::new(info, content)?;
        while let Some(Placed { event, part, start, end }) = reader.next_event()? {
            match &part {
                Part::Begin(begin) => {
                    let served = file.serves(begin, start, self.applied)?;
                    let summary = Summary::begin(begin, &info.range.file, start, end);
                    self.open = Some(Open {
                        summary,
                        gtid: begin.gtid.clone(),
                        time: begin.time,
                        start,
                        served,
                    });
                }
                Part::Inside | Part::End => {
                    if let Some(open) = &mut self.open {
                        open.summary.add(&event, end)?;
                    }
                }
                Part::Between => self.open = None,
            }
            if part == Part::End
                && let Some(open) = self.open.take()
            {
                match open.served {
                    true => self.transaction(f, open, end)?,
                    false => self.unserved(f, &open, end),
                }
            }
        }
        Ok(())
    }

    /// Whether a transaction is the first one behind the point.
    fn is_behind(&self, f: usize, open: &Open, end: u64) -> bool {
        match self.target {
            ReplayTarget::Time(limit) => open.time >= self.flavor.commit_limit(*limit),
            ReplayTarget::BeforeGtid(wanted) => open.gtid.as_ref() == Some(wanted),
            ReplayTarget::Position { offset, .. } => f == self.last_file && end > *offset,
            ReplayTarget::Gtid(_) | ReplayTarget::End | ReplayTarget::Reachable => false,
        }
    }

    /// A whole transaction that is not sent; the target may have it.
    fn unserved(&mut self, f: usize, open: &Open, end: u64) {
        let Some(gtid) = &open.gtid else { return };
        let has = self.applied.is_some_and(|applied| applied.contains(gtid).unwrap_or(false));
        if self.stop.is_some() || self.is_behind(f, open, end) {
            if has && self.passed.is_none() {
                self.passed = Some(gtid.clone());
            }
        } else if let ReplayTarget::Gtid(wanted) = self.target
            && gtid == wanted
        {
            self.stop = Some((f, end));
        }
    }

    /// A whole transaction that is not there yet.
    fn transaction(&mut self, f: usize, open: Open, end: u64) -> Result<()> {
        if self.left_out.is_some() {
            return Ok(());
        }
        let beyond = self.is_behind(f, &open, end);
        let Open { summary, gtid, start, .. } = open;
        if self.stop.is_some() {
            self.left_out = Some(summary.end());
            return Ok(());
        }
        if beyond {
            self.stop = Some((f, start));
            self.left_out = Some(summary.end());
            return Ok(());
        }
        if let (Some(state), Some(gtid)) = (&mut self.state, &gtid) {
            state.insert(gtid)?;
        }
        self.last = Some(summary.end());
        if let ReplayTarget::Gtid(wanted) = self.target
            && gtid.as_ref() == Some(wanted)
        {
            self.stop = Some((f, end));
        }
        Ok(())
    }
}

/// The files that a plan is made of, one after the other.
fn served_files(plan: &ReplayPlan) -> Result<Vec<ServedFile>> {
    let mut files: Vec<ServedFile> = Vec::new();
    for Stretch { segments, only, begin } in &plan.stretches {
        let mut new_stretch = true;
        for segment in segments {
            if let Some(file) = files.last_mut().filter(|file| {
                !new_stretch && file.segments.last().is_some_and(|last| last.continues_in(segment))
            }) {
                file.segments.push(segment.clone());
                continue;
            }
            let begin = match begin {
                Some((name, offset)) if new_stretch && *name == segment.range.file => *offset,
                _ => 0,
            };
            files.push(ServedFile {
                name: format!("{SERIES}.{:06}", files.len() + 1),
                format: format_of(&segment.format_description)?,
                segments: vec![segment.clone()],
                only: only.clone(),
                begin,
                stop: u64::MAX,
                kept: None,
            });
            new_stretch = false;
        }
    }
    Ok(files)
}
