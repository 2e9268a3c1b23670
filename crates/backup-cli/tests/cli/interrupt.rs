use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Stdio};

use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};

use crate::home::{Home, Run};
use crate::server::{self, PASSWORD, Server};

/// A backup that waits for a lock, and what it wrote to standard error so far.
struct Waiting {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
}

impl Waiting {
    /// Starts a backup of a server where another session holds the lock.
    fn start(home: &Home, server: &Server) -> Waiting {
        let mut waiting = Waiting::run(home, server, &[]);
        waiting.read_until("\"snapshot\"");
        waiting
    }

    /// Starts a backup.
    fn run(home: &Home, server: &Server, more: &[&str]) -> Waiting {
        let url = server.tcp_url("backup");
        let mut command =
            home.command(["backup", "--repo", "repo", "--cluster", "c", "--source", &url]);
        command.args(["--progress", "json"]).args(more).env("HOLDFAST_SOURCE_PASSWORD", PASSWORD);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Waiting { child, stderr }
    }

    /// Reads the progress until so many bytes came from the source.
    fn read_bytes(&mut self, bytes: u64) {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.stderr.read_line(&mut line).unwrap(), 0, "it ended before");
            let said: serde_json::Value = serde_json::from_str(&line).unwrap();
            if said["bytes"].as_u64() >= Some(bytes) {
                return;
            }
        }
    }

    fn read_until(&mut self, part: &str) {
        let mut line = String::new();
        while !line.contains(part) {
            line.clear();
            assert_ne!(self.stderr.read_line(&mut line).unwrap(), 0, "it ended before {part}");
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn end(mut self) -> Run {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).unwrap();
        let output = self.child.wait_with_output().unwrap();
        Run { stderr: rest, ..Run::from(output) }
    }
}

#[rstest]
#[tokio::test]
async fn the_first_signal_ends_cleanly(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
    #[values(Signal::INT, Signal::TERM, Signal::HUP)] signal: Signal,
) {
    let server = Server::with_shop(name).await;
    let mut other = server.session().await;
    server::backup_account(&mut other).await;
    server::run(&mut other, &["LOCK TABLES shop.orders WRITE"]).await;
    let home = Home::with_repo();
    let waiting = Waiting::start(&home, &server);

    // The password came by the environment; no process shows it in its arguments.
    for process in std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path()) {
        let arguments = std::fs::read(process.join("cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&arguments).contains(PASSWORD), "{}", process.display());
    }

    waiting.signal(signal);
    waiting.end().expect(13).says("interrupted").hides(PASSWORD);
    // Nobody waits behind it, while the lock that it waited for is still held.
    let writing = ["SET lock_wait_timeout = 20", "DELETE FROM shop.customers WHERE id = 3"];
    server::run(&mut server.session().await, &writing).await;
    server::run(&mut other, &["UNLOCK TABLES"]).await;

    // Nothing is left: no backup, no object of one, no lock.
    assert_eq!(home.on_repo(["list", "--json"]).expect(0).json(), serde_json::json!([]));
    let left: Vec<_> = home
        .files("repo")
        .into_iter()
        .filter(|(path, _)| path.to_str().unwrap().contains("/backups/"))
        .collect();
    assert_eq!(left, []);
    server::run(&mut other, &["DELETE FROM shop.orders WHERE id = 1", "DROP VIEW shop.totals"])
        .await;
    home.on_repo(["backup", "--cluster", "c", "--source", &server.url()]).expect(0);
}

#[tokio::test]
async fn the_second_signal_ends_at_once() {
    let server = Server::with_shop("mysql-9.7").await;
    let mut other = server.session().await;
    server::backup_account(&mut other).await;
    server::run(&mut other, &["LOCK TABLES shop.orders WRITE"]).await;
    let home = Home::with_repo();
    let mut waiting = Waiting::start(&home, &server);

    // A server that answers no more keeps the clean end waiting.
    let process = Pid::from_raw(i32::try_from(server.0.pid().unwrap()).unwrap()).unwrap();
    kill_process(process, Signal::STOP).unwrap();
    waiting.signal(Signal::INT);
    waiting.read_until("once more");
    waiting.signal(Signal::INT);
    waiting.end().expect(13);
    kill_process(process, Signal::CONT).unwrap();

    server::run(&mut other, &["UNLOCK TABLES"]).await;
    assert_eq!(home.on_repo(["list", "--json"]).expect(0).json(), serde_json::json!([]));
    home.on_repo(["backup", "--cluster", "c", "--source", &server.url()]).expect(0);
}

/// Almost no memory, and a store that takes next to nothing: everything waits for room.
#[rstest]
#[tokio::test]
async fn a_clone_that_waits_for_memory_ends_at_the_first_signal(
    #[values(Signal::INT, Signal::TERM)] signal: Signal,
    // Where there is none either, the donor waits.
    #[values("1MiB", "1GiB")] spool: &str,
) {
    let server = Server::with_shop("mysql-9.7").await;
    let mut session = server.session().await;
    server::backup_account(&mut session).await;
    server::run(&mut session, &["INSTALL PLUGIN clone SONAME 'mysql_clone.so'"]).await;
    // Nothing of it becomes smaller.
    server::double_orders(&mut session, 5).await;
    let home = Home::with_repo();
    let slow = ["--strategy", "clone", "--memory", "1MiB", "--clone-spool-limit", spool];
    let slow = [&slow[..], &["--upload-limit", "1KiB", "--compression", "none"]].concat();
    let mut waiting = Waiting::run(&home, &server, &slow);
    waiting.read_bytes(1 << 20);
    waiting.signal(signal);
    waiting.end().expect(13).says("interrupted").hides(PASSWORD);
    assert_eq!(home.on_repo(["list", "--json"]).expect(0).json(), serde_json::json!([]));
    let left = home.files("repo").into_iter().map(|(path, _)| path);
    let left: Vec<_> = left.filter(|path| path.to_str().unwrap().contains("/backups/")).collect();
    assert_eq!(left, [""; 0].map(std::path::PathBuf::from));
    // The donor takes one clone at a time.
    let url = server.url();
    let next = ["backup", "--strategy", "clone", "--cluster", "c", "--source", &url];
    home.on_repo(next).expect(0);
}
