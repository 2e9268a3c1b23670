//! What a caller may choose about a repository.

use std::time::Duration;

use crate::format::Compression;

/// Choices of the program that opens a repository. Nothing here is needed to read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepositoryOptions {
    /// How new frames are compressed.
    pub compression: Compression,
    /// The length in bytes at which a pack is closed, from 1 MiB to 1 GiB (values outside are
    /// moved to the nearest bound). An eighth of the memory budget where that is less.
    pub pack_bytes: u64,
    /// How often a backup in progress stores a sign of life.
    pub heartbeat: Duration,
    /// Whether what an earlier backup has is referred to rather than stored again. Without it a backup
    /// depends on no other one's packs.
    pub dedup: bool,
    /// Whether what changed is stored as a delta to what an earlier backup has.
    pub deltas: Deltas,
}

/// When deltas are made. They are small, and cost the reading of what they are made against: once when
/// they are made, and again at each restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deltas {
    /// Where the store is cheap to read from: a directory of this machine.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Default for RepositoryOptions {
    /// zstd at its fastest level, packs of 32 MiB, a sign of life every ten minutes, deduplication,
    /// deltas in directories.
    fn default() -> Self {
        RepositoryOptions {
            compression: Compression::default(),
            pack_bytes: 32 << 20,
            heartbeat: Duration::from_secs(600),
            dedup: true,
            deltas: Deltas::Auto,
        }
    }
}
