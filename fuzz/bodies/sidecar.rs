//! What an archive knows of its segments, as JSON: whatever somebody wrote there, it is read or refused,
//! and plans are made of it or not.

use backup_core::{BinlogChain, Flavor, GtidSet, Position, ReplayBase, ReplayTarget, SegmentInfo};
use backup_drivers::binlog::check_segment;
use bytes::Bytes;
use jiff::Timestamp;

/// Documents, one a line.
pub fn run(bytes: &[u8]) {
    let mut segments: Vec<SegmentInfo> = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n').take(8) {
        let Ok(info) = serde_json::from_slice::<SegmentInfo>(line) else { continue };
        let json = serde_json::to_vec(&info).expect("it came from JSON");
        assert_eq!(serde_json::from_slice::<SegmentInfo>(&json).expect("its own words"), info);
        let _ = check_segment(&info, &Bytes::copy_from_slice(bytes));
        segments.push(info);
    }
    if segments.is_empty() {
        return;
    }
    let flavor = segments[0].flavor;
    let after = segments[0].after.clone();
    let count = segments.len();
    let chain = BinlogChain::new(segments);
    assert_eq!(chain.segments().count(), count);
    let _ = chain.gaps();
    let other = if flavor == Flavor::MySql { Flavor::MariaDb } else { Flavor::MySql };
    for gtid in [GtidSet::empty(flavor), after, GtidSet::empty(other)] {
        let position = Position { gtid: Some(gtid), ..Position::default() };
        let base = ReplayBase { server: None, position };
        let _ = chain.reach(&base);
        let _ = chain.unneeded(std::slice::from_ref(&base));
        for target in [ReplayTarget::End, ReplayTarget::Time(Timestamp::UNIX_EPOCH)] {
            if let Ok(plan) = chain.plan(&base, &target) {
                assert!(plan.stretches.iter().all(|stretch| !stretch.segments.is_empty()));
            }
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    let segment = |seq: u64, start: u64, end: u64, before: &str, after: &str| {
        format!(
            "{{\"cluster\":\"c\",\"server\":\"id-1\",\"seq\":{seq},\"flavor\":\"mariadb\",\
             \"version\":\"10.11.19-MariaDB\",\"file\":\"binlog.000001\",\"file_started\":1,\
             \"start\":{start},\"end\":{end},\"format_description\":\"00\",\"before\":\"{before}\",\
             \"after\":\"{after}\",\"begins_inside\":false,\"ends_inside\":false,\"transactions\":1,\
             \"first_time\":null,\"last_time\":\"2026-01-01T00:00:00Z\",\"closes_file\":false,\
             \"sha256\":\"\",\"archived_at\":\"2026-01-01T00:00:00Z\"}}"
        )
    };
    let one = segment(1, 0, 500, "", "0-1-5");
    let two = segment(2, 500, 900, "0-1-5", "0-1-9");
    let gap = segment(4, 950, 990, "0-1-12", "0-2-13");
    vec![one.clone().into_bytes(), format!("{one}\n{two}\n{gap}").into_bytes()]
}
