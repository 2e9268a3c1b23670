//! A donor that is written to, and whose tables come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use backup_core::{Flavor, GtidSet};
use backup_drivers::connect::{ConnectOptions, Session};

use crate::stage::{Stage, run};

fn rounds() -> usize {
    std::env::var("HOLDFAST_TEST_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2)
}

/// Moves money between accounts and counts, each in one transaction.
async fn transfers(options: ConnectOptions, stop: Arc<AtomicBool>, counted: Arc<AtomicU64>) {
    let mut session = Session::open(&options).await.unwrap();
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        for sql in [
            "BEGIN".to_owned(),
            format!("UPDATE bank.account SET money = money - 1 WHERE id = {}", n % 100),
            format!("UPDATE bank.account SET money = money + 1 WHERE id = {}", (n * 7 + 1) % 100),
            format!("INSERT INTO bank.log VALUES ({n}, REPEAT('x', 500))"),
            "COMMIT".to_owned(),
        ] {
            session.run(&sql).await.unwrap();
        }
        counted.store(n, Ordering::Relaxed);
    }
}

/// Definitions that change all the time, names that go round in circles.
async fn ddl(options: ConnectOptions, stop: Arc<AtomicBool>) {
    let mut session = Session::open(&options).await.unwrap();
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let statements = [
            format!("CREATE TABLE churn.t{n} (id INT PRIMARY KEY, a VARCHAR(100))"),
            format!("INSERT INTO churn.t{n} VALUES ({n}, 'a'), (0, 'b')"),
            "RENAME TABLE churn.a TO churn.x, churn.b TO churn.a, churn.x TO churn.b".to_owned(),
            format!("ALTER TABLE churn.t{n} ADD KEY (a), ALGORITHM=INPLACE"),
            format!("ALTER TABLE churn.t{n} ENGINE=InnoDB"),
            format!("TRUNCATE TABLE churn.t{n}"),
            format!("INSERT INTO churn.t{n} VALUES ({n}, 'a')"),
            format!("CREATE TABLESPACE ts{n} ADD DATAFILE 'ts{n}.ibd'"),
            format!("CREATE TABLE churn.g{n} (id INT) TABLESPACE ts{n}"),
            format!("INSERT INTO churn.g{n} VALUES ({n})"),
            format!("CREATE DATABASE churn{n}"),
            format!(
                "CREATE TABLE churn{n}.p (id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 2"
            ),
            format!("INSERT INTO churn{n}.p VALUES (1), (2), ({n} + 10)"),
            format!("ALTER TABLE churn{n}.p ADD PARTITION PARTITIONS 1"),
        ];
        for sql in &statements {
            session.run(sql).await.unwrap_or_else(|e| panic!("{}", e.report()));
        }
        if n > 3 {
            let old = n - 3;
            for sql in [
                format!("DROP TABLE churn.t{old}, churn.g{old}"),
                format!("DROP TABLESPACE ts{old}"),
                format!("DROP DATABASE churn{old}"),
            ] {
                session.run(&sql).await.unwrap_or_else(|e| panic!("{}", e.report()));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_under_load_is_of_one_moment() {
    let stage = Stage::new(|builder| builder.option("innodb_redo_log_capacity", "64M")).await;
    let mut donor = stage.session().await;
    run(&mut donor, &[
        "CREATE DATABASE bank",
        "CREATE DATABASE churn",
        "CREATE TABLE bank.account (id INT PRIMARY KEY, money INT NOT NULL)",
        "CREATE TABLE bank.log (n BIGINT PRIMARY KEY, v VARCHAR(500))",
        "CREATE TABLE churn.a (id INT PRIMARY KEY)",
        "CREATE TABLE churn.b (id INT PRIMARY KEY, other INT)",
        "INSERT INTO churn.a VALUES (1)",
        "INSERT INTO churn.b VALUES (1, 1)",
        "INSERT INTO bank.account WITH RECURSIVE r (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM r \
         WHERE n < 99) SELECT n, 1000 FROM r",
    ])
    .await;
    let stop = Arc::new(AtomicBool::new(false));
    let counted = Arc::new(AtomicU64::new(0));
    let writer = tokio::spawn(transfers(stage.source(), Arc::clone(&stop), Arc::clone(&counted)));
    let changer = tokio::spawn(ddl(stage.source(), Arc::clone(&stop)));
    let mut manifests = Vec::new();
    for _ in 0..rounds() {
        let before = counted.load(Ordering::Relaxed);
        manifests.push((before, stage.backup().await));
    }
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    changer.await.unwrap();

    for (before, manifest) in manifests {
        let restored = stage.restored(&manifest, |builder| builder).await;
        let mut session = restored.session().await;
        let money: Option<i64> = session
            .query_first("SELECT CAST(SUM(money) AS SIGNED) FROM bank.account")
            .await
            .unwrap();
        assert_eq!(money, Some(100_000));
        let log: Option<(u64, u64)> =
            session.query_first("SELECT COUNT(*), MAX(n) FROM bank.log").await.unwrap();
        let (count, last) = log.unwrap();
        assert_eq!(count, last, "a transaction is missing");
        assert!(count >= before, "{count} of {before} transactions that were there before");
        restored.check_tables().await;
        // The server knows its position by itself now: between those that the manifest names.
        let here: Option<String> =
            session.query_first("SELECT @@GLOBAL.gtid_executed").await.unwrap();
        let here = GtidSet::parse(Flavor::MySql, &here.unwrap()).unwrap();
        let first = manifest.outcome.position.gtid.as_ref().unwrap();
        assert!(first.is_subset(&here).unwrap(), "{first} {here}");
        let after = &manifest.outcome.details["position_after"]["gtid"];
        let after: GtidSet = serde_json::from_value(after.clone()).unwrap();
        assert!(here.is_subset(&after).unwrap(), "{here} {after}");
    }
}
