//! A whole server there and back: not one line may differ.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{ConsistencyLevel, Flavor, Result};
use backup_drivers::logical::recreate::Definers;
use backup_drivers::logical::{LogicalOptions, LogicalRestoreOptions, quote_name};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};
use rstest::rstest;

use crate::memory::Kept;
use crate::server::{Server, definitions};

/// What a server says about itself, by kind and name.
pub(crate) type Lines = BTreeMap<String, String>;

/// Everything a server holds, one line an object, one for the rows of each table, one for each
/// account. Independent of the code under test.
pub(crate) async fn everything(server: &Server) -> Result<Lines> {
    let flavor = server.facts().await?.flavor;
    let mut conn = server.connect().await?;
    let mut lines = Lines::new();
    for ((database, kind, name), columns) in definitions(&mut conn, flavor).await {
        let text: Vec<String> = columns
            .iter()
            .map(|c| c.as_ref().map_or("NULL".into(), |b| b.escape_ascii().to_string()))
            .collect();
        lines.insert(format!("{kind} {database}.{name}"), text.join(" | "));
    }
    let mut conn = server.connect().await?;
    rows(&mut conn, &mut lines).await;
    accounts(&mut conn, flavor, &mut lines).await;
    if flavor == Flavor::MySql {
        for (kind, sql) in [
            (
                "histogram",
                "SELECT CONCAT_WS('.', SCHEMA_NAME, TABLE_NAME, COLUMN_NAME), CAST(JSON_REMOVE(HISTOGRAM, '$.\"last-updated\"') AS CHAR) \
                 FROM information_schema.COLUMN_STATISTICS",
            ),
            (
                "srs",
                "SELECT CAST(SRS_ID AS CHAR), CONCAT_WS('|', SRS_NAME, ORGANIZATION, \
                 ORGANIZATION_COORDSYS_ID, DEFINITION, DESCRIPTION) \
                 FROM information_schema.ST_SPATIAL_REFERENCE_SYSTEMS WHERE SRS_ID > 32767",
            ),
            (
                "tablespace",
                "SELECT NAME, CONCAT_WS('|', FILE_NAME, ZIP_PAGE_SIZE, s.AUTOEXTEND_SIZE, ENCRYPTION) FROM \
                 information_schema.INNODB_TABLESPACES s JOIN (SELECT FILE_ID, SUBSTRING_INDEX(FILE_NAME, '/', -1) \
                 FILE_NAME FROM information_schema.FILES) f ON f.FILE_ID = s.SPACE WHERE SPACE_TYPE = 'General'",
            ),
            (
                "resource group",
                "SELECT RESOURCE_GROUP_NAME, CONCAT_WS('|', RESOURCE_GROUP_TYPE, \
                 RESOURCE_GROUP_ENABLED, CAST(VCPU_IDS AS CHAR), THREAD_PRIORITY) \
                 FROM information_schema.RESOURCE_GROUPS",
            ),
        ] {
            let found: Vec<(String, String)> = conn.query(sql).await.unwrap();
            lines.extend(found.into_iter().map(|(name, text)| (format!("{kind} {name}"), text)));
        }
    }
    Ok(lines)
}

/// The rows of every table, in the binary protocol, which is exact.
async fn rows(conn: &mut Conn, lines: &mut Lines) {
    for setting in
        ["SET NAMES utf8mb4", "SET time_zone = '+00:00'", "SET character_set_results = binary"]
    {
        conn.query_drop(setting).await.unwrap();
    }
    let tables: Vec<(String, String, String, String)> = conn
        .query(
            "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE FROM information_schema.TABLES \
             WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND TABLE_SCHEMA NOT IN \
             ('mysql', 'sys', 'performance_schema', 'information_schema')",
        )
        .await
        .unwrap();
    for (database, table, kind, _) in tables {
        let name = format!("{}.{}", quote_name(&database), quote_name(&table));
        let past = if kind != "SYSTEM VERSIONED" {
            ""
        } else if table == "versioned" {
            // Its period has columns of its own.
            " FOR SYSTEM_TIME ALL"
        } else {
            ", row_start, row_end"
        };
        let sql = match past.strip_prefix(',') {
            Some(columns) => format!("SELECT *, {columns} FROM {name} FOR SYSTEM_TIME ALL"),
            None => format!("SELECT * FROM {name}{past}"),
        };
        let rows: Vec<Row> = conn.exec(sql, ()).await.unwrap();
        let mut rows: Vec<String> = rows
            .into_iter()
            .map(|row| {
                let values = row.unwrap();
                let text = values.into_iter().map(|value| match value {
                    Value::Bytes(bytes) => bytes.escape_ascii().to_string(),
                    other => format!("{other:?}"),
                });
                text.collect::<Vec<_>>().join(" | ")
            })
            .collect();
        rows.sort();
        lines.insert(format!("rows {database}.{table}"), rows.join("\n    "));
    }
}

async fn accounts(conn: &mut Conn, flavor: Flavor, lines: &mut Lines) {
    conn.query_drop("SET character_set_results = utf8mb4").await.unwrap();
    if flavor == Flavor::MySql {
        conn.query_drop("SET print_identified_with_as_hex = ON").await.unwrap();
    }
    let role = if flavor == Flavor::MySql { "'N'" } else { "is_role" };
    let accounts: Vec<(String, String, String)> =
        conn.query(format!("SELECT User, Host, {role} FROM mysql.user")).await.unwrap();
    for (user, host, is_role) in accounts {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let name = match (is_role.as_str(), user.as_str()) {
            ("Y", "PUBLIC") => "PUBLIC".to_owned(),
            ("Y", _) => quote_name(&user),
            _ => format!("{}@{}", quoted(&user), quoted(&host)),
        };
        let mut text = Vec::new();
        if is_role != "Y" {
            text.extend(conn.query::<String, _>(format!("SHOW CREATE USER {name}")).await.unwrap());
        }
        let grants: Vec<String> = conn.query(format!("SHOW GRANTS FOR {name}")).await.unwrap();
        // In an order that depends on when each was given.
        text.extend(grants.into_iter().collect::<BTreeSet<_>>());
        lines.insert(format!("account {user}@{host}"), text.join("\n    "));
    }
    if flavor == Flavor::MySql {
        let seconds: Vec<(String, String)> = conn
            .query(
                "SELECT User, CAST(JSON_REMOVE(User_attributes, '$.Restrictions') AS CHAR) FROM mysql.user \
                 WHERE User_attributes IS NOT NULL",
            )
            .await
            .unwrap();
        lines.extend(seconds.into_iter().map(|(user, text)| (format!("attributes {user}"), text)));
    }
}

/// What is not the same, for people.
pub(crate) fn differing(left: &Lines, right: &Lines) -> Vec<String> {
    let keys: BTreeSet<_> = left.keys().chain(right.keys()).collect();
    let shown = |lines: &Lines, key: &str| lines.get(key).cloned().unwrap_or("nothing".into());
    keys.into_iter()
        .filter(|key| left.get(*key) != right.get(*key))
        .map(|key| format!("{key}:\n  {}\n  {}", shown(left, key), shown(right, key)))
        .collect()
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_whole_server_comes_back_line_by_line(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) -> Result<()> {
    let source = Server::start(name).await?;
    source.fill().await?;
    source.fill_more().await?;
    let kept = Kept::backup(&source, LogicalOptions::default()).await?;
    assert_ne!(kept.outcome.consistency.level, ConsistencyLevel::None);
    let invalid = kept.outcome.warnings.iter().filter(|w| w.contains("is not valid; it is kept"));
    assert_eq!(invalid.count(), 7, "{:#?}", kept.outcome.warnings);

    let target = Server::start(name).await?;
    match source.facts().await?.flavor {
        Flavor::MySql => {
            let mut conn = target.connect().await?;
            conn.query_drop("SET GLOBAL partial_revokes = ON").await.unwrap();
        }
        Flavor::MariaDb => {
            let mut conn = target.connect().await?;
            conn.query_drop("INSTALL SONAME 'auth_ed25519'").await.unwrap();
        }
    }
    let restored = kept.restore(&target, LogicalRestoreOptions::default()).await?;
    let (before, after) = (everything(&source).await?, everything(&target).await?);
    let differing = differing(&before, &after);
    assert!(differing.is_empty(), "{} differ:\n{}", differing.len(), differing.join("\n"));
    assert!(before.len() > 180, "{}", before.len());
    // The views that are of no use are told of again, and nothing else is.
    let other: Vec<&String> =
        restored.warnings.iter().filter(|w| !w.contains("reads from what is not there")).collect();
    assert!(other.is_empty(), "{other:#?}");
    assert_eq!(restored.warnings.len(), 7, "{:#?}", restored.warnings);
    Ok(())
}

/// An account with a password, and a grant or a role: what is there stays, and what would shut the
/// one that restores out is not made.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn accounts_that_are_there_stay_as_they_are(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) -> Result<()> {
    let source = Server::start(name).await?;
    let mut conn = source.connect().await?;
    for statement in [
        "CREATE DATABASE d",
        "CREATE TABLE d.t (a INT)",
        "CREATE USER same@localhost IDENTIFIED BY 'x'",
        "CREATE USER known@localhost IDENTIFIED BY 'old-secret'",
        "GRANT ALL ON *.* TO known@localhost",
        "CREATE USER admin@localhost IDENTIFIED BY 'elsewhere'",
        "CREATE USER ''@localhost",
        "CREATE DEFINER = same@localhost PROCEDURE d.p () SELECT 1",
        "CREATE DEFINER = app@'%' VIEW d.v AS SELECT a FROM d.t",
    ] {
        conn.query_drop(statement).await.unwrap();
    }
    let kept = Kept::backup(&source, LogicalOptions::default()).await?;
    let hash: String = conn
        .query_first("SELECT HEX(authentication_string) FROM mysql.user WHERE User = 'known'")
        .await
        .unwrap()
        .unwrap();
    let shown = format!("{:?}", kept.outcome);
    assert!(!shown.contains(&hash) && kept.outcome.objects["accounts"] >= 5, "{shown}");

    let target = Server::start(name).await?;
    let mut conn = target.connect().await?;
    for statement in [
        "CREATE USER known@localhost IDENTIFIED BY 'new'",
        "CREATE USER admin@'%' IDENTIFIED BY ''",
        "GRANT ALL ON *.* TO admin@'%' WITH GRANT OPTION",
        // Nobody else is let in by this socket's host.
        "SET GLOBAL local_infile = OFF",
    ] {
        conn.query_drop(statement).await.unwrap();
    }
    let show = "SHOW CREATE USER known@localhost";
    let before: Option<String> = conn.query_first(show).await.unwrap();
    let admin = backup_drivers::connect::ConnectOptions::socket(target.sandbox().socket(), "admin");
    let driver = backup_drivers::logical::LogicalRestore::new(admin.clone(), Default::default());
    let restored = kept.restore_by(driver).await?;
    let after: Option<String> = conn.query_first(show).await.unwrap();
    assert_eq!(before, after);
    let grants: Vec<String> = conn.query("SHOW GRANTS FOR known@localhost").await.unwrap();
    assert!(!grants[0].contains("ALL PRIVILEGES") && !grants[0].contains("SUPER"), "{grants:?}");
    let warned = |text: &str| restored.warnings.iter().filter(|w| w.contains(text)).count();
    assert_eq!(warned("known@localhost is there already"), 1, "{:#?}", restored.warnings);
    assert_eq!(warned("admin@localhost is not created"), 1, "{:#?}", restored.warnings);
    assert_eq!(warned("account @localhost is not created"), 1, "{:#?}", restored.warnings);
    // The source did not have that one either.
    assert_eq!(warned("app@%"), 0, "{:#?}", restored.warnings);
    assert!(!restored.warnings.iter().any(|w| w.contains(&hash)));
    backup_drivers::connect::open(&admin).await?;
    let made: Option<u32> =
        conn.query_first("SELECT COUNT(*) FROM mysql.user WHERE User = 'same'").await.unwrap();
    assert_eq!(made, Some(1));

    // Again, with other definers and without accounts.
    conn.query_drop("DROP USER same@localhost").await.unwrap();
    let map = [("app@%".parse()?, "admin@%".parse()?)].into();
    let options = LogicalRestoreOptions {
        overwrite: true,
        no_accounts: true,
        definers: Definers::Map(map),
        ..Default::default()
    };
    let restored = kept.restore(&target, options).await?;
    assert!(restored.warnings[0].contains("same@localhost (1);"), "{:#?}", restored.warnings);
    let definers = "SELECT CONCAT(DEFINER) FROM information_schema.VIEWS WHERE TABLE_SCHEMA = 'd' \
                    UNION ALL SELECT DEFINER FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = 'd'";
    let found: Vec<String> = conn.query(definers).await.unwrap();
    assert_eq!(found, ["admin@%", "same@localhost"]);
    let options =
        LogicalRestoreOptions { overwrite: true, definers: Definers::Strip, ..Default::default() };
    kept.restore(&target, options).await?;
    let found: Vec<String> = conn.query(definers).await.unwrap();
    assert_eq!(found, ["root@localhost", "root@localhost"]);

    // Only with the whole server, and only where they were not refused.
    let options = LogicalOptions { no_accounts: true, ..Default::default() };
    let without = Kept::backup(&source, options).await?;
    assert!(!without.outcome.objects.contains_key("accounts") && !without.text().contains("known"));
    Ok(())
}

/// Timestamps of MariaDB end later since 11.5, and with them the rows of the present.
#[tokio::test(flavor = "multi_thread")]
async fn the_present_stays_the_present_in_a_newer_server() -> Result<()> {
    let source = Server::start("mariadb-10.11").await?;
    let mut conn = source.connect().await?;
    for statement in [
        "CREATE DATABASE d",
        "CREATE TABLE d.t (a INT PRIMARY KEY) WITH SYSTEM VERSIONING",
        "INSERT INTO d.t VALUES (1), (2)",
        "DELETE FROM d.t WHERE a = 1",
    ] {
        conn.query_drop(statement).await.unwrap();
    }
    let kept = Kept::backup(&source, LogicalOptions::default()).await?;
    let target = Server::start("mariadb-11.8").await?;
    let restored = kept.restore(&target, LogicalRestoreOptions::default()).await?;
    assert_eq!(restored.rows, 2, "{restored:?}");
    let mut conn = target.connect().await?;
    let present: Vec<i32> = conn.query("SELECT a FROM d.t").await.unwrap();
    assert_eq!(present, [2]);
    let all: Vec<i32> =
        conn.query("SELECT a FROM d.t FOR SYSTEM_TIME ALL ORDER BY a").await.unwrap();
    assert_eq!(all, [1, 2]);
    let error = Kept::backup(&target, LogicalOptions::default()).await?;
    let error =
        error.restore(&source, LogicalRestoreOptions { overwrite: true, ..Default::default() });
    let error = error.await.unwrap_err();
    assert!(error.report().contains("2106"), "{}", error.report());
    Ok(())
}

/// How many lines the servers' own tools lose of the same server. Run it by hand: it measures others.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of other programs"]
async fn what_the_servers_own_tools_lose(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) -> Result<()> {
    let source = Server::start(name).await?;
    source.fill().await?;
    source.fill_more().await?;
    let target = Server::start(name).await?;
    let (dump, client, more): (_, _, &[&str]) = if name.starts_with("mysql") {
        let mut conn = target.connect().await?;
        conn.query_drop("SET GLOBAL partial_revokes = ON").await.unwrap();
        ("mysqldump", "mysql", &["--set-gtid-purged=OFF", "--column-statistics", "--hex-blob"])
    } else {
        let mut conn = target.connect().await?;
        conn.query_drop("INSTALL SONAME 'auth_ed25519'").await.unwrap();
        ("mariadb-dump", "mariadb", &["--system=users", "--dump-history", "--hex-blob"])
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    let socket = |server: &Server| format!("--socket={}", server.sandbox().socket().display());
    let dumped = source
        .sandbox()
        .install()
        .command(dump)?
        .args(["--no-defaults", "-uroot", &socket(&source), "--all-databases", "--routines"])
        .args(["--events", "--triggers", "--single-transaction", "--force"])
        .args(more)
        .stdout(file.reopen().unwrap())
        .output()
        .unwrap();
    println!("{dump}: {}\n{}", dumped.status, String::from_utf8_lossy(&dumped.stderr));
    let loaded = target
        .sandbox()
        .install()
        .command(client)?
        .args(["--no-defaults", "-uroot", &socket(&target), "--force", "--binary-mode"])
        .stdin(file.reopen().unwrap())
        .output()
        .unwrap();
    println!("{client}: {}\n{}", loaded.status, String::from_utf8_lossy(&loaded.stderr));
    let mut conn = target.connect().await?;
    conn.query_drop("FLUSH PRIVILEGES").await.unwrap();
    let (before, after) = (everything(&source).await?, everything(&target).await?);
    let differing = differing(&before, &after);
    println!(
        "{}\n{name}: {} of {} lines differ",
        differing.join("\n"),
        differing.len(),
        before.len()
    );
    Ok(())
}

/// The same of the `mydumper` and `myloader` on the PATH, of one database: what they do not know is left out, and names
/// that they cannot dump.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of other programs, which have to be there"]
async fn what_mydumper_loses(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) -> Result<()> {
    let source = Server::start(name).await?;
    source.fill().await?;
    source.fill_more().await?;
    let mut conn = source.connect().await?;
    let ticked: Vec<(String, String)> = conn
        .query(
            "SELECT ROUTINE_TYPE, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = 'shop' UNION \
             SELECT IF(TABLE_TYPE = 'VIEW', 'VIEW', 'TABLE'), TABLE_NAME FROM information_schema.TABLES WHERE \
             TABLE_SCHEMA = 'shop' UNION SELECT 'EVENT', EVENT_NAME FROM information_schema.EVENTS WHERE \
             EVENT_SCHEMA = 'shop' UNION SELECT 'TRIGGER', TRIGGER_NAME FROM information_schema.TRIGGERS WHERE \
             TRIGGER_SCHEMA = 'shop'",
        )
        .await
        .unwrap();
    for (kind, name) in ticked.iter().filter(|(_, name)| name.contains('`')) {
        let sql = format!("DROP {kind} IF EXISTS shop.{}", quote_name(name));
        conn.query_drop(sql).await.unwrap();
    }
    let target = Server::start(name).await?;
    let mut conn = target.connect().await?;
    conn.query_drop("SET GLOBAL local_infile = ON").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("dump");
    let run = |program: &str, server: &Server, arguments: &[&str]| {
        let mut command = std::process::Command::new(program);
        command.args(["--user", "root", "--socket"]).arg(server.sandbox().socket());
        let output = command.args(arguments).output().unwrap();
        println!("{program}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    };
    let out = out.to_str().unwrap();
    let all = [
        "--database",
        "shop",
        "--outputdir",
        out,
        "--routines",
        "--triggers",
        "--events",
        "--trx-tables",
        "0",
    ];
    run("mydumper", &source, &all);
    run("myloader", &target, &["--directory", out]);
    let mut lines = [everything(&source).await?, everything(&target).await?];
    for lines in &mut lines {
        lines.retain(|name, _| name.contains(" shop."));
    }
    let differing = differing(&lines[0], &lines[1]);
    let (count, all) = (differing.len(), lines[0].len());
    println!("{}\n{name}: {count} of {all} lines differ", differing.join("\n"));
    Ok(())
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_stays_as_it_is_is_foreseen(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) -> Result<()> {
    let source = Server::start(name).await?;
    let mut conn = source.connect().await?;
    conn.query_drop("CREATE DATABASE Dd CHARACTER SET utf8mb4").await.unwrap();
    conn.query_drop("CREATE TABLE Dd.t (a INT PRIMARY KEY)").await.unwrap();
    let kept = Kept::backup(&source, LogicalOptions::default()).await?;
    let cx = backup_core::Context::builder().build();
    let told = "the database Dd is there already and stays as it is";
    for (case, create, expected) in [
        ("0", "CREATE DATABASE Dd CHARACTER SET latin1", true),
        ("0", "CREATE DATABASE Dd CHARACTER SET utf8mb4", false),
        ("1", "CREATE DATABASE dd CHARACTER SET utf8mb4", false),
        ("1", "CREATE DATABASE dd CHARACTER SET latin1", true),
    ] {
        let target = Server::start_with(name, &[("lower_case_table_names", case)], false).await?;
        target.connect().await?.query_drop(create).await.unwrap();
        let options = LogicalRestoreOptions { no_accounts: true, ..Default::default() };
        let driver = backup_drivers::logical::LogicalRestore::new(target.as_root(), options);
        let plan =
            backup_core::Restore::plan(&driver, &cx, &kept.manifest(), kept.artifacts()).await?;
        let foreseen = plan.findings.iter().any(|f| f.problem.contains(told));
        let restored = kept.restore_by(driver).await?;
        let warned = restored.warnings.iter().any(|w| w.contains(told));
        assert_eq!(
            (foreseen, warned),
            (expected, expected),
            "{case} {create}: {:?}",
            restored.warnings
        );
    }
    Ok(())
}
