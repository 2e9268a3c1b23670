//! What is fuzzed: for each parser of bytes from outside a function that panics when a promise is
//! broken, and some good inputs to begin with. The fuzz targets of this directory and the test `fuzz`
//! of backup-storage both include this module.

mod codec;
mod config;
mod delta;
mod frame;
mod index;
mod manifest;
mod map;
mod object;
mod record;
mod slot;

/// A parser to be fuzzed.
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Feeds it; a panic is a finding.
    pub run: fn(&[u8]),
    /// Inputs that it takes.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 10] = [
    Target { name: "codec", run: codec::run, seeds: codec::seeds },
    Target { name: "config", run: config::run, seeds: config::seeds },
    Target { name: "delta", run: delta::run, seeds: delta::seeds },
    Target { name: "frame", run: frame::run, seeds: frame::seeds },
    Target { name: "index", run: index::run, seeds: index::seeds },
    Target { name: "manifest", run: manifest::run, seeds: manifest::seeds },
    Target { name: "map", run: map::run, seeds: map::seeds },
    Target { name: "object", run: object::run, seeds: object::seeds },
    Target { name: "record", run: record::run, seeds: record::seeds },
    Target { name: "slot", run: slot::run, seeds: slot::seeds },
];

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).expect("a target of this name")
}
