//! What accounts may do, through restores over what is there, files and drills.

use backup_core::{Context, Flavor, Restore, Result, Severity};
use backup_drivers::logical::recreate::Definers;
use backup_drivers::logical::{
    CATALOG, Catalog, LogicalOptions, LogicalRestore, LogicalRestoreOptions, Selection, StoredKind,
    drill,
};
use bytes::Bytes;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use rstest::rstest;
use tempfile::TempDir;

use crate::exported::{exported_sql, load};
use crate::memory::Kept;
use crate::server::Server;

async fn run(conn: &mut Conn, statements: &[&str]) {
    for statement in statements {
        conn.query_drop(*statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
}

/// A database with routines of all kinds, and accounts that may do something with them.
async fn fill(conn: &mut Conn, flavor: Flavor) {
    run(
        conn,
        &[
            "CREATE DATABASE d",
            "CREATE TABLE d.t (a INT PRIMARY KEY)",
            "INSERT INTO d.t VALUES (1), (2)",
            "CREATE TRIGGER d.tr BEFORE INSERT ON d.t FOR EACH ROW SET @a = 1",
            "CREATE VIEW d.v AS SELECT a FROM d.t",
            "CREATE PROCEDURE d.P () SELECT 1",
            "CREATE FUNCTION d.f () RETURNS INT DETERMINISTIC RETURN 1",
            "CREATE USER 'it''s'@'10.%' IDENTIFIED BY 'x'",
            "CREATE ROLE r",
            "GRANT EXECUTE, ALTER ROUTINE ON PROCEDURE d.p TO 'it''s'@'10.%' WITH GRANT OPTION",
            "GRANT USAGE ON FUNCTION d.f TO 'it''s'@'10.%' WITH GRANT OPTION",
            "GRANT SELECT (a) ON d.t TO 'it''s'@'10.%'",
            "GRANT SELECT ON d.v TO 'it''s'@'10.%'",
            "GRANT EXECUTE ON FUNCTION d.f TO r",
        ],
    )
    .await;
    let of_family: &[&str] = match flavor {
        Flavor::MySql => &[
            "CREATE LIBRARY d.l LANGUAGE JAVASCRIPT AS 'export function f(n) {return n}'",
            "GRANT EXECUTE ON LIBRARY d.l TO r",
        ],
        Flavor::MariaDb => &[
            "SET sql_mode = 'ORACLE'",
            "CREATE PACKAGE d.k AS FUNCTION f RETURN INT; END",
            "CREATE PACKAGE BODY d.k AS FUNCTION f RETURN INT AS BEGIN RETURN 1; END; END",
            "GRANT EXECUTE ON PACKAGE d.k TO r",
            "GRANT EXECUTE ON PACKAGE BODY d.k TO r",
            "SET sql_mode = ''",
        ],
    };
    run(conn, of_family).await;
}

async fn grants(conn: &mut Conn) -> Vec<String> {
    let mut grants = Vec::new();
    for account in ["'it''s'@'10.%'", "r"] {
        grants.extend(conn.query::<String, _>(format!("SHOW GRANTS FOR {account}")).await.unwrap());
    }
    grants.sort();
    grants
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn privileges_on_routines_outlive_what_is_overwritten(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) -> Result<()> {
    let server = Server::start(name).await?;
    let mut conn = server.connect().await?;
    let flavor = server.facts().await?.flavor;
    fill(&mut conn, flavor).await;
    let kept = Kept::backup(&server, LogicalOptions::default()).await?;
    let before = grants(&mut conn).await;
    let whole = LogicalRestoreOptions { overwrite: true, ..Default::default() };
    let selection = Selection { databases: ["d".to_owned()].into(), ..Selection::default() };
    let part = LogicalRestoreOptions { selection, ..whole.clone() };
    for options in [part, whole.clone()] {
        let restored = kept.restore(&server, options).await?;
        assert_eq!(grants(&mut conn).await, before);
        assert!(restored.warnings.is_empty(), "{:#?}", restored.warnings);
    }

    // A restore that fails once everything is dropped, and is gone on with.
    let catalog = Catalog::read(&*kept.artifacts()).await?;
    let broken = kept.copy();
    broken.lose(catalog.tables[0].chunks[0].artifact.as_str());
    broken.restore(&server, whole.clone()).await.unwrap_err();
    assert_ne!(grants(&mut conn).await, before);
    // As though it had died while it dropped: the next run makes its marks anew, but for the grants, which are nowhere
    // else any more. They stay in the table that has them, whenever that run dies.
    let marks = "SELECT CONCAT('d.', TABLE_NAME) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'd' AND \
                 TABLE_NAME LIKE 'holdfast%'";
    let marks: String = conn.query_first(marks).await.unwrap().unwrap();
    run(
        &mut conn,
        &[
            &format!("DELETE FROM {marks} WHERE item NOT LIKE 'grant%'"),
            &format!("ALTER TABLE {marks} COMMENT = 'the same'"),
        ],
    )
    .await;
    broken.restore(&server, whole.clone()).await.unwrap_err();
    let shown: (String, String) =
        conn.query_first(format!("SHOW CREATE TABLE {marks}")).await.unwrap().unwrap();
    assert!(shown.1.contains("the same"), "{}", shown.1);
    kept.restore(&server, whole.clone()).await?;
    assert_eq!(grants(&mut conn).await, before);
    // The same when the routines are there again, and are made once more.
    let broken = kept.copy();
    let mut wrong = catalog.clone();
    wrong.stored.iter_mut().filter(|o| o.kind == StoredKind::Trigger).for_each(|trigger| {
        trigger.create = trigger.create.replace("SET @a", "SAT @a");
    });
    let lines = wrong.to_lines().map(|line| line.map(Bytes::from)).collect::<Result<Vec<_>>>()?;
    broken.change(CATALOG, |pieces, _| *pieces = lines);
    broken.restore(&server, whole.clone()).await.unwrap_err();
    assert_eq!(grants(&mut conn).await, before);
    kept.restore(&server, whole.clone()).await?;
    assert_eq!(grants(&mut conn).await, before);

    // Who may not see them says so beforehand, and who may not give them names them.
    run(&mut conn, &["CREATE USER admin@localhost", "GRANT ALL ON d.* TO admin@localhost"]).await;
    let more = match flavor {
        Flavor::MySql => "GRANT SET_ANY_DEFINER, SYSTEM_USER, SYSTEM_VARIABLES_ADMIN",
        Flavor::MariaDb => "GRANT SUPER, SET USER, BINLOG ADMIN",
    };
    run(&mut conn, &[&format!("{more} ON *.* TO admin@localhost")]).await;
    let admin = backup_drivers::connect::ConnectOptions::socket(server.sandbox().socket(), "admin");
    let options = LogicalRestoreOptions { no_accounts: true, ..whole };
    let driver = LogicalRestore::new(admin.clone(), options.clone());
    let cx = Context::builder().threads(2).build();
    let steps = driver.plan(&cx, &kept.manifest(), kept.artifacts()).await?;
    let told: Vec<_> =
        steps.findings.iter().filter(|f| f.object.contains("procedure d.P")).collect();
    assert_eq!(told.len(), 1, "{:#?}", steps.findings);
    assert_eq!(told[0].severity, Severity::Warning);
    run(&mut conn, &["GRANT SELECT ON mysql.* TO admin@localhost"]).await;
    let restored = kept.restore_by(driver).await?;
    let told = |text: &str| restored.warnings.iter().any(|w| w.contains(text));
    assert!(told("not granted: GRANT EXECUTE ON FUNCTION `d`.`f` TO `r`"), "{restored:#?}");
    Ok(())
}

/// Who has which roles, and which by default.
async fn memberships(conn: &mut Conn) -> Vec<String> {
    let sql = "SELECT CONCAT_WS(' ', Role, User, Host, Admin_option) FROM mysql.roles_mapping UNION ALL \
               SELECT CONCAT_WS(' ', 'default', User, default_role) FROM mysql.user WHERE default_role <> '' ORDER BY 1";
    conn.query(sql).await.unwrap()
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn roles_that_are_there_are_granted_by_a_file_too(
    #[values("mariadb-10.11", "mariadb-11.8")] name: &str,
) -> Result<()> {
    let source = Server::start(name).await?;
    let mut conn = source.connect().await?;
    let statements = [
        "CREATE DATABASE d",
        "CREATE USER u@localhost",
        "CREATE USER other@localhost",
        "CREATE ROLE led WITH ADMIN u@localhost",
        "SET DEFAULT ROLE led FOR u@localhost",
        "CREATE ROLE plain",
        "GRANT plain TO u@localhost",
        "CREATE ROLE nested WITH ADMIN plain",
    ];
    run(&mut conn, &statements).await;
    // Whoever may grant a role to others has done so.
    let mut as_u = source.connect_as("u").await?;
    run(&mut as_u, &["GRANT led TO other@localhost"]).await;
    let expected = memberships(&mut conn).await;
    let kept = Kept::backup(&source, LogicalOptions::default()).await?;
    let directory = TempDir::new().unwrap();
    exported_sql(&kept, directory.path()).await?;

    let target = Server::start(name).await?;
    let mut conn = target.connect().await?;
    // Also where all of it is there.
    for _ in 0..2 {
        load(&target, directory.path(), "dump.sql");
        assert_eq!(memberships(&mut conn).await, expected);
    }

    let target = Server::start(name).await?;
    let mut conn = target.connect().await?;
    run(&mut conn, &["CREATE ROLE led", "CREATE ROLE plain"]).await;
    let ours = memberships(&mut conn).await;
    load(&target, directory.path(), "dump.sql");
    let found = memberships(&mut conn).await;
    let lacks: Vec<_> = expected.iter().filter(|line| !found.contains(line)).collect();
    assert!(lacks.is_empty(), "{lacks:?} of {found:#?}");
    // Whoever loads keeps what it had before, and gets no more.
    let more: Vec<_> =
        found.iter().filter(|l| !expected.contains(l) && !ours.contains(l)).collect();
    assert!(more.is_empty(), "{more:?}");
    assert!(ours.iter().all(|line| found.contains(line)), "{found:#?}");
    Ok(())
}

/// MariaDB gives a role to whoever creates it: a restore keeps none that the source had not given it, also where those
/// who had it are not there.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_keeps_no_role(
    #[values("mariadb-10.11", "mariadb-11.8")] name: &str,
) -> Result<()> {
    let source = Server::start(name).await?;
    let mut conn = source.connect().await?;
    let statements = [
        "INSTALL SONAME 'auth_ed25519'",
        "CREATE USER e1@localhost IDENTIFIED VIA ed25519 USING PASSWORD('secret')",
        "CREATE USER gone@localhost",
        "CREATE USER u@localhost",
        "CREATE ROLE led WITH ADMIN e1@localhost",
        "CREATE ROLE orphan WITH ADMIN gone@localhost",
        "CREATE ROLE kept WITH ADMIN u@localhost",
        "CREATE ROLE own",
        "GRANT own TO u@localhost",
        "DROP USER gone@localhost",
    ];
    run(&mut conn, &statements).await;
    let mut expected = memberships(&mut conn).await;
    let kept = Kept::backup(&source, LogicalOptions::default()).await?;
    let target = Server::start(name).await?;
    let restored = kept.restore(&target, LogicalRestoreOptions::default()).await?;
    let mut conn = target.connect().await?;
    // The target lacks the plugin.
    expected.retain(|line| !line.contains("e1"));
    assert_eq!(memberships(&mut conn).await, expected);
    let told = restored.warnings.concat();
    assert!(told.contains("may grant the role led: at the source e1@localhost might"), "{told}");
    assert!(!told.contains("orphan"), "{told}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_proves_accounts_with_partial_revokes() -> Result<()> {
    let source = Server::start("mysql-9.7").await?;
    let mut conn = source.connect().await?;
    let statements = [
        "SET GLOBAL partial_revokes = ON",
        "CREATE DATABASE d",
        "CREATE TABLE d.t (a INT PRIMARY KEY)",
        "CREATE USER part@localhost",
        "GRANT SELECT ON *.* TO part@localhost",
        "REVOKE SELECT ON d.* FROM part@localhost",
    ];
    run(&mut conn, &statements).await;
    let shown = "SHOW GRANTS FOR part@localhost";
    let expected: Vec<String> = conn.query(shown).await.unwrap();
    assert_eq!(expected.len(), 2, "{expected:?}");
    let kept = Kept::backup(&source, LogicalOptions::default()).await?;
    let private = Server::start("mysql-9.7").await?;
    let cx = Context::builder().threads(2).build();
    let report = drill(&cx, &private.as_root(), &kept.manifest(), kept.artifacts()).await?;
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
    let found: Vec<String> = private.connect().await?.query(shown).await.unwrap();
    assert_eq!(found, expected);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definer_that_nothing_has_is_told() -> Result<()> {
    let server = Server::start("mariadb-11.8").await?;
    let mut conn = server.connect().await?;
    fill(&mut conn, Flavor::MariaDb).await;
    let kept = Kept::backup(&server, LogicalOptions::default()).await?;
    let map = [("nosuch@localhost", "r"), ("root@localhost", "root@localhost")];
    let map = map.into_iter().map(|(old, new)| Ok((old.parse()?, new.parse()?)));
    let options = LogicalRestoreOptions {
        overwrite: true,
        definers: Definers::Map(map.collect::<Result<_>>()?),
        ..Default::default()
    };
    let driver = LogicalRestore::new(server.as_root(), options.clone());
    let cx = Context::builder().threads(2).build();
    let steps = driver.plan(&cx, &kept.manifest(), kept.artifacts()).await?;
    let told = |text: &str| text.contains("nothing has the definer nosuch@localhost");
    let findings = steps.findings.iter().filter(|f| told(&f.problem));
    assert_eq!(findings.count(), 1, "{:#?}", steps.findings);
    let restored = kept.restore(&server, options).await?;
    assert_eq!(restored.warnings.len(), 1, "{:#?}", restored.warnings);
    assert!(told(&restored.warnings[0]), "{:#?}", restored.warnings);
    Ok(())
}
