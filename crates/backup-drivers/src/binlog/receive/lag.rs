//! How late what is committed is safe here.

use jiff::Timestamp;

/// How long transactions took from their commit until they were safe here.
#[derive(Debug, Default)]
pub(super) struct Lag {
    /// We have what the server had; before, the age of what comes says nothing.
    pub(super) caught_up: bool,
    /// When the oldest one was committed that is not safe yet.
    pub(super) oldest: Option<Timestamp>,
    pub(super) longest: Option<f64>,
}

impl Lag {
    pub(super) fn comes(&mut self, committed: Timestamp) {
        if self.caught_up {
            self.oldest.get_or_insert(committed);
        }
    }

    pub(super) fn is_safe(&mut self, now: Timestamp) {
        if let Some(oldest) = self.oldest.take() {
            // Two clocks; none of them is asked to be right.
            let took = now.duration_since(oldest).as_secs_f64().max(0.0);
            self.longest = Some(self.longest.map_or(took, |longest| longest.max(took)));
        }
    }
}
