//! A primary with two replicas is killed under load, one replica takes over, the other follows it, and
//! the archive goes on through all of it. All three write binlogs of the same names.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backup_core::{BinlogChain, Gtid, ReplayTarget};
use backup_drivers::binlog::find_transactions;
use backup_drivers::connect::Session;
use rstest::rstest;
use tokio::task::JoinHandle;

use crate::failover::{catch_up, follow};
use crate::replay::{beginning, position, replay, route};
use crate::server::Server;
use crate::store::Store;
use crate::trouble::{Following, archived};

/// Inserts rows, one a transaction, until told to stop or the server is gone; gives the last one that
/// was acknowledged.
fn load(server: &Server, from: u64, stop: Arc<AtomicBool>) -> JoinHandle<u64> {
    let options = server.options();
    tokio::spawn(async move {
        let mut session = Session::open(&options).await.unwrap();
        let mut id = from;
        while !stop.load(Ordering::Relaxed) {
            let sql = format!("INSERT INTO d.t VALUES ({}, REPEAT('x', {}))", id + 1, id % 300);
            if session.run(&sql).await.is_err() {
                break;
            }
            id += 1;
        }
        id
    })
}

async fn rows(server: &Server) -> (u64, Option<u64>) {
    let sql = "SELECT COUNT(*), MAX(id) FROM d.t";
    server.session().await.query_first(sql).await.unwrap().unwrap()
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_archive_goes_through_a_failover_under_load(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let mysql = name.starts_with("mysql");
    let updates = if mysql { "log_replica_updates" } else { "log_slave_updates" };
    let start = async |id: &str| {
        Server::start(name, |b| {
            b.option("server_id", id).option(updates, "ON").option("binlog_format", "ROW")
        })
        .await
    };
    let (mut primary, first, second) = (start("1").await, start("2").await, start("3").await);
    primary
        .run(&[
            "CREATE USER repl@'%' IDENTIFIED BY 'repl'",
            "GRANT REPLICATION SLAVE ON *.* TO repl@'%'",
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id BIGINT PRIMARY KEY, a VARCHAR(300))",
        ])
        .await;
    for replica in [&first, &second] {
        follow(replica, &primary).await;
    }
    let store = Store::new().await;
    let receiving = Following::start(&store, &primary, |options| options.segment_bytes = 64 << 10);
    let stop = Arc::new(AtomicBool::new(false));
    let work = load(&primary, 0, Arc::clone(&stop));
    let mut there = primary.session().await;
    for n in 0..6 {
        while rows(&primary).await.0 < (n + 1) * 60 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        there.run("FLUSH BINARY LOGS").await.unwrap();
    }
    primary.0.kill();
    let acknowledged = work.await.unwrap();
    // What it has received comes to the archive, and no more.
    let received = receiving.end().await.unwrap_or_else(|e| panic!("{}", e.report()));
    assert!(received.transactions > 100, "{received:?}");

    // The first replica takes over with what it has.
    let mut session = first.session().await;
    let words = if mysql {
        ["STOP REPLICA", "RESET REPLICA ALL"]
    } else {
        ["STOP SLAVE", "RESET SLAVE ALL"]
    };
    for sql in words {
        session.run(sql).await.unwrap();
    }
    let kept = rows(&first).await;
    assert_eq!(Some(kept.0), kept.1, "a hole");
    second.run(&words).await;
    // What only the other one has got is no reason to lose it as a replica here.
    let more = rows(&second).await;
    if more.0 <= kept.0 {
        follow(&second, &first).await;
    }
    let receiving = Following::start(&store, &first, |options| options.segment_bytes = 64 << 10);
    let work = load(&first, kept.0, Arc::clone(&stop));
    while rows(&first).await.0 < kept.0 + 150 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let last = work.await.unwrap();
    archived(&store, &first).await;
    receiving.end().await.unwrap_or_else(|e| panic!("{}", e.report()));
    if more.0 <= kept.0 {
        catch_up(&mut second.session().await, &first).await;
        assert_eq!(rows(&second).await, rows(&first).await);
    }
    assert!(last >= kept.0 + 150 && acknowledged >= 360, "{last} {acknowledged}");

    // Nothing is missing, and the way leads to the end.
    let segments = store.segments().await;
    let servers: std::collections::BTreeSet<_> =
        segments.iter().map(|s| s.server.clone()).collect();
    assert_eq!(servers.len(), 2, "{servers:?}");
    let mut names: Vec<_> =
        segments.iter().map(|s| (s.server.clone(), s.range.file.clone())).collect();
    names.dedup();
    let common =
        names.iter().filter(|(_, file)| names.iter().filter(|(_, f)| f == file).count() > 1);
    assert!(common.count() > 0, "no file of the same name: {names:?}");
    let chain = BinlogChain::new(segments.clone());
    assert!(chain.gaps().is_empty());
    let base = beginning(&first, "");
    assert!(chain.reach(&base).unwrap().whole);

    // Which transaction inserted which row, in the line that lives on.
    let promoted = segments.iter().map(|s| s.server.clone()).find(|server| {
        segments.iter().filter(|s| s.server == *server).any(|s| s.holds(&last_gtid(&segments)))
    });
    let promoted = promoted.unwrap();
    let of_first: Vec<_> = segments.iter().filter(|s| s.server == promoted).cloned().collect();
    let inserts = find_transactions(&store.cx, &store.repo, &of_first, usize::MAX, |t| {
        t.tables.contains_key("d.t")
    })
    .await
    .unwrap();
    let inserts: Vec<Gtid> = inserts.transactions.into_iter().map(|t| t.gtid.unwrap()).collect();
    assert_eq!(inserts.len() as u64, last, "each row once");
    let end = position(&first).await;
    let points = [60, kept.0 - 1, kept.0, kept.0 + 1, kept.0 + 100, last];
    for row in points {
        let point = ReplayTarget::Gtid(inserts[row as usize - 1].clone());
        let way = route(&store, &base, &point, &[])
            .await
            .unwrap_or_else(|e| panic!("{row}: {}", e.report()));
        let target = Server::start(name, |builder| builder).await;
        replay(&store, &target, way).await;
        assert_eq!(rows(&target).await, (row, Some(row)), "{point}");
    }
    let way = route(&store, &base, &ReplayTarget::End, &[]).await.unwrap();
    assert_eq!(way.reached, Some(end));
}

/// The newest transaction of the archive.
fn last_gtid(segments: &[backup_core::SegmentInfo]) -> Gtid {
    let newest = segments.iter().max_by_key(|s| (s.last_time, s.archived_at)).unwrap();
    match newest.after.difference(&newest.before).unwrap() {
        backup_core::GtidDifference::MySql(set) => {
            let tsid = set.tsids().next().unwrap().clone();
            backup_core::MySqlGtid::new(tsid.clone(), set.last(&tsid).unwrap()).unwrap().into()
        }
        backup_core::GtidDifference::MariaDb(_) => match &newest.after {
            backup_core::GtidSet::MariaDb(set) => set.get(0).unwrap().into(),
            backup_core::GtidSet::MySql(_) => unreachable!(),
        },
    }
}
