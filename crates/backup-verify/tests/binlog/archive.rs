//! What is archived is what the server wrote, once and without a gap.

use std::collections::BTreeMap;

use backup_core::SegmentStore;
use backup_drivers::binlog::check_segment;
use rstest::rstest;

use crate::server::{Server, WORK};
use crate::store::Store;

/// The archived files, put together from their segments.
async fn files(store: &Store) -> BTreeMap<String, Vec<u8>> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for info in store.segments().await {
        let content = store.repo.read(&store.cx, &info).await.unwrap();
        check_segment(&info, &content).unwrap();
        let file = files.entry(info.range.file.clone()).or_default();
        assert_eq!(file.len() as u64, info.range.start, "{}", info.range);
        file.extend_from_slice(&content);
    }
    files
}

async fn expect_all(server: &Server, store: &Store) {
    let files = files(store).await;
    for (name, archived) in &files {
        let mut there = std::fs::read(server.0.datadir().join(name)).unwrap();
        // The flag of a file that is being written.
        there[4 + 17] &= !1;
        assert!(*archived == there, "{name}: {} and {} bytes", archived.len(), there.len());
    }
    assert_eq!(files.into_keys().collect::<Vec<_>>(), server.binlogs().await);
}

#[rstest]
#[case("mysql-9.7", "gtid_mode", "ON")]
#[case("mysql-9.7", "gtid_mode", "OFF_PERMISSIVE")]
#[case("mariadb-10.11", "binlog_format", "MIXED")]
#[tokio::test]
async fn each_run_goes_on_where_the_last_ended(
    #[case] name: &str,
    #[case] option: &str,
    #[case] value: &str,
) {
    let server = Server::start(name, |builder| builder.option(option, value)).await;
    let store = Store::new().await;
    let mut transactions = 0;
    for round in 0..3 {
        server.run(&WORK).await;
        let received = store.archive(&server).await;
        assert!(received.transactions > 10, "{received:?}");
        assert_eq!((received.waiting, received.warnings.len()), (0, 0), "{received:?}");
        transactions += received.transactions;
        expect_all(&server, &store).await;
        if round == 1 {
            // Nothing new, nothing archived.
            let received = store.archive(&server).await;
            assert_eq!((received.segments, received.transactions), (0, 0), "{received:?}");
        }
        server.run(&["DROP DATABASE d"]).await;
    }
    let segments = store.segments().await;
    assert_eq!(segments.iter().map(|info| info.transactions).sum::<u64>(), transactions);
    let seqs: Vec<u64> = segments.iter().map(|info| info.seq).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    for pair in segments.windows(2) {
        assert_eq!(pair[0].after, pair[1].before, "{} {}", pair[0].range, pair[1].range);
    }
}
