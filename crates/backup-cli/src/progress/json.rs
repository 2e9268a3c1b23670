//! Events and samples as NDJSON on stderr, for programs.
//!
//! ```json
//! {"time":"2026-11-20T10:15:30Z","event":"phase","name":"backup"}
//! {"time":"2026-11-20T10:15:31Z","event":"progress","rows":10,"expected_rows":40,"bytes":900,
//!  "expected_bytes":0,"stored":300,"transactions":0,"expected_transactions":0,"source_time":null,
//!  "throttled_seconds":0,"fraction":0.25,"rows_per_second":10.0,"bytes_per_second":900.0,
//!  "transactions_per_second":0.0,"remaining_seconds":3.0}
//! ```
//! (One line each.) The last line of a run is a `progress`.

use std::io::{self, Write};
use std::time::Duration;

use backup_core::{Clock, Event, ProgressSnapshot, SystemClock};
use jiff::Timestamp;
use serde::Serialize;

use super::Face;
use super::rate::Sample;

/// Lines of JSON on stderr.
pub(super) struct Json;

#[derive(Serialize)]
struct Line<T> {
    time: Timestamp,
    #[serde(flatten)]
    what: T,
}

#[derive(Serialize)]
#[serde(tag = "event", rename = "progress")]
struct Progress {
    #[serde(flatten)]
    counts: ProgressSnapshot,
    fraction: Option<f64>,
    rows_per_second: f64,
    bytes_per_second: f64,
    transactions_per_second: f64,
    remaining_seconds: Option<f64>,
}

fn write(what: impl Serialize) {
    if let Ok(line) = serde_json::to_string(&Line { time: SystemClock.now(), what }) {
        // Whoever closed stderr wants no lines.
        let _ = writeln!(io::stderr(), "{line}");
    }
}

impl Face for Json {
    fn interval(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn event(&mut self, event: &Event, _: &Sample) {
        write(event);
    }

    fn sample(&mut self, sample: &Sample) {
        write(Progress {
            counts: sample.counts,
            fraction: sample.fraction(),
            rows_per_second: sample.rows_per_second,
            bytes_per_second: sample.bytes_per_second,
            transactions_per_second: sample.transactions_per_second,
            remaining_seconds: sample.remaining,
        });
    }

    fn finish(&mut self, sample: &Sample) {
        self.sample(sample);
    }
}
