//! A short run of the fuzz targets of this crate, with the same inputs each time.

#![allow(clippy::unwrap_used, reason = "a test ends at what it does not expect")]
#![allow(unreachable_pub, reason = "the fuzz targets are crates of their own")]

#[path = "../../../fuzz/bodies/binlog.rs"]
mod binlog;
#[path = "../../../fuzz/bodies/catalog.rs"]
mod catalog;
#[path = "../../../fuzz/bodies/clone.rs"]
mod clone;
#[path = "../../../fuzz/bodies/dump.rs"]
mod dump;
#[path = "../../../fuzz/bodies/gtid.rs"]
mod gtid;
#[path = "../../../fuzz/bodies/innodb.rs"]
mod innodb;
#[path = "../../../fuzz/bodies/sidecar.rs"]
mod sidecar;
#[path = "../../../fuzz/bodies/tool.rs"]
mod tool;
#[path = "../../../fuzz/bodies/xbstream.rs"]
mod xbstream;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

struct Mutator(u64);

impl Mutator {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as usize % below.max(1)
    }

    fn mutate(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = inputs[self.next(inputs.len())].clone();
        for _ in 0..=self.next(6) {
            let at = self.next(bytes.len());
            match self.next(5) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.next(8),
                1 if !bytes.is_empty() => {
                    bytes[at] = [0, 1, 0x7f, 0x80, 0xfb, 0xfc, 0xfd, 0xfe, 0xff][self.next(9)];
                }
                2 => bytes.truncate(at.max(1)),
                3 => bytes.insert(at, self.next(256) as u8),
                _ => {
                    let other = &inputs[self.next(inputs.len())];
                    bytes.extend_from_slice(&other[self.next(other.len())..]);
                }
            }
        }
        bytes.truncate(LONGEST);
        bytes
    }
}

/// Longer inputs take time and find no more.
const LONGEST: usize = 64 << 10;

fn survives(input: &[u8], run: fn(&[u8])) {
    // The input is worth more than the place of the panic.
    if catch_unwind(AssertUnwindSafe(|| run(input))).is_err() {
        panic!("a promise is broken for {:?}", input.escape_ascii().to_string());
    }
}

fn fuzz(inputs: u64, seeds: &[Vec<u8>], run: fn(&[u8])) {
    let mut mutator = Mutator(0x9E37_79B9_7F4A_7C15);
    let changed: Vec<Vec<u8>> = (0..inputs).map(|_| mutator.mutate(seeds)).collect();
    for input in seeds.iter().chain(&changed) {
        survives(input, run);
    }
}

/// What reads binlogs, with other inputs each time, for as many seconds as `HOLDFAST_FUZZ_SECONDS` says, on
/// one core.
#[test]
#[ignore = "takes as long as one likes"]
fn what_reads_binlogs_survives_for_long() {
    let seconds = std::env::var("HOLDFAST_FUZZ_SECONDS").unwrap().parse().unwrap();
    type Target = (&'static str, Vec<Vec<u8>>, fn(&[u8]));
    let targets: [Target; 3] = [
        ("binlog", binlog::seeds(), binlog::run),
        ("gtid", gtid::seeds(), gtid::run),
        ("sidecar", sidecar::seeds(), sidecar::run),
    ];
    for (name, mut inputs, run) in targets {
        let started = Instant::now();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let mut mutator = Mutator(now.as_nanos() as u64 | 1);
        let seeds = inputs.len();
        let mut count = 0_u64;
        while started.elapsed() < Duration::from_secs(seconds) / 3 {
            let input = mutator.mutate(&inputs);
            survives(&input, run);
            count += 1;
            // Changes of changes come further; the seeds stay.
            if mutator.next(64) == 0 {
                match inputs.len() {
                    0..4096 => inputs.push(input),
                    len => inputs[seeds + mutator.next(len - seeds)] = input,
                }
            }
        }
        println!("{name}: {count} inputs in {} s", started.elapsed().as_secs());
    }
}

#[test]
fn changed_binlogs_are_read_or_refused() {
    fuzz(20_000, &binlog::seeds(), binlog::run);
}

#[test]
fn changed_dumps_are_read_or_found_out() {
    fuzz(20_000, &dump::seeds(), dump::run);
}

#[test]
fn changed_gtids_are_read_or_refused() {
    fuzz(20_000, &gtid::seeds(), gtid::run);
}

#[test]
fn changed_sidecars_are_read_or_refused() {
    for seed in sidecar::seeds() {
        for line in seed.split(|byte| *byte == b'\n') {
            serde_json::from_slice::<backup_core::SegmentInfo>(line).unwrap();
        }
    }
    fuzz(5_000, &sidecar::seeds(), sidecar::run);
}

#[test]
fn changed_tablespaces_are_read_or_refused() {
    fuzz(5_000, &innodb::seeds(), innodb::run);
}

#[test]
fn changed_streams_of_files_are_read_or_refused() {
    fuzz(20_000, &xbstream::seeds(), xbstream::run);
}

#[test]
fn changed_words_of_tools_are_read_or_refused() {
    fuzz(20_000, &tool::seeds(), tool::run);
}

#[test]
fn changed_catalogs_of_files_are_read_or_refused() {
    for seed in catalog::seeds() {
        backup_drivers::files::Catalog::parse(&seed).unwrap();
    }
    fuzz(10_000, &catalog::seeds(), catalog::run);
}

#[test]
fn changed_answers_of_donors_are_read_or_refused() {
    let files =
        clone::seeds().iter().filter_map(|seed| backup_drivers::clone::read_answer(seed)).count();
    assert_eq!(files, 3);
    fuzz(50_000, &clone::seeds(), clone::run);
}
