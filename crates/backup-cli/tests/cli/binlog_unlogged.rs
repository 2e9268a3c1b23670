//! Servers whose binary log does not tell of everything that changes: no archive of it seems whole.

use rstest::rstest;

use crate::home::Home;
use crate::server::{self, Server};

async fn start(name: &str, options: &[(&str, &str)]) -> Server {
    let cx = backup_core::Context::builder().build();
    let builder = xtask::servers::sandbox(name).await.unwrap().tcp(true);
    let builder =
        options.iter().fold(builder, |builder, (name, value)| builder.option(*name, *value));
    Server(builder.start(&cx).await.unwrap())
}

#[rstest]
#[tokio::test]
async fn what_a_replica_does_not_log_is_in_no_archive(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let mysql = name.starts_with("mysql");
    let updates = if mysql { "log_replica_updates" } else { "log_slave_updates" };
    let source = Server::start(name).await;
    let replica = start(name, &[("server_id", "2"), (updates, "OFF")]).await;
    let account =
        ["CREATE USER repl@'%' IDENTIFIED BY 'repl'", "GRANT REPLICATION SLAVE ON *.* TO repl@'%'"];
    server::run(&mut source.session().await, &account).await;
    let port = source.0.port().unwrap();
    let follow = match mysql {
        true => format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={port}, SOURCE_USER='repl', \
             SOURCE_PASSWORD='repl', GET_SOURCE_PUBLIC_KEY=1, SOURCE_AUTO_POSITION=1"
        ),
        false => format!(
            "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='repl', \
             MASTER_PASSWORD='repl', MASTER_USE_GTID=slave_pos"
        ),
    };
    let [begin, end] = match mysql {
        true => ["START REPLICA", "STOP REPLICA"],
        false => ["START SLAVE", "STOP SLAVE"],
    };
    let mut session = replica.session().await;
    server::run(&mut session, &[&follow, begin]).await;
    server::shop(&mut source.session().await).await;
    let begun = std::time::Instant::now();
    while source.content("shop").await != replica.content("shop").await {
        assert!(begun.elapsed().as_secs() < 60, "the replica lags");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    // Who may not ask what is replicated, is told too.
    let account = [
        "CREATE USER reader@'%'",
        "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO reader@'%'",
    ];
    server::run(&mut session, &account).await;

    let home = Home::with_repo();
    let url = replica.url();
    let lacks = format!("is not in its binary log ({updates}=OFF)");
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let check = home.run(["check", "--source", &url]).expect(0);
    assert!(check.stdout.contains(&lacks), "{check:?}");
    let reader = replica.tcp_url("reader");
    for url in [&url, &reader] {
        let archive = ["binlog", "backup", "--source", url, "--cluster", "shop"];
        let run = home.on_repo(archive).expect(6).says(&lacks);
        run.says("set log_slave_updates=ON");
    }
    assert!(!home.path("repo/clusters/shop/binlog").exists());
    let anyway = ["binlog", "backup", "--source", &url, "--cluster", "shop", "--accept-gap"];
    home.on_repo(anyway).expect(14).says(&lacks);
    // It is no replica any more.
    server::run(&mut session, &[end]).await;
    let run = home.on_repo(["binlog", "backup", "--source", &url, "--cluster", "shop"]);
    assert!(!run.stderr.contains(&lacks), "{run:?}");
}

#[rstest]
#[tokio::test]
async fn databases_that_the_binary_log_leaves_out_are_told(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let source = start(name, &[("binlog_ignore_db", "scratch")]).await;
    let home = Home::with_repo();
    let lacks = "leaves out databases (binlog_ignore_db=scratch)";
    let url = source.url();
    let check = home.run(["check", "--source", &url]).expect(0);
    assert!(check.stdout.contains(lacks), "{check:?}");
    home.on_repo(["backup", "--source", &url, "--cluster", "c"]).expect(0);
    home.on_repo(["binlog", "backup", "--source", &url, "--cluster", "c"]).expect(14).says(lacks);
}
