//! Beside `mysqlbinlog | mysql`, in one run. No test: `cargo test --release -p backup-verify --test binlog --
//! --ignored --nocapture speed`.

use std::process::{Command, Stdio};
use std::time::Instant;

use backup_core::ReplayTarget;

use crate::replay::{beginning, content, replay, route};
use crate::server::Server;
use crate::store::Store;

const TABLES: usize = 8;
const TRANSACTIONS: usize = 100_000;

/// Like sysbench's oltp_write_only, smaller: two updates, a delete and an insert of the same row.
async fn load(server: &Server) {
    let mut statements = vec!["CREATE DATABASE d".to_owned()];
    for table in 0..TABLES {
        statements.push(format!(
            "CREATE TABLE d.t{table} (id INT PRIMARY KEY, k INT, c CHAR(120), pad CHAR(60), KEY (k))"
        ));
        statements.push(format!(
            "INSERT INTO d.t{table} SELECT n, n, REPEAT('c', 119), REPEAT('p', 59) FROM \
             (WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 1000) \
             SELECT n FROM s) AS x"
        ));
    }
    let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
    server.run(&statements).await;
    let mut tasks = Vec::new();
    for table in 0..TABLES {
        let mut session = server.session().await;
        tasks.push(tokio::spawn(async move {
            for n in 0..TRANSACTIONS / TABLES {
                let (a, b, c) = (n * 7 % 1000 + 1, n * 13 % 1000 + 1, n * 31 % 1000 + 1);
                for sql in [
                    "BEGIN".to_owned(),
                    format!("UPDATE d.t{table} SET k = k + 1 WHERE id = {a}"),
                    format!("UPDATE d.t{table} SET c = '{n}' WHERE id = {b}"),
                    format!("DELETE FROM d.t{table} WHERE id = {c}"),
                    format!("INSERT INTO d.t{table} VALUES ({c}, {n}, 'c', 'p')"),
                    "COMMIT".to_owned(),
                ] {
                    session.run(&sql).await.unwrap();
                }
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement, of minutes"]
async fn speed() {
    let source = Server::start("mysql-9.7", |builder| builder).await;
    load(&source).await;
    let store = Store::new().await;
    let began = Instant::now();
    let received = store.archive(&source).await;
    let seconds = began.elapsed().as_secs_f64();
    let mib = received.bytes as f64 / 1_048_576.0;
    println!("received {} transactions, {mib:.0} MiB, in {seconds:.1} s", received.transactions);

    let durable = Server::start("mysql-9.7", |builder| builder.durable(true)).await;
    let began = Instant::now();
    let way = route(&store, &beginning(&source, ""), &ReplayTarget::End, &[]).await.unwrap();
    replay(&store, &durable, way).await;
    let ours = began.elapsed().as_secs_f64();
    println!("holdfast: {ours:.1} s, 4 workers");
    assert_eq!(content(&durable).await, content(&source).await);
    drop(durable);

    let durable = Server::start("mysql-9.7", |builder| builder.durable(true)).await;
    let install = xtask::servers::install("mysql-9.7").unwrap();
    let files: Vec<_> =
        source.binlogs().await.iter().map(|name| source.0.datadir().join(name)).collect();
    let began = Instant::now();
    let mut reader = client(&install, "mysqlbinlog");
    let mut reader = reader.args(&files).stdout(Stdio::piped()).spawn().unwrap();
    let mut writer = client(&install, "mysql");
    let status = writer
        .arg("--no-defaults")
        .arg("--user=root")
        .arg(format!("--socket={}", durable.0.socket().display()))
        .stdin(reader.stdout.take().unwrap())
        .status()
        .unwrap();
    assert!(status.success() && reader.wait().unwrap().success());
    let theirs = began.elapsed().as_secs_f64();
    println!("mysqlbinlog | mysql: {theirs:.1} s, {:.1} times as long", theirs / ours);
    assert_eq!(content(&durable).await, content(&source).await);
}

/// A client program of the server's packages.
fn client(install: &backup_drivers::sandbox::ServerInstall, name: &str) -> Command {
    install.command(name).unwrap()
}
