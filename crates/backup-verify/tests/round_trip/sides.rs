//! What a server says about its own content.

use std::collections::BTreeMap;

use backup_drivers::connect::Session;

/// Object → definition, or table → digest of its rows.
pub(crate) type Facts = BTreeMap<String, String>;

fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// An expression that tells every two values of a column apart, bit by bit.
fn exact(column: &str, data_type: &str) -> String {
    let c = quote(column);
    match data_type {
        // Doubles print exactly; MySQL prints `-0`. MariaDB sends a negative zero to nobody, in
        // neither protocol, so that no backup can see one.
        "float" | "double" => format!("CAST({c} * 1e0 AS CHAR)"),
        // YEAR(2) of MariaDB shows two digits of a year that it knows.
        "year" => format!("CONCAT({c}, '/', YEAR({c}))"),
        "decimal" | "date" | "time" | "datetime" | "timestamp" => {
            format!("CAST({c} AS CHAR)")
        }
        // Both the member's number and its name.
        "enum" | "set" => format!("CONCAT({c} + 0, '/', HEX({c}))"),
        "json" | "inet4" | "inet6" | "uuid" => format!("HEX(CAST({c} AS CHAR))"),
        "bit" => format!("CONCAT({c} + 0, '/', HEX({c}))"),
        _ => format!("HEX({c})"),
    }
}

/// Digest of every base table outside the server's own databases.
pub(crate) async fn rows(session: &mut Session) -> Facts {
    for setting in ["SET NAMES utf8mb4", "SET SESSION time_zone = '+00:00', sql_mode = ''"] {
        session.run(setting).await.unwrap();
    }
    let columns: Vec<(String, String, String, String)> = session
        .query_rows(
            "SELECT c.TABLE_SCHEMA, c.TABLE_NAME, c.COLUMN_NAME, LOWER(c.DATA_TYPE) \
             FROM information_schema.COLUMNS c JOIN information_schema.TABLES t \
             ON c.TABLE_SCHEMA = t.TABLE_SCHEMA AND c.TABLE_NAME = t.TABLE_NAME \
             WHERE t.TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND c.TABLE_SCHEMA NOT IN \
             ('mysql', 'sys', 'information_schema', 'performance_schema') \
             ORDER BY c.TABLE_SCHEMA, c.TABLE_NAME, c.ORDINAL_POSITION",
        )
        .await
        .unwrap();
    let mut tables: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for (database, table, column, data_type) in columns {
        let value = exact(&column, &data_type);
        let value = format!("IF({} IS NULL, '~', SHA2({value}, 256))", quote(&column));
        tables.entry((database, table)).or_default().push(value);
    }
    let mut facts = Facts::new();
    for ((database, table), values) in tables {
        let row = format!("SHA2(CONCAT_WS(',', {}), 256)", values.join(", "));
        // Two 60-bit halves, added over all rows: independent of their order, sensitive to repeats.
        let half = |from: u8| {
            format!("SUM(CAST(CONV(SUBSTRING({row}, {from}, 15), 16, 10) AS DECIMAL(65)))")
        };
        let sql = format!(
            "SELECT CONCAT(COUNT(*), ' rows ', IFNULL({}, 0), ' ', IFNULL({}, 0)) FROM {}.{}",
            half(1),
            half(16),
            quote(&database),
            quote(&table)
        );
        let digest: Option<String> = session.query_first(&sql).await.unwrap();
        facts.insert(format!("{database}.{table}"), digest.unwrap());
    }
    facts
}

/// `SHOW CREATE` of every object outside the server's own databases.
pub(crate) async fn definitions(session: &mut Session) -> Facts {
    session.run("SET NAMES utf8mb4").await.unwrap();
    session.run("SET SESSION sql_mode = ''").await.unwrap();
    let own = "('mysql', 'sys', 'information_schema', 'performance_schema')";
    let lists = [
        (
            "DATABASE",
            format!(
                "SELECT SCHEMA_NAME, '' FROM information_schema.SCHEMATA WHERE SCHEMA_NAME NOT IN {own}"
            ),
        ),
        (
            "TABLE",
            format!(
                "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND TABLE_SCHEMA NOT IN {own}"
            ),
        ),
        (
            "VIEW",
            format!(
                "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA NOT IN {own}"
            ),
        ),
        (
            "TRIGGER",
            format!(
                "SELECT TRIGGER_SCHEMA, TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA NOT IN {own}"
            ),
        ),
        (
            "FUNCTION",
            format!(
                "SELECT ROUTINE_SCHEMA, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_TYPE = 'FUNCTION' AND ROUTINE_SCHEMA NOT IN {own}"
            ),
        ),
        (
            "PROCEDURE",
            format!(
                "SELECT ROUTINE_SCHEMA, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_TYPE = 'PROCEDURE' AND ROUTINE_SCHEMA NOT IN {own}"
            ),
        ),
        (
            "EVENT",
            format!(
                "SELECT EVENT_SCHEMA, EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA NOT IN {own}"
            ),
        ),
    ];
    let mut facts = Facts::new();
    for (kind, list) in lists {
        let names: Vec<(String, String)> = session.query_rows(&list).await.unwrap();
        for (database, name) in names {
            let object = if name.is_empty() {
                quote(&database)
            } else {
                format!("{}.{}", quote(&database), quote(&name))
            };
            let row: Option<mysql_async::Row> =
                session.query_first(&format!("SHOW CREATE {kind} {object}")).await.unwrap();
            let row = row.unwrap();
            let text: Vec<String> = (0..row.len())
                .filter(|&i| row.columns_ref()[i].name_str() != "Created")
                .map(|i| format!("{:?}", row.as_ref(i).unwrap().as_sql(true)))
                .collect();
            facts.insert(format!("{kind} {object}"), text.join(" | "));
        }
    }
    facts
}

/// Asserts that two sides are the same, naming every difference.
pub(crate) fn assert_same(what: &str, source: &Facts, target: &Facts) {
    let mut differences = Vec::new();
    for (name, there) in source {
        match target.get(name) {
            Some(here) if here == there => {}
            Some(here) => differences.push(format!("{name}:\n  source {there}\n  target {here}")),
            None => differences.push(format!("{name}: missing at the target")),
        }
    }
    let extra = target.keys().filter(|name| !source.contains_key(*name));
    differences.extend(extra.map(|name| format!("{name}: only at the target")));
    assert!(differences.is_empty(), "{what} differ:\n{}", differences.join("\n"));
}
