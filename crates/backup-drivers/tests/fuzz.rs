//! A short run of the fuzz targets of this crate, with the same inputs each time.

#![allow(clippy::unwrap_used, reason = "a test ends at what it does not expect")]
#![allow(unreachable_pub, reason = "the fuzz targets are crates of their own")]

#[path = "../../../fuzz/bodies/binlog.rs"]
mod binlog;
#[path = "../../../fuzz/bodies/catalog.rs"]
mod catalog;
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

fn fuzz(inputs: u64, seeds: &[Vec<u8>], run: fn(&[u8])) {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as usize % below.max(1)
    };
    let mut all = seeds.to_vec();
    for _ in 0..inputs {
        let mut bytes = seeds[next(seeds.len())].clone();
        for _ in 0..=next(6) {
            let at = next(bytes.len());
            match next(5) {
                0 => bytes[at] ^= 1 << next(8),
                1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xfb, 0xfc, 0xfd, 0xfe, 0xff][next(9)],
                2 => bytes.truncate(at.max(1)),
                3 => bytes.insert(at, next(256) as u8),
                _ => {
                    let other = &seeds[next(seeds.len())];
                    bytes.extend_from_slice(&other[next(other.len())..]);
                }
            }
        }
        all.push(bytes);
    }
    for input in &all {
        if catch_unwind(AssertUnwindSafe(|| run(input))).is_err() {
            panic!("a promise is broken for {:?}", input.escape_ascii().to_string());
        }
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
