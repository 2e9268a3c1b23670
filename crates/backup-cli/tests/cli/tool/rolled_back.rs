//! Files that were put back to an earlier state between a backup and its increment, in place, as a cold copy is.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use backup_core::Context;

use super::number;
use crate::home::{Home, Run};
use crate::server::{self, Server, install};

const NAME: &str = "mariadb-10.11";

async fn on(data: &Path, binlog: bool) -> Server {
    let builder = xtask::servers::sandbox(NAME).await.unwrap().datadir(data).durable(false);
    let builder = builder.binary_log(binlog);
    Server(builder.start(&Context::builder().build()).await.unwrap())
}

fn take(home: &Home, server: &Server, kind: &str) -> Run {
    let (url, tool) = (server.url(), install(NAME));
    let args = ["backup", "--strategy", "physical", "--source", &url, "--cluster", "bank"];
    let more = ["--type", kind, "--tool", tool.to_str().unwrap()];
    home.on_repo([&args[..], &more].concat())
}

fn copy(from: &Path, to: &Path) {
    let from = format!("{}/.", from.display());
    std::fs::create_dir_all(to).unwrap();
    assert!(Command::new("cp").args(["-a", &from]).arg(to).status().unwrap().success());
}

/// A full backup and an increment, then the files of before the increment, and another history on them.
async fn rolled_back(home: &Home, binlog: bool, forget: &[&str]) -> Server {
    let (data, cold) = (home.path("data"), home.path("cold"));
    let mut server = on(&data, binlog).await;
    let sql = [
        "CREATE DATABASE bank",
        "CREATE TABLE bank.t (id INT PRIMARY KEY, v VARCHAR(20))",
        "INSERT INTO bank.t SELECT seq, 'base' FROM bank.seq_1_to_1000",
    ];
    server::run(&mut server.session().await, &sql).await;
    // That nothing after it can be restored is a warning.
    let done = if binlog { 0 } else { 14 };
    take(home, &server, "full").expect(done);
    server.0.stop().await.unwrap();
    copy(&data, &cold);
    let mut server = on(&data, binlog).await;
    // The same process until there is proof: that of the full backup is another one, and had a binary log or none.
    let next = if binlog { "incremental" } else { "full" };
    let lost = "INSERT INTO bank.t SELECT seq + 10000, 'lost' FROM bank.seq_1_to_1000";
    server::run(&mut server.session().await, &[lost]).await;
    take(home, &server, next).expect(done);
    server.0.stop().await.unwrap();
    copy(&cold, &data);
    for entry in std::fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().path()) {
        let name = entry.file_name().unwrap().to_str().unwrap();
        if forget.iter().any(|ending| name.ends_with(ending)) {
            std::fs::remove_file(&entry).unwrap();
        }
    }
    let server = on(&data, binlog).await;
    let other = [
        "INSERT INTO bank.t SELECT seq + 20000, 'new!' FROM bank.seq_1_to_1000",
        "INSERT INTO bank.t SELECT seq + 30000, 'after, too' FROM bank.seq_1_to_9000",
    ];
    server::run(&mut server.session().await, &other).await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn an_increment_of_files_that_were_put_back_without_a_binary_log_is_refused() {
    let home = Home::with_repo();
    let server = rolled_back(&home, false, &[]).await;
    let run = take(&home, &server, "incremental").expect(6);
    run.says("without a binary log nothing proves that its files").says("take a full backup");
    take(&home, &server, "full").expect(14);
    take(&home, &server, "incremental").expect(14);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_increment_of_files_that_were_put_back_is_refused_though_the_log_is_as_long() {
    let home = Home::with_repo();
    // The log of the lost transaction is gone, and the next one has its name, its GTIDs and its length.
    let server = rolled_back(&home, true, &[".000002"]).await;
    let run = take(&home, &server, "incremental").expect(6);
    run.says("the binary log is another one now").says("take a full backup");

    // It is still there, but no log of this server any more.
    let home = Home::with_repo();
    let server = rolled_back(&home, true, &[]).await;
    let run = take(&home, &server, "incremental").expect(6);
    run.says("is not among its binary logs").says("take a full backup");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_started_anew_needs_its_binary_log_for_an_increment() {
    for binlog in [true, false] {
        let home = Home::with_repo();
        let data = home.path("data");
        let mut server = on(&data, binlog).await;
        let sql =
            ["CREATE DATABASE bank", "CREATE TABLE bank.t AS SELECT seq FROM bank.seq_1_to_1000"];
        server::run(&mut server.session().await, &sql).await;
        let done = if binlog { 0 } else { 14 };
        take(&home, &server, "full").expect(done);
        let more = "INSERT INTO bank.t SELECT seq + 1000 FROM bank.seq_1_to_500";
        server::run(&mut server.session().await, &[more]).await;
        take(&home, &server, "incremental").expect(done);
        server.0.stop().await.unwrap();
        let mut server = on(&data, binlog).await;
        let more = "INSERT INTO bank.t SELECT seq + 2000 FROM bank.seq_1_to_500";
        server::run(&mut server.session().await, &[more]).await;
        let run = take(&home, &server, "incremental");
        if !binlog {
            run.expect(6).says("started anew since, and without a binary log nothing proves");
            continue;
        }
        run.expect(0);
        // Purged, it proves nothing.
        server::run(&mut server.session().await, &["FLUSH BINARY LOGS"]).await;
        server.0.stop().await.unwrap();
        let mut server = on(&data, binlog).await;
        let mut session = server.session().await;
        // It keeps those, without a word, that its own checkpoints have not come past yet.
        loop {
            let logs: Vec<(String, u64)> = session.query_rows("SHOW BINARY LOGS").await.unwrap();
            if logs.len() == 1 {
                break;
            }
            let purge = format!("PURGE BINARY LOGS TO '{}'", logs.last().unwrap().0);
            server::run(&mut session, &[&purge]).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        session.close().await.unwrap();
        let run = take(&home, &server, "incremental").expect(6);
        run.says("is not among its binary logs any more, purged");
        server.0.stop().await.unwrap();

        let to = home.path("restored");
        let tool = install(NAME);
        let args = ["restore", "--cluster", "bank", "--tool", tool.to_str().unwrap()];
        home.on_repo([&args[..], &["--target-dir", to.to_str().unwrap()]].concat()).expect(0);
        let restored = on(&to, binlog).await;
        assert_eq!(number(&restored, "SELECT COUNT(*) FROM bank.t").await, 2000);
    }
}
