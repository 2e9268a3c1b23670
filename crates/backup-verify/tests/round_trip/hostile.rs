//! Servers that are configured against us, and people who change them under a backup.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use backup_core::{Context, ErrorKind, Event, Manifest, Monitor, Result, pipeline};
use backup_drivers::connect::{ConnectOptions, Session};
use backup_drivers::logical::{LogicalBackup, LogicalOptions, LogicalRestoreOptions, Selection};
use rstest::rstest;

use crate::pair::{Pair, spec};
use crate::sides;

/// Runs statements at the source when it sees an event for the first time.
struct At {
    event: fn(&Event) -> bool,
    source: ConnectOptions,
    statements: Mutex<Vec<String>>,
}

impl Monitor for At {
    fn event(&self, event: Event) {
        if !(self.event)(&event) {
            return;
        }
        let statements = std::mem::take(&mut *self.statements.lock().unwrap());
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                let mut session = Session::open(&self.source).await.unwrap();
                session.run("SET SESSION lock_wait_timeout = 5").await.unwrap();
                for statement in statements {
                    session.run(&statement).await.unwrap();
                }
            });
        });
    }
}

/// A backup by one reader during which `statements` run.
async fn backup_with(
    pair: &Pair,
    event: fn(&Event) -> bool,
    statements: Vec<String>,
) -> Result<Manifest> {
    backup_as(pair, pair.source(), event, statements).await
}

/// The same by another account.
async fn backup_as(
    pair: &Pair,
    account: ConnectOptions,
    event: fn(&Event) -> bool,
    statements: Vec<String>,
) -> Result<Manifest> {
    let driver = LogicalBackup::new(account, LogicalOptions::default());
    backup_by(pair, driver, event, statements).await
}

async fn backup_by(
    pair: &Pair,
    driver: LogicalBackup,
    event: fn(&Event) -> bool,
    statements: Vec<String>,
) -> Result<Manifest> {
    let monitor = At { event, source: pair.source(), statements: Mutex::new(statements) };
    let cx = Context::builder().threads(1).monitor(Arc::new(monitor)).build();
    pipeline::backup(&cx, &pair.repository, &driver, spec()).await
}

fn before_rows(event: &Event) -> bool {
    matches!(event, Event::Phase { name } if name == "rows")
}

fn after_a_table(event: &Event) -> bool {
    matches!(event, Event::Done { kind, .. } if kind == "table")
}

/// Changes of tables that leave their names and columns.
const IN_PLACE: [&str; 5] = [
    "RENAME TABLE `d d`.`a/1` TO `d d`.t, `d d`.b TO `d d`.`a/1`, `d d`.t TO `d d`.b",
    "ALTER TABLE `d d`.`a/1` CHANGE x y INT, CHANGE y x INT",
    "ALTER TABLE `d d`.b DROP COLUMN y; ALTER TABLE `d d`.b ADD COLUMN y INT DEFAULT 7",
    "ALTER TABLE `d d`.p EXCHANGE PARTITION p0 WITH TABLE `d d`.`a/1`",
    "TRUNCATE `d d`.b",
];

async fn make_for_ddl(source: &mut Session, database: &str) {
    for statement in [
        "DROP DATABASE IF EXISTS `d d`",
        "CREATE DATABASE `d d`",
        "CREATE TABLE `d d`.`a/1` (id INT PRIMARY KEY, x INT, y INT)",
        "CREATE TABLE `d d`.b LIKE `d d`.`a/1`",
        "CREATE TABLE `d d`.p (id INT PRIMARY KEY, x INT, y INT) PARTITION BY RANGE (id) \
         (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN MAXVALUE)",
        "INSERT INTO `d d`.`a/1` VALUES (1, 10, 100)",
        "INSERT INTO `d d`.b VALUES (2, -10, -100)",
        "INSERT INTO `d d`.p VALUES (3, 3, 3), (30, 30, 30)",
    ] {
        source.run(&statement.replace("d d", database)).await.unwrap();
    }
}

/// Runs that in the middle of a backup of one database.
async fn assert_spoiled(pair: &Pair, database: &str, ddl: &str) {
    let ddl = ddl.replace("d d", database);
    let selection = Selection { databases: [database.to_owned()].into(), ..Selection::default() };
    let options = LogicalOptions { selection, ..LogicalOptions::default() };
    let driver = LogicalBackup::new(pair.source(), options);
    let statements = ddl.split("; ").map(str::to_owned).collect();
    let error = backup_by(pair, driver, before_rows, statements).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source, "{ddl}: {}", error.report());
    assert!(error.report().contains("changed by DDL during"), "{ddl}: {}", error.report());
}

/// Of old tables too, for which the backup does not wait until the second is over.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn ddl_in_place_fails_the_backup(
    #[values("mariadb-10.11", "mariadb-11.8")] server: &str,
    #[values(false, true)] old: bool,
) {
    let pair = Pair::start(server).await;
    let mut source = Session::open(&pair.source()).await.unwrap();
    source.run("SET SESSION sql_mode = ''").await.unwrap();
    let databases = [0, 1, 2, 3, 4].map(|number| format!("d {number}"));
    for database in &databases {
        make_for_ddl(&mut source, database).await;
    }
    if old {
        tokio::time::sleep(Duration::from_secs(62)).await;
    }
    for (database, ddl) in databases.iter().zip(IN_PLACE) {
        if !old {
            make_for_ddl(&mut source, database).await;
        }
        assert_spoiled(&pair, database, ddl).await;
    }
    backup_with(&pair, before_rows, vec!["DO 1".to_owned()]).await.unwrap();
    pair.stop().await;
}

/// Of some engines the server says late, or never, when a table was created.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn tables_of_other_engines_are_told_by_their_definitions(
    #[values("mariadb-10.11", "mariadb-11.8")] server: &str,
) {
    let pair = Pair::start(server).await;
    let mut source = Session::open(&pair.source()).await.unwrap();
    let there = format!(
        "CREATE SERVER here FOREIGN DATA WRAPPER mysql OPTIONS (SOCKET '{}', USER 'root', DATABASE 'd')",
        pair.source.socket().display()
    );
    let fill = [
        "DROP DATABASE IF EXISTS d",
        "CREATE DATABASE d",
        "CREATE TABLE d.archived (x INT, y INT) ENGINE=ARCHIVE",
        "CREATE TABLE d.counted (id INT AUTO_INCREMENT PRIMARY KEY, x INT) ENGINE=ARCHIVE",
        "CREATE TABLE d.commas (x INT NOT NULL, y INT NOT NULL) ENGINE=CSV",
        "CREATE TABLE d.isam (id INT AUTO_INCREMENT PRIMARY KEY, x INT, y INT) ENGINE=MyISAM",
        "CREATE TABLE d.fleeting (x INT, y INT) ENGINE=MEMORY",
        "CREATE TABLE d.nothing (x INT) ENGINE=BLACKHOLE",
        "CREATE TABLE d.far (x INT, y INT) ENGINE=FEDERATED CONNECTION='here/fleeting'",
        "INSERT INTO d.archived VALUES (1, 2)",
        "INSERT INTO d.counted (x) VALUES (1)",
        "INSERT INTO d.commas VALUES (1, 2)",
        "INSERT INTO d.isam (x, y) VALUES (1, 2)",
        "INSERT INTO d.fleeting VALUES (1, 2)",
    ];
    for statement in [
        "INSTALL SONAME 'ha_archive'",
        "INSTALL SONAME 'ha_blackhole'",
        "INSTALL SONAME 'ha_federatedx'",
        &there,
        // One that may not lock tables, so that DDL does not wait for those without transactions.
        "CREATE USER looker",
        "GRANT SELECT, SHOW VIEW, TRIGGER, EVENT, RELOAD, PROCESS, BINLOG MONITOR, SLAVE MONITOR, SUPER ON \
         *.* TO looker",
    ] {
        source.run(statement).await.unwrap();
    }
    let looker = ConnectOptions::socket(pair.source.socket(), "looker");
    // Rows that come are no change of a table, nor is that somebody looks at it.
    let inserts = "INSERT INTO d.archived VALUES (3, 4); INSERT INTO d.counted (x) VALUES (2); INSERT INTO d.isam (x, y) VALUES (3, 4); \
                   FLUSH TABLES; SELECT CREATE_TIME FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'd'";
    for (spoils, statements) in [
        (false, inserts),
        (true, "ALTER TABLE d.archived ADD COLUMN z INT"),
        (
            true,
            "ALTER TABLE d.commas DROP COLUMN y; ALTER TABLE d.commas ADD COLUMN y INT NOT NULL FIRST",
        ),
        (true, "ALTER TABLE d.isam CHANGE x y INT, CHANGE y x INT"),
        (true, "TRUNCATE d.isam; ALTER TABLE d.isam ENGINE=ARCHIVE"),
        (true, "ALTER TABLE d.archived ENGINE=InnoDB"),
        (true, "ALTER TABLE d.fleeting CHANGE x y INT, CHANGE y x INT"),
    ] {
        for statement in fill {
            source.run(statement).await.unwrap();
        }
        let list = statements.split("; ").map(str::to_owned).collect();
        let backup = backup_as(&pair, looker.clone(), before_rows, list).await;
        match (spoils, backup) {
            (false, Ok(_)) => {}
            (false, Err(error)) => panic!("{statements}: {}", error.report()),
            (true, Ok(_)) => panic!("not noticed: {statements}"),
            (true, Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::Source, "{statements}: {}", error.report());
                let told = error.report().contains("changed by DDL during");
                assert!(told, "{statements}: {}", error.report());
            }
        }
    }
    // And by one that locks them.
    for statement in fill {
        source.run(statement).await.unwrap();
    }
    let manifest = pair.backup(LogicalOptions::default()).await;
    assert_eq!(manifest.outcome.rows, Some(5));
    pair.stop().await;
}

/// A server whose sessions read literals and operators in another way, and names that show it.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_sql_mode_of_the_server_changes_nothing(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] server: &str,
) {
    let modes =
        "NO_BACKSLASH_ESCAPES,ANSI_QUOTES,PIPES_AS_CONCAT,PAD_CHAR_TO_FULL_LENGTH,IGNORE_SPACE";
    let pair = Pair::start_with(server, &[("sql_mode", modes)]).await;
    let mut source = Session::open(&pair.source()).await.unwrap();
    for statement in [
        r"CREATE DATABASE `v\w`",
        r"CREATE TABLE `v\w`.`a\b` (id INT PRIMARY KEY, c CHAR(9) DEFAULT 0x5c, KEY `c\` (c))",
        r"CREATE TABLE `v\w`.`isam\` (id INT PRIMARY KEY, c CHAR(9)) ENGINE=MyISAM",
        r"INSERT INTO `v\w`.`a\b` VALUES (1, 0x5c27), (2, 0x225c)",
        r"INSERT INTO `v\w`.`isam\` VALUES (1, 0x5c27), (2, 0x5c)",
        r"CREATE VIEW `v\w`.`shown\` AS SELECT id FROM `v\w`.`a\b`",
    ] {
        source.run(statement).await.unwrap();
    }
    let all = pair.backup(LogicalOptions::default()).await;
    for selection in [
        Selection { databases: [r"v\w".to_owned()].into(), ..Selection::default() },
        Selection { tables: [r"`v\w`.`a\b`".parse().unwrap()].into(), ..Selection::default() },
        Selection { table_globs: [r"`v\w`.a*".parse().unwrap()].into(), ..Selection::default() },
    ] {
        let part = pair.backup(LogicalOptions { selection, ..Default::default() }).await;
        assert!(part.outcome.rows >= Some(2), "{part:?}");
    }
    pair.restore(&all, LogicalRestoreOptions::default()).await;
    let mut target = Session::open(&pair.target()).await.unwrap();
    let (was, is) = (sides::rows(&mut source).await, sides::rows(&mut target).await);
    sides::assert_same("rows", &was, &is);
    let (was, is) = (sides::definitions(&mut source).await, sides::definitions(&mut target).await);
    sides::assert_same("definitions", &was, &is);
    pair.stop().await;
}

/// Where DDL is not locked out, it waits for the table that is being read, and for no other: behind
/// it everybody would wait who uses the table.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_was_read_is_free(#[values("mariadb-10.11", "mariadb-11.8")] server: &str) {
    let pair = Pair::start(server).await;
    let mut source = Session::open(&pair.source()).await.unwrap();
    for statement in [
        "CREATE DATABASE d",
        "CREATE TABLE d.only (id INT PRIMARY KEY)",
        "INSERT INTO d.only VALUES (1), (2)",
    ] {
        source.run(statement).await.unwrap();
    }
    let statements = vec!["ALTER TABLE d.only ADD COLUMN x INT".to_owned()];
    let manifest = backup_with(&pair, after_a_table, statements).await.unwrap();
    assert_eq!(manifest.outcome.rows, Some(2));
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_lock_against_ddl_fails_the_backup() {
    let pair = Pair::start("mysql-9.7").await;
    let mut source = Session::open(&pair.source()).await.unwrap();
    source.run("CREATE DATABASE d").await.unwrap();
    source.run("CREATE TABLE d.t (id INT PRIMARY KEY)").await.unwrap();
    source
        .run(
            "CREATE PROCEDURE d.kill_holder() BEGIN DECLARE holder INT; SELECT PROCESSLIST_ID INTO \
             holder FROM performance_schema.metadata_locks JOIN performance_schema.threads ON \
             THREAD_ID = OWNER_THREAD_ID WHERE OBJECT_TYPE = 'BACKUP LOCK' AND LOCK_TYPE = \
             'SHARED'; KILL holder; END",
        )
        .await
        .unwrap();
    let statements = vec!["CALL d.kill_holder()".to_owned()];
    let error = backup_with(&pair, before_rows, statements).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source, "{}", error.report());
    assert!(error.report().contains("kept DDL out"), "{}", error.report());
    pair.stop().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn limits_of_the_server_cut_nothing_off(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] server: &str,
) {
    let pair = Pair::start(server).await;
    let mut source = Session::open(&pair.source()).await.unwrap();
    for statement in [
        "CREATE DATABASE d",
        "CREATE TABLE d.t (id INT PRIMARY KEY)",
        "INSERT INTO d.t WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < \
         900) SELECT n FROM r",
    ] {
        source.run(statement).await.unwrap();
    }
    let mut target = Session::open(&pair.target()).await.unwrap();
    let mut settings = vec![
        // More than the rows of any answer about the server itself, fewer than the table's.
        "SET GLOBAL sql_select_limit = 700",
        "SET GLOBAL autocommit = 0",
        "SET GLOBAL wait_timeout = 1",
        "SET GLOBAL max_join_size = 2",
    ];
    if server.starts_with("mariadb") {
        settings.push("SET GLOBAL max_statement_time = 0.0001");
        settings.push("SET GLOBAL system_versioning_asof = '2020-01-01 00:00:00'");
        source.run("CREATE TABLE d.v (id INT PRIMARY KEY) WITH SYSTEM VERSIONING").await.unwrap();
        source.run("INSERT INTO d.v VALUES (1), (2)").await.unwrap();
    }
    for setting in settings {
        source.run(setting).await.unwrap();
        target.run(setting).await.unwrap();
    }
    let manifest = pair.backup(LogicalOptions::default()).await;
    let rows = if server.starts_with("mariadb") { 902 } else { 900 };
    assert_eq!(manifest.outcome.rows, Some(rows));
    pair.restore(&manifest, LogicalRestoreOptions::default()).await;
    sides::assert_same("rows", &sides::rows(&mut source).await, &sides::rows(&mut target).await);
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_asked_for_in_any_case_where_the_server_ignores_it() {
    let pair = Pair::start_with("mariadb-11.8", &[("lower-case-table-names", "1")]).await;
    let mut source = Session::open(&pair.source()).await.unwrap();
    source.run("CREATE DATABASE Shop").await.unwrap();
    source.run("CREATE TABLE Shop.Orders (id INT PRIMARY KEY)").await.unwrap();
    source.run("INSERT INTO Shop.Orders VALUES (1)").await.unwrap();
    let selection =
        Selection { databases: ["SHOP".to_owned()].into_iter().collect(), ..Default::default() };
    let manifest = pair.backup(LogicalOptions { selection, ..Default::default() }).await;
    assert_eq!(manifest.outcome.rows, Some(1));
    pair.stop().await;
}
