//! What a transaction did is undone by statements, to the last bit, or refused with the reason.

use backup_core::{ErrorKind, Gtid};
use backup_drivers::binlog::find_transactions;
use backup_drivers::binlog::undo::{Undo, undo};
use backup_drivers::connect::Session;
use rstest::rstest;

use crate::server::Server;
use crate::store::Store;

/// Every type of column, as the tests of backups have them.
async fn types(session: &mut Session, mysql: bool) {
    let own = match mysql {
        true => include_str!("../round_trip/types_mysql.sql"),
        false => include_str!("../round_trip/types_mariadb.sql"),
    };
    session.run("SET NAMES utf8mb4").await.unwrap();
    for script in [include_str!("../round_trip/types_common.sql"), own] {
        for statement in script.split(";;\n") {
            let lines = statement.lines().filter(|line| !line.starts_with("-- "));
            let text = lines.collect::<Vec<_>>().join("\n");
            if !text.trim().is_empty() {
                session.run(&text).await.unwrap_or_else(|e| panic!("{}\n{text}", e.report()));
            }
        }
    }
    session.run("SET SESSION sql_mode = DEFAULT, time_zone = DEFAULT").await.unwrap();
}

async fn sums(session: &mut Session, tables: &[String]) -> Vec<(String, Option<u64>)> {
    session.query_rows(&format!("CHECKSUM TABLE {}", tables.join(", "))).await.unwrap()
}

async fn shown(session: &mut Session, table: &str) -> Vec<Vec<Option<String>>> {
    let rows: Vec<mysql_async::Row> =
        session.query_rows(&format!("SELECT * FROM {table} ORDER BY 1")).await.unwrap();
    let text = |value: mysql_async::Value| match value {
        mysql_async::Value::Bytes(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        mysql_async::Value::NULL => None,
        other => Some(format!("{other:?}")),
    };
    rows.into_iter().map(|row| row.unwrap().into_iter().map(text).collect()).collect()
}

/// The last transaction of the archive.
async fn last(store: &Store) -> Gtid {
    let segments = store.segments().await;
    let found = find_transactions(&store.cx, &store.repo, &segments, 1, |_| true).await.unwrap();
    found.transactions.last().unwrap().gtid.clone().unwrap()
}

async fn undone(store: &Store, server: &Server, gtid: &Gtid) -> backup_core::Result<Undo> {
    undo(&store.cx, &store.repo, store.segments().await, gtid, &[], &server.options()).await
}

async fn run(session: &mut Session, undo: &Undo) {
    let all = undo.settings.iter().map(String::as_str).chain(["START TRANSACTION"]);
    for sql in all.chain(undo.statements.iter().map(String::as_str)).chain(["COMMIT"]) {
        let done = session.run(sql).await.unwrap_or_else(|e| panic!("{}\n{sql}", e.report()));
        let changes = ["DELETE", "INSERT", "UPDATE"].iter().any(|word| sql.starts_with(word));
        assert!(!changes || done == 1, "{done} rows: {sql}");
    }
}

#[rstest]
#[case("mysql-9.7", &[])]
#[case("mysql-9.7", &[("binlog_transaction_compression", "ON")])]
#[case("mariadb-10.11", &[("binlog_format", "ROW")])]
#[case("mariadb-10.11", &[("binlog_format", "ROW"), ("log_bin_compress", "ON"), ("log_bin_compress_min_len", "10")])]
#[tokio::test]
async fn every_type_comes_back(#[case] name: &str, #[case] options: &[(&str, &str)]) {
    let mysql = name.starts_with("mysql");
    let server = Server::start(name, |builder| {
        options.iter().fold(builder, |builder, (name, value)| builder.option(*name, *value))
    })
    .await;
    let store = Store::new().await;
    let mut session = server.session().await;
    types(&mut session, mysql).await;
    let found: Vec<String> = session
        .query_rows(
            "SELECT CONCAT('`', table_schema, '`.`', REPLACE(table_name, '`', '``'), '`') \
             FROM information_schema.tables WHERE table_type = 'BASE TABLE' AND engine = 'InnoDB' \
             AND table_name NOT IN ('compressed', 'only_generated') AND \
             table_schema NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')",
        )
        .await
        .unwrap();
    let tables: Vec<String> =
        found.into_iter().map(|name| name.replace("na`me", "na``me")).collect();
    assert!(tables.len() > 15, "{tables:?}");
    let json = "`types`.`json`".to_owned();
    // A JSON document may hold what no statement brings back (see below).
    let tables: Vec<String> = tables.into_iter().filter(|name| !mysql || *name != json).collect();
    let before = sums(&mut session, &tables).await;
    let numbers = shown(&mut session, "types.numbers").await;
    session.run("SET SESSION sql_mode = '', foreign_key_checks = 0").await.unwrap();
    // All rows change or go, some twice; new ones come.
    session.run("BEGIN").await.unwrap();
    session.run("UPDATE types.strings SET v = CONCAT(LEFT(v, 100), 'x'), c = 'y'").await.unwrap();
    session
        .run("UPDATE types.times SET d = '2001-01-01', ts6 = '2001-01-01', t6 = '00:00:01'")
        .await
        .unwrap();
    session.run("UPDATE types.integers SET bu = 7, m = -m WHERE id < 3").await.unwrap();
    session.run("UPDATE types.no_key SET b = 'all'").await.unwrap();
    session.run("INSERT INTO types.integers (id, t) VALUES (77, 7), (78, 8)").await.unwrap();
    session.run("UPDATE types.integers SET id = 79 WHERE id = 78").await.unwrap();
    session.run("DELETE FROM types.integers WHERE id = 77").await.unwrap();
    for table in tables.iter().filter(|name| !name.contains("integers") && !name.contains("no_key"))
    {
        session.run(&format!("DELETE FROM {table}")).await.unwrap();
    }
    session.run("COMMIT").await.unwrap();
    assert_ne!(sums(&mut session, &tables).await, before);
    store.archive(&server).await;
    let gtid = last(&store).await;
    let undo = undone(&store, &server, &gtid).await.unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(undo.problems, Vec::<String>::new());
    assert!(undo.statements.len() > 60 && undo.compared > 40, "{undo:#?}");
    run(&mut session, &undo).await;
    let after = sums(&mut session, &tables).await;
    // What is easier to read first.
    assert_eq!(shown(&mut session, "types.numbers").await, numbers);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before, after);
    }
    // Now the rows are not those that the transaction left.
    let again = undone(&store, &server, &gtid).await.unwrap();
    assert!(again.problems.len() > 10, "{:#?}", again.problems);
}

#[rstest]
#[tokio::test]
async fn what_cannot_be_undone_is_refused(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let mysql = name.starts_with("mysql");
    let server = Server::start(name, |builder| builder.option("binlog_format", "ROW")).await;
    let store = Store::new().await;
    let mut session = server.session().await;
    for sql in [
        "CREATE DATABASE d",
        "CREATE TABLE d.t (id INT PRIMARY KEY, a VARCHAR(20), b INT AS (id + 1) STORED)",
        "CREATE TABLE d.p (id INT PRIMARY KEY)",
        "CREATE TABLE d.c (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES d.p (id) ON DELETE CASCADE)",
        "INSERT INTO d.t (id, a) VALUES (1, 'one'), (2, 'two')",
        "INSERT INTO d.p VALUES (1), (2)",
    ] {
        session.run(sql).await.unwrap();
    }
    let refused = async |session: &mut Session, statements: &[&str], says: &str| {
        for sql in statements {
            session.run(sql).await.unwrap();
        }
        store.archive(&server).await;
        let e = undone(&store, &server, &last(&store).await).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Source, "{}", e.report());
        assert!(e.report().contains(says), "{}", e.report());
    };
    refused(&mut session, &["CREATE TABLE d.n (id INT)"], "CREATE TABLE").await;
    refused(
        &mut session,
        &["SET SESSION binlog_format = STATEMENT", "UPDATE d.t SET a = UPPER(a)"],
        "statement",
    )
    .await;
    refused(
        &mut session,
        &[
            "SET SESSION binlog_format = ROW, binlog_row_image = MINIMAL",
            "UPDATE d.t SET a = 'min' WHERE id = 1",
        ],
        "binlog_row_image",
    )
    .await;
    session.run("SET SESSION binlog_row_image = FULL").await.unwrap();
    if mysql {
        session.run("CREATE TABLE d.j (id INT PRIMARY KEY, j JSON)").await.unwrap();
        session
            .run("INSERT INTO d.j SELECT 1, JSON_OBJECT('a', 1, 'b', REPEAT('x', 300))")
            .await
            .unwrap();
        session.run("SET SESSION binlog_row_value_options = PARTIAL_JSON").await.unwrap();
        let sql = "UPDATE d.j SET j = JSON_SET(j, '$.a', 2)";
        session.run(sql).await.unwrap();
        store.archive(&server).await;
        let e = undone(&store, &server, &last(&store).await).await.unwrap_err();
        assert!(e.report().contains("PARTIAL_JSON"), "{}", e.report());
        session.run("SET SESSION binlog_row_value_options = ''").await.unwrap();
    }
    // Whole, but for what comes beside.
    session.run("DELETE FROM d.p WHERE id = 2").await.unwrap();
    store.archive(&server).await;
    let gtid = last(&store).await;
    let found = undone(&store, &server, &gtid).await.unwrap();
    assert_eq!(found.statements, ["INSERT INTO `d`.`p` (`id`) VALUES (2)"]);
    // MySQL 9.6 and later write what foreign keys do as rows.
    match &found.problems[..] {
        [] => assert!(mysql),
        [problem] => assert!(!mysql && problem.contains("foreign key"), "{problem}"),
        more => panic!("{more:?}"),
    }
    session.run("INSERT INTO d.p VALUES (2)").await.unwrap();
    let found = undone(&store, &server, &gtid).await.unwrap();
    assert!(found.problems.iter().any(|p| p.contains("there again")), "{:?}", found.problems);
    // What has no key cannot be told from what is there already.
    session.run("CREATE TABLE d.k (a INT)").await.unwrap();
    session.run("INSERT INTO d.k VALUES (1), (1)").await.unwrap();
    store.archive(&server).await;
    let inserted = undone(&store, &server, &last(&store).await).await.unwrap();
    assert_eq!(inserted.notes, [""; 0]);
    session.run("DELETE FROM d.k LIMIT 1").await.unwrap();
    store.archive(&server).await;
    let deleted = undone(&store, &server, &last(&store).await).await.unwrap();
    assert_eq!(deleted.problems, [""; 0]);
    assert!(matches!(&deleted.notes[..], [note] if note.contains("`d`.`k`")), "{deleted:#?}");
    assert_eq!(found.notes, [""; 0]);
    // Altered since.
    session.run("ALTER TABLE d.p ADD COLUMN x INT").await.unwrap();
    let e = undone(&store, &server, &gtid).await.unwrap_err();
    assert!(e.report().contains("other columns"), "{}", e.report());
    // Only one of its tables.
    session.run("BEGIN").await.unwrap();
    session.run("UPDATE d.t SET a = 'three' WHERE id = 1").await.unwrap();
    session.run("INSERT INTO d.p VALUES (9, 9)").await.unwrap();
    session.run("COMMIT").await.unwrap();
    store.archive(&server).await;
    let tables = ["d.t".parse().unwrap()];
    let segments = store.segments().await;
    let gtid = last(&store).await;
    let found =
        undo(&store.cx, &store.repo, segments, &gtid, &tables, &server.options()).await.unwrap();
    assert_eq!(found.statements.len(), 1, "{found:#?}");
    assert!(found.statements[0].starts_with("UPDATE `d`.`t` SET `a` = "), "{found:#?}");
    let other = if mysql { "00000000-0000-0000-0000-000000000001:1" } else { "7-7-7" };
    let other: Gtid = other.parse().unwrap();
    let e = undone(&store, &server, &other).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unreachable, "{}", e.report());
}

/// What went with a row by foreign keys comes back with it, on servers that write it to the binlog.
#[tokio::test]
async fn rows_come_back_with_all_that_followed_them() {
    let server = Server::start("mysql-9.7", |builder| builder).await;
    let store = Store::new().await;
    let mut session = server.session().await;
    let child = |name: &str, parent: &str, rule: &str| {
        format!(
            "CREATE TABLE d.{name} (id INT PRIMARY KEY, r INT, \
             FOREIGN KEY (r) REFERENCES d.{parent} (id) ON DELETE {rule})"
        )
    };
    for sql in [
        "CREATE DATABASE d",
        "CREATE TABLE d.root (id INT PRIMARY KEY)",
        &child("a", "root", "CASCADE"),
        &child("b", "a", "CASCADE"),
        &child("c", "b", "SET NULL"),
        &child("tree", "tree", "CASCADE"),
        &child("unseen", "root", "CASCADE"),
        "INSERT INTO d.root VALUES (1), (2), (3)",
        "INSERT INTO d.a VALUES (11, 1), (12, 1), (13, 2), (14, 3)",
        "INSERT INTO d.b VALUES (21, 11), (22, 12), (23, 13), (24, 14), (25, 11)",
        "INSERT INTO d.c VALUES (31, 21), (32, 22), (33, 23), (34, 24), (35, NULL)",
        // Children have lower numbers than what they refer to, and higher ones.
        "INSERT INTO d.tree VALUES (5, NULL), (9, 5), (2, 9), (7, 2), (1, 7), (6, 6), (8, 6), (10, NULL)",
    ] {
        session.run(sql).await.unwrap();
    }
    let tables = ["root", "a", "b", "c", "tree"].map(|table| format!("d.{table}"));
    let before = sums(&mut session, &tables).await;
    for sql in [
        "BEGIN",
        "DELETE FROM d.root WHERE id IN (1, 2)",
        "DELETE FROM d.tree WHERE id IN (5, 6)",
        "COMMIT",
    ] {
        session.run(sql).await.unwrap();
    }
    assert_eq!(session.query_first::<u64>("SELECT COUNT(*) FROM d.tree").await.unwrap(), Some(1));
    store.archive(&server).await;
    let gtid = last(&store).await;
    // That no row of it changed is no reason to refuse, and it is named in the binlog all the same.
    session.run("DROP TABLE d.unseen").await.unwrap();
    let made = undone(&store, &server, &gtid).await.unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(made.problems, Vec::<String>::new());
    run(&mut session, &made).await;
    assert_eq!(sums(&mut session, &tables).await, before, "{:#?}", made.statements);
    // One statement that deletes, and moves another row to where that was.
    for sql in [
        "CREATE TABLE d.r (id INT PRIMARY KEY, u INT UNIQUE, v VARCHAR(10))",
        "INSERT INTO d.r VALUES (1, 10, 'a'), (2, 20, 'b')",
    ] {
        session.run(sql).await.unwrap();
    }
    let moved = ["d.r".to_owned()];
    let before = sums(&mut session, &moved).await;
    session.run("REPLACE INTO d.r VALUES (1, 20, 'new')").await.unwrap();
    store.archive(&server).await;
    let made = undone(&store, &server, &last(&store).await).await.unwrap();
    run(&mut session, &made).await;
    assert_eq!(sums(&mut session, &moved).await, before, "{:#?}", made.statements);
    // Without the tables that follow it is not all of it.
    let tables = ["d.root".parse().unwrap()];
    let segments = store.segments().await;
    let part =
        undo(&store.cx, &store.repo, segments, &gtid, &tables, &server.options()).await.unwrap();
    let left_out = part.problems.iter().filter(|p| p.contains("`d`.`a` followed"));
    assert_eq!(left_out.count(), 1, "{:?}", part.problems);
}

/// A trigger, or a foreign key, counts only where the statements that undo set it off, or the change itself did.
#[rstest]
#[tokio::test]
async fn only_what_the_statements_set_off_speaks_against_them(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let server = Server::start(name, |builder| builder.option("binlog_format", "ROW")).await;
    let store = Store::new().await;
    let mut session = server.session().await;
    let referring = |name: &str, table: &str, column: &str, rule: &str| {
        format!(
            "CREATE TABLE d.{name} (i INT, r INT, FOREIGN KEY (r) REFERENCES d.{table} ({column}) {rule})"
        )
    };
    let log = "FOR EACH ROW INSERT INTO d.log VALUES (1)";
    for sql in [
        "CREATE DATABASE d",
        "CREATE TABLE d.log (i INT)",
        "CREATE TABLE d.i (id INT PRIMARY KEY, a INT)",
        &format!("CREATE TRIGGER d.at_insert AFTER INSERT ON d.i {log}"),
        "CREATE TABLE d.u (id INT PRIMARY KEY, a INT)",
        &format!("CREATE TRIGGER d.at_update BEFORE UPDATE ON d.u {log}"),
        "CREATE TABLE d.d (id INT PRIMARY KEY, a INT)",
        &format!("CREATE TRIGGER d.at_delete AFTER DELETE ON d.d {log}"),
        "CREATE TABLE d.gone (id INT PRIMARY KEY, a INT, k INT UNIQUE)",
        &referring("gone_child", "gone", "k", "ON DELETE CASCADE"),
        "CREATE TABLE d.moved (id INT PRIMARY KEY, a INT, k INT UNIQUE)",
        &referring("moved_child", "moved", "k", "ON UPDATE CASCADE"),
        "CREATE TABLE d.kept (id INT PRIMARY KEY, a INT, k INT UNIQUE)",
        &referring("kept_child", "kept", "k", ""),
    ] {
        session.run(sql).await.unwrap();
    }
    let trigger = |name: &'static str| Some(name);
    let follows = Some("follow those of");
    for (table, insert, update, delete) in [
        ("i", None, None, trigger("trigger at_insert")),
        ("u", None, trigger("trigger at_update"), None),
        ("d", trigger("trigger at_delete"), None, None),
    ] {
        let changes = [
            (format!("INSERT INTO d.{table} VALUES (1, 1)"), insert),
            (format!("UPDATE d.{table} SET a = 2"), update),
            (format!("DELETE FROM d.{table}"), delete),
        ];
        for (sql, says) in changes {
            problem(&store, &server, &mut session, &sql, says).await;
        }
    }
    for (table, insert, update, moved, delete) in [
        // MySQL 9.6 and later write what went with it as rows.
        ("gone", follows, None, None, follows.filter(|_| !name.starts_with("mysql"))),
        ("moved", None, None, follows, None),
        ("kept", None, None, None, None),
    ] {
        let changes = [
            (format!("INSERT INTO d.{table} VALUES (1, 1, 1)"), insert),
            (format!("UPDATE d.{table} SET a = 2"), update),
            (format!("UPDATE d.{table} SET k = 2"), moved),
            (format!("DELETE FROM d.{table}"), delete),
        ];
        for (sql, says) in changes {
            problem(&store, &server, &mut session, &sql, says).await;
        }
    }
}

/// Makes a change, and looks what speaks against undoing it; where nothing does, it is undone and made again.
async fn problem(
    store: &Store,
    server: &Server,
    session: &mut Session,
    sql: &str,
    says: Option<&str>,
) {
    session.run(sql).await.unwrap();
    store.archive(server).await;
    let found = undone(store, server, &last(store).await).await;
    let found = found.unwrap_or_else(|e| panic!("{sql}: {}", e.report()));
    match says {
        Some(says) => {
            assert_eq!(found.problems.len(), 1, "{sql}: {:?}", found.problems);
            assert!(found.problems[0].contains(says), "{sql}: {:?}", found.problems);
        }
        None => {
            assert_eq!(found.problems, Vec::<String>::new(), "{sql}");
            // What a trigger did is among its rows.
            let logged = found.statements.iter().any(|sql| sql.contains("`log`"));
            let rows = session.query_first::<u64>("SELECT COUNT(*) FROM d.log").await.unwrap();
            run(session, &found).await;
            let now = session.query_first::<u64>("SELECT COUNT(*) FROM d.log").await.unwrap();
            assert_eq!(now, rows.map(|rows| rows - u64::from(logged)), "{sql}");
            session.run(sql).await.unwrap();
        }
    }
}

/// What was done in an order that foreign keys forbid comes back in one that they forbid, too.
#[rstest]
#[tokio::test]
async fn keys_that_were_not_looked_at_stand_in_no_way(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let server = Server::start(name, |builder| builder.option("binlog_format", "ROW")).await;
    let store = Store::new().await;
    let mut session = server.session().await;
    for sql in [
        "CREATE DATABASE d",
        "CREATE TABLE d.parent (id INT PRIMARY KEY)",
        "CREATE TABLE d.child (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES d.parent (id) ON DELETE CASCADE)",
        "INSERT INTO d.parent VALUES (1), (2)",
        "INSERT INTO d.child VALUES (10, 1), (20, 2)",
        "SET SESSION foreign_key_checks = 0",
    ] {
        session.run(sql).await.unwrap();
    }
    let tables = ["d.parent".to_owned(), "d.child".to_owned()];
    let before = sums(&mut session, &tables).await;
    // Undone last first, the child comes back before its parent.
    for sql in [
        "BEGIN",
        "DELETE FROM d.parent WHERE id = 1",
        "DELETE FROM d.child WHERE id = 10",
        "UPDATE d.child SET p = 77 WHERE id = 20",
        "COMMIT",
    ] {
        session.run(sql).await.unwrap();
    }
    store.archive(&server).await;
    let found = undone(&store, &server, &last(&store).await).await.unwrap();
    assert_eq!(found.problems, [""; 0]);
    assert!(
        matches!(&found.notes[..], [note] if note.contains("foreign_key_checks")),
        "{found:#?}"
    );
    let mut fresh = server.session().await;
    run(&mut fresh, &found).await;
    assert_eq!(sums(&mut fresh, &tables).await, before, "{:#?}", found.statements);
    // Where they were looked at, they are again.
    let mut checked = server.session().await;
    checked.run("DELETE FROM d.child WHERE id = 20").await.unwrap();
    store.archive(&server).await;
    let found = undone(&store, &server, &last(&store).await).await.unwrap();
    assert!(!found.settings.iter().any(|sql| sql.contains("foreign_key")), "{found:#?}");
}
