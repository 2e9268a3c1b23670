//! Tablespaces of real servers: every page is understood, and damage is told as `innochecksum` tells it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use backup_core::{Context, Flavor};
use backup_drivers::connect::{ConnectOptions, Session};
use backup_drivers::innodb::{
    Algorithm, PageChecker, PageSummary, Problem, TableFile, Verdict, check, is_tablespace,
    read_sdi,
};
use backup_drivers::sandbox::{Sandbox, ServerInstall};
use rstest::rstest;

/// Tables of every kind of page that the server makes, with some rows.
const TABLES: &[&str] = &[
    "CREATE DATABASE `my shop`",
    "CREATE TABLE `my shop`.plain (id INT PRIMARY KEY, t TEXT, KEY (t(50))) ROW_FORMAT=DYNAMIC",
    "CREATE TABLE `my shop`.redundant (id INT PRIMARY KEY, t TEXT) ROW_FORMAT=REDUNDANT",
    "CREATE TABLE `my shop`.parts (id INT PRIMARY KEY, t TEXT) PARTITION BY HASH (id) PARTITIONS 3",
    "CREATE TABLE `my shop`.words (id INT PRIMARY KEY, t TEXT, FULLTEXT (t))",
    "CREATE TABLE `my shop`.places (id INT PRIMARY KEY, t TEXT, g POINT NOT NULL, SPATIAL INDEX (g))",
];

/// Not for pages above 16 KiB.
const ZIPPED: &[&str] = &[
    "CREATE TABLE `my shop`.zip1 (id INT PRIMARY KEY, t TEXT) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=1",
    "CREATE TABLE `my shop`.zip4 (id INT PRIMARY KEY, t TEXT) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4",
];

fn cx() -> Context {
    Context::builder().build()
}

async fn fill(session: &mut Session, table: &str) {
    let point = if table.ends_with("places") { ", POINT(n, n)" } else { "" };
    session
        .run(&format!(
            "INSERT INTO {table} WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < 600) \
             SELECT n, REPEAT(CONCAT('words of ', n, ' '), IF(n % 97 = 0, 3000, 8)){point} FROM s"
        ))
        .await
        .unwrap();
}

/// A data directory with tables, of a server that was shut down.
async fn datadir(
    name: &str,
    page: &str,
    options: &[(&str, &str)],
    more: &[&str],
) -> (tempfile::TempDir, ServerInstall) {
    let install = xtask::servers::install(name).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut builder = Sandbox::builder(&install)
        .datadir(dir.path().join("data"))
        .durable(false)
        .binary_log(false)
        .option("innodb_page_size", page);
    for (option, value) in options {
        builder = builder.option(*option, *value);
    }
    let mut server = builder.start(&cx()).await.unwrap();
    let mut session =
        Session::open(&ConnectOptions::socket(server.socket(), "root")).await.unwrap();
    let zipped: &[&str] =
        if page.trim_end_matches('k').parse::<u32>().unwrap() > 16 { &[] } else { ZIPPED };
    for sql in TABLES.iter().chain(zipped).chain(more) {
        session.run(sql).await.unwrap();
        if let Some(table) =
            sql.strip_prefix("CREATE TABLE ").and_then(|rest| rest.split(" (").next())
        {
            fill(&mut session, table).await;
        }
    }
    session.close().await.unwrap();
    server.stop().await.unwrap();
    (dir, install)
}

/// Every tablespace below a data directory.
fn tablespaces(datadir: &Path) -> Vec<PathBuf> {
    fn walk(dir: &Path, top: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, top, found);
            } else if is_tablespace(path.strip_prefix(top).unwrap().to_str().unwrap()) {
                found.push(path);
            }
        }
    }
    let mut found = Vec::new();
    walk(datadir, datadir, &mut found);
    found
}

fn summary(path: &Path) -> PageSummary {
    let mut checker = PageChecker::new();
    // Pieces that are no multiple of a page.
    std::fs::read(path).unwrap().chunks(100_003).for_each(|piece| checker.push(piece));
    checker.finish()
}

/// Whether `innochecksum` takes the file.
fn innochecksum(install: &ServerInstall, path: &Path) -> bool {
    let output = install.command("innochecksum").unwrap().arg(path).output().unwrap();
    output.status.success()
}

fn everything_is_sound(datadir: &Path) -> Vec<(PathBuf, PageSummary)> {
    let files = tablespaces(datadir);
    assert!(files.len() > 8);
    let check = |path: PathBuf| {
        let summary = summary(&path);
        assert_eq!(summary.bad, [], "{}", path.display());
        assert!(u64::from(summary.geometry.unwrap().pages) <= summary.pages);
        assert_eq!(summary.encrypted, 0);
        (path, summary)
    };
    files.into_iter().map(check).collect()
}

#[rstest]
#[case::mysql("mysql-9.7", "16k", "crc32", Algorithm::Crc32)]
#[case::mysql_old("mysql-9.7", "4k", "innodb", Algorithm::Innodb)]
#[case::mysql_none("mysql-9.7", "64k", "none", Algorithm::None)]
#[case::mariadb("mariadb-10.11", "16k", "full_crc32", Algorithm::FullCrc32)]
#[case::mariadb_before("mariadb-10.11", "8k", "crc32", Algorithm::Crc32)]
#[case::mariadb_new("mariadb-11.8", "32k", "full_crc32", Algorithm::FullCrc32)]
#[tokio::test]
async fn pages_of_a_server_are_sound_and_damage_is_what_innochecksum_finds(
    #[case] name: &str,
    #[case] page: &str,
    #[case] checksum: &str,
    #[case] algorithm: Algorithm,
) {
    let (dir, install) = datadir(name, page, &[("innodb_checksum_algorithm", checksum)], &[]).await;
    let size = page.trim_end_matches('k').parse::<u32>().unwrap() * 1024;
    let files = everything_is_sound(&dir.path().join("data"));
    for (path, summary) in &files {
        let geometry = summary.geometry.unwrap();
        if geometry.zip {
            assert!(geometry.page_bytes == 1024 || geometry.page_bytes == 4096);
        } else {
            assert_eq!(geometry.page_bytes, size, "{}", path.display());
            // Temporary pages of the doublewrite buffer apart, there is one algorithm.
            assert!(summary.sound.contains_key(&algorithm), "{}: {summary:?}", path.display());
        }
        // MariaDB's looks at the doublewrite buffer in the system tablespace too, whose pages are of others.
        if install.flavor() == Flavor::MySql || geometry.space != 0 {
            assert!(innochecksum(&install, path), "{}", path.display());
        }
        if let Some(file) =
            TableFile::of(path.strip_prefix(dir.path().join("data")).unwrap().to_str().unwrap())
            && file.database == "my shop"
            && install.flavor() == Flavor::MySql
            && !geometry.zip
            && !file.table.starts_with("fts_")
            && !matches!(file.partition.as_deref(), Some("p1" | "p2"))
        {
            let found = read_sdi(&mut File::open(path).unwrap()).unwrap();
            let told: BTreeSet<_> = found.iter().filter_map(|sdi| sdi.table()).collect();
            assert_eq!(told, [("my shop", &*file.table)].into(), "{}", path.display());
        }
    }

    // Damage, of each kind, in each file of a table: both find it, and here the page is named.
    let damaged = dir.path().join("damaged.ibd");
    let tables = files.iter().filter(|(path, _)| path.to_string_lossy().contains("my@0020shop"));
    for (n, (path, summary)) in tables.enumerate() {
        let size = u64::from(summary.geometry.unwrap().page_bytes);
        let number = 2 + n as u64 % 2;
        std::fs::copy(path, &damaged).unwrap();
        let file = File::options().write(true).read(true).open(&damaged).unwrap();
        let mut good = vec![0; size as usize];
        file.read_exact_at(&mut good, number * size).unwrap();
        let flip = |page: &mut Vec<u8>, at: usize| page[at] ^= 0x10;
        let mut bad = good.clone();
        // Where checksums were made, a flipped bit of the body is seen; without them only lost pages are.
        if algorithm == Algorithm::None {
            bad.fill(7);
        } else {
            flip(&mut bad, 120 + n);
        }
        assert_ne!(good, bad);
        file.write_all_at(&bad, number * size).unwrap();
        let found = self::summary(&damaged);
        assert_eq!(found.bad.len(), 1, "{}", path.display());
        assert_eq!(found.bad[0].number, number);
        assert!(matches!(found.bad[0].problem, Problem::Checksum(_)), "{found:?}");
        assert!(!innochecksum(&install, &damaged), "{}", path.display());

        // A page in the place of another is sound for innochecksum, and not here.
        file.write_all_at(&good, number * size).unwrap();
        assert_eq!(self::summary(&damaged), *summary);
        file.write_all_at(&good, (number + 1) * size).unwrap();
        assert_eq!(self::summary(&damaged).bad[0].problem, Problem::Number(number as u32));
        // Half a page.
        file.set_len(number * size + size / 2).unwrap();
        let problem = self::summary(&damaged).bad[0].problem;
        assert_eq!(problem, Problem::Cut(size as u32 / 2));
        // Half of it written.
        if !good.iter().all(|&byte| byte == 0) && algorithm != Algorithm::None {
            let half = good.len() / 2;
            let mut torn = good.clone();
            torn[half..].fill(0);
            let geometry = summary.geometry.unwrap();
            if torn != good {
                assert!(check(&torn, number, &geometry).is_err());
            }
            assert!(check(&good, number, &geometry).is_ok_and(|v| v != Verdict::Zero));
        }
    }
}

#[tokio::test]
async fn compressed_and_encrypted_pages_of_mysql() {
    let (dir, _) = datadir(
        "mysql-9.7",
        "16k",
        &[],
        &[
            "CREATE TABLE `my shop`.packed (id INT PRIMARY KEY, t TEXT) COMPRESSION='zlib'",
            "CREATE TABLE `my shop`.packed4 (id INT PRIMARY KEY, t TEXT) COMPRESSION='lz4'",
        ],
    )
    .await;
    let mut packed = 0;
    for (path, summary) in everything_is_sound(&dir.path().join("data")) {
        if path.to_string_lossy().contains("packed") {
            assert!(summary.compressed > 3, "{}: {summary:?}", path.display());
            packed += 1;
            let mut bytes = std::fs::read(&path).unwrap();
            let at = bytes.chunks(16_384).position(|page| page[24..26] == [0, 14]).unwrap();
            bytes[at * 16_384 + 60] ^= 1;
            let mut checker = PageChecker::new();
            checker.push(&bytes);
            assert_eq!(checker.finish().bad[0].number, at as u64);
        }
    }
    assert_eq!(packed, 2);
}

#[rstest]
#[case::before("crc32", Algorithm::Crc32)]
#[case::full("full_crc32", Algorithm::FullCrc32)]
#[tokio::test]
async fn compressed_and_encrypted_pages_of_mariadb(
    #[case] checksum: &str,
    #[case] algorithm: Algorithm,
) {
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), "1;770A8A65DA156D24EE2A093277530142\n").unwrap();
    let (dir, install) = datadir(
        "mariadb-10.11",
        "16k",
        &[
            ("innodb_checksum_algorithm", checksum),
            ("plugin_load_add", "file_key_management"),
            ("loose-file_key_management_filename", keys.path().to_str().unwrap()),
        ],
        &[
            "CREATE TABLE `my shop`.packed (id INT PRIMARY KEY, t TEXT) PAGE_COMPRESSED=1",
            "CREATE TABLE `my shop`.secret (id INT PRIMARY KEY, t TEXT) ENCRYPTED=YES",
            "CREATE TABLE `my shop`.both (id INT PRIMARY KEY, t TEXT) ENCRYPTED=YES PAGE_COMPRESSED=1",
        ],
    )
    .await;
    for path in tablespaces(&dir.path().join("data")) {
        let summary = summary(&path);
        assert_eq!(summary.bad, [], "{}", path.display());
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let before = algorithm == Algorithm::Crc32;
        match stem {
            // Encrypted pages have a checksum of what is in the file.
            "secret" => assert!(summary.encrypted == 0 && summary.sound[&algorithm] > 3),
            "packed" => assert_eq!(summary.compressed > 3, before, "{summary:?}"),
            "both" => assert_eq!(summary.encrypted > 3, before, "{summary:?}"),
            _ => assert!(summary.encrypted + summary.compressed == 0),
        }
        if stem == "secret" {
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[3 * 16_384 + 500] ^= 1;
            let mut checker = PageChecker::new();
            checker.push(&bytes);
            assert_eq!(checker.finish().bad[0].number, 3);
            assert!(innochecksum(&install, &path));
        }
    }
}
