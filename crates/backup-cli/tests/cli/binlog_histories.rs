//! Servers whose histories went apart: what a restore gives is of one of them.

use rstest::rstest;

use crate::home::Home;
use crate::server::{self, Server};

/// The source made a mistake, a server was restored to before it and took over, and the newest backup is of the
/// source, behind the mistake.
#[rstest]
#[tokio::test]
async fn what_was_given_up_does_not_come_back(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
    // Fewer than the source has behind that point, or more.
    #[values(1, 12)] more: usize,
) {
    let mysql = name.starts_with("mysql");
    let source = Server::with_shop(name).await;
    let home = Home::with_repo();
    let backup = |url: &str| {
        let args = ["backup", "--source", url, "--cluster", "shop", "--json"];
        home.on_repo(args).expect(0).json()["backup"].as_str().unwrap().to_owned()
    };
    let archive = |url: &str| {
        let run = home.on_repo(["binlog", "backup", "--source", url, "--cluster", "shop"]);
        assert!(matches!(run.code, Some(0 | 14)), "{run:?}");
    };
    let first = backup(&source.url());
    let check = home.on_repo(["binlog", "check", "--cluster", "shop"]).expect(14).stdout;
    assert!(check.contains("nothing is archived") && !check.contains("all is well"), "{check}");
    let mut session = source.session().await;
    let account =
        ["CREATE USER repl IDENTIFIED BY 'repl'", "GRANT REPLICATION SLAVE ON *.* TO repl"];
    server::run(&mut session, &account).await;
    server::run(&mut session, &["INSERT INTO shop.customers VALUES (4, 'n', NULL)"]).await;
    let at = match mysql {
        true => {
            "SELECT CONCAT(@@server_uuid, ':', SUBSTRING_INDEX(@@GLOBAL.gtid_executed, '-', -1))"
        }
        false => "SELECT @@GLOBAL.gtid_binlog_pos",
    };
    let good = source.value(at).await.unwrap();
    let bad = "UPDATE shop.customers SET name = 'bad' WHERE id = 1";
    server::run(&mut session, &[bad]).await;
    server::run(&mut session, &["INSERT INTO shop.customers VALUES (99, 'lost', NULL)"; 1]).await;
    server::run(&mut session, &["DELETE FROM shop.customers WHERE id = 2"; 5]).await;
    archive(&source.url());
    let second = backup(&source.url());
    let lost = match mysql {
        true => source.value(at).await.unwrap(),
        false => source.value("SELECT @@GLOBAL.gtid_binlog_pos").await.unwrap(),
    };
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let time = jiff::Timestamp::now().to_string();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let heir = heir(name, &source, &good, &home, &first).await;
    let to = heir.url();
    for id in 0..more {
        let sql = format!("INSERT INTO shop.customers VALUES ({}, 'heir', NULL)", 40 + id);
        server::run(&mut heir.session().await, &[&sql]).await;
    }
    archive(&to);
    let last = match mysql {
        true => format!("{}:{more}", heir.value("SELECT @@server_uuid").await.unwrap()),
        false => heir.value(at).await.unwrap(),
    };
    let check = home.on_repo(["binlog", "check", "--cluster", "shop"]);
    assert!(matches!(check.code, Some(11 | 14)), "{check:?}");
    assert!(!check.stdout.contains("all is well"), "{check:?}");

    let target = Server::start(name).await;
    let to = target.url();
    let all = ["restore", "--cluster", "shop", "--target", &to];
    let plan = [&all[..], &["--to-gtid", &last, "--dry-run", "--json"]].concat();
    let plan = home.on_repo(plan).expect(0).json();
    assert_eq!(plan["backup"], first.as_str(), "{plan:#}");
    let run = home.on_repo([&all[..], &["--to-gtid", &last]].concat());
    assert!(matches!(run.code, Some(0 | 14)), "{run:?}");
    assert_eq!(target.content("shop").await, heir.content("shop").await);

    // Who names the other backup is told that it does not lead there.
    let target = Server::start(name).await;
    let to = target.url();
    let named = ["restore", &second, "--cluster", "shop", "--target", &to, "--to-gtid", &last];
    let run = home.on_repo(named);
    match run.code {
        Some(10) => {}
        Some(14) => drop(run.says("never had")),
        _ => panic!("{run:?}"),
    }

    // From a backup of the heir nothing leads to what was given up.
    let third = backup(&heir.url());
    let check = home.on_repo(["binlog", "check", "--cluster", "shop"]);
    assert!(matches!(check.code, Some(11 | 14)), "{check:?}");
    let target = Server::start(name).await;
    let to = target.url();
    let all = ["restore", "--cluster", "shop", "--target", &to];
    let plan = [&all[..], &["--to-gtid", &lost, "--dry-run", "--json"]].concat();
    let plan = home.on_repo(plan).expect(0).json();
    assert_ne!(plan["backup"], third.as_str(), "{plan:#}");
    let plan = [&all[..], &[&first, "--to-time", &time, "--dry-run", "--json"]].concat();
    let plan = home.on_repo(plan).json();
    let warnings = plan["binlog"]["warnings"].to_string();
    assert!(warnings.contains("went apart"), "{plan:#}");
}

/// A server that has everything up to `good`, and nothing behind: a replica that was cut off there, or one that was
/// restored.
async fn heir(name: &str, source: &Server, good: &str, home: &Home, backup: &str) -> Server {
    let heir = start(name).await;
    if name.starts_with("mariadb") {
        let to = heir.url();
        let restore = ["restore", backup, "--cluster", "shop", "--target", &to, "--to-gtid", good];
        home.on_repo(restore).expect(0);
        return heir;
    }
    let port = source.0.port().unwrap();
    let follow = format!(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={port}, SOURCE_USER='repl', \
         SOURCE_PASSWORD='repl', GET_SOURCE_PUBLIC_KEY=1, SOURCE_AUTO_POSITION=1"
    );
    let until = format!("START REPLICA UNTIL SQL_AFTER_GTIDS = '{good}'");
    server::run(&mut heir.session().await, &[&follow, &until]).await;
    let there = format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{good}', 60)");
    assert_eq!(heir.value(&there).await.as_deref(), Some("0"));
    server::run(&mut heir.session().await, &["STOP REPLICA", "RESET REPLICA ALL"]).await;
    heir
}

async fn start(name: &str) -> Server {
    let cx = backup_core::Context::builder().build();
    let builder = xtask::servers::sandbox(name).await.unwrap().tcp(true).option("server_id", "2");
    let updates =
        if name.starts_with("mysql") { "log_replica_updates" } else { "log_slave_updates" };
    Server(builder.option(updates, "ON").start(&cx).await.unwrap())
}

/// The restore is in its own binlogs, under its own name: only a backup of it leads on.
#[tokio::test]
async fn what_follows_a_logged_restore_begins_with_a_backup_of_it() {
    let source = Server::with_shop("mysql-9.7").await;
    let home = Home::with_repo();
    let run = |args: &[&str], url: &str| {
        home.on_repo([args, &["--source", url, "--cluster", "shop"]].concat())
    };
    run(&["backup"], &source.url()).expect(0);
    let row = "INSERT INTO shop.customers VALUES (4, 'n', NULL)";
    server::run(&mut source.session().await, &[row]).await;
    run(&["binlog", "backup"], &source.url()).expect(0);
    let heir = start("mysql-9.7").await;
    let to = heir.url();
    let restore = ["restore", "--cluster", "shop", "--to-latest", "--target"];
    home.on_repo([&restore[..], &[&to]].concat()).expect(0);
    let row = "INSERT INTO shop.customers VALUES (40, 'heir', NULL)";
    server::run(&mut heir.session().await, &[row]).await;
    run(&["binlog", "backup"], &to);
    let check = || home.on_repo(["binlog", "check", "--cluster", "shop"]);
    let told = check().expect(14).stdout;
    assert!(told.contains("take a full backup of that server now"), "{told}");
    run(&["backup"], &to).expect(0);
    let told = check().stdout;
    assert!(!told.contains("take a full backup of that server now"), "{told}");
    let row = "INSERT INTO shop.customers VALUES (41, 'heir', NULL)";
    server::run(&mut heir.session().await, &[row]).await;
    run(&["binlog", "backup"], &to);
    let target = start("mysql-9.7").await;
    let done = home.on_repo([&restore[..], &[&target.url()]].concat());
    assert!(matches!(done.code, Some(0 | 14)) && !done.stderr.contains("never had"), "{done:?}");
    assert_eq!(target.content("shop").await, heir.content("shop").await);
}
