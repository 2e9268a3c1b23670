//! Undoing one transaction: statements that bring back what its rows were, made from the archive and
//! compared with the rows that a server has now.
//!
//! It takes row images with every column. What is in the binlog as a statement says nothing of the
//! rows that it changed, and definitions cannot be undone this way.

mod json;
mod order;
mod rows;
mod table;
mod value;

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{
    BinlogChain, Context, Error, ErrorKind, Flavor, Gtid, Result, SegmentInfo, SegmentStore,
};
use serde::Serialize;

use super::body::Query;
use super::event::{Event, Header, kind};
use super::group::Part;
use super::payload;
use super::rows::{TableMap, change};
use super::segment::{Placed, SegmentReader};
use super::summary::{Summary, Transaction};
use crate::connect::{ConnectOptions, Session};
use crate::logical::TableName;
use rows::{Change, Flags, Row};
use table::Table;

/// What undoes a transaction.
#[derive(Debug, Clone, Serialize)]
pub struct Undo {
    /// The transaction.
    pub transaction: Transaction,
    /// Settings of the session that the statements are written for.
    pub settings: Vec<String>,
    /// The statements, to be run in this order as one transaction.
    pub statements: Vec<String>,
    /// How many rows were compared with those of the server.
    pub compared: u64,
    /// What speaks against running them: rows that are not what the transaction left, triggers,
    /// foreign keys.
    pub problems: Vec<String>,
    /// What whoever runs them has to know, and nothing speaks against.
    pub notes: Vec<String>,
}

/// A transaction with more bytes of events than this is not undone row by row.
const LONGEST: u64 = 256 << 20;
/// How many rows are named that are not what they should be.
const NAMED: usize = 10;

/// Finds a transaction in the archive and makes what undoes it. `tables` are those
/// whose rows are brought back; without any, all. Nothing is changed at `source`.
///
/// # Errors
/// [`ErrorKind::Unreachable`] when the transaction is not archived; [`ErrorKind::Source`] when it
/// cannot be undone: it defined something, was written as a statement, without full images, or on a
/// table that has other columns now, or is [`Gone`].
pub async fn undo(
    cx: &Context,
    store: &dyn SegmentStore,
    segments: Vec<SegmentInfo>,
    gtid: &Gtid,
    tables: &[TableName],
    source: &ConnectOptions,
) -> Result<Undo> {
    let found = find(cx, store, segments, gtid).await?;
    let mut session = Session::open(source).await?;
    let facts = crate::logical::inventory::server(session.conn()).await?;
    if facts.flavor != found.flavor {
        return Err(Error::usage(format!("{source} is no {}", found.flavor))
            .with_remedy("name the server that the tables are on"));
    }
    let mut settings = vec![
        "SET NAMES utf8mb4".to_owned(),
        "SET SESSION time_zone = '+00:00', sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'"
            .to_owned(),
    ];
    for sql in &settings {
        session.run(sql).await?;
    }
    session.run("START TRANSACTION WITH CONSISTENT SNAPSHOT").await?;
    let changes = changes(&mut session, &found, tables).await?;
    if changes.changes.is_empty() {
        return Err(cannot(gtid, "no row of these tables is changed in it", "leave out --table"));
    }
    let flavor = found.flavor;
    let mut problems = changes.beside(flavor, tables);
    let compared = compare(&mut session, &changes, flavor, &mut problems).await?;
    session.close().await?;
    let statements = order::of(&changes)
        .into_iter()
        .filter_map(|(table, change)| change.inverse(&changes.tables[*table], flavor))
        .collect();
    if changes.leave_keys_unchecked() {
        settings.push("SET SESSION foreign_key_checks = 0".to_owned());
    }
    let notes = changes.notes();
    Ok(Undo { transaction: found.transaction, settings, statements, compared, problems, notes })
}

fn cannot(gtid: &Gtid, why: impl std::fmt::Display, remedy: &'static str) -> Error {
    Error::new(ErrorKind::Source, format!("{gtid} cannot be undone by statements: {why}"))
        .with_remedy(remedy)
}

/// A table of the transaction that is not there any more.
#[derive(Debug, thiserror::Error)]
#[error("{} is not there any more", .0.quoted())]
pub struct Gone(pub TableName);

const RESTORE: &str =
    "restore to just before it (--before-gtid) on another server, and move the tables over";

/// A transaction as it is archived.
struct Found {
    transaction: Transaction,
    flavor: Flavor,
    gtid: Gtid,
    /// Type and body of every event behind its GTID.
    events: Vec<(u8, Vec<u8>)>,
}

async fn find(
    cx: &Context,
    store: &dyn SegmentStore,
    segments: Vec<SegmentInfo>,
    gtid: &Gtid,
) -> Result<Found> {
    let chain = BinlogChain::new(segments);
    let first = chain.segments().find(|segment| segment.holds(gtid) && !segment.held_before(gtid));
    let Some(last) = first else {
        return Err(Error::new(ErrorKind::Unreachable, format!("{gtid} is not archived"))
            .with_remedy("`holdfast binlog find` shows what is"));
    };
    // It ends there; a long one begins in an earlier piece of the file.
    let all: Vec<&SegmentInfo> = chain.segments().collect();
    let at = all.iter().position(|segment| *segment == last).unwrap_or(0);
    let mut from = at;
    while from > 0 && all[from].begins_inside && all[from - 1].continues_in(all[from]) {
        from -= 1;
    }
    let mut open: Option<(Summary, Vec<Event>, u64)> = None;
    for segment in &all[from..=at] {
        cx.check()?;
        let mut reader = SegmentReader::new(segment, store.read(cx, segment).await?)?;
        while let Some(Placed { event, part, start, end }) = reader.next_event()? {
            if let Part::Begin(begin) = &part {
                open = (begin.gtid.as_ref() == Some(gtid)).then(|| {
                    (Summary::begin(begin, &segment.range.file, start, end), Vec::new(), 0)
                });
                continue;
            }
            let Some((summary, events, bytes)) = &mut open else { continue };
            summary.add(&event, end)?;
            *bytes += event.bytes().len() as u64;
            if *bytes > LONGEST {
                return Err(cannot(gtid, "it has more than 256 MiB of changes", RESTORE));
            }
            events.push(event);
            if part == Part::End
                && let Some((summary, events, _)) = open.take()
            {
                return Ok(Found {
                    transaction: summary.end(),
                    flavor: segment.flavor,
                    gtid: gtid.clone(),
                    events: bodies(gtid, &events)?,
                });
            }
        }
    }
    Err(Error::damaged(format!("{gtid} is not in the segment that says so")))
}

/// What is inside, without compression.
fn bodies(gtid: &Gtid, events: &[Event]) -> Result<Vec<(u8, Vec<u8>)>> {
    let mut bodies = Vec::new();
    for event in events {
        if event.kind() != kind::TRANSACTION_PAYLOAD {
            bodies.push((event.kind(), event.body().to_vec()));
            continue;
        }
        let take = |header: &Header, body: &[u8]| {
            bodies.push((header.kind, body.to_vec()));
            Some(())
        };
        if payload::events(event.body(), take).is_none() {
            return Err(cannot(
                gtid,
                "its compressed events cannot be read, or are too many",
                RESTORE,
            ));
        }
    }
    Ok(bodies)
}

/// The row changes of a transaction, in their order, each with the number of its table.
struct Changes {
    tables: Vec<Table>,
    changes: Vec<(usize, Change)>,
}

impl Changes {
    /// What the statements would do beside what they say, or the transaction did beside its rows.
    fn beside(&self, flavor: Flavor, wanted: &[TableName]) -> Vec<String> {
        let wanted =
            |name: &str| wanted.is_empty() || wanted.iter().any(|table| table.quoted() == name);
        let mut problems = Vec::new();
        for (number, table) in self.tables.iter().enumerate() {
            let own = self.changes.iter().filter(|(of, _)| *of == number).map(|(_, change)| change);
            let own = own.filter(|change| change.inverse(table, flavor).is_some());
            let own: Vec<&Change> = own.collect();
            for beside in &table.beside {
                for problem in own.iter().filter_map(|change| beside.of(change, table, wanted)) {
                    if !problems.contains(&problem) {
                        problems.push(problem);
                    }
                }
            }
        }
        problems
    }

    /// Whether rows were changed in an order, or to values, that foreign keys may forbid.
    fn leave_keys_unchecked(&self) -> bool {
        self.changes.iter().any(|(_, change)| change.unchecked)
    }

    /// Rows without a key that come back: whether they did already, nobody can tell. And that foreign keys are not
    /// looked at, where they were not.
    fn notes(&self) -> Vec<String> {
        let comes_back = |number: usize| {
            self.changes.iter().any(|(of, change)| *of == number && change.after.is_none())
        };
        let tables = self.tables.iter().enumerate();
        let doubtful = tables.filter(|(n, table)| table.key.is_empty() && comes_back(*n));
        let doubtful = doubtful.map(|(_, table)| {
            format!(
                "{} has no key that tells whether its deleted rows are there again: run these \
                 statements no more than once",
                table.name
            )
        });
        let unchecked = self.leave_keys_unchecked().then(|| {
            "the transaction ran with foreign_key_checks = 0, and so do these statements: look yourself whether \
             all that rows refer to is there then"
                .to_owned()
        });
        doubtful.chain(unchecked).collect()
    }
}

async fn changes(session: &mut Session, found: &Found, wanted: &[TableName]) -> Result<Changes> {
    let gtid = &found.gtid;
    let mut all = Changes { tables: Vec::new(), changes: Vec::new() };
    let mut numbers: BTreeMap<TableName, usize> = BTreeMap::new();
    let mut maps: BTreeMap<u64, TableMap> = BTreeMap::new();
    let mut statement = 0;
    for (event_kind, body) in &found.events {
        if *event_kind == kind::TABLE_MAP {
            let map = TableMap::parse(body)
                .ok_or_else(|| Error::damaged("a TABLE_MAP event cannot be read"))?;
            maps.insert(map.id, map);
        } else if let Some((_, id)) = change(*event_kind, body) {
            let Some(map) = maps.get(&id) else {
                return Err(Error::damaged("a rows event is of a table that was not named"));
            };
            let of_statement = statement;
            statement += usize::from(Flags::of(body).ends_statement());
            let name = TableName { database: map.database.clone(), table: map.table.clone() };
            if !wanted.is_empty() && !wanted.contains(&name) {
                continue;
            }
            // Only now: also tables are named of which no row changes.
            let number = match numbers.get(&name) {
                Some(number) => *number,
                None => {
                    let Some(table) = Table::of(session, map).await? else {
                        let message = format!("{gtid} cannot be undone by statements");
                        return Err(Error::new(ErrorKind::Source, message)
                            .with_source(Gone(name))
                            .with_remedy(RESTORE));
                    };
                    all.tables.push(table);
                    all.tables.len() - 1
                }
            };
            numbers.insert(name, number);
            let table = &all.tables[number];
            let rows = rows::read(map, table, *event_kind, body, of_statement)
                .map_err(|why| cannot(gtid, format!("{}: {why}", table.name), RESTORE))?;
            all.changes.extend(rows.into_iter().map(|change| (number, change)));
        } else if let Some(query) = Query::of(*event_kind, body)? {
            let harmless = ["BEGIN", "COMMIT", "SAVEPOINT", "ROLLBACK TO", "XA "];
            if !harmless.iter().any(|word| query.begins_with(word)) {
                let shown = String::from_utf8_lossy(&query.sql).into_owned();
                let shown: String =
                    crate::connect::without_secrets(&shown).chars().take(200).collect();
                return Err(cannot(
                    gtid,
                    format!("it is in the binlog as a statement, not as rows: {shown}"),
                    RESTORE,
                ));
            }
        }
    }
    Ok(all)
}

/// Compares the rows that the transaction left with those that are there now.
async fn compare(
    session: &mut Session,
    changes: &Changes,
    flavor: Flavor,
    problems: &mut Vec<String>,
) -> Result<u64> {
    // By what names a row: its key, or all of it.
    let mut left: BTreeMap<(usize, Row), (Row, u64)> = BTreeMap::new();
    let mut gone: BTreeSet<(usize, Row)> = BTreeSet::new();
    for (number, change) in &changes.changes {
        let name = |row: &Row| (*number, row.key(&changes.tables[*number]));
        if let Some(before) = &change.before {
            let name = name(before);
            match left.get_mut(&name) {
                Some((_, count)) if *count > 1 => *count -= 1,
                _ => drop(left.remove(&name)),
            }
            gone.insert(name);
        }
        if let Some(after) = &change.after {
            let name = name(after);
            gone.remove(&name);
            left.entry(name).or_insert_with(|| (after.clone(), 0)).1 += 1;
        }
    }
    let mut compared = 0;
    let mut wrong = 0_usize;
    let mut tell = |problems: &mut Vec<String>, text: String| {
        wrong += 1;
        match wrong.cmp(&(NAMED + 1)) {
            std::cmp::Ordering::Less => problems.push(text),
            std::cmp::Ordering::Equal => problems.push("and more rows like these".into()),
            std::cmp::Ordering::Greater => {}
        }
    };
    for ((number, key), (row, count)) in &left {
        let table = &changes.tables[*number];
        compared += 1;
        let there = count_rows(session, table, &row.exactly(table, flavor)).await?;
        let enough = if table.key.is_empty() { there >= *count } else { there == 1 };
        if !enough {
            let shown = key.found_by(table, flavor);
            tell(
                problems,
                format!("the row of {} with {shown} is not what the transaction left", table.name),
            );
        }
    }
    for (number, key) in &gone {
        let table = &changes.tables[*number];
        if table.key.is_empty() {
            continue;
        }
        compared += 1;
        let shown = key.found_by(table, flavor);
        if count_rows(session, table, &shown).await? != 0 {
            tell(problems, format!("a row of {} with {shown} is there again", table.name));
        }
    }
    Ok(compared)
}

async fn count_rows(session: &mut Session, table: &Table, condition: &str) -> Result<u64> {
    let sql = format!("SELECT COUNT(*) FROM {} WHERE {condition}", table.name);
    let count: Option<u64> = session.query_first(&sql).await?;
    Ok(count.unwrap_or(0))
}
