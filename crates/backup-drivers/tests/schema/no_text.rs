//! Bytes that are no text of their column's character set: every one is kept, and told of by table,
//! column and key; and characters whose second byte is a backslash.

use std::path::Path;

use backup_core::{ErrorKind, Result};
use backup_drivers::logical::{InvalidText, LogicalOptions, LogicalRestoreOptions};
use mysql_async::prelude::Queryable;
use rstest::rstest;

use crate::exact::{differing, everything};
use crate::exported::{exported_sql, load, target};
use crate::memory::Kept;
use crate::server::Server;

async fn run(server: &Server, statements: &[&str]) {
    let mut conn = server.connect().await.unwrap();
    for statement in statements {
        conn.query_drop(*statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
}

/// No server lets them in: they come with the files of a table that looks the same from outside.
async fn smuggle(server: &Server) {
    run(
        server,
        &[
            "SET sql_mode = ''",
            "CREATE DATABASE d",
            "CREATE TABLE d.raw (id INT, kind VARCHAR(9) CHARACTER SET latin1, u VARBINARY(80), g VARBINARY(60), \
             s VARBINARY(60), t BLOB, PRIMARY KEY (id, kind)) ENGINE = MyISAM",
            "CREATE TABLE d.t (id INT, kind VARCHAR(9) CHARACTER SET latin1, u VARCHAR(20) CHARACTER SET utf8mb4 \
             DEFAULT 'x', g VARCHAR(30) CHARACTER SET gbk COLLATE gbk_bin, s VARCHAR(30) CHARACTER SET sjis, t TEXT \
             CHARACTER SET utf8mb4 COLLATE utf8mb4_bin, PRIMARY KEY (id, kind)) ENGINE = MyISAM",
            "INSERT INTO d.raw VALUES (1, 'good', 'abc', x'd6d0815c8160', x'835c', ''), \
             (2, 'cut', x'c3', x'81', x'83', 'x'), (3, 'inside', x'616263ff646566', x'd6d0ff', x'b1fd', \
             x'00ff5c0a09'), (4, 'null', NULL, NULL, NULL, NULL), (5, 'emoji', x'f09f8e89', '', '', x'f09f8e89')",
            "FLUSH TABLES d.raw, d.t",
        ],
    )
    .await;
    let file = |name: &str| server.sandbox().datadir().join("d").join(name);
    for end in ["MYD", "MYI"] {
        std::fs::copy(file(&format!("raw.{end}")), file(&format!("t.{end}"))).unwrap();
    }
    run(server, &["FLUSH TABLES", "DROP TABLE d.raw"]).await;
}

type Bytes = (i32, Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>);

async fn bytes(server: &Server) -> Vec<Bytes> {
    let mut conn = server.connect().await.unwrap();
    conn.query_drop("SET character_set_results = binary").await.unwrap();
    // MySQL would cut what is no text off on its way through a sort.
    let mut rows: Vec<Bytes> = conn.query("SELECT id, u, g, s, t FROM d.t").await.unwrap();
    rows.sort();
    rows
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_are_kept_and_told_of(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) -> Result<()> {
    let source = Server::start(name).await?;
    smuggle(&source).await;
    let before = bytes(&source).await;
    assert_eq!(before[1].1.as_deref(), Some(&b"\xc3"[..]));
    assert_eq!(before[2].4.as_deref(), Some(&b"\0\xff\x5c\x0a\x09"[..]));

    let kept = Kept::backup(&source, LogicalOptions::default()).await?;
    let told = |column: &str, text: &str| {
        let begin = format!("column {column} of table d.t: {text}");
        assert!(
            kept.outcome.warnings.iter().any(|w| w.starts_with(&begin)),
            "{begin}: {:#?}",
            kept.outcome.warnings
        );
    };
    told(
        "u",
        "2 values are no text of utf8mb4, the first where id = 2, kind = cut; their bytes are kept",
    );
    told("g", "2 values are no text of gbk, the first where id = 2");
    told("s", "2 values are no text of sjis, the first where id = 2");
    told("t", "a value is no text of utf8mb4, the first where id = 3, kind = inside");
    assert_eq!(kept.outcome.details["no_text"].as_array().unwrap().len(), 4);

    // Nothing is begun that cannot end well.
    let target = Server::start(name).await?;
    let refused = kept.restore(&target, LogicalRestoreOptions::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Target, "{}", refused.report());
    assert!(refused.report().contains("--invalid-text binary"), "{}", refused.report());
    let mut conn = target.connect().await?;
    let there: Option<String> = conn.query_first("SHOW DATABASES LIKE 'd'").await.unwrap();
    assert_eq!(there, None);

    // Every byte, in columns of bytes.
    let options = LogicalRestoreOptions { invalid_text: InvalidText::Binary, ..Default::default() };
    let restored = kept.restore(&target, options).await?;
    assert!(restored.warnings.iter().any(|w| w.contains("as one of bytes")), "{restored:?}");
    assert_eq!(bytes(&target).await, before);
    let types: Vec<String> = conn
        .query("SELECT COLUMN_TYPE FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = 'd' ORDER BY ORDINAL_POSITION")
        .await
        .unwrap();
    let types: Vec<&str> = types.iter().map(String::as_str).collect();
    assert_eq!(
        types[1..],
        ["varchar(9)", "varbinary(80)", "varbinary(60)", "varbinary(60)", "blob"]
    );

    // Files for a client tell of it too.
    let directory = tempfile::TempDir::new().unwrap();
    let exported = exported_sql(&kept, directory.path()).await?;
    assert!(exported.warnings.iter().any(|w| w.contains("no text of gbk")), "{exported:?}");
    Ok(())
}

/// What a client that knows no more than ASCII takes for an escape or a quote.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn second_bytes_that_look_like_signs_come_back(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) -> Result<()> {
    let source = Server::start(name).await?;
    run(
        &source,
        &[
            "CREATE DATABASE d CHARACTER SET gbk",
            "CREATE TABLE d.signs (id INT AUTO_INCREMENT PRIMARY KEY, g VARCHAR(99) CHARACTER SET gbk, s \
             VARCHAR(99) CHARACTER SET sjis, b TEXT CHARACTER SET big5, l VARCHAR(99) CHARACTER SET latin1, u \
             VARCHAR(99) CHARACTER SET utf16, KEY (g), KEY (s(5)))",
            // Second bytes: backslash, backtick, a letter, a bar.
            "INSERT INTO d.signs (g, s, b, l, u) VALUES (_gbk x'815c', _sjis x'835c', _big5 x'a55c', _latin1 x'815c', \
             _utf16 x'005c5c27'), (_gbk x'8160815c27', _sjis x'955c835c27', _big5 x'b77c', _latin1 x'80ff00', \
             _utf16 x'0000000a'), (_gbk x'5c815c5c', _sjis x'5c835c5c6e', _big5 x'5ca55c', _latin1 x'5c6e', NULL)",
            "INSERT INTO d.signs (g, s) SELECT CONCAT(g, g), CONCAT(s, s) FROM d.signs",
        ],
    )
    .await;
    let before = everything(&source).await?;
    let kept = Kept::backup(&source, LogicalOptions::default()).await?;
    assert!(kept.outcome.warnings.is_empty(), "{:#?}", kept.outcome.warnings);
    let other = Server::start(name).await?;
    kept.restore(&other, LogicalRestoreOptions::default()).await?;
    assert_eq!(differing(&before, &everything(&other).await?), Vec::<String>::new());

    let directory = tempfile::TempDir::new().unwrap();
    exported_sql(&kept, directory.path()).await?;
    let loaded = target(name).await?;
    load(&loaded, Path::new(directory.path()), "dump.sql");
    assert_eq!(differing(&before, &everything(&loaded).await?), Vec::<String>::new());
    Ok(())
}

/// Tables without transactions are read along their primary key: one that only speaks of a key has none.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_comment_is_no_key(#[values("mysql-9.7", "mariadb-10.11")] name: &str) -> Result<()> {
    let source = Server::start(name).await?;
    run(
        &source,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (a INT COMMENT 'was:\n  PRIMARY KEY (a)') ENGINE=MyISAM COMMENT 'PRIMARY KEY (a)'",
            "INSERT INTO d.t VALUES (2), (1)",
        ],
    )
    .await;
    let before = everything(&source).await?;
    let kept = Kept::backup(&source, LogicalOptions::default()).await?;
    let other = Server::start(name).await?;
    kept.restore(&other, LogicalRestoreOptions::default()).await?;
    assert_eq!(differing(&before, &everything(&other).await?), Vec::<String>::new());
    Ok(())
}
