//! Loading: what is left for later comes, what was interrupted goes on, and every row is in exactly
//! once whatever dies meanwhile.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup_core::{Context, ErrorKind, Event, Manifest, Monitor, Restored, Result, pipeline};
use backup_drivers::connect::{ConnectOptions, Session};
use backup_drivers::logical::{LogicalOptions, LogicalRestore, LogicalRestoreOptions, Selection};
use rstest::rstest;
use tokio::time::sleep;

use crate::pair::Pair;
use crate::{sides, stock};

/// A backup of [`stock`] in many chunks.
async fn stocked(server: &str) -> (Pair, Session, Manifest) {
    stocked_between(server, server, &[]).await
}

/// The same, to be restored into another version.
async fn stocked_between(
    from: &str,
    to: &str,
    options: &[(&str, &str)],
) -> (Pair, Session, Manifest) {
    let options = [&[("log_bin_trust_function_creators", "1")], options].concat();
    let pair = Pair::start_between(from, to, &options).await;
    let mut source = Session::open(&pair.source()).await.unwrap();
    stock::fill(&mut source).await;
    let options = LogicalOptions { chunk_bytes: 128 << 10, ..LogicalOptions::default() };
    let manifest = pair.backup(options).await;
    (pair, source, manifest)
}

async fn assert_exact(source: &mut Session, target: &ConnectOptions) {
    let mut target = Session::open(target).await.unwrap();
    sides::assert_same("rows", &sides::rows(source).await, &sides::rows(&mut target).await);
    let there = sides::definitions(&mut target).await;
    sides::assert_same("definitions", &sides::definitions(source).await, &there);
    let tables: Vec<String> = target
        .query_rows("SELECT CONCAT('stock.', TABLE_NAME) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'stock' AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')")
        .await
        .unwrap();
    let checked: Vec<(String, String, String, String)> =
        target.query_rows(&format!("CHECK TABLE {}", tables.join(", "))).await.unwrap();
    let bad: Vec<_> = checked.iter().filter(|c| c.2 == "error" || c.3.contains("orrupt")).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    let leftover: Option<String> = target
        .query_first(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_NAME LIKE 'holdfast%'",
        )
        .await
        .unwrap();
    assert_eq!(leftover, None);
    let allowed: Option<u8> = target.query_first("SELECT @@GLOBAL.local_infile").await.unwrap();
    assert_eq!(allowed, Some(0));
    target.close().await.unwrap();
}

async fn forbid_infile(pair: &Pair) -> Session {
    let mut target = Session::open(&pair.target()).await.unwrap();
    target.run("SET GLOBAL local_infile = OFF").await.unwrap();
    target
}

/// Where the target's binary log ends.
async fn log_end(session: &mut Session, mysql: bool) -> String {
    let what = if mysql { "BINARY LOG" } else { "MASTER" };
    let row: Option<mysql_async::Row> =
        session.query_first(&format!("SHOW {what} STATUS")).await.unwrap();
    let row = row.unwrap();
    format!("{:?} {:?}", row.as_ref(0), row.as_ref(1))
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn every_shape_of_table_comes_back(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] server: &str,
) {
    let (pair, mut source, manifest) = stocked(server).await;
    let mut target = forbid_infile(&pair).await;
    let mysql = server.starts_with("mysql");

    let before = log_end(&mut target, mysql).await;
    let unlogged = LogicalRestoreOptions { binary_log: false, ..Default::default() };
    pair.restore(&manifest, unlogged).await;
    // SET GLOBAL is not logged either.
    assert_eq!(log_end(&mut target, mysql).await, before);
    assert_exact(&mut source, &pair.target()).await;

    let redo = LogicalRestoreOptions { overwrite: true, redo_log: !mysql, ..Default::default() };
    pair.restore(&manifest, redo).await;
    assert_ne!(log_end(&mut target, mysql).await, before);
    assert_exact(&mut source, &pair.target()).await;
    if mysql {
        let on: Option<(String, String)> =
            target.query_first("SHOW GLOBAL STATUS LIKE 'Innodb_redo_log_enabled'").await.unwrap();
        assert_eq!(on.unwrap().1, "ON");
    }

    // Not beside what a crash without a redo log would destroy; and not on MariaDB.
    target.run("CREATE DATABASE other").await.unwrap();
    target.run("CREATE TABLE other.t (id INT PRIMARY KEY)").await.unwrap();
    let redo = LogicalRestoreOptions { overwrite: true, redo_log: false, ..Default::default() };
    let driver = LogicalRestore::new(pair.target(), redo);
    let error =
        pipeline::restore(&pair.cx, &pair.repository, &driver, &manifest).await.unwrap_err();
    let kind = if mysql { ErrorKind::Target } else { ErrorKind::Usage };
    assert_eq!(error.kind(), kind, "{}", error.report());
    pair.stop().await;
}

/// Cancels a run when so many rows went in, and counts them.
struct CancelAfter {
    rows: u64,
    run: Mutex<Option<Context>>,
}

impl Monitor for CancelAfter {
    fn event(&self, _: Event) {}
}

/// A restore that is cancelled after so many rows.
async fn cut_after(pair: &Pair, manifest: &Manifest, rows: u64) -> (Result<Restored>, u64) {
    let monitor = Arc::new(CancelAfter { rows, run: Mutex::new(None) });
    let cx = Context::builder().threads(2).monitor(monitor.clone()).build();
    *monitor.run.lock().unwrap() = Some(cx.clone());
    let watch = tokio::spawn({
        let (cx, monitor) = (cx.clone(), Arc::clone(&monitor));
        async move {
            while cx.progress().snapshot().rows < monitor.rows {
                sleep(Duration::from_millis(1)).await;
            }
            cx.cancel();
        }
    });
    let driver = LogicalRestore::new(pair.target(), LogicalRestoreOptions::default());
    let result = pipeline::restore(&cx, &pair.repository, &driver, manifest).await;
    watch.abort();
    (result, cx.progress().snapshot().rows)
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_was_interrupted_goes_on_and_touches_nothing_else(
    #[values("mysql-9.7", "mariadb-10.11")] server: &str,
) {
    let (mut pair, mut source, manifest) = stocked(server).await;
    let mut target = forbid_infile(&pair).await;
    goes_on_with_what_is_missing(&pair, &mut source, &mut target, &manifest).await;
    if server.starts_with("mariadb") {
        target = counters_outlive_a_crash(&mut pair, &mut source).await;
    }
    target.run("DROP DATABASE stock").await.unwrap();
    not_over_other_peoples_rows(&pair, &mut source, &mut target, &manifest).await;
    target.run("DROP DATABASE stock").await.unwrap();
    two_of_the_same_do_not_meet(&pair, &mut source, &manifest).await;
    pair.stop().await;
}

async fn goes_on_with_what_is_missing(
    pair: &Pair,
    source: &mut Session,
    target: &mut Session,
    manifest: &Manifest,
) {
    let all: u64 = manifest.outcome.rows.unwrap();
    let mut sent = 0;
    for part in [14, 10, 4, 2] {
        let (result, rows) = cut_after(pair, manifest, all / part).await;
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted, "{}", error.report());
        assert!(error.report().contains("goes on where it stopped"), "{}", error.report());
        sent += rows;
        let allowed: Option<u8> = target.query_first("SELECT @@GLOBAL.local_infile").await.unwrap();
        assert_eq!(allowed, Some(0));
    }
    // A plan says so.
    let driver = LogicalRestore::new(pair.target(), LogicalRestoreOptions::default());
    let plan = pipeline::plan_restore(&pair.cx, &pair.repository, &driver, manifest).await.unwrap();
    assert!(plan.destroys.is_empty() && plan.steps[0].contains("interrupted"), "{plan:#?}");
    assert!(plan.steps.iter().any(|s| s.contains("rows already")), "{plan:#?}");

    let (result, rows) = cut_after(pair, manifest, u64::MAX).await;
    assert_eq!(result.unwrap().rows, all);
    sent += rows;
    assert!(rows < all, "{rows} of {all} rows were loaded again");
    assert!(sent >= all, "{sent} of {all}");
    assert_exact(source, &pair.target()).await;
}

/// What `AUTO_INCREMENT` gives next is so in the files, and not only as long as the server remembers. MySQL keeps it
/// elsewhere, and after a crash shows one less than it gives.
async fn counters_outlive_a_crash(pair: &mut Pair, source: &mut Session) -> Session {
    let counters = "SELECT TABLE_NAME, AUTO_INCREMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'stock' \
                    AND AUTO_INCREMENT > 1 ORDER BY TABLE_NAME";
    let wanted: Vec<(String, u64)> = source.query_rows(counters).await.unwrap();
    assert!(wanted.iter().any(|(table, _)| table == "big"), "{wanted:?}");
    pair.target.kill();
    pair.target.restart(&pair.cx).await.unwrap();
    let mut target = forbid_infile(pair).await;
    let found: Vec<(String, u64)> = target.query_rows(counters).await.unwrap();
    assert_eq!(found, wanted);
    target
}

async fn not_over_other_peoples_rows(
    pair: &Pair,
    source: &mut Session,
    target: &mut Session,
    manifest: &Manifest,
) {
    let all: u64 = manifest.outcome.rows.unwrap();
    cut_after(pair, manifest, all / 3).await.0.unwrap_err();
    // The clock of a table's creation counts seconds.
    sleep(Duration::from_millis(1100)).await;
    for statement in [
        "SET foreign_key_checks = 0",
        "DROP TABLE stock.parent",
        "CREATE TABLE stock.parent (mine INT PRIMARY KEY)",
        "INSERT INTO stock.parent VALUES (42)",
    ] {
        target.run(statement).await.unwrap();
    }
    let (result, _) = cut_after(pair, manifest, u64::MAX).await;
    let error = result.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Target, "{}", error.report());
    assert!(error.report().contains("stock.parent was altered or made anew"), "{}", error.report());
    let mine: Option<u32> = target.query_first("SELECT mine FROM stock.parent").await.unwrap();
    assert_eq!(mine, Some(42));
    // Only when told to.
    let over = LogicalRestoreOptions { overwrite: true, ..Default::default() };
    pair.restore(manifest, over).await;
    assert_exact(source, &pair.target()).await;
}

async fn two_of_the_same_do_not_meet(pair: &Pair, source: &mut Session, manifest: &Manifest) {
    let run = || async {
        let cx = Context::builder().threads(2).build();
        let driver = LogicalRestore::new(pair.target(), LogicalRestoreOptions::default());
        pipeline::restore(&cx, &pair.repository, &driver, manifest).await
    };
    let (a, b) = tokio::join!(run(), run());
    let (good, bad) = if a.is_ok() { (a, b) } else { (b, a) };
    good.unwrap();
    // The other one waited for its turn for some seconds and found it busy, or the tables there.
    let kind = bad.unwrap_err().kind();
    assert!(matches!(kind, ErrorKind::Busy | ErrorKind::Target), "{kind:?}");
    assert_exact(source, &pair.target()).await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_cost_no_row_and_double_none(
    #[values("mysql-9.7", "mariadb-10.11")] server: &str,
    #[values(true, false)] binary_log: bool,
) {
    let (pair, mut source, manifest) = stocked(server).await;
    forbid_infile(&pair).await;
    // Ends connections that load, alter or commit, one after the other.
    let killer = tokio::spawn({
        let target = pair.target();
        async move {
            let mut session = Session::open(&target).await.unwrap();
            let mut killed = 0;
            loop {
                sleep(Duration::from_millis(60)).await;
                let sql = "SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE '%holdfast-%' OR INFO = 'COMMIT' ORDER BY RAND()";
                let ids: Vec<u64> = session
                    .query_rows(&sql.replace("ORDER BY", "AND ID <> CONNECTION_ID() ORDER BY"))
                    .await
                    .unwrap();
                if let Some(id) = ids.first()
                    && session.run(&format!("KILL {id}")).await.is_ok()
                {
                    killed += 1;
                    if killed == 12 {
                        return killed;
                    }
                }
            }
        }
    });
    let options = LogicalRestoreOptions { binary_log, ..Default::default() };
    pair.restore(&manifest, options).await;
    assert!(killer.is_finished(), "too few were killed to prove anything");
    assert_exact(&mut source, &pair.target()).await;
    pair.stop().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_crashes_and_comes_back_is_waited_for(
    #[values("mysql-9.7", "mariadb-10.11")] server: &str,
) {
    let (mut pair, mut source, manifest) = stocked(server).await;
    forbid_infile(&pair).await;
    let all: u64 = manifest.outcome.rows.unwrap();
    let target = pair.target();
    let cx = Context::builder().threads(2).build();
    let driver = LogicalRestore::new(target.clone(), LogicalRestoreOptions::default());
    let crash = async {
        for part in 1..4 {
            while cx.progress().snapshot().rows < all * part / 5 {
                sleep(Duration::from_millis(1)).await;
            }
            pair.target.kill();
            pair.target.restart(&pair.cx).await.unwrap();
            Session::open(&target)
                .await
                .unwrap()
                .run("SET GLOBAL local_infile = OFF")
                .await
                .unwrap();
        }
    };
    let (restored, ()) =
        tokio::join!(pipeline::restore(&cx, &pair.repository, &driver, &manifest), crash);
    restored.unwrap();
    assert_exact(&mut source, &target).await;
    pair.stop().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn newer_and_older_servers_take_it_and_are_told_apart(
    #[values(("mariadb-10.11", "mariadb-11.8"), ("mariadb-11.8", "mariadb-10.11"))] way: (
        &str,
        &str,
    ),
) {
    let (pair, mut source, manifest) = stocked_between(way.0, way.1, &[]).await;
    forbid_infile(&pair).await;
    let older = way.1 == "mariadb-10.11";
    let mut options = LogicalRestoreOptions::default();
    if older {
        // Rows of the present end at a time that the older server has no timestamp for.
        let driver = LogicalRestore::new(pair.target(), options.clone());
        let plan = pipeline::plan_restore(&pair.cx, &pair.repository, &driver, &manifest);
        let refused = plan.await.unwrap_err().report();
        assert!(refused.contains("stock.versioned") && refused.contains("11.5"), "{refused}");
        options.selection.exclude_tables.insert("stock.versioned".parse().unwrap());
        source.run("DROP TABLE stock.versioned").await.unwrap();
    }
    let driver = LogicalRestore::new(pair.target(), options.clone());
    let plan =
        pipeline::plan_restore(&pair.cx, &pair.repository, &driver, &manifest).await.unwrap();
    let told = plan.findings.iter().any(|f| f.problem.contains("the older"));
    assert_eq!(told, older, "{:#?}", plan.findings);
    pair.restore(&manifest, options).await;
    assert_exact(&mut source, &pair.target()).await;
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_other_family_lacks_is_told_before_anything_is_written() {
    let (pair, mut source, _) = stocked_between("mariadb-10.11", "mysql-9.7", &[]).await;
    source.run("CREATE TABLE stock.short_years (y YEAR(2))").await.unwrap();
    let manifest = pair.backup(LogicalOptions::default()).await;
    let driver = LogicalRestore::new(pair.target(), LogicalRestoreOptions::default());
    let error =
        pipeline::restore(&pair.cx, &pair.repository, &driver, &manifest).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Target, "{}", error.report());
    for lacked in ["system-versioned", "year(2)"] {
        assert!(error.report().contains(lacked), "{lacked}: {}", error.report());
    }
    let mut target = Session::open(&pair.target()).await.unwrap();
    let there: Option<String> = target
        .query_first(
            "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = 'stock'",
        )
        .await
        .unwrap();
    assert_eq!(there, None);
    target.close().await.unwrap();
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn single_databases_and_all_but_some_tables() {
    let (pair, mut source, manifest) = stocked("mariadb-10.11").await;
    source.run("DROP TABLE stock.words, stock.part").await.unwrap();
    forbid_infile(&pair).await;
    let selection = Selection {
        databases: ["stock".to_owned()].into(),
        exclude_tables: ["stock.words".parse().unwrap(), "stock.part".parse().unwrap()].into(),
        ..Default::default()
    };
    pair.restore(&manifest, LogicalRestoreOptions { selection, ..Default::default() }).await;
    assert_exact(&mut source, &pair.target()).await;
    pair.stop().await;
}
