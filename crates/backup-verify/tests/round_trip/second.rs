//! The second day: tables are cut where they were cut on the first, and what did not change takes no room.

use backup_core::{Manifest, Repository};
use backup_drivers::connect::Session;
use backup_drivers::logical::{Catalog, LogicalOptions, LogicalRestoreOptions};
use rstest::rstest;

use crate::pair::Pair;
use crate::sides;

/// Where the chunks of the only table begin.
async fn cuts(pair: &Pair, manifest: &Manifest) -> Vec<String> {
    let artifacts = pair.repository.artifacts(&pair.cx, manifest).await.unwrap();
    let catalog = Catalog::read(&*artifacts).await.unwrap();
    let chunks = &catalog.tables[0].chunks;
    chunks.iter().filter_map(|chunk| chunk.from.clone()).collect()
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_grows_is_cut_where_it_was(
    #[values("mysql-9.7", "mariadb-10.11")] server: &str,
) {
    let pair = Pair::start(server).await;
    let mut source = Session::open(&pair.source()).await.unwrap();
    let double = "INSERT INTO shop.t (v) SELECT RANDOM_BYTES(200) FROM shop.t";
    for statement in [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.t (id INT AUTO_INCREMENT PRIMARY KEY, v VARBINARY(200))",
        "INSERT INTO shop.t (v) VALUES (RANDOM_BYTES(200))",
    ]
    .into_iter()
    .chain([double; 14])
    .chain(["ANALYZE TABLE shop.t"])
    {
        source.run(statement).await.unwrap();
    }
    let options = || LogicalOptions { chunk_bytes: 256 << 10, ..LogicalOptions::default() };
    let first = pair.backup(options()).await;
    let before = cuts(&pair, &first).await;
    assert!(before.len() > 6, "{before:?}");

    // A tenth more, behind all others; a row of each hundred is another, and one of each thousand gone.
    for statement in [
        "INSERT INTO shop.t (v) SELECT RANDOM_BYTES(200) FROM shop.t LIMIT 1600",
        "UPDATE shop.t SET v = CONCAT('new', SUBSTR(v, 4)) WHERE id % 100 = 7",
        "DELETE FROM shop.t WHERE id % 1000 = 3",
        "ANALYZE TABLE shop.t",
    ] {
        source.run(statement).await.unwrap();
    }
    let second = pair.backup(options()).await;
    let after = cuts(&pair, &second).await;
    assert_eq!(after[..before.len()], before[..], "{after:?}");
    let (whole, new) = (first.totals.bytes_stored, second.totals.bytes_stored);
    assert!(new < whole / 4, "{new} bytes of {whole} are new");

    let nothing = pair.backup(options()).await;
    assert_eq!(cuts(&pair, &nothing).await, after);
    let new = nothing.totals.bytes_stored;
    assert!(new < whole / 50, "{new} bytes of {whole} are new where nothing changed");
    pair.restore(&nothing, LogicalRestoreOptions::default()).await;
    let mut target = Session::open(&pair.target()).await.unwrap();
    sides::assert_same("rows", &sides::rows(&mut source).await, &sides::rows(&mut target).await);
    pair.stop().await;
}
