//! The right to archive a server's binlogs.

use async_trait::async_trait;

use crate::Result;

/// The right to archive the binlogs of a server, which nobody else has meanwhile
/// ([`SegmentStore::claim`](crate::SegmentStore::claim)). Given back when it is dropped, as far as that goes
/// without waiting.
///
/// It saves work and guards no data: who loses it without a word does no harm, for nothing in an archive
/// is ever changed.
#[async_trait]
pub trait Claim: Send + Sync {
    /// Whether somebody else has it by now.
    fn is_lost(&self) -> bool;

    /// Gives it back, so that the next one need not wait.
    ///
    /// # Errors
    /// When the store fails; then it ends by itself after a while.
    async fn release(self: Box<Self>) -> Result<()>;
}
