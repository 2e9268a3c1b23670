//! A bar on a terminal.

use std::time::Duration;

use backup_core::Event;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::rate::Sample;
use super::{Face, Verbosity, lines};
use crate::human::plain;

/// The length of the bar; counters are scaled to it, since they can be rows or bytes.
const LENGTH: u64 = 1000;

/// A bar on stderr, with events above it.
pub(super) struct Bar {
    bar: ProgressBar,
    verbosity: Verbosity,
}

impl Bar {
    /// An empty bar.
    pub(super) fn new(verbosity: Verbosity) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style("{spinner} {prefix}  {msg}"));
        Bar { bar, verbosity }
    }

    fn show(&self, sample: &Sample) {
        match sample.counts.fraction() {
            Some(fraction) => {
                if self.bar.length().is_none() {
                    self.bar.set_style(style("{prefix} [{bar:24}] {percent:>3} %  {msg}"));
                    self.bar.set_length(LENGTH);
                }
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    clippy::cast_precision_loss,
                    reason = "the fraction is between 0 and 1"
                )]
                self.bar.set_position((fraction * LENGTH as f64) as u64);
            }
            None => self.bar.tick(),
        }
        self.bar.set_message(sample.describe());
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
        assert_eq!(bar.bar.length(), None);
        bar.sample(&sample(10, 40));
        assert_eq!((bar.bar.length(), bar.bar.position()), (Some(LENGTH), LENGTH / 4));
    }
}
