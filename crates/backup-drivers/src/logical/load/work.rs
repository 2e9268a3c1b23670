//! The connections that load, and what each does next.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup_core::{ArtifactSource, Context, Error, Flavor, Result, ResultExt};
use tokio::task::JoinSet;

use super::super::catalog::{Chunk, Table};
use super::patience::Patience;
use super::progress::{Mark, Progress, State};
use super::session::{LoadSettings, allow_local_infile};
use super::shape::Shape;
use super::{alter, rows, tables};
use crate::connect::{ConnectOptions, Session};
use crate::wire;

/// What is loaded, where to, and how.
pub(in crate::logical) struct Load {
    pub target: ConnectOptions,
    pub settings: LoadSettings,
    pub tables: Vec<Table>,
    pub shapes: Vec<Shape>,
    pub artifacts: Arc<dyn ArtifactSource>,
    /// Without one nothing can be gone on with, and nothing is tried again.
    pub progress: Option<Progress>,
    /// For how long work that fails through no fault of its own is tried again.
    pub patience: Duration,
}

/// A piece of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Job {
    /// Rows, in one transaction.
    Rows { table: usize, unit: usize },
    /// What is left to do for a table that has its rows.
    Finish { table: usize },
}

/// What the workers share.
struct Shared {
    load: Load,
    jobs: Mutex<VecDeque<Job>>,
    /// Of each table, how many units are not in yet.
    left: Vec<AtomicUsize>,
    /// Rows were taken back, and went in at another attempt.
    again: AtomicBool,
}

impl Load {
    /// Loads what `state` does not have yet, over [`Context::threads`] connections. Gives whether any rows needed more
    /// than one attempt.
    pub(in crate::logical) async fn run(self, cx: &Context, state: &State) -> Result<bool> {
        let threads = cx.threads();
        let shared = Arc::new(self.share(cx, state));
        let mut workers = JoinSet::new();
        for _ in 0..threads {
            let worker = Worker {
                cx: cx.clone(),
                shared: Arc::clone(&shared),
                loader: None,
                definer: None,
                checks_unique: false,
                broke: false,
            };
            workers.spawn(worker.run());
        }
        // The first failure ends the others: dropping the set aborts them.
        while let Some(ended) = workers.join_next().await {
            ended.map_err(|e| Error::internal("a loader panicked").with_source(e))??;
        }
        Ok(shared.again.load(Ordering::Relaxed))
    }

    /// The work that is left, the largest table first.
    fn share(self, cx: &Context, state: &State) -> Shared {
        let mut order: Vec<usize> = (0..self.tables.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(self.tables[i].data_bytes));
        let mut jobs = VecDeque::new();
        let mut left: Vec<AtomicUsize> = Vec::new();
        left.resize_with(self.tables.len(), AtomicUsize::default);
        for i in order {
            let (table, shape) = (&self.tables[i], &self.shapes[i]);
            if table.rows_elsewhere || state.has(Mark::Finished(i)) {
                continue;
            }
            let units = 0..shape.units(table);
            let missing: Vec<usize> = units.filter(|&u| !state.has(Mark::Loaded(i, u))).collect();
            cx.progress().expect_rows(
                missing.iter().flat_map(|&u| self.chunks(i, u)).map(|c| c.digest.rows).sum(),
            );
            left[i].store(missing.len(), Ordering::Relaxed);
            if missing.is_empty() && shape.is_unfinished() {
                jobs.push_back(Job::Finish { table: i });
            }
            jobs.extend(missing.into_iter().map(|unit| Job::Rows { table: i, unit }));
        }
        Shared { load: self, jobs: Mutex::new(jobs), left, again: AtomicBool::new(false) }
    }

    /// The chunks of a unit.
    fn chunks(&self, table: usize, unit: usize) -> &[Chunk] {
        let chunks = &self.tables[table].chunks;
        if self.shapes[table].whole { chunks } else { &chunks[unit..=unit] }
    }
}

struct Worker {
    cx: Context,
    shared: Arc<Shared>,
    loader: Option<wire::Connection>,
    definer: Option<Session>,
    /// What the loader is set to.
    checks_unique: bool,
    /// A connection broke before, maybe because the server came up anew.
    broke: bool,
}

impl Worker {
    /// Takes jobs until none is left.
    async fn run(mut self) -> Result<()> {
        loop {
            let next = self.jobs().pop_front();
            let Some(job) = next else { break };
            let table = match job {
                Job::Rows { table, .. } | Job::Finish { table } => table,
            };
            let name = self.shared.load.tables[table].full_name();
            self.patiently(job).await.context(|| format!("cannot load table {name}"))?;
            if let Job::Rows { .. } = job
                && self.shared.left[table].fetch_sub(1, Ordering::AcqRel) == 1
                && self.shared.load.shapes[table].is_unfinished()
            {
                self.jobs().push_front(Job::Finish { table });
            }
        }
        if let Some(loader) = self.loader.take() {
            loader.close().await;
        }
        if let Some(definer) = self.definer.take() {
            definer.close().await?;
        }
        Ok(())
    }

    fn jobs(&self) -> std::sync::MutexGuard<'_, VecDeque<Job>> {
        self.shared.jobs.lock().expect("no panic while the queue is locked")
    }

    /// Does a job, again and again if it fails by chance.
    async fn patiently(&mut self, job: Job) -> Result<()> {
        let limit = match self.shared.load.progress {
            Some(_) => self.shared.load.patience,
            None => Duration::ZERO,
        };
        let mut patience = Patience::new(limit);
        loop {
            let result = match job {
                Job::Rows { table, unit } => self.rows(table, unit, patience.was_tried()).await,
                Job::Finish { table } => self.finish(table).await,
            };
            let Err(error) = result else { return Ok(()) };
            // Whatever state they are in: the server rolls back what they had not committed.
            (self.loader, self.definer, self.broke) = (None, None, true);
            self.shared.again.store(true, Ordering::Relaxed);
            patience.after(&self.cx, error).await?;
        }
    }

    async fn rows(&mut self, table: usize, unit: usize, again: bool) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let load = &shared.load;
        let (it, shape) = (&load.tables[table], &load.shapes[table]);
        if again && !it.transactional {
            self.anew(table).await?;
        }
        // MariaDB may fill an empty table from sorted entries then.
        let sorted = shape.whole && load.settings.facts.flavor == Flavor::MariaDb;
        if !self.take(table, unit, sorted).await? {
            let name = it.full_name();
            self.cx.note(format!(
                "the target lost the rows of {name} while it sorted them: they go in one by one"
            ));
            shared.again.store(true, Ordering::Relaxed);
            self.take(table, unit, false).await?;
        }
        Ok(())
    }

    /// Loads a unit. Gives whether its rows are there: of sorted entries that MariaDB finds no room for,
    /// in the directory for temporary files or in that of the table, it lets go without a word. One by one
    /// they go in, or it says why not.
    async fn take(&mut self, table: usize, unit: usize, sorted: bool) -> Result<bool> {
        let shared = Arc::clone(&self.shared);
        let load = &shared.load;
        let it = &load.tables[table];
        let mark = Mark::Loaded(table, unit);
        let id = load.progress.as_ref().map_or("0", Progress::id);
        let chunks = load.chunks(table, unit);
        let cx = self.cx.clone();
        let loader = self.loader(!sorted).await?;
        if it.transactional {
            loader.query("START TRANSACTION").await?;
            if let Some(progress) = &load.progress {
                match loader.query(&progress.insert(mark)).await {
                    // Another attempt got through, and its answer got lost.
                    Err(e) if e.server().is_some_and(|s| s.code == 1062) => {
                        loader.query("ROLLBACK").await?;
                        return Ok(true);
                    }
                    other => drop(other?),
                }
            }
        }
        rows::load(&cx, loader, it, chunks, &*load.artifacts, id).await?;
        if it.transactional {
            // The mark must not outlive them.
            if sorted && !rows::are_there(loader, it).await? {
                loader.query("ROLLBACK").await?;
                return Ok(false);
            }
            loader.query("COMMIT").await?;
        } else if let Some(progress) = &load.progress {
            loader.query(&progress.insert(mark)).await?;
        }
        Ok(true)
    }

    /// Makes a table anew whose engine cannot take back what a failed attempt left.
    async fn anew(&mut self, number: usize) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let load = &shared.load;
        let (table, shape) = (&load.tables[number], &load.shapes[number]);
        let definer = self.definer().await?;
        let name = table.full_name();
        if let Some(progress) = &load.progress {
            tables::in_flux(definer, progress, number, shape).await?;
        }
        definer.run(&format!("DROP TABLE IF EXISTS {}", name.quoted())).await?;
        tables::create(definer, &load.settings, table, shape).await?;
        if let Some(progress) = &load.progress {
            progress.unset(definer, Mark::Loaded(number, 0)).await?;
            tables::known(definer, progress, number, &name, shape).await?;
        }
        Ok(())
    }

    async fn finish(&mut self, number: usize) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let load = &shared.load;
        let (table, shape) = (&load.tables[number], &load.shapes[number]);
        let definer = self.definer().await?;
        alter::finish(definer, load.progress.as_ref(), number, table, shape).await?;
        match &load.progress {
            Some(progress) => progress.set(definer, Mark::Finished(number), "").await,
            None => Ok(()),
        }
    }

    /// The connection for rows, opened where there is none.
    async fn loader(&mut self, in_parts: bool) -> Result<&mut wire::Connection> {
        let shared = Arc::clone(&self.shared);
        let load = &shared.load;
        // Where MariaDB may fill an empty table from sorted entries it locks the whole of it, and
        // the second connection waits for the first.
        let checks = in_parts && load.settings.facts.flavor == Flavor::MariaDb;
        let mut loader = match self.loader.take() {
            Some(loader) => loader,
            None => {
                if self.broke {
                    allow_local_infile(self.definer().await?).await?;
                }
                self.checks_unique = false;
                load.settings.loader(&load.target).await?
            }
        };
        if self.checks_unique != checks {
            let sql = format!("SET SESSION unique_checks = {}", u8::from(checks));
            loader.query(&sql).await?;
            self.checks_unique = checks;
        }
        Ok(self.loader.insert(loader))
    }

    /// The connection for definitions, opened where there is none.
    async fn definer(&mut self) -> Result<&mut Session> {
        let load = &self.shared.load;
        let definer = match self.definer.take() {
            Some(definer) => definer,
            None => load.settings.definer(&load.target).await?,
        };
        Ok(self.definer.insert(definer))
    }
}
