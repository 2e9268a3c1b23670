//! Rates and remaining time from samples of counters.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use backup_core::ProgressSnapshot;

use crate::human;

/// Rates are those of the last so many seconds: long enough not to jump, short enough to show a
/// stall.
const WINDOW: Duration = Duration::from_secs(10);

/// Counters at one moment, and what follows from them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// The counters.
    pub(super) counts: ProgressSnapshot,
    /// Rows a second.
    pub(super) rows_per_second: f64,
    /// Bytes a second.
    pub(super) bytes_per_second: f64,
    /// Transactions a second.
    pub(super) transactions_per_second: f64,
    /// Seconds until the end, where it can be told.
    pub(super) remaining: Option<f64>,
}

impl Sample {
    /// The finished part, from 0 to 1; none without an estimate, or when it was too low.
    pub(super) fn fraction(&self) -> Option<f64> {
        fraction(&self.counts)
    }

    /// `2 min 10 s left, 1,234 rows (617/s), 1.0 MiB (512.0 KiB/s), 300.0 KiB stored`.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "rates are not negative, and casts of floats saturate"
    )]
    pub(super) fn describe(&self) -> String {
        let mut parts = Vec::new();
        // First, so that a narrow terminal shows it.
        if let Some(seconds) = self.remaining {
            parts.push(format!("{} left", human::duration(seconds)));
        }
        if self.counts.throttled_seconds > 0 {
            let seconds = self.counts.throttled_seconds as f64;
            parts.push(format!("throttled for {}", human::duration(seconds)));
        }
        if self.counts.expected_transactions > 0 {
            let rate = human::count(self.transactions_per_second as u64);
            let count = human::count(self.counts.transactions);
            parts.push(format!("{count} transactions ({rate}/s)"));
            if let Some(time) = self.counts.source_time {
                parts.push(format!("up to {}", human::time(time)));
            }
        } else if self.counts.rows > 0 {
            let rate = human::count(self.rows_per_second as u64);
            parts.push(format!("{} rows ({rate}/s)", human::count(self.counts.rows)));
        }
        let rate = human::bytes(self.bytes_per_second as u64);
        parts.push(format!("{} ({rate}/s)", human::bytes(self.counts.bytes)));
        if self.counts.stored > 0 {
            parts.push(format!("{} stored", human::bytes(self.counts.stored)));
        }
        parts.join(", ")
    }
}

fn fraction(counts: &ProgressSnapshot) -> Option<f64> {
    let (done, all) = match (counts.expected_transactions, counts.expected_rows) {
        (0, 0) => (counts.bytes, counts.expected_bytes),
        (0, rows) => (counts.rows, rows),
        (all, _) => (counts.transactions, all),
    };
    counts.fraction().filter(|_| done <= all)
}

/// Remembers samples.
pub(super) struct Rates {
    window: VecDeque<(Instant, ProgressSnapshot)>,
    start: Instant,
    start_fraction: Option<f64>,
}

impl Rates {
    /// Begins at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Rates { window: VecDeque::new(), start: now, start_fraction: None }
    }

    /// Takes the counters at `now`.
    #[expect(clippy::cast_precision_loss, reason = "rates for people")]
    pub(super) fn sample(&mut self, now: Instant, counts: ProgressSnapshot) -> Sample {
        while self.window.len() > 1 && now.duration_since(self.window[1].0) > WINDOW {
            self.window.pop_front();
        }
        // Events may come by the thousand; four points a second are enough.
        if self.window.back().is_none_or(|(t, _)| now.duration_since(*t).as_millis() >= 250) {
            self.window.push_back((now, counts));
        }
        let (first, old) = self.window[0];
        let seconds = now.duration_since(first).as_secs_f64();
        let rate = |new: u64, old: u64| {
            if seconds > 0.0 { new.saturating_sub(old) as f64 / seconds } else { 0.0 }
        };
        Sample {
            counts,
            rows_per_second: rate(counts.rows, old.rows),
            bytes_per_second: rate(counts.bytes, old.bytes),
            transactions_per_second: rate(counts.transactions, old.transactions),
            remaining: self.remaining(now, counts),
        }
    }

    /// By the pace since the phase began.
    fn remaining(&mut self, now: Instant, counts: ProgressSnapshot) -> Option<f64> {
        let fraction = fraction(&counts)?;
        let from = *self.start_fraction.get_or_insert(fraction);
        let elapsed = now.duration_since(self.start).as_secs_f64();
        (fraction > from && fraction < 1.0 && elapsed >= 1.0)
            .then(|| elapsed * (1.0 - fraction) / (fraction - from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_last_seconds_and_the_rest_follows_from_the_pace() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let counts = |rows| ProgressSnapshot { rows, expected_rows: 4000, ..Default::default() };
        let mut rates = Rates::new(start);
        assert_eq!(rates.sample(start, counts(0)).remaining, None);
        for s in 1..=10 {
            rates.sample(at(s), counts(s * 100));
        }
        let sample = rates.sample(at(10), counts(1000));
        assert_eq!((sample.rows_per_second, sample.remaining), (100.0, Some(30.0)));
        assert_eq!(sample.describe(), "30 s left, 1,000 rows (100/s), 0 B (0 B/s)");
        // Binlogs that are applied count in transactions, whatever rows were restored before.
        let counts = ProgressSnapshot {
            transactions: 10,
            expected_transactions: 40,
            source_time: "2026-11-20T10:15:30Z".parse().ok(),
            ..counts(4000)
        };
        let sample = Rates::new(start).sample(start, counts);
        assert_eq!(sample.fraction(), Some(0.25));
        let waited = ProgressSnapshot { throttled_seconds: 5, ..counts };
        let said = Rates::new(start).sample(start, waited).describe();
        assert!(said.starts_with("throttled for 5.0 s, 10 transactions"), "{said}");
        let said = sample.describe();
        assert!(said.starts_with("10 transactions (0/s), up to 2026-11-20 10:15:30"), "{said}");
        let counts = |rows| ProgressSnapshot { rows, expected_rows: 4000, ..Default::default() };
        // A stall shows once the window has moved on.
        for s in 11..=30 {
            rates.sample(at(s), counts(1000));
        }
        assert_eq!(rates.sample(at(30), counts(1000)).rows_per_second, 0.0);
    }
}
