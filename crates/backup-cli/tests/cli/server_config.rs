//! The server that is going to start on restored files, compared with their source before they are written.

use std::path::Path;

use backup_core::Context;

use crate::home::Home;
use crate::server::{self, Server};

/// A server on `data` with options, or what it says when it does not start.
async fn start(name: &str, data: &Path, options: &[(&str, &str)]) -> Result<Server, String> {
    let cx = Context::builder().build();
    let mut builder = xtask::servers::sandbox(name).await.unwrap().datadir(data).durable(false);
    for (name, value) in options {
        builder = builder.option(*name, *value);
    }
    builder.start(&cx).await.map(Server).map_err(|e| e.report())
}

#[tokio::test]
async fn a_server_that_would_not_start_is_told_of_before_anything_is_written() {
    let name = "mysql-9.7";
    let home = Home::with_repo();
    let shape = [
        ("innodb_page_size", "8192"),
        ("lower_case_table_names", "1"),
        ("innodb_data_file_path", "ibdata1:20M;ibdata2:12M:autoextend"),
    ];
    let donor = start(name, &home.path("data"), &shape).await.unwrap();
    let mut session = donor.session().await;
    let sql = "INSTALL PLUGIN clone SONAME 'mysql_clone.so'";
    server::run(&mut session, &[sql, "CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)"])
        .await;
    home.on_repo(["backup", "--cluster", "c", "--strategy", "clone", "--source", &donor.url()])
        .expect(0);

    let restored = home.path("restored");
    let server_dir = server::install(name);
    let restore = |more: &[&str]| {
        let words = ["restore", "--cluster", "c", "--target-dir", "restored"];
        home.on_repo([&words, &["--server-dir", server_dir.to_str().unwrap()][..], more].concat())
    };
    let with = |text: &str| {
        home.write("my.cnf", &format!("[client]\npassword=no\n[mysqld]\n{text}"));
        ["--server-config", "my.cnf"]
    };
    let datadir = format!("datadir={}\n", restored.display());

    // All of it at once, and nothing is written.
    let wrong = with("innodb_undo_directory=/srv/undo\n");
    let run = restore(&wrong).expect(9);
    for said in [
        "innodb_page_size=8192",
        "lower_case_table_names=1",
        "innodb_data_file_path=ibdata1:20M;ibdata2:12M:autoextend",
        "take innodb_undo_directory out",
    ] {
        assert!(run.stderr.contains(said), "{said}: {run:?}");
    }
    assert!(!restored.exists());
    let planned = restore(&["--dry-run", "--json", wrong[0], wrong[1]]).expect(9).json();
    let errors = planned["findings"].as_array().unwrap().iter();
    assert_eq!(errors.filter(|finding| finding["severity"] == "error").count(), 4, "{planned:#}");

    // What the server does not understand is said in its words.
    let unknown = with("innodb_page_size=some\n");
    let run = restore(&unknown).expect(2);
    assert!(run.stderr.contains("(value 'some')"), "{run:?}");
    home.run(["restore", "--server-config", "my.cnf", "--target", "mysql://x/"]).expect(2);

    // What fits is restored, and a server with these settings starts on it.
    let mut right = datadir;
    for (name, value) in shape {
        right.push_str(&format!("{}={value}\n", name.replace('_', "-")));
    }
    restore(&with(&right)).expect(0);
    // What was refused would not have started, each by itself.
    for missing in 0..shape.len() {
        let less: Vec<(&str, &str)> =
            shape.iter().enumerate().filter(|(n, _)| *n != missing).map(|(_, s)| *s).collect();
        let said = start(name, &restored, &less).await.map(drop).unwrap_err();
        assert!(said.contains("failed with"), "without {}: {said}", shape[missing].0);
    }
    let server = start(name, &restored, &shape).await.unwrap();
    assert_eq!(server.value("SELECT COUNT(*) FROM d.t").await.as_deref(), Some("0"));
}

#[tokio::test]
async fn files_of_another_family_or_a_later_series_are_not_for_a_server() {
    let home = Home::with_repo();
    let source = Server::start("mariadb-11.8").await;
    let url = source.url();
    let lock = ["--strategy", "physical", "--lock-and-copy", "--source", &url];
    home.on_repo([&["backup", "--cluster", "c"], &lock[..]].concat()).expect(0);
    home.write("my.cnf", "[mysqld]\n");
    let restore = |name: &str, directory: &str| {
        let server = server::install(name);
        let words = [
            "restore",
            "--cluster",
            "c",
            "--target-dir",
            directory,
            "--server-dir",
            server.to_str().unwrap(),
        ];
        home.on_repo([&words[..], &["--server-config", "my.cnf"]].concat())
    };
    let run = restore("mysql-9.7", "a").expect(9);
    assert!(run.stderr.contains("the server is MySQL, and the files are of MariaDB"), "{run:?}");
    let run = restore("mariadb-10.11", "a").expect(9);
    assert!(run.stderr.contains("no server takes files of a later one"), "{run:?}");
    assert!(!home.path("a").exists());
    // The option file names no data directory, which is worth a warning.
    let run = restore("mariadb-11.8", "a").expect(14);
    assert!(run.stderr.contains("move them there before it starts"), "{run:?}");
}
