//! Servers and tools: connections, the wire protocol, sandbox servers, backup strategies.

pub mod binlog;
pub mod clone;
pub mod connect;
pub mod exchange;
pub mod files;
pub mod follow;
pub mod foreign;
pub mod innodb;
mod logged;
pub mod logical;
pub mod physical;
pub mod rows;
pub mod sandbox;
pub mod snapshot;
pub mod wire;
pub mod xbstream;
