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
async fn rows_that_mariadb_does_not_log_are_told() {
    let server = Server::start("mariadb-11.8").await;
    let mut root = server.session().await;
    let content = [
        "CREATE DATABASE d",
        "CREATE TABLE d.t (x INT, s BIGINT UNSIGNED GENERATED ALWAYS AS ROW START, e BIGINT UNSIGNED GENERATED \
         ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING",
        "INSERT INTO d.t (x) VALUES (1)",
    ];
    server::run(&mut root, &content).await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &server.url(), "--cluster", "c"])
        .expect(14)
        .says("history");
    let says = "copy.t: it is system-versioned by transactions";
    let run = restore(&home, &server.url(), &["--dry-run"]);
    assert!(run.stdout.contains(says), "{run:?}");
    restore(&home, &server.url(), &[]).expect(14).says(says);
    server::run(&mut root, &["DROP DATABASE copy"]).await;
    restore(&home, &server.url(), &["--binlog", "off"]).expect(0);
}

#[tokio::test]
async fn documents_that_are_longer_than_the_target_takes() {
    let server = Server::start("mysql-9.7").await;
    let mut root = server.session().await;
    let content = [
        "CREATE DATABASE d",
        "CREATE TABLE d.t (id INT PRIMARY KEY, j JSON)",
        "INSERT INTO d.t VALUES (1, JSON_OBJECT('a', REPEAT('long', 1000000), 'd', 1.50)), (2, '[]')",
    ];
    server::run(&mut root, &content).await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &server.url(), "--cluster", "c"]).expect(0);
    let target = [
        "SET GLOBAL max_allowed_packet = 1048576",
        "SET GLOBAL local_infile = ON",
        "CREATE USER poor@'%' IDENTIFIED BY 'poor'",
        "GRANT ALL ON copy.* TO poor@'%'",
        "GRANT SELECT ON d.* TO poor@'%'",
    ];
    server::run(&mut root, &target).await;
    // Who may not change it is told what to do.
    let run = restore(&home, &server.tcp_url("poor"), &["--binlog", "on"]).expect(9);
    run.says("raise max_allowed_packet");
    // Who may does it for as long as it takes, and goes on.
    restore(&home, &server.url(), &["--binlog", "on"]).expect(0);
    let packet = server.value("SELECT @@GLOBAL.max_allowed_packet").await;
    assert_eq!(packet.as_deref(), Some("1048576"));
    server::run(&mut root, &["SET GLOBAL max_allowed_packet = 67108864"]).await;
    let same = "SELECT SUM(a.j = b.j AND JSON_TYPE(a.j->'$.d') <=> JSON_TYPE(b.j->'$.d')) FROM copy.t a JOIN d.t b \
                USING (id)";
    assert_eq!(server.value(same).await.as_deref(), Some("2"));
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

/// A target without files of tables, or with small pages, takes less, or makes other tables.
#[rstest]
#[case("mysql-9.7", &[
    "CREATE TABLE d.grows (id INT PRIMARY KEY) AUTOEXTEND_SIZE=4M",
    "CREATE TABLE d.pages (id INT PRIMARY KEY) COMPRESSION='zlib'",
])]
#[case("mariadb-10.11", &["CREATE TABLE d.pages (id INT PRIMARY KEY) PAGE_COMPRESSED=1"])]
#[case("mariadb-11.8", &["CREATE TABLE d.pages (id INT PRIMARY KEY) PAGE_COMPRESSED=1"])]
#[tokio::test]
async fn files_and_pages_of_the_target_are_looked_at(#[case] name: &str, #[case] own: &[&str]) {
    let source = Server::start(name).await;
    let content = [
        "CREATE DATABASE d",
        "CREATE TABLE d.zipped (id INT PRIMARY KEY) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8",
        "CREATE TABLE d.plain (id INT PRIMARY KEY, v VARCHAR(190) CHARACTER SET utf8mb4, KEY (v))",
        "CREATE TABLE d.keyed (id INT PRIMARY KEY, v VARCHAR(100) CHARACTER SET utf8mb4, w VARCHAR(100) \
         CHARACTER SET utf8mb4, KEY (v, w))",
    ];
    server::run(&mut source.session().await, &[&content[..], own].concat()).await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &source.url(), "--cluster", "c"]).expect(0);
    let builder = xtask::servers::sandbox(name).await.unwrap();
    let builder = builder.tcp(true).option("innodb_file_per_table", "OFF");
    let builder = builder.option("innodb_page_size", "4096").option("innodb_strict_mode", "OFF");
    let target = Server(builder.start(&Context::builder().build()).await.unwrap());
    let names = Vec::from_iter(own.iter().map(|sql| sql.split(' ').nth(2).unwrap())).join(",");
    let shown = names.replace("d.", "copy.").replace(',', ", ");
    let refused = format!("{shown}: the target has innodb_file_per_table=OFF");
    for more in [&["--dry-run"][..], &[]] {
        let run = restore(&home, &target.url(), more).expect(9).says(&refused);
        let run = run.says("SET GLOBAL innodb_file_per_table = ON");
        assert_eq!(
            run.stderr.contains("copy.keyed: an index of it has more than 768"),
            name == "mysql-9.7"
        );
        assert!(!run.stderr.contains("copy.plain"), "{run:?}");
        assert!(!run.stderr.contains("half restored"), "{run:?}");
    }
    let mut root = target.session().await;
    let refused = format!("d.keyed,{names}");
    let run = restore(&home, &target.url(), &["--exclude-tables", &refused]).expect(14);
    run.says("copy.zipped: the target has innodb_file_per_table=OFF").says("ROW_FORMAT=DYNAMIC");
    server::run(&mut root, &["SET GLOBAL innodb_file_per_table = ON", "DROP DATABASE copy"]).await;
    let mut without = vec!["--exclude-tables", "d.keyed"];
    if name == "mysql-9.7" {
        let run = restore(&home, &target.url(), &without).expect(9);
        run.says("copy.pages: the target has innodb_page_size=4096").says("ERROR 4029");
        without[1] = "d.keyed,d.pages";
    }
    let run = restore(&home, &target.url(), &without).expect(14);
    run.says("copy.zipped: the target has innodb_page_size=4096").says("KEY_BLOCK_SIZE");
}

/// Where sessions may not say what time it is, no history comes back.
#[rstest]
#[case("mariadb-10.11", "YES")]
#[case("mariadb-11.8", "YES")]
#[case("mariadb-11.8", "REPLICATION")]
#[tokio::test]
async fn a_target_that_keeps_its_own_time_takes_no_history(#[case] name: &str, #[case] mode: &str) {
    let source = Server::start(name).await;
    let content = [
        "CREATE DATABASE d",
        "CREATE TABLE d.kept (id INT PRIMARY KEY, v INT) WITH SYSTEM VERSIONING",
        "CREATE TABLE d.plain (id INT PRIMARY KEY)",
        "INSERT INTO d.kept VALUES (1, 1)",
        "UPDATE d.kept SET v = 2",
    ];
    server::run(&mut source.session().await, &content).await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &source.url(), "--cluster", "c"]).expect(0);
    let builder = xtask::servers::sandbox(name).await.unwrap();
    let builder = builder.tcp(true).option("secure_timestamp", mode);
    let target = Server(builder.start(&Context::builder().build()).await.unwrap());
    for more in [&["--dry-run"][..], &[]] {
        let run = restore(&home, &target.url(), more).expect(9);
        let run = run.says(&format!("copy.kept: the target has secure_timestamp={mode}"));
        assert!(!run.stderr.contains("half restored"), "{run:?}");
        assert_eq!(target.value(COPIED).await.as_deref(), Some("0"));
    }
    restore(&home, &target.url(), &["--exclude-tables", "d.kept"]).expect(0);
}

/// What fits into memory at the source fits at the target, whose sessions may take less of it.
#[rstest]
#[tokio::test]
async fn tables_in_memory_are_as_large_as_they_are(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let server = Server::start(name).await;
    let mut root = server.session().await;
    let content = [
        "CREATE DATABASE d",
        "CREATE TABLE d.plain (id INT AUTO_INCREMENT PRIMARY KEY)",
        "INSERT INTO d.plain VALUES (1), (2), (3), (4), (5), (6), (7), (8)",
        "SET SESSION max_heap_table_size = 67108864",
        "CREATE TABLE d.m (id INT PRIMARY KEY, v CHAR(255) CHARACTER SET latin1) ENGINE=MEMORY",
        "INSERT INTO d.m SELECT a.id + 8 * b.id + 64 * c.id + 512 * d.id, 'x' FROM d.plain a, d.plain b, d.plain c, \
         d.plain d",
        "SET GLOBAL max_heap_table_size = 16384, GLOBAL tmp_table_size = 16384",
    ];
    server::run(&mut root, &content).await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &server.url(), "--cluster", "c"]).expect(0);
    restore(&home, &server.url(), &[]).expect(0);
    let sql = "SELECT COUNT(*) FROM copy.m";
    assert_eq!(server.value(sql).await.as_deref(), Some("4096"));
}

/// Names of databases that the server tells apart by case alone.
#[rstest]
#[tokio::test]
async fn databases_whose_names_differ_in_case_are_found(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let server = Server::start(name).await;
    let content = [
        "CREATE DATABASE LcT",
        "CREATE DATABASE LCT",
        "CREATE TABLE LcT.a (id INT PRIMARY KEY)",
        "CREATE TABLE LCT.b (id INT PRIMARY KEY)",
        "CREATE VIEW LCT.v AS SELECT 1",
        "INSERT INTO LcT.a VALUES (1)",
        "INSERT INTO LCT.b VALUES (2)",
    ];
    server::run(&mut server.session().await, &content).await;
    let home = Home::with_repo();
    for chosen in [&["--databases", "LcT,LCT"][..], &["--tables", "LcT.a,LCT.b"]] {
        let args = ["backup", "--source", &server.url(), "--cluster", "c", "--json"];
        let backup = home.on_repo([&args[..], chosen].concat()).expect(0).json();
        assert_eq!(backup["rows"], 2, "{backup:#}");
    }
}

/// Rows alone go in as bytes: where those mean something else, nothing is loaded.
#[rstest]
#[tokio::test]
async fn rows_go_into_columns_where_they_mean_the_same(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let server = Server::start(name).await;
    let mut root = server.session().await;
    let text = |charset: &str| format!("VARCHAR(20) CHARACTER SET {charset}");
    let moment = "'2020-01-01 12:00:00'";
    // Name, type, value, type at the target, what is said of it.
    let columns = [
        ("a", text("utf8mb4"), "'é€'", text("latin1"), "text in utf8mb4"),
        ("b", text("latin1"), "'Ã©'", text("utf8mb4"), "text in latin1"),
        ("c", text("gbk"), "'中文'", text("sjis"), "text in gbk"),
        ("d", text("utf16"), "'ab'", "VARBINARY(20)".into(), "text in utf16"),
        ("e", "TIMESTAMP NULL".into(), moment, "DATETIME".into(), "a TIMESTAMP"),
        ("f", "DATETIME".into(), moment, "TIMESTAMP NULL".into(), "a DATETIME"),
        ("g", text("ascii"), "'a'", text("utf8mb4"), ""),
        ("h", text("ascii"), "'a'", text("latin1"), ""),
        ("i", text("utf8mb3"), "'é€'", text("utf8mb4"), ""),
    ];
    server::run(&mut root, &["CREATE DATABASE d", "CREATE DATABASE copy", "SET NAMES utf8mb4"])
        .await;
    for (column, here, value, there, _) in &columns {
        for sql in [
            format!("CREATE TABLE d.{column} (id INT PRIMARY KEY, v {here})"),
            format!("INSERT INTO d.{column} VALUES (1, {value})"),
            format!("CREATE TABLE copy.{column} (id INT PRIMARY KEY, v {there})"),
        ] {
            server::run(&mut root, &[&sql]).await;
        }
    }
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &server.url(), "--cluster", "c"]).expect(0);
    for more in [&["--data-only", "--dry-run"][..], &["--data-only"]] {
        let mut run = restore(&home, &server.url(), more).expect(9);
        for (column, .., told) in &columns {
            let line = format!("copy.{column}: its column v is {told}");
            assert_eq!(!told.is_empty(), run.stderr.contains(&line), "{run:?}");
            run = run.says("ALTER TABLE it after the restore");
        }
    }
    let good: Vec<String> =
        columns.iter().filter(|c| !c.4.is_empty()).map(|c| format!("d.{}", c.0)).collect();
    restore(&home, &server.url(), &["--data-only", "--exclude-tables", &good.join(",")]).expect(0);
    for column in ["g", "h", "i"] {
        let sql = format!(
            "SELECT CONVERT(a.v USING utf8mb4) = CONVERT(b.v USING utf8mb4) FROM d.{column} a JOIN copy.{column} b USING (id)"
        );
        assert_eq!(server.value(&sql).await.as_deref(), Some("1"), "{column}");
    }
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

#[rstest]
#[tokio::test]
async fn a_target_with_safe_updates_or_a_small_cache_of_its_binary_log(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let server = Server::start(name).await;
    let mut root = server.session().await;
    let content = [
        "CREATE DATABASE d",
        "CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(4000))",
        "INSERT INTO d.t (v) VALUES (REPEAT('x', 4000))",
    ];
    server::run(&mut root, &content).await;
    server::run(&mut root, &["INSERT INTO d.t (v) SELECT v FROM d.t"; 10]).await;
    server::run(&mut root, &["ANALYZE TABLE d.t"]).await;
    let home = Home::with_repo();
    home.on_repo(["backup", "--source", &server.url(), "--cluster", "c"]).expect(0);

    server::run(&mut root, &["SET GLOBAL sql_safe_updates = ON"]).await;
    restore(&home, &server.url(), &[]).expect(0);
    server::run(&mut root, &["SET GLOBAL sql_safe_updates = OFF", "DROP DATABASE copy"]).await;

    server::run(&mut root, &["SET GLOBAL max_binlog_cache_size = 1048576"]).await;
    let dry = restore(&home, &server.url(), &["--dry-run"]).expect(14);
    let told = format!("{}{}", dry.stdout, dry.stderr);
    assert!(told.contains("max_binlog_cache_size") && told.contains("--binlog off"), "{dry:?}");
    let run = restore(&home, &server.url(), &[]).expect(9).says("ERROR 1197");
    run.says("raise max_binlog_cache_size");
    restore(&home, &server.url(), &["--binlog", "off"]).expect(0);
    let count = server.value("SELECT COUNT(*) FROM copy.t").await;
    assert_eq!(count.as_deref(), Some("1024"));
}
