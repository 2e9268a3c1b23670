//! A short run of every fuzz target, with the same inputs each time. `fuzz/README.md` says how to run
//! them for long.

#![allow(clippy::unwrap_used, reason = "a test ends at what it does not expect")]

#[path = "../../../fuzz/bodies/mod.rs"]
#[allow(dead_code, unreachable_pub, reason = "the fuzz targets are crates of their own")]
mod bodies;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bodies::{TARGETS, Target};

/// How many changed inputs each target gets.
const INPUTS: usize = 10_000;
const LONGEST: usize = 8192;

/// What was found before, and must not come back.
fn regressions(target: &Target) -> Vec<Vec<u8>> {
    let directory =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/regressions").join(target.name);
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

struct Mutator(u64);

impl Mutator {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as usize % below.max(1)
    }

    /// One to eight changes of the kinds that find most: bits, bytes at the edges, pieces that move,
    /// are missing, come twice or from another input.
    fn mutate(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = inputs[self.next(inputs.len())].clone();
        for _ in 0..=self.next(8) {
            let at = self.next(bytes.len());
            let longest = 1 << self.next(8);
            let len = self.next(longest).min(bytes.len() - at);
            match self.next(7) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.next(8),
                1 if !bytes.is_empty() => {
                    bytes[at] = [0, 1, 9, 0x7f, 0x80, 0xfe, 0xff, b'"', b'{', b'-'][self.next(10)];
                }
                2 if !bytes.is_empty() => bytes[at] = self.next(256) as u8,
                3 => drop(bytes.drain(at..at + len)),
                4 => {
                    let piece = bytes[at..at + len].to_vec();
                    let to = self.next(bytes.len());
                    bytes.splice(to..to, piece);
                }
                5 => {
                    let other = &inputs[self.next(inputs.len())];
                    let from = self.next(other.len());
                    let to = (from + 1 + self.next(64)).min(other.len());
                    bytes.splice(at..at + len, other[from.min(to)..to].iter().copied());
                }
                _ => bytes.extend((0..len).map(|_| 0)),
            }
        }
        bytes.truncate(LONGEST);
        bytes
    }
}

#[test]
fn every_target_survives_changed_inputs() {
    for target in &TARGETS {
        let mut inputs = (target.seeds)();
        inputs.extend(regressions(target));
        inputs.push(Vec::new());
        let mut mutator = Mutator(0x9E37_79B9_7F4A_7C15);
        let changed: Vec<Vec<u8>> = (0..INPUTS).map(|_| mutator.mutate(&inputs)).collect();
        for input in inputs.iter().chain(&changed) {
            // The input is worth more than the place of the panic.
            if catch_unwind(AssertUnwindSafe(|| (target.run)(input))).is_err() {
                panic!(
                    "{} broke a promise for {:?}",
                    target.name,
                    input.escape_ascii().to_string()
                );
            }
        }
    }
}

/// The same with other inputs, for as many seconds as `HOLDFAST_FUZZ_SECONDS` says, on one core.
#[test]
#[ignore = "takes as long as one likes"]
fn every_target_survives_for_long() {
    let seconds = std::env::var("HOLDFAST_FUZZ_SECONDS").unwrap().parse().unwrap();
    let share = Duration::from_secs(seconds) / TARGETS.len() as u32;
    for target in &TARGETS {
        let started = Instant::now();
        let mut mutator = Mutator(started.elapsed().as_nanos() as u64 | 1);
        mutator.0 ^= SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let mut inputs = (target.seeds)();
        inputs.extend(regressions(target));
        inputs.push(Vec::new());
        let seeds = inputs.len();
        let mut count = 0_u64;
        while started.elapsed() < share {
            let input = mutator.mutate(&inputs);
            if catch_unwind(AssertUnwindSafe(|| (target.run)(&input))).is_err() {
                panic!("{} broke a promise for {}", target.name, input.escape_ascii());
            }
            count += 1;
            // Changes of changes come further; the seeds stay.
            if mutator.next(64) == 0 {
                match inputs.len() {
                    0..4096 => inputs.push(input),
                    len => inputs[seeds + mutator.next(len - seeds)] = input,
                }
            }
        }
        println!("{}: {count} inputs in {} s", target.name, started.elapsed().as_secs());
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
