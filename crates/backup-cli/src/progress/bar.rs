//! A bar on a terminal.

use std::time::Duration;

use backup_core::Event;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::rate::Sample;
use super::{Face, Verbosity, lines};
use crate::human::plain;

/// The length of the bar; counters are scaled to it, since they can be rows or bytes.
const LENGTH: u64 = 1000;

const MEASURED: &str = "{prefix} [{bar:24}] {percent:>3} %  {wide_msg}";
const UNMEASURED: &str = "{spinner} {prefix}  {wide_msg}";

/// A bar on stderr, with events above it.
pub(super) struct Bar {
    bar: ProgressBar,
    verbosity: Verbosity,
    /// Whether it has a length now.
    measured: bool,
}

impl Bar {
    /// An empty bar.
    pub(super) fn new(verbosity: Verbosity) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style(UNMEASURED));
        Bar { bar, verbosity, measured: false }
    }

    fn show(&mut self, sample: &Sample) {
        let fraction = sample.fraction();
        if fraction.is_some() != self.measured {
            self.measured = !self.measured;
            self.bar.set_style(style(if self.measured { MEASURED } else { UNMEASURED }));
            self.bar.set_length(LENGTH);
        }
        if let Some(fraction) = fraction {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "the fraction is between 0 and 1"
            )]
            self.bar.set_position((fraction * LENGTH as f64) as u64);
        }
        self.bar.set_message(sample.describe());
        self.bar.tick();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the templates are constants, and a test parses them")
        .progress_chars("=> ")
}

impl Face for Bar {
    fn interval(&self) -> Duration {
        Duration::from_millis(125)
    }

    fn event(&mut self, event: &Event, sample: &Sample) {
        if let Event::Phase { name } = event {
            self.bar.set_prefix(plain(name));
            self.show(sample);
        } else if self.verbosity.shows(event) {
            self.bar.suspend(|| lines::write(&lines::line(event)));
        }
    }

    fn sample(&mut self, sample: &Sample) {
        self.show(sample);
    }

    fn finish(&mut self, _: &Sample) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use backup_core::ProgressSnapshot;

    use super::*;

    #[test]
    fn both_styles_parse_and_the_bar_follows_the_fraction() {
        let mut bar = Bar::new(Verbosity::Normal);
        bar.bar.set_draw_target(ProgressDrawTarget::hidden());
        let mut rates = super::super::rate::Rates::new(std::time::Instant::now());
        let mut sample = |rows, expected_rows| {
            let counts = ProgressSnapshot { rows, expected_rows, ..Default::default() };
            rates.sample(std::time::Instant::now(), counts)
        };
        bar.sample(&sample(10, 0));
        assert!(!bar.measured);
        bar.sample(&sample(10, 40));
        assert!(bar.measured);
        assert_eq!(bar.bar.position(), LENGTH / 4);
        // An estimate that was too low is no measure.
        bar.sample(&sample(41, 40));
        assert!(!bar.measured);
    }
}
