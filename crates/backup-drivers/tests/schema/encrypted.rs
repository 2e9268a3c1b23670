//! Encryption, tablespaces and how tables are kept: on the other server as on the first.

use std::collections::BTreeMap;
use std::io::Write;

use backup_core::{ErrorKind, Result};
use backup_drivers::logical::{LogicalOptions, LogicalRestoreOptions};
use mysql_async::prelude::Queryable;

use crate::exact::{differing, everything};
use crate::memory::Kept;
use crate::server::Server;

/// How the server itself says that files are kept: name, then all there is to say.
async fn files(server: &Server, sql: &str) -> BTreeMap<String, String> {
    let found: Vec<(String, String)> = server.connect().await.unwrap().query(sql).await.unwrap();
    found.into_iter().collect()
}

async fn run(server: &Server, statements: &[&str]) {
    let mut conn = server.connect().await.unwrap();
    for statement in statements {
        conn.query_drop(*statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
}

/// Into a server without keys it is refused before anything is made there.
async fn refused_without_keys(kept: &Kept, target: &Server, says: &str) {
    let e = kept.restore(target, LogicalRestoreOptions::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Target, "{}", e.report());
    assert!(e.report().contains(says), "{}", e.report());
    let made =
        "SELECT schema_name, '' FROM information_schema.schemata WHERE schema_name = 'sealed'";
    assert_eq!(files(target, made).await, BTreeMap::new());
}

/// There and back; gives what the target holds.
async fn there_and_back(source: &Server, target: &Server) -> Result<Kept> {
    let kept = Kept::backup(source, LogicalOptions::default()).await?;
    assert!(kept.outcome.warnings.is_empty(), "{:#?}", kept.outcome.warnings);
    let restored = kept.restore(target, LogicalRestoreOptions::default()).await?;
    assert!(restored.warnings.is_empty(), "{:#?}", restored.warnings);
    let (before, after) = (everything(source).await?, everything(target).await?);
    let differing = differing(&before, &after);
    assert!(differing.is_empty(), "{}", differing.join("\n"));
    Ok(kept)
}

#[tokio::test(flavor = "multi_thread")]
async fn mysql_keeps_what_was_encrypted_encrypted() -> Result<()> {
    let start = async || {
        let builder = xtask::servers::sandbox("mysql-9.7").await?;
        Server::of(builder.keyring(true)).await
    };
    let source = start().await?;
    run(
        &source,
        &[
            "CREATE DATABASE sealed DEFAULT ENCRYPTION = 'Y'",
            "CREATE DATABASE open DEFAULT ENCRYPTION = 'N'",
            "CREATE TABLE sealed.inherits (a INT)",
            "CREATE TABLE sealed.plain (a INT) ENCRYPTION = 'N'",
            "CREATE TABLE open.alone (a INT) ENCRYPTION = 'Y'",
            "CREATE TABLESPACE sealed_ts ADD DATAFILE 'sealed.ibd' ENCRYPTION = 'Y' AUTOEXTEND_SIZE = 8M",
            "CREATE TABLESPACE `nobody's` ADD DATAFILE 'nobody.ibd' ENCRYPTION = 'Y' AUTOEXTEND_SIZE = 4M",
            "CREATE TABLE sealed.in_ts (a INT PRIMARY KEY, b VARCHAR(20)) TABLESPACE sealed_ts",
            "CREATE TABLE open.in_ts (a INT PRIMARY KEY) TABLESPACE sealed_ts ENCRYPTION = 'Y'",
            "CREATE TABLESPACE `zi``pped` ADD DATAFILE 'zipped.ibd' FILE_BLOCK_SIZE = 8192",
            "CREATE TABLE open.zipped (a INT, b TEXT) TABLESPACE `zi``pped` ROW_FORMAT = COMPRESSED \
             KEY_BLOCK_SIZE = 8",
            "CREATE TABLE open.shared (a INT) TABLESPACE innodb_system",
            "CREATE TABLE open.own (a INT) TABLESPACE innodb_file_per_table",
            "CREATE TABLE open.grows (a INT) AUTOEXTEND_SIZE = 4M COMPRESSION = 'zlib'",
            "CREATE TABLE sealed.parts (a INT) PARTITION BY RANGE (a) (PARTITION p0 VALUES LESS THAN (5), \
             PARTITION p1 VALUES LESS THAN MAXVALUE)",
            "CREATE TABLE open.said (a INT SECONDARY_ENGINE_ATTRIBUTE = '{\"k\": 1}') \
             SECONDARY_ENGINE_ATTRIBUTE = '{\"t\": [2]}'",
            "INSERT INTO sealed.in_ts VALUES (1, 'one'), (2, 'two')",
            "INSERT INTO sealed.parts VALUES (1), (9)",
            "INSERT INTO open.zipped VALUES (1, REPEAT('z', 9000))",
        ],
    )
    .await;
    let target = start().await?;
    let kept = there_and_back(&source, &target).await?;
    assert!(kept.text().contains("FILE_BLOCK_SIZE = 8192"));
    let sql = "SELECT CONVERT(NAME USING utf8mb4), CONCAT_WS(' ', SPACE_TYPE, ZIP_PAGE_SIZE, ENCRYPTION, \
               AUTOEXTEND_SIZE) FROM information_schema.INNODB_TABLESPACES WHERE SPACE_TYPE = 'General' OR \
               NAME LIKE 'sealed/%' OR NAME LIKE 'open/%'";
    let before = files(&source, sql).await;
    assert_eq!(before["sealed_ts"], "General 0 Y 8388608");
    assert_eq!(before["nobody's"], "General 0 Y 4194304");
    assert_eq!(before["sealed/inherits"], "Single 0 Y 0");
    assert!(before.len() > 9, "{before:#?}");
    assert_eq!(before, files(&target, sql).await);
    let bare = Server::start("mysql-9.7").await?;
    refused_without_keys(&kept, &bare, "load a keyring component").await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_keeps_what_was_encrypted_encrypted() -> Result<()> {
    let mut keys = tempfile::NamedTempFile::new().unwrap();
    writeln!(keys, "1;{}\n2;{}", "0123456789abcdef".repeat(4), "fedcba9876543210".repeat(4))
        .unwrap();
    let path = keys.path().to_str().unwrap();
    let options =
        [("plugin_load_add", "file_key_management"), ("loose-file_key_management_filename", path)];
    let source = Server::start_with("mariadb-10.11", &options, false).await?;
    run(
        &source,
        &[
            "CREATE DATABASE sealed",
            "CREATE TABLE sealed.yes (a INT) ENCRYPTED = YES",
            "CREATE TABLE sealed.other_key (a INT) ENCRYPTED = YES ENCRYPTION_KEY_ID = 2",
            "CREATE TABLE sealed.no (a INT) ENCRYPTED = NO",
            "CREATE TABLE sealed.packed (a INT) PAGE_COMPRESSED = 1 PAGE_COMPRESSION_LEVEL = 9",
            "CREATE TABLE sealed.sums (a INT) ENGINE = Aria PAGE_CHECKSUM = 0",
            "CREATE TABLE sealed.parts (a INT) ENCRYPTED = YES PARTITION BY HASH (a) PARTITIONS 2",
            "INSERT INTO sealed.other_key VALUES (1), (2)",
            "INSERT INTO sealed.parts VALUES (1), (2)",
        ],
    )
    .await;
    let target = Server::start_with("mariadb-10.11", &options, false).await?;
    let kept = there_and_back(&source, &target).await?;
    let sql = "SELECT NAME, CONCAT_WS(' ', ENCRYPTION_SCHEME, CURRENT_KEY_ID) FROM \
               information_schema.INNODB_TABLESPACES_ENCRYPTION WHERE NAME LIKE 'sealed/%'";
    let before = files(&source, sql).await;
    assert_eq!(before["sealed/other_key"], "1 2");
    assert_eq!(before, files(&target, sql).await);
    let bare = Server::start_with("mariadb-10.11", &[], false).await?;
    refused_without_keys(&kept, &bare, "file_key_management").await;
    Ok(())
}
