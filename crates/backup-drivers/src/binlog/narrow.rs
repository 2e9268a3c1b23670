//! A route without the transactions that do not concern some tables.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use backup_core::{Context, Gtid, GtidSet, MySqlGtid, MySqlGtidSet, Result, SegmentStore};
use futures::StreamExt;

use super::ahead::read_segments;
use super::body::Query;
use super::event::{Event, kind};
use super::group::Part;
use super::payload;
use super::route::{Route, Skipping};
use super::rows::TableMap;
use super::segment::{Placed, SegmentReader};
use crate::logical::{Scope, TableName, Touch, Wanted};

/// What became of [`narrow`].
#[derive(Debug, Clone)]
pub enum Narrowed {
    /// The route, with the transactions alone that concern the tables; other tables in them have to
    /// be left out by the target ([`Scope::filters`]).
    Route(Box<Route>),
    /// Everything has to be applied, and why.
    Whole(String),
}

/// Leaves out of a route what does not concern the tables of `scope`. Reads all of it.
///
/// A transaction that cannot be told to be one or the other makes that everything has to be applied.
///
/// # Errors
/// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) for a damaged segment, and what the store
/// fails with.
pub async fn narrow(
    cx: &Context,
    store: &dyn SegmentStore,
    route: &Route,
    scope: &Scope,
) -> Result<Narrowed> {
    let mut narrowed = route.clone();
    let mut transactions = 0;
    let mut reached = route.applied.clone();
    narrowed.skip.clear();
    narrowed.demands = Arc::default();
    narrowed.skipping = Skipping::Omitted;
    let mut kept = vec![Vec::new(); route.files.len()];
    let mut whole = None;
    walk(cx, store, route, &scope.wanted, scope.hidden, &mut |seen| {
        if let Some(why) = seen.concern.unclear {
            whole = Some(format!("{why} ({})", seen.name));
            return Ok(ControlFlow::Break(()));
        }
        if !seen.concern.them {
            return Ok(ControlFlow::Continue(()));
        }
        let (Some(gtid), Some(reached)) = (&seen.gtid, &mut reached) else {
            whole = Some("transactions have no GTIDs".to_owned());
            return Ok(ControlFlow::Break(()));
        };
        reached.insert(gtid)?;
        kept[seen.file].push(seen.start);
        transactions += 1;
        Ok(ControlFlow::Continue(()))
    })
    .await?;
    if let Some(why) = whole {
        return Ok(Narrowed::Whole(why));
    }
    for (narrow, kept) in narrowed.files.iter_mut().zip(kept) {
        narrow.kept = Some(Arc::new(kept));
    }
    // One is committed after the other, so the last one stands for all: a list of holes may be long.
    narrowed.reached = match (reached, &route.applied) {
        (Some(GtidSet::MySql(all)), Some(applied)) => Some(last_of_each(&all, applied)?),
        (reached, _) => reached,
    };
    narrowed.transactions = transactions;
    if transactions == 0 {
        narrowed.files.clear();
    }
    Ok(Narrowed::Route(Box::new(narrowed)))
}

/// The first transaction of a route that changes one of these tables, or may do so; `None` where none does. Reads
/// the route up to there.
///
/// # Errors
/// As [`narrow`].
pub async fn first_touch(
    cx: &Context,
    store: &dyn SegmentStore,
    route: &Route,
    tables: &BTreeSet<TableName>,
) -> Result<Option<String>> {
    let wanted = Wanted::new(tables, []);
    let mut found = None;
    // Triggers and views that are there already are not known: a statement may change them without their name.
    walk(cx, store, route, &wanted, true, &mut |seen| {
        if !seen.concern.them && seen.concern.unclear.is_none() {
            return Ok(ControlFlow::Continue(()));
        }
        found = Some(seen.name);
        Ok(ControlFlow::Break(()))
    })
    .await?;
    Ok(found)
}

/// A transaction that is applied.
struct Seen<'a> {
    /// The number of its file.
    file: usize,
    start: u64,
    gtid: Option<Gtid>,
    /// How people find it.
    name: String,
    concern: Concern<'a>,
}

/// Shows `take` the transactions of a route, in order, until it has seen enough. `hidden` says whether statements
/// may change the tables without naming them.
async fn walk(
    cx: &Context,
    store: &dyn SegmentStore,
    route: &Route,
    wanted: &Wanted,
    mut hidden: bool,
    take: &mut (dyn FnMut(Seen<'_>) -> Result<ControlFlow<()>> + Send),
) -> Result<()> {
    let mut reads = read_segments(cx, store, route.segments());
    let mut open: Option<(Concern<'_>, u64, Option<Gtid>)> = None;
    let mut at = 0;
    // The names of the XA transactions whose first half has been seen.
    let mut halves = HashSet::new();
    while let Some(((number, file), segment, content)) = reads.next().await {
        if number != at {
            (open, at) = (None, number);
        }
        let mut reader = SegmentReader::new(segment, content?)?;
        cx.progress().add_bytes(segment.bytes());
        while let Some(Placed { event, part, start, .. }) = reader.next_event()? {
            match &part {
                Part::Begin(begin) => {
                    let skipped = begin.gtid.as_ref().is_some_and(|g| route.skip.contains(g));
                    let served = file.serves(begin, start, route.applied.as_ref())?;
                    open = (served && !skipped)
                        .then(|| (Concern::new(wanted, hidden), start, begin.gtid.clone()));
                }
                Part::Inside | Part::End => {
                    if let Some((concern, ..)) = &mut open {
                        concern.add(&event)?;
                    }
                }
                Part::Between => open = None,
            }
            if part != Part::End {
                continue;
            }
            let Some((mut concern, start, gtid)) = open.take() else { continue };
            hidden |= concern.hides;
            halves.extend(concern.xa_starts.take());
            if let Some(xid) = concern.xa_commits.take()
                && !halves.remove(&xid)
            {
                concern
                    .doubt("a distributed transaction (XA) is committed that was prepared before");
            }
            let name = match &gtid {
                Some(gtid) => gtid.to_string(),
                None => format!("{}:{start}", segment.range.file),
            };
            if take(Seen { file: number, start, gtid, name, concern })?.is_break() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// `applied`, and of each source the last transaction of `all`.
fn last_of_each(all: &MySqlGtidSet, applied: &GtidSet) -> Result<GtidSet> {
    let mut reached = applied.clone();
    for tsid in all.tsids() {
        if let Some(gno) = all.last(tsid) {
            reached.insert(&MySqlGtid::new(tsid.clone(), gno)?.into())?;
        }
    }
    Ok(reached)
}

/// What a transaction has to do with the tables.
struct Concern<'a> {
    wanted: &'a Wanted,
    hidden: bool,
    hides: bool,
    them: bool,
    /// It is one of two halves.
    xa: bool,
    /// The XA transaction whose first half it is.
    xa_starts: Option<String>,
    /// The one whose second half it is, if that is a COMMIT.
    xa_commits: Option<String>,
    unclear: Option<&'static str>,
}

impl<'a> Concern<'a> {
    fn new(wanted: &'a Wanted, hidden: bool) -> Self {
        Concern {
            wanted,
            hidden,
            hides: false,
            them: false,
            xa: false,
            xa_starts: None,
            xa_commits: None,
            unclear: None,
        }
    }

    fn add(&mut self, event: &Event) -> Result<()> {
        if event.kind() == kind::TRANSACTION_PAYLOAD {
            let read = payload::events(event.body(), |header, body| {
                self.body(header.kind, body);
                Some(())
            });
            if read.is_none() {
                self.doubt("a compressed transaction is too large to be looked at");
            }
        } else {
            self.body(event.kind(), event.body());
        }
        if self.xa && self.them {
            self.doubt("a distributed transaction (XA) changes them");
        }
        Ok(())
    }

    fn doubt(&mut self, why: &'static str) {
        self.unclear.get_or_insert(why);
    }

    fn body(&mut self, event_kind: u8, body: &[u8]) {
        match event_kind {
            kind::TABLE_MAP => match TableMap::parse(body) {
                Some(map) => self.them |= self.wanted.has(&map.database, &map.table),
                None => self.doubt("an event cannot be read"),
            },
            // LOAD DATA, as it was written, with its file.
            kind::BEGIN_LOAD_QUERY | kind::EXECUTE_LOAD_QUERY => {
                self.doubt("a file is loaded by a statement (LOAD DATA)");
            }
            kind::XA_PREPARE => self.xa = true,
            kind::INCIDENT => self.doubt("the server lost changes (INCIDENT)"),
            _ => match Query::of(event_kind, body) {
                Ok(None) => {}
                Ok(Some(query)) => {
                    self.xa |= query.begins_with("XA ");
                    let (database, sql) = (
                        String::from_utf8_lossy(&query.database),
                        String::from_utf8_lossy(&query.sql),
                    );
                    // The servers write them so, whatever a client called them: XA COMMIT X'61',X'',1.
                    let named = |word| Some(sql.strip_prefix(word)?.trim().to_owned());
                    self.xa_starts = self.xa_starts.take().or_else(|| named("XA START "));
                    self.xa_commits = self.xa_commits.take().or_else(|| named("XA COMMIT "));
                    let hidden = self.hidden || self.hides;
                    let read = self.wanted.statement(&database, &sql, hidden);
                    self.hides |= read.hides;
                    match read.touch {
                        Touch::Nothing => {}
                        Touch::Them => self.them = true,
                        Touch::Unclear(why) => self.doubt(why),
                    }
                }
                Err(_) => self.doubt("an event cannot be read"),
            },
        }
    }
}
