//! How `binlog stream` and `binlog backup` begin, and end.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};

use crate::home::{Home, Run};
use crate::server::{self, PASSWORD, Server, backup_account};

/// A command of `binlog` under way, on `shop`.
struct Running(Child);

impl Running {
    fn start(home: &Home, what: &str, url: &str, password: &str, spool: &str) -> Running {
        let args =
            ["binlog", what, "--source", url, "--cluster", "shop", "--spool", spool, "--json"];
        let mut command = home.command(args);
        command.env("HOLDFAST_REPO", "repo").env("HOLDFAST_SOURCE_PASSWORD", password);
        Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Waits for its end.
    async fn end(mut self) -> Run {
        let begun = Instant::now();
        while self.0.try_wait().unwrap().is_none() {
            if begun.elapsed() > Duration::from_secs(60) {
                self.0.kill().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Run::from(self.0.wait_with_output().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

#[rstest]
#[tokio::test]
async fn a_server_that_was_never_reached_is_not_waited_for(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let server = Server::start(name).await;
    let mut session = server.session().await;
    backup_account(&mut session).await;
    // A wrong password is not tried until the account is locked.
    if name.starts_with("mysql") {
        let lock = "ALTER USER backup@'%' FAILED_LOGIN_ATTEMPTS 3 PASSWORD_LOCK_TIME 1";
        server::run(&mut session, &[lock]).await;
    }
    let home = Home::with_repo();
    let url = server.tcp_url("backup");
    for what in ["backup", "stream"] {
        let refused = Running::start(&home, what, &url, "wrong", "spool").end().await.expect(3);
        let refused = refused.says("Access denied").says("check user, password");
        assert!(!refused.stderr.contains("trying again"), "{refused:?}");
        Running::start(&home, "backup", &url, PASSWORD, "spool").end().await.expect(0);
    }

    // A port where nothing listens.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = format!("mysql://backup@127.0.0.1:{port}/");
    let run = Running::start(&home, "stream", &nobody, PASSWORD, "spool").end().await.expect(3);
    run.says("trying again").says("server runs");
    let early = Running::start(&home, "stream", &nobody, PASSWORD, "spool");
    tokio::time::sleep(Duration::from_secs(1)).await;
    early.signal(Signal::TERM);
    early.end().await.expect(3);
}

fn inserted(home: &Home) -> usize {
    let find = ["binlog", "find", "--cluster", "shop", "--table", "shop.t", "--json"];
    let found = home.on_repo(find).expect(0).json();
    let rows = |t: &serde_json::Value| t["tables"]["shop.t"]["inserted"].as_u64().unwrap_or(0);
    found["transactions"].as_array().unwrap().iter().map(rows).sum::<u64>() as usize
}

/// Inserts a row, and waits until a spool has it.
async fn spool_row(home: &Home, session: &mut backup_drivers::connect::Session, spool: &str) {
    let len = || -> u64 {
        match home.path(spool).exists() {
            true => home.files(spool).iter().map(|(_, len)| len).sum(),
            false => 0,
        }
    };
    // The stream has to be there before.
    while len() == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = len();
    server::run(session, &["INSERT INTO shop.t VALUES (NULL, REPEAT('x', 500))"]).await;
    while len() < before + 500 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What is left in a spool after a `kill -9` does not bar the way when others archived meanwhile.
#[rstest]
#[tokio::test]
async fn what_is_left_in_a_spool_is_archived_once(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) {
    let mut server = Server::start(name).await;
    let home = Home::with_repo();
    let url = server.url();
    let mut session = server.session().await;
    let table = "CREATE TABLE shop.t (id INT AUTO_INCREMENT PRIMARY KEY, a TEXT)";
    server::run(&mut session, &["SET SESSION binlog_format = ROW", "CREATE DATABASE shop", table])
        .await;
    let archive = |spool: &'static str| Running::start(&home, "backup", &url, "", spool).end();

    // All of it is archived.
    let stream = Running::start(&home, "stream", &url, "", "a");
    spool_row(&home, &mut session, "a").await;
    stream.signal(Signal::KILL);
    stream.end().await;
    server::run(&mut session, &["INSERT INTO shop.t VALUES (NULL, 'more')"]).await;
    archive("b").await.expect(0);
    archive("a").await.expect(0);
    assert_eq!(inserted(&home), 2);

    // A part of it is archived, by one that this one could not see, and the server with the rest is gone.
    let stream = Running::start(&home, "stream", &url, "", "a");
    spool_row(&home, &mut session, "a").await;
    let (repo, other) = (home.path("repo"), home.path("other"));
    let copied = std::process::Command::new("cp").arg("-a").args([&repo, &other]).status();
    assert!(copied.unwrap().success());
    std::fs::remove_dir_all(home.path("other/locks")).unwrap();
    std::fs::rename(home.path("repo"), home.path("aside")).unwrap();
    std::fs::rename(home.path("other"), home.path("repo")).unwrap();
    archive("b").await.expect(0);
    assert_eq!(inserted(&home), 3);
    std::fs::rename(home.path("repo"), home.path("other")).unwrap();
    std::fs::rename(home.path("aside"), home.path("repo")).unwrap();
    spool_row(&home, &mut session, "a").await;
    stream.signal(Signal::KILL);
    stream.end().await;
    std::fs::rename(home.path("repo"), home.path("aside")).unwrap();
    std::fs::rename(home.path("other"), home.path("repo")).unwrap();
    assert_eq!(inserted(&home), 3);
    server.0.kill();
    archive("a").await.expect(3);
    assert_eq!(inserted(&home), 4);
    home.archive_is_whole();
    server.0.restart(&backup_core::Context::builder().build()).await.unwrap();
    archive("a").await.expect(0);
    assert_eq!(inserted(&home), 4);
    home.archive_is_whole();
}

/// Where the leases of receivers are.
const LOCKS: &str = "repo/locks";

/// Waits until somebody archives the server.
async fn claimed(home: &Home) {
    let locks = home.path(LOCKS);
    let is_claim = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.unwrap().file_name().to_str().unwrap().starts_with("binlog-shop-")
    };
    while !std::fs::read_dir(&locks).is_ok_and(|mut all| all.any(is_claim)) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A second receiver of the same server is refused before it does anything, with who the first one is, whatever its
/// spool is; one that died is taken over from.
#[rstest]
#[tokio::test]
async fn one_receiver_archives_a_server(#[values("mysql-9.7", "mariadb-10.11")] name: &str) {
    let server = Server::start(name).await;
    let home = Home::with_repo();
    let url = server.url();
    let mut session = server.session().await;
    let table = "CREATE TABLE shop.t (id INT AUTO_INCREMENT PRIMARY KEY, a TEXT)";
    server::run(&mut session, &["SET SESSION binlog_format = ROW", "CREATE DATABASE shop", table])
        .await;
    let start = |what, spool| Running::start(&home, what, &url, "", spool);
    let first = start("stream", "a");
    spool_row(&home, &mut session, "a").await;
    let who = format!("process {} on ", first.0.id());
    for (what, spool) in [("stream", "b"), ("backup", "b")] {
        let refused = start(what, spool).end().await.expect(12);
        refused.says("another receiver archives the binlogs of").says(&who).says("since 2");
        assert!(home.files(spool).iter().all(|(path, _)| path.ends_with("lock")));
    }
    // The spool's own word comes first.
    let refused = start("stream", "a").end().await.expect(12);
    refused.says("uses the spool").says(&format!("process {}, since 2", first.0.id()));

    // It was killed, and the next one goes on at once, with another spool or with its own.
    first.signal(Signal::KILL);
    first.end().await;
    let second = start("stream", "b");
    spool_row(&home, &mut session, "b").await;
    start("backup", "a").end().await.expect(12).says(&format!("process {} on ", second.0.id()));
    // It ends in its own time, and leaves nobody waiting; what may be lost is said of that moment.
    spool_row(&home, &mut session, "b").await;
    second.signal(Signal::TERM);
    let ended = second.end().await.expect(0).says("was taken over: it has died");
    assert!(ended.json()["rpo"]["seconds"].is_number(), "{ended:?}");
    let run = start("backup", "a").end().await.expect(0);
    assert!(!run.stderr.contains("taken over"), "{run:?}");
    assert_eq!(inserted(&home), 3);
    home.archive_is_whole();
    let between = |from: &str, to: &str| {
        let find = ["binlog", "find", "--cluster", "shop", "--json", "--between", from, to];
        let found = home.on_repo(find).expect(0).json();
        let time = |t: &serde_json::Value| t["time"].as_str().unwrap().to_owned();
        found["transactions"].as_array().unwrap().iter().map(time).collect::<Vec<_>>()
    };
    let (old, now, far) = ("2001-01-01T00:00:00Z", "2020-01-01T00:00:00Z", "2200-01-01T00:00:00Z");
    let all = between(now, far);
    let last = all.iter().max().unwrap();
    assert!(all.len() >= 3 && between(old, now).is_empty(), "{all:?}");
    let (before, since) = (between(now, last).len(), between(last, far).len());
    assert!(before > 0 && since > 0 && before + since == all.len(), "{all:?}");
}

/// Of two streams with a spool each that do not know of each other, one ends, and says why.
#[tokio::test]
async fn of_two_streams_one_says_that_there_is_another() {
    let server = Server::start("mariadb-10.11").await;
    let home = Home::with_repo();
    let url = server.url();
    let mut session = server.session().await;
    server::run(&mut session, &["CREATE DATABASE shop", "CREATE TABLE shop.t (id INT)"]).await;
    let start = |spool| Running::start(&home, "stream", &url, "", spool);
    let a = start("a");
    // So that they do not end their segments at the same transaction.
    tokio::time::sleep(Duration::from_secs(2)).await;
    claimed(&home).await;
    std::fs::remove_dir_all(home.path(LOCKS)).unwrap();
    let mut streams = [a, start("b")];
    let begun = Instant::now();
    let loser = loop {
        server::run(&mut session, &["INSERT INTO shop.t VALUES (1)"]).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        let [a, b] = &mut streams;
        match (a.0.try_wait().unwrap(), b.0.try_wait().unwrap()) {
            (Some(_), _) => break 0,
            (_, Some(_)) => break 1,
            _ => assert!(begun.elapsed() < Duration::from_secs(60), "both go on"),
        }
    };
    let [a, b] = streams;
    let (loser, winner) = if loser == 0 { (a, b) } else { (b, a) };
    let said = loser.end().await.expect(12).stderr;
    let known = ["another receiver archives", "another receiver took over"];
    assert!(known.iter().any(|text| said.contains(text)), "{said}");
    winner.signal(Signal::TERM);
    winner.end().await.expect(0);
    home.archive_is_whole();
}
