//! Whether binlogs that are rescued are of a server of the cluster.

use std::collections::BTreeSet;
use std::path::Path;

use backup_core::{BinlogServer, ClusterName, Error, Gtid, GtidSet, Result};

use super::super::kin::{self, Kin};
use super::place::Piece;

impl Kin {
    /// Whether a piece of a new server's binlogs tells that it is one of the cluster's: it holds a transaction
    /// of theirs, or one that comes next. `None` where older pieces may tell.
    pub(super) fn knows_piece(&self, piece: &Piece<'_>) -> Result<Option<bool>> {
        let before = piece.told_before()?;
        if let Some((set, state)) = &before
            && self.shares(set, state.as_ref())?
        {
            return Ok(Some(true));
        }
        // One that was promoted, and had written nothing, goes on with the numbers of the one before it.
        let mut domains: BTreeSet<u32> = match &before {
            Some((GtidSet::MariaDb(set), _)) => set.domains().collect(),
            _ => BTreeSet::new(),
        };
        let mut follows = |gtid: &Gtid| match gtid {
            Gtid::MariaDb(gtid) => domains.insert(gtid.domain) && self.is_next(*gtid),
            Gtid::MySql(_) => false,
        };
        if piece.any(|gtid| self.has(gtid) || follows(gtid))? {
            return Ok(Some(true));
        }
        // A MySQL says in each file everything that came before it.
        Ok(matches!(before, Some((GtidSet::MySql(_), _))).then_some(false))
    }
}

/// The error of binlogs that tell nothing of the cluster.
pub(super) fn stranger(path: &Path, server: &BinlogServer, cluster: &ClusterName) -> Error {
    kin::stranger(
        &format!("the binlogs of {}", path.display()),
        server,
        cluster,
        "look whether --cluster is the right one; say --anyway where you know that it is",
    )
}
