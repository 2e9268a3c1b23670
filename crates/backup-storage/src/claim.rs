//! Who archives the binlogs of a server: the holder of a lease.

use std::time::Duration;

use async_trait::async_trait;
use backup_core::{BinlogServer, Claim, ClusterName, Context, ErrorKind, Result};

use crate::key::LeaseName;
use crate::lease::{Lease, holder};
use crate::repo::Repo;

/// Renewed three times in this time, day and night, so it is not short; and after two and a half times of it
/// somebody on another machine takes over from one who died without a word.
const TTL: Duration = Duration::from_secs(60);

pub(crate) async fn claim(
    cx: &Context,
    repo: &Repo,
    cluster: &ClusterName,
    server: &BinlogServer,
) -> Result<Box<dyn Claim>> {
    let name = LeaseName::Binlog(cluster.clone(), server.clone());
    match Lease::acquire(cx, repo.store(), name, &holder("binlog"), TTL).await {
        Ok(lease) => Ok(Box::new(lease)),
        Err(e) if e.kind() == ErrorKind::Busy => Err(e
            .context(format!("another receiver archives the binlogs of {server}, in cluster {cluster}"))
            .with_remedy(
                "one is enough: end it with SIGTERM, and start this one then; one that has died on another \
                 machine is taken over from after the time that is named",
            )),
        Err(e) => Err(e),
    }
}

#[async_trait]
impl Claim for Lease {
    fn is_lost(&self) -> bool {
        Lease::is_lost(self)
    }

    async fn release(self: Box<Self>) -> Result<()> {
        Lease::release(*self).await
    }
}
