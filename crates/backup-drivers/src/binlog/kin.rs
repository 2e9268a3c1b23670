//! Whether binlogs that are to be archived are of a server of the cluster: a name that was mistyped may be
//! that of another cluster, whose archive would take up a history that is not its own.

use std::collections::BTreeSet;

use backup_core::{
    BinlogServer, ClusterName, Error, Flavor, Gtid, GtidSet, MariaDbBinlogState, MariaDbGtid,
    MariaDbGtidSet, Position, ReplayBase, Result, SegmentInfo,
};

use super::source::{BinlogSource, Covered, named};
use super::tips::Archive;
use crate::connect::Session;
use crate::logical::logged_until;

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

    /// Whether what a new server says that it has executed tells that it is one of the cluster's: it holds a
    /// transaction of theirs.
    pub(super) fn knows(&self, source: &BinlogSource) -> Result<bool> {
        Ok(self.shares(&source.executed, source.state.as_ref())?
            || self.shares(&source.replicated, None)?)
    }

    /// Whether some of these transactions are of the cluster's servers.
    pub(super) fn shares(&self, set: &GtidSet, state: Option<&MariaDbBinlogState>) -> Result<bool> {
        if let GtidSet::MySql(_) = set {
            for known in self.sets() {
                if !set.intersection(known)?.is_empty() {
                    return Ok(true);
                }
            }
        }
        Ok(authors(set, state).iter().any(|author| self.authors.contains(author)))
    }

    /// Whether a transaction is of the cluster's servers.
    pub(super) fn has(&self, gtid: &Gtid) -> bool {
        match gtid {
            Gtid::MySql(gtid) => self.sets().any(|known| match known {
                GtidSet::MySql(known) => known.contains(gtid),
                GtidSet::MariaDb(_) => false,
            }),
            Gtid::MariaDb(gtid) => self.authors.contains(&(gtid.domain, gtid.server)),
        }
    }

    /// Whether a transaction comes right behind the last of the cluster's in its domain.
    pub(super) fn is_next(&self, gtid: MariaDbGtid) -> bool {
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
                    lacking.extend((!lacks.is_empty()).then(|| named(set, &lacks)));
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

/// What to do about a server that is not told to be one of the cluster's.
const LOOK: &str = "look whether --source and --cluster are the right ones. Where you know that it is of the cluster \
                    (it was restored from a backup of it without a point, say), take a full backup of it there first; \
                    or say --anyway";

/// Makes sure that a server, of which nothing is archived yet, is one of the cluster's.
///
/// # Errors
/// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage) where nothing tells so, or it is another one of that name.
pub(super) async fn check_source(
    session: &mut Session,
    address: &str,
    source: &BinlogSource,
    archive: &Archive,
    backups: &[ReplayBase],
    cluster: &ClusterName,
) -> Result<()> {
    if archive.tips.iter().any(|tip| tip.server == source.server) {
        return Ok(());
    }
    let kin = Kin::of(archive, backups);
    if kin.is_new(&source.server) && !kin.knows(source)? {
        let what = format!("the binlogs of {address}");
        return Err(stranger(&what, &source.server, cluster, LOOK));
    }
    // The servers of other clusters may have the same server_id.
    let of_it = |backup: &&ReplayBase| backup.server.as_ref() == Some(&source.server);
    let (Some(backup), Flavor::MariaDb) = (backups.iter().rfind(of_it), source.flavor) else {
        return Ok(());
    };
    let Position { file: Some(file), offset: Some(offset), gtid: Some(gtid), .. } =
        &backup.position
    else {
        return Ok(());
    };
    if source.has(file).is_none() {
        return Ok(());
    }
    let here = logged_until(session, file, *offset).await?;
    let own = |set: &GtidSet| -> Vec<_> {
        let own = last_of_domains(set).filter(|gtid| u64::from(gtid.server) == source.server_id);
        own.collect()
    };
    let covers = |set: &GtidSet, gtid| matches!(set, GtidSet::MariaDb(set) if set.covers(gtid));
    // The backup has what was replicated, too, which may be numbers of the server from before its log began anew, or
    // beyond those that it has written.
    let is_it = |here: &GtidSet| {
        let logged = own(here);
        let wrote = |gtid: &MariaDbGtid| logged.contains(gtid) || covers(&source.replicated, *gtid);
        own(gtid).iter().all(wrote) && logged.iter().all(|logged| covers(gtid, *logged))
    };
    match here {
        Some(here) if is_it(&here) => Ok(()),
        _ => Err(Error::usage(format!(
            "{address} is not the server {} that a backup of cluster {cluster} is of: its {file} has not {gtid} at \
             {offset}",
            source.server
        ))
        .with_remedy(LOOK)),
    }
}

/// MariaDB: the last transaction of each domain.
fn last_of_domains(set: &GtidSet) -> impl Iterator<Item = MariaDbGtid> {
    let set = match set {
        GtidSet::MariaDb(set) => Some(set),
        GtidSet::MySql(_) => None,
    };
    set.into_iter().flat_map(MariaDbGtidSet::iter)
}

/// The error of binlogs that tell nothing of the cluster: `what` they are, and what to do.
pub(super) fn stranger(
    what: &str,
    server: &BinlogServer,
    cluster: &ClusterName,
    remedy: &'static str,
) -> Error {
    Error::usage(format!(
        "nothing tells that {what} are of cluster {cluster}: they were written by {server}, of which it has neither \
         binlogs nor backups, and hold no transaction of its servers"
    ))
    .with_remedy(remedy)
}

/// Who wrote transactions of MariaDB, by domain.
fn authors(set: &GtidSet, state: Option<&MariaDbBinlogState>) -> Vec<(u32, u32)> {
    match (state, set) {
        (Some(state), _) => state.iter().map(|gtid| (gtid.domain, gtid.server)).collect(),
        (None, GtidSet::MariaDb(set)) => set.iter().map(|g| (g.domain, g.server)).collect(),
        (None, GtidSet::MySql(_)) => Vec::new(),
    }
}
