//! Which tables the binlog between two places says were changed.

use std::collections::BTreeSet;

use backup_core::{Context, Error, ErrorKind, Result};

use super::body::Query;
use super::dump::{Dump, DumpOptions, Sent};
use super::event::kind;
use super::payload;
use super::rows::TableMap;
use crate::connect::ConnectOptions;
use crate::logical::Reach;

/// A place in a server's binlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// The file.
    pub file: &'a str,
    /// The offset.
    pub offset: u64,
}

/// What was changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    /// Database and name of every table that rows were changed of, in lower case.
    pub tables: BTreeSet<(String, String)>,
    /// Names that statements of definitions have in them, in lower case: a table that is called like
    /// one, in whichever database, may have been changed.
    pub named: BTreeSet<String>,
    /// The same for databases, and every table in them.
    pub databases: BTreeSet<String>,
    /// Something that may have changed any table, in words.
    pub anything: Option<String>,
}

impl Touched {
    fn unclear(&mut self, what: impl Into<String>) {
        self.anything.get_or_insert_with(|| what.into());
    }

    /// Takes note of a statement of definitions; gives whether it was one that says how far it reaches.
    fn definition(&mut self, query: &Query) -> bool {
        match Reach::of(&query.sql) {
            // Where it failed halfway nobody knows what it did.
            _ if query.error != 0 => return false,
            Reach::Everything => return false,
            Reach::Nothing => {}
            Reach::Tables(names) => self.named.extend(names),
            Reach::Databases(names) => self.databases.extend(names),
        }
        true
    }

    /// Whether rows of the table may have been changed by a statement of definitions.
    #[must_use]
    pub fn is_redefined(&self, database: &str, table: &str) -> bool {
        self.named.contains(&table.to_lowercase())
            || self.databases.contains(&database.to_lowercase())
    }

    fn event(&mut self, event_kind: u8, body: &[u8]) {
        // Events that change no rows, and those on rows, which follow the map of their table.
        // 28 and 29 may be passed over, 36 and 37 are of group replication.
        match event_kind {
            kind::TABLE_MAP => match TableMap::parse(body) {
                Some(map) => {
                    self.tables.insert((map.database.to_lowercase(), map.table.to_lowercase()));
                }
                None => self.unclear("a change of a table that is not named"),
            },
            kind::WRITE_ROWS_V1..=kind::DELETE_ROWS_V1
            | kind::WRITE_ROWS..=kind::DELETE_ROWS
            | kind::PARTIAL_UPDATE_ROWS
            | kind::MARIADB_WRITE_ROWS_COMPRESSED_V1..=kind::MARIADB_DELETE_ROWS_COMPRESSED
            | kind::XID
            | kind::STOP
            | kind::ROTATE
            | kind::FORMAT_DESCRIPTION
            | kind::GTID
            | kind::ANONYMOUS_GTID
            | kind::GTID_TAGGED
            | kind::PREVIOUS_GTIDS
            | kind::HEARTBEAT
            | kind::HEARTBEAT_V2
            | kind::MARIADB_ANNOTATE_ROWS..=kind::MARIADB_START_ENCRYPTION
            | 28
            | 29
            | 36
            | 37 => {}
            kind::TRANSACTION_PAYLOAD => {
                let looked = payload::events(body, |header, body| {
                    self.event(header.kind, body);
                    Some(())
                });
                if looked.is_none() {
                    self.unclear("a compressed transaction that cannot be looked into");
                }
            }
            kind::QUERY | kind::MARIADB_QUERY_COMPRESSED => match Query::of(event_kind, body) {
                Ok(Some(query)) if is_harmless(&query) => {}
                Ok(Some(query)) if self.definition(&query) => {}
                Ok(Some(query)) => {
                    let text = String::from_utf8_lossy(&query.sql).into_owned();
                    let words: Vec<&str> = text.split_whitespace().take(3).collect();
                    self.unclear(format!("a statement ({} …)", words.join(" ")));
                }
                _ => self.unclear("a statement that cannot be read"),
            },
            other => self.unclear(format!("an event of type {other}")),
        }
    }
}

/// Statements that change no rows of users' tables.
fn is_harmless(query: &Query) -> bool {
    let exact = ["BEGIN", "COMMIT", "ROLLBACK"];
    let first = [
        "SAVEPOINT ",
        "ROLLBACK TO ",
        "RELEASE SAVEPOINT ",
        "ANALYZE ",
        "FLUSH ",
        "GRANT ",
        "REVOKE ",
        "CREATE USER ",
        "ALTER USER ",
        "DROP USER ",
        "CREATE ROLE ",
        "DROP ROLE ",
        "SET PASSWORD ",
    ];
    exact.iter().any(|words| query.is(words)) || first.iter().any(|w| query.begins_with(w))
}

/// Reads the binlog of a server from one place to a later one.
///
/// Not in it, and for the caller to think of: what sessions do with `sql_log_bin=0`, databases that
/// are filtered, and rows that InnoDB changes for foreign keys (before MySQL 9.6).
///
/// # Errors
/// As [`Dump::begin`]; [`ErrorKind::Source`] when the server has not all of it any more.
pub async fn touched(
    cx: &Context,
    source: &ConnectOptions,
    from: Place<'_>,
    to: Place<'_>,
) -> Result<Touched> {
    let mut touched = Touched::default();
    if from == to {
        return Ok(touched);
    }
    let options = DumpOptions::once(cx);
    let mut dump = Dump::begin(source, from.file, &options).await?;
    loop {
        cx.check()?;
        match dump.next().await? {
            Sent::Event { event, .. } => {
                let end = dump.tracker().map_or(0, super::Tracker::position);
                if dump.file() == from.file && end <= from.offset {
                    continue;
                }
                touched.event(event.kind(), event.body());
                if dump.file() == to.file && end >= to.offset {
                    return Ok(touched);
                }
            }
            // A file that begins where we were to stop.
            Sent::File { name, position, .. } if name == to.file && position >= to.offset => {
                return Ok(touched);
            }
            Sent::File { .. } | Sent::Heartbeat => {}
            Sent::End => {
                return Err(Error::new(
                    ErrorKind::Source,
                    format!("the server's binlog does not reach {}:{}", to.file, to.offset),
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::gtid::plain_query;
    use super::*;

    #[test]
    fn what_is_not_understood_may_have_changed_anything() {
        let of = |events: &[(u8, &[u8])]| {
            let mut touched = Touched::default();
            events.iter().for_each(|(kind, body)| touched.event(*kind, body));
            touched
        };
        // id, flags, database, table, one INT, no metadata, its NULL bit
        let map = b"\x01\0\0\0\0\0\x01\0\x02Db\0\x01T\0\x01\x03\0\0";
        let rows = of(&[
            (kind::QUERY, &plain_query("BEGIN")),
            (kind::TABLE_MAP, map),
            (kind::WRITE_ROWS, b""),
            (kind::XID, b"12345678"),
        ]);
        assert_eq!(rows.tables, [("db".to_owned(), "t".to_owned())].into());
        assert_eq!(rows.anything, None);
        for sql in ["GRANT ALL ON *.* TO a", "analyze table t", "SAVEPOINT `a`"] {
            assert_eq!(of(&[(kind::QUERY, &plain_query(sql))]), Touched::default(), "{sql}");
        }
        let ddl = of(&[
            (kind::QUERY, &plain_query("TRUNCATE T")),
            (kind::QUERY, &plain_query("DROP DATABASE Crm")),
        ]);
        assert_eq!(ddl.anything, None);
        assert!(ddl.is_redefined("x", "t") && ddl.is_redefined("crm", "a"));
        assert!(!ddl.is_redefined("x", "crm"));
        for sql in ["DELETE FROM t", "XA COMMIT 'a'", "CREATE TABLE a SELECT 1", ""] {
            let found = of(&[(kind::QUERY, &plain_query(sql))]);
            assert!(found.anything.is_some(), "{sql}");
        }
        let unknown = [kind::INCIDENT, kind::XA_PREPARE, 5, 18, 200, kind::TRANSACTION_PAYLOAD];
        for kind in unknown {
            assert!(of(&[(kind, b"")]).anything.is_some(), "{kind}");
        }
        assert!(of(&[(kind::TABLE_MAP, b"\x01")]).anything.is_some());
    }
}
