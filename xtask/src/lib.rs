//! What developers of Holdfast run, as far as tests need it too.

pub mod servers;
