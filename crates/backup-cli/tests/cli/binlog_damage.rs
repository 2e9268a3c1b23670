//! Damage in the archive: restores lead round it where they can, and a rescue puts it right.

use std::path::PathBuf;

use rstest::rstest;

use crate::home::Home;
use crate::server::{self, Server};

/// Flips a bit of a file's content.
fn flip(path: &PathBuf) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = bytes.len() - 20;
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// The segments of a server, in their order.
fn segments(home: &Home, server: &str) -> Vec<PathBuf> {
    let files = home.files(&format!("repo/clusters/shop/binlog/{server}"));
    files.into_iter().map(|(path, _)| path).collect()
}

async fn name_of(server: &Server, mysql: bool) -> String {
    match mysql {
        true => server.value("SELECT @@server_uuid").await.unwrap(),
        false => format!("id-{}", server.value("SELECT @@server_id").await.unwrap()),
    }
}

#[rstest]
#[tokio::test]
async fn a_restore_leads_round_damage(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let mysql = name.starts_with("mysql");
    let cx = backup_core::Context::builder().build();
    let builder = xtask::servers::sandbox(name).await.unwrap().tcp(true).option("server_id", "2");
    let updates = if mysql { "log_replica_updates" } else { "log_slave_updates" };
    let replica = Server(builder.option(updates, "ON").start(&cx).await.unwrap());
    let source = Server::start(name).await;
    let mut session = source.session().await;
    let account =
        ["CREATE USER repl@'%' IDENTIFIED BY 'repl'", "GRANT REPLICATION SLAVE ON *.* TO repl@'%'"];
    server::run(&mut session, &account).await;
    let port = source.0.port().unwrap();
    let (follow, begin) = match mysql {
        true => (
            format!(
                "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={port}, SOURCE_USER='repl', \
                 SOURCE_PASSWORD='repl', GET_SOURCE_PUBLIC_KEY=1, SOURCE_AUTO_POSITION=1"
            ),
            "START REPLICA",
        ),
        false => (
            format!(
                "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='repl', \
                 MASTER_PASSWORD='repl', MASTER_USE_GTID=slave_pos"
            ),
            "START SLAVE",
        ),
    };
    server::run(&mut replica.session().await, &[&follow, begin]).await;
    server::shop(&mut session).await;
    let home = Home::with_repo();
    let url = source.url();
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let archive =
        |url: &str| home.on_repo(["binlog", "backup", "--source", url, "--cluster", "shop"]);
    for id in 4..7 {
        let sql = format!("INSERT INTO shop.customers VALUES ({id}, 'n', NULL)");
        server::run(&mut session, &[&sql]).await;
        if id < 6 {
            archive(&url).expect(0);
        }
    }
    let begun = std::time::Instant::now();
    while replica.value("SELECT COUNT(*) FROM shop.customers").await.as_deref() != Some("6") {
        assert!(begun.elapsed().as_secs() < 60, "the replica lags");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    archive(&replica.url()).expect(0);
    // What the source alone has is what a way leads to.
    server::run(&mut session, &["INSERT INTO shop.customers VALUES (7, 'n', NULL)"]).await;
    archive(&url).expect(0);
    let content = source.content("shop").await;
    let of_source = segments(&home, &name_of(&source, mysql).await);
    let of_replica = segments(&home, &name_of(&replica, mysql).await);
    flip(&of_source[1]);
    home.on_repo(["binlog", "check", "--cluster", "shop"]).expect(11);
    let target = Server::start(name).await;
    let to = target.url();
    let restore = ["restore", "--cluster", "shop", "--target", &to, "--to-latest"];
    home.on_repo(restore).expect(14).says("is left out");
    assert_eq!(target.content("shop").await, content);
    // Where nothing leads round it, it is told before the first row, and with what helps.
    of_replica.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    let target = Server::start(name).await;
    let to = target.url();
    let args = ["restore", "--cluster", "shop", "--target", &to, "--to-latest"];
    for args in [&args[..], &[&args[..], &["--dry-run"]].concat()] {
        let run = home.on_repo(args.iter().copied()).expect(8);
        run.says("holdfast binlog check")
            .says("holdfast binlog rescue")
            .says("--to-last-reachable");
    }
    let args = ["restore", "--cluster", "shop", "--target", &to, "--to-last-reachable"];
    home.on_repo(args).expect(14).says("is left out");
    let customers = "SELECT COUNT(*) FROM shop.customers";
    assert_eq!(target.value(customers).await.as_deref(), Some("4"));
}

#[rstest]
#[tokio::test]
async fn a_rescue_puts_damage_right(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let mut source = Server::with_shop(name).await;
    let home = Home::with_repo();
    let url = source.url();
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let mut session = source.session().await;
    for id in 4..8 {
        let sql = format!("INSERT INTO shop.customers VALUES ({id}, 'n', NULL)");
        server::run(&mut session, &[&sql]).await;
        home.on_repo(["binlog", "backup", "--source", &url, "--cluster", "shop"]).expect(0);
    }
    let content = source.content("shop").await;
    let server = name_of(&source, name.starts_with("mysql")).await;
    drop(session);
    source.0.kill();
    let datadir = source.0.datadir().to_str().unwrap().to_owned();
    let rescue = || home.on_repo(["binlog", "rescue", &datadir, "--cluster", "shop", "--json"]);
    let all = segments(&home, &server);
    let check = |code| drop(home.on_repo(["binlog", "check", "--cluster", "shop"]).expect(code));
    // Each one by itself; one of which nothing can be read; and one that is gone.
    for path in &all {
        flip(path);
        check(11);
        assert_eq!(rescue().expect(0).json()["put_right"], 1, "{}", path.display());
        check(0);
    }
    // The last one is where the archive would go on.
    for path in [&all[1], all.last().unwrap()] {
        let whole = std::fs::read(path).unwrap();
        std::fs::write(path, &whole[..60]).unwrap();
        assert_eq!(rescue().expect(0).json()["put_right"], 1, "{}", path.display());
        check(0);
    }
    std::fs::remove_file(&all[2]).unwrap();
    check(11);
    assert_eq!(rescue().expect(0).json()["put_right"], 1);
    check(0);
    assert_eq!(rescue().expect(0).json()["put_right"], 0);
    let target = Server::start(name).await;
    let to = target.url();
    home.on_repo(["restore", "--cluster", "shop", "--target", &to, "--to-latest"]).expect(0);
    assert_eq!(target.content("shop").await, content);
}
