//! New replicas, seeded from a backup and the archive.

use std::sync::Arc;

use backup_core::{ErrorKind, Flavor, GtidSet, ReplayBase, ReplayTarget, pipeline};
use backup_drivers::binlog::replay::{ApplyOptions, apply};
use backup_drivers::connect::{ConnectOptions, SslMode};
use backup_drivers::follow::{can_be_followed, can_follow, follow};
use backup_drivers::logical::{LogicalRestore, LogicalRestoreOptions};
use rstest::rstest;

use crate::aside::{back_up, way};
use crate::replay::{content, position};
use crate::server::Server;
use crate::store::Store;

fn over_tcp(source: &Server) -> ConnectOptions {
    let port = source.0.port().unwrap();
    ConnectOptions::tcp("127.0.0.1", port, "repl")
        .with_password(backup_core::Secret::new("Secret-1".to_owned()))
        .with_ssl_mode(SslMode::Disabled)
}

#[rstest]
#[tokio::test]
async fn a_new_replica_from_the_archive(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let source = Server::start(name, |builder| builder).await;
    source
        .run(&[
            "CREATE USER repl@'127.0.0.1' IDENTIFIED BY 'Secret-1'",
            "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO repl@'127.0.0.1'",
            "SET GLOBAL event_scheduler = OFF",
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY)",
            "INSERT INTO d.t VALUES (1)",
            "CREATE EVENT d.tick ON SCHEDULE EVERY 1 SECOND DO DELETE FROM d.t",
        ])
        .await;
    let store = Store::new().await;
    let manifest = back_up(&store, &source).await;
    source.run(&["INSERT INTO d.t VALUES (2)", "FLUSH BINARY LOGS"]).await;
    let later = "CREATE EVENT d.later ON SCHEDULE EVERY 1 SECOND STARTS '2037-01-01 00:00:00' DO DELETE FROM d.t";
    source
        .run(&[later, "CREATE EVENT d.never ON SCHEDULE EVERY 1 DAY DISABLE DO DELETE FROM d.t"])
        .await;
    source.run(&["INSERT INTO d.t VALUES (3)"]).await;
    store.archive(&source).await;
    let last = source.binlogs().await.pop().unwrap();
    // What a dump that has just ended was reading is not purged yet.
    while source.binlogs().await.len() > 1 {
        source.run(&[&format!("PURGE BINARY LOGS TO '{last}'")]).await;
    }

    let replica = Server::start(name, |builder| {
        builder.option("server_id", "2").option("event_scheduler", "OFF")
    })
    .await;
    let at_backup = manifest.outcome.position.gtid.clone();
    let base = ReplayBase::of(&manifest);
    let (cx, from) = (&store.cx, over_tcp(&source));
    // What the backup lacks is gone at the source.
    let e = can_follow(cx, &replica.options(), &from, &base, at_backup.as_ref()).await;
    let e = e.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unreachable, "{}", e.report());
    let e = can_follow(cx, &source.options(), &from, &base, at_backup.as_ref()).await;
    assert_eq!(e.unwrap_err().kind(), ErrorKind::Target, "the same server");
    let options = LogicalRestoreOptions { binary_log: false, ..LogicalRestoreOptions::default() };
    let driver = LogicalRestore::new(replica.options(), options);
    pipeline::restore(&store.cx, &store.repo, &driver, &manifest).await.unwrap();
    if name.starts_with("mariadb") {
        let (target, from) = (replica.options(), over_tcp(&source));
        let e = follow(&store.cx, &target, &from, at_backup.as_ref().unwrap()).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unreachable, "{}", e.report());
        replica.run(&["STOP SLAVE", "RESET SLAVE ALL", "SET GLOBAL gtid_slave_pos = ''"]).await;
    }
    let route = way(&store, &manifest, &ReplayTarget::End).await;
    let reached: GtidSet = route.reached.clone().unwrap();
    can_follow(cx, &replica.options(), &from, &base, Some(&reached)).await.unwrap();
    let options = ApplyOptions { tell_applied: true, ..ApplyOptions::default() };
    let repo = Arc::new(store.repo.clone());
    apply(&store.cx, &replica.options(), repo, route, &options).await.unwrap();

    source.run(&["INSERT INTO d.t VALUES (4)"]).await;
    let following = follow(&store.cx, &replica.options(), &over_tcp(&source), &reached).await;
    let following = following.unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(following.warnings, [""; 0]);
    // Both would run them otherwise.
    let events = "SELECT CONCAT(event_name, ' ', status) FROM information_schema.events ORDER BY 1";
    let told: Vec<String> = replica.session().await.query_rows(events).await.unwrap();
    let elsewhere = if name.starts_with("mysql") { "REPLICA_SIDE" } else { "SLAVESIDE" };
    let elsewhere = |event| format!("{event} {elsewhere}_DISABLED");
    assert_eq!(told, [elsewhere("later"), "never DISABLED".into(), elsewhere("tick")]);
    assert_eq!(content(&replica).await, content(&source).await);
    assert_eq!(following.gtid, position(&source).await);
    source.run(&["INSERT INTO d.t VALUES (5)"]).await;
    let wait = match name.starts_with("mysql") {
        true => format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{}', 60)", position(&source).await),
        false => format!("SELECT MASTER_GTID_WAIT('{}', 60)", position(&source).await),
    };
    let arrived: Option<i64> = replica.session().await.query_first(&wait).await.unwrap();
    assert_eq!(arrived, Some(0), "it goes on by itself");

    // A password that is wrong is told in the server's words.
    let stop: &[&str] = match name.starts_with("mysql") {
        true => &["STOP REPLICA", "RESET REPLICA ALL"],
        false => &["STOP SLAVE", "RESET SLAVE ALL"],
    };
    replica.run(stop).await;
    source.run(&["RENAME USER repl@'127.0.0.1' TO other@'127.0.0.1'"]).await;
    let e = can_follow(cx, &replica.options(), &from, &base, Some(&reached)).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Connect, "{}", e.report());
}

/// An event that the target has run before it is a replica is told of: what it did there no source knows.
#[rstest]
#[tokio::test]
async fn events_that_a_new_replica_has_run(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let source = Server::start(name, |builder| builder).await;
    let account = "CREATE USER repl@'127.0.0.1' IDENTIFIED BY 'Secret-1'";
    let grant = "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO repl@'127.0.0.1'";
    source.run(&[account, grant, "CREATE DATABASE d"]).await;
    let replica = Server::start(name, |builder| builder.option("server_id", "2")).await;
    let event = "CREATE EVENT d.tick ON SCHEDULE EVERY 1 SECOND DO SET @a = 1";
    let before = ["SET SESSION sql_log_bin = 0", account, "CREATE DATABASE d", event];
    replica.run(&before).await;
    replica.run(&["SET GLOBAL event_scheduler = ON"]).await;
    let ran = "SELECT COUNT(*) FROM information_schema.events WHERE last_executed IS NOT NULL";
    while replica.session().await.query_first::<u8>(ran).await.unwrap() == Some(0) {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let at = position(&source).await;
    let store = Store::new().await;
    let following = follow(&store.cx, &replica.options(), &over_tcp(&source), &at).await.unwrap();
    let about = |warning: &&String| warning.contains("has run the events d.tick");
    assert_eq!(following.warnings.iter().filter(about).count(), 1, "{:?}", following.warnings);
}

/// However many transactions the other one has, and whatever it calls them.
#[rstest]
#[case("mysql-9.7", "7", "0")]
#[case("mariadb-10.11", "1", "0")]
#[case("mariadb-10.11", "7", "0")]
#[case("mariadb-10.11", "7", "5")]
#[tokio::test]
async fn a_server_of_another_history_is_no_source(
    #[case] name: &str,
    #[case] id: &str,
    #[case] domain: &str,
) {
    let source = Server::start(name, |builder| builder.option("server_id", "1")).await;
    source.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)"]).await;
    let store = Store::new().await;
    let manifest = back_up(&store, &source).await;
    let other = Server::start(name, |builder| {
        let builder = builder.option("server_id", id);
        if name.starts_with("mysql") { builder } else { builder.option("gtid_domain_id", domain) }
    })
    .await;
    let account = [
        "CREATE USER repl@'127.0.0.1' IDENTIFIED BY 'Secret-1'",
        "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO repl@'127.0.0.1'",
        "CREATE DATABASE e",
        "CREATE TABLE e.t (id INT PRIMARY KEY)",
    ];
    other.run(&account).await;
    for n in 0..20 {
        other.run(&[&format!("INSERT INTO e.t VALUES ({n})")]).await;
    }
    source.run(&account).await;
    let at = manifest.outcome.position.gtid.as_ref();
    let flavor = manifest.outcome.source.flavor;
    let base = ReplayBase::of(&manifest);
    let e = can_be_followed(&store.cx, &over_tcp(&other), flavor, &base, at).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Source, "{}", e.report());
    can_be_followed(&store.cx, &over_tcp(&source), flavor, &base, at).await.unwrap();
    if flavor == Flavor::MariaDb {
        // Where the binlog of the backup is gone, its transaction is known all the same.
        source.run(&["FLUSH BINARY LOGS"]).await;
        can_be_followed(&store.cx, &over_tcp(&source), flavor, &base, at).await.unwrap();
    }
}
