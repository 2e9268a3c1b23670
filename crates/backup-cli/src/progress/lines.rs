//! Plain lines, for logs.

use std::io::{self, Write};
use std::time::Duration;

use backup_core::Event;

use super::rate::Sample;
use super::{Face, Verbosity};
use crate::human::{count, plain};

/// One line of text for an event.
pub(super) fn line(event: &Event) -> String {
    plain(&match event {
        Event::Phase { name } => name.clone(),
        Event::Done { kind, name, rows: Some(rows) } => {
            format!("done: {kind} {name}, {} rows", count(*rows))
        }
        Event::Done { kind, name, rows: None } => format!("done: {kind} {name}"),
        Event::Note { text } => format!("note: {text}"),
        Event::Warning { text } => format!("warning: {text}"),
        // Kinds that a later version of the library knows.
        other => format!("{other:?}"),
    })
}

/// Lines on stderr.
pub(super) struct Lines {
    verbosity: Verbosity,
    samples: bool,
}

impl Lines {
    /// With or without a line every ten seconds.
    pub(super) fn new(verbosity: Verbosity, samples: bool) -> Self {
        Lines { verbosity, samples }
    }
}

/// Writes a line to stderr.
pub(super) fn write(text: &str) {
    // Whoever closed stderr wants no lines.
    let _ = writeln!(io::stderr(), "holdfast: {text}");
}

impl Face for Lines {
    fn interval(&self) -> Duration {
        Duration::from_secs(10)
    }

    fn event(&mut self, event: &Event, _: &Sample) {
        if self.verbosity.shows(event) {
            write(&line(event));
        }
    }

    fn sample(&mut self, sample: &Sample) {
        if self.samples {
            let percent =
                sample.fraction().map(|f| format!("{:.0} %, ", f * 100.0)).unwrap_or_default();
            write(&format!("{percent}{}", sample.describe()));
        }
    }

    fn finish(&mut self, _: &Sample) {}
}
