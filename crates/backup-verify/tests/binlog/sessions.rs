//! What statements were run under, over a client connection.

use std::sync::Arc;

use backup_core::ReplayTarget;
use backup_drivers::binlog::replay::{ApplyOptions, Means, apply};
use rstest::rstest;

use crate::replay::{beginning, route};
use crate::server::Server;
use crate::store::Store;

/// Settings of a MariaDB session that its binlog has, and statements that go by them.
const MARIADB: &[&str] = &[
    "SET SESSION binlog_format = STATEMENT",
    "SET explicit_defaults_for_timestamp = 0",
    "CREATE TABLE d.stamps (id INT PRIMARY KEY, a TIMESTAMP, b TIMESTAMP)",
    "SET explicit_defaults_for_timestamp = 1",
    "CREATE TABLE d.later (id INT PRIMARY KEY, a TIMESTAMP, b TIMESTAMP)",
    "INSERT INTO d.stamps (id) VALUES (1)",
    "SET check_constraint_checks = 0",
    "CREATE TABLE d.checked (a INT CHECK (a < 5))",
    "INSERT INTO d.checked VALUES (10)",
    "SET check_constraint_checks = 1",
    "SET sql_if_exists = 1",
    "DROP TABLE d.nowhere",
    "SET sql_if_exists = 0",
    "CREATE TABLE d.versioned (a INT PRIMARY KEY, b INT) WITH SYSTEM VERSIONING",
    "SET system_versioning_insert_history = 1",
    "INSERT INTO d.versioned (a, b, row_start, row_end) VALUES (50, 1, '1999-01-01', '2000-01-01')",
    "SET system_versioning_insert_history = 0",
    "INSERT INTO d.versioned VALUES (1, 1)",
    "UPDATE d.versioned SET b = 2",
    "SET system_versioning_alter_history = KEEP",
    "ALTER TABLE d.versioned ADD COLUMN c INT DEFAULT 3",
    "CREATE TABLE d.numbered (a INT AUTO_INCREMENT PRIMARY KEY, b INT)",
    "SET sql_auto_is_null = 1",
    "INSERT INTO d.numbered (b) VALUES (1)",
    "UPDATE d.numbered SET b = 7 WHERE a IS NULL",
];

/// Of one whose character sets have collations by default that the session chose.
const COLLATIONS: &[&str] = &[
    "SET character_set_collations = 'utf8mb4=utf8mb4_bin,utf8mb3=utf8mb3_uca1400_as_cs'",
    "SET time_zone = '+05:00', lc_time_names = 'de_DE'",
    "CREATE TABLE d.collated (a VARCHAR(5)) CHARACTER SET utf8mb4",
    "CREATE TABLE d.too (a VARCHAR(5), t DATETIME, m VARCHAR(20) CHARACTER SET utf8mb3)",
    "INSERT INTO d.too SELECT CONVERT('x' USING utf8mb4), FROM_UNIXTIME(0), DATE_FORMAT('2024-03-01', '%M')",
    "SET character_set_collations = ''",
];

const MYSQL: &[&str] = &[
    "SET SESSION binlog_format = STATEMENT",
    "CREATE TABLE d.lengths (a INT, b VARBINARY(10))",
    "SET @b = 0xff, @t = 'x', @c = _latin1 X'e9'",
    "INSERT INTO d.lengths VALUES (LENGTH(@b) + 1, @b), (LENGTH(@t), @t), (LENGTH(@c), @c)",
    "SET SESSION binlog_format = ROW",
];

/// Definitions, and rows with those that were.
async fn everything(server: &Server) -> Vec<String> {
    let mut session = server.session().await;
    let sql =
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'd' ORDER BY 1";
    let names: Vec<String> = session.query_rows(sql).await.unwrap();
    let mut all = Vec::new();
    for name in names {
        let sql = format!("SHOW CREATE TABLE d.{name}");
        let (_, create): (String, String) = session.query_first(&sql).await.unwrap().unwrap();
        let more = match create.contains("SYSTEM VERSIONING") {
            true => {
                ", row_start, row_end FROM d.versioned FOR SYSTEM_TIME ALL ORDER BY 1, 2, 3".into()
            }
            false => format!(" FROM d.{name} ORDER BY 1, 2"),
        };
        all.push(create);
        let rows: Vec<mysql_async::Row> =
            session.query_rows(&format!("SELECT *, 1{more}")).await.unwrap();
        all.extend(rows.into_iter().map(|row| format!("{:?}", row.unwrap())));
    }
    all
}

#[rstest]
#[case("mysql-9.7", &[MYSQL])]
#[case("mariadb-10.11", &[MARIADB])]
#[case("mariadb-11.8", &[MARIADB, COLLATIONS])]
#[tokio::test]
async fn sessions_are_set_to_all_that_the_binlog_has(
    #[case] name: &str,
    #[case] statements: &[&[&str]],
) {
    let source = Server::start(name, |builder| builder).await;
    let mut session = source.session().await;
    session.run("CREATE DATABASE d").await.unwrap();
    for sql in statements.concat() {
        session.run(sql).await.unwrap_or_else(|e| panic!("{}", e.report()));
    }
    let store = Store::new().await;
    store.archive(&source).await;
    let target = Server::start(name, |builder| builder.option("server_id", "2")).await;
    let way = route(&store, &beginning(&source, ""), &ReplayTarget::End, &[]).await.unwrap();
    let options =
        ApplyOptions { means: Means::Direct, tell_applied: true, ..ApplyOptions::default() };
    let repo = Arc::new(store.repo.clone());
    let applied = apply(&store.cx, &target.options(), repo, Arc::new(way), &options).await;
    applied.unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(everything(&target).await, everything(&source).await);
}
