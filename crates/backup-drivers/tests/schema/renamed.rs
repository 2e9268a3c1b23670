//! Copies under other names stand on what was copied with them, and leave the original alone.

use backup_core::Result;
use backup_drivers::logical::{LogicalOptions, LogicalRestoreOptions, Rename, RenameRule};
use mysql_async::prelude::Queryable;
use rstest::rstest;

use crate::memory::Kept;
use crate::server::Server;

/// Backs `d` up after these statements, and restores it beside the original as `copy`.
async fn copied(server: &Server, statements: &[&str]) -> Result<()> {
    let mut conn = server.connect().await?;
    for statement in statements {
        conn.query_drop(*statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    let kept = Kept::backup(server, LogicalOptions::default()).await?;
    let rename: Rename = ["d=copy".parse::<RenameRule>()?].into_iter().collect();
    let options = LogicalRestoreOptions { rename, ..Default::default() };
    let restored = kept.restore(server, options).await?;
    assert!(restored.warnings.is_empty(), "{:#?}", restored.warnings);
    Ok(())
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn views_of_a_copy_take_numbers_of_its_own_sequences(
    #[values("mariadb-10.11", "mariadb-11.8")] name: &str,
) -> Result<()> {
    let server = Server::start(name).await?;
    let statements = [
        "CREATE DATABASE d",
        "CREATE SEQUENCE d.s START 100",
        "CREATE VIEW d.v AS SELECT NEXTVAL(d.s) n",
        "CREATE VIEW d.more AS SELECT NEXT VALUE FOR d.s n, LASTVAL(d.s) l, PREVIOUS VALUE FOR d.s p, \
         SETVAL(d.s, 500) t, SETVAL(d.s, 600, 1, 0) u",
    ];
    copied(&server, &statements).await?;
    let mut conn = server.connect().await?;
    for view in ["v", "more"] {
        let (_, create, _, _): (String, String, String, String) =
            conn.query_first(format!("SHOW CREATE VIEW copy.{view}")).await.unwrap().unwrap();
        assert!(!create.contains("`d`") && create.contains("(`copy`.`s`"), "{create}");
        let _: Vec<mysql_async::Row> =
            conn.query(format!("SELECT * FROM copy.{view}")).await.unwrap();
    }
    let next: Option<i64> =
        conn.query_first("SELECT next_not_cached_value FROM d.s").await.unwrap();
    assert_eq!(next, Some(100));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn code_of_a_copy_uses_its_own_libraries() -> Result<()> {
    let server = Server::start("mysql-9.7").await?;
    let statements = [
        "CREATE DATABASE d",
        "CREATE DATABASE e",
        "USE d",
        "CREATE LIBRARY l1 LANGUAGE JAVASCRIPT AS 'export function f(n) {return n + 1}'",
        "CREATE LIBRARY l2 LANGUAGE JAVASCRIPT AS 'export function f(n) {return n + 2}'",
        "CREATE LIBRARY e.far LANGUAGE JAVASCRIPT AS 'export function f(n) {return n + 3}'",
        "CREATE FUNCTION f (n INT) RETURNS INT DETERMINISTIC LANGUAGE JAVASCRIPT USING (l1 AS m, d.l2, e.far AS d) \
         AS $$ return m.f(n) + l2.f(n) + d.f(n) /* USING (`d`.`l1`) */ $$",
        "CREATE PROCEDURE p () LANGUAGE JAVASCRIPT USING (d.l1) AS 'l1.f(1)'",
    ];
    let mut conn = server.connect().await?;
    for statement in statements {
        conn.query_drop(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    let kept = Kept::backup(&server, LogicalOptions::default()).await?;
    // Beside the original, and where that is not.
    for target in [&server, &Server::start("mysql-9.7").await?] {
        let rules = ["d=copy".parse::<RenameRule>()?, "e=e2".parse::<RenameRule>()?];
        let options =
            LogicalRestoreOptions { rename: rules.into_iter().collect(), ..Default::default() };
        kept.restore(target, options).await?;
        let mut conn = target.connect().await?;
        let sql = "SELECT CONCAT_WS('.', ROUTINE_NAME, LIBRARY_SCHEMA, LIBRARY_NAME) FROM \
                   information_schema.ROUTINE_LIBRARIES WHERE ROUTINE_SCHEMA = 'copy' ORDER BY 1";
        let found: Vec<String> = conn.query(sql).await.unwrap();
        assert_eq!(found, ["f.copy.l1", "f.copy.l2", "f.e2.far", "p.copy.l1"]);
        let (_, _, create, _, _, _): (String, String, String, String, String, String) =
            conn.query_first("SHOW CREATE FUNCTION copy.f").await.unwrap().unwrap();
        assert!(create.contains("/* USING (`d`.`l1`) */"), "{create}");
    }
    Ok(())
}
