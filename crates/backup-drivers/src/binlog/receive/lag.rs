//! Up to which moment everything that the server had is safe here.

use jiff::Timestamp;

/// The last moments of which we know that we have what the server had then.
#[derive(Debug, Default)]
pub(super) struct Lag {
    /// With what was received.
    received: Option<Timestamp>,
    /// With what is on our disk.
    safe: Option<Timestamp>,
}

impl Lag {
    /// The server has sent everything that it has.
    pub(super) fn is_level(&mut self, now: Timestamp) {
        self.received = self.received.max(Some(now));
    }

    /// A transaction came: what was committed before it came before. Two clocks; that of the server is not
    /// believed where it is ahead.
    pub(super) fn comes(&mut self, committed: Timestamp, now: Timestamp) {
        self.is_level(committed.min(now));
    }

    /// What was received is on our disk.
    pub(super) fn is_safe(&mut self) {
        self.safe = self.received;
    }

    /// How long ago that moment was, in seconds; `None` where nothing has come yet.
    pub(super) fn seconds(&self, now: Timestamp) -> Option<f64> {
        // Never 0: that would say that nothing can be lost.
        let ago = |safe| now.duration_since(safe).as_secs_f64().max(0.001);
        self.safe.map(ago)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_on_the_disk_is_not_safe_and_no_clock_makes_it_so() {
        let at = |second: i64| Timestamp::from_second(1_000_000 + second).unwrap();
        let mut lag = Lag::default();
        assert_eq!(lag.seconds(at(0)), None);
        lag.comes(at(10), at(11));
        assert_eq!(lag.seconds(at(12)), None);
        lag.is_safe();
        assert_eq!(lag.seconds(at(12)), Some(2.0));
        // Nothing new, as the server says itself.
        lag.is_level(at(20));
        assert_eq!(lag.seconds(at(21)), Some(11.0));
        lag.is_safe();
        assert_eq!(lag.seconds(at(21)), Some(1.0));
        // A clock that is ahead, an old transaction, and a moment that is now.
        lag.comes(at(9000), at(22));
        lag.comes(at(5), at(23));
        lag.is_safe();
        assert_eq!(lag.seconds(at(32)), Some(10.0));
        assert!(lag.seconds(at(22)).is_some_and(|seconds| seconds > 0.0));
    }
}
