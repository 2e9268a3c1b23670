//! A sandbox, and its definitions as the server itself shows them.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{Context, Flavor, Result};
use backup_drivers::connect::{ConnectOptions, open};
use backup_drivers::logical::inventory::{self, ServerFacts};
use backup_drivers::logical::quote_name;
use backup_drivers::sandbox::{Sandbox, SandboxBuilder};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Row, Value};

use crate::nasty;

/// A throw-away server.
pub(crate) struct Server {
    sandbox: Sandbox,
}

impl Server {
    pub(crate) async fn start(name: &str) -> Result<Server> {
        Server::start_with(name, &[], false).await
    }

    /// The same with options, and with a port where it is asked for.
    pub(crate) async fn start_with(
        name: &str,
        options: &[(&str, &str)],
        listens: bool,
    ) -> Result<Server> {
        let builder = xtask::servers::sandbox(name).await?;
        // Functions that are not deterministic, with the binary log on.
        let mut builder = builder.option("log_bin_trust_function_creators", "1");
        for (name, value) in options {
            builder = builder.option(*name, *value);
        }
        if listens {
            builder = builder.tcp(true);
        }
        Server::of(builder).await
    }

    /// Starts one that was described.
    pub(crate) async fn of(builder: SandboxBuilder) -> Result<Server> {
        let sandbox = builder.start(&Context::builder().build()).await?;
        Ok(Server { sandbox })
    }

    pub(crate) async fn connect(&self) -> Result<Conn> {
        self.connect_as("root").await
    }

    /// Accounts of these tests have no passwords.
    pub(crate) async fn connect_as(&self, user: &str) -> Result<Conn> {
        open(&ConnectOptions::socket(self.sandbox.socket(), user)).await
    }

    pub(crate) fn as_root(&self) -> ConnectOptions {
        ConnectOptions::socket(self.sandbox.socket(), "root")
    }

    pub(crate) fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    pub(crate) async fn facts(&self) -> Result<ServerFacts> {
        inventory::server(&mut self.connect().await?).await
    }

    /// Makes the schema of [`nasty`].
    pub(crate) async fn fill(&self) -> Result<()> {
        let flavor = self.facts().await?.flavor;
        let mut conn = self.connect().await?;
        let mut failed = Vec::new();
        for statement in nasty::statements(flavor) {
            if let Err(e) = conn.query_drop(&statement[..]).await {
                failed.push(format!("{}: {e}", String::from_utf8_lossy(&statement)));
            }
        }
        assert!(failed.is_empty(), "{flavor}:\n{}", failed.join("\n"));
        Ok(())
    }

    /// Adds what [`hard`](crate::hard) has.
    pub(crate) async fn fill_more(&self) -> Result<()> {
        let flavor = self.facts().await?.flavor;
        let mut conn = self.connect().await?;
        for statement in crate::hard::statements(flavor) {
            conn.query_drop(statement).await.unwrap_or_else(|e| panic!("{statement}: {e}"));
        }
        Ok(())
    }
}

/// What a server says of an object: all columns of `SHOW CREATE …`, byte for byte.
pub(crate) type Definitions = BTreeMap<(String, String, String), Vec<Option<Vec<u8>>>>;

/// The definitions of all databases that are not the server's own, with the order of triggers and
/// the places of sequences. Independent of the code under test.
pub(crate) async fn definitions(conn: &mut Conn, flavor: Flavor) -> Definitions {
    for setting in [
        "SET NAMES utf8mb4",
        "SET sql_mode = '', time_zone = '+00:00'",
        "SET character_set_results = NULL",
    ] {
        conn.query_drop(setting).await.unwrap();
    }
    let mut all = Definitions::new();
    let own = "('mysql', 'sys', 'information_schema', 'performance_schema')";
    let databases: Vec<String> = conn
        .query(format!(
            "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME NOT IN {own}"
        ))
        .await
        .unwrap();
    for database in &databases {
        conn.query_drop(format!("USE {}", quote_name(database))).await.unwrap();
        add(conn, &mut all, database, "DATABASE", database).await;
        for (columns, view, schema) in [
            ("TABLE_NAME, TABLE_TYPE", "TABLES", "TABLE_SCHEMA"),
            ("ROUTINE_NAME, ROUTINE_TYPE", "ROUTINES", "ROUTINE_SCHEMA"),
            ("TRIGGER_NAME, 'TRIGGER'", "TRIGGERS", "TRIGGER_SCHEMA"),
            ("EVENT_NAME, 'EVENT'", "EVENTS", "EVENT_SCHEMA"),
            ("LIBRARY_NAME, 'LIBRARY'", "LIBRARIES", "LIBRARY_SCHEMA"),
        ] {
            if view == "LIBRARIES" && flavor == Flavor::MariaDb {
                continue;
            }
            let sql = format!(
                "SELECT {columns} FROM information_schema.{view} WHERE BINARY {schema} = DATABASE()"
            );
            let objects: BTreeSet<(String, String)> =
                conn.query(sql).await.unwrap().into_iter().collect();
            for (name, kind) in objects {
                let kind = match kind.as_str() {
                    "BASE TABLE" | "SYSTEM VERSIONED" => "TABLE",
                    kind => kind,
                };
                add(conn, &mut all, database, kind, &name).await;
                if kind == "SEQUENCE" {
                    let sql = format!("SELECT * FROM {}", quote_name(&name));
                    let row: Row = conn.query_first(sql).await.unwrap().unwrap();
                    all.insert((database.clone(), "STATE OF".into(), name), bytes(row));
                }
            }
        }
        let order = "SELECT CONCAT(EVENT_OBJECT_TABLE, ' ', ACTION_TIMING, ' ', EVENT_MANIPULATION, ' ', ACTION_ORDER), \
                     TRIGGER_NAME FROM information_schema.TRIGGERS WHERE BINARY TRIGGER_SCHEMA = DATABASE()";
        let rows: Vec<(String, String)> = conn.query(order).await.unwrap();
        for (place, name) in rows {
            all.insert((database.clone(), "ORDER".into(), place), vec![Some(name.into_bytes())]);
        }
    }
    all
}

async fn add(conn: &mut Conn, all: &mut Definitions, database: &str, kind: &str, name: &str) {
    let sql = format!("SHOW CREATE {kind} {}", quote_name(name));
    let row: Row = match conn.query_first(&sql).await {
        Ok(row) => row.unwrap(),
        // MySQL does not show a view in a circle, nor one of a database that is gone.
        Err(e) if kind == "VIEW" => {
            let columns = "VIEW_DEFINITION, CHECK_OPTION, DEFINER, SECURITY_TYPE, \
                           CHARACTER_SET_CLIENT, COLLATION_CONNECTION";
            let sql = format!(
                "SELECT '{}', {columns} FROM information_schema.VIEWS \
                 WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '{name}'",
                e.to_string().replace('\'', "''")
            );
            conn.query_first(&sql).await.unwrap().unwrap()
        }
        Err(e) => panic!("{sql}: {e}"),
    };
    let mut columns = bytes(row);
    if kind == "TRIGGER" {
        // The last one is when it was created.
        columns.truncate(6);
    }
    all.insert((database.to_owned(), kind.to_owned(), name.to_owned()), columns);
}

fn bytes(row: Row) -> Vec<Option<Vec<u8>>> {
    row.unwrap()
        .into_iter()
        .map(|value| match value {
            Value::NULL => None,
            Value::Bytes(bytes) => Some(bytes),
            other => Some(format!("{other:?}").into_bytes()),
        })
        .collect()
}

/// What is not the same, for people.
pub(crate) fn differences(left: &Definitions, right: &Definitions) -> Vec<String> {
    let keys: BTreeSet<_> = left.keys().chain(right.keys()).collect();
    keys.into_iter()
        .filter(|key| left.get(*key) != right.get(*key))
        .map(|key| format!("{key:?}:\n  {}\n  {}", shown(left.get(key)), shown(right.get(key))))
        .collect()
}

fn shown(columns: Option<&Vec<Option<Vec<u8>>>>) -> String {
    let text = |column: &Option<Vec<u8>>| {
        column.as_ref().map_or("NULL".into(), |bytes| bytes.escape_ascii().to_string())
    };
    columns.map_or("nothing".into(), |c| c.iter().map(text).collect::<Vec<_>>().join(" | "))
}
