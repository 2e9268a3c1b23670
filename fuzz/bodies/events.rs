//! Good beginnings of binlogs, for the bodies that go on with bad ones.

use backup_core::{BinlogRange, BinlogServer, Flavor, GtidSet, SegmentInfo};
use backup_drivers::binlog::event::{Checksum, Event, Format, Header, kind};
use jiff::Timestamp;

/// The first event of a binlog of this version.
pub fn format(version: &str) -> Format {
    let mut body = vec![4, 0];
    body.extend(version.bytes());
    body.resize(2 + 50 + 4, 0);
    body.extend([19, 0, 0, 0, 1]);
    let header =
        Header { time: 1, kind: kind::FORMAT_DESCRIPTION, server_id: 1, len: 0, end: 0, flags: 0 };
    Format::parse(Event::build(header, &body, Checksum::Crc32)).expect("a good one")
}

/// What an archive knows of the first `len` bytes of a binlog.
pub fn info(format: &Format, len: u64) -> SegmentInfo {
    let hex = format.event.bytes().iter().map(|b| format!("{b:02x}")).collect();
    let flavor = if format.is_mariadb() { Flavor::MariaDb } else { Flavor::MySql };
    SegmentInfo {
        cluster: "c".parse().expect("a name"),
        server: BinlogServer::of_id(1),
        seq: 1,
        flavor,
        version: format.version.clone(),
        range: BinlogRange { file: "binlog.000001".into(), file_started: 1, start: 0, end: len },
        format_description: hex,
        before: GtidSet::empty(flavor),
        after: GtidSet::empty(flavor),
        state_before: None,
        state_after: None,
        begins_inside: false,
        ends_inside: false,
        transactions: 0,
        anonymous: 0,
        first_time: None,
        last_time: None,
        closes_file: false,
        next_file: None,
        gap_before: None,
        sha256: String::new(),
        archived_at: Timestamp::UNIX_EPOCH,
    }
}
