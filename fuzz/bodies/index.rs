//! Lines of the catalog: what parses stays within its bounds and comes back as it was.

use backup_storage::format::{MAX_RAW, parse_entry};

pub fn run(bytes: &[u8]) {
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
}

pub fn seeds() -> Vec<Vec<u8>> {
    let sha256 = "0".repeat(64);
    vec![
        format!(
            r#"{{"id":7,"seq":0,"name":"tables/shop/orders/rows-000001","sources":["20261120T101530Z-full-7f3a9c"],"extents":[[0,0,16,1048700,0,1048576,"52fc1e8ab00bc8a3"],[1,3,16,96,5,7,"0001020304050607"]],"end":{{"layout":"blocks","bytes":1048583,"sha256":"{sha256}","attributes":{{"rows":3000}}}}}}"#
        )
        .into_bytes(),
        br#"{"id":0,"seq":1,"name":"a%2Fb","extents":[]}"#.to_vec(),
        format!(
            r#"{{"id":1,"seq":0,"name":"files/x.ibd","extents":[],"end":{{"layout":{{"pages":16384}},"bytes":0,"sha256":"{sha256}"}}}}"#
        )
        .into_bytes(),
    ]
}
