//! Every definition survives: read from a server, made again on another one, and the same.

mod nasty;
mod server;

use std::collections::BTreeSet;

use backup_core::{ErrorKind, Flavor, Result, Severity};
use backup_drivers::logical::inventory::{self, ServerFacts};
use backup_drivers::logical::recreate::{self, ExistingKind};
use backup_drivers::logical::{Catalog, Object, Rename, RenameRule, Selection, StoredKind};
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
    let mut warnings = recreate::create_databases(conn, facts, catalog).await?;
    recreate::create_tables(conn, facts, catalog).await?;
    warnings.extend(recreate::create_code(conn, facts, catalog).await?);
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
        warnings: Vec::new(),
        ..catalog.clone()
    };
    for line in catalog.to_lines().skip(1) {
        match serde_json::from_slice(&line.unwrap()).unwrap() {
            Object::Database(database) => read.databases.push(database),
            Object::Table(table) => read.tables.push(*table),
            Object::Stored(object) => read.stored.push(object),
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
    for warning in &catalog.warnings {
        assert!(warning.contains("history of the system-versioned table"), "{warning}");
    }

    let target = Server::start(name).await?;
    let mut conn = target.connect().await?;
    let catalog = chosen(&stored(&catalog), &[]);
    let plan = recreate::plan(&mut conn, &facts, &catalog).await?;
    assert_eq!((plan.existing.as_slice(), plan.findings.as_slice()), (&[][..], &[][..]));
    let warnings = recreate_all(&mut conn, &facts, &catalog).await?;
    assert!(warnings.is_empty(), "{warnings:#?}");

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
    let tables: Vec<_> = catalog.tables.iter().map(|t| t.full_name()).collect();
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
            assert_eq!(columns("versioned"), ["a", "b"]);
            assert_eq!(table("periods").key, ["id", "f", "t"]);
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
            let text = create.replace("'shop.`t`'", "").replace("`shop`.`a`", "");
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
