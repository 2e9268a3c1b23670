//! Tables into artifacts, by several readers of one snapshot.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use backup_core::{ArtifactName, ArtifactSink, Context, Error, Event, Layout, Result};
use serde_json::json;
use tokio::task::JoinSet;

use super::catalog::{Chunk, Table};
use super::fingerprint::Fingerprints;
use super::mask::{Masks, TableMask};
use super::plan::{self, Range};
use super::scan;
use super::snapshot::LET_GO;
use crate::connect::Session;
use crate::wire;

/// A range of a table, to be read by whoever is free.
struct Job {
    table: usize,
    number: usize,
    range: Range,
}

/// What the readers share.
struct Dump {
    tables: Vec<Table>,
    left: Vec<TableProgress>,
    jobs: Mutex<VecDeque<Job>>,
    sink: Arc<dyn ArtifactSink>,
    fingerprints: Option<Fingerprints>,
    /// What is done with the values of each table.
    masks: Vec<Option<TableMask>>,
}

#[derive(Default)]
struct TableProgress {
    chunks_left: AtomicUsize,
    rows: AtomicU64,
}

/// Reads all `tables`, largest first, and gives them back with digests and chunks filled in.
pub(super) async fn run(
    cx: &Context,
    session: &mut Session,
    readers: Vec<wire::Connection>,
    tables: Vec<Table>,
    chunk_bytes: u64,
    sink: Arc<dyn ArtifactSink>,
    fingerprints: Option<Fingerprints>,
    masks: Option<&Masks>,
) -> Result<Vec<Table>> {
    let mask = |table| masks.map_or(Ok(None), |masks| masks.table(table));
    let masks: Vec<Option<TableMask>> = tables.iter().map(mask).collect::<Result<_>>()?;
    let mut order: Vec<usize> = (0..tables.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(tables[i].data_bytes));
    let mut jobs = VecDeque::new();
    let left: Vec<TableProgress> = tables.iter().map(|_| TableProgress::default()).collect();
    for table in order {
        if tables[table].rows_elsewhere || tables[table].rows_left_out {
            continue;
        }
        let tells = masks[table].as_ref().is_some_and(|mask| mask.hides_key(&tables[table]));
        let ranges = match tells {
            // The ends of ranges are values of the key.
            true => vec![Range::default()],
            false => plan::ranges(session, &tables[table], chunk_bytes).await?,
        };
        left[table].chunks_left.store(ranges.len(), Ordering::Relaxed);
        cx.progress().expect_rows(tables[table].estimated_rows);
        let numbered = ranges.into_iter().enumerate();
        jobs.extend(numbered.map(|(number, range)| Job { table, number, range }));
    }
    let dump = Arc::new(Dump { tables, left, jobs: Mutex::new(jobs), sink, fingerprints, masks });

    let mut workers = JoinSet::new();
    for reader in readers {
        workers.spawn(work(cx.clone(), reader, Arc::clone(&dump)));
    }
    let mut chunks = Vec::new();
    // The first failure ends the others: dropping the set aborts them.
    while let Some(ended) = workers.join_next().await {
        chunks.extend(ended.map_err(|e| Error::internal("a reader panicked").with_source(e))??);
    }
    drop(workers);
    let dump = Arc::into_inner(dump).expect("every worker has ended");
    let mut tables = dump.tables;
    chunks.sort_by_key(|(table, number, _)| (*table, *number));
    for (table, _, chunk) in chunks {
        tables[table].digest = tables[table].digest.merge(chunk.digest);
        tables[table].chunks.push(chunk);
    }
    Ok(tables)
}

/// Takes jobs until none is left.
async fn work(
    cx: Context,
    mut reader: wire::Connection,
    dump: Arc<Dump>,
) -> Result<Vec<(usize, usize, Chunk)>> {
    let mut chunks = Vec::new();
    loop {
        let next = dump.jobs.lock().expect("no panic while the queue is locked").pop_front();
        let Some(job) = next else { break };
        let table = &dump.tables[job.table];
        let mask = dump.masks[job.table].as_ref();
        let chunk = read(&cx, &mut reader, &*dump.sink, table, mask, &job).await?;
        if let Some(fingerprints) = &dump.fingerprints {
            fingerprints.check(&mut reader, table).await?;
        }
        reader.query(LET_GO).await?;
        let progress = &dump.left[job.table];
        let rows = progress.rows.fetch_add(chunk.digest.rows, Ordering::AcqRel) + chunk.digest.rows;
        if progress.chunks_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            cx.event(Event::Done {
                kind: "table".into(),
                name: format!("{}.{}", table.database, table.name),
                rows: Some(rows),
            });
        }
        chunks.push((job.table, job.number, chunk));
    }
    reader.close().await;
    Ok(chunks)
}

async fn read(
    cx: &Context,
    reader: &mut wire::Connection,
    sink: &dyn ArtifactSink,
    table: &Table,
    mask: Option<&TableMask>,
    job: &Job,
) -> Result<Chunk> {
    let part = format!("rows-{:06}", job.number);
    let artifact = ArtifactName::from_parts(["tables", &table.database, &table.name, &part])?;
    let mut writer = sink.create(artifact.clone(), Layout::Blocks).await?;
    let digest = scan::into_blocks(cx, reader, table, &job.range, mask, &mut *writer).await?;
    let attributes = json!({ "digest": digest, "from": job.range.from, "to": job.range.to });
    writer.finish(attributes).await?;
    let Range { from, to } = job.range.clone();
    Ok(Chunk { artifact, digest, from, to })
}
