//! A replica that `mariadb-backup` reads: where its source stood, and its applier while it has temporary tables.

use std::process::Stdio;

use backup_core::Context;
use rstest::rstest;

use super::{fill, number, on};
use crate::home::Home;
use crate::server::{self, Server, install};

async fn started(name: &str, id: &str) -> Server {
    started_with(name, id, "ON").await
}

async fn started_with(name: &str, id: &str, log_slave_updates: &str) -> Server {
    let cx = Context::builder().build();
    let builder = xtask::servers::sandbox(name).await.unwrap().durable(false).binary_log(true);
    // Only statements make temporary tables on a replica.
    let builder = builder.tcp(true).option("server-id", id).option("binlog-format", "STATEMENT");
    Server(builder.option("log-slave-updates", log_slave_updates).start(&cx).await.unwrap())
}

/// Makes a replica, and gives the statement that did.
async fn follow(replica: &Server, primary: &Server) -> String {
    let account =
        ["CREATE USER repl@'%' IDENTIFIED BY 'repl'", "GRANT REPLICATION SLAVE ON *.* TO repl@'%'"];
    server::run(&mut primary.session().await, &account).await;
    let port = primary.0.port().unwrap();
    let source = format!(
        "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, MASTER_USER = 'repl', \
         MASTER_PASSWORD = 'repl', MASTER_USE_GTID = slave_pos"
    );
    server::run(&mut replica.session().await, &[&source, "START SLAVE"]).await;
    source
}

/// Waits until a value of the server is this.
async fn until(server: &Server, sql: &str, wanted: &str) {
    while server.value(sql).await.as_deref() != Some(wanted) {
        tokio::task::yield_now().await;
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_tells_where_its_source_stood_and_waits_for_its_temporary_tables(
    #[values("mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let home = Home::with_repo();
    let (primary, replica) = (started(name, "7").await, started(name, "8").await);
    let mut session = primary.session().await;
    let source = follow(&replica, &primary).await;
    fill(&mut session).await;
    let open = ["CREATE TEMPORARY TABLE bank.mine (id INT)", "INSERT INTO bank.mine VALUES (1)"];
    server::run(&mut session, &open).await;
    let at = primary.value("SELECT @@gtid_binlog_pos").await.unwrap();
    until(&replica, "SELECT @@gtid_slave_pos", &at).await;
    let temporary = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE \
                     VARIABLE_NAME = 'Slave_open_temp_tables'";
    assert_eq!(replica.value(temporary).await.as_deref(), Some("1"));

    // The applier is stopped only when the table is gone, which the primary decides.
    let (url, tool) = (replica.url(), install(name));
    let tool = tool.to_str().unwrap();
    let args = ["backup", "--strategy", "physical", "--source", &url, "--cluster", "bank"];
    let more = ["--tool", tool, "--replica-position", "--pause-replication"];
    let mut command = home.command([&args[..], &more].concat());
    let child = command.env("HOLDFAST_REPO", "repo").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = child.spawn().unwrap();
    let applier = "SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE \
                   VARIABLE_NAME = 'Slave_running'";
    // The tool stops the applier, sees the table, and lets it go on.
    until(&replica, applier, "OFF").await;
    until(&replica, applier, "ON").await;
    assert!(child.try_wait().unwrap().is_none(), "it waits");
    server::run(&mut session, &["DROP TEMPORARY TABLE bank.mine"]).await;
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");

    // It goes on, and the backup names where the source stood.
    server::run(&mut session, &["UPDATE bank.accounts SET v = v + 1"]).await;
    let last = primary.value("SELECT @@gtid_binlog_pos").await.unwrap();
    until(&replica, "SELECT @@gtid_slave_pos", &last).await;
    let shown = home.on_repo(["show", "latest", "--json"]).expect(0).json();
    let position = shown["details"]["replica_position"].as_str().unwrap_or_default();
    let file = primary.value("SELECT @@gtid_binlog_pos").await.unwrap();
    assert!(position.contains("CHANGE MASTER TO"), "{shown:#}");
    assert!(position.contains("gtid_slave_pos") && file.starts_with("0-7-"), "{position}");
    let page = home.on_repo(["show", "latest"]).expect(0).stdout;
    assert!(page.contains("CHANGE MASTER TO"), "{page}");

    // A server on it is the next replica.
    let target = home.path("target");
    let to = target.to_str().unwrap();
    let restore = ["restore", "--cluster", "bank", "--tool", tool, "--target-dir", to];
    home.on_repo(restore).expect(0);
    let restored = on(name, &target).await;
    let kept: Vec<&str> =
        position.split(['\'', '"']).filter(|part| part.starts_with("0-7-")).collect();
    let set = format!("SET GLOBAL gtid_slave_pos = '{}'", kept[0]);
    server::run(&mut restored.session().await, &[&set, &source, "START SLAVE"]).await;
    until(&restored, "SELECT @@gtid_slave_pos", &last).await;
    let sql = "SELECT SUM(v) FROM bank.accounts";
    assert_eq!(number(&restored, sql).await, number(&primary, sql).await);
}

/// As replicas of MariaDB come: what replication brings is in the files and in no binary log of theirs.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn files_of_a_replica_that_writes_nothing_down_lead_to_points_of_its_source() {
    let name = "mariadb-10.11";
    let home = Home::with_repo();
    let (primary, replica) = (started(name, "7").await, started_with(name, "8", "OFF").await);
    let mut session = primary.session().await;
    follow(&replica, &primary).await;
    fill(&mut session).await;
    let at = primary.value("SELECT @@gtid_binlog_pos").await.unwrap();
    until(&replica, "SELECT @@gtid_slave_pos", &at).await;
    let (of_replica, of_primary) = (replica.url(), primary.url());
    let args = ["backup", "--strategy", "physical", "--lock-and-copy", "--cluster", "bank"];
    let run = home.on_repo([&args[..], &["--source", &of_replica, "--json"]].concat()).expect(0);
    assert_eq!(run.json()["position"]["gtid"], *at, "{run:?}");

    server::run(&mut session, &["UPDATE bank.accounts SET v = v + 1"]).await;
    let archive = ["binlog", "backup", "--cluster", "bank", "--from", "oldest", "--source"];
    home.on_repo([&archive[..], &[&of_primary]].concat()).expect(0);
    let (target, server_dir) = (home.path("target"), install(name));
    let to = ["--target-dir", target.to_str().unwrap(), "--server-dir"];
    let restore = ["restore", "--cluster", "bank", "--to-latest"];
    home.on_repo([&restore[..], &to, &[server_dir.to_str().unwrap()]].concat()).expect(0);
    let restored = on(name, &target).await;
    let sql = "SELECT SUM(v) FROM bank.accounts";
    assert_eq!(number(&restored, sql).await, number(&primary, sql).await);
}

/// What replication brought, or somebody set, is a part of the position, and in no binary log of the server.
#[tokio::test(flavor = "multi_thread")]
async fn increments_go_on_where_gtids_are_in_no_binary_log_of_the_server() {
    let name = "mariadb-10.11";
    let home = Home::with_repo();
    let data = home.path("data");
    let mut server = on(name, &data).await;
    let sql = [
        "CREATE DATABASE bank",
        "CREATE TABLE bank.t AS SELECT seq FROM bank.seq_1_to_1000",
        "SET GLOBAL gtid_slave_pos = '9-9-900'",
    ];
    server::run(&mut server.session().await, &sql).await;
    let take = |server: &Server, kind: &str| {
        let (url, tool) = (server.url(), install(name));
        let args = ["backup", "--strategy", "physical", "--source", &url, "--cluster", "bank"];
        let more = ["--type", kind, "--tool", tool.to_str().unwrap(), "--json"];
        home.on_repo([&args[..], &more].concat())
    };
    let full = take(&server, "full").expect(0).json();
    assert!(full["position"]["gtid"].as_str().unwrap().contains("9-9-900"), "{full:#}");
    let more = ["INSERT INTO bank.t SELECT seq FROM bank.seq_1_to_500"];
    server::run(&mut server.session().await, &more).await;
    take(&server, "incremental").expect(0);
    // Another process has the bytes of its binary log to show.
    server.0.stop().await.unwrap();
    let mut server = on(name, &data).await;
    server::run(&mut server.session().await, &more).await;
    take(&server, "incremental").expect(0);
    server.0.stop().await.unwrap();
}
