//! When a call is made again.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable};
use backup_core::Result;

use super::Store;
use super::failure::{answer, is_of_a_mount, is_transient, is_unreachable, retry_after};

/// How often, and for how long, a call is made again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    backoff: ExponentialBuilder,
    /// After this time no further attempt is begun.
    patience: Duration,
    /// How long one attempt may take. A call to a file server that is gone may never return; it is left
    /// to itself then.
    limit: Option<Duration>,
}

/// A store may ask for more; it does not get it.
const LONGEST_WISH: Duration = Duration::from_secs(60);

/// A store that never answered is more likely misspelt than restarting.
const FIRST_CONTACTS: u32 = 3;

impl Default for Retry {
    fn default() -> Self {
        let backoff = ExponentialBuilder::default().with_jitter();
        let patience = Duration::from_secs(120);
        Retry { backoff, patience, limit: None }.with(
            Duration::from_millis(100),
            Duration::from_secs(5),
            5,
        )
    }
}

impl Retry {
    /// For what is reached over a network.
    pub(super) fn remote(patience: Duration) -> Self {
        let retry = Retry::default().with(Duration::from_millis(200), Duration::from_secs(20), 12);
        Retry { patience, ..retry }
    }

    /// For a file server.
    pub(super) fn file_server(patience: Duration, limit: Duration) -> Self {
        Retry { limit: Some(limit), ..Retry::remote(patience) }
    }

    pub(super) fn with(mut self, first: Duration, longest: Duration, times: usize) -> Self {
        self.backoff =
            self.backoff.with_min_delay(first).with_max_delay(longest).with_max_times(times);
        self
    }

    /// Opens a directory of a file server; again while a mount answers for a server that is away.
    pub(super) async fn mounted<T, F: Future<Output = Result<T>>>(
        &self,
        open: impl Fn() -> F,
    ) -> Result<T> {
        let started = Instant::now();
        open.retry(self.backoff)
            .when(|error| is_of_a_mount(error) && started.elapsed() < self.patience)
            .await
    }
}

impl Store {
    /// Makes a call until it succeeds, fails for good, or patience ends.
    pub(super) async fn retry<T, F: Future<Output = object_store::Result<T>>>(
        &self,
        counter: &AtomicU64,
        call: impl Fn() -> F,
    ) -> object_store::Result<T> {
        let started = Instant::now();
        let answered = &self.counts.answered;
        let mut attempts = 0;
        let call = || {
            counter.fetch_add(1, Ordering::Relaxed);
            limited(self.retry.limit, call())
        };
        let again = |error: &object_store::Error| {
            attempts += 1;
            if answer(error).is_some() {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            let strange = is_unreachable(error) && answered.load(Ordering::Relaxed) == 0;
            is_transient(error, self.medium)
                && started.elapsed() < self.retry.patience
                && !(strange && attempts >= FIRST_CONTACTS)
        };
        let result = call
            .retry(self.retry.backoff)
            .when(again)
            .adjust(|error, pause| Some(pause?.max(retry_after(error).min(LONGEST_WISH))))
            .await;
        if result.is_ok() {
            answered.fetch_add(1, Ordering::Relaxed);
        }
        result
    }
}

async fn limited<T>(
    limit: Option<Duration>,
    call: impl Future<Output = object_store::Result<T>>,
) -> object_store::Result<T> {
    let Some(limit) = limit else { return call.await };
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
        let text = format!("the file server did not answer for {} seconds", limit.as_secs_f32());
        let source = Box::new(io::Error::new(io::ErrorKind::TimedOut, text));
        Err(object_store::Error::Generic { store: "directory", source })
    })
}
