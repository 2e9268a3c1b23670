//! A primary dies, a replica takes over, and the archive goes on.

use backup_core::{BinlogChain, Flavor, ReplayTarget};
use backup_drivers::connect::Session;
use rstest::rstest;

use crate::replay::{beginning, content, position, replay, route};
use crate::server::Server;
use crate::store::Store;

pub(crate) async fn follow(replica: &Server, primary: &Server) {
    let port = primary.0.port().unwrap();
    let statements = match replica.0.install().flavor() {
        Flavor::MySql => [
            format!(
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, \
                 SOURCE_USER = 'repl', SOURCE_PASSWORD = 'repl', SOURCE_AUTO_POSITION = 1, \
                 SOURCE_SSL = 1, SOURCE_CONNECT_RETRY = 1"
            ),
            "START REPLICA".to_owned(),
        ],
        Flavor::MariaDb => [
            format!(
                "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, \
                 MASTER_USER = 'repl', MASTER_PASSWORD = 'repl', MASTER_USE_GTID = slave_pos, \
                 MASTER_CONNECT_RETRY = 1"
            ),
            "START SLAVE".to_owned(),
        ],
    };
    let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
    replica.run(&statements).await;
}

/// Waits until the replica has what the primary has.
pub(crate) async fn catch_up(replica: &mut Session, primary: &Server) {
    let there = position(primary).await;
    let sql = match primary.0.install().flavor() {
        Flavor::MySql => format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{there}', 60)"),
        Flavor::MariaDb => format!("SELECT MASTER_GTID_WAIT('{there}', 60)"),
    };
    let answer: Option<i64> = replica.query_first(&sql).await.unwrap();
    assert_eq!(answer, Some(0));
}

#[rstest]
#[tokio::test]
async fn the_archive_goes_on_with_another_server(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let mysql = name.starts_with("mysql");
    let primary = Server::start(name, |builder| builder).await;
    let updates = if mysql { "log_replica_updates" } else { "log_slave_updates" };
    let replica =
        Server::start(name, |builder| builder.option("server_id", "2").option(updates, "ON")).await;
    primary
        .run(&[
            "CREATE USER repl@'%' IDENTIFIED BY 'repl'",
            "GRANT REPLICATION SLAVE ON *.* TO repl@'%'",
        ])
        .await;
    follow(&replica, &primary).await;
    let store = Store::new().await;
    primary
        .run(&[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT PRIMARY KEY, a TEXT)",
            "INSERT INTO d.t VALUES (1, 'before')",
            "FLUSH BINARY LOGS",
            "INSERT INTO d.t VALUES (2, 'before')",
        ])
        .await;
    let mut session = replica.session().await;
    catch_up(&mut session, &primary).await;
    let before = (position(&primary).await, content(&primary).await);
    // The replica is cut off; what the primary writes now is archived, and lost to the cluster.
    session.run(if mysql { "STOP REPLICA" } else { "STOP SLAVE" }).await.unwrap();
    primary
        .run(&["INSERT INTO d.t VALUES (3, 'lost')", "INSERT INTO d.t VALUES (4, 'lost')"])
        .await;
    let lost = (position(&primary).await, content(&primary).await);
    store.archive(&primary).await;
    drop(primary);
    // Promoted: it goes on where it stood.
    session.run(if mysql { "RESET REPLICA ALL" } else { "RESET SLAVE ALL" }).await.unwrap();
    replica
        .run(&["INSERT INTO d.t VALUES (5, 'after')", "UPDATE d.t SET a = 'changed' WHERE id = 1"])
        .await;
    let between = (position(&replica).await, content(&replica).await);
    replica
        .run(&[
            "FLUSH BINARY LOGS",
            "INSERT INTO d.t VALUES (3, 'another')",
            "DELETE FROM d.t WHERE id = 2",
        ])
        .await;
    let received = store.archive(&replica).await;
    assert_eq!(received.warnings.len(), usize::from(mysql), "{received:?}");
    let end = content(&replica).await;
    assert_ne!(end, lost.1);

    let base = beginning(&replica, "");
    let last = |gtids: &backup_core::GtidSet, mine: u32| match gtids {
        backup_core::GtidSet::MariaDb(set) => {
            let gtid = set.get(0).unwrap();
            assert_eq!(gtid.server, mine);
            ReplayTarget::Gtid(gtid.into())
        }
        backup_core::GtidSet::MySql(set) => {
            // The newest of the server that wrote it.
            let tsid = if mine == 1 {
                before.0.difference(&backup_core::GtidSet::empty(Flavor::MySql)).unwrap();
                match &before.0 {
                    backup_core::GtidSet::MySql(old) => old.tsids().next().unwrap().clone(),
                    backup_core::GtidSet::MariaDb(_) => unreachable!(),
                }
            } else {
                let old: Vec<_> = match &before.0 {
                    backup_core::GtidSet::MySql(old) => old.tsids().cloned().collect(),
                    backup_core::GtidSet::MariaDb(_) => unreachable!(),
                };
                set.tsids().find(|tsid| !old.contains(tsid)).unwrap().clone()
            };
            let gno = set.last(&tsid).unwrap();
            ReplayTarget::Gtid(backup_core::MySqlGtid::new(tsid, gno).unwrap().into())
        }
    };
    for (point, expected) in [
        (last(&before.0, 1), &before.1),
        (last(&lost.0, 1), &lost.1),
        (last(&between.0, 2), &between.1),
        (ReplayTarget::End, &end),
    ] {
        let target = Server::start(name, |builder| builder).await;
        let route =
            route(&store, &base, &point, &[]).await.unwrap_or_else(|e| panic!("{}", e.report()));
        replay(&store, &target, route).await;
        assert_eq!(content(&target).await, *expected, "{point}");
    }
    assert!(BinlogChain::new(store.segments().await).gaps().is_empty());
}
