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
