//! Things that are dear to make, kept for the next who needs one.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Keeps at most `N`.
pub(super) struct Pool<T, const N: usize>(Mutex<Vec<T>>);

impl<T, const N: usize> Pool<T, N> {
    pub(super) const fn new() -> Self {
        Pool(Mutex::new(Vec::new()))
    }

    /// One that fits, if there is one.
    pub(super) fn take(&self, fits: impl Fn(&T) -> bool) -> Option<T> {
        let mut kept = self.kept();
        let at = kept.iter().rposition(fits)?;
        Some(kept.swap_remove(at))
    }

    /// Keeps it; where there are enough, the one that waits for longest goes.
    pub(super) fn give_back(&self, thing: T) {
        let mut kept = self.kept();
        let oldest = (kept.len() == N).then(|| kept.remove(0));
        kept.push(thing);
        drop(kept);
        drop(oldest);
    }

    fn kept(&self) -> MutexGuard<'_, Vec<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
