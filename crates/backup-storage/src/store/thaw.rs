//! Objects that a store keeps in an archive class: it gives them back hours after it was asked.

use backup_core::Result;
use jiff::Timestamp;

use super::Store;
use crate::key::Key;

/// Whether an object can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    /// At once.
    Readable {
        /// Until when, where a copy of an archived object is kept for some days only.
        until: Option<Timestamp>,
    },
    /// Not before the store was asked for it.
    Archived,
    /// The store was asked, and has not finished.
    Thawing,
}

/// How a store is asked for archived objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThawRequest {
    /// For how many days they can be read afterwards, at least 1.
    pub days: u32,
    /// How much of a hurry there is.
    pub speed: ThawSpeed,
}

/// How fast a store gives archived objects back; what is fast costs more. How long each takes depends on
/// store and class: AWS says minutes, 3 to 5 hours, and 5 to 12 hours for `GLACIER`, 12 and 48 hours for
/// `DEEP_ARCHIVE`, which has no `Expedited`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ThawSpeed {
    /// In minutes, where the store has room.
    Expedited,
    /// In hours.
    #[default]
    Standard,
    /// Slower, and cheap.
    Bulk,
}

impl Store {
    /// Whether an object can be read, or has to be asked for first; `None` when there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn availability(&self, key: &Key) -> Result<Option<Availability>> {
        let Some(archive) = &self.archive else {
            return Ok(self.len(key).await?.map(|_| Availability::Readable { until: None }));
        };
        let path = key.path();
        let seen = self.retry(&self.counts.heads, || archive.availability(&path)).await;
        self.seen(seen, "look at", key)
    }

    /// Asks for an object in an archive class, and leaves one alone that can be read or is on its way.
    /// Gives how it was before; `None` when there is none.
    ///
    /// # Errors
    /// When the store fails or refuses, for example without the right `s3:RestoreObject`.
    pub async fn thaw(&self, key: &Key, request: ThawRequest) -> Result<Option<Availability>> {
        let Some(archive) = &self.archive else { return self.availability(key).await };
        let path = key.path();
        let seen = self.retry(&self.counts.heads, || archive.thaw(&path, request)).await;
        self.seen(seen, "ask for a thaw of", key)
    }

    fn seen(
        &self,
        seen: object_store::Result<Availability>,
        verb: &str,
        key: &Key,
    ) -> Result<Option<Availability>> {
        match seen {
            Ok(seen) => Ok(Some(seen)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(self.failure(e, verb, key)),
        }
    }
}
