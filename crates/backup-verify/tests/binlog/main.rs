//! Binlogs of real servers: read, archived in a repository, replayed.

#![allow(clippy::unwrap_used, reason = "a test ends at what it does not expect")]

mod archive;
mod aside;
mod damage;
mod dump;
mod executed;
mod failover;
mod keep;
mod points;
mod replay;
mod server;
mod speed;
mod store;
