//! No codec takes more memory than it is accounted for. A process of its own, whose peak is measured.

#![allow(clippy::unwrap_used, reason = "a test ends at what it does not expect")]
#![cfg(target_os = "linux")]

use backup_storage::format::{Compression, compress, decompress};
use bytes::Bytes;

const FRAME: usize = 2 << 20;

fn status(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// How far the memory of this process rises meanwhile.
fn rise<T>(work: impl FnOnce() -> T) -> (T, usize) {
    // The peak begins anew: proc_pid_clear_refs(5).
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = status("VmRSS:");
    let done = work();
    (done, status("VmHWM:").saturating_sub(before))
}

/// Bytes that keep a searching compressor busy.
fn text() -> Bytes {
    let mut state = 1u64;
    let mut text = Vec::with_capacity(FRAME);
    while text.len() < FRAME {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.extend_from_slice(format!("{:x} {} ", state % 5000, state >> 44).as_bytes());
    }
    text.truncate(FRAME);
    text.into()
}

#[test]
fn codecs_take_no_more_than_they_say() {
    let raw = text();
    // Those that take little first: what the allocator keeps is of no use to the next one.
    for compression in ["lz4", "gzip:1", "zstd:4", "zstd:9", "zstd:11", "xz:9", "zstd:22"] {
        let compression: Compression = compression.parse().unwrap();
        let (packed, took) = rise(|| compress(compression, raw.clone()).unwrap());
        let bound = compression.memory(FRAME) + (1 << 20);
        assert!(took <= bound, "{compression}: {} MiB, not {}", took >> 20, bound >> 20);
        if compression == Compression::Zstd(22) {
            assert!(took > bound / 4, "only {} MiB: is it measured at all?", took >> 20);
        }
        let (back, took) = rise(|| decompress(packed.codec, packed.raw_len, packed.stored));
        assert_eq!(back.unwrap(), raw);
        let bound = 3 * FRAME + (5 << 20);
        assert!(took <= bound, "reading {compression}: {} MiB", took >> 20);
    }
}
