//! Binlogs that are rescued into the archive of a cluster: of a new server of it, and of another cluster's.

use std::path::Path;

use backup_core::{
    ErrorKind, GtidSet, MariaDbBinlogState, MariaDbGtid, MySqlGtidSet, Position, ReplayBase,
};
use backup_drivers::binlog::event::{Checksum, Event, Header};
use backup_drivers::binlog::{Received, RescueOptions, rescue, transactions_before};
use rstest::rstest;
use tempfile::TempDir;

use crate::failover::{catch_up, follow};
use crate::replay::position;
use crate::server::Server;
use crate::store::{Store, cluster};

async fn rescued(
    store: &Store,
    dead: &Server,
    options: RescueOptions,
) -> backup_core::Result<Received> {
    rescue(&store.cx, &store.repo, &cluster(), dead.0.datadir(), options).await
}

/// What a backup of the server says of it.
async fn backup_of(server: &Server) -> ReplayBase {
    let gtid = Some(position(server).await);
    ReplayBase { server: None, position: Position { gtid, ..Position::default() } }
}

#[rstest]
#[case::mysql("mysql-9.7", "log_replica_updates", "ON")]
#[case::mariadb("mariadb-10.11", "log_slave_updates", "ON")]
#[case::own_alone("mariadb-10.11", "log_slave_updates", "OFF")]
#[tokio::test]
async fn a_server_that_was_promoted_is_one_of_the_cluster(
    #[case] name: &str,
    #[case] variable: &str,
    #[case] updates: &str,
    #[values(false, true)] loses: bool,
) {
    let mysql = name.starts_with("mysql");
    let primary = Server::start(name, |builder| builder).await;
    let mut replica =
        Server::start(name, |builder| builder.option("server_id", "2").option(variable, updates))
            .await;
    let account =
        ["CREATE USER repl@'%' IDENTIFIED BY 'repl'", "GRANT REPLICATION SLAVE ON *.* TO repl@'%'"];
    primary.run(&account).await;
    follow(&replica, &primary).await;
    let store = Store::new().await;
    primary.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY, a TEXT)"]).await;
    let mut session = replica.session().await;
    catch_up(&mut session, &primary).await;
    session.run(if mysql { "STOP REPLICA" } else { "STOP SLAVE" }).await.unwrap();
    let mut backup = backup_of(&primary).await;
    if loses {
        primary.run(&["INSERT INTO d.t VALUES (1, 'lost')"]).await;
    }
    store.archive(&primary).await;
    drop(primary);
    session.run(if mysql { "RESET REPLICA ALL" } else { "RESET SLAVE ALL" }).await.unwrap();
    replica.run(&["FLUSH BINARY LOGS", "INSERT INTO d.t VALUES (2, 'after')"]).await;
    session.close().await.unwrap();
    replica.0.kill();

    // By a backup alone it is known too.
    let other = Store::new().await;
    backup.server = Some("id-1".parse().unwrap());
    let options = RescueOptions { backups: vec![backup], ..RescueOptions::default() };
    let received = rescued(&other, &replica, options).await;
    assert!(received.unwrap_or_else(|e| panic!("{}", e.report())).transactions > 0);
    // A MariaDB that has lost a number gives it to another transaction: what follows is not next.
    let received = rescued(&store, &replica, RescueOptions::default()).await;
    if loses && updates == "OFF" {
        let e = received.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Usage, "{}", e.report());
        return;
    }
    let received = received.unwrap_or_else(|e| panic!("{}", e.report()));
    assert!(received.transactions > 0);
    let told = received.warnings.iter().any(|text| text.contains("lost in a failover"));
    assert_eq!(told, loses, "{:?}", received.warnings);
}

/// Nothing of it is archived, however much it has, unless somebody knows better.
#[rstest]
#[tokio::test]
async fn binlogs_of_another_cluster_are_refused(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
    #[values(false, true)] archived: bool,
    #[values(0, 20)] more: usize,
) {
    let ours = Server::start(name, |builder| builder).await;
    let mut other = Server::start(name, |builder| builder.option("server_id", "77")).await;
    let work = ["CREATE DATABASE d", "CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY)"];
    ours.run(&work).await;
    other.run(&work).await;
    other.run(&vec!["INSERT INTO d.t VALUES (NULL)"; more]).await;
    other.run(&["FLUSH BINARY LOGS", "INSERT INTO d.t VALUES (NULL)"]).await;
    other.0.kill();
    let store = Store::new().await;
    // Without a word about the cluster there is nothing to go by.
    if archived {
        store.archive(&ours).await;
    }
    let before = store.segments().await;
    let mut backup = backup_of(&ours).await;
    backup.server = Some("id-1".parse().unwrap());
    let options = RescueOptions { backups: vec![backup], ..RescueOptions::default() };
    let e = rescued(&store, &other, options.clone()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Usage, "{}", e.report());
    assert!(e.report().contains("--anyway"), "{}", e.report());
    assert_eq!(store.segments().await, before);
    let received = rescued(&store, &other, RescueOptions { anyway: true, ..options }).await;
    assert!(received.unwrap_or_else(|e| panic!("{}", e.report())).transactions > 0);
    // Now the cluster knows it.
    rescued(&store, &other, RescueOptions::default()).await.unwrap();
    assert!(store.segments().await.len() > before.len());
}

/// Lets a binlog say that one transaction less came before it.
fn retell(binlog: &Path) {
    let mut bytes = std::fs::read(binlog).unwrap();
    let mut at = 4;
    loop {
        let end = at + Header::parse(&bytes[at..]).unwrap().len as usize;
        let event = Event::check(bytes[at..end].to_vec().into(), Checksum::Crc32).unwrap();
        let body = match transactions_before(&event).unwrap() {
            Some(GtidSet::MySql(set)) => {
                let (tsid, range) = set.intervals().next().unwrap();
                let mut fewer = MySqlGtidSet::default();
                fewer.add_range(tsid.clone(), *range.start()..=range.end() - 1).unwrap();
                fewer.encode()
            }
            Some(GtidSet::MariaDb(set)) => {
                let last = set.iter().next().unwrap();
                let mut fewer = MariaDbBinlogState::default();
                fewer.update(MariaDbGtid { seq: last.seq - 1, ..last });
                fewer.encode()
            }
            None => {
                at = end;
                continue;
            }
        };
        let told = Event::build(*event.header(), &body, Checksum::Crc32);
        bytes[at..end].copy_from_slice(told.bytes());
        std::fs::write(binlog, bytes).unwrap();
        return;
    }
}

/// These files of a dead server.
fn copied(dead: &Server, names: &[String]) -> TempDir {
    let place = TempDir::new().unwrap();
    for name in names.iter().map(String::as_str).chain(["auto.cnf"]) {
        // A MariaDB has none.
        let _ = std::fs::copy(dead.0.datadir().join(name), place.path().join(name));
    }
    place
}

/// A binlog of the same name, begun in the same second, that says that something else came before it: in the
/// middle of it, or behind the archive.
#[rstest]
#[tokio::test]
async fn a_binlog_of_another_past_is_refused(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
    #[values((true, "is not of the"), (false, "began anew"))] case: (bool, &str),
) {
    let (archived, says) = case;
    let mut dead = Server::start(name, |builder| builder.option("binlog_checksum", "CRC32")).await;
    let insert = "INSERT INTO d.t VALUES (NULL)";
    let table = "CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY)";
    dead.run(&["CREATE DATABASE d", table, insert]).await;
    let store = Store::new().await;
    store.archive(&dead).await;
    dead.run(&["FLUSH BINARY LOGS", insert]).await;
    if archived {
        // Two pieces of it: the last one has the same bytes.
        store.archive(&dead).await;
        dead.run(&[insert]).await;
        store.archive(&dead).await;
    }
    dead.run(&[insert]).await;
    let names = dead.binlogs().await;
    dead.0.kill();
    let before = store.segments().await;
    let last = names.last().unwrap();
    let place = copied(&dead, std::slice::from_ref(last));
    retell(&place.path().join(last));
    let go = async |place: &TempDir| {
        let options = RescueOptions::default();
        rescue(&store.cx, &store.repo, &cluster(), place.path(), options).await
    };
    let e = go(&place).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Source, "{}", e.report());
    assert!(e.report().contains(says), "{}", e.report());
    assert_eq!(store.segments().await, before);
    let received = go(&copied(&dead, std::slice::from_ref(last))).await;
    assert!(received.unwrap_or_else(|e| panic!("{}", e.report())).transactions > 0);
}
