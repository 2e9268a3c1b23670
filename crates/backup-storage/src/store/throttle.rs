//! A limit on how fast bytes go out.

use std::num::NonZeroU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use backup_core::Context;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Lets bytes through at a rate, on average, whoever sends them. Where the run is asked to stop, what is on its
/// way goes without a limit: nobody waits minutes for the end of what is removed then.
#[derive(Debug)]
pub(crate) struct Throttle {
    rate: NonZeroU64,
    /// When what was let through so far is paid for.
    free: Mutex<Instant>,
    stopped: CancellationToken,
}

impl Throttle {
    /// `rate` is in bytes per second.
    pub(crate) fn new(cx: &Context, rate: NonZeroU64) -> Self {
        let (free, stopped) = (Mutex::new(Instant::now()), cx.cancellation().clone());
        Throttle { rate, free, stopped }
    }

    /// How many bytes to ask for at once, so that a stream flows rather than stutters: those of a
    /// tenth of a second, from 1 KiB to 64 KiB.
    pub(crate) fn portion(&self) -> usize {
        (self.rate.get() / 10).clamp(1 << 10, 64 << 10) as usize
    }

    /// Waits until `bytes` may be sent: until all that was let through before is paid for. What an
    /// idle time would have allowed is not made up for.
    pub(crate) async fn pay(&self, bytes: u64) {
        let turn = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = (*free).max(Instant::now());
            *free = turn + Duration::from_secs_f64(bytes as f64 / self.rate.get() as f64);
            turn
        };
        tokio::select! {
            () = self.stopped.cancelled() => {}
            () = tokio::time::sleep_until(turn) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn throttle(rate: u64) -> Throttle {
        Throttle::new(&Context::builder().build(), NonZeroU64::new(rate).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn many_senders_together_keep_to_the_rate() {
        let throttle = Arc::new(throttle(1000));
        let start = Instant::now();
        let senders = (0..10).map(|_| {
            let throttle = Arc::clone(&throttle);
            async move {
                for _ in 0..10 {
                    throttle.pay(100).await;
                }
            }
        });
        futures::future::join_all(senders).await;
        // 10,000 bytes; the last 100 are on their way.
        assert_eq!(start.elapsed().as_millis(), 9_900);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_time_is_not_saved_up() {
        let throttle = throttle(1000);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let start = Instant::now();
        throttle.pay(500).await;
        throttle.pay(1).await;
        assert_eq!(start.elapsed().as_millis(), 500);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_is_stopped_waits_for_nothing() {
        let cx = Context::builder().build();
        let throttle = Throttle::new(&cx, NonZeroU64::new(1).unwrap());
        let start = Instant::now();
        throttle.pay(1 << 30).await;
        let stop = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            cx.cancel();
        };
        tokio::join!(throttle.pay(1), throttle.pay(1), stop);
        throttle.pay(1 << 30).await;
        assert_eq!(start.elapsed().as_secs(), 5);
    }

    #[tokio::test]
    async fn portions_are_a_tenth_of_a_second() {
        for (rate, portion) in [(1, 1 << 10), (100 << 10, 10 << 10), (u64::MAX, 64 << 10)] {
            assert_eq!(throttle(rate).portion(), portion);
        }
    }
}
