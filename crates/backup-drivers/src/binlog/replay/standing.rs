//! Who a server is, and where it stands, before binlogs are applied to it.

use backup_core::{BinlogServer, ErrorKind, Flavor, GtidSet, Result};

use super::check;
use super::direct::{self, mark};
use super::replica::Replica;
use super::target::Target;
use crate::connect::ConnectOptions;

/// Fails where a server is of another family than binlogs that are to be applied to it.
///
/// # Errors
/// [`ErrorKind::Target`], and those of [`Session::open`](crate::connect::Session::open).
pub async fn check_family(target: &ConnectOptions, family: Flavor) -> Result<()> {
    let target = Target::open(target).await?;
    if target.facts.flavor != family {
        return Err(check::other_family(&target, family));
    }
    target.session.close().await
}

/// Who a server is, as an archive names it; `None` where it does not say.
///
/// # Errors
/// Those of [`Session::open`](crate::connect::Session::open).
pub async fn identity(target: &ConnectOptions) -> Result<Option<BinlogServer>> {
    let target = Target::open(target).await?;
    let facts = &target.facts;
    let identity = match facts.flavor {
        Flavor::MySql => {
            let uuid = facts.server_uuid.as_ref().and_then(|uuid| uuid.parse().ok());
            uuid.map(BinlogServer::of_uuid)
        }
        Flavor::MariaDb => facts.server_id.try_into().ok().map(BinlogServer::of_id),
    };
    target.session.close().await?;
    Ok(identity)
}

/// Where a server stands: the transactions it has, as far as a replay goes on from there. What a replay
/// left running there that was killed is stopped first, or it would go on meanwhile.
///
/// # Errors
/// As [`Session::query_first`](crate::connect::Session::query_first); [`ErrorKind::Busy`] while another
/// run applies binlogs there.
pub async fn position(target: &ConnectOptions) -> Result<GtidSet> {
    let mut target = Target::open(target).await?;
    match Replica::remove_leftover(&mut target).await {
        // Who may not ask has not left any.
        Err(e) if e.kind() == ErrorKind::Privilege => {}
        other => other?,
    }
    direct::lock(&mut target).await?;
    let executed = match mark::read(&mut target).await? {
        // A run over a client connection was stopped, or could not tell the server.
        Some(applied) => applied,
        None => target.executed().await?,
    };
    target.session.close().await?;
    Ok(executed)
}
