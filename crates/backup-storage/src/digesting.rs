//! The SHA-256 of bytes that come in order, computed behind whoever brings them.

use backup_core::Result;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio_util::task::AbortOnDropHandle;

use crate::format::hex;
use crate::sync::lost_task;

/// Work on fewer bytes than this is done before another thread could begin with it.
const SHORT: usize = 32 << 10;

/// A digest of which the last part may still be under way.
pub(crate) enum Digesting {
    Idle(Sha256),
    Busy(AbortOnDropHandle<Sha256>),
}

impl Digesting {
    pub(crate) fn new() -> Self {
        Digesting::Idle(Sha256::new())
    }

    /// Adds `pieces` in the background, after all that came before; waits for that. What accounts for their
    /// memory is `held` until they are done. A few bytes are digested at once.
    pub(crate) async fn add(
        &mut self,
        pieces: Vec<Bytes>,
        held: impl Send + 'static,
    ) -> Result<()> {
        let mut digest = self.ready().await?;
        if pieces.iter().map(Bytes::len).sum::<usize>() < SHORT {
            pieces.iter().for_each(|piece| digest.update(piece));
            *self = Digesting::Idle(digest);
            return Ok(());
        }
        let task = tokio::task::spawn_blocking(move || {
            for piece in pieces {
                digest.update(&piece);
            }
            drop(held);
            digest
        });
        *self = Digesting::Busy(AbortOnDropHandle::new(task));
        Ok(())
    }

    /// Adds bytes at once: too few for a thread of their own.
    pub(crate) async fn add_short(&mut self, bytes: &[u8]) -> Result<()> {
        let mut digest = self.ready().await?;
        digest.update(bytes);
        *self = Digesting::Idle(digest);
        Ok(())
    }

    /// The digest of everything, as hex.
    pub(crate) async fn finish(mut self) -> Result<String> {
        Ok(hex(&self.ready().await?.finalize()))
    }

    async fn ready(&mut self) -> Result<Sha256> {
        match std::mem::replace(self, Digesting::new()) {
            Digesting::Idle(digest) => Ok(digest),
            Digesting::Busy(task) => task.await.map_err(lost_task),
        }
    }
}
