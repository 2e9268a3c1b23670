//! Every definition survives: read from a server, made again on another one, and the same.

#![allow(clippy::unwrap_used)]

mod consistent;
mod encrypted;
mod exact;
mod examined;
mod exported;
mod foreign;
mod granted;
mod hard;
mod masked;
mod memory;
mod nasty;
mod no_text;
mod renamed;
mod same_names;
mod server;
mod waits;

use std::collections::BTreeSet;

use backup_core::{ErrorKind, Flavor, Result, Severity};
use backup_drivers::logical::inventory::{self, ServerFacts};
use backup_drivers::logical::recreate::{self, ExistingKind};
use backup_drivers::logical::{Catalog, Object, Rename, RenameRule, Selection, StoredKind, Table};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use rstest::rstest;

use server::{Server, definitions, differences};

/// All phases of a restore without rows.
async fn recreate_all(
    conn: &mut Conn,
    facts: &ServerFacts,
    catalog: &Catalog,
) -> Result<Vec<String>> {
    let mut accounts = recreate::AccountsInWork::default();
    let mut warnings = recreate::create_databases(conn, facts, catalog).await?;
    recreate::create_tables(conn, facts, catalog).await?;
    warnings.extend(recreate::create_code(conn, facts, catalog, &mut accounts).await?);
    warnings.extend(recreate::create_triggers(conn, facts, catalog).await?);
    warnings.extend(recreate::create_events(conn, facts, catalog).await?);
    Ok(warnings)
}

fn chosen(catalog: &Catalog, rules: &[&str]) -> Catalog {
    let rename: Rename = rules.iter().map(|r| r.parse::<RenameRule>().unwrap()).collect();
    recreate::choose(catalog.clone(), &Selection::default(), &rename).unwrap()
}

/// The catalogue after it was written down and read again.
fn stored(catalog: &Catalog) -> Catalog {
    let mut read = Catalog {
        databases: Vec::new(),
        tables: Vec::new(),
        stored: Vec::new(),
        accounts: Vec::new(),
        warnings: Vec::new(),
        ..catalog.clone()
    };
    for line in catalog.to_lines().skip(1) {
        match serde_json::from_slice(&line.unwrap()).unwrap() {
            Object::Database(database) => read.databases.push(database),
            Object::Table(table) => read.tables.push(*table),
            Object::Stored(object) => read.stored.push(*object),
            Object::Account(account) => read.accounts.push(*account),
        }
    }
    read
}

#[rstest]
#[tokio::test]
async fn every_definition_survives(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) -> Result<()> {
    let source = Server::start(name).await?;
    source.fill().await?;
    let facts = source.facts().await?;
    let catalog =
        inventory::read(&mut source.connect().await?, &facts, &Selection::default()).await?;
    assert!(catalog.warnings.is_empty(), "{:#?}", catalog.warnings);

    let target = Server::start(name).await?;
    let mut conn = target.connect().await?;
    let catalog = chosen(&stored(&catalog), &[]);
    let plan = recreate::plan(&mut conn, &facts, &catalog).await?;
    assert_eq!((plan.existing.as_slice(), plan.findings.as_slice()), (&[][..], &[][..]));
    let warnings = recreate_all(&mut conn, &facts, &catalog).await?;
    assert!(warnings.is_empty(), "{warnings:#?}");

    // Code runs under the settings it had, and what would not is told.
    let settings = recreate::differing_settings(&mut conn, &facts, &catalog).await?;
    assert!(settings.is_empty(), "{settings:#?}");
    let mut other = catalog.clone();
    for object in &mut other.stored {
        let change = |setting: &mut Option<String>, to: &str| {
            setting.iter_mut().for_each(|setting| *setting = to.to_owned());
        };
        match object.name.as_str() {
            "f1" => change(&mut object.sql_mode, "STRICT_ALL_TABLES"),
            "tr_ansi" => change(&mut object.charset, "greek"),
            "ev_on" => change(&mut object.time_zone, "+01:00"),
            "latin \u{e9}" => change(&mut object.database_collation, "greek_bin"),
            _ => {}
        }
    }
    let settings = recreate::differing_settings(&mut conn, &facts, &other).await?;
    let told = |words: &str| settings.iter().filter(|w| w.contains(words)).count();
    assert_eq!(
        (settings.len(), told("database collation `utf8mb4_bin` now")),
        (4, 1),
        "{settings:#?}"
    );
    assert_eq!(told("the function shop.f1 has the sql_mode `` now"), 1, "{settings:#?}");
    assert_eq!(told("the trigger shop.tr_ansi has the character_set_client"), 1, "{settings:#?}");
    assert_eq!(told("the event shop.ev_on has the time zone `-03:30` now"), 1, "{settings:#?}");

    let before = definitions(&mut source.connect().await?, facts.flavor).await;
    let after = definitions(&mut target.connect().await?, facts.flavor).await;
    let differences = differences(&before, &after);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert_eq!(nasty::DATABASES.len(), catalog.databases.len());
    assert!(before.len() > 90, "{}", before.len());

    // Triggers fire in the order of the source.
    conn.query_drop("INSERT INTO shop.t VALUES (1)").await.unwrap();
    let fired: Vec<String> = conn.query("SELECT who FROM shop.fired ORDER BY n").await.unwrap();
    assert_eq!(fired, ["first", "second", "third"]);
    // What SHOW CREATE prints as question marks is there all the same.
    let emoji: Vec<(String, String)> = {
        conn.query_drop("SET NAMES utf8mb4").await.unwrap();
        conn.query_drop("SET SESSION sql_mode = 'STRICT_ALL_TABLES'").await.unwrap();
        conn.query_drop("INSERT INTO shop.emoji (b) VALUES ('🎉,🎈,?')").await.unwrap();
        conn.query("SELECT a, b FROM shop.emoji").await.unwrap()
    };
    assert_eq!(emoji, [("🎉".to_owned(), "🎉,🎈,?".to_owned())]);
    conn.query_drop("INSERT INTO shop.charsets (a) VALUES ('x')").await.unwrap();
    let defaults: Option<(String, String, String)> =
        conn.query_first("SELECT f, g, k FROM shop.charsets").await.unwrap();
    assert_eq!(defaults, Some(("a🎉?".into(), "🎉".into(), "?".into())));
    Ok(())
}

#[rstest]
#[tokio::test]
async fn columns_and_keys_are_those_whose_values_count(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) -> Result<()> {
    let source = Server::start(name).await?;
    source.fill().await?;
    let facts = source.facts().await?;
    let mut conn = source.connect().await?;
    let selection = Selection { databases: ["shop".to_owned()].into(), ..Selection::default() };
    let catalog = inventory::read(&mut conn, &facts, &selection).await?;
    let listed = inventory::list_tables(&mut conn, &selection).await?;
    let tables: Vec<_> = catalog.tables.iter().map(Table::full_name).collect();
    assert_eq!(listed, tables);

    let table = |name: &str| catalog.tables.iter().find(|t| t.name == name).unwrap();
    let columns =
        |name: &str| -> Vec<&str> { table(name).columns.iter().map(|c| c.name.as_str()).collect() };
    assert_eq!(columns("generated"), ["a", "id"]);
    assert_eq!(columns("invisible"), ["a", "b", "c"]);
    assert_eq!(columns("expressions"), ["a", "b", "c", "d"]);
    assert_eq!(table("keys").key, ["b", "a"]);
    assert_eq!(table("by_range").key, ["id", "d"]);
    assert_eq!(table("memory").key, ["a"]);
    assert!(table("t").key.is_empty() && table("comments").key.is_empty());
    assert!(table("t").transactional && !table("myisam").transactional);
    let digits: Vec<Option<u8>> =
        table("defaults").columns[..3].iter().map(|c| c.fraction_digits).collect();
    assert_eq!(digits, [None, Some(6), Some(3)]);
    assert_eq!(table("charsets").columns[2].charset.as_deref(), Some("ucs2"));
    match facts.flavor {
        Flavor::MySql => {
            assert_eq!(columns("gipk"), ["my_row_id", "a"]);
            assert_eq!(table("gipk").key, ["my_row_id"]);
            assert!(table("functional").key.is_empty());
            assert!(table("merged").rows_elsewhere);
        }
        Flavor::MariaDb => {
            assert_eq!(columns("persistent"), ["a", "j"]);
            assert_eq!(columns("versioned"), ["a", "b", "s", "e"]);
            assert_eq!(columns("history"), ["a", "row_start", "row_end"]);
            assert_eq!(table("periods").key, ["id", "t", "f"]);
        }
    }

    // Single tables come with their triggers and nothing else.
    let selection =
        Selection { tables: ["shop.t".parse().unwrap()].into(), ..Selection::default() };
    let one = inventory::read(&mut conn, &facts, &selection).await?;
    assert_eq!(one.tables.len(), 1);
    assert_eq!(one.stored.len(), 4);
    assert!(one.stored.iter().all(|o| o.kind == StoredKind::Trigger));
    for missing in ["shop.none", "none.t", "shop.v1"] {
        let selection =
            Selection { tables: [missing.parse().unwrap()].into(), ..Selection::default() };
        let error = inventory::read(&mut conn, &facts, &selection).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{missing}");
    }
    Ok(())
}

#[rstest]
#[tokio::test]
async fn what_the_target_holds_is_listed_and_dropped_when_asked(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) -> Result<()> {
    let server = Server::start(name).await?;
    server.fill().await?;
    let facts = server.facts().await?;
    let mut conn = server.connect().await?;
    let catalog = inventory::read(&mut conn, &facts, &Selection::default()).await?;
    let catalog = chosen(&catalog, &[]);
    let before = definitions(&mut server.connect().await?, facts.flavor).await;

    conn.query_drop("CREATE TABLE shop.kept (a INT)").await.unwrap();
    conn.query_drop("INSERT INTO shop.T VALUES (1), (2)").await.unwrap();
    let plan = recreate::plan(&mut conn, &facts, &catalog).await?;
    assert_eq!(plan.findings, []);
    let names: BTreeSet<String> = plan.existing.iter().map(|e| e.name.to_string()).collect();
    let kinds: BTreeSet<ExistingKind> = plan.existing.iter().map(|e| e.kind).collect();
    assert!(!names.contains("shop.kept") && names.contains("shop.T"), "{names:?}");
    assert!(kinds.contains(&ExistingKind::Stored(StoredKind::Event)));
    // Triggers go with their tables, tablespaces stay.
    let expected = catalog
        .stored
        .iter()
        .filter(|o| !matches!(o.kind, StoredKind::Trigger | StoredKind::Tablespace));
    assert_eq!(plan.existing.len(), catalog.tables.len() + expected.count());
    assert!(plan.existing.iter().any(|e| e.to_string().starts_with("table shop.T (about ")));

    let error = recreate::create_tables(&mut conn, &facts, &catalog).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Target);
    recreate::drop_existing(&mut conn, &facts, &plan.existing).await?;
    assert_eq!(recreate::plan(&mut conn, &facts, &catalog).await?.existing, []);
    recreate_all(&mut conn, &facts, &catalog).await?;
    conn.query_drop("DROP TABLE shop.kept").await.unwrap();
    let after = definitions(&mut server.connect().await?, facts.flavor).await;
    let differences = differences(&before, &after);
    assert!(differences.is_empty(), "{}", differences.join("\n"));

    let mut unknown = catalog.clone();
    let table = &mut unknown.tables[0];
    table.engine = "Nonesuch".into();
    table.create.push_str(" COLLATE=latin1_martian_ci");
    let plan = recreate::plan(&mut conn, &facts, &unknown).await?;
    let problems: Vec<&str> = plan.findings.iter().map(|f| f.problem.as_str()).collect();
    assert_eq!(
        problems,
        [
            "the target has no collation latin1_martian_ci",
            "the target has no storage engine Nonesuch"
        ]
    );
    assert!(plan.findings.iter().all(|f| f.severity == Severity::Error));
    Ok(())
}

#[rstest]
#[tokio::test]
async fn a_renamed_copy_stands_beside_the_original(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) -> Result<()> {
    let server = Server::start(name).await?;
    server.fill().await?;
    let facts = server.facts().await?;
    let mut conn = server.connect().await?;
    let catalog = inventory::read(&mut conn, &facts, &Selection::default()).await?;
    let before = definitions(&mut server.connect().await?, facts.flavor).await;

    // Whole databases.
    let rules = ["shop=`co py```", "`we ird.``db``/%é`=w", "ORDER=`ORDER 2`", "`x'y\\z`=xyz"];
    let copy = chosen(&catalog, &rules);
    assert_eq!(recreate::plan(&mut conn, &facts, &copy).await?.existing, []);
    let warnings = recreate_all(&mut conn, &facts, &copy).await?;
    assert!(warnings.is_empty(), "{warnings:#?}");
    let after = definitions(&mut server.connect().await?, facts.flavor).await;
    let lost: Vec<_> = before.keys().filter(|key| before.get(*key) != after.get(*key)).collect();
    assert!(lost.is_empty(), "the originals changed: {lost:?}");
    let copied = after.keys().filter(|key| key.0 == "co py`").count();
    let original = after.keys().filter(|key| key.0 == "shop").count();
    assert_eq!(copied, original);
    // Views read from the copy, foreign keys refer to it.
    for (key, columns) in
        after.iter().filter(|(key, _)| ["co py`", "ORDER 2"].contains(&key.0.as_str()))
    {
        let create =
            columns.iter().flatten().map(|c| String::from_utf8_lossy(c)).collect::<String>();
        if ["VIEW", "TABLE"].contains(&key.1.as_str()) {
            // A string, and an alias that is called like the database.
            let text = create.replace("'shop.`t`'", "").replace("`shop`.`a`", "");
            let text = text.replace("`t` `shop`", "");
            assert!(!text.contains("`shop`") && !text.contains("`ORDER`"), "{key:?}: {create}");
        }
    }
    conn.query_drop("INSERT INTO `co py```.`T` VALUES (7)").await.unwrap();
    let rows: Vec<i64> = conn.query("SELECT a FROM `co py```.v_window").await.unwrap();
    assert_eq!(rows, [7]);

    // Single tables, in their own database.
    let selection = Selection {
        tables: ["shop.parent", "shop.cycle1", "shop.checks", "shop.t"]
            .map(|t| t.parse().unwrap())
            .into(),
        ..Selection::default()
    };
    let rename: Rename = [
        "shop.parent=shop.parent 2",
        "shop.cycle1=shop.cycle1b",
        "shop.checks=shop.checks2",
        "shop.t=ORDER.t",
    ]
    .map(|r| r.replace("parent 2", "`parent 2`").parse::<RenameRule>().unwrap())
    .into_iter()
    .collect();
    let copy = recreate::choose(catalog, &selection, &rename)?;
    assert_eq!(recreate::plan(&mut conn, &facts, &copy).await?.existing, []);
    recreate::create_databases(&mut conn, &facts, &copy).await?;
    recreate::create_tables(&mut conn, &facts, &copy).await?;
    recreate::create_triggers(&mut conn, &facts, &copy).await?;
    let again = definitions(&mut server.connect().await?, facts.flavor).await;
    let changed: Vec<_> = after.keys().filter(|key| after.get(*key) != again.get(*key)).collect();
    assert!(changed.is_empty(), "{changed:?}");
    let create = |database: &str, table: &str| {
        let columns = &again[&(database.to_owned(), "TABLE".to_owned(), table.to_owned())];
        String::from_utf8_lossy(columns[1].as_ref().unwrap()).into_owned()
    };
    assert!(create("shop", "parent 2").contains("REFERENCES `parent 2` (`id`)"));
    assert!(create("shop", "cycle1b").contains("REFERENCES `cycle2` (`id`)"));
    assert!(again.contains_key(&("ORDER".into(), "TRIGGER".into(), "z_first".into())));
    Ok(())
}

/// What an account needs is said with the statement that grants it, and nothing is read without.
#[rstest]
#[tokio::test]
async fn what_the_account_may_not_see_is_an_error(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) -> Result<()> {
    let server = Server::start(name).await?;
    server.fill().await?;
    let facts = server.facts().await?;
    let mut root = server.connect().await?;
    let everything = Selection::default();
    assert_eq!(inventory::missing_privileges(&mut root, &facts, &everything).await?, []);
    let expected = inventory::read(&mut root, &facts, &everything).await?;
    let mut root = server.connect().await?;

    // One after the other, until nothing is missing.
    root.query_drop("CREATE USER 'it''s'@'localhost'").await.unwrap();
    let mut conn = server.connect_as("it's").await?;
    let missing = inventory::missing_privileges(&mut conn, &facts, &everything).await?;
    let mut refused = 0;
    for privilege in &missing {
        match inventory::read(&mut server.connect_as("it's").await?, &facts, &everything).await {
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Privilege, "{}", error.report());
                refused += 1;
            }
        }
        root.query_drop(&privilege.grant).await.unwrap();
    }
    assert!(refused >= 4, "{missing:?}");
    let mut conn = server.connect_as("it's").await?;
    assert_eq!(inventory::missing_privileges(&mut conn, &facts, &everything).await?, []);
    // MySQL has tables in general tablespaces here.
    if facts.flavor == Flavor::MySql {
        let error = inventory::read(&mut conn, &facts, &everything).await.unwrap_err();
        assert!(error.remedy().contains("PROCESS"), "{}", error.report());
        root.query_drop("GRANT PROCESS ON *.* TO 'it''s'@'localhost'").await.unwrap();
        conn = server.connect_as("it's").await?;
    }
    assert_eq!(inventory::read(&mut conn, &facts, &everything).await?, expected);

    // By a role, and on one database.
    let selection = Selection { databases: ["ORDER".to_owned()].into(), ..Selection::default() };
    for statement in [
        "CREATE USER narrow@localhost",
        "CREATE ROLE reader",
        "GRANT SELECT, SHOW VIEW, EVENT ON `ORDER`.* TO reader",
        "GRANT reader TO narrow@localhost",
        match facts.flavor {
            Flavor::MySql => "SET DEFAULT ROLE reader TO narrow@localhost",
            Flavor::MariaDb => "SET DEFAULT ROLE reader FOR narrow@localhost",
        },
        match facts.flavor {
            Flavor::MySql => "GRANT SHOW_ROUTINE ON *.* TO narrow@localhost",
            Flavor::MariaDb => "GRANT SELECT ON mysql.proc TO narrow@localhost",
        },
    ] {
        root.query_drop(statement).await.unwrap();
    }
    let mut conn = server.connect_as("narrow").await?;
    let error = inventory::read(&mut conn, &facts, &selection).await.unwrap_err();
    assert!(error.report().contains("TRIGGER ON `ORDER`.*"), "{}", error.report());
    assert!(!error.report().contains("SHOW VIEW"), "{}", error.report());
    root.query_drop("GRANT TRIGGER ON `ORDER`.* TO reader").await.unwrap();
    let mut conn = server.connect_as("narrow").await?;
    let catalog = inventory::read(&mut conn, &facts, &selection).await?;
    // On a single table.
    root.query_drop("GRANT SELECT, TRIGGER ON shop.t TO narrow@localhost").await.unwrap();
    let table = Selection { tables: ["shop.t".parse().unwrap()].into(), ..Selection::default() };
    let mut conn = server.connect_as("narrow").await?;
    assert_eq!(inventory::read(&mut conn, &facts, &table).await?.stored.len(), 4);
    let of_all = expected.stored.iter().filter(|o| o.database == "ORDER").count();
    assert_eq!(catalog.stored.len(), of_all);
    Ok(())
}

#[rstest]
#[tokio::test]
async fn an_account_that_may_not_restore_is_told_what_it_lacks(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) -> Result<()> {
    let server = Server::start(name).await?;
    let facts = server.facts().await?;
    let mut root = server.connect().await?;
    for statement in [
        "CREATE DATABASE d",
        "CREATE TABLE d.t (a INT)",
        "CREATE DEFINER = gone@nowhere VIEW d.v AS SELECT a FROM d.t",
        "CREATE USER plain@localhost",
        "GRANT ALL PRIVILEGES ON d.* TO plain@localhost",
    ] {
        root.query_drop(statement).await.unwrap();
    }
    let catalog = inventory::read(&mut root, &facts, &Selection::default()).await?;
    root.query_drop("DROP VIEW d.v").await.unwrap();
    root.query_drop("DROP TABLE d.t").await.unwrap();
    let mut plain = server.connect_as("plain").await?;
    recreate::create_databases(&mut plain, &facts, &catalog).await?;
    recreate::create_tables(&mut plain, &facts, &catalog).await?;
    let error = recreate::create_code(&mut plain, &facts, &catalog, &mut Default::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Privilege, "{}", error.report());
    let remedy = if facts.flavor == Flavor::MySql { "SET_ANY_DEFINER" } else { "SET USER" };
    assert!(error.remedy().contains(remedy), "{}", error.report());
    Ok(())
}

/// Views that the server itself cannot use do not fail a backup, and are not lost silently.
#[rstest]
#[tokio::test]
async fn views_that_are_broken_are_warned_of(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) -> Result<()> {
    let server = Server::start(name).await?;
    let facts = server.facts().await?;
    let mut conn = server.connect().await?;
    for statement in [
        "CREATE DATABASE d",
        "CREATE TABLE d.t (a INT)",
        "CREATE VIEW d.bad AS SELECT a FROM d.t",
        "CREATE VIEW d.a_worse AS SELECT a FROM d.bad",
        "CREATE VIEW d.good AS SELECT 1 AS a",
        "DROP TABLE d.t",
        "SET NAMES gbk",
    ] {
        conn.query_drop(statement).await.unwrap();
    }
    conn.query_drop(&b"CREATE VIEW d.lost AS SELECT '\x81\x5c' AS a"[..]).await.unwrap();
    let catalog = inventory::read(&mut conn, &facts, &Selection::default()).await?;
    let warned = |view: &str| catalog.warnings.iter().filter(|w| w.contains(view)).count();
    assert_eq!((warned("d.bad "), warned("d.a_worse "), warned("d.good ")), (1, 1, 0));
    // MySQL cannot read back what it wrote itself.
    let lost = usize::from(facts.flavor == Flavor::MySql);
    assert_eq!((warned("d.lost "), catalog.stored.len()), (lost, 4));

    conn.query_drop("DROP DATABASE d").await.unwrap();
    let warnings = recreate_all(&mut conn, &facts, &catalog).await?;
    let warned = |view: &str| warnings.iter().filter(|w| w.contains(view)).count();
    assert_eq!((warnings.len(), warned("d.bad:"), warned("d.a_worse:")), (2, 1, 1), "{warnings:?}");
    assert_eq!(conn.query_first("SELECT a FROM d.good").await.unwrap(), Some(1));
    Ok(())
}

#[rstest]
#[tokio::test]
async fn events_whose_time_is_over_are_warned_of(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) -> Result<()> {
    let server = Server::start(name).await?;
    let facts = server.facts().await?;
    let mut conn = server.connect().await?;
    for statement in [
        "CREATE DATABASE d",
        "CREATE EVENT d.dropped ON SCHEDULE AT '2037-01-01 10:00:00' DO SELECT 1",
        "CREATE EVENT d.disabled ON SCHEDULE AT '2037-01-01 10:00:00' ON COMPLETION PRESERVE DO SELECT 1",
        "CREATE EVENT d.kept ON SCHEDULE EVERY 1 DAY STARTS '2036-01-01 10:00:00' DO SELECT 1",
    ] {
        conn.query_drop(statement).await.unwrap();
    }
    let mut catalog = inventory::read(&mut conn, &facts, &Selection::default()).await?;
    for event in &mut catalog.stored {
        // Years later.
        event.create = event.create.replace("2037-", "2007-");
    }
    conn.query_drop("DROP DATABASE d").await.unwrap();
    let warnings = recreate_all(&mut conn, &facts, &catalog).await?;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].starts_with("the event d.disabled is off now: "), "{warnings:?}");
    assert!(warnings[1].starts_with("the event d.dropped was not kept: "), "{warnings:?}");
    Ok(())
}

#[tokio::test]
async fn an_older_server_is_restored_to_a_newer_one() -> Result<()> {
    let old = Server::start("mariadb-10.11").await?;
    old.fill().await?;
    let facts = old.facts().await?;
    let catalog = inventory::read(&mut old.connect().await?, &facts, &Selection::default()).await?;
    let catalog = chosen(&catalog, &[]);
    let new = Server::start("mariadb-11.8").await?;
    let facts = new.facts().await?;
    let mut conn = new.connect().await?;
    assert_eq!(recreate::plan(&mut conn, &facts, &catalog).await?.findings, []);
    let warnings = recreate_all(&mut conn, &facts, &catalog).await?;
    assert!(warnings.is_empty(), "{warnings:#?}");
    // Not the same text, as they print some of it differently, but the same objects.
    let before = definitions(&mut old.connect().await?, facts.flavor).await;
    let after = definitions(&mut conn, facts.flavor).await;
    assert!(before.keys().eq(after.keys()));
    Ok(())
}
