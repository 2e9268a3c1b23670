//! From an empty server, or a backup, to any point.

use std::collections::BTreeSet;
use std::sync::Arc;

use backup_core::{BinlogChain, Flavor, Gtid, GtidSet, Position, ReplayBase, ReplayTarget};
use backup_drivers::binlog::replay::{ApplyOptions, Means, apply};
use backup_drivers::binlog::{Route, Skipping};
use rstest::rstest;

use crate::server::{Server, WORK};
use crate::store::Store;

/// Where both servers stand after a start.
pub(crate) fn beginning(server: &Server, gtid: &str) -> ReplayBase {
    let flavor = server.0.install().flavor();
    ReplayBase {
        server: None,
        position: Position {
            gtid: Some(GtidSet::parse(flavor, gtid).unwrap()),
            ..Position::default()
        },
    }
}

pub(crate) async fn route(
    store: &Store,
    base: &ReplayBase,
    target: &ReplayTarget,
    skip: &[&Gtid],
) -> backup_core::Result<Route> {
    let chain = BinlogChain::new(store.segments().await);
    let plan = chain.plan(base, target)?;
    let skip: BTreeSet<Gtid> = skip.iter().map(|gtid| (*gtid).clone()).collect();
    Route::resolve(&store.cx, &store.repo, &chain, &plan, target, skip, Skipping::Emptied).await
}

pub(crate) async fn replay(store: &Store, target: &Server, route: Route) {
    let options = ApplyOptions { tell_applied: true, ..ApplyOptions::default() };
    let repo = Arc::new(store.repo.clone());
    apply(&store.cx, &target.options(), repo, Arc::new(route), &options)
        .await
        .unwrap_or_else(|e| panic!("{}", e.report()));
}

/// What is in the tables of `d`.
pub(crate) async fn content(server: &Server) -> Vec<(String, Option<u64>)> {
    let mut session = server.session().await;
    let names: Vec<String> = session
        .query_rows(
            "SELECT CONCAT('d.', table_name) FROM information_schema.tables \
             WHERE table_schema = 'd' ORDER BY table_name",
        )
        .await
        .unwrap();
    if names.is_empty() {
        return Vec::new();
    }
    session.query_rows(&format!("CHECKSUM TABLE {}", names.join(", "))).await.unwrap()
}

/// The position now, and the last GTID.
pub(crate) async fn position(server: &Server) -> GtidSet {
    let flavor = server.0.install().flavor();
    let name = if flavor == Flavor::MySql { "gtid_executed" } else { "gtid_binlog_pos" };
    let text: Option<String> =
        server.session().await.query_first(&format!("SELECT @@GLOBAL.{name}")).await.unwrap();
    GtidSet::parse(flavor, &text.unwrap()).unwrap()
}

fn last(set: &GtidSet) -> Gtid {
    match set {
        GtidSet::MySql(set) => {
            let tsid = set.tsids().next().unwrap().clone();
            let gno = set.last(&tsid).unwrap();
            backup_core::MySqlGtid::new(tsid, gno).unwrap().into()
        }
        GtidSet::MariaDb(set) => set.get(0).unwrap().into(),
    }
}

#[rstest]
#[case("mysql-9.7", "binlog_transaction_compression", "OFF")]
#[case("mysql-9.7", "binlog_transaction_compression", "ON")]
#[case("mariadb-10.11", "binlog_format", "MIXED")]
#[case("mariadb-11.8", "log_bin_compress", "ON")]
#[tokio::test]
async fn every_point_is_reached(#[case] name: &str, #[case] option: &str, #[case] value: &str) {
    let source = Server::start(name, |builder| builder.option(option, value)).await;
    let store = Store::new().await;
    // A digest after every statement that left a transaction.
    let mut points = Vec::new();
    let mut session = source.session().await;
    for sql in WORK {
        session.run(sql).await.unwrap();
        if sql.starts_with("BEGIN") || sql.contains("XA") {
            continue;
        }
        points.push((position(&source).await, content(&source).await));
    }
    points.dedup_by(|b, a| a.0 == b.0);
    store.archive(&source).await;
    let base = beginning(&source, "");
    for (gtids, expected) in points.iter().skip(1).step_by(3) {
        let target = Server::start(name, |builder| builder).await;
        let point = ReplayTarget::Gtid(last(gtids));
        let route = route(&store, &base, &point, &[]).await.unwrap();
        assert_eq!(route.reached.as_ref(), Some(gtids));
        assert_eq!(route.last.as_ref().unwrap().gtid, Some(last(gtids)));
        replay(&store, &target, route).await;
        assert_eq!(content(&target).await, *expected, "{gtids}");
    }
    let route = route(&store, &base, &ReplayTarget::End, &[]).await.unwrap();
    let target = Server::start(name, |builder| builder).await;
    replay(&store, &target, route).await;
    assert_eq!(content(&target).await, content(&source).await);
}

/// An applier repeats the statement that it cannot run, and in it what it knows of a password.
#[rstest]
#[tokio::test]
async fn no_error_of_an_applier_holds_a_password(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
    #[values(Means::Replica, Means::Direct)] means: Means,
) {
    let source = Server::start(name, |builder| builder).await;
    let sql = "CREATE USER 'u'@'%' IDENTIFIED BY 'hunter22'";
    source.session().await.run(sql).await.unwrap();
    let store = Store::new().await;
    store.archive(&source).await;
    let target = Server::start(name, |builder| builder).await;
    let mut session = target.session().await;
    session.run("SET SESSION sql_log_bin = 0").await.unwrap();
    session.run("CREATE USER 'u'@'%'").await.unwrap();
    let way = route(&store, &beginning(&source, ""), &ReplayTarget::End, &[]).await.unwrap();
    let options = ApplyOptions { tell_applied: true, means, ..ApplyOptions::default() };
    let repo = Arc::new(store.repo.clone());
    let failed = apply(&store.cx, &target.options(), repo, Arc::new(way), &options).await;
    let e = failed.unwrap_err();
    let report = format!("{} {e:?}", e.report());
    assert!(report.contains("1396"), "{report}");
    // MySQL writes the hash, MariaDB the password.
    for secret in ["$A$005$", "hunter22"] {
        assert!(!report.contains(secret), "{report}");
    }
}
