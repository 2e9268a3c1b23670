//! Snapshots by commands of the user's.

use std::path::{Path, PathBuf};

use backup_core::Context;

use super::load::Load;
use super::{executable, rounds};
use crate::home::{Home, Run};
use crate::server::{self, Server};

/// Copies the data directory of a server that is idle, and keeps a diary.
const CREATE: &str = "#!/bin/sh\necho \"create $1 $2 $(env | grep -c HOLDFAST)\" >> DIR/diary\n\
                      cp -a \"$2\" \"DIR/$1\" && echo \"DIR/$1\"\n";
const REMOVE: &str = "#!/bin/sh\necho \"remove $1\" >> DIR/diary\nrm -rf \"DIR/$1\"\n";

/// A pair of commands that copies.
pub(crate) fn copying(home: &Home) -> (PathBuf, PathBuf) {
    (script(home, "create", CREATE), script(home, "remove", REMOVE))
}

/// A pair whose snapshots are of one moment: the server does nothing while its files are copied.
pub(crate) fn of_one_moment(home: &Home, server: &Server) -> (PathBuf, PathBuf) {
    let pid = server.0.pid().unwrap();
    let stopped = format!(
        "#!/bin/sh\nkill -STOP {pid}; cp -a \"$2\" \"DIR/$1\"; done=$?; kill -CONT {pid}\n\
         [ $done = 0 ] && echo \"DIR/$1\"\n"
    );
    (script(home, "create", &stopped), script(home, "remove", REMOVE))
}

fn script(home: &Home, name: &str, text: &str) -> PathBuf {
    let text = text.replace("DIR", home.path("").to_str().unwrap().trim_end_matches('/'));
    let path = home.write(name, &text);
    executable(&path);
    path
}

fn snapshots(home: &Home) -> usize {
    let names = std::fs::read_dir(home.path("")).unwrap();
    names.filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().contains("-snap-")).count()
}

/// A backup by two commands.
pub(crate) fn backup(home: &Home, url: &str, create: &Path, remove: &Path) -> Run {
    let (create, remove) = (create.to_str().unwrap(), remove.to_str().unwrap());
    home.on_repo([
        "backup",
        "--cluster",
        "shop",
        "--source",
        url,
        "--strategy",
        "snapshot",
        "--snapshot-create",
        create,
        "--snapshot-remove",
        remove,
        "--snapshot-notes",
        "notes",
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_of_commands_is_called_as_the_contract_says() {
    let home = Home::with_repo();
    let data = home.path("data");
    let cx = Context::builder().build();
    let builder = xtask::servers::sandbox("mysql-9.7").await.unwrap().datadir(&data);
    let server = Server(builder.durable(false).start(&cx).await.unwrap());
    server::shop(&mut server.session().await).await;
    let (url, before) = (server.url(), server.content("shop").await);
    let run = |create: &Path, remove: &Path| {
        tokio::task::block_in_place(|| backup(&home, &url, create, remove))
    };
    let create = script(&home, "create", CREATE);
    let remove = script(&home, "remove", REMOVE);
    run(&create, &remove).expect(0);
    let diary = std::fs::read_to_string(home.path("diary")).unwrap();
    let lines: Vec<Vec<&str>> = diary.lines().map(|l| l.split(' ').collect()).collect();
    assert_eq!((lines[0][0], lines[1][0], lines.len()), ("create", "remove", 2), "{diary}");
    assert_eq!(lines[0][1], lines[1][1], "one name for both");
    assert_eq!(Path::new(lines[0][2]), data.canonicalize().unwrap());
    assert_eq!(lines[0][3], "0", "nothing of ours is in the environment");
    assert_eq!((snapshots(&home), std::fs::read_dir(home.path("notes")).unwrap().count()), (0, 0));

    // One that fails, and one that does not say where: nothing stays, and the server goes on.
    let broken = script(&home, "broken", "#!/bin/sh\necho no room in the box >&2\nexit 3\n");
    run(&broken, &remove).expect(6).says("no room in the box");
    let silent = script(&home, "silent", &CREATE.replace("&& echo", "&& : "));
    run(&silent, &remove).expect(6).says("did not say where");
    assert_eq!((snapshots(&home), std::fs::read_dir(home.path("notes")).unwrap().count()), (0, 0));
    server::run(&mut server.session().await, &["CREATE TABLE shop.goes_on (id INT)"]).await;

    // One that hands over what is no snapshot, or one of before.
    let same = script(&home, "same", "#!/bin/sh\necho \"$2\"\n");
    let idle = script(&home, "idle", "#!/bin/sh\n");
    run(&same, &idle).expect(6).says("is the data directory itself");
    let old = "#!/bin/sh\n[ -d DIR/old ] || cp -a \"$2\" DIR/old; echo DIR/old\n";
    let old = script(&home, "older", old);
    run(&old, &idle).expect(0);
    server::run(&mut server.session().await, &["CREATE TABLE shop.after (id INT)"]).await;
    run(&old, &idle).expect(6).says("is no snapshot of now");

    // What could not be removed is told of, and removed by the next run.
    let stuck = script(&home, "stuck", "#!/bin/sh\nexit 1\n");
    run(&create, &stuck).expect(14).says("was not removed");
    assert_eq!((snapshots(&home), std::fs::read_dir(home.path("notes")).unwrap().count()), (1, 1));
    run(&create, &remove).expect(0);
    assert_eq!((snapshots(&home), std::fs::read_dir(home.path("notes")).unwrap().count()), (0, 0));

    let target = home.path("target");
    let to = ["restore", "--cluster", "shop", "--target-dir", target.to_str().unwrap()];
    home.on_repo(to).expect(0);
    let builder = xtask::servers::sandbox("mysql-9.7").await.unwrap().datadir(&target);
    let restored = Server(builder.durable(false).start(&cx).await.unwrap());
    assert_eq!(restored.content("shop").await, before);
}

/// A snapshot of MariaDB holds up commits, and neither waits for queries nor holds them up.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_snapshot_of_mariadb_does_not_wait_for_queries() {
    let home = Home::with_repo();
    let data = home.path("data");
    let cx = Context::builder().build();
    let builder = xtask::servers::sandbox("mariadb-10.11").await.unwrap().datadir(&data);
    let server = Server(builder.durable(false).start(&cx).await.unwrap());
    let mut session = server.session().await;
    server::shop(&mut session).await;
    let old = [
        "CREATE TABLE shop.old (id INT PRIMARY KEY, t TEXT) ENGINE=MyISAM",
        "INSERT INTO shop.old SELECT seq, 'old' FROM shop.seq_1_to_100",
    ];
    server::run(&mut session, &old).await;
    let before = server.content("shop").await;

    // One query that runs for as long as the test, one transaction that is open.
    let mut open = server.session().await;
    server::run(&mut open, &["BEGIN", "DELETE FROM shop.orders"]).await;
    let mut long = server.session().await;
    let id = long.id();
    let query = tokio::spawn(async move {
        let sql = "SELECT SLEEP(1000) FROM shop.customers LIMIT 1";
        let _: Result<Option<u8>, _> = long.query_first(sql).await;
    });
    let running = format!(
        "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = {id} AND INFO LIKE 'SELECT SLEEP%'"
    );
    while server.value(&running).await.as_deref() != Some("1") {
        tokio::task::yield_now().await;
    }
    let create = script(&home, "create", CREATE);
    let remove = script(&home, "remove", REMOVE);
    let url = server.url();
    tokio::task::block_in_place(|| backup(&home, &url, &create, &remove)).expect(0);
    assert_eq!(server.value(&running).await.as_deref(), Some("1"), "it ran all the time");
    server::run(&mut open, &["COMMIT"]).await;
    server::run(&mut session, &[&format!("KILL {id}"), "INSERT INTO shop.old VALUES (0, '')"])
        .await;
    query.await.unwrap();

    let target = home.path("target");
    let to = ["restore", "--cluster", "shop", "--target-dir", target.to_str().unwrap()];
    home.on_repo(to).expect(0);
    let builder = xtask::servers::sandbox("mariadb-10.11").await.unwrap().datadir(&target);
    let restored = Server(builder.durable(false).start(&cx).await.unwrap());
    assert_eq!(restored.content("shop").await, before);
    let sql = "SELECT COUNT(*) FROM shop.old";
    assert_eq!(restored.value(sql).await.as_deref(), Some("100"));
    let mut session = restored.session().await;
    let said: Vec<(String, String, String, String)> =
        session.query_rows("CHECK TABLE shop.old EXTENDED").await.unwrap();
    // Closed, as the lock leaves it: nothing to repair.
    assert!(said.iter().all(|(.., text)| text == "OK"), "{said:?}");
}

/// A snapshot of MySQL under transfers is of one moment, the one that its position names. Between two writes of the
/// server: it stands still while it is copied, as below a file system that is frozen.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_snapshot_of_mysql_under_load_is_of_one_moment() {
    let home = Home::with_repo();
    let data = home.path("data");
    let cx = Context::builder().build();
    let start = async |data: &Path| {
        let builder = xtask::servers::sandbox("mysql-9.7").await.unwrap().datadir(data);
        // What the kernel writes for a process goes on while that stands still.
        let builder = builder.option("innodb_use_native_aio", "0").binary_log(true);
        Server(builder.durable(true).start(&cx).await.unwrap())
    };
    let server = start(&data).await;
    let tables = [
        "CREATE DATABASE bank",
        "CREATE TABLE bank.accounts (id INT PRIMARY KEY, money BIGINT NOT NULL)",
        "CREATE TABLE bank.moves (id BIGINT AUTO_INCREMENT PRIMARY KEY, note VARCHAR(200))",
        "INSERT INTO bank.accounts WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n \
         WHERE i < 100) SELECT i, 1000 FROM n",
    ];
    server::run(&mut server.session().await, &tables).await;
    let last = |gtid: &str| -> u64 { gtid.rsplit(['-', ':']).next().unwrap().parse().unwrap() };
    let first = last(&server.value("SELECT @@GLOBAL.gtid_executed").await.unwrap());
    let pid = server.0.pid().unwrap();
    let stand = CREATE.replace("cp -a", &format!("kill -STOP {pid}\ncp -a"));
    let stand = stand.replace("&& echo", &format!("\nkill -CONT {pid}\necho"));
    let (create, remove) = (script(&home, "create", &stand), script(&home, "remove", REMOVE));

    let load = Load::begin(&server).await;
    let url = server.url();
    let mut counts = Vec::new();
    for round in 0..rounds().max(3) {
        tokio::task::block_in_place(|| backup(&home, &url, &create, &remove)).expect(0);
        let shown = home.on_repo(["show", "latest", "--json"]).expect(0).json();
        let gtid = shown["position"]["gtid"].as_str().unwrap().to_owned();
        let target = home.path(&format!("target-{round}"));
        let to = ["restore", "--cluster", "shop", "--target-dir", target.to_str().unwrap()];
        home.on_repo(to).expect(0);
        let mut restored = start(&target).await;
        let money = restored.value("SELECT SUM(money) FROM bank.accounts").await;
        assert_eq!(money.as_deref(), Some("100000"), "round {round}");
        let moves = restored.value("SELECT COUNT(*) FROM bank.moves").await.unwrap();
        let moves: u64 = moves.parse().unwrap();
        assert_eq!(first + moves, last(&gtid), "round {round}: up to {gtid}, and no further");
        restored.0.stop().await.unwrap();
        std::fs::remove_dir_all(target).unwrap();
        counts.push(moves);
    }
    load.end().await;
    assert!(counts.is_sorted() && counts[0] > 0, "the load went on meanwhile: {counts:?}");
    assert_eq!(snapshots(&home), 0);
}
