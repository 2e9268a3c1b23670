//! One module a task.

pub(crate) mod demo;
pub(crate) mod servers;
pub(crate) mod test;
