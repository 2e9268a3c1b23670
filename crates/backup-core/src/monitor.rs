//! How libraries tell what they do: they never print.
//!
//! Rare things (a phase began, a warning) are [`Event`]s given to a [`Monitor`]; counts that change
//! with every packet are atomics in [`Progress`] that a frontend samples when it likes.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

/// Something worth a line of a log.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// A new phase of the work began, such as `dump` or `verify digests`.
    Phase {
        /// Name of the phase.
        name: String,
    },
    /// An object (a table, a file) is finished.
    Done {
        /// What kind of object: `table`, `view`, `pack`.
        kind: String,
        /// Its name as people write it.
        name: String,
        /// Rows, where rows make sense.
        rows: Option<u64>,
    },
    /// Something a careful reader wants to know.
    Note {
        /// The text, one line.
        text: String,
    },
    /// Something that needs a look; also kept in the manifest or report of the run.
    Warning {
        /// The text, one line.
        text: String,
    },
}

/// Receives the events of a run. Implementations must be quick: they are called on the data path.
pub trait Monitor: Send + Sync {
    /// Called for every event, from any thread.
    fn event(&self, event: Event);
}

/// A monitor that drops everything, for programs that only want the result.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Monitor for Silent {
    fn event(&self, _: Event) {}
}

/// Counts of one run, shared by all its tasks. All values only grow.
#[derive(Debug, Default)]
pub struct Progress {
    rows: AtomicU64,
    expected_rows: AtomicU64,
    bytes: AtomicU64,
    expected_bytes: AtomicU64,
    stored: AtomicU64,
    transactions: AtomicU64,
    expected_transactions: AtomicU64,
    /// Seconds since 1970; 0 = unknown.
    source_time: AtomicI64,
    throttled_millis: AtomicU64,
}

/// The values of [`Progress`] at one moment.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ProgressSnapshot {
    /// Rows read or written.
    pub rows: u64,
    /// Rows there are in all, an estimate; 0 when unknown.
    pub expected_rows: u64,
    /// Bytes read from the source or the store.
    pub bytes: u64,
    /// Bytes there are in all, an estimate; 0 when unknown.
    pub expected_bytes: u64,
    /// Bytes written to the store.
    pub stored: u64,
    /// Transactions of binlogs that were applied.
    pub transactions: u64,
    /// Transactions there are in all, an estimate; 0 when unknown.
    pub expected_transactions: u64,
    /// When the last of them was committed at its source.
    pub source_time: Option<Timestamp>,
    /// Seconds in which the work waited because the source had too much to do.
    pub throttled_seconds: u64,
}

impl ProgressSnapshot {
    /// The finished part, from 0.0 to 1.0; `None` when no estimate is known.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio for a progress bar")]
    pub fn fraction(&self) -> Option<f64> {
        let ratio = |done: u64, all: u64| (all > 0).then(|| (done as f64 / all as f64).min(1.0));
        ratio(self.transactions, self.expected_transactions)
            .or_else(|| ratio(self.rows, self.expected_rows))
            .or_else(|| ratio(self.bytes, self.expected_bytes))
    }
}

impl Progress {
    /// Adds rows that were read or written.
    pub fn add_rows(&self, n: u64) {
        self.rows.fetch_add(n, Ordering::Relaxed);
    }
    /// Adds to the estimate of rows.
    pub fn expect_rows(&self, n: u64) {
        self.expected_rows.fetch_add(n, Ordering::Relaxed);
    }
    /// Adds bytes that were read.
    pub fn add_bytes(&self, n: u64) {
        self.bytes.fetch_add(n, Ordering::Relaxed);
    }
    /// Adds to the estimate of bytes.
    pub fn expect_bytes(&self, n: u64) {
        self.expected_bytes.fetch_add(n, Ordering::Relaxed);
    }
    /// Adds bytes that were stored.
    pub fn add_stored(&self, n: u64) {
        self.stored.fetch_add(n, Ordering::Relaxed);
    }
    /// Adds transactions that were applied, the last of which was committed at its source at `time`.
    pub fn add_transactions(&self, n: u64, time: Timestamp) {
        self.transactions.fetch_add(n, Ordering::Relaxed);
        self.source_time.fetch_max(time.as_second(), Ordering::Relaxed);
    }
    /// Adds to the estimate of transactions.
    pub fn expect_transactions(&self, n: u64) {
        self.expected_transactions.fetch_add(n, Ordering::Relaxed);
    }
    /// Takes from the estimates what turns out not to be done.
    pub fn expect_less(&self, bytes: u64, transactions: u64) {
        let less = |estimate: &AtomicU64, n: u64| {
            let _ = estimate.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |estimate| {
                Some(estimate.saturating_sub(n))
            });
        };
        less(&self.expected_bytes, bytes);
        less(&self.expected_transactions, transactions);
    }
    /// Adds time in which the work waited because the source had too much to do.
    pub fn add_throttled(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.throttled_millis.fetch_add(millis, Ordering::Relaxed);
    }
    /// The values now.
    #[must_use]
    pub fn snapshot(&self) -> ProgressSnapshot {
        ProgressSnapshot {
            rows: self.rows.load(Ordering::Relaxed),
            expected_rows: self.expected_rows.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            expected_bytes: self.expected_bytes.load(Ordering::Relaxed),
            stored: self.stored.load(Ordering::Relaxed),
            transactions: self.transactions.load(Ordering::Relaxed),
            expected_transactions: self.expected_transactions.load(Ordering::Relaxed),
            source_time: match self.source_time.load(Ordering::Relaxed) {
                0 => None,
                seconds => Timestamp::from_second(seconds).ok(),
            },
            throttled_seconds: self.throttled_millis.load(Ordering::Relaxed) / 1000,
        }
    }
}
