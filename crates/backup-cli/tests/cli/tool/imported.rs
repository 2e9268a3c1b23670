//! Tables that were imported as files since the last checkpoint: `mariadb-backup` takes them for dropped.

use std::path::Path;

use rstest::rstest;

use super::{backup, on};
use crate::home::Home;
use crate::server::{self, Server, install};

const TABLES: [&str; 8] = [
    "CREATE DATABASE bank",
    "CREATE TABLE bank.t (id INT PRIMARY KEY, v VARCHAR(50))",
    "INSERT INTO bank.t SELECT seq, REPEAT('x', 40) FROM bank.seq_1_to_1000",
    "CREATE TABLE bank.parts (id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 2",
    "INSERT INTO bank.parts SELECT seq FROM bank.seq_1_to_100",
    // Names and places that are others in the stream, and a file that there is not.
    "CREATE TABLE bank.`far off` (id INT PRIMARY KEY) DATA DIRECTORY='FAR'",
    "CREATE TABLE bank.discarded (id INT PRIMARY KEY)",
    "ALTER TABLE bank.discarded DISCARD TABLESPACE",
];

async fn filled(home: &Home, name: &str) -> Server {
    std::fs::create_dir(home.path("far")).unwrap();
    let server = on(name, &home.path("data")).await;
    let mut session = server.session().await;
    for sql in TABLES {
        let sql = sql.replace("FAR", home.path("far").to_str().unwrap());
        server::run(&mut session, &[&sql]).await;
    }
    server
}

fn taken(home: &Home) -> usize {
    home.on_repo(["list", "--json"]).expect(0).json().as_array().unwrap().len()
}

/// What the backup has of two tables that are to be the same.
async fn same(home: &Home, name: &str, tool: &Path, tables: [&str; 2]) {
    let to = home.path("restored");
    let args = ["restore", "--cluster", "bank", "--tool", tool.to_str().unwrap(), "--target-dir"];
    home.on_repo([&args[..], &[to.to_str().unwrap()]].concat()).expect(0);
    let mut restored = on(name, &to).await;
    let [one, other] = tables;
    let sql = format!("CHECKSUM TABLE {one}, {other} EXTENDED");
    let sums: Vec<(String, Option<u64>)> = restored.session().await.query_rows(&sql).await.unwrap();
    assert!(sums[0].1.is_some() && sums[0].1 == sums[1].1, "{sums:?}");
    restored.0.stop().await.unwrap();
    std::fs::remove_dir_all(&to).unwrap();
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_a_restore_imported_is_in_the_next_backup(
    #[values("mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let home = Home::with_repo();
    let server = filled(&home, name).await;
    let (url, tool) = (server.url(), install(name));
    backup(&home, &server, &tool).expect(0);
    // A target with it takes no files.
    server::run(&mut server.session().await, &["DROP TABLE bank.`far off`"]).await;
    let at = tool.to_str().unwrap();
    let restore = ["restore", "-v", "--cluster", "bank", "--target", &url, "--server-dir", at];
    let tables = ["--tables", "bank.t,bank.parts", "--binlog", "off"];
    let rename = ["--rename", "bank.t=bank.t_then", "--rename", "bank.parts=bank.parts_then"];
    let run = home.on_repo([&restore[..], &tables, &rename].concat()).expect(0);
    run.says("2 tables were imported as files");
    // Its pages are not of any LSN.
    let args = ["backup", "--strategy", "physical", "--source", &url, "--cluster", "bank"];
    let increment = || home.on_repo([&args[..], &["--tool", at, "--type", "incremental"]].concat());
    let grow =
        ["UPDATE bank.t_then SET v = 'y' WHERE id = 5", "UPDATE bank.t SET v = 'y' WHERE id = 5"];
    server::run(&mut server.session().await, &grow).await;
    let run = increment().expect(6);
    run.says("bank.parts_then partition p0")
        .says("bank.t_then, which came by IMPORT")
        .says("take a full backup");
    backup(&home, &server, &tool).expect(0);
    same(&home, name, &tool, ["bank.t", "bank.t_then"]).await;
    server::run(&mut server.session().await, &["CREATE TABLE bank.fresh AS SELECT * FROM bank.t"])
        .await;
    increment().expect(0);
    same(&home, name, &tool, ["bank.t", "bank.t_then"]).await;
    same(&home, name, &tool, ["bank.parts", "bank.parts_then"]).await;
    same(&home, name, &tool, ["bank.t", "bank.fresh"]).await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_without_a_table_is_none_and_says_what_helps(
    #[values("mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let home = Home::with_repo();
    let mut server = filled(&home, name).await;
    let tool = install(name);
    let mut session = server.session().await;
    server::run(&mut session, &["CREATE TABLE bank.hand LIKE bank.t"]).await;
    backup(&home, &server, &tool).expect(0);
    server::run(&mut session, &["ALTER TABLE bank.hand DISCARD TABLESPACE"]).await;
    server::run(&mut session, &["FLUSH TABLES bank.t FOR EXPORT"]).await;
    for ending in ["ibd", "cfg"] {
        let file = |table: &str| home.path(&format!("data/bank/{table}.{ending}"));
        std::fs::copy(file("t"), file("hand")).unwrap();
    }
    server::run(&mut session, &["UNLOCK TABLES", "ALTER TABLE bank.hand IMPORT TABLESPACE"]).await;

    let cure = "SET GLOBAL innodb_log_checkpoint_now=ON";
    let at = tool.to_str().unwrap();
    let increment = |server: &Server| {
        let url = server.url();
        let args = ["backup", "--strategy", "physical", "--source", &url, "--cluster", "bank"];
        home.on_repo([&args[..], &["--tool", at, "--type", "incremental"]].concat())
    };
    backup(&home, &server, &tool).expect(6).says("left out bank.hand").says(cure);
    increment(&server).expect(6).says("none of the pages of bank.hand");
    assert_eq!(taken(&home), 1);
    server::run(&mut session, &[cure]).await;
    session.close().await.unwrap();
    // One that nobody has used since the server began is as much without.
    server.0.stop().await.unwrap();
    let server = on(name, &home.path("data")).await;
    increment(&server).expect(6).says("none of the pages of bank.hand");
    backup(&home, &server, &tool).expect(0);
    let change =
        "UPDATE bank.hand, bank.t SET hand.v = 'z', t.v = 'z' WHERE hand.id = 5 AND t.id = 5";
    server::run(&mut server.session().await, &[change]).await;
    increment(&server).expect(0);
    same(&home, name, &tool, ["bank.t", "bank.hand"]).await;
}
