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
#[path = "../../../fuzz/bodies/events.rs"]
mod events;
#[path = "../../../fuzz/bodies/gtid.rs"]
mod gtid;
#[path = "../../../fuzz/harness.rs"]
mod harness;
#[path = "../../../fuzz/bodies/innodb.rs"]
mod innodb;
#[path = "../../../fuzz/bodies/saved.rs"]
mod saved;
#[path = "../../../fuzz/bodies/sidecar.rs"]
mod sidecar;
#[path = "../../../fuzz/bodies/tool.rs"]
mod tool;
#[path = "../../../fuzz/bodies/xbstream.rs"]
mod xbstream;

use harness::Harness;

/// Longer inputs take time and find no more.
const LONGEST: usize = 64 << 10;

fn fuzz(name: &'static str, count: usize, mut inputs: Vec<Vec<u8>>, run: fn(&[u8])) {
    inputs.extend(harness::regressions(name));
    Harness { name, run, longest: LONGEST }.short(count, &inputs);
}

/// All of them with other inputs each time, for as many seconds as `HOLDFAST_FUZZ_SECONDS` says, on one core.
#[test]
#[ignore = "takes as long as one likes"]
fn every_target_survives_for_long() {
    type Target = (&'static str, Vec<Vec<u8>>, fn(&[u8]));
    let targets: [Target; 10] = [
        ("binlog", binlog::seeds(), binlog::run),
        ("catalog", catalog::seeds(), catalog::run),
        ("clone", clone::seeds(), clone::run),
        ("dump", dump::seeds(), dump::run),
        ("gtid", gtid::seeds(), gtid::run),
        ("innodb", innodb::seeds(), innodb::run),
        ("saved", saved::seeds(), saved::run),
        ("sidecar", sidecar::seeds(), sidecar::run),
        ("tool", tool::seeds(), tool::run),
        ("xbstream", xbstream::seeds(), xbstream::run),
    ];
    let time = harness::seconds() / targets.len() as u32;
    for (name, seeds, run) in targets {
        Harness { name, run, longest: LONGEST }.long(time, seeds);
    }
}

#[test]
fn changed_binlogs_are_read_or_refused() {
    fuzz("binlog", 20_000, binlog::seeds(), binlog::run);
}

#[test]
fn changed_dumps_are_read_or_found_out() {
    fuzz("dump", 20_000, dump::seeds(), dump::run);
}

#[test]
fn changed_gtids_are_read_or_refused() {
    fuzz("gtid", 20_000, gtid::seeds(), gtid::run);
}

#[test]
fn changed_sidecars_are_read_or_refused() {
    for seed in sidecar::seeds() {
        for line in seed.split(|byte| *byte == b'\n') {
            serde_json::from_slice::<backup_core::SegmentInfo>(line).unwrap();
        }
    }
    fuzz("sidecar", 5_000, sidecar::seeds(), sidecar::run);
}

#[test]
fn changed_files_of_mha_are_rescued_or_refused() {
    let archived: Vec<usize> = saved::seeds().iter().map(|seed| saved::archived(seed)).collect();
    assert_eq!(archived, [2, 2, 0, 2, 2, 0]);
    fuzz("saved", 10_000, saved::seeds(), saved::run);
}

#[test]
fn changed_tablespaces_are_read_or_refused() {
    fuzz("innodb", 5_000, innodb::seeds(), innodb::run);
}

#[test]
fn changed_streams_of_files_are_read_or_refused() {
    fuzz("xbstream", 20_000, xbstream::seeds(), xbstream::run);
}

#[test]
fn changed_words_of_tools_are_read_or_refused() {
    fuzz("tool", 20_000, tool::seeds(), tool::run);
}

#[test]
fn changed_catalogs_of_files_are_read_or_refused() {
    for seed in catalog::seeds() {
        backup_drivers::files::Catalog::parse(&seed).unwrap();
    }
    fuzz("catalog", 10_000, catalog::seeds(), catalog::run);
}

#[test]
fn changed_answers_of_donors_are_read_or_refused() {
    let files =
        clone::seeds().iter().filter_map(|seed| backup_drivers::clone::read_answer(seed)).count();
    assert_eq!(files, 3);
    fuzz("clone", 50_000, clone::seeds(), clone::run);
}
