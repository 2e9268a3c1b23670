//! Archived binlogs, applied to a server by its own replica applier.
//!
//! We are the source: the target is told to replicate from a port of ours, asks for what it lacks, and
//! applies it with as many workers as it has. [`apply`] does all of it and leaves the target as it
//! was, but for the data.

mod allowed;
mod apply;
mod check;
mod demands;
mod direct;
mod events;
mod executed;
mod groups;
mod held;
mod lookup;
mod options;
mod packet;
mod remedy;
mod replica;
mod room;
mod serve;
mod session;
mod settings;
mod stall;
mod standing;
mod statements;
#[cfg(test)]
mod strangers;
mod target;
mod told;

pub use apply::{apply, preflight};
pub(super) use demands::Demands;
pub(crate) use events::leave_to_source;
pub use options::{Applied, ApplyOptions, Means};
pub use standing::{check_family, identity, position};
pub(crate) use target::{Target, text};
