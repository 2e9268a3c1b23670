//! Lines of the catalog: what parses stays within its bounds and comes back as it was.
#![no_main]

use backup_storage::format::{MAX_RAW, parse_entry};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for line in bytes.split(|&b| b == b'\n') {
        let Ok(entry) = parse_entry(line) else { continue };
        for extent in &entry.extents {
            assert!(extent.source as usize <= entry.sources.len());
            assert!(extent.len > 0 && extent.raw_offset + extent.len <= MAX_RAW);
            assert!(extent.offset.checked_add(u64::from(extent.frame_len)).is_some());
        }
        let again = serde_json::to_vec(&entry).expect("an entry is JSON");
        let again = parse_entry(&again).expect("what was parsed can be parsed");
        assert_eq!((again.id, again.seq, &again.name), (entry.id, entry.seq, &entry.name));
        assert_eq!(again.extents, entry.extents);
    }
});
