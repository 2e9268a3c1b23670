//! How many readers bring the most.

use std::time::{Duration, Instant};

/// How long a number of readers is measured. A shorter time measures single chunks.
const WINDOW: Duration = Duration::from_secs(3);

/// One reader more has to bring so many times as much, else it is not worth what it costs the source.
const WORTH: f64 = 1.05;

/// After a trial that was not worth it the number stays for so many windows.
const REST: u32 = 10;

/// A hill climb, one reader at a time.
///
/// It tries one more, and goes on as long as that brings more; when it does not, it goes back and rests,
/// then tries one fewer, and goes on as long as nothing is lost by it. So it stays where the last reader
/// is just worth it, whether source, network or this machine is what ends the gain, and follows when
/// that changes.
pub(super) struct Climb {
    active: usize,
    most: usize,
    up: bool,
    rest: u32,
    /// The number before the trial that goes on, and what it brought.
    trial: Option<(usize, f64)>,
    /// Since when the present number is measured, and the bytes there were.
    window: Option<(Instant, u64)>,
}

impl Climb {
    /// Begins with `active` readers, at most `most`.
    pub(super) fn new(active: usize, most: usize) -> Self {
        Climb { active, most, up: true, rest: 0, trial: None, window: None }
    }

    /// Takes the number of bytes that were read until now, and whether the present number of readers
    /// was free to read since the last time. Gives another number of readers when it is time for one.
    pub(super) fn tick(&mut self, now: Instant, bytes: u64, steady: bool) -> Option<usize> {
        let Some((since, before)) = self.window.filter(|_| steady) else {
            self.window = steady.then_some((now, bytes));
            return None;
        };
        let time = now.duration_since(since);
        if time < WINDOW {
            return None;
        }
        self.window = Some((now, bytes));
        let was = self.active;
        self.step((bytes.saturating_sub(before)) as f64 / time.as_secs_f64());
        (self.active != was).then_some(self.active)
    }

    /// Takes what the present number brought.
    fn step(&mut self, rate: f64) {
        if let Some((before, brought)) = self.trial.take() {
            let is_worth = match self.active > before {
                true => rate > brought * WORTH,
                false => rate * WORTH > brought,
            };
            if !is_worth {
                self.active = before;
                self.up = !self.up;
                self.rest = REST;
                return;
            }
        } else if self.rest > 0 {
            self.rest -= 1;
            return;
        }
        self.up = self.active == 1 || (self.up && self.active < self.most);
        let next = if self.up { (self.active + 1).min(self.most) } else { self.active - 1 };
        if next != self.active {
            self.trial = Some((self.active, rate));
            self.active = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At how many of the last 1000 windows so many were active, where each reader up to `knee`
    /// brings the same, and those beyond take `loss` each.
    fn active(from: usize, most: usize, knee: usize, loss: f64) -> Vec<usize> {
        let mut climb = Climb::new(from, most);
        let mut times = vec![0; most + 1];
        for window in 0..2000 {
            let beyond = climb.active.saturating_sub(knee) as f64;
            climb.step(100.0 * climb.active.min(knee) as f64 - loss * beyond);
            assert!((1..=most).contains(&climb.active));
            times[climb.active] += usize::from(window >= 1000);
        }
        times
    }

    #[test]
    fn it_finds_the_last_reader_that_is_worth_it() {
        for (from, most, knee) in [(4, 8, 6), (4, 8, 2), (8, 16, 16), (8, 16, 1), (1, 2, 2)] {
            for loss in [0.0, 3.0] {
                let times = active(from, most, knee, loss);
                assert!(times[knee] > 800, "{from} of {most}, {knee}: {times:?}");
            }
        }
        assert_eq!(active(1, 1, 1, 0.0), [0, 1000]);
    }

    #[test]
    fn it_measures_only_while_readers_are_free_to_read() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut climb = Climb::new(2, 4);
        assert_eq!(climb.tick(at(0), 0, true), None);
        assert_eq!(climb.tick(at(2), 200, true), None);
        // Somebody else held them up: what was measured says nothing.
        assert_eq!(climb.tick(at(3), 200, false), None);
        assert_eq!(climb.tick(at(4), 200, true), None);
        assert_eq!(climb.tick(at(6), 400, true), None);
        assert_eq!(climb.tick(at(7), 500, true), Some(3));
        assert_eq!(climb.trial, Some((2, 100.0)));
    }
}
