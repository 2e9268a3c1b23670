//! Rows into a target by `LOAD DATA LOCAL`, over several connections. The tables are those of the
//! backup under the names that they have at the target.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use backup_core::{ArtifactSource, Context, Error, Flavor, Result, ResultExt};
use bytes::Bytes;
use futures::future::try_join_all;
use tokio::task::JoinSet;

use super::catalog::{Chunk, Column, LoadMode, Table};
use super::plan::{LAST_MOMENT, LAST_MOMENT_BEFORE_11_5};
use super::select::quote_name;
use crate::connect::{ConnectOptions, SESSION, Session};
use crate::rows::{BlockReader, TextFormat};
use crate::wire;

/// How many bytes of text are collected before they are sent.
const SEND_BYTES: usize = 256 << 10;

/// Statements that make a connection take values exactly as they are given.
///
/// `sql_mode` accepts every date that a server may hold and keeps 0 in `AUTO_INCREMENT` columns;
/// what it lets through is caught when the rows are read back.
fn loader_settings(flavor: Flavor) -> Vec<&'static str> {
    let mut settings = vec![
        SESSION,
        "SET NAMES utf8mb4",
        "SET SESSION time_zone = '+00:00', foreign_key_checks = 0, unique_checks = 0, \
         sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES', \
         net_read_timeout = 3600, net_write_timeout = 3600",
    ];
    if flavor == Flavor::MariaDb {
        settings.push(
            "SET SESSION check_constraint_checks = 0 \
             /*M!101100 , system_versioning_insert_history = 1 */",
        );
    }
    settings
}

async fn loader(target: &ConnectOptions, flavor: Flavor) -> Result<wire::Connection> {
    let mut connection = wire::Connection::connect(target).await?;
    for setting in loader_settings(flavor) {
        connection.query(setting).await?;
    }
    Ok(connection)
}

/// Allows `LOAD DATA LOCAL` at the target where it is off. Gives whether it has to be put back.
pub(super) async fn allow_local_infile(session: &mut Session) -> Result<bool> {
    let on: Option<u8> = session.query_first("SELECT @@GLOBAL.local_infile").await?;
    if on == Some(1) {
        return Ok(false);
    }
    session.run("SET GLOBAL local_infile = ON").await.map_err(|e| {
        e.context("the target does not accept LOAD DATA LOCAL").with_remedy(
            "SET GLOBAL local_infile = ON at the target, or give the account the privilege \
             SYSTEM_VARIABLES_ADMIN (MariaDB: SUPER) so that holdfast may do it for the restore",
        )
    })?;
    Ok(true)
}

/// Forbids `LOAD DATA LOCAL` again.
pub(super) async fn forbid_local_infile(session: &mut Session) -> Result<()> {
    session.run("SET GLOBAL local_infile = OFF").await.map(|_| ())
}

/// A chunk of a table.
struct Job {
    table: usize,
    chunk: usize,
}

pub(super) struct Shared {
    tables: Vec<Table>,
    jobs: Mutex<VecDeque<Job>>,
}

impl Shared {
    /// All chunks of all tables, largest table first.
    pub(super) fn new(tables: &[Table]) -> Arc<Self> {
        let mut order: Vec<usize> = (0..tables.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(tables[i].data_bytes));
        let jobs = order
            .into_iter()
            .flat_map(|table| {
                (0..tables[table].chunks.len()).map(move |chunk| Job { table, chunk })
            })
            .collect();
        Arc::new(Shared { tables: tables.to_vec(), jobs: Mutex::new(jobs) })
    }

    pub(super) fn next(&self) -> Option<(&Table, &Chunk)> {
        let job = self.jobs.lock().expect("no panic while the queue is locked").pop_front()?;
        let table = &self.tables[job.table];
        Some((table, &table.chunks[job.chunk]))
    }
}

pub(super) async fn join_all<T: 'static>(mut workers: JoinSet<Result<T>>) -> Result<Vec<T>> {
    let mut results = Vec::new();
    // The first failure ends the others: dropping the set aborts them.
    while let Some(ended) = workers.join_next().await {
        results.push(ended.map_err(|e| Error::internal("a worker panicked").with_source(e))??);
    }
    Ok(results)
}

/// Loads the rows of all tables. Gives the number of rows.
pub(super) async fn run(
    cx: &Context,
    target: &ConnectOptions,
    flavor: Flavor,
    tables: &[Table],
    artifacts: Arc<dyn ArtifactSource>,
) -> Result<u64> {
    let rows = tables.iter().map(|t| t.digest.rows).sum();
    cx.progress().expect_rows(rows);
    let shared = Shared::new(tables);
    let loaders = (0..cx.threads()).map(|_| loader(target, flavor));
    let mut workers = JoinSet::new();
    for mut connection in try_join_all(loaders).await? {
        let (cx, shared, artifacts) = (cx.clone(), Arc::clone(&shared), Arc::clone(&artifacts));
        workers.spawn(async move {
            while let Some((table, chunk)) = shared.next() {
                load_chunk(&cx, &mut connection, table, chunk, &*artifacts)
                    .await
                    .context(|| format!("cannot load table {}", table.full_name()))?;
            }
            connection.close().await;
            Ok(())
        });
    }
    join_all(workers).await?;
    Ok(rows)
}

/// The statement that takes rows as [`crate::rows::Block::write_tsv`] gives them.
fn load_statement(table: &Table) -> String {
    let mut columns = Vec::new();
    let mut assignments = Vec::new();
    for (i, column) in table.columns.iter().enumerate() {
        let name = quote_name(&column.name);
        match column.load {
            LoadMode::Direct => columns.push(name),
            LoadMode::Utf8 => {
                columns.push(format!("@c{i}"));
                assignments.push(format!("{name} = CONVERT(@c{i} USING utf8mb4)"));
            }
            LoadMode::RowEnd => {
                columns.push(format!("@c{i}"));
                assignments.push(format!(
                    "{name} = IF(@c{i} = '{LAST_MOMENT_BEFORE_11_5}', '{LAST_MOMENT}', @c{i})"
                ));
            }
            LoadMode::Number => {
                columns.push(format!("@c{i}"));
                assignments.push(format!("{name} = CAST(@c{i} AS UNSIGNED)"));
            }
        }
    }
    let columns = if columns.is_empty() { "@none".to_owned() } else { columns.join(", ") };
    let set = if assignments.is_empty() {
        String::new()
    } else {
        format!(" SET {}", assignments.join(", "))
    };
    format!(
        "LOAD DATA LOCAL INFILE 'holdfast' INTO TABLE {}.{} CHARACTER SET binary \
         FIELDS TERMINATED BY '\\t' ESCAPED BY '\\\\' LINES TERMINATED BY '\\n' ({columns}){set}",
        quote_name(&table.database),
        quote_name(&table.name)
    )
}

fn text_formats(columns: &[Column]) -> Vec<TextFormat> {
    if columns.is_empty() {
        return vec![TextFormat::default()];
    }
    columns.iter().map(|c| TextFormat { decimals: c.fraction_digits.unwrap_or(0) }).collect()
}

async fn load_chunk(
    cx: &Context,
    connection: &mut wire::Connection,
    table: &Table,
    chunk: &Chunk,
    artifacts: &dyn ArtifactSource,
) -> Result<()> {
    let mut source = artifacts.open(&chunk.artifact).await?;
    let formats = text_formats(&table.columns);
    let mut blocks = BlockReader::default();
    let mut text = Vec::with_capacity(2 * SEND_BYTES);
    let mut load = connection.start_load(&load_statement(table)).await?;
    while let Some(bytes) = source.next().await? {
        blocks.push(bytes);
        while let Some(block) = blocks.next_block()? {
            cx.check()?;
            block.write_tsv(&mut text, &formats)?;
            cx.progress().add_rows(u64::from(block.rows()));
            if text.len() >= SEND_BYTES {
                cx.progress().add_bytes(text.len() as u64);
                load.write(Bytes::from(std::mem::take(&mut text))).await?;
            }
        }
    }
    blocks.finish()?;
    cx.progress().add_bytes(text.len() as u64);
    load.write(Bytes::from(text)).await?;
    let done = load.finish().await?;
    if done.affected_rows != chunk.digest.rows {
        let warning = first_warning(connection).await?;
        return Err(Error::damaged(format!(
            "the target took {} of {} rows{warning}",
            done.affected_rows, chunk.digest.rows
        )));
    }
    Ok(())
}

/// What the server has to say about the last statement, for an error message.
async fn first_warning(connection: &mut wire::Connection) -> Result<String> {
    let rows = connection.query_values("SHOW WARNINGS LIMIT 1").await?;
    Ok(rows
        .into_iter()
        .next()
        .map(|row| {
            let fields: Vec<String> = row
                .into_iter()
                .flatten()
                .map(|field| String::from_utf8_lossy(&field).into_owned())
                .collect();
            format!("; the server warned: {}", fields.join(" "))
        })
        .unwrap_or_default())
}
