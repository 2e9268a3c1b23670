//! Sources whose files are really damaged: bytes are turned over in the files of a server that is shut
//! down.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use backup_core::Context;
use backup_drivers::connect::{ConnectOptions, Session};
use backup_drivers::sandbox::Sandbox;
use tempfile::TempDir;

use crate::home::Home;
use crate::server;

/// So many rows have the tables.
const ROWS: u64 = 7200;

async fn start(name: &str, directory: &Path) -> Sandbox {
    let builder = xtask::servers::sandbox(name).await.unwrap();
    builder.datadir(directory.join("data")).start(&Context::builder().build()).await.unwrap()
}

async fn session(sandbox: &Sandbox) -> Session {
    Session::open(&ConnectOptions::socket(sandbox.socket(), "root")).await.unwrap()
}

fn url(sandbox: &Sandbox) -> String {
    format!("mysql://root@localhost/?socket={}", sandbox.socket().display())
}

/// Turns bytes over.
fn flip(file: &Path, at: u64, len: usize) {
    let file = OpenOptions::new().read(true).write(true).open(file).unwrap();
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, at).unwrap();
    bytes.iter_mut().for_each(|b| *b ^= 0x5a);
    file.write_all_at(&bytes, at).unwrap();
}

/// A server with three tables, two of which it will find damaged.
async fn damaged(name: &str, directory: &Path) -> Sandbox {
    let mut sandbox = start(name, directory).await;
    let mut first = session(&sandbox).await;
    let statements = [
        "CREATE DATABASE d",
        "CREATE TABLE d.pages (id INT PRIMARY KEY, v VARCHAR(200))",
        "INSERT INTO d.pages WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < \
         900) SELECT n, REPEAT(CHAR(97 + n MOD 26), 150) FROM r",
        "INSERT INTO d.pages SELECT id + 900, v FROM d.pages",
        "INSERT INTO d.pages SELECT id + 1800, v FROM d.pages",
        "INSERT INTO d.pages SELECT id + 3600, v FROM d.pages",
        "CREATE TABLE d.rows_of_isam (id INT PRIMARY KEY, v VARCHAR(200)) ENGINE=MyISAM",
        "INSERT INTO d.rows_of_isam SELECT * FROM d.pages",
        "CREATE TABLE d.sound (id INT PRIMARY KEY)",
        "INSERT INTO d.sound SELECT id FROM d.pages",
    ];
    server::run(&mut first, &statements).await;
    first.close().await.unwrap();
    sandbox.stop().await.unwrap();
    let data = directory.join("data/d");
    flip(&data.join("pages.ibd"), 30 * 16_384 + 5000, 64);
    flip(&data.join("rows_of_isam.MYD"), 500_000, 300);
    start(name, directory).await
}

fn backup<'a>(url: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let words =
        ["backup", "--cluster", "d", "--databases", "d", "--repo", "repo", "--json", "--source"];
    words.into_iter().chain([url]).chain(more.iter().copied()).collect()
}

async fn count(session: &mut Session, table: &str) -> u64 {
    session.query_first(&format!("SELECT COUNT(*) FROM {table}")).await.unwrap().unwrap()
}

#[tokio::test]
async fn mariadb_is_read_around_the_damage() {
    let directory = TempDir::new().unwrap();
    let mut sandbox = damaged("mariadb-10.11", directory.path()).await;
    let (home, url) = (Home::with_repo(), url(&sandbox));
    home.run(backup(&url, &[]))
        .expect(6)
        .says("the server says that table d.pages is damaged")
        .says("--on-corrupt");

    let kept = home.run(backup(&url, &["--on-corrupt", "salvage"])).expect(14).json();
    let warnings = kept["warnings"].to_string();
    assert!(warnings.contains("table d.pages is damaged: rows with id from "), "{warnings}");
    assert!(warnings.contains("d.rows_of_isam is damaged"), "{warnings}");
    let mut server = session(&sandbox).await;
    let id = kept["backup"].as_str().unwrap();
    home.on_repo(["verify", id, "--cluster", "d", "--level", "content"]).expect(0);
    let restore = ["restore", id, "--cluster", "d", "--target", &url, "--rename", "d=copy"];
    home.on_repo(restore).expect(0);
    let rows = count(&mut server, "copy.pages").await;
    // One page of 16 KiB holds about a hundred rows.
    assert!((ROWS - 200..ROWS).contains(&rows), "{rows}");
    assert_eq!(count(&mut server, "copy.sound").await, ROWS);
    let other = "SELECT COUNT(*) FROM copy.pages WHERE v <> REPEAT(CHAR(97 + (id - 1) MOD 900 MOD 26 + 1), \
                 150) AND v <> REPEAT(CHAR(97 + ((id - 1) MOD 900 + 1) MOD 26), 150)";
    assert_eq!(server.query_first::<u64>(other).await.unwrap(), Some(0));

    // A masked key is told nowhere, and rows whose places nobody knows are read back all the same.
    std::fs::write(
        directory.path().join("mask"),
        "[[mask]]\ncolumn = \"d.pages.id\"\nwith = \"hash\"\n",
    )
    .unwrap();
    std::fs::write(directory.path().join("key"), "a secret of the company's own, long enough\n")
        .unwrap();
    let (mask, key) = (directory.path().join("mask"), directory.path().join("key"));
    let masked = [
        "--on-corrupt",
        "salvage",
        "--exclude-tables",
        "d.rows_of_isam",
        "--mask",
        mask.to_str().unwrap(),
    ];
    let masked = [&masked[..], &["--mask-key-file", key.to_str().unwrap()]].concat();
    let run = home.run(backup(&url, &masked)).expect(14);
    let kept = run.json();
    let id = kept["backup"].as_str().unwrap();
    let shown = home.on_repo(["show", id, "--cluster", "d", "--json"]).expect(0);
    for text in [&run.stderr, &run.stdout, &shown.stdout] {
        assert!(
            !text.contains(" from ") && !text.contains("WHERE") && !text.contains("\"from\""),
            "{text}"
        );
    }
    assert!(kept["warnings"].to_string().contains("whose key is masked"), "{kept:#}");
    let restore = ["restore", id, "--cluster", "d", "--target", &url, "--rename", "d=masked"];
    home.on_repo(restore).expect(0);
    assert_eq!(count(&mut server, "masked.pages").await, rows);
    let run = home.on_repo(["verify", id, "--cluster", "d", "--level", "logical"]);
    assert!(format!("{run:#?}").contains("read around damage"), "{run:#?}");

    // Of a table of MyISAM that it tried to repair MariaDB does not even tell the definition.
    let without = ["--on-corrupt", "skip", "--check-tables", "--exclude-tables", "d.rows_of_isam"];
    let skipped = home.run(backup(&url, &without)).expect(14).json();
    assert_eq!(skipped["rows"], ROWS, "{skipped:#}");
    home.run(backup(&url, &["--check-tables"])).expect(6).says("CHECK TABLE says");
    server.close().await.unwrap();
    sandbox.stop().await.unwrap();
}

#[tokio::test]
async fn mysql_crashes_and_the_rest_is_had_without_the_page() {
    let directory = TempDir::new().unwrap();
    let sandbox = damaged("mysql-9.7", directory.path()).await;
    let (home, address) = (Home::with_repo(), url(&sandbox));
    let both = ["--on-corrupt", "salvage", "--check-tables"];
    home.run(backup(&address, &both)).expect(2);
    let salvage = ["--on-corrupt", "salvage", "--exclude-tables", "d.pages"];
    let kept = home.run(backup(&address, &salvage)).expect(14).json();
    let warnings = kept["warnings"].to_string();
    assert!(warnings.contains("d.rows_of_isam is damaged: rows with id from "), "{warnings}");
    assert!(kept["rows"].as_u64().unwrap() > ROWS + ROWS / 2, "{kept:#}");

    // The server dies of the page, whatever we do.
    let without = ["--on-corrupt", "salvage", "--exclude-tables", "d.rows_of_isam"];
    let run = home.run(backup(&address, &without));
    assert!(matches!(run.code, Some(3 | 6)), "{run:#?}");
    assert!(!run.stderr.contains("panicked"), "{run:#?}");
    run.says("while it read table d.pages").says("--where");
    drop(sandbox);

    let mut sandbox = start("mysql-9.7", directory.path()).await;
    let address = url(&sandbox);
    let around = [&without[..], &["--where", "d.pages:id < 1000"]].concat();
    let part = home.run(backup(&address, &around)).expect(0).json();
    assert_eq!(part["rows"], ROWS + 999, "{part:#}");
    sandbox.stop().await.unwrap();
}

/// A table whose file was taken away says so before the backup begins, and is left out where that is wanted.
#[rstest::rstest]
#[tokio::test]
async fn a_table_without_its_file(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) {
    let directory = TempDir::new().unwrap();
    let mut sandbox = start(name, directory.path()).await;
    let mut server = session(&sandbox).await;
    let statements = [
        "CREATE DATABASE d",
        "CREATE TABLE d.sound (id INT PRIMARY KEY)",
        "INSERT INTO d.sound VALUES (1), (2)",
        "CREATE TABLE d.`gone/1` (id INT PRIMARY KEY, v INT)",
        "INSERT INTO d.`gone/1` VALUES (1, 1)",
        "ALTER TABLE d.`gone/1` DISCARD TABLESPACE",
    ];
    server::run(&mut server, &statements).await;
    let (home, address) = (Home::with_repo(), url(&sandbox));
    let check = home.on_repo(["check", "--source", &address]).expect(6);
    assert!(check.stdout.contains("d.`gone/1`") && check.stdout.contains("1814"), "{check:#?}");
    home.run(backup(&address, &[])).expect(6).says("d.`gone/1`").says("--on-corrupt skip");
    for how in ["skip", "salvage"] {
        let kept = home.run(backup(&address, &["--on-corrupt", how])).expect(14).json();
        let warnings = kept["warnings"].to_string();
        assert!(warnings.contains("table d.`gone/1` is damaged: "), "{warnings}");
        assert_eq!(kept["rows"], 2, "{kept:#}");
    }
    home.run(backup(&address, &["--on-corrupt", "skip", "--check-tables"])).expect(14);
    home.run(backup(&address, &["--exclude-tables", "d.gone*"])).expect(0);
    home.run(backup(&address, &["--no-rows", "d.`gone/1`"])).expect(0);
    server.close().await.unwrap();
    sandbox.stop().await.unwrap();
}
