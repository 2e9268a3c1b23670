//! Data files of replicas: relay logs are in no copy, and nothing that needs them is.

use std::path::Path;

use backup_core::Context;
use rstest::rstest;

use crate::home::{Home, Run};
use crate::server::{self, Server, install};

async fn on(name: &str, directory: &Path, options: &[(&str, &str)]) -> Server {
    let mut builder =
        xtask::servers::sandbox(name).await.unwrap().datadir(directory).durable(false).tcp(true);
    for (name, value) in options {
        builder = builder.option(*name, *value);
    }
    Server(builder.start(&Context::builder().build()).await.unwrap())
}

/// A server with an account for replicas.
async fn primary(home: &Home, name: &str) -> Server {
    let primary = on(name, &home.path("primary"), &[]).await;
    let mut session = primary.session().await;
    server::shop(&mut session).await;
    let account = [
        "CREATE USER repl@'%' IDENTIFIED BY 'Secret-1'",
        "GRANT REPLICATION SLAVE ON *.* TO repl@'%'",
    ];
    server::run(&mut session, &account).await;
    session.close().await.unwrap();
    primary
}

/// Waits until a value of the server is this.
async fn until(server: &Server, sql: &str, wanted: &str) {
    while server.value(sql).await.as_deref() != Some(wanted) {
        tokio::task::yield_now().await;
    }
}

fn backup(home: &Home, source: &str, more: &[&str]) -> Run {
    let args = ["backup", "--strategy", "physical", "--source", source, "--cluster", "shop"];
    home.on_repo([&args[..], more].concat())
}

fn drill(home: &Home, name: &str) -> Run {
    let servers = install(name);
    let drill = ["verify", "--level", "drill", "--cluster", "shop", "--server-dir"];
    home.on_repo([&drill[..], &[servers.to_str().unwrap()]].concat())
}

/// Names of what tells a MariaDB what it replicates.
fn of_replication(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".info")).collect()
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_a_mariadb_replica_start_and_replicate_nothing(
    #[values("", "far")] connection: &str,
) {
    let name = "mariadb-10.11";
    let home = Home::with_repo();
    let primary = primary(&home, name).await;
    let data = home.path("data");
    let options = [("server-id", "2"), ("relay-log", "rl"), ("log-slave-updates", "ON")];
    let mut replica = on(name, &data, &options).await;
    let port = primary.0.port().unwrap();
    let source = format!(
        "CHANGE MASTER '{connection}' TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='repl', \
         MASTER_PASSWORD='Secret-1', MASTER_USE_GTID=slave_pos"
    );
    let start = format!("START SLAVE '{connection}'");
    server::run(&mut replica.session().await, &[&source, &start]).await;
    let at = primary.value("SELECT @@gtid_binlog_pos").await.unwrap();
    until(&replica, "SELECT @@gtid_slave_pos", &at).await;
    assert!(of_replication(&data).len() >= 2, "{:?}", of_replication(&data));

    let run = backup(&home, &replica.url(), &["--lock-and-copy", "-v"]).expect(0);
    let suffix = if connection.is_empty() { "" } else { "-far" };
    run.says(&format!("relay-log{suffix}.info")).says("up to binlog.0");
    stands(&home, name, &at, &primary).await;
    // A server that is stopped has its relay logs still.
    replica.0.stop().await.unwrap();
    let run = backup(&home, &format!("file://{}", data.display()), &["--json"]).expect(0).json();
    assert!(run["position"]["file"].as_str().unwrap().starts_with("binlog."), "{run:#}");
    assert_eq!(run["position"]["gtid"], *at, "{run:#}");
    let shown = home.on_repo(["show", "latest", "--json"]).expect(0).json();
    let left: Vec<&str> =
        shown["left_out"].as_array().unwrap().iter().map(|l| l["path"].as_str().unwrap()).collect();
    assert!(left.contains(&&*format!("relay-log{suffix}.info")), "{left:?}");
    stands(&home, name, &at, &primary).await;

    // It is made a replica all the same.
    let (target, servers) = (home.path("target"), install(name));
    let to = [
        "restore",
        "--repo",
        "repo",
        "--cluster",
        "shop",
        "--target-dir",
        target.to_str().unwrap(),
    ];
    let from = primary.tcp_url("repl");
    let more = ["--as-replica-of", &from, "--server-dir", servers.to_str().unwrap()];
    let mut command = home.command([&to[..], &more].concat());
    Run::of(command.env("HOLDFAST_SOURCE_PASSWORD", "Secret-1")).expect(0);
    let restored = on(name, &target, &[("server-id", "3")]).await;
    server::run(
        &mut primary.session().await,
        &["INSERT INTO shop.customers VALUES (9, 'i', NULL)"],
    )
    .await;
    until(&restored, "SELECT COUNT(*) FROM shop.customers WHERE id = 9", "1").await;
}

/// A copy of a stopped server tells of its binary log alone, and this one got everything past that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_copy_of_a_replica_that_logs_nothing_goes_on_by_what_its_server_knows() {
    let name = "mariadb-10.11";
    let home = Home::with_repo();
    let primary = primary(&home, name).await;
    let data = home.path("data");
    let options = [("server-id", "2"), ("log-slave-updates", "OFF")];
    let mut replica = on(name, &data, &options).await;
    let port = primary.0.port().unwrap();
    let source = format!(
        "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='repl', \
         MASTER_PASSWORD='Secret-1', MASTER_USE_GTID=slave_pos"
    );
    server::run(&mut replica.session().await, &[&source, "START SLAVE"]).await;
    let at = primary.value("SELECT @@gtid_binlog_pos").await.unwrap();
    until(&replica, "SELECT @@gtid_slave_pos", &at).await;
    replica.0.stop().await.unwrap();
    backup(&home, &format!("file://{}", data.display()), &[]).expect(0);
    let later = [
        "INSERT INTO shop.customers VALUES (9, 'i', NULL)",
        "UPDATE shop.customers SET name = CONCAT(name, '+')",
    ];
    server::run(&mut primary.session().await, &later).await;
    let url = primary.url();
    // Nothing that the copy tells is of that server.
    let archive = ["binlog", "backup", "--source", &url, "--cluster", "shop", "--from", "oldest"];
    home.on_repo([&archive[..], &["--anyway"]].concat()).expect(0);

    let servers = install(name);
    let restore = |target: &Path, more: &[&str]| {
        let to = ["restore", "--cluster", "shop", "--target-dir", target.to_str().unwrap()];
        let with = ["--server-dir", servers.to_str().unwrap()];
        home.on_repo([&to[..], &with, more].concat())
    };
    let run = restore(&home.path("point"), &["--to-latest"]).expect(9);
    run.says("would execute transactions twice").says("without a point (no --to-…)");
    let target = home.path("target");
    restore(&target, &[]).expect(0);
    let restored = on(name, &target, &[("server-id", "3")]).await;
    let there = restored.url();
    let apply = ["binlog", "apply", "--cluster", "shop", "--target", &there, "--to-latest"];
    home.on_repo(apply).expect(0);
    assert_eq!(restored.content("shop").await, primary.content("shop").await);
}

/// The last backup is sound, and a server on it knows where its source stood and replicates nothing.
async fn stands(home: &Home, name: &str, at: &str, primary: &Server) {
    drill(home, name).expect(0);
    let target = home.path("target");
    let to = ["restore", "--cluster", "shop", "--target-dir", target.to_str().unwrap()];
    home.on_repo(to).expect(0);
    assert_eq!(of_replication(&target), [""; 0]);
    let mut restored = on(name, &target, &[("server-id", "3"), ("relay-log", "rl")]).await;
    assert_eq!(restored.value("SELECT @@gtid_slave_pos").await.as_deref(), Some(at));
    assert_eq!(restored.content("shop").await, primary.content("shop").await);
    let connections =
        "SELECT COUNT(*) FROM information_schema.processlist WHERE command LIKE 'Slave%'";
    assert_eq!(restored.value(connections).await.as_deref(), Some("0"));
    restored.0.stop().await.unwrap();
    std::fs::remove_dir_all(target).unwrap();
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_of_a_mysql_replica_asks_for_no_relay_logs(#[values("", "far")] channel: &str) {
    let name = "mysql-9.7";
    let home = Home::with_repo();
    let primary = primary(&home, name).await;
    let data = home.path("data");
    let mut replica = on(name, &data, &[("server-id", "2")]).await;
    let port = primary.0.port().unwrap();
    let source = format!(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={port}, SOURCE_USER='repl', \
         SOURCE_PASSWORD='Secret-1', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1 FOR CHANNEL '{channel}'"
    );
    let sql = ["RESET BINARY LOGS AND GTIDS", &source, "START REPLICA"];
    server::run(&mut replica.session().await, &sql).await;
    // Its applier has had nothing to do since then, as the server counts.
    let long_ago = "SET SESSION timestamp = UNIX_TIMESTAMP() - 10000";
    server::run(&mut primary.session().await, &[long_ago, "CREATE DATABASE long_ago"]).await;
    let at = primary.value("SELECT @@gtid_executed").await.unwrap();
    until(&replica, "SELECT @@gtid_executed", &at).await;
    backup(&home, &replica.url(), &["--lock-and-copy"]).expect(0);
    drill(&home, name).expect(0);
    replica.0.stop().await.unwrap();
    backup(&home, &format!("file://{}", data.display()), &[]).expect(0);
    drill(&home, name).expect(0);
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_stands_in_the_binlogs_that_it_wrote_last(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let home = Home::with_repo();
    let data = home.path("data");
    let source = format!("file://{}", data.display());
    let mut server = on(name, &data, &[]).await;
    let mut session = server.session().await;
    // The numbers of the one name say nothing of the other.
    server::run(&mut session, &["CREATE DATABASE a", "FLUSH BINARY LOGS", "FLUSH BINARY LOGS"])
        .await;
    server.0.stop().await.unwrap();
    for (option, file) in [(Some(("log-bin", "renamed")), "renamed."), (None, "binlog.")] {
        let mut server = on(name, &data, option.as_slice()).await;
        let sql = format!("CREATE DATABASE `{file}`");
        server::run(&mut server.session().await, &[&sql]).await;
        let variable = if name.starts_with("mysql") { "gtid_executed" } else { "gtid_binlog_pos" };
        let at = server.value(&format!("SELECT @@GLOBAL.{variable}")).await.unwrap();
        server.0.stop().await.unwrap();
        let check = ["check", "--strategy", "physical", "--source", &source];
        home.on_repo(check).expect(0);
        let run = backup(&home, &source, &["--json"]).expect(0).json();
        assert!(run["position"]["file"].as_str().unwrap_or_default().starts_with(file), "{run:#}");
        assert_eq!(run["position"]["gtid"], *at, "{run:#}");
    }
}
