//! Documents of MySQL, which hold types that their text does not tell.

use backup_drivers::connect::Session;
use backup_drivers::logical::{LogicalOptions, LogicalRestoreOptions};

use crate::pair::Pair;

#[tokio::test(flavor = "multi_thread")]
async fn decimals_come_back_as_doubles_with_a_warning() {
    let pair = Pair::start("mysql-9.7").await;
    let mut source = Session::open(&pair.source()).await.unwrap();
    for statement in [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.plain (id INT PRIMARY KEY, j JSON)",
        "INSERT INTO shop.plain VALUES (1, '{\"a\": 1.5}'), (2, CAST(CAST('2026-01-02' AS DATE) AS JSON))",
        "CREATE TABLE shop.priced (id INT PRIMARY KEY, j JSON, k JSON, v VARCHAR(20))",
        "INSERT INTO shop.priced VALUES (1, JSON_OBJECT('price', 1.50, 'n', JSON_ARRAY(2.00, 3)), NULL, '1.50'), \
         (2, CAST(12345678901234567890123456789.25 AS JSON), JSON_ARRAY(NOW(6), 1e100), 'x'), (3, '{}', NULL, NULL)",
    ] {
        source.run(statement).await.unwrap();
    }
    let manifest = pair.backup(LogicalOptions::default()).await;
    let restored = pair.restore(&manifest, LogicalRestoreOptions::default()).await;
    assert_eq!(restored.warnings.len(), 1, "{:?}", restored.warnings);
    assert!(restored.warnings[0].contains("table shop.priced"), "{:?}", restored.warnings);

    let mut target = Session::open(&pair.target()).await.unwrap();
    // Equal as the server compares documents, where the numbers are not beyond a double.
    let sql =
        "SELECT CAST(j AS CHAR), JSON_EXTRACT(j, '$.price') = 1.5, v FROM shop.priced WHERE id = 1";
    let row: Option<(String, u8, String)> = target.query_first(sql).await.unwrap();
    let text = r#"{"n": [2.0, 3], "price": 1.5}"#.to_owned();
    assert_eq!(row, Some((text, 1, "1.50".to_owned())));
    let sql = "SELECT CAST(j AS CHAR) FROM shop.plain ORDER BY id";
    let documents: Vec<String> = target.query_rows(sql).await.unwrap();
    assert_eq!(documents, [r#"{"a": 1.5}"#, r#""2026-01-02""#]);
    pair.stop().await;
}
