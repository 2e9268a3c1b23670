//! What `check` finds before a tool is run, and that what it says to do helps.

use rstest::rstest;
use serde_json::Value;

use super::{fill, on};
use crate::home::{Home, Run};
use crate::server::{self, PASSWORD, Server, install};

fn check(home: &Home, server: &Server, tool: &str) -> Run {
    let url = server.url();
    home.on_repo(["check", "--strategy", "physical", "--source", &url, "--tool", tool, "--json"])
}

fn findings<'a>(document: &'a Value, object: &str) -> Vec<&'a Value> {
    let all = document["findings"].as_array().unwrap();
    all.iter().filter(|finding| finding["object"] == object).collect()
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_account_gets_what_it_lacks_by_pasting(
    #[values("mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let home = Home::with_repo();
    let server = Server::start(name).await;
    let mut session = server.session().await;
    fill(&mut session).await;
    let create = format!("CREATE USER poor@'%' IDENTIFIED BY '{}'", PASSWORD.replace('\'', "''"));
    server::run(&mut session, &[&create]).await;

    let (url, tool) = (server.tcp_url("poor"), install(name));
    let run = |command: &str, more: &[&str]| {
        let args = ["--strategy", "physical", "--source", &url, "--repo", "repo", "--json"];
        let tool = ["--tool", tool.to_str().unwrap()];
        let mut command = home.command([&[command], &args[..], &tool, more].concat());
        Run::of(command.env("HOLDFAST_SOURCE_PASSWORD", PASSWORD)).hides(PASSWORD)
    };
    let backup = ["--cluster", "bank"];
    run("backup", &backup).expect(4).says("GRANT");
    let document = run("check", &[]).expect(4).json();
    let missing = findings(&document, "privileges");
    assert!(missing.len() >= 3, "{document:#}");
    for finding in missing {
        session.run(finding["remedy"].as_str().unwrap()).await.unwrap();
    }
    // That is all, for the tool too.
    let document = run("check", &[]).expect(0).json();
    assert_eq!(document["ok"], true, "{document:#}");
    run("backup", &backup).expect(0);

    let more = ["--replica-position"];
    let document = run("check", &more).expect(4).json();
    let [monitor] = findings(&document, "privileges")[..] else { panic!("{document:#}") };
    session.run(monitor["remedy"].as_str().unwrap()).await.unwrap();
    run("check", &more).expect(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_that_do_not_fit_come_with_what_would() {
    let home = Home::with_repo();
    let server = on("mariadb-10.11", &home.path("data")).await;
    let fits = install("mariadb-10.11");
    let document = check(&home, &server, fits.to_str().unwrap()).expect(0).json();
    let tool = findings(&document, "tool")[0]["problem"].as_str().unwrap().to_owned();
    assert!(tool.starts_with("mariadb-backup 10.11."), "{tool}");

    let other = install("mariadb-11.8");
    let document = check(&home, &server, other.to_str().unwrap()).expect(6).json();
    let tool = findings(&document, "tool")[0];
    assert!(tool["remedy"].as_str().unwrap().contains("install mariadb-backup 10.11"), "{tool:#}");

    let document = check(&home, &server, "no-such-tool").expect(2).json();
    assert_eq!(findings(&document, "tool")[0]["severity"], "error");

    // There is none for MySQL here, and the program's PATH is empty.
    let mysql = on("mysql-9.7", &home.path("mysql")).await;
    let url = mysql.url();
    let args = ["check", "--strategy", "physical", "--source", &url, "--json"];
    let document = home.on_repo(args).expect(2).json();
    let tool = findings(&document, "tool")[0];
    assert!(tool["problem"].as_str().unwrap().contains("there is no xtrabackup"), "{tool:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redo_log_that_is_soon_written_over_is_told_with_its_cure() {
    let home = Home::with_repo();
    let cx = backup_core::Context::builder().build();
    let builder = xtask::servers::sandbox("mariadb-10.11").await.unwrap();
    let builder = builder.durable(false).option("innodb_log_file_size", "4M");
    let server = Server(builder.start(&cx).await.unwrap());
    let mut session = server.session().await;
    let sql = [
        "CREATE DATABASE bank",
        "CREATE TABLE bank.bulk (id INT PRIMARY KEY, t BLOB)",
        "INSERT INTO bank.bulk SELECT seq, REPEAT(RANDOM_BYTES(1000 + seq % 24), 8) FROM bank.seq_1_to_3000",
    ];
    server::run(&mut session, &sql).await;
    let tool = install("mariadb-10.11");
    let tool = tool.to_str().unwrap();
    // What it has written on average goes down as time goes by, but not that fast.
    let document = check(&home, &server, tool).expect(0).json();
    let [redo] = findings(&document, "redo log")[..] else { panic!("{document:#}") };
    assert_eq!(redo["severity"], "warning", "{redo:#}");
    let cure = redo["remedy"].as_str().unwrap().split(", and").next().unwrap();
    session.run(cure).await.unwrap();
    let document = check(&home, &server, tool).expect(0).json();
    assert_eq!(findings(&document, "redo log")[0]["severity"], "info", "{document:#}");
}

/// The tool is run by whoever runs us, and must read the files.
#[tokio::test(flavor = "multi_thread")]
async fn files_that_may_not_be_read_are_told_of() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let home = Home::new();
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let name = "mariadb-10.11";
    let mut server = on(name, &home.path("data")).await;
    let mut session = server.session().await;
    let sql = [
        "CREATE DATABASE bank",
        "CREATE TABLE bank.t (id INT PRIMARY KEY)",
        "CREATE USER anybody@'127.0.0.1'",
        "GRANT ALL PRIVILEGES ON *.* TO anybody@'127.0.0.1'",
    ];
    server::run(&mut session, &sql).await;
    session.close().await.unwrap();
    server.0.stop().await.unwrap();
    let cx = backup_core::Context::builder().build();
    let builder = xtask::servers::sandbox(name).await.unwrap().datadir(home.path("data"));
    let server = Server(builder.durable(false).tcp(true).start(&cx).await.unwrap());
    // Anybody may look in, and the program is where anybody may run it.
    let program = home.path("holdfast");
    std::fs::copy(assert_cmd::cargo::cargo_bin!("holdfast"), &program).unwrap();
    for (path, mode) in [(&home.path(""), 0o755), (&home.path("data"), 0o755), (&program, 0o755)] {
        open(path, mode);
    }
    let (url, tool) = (server.tcp_url("anybody"), install(name));
    let check = || {
        let mut command = std::process::Command::new(&program);
        command.env_clear().env("HOME", "/").current_dir("/").uid(65534).gid(65534);
        command.args(["check", "--strategy", "physical", "--source", &url, "--json", "--tool"]);
        Run::of(command.arg(&tool))
    };
    let document = check().expect(6).json();
    let [source] = findings(&document, "source")[..] else { panic!("{document:#}") };
    assert!(source["problem"].as_str().unwrap().contains("Permission denied"), "{source:#}");
    assert!(source["remedy"].as_str().unwrap().contains("as the user of the server"), "{source:#}");
    // One file is enough for the tool to fail.
    for (path, _) in home.files("data") {
        if path.is_file() {
            open(&path, 0o644);
        }
    }
    for directory in std::fs::read_dir(home.path("data")).unwrap() {
        let directory = directory.unwrap().path();
        if directory.is_dir() {
            open(&directory, 0o755);
        }
    }
    check().expect(0);
    open(&home.path("data/bank/t.ibd"), 0o600);
    let document = check().expect(6).json();
    let [source] = findings(&document, "source")[..] else { panic!("{document:#}") };
    assert!(source["problem"].as_str().unwrap().contains("bank/t.ibd"), "{source:#}");
}
