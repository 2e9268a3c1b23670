//! A backup under a writer: exactly the transactions up to the recorded position.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backup_core::{ConsistencyLevel, GtidSet, Position};
use backup_drivers::connect::{ConnectOptions, Session};
use backup_drivers::logical::{LogicalOptions, LogicalRestoreOptions};
use rstest::rstest;

use crate::pair::Pair;
use crate::sides;

/// Writes `n` to three tables in one transaction each, moving money between two accounts, until
/// told to stop.
async fn write(options: ConnectOptions, stop: Arc<AtomicBool>) -> u64 {
    let mut session = Session::open(&options).await.unwrap();
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        for statement in [
            "BEGIN".to_owned(),
            format!("INSERT INTO bank.first VALUES ({n})"),
            format!("UPDATE bank.account SET money = money - 1 WHERE id = {}", n % 100),
            format!("UPDATE bank.account SET money = money + 1 WHERE id = {}", (n * 7 + 1) % 100),
            format!("INSERT INTO bank.last VALUES ({n}, REPEAT('x', 200))"),
            "COMMIT".to_owned(),
        ] {
            session.run(&statement).await.unwrap();
        }
    }
    n
}

/// How many transactions a GTID set holds when there is one source and nothing was lost.
fn transactions(gtid: &GtidSet) -> u64 {
    match gtid {
        GtidSet::MySql(set) => set.count(),
        GtidSet::MariaDb(set) => set.iter().map(|g| g.seq).sum(),
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn no_row_of_a_later_transaction_and_every_row_of_an_earlier_one(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] server: &str,
) {
    let pair = Pair::start(server).await;
    let mut source = Session::open(&pair.source()).await.unwrap();
    for statement in [
        "CREATE DATABASE bank",
        "CREATE TABLE bank.first (n INT PRIMARY KEY)",
        "CREATE TABLE bank.account (id INT PRIMARY KEY, money INT NOT NULL)",
        "CREATE TABLE bank.last (n INT PRIMARY KEY, v VARCHAR(200))",
        "INSERT INTO bank.account WITH RECURSIVE r (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM r \
         WHERE n < 99) SELECT n, 1000 FROM r",
    ] {
        source.run(statement).await.unwrap();
    }
    let sql = if server.starts_with("mysql") {
        "SELECT @@GLOBAL.gtid_executed"
    } else {
        "SELECT @@GLOBAL.gtid_binlog_pos"
    };
    let before: Option<String> = source.query_first(sql).await.unwrap();
    let flavor = pair.source.install().flavor();
    let before = transactions(&GtidSet::parse(flavor, &before.unwrap()).unwrap());

    let stop = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn(write(pair.source(), Arc::clone(&stop)));
    let mut manifests = Vec::new();
    for _ in 0..6 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let options = LogicalOptions { chunk_bytes: 32 << 10, ..Default::default() };
        manifests.push(pair.backup(options).await);
    }
    stop.store(true, Ordering::Relaxed);
    let written = writer.await.unwrap();

    let mut target = Session::open(&pair.target()).await.unwrap();
    let mut last = 0;
    let mut reached = None;
    for manifest in manifests {
        assert_eq!(manifest.outcome.consistency.level, ConsistencyLevel::Exact);
        let position = &manifest.outcome.position;
        assert!(position.file.is_some() && position.offset.is_some(), "{position:?}");
        let expected = transactions(position.gtid.as_ref().unwrap()) - before;
        assert!(expected > last && expected <= written, "{expected} of {written}, before {last}");
        last = expected;

        pair.restore(&manifest, LogicalRestoreOptions { overwrite: true, ..Default::default() })
            .await;
        for table in ["first", "last"] {
            let found: Option<(u64, u64)> = target
                .query_first(&format!("SELECT COUNT(*), MAX(n) FROM bank.{table}"))
                .await
                .unwrap();
            assert_eq!(found, Some((expected, expected)), "bank.{table}");
        }
        let money: Option<i64> = target
            .query_first("SELECT CAST(SUM(money) AS SIGNED) FROM bank.account")
            .await
            .unwrap();
        assert_eq!(money, Some(100_000));
        reached = Some(position.clone());
    }

    // What the origin wrote after that position, once more at the target: now both are the same.
    replay(&pair, &mut source, &reached.unwrap()).await;
    sides::assert_same("rows", &sides::rows(&mut source).await, &sides::rows(&mut target).await);
    let found: Option<u64> = target.query_first("SELECT COUNT(*) FROM bank.last").await.unwrap();
    assert_eq!(found, Some(written));
    pair.stop().await;
}

/// `mysqlbinlog --start-position=… FILE … | mysql`, from a position to the end.
async fn replay(pair: &Pair, source: &mut Session, from: &Position) {
    source.run("FLUSH BINARY LOGS").await.unwrap();
    let logs: Vec<mysql_async::Row> = source.query_rows("SHOW BINARY LOGS").await.unwrap();
    let logs = logs.iter().map(|row| row.get::<String, _>(0).unwrap());
    let first = from.file.clone().unwrap();
    // The last one is open, and empty.
    let mut files: Vec<_> = logs.skip_while(|name| *name != first).collect();
    files.pop();
    assert_eq!(files[0], first);
    let install = pair.source.install();
    let mut command = install.command("mysqlbinlog").unwrap();
    command.arg("--no-defaults").arg(format!("--start-position={}", from.offset.unwrap()));
    command.args(files.iter().map(|name| pair.source.datadir().join(name)));
    let mut read = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut apply = install.command("mysql").unwrap();
    apply.args(["--no-defaults", "--user=root", "--binary-mode"]);
    apply.arg(format!("--socket={}", pair.target.socket().display()));
    let applied = apply.stdin(read.stdout.take().unwrap()).output().unwrap();
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    assert!(read.wait().unwrap().success());
}
