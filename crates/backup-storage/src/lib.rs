//! Where backups live: stores, packs, frames, codecs.
//!
//! ```text
//! url → Store → Repo ┬ session → writer → packer → packs, index, manifest
//!                    ├ source  → reader → frames, checked, in order
//!                    └ check     objects against listing, bytes against digests
//! ```
//!
//! [`Repo`] implements [`backup_core::Repository`]. The bytes it writes are described in
//! `docs/format.md`; [`mod@format`] is that page as code and does no I/O.

mod auto;
mod base;
mod catalog;
mod check;
mod copy;
mod failover;
mod cut;
pub mod format;
mod frames;
mod index;
mod key;
mod lease;
mod marker;
mod marks;
mod mapping;
mod options;
mod packer;
mod prune;
mod reader;
mod repair;
mod repo;
mod scan;
mod session;
mod shelf;
mod source;
mod store;
mod tiers;
mod url;
mod writer;

pub use check::{SamplePlan, SampleRule, check_content, check_objects, check_sample};
pub use copy::{Copied, CopyOptions, CopyTarget, copy_backup, in_order};
pub use key::{BackupObject, Key, LeaseName, RecordName};
pub use lease::Lease;
pub use marker::{Beginning, Marker};
pub use options::{Deltas, RepositoryOptions};
pub use prune::{
    Fate, Leftovers, PruneOptions, PruneReport, Pruned, Refused, Unfinished, prune, unfinished,
};
pub use repair::{Repair, repair_index};
pub use repo::Repo;
pub use store::{Created, Store, StoreCounts};
pub use tiers::{
    Move, Policy, Tier, TierName, TierPlan, TierReport, TierSpec, move_packs, places, plan_moves, policy,
    preview, set_policy,
};
pub use url::RepoUrl;
