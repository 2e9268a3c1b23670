//! Appliers of a MariaDB that stand in each other's way.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup_core::{Context, Event, Monitor, ReplayTarget};
use backup_drivers::binlog::replay::{ApplyOptions, Means, apply};
use rstest::rstest;
use tokio::time::timeout;

use crate::replay::{beginning, content, position, route};
use crate::server::Server;
use crate::store::Store;

/// Far more than what is replayed here takes.
const LIMIT: Duration = Duration::from_secs(50);

fn replica() -> ApplyOptions {
    ApplyOptions { means: Means::Replica, tell_applied: true, ..ApplyOptions::default() }
}

const CREATE: [&str; 3] = [
    "CREATE SEQUENCE d.q CACHE 5",
    "CREATE TABLE d.sq (a BIGINT DEFAULT NEXTVAL(d.q), b INT)",
    "CREATE TABLE d.x (a INT)",
];

/// A change of a sequence between transactions that use it.
async fn change(source: &Server, rounds: u32) {
    let mut session = source.session().await;
    for n in 0..rounds {
        for sql in [
            "INSERT INTO d.sq (b) VALUES (1), (2), (3), (4), (5), (6), (7)".to_owned(),
            format!("SELECT SETVAL(d.q, {})", 100 * (n + 1)),
            format!("ALTER SEQUENCE d.q INCREMENT BY {} CYCLE", n % 7 + 1),
            "INSERT INTO d.sq (b) SELECT b FROM d.sq LIMIT 20".to_owned(),
            "INSERT INTO d.x VALUES (1)".to_owned(),
            "INSERT INTO d.x VALUES (2)".to_owned(),
        ] {
            session.run(&sql).await.unwrap_or_else(|e| panic!("{}", e.report()));
        }
    }
}

const MODE: &str =
    "SELECT CONCAT(@@GLOBAL.slave_parallel_mode, ' ', @@GLOBAL.slave_parallel_threads)";

#[rstest]
#[tokio::test]
async fn sequences_do_not_stop_the_appliers(
    #[values("mariadb-10.11", "mariadb-11.8")] name: &str,
    #[values(true, false)] there: bool,
) {
    let source = Server::start(name, |builder| builder).await;
    source.run(&["CREATE DATABASE d"]).await;
    let mut begin = String::new();
    if there {
        source.run(&CREATE).await;
        begin = position(&source).await.to_string();
    } else {
        // Behind much that is applied together.
        for id in 0..20 {
            source.run(&[&format!("CREATE TABLE d.t{id} (a INT)")]).await;
        }
        source.run(&CREATE).await;
    }
    change(&source, 20).await;
    let store = Store::new().await;
    store.archive(&source).await;
    let target = Server::start(name, |builder| builder.option("server_id", "2")).await;
    if there {
        let unlogged = ["SET SESSION sql_log_bin = 0", "CREATE DATABASE d"];
        target.run(&[&unlogged[..], &CREATE].concat()).await;
    }
    let mode: Option<String> = target.session().await.query_first(MODE).await.unwrap();
    let way = route(&store, &beginning(&source, &begin), &ReplayTarget::End, &[]).await.unwrap();
    let repo = Arc::new(store.repo.clone());
    let (to, options) = (target.options(), replica());
    let applied = timeout(LIMIT, apply(&store.cx, &to, repo, Arc::new(way), &options)).await;
    let applied = applied.expect("it ends").unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(applied.warnings, [""; 0]);
    assert_eq!(content(&target).await, content(&source).await);
    let next = "SELECT CONCAT_WS(' ', next_not_cached_value, increment, cycle_option) FROM d.q";
    let next = async |server: &Server| server.session().await.query_first::<String>(next).await;
    assert_eq!(next(&target).await.unwrap(), next(&source).await.unwrap());
    assert_eq!(target.session().await.query_first::<String>(MODE).await.unwrap(), mode);
}

/// What was said.
#[derive(Debug, Default)]
struct Notes(Mutex<Vec<String>>);

impl Monitor for Notes {
    fn event(&self, event: Event) {
        if let Event::Note { text } = event {
            self.0.lock().unwrap().push(text);
        }
    }
}

/// One that waits for a lock, and others that wait for it: they are freed, it is said, and one goes on alone.
#[rstest]
#[tokio::test]
async fn appliers_that_wait_for_each_other_are_freed(
    #[values("mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let source = Server::start(name, |builder| builder).await;
    source
        .run(&["CREATE DATABASE d", "CREATE TABLE d.t (a INT)", "CREATE TABLE d.x (a INT)"])
        .await;
    let begin = position(&source).await.to_string();
    source.run(&["INSERT INTO d.t VALUES (1)"]).await;
    for n in 0..20 {
        source.run(&[&format!("INSERT INTO d.x VALUES ({n})")]).await;
    }
    let store = Store::new().await;
    store.archive(&source).await;
    let target = Server::start(name, |builder| builder.option("server_id", "2")).await;
    target
        .run(&[
            "SET SESSION sql_log_bin = 0",
            "CREATE DATABASE d",
            "CREATE TABLE d.t (a INT)",
            "CREATE TABLE d.x (a INT)",
        ])
        .await;
    let mode: Option<String> = target.session().await.query_first(MODE).await.unwrap();
    let mut holder = target.session().await;
    holder.run("LOCK TABLES d.t READ").await.unwrap();
    let way = route(&store, &beginning(&source, &begin), &ReplayTarget::End, &[]).await.unwrap();
    let notes = Arc::new(Notes::default());
    let cx = Context::builder().monitor(notes.clone()).build();
    let repo = Arc::new(store.repo.clone());
    let (to, options) = (target.options(), replica());
    let run = tokio::spawn(async move { apply(&cx, &to, repo, Arc::new(way), &options).await });
    let said = |part: &str| notes.0.lock().unwrap().iter().any(|text| text.contains(part));
    let freed = async {
        while !said("goes on alone") && !run.is_finished() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        // It waits for the same lock, alone.
        let alone = "SELECT @@GLOBAL.slave_parallel_threads";
        while target.session().await.query_first::<u8>(alone).await.unwrap() != Some(0) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(120), freed).await.expect("they are freed");
    assert!(said("has committed nothing for 6"), "{notes:?}");
    holder.run("UNLOCK TABLES").await.unwrap();
    let applied = timeout(LIMIT, run).await.expect("it ends").unwrap();
    applied.unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(content(&target).await, content(&source).await);
    assert_eq!(target.session().await.query_first::<String>(MODE).await.unwrap(), mode);
}
