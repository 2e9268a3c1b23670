//! Binlogs applied over a client connection.

use std::sync::Arc;

use backup_core::{ErrorKind, Flavor, ReplayTarget};
use backup_drivers::binlog::replay::{self as replaying, ApplyOptions, Means, apply};
use backup_drivers::connect::ConnectOptions;
use mysql_async::prelude::Queryable;
use rstest::rstest;

use crate::replay::{beginning, content, position, route};
use crate::server::{Server, WORK};
use crate::store::Store;

/// A statement in another character set than ours.
const LATIN1: &str = "latin1";

/// What depends on the session that ran it.
const SESSIONS: [&str; 30] = [
    "CREATE TABLE d.s (id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(300) CHARACTER SET utf8mb4, t TIMESTAMP(6) NULL, n DECIMAL(20,4), f DOUBLE)",
    "SET SESSION binlog_format = STATEMENT",
    "USE d",
    "SET time_zone = '+05:00', timestamp = 1700000000.25",
    "INSERT INTO s (a, t) VALUES (RAND(), NOW(6))",
    "SET timestamp = DEFAULT, time_zone = '-03:00'",
    "SET auto_increment_increment = 10, auto_increment_offset = 3",
    "INSERT INTO s (a) VALUES ('inc'), ('inc2')",
    "SET auto_increment_increment = 1, auto_increment_offset = 1",
    "INSERT INTO s (a) VALUES (CONCAT('last', LAST_INSERT_ID()))",
    "SET @text = 'Grüße 😀', @int = 18446744073709551615, @neg = -5, @dec = -1234567890.1234, @real = 1.5e10, @null = NULL",
    "INSERT INTO s (a, n, f) VALUES (CONCAT(@text, @int, @neg), @dec, @real), (@null, NULL, NULL)",
    "SET sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT'",
    "INSERT INTO \"s\" (\"a\") VALUES ('x' || 'y')",
    "SET sql_mode = 'NO_BACKSLASH_ESCAPES'",
    "INSERT INTO s (a) VALUES ('back\\slash')",
    "SET sql_mode = DEFAULT",
    "SET NAMES latin1",
    LATIN1,
    "SET NAMES utf8mb4",
    "CREATE TEMPORARY TABLE tmp (a INT)",
    "INSERT INTO tmp VALUES (1), (2)",
    "INSERT INTO s (a) SELECT CONCAT('tmp', a) FROM tmp ORDER BY a",
    "DROP TEMPORARY TABLE tmp",
    "SET foreign_key_checks = 0",
    "CREATE TABLE child (id INT PRIMARY KEY, FOREIGN KEY (id) REFERENCES not_yet (id))",
    "CREATE TABLE not_yet (id INT PRIMARY KEY)",
    "SET foreign_key_checks = 1",
    "SET SESSION binlog_format = ROW",
    "UPDATE s SET a = REPEAT(CONCAT(a, '-'), 5)",
];

fn direct() -> ApplyOptions {
    ApplyOptions { means: Means::Direct, tell_applied: true, ..ApplyOptions::default() }
}

#[rstest]
#[case("mysql-9.7", "binlog_transaction_compression", "OFF")]
#[case("mysql-9.7", "binlog_transaction_compression", "ON")]
#[case("mariadb-10.11", "binlog_format", "MIXED")]
#[case("mariadb-11.8", "log_bin_compress", "ON")]
#[tokio::test]
async fn everything_arrives(#[case] name: &str, #[case] option: &str, #[case] value: &str) {
    let mysql = name.starts_with("mysql");
    let source = Server::start(name, |builder| builder.option(option, value)).await;
    let store = Store::new().await;
    let mut session = source.session().await;
    for sql in WORK.iter().chain(&SESSIONS) {
        // Statements with temporary tables are not for GTIDs of MySQL.
        if mysql && sql.contains("tmp") {
            continue;
        }
        if *sql == LATIN1 {
            let raw = &b"INSERT INTO s (a) VALUES ('caf\xe9')"[..];
            session.conn().query_drop(raw).await.unwrap();
            continue;
        }
        session.run(sql).await.unwrap_or_else(|e| panic!("{}", e.report()));
    }
    // A file that is loaded by a statement, and a statement with many rows.
    let file = store.path("rows.txt");
    std::fs::write(&file, "100\tone\n200\ttwo\n").unwrap();
    session.run("SET SESSION binlog_format = STATEMENT").await.unwrap();
    let load = format!("LOAD DATA INFILE '{}' INTO TABLE d.s (id, a)", file.display());
    session.run(&load).await.unwrap();
    session.run("SET SESSION binlog_format = ROW").await.unwrap();
    for sql in [
        "CREATE TABLE d.big (id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(2000))",
        "INSERT INTO d.big (a) VALUES (REPEAT('a', 2000)), (REPEAT('b', 2000))",
        "INSERT INTO d.big (a) SELECT a.a FROM d.big a, d.s b, d.s c",
    ] {
        session.run(sql).await.unwrap();
    }
    store.archive(&source).await;
    let way = route(&store, &beginning(&source, ""), &ReplayTarget::End, &[]).await.unwrap();
    let target = Server::start(name, |builder| {
        builder.option("local_infile", "ON").option("server_id", "2")
    })
    .await;
    let repo = Arc::new(store.repo.clone());
    let applied = apply(&store.cx, &target.options(), repo, Arc::new(way), &direct()).await;
    let applied = applied.unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(applied.warnings, [""; 0]);
    assert_eq!(content(&target).await, content(&source).await);
    // GTIDs are kept, and nothing of ours is left.
    let here = replaying::position(&target.options()).await.unwrap();
    assert_eq!(here, position(&source).await);
    let left: Option<u64> = target
        .session()
        .await
        .query_first(
            "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name LIKE 'holdfast%'",
        )
        .await
        .unwrap();
    assert_eq!(left, Some(0));
}

/// A session holds to what it prepared a little longer than to everything else: what another one commits too
/// early is lost.
#[rstest]
#[tokio::test]
async fn every_prepared_transaction_is_committed(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let source = Server::start(name, |builder| builder).await;
    let store = Store::new().await;
    let mut session = source.session().await;
    session.run("CREATE DATABASE d").await.unwrap();
    session.run("CREATE TABLE d.t (id INT PRIMARY KEY)").await.unwrap();
    for n in 0..60 {
        for sql in [
            format!("XA START '{n}'"),
            format!("INSERT INTO d.t VALUES ({n})"),
            format!("XA END '{n}'"),
            format!("XA PREPARE '{n}'"),
            format!("XA COMMIT '{n}'"),
        ] {
            session.run(&sql).await.unwrap();
        }
    }
    store.archive(&source).await;
    let way = route(&store, &beginning(&source, ""), &ReplayTarget::End, &[]).await.unwrap();
    let target = Server::start(name, |builder| builder.option("server_id", "2")).await;
    let repo = Arc::new(store.repo.clone());
    let applied = apply(&store.cx, &target.options(), repo, Arc::new(way), &direct()).await;
    applied.unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(content(&target).await, content(&source).await);
}

/// An account that may neither replicate nor choose GTIDs.
async fn poor(target: &Server) -> ConnectOptions {
    let may = match target.0.install().flavor() {
        Flavor::MySql => "GRANT REPLICATION_APPLIER ON *.* TO poor@localhost",
        Flavor::MariaDb => "GRANT BINLOG REPLAY ON *.* TO poor@localhost",
    };
    target
        .run(&[
            "CREATE USER poor@localhost IDENTIFIED BY 'Secret-1'",
            "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, REFERENCES, EXECUTE ON *.* TO poor@localhost",
            may,
        ])
        .await;
    ConnectOptions::socket(target.0.socket(), "poor")
        .with_password(backup_core::Secret::new("Secret-1".to_owned()))
}

#[rstest]
#[tokio::test]
async fn a_poor_account_and_a_run_that_was_stopped(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let source = Server::start(name, |builder| builder.option("binlog_format", "ROW")).await;
    let store = Store::new().await;
    source.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)"]).await;
    for id in 1..=20 {
        source.run(&[&format!("INSERT INTO d.t VALUES ({id})")]).await;
    }
    store.archive(&source).await;
    let target = Server::start(name, |builder| builder.option("server_id", "2")).await;
    let account = poor(&target).await;
    let repo = Arc::new(store.repo.clone());
    let apply_to_end = async |base: String, options: &ApplyOptions| {
        let base = beginning(&source, &base);
        let way = Arc::new(route(&store, &base, &ReplayTarget::End, &[]).await.unwrap());
        apply(&store.cx, &account, repo.clone(), way, options).await
    };
    let applied = apply_to_end(String::new(), &direct()).await;
    let applied = applied.unwrap_or_else(|e| panic!("{}", e.report()));
    // A MariaDB cannot be told by such an account where it stands, so a table says it.
    let mysql = name.starts_with("mysql");
    assert_eq!(applied.warnings.len(), usize::from(!mysql), "{:?}", applied.warnings);
    let here = async || replaying::position(&account).await.unwrap();
    // The target has transactions of its own: the account.
    assert!(position(&source).await.is_subset(&here().await).unwrap());
    assert_eq!(content(&target).await, content(&source).await);

    // Something is in the way.
    let before = here().await;
    source.run(&["INSERT INTO d.t VALUES (21)", "CREATE TABLE d.u (id INT PRIMARY KEY)"]).await;
    source.run(&["INSERT INTO d.u SELECT id FROM d.t"]).await;
    store.archive(&source).await;
    target.run(&["CREATE TABLE d.u (a INT)"]).await;
    let going_on = ApplyOptions { means: Means::Direct, ..ApplyOptions::default() };
    let e = apply_to_end(before.to_string(), &going_on).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Target, "{}", e.report());
    assert!(
        e.report().contains("1050") && e.report().contains("CREATE TABLE d.u"),
        "{}",
        e.report()
    );
    let rows: Option<u64> =
        target.session().await.query_first("SELECT COUNT(*) FROM d.t").await.unwrap();
    assert_eq!(rows, Some(21), "everything before it is applied");
    assert_ne!(here().await, before);
    target.run(&["DROP TABLE d.u"]).await;
    let applied = apply_to_end(here().await.to_string(), &going_on).await;
    applied.unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(content(&target).await, content(&source).await);
    // The target has transactions of its own: the account.
    assert!(position(&source).await.is_subset(&here().await).unwrap());

    if mysql {
        target
            .run(&[
                "REVOKE REPLICATION_APPLIER ON *.* FROM poor@localhost",
                "GRANT BINLOG_ADMIN ON *.* TO poor@localhost",
            ])
            .await;
        source.run(&["CREATE TABLE d.v (id INT PRIMARY KEY)"]).await;
        store.archive(&source).await;
        let e = apply_to_end(here().await.to_string(), &going_on).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Privilege, "{}", e.report());
        return;
    }
    // A run that died in a statement that commits by itself.
    source.run(&["CREATE TABLE d.v (id INT PRIMARY KEY)"]).await;
    store.archive(&source).await;
    let last = position(&source).await;
    target.run(&["UPDATE holdfast_replay.mark SET running = 'x'"]).await;
    let e = apply_to_end(here().await.to_string(), &going_on).await.unwrap_err();
    assert!(e.report().contains("cannot be told"), "{}", e.report());
    let again = ApplyOptions { again: true, ..going_on };
    apply_to_end(here().await.to_string(), &again).await.unwrap();
    assert_eq!(here().await, last);
}

#[rstest]
#[tokio::test]
async fn auto_goes_over_the_client_where_it_may_not_replicate(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let source = Server::start(name, |builder| builder).await;
    let store = Store::new().await;
    source.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)"]).await;
    source.run(&["INSERT INTO d.t VALUES (1)"]).await;
    store.archive(&source).await;
    let target = Server::start(name, |builder| builder.option("server_id", "2")).await;
    let account = poor(&target).await;
    let way = route(&store, &beginning(&source, ""), &ReplayTarget::End, &[]).await.unwrap();
    let options = ApplyOptions { tell_applied: true, ..ApplyOptions::default() };
    let repo = Arc::new(store.repo.clone());
    let strict = ApplyOptions { means: Means::Replica, ..options.clone() };
    let way = Arc::new(way);
    let e = apply(&store.cx, &account, repo.clone(), way.clone(), &strict).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Privilege, "{}", e.report());
    apply(&store.cx, &account, repo, way, &options)
        .await
        .unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(content(&target).await, content(&source).await);
}

/// A change of rows that is longer than the packets that the target takes.
#[rstest]
#[tokio::test]
async fn a_long_change_and_a_target_of_short_packets(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let source = Server::start(name, |builder| builder.option("binlog_format", "ROW")).await;
    let store = Store::new().await;
    source.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, a LONGTEXT)"]).await;
    source.run(&["INSERT INTO d.t VALUES (1, REPEAT('x', 3000000))"]).await;
    store.archive(&source).await;
    let repo = Arc::new(store.repo.clone());
    let start = async || {
        Server::start(name, |builder| {
            builder.option("server_id", "2").option("max_allowed_packet", "2M")
        })
        .await
    };
    let way = async |from: &str| {
        let base = beginning(&source, from);
        Arc::new(route(&store, &base, &ReplayTarget::End, &[]).await.unwrap())
    };
    // Who may raise it does, and puts it back.
    let target = start().await;
    let applied = apply(&store.cx, &target.options(), repo.clone(), way("").await, &direct()).await;
    applied.unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(content(&target).await, content(&source).await);
    let packet = "SELECT @@GLOBAL.max_allowed_packet";
    let packet: Option<u64> = target.session().await.query_first(packet).await.unwrap();
    assert_eq!(packet, Some(2 << 20));
    // Who may not is told what helps, with everything before it applied.
    let target = start().await;
    let account = poor(&target).await;
    let e = apply(&store.cx, &account, repo.clone(), way("").await, &direct()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Target, "{}", e.report());
    for part in ["max_allowed_packet of the target, 2097152", "--apply replica", "binlog apply"] {
        assert!(e.report().contains(part), "{}", e.report());
    }
    let here = replaying::position(&account).await.unwrap().to_string();
    target.run(&["SET GLOBAL max_allowed_packet = 1073741824"]).await;
    let going_on = ApplyOptions { means: Means::Direct, ..ApplyOptions::default() };
    let applied = apply(&store.cx, &account, repo, way(&here).await, &going_on).await;
    applied.unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(content(&target).await, content(&source).await);
}

/// What a backup held is in no `gtid_executed` yet, and an account of a managed server cannot say so: it is
/// written down, and nothing of the backup is applied once more, now or by a later run.
#[tokio::test]
async fn what_was_restored_is_not_applied_again() {
    let name = "mysql-9.7";
    let source = Server::start(name, |builder| builder).await;
    let store = Store::new().await;
    source.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, n INT)"]).await;
    source.run(&["INSERT INTO d.t VALUES (1, 0)"]).await;
    let base = beginning(&source, &position(&source).await.to_string());
    source
        .run(&[
            "UPDATE d.t SET n = n + 1",
            "CREATE TABLE d.m (id INT PRIMARY KEY) ENGINE = MyISAM",
            "INSERT INTO d.m VALUES (1), (2)",
        ])
        .await;
    store.archive(&source).await;
    let way = Arc::new(route(&store, &base, &ReplayTarget::End, &[]).await.unwrap());
    let target = Server::start(name, |builder| builder.option("server_id", "2")).await;
    // As a restore leaves it.
    target
        .run(&[
            "SET SESSION sql_log_bin = 0",
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY, n INT)",
            "INSERT INTO d.t VALUES (1, 0)",
        ])
        .await;
    let account = poor(&target).await;
    let repo = Arc::new(store.repo.clone());
    let applied = apply(&store.cx, &account, repo.clone(), way, &direct()).await;
    let applied = applied.unwrap_or_else(|e| panic!("{}", e.report()));
    assert!(applied.warnings.concat().contains("holdfast_replay says it"), "{applied:?}");
    assert_eq!(content(&target).await, content(&source).await);

    // A later run begins behind both.
    source.run(&["UPDATE d.t SET n = n + 1", "CREATE TABLE d.u (id INT PRIMARY KEY)"]).await;
    store.archive(&source).await;
    let go_on = async |account: &ConnectOptions, options: &ApplyOptions| {
        let here = replaying::position(account).await.unwrap();
        assert!(base.position.gtid.as_ref().unwrap().is_subset(&here).unwrap(), "{here}");
        let base = beginning(&source, &here.to_string());
        let way = Arc::new(route(&store, &base, &ReplayTarget::End, &[]).await.unwrap());
        apply(&store.cx, account, repo.clone(), way, options)
            .await
            .unwrap_or_else(|e| panic!("{}", e.report()))
    };
    let options = ApplyOptions { means: Means::Direct, ..ApplyOptions::default() };
    let applied = go_on(&account, &options).await;
    assert!(applied.warnings.concat().contains("holdfast_replay says it"), "{applied:?}");
    assert_eq!(content(&target).await, content(&source).await);

    // Who may tell the server does, and goes on as a replica.
    source.run(&["UPDATE d.t SET n = n + 1"]).await;
    store.archive(&source).await;
    let options = ApplyOptions { means: Means::Replica, ..ApplyOptions::default() };
    let applied = go_on(&target.options(), &options).await;
    assert_eq!(applied.warnings, [""; 0]);
    assert_eq!(content(&target).await, content(&source).await);
    let executed = replaying::position(&target.options()).await.unwrap();
    assert!(position(&source).await.is_subset(&executed).unwrap(), "{executed}");
}

/// A mark is of the data that were there: after another restore it says nothing.
#[rstest]
#[tokio::test]
async fn a_mark_does_not_outlive_its_data(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let source = Server::start(name, |builder| builder.option("binlog_format", "ROW")).await;
    let store = Store::new().await;
    let restored = [
        "CREATE DATABASE d",
        "CREATE TABLE d.t (id INT PRIMARY KEY, n INT)",
        "INSERT INTO d.t VALUES (1, 0)",
    ];
    source.run(&restored).await;
    let base = beginning(&source, &position(&source).await.to_string());
    source.run(&["UPDATE d.t SET n = n + 1", "CREATE TABLE d.u (id INT PRIMARY KEY)"]).await;
    store.archive(&source).await;
    let way = Arc::new(route(&store, &base, &ReplayTarget::End, &[]).await.unwrap());
    let target = Server::start(name, |builder| builder.option("server_id", "2")).await;
    let unlogged = ["SET SESSION sql_log_bin = 0"];
    target.run(&[&unlogged[..], &restored].concat()).await;
    let account = poor(&target).await;
    let repo = Arc::new(store.repo.clone());
    let applied = apply(&store.cx, &account, repo.clone(), way.clone(), &direct()).await;
    let applied = applied.unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(applied.warnings.len(), 1, "{applied:?}");
    assert_eq!(content(&target).await, content(&source).await);

    // The same once more, by whoever and by any means.
    let reset = match name.starts_with("mysql") {
        true => ["DROP DATABASE d", "RESET BINARY LOGS AND GTIDS"],
        false => ["DROP DATABASE d", "RESET MASTER"],
    };
    let root = target.options();
    for (who, means) in [(&root, Means::Replica), (&account, Means::Direct), (&root, Means::Direct)]
    {
        target.run(&reset).await;
        target.run(&[&unlogged[..], &restored].concat()).await;
        if !name.starts_with("mysql") {
            target.run(&["SET GLOBAL gtid_slave_pos = ''"]).await;
        }
        let options = ApplyOptions { means, ..direct() };
        let applied = apply(&store.cx, who, repo.clone(), way.clone(), &options).await;
        applied.unwrap_or_else(|e| panic!("{means:?}: {}", e.report()));
        assert_eq!(content(&target).await, content(&source).await, "{means:?}");
    }
}

/// What definitions leave in the binlog, in the name of accounts that are there, that come and that never were.
const DEFINED: [&str; 14] = [
    "CREATE USER app@'%'",
    "CREATE TABLE d.t (id INT PRIMARY KEY)",
    "INSERT INTO d.t VALUES (1)",
    "CREATE DEFINER = root@localhost VIEW d.v AS SELECT id FROM d.t",
    "CREATE DEFINER = app@'%' PROCEDURE d.p() SELECT 1",
    "CREATE DEFINER = ghost@'%' FUNCTION d.f() RETURNS INT DETERMINISTIC RETURN 1",
    "CREATE DEFINER = app@'%' EVENT d.e ON SCHEDULE EVERY 1 DAY DISABLE DO DELETE FROM d.t",
    "CREATE INDEX i ON d.t (id)",
    "ALTER TABLE d.t ADD a INT",
    "DROP INDEX i ON d.t",
    "INSERT INTO d.t VALUES (2, 2)",
    "UPDATE d.t SET a = 3 WHERE id = 2",
    "DELETE FROM d.t WHERE id = 1",
    "CREATE DEFINER = app@'%' TRIGGER d.g BEFORE INSERT ON d.t FOR EACH ROW SET NEW.id = NEW.id + 0",
];

/// What the account lacks for the statements is told before the first of them, all at once, with what to paste; and
/// with that everything is applied.
#[rstest]
#[case("mysql-9.7", "ROW", "SET_ANY_DEFINER")]
#[case("mysql-9.7", "STATEMENT", "SET_ANY_DEFINER")]
#[case("mariadb-10.11", "ROW", "SET USER")]
#[case("mariadb-10.11", "MIXED", "SET USER")]
#[case("mariadb-11.8", "ROW", "SET USER")]
#[case("mariadb-11.8", "MIXED", "SET USER")]
#[tokio::test]
async fn what_statements_need_is_told_before_the_first(
    #[case] name: &str,
    #[case] format: &str,
    #[case] of_definers: &str,
    #[values(Means::Direct, Means::Auto)] means: Means,
) {
    let mysql = name.starts_with("mysql");
    let source = Server::start(name, |builder| builder.option("binlog_format", format)).await;
    let store = Store::new().await;
    source.run(&["CREATE DATABASE d"]).await;
    source.run(&["SET GLOBAL log_bin_trust_function_creators = 1"]).await;
    source.run(&DEFINED).await;
    store.archive(&source).await;
    let way =
        Arc::new(route(&store, &beginning(&source, ""), &ReplayTarget::End, &[]).await.unwrap());
    let target = Server::start(name, |builder| builder.option("server_id", "2")).await;
    let may = if mysql { "REPLICATION_APPLIER" } else { "BINLOG REPLAY" };
    target
        .run(&[
            "CREATE USER poor@localhost IDENTIFIED BY 'Secret-1'",
            &format!("GRANT {may} ON *.* TO poor@localhost"),
        ])
        .await;
    let account = ConnectOptions::socket(target.0.socket(), "poor")
        .with_password(backup_core::Secret::new("Secret-1".to_owned()));
    let repo = Arc::new(store.repo.clone());
    let options = ApplyOptions { means, ..direct() };
    let paste = async |remedy: &str| {
        let words = remedy.strip_prefix("run ").unwrap().split("; or let ").next().unwrap();
        let grants: Vec<&str> = words
            .split("; ")
            .map(|one| one.split(", or ").last().unwrap())
            .filter(|one| one.starts_with("GRANT "))
            .collect();
        target.run(&grants).await;
        words.to_owned()
    };
    let refused = async || {
        let before = target.binlogs().await;
        let end = position(&target).await;
        let e = apply(&store.cx, &account, repo.clone(), way.clone(), &options).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Privilege, "{}", e.report());
        assert_eq!((target.binlogs().await, position(&target).await), (before, end));
        e
    };
    if !mysql {
        // To write down what was applied.
        let e = refused().await;
        assert!(e.report().contains("CREATE ON `holdfast\\_replay`.*"), "{}", e.report());
        let remedy = e.remedy().replace("; or, for the slower way, ", "; ");
        paste(&remedy).await;
        if means == Means::Auto {
            target.run(&["REVOKE RELOAD ON *.* FROM poor@localhost"]).await;
        }
    }
    let e = refused().await;
    for part in [
        of_definers,
        "in the name of",
        "CREATE ROUTINE",
        "CREATE VIEW",
        "EVENT",
        "INDEX",
        "TRIGGER",
        "ON `d`.* TO 'poor'@'localhost'",
        "GRANT CREATE USER ON *.* TO 'poor'@'localhost'",
    ] {
        assert!(e.report().contains(part), "{part}: {}", e.report());
    }
    paste(e.remedy()).await;
    // Only who may see the accounts is told of those that are missing or mightier.
    if mysql {
        target.run(&["GRANT SELECT ON mysql.* TO poor@localhost"]).await;
        let e = refused().await;
        for part in [
            "SYSTEM_USER ON *.* (code in the name of root@localhost",
            "ALLOW_NONEXISTENT_DEFINER ON *.* (code in the name of ghost@%",
        ] {
            assert!(e.report().contains(part), "{part}: {}", e.report());
        }
        paste(e.remedy()).await;
    }
    // A view is made by who may read what is in it.
    target.run(&["GRANT SELECT ON d.* TO poor@localhost"]).await;
    let applied = apply(&store.cx, &account, repo, way, &options).await;
    applied.unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(content(&target).await, content(&source).await);
    let trusts = "SELECT @@GLOBAL.log_bin_trust_function_creators";
    let trusts: Option<u8> = target.session().await.query_first(trusts).await.unwrap();
    assert_eq!(trusts, Some(0));
}

/// What sessions have to be set to is asked of the target itself, and files that statements load need its consent.
#[rstest]
#[tokio::test]
async fn what_sessions_need_is_told_before_the_first(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let mysql = name.starts_with("mysql");
    let source = Server::start(name, |builder| builder).await;
    let store = Store::new().await;
    let file = store.path("rows.txt");
    std::fs::write(&file, "1\n2\n").unwrap();
    source.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)"]).await;
    let load = format!("LOAD DATA INFILE '{}' INTO TABLE d.t", file.display());
    let setting = if mysql { "sql_require_primary_key = 1" } else { "time_zone = '+05:00'" };
    let setting = format!("SET SESSION {setting}");
    source.run(&["SET SESSION binlog_format = STATEMENT", &setting, &load]).await;
    store.archive(&source).await;
    let way =
        Arc::new(route(&store, &beginning(&source, ""), &ReplayTarget::End, &[]).await.unwrap());
    let target = Server::start(name, |builder| builder.option("server_id", "2")).await;
    target.run(&["SET GLOBAL local_infile = OFF"]).await;
    let account = poor(&target).await;
    let repo = Arc::new(store.repo.clone());
    let e = apply(&store.cx, &account, repo.clone(), way.clone(), &direct()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Privilege, "{}", e.report());
    assert!(
        e.report().contains("SET GLOBAL local_infile = ON at the target, or GRANT"),
        "{}",
        e.report()
    );
    let there: Option<u64> = target
        .session()
        .await
        .query_first("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name IN ('d', 'holdfast_replay')")
        .await
        .unwrap();
    assert_eq!(there, Some(0), "nothing was done");
    // Who may set it does, and puts it back.
    let applied = apply(&store.cx, &target.options(), repo, way, &direct()).await;
    applied.unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(content(&target).await, content(&source).await);
    let set: Option<u8> =
        target.session().await.query_first("SELECT @@GLOBAL.local_infile").await.unwrap();
    assert_eq!(set, Some(0));
}
