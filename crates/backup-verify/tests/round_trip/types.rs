//! Every column type, bit by bit.

use backup_core::ConsistencyLevel;
use backup_drivers::connect::Session;
use backup_drivers::logical::{LogicalOptions, LogicalRestoreOptions};
use rstest::rstest;

use crate::pair::{Pair, run_script};
use crate::sides;

pub(crate) const STRICT: &str = "ANSI_QUOTES,PIPES_AS_CONCAT,IGNORE_SPACE,NO_BACKSLASH_ESCAPES,REAL_AS_FLOAT,\
    STRICT_TRANS_TABLES,STRICT_ALL_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,\
    NO_ENGINE_SUBSTITUTION,ONLY_FULL_GROUP_BY,HIGH_NOT_PRECEDENCE,NO_UNSIGNED_SUBTRACTION";
const LOOSE: &str = "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES";

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn every_value_comes_back(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] server: &str,
    #[values(STRICT, LOOSE)] sql_mode: &str,
) {
    let pair = Pair::start(server).await;
    let mut source = Session::open(&pair.source()).await.unwrap();
    run_script(&mut source, include_str!("types_common.sql")).await;
    run_script(&mut source, own(server)).await;
    if server == "mariadb-11.8" {
        run_script(&mut source, include_str!("types_mariadb_11.sql")).await;
    }
    big_values(&pair).await;

    let mut target = Session::open(&pair.target()).await.unwrap();
    for session in [&mut source, &mut target] {
        session.run(&format!("SET GLOBAL sql_mode = '{sql_mode}'")).await.unwrap();
    }
    // Tables in one piece, and in as many as there can be.
    let chunk_bytes = if sql_mode == STRICT { 64 << 20 } else { 1 << 10 };
    let manifest = pair.backup(LogicalOptions { chunk_bytes, ..Default::default() }).await;
    // The Aria table among them too: it was locked until it was read.
    assert_eq!(manifest.outcome.consistency.level, ConsistencyLevel::Exact);
    let restored = pair.restore(&manifest, LogicalRestoreOptions::default()).await;
    assert_eq!(Some(restored.rows), manifest.outcome.rows);

    let rows = sides::rows(&mut source).await;
    assert!(rows.len() > 20, "{rows:?}");
    sides::assert_same("rows", &rows, &sides::rows(&mut target).await);
    let definitions = sides::definitions(&mut source).await;
    sides::assert_same("definitions", &definitions, &sides::definitions(&mut target).await);
    pair.stop().await;
}

/// The types that only one kind of server has.
pub(crate) fn own(server: &str) -> &'static str {
    if server.starts_with("mysql") {
        include_str!("types_mysql.sql")
    } else {
        include_str!("types_mariadb.sql")
    }
}

/// Values of 40 MiB, larger than the packets that either server takes as it comes.
pub(crate) async fn big_values(pair: &Pair) {
    let mut session = Session::open(&pair.source()).await.unwrap();
    session.run("SET GLOBAL max_allowed_packet = 1073741824").await.unwrap();
    let mut session = Session::open(&pair.source()).await.unwrap();
    for statement in [
        "CREATE TABLE types.big (id INT PRIMARY KEY, b LONGBLOB, t LONGTEXT)",
        "INSERT INTO types.big VALUES (1, REPEAT(0x5C, 41943040), 'x')",
        "INSERT INTO types.big VALUES (2, '', REPEAT('ü', 20971520)), (3, NULL, '')",
        "INSERT INTO types.big VALUES (4, REPEAT(0x000A0D09, 10485760), REPEAT('\\n', 100))",
        // As long as the largest packet, and one more and one less, with everything around it.
        "INSERT INTO types.big SELECT 10 + n, REPEAT('p', 16777215 - 20 + n), '' FROM \
         (SELECT 1 n UNION SELECT 5 UNION SELECT 8 UNION SELECT 9 UNION SELECT 10 UNION SELECT 11 \
          UNION SELECT 12 UNION SELECT 15 UNION SELECT 20) s",
    ] {
        session.run(statement).await.unwrap();
    }
}
