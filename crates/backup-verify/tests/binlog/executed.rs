//! Targets that have executed already what is to be applied.

use std::sync::Arc;

use backup_core::{BinlogServer, ErrorKind, Position, ReplayBase, ReplayTarget};
use backup_drivers::binlog::Route;
use backup_drivers::binlog::replay::{ApplyOptions, apply, preflight};

use crate::replay::{beginning, position, route};
use crate::server::Server;
use crate::store::Store;

/// What is said against the target, if anything.
async fn refusal(
    store: &Store,
    target: &Server,
    route: &Route,
    options: &ApplyOptions,
) -> Option<String> {
    let repo = Arc::new(store.repo.clone());
    let route = Arc::new(route.clone());
    let e = preflight(&store.cx, &target.options(), repo, &route, options).await.err()?;
    assert_eq!(e.kind(), ErrorKind::Target, "{}", e.report());
    Some(e.report())
}

fn restored() -> ApplyOptions {
    ApplyOptions { tell_applied: true, ..ApplyOptions::default() }
}

const ROWS: [&str; 4] = [
    "INSERT INTO d.t VALUES (1)",
    "INSERT INTO d.t VALUES (2), (3)",
    "UPDATE d.t SET id = id + 10",
    "DELETE FROM d.t WHERE id = 11",
];

#[tokio::test]
async fn a_mariadb_that_has_executed_it_is_refused() {
    let source = Server::start("mariadb-10.11", |builder| builder).await;
    source.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)"]).await;
    let before = position(&source).await.to_string();
    source.run(&ROWS).await;
    let store = Store::new().await;
    store.archive(&source).await;
    let base = beginning(&source, &before);
    let way = route(&store, &base, &ReplayTarget::End, &[]).await.unwrap();
    let all = route(&store, &beginning(&source, ""), &ReplayTarget::End, &[]).await.unwrap();
    let going_on = ApplyOptions::default();

    // The server that wrote them, by its own binlog.
    for options in [restored(), going_on.clone()] {
        let said = refusal(&store, &source, &way, &options).await.unwrap();
        assert!(said.contains("wrote these binlogs itself"), "{said}");
    }
    let again = ApplyOptions { again: true, ..restored() };
    assert_eq!(refusal(&store, &source, &way, &again).await, None);
    // Nothing is executed twice by `apply` either.
    let repo = Arc::new(store.repo.clone());
    let way_again = Arc::new(way.clone());
    let e = apply(&store.cx, &source.options(), repo.clone(), way_again.clone(), &restored()).await;
    assert_eq!(e.unwrap_err().kind(), ErrorKind::Target);

    // Another one with the same server_id, whose own transactions have those numbers.
    let other = Server::start("mariadb-10.11", |builder| builder).await;
    other
        .run(&[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY)",
            "CREATE TABLE d.u (a INT)",
        ])
        .await;
    other
        .run(&["INSERT INTO d.u VALUES (1)", "INSERT INTO d.u VALUES (2)", "DROP TABLE d.u"])
        .await;
    assert_eq!(refusal(&store, &other, &way, &restored()).await, None);
    // Without its binlogs nobody can tell.
    other.run(&["FLUSH BINARY LOGS"]).await;
    // What somebody was reading a moment ago is not purged yet.
    while other.binlogs().await.len() > 1 {
        other.run(&["PURGE BINARY LOGS TO 'binlog.000002'"]).await;
    }
    let said = refusal(&store, &other, &way, &restored()).await.unwrap();
    assert!(said.contains("cannot be told") && said.contains("--apply-again"), "{said}");
    let applied = apply(&store.cx, &other.options(), repo, way_again, &again).await;
    applied.unwrap_or_else(|e| panic!("{}", e.report()));
    let ids: Option<String> =
        other.session().await.query_first("SELECT GROUP_CONCAT(id) FROM d.t").await.unwrap();
    assert_eq!(ids.as_deref(), Some("12,13"));

    // It has them as a replica has: in its binlog, or in its position.
    let replica = Server::start("mariadb-10.11", |builder| builder.option("server_id", "2")).await;
    replica.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)"]).await;
    assert_eq!(refusal(&store, &replica, &way, &restored()).await, None, "its own mean nothing");
    let said = refusal(&store, &replica, &all, &going_on).await.unwrap();
    assert!(said.contains("does not know which transactions"), "{said}");
    replica.run(&[&format!("SET GLOBAL gtid_slave_pos = '{}'", position(&source).await)]).await;
    let said = refusal(&store, &replica, &way, &restored()).await.unwrap();
    assert!(said.contains("gtid_slave_pos"), "{said}");
    replica.run(&["SET GLOBAL gtid_slave_pos = ''"]).await;
    let mut session = replica.session().await;
    for sql in ["SET server_id = 1", "SET gtid_seq_no = 6", "INSERT INTO d.t VALUES (13)"] {
        session.run(sql).await.unwrap();
    }
    let said = refusal(&store, &replica, &way, &restored()).await.unwrap();
    assert!(said.contains("its binlog has 0-1-6"), "{said}");
}

#[tokio::test]
async fn a_mysql_without_gtids_that_wrote_them_is_refused() {
    let off = |builder: backup_drivers::sandbox::SandboxBuilder| {
        builder.option("gtid_mode", "OFF").option("enforce_gtid_consistency", "OFF")
    };
    let source = Server::start("mysql-9.7", off).await;
    source.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)"]).await;
    source.run(&ROWS).await;
    let store = Store::new().await;
    store.archive(&source).await;
    let uuid: Option<String> =
        source.session().await.query_first("SELECT @@server_uuid").await.unwrap();
    let base = ReplayBase {
        server: Some(uuid.unwrap().parse::<BinlogServer>().unwrap()),
        position: Position::at(source.binlogs().await[0].clone(), 4),
    };
    let way = route(&store, &base, &ReplayTarget::End, &[]).await.unwrap();
    let said = refusal(&store, &source, &way, &restored()).await.unwrap();
    assert!(said.contains("it wrote"), "{said}");
    let target = Server::start("mysql-9.7", off).await;
    assert_eq!(refusal(&store, &target, &way, &restored()).await, None);
}
