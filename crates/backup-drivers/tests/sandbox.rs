//! Throw-away servers, for real: each kind starts, answers, stops and leaves nothing behind.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use backup_core::{Context, ErrorKind, Flavor};
use backup_drivers::sandbox::{Sandbox, SandboxBuilder};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, OptsBuilder};
use rstest::rstest;

fn cx() -> Context {
    Context::builder().build()
}

/// A sandbox of the server called `name` that has its files in `parent`.
fn sandbox(name: &str, parent: &Path) -> SandboxBuilder {
    let install = xtask::servers::install(name).unwrap();
    Sandbox::builder(&install).directory(parent)
}

async fn connect(server: &Sandbox) -> Conn {
    let socket = server.socket().to_str().unwrap().to_owned();
    let options = OptsBuilder::default().user(Some("root")).socket(Some(socket));
    Conn::new(options).await.unwrap()
}

async fn ask(connection: &mut Conn, query: &str) -> String {
    connection.query_first(query).await.unwrap().unwrap()
}

/// Whether there is such a process. One that nobody reaped yet has no command line any more.
fn is_alive(pid: u32) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

#[rstest]
#[tokio::test]
async fn a_server_starts_answers_stops_and_leaves_nothing_behind(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let parent = tempfile::tempdir().unwrap();
    let mut server = sandbox(name, parent.path()).start(&cx()).await.unwrap();
    let mut connection = connect(&server).await;
    let version = ask(&mut connection, "SELECT VERSION()").await;
    let wanted = name.split_once('-').unwrap().1;
    assert!(version.starts_with(&format!("{wanted}.")), "{version}");
    assert!(server.install().version().starts_with(&format!("{wanted}.")));
    assert_eq!(ask(&mut connection, "SELECT @@skip_networking").await, "1");
    assert_eq!(ask(&mut connection, "SELECT @@log_bin").await, "1");
    if server.install().flavor() == Flavor::MySql {
        assert_eq!(ask(&mut connection, "SELECT @@gtid_mode").await, "ON");
    }
    connection.disconnect().await.unwrap();

    let pid = server.pid().unwrap();
    assert!(is_alive(pid));
    server.stop().await.unwrap();
    assert!(!is_alive(pid));
    assert_eq!(server.pid(), None);
    let log = std::fs::read_to_string(server.error_log()).unwrap();
    assert!(log.to_lowercase().contains("shutdown complete"), "{log}");
    assert!(!log.contains("[ERROR]"), "{log}");
    server.stop().await.unwrap();
    drop(server);
    assert!(is_empty(parent.path()));
}

#[rstest]
#[tokio::test]
async fn a_killed_server_recovers_what_was_committed_and_keeps_socket_and_port(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let parent = tempfile::tempdir().unwrap();
    // So deep that the socket must go elsewhere.
    let deep = parent.path().join("deep".repeat(30));
    let data = parent.path().join("data");
    std::fs::create_dir(&deep).unwrap();
    let builder = sandbox(name, &deep)
        .datadir(&data)
        .option("innodb_page_size", "32768")
        .option("innodb-buffer-pool-size", "96M")
        .binary_log(false)
        .tcp(true);
    let mut server = builder.start(&cx()).await.unwrap();
    let mut connection = connect(&server).await;
    assert_eq!(ask(&mut connection, "SELECT @@innodb_page_size").await, "32768");
    assert_eq!(ask(&mut connection, "SELECT @@innodb_buffer_pool_size >> 20").await, "96");
    assert_eq!(ask(&mut connection, "SELECT @@log_bin").await, "0");
    connection.query_drop("CREATE DATABASE d").await.unwrap();
    connection.query_drop("CREATE TABLE d.t (a INT PRIMARY KEY)").await.unwrap();
    connection.query_drop("INSERT INTO d.t VALUES (7)").await.unwrap();

    let (socket, port, pid) = (server.socket(), server.port().unwrap(), server.pid().unwrap());
    server.kill();
    assert!(!is_alive(pid));
    assert_eq!(server.pid(), None);
    server.restart(&cx()).await.unwrap();
    assert_eq!((server.socket(), server.port()), (socket, Some(port)));
    let options = OptsBuilder::default()
        .user(Some("root"))
        .ip_or_hostname("127.0.0.1")
        .tcp_port(port)
        .prefer_socket(false);
    let mut connection = Conn::new(options).await.unwrap();
    assert_eq!(ask(&mut connection, "SELECT a FROM d.t").await, "7");
    assert_eq!(ask(&mut connection, "SELECT @@bind_address").await, "127.0.0.1");
    drop(connection);

    server.stop().await.unwrap();
    drop(server);
    assert!(is_empty(&deep));
    assert!(data.join("ibdata1").is_file());
}

#[rstest]
#[tokio::test]
async fn a_directory_of_garbage_gives_the_errors_of_the_servers_log(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let parent = tempfile::tempdir().unwrap();
    let data = parent.path().join("data");
    let run = parent.path().join("run");
    for dir in [&data, &run] {
        std::fs::create_dir(dir).unwrap();
    }
    std::fs::write(data.join("ibdata1"), vec![0x5a; 12 << 20]).unwrap();
    let error = sandbox(name, &run).datadir(&data).start(&cx()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Target);
    let report = error.report();
    assert!(report.contains("its error log says: "), "{report}");
    assert!(report.contains("[ERROR]") && report.contains("InnoDB"), "{report}");
    assert!(report.contains(data.to_str().unwrap()), "{report}");
    assert!(is_empty(&run));
}

#[rstest]
#[tokio::test]
async fn an_option_the_server_does_not_know_is_named(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let parent = tempfile::tempdir().unwrap();
    // Known to nobody, and of those that an initialisation sees.
    let error = sandbox(name, parent.path())
        .option("innodb_no_such_thing", "1")
        .start(&cx())
        .await
        .unwrap_err();
    assert!(error.report().contains("no_such_thing"), "{error:?}");
    assert!(is_empty(parent.path()));
}

#[tokio::test]
async fn a_cancelled_start_leaves_nothing_behind() {
    let parent = tempfile::tempdir().unwrap();
    let cx = cx();
    let start = sandbox("mysql-9.7", parent.path()).start(&cx);
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        cx.cancel();
    };
    let (result, ()) = tokio::join!(start, cancel);
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Interrupted);
    assert!(is_empty(parent.path()));
}

#[rstest]
#[tokio::test]
async fn copies_of_a_template_are_servers_of_their_own(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let parent = tempfile::tempdir().unwrap();
    let start = async || {
        let builder = xtask::servers::sandbox(name).await.unwrap();
        builder.directory(parent.path()).start(&cx()).await.unwrap()
    };
    let (one, two) = tokio::join!(start(), start());
    assert_ne!(one.datadir(), two.datadir());
    let (mut a, mut b) = (connect(&one).await, connect(&two).await);
    a.query_drop("CREATE DATABASE only_here").await.unwrap();
    let there: Option<String> = b.query_first("SHOW DATABASES LIKE 'only_here'").await.unwrap();
    assert_eq!(there, None);
    if one.install().flavor() == Flavor::MySql {
        let uuid = "SELECT @@server_uuid";
        assert_ne!(ask(&mut a, uuid).await, ask(&mut b, uuid).await);
    }
    let initialized = std::fs::exists(one.error_log().with_file_name("initialize.log")).unwrap();
    assert!(!initialized, "the template was not used");
}

#[tokio::test]
async fn a_panic_stops_the_server_and_cleans_up() {
    let parent = tempfile::tempdir().unwrap();
    let server = sandbox("mariadb-10.11", parent.path()).start(&cx()).await.unwrap();
    let pid = server.pid().unwrap();
    assert!(is_alive(pid));
    let task = tokio::spawn(async move {
        assert!(server.datadir().join("no such file").exists(), "on purpose");
    });
    assert!(task.await.unwrap_err().is_panic());
    assert!(!is_alive(pid));
    assert!(is_empty(parent.path()));
}

/// The child of the next test: runs a server until its standard input ends.
#[tokio::test]
#[ignore = "the next test runs it"]
async fn a_program_with_a_server() {
    let parent = tempfile::tempdir().unwrap();
    let builder = xtask::servers::sandbox("mariadb-10.11").await.unwrap();
    let server = builder.directory(parent.path()).start(&cx()).await.unwrap();
    println!("\nserver {}", server.pid().unwrap());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_program_that_is_killed_leaves_no_server() {
    let parent = tempfile::tempdir().unwrap();
    let mut program = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_program_with_a_server", "--ignored", "--nocapture"])
        .env("TMPDIR", parent.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(program.stdout.take().unwrap());
    let pid: u32 = said
        .lines()
        .find_map(|line| line.unwrap().strip_prefix("server ").map(|pid| pid.parse().unwrap()))
        .expect("the program has a server");
    assert!(is_alive(pid));
    program.kill().unwrap();
    program.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while is_alive(pid) {
        assert!(Instant::now() < deadline, "{pid} lives on; is setpriv of util-linux installed?");
        std::thread::sleep(Duration::from_millis(10));
    }
}
