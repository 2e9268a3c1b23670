//! How a backup comes to its one moment, and what it costs those who work meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backup_core::{ConsistencyLevel, ErrorKind, Flavor, Result};
use backup_drivers::connect::{ConnectOptions, open};
use backup_drivers::logical::{
    LogicalBackup, LogicalOptions, LogicalRestoreOptions, LongQueries, SnapshotOptions,
};
use mysql_async::prelude::Queryable;
use rstest::rstest;

use crate::memory::Kept;
use crate::server::Server;

/// Two accounts in two tables of different engines, and a total that never changes but in between.
async fn bank(server: &Server) -> Result<()> {
    let mut conn = server.connect().await?;
    for statement in [
        "CREATE DATABASE bank",
        "CREATE TABLE bank.a (id INT PRIMARY KEY, amount BIGINT)",
        "CREATE TABLE bank.b (id INT PRIMARY KEY, amount BIGINT)",
        "CREATE TABLE bank.m (id INT PRIMARY KEY, n BIGINT) ENGINE = MyISAM",
        "INSERT INTO bank.a VALUES (1, 1000000)",
        "INSERT INTO bank.b VALUES (1, 1000000)",
        "INSERT INTO bank.m VALUES (1, 0), (2, 0)",
    ] {
        conn.query_drop(statement).await.unwrap();
    }
    Ok(())
}

/// Moves money until it is told to stop; gives how often.
async fn transfers(options: ConnectOptions, stop: Arc<AtomicBool>) -> u64 {
    let mut conn = open(&options).await.unwrap();
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        conn.query_drop("BEGIN").await.unwrap();
        conn.query_drop("UPDATE bank.a SET amount = amount - 1").await.unwrap();
        conn.query_drop("UPDATE bank.b SET amount = amount + 1").await.unwrap();
        conn.query_drop("COMMIT").await.unwrap();
        done += 1;
    }
    done
}

#[rstest]
#[case("mysql-9.7", false, "without a lock")]
#[case("mysql-9.7", true, "global read lock")]
#[case("mariadb-10.11", false, "without a lock")]
#[case("mariadb-11.8", false, "without a lock")]
#[case("mariadb-10.11", true, "global read lock")]
#[tokio::test(flavor = "multi_thread")]
async fn a_total_is_exact_while_money_moves(
    #[case] name: &str,
    #[case] always_lock: bool,
    #[case] how: &str,
) -> Result<()> {
    let source = Server::start(name).await?;
    bank(&source).await?;
    let stop = Arc::new(AtomicBool::new(false));
    // Writers of the same rows and the global lock wait for each other.
    let count = if always_lock { 1 } else { 3 };
    let writers: Vec<_> =
        (0..count).map(|_| tokio::spawn(transfers(source.as_root(), Arc::clone(&stop)))).collect();
    let mut kept = Vec::new();
    for _ in 0..5 {
        let snapshot = SnapshotOptions { always_lock, ..SnapshotOptions::default() };
        let options = LogicalOptions { snapshot, ..LogicalOptions::default() };
        kept.push(Kept::backup(&source, options).await?);
    }
    stop.store(true, Ordering::Relaxed);
    let mut done = 0;
    for writer in writers {
        done += writer.await.unwrap();
    }
    assert!(done > 100, "{done}");
    let target = Server::start(name).await?;
    for kept in kept {
        let outcome = &kept.outcome;
        let consistency = &outcome.consistency;
        assert!(consistency.reason.contains(how), "{consistency:?}");
        assert_eq!(consistency.level, ConsistencyLevel::Exact, "{consistency:?}");
        assert!(consistency.reason.contains("locked before and read first"), "{consistency:?}");
        assert!(outcome.warnings.is_empty(), "{:?}", outcome.warnings);
        assert!(outcome.position.offset.is_some(), "{:?}", outcome.position);
        let options = LogicalRestoreOptions { overwrite: true, ..Default::default() };
        kept.restore(&target, options).await?;
        let mut conn = target.connect().await?;
        let sql = "SELECT CAST(a.amount + b.amount AS SIGNED), CAST(1000000 - a.amount AS SIGNED) \
                   FROM bank.a, bank.b";
        let (total, moved): (i64, i64) = conn.query_first(sql).await.unwrap().unwrap();
        assert_eq!(total, 2_000_000, "after {moved} transfers");
    }
    Ok(())
}

/// As on a managed server: nobody may lock the server, nor DDL out.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn without_reload_and_backup_admin_tables_are_locked(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) -> Result<()> {
    let source = Server::start(name).await?;
    bank(&source).await?;
    let mut root = source.connect().await?;
    let flavor = source.facts().await?.flavor;
    let monitor = match flavor {
        Flavor::MySql => "REPLICATION CLIENT, SHOW_ROUTINE",
        Flavor::MariaDb => "BINLOG MONITOR",
    };
    root.query_drop("CREATE USER managed@localhost").await.unwrap();
    let grant = format!(
        "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, LOCK TABLES, PROCESS, {monitor} ON *.* TO managed@localhost"
    );
    root.query_drop(grant.replace(", SHOW_ROUTINE", "")).await.unwrap();
    if flavor == Flavor::MySql {
        root.query_drop("GRANT SHOW_ROUTINE ON *.* TO managed@localhost").await.unwrap();
    }
    let managed = ConnectOptions::socket(source.sandbox().socket(), "managed");
    let snapshot = SnapshotOptions { always_lock: true, ..SnapshotOptions::default() };
    let options = LogicalOptions { snapshot, ..LogicalOptions::default() };
    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(transfers(source.as_root(), Arc::clone(&stop)));
    let kept = Kept::backup_by(LogicalBackup::new(managed, options)).await?;
    stop.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    let consistency = &kept.outcome.consistency;
    assert!(consistency.reason.contains("may not lock the server"), "{consistency:?}");
    assert_eq!(consistency.level, ConsistencyLevel::Exact, "{consistency:?}");
    if flavor == Flavor::MySql {
        assert!(consistency.reason.contains("had to wait until the end"), "{consistency:?}");
    }
    let target = Server::start(name).await?;
    kept.restore(&target, LogicalRestoreOptions::default()).await?;
    let mut conn = target.connect().await?;
    let total: Option<i64> = conn
        .query_first("SELECT CAST(a.amount + b.amount AS SIGNED) FROM bank.a, bank.b")
        .await
        .unwrap();
    assert_eq!(total, Some(2_000_000));
    Ok(())
}

/// A statement that runs for long is dealt with before the lock, not behind it.
#[tokio::test(flavor = "multi_thread")]
async fn long_statements_do_not_stall_everybody() -> Result<()> {
    let source = Server::start("mysql-9.7").await?;
    bank(&source).await?;
    let options = |long_queries| LogicalOptions {
        snapshot: SnapshotOptions {
            long_queries,
            long_query_time: std::time::Duration::from_secs(1),
            lock_timeout: std::time::Duration::from_secs(2),
            always_lock: true,
            ..SnapshotOptions::default()
        },
        ..LogicalOptions::default()
    };
    let slow = |options: ConnectOptions| async move {
        let mut conn = open(&options).await.unwrap();
        conn.query_drop("SELECT SLEEP(60), id FROM bank.a").await
    };
    let running = tokio::spawn(slow(source.as_root()));
    let mut conn = source.connect().await?;
    loop {
        let sql = "SELECT COUNT(*) FROM performance_schema.processlist WHERE INFO LIKE 'SELECT SLEEP%' AND TIME >= 1";
        if conn.query_first(sql).await.unwrap() == Some(1) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    for policy in [LongQueries::Fail, LongQueries::Wait] {
        let error = Kept::backup(&source, options(policy)).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Source);
        assert!(error.report().contains("(SELECT) has been running"), "{}", error.report());
        // Nobody has to wait: the lock was never asked for.
        conn.query_drop("UPDATE bank.b SET amount = amount").await.unwrap();
    }
    assert!(!running.is_finished());
    Kept::backup(&source, options(LongQueries::Kill)).await?;
    // SLEEP is interrupted, and says so in its result.
    let _ = running.await.unwrap();
    Ok(())
}

/// The applier of a replica stands still for the time of the backup and runs again afterwards,
/// whether the backup came to its end or not. Another backup waits until the replica has caught up.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_paused_and_goes_on(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) -> Result<()> {
    let primary = Server::start_with(name, &[("server-id", "1")], true).await?;
    bank(&primary).await?;
    let replica = Server::start_with(name, &[("server-id", "2")], false).await?;
    let mut conn = primary.connect().await?;
    conn.query_drop("CREATE USER repl@'127.0.0.1' IDENTIFIED BY 'r'").await.unwrap();
    conn.query_drop("GRANT REPLICATION SLAVE ON *.* TO repl@'127.0.0.1'").await.unwrap();
    let port = primary.sandbox().port().unwrap();
    let mut conn = replica.connect().await?;
    let mysql = source_is_mysql(name);
    let statements = if mysql {
        [
            format!(
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, \
                 SOURCE_USER = 'repl', SOURCE_PASSWORD = 'r', SOURCE_LOG_FILE = 'binlog.000001', \
                 SOURCE_LOG_POS = 4, GET_SOURCE_PUBLIC_KEY = 1"
            ),
            "START REPLICA".to_owned(),
        ]
    } else {
        [
            format!(
                "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, MASTER_USER = 'repl', \
                 MASTER_PASSWORD = 'r', MASTER_LOG_FILE = 'binlog.000001', MASTER_LOG_POS = 4"
            ),
            "START SLAVE".to_owned(),
        ]
    };
    for statement in statements {
        conn.query_drop(statement).await.unwrap();
    }
    let mut on_replica = replica.connect().await?;
    // Everything is there.
    let sql = "SELECT COUNT(*) FROM mysql.user WHERE User = 'repl'";
    while on_replica.query_first::<u32, _>(sql).await.unwrap() != Some(1) {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let running = |row: mysql_async::Row| -> String {
        let name = if mysql { "Replica_SQL_Running" } else { "Slave_SQL_Running" };
        row.get::<String, _>(name).unwrap()
    };
    let status = if mysql { "SHOW REPLICA STATUS" } else { "SHOW SLAVE STATUS" };
    for pause_replication in [true, false] {
        let options = LogicalOptions { pause_replication, ..LogicalOptions::default() };
        let kept = Kept::backup(&replica, options).await?;
        let applied = &kept.outcome.details["applied"][0];
        assert_eq!(applied["port"], port, "{applied}");
        // While they run, workers are ahead of the place that a MySQL tells.
        match mysql && !pause_replication {
            true => assert!(applied.get("file").or(applied.get("offset")).is_none(), "{applied}"),
            false => assert!(applied["offset"].as_u64().unwrap() > 4, "{applied}"),
        }
        let row = on_replica.query_first(status).await.unwrap().unwrap();
        assert_eq!(running(row), "Yes");
    }
    // One that waits until the replica has caught up, which a lock keeps from it.
    let mut holder = replica.connect().await?;
    holder.query_drop("LOCK TABLES bank.a WRITE").await.unwrap();
    primary.connect().await?.query_drop("UPDATE bank.a SET amount = amount + 1").await.unwrap();
    let lag = if mysql { "Seconds_Behind_Source" } else { "Seconds_Behind_Master" };
    let behind = |row: mysql_async::Row| row.get::<Option<u64>, _>(lag).unwrap();
    while behind(on_replica.query_first(status).await.unwrap().unwrap()) < Some(3) {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let throttle = Some("replica-lag=1s".parse()?);
    let options = LogicalOptions { throttle, ..LogicalOptions::default() };
    let release = async {
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        holder.query_drop("UNLOCK TABLES").await.unwrap();
    };
    let (kept, ()) = tokio::join!(Kept::backup(&replica, options), release);
    let throttled = kept?.outcome.details["throttled_seconds"].as_f64().unwrap();
    assert!(throttled > 0.0, "{throttled}");
    // A backup that fails.
    let options = LogicalOptions {
        pause_replication: true,
        filters: [("bank.a".parse()?, "none = 1".to_owned())].into(),
        ..LogicalOptions::default()
    };
    assert!(Kept::backup(&replica, options).await.is_err());
    let row = on_replica.query_first(status).await.unwrap().unwrap();
    assert_eq!(running(row), "Yes");

    // One that is to stop somewhere would be started again without that.
    let until = if mysql {
        [
            "STOP REPLICA",
            "START REPLICA UNTIL SOURCE_LOG_FILE = 'binlog.000999', SOURCE_LOG_POS = 4",
        ]
    } else {
        ["STOP SLAVE", "START SLAVE UNTIL MASTER_LOG_FILE = 'binlog.000999', MASTER_LOG_POS = 4"]
    };
    for statement in until {
        on_replica.query_drop(statement).await.unwrap();
    }
    let condition = |row: mysql_async::Row| row.get::<String, _>("Until_Condition").unwrap();
    let before = condition(on_replica.query_first(status).await.unwrap().unwrap());
    let options = LogicalOptions { pause_replication: true, ..LogicalOptions::default() };
    let error = Kept::backup(&replica, options).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Source, "{}", error.report());
    let told = error.report();
    assert!(
        told.contains(&format!("Until_Condition is {before}")) && told.contains("wait until"),
        "{told}"
    );
    let row = on_replica.query_first(status).await.unwrap().unwrap();
    assert_eq!(running(row), "Yes");
    let row = on_replica.query_first(status).await.unwrap().unwrap();
    assert_eq!(condition(row), before);
    assert_ne!(before, "None");
    Kept::backup(&replica, LogicalOptions::default()).await?;
    Ok(())
}

fn source_is_mysql(name: &str) -> bool {
    name.starts_with("mysql")
}
