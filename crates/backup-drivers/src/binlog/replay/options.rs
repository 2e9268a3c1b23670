//! How a replay is done, and what it did.

use std::net::IpAddr;

use backup_core::GtidSet;

/// By which means transactions are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Means {
    /// As a replica, or over a client connection where the target cannot reach us or may not replicate.
    #[default]
    Auto,
    /// By the target's own applier, which replicates from us.
    Replica,
    /// As statements over a client connection.
    Direct,
}

/// How a replay is done.
#[derive(Debug, Clone, Default)]
pub struct ApplyOptions {
    /// Whether the transactions that the route begins with were restored without their GTIDs, so that
    /// the target has to be told that it has them.
    pub tell_applied: bool,
    /// Whether transactions are applied of which the target says that it has executed them, or of
    /// which that cannot be told. MySQL skips by itself what is in its `gtid_executed`: there it only
    /// counts for binlogs without GTIDs.
    pub again: bool,
    /// Whether the target is a private server of the caller, whose replication filters are meant.
    pub private: bool,
    /// By which means.
    pub means: Means,
    /// The address of ours that the target connects to; found by itself where there is none.
    pub listen: Option<IpAddr>,
    /// Whether the target encrypts its connection to us; without a word, where it leaves the machine.
    pub encrypt: Option<bool>,
    /// How many workers apply; without a number, four, or more where the machine has more cores.
    pub workers: Option<usize>,
}

impl ApplyOptions {
    /// For a private server of the caller, on what was restored there: by its applier, which alone leaves out
    /// what its filters say.
    #[must_use]
    pub fn private() -> Self {
        let means = Means::Replica;
        ApplyOptions { tell_applied: true, private: true, means, ..ApplyOptions::default() }
    }
}

/// What a replay did.
#[derive(Debug, Clone)]
pub struct Applied {
    /// What the target has now; `None` where there are no GTIDs.
    pub gtid: Option<GtidSet>,
    /// Length of what was applied, in bytes.
    pub bytes: u64,
    /// What needs a look.
    pub warnings: Vec<String>,
}
