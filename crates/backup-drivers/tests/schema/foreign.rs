//! What the servers' own programs dump: counted, checked to the last byte, found out where it is
//! damaged, and saved as far as it can be.

use std::collections::BTreeMap;
use std::path::Path;

use backup_core::{Backup, Context, ErrorKind, Flavor, Result, Severity};
use backup_drivers::exchange::Codec;
use backup_drivers::foreign::{Dump, ForeignImport, examine_dump};
use mysql_async::prelude::Queryable;
use rstest::rstest;
use tempfile::TempDir;

use crate::exported::{load, target};
use crate::memory::Kept;
use crate::server::Server;

async fn examined(path: &Path) -> Dump {
    examine_dump(&Context::builder().build(), path).await.unwrap()
}

fn errors(dump: &Dump) -> Vec<String> {
    let errors = dump.findings.iter().filter(|f| f.severity == Severity::Error);
    errors.map(|f| format!("{}: {}", f.object, f.problem)).collect()
}

/// Rows of each table, as the server counts them.
async fn counts(server: &Server) -> BTreeMap<String, u64> {
    let mut conn = server.connect().await.unwrap();
    conn.query_drop("SET NAMES utf8mb4").await.unwrap();
    let tables: Vec<(String, String)> = conn
        .query(
            "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE IN ('BASE TABLE', \
             'SYSTEM VERSIONED') AND TABLE_SCHEMA NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema')",
        )
        .await
        .unwrap();
    let mut counts = BTreeMap::new();
    for (database, table) in tables {
        let quote = backup_drivers::logical::quote_name;
        let sql = format!("SELECT COUNT(*) FROM {}.{}", quote(&database), quote(&table));
        let rows: Option<u64> = conn.query_first(sql).await.unwrap();
        counts.insert(format!("{database}.{table}"), rows.unwrap());
    }
    counts
}

/// Dumps a server by its own program.
fn dump(source: &Server, to: &Path, more: &[&str]) {
    let program = match source.sandbox().install().flavor() {
        Flavor::MySql => "mysqldump",
        Flavor::MariaDb => "mariadb-dump",
    };
    let output = source
        .sandbox()
        .install()
        .command(program)
        .unwrap()
        .args([
            "--no-defaults",
            "-uroot",
            "--all-databases",
            "--routines",
            "--events",
            "--triggers",
        ])
        .arg(format!("--socket={}", source.sandbox().socket().display()))
        .args(more)
        .stdout(std::fs::File::create(to).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn dumps_of_the_servers_own_programs_are_counted(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) -> Result<()> {
    let source = Server::start(name).await?;
    source.fill().await?;
    let mut conn = source.connect().await?;
    for statement in [
        "CREATE TABLE shop.many (id INT PRIMARY KEY, v VARCHAR(90), b BLOB)",
        "INSERT INTO shop.many VALUES (1, 'it''s; \\\\ \\n', x'00275c3b0a')",
        "INSERT INTO shop.many SELECT id + 1, CONCAT(v, id), b FROM shop.many",
        "INSERT INTO shop.many SELECT id + 2, CONCAT(v, id), b FROM shop.many",
        "INSERT INTO shop.many SELECT id + 4, CONCAT(v, id), b FROM shop.many",
    ] {
        conn.query_drop(statement).await.unwrap();
    }
    let directory = TempDir::new().unwrap();
    let plain = directory.path().join("dump.sql");
    if source.facts().await?.flavor == Flavor::MySql {
        // mysqldump puts its delimiter into the comment that code ends in: nobody can load that, and we say so.
        dump(&source, &plain, &["--single-transaction"]);
        let broken = errors(&examined(&plain).await);
        assert!(broken[0].contains("the stream ends within a statement"), "{broken:?}");
        for code in
            ["PROCEDURE ends_in_comment", "FUNCTION ends_in_hash", "EVENT ev_ends_in_comment"]
        {
            conn.query_drop(format!("DROP {}", code.replace(' ', " shop."))).await.unwrap();
        }
    }
    dump(&source, &plain, &["--single-transaction"]);
    let found = examined(&plain).await;
    assert_eq!(errors(&found), Vec::<String>::new());
    let contents = found.contents();
    assert!(contents.complete && contents.server_version.is_some(), "{contents:?}");
    for (table, rows) in counts(&source).await {
        assert_eq!(contents.tables.get(&table), Some(&rows), "{table}");
    }
    for kind in ["view", "trigger", "procedure", "function", "event", "database"] {
        assert!(contents.objects[kind] > 0, "{kind}: {contents:?}");
    }

    // Every form, and each cut short.
    let text = std::fs::read(&plain).unwrap();
    for codec in Codec::ALL {
        let path = directory.path().join(format!("copy.sql{}", codec.extension()));
        let mut encoder = codec.encoder(std::fs::File::create(&path).unwrap()).unwrap();
        std::io::Write::write_all(&mut encoder, &text).unwrap();
        encoder.finish().unwrap();
        let again = examined(&path).await;
        assert_eq!(errors(&again), Vec::<String>::new(), "{codec}");
        assert_eq!(again.contents(), contents, "{codec}");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() * 2 / 3]).unwrap();
        let cut = errors(&examined(&path).await);
        assert!(!cut.is_empty(), "{codec}");
        if codec != Codec::Plain {
            assert!(cut[0].contains(&format!("its {codec} stream is damaged or cut")), "{cut:?}");
        }
    }

    // Cut anywhere, it is never called whole.
    for n in 1..30 {
        std::fs::write(&plain, &text[..text.len() * n / 30]).unwrap();
        assert!(!errors(&examined(&plain).await).is_empty(), "{n}");
    }
    Ok(())
}

/// In these the second byte of a character may be a backslash; the definitions between the rows are in
/// another character set.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn dumps_in_chinese_and_japanese_character_sets_are_read_as_what_they_are(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
    #[values("gbk", "big5", "sjis")] charset: &str,
) -> Result<()> {
    let source = Server::start(name).await?;
    let mut conn = source.connect().await?;
    for statement in [
        "SET NAMES utf8mb4",
        "CREATE DATABASE g",
        "CREATE TABLE g.a (v VARCHAR(9) CHARACTER SET utf8mb4)",
        "INSERT INTO g.a VALUES ('誠'), ('表'), ('x'), ('功')",
        "CREATE TABLE g.b LIKE g.a",
        "INSERT INTO g.b SELECT * FROM g.a",
        "CREATE TRIGGER g.t BEFORE INSERT ON g.b FOR EACH ROW SET @a = '誠'",
    ] {
        conn.query_drop(statement).await.unwrap();
    }
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("dump.sql");
    dump(&source, &path, &[&format!("--default-character-set={charset}")]);
    let text = std::fs::read(&path).unwrap();
    assert!(text.windows(2).any(|pair| pair[0] > 0x7f && pair[1] == b'\\'), "{charset}");
    let found = examined(&path).await;
    assert_eq!(errors(&found), Vec::<String>::new());
    for table in ["g.a", "g.b"] {
        assert_eq!(found.contents().tables.get(table), Some(&4), "{table}");
    }
    Ok(())
}

/// Damage among rows and definitions, of the kinds that disks and networks make.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_dump_is_saved_as_far_as_it_goes(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) -> Result<()> {
    let source = Server::start(name).await?;
    let mut conn = source.connect().await?;
    conn.query_drop("CREATE DATABASE d").await.unwrap();
    for n in 0..8 {
        conn.query_drop(format!("CREATE TABLE d.t{n} (id INT PRIMARY KEY, v VARCHAR(200))"))
            .await
            .unwrap();
        let rows: Vec<String> =
            (0..200).map(|i| format!("({i}, 'row {i} of table {n}; it''s \\\\ one')")).collect();
        let sql = format!("INSERT INTO d.t{n} VALUES {}", rows.join(","));
        conn.query_drop(sql).await.unwrap();
    }
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("dump.sql");
    dump(&source, &path, &[]);
    let whole = std::fs::read(&path).unwrap();
    let at = |needle: &str| memchr::memmem::find(&whole, needle.as_bytes()).unwrap();
    let line = |at: usize| whole[..at].iter().filter(|b| **b == b'\n').count() + 1;

    // A row in the middle loses its quotes, and with it some bytes.
    let hole = at("'row 100 of table 3");
    let mut lost = whole.clone();
    lost.drain(hole..hole + 90);
    // A block of zeros.
    let zeros = at("'row 50 of table 5");
    lost[zeros - 90..zeros - 90 + 512].fill(0);
    std::fs::write(&path, &lost).unwrap();
    let found = errors(&examined(&path).await);
    assert!(found.len() >= 2, "{found:#?}");
    // Lines are those of the damaged file, which lost some.
    for (finding, expected) in [(&found[0], line(hole)), (&found[1], line(zeros))] {
        let at = finding.split(':').nth(1).and_then(|n| n.parse::<usize>().ok()).unwrap();
        assert!(at.abs_diff(expected) <= 6, "{expected}: {found:#?}");
    }

    let refused = ForeignImport::new(&path, false);
    let error = Kept::backup_by(refused).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.remedy().contains("--salvage"), "{}", error.report());
    let kept = Kept::backup_by(ForeignImport::new(&path, true)).await?;
    assert!(kept.outcome.warnings.len() >= 2, "{:#?}", kept.outcome.warnings);

    // The client takes what was saved, and it is what it was.
    let saved = directory.path().join("saved.sql");
    std::fs::write(&saved, kept.bytes("foreign/files/dump.sql")).unwrap();
    let target = target(name).await?;
    load(&target, directory.path(), "saved.sql");
    let counts = counts(&target).await;
    for n in [0, 1, 2, 4, 6, 7] {
        assert_eq!(counts[&format!("d.t{n}")], 200, "{counts:?}");
    }
    assert_eq!(counts["d.t3"], 100, "{counts:?}");
    assert_eq!(counts["d.t5"], 50, "{counts:?}");
    let mut conn = target.connect().await?;
    let wrong: Option<u64> = conn
        .query_first("SELECT COUNT(*) FROM d.t3 WHERE v <> CONCAT('row ', id, ' of table 3; it''s \\\\ one')")
        .await
        .unwrap();
    assert_eq!(wrong, Some(0));
    // With those of the server's own databases.
    assert!(kept.outcome.rows.unwrap() > counts.values().sum(), "{:?}", kept.outcome.rows);
    Ok(())
}

/// What mydumper itself dumps: the rows that the server counts, and damage told of by its file.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn dumps_of_mydumper_are_counted_and_their_damage_is_found(
    #[values(false, true)] compressed: bool,
) -> Result<()> {
    let source = Server::start("mariadb-10.11").await?;
    let mut conn = source.connect().await?;
    for statement in [
        "CREATE DATABASE shop CHARACTER SET utf8mb4",
        "USE shop",
        "CREATE TABLE many (id INT PRIMARY KEY, v VARCHAR(90), b BLOB, f DOUBLE, d DATETIME(6))",
        "INSERT INTO many SELECT seq, CONCAT('it''s; \\\\ \n', seq), UNHEX('00275c3b0a1a22'), seq / 7, NOW(6) \
         FROM seq_1_to_5000",
        "CREATE TABLE empty (id INT PRIMARY KEY)",
        "CREATE TABLE `we ird` (`a b` INT, c TEXT)",
        "INSERT INTO `we ird` VALUES (1, 'é🎉'), (2, NULL), (3, '')",
        "CREATE TABLE fired (n INT)",
        "CREATE TRIGGER tr BEFORE INSERT ON many FOR EACH ROW INSERT INTO fired VALUES (1)",
        "CREATE VIEW v AS SELECT id FROM many",
        "CREATE PROCEDURE p () SELECT ';', 'x'",
        "CREATE FUNCTION f () RETURNS INT DETERMINISTIC RETURN 1",
        "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DISABLE DO DELETE FROM empty",
    ] {
        conn.query_drop(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    let directory = TempDir::new().unwrap();
    let out = directory.path().join("dump");
    let mut mydumper = xtask::servers::mydumper()?;
    mydumper.args(["--user", "root", "--threads", "2", "--rows", "1500", "--database", "shop"]);
    mydumper.args(["--routines", "--triggers", "--events"]);
    if compressed {
        mydumper.arg("--compress");
    }
    mydumper.arg("--socket").arg(source.sandbox().socket()).arg("--outputdir").arg(&out);
    let output = mydumper.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let found = examined(&out).await;
    assert_eq!(errors(&found), Vec::<String>::new());
    let contents = found.contents();
    assert!(contents.complete, "{contents:?}");
    assert_eq!(contents.program.as_deref(), Some("mydumper"));
    let status: Option<(String, u64)> = {
        let row: Option<mysql_async::Row> = conn.query_first("SHOW MASTER STATUS").await.unwrap();
        row.map(|row| (row.get(0).unwrap(), row.get(1).unwrap()))
    };
    let position = contents.position.file.clone().zip(contents.position.offset);
    assert!(position.is_some() && position == status, "{position:?} {status:?}");
    for (table, rows) in counts(&source).await {
        let dumped = contents.tables.get(&table).copied().unwrap_or_default();
        assert_eq!(dumped, rows, "{table}: {contents:?}");
    }
    for kind in ["view", "trigger", "procedure", "function", "event", "database"] {
        assert!(contents.objects.get(kind).is_some_and(|n| *n > 0), "{kind}: {contents:?}");
    }
    let kept = Kept::backup_by(ForeignImport::new(&out, false)).await?;
    assert_eq!(kept.outcome.rows, Some(counts(&source).await.values().sum()));

    // Each file cut short is found, and named.
    let files: Vec<_> = std::fs::read_dir(&out).unwrap().map(|f| f.unwrap().path()).collect();
    assert!(files.len() > 8, "{files:?}");
    for file in files {
        let whole = std::fs::read(&file).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        let rows = name.starts_with("shop.many.");
        if !rows && !compressed && name != "metadata" {
            // A definition that ends at the end of one of its lines makes sense.
            continue;
        }
        std::fs::write(&file, &whole[..whole.len() * 2 / 3]).unwrap();
        let damage = errors(&examined(&out).await);
        assert!(!damage.is_empty(), "{name}");
        let plain = name.trim_end_matches(".gz");
        let named = damage.iter().any(|d| d.starts_with(plain));
        assert!(named || name == "metadata", "{name}: {damage:?}");
        std::fs::write(&file, &whole).unwrap();
    }
    assert_eq!(errors(&examined(&out).await), Vec::<String>::new());
    Ok(())
}

/// A directory as mydumper makes one.
#[tokio::test]
async fn a_directory_of_mydumper_is_counted_against_its_metadata() -> Result<()> {
    let directory = TempDir::new().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("shop-schema-create.sql", "CREATE DATABASE /*!32312 IF NOT EXISTS*/ `shop`;\n");
    write("shop.t-schema.sql", "/*!40101 SET NAMES binary*/;\nCREATE TABLE `t` (\n  `a` int\n);\n");
    write(
        "shop.t.00000.sql",
        "/*!40101 SET NAMES binary*/;\nINSERT INTO `t` VALUES(1)\n,(2)\n,(3);\n",
    );
    let metadata =
        "# Started dump at: 2026-11-20 10:00:00\n[`shop`.`t`]\nrows = 3\n# Finished dump at: x\n";
    write("metadata", metadata);
    let found = examined(directory.path()).await;
    assert_eq!(errors(&found), Vec::<String>::new());
    assert_eq!(found.contents().tables, [("shop.t".to_owned(), 3)].into());
    write("metadata", &metadata.replace("rows = 3", "rows = 4"));
    assert_eq!(
        errors(&examined(directory.path()).await),
        ["shop.t: 3 of 4 rows are there, as mydumper counted them"]
    );
    write("metadata", "# Started dump at: 2026-11-20 10:00:00\n");
    assert!(errors(&examined(directory.path()).await)[0].contains("did not say that it finished"));
    assert_eq!(
        ForeignImport::new(directory.path(), false).strategy(),
        backup_core::Strategy::Foreign
    );
    Ok(())
}

/// What mydumper 1.0.1 writes for a database `a.b`, whose name is none for a file, with rows of one table as CSV.
fn of_later_mydumper(directory: &Path) {
    let write = |name: &str, text: &str| {
        let head = "/*!40101 SET NAMES binary*/;\n/*!40014 SET FOREIGN_KEY_CHECKS=0*/;\n\
                    /*!40101 SET SQL_MODE='NO_AUTO_VALUE_ON_ZERO,'*/;\n/*!40103 SET TIME_ZONE='+00:00' */;\n";
        let head = if name.ends_with(".sql") { head } else { "" };
        std::fs::write(directory.join(name), format!("{head}{text}")).unwrap();
    };
    write(
        "mydumper_0-schema-create.sql",
        "CREATE DATABASE /*!32312 IF NOT EXISTS*/ `a.b` /*!40100 DEFAULT CHARACTER SET latin1 */;\n",
    );
    let set = "SET @PREV_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT;\nSET character_set_client = utf8mb3;\n";
    let back = "SET character_set_client = @PREV_CHARACTER_SET_CLIENT;\n";
    write(
        "mydumper_0-schema-post.sql",
        &format!(
            "{set}DROP PROCEDURE IF EXISTS `p`;\nCREATE DEFINER=`root`@`localhost` PROCEDURE `p`(IN x INT)\nBEGIN \
             SELECT x; \n-- it's so; and \nSELECT ';'; END;\n{back}{set}DROP EVENT IF EXISTS `ev`;\nCREATE \
             DEFINER=`root`@`localhost` EVENT `ev` ON SCHEDULE EVERY 1 DAY DO BEGIN DELETE FROM t; END;\n{back}"
        ),
    );
    write(
        "mydumper_0-schema-triggers.sql",
        "CREATE DEFINER=`root`@`localhost` TRIGGER tr BEFORE INSERT ON t FOR EACH ROW BEGIN SET NEW.a = 1; END;",
    );
    write("mydumper_0.mydumper_1-schema.sql", "CREATE TABLE `t.1` (\n  `a` int(11)\n);\n");
    write("mydumper_0.mydumper_1.00000.sql", "INSERT INTO `t.1` VALUES(7)\n,(8)\n;\n");
    write("mydumper_0.t-schema.sql", "CREATE TABLE `t` (\n  `a` int,\n  `s` text\n);\n");
    write(
        "mydumper_0.t.00000.sql",
        "LOAD DATA LOCAL INFILE 'mydumper_0.t.00000.dat.zst' INTO TABLE `t` FIELDS TERMINATED BY ',' ENCLOSED BY \
         '\"' ESCAPED BY '\\\\' LINES STARTING BY '' TERMINATED BY '\\n' IGNORE 1 LINES (`a`,`s`);\n",
    );
    write("mydumper_0.t.00000.dat", "\"a\",\"s\"\n1,\"x,\n\\\"y\"\n2,\\N\n3,\"\"\n");
    write(
        "metadata",
        "# Started dump at: 2026-11-30 20:55:16\n[config]\nquote-character = BACKTICK\n\n[source]\n\
         # executed_gtid_set = \"0-1-34\"\n# SOURCE_LOG_FILE = \"binlog.000001\"\n# SOURCE_LOG_POS = 7415\n\n\
         [`mydumper_0`.`t`]\nreal_table_name=t\nrows = 3\nschema_checksum = 6062a0b2\n\n\
         [`mydumper_0`.`mydumper_1`]\nreal_table_name=t.1\nrows = 2\n\n[`a.b`]\nschema_checksum = FDF2173B\n\
         [config]\nmax-statement-size = 4\n# Finished dump at: 2026-11-30 20:55:16\n",
    );
}

#[tokio::test]
async fn dumps_of_later_mydumpers_are_read_to_the_last_byte() -> Result<()> {
    let directory = TempDir::new().unwrap();
    of_later_mydumper(directory.path());
    let found = examined(directory.path()).await;
    assert_eq!(errors(&found), Vec::<String>::new());
    let contents = found.contents();
    let rows = [("mydumper_0.t".to_owned(), 3), ("mydumper_0.t.1".to_owned(), 2)];
    assert_eq!(contents.tables, rows.into());
    let objects = ["database", "event", "procedure", "trigger"].map(|kind| (kind.to_owned(), 1));
    assert_eq!(contents.objects, objects.into());
    let position = (contents.position.file.as_deref(), contents.position.offset);
    assert_eq!(position, (Some("binlog.000001"), Some(7415)));
    let kept = Kept::backup_by(ForeignImport::new(directory.path(), false)).await?;
    assert_eq!(kept.outcome.rows, Some(5));

    // Each kind of damage, and what a salvage keeps.
    type Harm<'a> = &'a dyn Fn(&str) -> String;
    let harms: [(&str, Harm<'_>, &str, u64); 7] = [
        ("mydumper_0-schema-post.sql", &|t| t[..t.len() - 20].into(), "within a statement", 5),
        ("mydumper_0-schema-triggers.sql", &|t| t.replace("END;", ""), "within a statement", 5),
        ("mydumper_0.t.00000.dat", &|t| t.replace("3,\"\"\n", "3,\"\""), "within a row", 4),
        ("mydumper_0.t.00000.dat", &|t| t.replace("2,", "2"), "a row has 1 values, for 2", 4),
        ("mydumper_0.t.00000.dat", &|_| String::new(), "0 of 3 rows are there", 2),
        ("mydumper_0.t.00000.dat", &|t| t.replace("\\\"y\"", "\\\"y"), "within a value", 2),
        ("mydumper_0.t.00000.sql", &|t| t.replace(".dat", ".tab"), "is not there", 5),
    ];
    for (name, harm, says, rows) in harms {
        let path = directory.path().join(name);
        let whole = std::fs::read_to_string(&path).unwrap();
        let harmed = harm(&whole);
        assert_ne!(harmed, whole, "{name}");
        std::fs::write(&path, harmed).unwrap();
        let damage = errors(&examined(directory.path()).await);
        assert!(damage.iter().any(|d| d.contains(says)), "{name}: {damage:?}");
        if !says.ends_with("there") {
            let kept = Kept::backup_by(ForeignImport::new(directory.path(), true)).await?;
            assert_eq!(kept.outcome.rows, Some(rows), "{name}: {says}");
        }
        std::fs::write(&path, whole).unwrap();
    }
    // Whole files that nothing in the others misses.
    for (name, says) in [
        ("mydumper_0.t.00000.dat", "mydumper_0.t.00000.dat: it holds rows of mydumper_0.t"),
        ("mydumper_0.t.00000.sql", "mydumper_0.t: 0 of 3 rows are there"),
        (
            "mydumper_0.t-schema.sql",
            "mydumper_0.t-schema.sql: it holds the definition of mydumper_0.t",
        ),
        ("metadata", "metadata: it is not there"),
    ] {
        let path = directory.path().join(name);
        let whole = std::fs::read(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let damage = errors(&examined(directory.path()).await);
        assert!(damage.iter().any(|d| d.contains(says)), "{name}: {damage:?}");
        let refused = Kept::backup_by(ForeignImport::new(directory.path(), false)).await;
        assert_eq!(refused.err().map(|e| e.kind()), Some(ErrorKind::Damaged), "{name}");
        // What is saved says what it lacks.
        let kept = Kept::backup_by(ForeignImport::new(directory.path(), true)).await?;
        let warnings = &kept.outcome.warnings;
        assert!(warnings.iter().any(|w| w.contains(says)), "{name}: {warnings:?}");
        std::fs::write(&path, whole).unwrap();
    }
    Ok(())
}

/// Of a database whose name is one for files, mydumper says what is in which.
#[tokio::test]
async fn files_that_mydumper_wrote_and_that_are_gone_are_named() {
    let directory = TempDir::new().unwrap();
    let files = [
        ("shop-schema-create.sql", "CREATE DATABASE `shop`;\n"),
        ("shop-schema-post.sql", "CREATE PROCEDURE p() SELECT 1;\n"),
        (
            "shop-schema-triggers.sql",
            "CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET @a = 1;\n",
        ),
        ("shop.none-schema.sql", "CREATE TABLE `none` (\n  `a` int\n);\n"),
        ("shop.v-schema.sql", "CREATE TABLE IF NOT EXISTS `v` (\n  `a` int\n) ENGINE=MEMORY;\n"),
        (
            "shop.v-schema-view.sql",
            "DROP TABLE IF EXISTS `v`;\nCREATE VIEW `v` AS select 1 AS `a`;\n",
        ),
    ];
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    let metadata = "# Started dump at: x\n[`shop`.`none`]\nreal_table_name=none\nrows = 0\nschema_checksum = 1a\n\n\
                    [`shop`.`v`]\nreal_table_name=v\nrows = 0\nis_view = 1\nschema_checksum = 2b\n\n[`shop`]\nschema_checksum = FD\npost_checksum = 42\nevents_checksum = 0\ntriggers_checksum = 3C\n\
                    # Finished dump at: x\n";
    std::fs::write(directory.path().join("metadata"), metadata).unwrap();
    assert_eq!(errors(&examined(directory.path()).await), Vec::<String>::new());
    for (name, text) in files {
        let path = directory.path().join(name);
        std::fs::remove_file(&path).unwrap();
        let damage = errors(&examined(directory.path()).await);
        assert!(damage.len() == 1 && damage[0].starts_with(name), "{name}: {damage:?}");
        std::fs::write(&path, text).unwrap();
    }
}
