//! Verifiers: from object listings to drills in a private server.
//!
//! A [`Verifier`](backup_core::Verifier) looks at one backup; [`verifiers_for`] gives those that a level needs, and
//! [`verify_listed`] runs them and records the proof. Damage is a finding of the report, whatever
//! it hit; an error means that nothing can be said about the backup.

mod aside;
mod at_target;
mod by_file;
mod drill;
mod foresee;
mod levels;
mod listed;
mod logical;
mod pages;
mod point;
mod single;
mod verifiers;

pub use aside::{Aside, AsideOptions};
pub use drill::{DrillOptions, DrillVerifier};
pub use levels::{LEVELS, verifiers_for};
pub use listed::{verify_drill, verify_listed, verify_sample};
pub use logical::LogicalVerifier;
pub use point::FilesPoint;
pub use single::{FilesServer, plan_tables, restore_tables};
pub use verifiers::{ContentVerifier, ObjectsVerifier, SampleVerifier, Whole};
