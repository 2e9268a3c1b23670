//! What a caller may choose about a repository.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use backup_core::{Context, Result};

use crate::format::{Cipher, Compression, Unlock};
use crate::store::{Store, StoreOptions};
use crate::url::RepoUrl;

/// Choices of the program that creates or opens a repository.
#[derive(Debug, Clone)]
pub struct RepositoryOptions {
    /// How new frames are compressed.
    pub compression: Compression,
    /// The length in bytes at which a pack is closed, from 1 MiB to 1 GiB (values outside are
    /// moved to the nearest bound). A tenth of the memory budget where that is less.
    pub pack_bytes: u64,
    /// The passphrase or key file. A new repository is encrypted when there is one; one that is
    /// encrypted opens with nothing else.
    pub unlock: Option<Unlock>,
    /// The cipher of a new repository that is encrypted.
    pub cipher: Cipher,
    /// How its tiers and copies are reached.
    pub stores: Stores,
    /// How often a backup in progress stores a sign of life.
    pub heartbeat: Duration,
    /// Whether what an earlier backup has is referred to rather than stored again. Without it a backup
    /// depends on no other one's packs.
    pub dedup: bool,
    /// Whether what changed is stored as a delta to what an earlier backup has.
    pub deltas: Deltas,
    /// When a backup may go on with one that was not finished. Never without `dedup`.
    pub resume: Resume,
    /// Whether it is opened to be written to. Where that is refused, for a key was given and it is not encrypted, the
    /// refusal says so, and no warning before it.
    pub writes: bool,
}

/// When a backup goes on with one that was not finished. What of it can be used is for the strategy to
/// prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Resume {
    /// When the other one has ended for certain, or gave no sign of life for two heartbeats.
    #[default]
    Auto,
    /// When the other one is not known to run, which fails the backup. One that does run, on another
    /// machine, fails at its end.
    Require,
    /// Never.
    Never,
}

/// How the stores are reached that a repository names besides its own: tiers and copies. Libraries read
/// no environment, so the program that opens a repository says it: credentials, limits, time-outs.
#[derive(Clone)]
pub struct Stores(Arc<Options>);

type Options = dyn Fn(&RepoUrl) -> Result<StoreOptions> + Send + Sync;

impl Stores {
    /// By a function that gives the options for an address.
    pub fn new(options: impl Fn(&RepoUrl) -> Result<StoreOptions> + Send + Sync + 'static) -> Self {
        Stores(Arc::new(options))
    }

    /// Opens the store at an address; it has to be there.
    ///
    /// # Errors
    /// As [`Store::again`], and what the program says.
    pub(crate) async fn open(&self, url: &RepoUrl) -> Result<Store> {
        Store::again(&silent(), url, &(self.0)(url)?).await
    }

    /// As [`open`](Self::open), and makes a directory that is missing.
    pub(crate) async fn make(&self, url: &RepoUrl) -> Result<Store> {
        Store::make(&silent(), url, &(self.0)(url)?).await
    }
}

/// What there is to note about an address was said when it was given.
fn silent() -> Context {
    Context::builder().build()
}

impl Default for Stores {
    /// Without credentials or limits.
    fn default() -> Self {
        Stores::new(|_| Ok(StoreOptions::default()))
    }
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stores")
    }
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
    /// zstd at its fastest level, packs of 32 MiB, deduplication, deltas in directories, no key, a sign
    /// of life every ten minutes.
    fn default() -> Self {
        RepositoryOptions {
            compression: Compression::default(),
            pack_bytes: 32 << 20,
            unlock: None,
            cipher: Cipher::default(),
            stores: Stores::default(),
            heartbeat: Duration::from_secs(600),
            dedup: true,
            deltas: Deltas::Auto,
            resume: Resume::Auto,
            writes: false,
        }
    }
}
