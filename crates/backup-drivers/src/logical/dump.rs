//! Tables into artifacts, by several readers of one snapshot.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup_core::{ArtifactSink, Context, Error, Event, Layout, Result};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::catalog::{Chunk, Table};
use super::damage::{self, Lost, OnCorrupt, Salvage};
use super::fingerprint::Fingerprints;
use super::mask::{Masks, TableMask};
use super::pace::{Gate, Pace, Permit};
use super::plan::{self, Range};
use super::remember::Cuts;
use super::resume;
use super::scan;
use super::select::TableName;
use super::snapshot::{LET_GO, TableLocks};
use crate::connect::Session;
use crate::wire;

/// How often what is finished is stored for good when nothing else makes it so. A backup that finds
/// most rows stored already fills no pack for long.
const CHECKPOINT: Duration = Duration::from_secs(30);

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
    /// Says when a reader may read.
    gate: Gate,
    sink: Arc<dyn ArtifactSink>,
    fingerprints: Option<Fingerprints>,
    /// What is done with the values of each table.
    masks: Vec<Option<TableMask>>,
    on_corrupt: OnCorrupt,
    lost: Mutex<Vec<Lost>>,
    locks: Mutex<Option<TableLocks>>,
    is_locked: Vec<bool>,
    /// How many chunks of locked tables are left.
    locked_left: AtomicUsize,
    released: Mutex<Released>,
}

/// What became of the locks on tables without transactions.
#[derive(Debug, Default)]
pub(super) struct Released {
    /// How long they were held.
    pub held: Duration,
    /// Those of the tables whose rows may be of a later moment.
    pub late: BTreeSet<TableName>,
}

/// What came of it.
pub(super) struct Read {
    /// The tables, with digests and chunks.
    pub tables: Vec<Table>,
    pub released: Released,
    /// Rows that could not be read.
    pub lost: Vec<Lost>,
}

impl Dump {
    /// Waits until a reader may read, and gives it a range. None when all are being read.
    async fn next(&self) -> Option<(Permit<'_>, Job)> {
        if let Some(job) = self.take(|job| self.is_urgent(job)) {
            return Some((self.gate.hurry(), job));
        }
        let permit = self.gate.enter().await?;
        self.take(|_| true).map(|job| (permit, job))
    }

    fn take(&self, is_wanted: impl FnOnce(&Job) -> bool) -> Option<Job> {
        let mut jobs = self.jobs.lock().expect("no panic while the queue is locked");
        let job = if jobs.front().is_some_and(is_wanted) { jobs.pop_front() } else { None };
        if jobs.is_empty() {
            self.gate.end();
        }
        job
    }

    /// Whether the range is of a table that is locked until it is read.
    fn is_urgent(&self, job: &Job) -> bool {
        let locks = self.locks.lock().expect("no panic while the locks are locked");
        self.is_locked[job.table] && locks.is_some()
    }

    /// Lets the writers of locked tables go on, and notes which tables were not read by then.
    async fn release(&self) {
        let locks = self.locks.lock().expect("no panic while the locks are locked").take();
        let Some(locks) = locks else { return };
        let left: BTreeSet<TableName> = self
            .tables
            .iter()
            .zip(&self.left)
            .filter(|(_, progress)| progress.chunks_left.load(Ordering::Acquire) > 0)
            .map(|(table, _)| table.full_name())
            .collect();
        let tables = locks.tables.clone();
        let (held, until_now) = locks.release().await;
        let late = tables.into_iter().filter(|name| !until_now || left.contains(name)).collect();
        *self.released.lock().expect("no panic while it is locked") = Released { held, late };
    }
}

impl Dump {
    /// What can be had of a range that the server cannot read as a whole.
    async fn around(
        &self,
        cx: &Context,
        reader: &mut wire::Connection,
        job: &Job,
        error: Error,
    ) -> Result<Vec<Chunk>> {
        let (table, mask) = (&self.tables[job.table], self.masks[job.table].as_ref());
        reader.query(LET_GO).await?;
        let (chunks, lost) = match self.on_corrupt {
            OnCorrupt::Fail => return Err(error),
            OnCorrupt::Skip => (Vec::new(), vec![Lost::of(table, &job.range, &error)]),
            OnCorrupt::Salvage => {
                let (sink, number, range) = (&*self.sink, job.number, &job.range);
                let salvage = Salvage { cx, sink, table, mask, number, range };
                salvage.run(reader, error).await?
            }
        };
        self.lost.lock().expect("no panic while it is locked").extend(lost);
        Ok(chunks)
    }
}

#[derive(Default)]
struct TableProgress {
    chunks_left: AtomicUsize,
    rows: AtomicU64,
}

/// What is to be read, and how.
pub(super) struct Work<'a> {
    /// Connections that see one moment.
    pub readers: Vec<wire::Connection>,
    /// The tables.
    pub tables: Vec<Table>,
    /// How each is cut.
    pub ranges: Vec<Vec<Range>>,
    /// Chunks that need not be read, by numbers of table and range.
    pub done: BTreeMap<(usize, usize), Chunk>,
    /// Where the rows go.
    pub sink: Arc<dyn ArtifactSink>,
    /// What the tables looked like, where DDL is not kept out.
    pub fingerprints: Option<Fingerprints>,
    /// What is done with values on the way.
    pub masks: Option<&'a Masks>,
    /// What is done about rows that the server cannot read.
    pub on_corrupt: OnCorrupt,
    /// Locks on tables without transactions, and for how long they may be held.
    pub locks: Option<(TableLocks, Duration)>,
    /// How many readers read at once.
    pub pace: Pace<'a>,
}

fn masks_of(tables: &[Table], masks: Option<&Masks>) -> Result<Vec<Option<TableMask>>> {
    tables.iter().map(|table| masks.map_or(Ok(None), |masks| masks.table(table))).collect()
}

/// Cuts all tables, but for those that are cut `already`, by number.
pub(super) async fn cut(
    session: &mut Session,
    tables: &[Table],
    masks: Option<&Masks>,
    chunk_bytes: u64,
    already: &BTreeMap<usize, Vec<Range>>,
    before: &Cuts,
) -> Result<Vec<Vec<Range>>> {
    let masks = masks_of(tables, masks)?;
    let mut all = Vec::with_capacity(tables.len());
    for (i, (table, mask)) in tables.iter().zip(masks).enumerate() {
        let tells = mask.is_some_and(|mask| mask.hides_key(table));
        all.push(match already.get(&i) {
            Some(ranges) => ranges.clone(),
            None if table.rows_elsewhere || table.rows_left_out => Vec::new(),
            // The ends of ranges are values of the key.
            None if tells => vec![Range::default()],
            None => plan::ranges(session, table, chunk_bytes, before.of_table(table)).await?,
        });
    }
    Ok(all)
}

/// Reads all tables, the locked ones first, then those of the largest ranges, and gives them back with digests and
/// chunks filled in.
pub(super) async fn run(cx: &Context, work: Work<'_>) -> Result<Read> {
    let Work { readers, tables, ranges, done, sink, fingerprints, masks, on_corrupt, locks, pace } =
        work;
    let masks = masks_of(&tables, masks)?;
    let mut order: Vec<usize> = (0..tables.len()).collect();
    let locked: BTreeSet<TableName> =
        locks.iter().flat_map(|(locks, _)| locks.tables.iter().cloned()).collect();
    let is_locked: Vec<bool> = tables.iter().map(|t| locked.contains(&t.full_name())).collect();
    // Those that somebody waits for are first. Of the others those whose ranges are the largest, which are
    // tables that could not be cut: what is read last should end for all readers at about the same time.
    order.sort_by_key(|&i| {
        let bytes = tables[i].data_bytes;
        let range = bytes / ranges[i].len().max(1) as u64;
        (!is_locked[i], std::cmp::Reverse((range, bytes)))
    });
    let mut locked_left = 0;
    let mut jobs = VecDeque::new();
    let left: Vec<TableProgress> = tables.iter().map(|_| TableProgress::default()).collect();
    let mut ranges = ranges;
    for table in order {
        let numbered = std::mem::take(&mut ranges[table]).into_iter().enumerate();
        let missing: Vec<Job> = numbered
            .map(|(number, range)| Job { table, number, range })
            .filter(|job| !done.contains_key(&(table, job.number)))
            .collect();
        left[table].chunks_left.store(missing.len(), Ordering::Relaxed);
        locked_left += if is_locked[table] { missing.len() } else { 0 };
        if !tables[table].rows_elsewhere && !tables[table].rows_left_out {
            cx.progress().expect_rows(tables[table].estimated_rows);
        }
        jobs.extend(missing);
    }
    let deadline = locks.as_ref().map(|(_, deadline)| *deadline);
    let gate = pace.gate();
    if jobs.is_empty() {
        gate.end();
    }
    let dump = Arc::new(Dump {
        tables,
        left,
        jobs: Mutex::new(jobs),
        gate,
        sink,
        fingerprints,
        masks,
        on_corrupt,
        lost: Mutex::default(),
        locks: Mutex::new(locks.map(|(locks, _)| locks)),
        is_locked,
        locked_left: AtomicUsize::new(locked_left),
        released: Mutex::default(),
    });
    if locked_left == 0 {
        dump.release().await;
    }

    let mut workers = JoinSet::new();
    for reader in readers {
        workers.spawn(read_jobs(cx.clone(), reader, Arc::clone(&dump)));
    }
    let mut chunks: Vec<Numbered> =
        done.into_iter().map(|((table, number), chunk)| (table, number, chunk)).collect();
    chunks.extend(oversee(cx, &dump, workers, pace, deadline).await?);
    let dump = Arc::into_inner(dump).expect("every worker has ended");
    let mut tables = dump.tables;
    chunks.sort_by_key(|(table, number, _)| (*table, *number));
    for (table, _, chunk) in chunks {
        tables[table].digest = tables[table].digest.merge(chunk.digest);
        tables[table].chunks.push(chunk);
    }
    let released = dump.released.into_inner().expect("no panic while it is locked");
    let lost = dump.lost.into_inner().expect("no panic while it is locked");
    Ok(Read { tables, released, lost })
}

/// Waits for the readers, and meanwhile sets their pace, stores what is finished, and lets go of locks
/// that are due.
async fn oversee(
    cx: &Context,
    dump: &Dump,
    mut workers: JoinSet<Result<Vec<Numbered>>>,
    pace: Pace<'_>,
    deadline: Option<Duration>,
) -> Result<Vec<Numbered>> {
    let mut chunks = Vec::new();
    let overdue = async {
        match deadline {
            Some(deadline) => tokio::time::sleep(deadline).await,
            None => std::future::pending().await,
        }
    };
    let mut overdue = std::pin::pin!(overdue);
    let mut pace = std::pin::pin!(pace.conduct(cx));
    let mut waiting = true;
    let mut checkpoint: Option<AbortOnDropHandle<Result<()>>> = None;
    // The first failure ends the others: dropping the set aborts them.
    loop {
        let ended = tokio::select! {
            ended = workers.join_next() => ended,
            () = tokio::time::sleep(CHECKPOINT) => {
                // Beside the readers. What it fails with they will be told too.
                if checkpoint.as_ref().is_none_or(AbortOnDropHandle::is_finished) {
                    let sink = Arc::clone(&dump.sink);
                    let work = tokio::spawn(async move { sink.checkpoint().await });
                    checkpoint = Some(AbortOnDropHandle::new(work));
                }
                continue;
            }
            () = &mut overdue, if waiting => {
                waiting = false;
                dump.release().await;
                continue;
            }
            Err(error) = &mut pace => return Err(error),
        };
        let Some(ended) = ended else { break };
        chunks.extend(ended.map_err(|e| Error::internal("a reader panicked").with_source(e))??);
    }
    if let Some(checkpoint) = checkpoint {
        checkpoint.await.map_err(|e| Error::internal("a checkpoint panicked").with_source(e))??;
    }
    Ok(chunks)
}

/// A chunk with the numbers of its table and range.
type Numbered = (usize, usize, Chunk);

/// Takes jobs until none is left.
async fn read_jobs(
    cx: Context,
    mut reader: wire::Connection,
    dump: Arc<Dump>,
) -> Result<Vec<Numbered>> {
    let mut chunks = Vec::new();
    while let Some((_permit, job)) = dump.next().await {
        let table = &dump.tables[job.table];
        let mask = dump.masks[job.table].as_ref();
        let found = match read(&cx, &mut reader, &*dump.sink, table, mask, &job).await {
            Err(e) if damage::is_corruption(&e) && dump.on_corrupt != OnCorrupt::Fail => {
                dump.around(&cx, &mut reader, &job, e).await
            }
            other => other.map(|chunk| vec![chunk]),
        };
        let found = found.map_err(|e| damage::explained(e, table))?;
        if let Some(fingerprints) = &dump.fingerprints {
            fingerprints.check(&mut reader, table).await?;
        }
        reader.query(LET_GO).await?;
        let progress = &dump.left[job.table];
        let read: u64 = found.iter().map(|chunk| chunk.digest.rows).sum();
        let rows = progress.rows.fetch_add(read, Ordering::AcqRel) + read;
        if progress.chunks_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            cx.event(Event::Done {
                kind: "table".into(),
                name: format!("{}.{}", table.database, table.name),
                rows: Some(rows),
            });
        }
        if dump.is_locked[job.table] && dump.locked_left.fetch_sub(1, Ordering::AcqRel) == 1 {
            dump.release().await;
        }
        chunks.extend(found.into_iter().map(|chunk| (job.table, job.number, chunk)));
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
    let artifact = resume::artifact(table, job.number)?;
    let mut writer = sink.create(artifact.clone(), Layout::Blocks).await?;
    let read = scan::into_blocks(cx, reader, table, &job.range, mask, &mut *writer).await?;
    writer.finish(resume::attributes(&read, &job.range)?).await?;
    let Range { from, to, .. } = job.range.clone();
    Ok(Chunk { artifact, digest: read.digest, from, to, no_text: read.no_text })
}
