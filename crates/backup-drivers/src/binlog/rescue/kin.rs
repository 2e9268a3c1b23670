//! Whether binlogs that are rescued are of a server of the cluster: a name that was mistyped may be that of
//! another cluster, whose archive would take up a history that is not its own.

use std::collections::BTreeSet;
use std::path::Path;

use backup_core::{
    BinlogServer, ClusterName, Error, Gtid, GtidSet, MariaDbBinlogState, MariaDbGtid, ReplayBase,
    Result, SegmentInfo,
};

use super::super::source::Covered;
use super::super::tips::Archive;
use super::place::Piece;

/// What is known of a cluster.
#[derive(Default)]
pub(super) struct Kin {
    /// The servers that something is archived or backed up of, or that wrote some of it.
    servers: BTreeSet<BinlogServer>,
    /// What they had.
    archived: Vec<Covered>,
    backed_up: Vec<GtidSet>,
    /// MariaDB: who wrote it, by domain.
    authors: BTreeSet<(u32, u32)>,
}

impl Kin {
    pub(super) fn of(archive: &Archive, backups: &[ReplayBase]) -> Kin {
        let mut kin = Kin::default();
        for tip in &archive.tips {
            kin.servers.insert(tip.server.clone());
            kin.add(&tip.after, tip.state_after.as_ref());
            kin.archived.push(Covered::of(tip));
        }
        for backup in backups {
            kin.servers.extend(backup.server.clone());
            if let Some(set) = &backup.position.gtid {
                kin.add(set, None);
                kin.backed_up.push(set.clone());
            }
        }
        kin
    }

    /// Who wrote it is known too.
    fn add(&mut self, set: &GtidSet, state: Option<&MariaDbBinlogState>) {
        if let GtidSet::MySql(set) = set {
            self.servers.extend(set.tsids().map(|tsid| BinlogServer::of_uuid(tsid.uuid)));
        }
        for (domain, server) in authors(set, state) {
            self.authors.insert((domain, server));
            self.servers.insert(BinlogServer::of_id(server));
        }
    }

    /// Whether it is a server that nothing is known of, while something is of others.
    pub(super) fn is_new(&self, server: &BinlogServer) -> bool {
        !self.servers.is_empty() && !self.servers.contains(server)
    }

    /// Whether a piece of a new server's binlogs tells that it is one of the cluster's: it holds a transaction
    /// of theirs, or one that comes next. `None` where older pieces may tell.
    pub(super) fn knows(&self, piece: &Piece<'_>) -> Result<Option<bool>> {
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

    fn shares(&self, set: &GtidSet, state: Option<&MariaDbBinlogState>) -> Result<bool> {
        if let GtidSet::MySql(_) = set {
            for known in self.sets() {
                if !set.intersection(known)?.is_empty() {
                    return Ok(true);
                }
            }
        }
        Ok(authors(set, state).iter().any(|author| self.authors.contains(author)))
    }

    fn has(&self, gtid: &Gtid) -> bool {
        match gtid {
            Gtid::MySql(gtid) => self.sets().any(|known| match known {
                GtidSet::MySql(known) => known.contains(gtid),
                GtidSet::MariaDb(_) => false,
            }),
            Gtid::MariaDb(gtid) => self.authors.contains(&(gtid.domain, gtid.server)),
        }
    }

    fn is_next(&self, gtid: MariaDbGtid) -> bool {
        let last = |set: &GtidSet| match set {
            GtidSet::MariaDb(set) => set.get(gtid.domain).map(|last| last.seq),
            GtidSet::MySql(_) => None,
        };
        self.sets().filter_map(last).any(|last| last + 1 == gtid.seq)
    }

    fn sets(&self) -> impl Iterator<Item = &GtidSet> {
        self.archived.iter().map(|covered| &covered.set).chain(&self.backed_up)
    }

    /// What the archive had that a new server, whose last archived piece this is, has not.
    pub(super) fn lacking(&self, tip: &SegmentInfo) -> Result<Option<String>> {
        let has = authors(&tip.after, tip.state_after.as_ref());
        let mut lacking = Vec::new();
        for Covered { set, state } in &self.archived {
            match (state, &tip.state_after) {
                // What it only applied may be in none of its binlogs.
                (Some(state), Some(after)) => lacking.extend(
                    state
                        .missing_in(after)
                        .filter(|gtid| has.contains(&(gtid.domain, gtid.server)))
                        .map(|gtid| format!("up to {gtid}")),
                ),
                _ => {
                    let lacks = set.difference(&tip.after)?;
                    lacking.extend((!lacks.is_empty()).then(|| lacks.to_string()));
                }
            }
        }
        Ok((!lacking.is_empty()).then(|| {
            format!(
                "the archive holds transactions that {} does not have (errant, or lost in a failover): {}",
                tip.server,
                lacking.join(", ")
            )
        }))
    }
}

/// The error of binlogs that tell nothing of the cluster.
pub(super) fn stranger(path: &Path, server: &BinlogServer, cluster: &ClusterName) -> Error {
    Error::usage(format!(
        "nothing tells that the binlogs of {} are of cluster {cluster}: they were written by {server}, of which it \
         has neither binlogs nor backups, and hold no transaction of its servers",
        path.display()
    ))
    .with_remedy("look whether --cluster is the right one; say --anyway where you know that it is")
}

/// Who wrote transactions of MariaDB, by domain.
fn authors(set: &GtidSet, state: Option<&MariaDbBinlogState>) -> Vec<(u32, u32)> {
    match (state, set) {
        (Some(state), _) => state.iter().map(|gtid| (gtid.domain, gtid.server)).collect(),
        (None, GtidSet::MariaDb(set)) => set.iter().map(|g| (g.domain, g.server)).collect(),
        (None, GtidSet::MySql(_)) => Vec::new(),
    }
}
