//! Logs of Aria that are not in the data directory: its tables are not what was committed without them.

use std::path::Path;

use backup_core::Context;

use crate::home::{Home, Run};
use crate::server::{self, Server, install};
use crate::snapshots::pair;

const NAME: &str = "mariadb-10.11";

/// A server on a directory; its Aria has its logs in `logs`.
async fn on(directory: &Path, logs: Option<&Path>) -> Server {
    let mut builder =
        xtask::servers::sandbox(NAME).await.unwrap().datadir(directory).durable(false);
    if let Some(logs) = logs {
        builder = builder.option("aria_log_dir_path", logs.to_str().unwrap());
    }
    Server(builder.start(&Context::builder().build()).await.unwrap())
}

/// A new server with rows and code in tables of Aria, whose logs are in `logs`.
async fn made(data: &Path, logs: &Path) -> Server {
    on(data, None).await.0.stop().await.unwrap();
    std::fs::create_dir(logs).unwrap();
    for (path, name) in logs_in(data) {
        std::fs::rename(path, logs.join(name)).unwrap();
    }
    let server = on(data, Some(logs)).await;
    let sql = [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.t (id INT PRIMARY KEY, v VARCHAR(30), KEY (v)) ENGINE=Aria TRANSACTIONAL=1",
        "INSERT INTO shop.t SELECT seq, CONCAT('a', seq) FROM shop.seq_1_to_1000",
        "CREATE PROCEDURE shop.p() SELECT 1",
    ];
    server::run(&mut server.session().await, &sql).await;
    server
}

/// The logs in a directory, and the file that tells of them.
fn logs_in(directory: &Path) -> Vec<(std::path::PathBuf, String)> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    let named = entries.map(|entry| (entry.path(), entry.file_name().into_string().unwrap()));
    named.filter(|(_, name)| name.starts_with("aria_log")).collect()
}

fn backup(home: &Home, source: &str, more: &[&str]) -> Run {
    let args = ["backup", "--strategy", "physical", "--source", source, "--cluster", "shop"];
    home.on_repo([&args[..], more].concat())
}

/// Restores the last backup, and looks at what a server makes of it that knows of no other directory.
async fn comes_back(home: &Home) {
    let servers = install(NAME);
    let servers = servers.to_str().unwrap();
    let drill = ["verify", "--level", "drill", "--server-dir", servers, "--cluster", "shop"];
    home.on_repo(drill).expect(0);
    let target = home.path("target");
    let to = ["restore", "--cluster", "shop", "--target-dir", target.to_str().unwrap()];
    home.on_repo(to).expect(0);
    assert!(target.join("aria_log_control").is_file(), "the logs are not in the copy");
    let mut server = on(&target, None).await;
    let mut session = server.session().await;
    let check = "CHECK TABLE shop.t, mysql.proc, mysql.db EXTENDED";
    let said: Vec<(String, String, String, String)> = session.query_rows(check).await.unwrap();
    assert!(said.iter().all(|(.., text)| text == "OK"), "{said:?}");
    let sum = "SELECT CONCAT(COUNT(*), '-', SUM(id)) FROM shop.t FORCE INDEX (v)";
    assert_eq!(server.value(sum).await.as_deref(), Some("1000-500500"));
    assert_eq!(server.value("CALL shop.p()").await.as_deref(), Some("1"));
    server::run(&mut session, &["CREATE PROCEDURE shop.q() SELECT 2"]).await;
    session.close().await.unwrap();
    server.0.stop().await.unwrap();
    std::fs::remove_dir_all(target).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_of_aria_that_are_elsewhere_are_in_every_copy_or_it_is_refused() {
    let home = Home::with_repo();
    let (data, logs) = (home.path("data"), home.path("logs"));
    let mut server = made(&data, &logs).await;
    let url = server.url();

    // Snapshots of two directories are of two moments.
    let (create, remove) = pair::copying(&home);
    let run = tokio::task::block_in_place(|| pair::backup(&home, &url, &create, &remove));
    run.expect(6).says(logs.to_str().unwrap()).says("--lock-and-copy");
    assert!(!home.path("diary").exists(), "a snapshot was taken");

    backup(&home, &url, &["--lock-and-copy"]).expect(0);
    comes_back(&home).await;

    server.0.stop().await.unwrap();
    let source = format!("file://{}", data.display());
    backup(&home, &source, &[]).expect(6).says("aria_log_control").says("aria=/DIR");
    let check = home.on_repo(["check", "--strategy", "physical", "--source", &source]).expect(6);
    assert!(check.stdout.contains("aria_log_control"), "{check:?}");
    // Left behind when the setting was made.
    std::fs::write(data.join("aria_log_control"), "an old one").unwrap();
    std::fs::write(data.join("aria_log.00000001"), "an old one").unwrap();
    backup(&home, &format!("{source}?aria={}", logs.display()), &[]).expect(0);
    comes_back(&home).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_of_aria_in_a_directory_below_come_where_a_server_looks_for_them() {
    let home = Home::with_repo();
    let (data, logs) = (home.path("data"), home.path("data/logs"));
    let mut server = made(&data, &logs).await;
    let url = server.url();
    let (create, remove) = pair::copying(&home);
    let run = tokio::task::block_in_place(|| pair::backup(&home, &url, &create, &remove));
    run.expect(6).says(logs.to_str().unwrap());
    backup(&home, &url, &["--lock-and-copy"]).expect(0);
    comes_back(&home).await;
    server.0.stop().await.unwrap();
    let source = format!("file://{}?aria={}", data.display(), logs.display());
    backup(&home, &source, &[]).expect(0);
    comes_back(&home).await;
}

#[tokio::test]
async fn a_server_that_looks_elsewhere_for_the_logs_of_aria_is_told_of_before_a_restore() {
    let home = Home::with_repo();
    let data = home.path("data");
    let server = on(&data, None).await;
    backup(&home, &server.url(), &["--lock-and-copy"]).expect(0);
    let (target, servers) = (home.path("target"), install(NAME));
    let restore = |text: &str| {
        home.write("my.cnf", &format!("[mysqld]\ndatadir={}\n{text}", target.display()));
        let to = ["restore", "--cluster", "shop", "--target-dir", target.to_str().unwrap()];
        let with = ["--server-config", "my.cnf", "--server-dir", servers.to_str().unwrap()];
        home.on_repo([&to[..], &with].concat())
    };
    let elsewhere = format!("aria_log_dir_path={}\n", home.path("logs").display());
    restore(&elsewhere).expect(9).says("take aria_log_dir_path out of its option file");
    assert!(!target.exists());
    restore("").expect(0);
}
