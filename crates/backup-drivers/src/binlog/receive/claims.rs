//! The servers that nobody else archives meanwhile.

use std::collections::HashMap;
use std::sync::Arc;

use backup_core::{
    BinlogServer, Claim, ClusterName, Context, Error, ErrorKind, Result, SegmentStore,
};

/// The rights to archive servers of one cluster.
pub(super) struct Claims<'a> {
    cx: &'a Context,
    store: Arc<dyn SegmentStore>,
    cluster: &'a ClusterName,
    held: HashMap<BinlogServer, Box<dyn Claim>>,
}

impl<'a> Claims<'a> {
    pub(super) fn new(
        cx: &'a Context,
        store: Arc<dyn SegmentStore>,
        cluster: &'a ClusterName,
    ) -> Self {
        Claims { cx, store, cluster, held: HashMap::new() }
    }

    /// Takes that for a server, unless it is held. Gives whether it was not.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] when another receiver has it.
    pub(super) async fn take(&mut self, server: &BinlogServer) -> Result<bool> {
        if self.held.contains_key(server) {
            return self.check().map(|()| false);
        }
        let claim = self.store.claim(self.cx, self.cluster, server).await?;
        self.held.insert(server.clone(), claim);
        Ok(true)
    }

    /// Fails where another receiver took one over.
    pub(super) fn check(&self) -> Result<()> {
        match self.held.iter().find(|(_, claim)| claim.is_lost()) {
            None => Ok(()),
            Some((server, _)) => Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "another receiver took over the binlogs of {server}, in cluster {}, while this one stood \
                     still",
                    self.cluster
                ),
            )
            .with_remedy("one is enough: leave it to that one, or end it and start this one again")),
        }
    }

    /// Gives back those for other servers.
    pub(super) async fn keep_only(&mut self, server: &BinlogServer) {
        let kept = self.held.remove(server);
        self.release().await;
        self.held.extend(kept.map(|claim| (server.clone(), claim)));
    }

    /// Gives all of them back.
    pub(super) async fn release(&mut self) {
        for (server, claim) in self.held.drain() {
            if let Err(e) = claim.release().await {
                self.cx.note(format!(
                    "that the binlogs of {server} are left to others is not noted: {}",
                    e.chain()
                ));
            }
        }
    }
}
