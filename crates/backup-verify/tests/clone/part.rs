//! Some tables out of a clone, to a server that goes on running.

use backup_core::ErrorKind;
use backup_drivers::logical::{LogicalRestoreOptions, Selection};
use backup_verify::{AsideOptions, DrillOptions, FilesServer, restore_tables};

use crate::stage::{MYSQL, Stage, run};

#[tokio::test(flavor = "multi_thread")]
async fn tables_come_out_of_a_clone() {
    let stage = Stage::new(|builder| builder).await;
    let mut donor = stage.session().await;
    run(&mut donor, &[
        "CREATE DATABASE shop",
        "CREATE TABLE shop.orders (id INT PRIMARY KEY, a VARCHAR(300), KEY (a))",
        "INSERT INTO shop.orders WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r \
         WHERE n < 900) SELECT n, SHA2(n, 256) FROM r",
        "CREATE TABLE shop.other (id INT PRIMARY KEY)",
        "INSERT INTO shop.other VALUES (1)",
    ])
    .await;
    let sum = "CHECKSUM TABLE shop.orders";
    let before: Option<(String, u64)> = donor.query_first(sum).await.unwrap();
    let manifest = stage.backup().await;
    // The accident.
    run(&mut donor, &["DELETE FROM shop.orders WHERE id > 10", "UPDATE shop.other SET id = 2"])
        .await;

    let options = |table: &str, rename: &[&str]| AsideOptions {
        server: DrillOptions {
            server: Some(xtask::servers::Server::named(MYSQL).unwrap().directory()),
            directory: Some(stage.directory.path().to_owned()),
            ..DrillOptions::default()
        },
        target: stage.source(),
        restore: LogicalRestoreOptions {
            selection: Selection {
                tables: [table.parse().unwrap()].into(),
                ..Selection::default()
            },
            rename: rename.iter().map(|rule| rule.parse().unwrap()).collect(),
            ..LogicalRestoreOptions::default()
        },
    };
    let take = async |options| {
        let server = FilesServer::default();
        restore_tables(&stage.cx, &stage.repository, &manifest, server, options, None).await
    };
    let e = take(options("shop.none", &[])).await.unwrap_err();
    assert!(e.report().contains("shop.none"), "{}", e.report());
    let e = take(options("shop.orders", &[])).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Target, "{}", e.report());
    let taken = take(options("shop.orders", &["shop.orders=shop.saved"])).await;
    let taken = taken.unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(taken.rows, 900);
    let sum = "CHECKSUM TABLE shop.saved";
    let after: Option<(String, u64)> = donor.query_first(sum).await.unwrap();
    assert_eq!(after.unwrap().1, before.unwrap().1);
    let other: Option<u32> = donor.query_first("SELECT id FROM shop.other").await.unwrap();
    assert_eq!(other, Some(2));
}
