//! Views of tables that are called alike: what MySQL prints of them with their database left out means something else.

use backup_core::Result;
use backup_drivers::logical::{LogicalOptions, LogicalRestoreOptions};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use rstest::rstest;
use tempfile::TempDir;

use crate::exported::{exported_sql, load};
use crate::memory::Kept;
use crate::server::Server;

const SCHEMA: [&str; 14] = [
    "CREATE DATABASE va",
    "CREATE DATABASE vb",
    "CREATE TABLE va.t (a INT PRIMARY KEY)",
    "CREATE TABLE vb.t (a INT PRIMARY KEY)",
    "CREATE TABLE va.u (a INT PRIMARY KEY)",
    "INSERT INTO va.t VALUES (1), (2), (3)",
    "INSERT INTO vb.t VALUES (1)",
    "INSERT INTO va.u VALUES (2), (5)",
    "CREATE VIEW va.present AS SELECT t.a FROM va.t WHERE EXISTS (SELECT 1 FROM vb.t WHERE vb.t.a = va.t.a)",
    "CREATE VIEW va.joined AS SELECT va.t.a, vb.t.a AS b FROM va.t LEFT JOIN vb.t USING (a)",
    "CREATE VIEW va.under_its_name AS SELECT a FROM va.t WHERE EXISTS (SELECT 1 FROM va.u AS t WHERE t.a = va.t.a)",
    "CREATE VIEW va.derived AS \
     SELECT a FROM va.t WHERE EXISTS (SELECT 1 FROM (SELECT 3 AS a) AS t WHERE t.a = va.t.a)",
    "CREATE VIEW va.listed AS SELECT t.a FROM va.t JOIN vb.t AS x ON x.a = t.a \
     WHERE EXISTS (SELECT 1 FROM information_schema.TABLES AS t WHERE t.TABLE_NAME = 't' AND va.t.a = 1)",
    "CREATE VIEW vb.above AS SELECT present.a FROM va.present JOIN va.joined ON joined.a = present.a",
];

/// Definitions with every name in full, and rows.
async fn views(conn: &mut Conn, [first, second]: [&str; 2]) -> Vec<(String, Vec<String>)> {
    let mut views = Vec::new();
    for (database, view) in [
        (first, "present"),
        (first, "joined"),
        (first, "under_its_name"),
        (first, "derived"),
        (first, "listed"),
        (second, "above"),
    ] {
        let (_, create, _, _): (String, String, String, String) = conn
            .query_first(format!("SHOW CREATE VIEW {database}.{view}"))
            .await
            .unwrap_or_else(|e| panic!("{database}.{view}: {e}"))
            .unwrap();
        let create = create.replace(&format!("`{first}`"), "`va`");
        let create = create.replace(&format!("`{second}`"), "`vb`");
        let sql = format!("SELECT CAST(a AS CHAR) FROM {database}.{view} ORDER BY a");
        views.push((create, conn.query(sql).await.unwrap()));
    }
    views
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn views_of_tables_that_are_called_alike_come_back(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) -> Result<()> {
    let source = Server::start(name).await?;
    let mut conn = source.connect().await?;
    for sql in SCHEMA {
        conn.query_drop(sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
    let expected = views(&mut conn, ["va", "vb"]).await;
    assert_eq!(expected[0].1, ["1"]);
    let kept = Kept::backup(&source, LogicalOptions::default()).await?;

    let target = Server::start(name).await?;
    let restored = kept.restore(&target, LogicalRestoreOptions::default()).await?;
    assert!(restored.warnings.is_empty(), "{:#?}", restored.warnings);
    let mut conn = target.connect().await?;
    assert_eq!(views(&mut conn, ["va", "vb"]).await, expected);

    let rename = ["va=vc", "vb=vd"].iter().map(|rule| rule.parse()).collect::<Result<_>>()?;
    let options = LogicalRestoreOptions { rename, ..Default::default() };
    let restored = kept.restore(&target, options).await?;
    assert!(restored.warnings.is_empty(), "{:#?}", restored.warnings);
    assert_eq!(views(&mut conn, ["vc", "vd"]).await, expected);

    let directory = TempDir::new().unwrap();
    exported_sql(&kept, directory.path()).await?;
    let target = Server::start(name).await?;
    load(&target, directory.path(), "dump.sql");
    assert_eq!(views(&mut target.connect().await?, ["va", "vb"]).await, expected);
    Ok(())
}
