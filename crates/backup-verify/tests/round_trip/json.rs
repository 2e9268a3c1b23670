//! Documents of MySQL, which hold types that their text does not tell.

use backup_core::{Context, pipeline};
use backup_drivers::connect::{ConnectOptions, Session};
use backup_drivers::logical::{LogicalOptions, LogicalRestore, LogicalRestoreOptions, Selection};

use crate::pair::Pair;

const PRICED: &str = "SELECT CONCAT_WS(' | ', id, CAST(j AS CHAR), JSON_TYPE(j), CAST(k AS CHAR), \
                      JSON_TYPE(j->'$.price'), JSON_TYPE(j->'$.n[0]'), JSON_TYPE(k->'$.\"a\\\\\"}.\\'b\"[1]'), \
                      JSON_TYPE(k->'$[0]'), JSON_TYPE(k->'$[1]'), HEX(v), f, e, g, HEX(b)) FROM shop.priced ORDER BY id";

#[tokio::test(flavor = "multi_thread")]
async fn what_documents_hold_is_what_they_held() {
    let pair = Pair::start("mysql-9.7").await;
    let mut source = Session::open(&pair.source()).await.unwrap();
    for statement in [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.plain (id INT PRIMARY KEY, j JSON)",
        "INSERT INTO shop.plain VALUES (1, '{\"a\": 1.5}'), (2, CAST(CAST('2026-01-02' AS DATE) AS JSON))",
        "CREATE TABLE shop.priced (id INT PRIMARY KEY, j JSON, k JSON, v VARCHAR(20) CHARACTER SET latin1, f FLOAT, \
         e ENUM('', 'x'), g JSON AS (JSON_EXTRACT(j, '$.price')), b BIT(9))",
        "INSERT INTO shop.priced (id, j, k, v, f, e, b) VALUES \
         (1, JSON_OBJECT('price', 1.50, 'n', JSON_ARRAY(2.00, 3)), NULL, 'h\u{f6}ch', 0.1, '', b'101010101'), \
         (2, CAST(12345678901234567890123456789.25 AS JSON), JSON_ARRAY(NOW(6), 1e100), 'x', -0.0, 'x', NULL), \
         (3, '{}', NULL, NULL, NULL, NULL, NULL), (4, CAST(-18446744073709551616 AS JSON), \
         JSON_OBJECT('a\"}.\\'b', JSON_ARRAY(1, -0.10)), '\\\\\\'', 16777216, 'x', 0), \
         (5, JSON_OBJECT('', 7.00, 'price', CAST('1.10' AS DECIMAL(10, 2))), '[1e15, 100000000000000.0, 1e-15, 1e-16]', '', 1, '', 1)",
        "CREATE TABLE shop.heap (j JSON, t LONGTEXT)",
        "INSERT INTO shop.heap SELECT JSON_OBJECT('n', n, 'price', n * 0.10, 'deep', JSON_ARRAY(JSON_OBJECT('x', n * 1.00))), \
         REPEAT('\\'', n) FROM (WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 900) SELECT n \
         FROM s) s",
        "INSERT INTO shop.heap SELECT * FROM shop.heap",
        // Wider than what goes into one statement by far.
        "INSERT INTO shop.heap SELECT JSON_OBJECT('pad', REPEAT('x', 3000000), 'price', 2.50), 'long'",
        "CREATE TABLE shop.quiet (j JSON)",
        "INSERT INTO shop.quiet VALUES ('{\"a\": [1.5, \"2026-01-02\", 5, true, null]}')",
        "CREATE TABLE shop.times (id INT PRIMARY KEY, j JSON)",
        "INSERT INTO shop.times VALUES (1, JSON_OBJECT('d', CAST('2024-02-29' AS DATE), 't', CAST('-12:34:56.5' AS \
         TIME(1)), 'at', CAST('1000-01-01' AS DATETIME), 'n', 2.5)), (2, JSON_ARRAY('2024-02-29 x', 'x-13-29', \
         CAST('838:59:58' AS TIME), CAST('00:00:00' AS TIME), 'wörld'))",
        "CREATE TABLE shop.mixed (id INT PRIMARY KEY, j JSON)",
        "INSERT INTO shop.mixed VALUES (1, JSON_ARRAY(CAST('2024-02-29' AS DATE), '2024-02-29', 1.5, 1.5e0, x'00ff'))",
        "CREATE TABLE shop.deep (j JSON)",
        "INSERT INTO shop.deep VALUES (CONCAT(REPEAT('[', 100), REPEAT(']', 100))), (JSON_ARRAY(1.50))",
        "CREATE TABLE shop.wide (j JSON)",
        "INSERT INTO shop.wide VALUES (JSON_OBJECT('pad', REPEAT('x', 300000), 'd', CAST('2024-02-29' AS DATE)))",
        "CREATE TABLE shop.alone (j JSON)",
        "INSERT INTO shop.alone VALUES (CAST(1.50 AS JSON)), (CAST(2.25 AS JSON)), (CAST(-0.50 AS JSON))",
    ] {
        source.run(statement).await.unwrap_or_else(|e| panic!("{statement}: {}", e.report()));
    }
    let manifest = pair.backup(LogicalOptions::default()).await;
    let restored = pair.restore(&manifest, LogicalRestoreOptions::default()).await;
    // What cannot be told from what looks like it is a string.
    let told: Vec<&str> =
        restored.warnings.iter().map(|w| &w[..w.find(", which").unwrap()]).collect();
    assert_eq!(told, ["shop.mixed.j: its documents hold values of type BLOB, DATE"]);
    let found = manifest.outcome.details["documents"].as_array().unwrap();
    let columns: Vec<&str> = found.iter().map(|f| f["column"].as_str().unwrap()).collect();
    assert_eq!(columns, ["j", "j", "j", "j", "j", "j", "k", "j", "j"], "{found:#?}");

    let mut target = Session::open(&pair.target()).await.unwrap();
    for session in [&mut source, &mut target] {
        session.run("USE shop").await.unwrap();
    }
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for sql in [
        PRICED,
        "SELECT CONCAT(j, JSON_TYPE(j)) FROM shop.plain ORDER BY id",
        "SELECT CONCAT(SHA2(CONCAT(CAST(j AS CHAR), t), 256), ' ', COUNT(*), JSON_TYPE(j->'$.price'), \
         IFNULL(JSON_TYPE(j->'$.deep[0].x'), '')) FROM shop.heap GROUP BY j, t ORDER BY 1",
        "SELECT CONCAT(j, JSON_TYPE(j)) FROM shop.alone ORDER BY 1",
        "SELECT CONCAT(j, JSON_TYPE(j->'$.a[0]'), JSON_TYPE(j->'$.a[1]')) FROM shop.quiet",
        "SELECT CONCAT(SHA2(j, 256), JSON_TYPE(j->'$.d')) FROM shop.wide",
        "SELECT CONCAT_WS('|', j, JSON_TYPE(j->'$.d'), JSON_TYPE(j->'$.t'), JSON_TYPE(j->'$.at'), JSON_TYPE(j->'$.n'), \
         JSON_TYPE(j->'$[0]'), JSON_TYPE(j->'$[1]'), JSON_TYPE(j->'$[3]'), JSON_TYPE(j->'$[4]')) FROM shop.times ORDER BY id",
        "SELECT CAST(j AS CHAR) FROM shop.mixed",
        "SELECT CONCAT(j, JSON_TYPE(j->'$[0]')) FROM shop.deep ORDER BY 1",
    ] {
        before.extend(source.query_rows::<String>(sql).await.unwrap());
        after.extend(target.query_rows::<String>(sql).await.unwrap());
    }
    assert_eq!(before, after);
    assert!(
        before[0].contains(r#"{"n": [2.00, 3], "price": 1.50} | OBJECT | DECIMAL | DECIMAL"#),
        "{}",
        before[0]
    );
    assert!(before.len() > 900, "{}", before.len());
    let types = "SELECT CONCAT_WS(' ', JSON_TYPE(j->'$[0]'), JSON_TYPE(j->'$[2]'), JSON_TYPE(j->'$[3]'), JSON_TYPE(j->'$[4]')) \
                 FROM shop.mixed";
    let of = async |session: &mut Session| session.query_first::<String>(types).await.unwrap();
    assert_eq!(of(&mut source).await.as_deref(), Some("DATE DECIMAL DOUBLE BLOB"));
    assert_eq!(of(&mut target).await.as_deref(), Some("STRING DOUBLE DOUBLE STRING"));
    pair.stop().await;
}

/// What no statement can hold goes in as text, which makes doubles of decimals: nothing else may differ,
/// and it is said. Who may have longer statements has them.
#[tokio::test(flavor = "multi_thread")]
async fn decimals_in_long_documents_are_told_of() {
    let pair = Pair::start("mysql-9.7").await;
    let mut source = Session::open(&pair.source()).await.unwrap();
    for statement in [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.long_ones (id INT PRIMARY KEY, j JSON)",
        "INSERT INTO shop.long_ones VALUES (1, JSON_OBJECT('pad', REPEAT('x', 2000000), 'price', 2.50)), \
         (2, JSON_OBJECT('price', 1.50))",
    ] {
        source.run(statement).await.unwrap();
    }
    let manifest = pair.backup(LogicalOptions::default()).await;
    let mut target = Session::open(&pair.target()).await.unwrap();
    for statement in [
        // A quarter of it is less than the document.
        "SET GLOBAL max_allowed_packet = 4194304",
        "SET GLOBAL local_infile = ON",
        "CREATE USER poor@localhost",
        "GRANT ALL ON shop.* TO poor@localhost",
    ] {
        target.run(statement).await.unwrap();
    }
    let sql = "SELECT CONCAT(j->'$.price', JSON_TYPE(j->'$.price'), SHA2(j->'$.pad', 256)) FROM shop.long_ones \
               WHERE id = 1";
    let of =
        async |session: &mut Session| session.query_first::<String>(sql).await.unwrap().unwrap();
    let before = of(&mut source).await;
    let selection = Selection { databases: ["shop".to_owned()].into(), ..Selection::default() };
    let options = LogicalRestoreOptions { selection, binary_log: true, ..Default::default() };
    let poor = ConnectOptions::socket(pair.target.socket(), "poor");
    let poor = LogicalRestore::new(poor, options.clone());
    let cx = Context::builder().build();
    let restored = pipeline::restore(&cx, &pair.repository, &poor, &manifest).await;
    let restored = restored.unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(restored.warnings.len(), 1, "{:?}", restored.warnings);
    let told = "inside the JSON documents of table shop.long_ones came back as doubles";
    assert!(restored.warnings[0].contains(told), "{:?}", restored.warnings);
    let after = of(&mut target).await;
    assert!(
        before.starts_with("2.50DECIMAL") && after.starts_with("2.5DOUBLE"),
        "{before} {after}"
    );
    assert_eq!(before[11..], after[9..]);

    let options = LogicalRestoreOptions { overwrite: true, ..options };
    let restored = pair.restore(&manifest, options).await;
    assert!(restored.warnings.is_empty(), "{:?}", restored.warnings);
    assert_eq!(of(&mut target).await, before);
    let packet = target.query_first::<u64>("SELECT @@GLOBAL.max_allowed_packet").await.unwrap();
    assert_eq!(packet, Some(4_194_304));
    pair.stop().await;
}
