//! Tiers: packs move to other stores as they age, manifests and indexes stay.
//!
//! A move never leaves a pack nowhere: it is created in the lower store, read back and compared with
//! the manifest's digest, and only then removed from the upper one. Readers look from the top to the
//! bottom, see [`Shelf`](crate::shelf::Shelf).

mod moves;
mod policy;

pub use moves::{Move, TierPlan, TierReport, move_packs, places, plan_moves};
pub(crate) use policy::read_policy;
pub use policy::{Policy, Tier, TierName, TierSpec, policy, preview, set_policy};
