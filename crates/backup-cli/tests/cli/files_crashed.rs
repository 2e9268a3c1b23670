//! Copies of servers that were killed: what was committed is decided by the binary log that is in the copy.

use std::path::Path;

use backup_core::Context;
use rstest::rstest;

use crate::home::Home;
use crate::server::{self, Server};

async fn on(name: &str, directory: &Path, options: &[(&str, &str)]) -> Server {
    let cx = Context::builder().build();
    let mut builder = xtask::servers::sandbox(name).await.unwrap().datadir(directory).durable(true);
    for (name, value) in options {
        builder = builder.option(*name, *value);
    }
    Server(builder.start(&cx).await.unwrap())
}

/// The commit of the last one is in the binary log, and in InnoDB's log only that it is prepared.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_server_had_committed_is_in_its_drill_and_in_single_tables(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let home = Home::with_repo();
    let data = home.path("data");
    let mut server = on(name, &data, &[]).await;
    let mut session = server.session().await;
    let sql = ["CREATE DATABASE e", "CREATE TABLE e.t (id INT PRIMARY KEY)"];
    server::run(&mut session, &sql).await;
    for n in 1..=20 {
        let insert = format!("INSERT INTO e.t VALUES ({n})");
        server::run(&mut session, &[&insert]).await;
    }
    server.0.kill();
    let source = format!("file://{}", data.display());
    let args = ["backup", "--strategy", "physical", "--cluster", "e", "--source", &source];
    home.on_repo([&args[..], &["--allow-unclean"]].concat()).expect(14);
    let tool = server::install(name);
    let tool = ["--server-dir", tool.to_str().unwrap()];
    let drill = ["verify", "--cluster", "e", "--level", "drill", "--json"];
    let said = home.on_repo([&drill[..], &tool].concat()).expect(0).stdout;
    assert!(said.contains("20 rows, digest"), "{said}");

    let target = Server::start(name).await;
    let url = target.url();
    let restore = ["restore", "--cluster", "e", "--tables", "e.t", "--target", &url];
    let restore = [&restore[..], &tool].concat();
    tokio::task::block_in_place(|| home.on_repo(restore)).expect(0);
    assert_eq!(target.value("SELECT COUNT(*) FROM e.t").await.as_deref(), Some("20"));

    // The files themselves, for a server with its binary log.
    let to = home.path("target");
    let args = ["restore", "--cluster", "e", "--target-dir", to.to_str().unwrap()];
    home.on_repo(args).expect(0);
    let restored = on(name, &to, &[]).await;
    assert_eq!(restored.value("SELECT COUNT(*) FROM e.t").await.as_deref(), Some("20"));
}

#[tokio::test]
async fn a_copy_without_a_position_ends_with_the_code_for_warnings() {
    let home = Home::with_repo();
    let (data, logs) = (home.path("data"), home.path("logs"));
    std::fs::create_dir(&logs).unwrap();
    let base = logs.join("binlog");
    let options = [("log_bin", base.to_str().unwrap())];
    let mut server = on("mariadb-10.11", &data, &options).await;
    server::shop(&mut server.session().await).await;
    server.0.stop().await.unwrap();
    let source = format!("file://{}", data.display());
    let take = |source: &str| {
        let args = ["backup", "--strategy", "physical", "--cluster", "shop", "--source", source];
        home.on_repo(args)
    };
    take(&source).expect(14).says("nothing after this backup can be restored");
    take(&format!("{source}?binlogs={}", logs.display())).expect(0);
    let options = [("skip_log_bin", "1")];
    let server = on("mariadb-10.11", &data, &options).await;
    let url = server.url();
    let args = ["backup", "--strategy", "physical", "--cluster", "shop", "--lock-and-copy"];
    let run = home.on_repo([&args[..], &["--source", &url]].concat()).expect(14);
    run.says("nothing after this backup can be restored");
}
