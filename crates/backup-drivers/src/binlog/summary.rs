//! What a transaction does, for people: tables, rows, statements.

use std::collections::BTreeMap;

use backup_core::Result;
use jiff::Timestamp;
use serde::Serialize;

use super::body::Query;
use super::event::{Event, kind};
use super::gtid::Begin;
use super::payload;
use super::rows::{Change, TableMap, change};
use crate::connect::without_secrets;
use crate::logical::TableName;

/// How many rows of a table a transaction changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct RowCounts {
    /// Rows inserted.
    pub inserted: u64,
    /// Rows updated.
    pub updated: u64,
    /// Rows deleted.
    pub deleted: u64,
}

/// A transaction in an archived binlog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Transaction {
    /// Its name; `None` where the server keeps no GTIDs.
    pub gtid: Option<backup_core::Gtid>,
    /// When it was committed.
    pub time: Timestamp,
    /// The file.
    pub file: String,
    /// Where it begins in the file.
    pub start: u64,
    /// Where it ends; the position that a server tells after it.
    pub end: u64,
    /// Rows by table ([`TableName`] as text), where they are in the binlog as rows.
    pub tables: BTreeMap<String, RowCounts>,
    /// Statements that are in the binlog as they were written, each cut to 200 characters, without
    /// those that only begin and end a transaction. At most ten.
    pub statements: Vec<String>,
    /// Some of its rows could not be counted.
    pub uncounted: bool,
}

const STATEMENTS: usize = 10;
const SHOWN: usize = 200;

/// Collects what a transaction does from its events.
#[derive(Debug)]
pub(super) struct Summary {
    transaction: Transaction,
    maps: BTreeMap<u64, TableMap>,
}

impl Summary {
    pub(super) fn begin(begin: &Begin, file: &str, start: u64, end: u64) -> Self {
        let transaction = Transaction {
            gtid: begin.gtid.clone(),
            time: begin.time,
            file: file.to_owned(),
            start,
            end,
            tables: BTreeMap::new(),
            statements: Vec::new(),
            uncounted: false,
        };
        Summary { transaction, maps: BTreeMap::new() }
    }

    /// Takes an event that ends at byte `end` of the file.
    pub(super) fn add(&mut self, event: &Event, end: u64) -> Result<()> {
        self.transaction.end = end;
        if event.kind() == kind::TRANSACTION_PAYLOAD {
            let read = payload::events(event.body(), |header, body| {
                self.body(header.kind, body);
                Some(())
            });
            if read.is_none() {
                self.transaction.uncounted = true;
            }
            return Ok(());
        }
        self.body(event.kind(), event.body());
        Ok(())
    }

    pub(super) fn end(self) -> Transaction {
        self.transaction
    }

    fn body(&mut self, event_kind: u8, body: &[u8]) {
        if event_kind == kind::TABLE_MAP {
            if let Some(map) = TableMap::parse(body) {
                self.maps.insert(map.id, map);
            }
        } else if let Some((change, id)) = change(event_kind, body) {
            let map = self.maps.get(&id);
            let count = map.and_then(|map| map.count(event_kind, body));
            let Some(map) = map else {
                self.transaction.uncounted = true;
                return;
            };
            let name = TableName { database: map.database.clone(), table: map.table.clone() };
            let name = name.to_string();
            let counts = self.transaction.tables.entry(name).or_default();
            match count {
                None => self.transaction.uncounted = true,
                Some(rows) => match change {
                    Change::Insert => counts.inserted += rows,
                    Change::Update => counts.updated += rows,
                    Change::Delete => counts.deleted += rows,
                },
            }
        } else if let Ok(Some(query)) = Query::of(event_kind, body) {
            self.statement(&query);
        }
    }

    fn statement(&mut self, query: &Query) {
        let marks = ["BEGIN", "COMMIT", "ROLLBACK"].iter().any(|word| query.is(word));
        if marks || self.transaction.statements.len() == STATEMENTS {
            return;
        }
        let text = String::from_utf8_lossy(&query.sql);
        let text = without_secrets(&text);
        let mut shown: String = text.chars().take(SHOWN).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        self.transaction.statements.push(shown);
    }
}
