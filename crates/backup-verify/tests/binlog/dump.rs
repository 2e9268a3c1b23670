//! What arrives is what the server has in its files.

use std::collections::BTreeMap;
use std::time::Duration;

use backup_core::Uuid;
use backup_drivers::binlog::{Dump, DumpOptions, Part, Sent};
use backup_drivers::connect::ConnectOptions;
use rstest::rstest;

use crate::server::{Server, WORK};

pub(crate) fn options() -> DumpOptions {
    DumpOptions {
        server_id: 4_000_000,
        uuid: Uuid::from_u128(0xf00d),
        heartbeat: Duration::from_millis(500),
        semi_sync: false,
        follow: false,
    }
}

/// Every file from this one on, and the number of transactions.
async fn read(source: &ConnectOptions, file: &str) -> (BTreeMap<String, Vec<u8>>, usize) {
    let mut dump = Dump::begin(source, file, &options()).await.unwrap();
    let mut files = BTreeMap::new();
    let mut current = String::new();
    let (mut begun, mut ended) = (0, 0);
    loop {
        match dump.next().await.unwrap_or_else(|e| panic!("{}", e.report())) {
            Sent::File { name, format, .. } => {
                let start = [b"\xfebin", &format.event.bytes()[..]].concat();
                files.insert(name.clone(), start);
                current = name;
            }
            Sent::Event { event, part, .. } => {
                files.get_mut(&current).unwrap().extend(event.bytes());
                begun += usize::from(matches!(part, Part::Begin(_)));
                ended += usize::from(part == Part::End);
            }
            Sent::Heartbeat => {}
            Sent::End => break,
        }
    }
    assert_eq!(begun, ended);
    (files, begun)
}

#[rstest]
#[case("mysql-9.7", &[])]
#[case("mysql-9.7", &[("gtid_mode", "OFF"), ("enforce_gtid_consistency", "OFF"), ("binlog_checksum", "NONE")])]
#[case("mysql-9.7", &[("binlog_transaction_compression", "ON"), ("binlog_row_value_options", "PARTIAL_JSON"),
    ("binlog_rows_query_log_events", "ON")])]
#[case("mariadb-10.11", &[])]
#[case("mariadb-10.11", &[("log_bin_compress", "ON"), ("log_bin_compress_min_len", "10"), ("binlog_checksum", "CRC32"),
    ("binlog_alter_two_phase", "ON")])]
#[case("mariadb-11.8", &[("binlog_format", "MIXED")])]
#[tokio::test]
async fn files_arrive_byte_for_byte(#[case] name: &str, #[case] settings: &[(&str, &str)]) {
    let server = Server::start(name, |builder| {
        settings.iter().fold(builder, |builder, (name, value)| builder.option(*name, *value))
    })
    .await;
    server.run(&WORK).await;
    server.run(&["FLUSH BINARY LOGS"]).await;
    let (files, transactions) = read(&server.options(), "binlog.000001").await;
    assert!(transactions > 10, "{transactions}");
    for compression in if name.starts_with("mysql") { &["zlib", "zstd"][..] } else { &["zlib"] } {
        let compression = Some(compression.parse().unwrap());
        let squeezed = ConnectOptions { compression, ..server.options() };
        let again = read(&squeezed, "binlog.000001").await.0;
        assert_eq!(again.keys().collect::<Vec<_>>(), files.keys().collect::<Vec<_>>());
        // MariaDB adds a checkpoint to its last file whenever it gets round to it.
        for (name, content) in &files {
            let more = again[name].strip_prefix(&content[..]);
            let known =
                more.is_some_and(|more| more.is_empty() || more.len() < 100 && more[4] == 161);
            assert!(known, "{compression:?}: {name}");
        }
    }
    let names = server.binlogs().await;
    assert_eq!(names, files.keys().cloned().collect::<Vec<_>>());
    for (name, content) in &files {
        let mut there = std::fs::read(server.0.datadir().join(name)).unwrap();
        if Some(name) == names.last() {
            // The flag of a file that is being written.
            there[4 + 17] &= !1;
            // MariaDB says when it gets round to it which binlogs a crash needs (BINLOG_CHECKPOINT_EVENT, 161).
            if there.len() > content.len() && there[content.len() + 4] == 161 {
                there.truncate(content.len());
            }
        }
        assert!(*content == there, "{name}: {} and {} bytes", content.len(), there.len());
    }
}
