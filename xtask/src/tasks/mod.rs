//! One module a task.

pub(crate) mod servers;
