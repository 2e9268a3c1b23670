//! An idle donor: everything it has comes back.

use backup_core::{GtidSet, Repository, pipeline};
use backup_drivers::clone::{CloneBackup, CloneOptions, Emptied, Others};
use backup_drivers::files::Catalog;
use backup_storage::check_content;

use crate::stage::{Stage, checksums, run, spec};

/// Tables of every shape that the files of a clone can have.
const SHAPES: [&str; 15] = [
    "CREATE DATABASE shop",
    "CREATE DATABASE `we-ird.`",
    "CREATE TABLE shop.plain (id INT PRIMARY KEY, a VARCHAR(300), KEY (a))",
    "CREATE TABLE `we-ird.`.`t@b #1` (id INT PRIMARY KEY)",
    "CREATE TABLE shop.parts (id INT PRIMARY KEY) PARTITION BY HASH (id) PARTITIONS 3",
    "CREATE TABLE shop.zip (id INT PRIMARY KEY, a TEXT) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=4",
    "CREATE TABLE shop.packed (id INT PRIMARY KEY, a TEXT) COMPRESSION='zlib'",
    "CREATE TABLE shop.words (id INT PRIMARY KEY, a TEXT, FULLTEXT (a))",
    "CREATE TABLESPACE general ADD DATAFILE 'general.ibd'",
    "CREATE TABLE shop.in_general (id INT PRIMARY KEY) TABLESPACE general",
    "CREATE TABLE shop.places (id INT PRIMARY KEY, g GEOMETRY NOT NULL SRID 0, SPATIAL INDEX (g))",
    "CREATE TABLE shop.old (id INT) ENGINE=MyISAM",
    "INSERT INTO shop.old VALUES (1)",
    "CREATE VIEW shop.v AS SELECT id FROM shop.plain",
    "CREATE PROCEDURE shop.p() SELECT 1",
];

const FILL: [&str; 8] = [
    "INSERT INTO shop.plain WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 900) \
     SELECT n, REPEAT(MD5(n), 4) FROM r",
    "INSERT INTO shop.zip SELECT id, a FROM shop.plain",
    "INSERT INTO shop.packed SELECT id, REPEAT(a, 20) FROM shop.plain",
    "INSERT INTO shop.words SELECT id, CONCAT('word', id, ' ', a) FROM shop.plain",
    "INSERT INTO shop.parts SELECT id FROM shop.plain",
    "INSERT INTO shop.in_general SELECT id FROM shop.plain",
    "INSERT INTO `we-ird.`.`t@b #1` SELECT id FROM shop.plain",
    "INSERT INTO shop.places SELECT id, POINT(id, id) FROM shop.plain",
];

#[tokio::test(flavor = "multi_thread")]
async fn everything_comes_back_and_the_second_clone_is_small() {
    let stage = Stage::new(|builder| builder).await;
    let mut donor = stage.session().await;
    run(&mut donor, &SHAPES).await;
    let fill: Vec<String> = FILL.iter().map(|sql| sql.replace("MD5(n)", "SHA2(n, 256)")).collect();
    run(&mut donor, &fill.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let sums = checksums(&mut donor).await;
    let gtid: Option<String> = donor.query_first("SELECT @@GLOBAL.gtid_executed").await.unwrap();
    let gtid = GtidSet::parse(backup_core::Flavor::MySql, &gtid.unwrap()).unwrap();

    let manifest = stage.backup().await;
    assert_eq!(manifest.outcome.position.gtid.as_ref(), Some(&gtid));
    assert!(manifest.outcome.warnings.iter().any(|w| w.contains("shop.old (MyISAM)")));
    let restored = stage.restored(&manifest, |builder| builder).await;
    let mut session = restored.session().await;
    assert_eq!(checksums(&mut session).await, sums);
    let reached: Option<String> =
        session.query_first("SELECT @@GLOBAL.gtid_executed").await.unwrap();
    let reached = GtidSet::parse(backup_core::Flavor::MySql, &reached.unwrap()).unwrap();
    assert_eq!(reached, gtid);
    restored.check_tables().await;
    let rows: Option<u64> = session.query_first("SELECT COUNT(*) FROM shop.old").await.unwrap();
    assert_eq!(rows, Some(0));
    run(
        &mut session,
        &["CALL shop.p()", "SELECT * FROM shop.v", "INSERT INTO shop.old VALUES (1)"],
    )
    .await;

    // Little has changed since: little is new.
    run(&mut donor, &["UPDATE shop.plain SET a = 'changed' WHERE id = 5"]).await;
    let second = stage.backup().await;
    let (read, new) = (second.totals.bytes_read, second.totals.bytes_new);
    assert!(new * 4 < read, "{new} of {read} bytes are new");
    let report = check_content(&stage.cx, &stage.repository, &second).await.unwrap();
    assert!(report.ok(), "{report:?}");
}

/// What was made after the dump of what a clone leaves empty is in neither, and told so.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_after_the_dump_of_the_others_is_told() {
    let stage = Stage::new(|builder| builder).await;
    let tables = [
        "CREATE DATABASE shop",
        "CREATE TABLE shop.old (id INT) ENGINE=MyISAM",
        "CREATE TABLE shop.newer (id INT) ENGINE=MyISAM",
    ];
    run(&mut stage.session().await, &tables).await;
    let dumped = ["shop.old".parse().unwrap()].into();
    let others = Others { backup: "20261120T101530Z-full-7f3a9c".to_owned(), tables: dumped };
    let options = CloneOptions { others: Some(others), ..stage.options() };
    let driver = CloneBackup::new(stage.source(), options);
    let taken = pipeline::backup(&stage.cx, &stage.repository, &driver, spec()).await.unwrap();
    let [warning] = &taken.outcome.warnings[..] else { panic!("{:?}", taken.outcome.warnings) };
    assert!(warning.contains("shop.newer (MyISAM)") && !warning.contains("shop.old"), "{warning}");
    assert!(!warning.contains("--clone-others"), "{warning}");

    let artifacts = stage.repository.artifacts(&stage.cx, &taken).await.unwrap();
    let emptied = Emptied::of(&taken, &Catalog::read(&*artifacts).await.unwrap());
    let remedy = emptied.finding().unwrap().remedy;
    assert!(remedy.contains("`holdfast restore 20261120T101530Z-full-7f3a9c"), "{remedy}");
    assert!(remedy.contains("those of shop.newer, which were not dumped"), "{remedy}");
    let chosen = |name: &str| {
        let tables = [name.parse().unwrap()].into();
        let selection = backup_drivers::logical::Selection { tables, ..Default::default() };
        emptied.refuse(&selection, &Default::default()).unwrap_err().report()
    };
    let newer = chosen("shop.newer");
    assert!(newer.contains("another backup") && !newer.contains("20261120"), "{newer}");
    assert!(newer.contains("may see all tables"), "{newer}");
    assert!(chosen("shop.old").contains("--tables shop.old`"));
}
