//! The time of a store.

use backup_core::{Context, Error, ErrorKind, Result};
use jiff::Timestamp;

use super::{Created, Store};
use crate::format::hex;
use crate::key::{Key, RecordName};

impl Store {
    /// The time of the store's clock, from an object that is made for it and removed again. What
    /// decides about the life of backups goes by this clock: that of this machine may be wrong.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn now(&self, cx: &Context) -> Result<Timestamp> {
        let name = RecordName::new(&format!("now-{}", hex(&cx.random::<16>())))
            .ok_or_else(|| Error::internal("a name for the question of the time is no name"))?;
        let key = Key::Now(name);
        let created = self.create(&key, Vec::from(key.to_string())).await?;
        let stored = self.head(&key).await;
        // A leftover of this does no harm; it is removed later with others.
        let _ = self.delete(&key).await;
        match (created, stored?) {
            (Created::New, Some(meta)) => Ok(meta.modified),
            _ => Err(Error::new(
                ErrorKind::Store,
                format!("{} does not show what was just stored in it", self.name),
            )),
        }
    }
}
