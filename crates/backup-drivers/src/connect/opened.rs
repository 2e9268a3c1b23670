//! Which sessions of a server are our own.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// No more are remembered: the oldest are gone long since.
const MOST: usize = 10_000;

/// The numbers of the connections that were opened with some [`ConnectOptions`](super::ConnectOptions) or their
/// clones. A server gives a number once.
#[derive(Debug, Clone, Default)]
pub struct Opened(Arc<Mutex<BTreeSet<u64>>>);

impl Opened {
    pub(crate) fn add(&self, id: u32) {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ids.insert(id.into());
        if ids.len() > MOST {
            ids.pop_first();
        }
    }

    pub(crate) fn has(&self, id: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&id)
    }
}
