//! Servers and tools: connections, the wire protocol, sandbox servers, backup strategies.

pub mod sandbox;
pub mod connect;
pub mod wire;
pub mod logical;
pub mod rows;
