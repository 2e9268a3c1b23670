//! Copies that stand in for what is damaged or gone: only frames whose check passes are taken.

use std::ops::Range;

use backup_core::{Error, Event, Result};
use bytes::Bytes;

use crate::format::{Extent, FrameKind};
use crate::key::Key;
use crate::packer::{lock, lost_task};
use crate::source::{Opened, decode};

impl Opened {
    /// A range of an object from the first copy that has it; it is not yet checked. `error` is why
    /// it is not to be had here, and what is left when no copy can help.
    pub(crate) async fn fetch_copy(
        &self,
        key: &Key,
        range: Range<u64>,
        error: Error,
    ) -> Result<Bytes> {
        for copy in self.repo.copies() {
            let found = async { copy.store().await?.get_range(key, range.clone()).await };
            match found.await {
                Ok(Some(bytes)) => {
                    self.tell(key, copy.name(), &error);
                    return Ok(bytes);
                }
                Ok(None) => {}
                Err(e) => self.cannot_help(key, copy.name(), &e),
            }
        }
        Err(error)
    }

    /// What a frame holds that is damaged here, from the first copy whose frame passes its check.
    pub(crate) async fn frame_of_copy(
        &self,
        key: &Key,
        range: Range<u64>,
        kind: FrameKind,
        expected: Option<&Extent>,
        error: Error,
    ) -> Result<Bytes> {
        for copy in self.repo.copies() {
            let found = async { copy.store().await?.get_range(key, range.clone()).await };
            let raw = match found.await {
                Ok(Some(bytes)) => {
                    let (place, expected) = (self.place(key), expected.copied());
                    let offset = range.start;
                    tokio::task::spawn_blocking(move || {
                        decode(&place, offset, &bytes, kind, expected.as_ref())
                    })
                    .await
                    .map_err(lost_task)?
                }
                Ok(None) => continue,
                Err(e) => Err(e),
            };
            match raw {
                Ok(raw) => {
                    self.tell(key, copy.name(), &error);
                    return Ok(raw);
                }
                Err(e) => self.cannot_help(key, copy.name(), &e),
            }
        }
        Err(error)
    }

    /// Once for an object.
    fn tell(&self, key: &Key, copy: &str, error: &Error) {
        if lock(&self.told).insert(key.clone()) {
            let text = format!("{} is read from the copy in {copy}: {}", key, error.chain());
            self.cx.event(Event::Warning { text });
        }
    }

    fn cannot_help(&self, key: &Key, copy: &str, error: &Error) {
        self.cx.note(format!("the copy in {copy} cannot give {key}: {}", error.chain()));
    }
}
