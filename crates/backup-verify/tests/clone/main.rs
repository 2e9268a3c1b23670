//! Clones of a real MySQL, taken over the wire: restored, started, compared.

#![allow(clippy::unwrap_used, reason = "a test ends at what it does not expect")]

mod broken;
mod load;
mod stage;
mod whole;
