//! Every table of a server: whether the server finds it whole, and what it holds.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use backup_core::{Context, Error, ErrorKind, Finding, Result, Severity};
use tokio::task::JoinSet;

use super::catalog::Table;
use super::inventory;
use super::plan::Range;
use super::reader::reader;
use super::scan;
use super::select::{Selection, TableName, quote_name};
use crate::connect::{ConnectOptions, Session};
use crate::rows::RowDigest;

/// What a server holds.
#[derive(Debug, Clone, Default)]
pub struct Census {
    /// Every table but the server's own, by name, with the digest of its rows.
    pub tables: Vec<(TableName, RowDigest)>,
    /// What is wrong with tables, the server's own among them.
    pub findings: Vec<Finding>,
}

impl Census {
    /// Runs `CHECK TABLE` on every table of a server and reads all rows, over [`Context::threads`]
    /// connections.
    ///
    /// # Errors
    /// When the server went away, or the run was cancelled. What is wrong with a table is a finding.
    pub async fn take(cx: &Context, server: &ConnectOptions) -> Result<Census> {
        Census::of(cx, server, &Selection::default()).await
    }

    /// The same of the tables that are chosen by name.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub async fn of(
        cx: &Context,
        server: &ConnectOptions,
        selection: &Selection,
    ) -> Result<Census> {
        Census::but_for(cx, server, selection, &BTreeSet::new()).await
    }

    /// The same, where `empty` are known to have come without their files: that the server does not find these is
    /// nothing that is wrong.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub(crate) async fn but_for(
        cx: &Context,
        server: &ConnectOptions,
        selection: &Selection,
        empty: &BTreeSet<TableName>,
    ) -> Result<Census> {
        let mut census = Census::default();
        // One that cannot be opened must not keep the others from being read.
        let mut readable = selection.clone();
        let mut session = Session::open(server).await?;
        let sql = "SELECT table_schema, table_name FROM information_schema.tables WHERE table_type \
                   IN ('BASE TABLE', 'SEQUENCE') AND table_schema NOT IN ('information_schema', \
                   'performance_schema') ORDER BY 1, 2";
        for (database, table) in session.query_rows::<(String, String)>(sql).await? {
            cx.check()?;
            let name = TableName { database, table };
            if !selection.is_all() && !selection.wants_table(&name.database, &name.table) {
                continue;
            }
            if let Some(finding) = check(&mut session, &name).await? {
                census.findings.extend((!empty.contains(&name)).then_some(finding));
                readable.exclude_tables.insert(name);
            }
        }
        let facts = inventory::server(session.conn()).await?;
        let catalog = inventory::read(session.conn(), &facts, &readable).await?;
        session.close().await?;
        let read = Census::rows_of(cx, server, catalog.tables).await?;
        census.findings.extend(read.findings);
        Ok(Census { tables: read.tables, ..census })
    }

    /// Reads all rows of `tables`, and runs no `CHECK TABLE`.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub(super) async fn rows_of(
        cx: &Context,
        server: &ConnectOptions,
        tables: Vec<Table>,
    ) -> Result<Census> {
        let mut census = Census::default();
        let tables = tables.into_iter().filter(|table| !table.rows_elsewhere);
        let queue: Vec<Table> = tables.collect();
        let queue = Arc::new(Mutex::new(queue.into_iter()));
        let mut workers = JoinSet::new();
        for _ in 0..cx.threads() {
            let (cx, queue, server) = (cx.clone(), Arc::clone(&queue), server.clone());
            workers.spawn(async move {
                let mut reader = reader(&server).await?;
                let mut found = Census::default();
                loop {
                    let next = queue.lock().expect("no panic while the queue is locked").next();
                    let Some(table) = next else { break };
                    let name = table.full_name();
                    match scan::digest(&cx, &mut reader, &table, &Range::default()).await {
                        Ok(digest) => found.tables.push((name, digest)),
                        // The server's word against one table; others may be well.
                        Err(e) if e.server().is_some() => {
                            found.findings.push(damaged(&name, e.chain()));
                        }
                        Err(e) => return Err(e),
                    }
                }
                reader.close().await;
                Ok::<_, Error>(found)
            });
        }
        while let Some(ended) = workers.join_next().await {
            let found =
                ended.map_err(|e| Error::internal("a worker panicked").with_source(e))??;
            census.tables.extend(found.tables);
            census.findings.extend(found.findings);
        }
        census.tables.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(census)
    }

    /// Number and digest of all rows of all tables.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.tables.iter().map(|(_, digest)| digest.rows).sum()
    }
}

fn damaged(name: &TableName, problem: String) -> Finding {
    let remedy = "restore another backup, or this one without what is damaged";
    Finding::new(Severity::Error, name.to_string(), problem, remedy).with_kind(ErrorKind::Damaged)
}

async fn check(session: &mut Session, name: &TableName) -> Result<Option<Finding>> {
    let sql = format!("CHECK TABLE {}.{}", quote_name(&name.database), quote_name(&name.table));
    let said: Vec<(String, String, String, String)> = session.query_rows(&sql).await?;
    let bad = said.iter().find(|(_, _, kind, text)| {
        // "The storage engine for the table doesn't support check" is a note.
        kind.eq_ignore_ascii_case("error") || (kind == "status" && text != "OK")
    });
    // It had none at the source either, and no server loses that by itself.
    if said.iter().any(|(.., text)| text.contains("discarded")) {
        let problem =
            "its tablespace was discarded (ALTER TABLE … DISCARD TABLESPACE): it has no rows";
        let remedy = "import the tablespace at the source, or drop the table";
        return Ok(Some(Finding::new(Severity::Warning, name.to_string(), problem, remedy)));
    }
    Ok(bad.map(|(_, _, kind, text)| damaged(name, format!("CHECK TABLE says: {kind}: {text}"))))
}
