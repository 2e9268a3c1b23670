//! Where backups live: stores, packs, frames, codecs, keys.
//!
//! ```text
//! url → Store → Repo ┬ session → writer → packer → packs, index, manifest
//!                    ├ source  → reader → frames, checked, in order
//!                    ├ keys      slots that hold the master key, each under a secret of its own
//!                    └ check     objects against listing, bytes against digests
//! ```
//!
//! [`Repo`] implements [`backup_core::Repository`]. The bytes it writes are described in
//! `docs/format.md`; [`mod@format`] is that page as code and does no I/O.

mod auto;
mod base;
mod catalog;
mod check;
mod cut;
pub mod format;
mod frames;
mod index;
mod key;
mod keys;
mod lease;
mod mapping;
mod marker;
mod marks;
mod options;
mod packer;
mod prune;
mod reader;
mod repo;
mod scan;
mod session;
mod source;
mod store;
mod url;
mod writer;

pub use check::{check_content, check_objects};
pub use format::{Cipher, SlotKind, Unlock};
pub use key::{BackupObject, Key, LeaseName, RecordName, SlotName};
pub use keys::KeySlot;
pub use lease::Lease;
pub use marker::{Beginning, Marker};
pub use options::{Deltas, RepositoryOptions};
pub use prune::{
    Fate, Leftovers, PruneOptions, PruneReport, Pruned, Refused, Unfinished, prune, unfinished,
};
pub use repo::Repo;
pub use store::{
    Created, Credentials, Deleted, Listing, Meta, Proxy, Store, StoreCounts, StoreOptions,
};
pub use url::{BucketUrl, CreateOnly, RepoUrl};
