//! Tables of odd sizes: empty, huge rows, very many columns, partitions and tables, no key, keys with
//! gaps and at the limits of their types.

use backup_drivers::connect::Session;
use backup_drivers::logical::{LogicalOptions, LogicalRestoreOptions};
use rstest::rstest;

use crate::pair::Pair;
use crate::sides;

/// How much of it.
struct Amount {
    tables: usize,
    columns: usize,
    partitions: usize,
    /// The rows of the table without a key: twice to this.
    doublings: usize,
    megabytes: usize,
    /// Tiny rows with a key: ten to this.
    decades: usize,
    chunk_bytes: u64,
}

/// Small enough for every run.
const SOME: Amount = Amount {
    tables: 200,
    columns: 1000,
    partitions: 100,
    doublings: 14,
    megabytes: 60,
    decades: 4,
    chunk_bytes: 16 << 10,
};
/// What somebody has somewhere.
const MUCH: Amount = Amount {
    tables: 5000,
    columns: 4000,
    partitions: 1000,
    doublings: 20,
    megabytes: 60,
    decades: 7,
    chunk_bytes: 4 << 20,
};

async fn fill(session: &mut Session, amount: &Amount) {
    let columns: Vec<String> = (0..amount.columns).map(|n| format!("c{n} TINYINT")).collect();
    let mut statements = vec![
        "CREATE DATABASE odd CHARACTER SET utf8mb4".to_owned(),
        "CREATE TABLE odd.no_row (id INT PRIMARY KEY)".to_owned(),
        "CREATE TABLE odd.one_row (id INT PRIMARY KEY, v VARCHAR(9))".to_owned(),
        "INSERT INTO odd.one_row VALUES (-7, NULL)".to_owned(),
        "CREATE TABLE odd.huge (id INT PRIMARY KEY, v LONGTEXT, b LONGBLOB)".to_owned(),
        format!(
            "INSERT INTO odd.huge VALUES (1, 'small', NULL), (2, REPEAT('tab\t\\\\ \n', {}), 'x'), (3, 'last', '')",
            amount.megabytes * 1_000_000 / 7
        ),
        // Servers keep so many columns in MyISAM only.
        format!("CREATE TABLE odd.wide ({}) ENGINE=MyISAM", columns.join(", ")),
        format!("INSERT INTO odd.wide VALUES ({})", vec!["-1"; amount.columns].join(", ")),
        "INSERT INTO odd.wide (c1) VALUES (5)".to_owned(),
        format!(
            "CREATE TABLE odd.parts (id INT PRIMARY KEY, v INT) PARTITION BY HASH (id) PARTITIONS {}",
            amount.partitions
        ),
        "INSERT INTO odd.parts VALUES (1, 1), (99, 2), (1000, 3), (-5, 4)".to_owned(),
        "CREATE TABLE odd.keyless (a INT, b VARCHAR(30))".to_owned(),
        "INSERT INTO odd.keyless VALUES (1, 'same'), (NULL, NULL)".to_owned(),
        "CREATE TABLE odd.gaps (id BIGINT PRIMARY KEY, v VARCHAR(300))".to_owned(),
        "CREATE TABLE odd.unsigned_gaps (id BIGINT UNSIGNED PRIMARY KEY, v VARCHAR(300))".to_owned(),
        "CREATE TABLE odd.tiny_keys (id TINYINT PRIMARY KEY, v VARCHAR(300))".to_owned(),
        "CREATE TABLE odd.ci (id VARCHAR(40) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci PRIMARY KEY, v \
         VARCHAR(300))"
            .to_owned(),
        "INSERT INTO odd.ci VALUES ('a', 'x'), ('B', 'x'), ('\u{e4}b', 'x'), ('\u{1f600}', 'x'), ('z ', 'x'), ('', 'x')"
            .to_owned(),
    ];
    statements.extend(vec![
        "INSERT INTO odd.keyless SELECT a, b FROM odd.keyless".to_owned();
        amount.doublings
    ]);
    let digits = "(SELECT 0 d UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4 \
                  UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL \
                  SELECT 9)";
    let (mut number, mut from) = (String::from("0"), Vec::new());
    for n in 0..amount.decades {
        number = format!("({number}) * 10 + d{n}.d");
        from.push(format!("{digits} d{n}"));
    }
    statements.push("CREATE TABLE odd.tiny_rows (id INT PRIMARY KEY, v TINYINT)".to_owned());
    statements.push(format!(
        "INSERT INTO odd.tiny_rows SELECT {number}, d0.d FROM {}",
        from.join(" JOIN ")
    ));
    // Clusters of rows with 2^60 of nothing between them, and the ends of the type.
    for base in [i64::MIN, -(1 << 60), -50, 1 << 60, i64::MAX - 99] {
        let rows: Vec<String> =
            (0..100).map(|n| format!("({}, REPEAT('v', 250))", base + n)).collect();
        statements.push(format!("INSERT INTO odd.gaps VALUES {}", rows.join(", ")));
    }
    for base in [0, 1 << 60, 1 << 63, u64::MAX - 99] {
        let rows: Vec<String> =
            (0..100).map(|n| format!("({}, REPEAT('v', 250))", base + n)).collect();
        statements.push(format!("INSERT INTO odd.unsigned_gaps VALUES {}", rows.join(", ")));
    }
    let rows: Vec<String> = (-128..128).map(|n| format!("({n}, REPEAT('v', 250))")).collect();
    statements.push(format!("INSERT INTO odd.tiny_keys VALUES {}", rows.join(", ")));
    for n in 0..amount.tables {
        statements.push(format!("CREATE TABLE odd.t{n} (id INT PRIMARY KEY, v INT, KEY v (v))"));
        statements.push(format!("INSERT INTO odd.t{n} VALUES (1, {n}), (2, NULL)"));
    }
    statements.push("SET SESSION sql_mode = ''".to_owned());
    for statement in statements {
        let shown: String = statement.chars().take(200).collect();
        session.run(&statement).await.unwrap_or_else(|e| panic!("{}\n{shown}", e.report()));
    }
}

async fn round_trip(server: &str, mut amount: Amount) {
    if server.starts_with("mariadb") {
        // What it keeps of a table's definition has 64 KiB, with 17 bytes and a name for each column.
        amount.columns = amount.columns.min(2000);
    }
    let options = [
        ("max_allowed_packet", "256M"),
        ("table_open_cache", "400"),
        ("innodb_log_file_size", "768M"),
    ];
    let options = if server.starts_with("mysql") { &options[..2] } else { &options[..] };
    let redo = [("innodb_redo_log_capacity", "1G")];
    let options =
        if server.starts_with("mysql") { [options, &redo].concat() } else { options.to_vec() };
    let pair = Pair::start_with(server, &options).await;
    let mut source = Session::open(&pair.source()).await.unwrap();
    fill(&mut source, &amount).await;
    let manifest =
        pair.backup(LogicalOptions { chunk_bytes: amount.chunk_bytes, ..Default::default() }).await;
    let restored = pair.restore(&manifest, LogicalRestoreOptions::default()).await;
    assert_eq!(Some(restored.rows), manifest.outcome.rows);
    let mut target = Session::open(&pair.target()).await.unwrap();
    let here = sides::definitions(&mut source).await;
    sides::assert_same("definitions", &here, &sides::definitions(&mut target).await);
    // The servers' own checksums: an expression over thousands of columns is beyond them.
    let sums = async |session: &mut Session| {
        let tables: Vec<String> = session
            .query_rows("SELECT CONCAT('odd.', TABLE_NAME) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'odd'")
            .await
            .unwrap();
        let sql = format!("CHECKSUM TABLE {}", tables.join(", "));
        let sums: Vec<(String, Option<u64>)> = session.query_rows(&sql).await.unwrap();
        sums.into_iter().map(|(table, sum)| (table, format!("{sum:?}"))).collect::<sides::Facts>()
    };
    let here = sums(&mut source).await;
    assert!(here.len() > amount.tables);
    sides::assert_same("rows", &here, &sums(&mut target).await);
    pair.stop().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn odd_tables_come_back(#[values("mysql-9.7", "mariadb-10.11")] server: &str) {
    round_trip(server, SOME).await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn many_odd_tables_come_back(#[values("mysql-9.7", "mariadb-10.11")] server: &str) {
    round_trip(server, MUCH).await;
}
