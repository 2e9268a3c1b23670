//! Times and positions as points, transactions left out, and targets that go on.

use std::sync::Arc;
use std::time::Duration;

use backup_core::{Context, ErrorKind, ReplayBase, ReplayTarget};
use backup_drivers::binlog::replay::{self as replaying, ApplyOptions, Means, apply};
use backup_drivers::binlog::{Route, Transaction};
use jiff::Timestamp;
use rstest::rstest;

use crate::replay::{beginning, position, replay, route};
use crate::server::Server;
use crate::store::Store;

async fn rows(server: &Server) -> String {
    let sql = "SELECT GROUP_CONCAT(id ORDER BY id) FROM d.t";
    server.session().await.query_first::<Option<String>>(sql).await.unwrap().flatten().unwrap()
}

fn inserted(transaction: Option<&Transaction>) -> u64 {
    transaction.unwrap().tables.values().map(|table| table.inserted).sum()
}

async fn to(store: &Store, base: &ReplayBase, point: &ReplayTarget) -> Route {
    route(store, base, point, &[]).await.unwrap_or_else(|e| panic!("{point}: {}", e.report()))
}

#[rstest]
#[tokio::test]
async fn times_positions_and_gaps_of_ones_own_choice(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let source = Server::start(name, |builder| builder.option("binlog_format", "ROW")).await;
    let store = Store::new().await;
    source.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)"]).await;
    let mut session = source.session().await;
    let mut times = Vec::new();
    let mut positions = Vec::new();
    for id in 1..=4 {
        // MariaDB's times are full seconds.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        times.push(Timestamp::now());
        session.run(&format!("INSERT INTO d.t VALUES ({id})")).await.unwrap();
        let sql =
            if name.starts_with("mysql") { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" };
        let row: mysql_async::Row = session.query_first(sql).await.unwrap().unwrap();
        positions.push((row.get::<String, _>(0).unwrap(), row.get::<u64, _>(1).unwrap()));
        if id == 2 {
            session.run("FLUSH BINARY LOGS").await.unwrap();
        }
        if id % 2 == 1 {
            store.archive(&source).await;
        }
    }
    store.archive(&source).await;
    let base = beginning(&source, "");

    let third = ReplayTarget::Time(times[2]);
    let way = to(&store, &base, &third).await;
    assert_eq!(inserted(way.last.as_ref()), 1);
    assert_eq!(inserted(way.first_left_out.as_ref()), 1);
    assert!(way.last.as_ref().unwrap().time < way.first_left_out.as_ref().unwrap().time);
    let target = Server::start(name, |builder| builder).await;
    replay(&store, &target, way).await;
    assert_eq!(rows(&target).await, "1,2");

    // From there on to a position, and without one transaction; then to the end.
    let (file, offset) = positions[2].clone();
    let here = async || {
        let gtid = replaying::position(&target.options()).await.unwrap();
        beginning(&source, &gtid.to_string())
    };
    let options = ApplyOptions::default();
    let position = ReplayTarget::Position { server: None, file: file.clone(), offset };
    let way = to(&store, &here().await, &position).await;
    let skip = way.last.as_ref().unwrap().gtid.clone().unwrap();
    let way = route(&store, &here().await, &position, &[&skip]).await.unwrap();
    let repo = Arc::new(store.repo.clone());
    apply(&store.cx, &target.options(), repo.clone(), Arc::new(way), &options).await.unwrap();
    assert_eq!(rows(&target).await, "1,2", "the third is skipped");
    // A position inside a transaction is before it.
    let inside = ReplayTarget::Position { server: None, file, offset: offset - 1 };
    let second = to(&store, &base, &inside).await;
    assert_eq!(second.reached, to(&store, &base, &third).await.reached);
    let way = to(&store, &here().await, &ReplayTarget::End).await;
    apply(&store.cx, &target.options(), repo.clone(), Arc::new(way), &options).await.unwrap();
    assert_eq!(rows(&target).await, "1,2,4", "what was skipped does not come back");
    // Nothing more to do.
    let way = to(&store, &here().await, &ReplayTarget::End).await;
    assert!(way.is_empty());
    apply(&store.cx, &target.options(), repo.clone(), Arc::new(way), &options).await.unwrap();

    // What cannot be applied is told with its GTID, and the target is left clean.
    let broken = Server::start(name, |builder| builder).await;
    let way = to(&store, &base, &third).await;
    replay(&store, &broken, way).await;
    broken.run(&["DROP TABLE d.t"]).await;
    let gtid = replaying::position(&broken.options()).await.unwrap();
    let way = to(&store, &beginning(&source, &gtid.to_string()), &ReplayTarget::End).await;
    let e = apply(&store.cx, &broken.options(), repo, Arc::new(way), &options).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Target, "{}", e.report());
    assert!(e.report().contains("1146"), "{}", e.report());
    let sql = if name.starts_with("mysql") { "SHOW REPLICA STATUS" } else { "SHOW SLAVE STATUS" };
    let left: Vec<mysql_async::Row> = broken.session().await.query_rows(sql).await.unwrap();
    assert!(left.is_empty());
    let id: Option<u64> =
        broken.session().await.query_first("SELECT @@GLOBAL.server_id").await.unwrap();
    assert_eq!(id, Some(1));
}

/// A replay that begins in the middle of a piece, and ends in the middle of one, has done everything then.
#[rstest]
#[tokio::test]
async fn what_is_expected_is_what_is_done(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
    #[values(Means::Replica, Means::Direct)] means: Means,
) {
    let source = Server::start(name, |builder| builder.option("binlog_format", "ROW")).await;
    let store = Store::new().await;
    source
        .run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY)"])
        .await;
    let insert = ["INSERT INTO d.t VALUES (NULL)"; 20];
    source.run(&insert).await;
    let half = position(&source).await;
    source.run(&insert).await;
    let three = position(&source).await;
    source.run(&insert).await;
    source.run(&["FLUSH BINARY LOGS"]).await;
    source.run(&insert).await;
    store.archive(&source).await;
    let target = Server::start(name, |builder| builder.option("server_id", "2")).await;
    let at = |set: &backup_core::GtidSet| ReplayTarget::Gtid(set.last().unwrap());
    let points = [at(&half), at(&three), ReplayTarget::End];
    let mut base = beginning(&source, "");
    for (point, done) in points.iter().zip([22, 20, 40]) {
        let way = to(&store, &base, point).await;
        base = beginning(&source, &way.reached.as_ref().unwrap().to_string());
        let cx = Context::builder().build();
        let options = ApplyOptions { means, ..ApplyOptions::default() };
        let repo = Arc::new(store.repo.clone());
        apply(&cx, &target.options(), repo, Arc::new(way), &options)
            .await
            .unwrap_or_else(|e| panic!("{}", e.report()));
        let counts = cx.progress().snapshot();
        assert_eq!((counts.transactions, counts.expected_transactions), (done, done), "{point}");
        assert_eq!(counts.bytes, counts.expected_bytes, "{point}");
        assert!(counts.bytes > 0);
    }
}
