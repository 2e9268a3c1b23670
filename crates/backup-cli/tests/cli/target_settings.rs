//! Restores to servers whose settings tables or transactions do not fit: mended for the restore's own sessions, or told
//! before anything is made.

use backup_core::Context;
use rstest::rstest;

use crate::binlog_allowed::archived;
use crate::home::{Home, Run};
use crate::server::{self, Server};

/// How many tables and sequences there are under the name that restores are to use.
const COPIED: &str =
    "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema IN ('copy', 'd')";

/// `d` of the backup as `copy`.
fn restore(home: &Home, url: &str, more: &[&str]) -> Run {
    let args =
        ["restore", "--cluster", "c", "--target", url, "--databases", "d", "--rename", "d=copy"];
    let mut command = home.command([&args[..], more].concat());
    command.env("HOLDFAST_REPO", "repo");
    if url.contains("poor@") {
        command.env("HOLDFAST_TARGET_PASSWORD", "poor");
    }
    Run::of(&mut command)
}

#[rstest]
#[tokio::test]
async fn sequences_come_to_a_target_that_logs_statements(
    #[values("mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let server = Server::start(name).await;
    let mut root = server.session().await;
    let content = [
        "CREATE DATABASE d",
        "CREATE SEQUENCE d.s",
        "CREATE TABLE d.t (id BIGINT PRIMARY KEY DEFAULT NEXTVAL(d.s), v INT)",
        "INSERT INTO d.t (v) VALUES (1), (2)",
    ];
    server::run(&mut root, &content).await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &server.url(), "--cluster", "c"]).expect(0);
    let target = [
        "SET GLOBAL binlog_format = 'STATEMENT'",
        "SET GLOBAL local_infile = ON",
        "CREATE USER poor@'%' IDENTIFIED BY 'poor'",
        "GRANT ALL ON copy.* TO poor@'%'",
        "GRANT SELECT ON d.* TO poor@'%'",
    ];
    server::run(&mut root, &target).await;
    for more in [&["--dry-run"][..], &[]] {
        let run = restore(&home, &server.tcp_url("poor"), more).expect(4).says("ERROR 1665");
        run.says("SET GLOBAL binlog_format = ROW at the target; or GRANT BINLOG ADMIN");
        assert_eq!(server.value(COPIED).await.as_deref(), Some("2"));
    }
    restore(&home, &server.url(), &["--dry-run"]).expect(0);
    restore(&home, &server.url(), &[]).expect(0);
    assert_eq!(server.value("SELECT SUM(v) FROM copy.t").await.as_deref(), Some("3"));
}

#[tokio::test]
async fn a_database_that_takes_no_changes_is_found_beforehand() {
    let server = Server::start("mysql-9.7").await;
    let mut root = server.session().await;
    let content = [
        "CREATE DATABASE d",
        "CREATE TABLE d.t (id INT PRIMARY KEY)",
        "INSERT INTO d.t VALUES (1)",
        "CREATE DATABASE copy",
        "CREATE TABLE copy.t (id INT PRIMARY KEY)",
        "ALTER DATABASE copy READ ONLY = 1",
    ];
    server::run(&mut root, &content).await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &server.url(), "--cluster", "c"]).expect(0);
    let url = server.url();
    for more in [&["--overwrite", "--dry-run"][..], &["--overwrite"]] {
        let run = restore(&home, &url, more).expect(9).says("takes no changes at the target");
        run.says("ALTER DATABASE `copy` READ ONLY = 0");
    }
    server::run(&mut root, &["ALTER DATABASE copy READ ONLY = 0"]).await;
    restore(&home, &url, &["--overwrite"]).expect(0);
    assert_eq!(server.value("SELECT SUM(id) FROM copy.t").await.as_deref(), Some("1"));
}

#[tokio::test]
async fn an_engine_that_is_disabled_is_found_beforehand() {
    let source = Server::start("mysql-9.7").await;
    let content =
        ["CREATE DATABASE d", "CREATE TABLE d.t (a INT) ENGINE=MyISAM", "CREATE TABLE d.i (a INT)"];
    server::run(&mut source.session().await, &content).await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &source.url(), "--cluster", "c"]).expect(0);
    let builder = xtask::servers::sandbox("mysql-9.7").await.unwrap();
    let builder = builder.tcp(true).option("disabled_storage_engines", "FEDERATED,MyISAM");
    let target = Server(builder.start(&Context::builder().build()).await.unwrap());
    for more in [&["--dry-run"][..], &[]] {
        let run = restore(&home, &target.url(), more).expect(9);
        let run = run.says("copy.t: the target has disabled_storage_engines=FEDERATED,MyISAM");
        let run = run.says("leave these tables out");
        assert!(!run.stderr.contains("half restored"), "{run:?}");
        assert_eq!(target.value(COPIED).await.as_deref(), Some("0"));
    }
    restore(&home, &target.url(), &["--exclude-tables", "d.t"]).expect(0);
}

#[rstest]
#[tokio::test]
async fn tables_that_mariadb_is_set_to_refuse_are_found_beforehand(
    #[values("mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let server = Server::start(name).await;
    let mut root = server.session().await;
    let content = [
        "CREATE DATABASE d",
        "CREATE TABLE d.bare (a INT)",
        "CREATE TABLE d.keyed (a INT NOT NULL, UNIQUE KEY (a))",
        "CREATE TABLE d.isam (a INT) ENGINE=MyISAM",
    ];
    server::run(&mut root, &content).await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &server.url(), "--cluster", "c"]).expect(0);
    for (set, put_back, told) in [
        (
            "SET GLOBAL innodb_force_primary_key = ON",
            "SET GLOBAL innodb_force_primary_key = OFF",
            "copy.bare: the target has innodb_force_primary_key=ON",
        ),
        (
            "SET GLOBAL enforce_storage_engine = InnoDB",
            "SET GLOBAL enforce_storage_engine = NULL",
            "copy.isam: the target has enforce_storage_engine=InnoDB",
        ),
    ] {
        server::run(&mut root, &[set]).await;
        for more in [&["--dry-run"][..], &[]] {
            let run = restore(&home, &server.url(), more).expect(9).says(told).says(put_back);
            assert!(!run.stderr.contains("half restored"), "{run:?}");
            assert_eq!(server.value(COPIED).await.as_deref(), Some("3"));
        }
        // The others are taken, as the finding says.
        let others = told.split(':').next().unwrap().replace("copy", "d");
        restore(&home, &server.url(), &["--exclude-tables", &others]).expect(0);
        server::run(&mut root, &[put_back, "DROP DATABASE copy"]).await;
    }
    restore(&home, &server.url(), &[]).expect(0);
}

/// What MariaDB writes into definitions that do not say otherwise.
#[rstest]
#[case("mariadb-10.11", &[])]
#[case("mariadb-11.8", &["CREATE TABLE d.v (id INT PRIMARY KEY, v VECTOR(2) NOT NULL, VECTOR INDEX (v))"])]
#[tokio::test]
async fn defaults_of_the_target_get_into_no_definition(#[case] name: &str, #[case] more: &[&str]) {
    let server = Server::start(name).await;
    let mut root = server.session().await;
    let content = [
        "CREATE DATABASE d",
        "CREATE TABLE d.t (id INT PRIMARY KEY, f VARCHAR(9) CHARACTER SET filename)",
        "INSERT INTO d.t VALUES (1, 'a b')",
    ];
    server::run(&mut root, &[&content[..], more].concat()).await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &server.url(), "--cluster", "c"]).expect(0);
    server::run(&mut root, &["SET GLOBAL innodb_compression_default = ON"]).await;
    server::run(&mut root, &["SET GLOBAL innodb_default_encryption_key_id = 7"]).await;
    if !more.is_empty() {
        let vectors = "SET GLOBAL mhnsw_default_distance = cosine, GLOBAL mhnsw_default_m = 20";
        server::run(&mut root, &[vectors]).await;
    }
    let url = server.url();
    restore(&home, &url, &[]).expect(0);
    for table in ["t", "v"].iter().take(1 + more.len()) {
        let create = async |database: &str| -> String {
            let sql = format!("SHOW CREATE TABLE {database}.{table}");
            let row: Option<(String, String)> =
                server.session().await.query_first(&sql).await.unwrap();
            row.unwrap().1
        };
        assert_eq!(create("copy").await, create("d").await);
    }
}

/// A server that begins transactions that only read is no hindrance: those of the restore write.
#[rstest]
#[case("mysql-9.7", "transaction_read_only")]
#[case("mariadb-10.11", "tx_read_only")]
#[case("mariadb-11.8", "transaction_read_only")]
#[tokio::test]
async fn transactions_of_a_restore_write(#[case] name: &str, #[case] setting: &str) {
    let (home, source) = archived(name).await;
    let target = Server::start(name).await;
    let set = format!("SET GLOBAL {setting} = 1");
    server::run(&mut target.session().await, &[&set]).await;
    let url = target.url();
    let to = ["restore", "--cluster", "shop", "--target", &url, "--no-users", "--to-latest"];
    home.on_repo(to).expect(0);
    assert_eq!(target.content("shop").await, source.content("shop").await);
    let now = target.value(&format!("SELECT @@GLOBAL.{setting}")).await;
    assert_eq!(now.as_deref(), Some("1"));
}

#[rstest]
#[tokio::test]
async fn another_default_of_row_formats_is_told(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
    #[values("compact", "redundant")] format: &str,
) {
    let server = Server::start(name).await;
    let mut root = server.session().await;
    let content = [
        "CREATE DATABASE d",
        "CREATE TABLE d.wide (id INT PRIMARY KEY, a VARCHAR(192) CHARACTER SET utf8mb4, KEY (a))",
        "CREATE TABLE d.prefix (id INT PRIMARY KEY, a TEXT CHARACTER SET utf8mb4, KEY (a(191)))",
        "CREATE TABLE d.named (id INT PRIMARY KEY, a VARCHAR(300) CHARACTER SET utf8mb4, KEY (a)) \
         ROW_FORMAT=DYNAMIC",
        "CREATE TABLE d.bytes (id INT PRIMARY KEY, a VARBINARY(767), KEY (a))",
    ];
    server::run(&mut root, &content).await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &server.url(), "--cluster", "c"]).expect(0);
    server::run(&mut root, &[&format!("SET GLOBAL innodb_default_row_format = {format}")]).await;
    // What is said of the first one is so: even without strictness.
    let refused = "CREATE TABLE d.refused (a VARCHAR(192) CHARACTER SET utf8mb4, KEY (a))";
    server::run(&mut root, &["SET SESSION innodb_strict_mode = OFF"]).await;
    let refused = root.run(refused).await.map(drop).unwrap_err();
    assert_eq!(refused.server().map(|said| said.code), Some(1709), "{}", refused.report());
    let remedy = "SET GLOBAL innodb_default_row_format = DYNAMIC";
    for more in [&["--dry-run"][..], &[]] {
        let run = restore(&home, &server.url(), more).expect(9).says("copy.wide: an index of it");
        let run = run.says("ERROR 1709").says(remedy);
        assert!(!run.stderr.contains("half restored"), "{run:?}");
        assert_eq!(server.value(COPIED).await.as_deref(), Some("4"));
    }
    // The others fit, and come out otherwise.
    let run = restore(&home, &server.url(), &["--exclude-tables", "d.wide"]).expect(14);
    let run = run.says("copy.bytes, copy.prefix: its definition names no row format").says(remedy);
    assert!(!run.stderr.contains("copy.named"), "{run:?}");
    server::run(&mut root, &[remedy, "DROP DATABASE copy"]).await;
    restore(&home, &server.url(), &[]).expect(0);
}

/// A table that the server refuses to open keeps nobody from a backup of the others.
#[rstest]
#[tokio::test]
async fn a_table_that_cannot_be_opened_is_named_with_what_leaves_it_out(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let server = Server::start(name).await;
    let content = [
        "CREATE DATABASE odd",
        "CREATE TABLE odd.mt1 (a INT PRIMARY KEY) ENGINE=MyISAM",
        "CREATE TABLE odd.mt2 LIKE odd.mt1",
        "CREATE TABLE odd.mrg (a INT, KEY (a)) ENGINE=MERGE UNION=(odd.mt1, odd.mt2)",
    ];
    server::run(&mut server.session().await, &content).await;
    let home = Home::with_repo();
    let url = server.url();
    let (backup, check) =
        (["backup", "--source", &url, "--cluster", "c"], ["check", "--source", &url]);
    let without = ["--exclude-tables", "odd.mrg"];
    home.on_repo(backup).expect(6).says("odd.mrg").says("--exclude-tables odd.mrg leaves it out");
    let found = home.on_repo(check).expect(6);
    assert!(found.stdout.contains("--exclude-tables odd.mrg leaves it out"), "{found:?}");
    home.on_repo([&check[..], &without].concat()).expect(0);
    home.on_repo([&check[..], &["--exclude-tables", "odd.m?g"]].concat()).expect(0);
    home.on_repo([&backup[..], &without].concat()).expect(0);
}
