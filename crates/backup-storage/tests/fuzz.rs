//! A short run of every fuzz target, with the same inputs each time. `fuzz/README.md` says how to run
//! them for long.

#![allow(clippy::unwrap_used, reason = "a test ends at what it does not expect")]

#[path = "../../../fuzz/bodies/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "the fuzz targets are crates of their own")]
mod bodies;

#[path = "../../../fuzz/harness.rs"]
#[allow(unreachable_pub, reason = "another crate has it too")]
mod harness;

use std::path::Path;

use bodies::{TARGETS, Target};
use harness::Harness;

/// How many changed inputs each target gets.
const INPUTS: usize = 10_000;
const LONGEST: usize = 8192;

/// Good inputs, and those that were found bad once.
fn inputs(target: &Target) -> Vec<Vec<u8>> {
    let mut inputs = (target.seeds)();
    inputs.extend(harness::regressions(target.name));
    inputs.push(Vec::new());
    inputs
}

fn harness(target: &Target) -> Harness {
    Harness { name: target.name, run: target.run, longest: LONGEST }
}

#[test]
fn every_target_survives_changed_inputs() {
    for target in &TARGETS {
        harness(target).short(INPUTS, &inputs(target));
    }
}

/// The same with other inputs, for as many seconds as `HOLDFAST_FUZZ_SECONDS` says, on one core.
#[test]
#[ignore = "takes as long as one likes"]
fn every_target_survives_for_long() {
    for target in &TARGETS {
        harness(target).long(harness::seconds() / TARGETS.len() as u32, inputs(target));
    }
}

/// No test: it gives the fuzzer something to begin with.
#[test]
#[ignore = "writes fuzz/corpus"]
fn write_the_corpus() {
    for target in &TARGETS {
        let corpus =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target.name);
        std::fs::create_dir_all(&corpus).unwrap();
        for (n, seed) in (target.seeds)().iter().enumerate() {
            std::fs::write(corpus.join(format!("seed-{n}")), seed).unwrap();
        }
    }
}
