//! Binlogs of real servers.

#![allow(clippy::unwrap_used, reason = "a test ends at what it does not expect")]

mod dump;
mod server;
