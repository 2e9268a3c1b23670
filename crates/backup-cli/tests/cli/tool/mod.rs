//! Running servers backed up by `mariadb-backup`: restored, prepared, started, and exact.

mod chains;
mod check;
mod disk;
mod encrypted;
mod imported;
mod layout;
mod proof;
mod replica;
mod rolled_back;
mod stream;
mod tables;
mod trouble;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use backup_core::Context;
use backup_drivers::connect::{ConnectOptions, Session};
use rstest::rstest;
use serde_json::Value;

use crate::home::{Home, Run};
use crate::server::{self, Server, install};

const ACCOUNTS: i64 = 50;

const TABLES: [&str; 10] = [
    "CREATE DATABASE bank",
    "CREATE TABLE bank.accounts (id INT PRIMARY KEY, v BIGINT NOT NULL)",
    "CREATE TABLE bank.moves (n INT PRIMARY KEY, t VARCHAR(200)) PARTITION BY HASH (n) PARTITIONS 3",
    "CREATE TABLE bank.counter (n INT NOT NULL)",
    "INSERT INTO bank.counter VALUES (0)",
    "CREATE TABLE bank.packed (id INT PRIMARY KEY, t TEXT) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8",
    "CREATE TABLE bank.words (id INT PRIMARY KEY, t TEXT, FULLTEXT (t))",
    "CREATE TABLE bank.old (id INT PRIMARY KEY, t TEXT) ENGINE=MyISAM",
    "CREATE TABLE bank.aria (id INT PRIMARY KEY, t TEXT) ENGINE=Aria",
    "CREATE DATABASE `empty one`",
];

/// How much of a long matrix is run.
fn rounds(few: usize) -> usize {
    std::env::var("HOLDFAST_TEST_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(few)
}

async fn fill(session: &mut Session) {
    server::run(session, &TABLES).await;
    let accounts: Vec<String> = (0..ACCOUNTS).map(|id| format!("({id}, 100)")).collect();
    session.run(&format!("INSERT INTO bank.accounts VALUES {}", accounts.join(","))).await.unwrap();
    for table in ["packed", "words", "old", "aria"] {
        let rows: Vec<String> =
            (0..300).map(|id| format!("({id}, REPEAT('some words {id} ', 20))")).collect();
        session.run(&format!("INSERT INTO bank.{table} VALUES {}", rows.join(","))).await.unwrap();
    }
}

/// Transfers, each one transaction that counts itself, until told to stop; an end of its own, too.
async fn transfers(socket: PathBuf, stop: Arc<AtomicBool>) {
    let mut session = Session::open(&ConnectOptions::socket(socket, "root")).await.unwrap();
    for n in 0..200_000_i64 {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (a, b) = (n % ACCOUNTS, (n * 7 + 3) % ACCOUNTS);
        server::run(
            &mut session,
            &[
                "BEGIN",
                &format!("UPDATE bank.accounts SET v = v - 5 WHERE id = {a}"),
                &format!("UPDATE bank.accounts SET v = v + 5 WHERE id = {b}"),
                "UPDATE bank.counter SET n = n + 1",
                "INSERT INTO bank.moves SELECT n, REPEAT('m', 180) FROM bank.counter",
                "COMMIT",
            ],
        )
        .await;
    }
    session.close().await.unwrap();
}

/// A server on a directory.
async fn on(name: &str, directory: &Path) -> Server {
    let cx = Context::builder().build();
    let builder = xtask::servers::sandbox(name).await.unwrap().datadir(directory).durable(false);
    Server(builder.start(&cx).await.unwrap())
}

async fn number(server: &Server, sql: &str) -> i64 {
    server.value(sql).await.unwrap().parse().unwrap()
}

/// How many transactions the GTID of MariaDB counts.
fn transactions(gtid: &str) -> i64 {
    gtid.rsplit('-').next().unwrap().parse().unwrap()
}

/// Restores a backup and looks whether it is exactly of its position.
async fn exact(home: &Home, name: &str, backup: &Value, before: i64) {
    let id = backup["backup"].as_str().unwrap();
    let directory = home.path(&format!("restored-{id}"));
    let tool = install(name);
    home.on_repo([
        "restore",
        id,
        "--cluster",
        "bank",
        "--target-dir",
        directory.to_str().unwrap(),
        "--tool",
        tool.to_str().unwrap(),
    ])
    .expect(0);
    let mut server = on(name, &directory).await;
    let counted = number(&server, "SELECT n FROM bank.counter").await;
    let expected = transactions(backup["position"]["gtid"].as_str().unwrap()) - before;
    assert_eq!(counted, expected, "{id}");
    assert_eq!(number(&server, "SELECT SUM(v) FROM bank.accounts").await, 100 * ACCOUNTS);
    let whole =
        "SELECT COUNT(*) = MAX(n) AND COUNT(*) = (SELECT n FROM bank.counter) FROM bank.moves";
    assert_eq!(number(&server, whole).await, 1);
    for table in ["packed", "words", "old", "aria"] {
        assert_eq!(number(&server, &format!("SELECT COUNT(*) FROM bank.{table}")).await, 300);
    }
    let mut session = server.session().await;
    let sql = "CHECK TABLE bank.accounts, bank.moves, bank.counter, bank.packed, bank.words, bank.old, bank.aria EXTENDED";
    let said: Vec<(String, String, String, String)> = session.query_rows(sql).await.unwrap();
    assert!(said.iter().all(|(.., text)| text == "OK"), "{said:?}");
    let databases: Vec<String> = session.query_rows("SHOW DATABASES").await.unwrap();
    assert!(databases.contains(&"empty one".to_owned()));
    session.close().await.unwrap();
    server.0.stop().await.unwrap();
    let log = std::fs::read_to_string(server.0.error_log()).unwrap();
    assert!(!log.contains("[ERROR]"), "{log}");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn every_backup_of_a_busy_mariadb_is_exactly_of_its_position(
    #[values("mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let home = Home::with_repo();
    let mut server = on(name, &home.path("data")).await;
    fill(&mut server.session().await).await;
    let before = transactions(&server.value("SELECT @@gtid_binlog_pos").await.unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(transfers(server.0.socket(), Arc::clone(&stop)));

    let (url, tool) = (server.url(), install(name));
    let take = |kind: &str| {
        let args = [
            "backup",
            "--strategy",
            "physical",
            "--type",
            kind,
            "--source",
            &url,
            "--cluster",
            "bank",
            "--tool",
            tool.to_str().unwrap(),
            "--json",
        ];
        home.on_repo(args).expect(0).json()
    };
    let mut taken = vec![take("full")];
    for n in 0..rounds(2) {
        taken.push(take("incremental"));
        if n % 2 == 1 {
            taken.push(take("differential"));
        }
    }
    // A full one again: only what changed is new, the redo log apart.
    taken.push(take("full"));
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap();

    let (first, last) = (&taken[0], taken.last().unwrap());
    let bytes = |backup: &Value, key: &str| backup[key].as_u64().unwrap();
    assert!(bytes(last, "bytes_new") < bytes(last, "bytes_read"), "{last:#}");
    assert_eq!(first["type"], "full");
    assert_eq!(first["consistency"]["level"], "exact");
    assert!(first["lock_seconds"].as_f64().unwrap() < 30.0);
    assert!(taken.iter().any(|backup| backup["type"] == "differential") || rounds(2) < 2);
    for backup in &taken {
        exact(&home, name, backup, before).await;
    }
    let verified =
        home.on_repo(["verify", "--all", "--level", "content", "--json"]).expect(0).json();
    let pages = verified[0]["findings"].to_string();
    assert!(pages.contains("tablespaces are sound"), "{pages}");

    // An increment is drilled with all that it needs.
    let increment = taken[1]["backup"].as_str().unwrap();
    let install = tool.to_str().unwrap();
    let drill = ["verify", increment, "--level", "drill", "--server-dir", install, "--json"];
    let drill = home.on_repo(drill).expect(0).json().to_string();
    assert!(drill.contains("bank.words"), "{drill}");

    // One table comes back to the busy server, out of an increment, and the others stay.
    let rows = server.value("SELECT COUNT(*) FROM bank.moves WHERE n <= 10").await;
    server::run(&mut server.session().await, &["DROP TABLE bank.moves, bank.words, bank.packed"])
        .await;
    for table in ["bank.moves", "bank.words", "bank.packed"] {
        let args = [
            "restore",
            increment,
            "--cluster",
            "bank",
            "--tables",
            table,
            "--target",
            &url,
            "--server-dir",
            install,
        ];
        let plan = home.on_repo(args.into_iter().chain(["--dry-run"])).expect(0).stdout;
        assert!(plan.contains("lay out"), "{plan}");
        home.on_repo(args).expect(0);
    }
    assert_eq!(server.value("SELECT COUNT(*) FROM bank.moves WHERE n <= 10").await, rows);
    let restored = number(&server, "SELECT COUNT(*) FROM bank.moves").await;
    assert_eq!(restored, transactions(taken[1]["position"]["gtid"].as_str().unwrap()) - before);
    let found = "SELECT COUNT(*) FROM bank.words WHERE MATCH (t) AGAINST ('words')";
    assert_eq!(number(&server, found).await, 300);
    home.on_repo(["restore", increment, "--cluster", "bank", "--target", &url]).expect(2);
    server.0.stop().await.unwrap();
}

/// A tool that does what the script says around the real one, `$REAL`.
fn faulty(home: &Home, name: &str, script: &str) -> PathBuf {
    let real = xtask::servers::install(name).unwrap().command("mariadb-backup").unwrap();
    let words = std::iter::once(real.get_program()).chain(real.get_args());
    let real = words.map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
    let path = home.write(
        "mariadb-backup",
        &format!("#!/bin/bash\ncase \"$*\" in *--version*) exec {real} \"$@\";; esac\nREAL='{real}'\n{script}\n"),
    );
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn backup(home: &Home, server: &Server, tool: &Path) -> Run {
    let url = server.url();
    let args =
        ["backup", "--strategy", "physical", "--cluster", "bank", "--source", &url, "--tool"];
    home.on_repo(args.into_iter().chain([tool.to_str().unwrap()]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_is_believed_only_with_all_proofs() {
    let home = Home::with_repo();
    let mut server = on("mariadb-10.11", &home.path("data")).await;
    fill(&mut server.session().await).await;
    for (script, code, says) in [
        // The stream is cut, and everybody says that all is well.
        ("f=$(mktemp); $REAL \"$@\" > $f; head -c 1000000 $f; rm $f", 6, "not whole"),
        ("f=$(mktemp); $REAL \"$@\" > $f; head -c 14 $f; rm $f", 6, "not whole"),
        // The pipe breaks, and the end of it is well.
        ("$REAL \"$@\" | head -c 1000000", 6, "without saying that it completed"),
        ("$REAL \"$@\" > /dev/null", 6, "not whole"),
        // A flipped bit.
        (
            "$REAL \"$@\" | sed 's/innodb_page_size=16384/innodb_page_size=16385/'",
            6,
            "the checksum of a chunk of backup-my.cnf",
        ),
        // The stream is whole, and something speaks against it.
        ("$REAL \"$@\"; exit 1", 6, "ended with exit status: 1"),
        (
            "$REAL \"$@\" 2> >(grep -v 'completed OK' >&2); wait; sleep 0.2",
            6,
            "without saying that it completed",
        ),
        (
            "echo '[00] FATAL ERROR: 2026-11-27 23:04:48 odd' >&2; $REAL \"$@\"",
            6,
            "something is wrong",
        ),
        ("$REAL \"$@\"; echo more >&2", 6, "without saying that it completed"),
        // As it says where a table is dropped while it reads the files of a database.
        (
            "echo '2026-11-30  5:13:12 0 [ERROR] InnoDB: Operating system error number 2 in a file operation.' >&2\n\
             echo '[01] 2026-11-30 05:13:12 Error: copy_file() failed.' >&2; $REAL \"$@\"",
            6,
            "was dropped, renamed or made anew meanwhile",
        ),
        // It does not get that far.
        ("$REAL \"$@\" & pid=$!; sleep 0.1; kill -9 $pid; wait $pid; exit $?", 6, "ended with"),
        (
            "echo \"mariabackup: Was only able to copy log from 1 to 2, not 3; try increasing innodb_log_file_size\" >&2; exit 1",
            6,
            "wrote over its redo log",
        ),
        ("echo 'Error: No space left on device' >&2; exit 1", 5, "is full"),
        ("$REAL --defaults-file=/nonexistent --backup; exit 1", 6, "ended with"),
    ] {
        let tool = faulty(&home, "mariadb-10.11", script);
        backup(&home, &server, &tool).expect(code).says(says);
        let listed = home.on_repo(["list", "--json"]).expect(0).json();
        assert_eq!(listed.as_array().unwrap().len(), 0, "{script}");
    }
    backup(&home, &server, &faulty(&home, "mariadb-10.11", "exec $REAL \"$@\"")).expect(0);
    // Nothing is left locked.
    server::run(
        &mut server.session().await,
        &["CREATE TABLE bank.more (a INT)", "DROP TABLE bank.more"],
    )
    .await;

    // Tools that do not fit, and sources that are not here.
    let other = install("mariadb-11.8");
    backup(&home, &server, &other).expect(6).says("a tool works with its own series only");
    backup(&home, &server, Path::new("/nonexistent/tool")).expect(2);
    backup(&home, &server, Path::new("/bin/true")).expect(2).says("no backup tool");

    // An increment of another server.
    server.0.stop().await.unwrap();
    let second = on("mariadb-10.11", &home.path("other")).await;
    let url = second.url();
    let tool = install("mariadb-10.11");
    home.on_repo([
        "backup",
        "--strategy",
        "physical",
        "--type",
        "incremental",
        "--cluster",
        "bank",
        "--source",
        &url,
        "--tool",
        tool.to_str().unwrap(),
    ])
    .expect(6)
    .says("another server");
}
