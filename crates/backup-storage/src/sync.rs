//! What tasks and threads share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use backup_core::Error;

/// A lock that a panic elsewhere does not spoil: the failure is reported by the task that had it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A task that panicked or was stopped with its runtime.
pub(crate) fn lost_task(error: tokio::task::JoinError) -> Error {
    Error::internal("a task of the repository ended early").with_source(error)
}
