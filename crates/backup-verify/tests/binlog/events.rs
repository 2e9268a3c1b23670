//! Scheduled events that come with a replay, as they were at the source.

use std::sync::Arc;
use std::time::Duration;

use backup_core::{Gtid, ReplayTarget};
use backup_drivers::binlog::replay::{self as replaying, ApplyOptions, Means, apply};
use rstest::rstest;

use crate::replay::{beginning, position, replay, route};
use crate::server::Server;
use crate::store::Store;

/// Everything that an event remembers of the session it was made in, and its code byte by byte.
async fn remembered(server: &Server) -> Vec<(String, String)> {
    let sql = "SELECT EVENT_NAME, CONCAT_WS(' ', STATUS, SQL_MODE, TIME_ZONE, CHARACTER_SET_CLIENT, \
               COLLATION_CONNECTION, EVENT_COMMENT, HEX(EVENT_DEFINITION)) FROM information_schema.EVENTS ORDER BY 1";
    server.session().await.query_rows(sql).await.unwrap()
}

#[rstest]
#[tokio::test]
async fn events_keep_the_session_that_they_were_made_in(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let source = Server::start(name, |builder| builder).await;
    let later = "ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01 00:00:00'";
    let mut session = source.session().await;
    let statements = [
        "CREATE DATABASE d",
        "CREATE TABLE d.log (v VARCHAR(20) CHARACTER SET utf8mb4)",
        "SET time_zone = '+05:30', sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'",
        &format!(
            "CREATE EVENT d.quoted {later} COMMENT 'a''b' DO INSERT INTO \"d\".\"log\" VALUES ('\\')"
        ),
        &format!("CREATE EVENT d.off {later} DISABLE DO INSERT INTO \"d\".\"log\" VALUES ('x')"),
        "SET time_zone = 'SYSTEM', sql_mode = ''",
    ];
    for sql in statements {
        session.run(sql).await.unwrap_or_else(|e| panic!("{}", e.report()));
    }
    // As a client does whose texts are Latin-1.
    session.run("SET NAMES latin1").await.unwrap();
    let mut sql =
        format!("CREATE EVENT d.caf_ {later} DO INSERT INTO d.log VALUES ('caf_')").into_bytes();
    sql.iter_mut().filter(|byte| **byte == b'_').for_each(|byte| *byte = 0xe9);
    mysql_async::prelude::Queryable::query_drop(session.conn(), &sql[..]).await.unwrap();
    let expected = remembered(&source).await;
    assert_eq!(expected.len(), 3);
    assert!(expected.iter().any(|(name, _)| name == "café"), "{expected:#?}");

    let store = Store::new().await;
    store.archive(&source).await;
    let target = Server::start(name, |builder| builder).await;
    let base = beginning(&source, "");
    let route = route(&store, &base, &ReplayTarget::End, &[]).await.unwrap();
    replay(&store, &target, route).await;
    assert_eq!(remembered(&target).await, expected);
}

async fn count(server: &Server, of: &str) -> u64 {
    let sql = format!("SELECT COUNT(*) FROM {of}");
    server.session().await.query_first(&sql).await.unwrap().unwrap()
}

/// What events would do on the way is not in the binlog: rows that nothing takes away again.
#[rstest]
#[tokio::test]
async fn nothing_runs_before_everything_is_applied(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
    #[values(Means::Direct, Means::Replica)] means: Means,
) {
    let source = Server::start(name, |builder| builder.option("event_scheduler", "OFF")).await;
    let every = "ON SCHEDULE EVERY 1 SECOND STARTS '2026-01-01 00:00:00'";
    source
        .run(&[
            "CREATE DATABASE d",
            "CREATE TABLE d.log (t DATETIME(6))",
            &format!("CREATE EVENT d.tick {every} DO INSERT INTO d.log VALUES (NOW(6))"),
            &format!("CREATE EVENT d.off {every} DISABLE DO INSERT INTO d.log VALUES (NOW(6))"),
            &format!("CREATE EVENT d.later {every} DISABLE DO INSERT INTO d.log VALUES (NOW(6))"),
            "ALTER EVENT d.later RENAME TO d.renamed ENABLE",
        ])
        .await;
    let before = position(&source).await;
    source.run(&["CREATE TABLE d.y (a INT PRIMARY KEY)"]).await;
    let created: Gtid = match (position(&source).await, before) {
        (backup_core::GtidSet::MySql(after), backup_core::GtidSet::MySql(before)) => {
            after.subtract(&before).to_string().parse().unwrap()
        }
        (after, _) => after.to_string().parse().unwrap(),
    };
    // What an applier that fails was sent besides is not there yet.
    source
        .run(&["INSERT INTO d.y VALUES (1)", "INSERT INTO d.y VALUES (2)", "DROP EVENT d.tick"])
        .await;
    let store = Store::new().await;
    store.archive(&source).await;
    let target = Server::start(name, |builder| {
        builder.option("server_id", "2").option("event_scheduler", "ON")
    })
    .await;
    // One that is there already, as those of a backup are.
    target
        .run(&[
            "SET SESSION sql_log_bin = 0",
            "CREATE DATABASE own",
            "CREATE TABLE own.log (t DATETIME(6))",
            &format!("CREATE EVENT own.tick {every} DO INSERT INTO own.log VALUES (NOW(6))"),
        ])
        .await;
    let repo = Arc::new(store.repo.clone());
    let way = route(&store, &beginning(&source, ""), &ReplayTarget::End, &[&created]).await;
    let options =
        ApplyOptions { means, tell_applied: true, again: true, ..ApplyOptions::default() };
    let way = Arc::new(way.unwrap());
    let e = apply(&store.cx, &target.options(), repo.clone(), way, &options).await.unwrap_err();
    assert!(e.report().contains("1146"), "{}", e.report());
    let held = "SELECT CONCAT(name, ' ', status) FROM holdfast_events.held WHERE name IN ('tick', 'renamed') ORDER BY 1";
    let held: Vec<String> = target.session().await.query_rows(held).await.unwrap();
    assert_eq!(held, ["renamed ENABLED", "tick ENABLED"]);
    let own = count(&target, "own.log").await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!((count(&target, "d.log").await, count(&target, "own.log").await), (0, own));
    // Not even where somebody switches the scheduler on, or the server is started again.
    target.run(&["SET GLOBAL event_scheduler = ON"]).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(count(&target, "d.log").await, 0);
    target.run(&["SET GLOBAL event_scheduler = OFF"]).await;

    target.run(&["SET SESSION sql_log_bin = 0", "CREATE TABLE d.y (a INT PRIMARY KEY)"]).await;
    let here = replaying::position(&target.options()).await.unwrap().to_string();
    let way = route(&store, &beginning(&source, &here), &ReplayTarget::End, &[]).await.unwrap();
    let options = ApplyOptions { means, again: true, ..ApplyOptions::default() };
    let applied = apply(&store.cx, &target.options(), repo, Arc::new(way), &options).await;
    let applied = applied.unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(applied.warnings, [""; 0]);
    assert_eq!(count(&target, "d.y").await, 2);
    let sql = "SELECT CONCAT_WS(' ', EVENT_NAME, STATUS) FROM information_schema.EVENTS WHERE EVENT_SCHEMA = 'd' \
               ORDER BY 1";
    let events: Vec<String> = target.session().await.query_rows(sql).await.unwrap();
    assert_eq!(events, ["off DISABLED", "renamed ENABLED"]);
    let sql = "SELECT @@GLOBAL.event_scheduler, (SELECT COUNT(*) FROM information_schema.schemata WHERE \
               schema_name LIKE 'holdfast%')";
    let left: Option<(String, u64)> = target.session().await.query_first(sql).await.unwrap();
    assert_eq!(left, Some(("ON".to_owned(), 0)));
}
