//! Whose archive it is: servers of other clusters, names that are mistyped, and archives without a backup.

use rstest::rstest;

use crate::home::Home;
use crate::server::{self, Server};

/// One of this `server_id`.
async fn start(name: &str, server_id: &str) -> Server {
    let cx = backup_core::Context::builder().build();
    let builder = xtask::servers::sandbox(name).await.unwrap();
    let builder = builder.tcp(true).option("server_id", server_id);
    Server(builder.start(&cx).await.unwrap())
}

/// With more transactions than the cluster has.
async fn blog(name: &str, server_id: &str) -> Server {
    let blog = start(name, server_id).await;
    let mut session = blog.session().await;
    server::run(&mut session, &["CREATE DATABASE blog", "CREATE TABLE blog.t (a INT)"]).await;
    server::run(&mut session, &["INSERT INTO blog.t VALUES (1)"; 40]).await;
    session.close().await.unwrap();
    blog
}

#[rstest]
#[tokio::test]
async fn a_server_of_another_cluster_is_not_archived(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let source = Server::with_shop(name).await;
    let home = Home::with_repo();
    let url = source.url();
    let archive = |command: &str, url: &str, more: &[&str]| {
        let args = ["binlog", command, "--source", url, "--cluster", "shop"];
        home.on_repo([&args[..], more].concat())
    };
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let other = blog(name, "77").await;
    let refused = || {
        for command in ["backup", "stream"] {
            let run = archive(command, &other.url(), &[]).expect(2);
            run.says("neither binlogs nor backups").says("--source").says("--anyway");
        }
    };
    // By the backup alone it is told; so where a MariaDB has the same server_id.
    refused();
    if name.starts_with("mariadb") {
        let run = archive("backup", &blog(name, "1").await.url(), &[]).expect(2);
        run.says("is not the server id-1").says("--anyway");
    }
    assert_eq!(
        home.files("repo/clusters/shop").iter().filter(|f| f.0.ends_with("binlog")).count(),
        0
    );
    archive("backup", &url, &[]).expect(0);
    let before = home.files("repo/clusters/shop/binlog");
    refused();
    assert_eq!(home.files("repo/clusters/shop/binlog"), before);
    archive("backup", &url, &[]).expect(0);
    home.on_repo(["binlog", "check", "--cluster", "shop"]).expect(0);
    // Who says so is believed, and the archive knows it then.
    let run = archive("backup", &other.url(), &["--anyway"]);
    assert!(matches!(run.code, Some(0 | 14)), "{run:?}");
    archive("backup", &other.url(), &[]).expect(0);
    assert!(home.files("repo/clusters/shop/binlog").len() > before.len());
}

/// With the GTIDs of the cluster it is known by them; without, by a backup of its own.
#[rstest]
#[tokio::test]
async fn a_server_that_was_restored_goes_on(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
    #[values("--to-latest", "--json")] point: &str,
    // More than the restore itself, so that numbers go on behind it, or fewer.
    #[values(1, 40)] more: usize,
) {
    let source = Server::with_shop(name).await;
    let home = Home::with_repo();
    let url = source.url();
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let mut session = source.session().await;
    server::run(&mut session, &["INSERT INTO shop.customers VALUES (4, 'n', NULL)"]).await;
    server::run(&mut session, &vec!["UPDATE shop.customers SET id = id + 1 WHERE id > 3"; more])
        .await;
    let archive = |url: &str, more: &[&str]| {
        let args = ["binlog", "backup", "--source", url, "--cluster", "shop"];
        home.on_repo([&args[..], more].concat())
    };
    let check = |code: i32| home.on_repo(["binlog", "check", "--cluster", "shop"]).expect(code);
    archive(&url, &[]).expect(0);
    drop(source);
    let target = start(name, "2").await;
    let to = target.url();
    home.on_repo(["restore", "--cluster", "shop", "--target", &to, point]).expect(0);
    let promoted = ["INSERT INTO shop.customers VALUES (100, 'p', NULL)"];
    server::run(&mut target.session().await, &promoted).await;
    let run = archive(&to, &[]);
    match (point, name) {
        ("--to-latest", "mysql-9.7") => assert!(run.stdout.contains("Archived"), "{run:?}"),
        // What was applied is in none of its binlogs: all of them are archived, and only a backup leads on.
        ("--to-latest", _) => {
            let run = run.expect(14).says("log_slave_updates=OFF").says("take a full backup of it");
            assert!(run.stdout.contains("Archived"), "{run:?}");
            let told = check(14);
            assert!(told.stdout.contains("nothing leads to what id-2 wrote"), "{told:?}");
            assert!(told.stdout.contains("take a full backup of that server"), "{told:?}");
            let other = start(name, "3").await;
            let restore = ["restore", "--cluster", "shop", "--to-latest", "--target", &other.url()];
            home.on_repo(restore).expect(14).says("nothing leads to what id-2 wrote");
        }
        _ => drop(run.expect(2).says("take a full backup")),
    }
    home.on_repo(["backup", "--source", &to, "--cluster", "shop"]).expect(0);
    server::run(&mut target.session().await, &["DELETE FROM shop.customers WHERE id = 1"]).await;
    let run = archive(&to, &[]);
    assert!(matches!(run.code, Some(0 | 14)) && run.stdout.contains("Archived"), "{run:?}");
    if point == "--to-latest" {
        let well = check(0);
        assert!(well.stdout.contains("all is well"), "{well:?}");
    }
    let check = home.on_repo(["binlog", "check", "--cluster", "shop", "--json"]).expect(0).json();
    assert_eq!(check["backups"][1]["whole"], true, "{check:#}");
    let other = start(name, "4").await;
    let restore = ["restore", "--cluster", "shop", "--to-latest", "--target", &other.url()];
    let run = home.on_repo(restore);
    assert!(matches!(run.code, Some(0 | 14)), "{run:?}");
    assert_eq!(other.content("shop").await, target.content("shop").await);
}

/// What such a server wrote, and has no longer: a gap is told, and can be accepted.
#[tokio::test]
async fn a_restored_server_that_purged_its_first_binlogs_goes_on_behind_a_gap() {
    let source = Server::with_shop("mariadb-10.11").await;
    let home = Home::with_repo();
    let url = source.url();
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let mut session = source.session().await;
    let work = ["UPDATE shop.customers SET name = CONCAT(name, 'x') WHERE id = 1"; 40];
    server::run(&mut session, &work).await;
    let archive = |url: &str, more: &[&str]| {
        let args = ["binlog", "backup", "--source", url, "--cluster", "shop"];
        home.on_repo([&args[..], more].concat())
    };
    archive(&url, &[]).expect(0);
    let target = start("mariadb-10.11", "2").await;
    let to = target.url();
    home.on_repo(["restore", "--cluster", "shop", "--target", &to, "--to-latest"]).expect(0);
    let work = ["DELETE FROM shop.customers WHERE id = 2", "FLUSH BINARY LOGS"];
    server::run(&mut target.session().await, &work).await;
    let newest = "SELECT SUBSTRING_INDEX(@@log_bin_basename, '/', -1)";
    let series = target.value(newest).await.unwrap();
    let purge = format!("PURGE BINARY LOGS TO '{series}.000003'");
    server::run(&mut target.session().await, &[&purge]).await;
    archive(&to, &[]).expect(6).says("--accept-gap");
    home.on_repo(["backup", "--source", &to, "--cluster", "shop"]).expect(0);
    archive(&to, &["--accept-gap"]).expect(14).says("take a full backup");
    server::run(&mut target.session().await, &["DELETE FROM shop.customers WHERE id = 1"]).await;
    archive(&to, &[]).expect(0);
    let check = home.on_repo(["binlog", "check", "--cluster", "shop", "--json"]).expect(0).json();
    assert_eq!(check["backups"][1]["whole"], true, "{check:#}");
    let other = start("mariadb-10.11", "4").await;
    let restore = ["restore", "--cluster", "shop", "--to-latest", "--target", &other.url()];
    let run = home.on_repo(restore);
    assert!(matches!(run.code, Some(0 | 14)), "{run:?}");
    assert_eq!(other.content("shop").await, target.content("shop").await);
}

/// A server that was restored without a point begins a history of its own: no way leads from a backup of one into the
/// binlogs of the other.
#[rstest]
#[tokio::test]
async fn no_way_leads_into_another_history(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
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
    let work = ["INSERT INTO shop.customers VALUES (4, 'n', NULL)"];
    server::run(&mut source.session().await, &work).await;
    archive(&source.url());
    let target = start(name, "2").await;
    let to = target.url();
    home.on_repo(["restore", &first, "--cluster", "shop", "--target", &to]).expect(0);
    let second = backup(&to);
    let work = ["INSERT INTO shop.customers VALUES (40, 'm', NULL)"; 1];
    server::run(&mut target.session().await, &work).await;
    server::run(&mut target.session().await, &["CREATE DATABASE more"; 1]).await;
    archive(&to);
    let last = match name.starts_with("mysql") {
        true => {
            let set = "SELECT CONCAT(@@server_uuid, ':', SUBSTRING_INDEX(@@GLOBAL.gtid_executed, '-', -1))";
            target.value(set).await.unwrap()
        }
        false => target.value("SELECT @@GLOBAL.gtid_binlog_pos").await.unwrap(),
    };
    let other = start(name, "3").await;
    let url = other.url();
    let restore = |args: &[&str]| {
        home.on_repo([&["restore", "--cluster", "shop", "--target", &url], args].concat())
    };
    restore(&[&first, "--to-gtid", &last, "--dry-run"]).expect(10);
    let plan = restore(&["--to-gtid", &last, "--dry-run", "--json"]).expect(0).json();
    assert_eq!(plan["backup"], second.as_str(), "{plan:#}");
    let names = "SELECT GROUP_CONCAT(id ORDER BY id) FROM shop.customers";
    let run = restore(&[&first, "--to-latest"]);
    assert!(matches!(run.code, Some(0 | 14)), "{run:?}");
    assert_eq!(other.value(names).await.as_deref(), Some("1,2,3,4"));
    let other = start(name, "4").await;
    let args = ["restore", "--cluster", "shop", "--target", &other.url(), "--to-gtid", &last];
    home.on_repo(args).expect(0);
    assert_eq!(other.value(names).await.as_deref(), Some("1,2,3,40"));
    home.on_repo(["binlog", "check", "--cluster", "shop"]).expect(0);
}

#[rstest]
#[tokio::test]
async fn an_archive_without_a_backup_says_so(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let source = Server::with_shop(name).await;
    let home = Home::with_repo();
    let url = source.url();
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let archive = |cluster: &str, more: &[&str]| {
        let args = ["binlog", "backup", "--source", &url, "--cluster", cluster];
        home.on_repo([&args[..], more].concat())
    };
    let mistyped = archive("shp", &[]).expect(0);
    assert!(mistyped.stdout.contains("This is a new archive"), "{mistyped:?}");
    assert!(mistyped.stdout.contains("There is no backup of cluster shp"), "{mistyped:?}");
    mistyped.says("nothing can be restored").says("its clusters are: shop");
    let check = home.on_repo(["binlog", "check", "--cluster", "shp"]).expect(14);
    assert!(!check.stdout.contains("all is well"), "{check:?}");
    assert!(check.stdout.contains("from the binlogs alone nothing can be restored"), "{check:?}");
    let check = home.on_repo(["binlog", "check", "--cluster", "shp", "--json"]).expect(14).json();
    assert_eq!(check["findings"][0]["severity"], "warning", "{check:#}");
    let again = archive("shp", &["--json"]).expect(0);
    let document = again.json();
    assert_eq!((&document["new_archive"], &document["backups"]), (&false.into(), &0.into()));
    again.says("nothing can be restored");

    let first = archive("shop", &["--json"]).expect(0);
    assert!(!first.stderr.contains("nothing can be restored"), "{first:?}");
    let document = first.json();
    assert_eq!((&document["new_archive"], &document["backups"]), (&true.into(), &1.into()));
    home.on_repo(["binlog", "check", "--cluster", "shop"]).expect(0);
}

/// An old primary that goes on writing behind a failover: one way to the end leads past what the other server wrote.
#[rstest]
#[tokio::test]
async fn histories_that_went_apart_are_told(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let cx = backup_core::Context::builder().build();
    let builder = xtask::servers::sandbox(name).await.unwrap();
    let builder = builder.tcp(true).option("server_id", "2");
    // As whoever promotes replicas has it; of a MySQL it is the default.
    let builder = match name.starts_with("mysql") {
        true => builder,
        false => builder.option("log_slave_updates", "ON"),
    };
    let (old, new) = (start(name, "1").await, Server(builder.start(&cx).await.unwrap()));
    let home = Home::with_repo();
    let (old_url, new_url) = (old.url(), new.url());
    let archive = |url: &str| {
        home.on_repo(["binlog", "backup", "--source", url, "--cluster", "shop"]).expect(0)
    };
    let mut there = old.session().await;
    let work = ["CREATE DATABASE shop", "CREATE TABLE shop.o (id INT PRIMARY KEY)"];
    server::run(&mut there, &work).await;
    home.on_repo(["backup", "--source", &old_url, "--cluster", "shop"]).expect(0);
    server::run(&mut there, &["INSERT INTO shop.o VALUES (1)"]).await;
    archive(&old_url);
    let restore = ["restore", "--cluster", "shop", "--to-latest", "--binlog", "off", "--target"];
    home.on_repo([&restore[..], &[&new_url]].concat()).expect(0);
    server::run(&mut new.session().await, &["INSERT INTO shop.o VALUES (100)"]).await;
    archive(&new_url);
    let check = home.on_repo(["binlog", "check", "--cluster", "shop"]).expect(0);
    assert!(check.stdout.contains("all is well"), "{check:?}");

    // A second later, for the order of what both wrote.
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    server::run(&mut there, &["INSERT INTO shop.o VALUES (200)"]).await;
    archive(&old_url);
    let check = home.on_repo(["binlog", "check", "--cluster", "shop"]).expect(14);
    assert!(check.stdout.contains("went apart"), "{check:?}");
    let target = start(name, "3").await;
    let to = target.url();
    let restored = home.on_repo([&restore[..], &[&to, "--json"]].concat()).expect(14).json();
    let warned = restored["warnings"].to_string();
    assert!(warned.contains("went apart") && warned.contains("not on the way"), "{restored:#}");
    assert_eq!(target.value("SELECT GROUP_CONCAT(id) FROM shop.o").await.as_deref(), Some("1,200"));
}
