//! Tiers: packs move to other stores as they age, manifests and indexes stay.
//!
//! A move never leaves a pack nowhere: it is created in the lower store, read back and compared with
//! the manifest's digest, and only then removed from the upper one. Readers look from the top to the
//! bottom, see [`Shelf`](crate::shelf::Shelf).

mod moves;
mod policy;

pub use moves::{Move, TierPlan, TierReport, move_packs, places, plan_moves};
pub use policy::{Policy, Tier, TierName, TierSpec, forget_tier, policy, preview, set_policy};
pub(crate) use policy::{check_mark, read_policy};
