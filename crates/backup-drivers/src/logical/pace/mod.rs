//! How fast a dump goes: how many of its readers read at once, and when none may.
//!
//! All readers are connections of one snapshot, opened before the first row; later ones would see
//! another moment. Before each chunk a reader takes a permit from the [`Gate`], and gives it back
//! after it. Between chunks it holds no lock of a table, so that one that waits for a permit is in
//! nobody's way. The gate lets through as many as a [`Climb`] finds worth it, or a fixed number, and
//! nobody while a [`Watcher`] sees a limit of the [`Throttle`] exceeded; but for those that read tables
//! which are locked until they are read, because others wait for these.

mod climb;
mod gate;
mod throttle;
mod watcher;

use std::convert::Infallible;
use std::time::{Duration, Instant};

use backup_core::{Context, Result};
use tokio::time::MissedTickBehavior;

use climb::Climb;
pub(super) use gate::{Gate, Permit};
pub use throttle::Throttle;
pub(super) use watcher::Watcher;

/// How often the source is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// More connections than these are not tried.
const MOST: usize = 16;

/// How many readers there are to choose from, where `threads` are the usual number.
pub(super) fn most(threads: usize) -> usize {
    (2 * threads).min(MOST)
}

/// What sets the pace of a dump.
pub(super) struct Pace<'a> {
    gate: Gate,
    climb: Option<Climb>,
    watcher: Option<&'a mut Watcher>,
}

impl<'a> Pace<'a> {
    /// `active` readers to begin with, and up to `most` where their number adapts. With a watcher
    /// nobody reads before its first look.
    pub(super) fn new(
        active: usize,
        most: Option<usize>,
        watcher: Option<&'a mut Watcher>,
    ) -> Self {
        Pace {
            gate: Gate::new(active, watcher.is_some()),
            climb: most.map(|most| Climb::new(active, most)),
            watcher,
        }
    }

    /// The gate, for those that read.
    pub(super) fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// Sets the pace until it is dropped.
    ///
    /// # Errors
    /// When the source cannot be looked at any more.
    pub(super) async fn conduct(mut self, cx: &Context) -> Result<Infallible> {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while self.climb.is_some() || self.watcher.is_some() {
            ticks.tick().await;
            let shut = match &mut self.watcher {
                Some(watcher) => watcher.exceeded(cx).await?,
                None => false,
            };
            self.gate.shut(shut);
            let Some(climb) = &mut self.climb else { continue };
            let bytes = cx.progress().snapshot().bytes;
            let steady = !shut && self.gate.is_settled();
            if let Some(active) = climb.tick(Instant::now(), bytes, steady) {
                self.gate.allow(active);
                cx.note(format!("{active} connections read now"));
            }
        }
        std::future::pending().await
    }
}
