//! Backups of data files brought to a point: a directory for a server to start on, and single tables beside a
//! server that runs.

use std::path::{Path, PathBuf};

use backup_core::Context;
use rstest::rstest;
use serde_json::Value;

use crate::home::Home;
use crate::server::{self, Server, install};
use crate::snapshots::pair;

/// A server on a directory.
pub(crate) async fn on(name: &str, directory: &Path) -> Server {
    let cx = Context::builder().build();
    let builder = xtask::servers::sandbox(name).await.unwrap().datadir(directory).durable(false);
    Server(builder.tcp(true).option("binlog_format", "ROW").start(&cx).await.unwrap())
}

/// How the data files are read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum How {
    Cold,
    Locked,
    Clone,
    Tool,
    Snapshot,
}

/// A server on `data`, and a backup of its files.
pub(crate) async fn backed_up(home: &Home, name: &str, how: How) -> Server {
    let data = home.path("data");
    let mut server = on(name, &data).await;
    let mut session = server.session().await;
    server::shop(&mut session).await;
    let more = [
        "CREATE TABLE shop.other (id INT PRIMARY KEY)",
        "INSERT INTO shop.other VALUES (1)",
        "CREATE TABLE shop.noted (id INT PRIMARY KEY, note VARCHAR(20))",
        "INSERT INTO shop.noted VALUES (1, 'a'), (2, 'b')",
    ];
    server::run(&mut session, &more).await;
    let tool = install(name);
    let tool = tool.to_str().unwrap();
    let file = format!("file://{}", data.display());
    let url = server.url();
    let backup = |args: &[&str]| {
        home.on_repo([&["backup", "--cluster", "shop"], args].concat()).expect(0);
    };
    match how {
        How::Cold => {
            server.0.stop().await.unwrap();
            backup(&["--strategy", "physical", "--source", &file]);
            server = on(name, &data).await;
        }
        How::Locked => backup(&["--strategy", "physical", "--source", &url, "--lock-and-copy"]),
        How::Clone => {
            server::run(&mut session, &["INSTALL PLUGIN clone SONAME 'mysql_clone.so'"]).await;
            backup(&["--strategy", "clone", "--source", &url]);
        }
        How::Tool => backup(&["--strategy", "physical", "--source", &url, "--tool", tool]),
        How::Snapshot => {
            let (create, remove) = pair::of_one_moment(home, &server);
            tokio::task::block_in_place(|| pair::backup(home, &url, &create, &remove)).expect(0);
        }
    }
    server
}

/// Rows and definitions.
pub(crate) async fn content(server: &Server) -> (Vec<(String, Option<u64>)>, Vec<String>) {
    let mut session = server.session().await;
    let names = "SELECT CONCAT('shop.', table_name) FROM information_schema.tables \
                 WHERE table_schema = 'shop' AND table_type = 'BASE TABLE' ORDER BY 1";
    let names: Vec<String> = session.query_rows(names).await.unwrap();
    let sums = format!("CHECKSUM TABLE {}", names.join(", "));
    let sums = session.query_rows(&sums).await.unwrap();
    let users = "SELECT CONCAT(user, '@', host) FROM mysql.user ORDER BY 1";
    let users: Vec<String> = session.query_rows(users).await.unwrap();
    session.close().await.unwrap();
    (sums, users)
}

/// Waits for the next second of a server, and gives it.
async fn next_second(server: &Server) -> String {
    let clock = "SELECT DATE_FORMAT(UTC_TIMESTAMP(), '%Y-%m-%dT%H:%i:%sZ')";
    let before = server.value(clock).await.unwrap();
    loop {
        let now = server.value(clock).await.unwrap();
        if now != before {
            return now;
        }
        tokio::task::yield_now().await;
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_files_come_to_a_point(
    #[values(
        ("mysql-9.7", How::Cold),
        ("mysql-9.7", How::Locked),
        ("mysql-9.7", How::Clone),
        ("mariadb-10.11", How::Cold),
        ("mariadb-10.11", How::Locked),
        ("mariadb-10.11", How::Tool),
        ("mariadb-10.11", How::Snapshot),
        ("mysql-9.7", How::Snapshot)
    )]
    case: (&str, How),
) {
    let (name, how) = case;
    let mysql = name.starts_with("mysql");
    let home = Home::with_repo();
    let source = backed_up(&home, name, how).await;
    let mut session = source.session().await;
    server::run(
        &mut session,
        &[
            "INSERT INTO shop.customers VALUES (4, 'd', NULL)",
            "ALTER TABLE shop.noted ADD more INT DEFAULT 5",
            "CREATE TABLE shop.later (id INT PRIMARY KEY)",
            "INSERT INTO shop.later VALUES (7)",
            "UPDATE shop.noted n JOIN shop.other o SET n.note = 'both', o.id = 9 WHERE n.id = 2",
            "CREATE USER somebody IDENTIFIED BY 'Secret-1'",
        ],
    )
    .await;
    let before = content(&source).await;
    let variable = if mysql { "gtid_executed" } else { "gtid_binlog_pos" };
    let at = source.value(&format!("SELECT @@GLOBAL.{variable}")).await;
    // A moment that all of it is before, the backup too, and nothing that follows.
    let moment = next_second(&source).await;
    next_second(&source).await;
    server::run(&mut session, &["DELETE FROM shop.noted", "INSERT INTO shop.other VALUES (10)"])
        .await;
    let url = source.url();
    let archive = ["binlog", "backup", "--source", &url, "--cluster", "shop", "--from", "oldest"];
    home.on_repo(archive).expect(0);
    let find =
        ["binlog", "find", "--cluster", "shop", "--table", "shop.noted", "--delete", "--json"];
    let found = home.on_repo(find).expect(0).json();
    let bad = found["transactions"][0]["gtid"].as_str().unwrap().to_owned();

    // All of it, into a directory.
    let (server_dir, target) = (install(name), home.path("target"));
    let server_dir = server_dir.to_str().unwrap();
    let restore = |more: &[&str]| {
        let all =
            ["restore", "--cluster", "shop", "--server-dir", server_dir, "--tool", server_dir];
        home.on_repo([&all, more].concat())
    };
    let to = ["--target-dir", target.to_str().unwrap(), "--before-gtid", &bad];
    let plan = restore(&[&to[..], &["--dry-run", "--json"]].concat()).expect(0).json();
    let steps = plan["steps"].to_string();
    assert!(
        steps.contains("start a private") && steps.contains("all archived binlogs"),
        "{plan:#}"
    );
    assert_eq!(plan["binlog"]["first_left_out"]["gtid"], Value::from(bad.clone()), "{plan:#}");
    assert!(!target.exists());
    let done = restore(&[&to[..], &["--json"]].concat()).expect(0).json();
    assert_eq!(done["reached"]["gtid"].as_str(), at.as_deref(), "{done:#}");
    let names: Vec<String> = std::fs::read_dir(&target)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name == "auto.cnf" || name.contains("relay") || name == "master.info")
        .collect();
    assert_eq!(names, [""; 0]);
    restore(&to).expect(9).says("is not empty");
    let restored = on(name, &target).await;
    assert_eq!(content(&restored).await, before);
    let applied = if mysql { "gtid_executed" } else { "gtid_slave_pos" };
    assert_eq!(restored.value(&format!("SELECT @@GLOBAL.{applied}")).await, at);
    // And further from there, around what was bad.
    let there = restored.url();
    let apply = ["binlog", "apply", "--cluster", "shop", "--target", &there, "--skip-gtid", &bad];
    home.on_repo([&apply[..], &["--to-latest"]].concat()).expect(0);
    let rows =
        "SELECT CONCAT((SELECT COUNT(*) FROM shop.noted), '-', (SELECT MAX(id) FROM shop.other))";
    assert_eq!(restored.value(rows).await.as_deref(), Some("2-10"));
    drop(restored);

    // One table, beside the server that runs.
    let to = ["--target", &url, "--tables", "shop.noted", "--rename", "shop.noted=shop.noted_then"];
    let to = [&to[..], &["--before-gtid", &bad]].concat();
    let plan = restore(&[&to[..], &["--dry-run"]].concat()).expect(0).stdout;
    assert!(
        plan.contains("those of other tables left out") && plan.contains("First left out"),
        "{plan}"
    );
    restore(&to).expect(0);
    let rows = "SELECT GROUP_CONCAT(id, note, more ORDER BY id) FROM shop.noted_then";
    assert_eq!(source.value(rows).await.as_deref(), Some("1a5,2both5"));
    // The same by the time.
    let then = ["--tables", "shop.noted", "--rename", "shop.noted=shop.noted_at"];
    let then = [&["--target", &url][..], &then, &["--to-time", &moment, "--json"]].concat();
    let done = restore(&then).expect(0).json();
    assert!(done["reached"]["time"].as_str().unwrap() <= &*moment, "{done:#}");
    let at = rows.replace("noted_then", "noted_at");
    assert_eq!(source.value(&at).await.as_deref(), Some("1a5,2both5"));
    // Never over data, which is told at once.
    for more in [&["--dry-run"][..], &[]] {
        restore(&[&to[..], more].concat()).expect(9).says("has already: table shop.noted_then");
    }
    // What came after the backup needs everything, and is found too.
    let later = ["--target", &url, "--tables", "shop.later", "--rename", "shop.later=shop.later2"];
    restore(&[&later[..], &["--to-latest"]].concat()).expect(0);
    assert_eq!(source.value("SELECT id FROM shop.later2").await.as_deref(), Some("7"));
    let gone = ["--target", &url, "--tables", "shop.nothing", "--to-latest"];
    restore(&gone).expect(10).says("shop.nothing is not there at that point");
}

/// What a run had for itself, that was killed, goes with the next one; what it did not bring to the point is
/// marked, and gone on with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_run_leaves_nothing_for_long() {
    let name = "mysql-9.7";
    let home = Home::with_repo();
    let source = backed_up(&home, name, How::Cold).await;
    server::run(&mut source.session().await, &["INSERT INTO shop.other VALUES (10)"]).await;
    let url = source.url();
    let archive = ["binlog", "backup", "--source", &url, "--cluster", "shop", "--from", "oldest"];
    home.on_repo(archive).expect(0);
    let (server_dir, scratch) = (install(name), home.path("scratch"));
    std::fs::create_dir(&scratch).unwrap();
    let all = |target: &str| {
        let mut command = home.command(["restore", "--cluster", "shop", "--repo", "repo"]);
        command.args(["--to-latest", "--target-dir", target, "--server-dir"]).arg(&server_dir);
        command.arg("--scratch-dir").arg(&scratch);
        command
    };
    let left = || -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&scratch).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    let null = std::process::Stdio::null;
    let mut run = all("one").stdout(null()).stderr(null()).spawn().unwrap();
    let lock = loop {
        let mut locks = left().into_iter().map(|path| path.join("holdfast.lock"));
        if let Some(lock) = locks.find(|lock| lock.exists()) {
            break lock;
        }
        assert_eq!(run.try_wait().unwrap(), None, "it ended by itself");
        tokio::task::yield_now().await;
    };
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(lock.exists());
    // Its server goes with it, a moment later.
    let lock = std::fs::File::open(lock).unwrap();
    lock.lock().unwrap();
    lock.unlock().unwrap();
    let mark = home.path("one/.holdfast-restore");
    assert!(mark.exists(), "it looks like a restore that has ended");
    crate::home::Run::of(&mut all("one")).expect(0);
    assert_eq!(left(), [""; 0].map(PathBuf::from));
    assert!(!mark.exists());
    let restored = on(name, &home.path("one")).await;
    assert_eq!(restored.value("SELECT MAX(id) FROM shop.other").await.as_deref(), Some("10"));
}

/// Another copy of a directory.
fn copied(home: &Home, directory: &Path) -> PathBuf {
    let copy = home.path("copy");
    let _ = std::fs::remove_dir_all(&copy);
    let command = std::process::Command::new("cp").arg("-a").args([directory, &copy]).status();
    assert!(command.unwrap().success());
    copy
}

/// A directory out of data files and the archive: the server that is started on it goes on as a replica.
#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_files_become_a_replica(
    #[values(("mysql-9.7", How::Clone), ("mysql-9.7", How::Cold), ("mariadb-10.11", How::Tool))]
    case: (&str, How),
    #[values(true, false)] archived: bool,
) {
    let (name, how) = case;
    let mysql = name.starts_with("mysql");
    let home = Home::with_repo();
    let source = backed_up(&home, name, how).await;
    let mut session = source.session().await;
    let account = [
        "CREATE USER repl@'127.0.0.1' IDENTIFIED BY 'Secret-1'",
        "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO repl@'127.0.0.1'",
        "INSERT INTO shop.customers VALUES (4, 'd', NULL)",
    ];
    server::run(&mut session, &account).await;
    let url = source.url();
    if archived {
        let archive =
            ["binlog", "backup", "--source", &url, "--cluster", "shop", "--from", "oldest"];
        home.on_repo(archive).expect(0);
    }
    server::run(&mut session, &["UPDATE shop.noted SET note = 'later'"]).await;

    let (server_dir, target) = (install(name), home.path("target"));
    let server_dir = server_dir.to_str().unwrap();
    let from = source.tcp_url("repl");
    let restore = |password: &str, more: &[&str]| {
        let all =
            ["restore", "--cluster", "shop", "--server-dir", server_dir, "--tool", server_dir];
        let to =
            ["--repo", "repo", "--target-dir", target.to_str().unwrap(), "--as-replica-of", &from];
        let mut command = home.command([&all[..], &to, more].concat());
        command.env("HOLDFAST_SOURCE_PASSWORD", password);
        crate::home::Run::of(&mut command)
    };
    restore("wrong", &[]).expect(3);
    assert!(!target.exists());
    let plan = restore("Secret-1", &["--dry-run"]).expect(0).stdout;
    assert!(plan.contains("make it a replica of repl@127.0.0.1"), "{plan}");
    assert!(!target.exists());
    let done = restore("Secret-1", &["--json"]).expect(0).hides("Secret-1").json();
    assert!(done["replica"]["source"].as_str().unwrap().starts_with("repl@127.0.0.1"), "{done:#}");
    assert!(!target.join("auto.cnf").exists());

    // It is configured, whatever the server calls its relay logs.
    let cx = Context::builder().build();
    let builder = xtask::servers::sandbox(name).await.unwrap().datadir(&target).durable(false);
    let relay = "elsewhere-relay-bin";
    let builder = builder.option("server_id", "2").option("relay_log", relay).tcp(true);
    let replica = Server(builder.start(&cx).await.unwrap());
    server::run(&mut session, &["INSERT INTO shop.other VALUES (77)"]).await;
    if mysql {
        server::run(&mut replica.session().await, &["START REPLICA"]).await;
    }
    let wait = match mysql {
        true => {
            let there = source.value("SELECT @@GLOBAL.gtid_executed").await.unwrap();
            format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{there}', 60)")
        }
        false => {
            let there = source.value("SELECT @@GLOBAL.gtid_binlog_pos").await.unwrap();
            format!("SELECT MASTER_GTID_WAIT('{there}', 60)")
        }
    };
    let answer = replica.value(&wait).await;
    let log = std::fs::read_to_string(replica.0.error_log()).unwrap_or_default();
    assert_eq!(answer.as_deref(), Some("0"), "{log}");
    assert_eq!(content(&replica).await, content(&source).await);
}

/// The first server on such files takes their keys into its keyring: of the private one they come back.
#[tokio::test]
async fn encrypted_clones_come_to_a_point_with_keys_that_any_server_takes() {
    let cx = Context::builder().build();
    let home = Home::new();
    let init = ["init", "--repo", "repo"];
    let run = |args: &[&str]| {
        let mut command = home.command(args);
        command.env("HOLDFAST_REPO", "repo").env("HOLDFAST_PASSPHRASE", "secret");
        command.env("HOLDFAST_SOURCE_PASSWORD", server::PASSWORD);
        crate::home::Run::of(&mut command)
    };
    run(&init).expect(0);
    let builder = xtask::servers::sandbox("mysql-9.7").await.unwrap().keyring(true).tcp(true);
    let source = Server(builder.start(&cx).await.unwrap());
    let mut session = source.session().await;
    server::backup_account(&mut session).await;
    server::run(
        &mut session,
        &[
            "INSTALL PLUGIN clone SONAME 'mysql_clone.so'",
            "CREATE DATABASE shop DEFAULT ENCRYPTION = 'Y'",
            "CREATE TABLE shop.t (id INT PRIMARY KEY)",
            "INSERT INTO shop.t VALUES (1)",
            "CREATE TABLE shop.zip (id INT PRIMARY KEY) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4",
            "CREATE TABLESPACE general ADD DATAFILE 'general.ibd' ENCRYPTION = 'Y'",
            "ALTER TABLESPACE mysql ENCRYPTION = 'Y'",
            "SET GLOBAL innodb_undo_log_encrypt = ON",
            "SET GLOBAL innodb_redo_log_encrypt = ON",
        ],
    )
    .await;
    let url = format!("{}?ssl-mode=required", source.tcp_url("backup"));
    run(&["backup", "--strategy", "clone", "--source", &url, "--cluster", "shop"]).expect(0);
    server::run(
        &mut session,
        &[
            "INSERT INTO shop.t VALUES (2)",
            "INSERT INTO shop.zip VALUES (3)",
            "CREATE TABLE shop.late (id INT PRIMARY KEY)",
            "INSERT INTO shop.late VALUES (4)",
            "CREATE TABLE shop.outside (id INT PRIMARY KEY) TABLESPACE general",
            "INSERT INTO shop.outside VALUES (5)",
        ],
    )
    .await;
    run(&["binlog", "backup", "--source", &url, "--cluster", "shop", "--from", "oldest"]).expect(0);
    let (server_dir, target) = (install("mysql-9.7"), home.path("target"));
    let to = ["restore", "--cluster", "shop", "--target-dir", target.to_str().unwrap()];
    let point = ["--to-latest", "--server-dir", server_dir.to_str().unwrap()];
    run(&[&to[..], &point].concat()).expect(14).says("encrypted tablespaces have their keys");
    let sum = "SELECT CONCAT((SELECT SUM(id) FROM shop.t), (SELECT SUM(id) FROM shop.zip), \
               (SELECT SUM(id) FROM shop.late), (SELECT SUM(id) FROM shop.outside))";
    // Without a keyring nobody starts on them; each keyring does, one after the other, on copies.
    let lone = xtask::servers::sandbox("mysql-9.7").await.unwrap().datadir(copied(&home, &target));
    let said = lone.start(&cx).await.unwrap_err().report();
    assert!(said.contains("keyring"), "{said}");
    for _ in 0..2 {
        let builder = xtask::servers::sandbox("mysql-9.7").await.unwrap().keyring(true);
        let server = builder.datadir(copied(&home, &target)).durable(false).start(&cx).await;
        let mut server = Server(server.unwrap_or_else(|e| panic!("{}", e.report())));
        assert_eq!(server.value(sum).await.as_deref(), Some("3345"));
        // It has them under its own master key, and finds them again.
        let mut session = server.session().await;
        server::run(&mut session, &["ALTER INSTANCE ROTATE INNODB MASTER KEY"]).await;
        drop(session);
        server.0.restart(&cx).await.unwrap();
        assert_eq!(server.value(sum).await.as_deref(), Some("3345"));
    }
    // One table goes by way of a server that is thrown away.
    server::run(&mut session, &["DROP TABLE shop.t"]).await;
    let tables = ["restore", "--cluster", "shop", "--target", &url, "--tables", "shop.t"];
    let mut command = home.command([&tables[..], &point].concat());
    command.env("HOLDFAST_REPO", "repo").env("HOLDFAST_PASSPHRASE", "secret");
    command.env("HOLDFAST_TARGET_PASSWORD", server::PASSWORD);
    crate::home::Run::of(&mut command).expect(0);
    let rows = "SELECT GROUP_CONCAT(id ORDER BY id) FROM shop.t";
    assert_eq!(source.value(rows).await.as_deref(), Some("1,2"));
}

/// What a MySQL was restored with is in no binary log of it, and is there all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_mysql_has_executed_more_than_its_binlogs_tell() {
    let home = Home::with_repo();
    let data = home.path("data");
    let mut server = on("mysql-9.7", &data).await;
    let mut session = server.session().await;
    // More than a page of them has room for, and such that sort behind a tag.
    let (uuid, other) =
        ["11111111-2222-3333-4444-555555555555", "ffffffff-2222-3333-4444-555555555555"].into();
    let odd: Vec<String> = (0..600).map(|n| (2 * n + 1).to_string()).collect();
    let purged = format!("+{uuid}:{},{other}:tagged:5-9,{other}:1-7:9", odd.join(":"));
    server::run(&mut session, &[&format!("SET GLOBAL gtid_purged = '{purged}'")]).await;
    server::shop(&mut session).await;
    session.close().await.unwrap();
    let executed = server.value("SELECT @@GLOBAL.gtid_executed").await.unwrap().replace('\n', "");
    server.0.stop().await.unwrap();
    let file = format!("file://{}", data.display());
    let backup =
        ["backup", "--cluster", "shop", "--strategy", "physical", "--json", "--source", &file];
    let taken = home.on_repo(backup).expect(0).json();
    let set = |text: &str| text.parse::<backup_core::GtidSet>().unwrap();
    assert_eq!(set(taken["position"]["gtid"].as_str().unwrap()), set(&executed));
    assert_eq!(taken["position"].get("gtid_unknown"), None);

    // It stands there after a start too, and its binlogs lead on.
    let server = on("mysql-9.7", &data).await;
    let (url, install) = (server.url(), install("mysql-9.7"));
    let tool = ["--server-dir", install.to_str().unwrap()];
    let drill = ["verify", "--level", "drill", "--cluster", "shop", "--source", &url];
    let compared = home.on_repo([&drill[..], &tool].concat()).expect(0).stdout;
    assert!(compared.contains("stood where the backup was taken"), "{compared}");
    let mut session = server.session().await;
    server::run(&mut session, &["INSERT INTO shop.customers VALUES (4, 'd', NULL)"]).await;
    let archive = ["binlog", "backup", "--source", &url, "--cluster", "shop", "--from", "oldest"];
    home.on_repo(archive).expect(0);
    let executed = server.value("SELECT @@GLOBAL.gtid_executed").await.unwrap();
    let to = home.path("to");
    let args =
        ["restore", "--cluster", "shop", "--to-latest", "--target-dir", to.to_str().unwrap()];
    let reached = home.on_repo([&args[..], &tool, &["--json"]].concat()).expect(0).json();
    assert_eq!(set(reached["reached"]["gtid"].as_str().unwrap()), set(&executed));
    let restored = on("mysql-9.7", &to).await;
    assert_eq!(content(&restored).await, content(&server).await);
    let own = restored.value("SELECT @@GLOBAL.gtid_executed").await.unwrap();
    assert_eq!(set(&own), set(&executed));
}

/// Of one that was killed nobody knows it: nothing is said that may be wrong, and what needs it says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_mysql_has_executed_is_not_guessed() {
    let home = Home::with_repo();
    let data = home.path("data");
    let mut server = on("mysql-9.7", &data).await;
    let mut session = server.session().await;
    let purged = "SET GLOBAL gtid_purged = '+11111111-2222-3333-4444-555555555555:1-500'";
    server::run(&mut session, &[purged]).await;
    server::shop(&mut session).await;
    session.close().await.unwrap();
    // In its files for certain, not in its redo log alone.
    server.0.stop().await.unwrap();
    let mut server = on("mysql-9.7", &data).await;
    server.0.kill();
    let file = format!("file://{}", data.display());
    let backup = ["backup", "--cluster", "shop", "--strategy", "physical", "--source", &file];
    let backup = [&backup[..], &["--allow-unclean", "--json"]].concat();
    let taken = home.on_repo(backup).expect(14).json();
    assert_eq!(taken["position"]["gtid"], Value::Null);
    assert_eq!(taken["position"]["gtid_unknown"], true);
    assert!(taken["warnings"].to_string().contains("has executed is not known"), "{taken:#}");
    let shown = home.on_repo(["show", "latest"]).expect(0).stdout;
    assert!(shown.contains("(GTIDs not known)"), "{shown}");

    let server = on("mysql-9.7", &data).await;
    let (url, install) = (server.url(), install("mysql-9.7"));
    let mut session = server.session().await;
    server::run(&mut session, &["INSERT INTO shop.customers VALUES (4, 'd', NULL)"]).await;
    let archive = ["binlog", "backup", "--source", &url, "--cluster", "shop", "--from", "oldest"];
    home.on_repo(archive).expect(0);
    let to = home.path("to");
    let tool = ["--server-dir", install.to_str().unwrap()];
    let restore = ["restore", "--cluster", "shop", "--target-dir", to.to_str().unwrap()];
    let restore = |more: &[&str]| home.on_repo([&restore[..], &tool, more].concat());
    let run =
        restore(&["--to-latest"]).expect(10).says("which transactions the backup has is not known");
    run.says("`holdfast binlog apply` goes on from there");
    let follow = ["--as-replica-of", &url];
    restore(&follow).expect(10).says("not known");
    let drill = ["verify", "--level", "drill", "--cluster", "shop", "--source", &url];
    home.on_repo([&drill[..], &tool].concat()).expect(6).says("cannot be told");
    // As it says.
    restore(&[]).expect(0);
    let restored = on("mysql-9.7", &to).await;
    let target = restored.url();
    let apply = ["binlog", "apply", "--cluster", "shop", "--target", &target, "--to-latest"];
    home.on_repo(apply).expect(0);
    assert_eq!(content(&restored).await, content(&server).await);
}

/// Ended as the private server starts: nothing of it stays, and what is said goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_way_to_a_point_says_what_goes_on() {
    let home = Home::with_repo();
    let source = backed_up(&home, "mysql-9.7", How::Cold).await;
    let more = ["INSERT INTO shop.customers VALUES (4, 'd', NULL)"];
    server::run(&mut source.session().await, &more).await;
    let archive = ["binlog", "backup", "--source", &source.url(), "--cluster", "shop"];
    home.on_repo([&archive[..], &["--from", "oldest"]].concat()).expect(0);
    let (server_dir, target) = (install("mysql-9.7"), home.path("target"));
    let restore = ["restore", "--cluster", "shop", "--server-dir", server_dir.to_str().unwrap()];
    let to = ["--to-latest", "--target-dir", target.to_str().unwrap()];
    let mut command = home.command([&restore[..], &to].concat());
    command.env("HOLDFAST_REPO", "repo");
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    while !target.join("auto.cnf").exists() {
        assert!(child.try_wait().unwrap().is_none(), "{:?}", child.wait_with_output());
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let process = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(process, rustix::process::Signal::INT).unwrap();
    let ended = crate::home::Run::from(child.wait_with_output().unwrap()).expect(13);
    let ended = ended.says("What to do: restore again with --overwrite, or start a server on");
    assert!(!ended.stderr.contains("run the command again"), "{ended:?}");
    assert!(!target.join("auto.cnf").exists());
    home.on_repo([&restore[..], &to, &["--overwrite"]].concat()).expect(0);
    let restored = on("mysql-9.7", &target).await;
    assert_eq!(content(&restored).await, content(&source).await);
}
