//! Which backup leads to a point, and points behind which a backup or a target is already.

use std::time::Duration;

use jiff::Timestamp;
use rstest::rstest;

use crate::home::{Home, Run};
use crate::server::{self, Server};

const NAMES: &str = "SELECT GROUP_CONCAT(id ORDER BY id) FROM shop.customers";

/// A moment of a server.
struct Moment {
    time: String,
    place: String,
    gtid: String,
}

async fn moment(source: &Server, name: &str) -> Moment {
    let mysql = name.starts_with("mysql");
    let mut session = source.session().await;
    let (variable, (file, end)) = match mysql {
        true => {
            let all: Vec<(String, u64, String)> =
                session.query_rows("SHOW BINARY LOGS").await.unwrap();
            ("gtid_executed", all.last().map(|(file, end, _)| (file.clone(), *end)).unwrap())
        }
        false => {
            let all: Vec<(String, u64)> = session.query_rows("SHOW BINARY LOGS").await.unwrap();
            ("gtid_binlog_pos", all.last().cloned().unwrap())
        }
    };
    let place = format!("{file}:{end}");
    let set = source.value(&format!("SELECT @@GLOBAL.{variable}")).await.unwrap();
    let gtid = match set.rsplit_once('-') {
        Some((first, last)) if mysql => format!("{}:{last}", first.rsplit_once(':').unwrap().0),
        _ => set,
    };
    // MariaDB's times are full seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let time = Timestamp::now().to_string();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    Moment { time, place, gtid }
}

#[rstest]
#[tokio::test]
async fn no_backup_behind_a_point_stands_for_it(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let source = Server::with_shop(name).await;
    let home = Home::with_repo();
    let url = source.url();
    let backup = || {
        let args = ["backup", "--source", &url, "--cluster", "shop", "--json"];
        home.on_repo(args).expect(0).json()["backup"].as_str().unwrap().to_owned()
    };
    let mut session = source.session().await;
    let before = moment(&source, name).await;
    server::run(&mut session, &["INSERT INTO shop.customers VALUES (4, 'd', NULL)"]).await;
    let first = backup();
    server::run(&mut session, &["INSERT INTO shop.customers VALUES (5, 'e', NULL)"]).await;
    let five = moment(&source, name).await;
    server::run(&mut session, &["INSERT INTO shop.customers VALUES (6, 'f', NULL)"]).await;
    let six = moment(&source, name).await;
    let second = backup();
    server::run(&mut session, &["INSERT INTO shop.customers VALUES (7, 'g', NULL)"]).await;
    let seven = moment(&source, name).await;
    let third = backup();
    // The place of a backup is a point before anything is archived.
    let target = Server::start(name).await;
    let to = target.url();
    let restore = |args: &[&str]| {
        let all = ["restore", "--cluster", "shop", "--target", &to];
        home.on_repo([&all, args].concat())
    };
    let chosen = |run: Run| {
        let plan = run.expect(0).json();
        (plan["backup"].as_str().unwrap().to_owned(), plan["binlog"]["last_applied"].is_null())
    };
    let plan = |point: &[&str]| restore(&[point, &["--dry-run", "--json"]].concat());
    assert_eq!(chosen(plan(&["--to-position", &six.place])), (second.clone(), true));
    for point in ["--to-latest", "--to-last-reachable"] {
        plan(&[point]).expect(10).says("nothing is archived").says("holdfast binlog backup");
    }
    home.on_repo(["binlog", "backup", "--source", &url, "--cluster", "shop"]).expect(0);

    for (moment, expected) in
        [(&five, (&first, false)), (&six, (&second, true)), (&seven, (&third, true))]
    {
        let expected = (expected.0.clone(), expected.1);
        assert_eq!(chosen(plan(&["--to-position", &moment.place])), expected);
        assert_eq!(chosen(plan(&["--to-gtid", &moment.gtid])), expected);
    }
    let said = restore(&["--to-position", &six.place, "--dry-run"]).expect(0).stdout;
    assert!(said.contains("Nothing of the archived binlogs is applied"), "{said}");
    assert!(!said.contains("transactions"), "{said}");
    // None leads there, and the nearest is told.
    for point in [["--to-position", &before.place], ["--to-gtid", &before.gtid]] {
        let run = plan(&point).expect(10).says("before what is there already").says(&first);
        run.says("earlier backup");
    }
    let tables = ["--tables", "shop.customers"];
    for more in [&[][..], &tables] {
        for point in [["--to-position", &five.place], ["--to-gtid", &five.gtid]] {
            let run = restore(&[&[third.as_str()], more, &point].concat()).expect(10);
            run.says("before what is there already").says(&third);
        }
    }
    let schemata = "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'shop'";
    assert_eq!(target.value(schemata).await.as_deref(), Some("0"));
    restore(&["--to-position", &six.place]).expect(0);
    assert_eq!(target.value(NAMES).await.as_deref(), Some("1,2,3,4,5,6"));

    // Neither does a target that goes further.
    let apply = |args: &[&str]| {
        let all = ["binlog", "apply", "--cluster", "shop", "--target", &to];
        home.on_repo([&all, args].concat())
    };
    for point in [
        ["--to-position", &five.place],
        ["--to-gtid", &five.gtid],
        ["--to-time", &five.time],
        ["--to-time", "2020-01-01T00:00:00Z"],
    ] {
        apply(&point).expect(10).says("before what is there already");
    }
    for point in [["--to-position", &six.place], ["--to-gtid", &six.gtid], ["--to-time", &six.time]]
    {
        apply(&point).expect(0);
        assert_eq!(target.value(NAMES).await.as_deref(), Some("1,2,3,4,5,6"));
    }
    apply(&["--to-position", &seven.place]).expect(0);
    assert_eq!(target.value(NAMES).await.as_deref(), Some("1,2,3,4,5,6,7"));
}

/// What a plain restore leaves in a MySQL server is in none of its GTIDs.
#[rstest]
#[tokio::test]
async fn a_target_that_does_not_know_where_it_stands_is_refused(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let source = Server::with_shop(name).await;
    let home = Home::with_repo();
    let url = source.url();
    home.on_repo(["binlog", "backup", "--source", &url, "--cluster", "shop"]).expect(0);
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let mut session = source.session().await;
    server::run(
        &mut session,
        &["CREATE TABLE shop.log (a INT)", "INSERT INTO shop.log VALUES (1)"],
    )
    .await;
    home.on_repo(["binlog", "backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let target = Server::start(name).await;
    let to = target.url();
    home.on_repo(["restore", "--cluster", "shop", "--target", &to]).expect(0);
    let before = target.content("shop").await;
    let apply = ["binlog", "apply", "--cluster", "shop", "--target", &to, "--to-latest"];
    home.on_repo(apply).expect(9).says("does not know which transactions").says("--to-latest");
    assert_eq!(target.content("shop").await, before);
    // An empty one begins at the beginning, and goes on.
    let empty = Server::start(name).await;
    let to = empty.url();
    let apply = ["binlog", "apply", "--cluster", "shop", "--target", &to, "--to-latest"];
    home.on_repo(apply).expect(0);
    assert_eq!(empty.content("shop").await, source.content("shop").await);
    server::run(&mut session, &["INSERT INTO shop.log VALUES (2)"]).await;
    home.on_repo(["binlog", "backup", "--source", &url, "--cluster", "shop"]).expect(0);
    home.on_repo(apply).expect(0);
    assert_eq!(empty.value("SELECT SUM(a) FROM shop.log").await.as_deref(), Some("3"));
}

#[rstest]
#[tokio::test]
async fn a_running_replica_is_no_target(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let source = Server::with_shop(name).await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &source.url(), "--cluster", "shop"]).expect(0);
    let target = Server::start(name).await;
    let mut session = target.session().await;
    // Nobody is there: it tries to connect.
    let [follow, stop] = match name.starts_with("mysql") {
        true => [
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = 1, \
             SOURCE_USER = 'nobody'",
            "STOP REPLICA",
        ],
        false => [
            "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = 1, MASTER_USER = 'nobody'",
            "STOP SLAVE",
        ],
    };
    server::run(&mut session, &[follow, &stop.replace("STOP", "START")]).await;
    let to = target.url();
    let restore = ["restore", "--cluster", "shop", "--target", &to];
    for more in [&[][..], &["--overwrite"], &["--dry-run"], &["--tables", "shop.orders"]] {
        home.on_repo([&restore, more].concat()).expect(9).says("its replication runs").says(stop);
    }
    let schemata = "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = 'shop'";
    assert_eq!(target.value(schemata).await.as_deref(), Some("0"));
    server::run(&mut session, &[stop]).await;
    home.on_repo(restore).expect(0);
}

#[test]
fn a_cluster_that_nobody_knows_is_none_that_is_well() {
    let home = Home::with_repo();
    home.on_repo(["list"]).expect(0);
    home.on_repo(["prune", "--keep-last", "1"]).expect(0);
    let refused = |args: &[&str], remedy: &str| {
        let run = home.on_repo([args, &["--cluster", "nope"]].concat()).expect(2);
        run.says("no backups and no binlogs of a cluster nope").says(remedy);
    };
    let commands: [&[&str]; 8] = [
        &["list"],
        &["prune", "--keep-last", "1"],
        &["binlog", "list"],
        &["binlog", "check"],
        &["binlog", "find"],
        &["binlog", "undo", "--gtid", "0-1-1", "--source", "mysql://a@b/"],
        &["binlog", "apply", "--target", "mysql://a@b/"],
        &["restore", "--target", "mysql://a@b/", "--to-latest"],
    ];
    for command in commands {
        refused(command, "it has no clusters yet");
    }
    for cluster in ["shop", "bank"] {
        std::fs::create_dir_all(home.path(&format!("repo/clusters/{cluster}/backups/x"))).unwrap();
    }
    for command in commands {
        refused(command, "the clusters in the repository are: bank, shop");
    }
    home.on_repo(["list", "--cluster", "shop"]).expect(0);
}

/// Binlogs in which nothing was committed take nothing from the time that can be reached.
#[rstest]
#[tokio::test]
async fn the_time_that_can_be_reached_is_that_of_the_last_commit(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let source = Server::with_shop(name).await;
    let home = Home::with_repo();
    let url = source.url();
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let work = [
        "INSERT INTO shop.customers VALUES (4, 'n', NULL)",
        "FLUSH BINARY LOGS",
        "FLUSH BINARY LOGS",
    ];
    server::run(&mut source.session().await, &work).await;
    home.on_repo(["binlog", "backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let list = home.on_repo(["binlog", "list", "--cluster", "shop", "--json"]).expect(0).json();
    let list = list.as_array().unwrap();
    assert_eq!(list.last().unwrap()["last_time"], serde_json::Value::Null, "{list:#?}");
    let last = list.iter().rev().find(|segment| !segment["last_time"].is_null()).unwrap();
    let check = home.on_repo(["binlog", "check", "--cluster", "shop", "--json"]).expect(0).json();
    assert_eq!(check["backups"][0]["reaches"]["time"], last["last_time"], "{check:#}");
}

/// A name of a binlog that two servers of the archive have, as everywhere where what is restored is archived too.
#[rstest]
#[tokio::test]
async fn whose_place_is_meant_can_be_said(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let source = Server::with_shop(name).await;
    let home = Home::with_repo();
    let url = source.url();
    let archive = |url: &str| {
        let run = home.on_repo(["binlog", "backup", "--source", url, "--cluster", "shop"]);
        assert!(matches!(run.code, Some(0 | 14)), "{run:?}");
    };
    let mut session = source.session().await;
    server::run(&mut session, &["FLUSH BINARY LOGS"]).await;
    home.on_repo(["backup", "--source", &url, "--cluster", "shop"]).expect(0);
    server::run(&mut session, &["INSERT INTO shop.customers VALUES (5, 'e', NULL)"]).await;
    let first = moment(&source, name).await;
    archive(&url);
    let cx = backup_core::Context::builder().build();
    let builder = xtask::servers::sandbox(name).await.unwrap();
    let builder = builder.tcp(true).option("server_id", "2");
    let target = Server(builder.start(&cx).await.unwrap());
    let to = target.url();
    let restore = ["restore", "--cluster", "shop", "--target", &to];
    home.on_repo([&restore[..], &["--to-position", &first.place]].concat()).expect(0);
    // It has files of the same names, which are archived too.
    let work = ["CREATE DATABASE own", "CREATE TABLE own.t (a INT)"];
    let mut there = target.session().await;
    server::run(&mut there, &work).await;
    server::run(&mut there, &["INSERT INTO own.t VALUES (1)"; 20]).await;
    archive(&to);
    server::run(&mut session, &["INSERT INTO shop.customers VALUES (6, 'f', NULL)"]).await;
    let second = moment(&source, name).await;
    server::run(&mut session, &["INSERT INTO shop.customers VALUES (7, 'g', NULL)"]).await;
    archive(&url);

    let apply = |place: &str| {
        let all = ["binlog", "apply", "--cluster", "shop", "--target", &to, "--to-position", place];
        home.on_repo(all)
    };
    let list = home.on_repo(["binlog", "list", "--cluster", "shop", "--json"]).expect(0).json();
    let file = second.place.split(':').next().unwrap();
    let of_name = list.as_array().unwrap().iter().filter(|s| s["file"] == file);
    let mut servers: Vec<&str> = of_name.map(|s| s["server"].as_str().unwrap()).collect();
    servers.dedup();
    assert_eq!(servers.len(), 2, "{list:#}");
    let own = match name.starts_with("mysql") {
        true => target.value("SELECT @@server_uuid").await.unwrap(),
        false => "id-2".to_owned(),
    };
    let theirs = servers.iter().find(|server| **server != own).unwrap();
    let place = format!("{theirs}/{}", second.place);
    apply(&second.place).expect(10).says(&format!("--to-position {place}"));
    apply(&place).expect(0);
    assert_eq!(target.value(NAMES).await.as_deref(), Some("1,2,3,5,6"));
    let run = home.on_repo(["binlog", "apply", "--to-position", "nobody/binlog.000001:4"]);
    run.expect(2).says("names no server");
}

/// A backup that was named, and is newer than the time: an older one is named instead, where there is one.
#[tokio::test]
async fn a_named_backup_that_is_too_new_names_an_older_one() {
    let source = Server::with_shop("mysql-9.7").await;
    let home = Home::with_repo();
    let url = source.url();
    let backup = || {
        let taken = home.on_repo(["backup", "--source", &url, "--cluster", "shop", "--json"]);
        taken.expect(0).json()["backup"].as_str().unwrap().to_owned()
    };
    let early = moment(&source, "mysql-9.7").await.time;
    let first = backup();
    let between = moment(&source, "mysql-9.7").await.time;
    let second = backup();
    home.on_repo(["binlog", "backup", "--source", &url, "--cluster", "shop"]).expect(0);
    let to = |backup: &str, time: &str| {
        let all = ["restore", backup, "--cluster", "shop", "--target", &url, "--dry-run"];
        home.on_repo([&all[..], &["--overwrite", "--to-time", time]].concat()).expect(10)
    };
    let run = to(&second, &between).says(&format!("{second} was taken at "));
    run.says(&format!("name {first}, which was taken at ")).says("or no backup");
    to(&first, &early).says("no backup that binlogs could be applied to is older");
}
