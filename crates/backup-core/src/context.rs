//! What every operation is given: monitor, cancellation, clock, randomness, memory and limits.

use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::monitor::{Event, Monitor, Progress, Silent};

/// Tells the time of day. Injected, so that tests can move it.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The clock of the machine.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // What a broken clock says of another era is the end of this one.
        Timestamp::try_from(SystemTime::now()).unwrap_or(Timestamp::MAX)
    }
}

/// Gives random bytes. Injected, so that a seed replays a failure.
pub trait Random: Send + Sync {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// The random generator of the operating system, fit for keys.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        rand::RngExt::fill(&mut rand::rng(), bytes);
    }
}

/// A bound on the memory that buffers of a run may take together.
///
/// The grain is 1 KiB. A request for more than [half](MemoryBudget::half) of the budget is cut to that half:
/// the writer of a backup holds its own until the end, and what is read for it must not wait for ever.
#[derive(Debug, Clone)]
pub struct MemoryBudget {
    semaphore: Arc<Semaphore>,
    kib: u32,
}

/// Memory reserved from a [`MemoryBudget`]; given back on drop.
#[derive(Debug)]
pub struct MemoryPermit {
    _permit: OwnedSemaphorePermit,
}

impl MemoryBudget {
    /// 256 MiB.
    pub const DEFAULT_BYTES: u64 = 256 << 20;

    /// A budget of `bytes`, at least 1 MiB.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        let kib = u32::try_from((bytes >> 10).max(1 << 10)).unwrap_or(u32::MAX >> 4);
        MemoryBudget { semaphore: Arc::new(Semaphore::new(kib as usize)), kib }
    }

    /// The whole budget in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::from(self.kib) << 10
    }

    /// The most that one may reserve, in bytes.
    #[must_use]
    pub fn half(&self) -> usize {
        (self.kib as usize / 2) << 10
    }

    /// Waits until `bytes`, or [half](Self::half) of the budget, are free and takes them.
    pub async fn reserve(&self, bytes: usize) -> MemoryPermit {
        let kib = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX).min(self.kib / 2);
        let permit = Arc::clone(&self.semaphore)
            .acquire_many_owned(kib)
            .await
            .expect("the budget's semaphore is never closed");
        MemoryPermit { _permit: permit }
    }
}

impl Default for MemoryBudget {
    fn default() -> Self {
        MemoryBudget::new(Self::DEFAULT_BYTES)
    }
}

/// What an operation is given by its caller. Cheap to clone; passed down, never global.
///
/// ```
/// use backup_core::Context;
/// let cx = Context::builder().threads(2).build();
/// assert!(cx.check().is_ok());
/// cx.cancel();
/// assert_eq!(cx.check().unwrap_err().kind().exit_code(), 13);
/// ```
#[derive(Clone)]
pub struct Context {
    monitor: Arc<dyn Monitor>,
    progress: Arc<Progress>,
    cancellation: CancellationToken,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    memory: MemoryBudget,
    threads: usize,
}

impl Context {
    /// Starts with system clock and randomness, a silent monitor, the default memory budget and
    /// one thread per core.
    #[must_use]
    pub fn builder() -> ContextBuilder {
        ContextBuilder::default()
    }

    /// Gives an event to the monitor.
    pub fn event(&self, event: Event) {
        self.monitor.event(event);
    }

    /// Says that a phase began.
    pub fn phase(&self, name: impl Into<String>) {
        self.event(Event::Phase { name: name.into() });
    }

    /// Says something a careful reader wants to know.
    pub fn note(&self, text: impl Into<String>) {
        self.event(Event::Note { text: text.into() });
    }

    /// The counters.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// `N` random bytes.
    #[must_use]
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes);
        bytes
    }

    /// The memory budget.
    #[must_use]
    pub fn memory(&self) -> &MemoryBudget {
        &self.memory
    }

    /// How many connections or workers an operation may use, at least 1.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Asks the operation to stop.
    pub fn cancel(&self) {
        self.cancellation.cancel();
    }

    /// The token behind [`cancel`](Self::cancel), for `select!`.
    #[must_use]
    pub fn cancellation(&self) -> &CancellationToken {
        &self.cancellation
    }

    /// A context whose cancellation does not reach its parent, for a task group that is stopped
    /// when one of its tasks fails.
    #[must_use]
    pub fn child(&self) -> Context {
        Context { cancellation: self.cancellation.child_token(), ..self.clone() }
    }

    /// Fails when the operation was asked to stop.
    ///
    /// # Errors
    /// [`ErrorKind::Interrupted`](crate::ErrorKind::Interrupted).
    pub fn check(&self) -> Result<()> {
        if self.cancellation.is_cancelled() { Err(Error::interrupted()) } else { Ok(()) }
    }

    /// Runs `work` until it ends or the operation is asked to stop. `work` is dropped then, so it
    /// must be safe to drop at an await.
    ///
    /// # Errors
    /// What `work` gives, or [`ErrorKind::Interrupted`](crate::ErrorKind::Interrupted).
    pub async fn run<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.cancellation.cancelled() => Err(Error::interrupted()),
            result = work => result,
        }
    }
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("threads", &self.threads).finish_non_exhaustive()
    }
}

/// Makes a [`Context`].
pub struct ContextBuilder {
    context: Context,
}

impl Default for ContextBuilder {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        ContextBuilder {
            context: Context {
                monitor: Arc::new(Silent),
                progress: Arc::default(),
                cancellation: CancellationToken::new(),
                clock: Arc::new(SystemClock),
                random: Arc::new(SystemRandom),
                memory: MemoryBudget::default(),
                threads,
            },
        }
    }
}

impl ContextBuilder {
    /// Who hears the events.
    #[must_use]
    pub fn monitor(mut self, monitor: Arc<dyn Monitor>) -> Self {
        self.context.monitor = monitor;
        self
    }
    /// Another clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.context.clock = clock;
        self
    }
    /// Another source of randomness.
    #[must_use]
    pub fn random(mut self, random: Arc<dyn Random>) -> Self {
        self.context.random = random;
        self
    }
    /// Another memory budget.
    #[must_use]
    pub fn memory(mut self, memory: MemoryBudget) -> Self {
        self.context.memory = memory;
        self
    }
    /// How many connections or workers an operation may use; 0 counts as 1.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.context.threads = threads.max(1);
        self
    }
    /// The context.
    #[must_use]
    pub fn build(self) -> Context {
        self.context
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_that_hold_all_they_may_never_wait_for_each_other() {
        for bytes in [1 << 20, (1 << 20) + 1024, 16 << 20] {
            let budget = MemoryBudget::new(bytes);
            let writer = budget.reserve(usize::MAX).await;
            let _reader = budget.reserve(usize::MAX).await;
            // A third one waits, and no longer than it has to.
            let waiting = budget.reserve(usize::MAX);
            tokio::pin!(waiting);
            assert!(futures::poll!(&mut waiting).is_pending());
            drop(writer);
            waiting.await;
        }
    }

    #[tokio::test]
    async fn a_cancelled_child_leaves_its_parent_running() {
        let parent = Context::builder().build();
        let child = parent.child();
        child.cancel();
        assert!(child.run(std::future::pending::<Result<()>>()).await.is_err());
        assert!(parent.check().is_ok());
        parent.cancel();
        assert!(parent.child().check().is_err());
    }
}
