//! Whole round trips between real servers, judged by the servers themselves.
//!
//! What a backup read cannot show what the reading lost. So both sides are compared by digests that
//! the *servers* compute over every value, and by `SHOW CREATE` of every object.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod drill;
mod exported;
mod hostile;
mod interrupt;
mod json;
mod load;
mod odd;
mod pace;
mod pair;
mod read_back;
mod second;
mod sides;
mod stock;
mod types;
mod world;
mod writer;
