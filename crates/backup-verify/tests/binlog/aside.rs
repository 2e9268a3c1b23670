//! Single tables to a point, beside a server that runs.

use std::sync::Arc;

use backup_core::{
    BackupSpec, BackupType, BinlogChain, ErrorKind, Manifest, ReplayBase, ReplayTarget, Strategy,
    pipeline,
};
use backup_drivers::binlog::{Route, Skipping};
use backup_drivers::logical::{LogicalBackup, LogicalOptions, LogicalRestoreOptions, Selection};
use backup_verify::{Aside, AsideOptions, DrillOptions};
use rstest::rstest;

use crate::server::Server;
use crate::store::{Store, cluster};

pub(crate) async fn back_up(store: &Store, source: &Server) -> Manifest {
    let driver = LogicalBackup::new(source.options(), LogicalOptions::default());
    let spec = BackupSpec {
        cluster: cluster(),
        strategy: Strategy::Logical,
        backup_type: BackupType::Full,
        parent: None,
    };
    let taken = pipeline::backup(&store.cx, &store.repo, &driver, spec).await;
    taken.unwrap_or_else(|e| panic!("{}", e.report()))
}

pub(crate) async fn way(store: &Store, manifest: &Manifest, target: &ReplayTarget) -> Arc<Route> {
    let chain = BinlogChain::new(store.segments().await);
    let plan = chain.plan(&ReplayBase::of(manifest), target).unwrap();
    let skip = std::collections::BTreeSet::new();
    let route =
        Route::resolve(&store.cx, &store.repo, &chain, &plan, target, skip, Skipping::Emptied);
    Arc::new(route.await.unwrap_or_else(|e| panic!("{}", e.report())))
}

fn options(name: &str, target: &Server, tables: &[&str], rename: &[&str]) -> AsideOptions {
    let directory = xtask::servers::Server::named(name).unwrap().directory();
    let selection = Selection {
        tables: tables.iter().map(|t| t.parse().unwrap()).collect(),
        ..Selection::default()
    };
    AsideOptions {
        server: DrillOptions {
            server: Some(directory),
            directory: None,
            ..DrillOptions::default()
        },
        target: target.options(),
        restore: LogicalRestoreOptions {
            selection,
            rename: rename.iter().map(|rule| rule.parse().unwrap()).collect(),
            ..LogicalRestoreOptions::default()
        },
    }
}

async fn column(server: &Server, sql: &str) -> String {
    let text: Option<Option<String>> = server.session().await.query_first(sql).await.unwrap();
    text.flatten().unwrap_or_default()
}

#[rstest]
#[tokio::test]
async fn a_table_comes_back_beside_the_running_server(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let source = Server::start(name, |builder| builder.option("binlog_format", "ROW")).await;
    source
        .run(&[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.customers (id INT PRIMARY KEY, name VARCHAR(20))",
            "CREATE TABLE shop.orders (id INT PRIMARY KEY, customer INT, \
             FOREIGN KEY (customer) REFERENCES customers (id) ON DELETE CASCADE)",
            "CREATE TABLE shop.other (id INT PRIMARY KEY)",
            "INSERT INTO shop.customers VALUES (1, 'a'), (2, 'b')",
            "INSERT INTO shop.orders VALUES (10, 1), (20, 2), (30, 2)",
        ])
        .await;
    let store = Store::new().await;
    let manifest = back_up(&store, &source).await;
    source
        .run(&[
            "INSERT INTO shop.other VALUES (1)",
            "ALTER TABLE shop.orders ADD note VARCHAR(20) DEFAULT 'n'",
            "INSERT INTO shop.orders VALUES (40, 1, 'new')",
            // The server tells nothing of what this does to orders.
            "DELETE FROM shop.customers WHERE id = 2",
            "RENAME TABLE shop.other TO shop.others",
            "CREATE USER somebody IDENTIFIED BY 'Secret-1'",
            "GRANT SELECT ON shop.others TO somebody",
            "UPDATE shop.orders o JOIN shop.others x SET o.note = 'both', x.id = 7 WHERE o.id = 40",
        ])
        .await;
    store.archive(&source).await;
    let point = way(&store, &manifest, &ReplayTarget::End).await;
    source.run(&["DROP TABLE shop.orders", "CREATE TABLE shop.later (id INT PRIMARY KEY)"]).await;
    store.archive(&source).await;

    let rename = ["shop.orders=shop.orders_then"];
    let aside = async |route: &Arc<Route>, tables: &[&str], rename: &[&str]| {
        let options = options(name, &source, tables, rename);
        Aside::prepare(&store.cx, &store.repo, &manifest, Arc::clone(route), options).await
    };
    let prepared = aside(&point, &["shop.orders"], &rename).await.unwrap();
    assert_eq!(prepared.why_whole(), None);
    let steps = prepared.steps().steps.join("\n");
    assert!(steps.contains("restore shop.customers, shop.orders there"), "{steps}");
    assert!(steps.contains("the 4 transactions that concern them"), "{steps}");
    let restored = prepared.run(&store.cx).await.unwrap_or_else(|e| panic!("{}", e.report()));
    assert_eq!(restored.rows, 2);
    let rows = "SELECT GROUP_CONCAT(id, note ORDER BY id) FROM shop.orders_then";
    assert_eq!(column(&source, rows).await, "10n,40both");
    assert_eq!(column(&source, "SELECT COUNT(*) FROM shop.others").await, "1");

    // Never over data.
    let e = aside(&point, &["shop.orders"], &rename).await.err().unwrap();
    assert_eq!(e.kind(), ErrorKind::Target, "{}", e.report());
    // It is not there at the end.
    let end = way(&store, &manifest, &ReplayTarget::End).await;
    let gone = aside(&end, &["shop.orders"], &["shop.orders=shop.again"]).await.unwrap();
    let e = gone.run(&store.cx).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unreachable, "{}", e.report());
    // What came after the backup, and what was renamed, needs everything.
    for (table, new) in [("shop.later", "shop.later2"), ("shop.others", "shop.others2")] {
        let rule = format!("{table}={new}");
        let prepared = aside(&end, &[table], &[&rule]).await.unwrap();
        assert!(prepared.why_whole().is_some());
        let steps = prepared.steps().steps;
        let last = format!("read {table} from there, and restore it to the target");
        assert_eq!(steps.last(), Some(&last), "{steps:?}");
        assert!(!steps.concat().contains(" transactions"), "{steps:?}");
        prepared.run(&store.cx).await.unwrap_or_else(|e| panic!("{}", e.report()));
    }
    assert_eq!(column(&source, "SELECT GROUP_CONCAT(id) FROM shop.others2").await, "7");
}

#[tokio::test]
async fn statements_are_followed_or_everything_is_restored() {
    let name = "mariadb-10.11";
    let source = Server::start(name, |builder| builder.option("binlog_format", "STATEMENT")).await;
    source
        .run(&[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(20))",
            "CREATE TABLE d.u (id INT AUTO_INCREMENT PRIMARY KEY, a VARCHAR(20))",
            "INSERT INTO d.u (a) VALUES ('u1'), ('u2')",
        ])
        .await;
    let store = Store::new().await;
    let manifest = back_up(&store, &source).await;
    source
        .run(&[
            "INSERT INTO d.t (a) VALUES ('x'), (LEFT(RAND(3), 6))",
            "INSERT INTO d.u (a) VALUES ('u3')",
            "UPDATE d.t SET a = CONCAT(a, '!') WHERE id = 2",
        ])
        .await;
    store.archive(&source).await;
    let simple = way(&store, &manifest, &ReplayTarget::End).await;
    source.run(&["INSERT INTO d.t (a) SELECT a FROM d.u"]).await;
    store.archive(&source).await;
    let reads = way(&store, &manifest, &ReplayTarget::End).await;
    source
        .run(&[
            "CREATE TRIGGER d.g AFTER DELETE ON d.u FOR EACH ROW DELETE FROM d.t WHERE a = OLD.a",
        ])
        .await;
    source.run(&["DELETE FROM d.u WHERE a = 'u2'"]).await;
    store.archive(&source).await;
    let hidden = way(&store, &manifest, &ReplayTarget::End).await;
    let all = "SELECT GROUP_CONCAT(id, a ORDER BY id) FROM d.t";
    let expected = column(&source, all).await;
    for (number, (route, whole)) in
        [(simple, false), (reads, true), (hidden, true)].into_iter().enumerate()
    {
        let rule = format!("d.t=d.t{number}");
        let options = options(name, &source, &["d.t"], &[&rule]);
        let prepared =
            Aside::prepare(&store.cx, &store.repo, &manifest, route, options).await.unwrap();
        assert_eq!(prepared.why_whole().is_some(), whole, "{:?}", prepared.why_whole());
        prepared.run(&store.cx).await.unwrap_or_else(|e| panic!("{}", e.report()));
    }
    assert_eq!(column(&source, &all.replace("d.t", "d.t2")).await, expected);
    let values = "SELECT COUNT(*) FROM d.t0 WHERE a LIKE '0.%!' OR a = 'x'";
    assert_eq!(column(&source, values).await, "2");
}
