//! A replay whose process is killed (SIGKILL), and the next one that goes on.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use backup_core::{Context, ReplayTarget};
use backup_drivers::binlog::replay::{self as replaying, ApplyOptions, Means, apply, preflight};
use backup_drivers::connect::ConnectOptions;
use backup_storage::{Repo, RepositoryOptions, Unlock};
use rstest::rstest;

use crate::replay::{beginning, content, position, route};
use crate::server::Server;
use crate::store::{Store, cluster};

const TRANSACTIONS: u64 = 400;

/// What the child is told: repository, socket, means.
const TOLD: &str = "HOLDFAST_TEST_CHILD";

/// The process that is killed.
#[tokio::test]
#[ignore = "run by the test below, as a process of its own"]
async fn child() {
    let told = std::env::var(TOLD).unwrap();
    let [repository, socket, means, flavor] = told.split('|').collect::<Vec<_>>()[..] else {
        panic!("{told}")
    };
    let cx = Context::builder().build();
    let unlock = Some(Unlock::Passphrase(backup_core::Secret::new("secret".to_owned())));
    let options = RepositoryOptions { unlock, ..RepositoryOptions::default() };
    let repo = Repo::open(&cx, &repository.parse().unwrap(), options).await.unwrap();
    let listed = backup_core::SegmentStore::segments(&repo, &cx, &cluster()).await.unwrap();
    let chain =
        backup_core::BinlogChain::new(listed.into_iter().map(|l| l.info.unwrap()).collect());
    let flavor = match flavor {
        "mysql" => backup_core::Flavor::MySql,
        _ => backup_core::Flavor::MariaDb,
    };
    let base = backup_core::ReplayBase {
        server: None,
        position: backup_core::Position {
            gtid: Some(backup_core::GtidSet::empty(flavor)),
            ..backup_core::Position::default()
        },
    };
    let end = ReplayTarget::End;
    let plan = chain.plan(&base, &end).unwrap();
    let (skip, emptied) =
        (std::collections::BTreeSet::new(), backup_drivers::binlog::Skipping::Emptied);
    let way =
        backup_drivers::binlog::Route::resolve(&cx, &repo, &chain, &plan, &end, skip, emptied);
    let way = Arc::new(way.await.unwrap());
    let means = if means == "direct" { Means::Direct } else { Means::Replica };
    let options = ApplyOptions { means, tell_applied: true, ..ApplyOptions::default() };
    let target = ConnectOptions::socket(socket, "root");
    apply(&cx, &target, Arc::new(repo), way, &options).await.unwrap();
}

fn start(store: &Store, target: &Server, means: &str) -> Child {
    let flavor = match target.0.install().flavor() {
        backup_core::Flavor::MySql => "mysql",
        backup_core::Flavor::MariaDb => "mariadb",
    };
    let repository = store.path("repo");
    let told = format!("{}|{}|{means}|{flavor}", repository.display(), target.0.socket().display());
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::child", "--ignored"])
        .env(TOLD, told)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

async fn rows(target: &Server) -> u64 {
    let sql = "SELECT COUNT(*) FROM d.t";
    target.session().await.query_first::<u64>(sql).await.ok().flatten().unwrap_or(0)
}

#[rstest]
#[tokio::test]
async fn the_next_run_goes_on_and_puts_settings_back(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
    #[values("replica", "direct")] means: &str,
) {
    let rounds: u64 =
        std::env::var("HOLDFAST_TEST_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let source = Server::start(name, |builder| builder).await;
    let store = Store::new().await;
    source.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)"]).await;
    let event =
        "CREATE EVENT d.e ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01 00:00:00' DO DELETE FROM d.t";
    source.run(&[event]).await;
    let mut session = source.session().await;
    for id in 0..TRANSACTIONS {
        session.run(&format!("INSERT INTO d.t VALUES ({id})")).await.unwrap();
    }
    store.archive(&source).await;
    for round in 0..rounds {
        let target = Server::start(name, |builder| builder.option("server_id", "2")).await;
        let mut child = start(&store, &target, means);
        let wanted = (round * 37) % TRANSACTIONS;
        loop {
            if rows(&target).await > wanted {
                break;
            }
            if let Some(status) = child.try_wait().unwrap() {
                // It was quicker than we look.
                assert!(status.success(), "the child failed: {status}");
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        child.kill().unwrap();
        let ended = child.wait().unwrap();
        let status = "SELECT status FROM information_schema.events";
        let status: Option<String> = target.session().await.query_first(status).await.unwrap();
        // It would run in what is half applied.
        assert!(ended.success() || status.as_deref() != Some("ENABLED"), "{status:?}");
        let options = target.options();
        let here = replaying::position(&options).await.unwrap();
        let base = beginning(&source, &here.to_string());
        let way = route(&store, &base, &ReplayTarget::End, &[]).await.unwrap();
        let means = if means == "direct" { Means::Direct } else { Means::Replica };
        let options = ApplyOptions { means, ..ApplyOptions::default() };
        let (repo, way) = (Arc::new(store.repo.clone()), Arc::new(way));
        // As the command does; what it has to tell is told all the same.
        let look = preflight(&store.cx, &target.options(), repo.clone(), &way, &options).await;
        look.unwrap_or_else(|e| panic!("{}", e.report()));
        let applied = apply(&store.cx, &target.options(), repo, way, &options).await;
        let applied = applied.unwrap_or_else(|e| panic!("{}", e.report()));
        assert_eq!(content(&target).await, content(&source).await);
        // A run that ended before it was killed has put it right.
        let event = "SELECT status FROM information_schema.events";
        let event: Option<String> = target.session().await.query_first(event).await.unwrap();
        let told = applied.warnings.iter().any(|text| text.contains("`d`.`e`"));
        assert_eq!(event.as_deref() == Some("ENABLED"), !told, "{event:?} {:?}", applied.warnings);
        assert_eq!(replaying::position(&target.options()).await.unwrap(), position(&source).await);
        let now: Option<(u64, u64, String)> = target
            .session()
            .await
            .query_first(
                "SELECT @@GLOBAL.server_id, @@GLOBAL.innodb_flush_log_at_trx_commit, \
                 (SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name LIKE 'holdfast%')",
            )
            .await
            .unwrap();
        assert_eq!(now, Some((2, 1, "0".to_owned())));
    }
}

#[rstest]
#[tokio::test]
async fn the_way_to_the_target_is_encrypted(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let source = Server::start(name, |builder| builder).await;
    let store = Store::new().await;
    source.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)"]).await;
    source.run(&["INSERT INTO d.t VALUES (1), (2)"]).await;
    store.archive(&source).await;
    let target = Server::start(name, |builder| builder).await;
    let way = route(&store, &beginning(&source, ""), &ReplayTarget::End, &[]).await.unwrap();
    let repo = Arc::new(store.repo.clone());
    let options = ApplyOptions {
        tell_applied: true,
        encrypt: Some(true),
        means: Means::Replica,
        ..ApplyOptions::default()
    };
    let applied = apply(&store.cx, &target.options(), repo, Arc::new(way), &options).await;
    applied.unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(content(&target).await, content(&source).await);
}
