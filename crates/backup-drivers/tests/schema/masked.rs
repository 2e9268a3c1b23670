//! A part of a server, and copies whose values were changed on the way.

use std::collections::BTreeSet;

use backup_core::{ErrorKind, Result, SecretBytes};
use backup_drivers::logical::{
    LogicalOptions, LogicalRestoreOptions, MaskRule, MaskRules, MaskWith, Parts, Selection,
};
use mysql_async::prelude::Queryable;
use rstest::rstest;

use crate::memory::Kept;
use crate::server::Server;

fn rules(rules: &[(&str, MaskWith)]) -> Option<MaskRules> {
    let rule = |(column, with): &(&str, MaskWith)| MaskRule {
        column: (*column).to_owned(),
        with: with.clone(),
    };
    Some(MaskRules { mask: rules.iter().map(rule).collect() })
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn no_masked_value_is_in_the_backup_and_equal_ones_stay_equal(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) -> Result<()> {
    let source = Server::start(name).await?;
    let mut conn = source.connect().await?;
    for statement in [
        "CREATE DATABASE d CHARACTER SET utf8mb4",
        "CREATE TABLE d.people (id INT PRIMARY KEY, email VARCHAR(60) UNIQUE, name VARCHAR(40) CHARACTER SET utf16, \
         born DATE, card CHAR(19) CHARACTER SET latin1, salary DECIMAL(12,2), note TEXT, seen DATETIME(6), ssn BIGINT, \
         w DOUBLE, secret VARBINARY(40) NOT NULL, kept INT, upper_email VARCHAR(60) AS (UPPER(email)) STORED)",
        "CREATE TABLE d.orders (n INT PRIMARY KEY, customer VARCHAR(60), total INT)",
        "INSERT INTO d.people (id, email, name, born, card, salary, note, seen, ssn, w, secret, kept) VALUES \
         (770011, 'zoe.original@example.com', 'Zoë Original', '1977-07-07', '4111-1111-1111-1111', 77123.45, \
          'call 030-7654321 or 030-7654322', '2021-07-07 17:27:37.123456', 7712345678, 77.5, 'topsecret77', 7), \
         (770012, 'max.original@example.com', NULL, '0000-00-00', '', -0.50, '', NULL, -5, 0, '', 8)",
        "INSERT INTO d.orders VALUES (1, 'zoe.original@example.com', 10), (2, 'max.original@example.com', 20)",
        "CREATE USER reader@localhost IDENTIFIED BY 'x'",
    ] {
        conn.query_drop("SET sql_mode = ''").await.unwrap();
        conn.query_drop(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    let hard = |pattern: &str, replace: &str| MaskWith::Regex {
        pattern: pattern.into(),
        replace: replace.into(),
    };
    let mask = rules(&[
        ("d.people.id", MaskWith::Shape),
        ("d.people.email", MaskWith::Hash),
        ("d.orders.customer", MaskWith::Hash),
        ("d.*.name", MaskWith::Shape),
        ("d.people.born", MaskWith::Shape),
        ("d.people.card", MaskWith::Shape),
        ("d.people.salary", MaskWith::Shape),
        ("d.people.note", hard("[0-9]{3}-[0-9]+", "<$0>".replace("$0", "phone").as_str())),
        ("d.people.seen", MaskWith::Fixed("2000-01-02".into())),
        ("d.people.ssn", MaskWith::Hash),
        ("d.people.w", MaskWith::Fixed("1.5".into())),
        ("*.PEOPLE*.secret", MaskWith::Null),
        ("d.people.secret", MaskWith::Hash),
    ]);
    let options = LogicalOptions { mask, chunk_bytes: 1, ..Default::default() };
    let error = Kept::backup(&source, options.clone()).await.err().unwrap();
    // A rule that fits nothing would be a leak.
    assert!(error.report().contains("*.PEOPLE*.secret"), "{}", error.report());
    let mut options = options;
    options.mask.as_mut().unwrap().mask.retain(|r| r.with != MaskWith::Null);
    options.mask_secret = Some(SecretBytes::new(b"of the company".to_vec()));
    let kept = Kept::backup(&source, options.clone()).await?;
    assert!(kept.outcome.masked && !kept.outcome.objects.contains_key("accounts"));
    let text = kept.text();
    for original in ["riginal", "4111", "7654321", "topsecret", "770011", "77123", "7712345"] {
        assert!(!text.contains(original), "{original}");
    }

    let target = Server::start(name).await?;
    kept.restore(&target, LogicalRestoreOptions::default()).await?;
    let mut conn = target.connect().await?;
    let joined: Vec<(i32, i32, String)> = conn
        .query(
            "SELECT p.kept, o.total, p.upper_email FROM d.people p JOIN d.orders o ON o.customer = p.email \
             ORDER BY p.kept",
        )
        .await
        .unwrap();
    assert_eq!(joined.iter().map(|r| (r.0, r.1)).collect::<Vec<_>>(), [(7, 10), (8, 20)]);
    type Row =
        (i64, String, Option<String>, String, String, String, String, Option<String>, i64, f64);
    let row: Row = conn
        .query_first(
            "SELECT id, email, CONVERT(name USING utf8mb4), CAST(born AS CHAR), CONVERT(card USING utf8mb4), \
             CAST(salary AS CHAR), note, CAST(seen AS CHAR), ssn, w FROM d.people WHERE kept = 7",
        )
        .await
        .unwrap()
        .unwrap();
    assert!((100_000..1_000_000).contains(&row.0) && row.0 != 770_011, "{row:?}");
    assert_eq!(row.1.len(), 32, "{row:?}");
    assert_eq!(joined[0].2, row.1.to_uppercase());
    let shape = |text: &str| -> String {
        let class = |c: char| match c {
            c if c.is_ascii_digit() => '9',
            c if c.is_uppercase() => 'A',
            c if c.is_alphabetic() => 'a',
            c => c,
        };
        text.chars().map(class).collect()
    };
    assert_eq!(shape(row.2.as_deref().unwrap()), "Aaa Aaaaaaaa", "{row:?}");
    assert!(row.3.starts_with("1977-") && shape(&row.4) == "9999-9999-9999-9999", "{row:?}");
    assert_eq!((shape(&row.5).as_str(), row.6.as_str()), ("99999.99", "call <phone> or <phone>"));
    assert_eq!((row.7.as_deref(), row.9), (Some("2000-01-02 00:00:00.000000"), 1.5));
    let nulls: Option<(Option<String>, String)> = conn
        .query_first(
            "SELECT CONVERT(name USING utf8mb4), CAST(born AS CHAR) FROM d.people WHERE kept = 8",
        )
        .await
        .unwrap();
    assert_eq!(nulls, Some((None, "0000-00-00".into())));
    // The same secret, the same values; another, others.
    let again = Kept::backup(&source, options.clone()).await?;
    assert_eq!(again.outcome.rows, kept.outcome.rows);
    assert_eq!(again.text(), text);
    options.mask_secret = None;
    assert_ne!(Kept::backup(&source, options).await?.text(), text);
    // What a column cannot take is refused before a row is read.
    for (column, with) in [
        ("d.people.secret", MaskWith::Null),
        ("d.people.born", MaskWith::Fixed("yesterday".into())),
        ("d.orders.total", hard("1", "2")),
        ("d.people.note", hard("(", "")),
    ] {
        let options = LogicalOptions { mask: rules(&[(column, with)]), ..Default::default() };
        let error = Kept::backup(&source, options).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Usage, "{column}: {}", error.report());
    }
    Ok(())
}

/// A masked backup that could not be restored would be found out too late.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_of_a_value_is_what_its_column_gives_back(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) -> Result<()> {
    let source = Server::start(name).await?;
    let mut conn = source.connect().await?;
    for statement in [
        "CREATE DATABASE d CHARACTER SET utf8mb4",
        "CREATE TABLE d.t (id INT PRIMARY KEY, price DECIMAL(12,2), kind ENUM('m', 'f', 'it''s'), code CHAR(9), uid \
         BINARY(16), mac BINARY(40), doc JSON, y YEAR, f FLOAT, ts TIMESTAMP NULL, day DATE, note CHAR(20))",
        "INSERT INTO d.t VALUES (1, 77.70, 'm', 'abc', 'x', 'y', '[1]', 1999, 1.5, '2001-01-01 00:00:00', '2001-01-01', \
         'call 12345')",
    ] {
        conn.query_drop(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    let fixed = |text: &str| MaskWith::Fixed(text.into());
    let cut = MaskWith::Regex { pattern: "[0-9]+".into(), replace: "  ".into() };
    let mask = rules(&[
        ("d.t.price", fixed("-5")),
        ("d.t.kind", fixed("it's")),
        ("d.t.code", fixed("a  ")),
        ("d.t.uid", fixed("short")),
        ("d.t.mac", MaskWith::Hash),
        ("d.t.doc", fixed(r#"{"bb":1.5,"a":[true,{}]}"#)),
        ("d.t.y", fixed("2000")),
        ("d.t.f", fixed("0.1")),
        ("d.t.ts", fixed("2000-01-02 03:04:05")),
        ("d.t.day", fixed("2000-02-29")),
        ("d.t.note", cut),
    ]);
    let kept = Kept::backup(&source, LogicalOptions { mask, ..Default::default() }).await?;
    let target = Server::start(name).await?;
    let restored = kept.restore(&target, LogicalRestoreOptions::default()).await?;
    assert!(restored.warnings.is_empty(), "{restored:?}");
    let mut conn = target.connect().await?;
    conn.query_drop("SET time_zone = '+00:00'").await.unwrap();
    let row: Option<String> = conn
        .query_first(
            "SELECT CONCAT_WS('|', price, kind, code, HEX(uid), LENGTH(TRIM(TRAILING '\\0' FROM mac)), y, f, ts, day, note) \
             FROM d.t",
        )
        .await
        .unwrap();
    let expected = "-5.00|it's|a|73686F72740000000000000000000000|32|2000|0.1|2000-01-02 03:04:05|2000-02-29|call";
    assert_eq!(row.as_deref(), Some(expected));
    // Nothing is cut in silence, nor turned into question marks.
    let long = "x".repeat(70_000);
    for (column, with) in [
        ("d.t.uid", fixed("longer than 16 bytes")),
        ("d.t.code", fixed(&long)),
        ("d.t.note", MaskWith::Regex { pattern: "a".into(), replace: long.clone() }),
    ] {
        let mask = rules(&[(column, with)]);
        let error =
            Kept::backup(&source, LogicalOptions { mask, ..Default::default() }).await.err();
        let error = error.unwrap_or_else(|| panic!("{column} took what is too long"));
        assert!(error.report().contains("cannot be masked"), "{}", error.report());
    }
    for (column, text) in [
        ("d.t.price", "12345678901"),
        ("d.t.kind", "q"),
        ("d.t.y", "1"),
        ("d.t.f", "1e39"),
        ("d.t.id", "2147483648"),
        ("d.t.ts", "1960-01-01"),
    ] {
        let mask = rules(&[(column, fixed(text))]);
        let error =
            Kept::backup(&source, LogicalOptions { mask, ..Default::default() }).await.err();
        let error = error.unwrap_or_else(|| panic!("{column} took {text}"));
        assert!(error.report().contains("is no value of it"), "{}", error.report());
    }
    Ok(())
}

/// As [`MaskWith::Shape`] sees it.
fn shape_of(text: &str) -> String {
    let class = |c: char| match c {
        c if c.is_ascii_digit() => '9',
        c if c.is_uppercase() => 'A',
        c if c.is_alphanumeric() => 'a',
        c => c,
    };
    text.chars().map(class).collect()
}

/// Every character of every character set, as the server itself has it: a mask that takes one for another lets
/// values through.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn every_character_set_is_read_as_the_server_reads_it(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) -> Result<()> {
    let source = Server::start(name).await?;
    let mut conn = source.connect().await?;
    for statement in [
        "SET sql_mode = ''",
        "CREATE DATABASE d",
        "CREATE TABLE d.all_of (id INT PRIMARY KEY, c VARCHAR(300) CHARACTER SET utf8mb4)",
    ] {
        conn.query_drop(statement).await.unwrap();
    }
    let codes = (1..0x1_0000).chain(0x1_f600..0x1_f700).chain(0x2_0000..0x2_0100);
    let characters: Vec<char> = codes.filter_map(char::from_u32).collect();
    for (id, characters) in characters.chunks(256).enumerate() {
        let text: String = characters.iter().collect();
        conn.exec_drop("INSERT INTO d.all_of VALUES (?, ?)", (id, text)).await.unwrap();
    }
    let charsets: Vec<String> = conn
        .query(
            "SELECT CHARACTER_SET_NAME FROM information_schema.CHARACTER_SETS \
             WHERE CHARACTER_SET_NAME NOT IN ('binary', 'filename')",
        )
        .await
        .unwrap();
    assert!(charsets.len() >= 38, "{charsets:?}");
    for charset in &charsets {
        for statement in [
            format!(
                "CREATE TABLE d.t_{charset} (id INT PRIMARY KEY, plain VARCHAR(300), shaped VARCHAR(300), \
                 same VARCHAR(300), replaced VARCHAR(300), h VARCHAR(40)) CHARACTER SET {charset}"
            ),
            format!("INSERT INTO d.t_{charset} SELECT id, c, c, c, c, 'zoë' FROM d.all_of"),
        ] {
            conn.query_drop(&statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
        }
    }
    let regex = |pattern: &str, replace: &str| MaskWith::Regex {
        pattern: pattern.into(),
        replace: replace.into(),
    };
    let mask = rules(&[
        ("*.*.shaped", MaskWith::Shape),
        ("*.*.same", regex("never ever", "")),
        ("*.*.replaced", regex(r"[^\x00-\x7f]", "-")),
        ("*.*.h", MaskWith::Hash),
    ]);
    let kept = Kept::backup(&source, LogicalOptions { mask, ..Default::default() }).await?;
    let target = Server::start(name).await?;
    kept.restore(&target, LogicalRestoreOptions::default()).await?;
    let mut conn = target.connect().await?;
    let mut hashes = BTreeSet::new();
    for charset in &charsets {
        let text = |column| format!("CONVERT({column} USING utf8mb4)");
        let sql = format!(
            "SELECT HEX(plain) = HEX(same), {}, {}, {}, {} FROM d.t_{charset} ORDER BY id",
            text("plain"),
            text("shaped"),
            text("replaced"),
            text("h")
        );
        let rows: Vec<(bool, String, String, String, String)> = conn.query(&sql).await.unwrap();
        assert!(rows.len() > 200);
        let mut hash_of = String::new();
        for (same, plain, shaped, replaced, hash) in rows {
            assert!(same, "{charset}: {plain:?}");
            assert_eq!(shape_of(&shaped), shape_of(&plain), "{charset}: {plain:?}");
            let through = shaped.chars().find(|c| c.is_alphanumeric() && !c.is_ascii());
            assert_eq!(through, None, "{charset}");
            let expected: String =
                plain.chars().map(|c| if c.is_ascii() { c } else { '-' }).collect();
            assert_eq!(replaced, expected, "{charset}");
            hash_of = hash;
        }
        // The same in all character sets that have the characters.
        let has = format!("SELECT CONVERT(CONVERT('ë' USING {charset}) USING utf8mb4) = 'ë'");
        if conn.query_first(has).await.unwrap() == Some(true) {
            hashes.insert(hash_of);
        }
    }
    assert_eq!(hashes.len(), 1, "{hashes:?}");
    Ok(())
}

/// What a server would make something else of, and what is longer than anybody thought.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn values_at_the_ends_of_their_types_stay_there(
    #[values("mysql-9.7", "mariadb-10.11", "mariadb-11.8")] name: &str,
) -> Result<()> {
    let source = Server::start(name).await?;
    let mut conn = source.connect().await?;
    let last = match name {
        "mariadb-11.8" => "2106-02-07 06:28:15",
        _ => "2038-01-19 03:14:07",
    };
    for statement in [
        "SET time_zone = '+00:00'".to_owned(),
        "CREATE DATABASE d CHARACTER SET utf8mb4".to_owned(),
        "CREATE TABLE d.t (id INT PRIMARY KEY AUTO_INCREMENT, first TIMESTAMP NULL, last TIMESTAMP NULL, \
         middle TIMESTAMP NULL, f FLOAT(7,3), g FLOAT(7,3), h DOUBLE(9,4), i DOUBLE(9,4), j FLOAT(7,3), tiny TINYTEXT, \
         l TEXT CHARACTER SET latin1, b TINYBLOB, m VARCHAR(9) CHARACTER SET utf8mb3, a TEXT CHARACTER SET ascii)"
            .to_owned(),
        format!(
            "INSERT INTO d.t (first, last, middle, f, g, h, i, j, tiny, l, b, m, a) VALUES ('1970-01-01 00:00:01', \
             '{last}', '2038-01-01 00:00:00', 9999.999, -1234.567, 99999.9999, -0.0001, 1, REPEAT('ë', 127), \
             REPEAT('ë', 65535), REPEAT('x', 255), 'abc', 'abc')"
        ),
    ] {
        conn.query_drop(&statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    for _ in 0..8 {
        let rows = "INSERT INTO d.t (first, last, middle, f, g, h, i, j) SELECT first, last - INTERVAL id SECOND, middle, \
                    f - id / 7, g + id / 7, h - id / 7, i - id / 7, j FROM d.t";
        conn.query_drop(rows).await.unwrap();
    }
    let fixed = |text: &str| MaskWith::Fixed(text.into());
    for with in [MaskWith::Hash, MaskWith::Shape] {
        let columns = ["first", "last", "middle", "f", "g", "h", "i", "tiny", "l"];
        let mut mask = rules(&columns.map(|column| (column, with.clone()))).unwrap();
        mask.mask.extend(rules(&[("j", fixed("-9999.999")), ("b", MaskWith::Hash)]).unwrap().mask);
        for rule in &mut mask.mask {
            rule.column = format!("d.t.{}", rule.column);
        }
        let options = LogicalOptions { mask: Some(mask), ..Default::default() };
        let kept = Kept::backup(&source, options).await?;
        let target = Server::start(name).await?;
        kept.restore(&target, LogicalRestoreOptions::default()).await?;
        let mut conn = target.connect().await?;
        conn.query_drop("SET time_zone = '+00:00'").await.unwrap();
        type Found = (i64, String, String, String, i64, Option<i64>, Option<i64>);
        let found: Option<Found> = conn
            .query_first(
                "SELECT COUNT(*), GROUP_CONCAT(DISTINCT YEAR(first)), GROUP_CONCAT(DISTINCT YEAR(last)), \
                 GROUP_CONCAT(DISTINCT YEAR(middle)), COUNT(DISTINCT f), MAX(LENGTH(l)), MAX(LENGTH(tiny)) FROM d.t",
            )
            .await
            .unwrap();
        let found = found.unwrap();
        let years = (found.1.as_str(), found.2.as_str(), found.3.as_str());
        let hash = with == MaskWith::Hash;
        assert_eq!(found.0, 256);
        match hash {
            // Any that every server has in every time zone.
            true => {
                let all = [years.0, years.1, years.2].join(",");
                let years = all.split(',').map(|year| year.parse::<u16>().unwrap());
                assert!(years.into_iter().all(|year| (1971..=2037).contains(&year)), "{all}");
            }
            false => assert_eq!(years, ("1970", &last[..4], "2038")),
        }
        assert!(found.4 > 100, "{found:?}");
        let lengths = if hash { [Some(32); 2] } else { [Some(65535), Some(127)] };
        assert_eq!([found.5, found.6], lengths);
    }
    // What would be something else is refused before a row is read.
    let regex = |replace: &str| MaskWith::Regex { pattern: "b".into(), replace: replace.into() };
    for (column, with) in [
        ("d.t.f", fixed("1.2345")),
        ("d.t.f", fixed("99999.5")),
        ("d.t.m", fixed("😀")),
        ("d.t.m", regex("😀")),
        ("d.t.a", fixed("é")),
        ("d.t.a", regex("é")),
        ("d.t.l", fixed("中")),
    ] {
        let options = LogicalOptions { mask: rules(&[(column, with)]), ..Default::default() };
        let error = Kept::backup(&source, options).await.err();
        let error = error.unwrap_or_else(|| panic!("{column} took what it cannot hold"));
        assert_eq!(error.kind(), ErrorKind::Usage, "{column}: {}", error.report());
        assert!(error.report().contains("cannot be masked by the rule"), "{}", error.report());
    }
    Ok(())
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_server_by_pattern_condition_and_without_rows(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) -> Result<()> {
    let source = Server::start(name).await?;
    let mut conn = source.connect().await?;
    for database in ["shop", "shop_eu", "hr"] {
        conn.query_drop(format!("CREATE DATABASE {database}")).await.unwrap();
        for table in ["orders", "log_1", "log_2"] {
            conn.query_drop(format!("CREATE TABLE {database}.{table} (a INT PRIMARY KEY)"))
                .await
                .unwrap();
            conn.query_drop(format!("INSERT INTO {database}.{table} VALUES (1), (2), (3)"))
                .await
                .unwrap();
        }
        conn.query_drop(format!("CREATE VIEW {database}.v AS SELECT a FROM {database}.orders"))
            .await
            .unwrap();
    }
    let target = Server::start(name).await?;
    let selection = Selection {
        database_globs: ["shop*".parse()?].into(),
        exclude_table_globs: ["*.*_2".parse()?].into(),
        ..Selection::default()
    };
    let options = LogicalOptions {
        selection,
        filters: [("shop.orders".parse()?, "a > 1 OR a = 0 -- of the year".to_owned())].into(),
        no_rows: ["shop_eu.log_*".parse()?].into(),
        ..Default::default()
    };
    let kept = Kept::backup(&source, options.clone()).await?;
    assert!(kept.outcome.partial && !kept.outcome.objects.contains_key("accounts"));
    let restored = kept.restore(&target, LogicalRestoreOptions::default()).await?;
    assert_eq!(restored.rows, 2 + 3 + 3);
    let mut conn = target.connect().await?;
    let tables: Vec<(String, String)> = conn
        .query(
            "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA IN ('shop', 'shop_eu', 'hr')",
        )
        .await
        .unwrap();
    let tables: BTreeSet<String> = tables.into_iter().map(|(d, t)| format!("{d}.{t}")).collect();
    let expected =
        ["shop.log_1", "shop.orders", "shop.v", "shop_eu.log_1", "shop_eu.orders", "shop_eu.v"];
    assert!(tables.iter().eq(expected), "{tables:?}");
    for (table, rows) in [("shop.orders", 2), ("shop_eu.orders", 3), ("shop_eu.log_1", 0)] {
        let found: Option<i64> =
            conn.query_first(format!("SELECT COUNT(*) FROM {table}")).await.unwrap();
        assert_eq!(found, Some(rows), "{table}");
    }

    // Rows alone: into what is there, is empty, and stays so when something is in the way.
    let data = LogicalRestoreOptions { parts: Parts::Data, ..Default::default() };
    let error = kept.restore(&target, data.clone()).await.unwrap_err();
    assert!(error.report().contains("holds rows at the target"), "{}", error.report());
    for table in ["shop.orders", "shop.log_1", "shop_eu.orders"] {
        conn.query_drop(format!("TRUNCATE TABLE {table}")).await.unwrap();
    }
    conn.query_drop("CREATE TRIGGER shop.t BEFORE INSERT ON shop.orders FOR EACH ROW SET @a = 1")
        .await
        .unwrap();
    let error = kept.restore(&target, data.clone()).await.unwrap_err();
    assert!(error.report().contains("would fire"), "{}", error.report());
    conn.query_drop("DROP TRIGGER shop.t").await.unwrap();
    assert_eq!(kept.restore(&target, data).await?.rows, 8);
    let schema =
        LogicalRestoreOptions { parts: Parts::Schema, overwrite: true, ..Default::default() };
    assert_eq!(kept.restore(&target, schema).await?.rows, 0);
    let found: Option<i64> = conn.query_first("SELECT COUNT(*) FROM shop.orders").await.unwrap();
    assert_eq!(found, Some(0));

    // A whole server without a database.
    let selection = Selection {
        exclude_databases: ["h?".parse()?].into(),
        exclude_table_globs: ["shop.*".parse()?].into(),
        ..Selection::default()
    };
    let kept = Kept::backup(&source, LogicalOptions { selection, ..Default::default() }).await?;
    assert_eq!((kept.outcome.objects["databases"], kept.outcome.objects["tables"]), (2, 3));

    for (selection, filters) in [
        (Selection { table_globs: ["*.none_*".parse()?].into(), ..Default::default() }, None),
        (Selection::default(), Some(("shop.none", "1"))),
        (Selection::default(), Some(("shop.orders", "b = 1"))),
        (Selection::default(), Some(("shop.orders", "a = (1"))),
    ] {
        let filters =
            filters.into_iter().map(|(t, f)| (t.parse().unwrap(), f.to_owned())).collect();
        let options = LogicalOptions { selection, filters, ..Default::default() };
        let error = Kept::backup(&source, options).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Usage, "{}", error.report());
        // Conditions are tried before a row is read.
        assert!(!error.report().contains("cannot run"), "{}", error.report());
    }
    Ok(())
}

/// What stands for a number or a date tells neither how large it is nor of which year.
#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn hashes_of_numbers_and_dates_tell_nothing_of_them(
    #[values("mysql-9.7", "mariadb-10.11")] name: &str,
) -> Result<()> {
    let source = Server::start(name).await?;
    let mut conn = source.connect().await?;
    for statement in [
        "SET sql_mode = ''",
        "CREATE DATABASE d",
        "CREATE TABLE d.t (id INT PRIMARY KEY, a DECIMAL(12,2), b DECIMAL(9,3) UNSIGNED ZEROFILL, c DECIMAL(4,4), e DOUBLE, \
         f FLOAT, g FLOAT(7,3), h DOUBLE(12,4) UNSIGNED, i DATE, j DATETIME, k DATETIME(6), l TIMESTAMP(3) NULL)",
        "INSERT INTO d.t SELECT n, n, n, 0, n, n, n, n, '1977-07-07', '1977-07-07', '1977-07-07 10:11:12.5', \
         '2001-02-03 04:05:06.25' FROM (SELECT 0 n UNION SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT \
         5 UNION SELECT 6 UNION SELECT 7 UNION SELECT 8 UNION SELECT 9) n",
        "INSERT INTO d.t SELECT id + 10, -id, b, c, -e, -f, -g, h, '0000-00-00', '0000-00-00', '1977-00-00', l FROM d.t",
    ] {
        conn.query_drop(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
    }
    let columns = ["a", "b", "c", "e", "f", "g", "h", "i", "j", "k", "l"];
    let names: Vec<String> = columns.iter().map(|c| format!("d.t.{c}")).collect();
    let names: Vec<_> = names.iter().map(|name| (name.as_str(), MaskWith::Hash)).collect();
    let options = LogicalOptions {
        mask: rules(&names),
        mask_secret: Some(SecretBytes::new(b"of the company".to_vec())),
        ..Default::default()
    };
    let kept = Kept::backup(&source, options).await?;
    let target = Server::start(name).await?;
    // It reads every row back.
    kept.restore(&target, LogicalRestoreOptions::default()).await?;
    let mut conn = target.connect().await?;
    for (column, large) in
        [("a", 10_000.0), ("b", 1000.0), ("e", 1e6), ("f", 1e4), ("g", 10.0), ("h", 1e4)]
    {
        let sql = format!(
            "SELECT COUNT(*), MAX({column}), MIN({column}), COUNT(DISTINCT {column}) FROM d.t"
        );
        let (count, most, least, distinct): (u32, f64, f64, u32) =
            conn.query_first(&sql).await.unwrap().unwrap();
        assert!(count == 20 && most > large && least >= 0.0, "{column}: {most} {least}");
        assert!(distinct >= 10, "{column}: {distinct}");
        let zeros = format!("SELECT COUNT(*) FROM d.t WHERE {column} = 0");
        assert_eq!(conn.query_first::<u32, _>(&zeros).await.unwrap(), Some(0), "{column}");
    }
    // The same for the same, 0 and -0 too.
    for column in ["a", "b", "e", "f", "g", "h"] {
        let sql = format!("SELECT COUNT(DISTINCT {column}) FROM d.t WHERE id IN (0, 10)");
        assert_eq!(conn.query_first::<u32, _>(&sql).await.unwrap(), Some(1), "{column}");
    }
    for column in ["i", "j", "k", "l"] {
        let sql = format!(
            "SELECT COUNT(*), COUNT(DISTINCT {column}) FROM d.t WHERE YEAR({column}) NOT IN (0, 1977, 2001) AND \
             MONTH({column}) > 0 AND DAY({column}) > 0"
        );
        let (count, distinct): (u32, u32) = conn.query_first(&sql).await.unwrap().unwrap();
        let expected = if column == "l" { 1 } else { 2 };
        assert_eq!((count, distinct), (20, expected), "{column}");
    }
    Ok(())
}
