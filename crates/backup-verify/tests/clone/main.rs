//! Clones of a real MySQL, taken over the wire: restored, started, compared.

#![allow(clippy::unwrap_used, reason = "a test ends at what it does not expect")]
#![allow(clippy::print_stderr, reason = "what a run by hand measured")]

mod broken;
mod encrypted;
mod line;
mod load;
mod part;
mod point;
mod slow;
mod stage;
mod whole;
