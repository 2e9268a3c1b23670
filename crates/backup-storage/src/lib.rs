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
mod changed;
mod check;
mod claim;
mod copy;
mod cut;
mod digesting;
mod failover;
pub mod format;
mod frames;
mod index;
mod key;
mod keys;
mod lease;
mod leftover;
mod mapping;
mod marker;
mod marks;
mod options;
mod packer;
mod part;
mod pieces;
mod process;
mod prune;
mod reader;
mod recent;
mod repair;
mod repo;
mod scan;
mod segment;
mod session;
mod shelf;
mod source;
mod store;
mod sync;
mod thaw;
mod tiers;
mod url;
mod writer;

pub use check::{SamplePlan, SampleRule, check_content, check_objects, check_sample};
pub use copy::{
    Copied, CopiedBinlogs, CopyConsent, CopyOptions, CopyTarget, copy_backup, copy_binlogs,
    in_order,
};
pub use format::{Cipher, SlotKind, Unlock};
pub use key::{BackupObject, Key, LeaseName, RecordName, SlotName};
pub use keys::KeySlot;
pub use lease::{Lease, holder};
pub use marker::{Beginning, Marker};
pub use options::{Deltas, RepositoryOptions, Resume, Stores};
pub use prune::{
    Fate, Leftovers, PruneOptions, PruneReport, Pruned, PrunedBinlogs, Refused, Unfinished, prune,
    unfinished,
};
pub use repair::{Repair, repair_index};
pub use repo::Repo;
pub use store::{
    Availability, Created, Credentials, Deleted, Listing, Meta, Proxy, Store, StoreCounts,
    StoreOptions, ThawRequest, ThawSpeed,
};
pub use thaw::{Thaw, thaw};
pub use tiers::{
    Move, Policy, Tier, TierName, TierPlan, TierReport, TierSpec, forget_tier, move_packs, places,
    plan_moves, policy, preview, set_policy,
};
pub use url::{BucketUrl, CreateOnly, RepoUrl};
