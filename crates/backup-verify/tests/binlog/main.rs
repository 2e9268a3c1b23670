//! Binlogs of real servers: read, archived in a repository, replayed.

#![allow(clippy::unwrap_used, reason = "a test ends at what it does not expect")]

mod archive;
mod aside;
mod damage;
mod direct;
mod dump;
mod encrypted;
mod events;
mod executed;
mod failover;
mod failover_load;
mod follow;
mod full;
mod hostile;
mod keep;
mod killed;
mod kin;
mod points;
mod property;
mod replay;
mod saved;
mod sequences;
mod server;
mod sessions;
mod store;
mod trouble;
mod undo;
mod workload;
