//! Whether code runs at the target as it ran at the source: under the same `sql_mode`, character sets and
//! time zone, as the server itself noted them.

use std::collections::BTreeSet;

use backup_core::{Flavor, Result};
use mysql_async::Conn;

use super::super::catalog::{Catalog, StoredObject};
use super::super::ddl::quote_text;
use super::super::inventory::{ServerFacts, query};
use super::target_error;

/// Compares what the target noted of routines, triggers and events with the catalogue. Gives warnings.
///
/// # Errors
/// When the connection is lost, or the account may not look.
pub async fn differing_settings(
    conn: &mut Conn,
    facts: &ServerFacts,
    catalog: &Catalog,
) -> Result<Vec<String>> {
    let databases: BTreeSet<&str> = catalog
        .stored
        .iter()
        .filter(|object| object.sql_mode.is_some() && !object.database.is_empty())
        .map(|object| object.database.as_str())
        .collect();
    if databases.is_empty() {
        return Ok(Vec::new());
    }
    let databases: Vec<String> = databases.into_iter().map(quote_text).collect();
    let databases = databases.join(", ");
    let what = "cannot read the settings of code back";
    query::run(conn, "SET NAMES utf8mb4", what).await?;
    let mut warnings = Vec::new();
    for (view, schema, name, kind, zone) in [
        ("ROUTINES", "ROUTINE_SCHEMA", "ROUTINE_NAME", "ROUTINE_TYPE", "NULL"),
        ("TRIGGERS", "TRIGGER_SCHEMA", "TRIGGER_NAME", "'TRIGGER'", "NULL"),
        ("EVENTS", "EVENT_SCHEMA", "EVENT_NAME", "'EVENT'", "TIME_ZONE"),
    ] {
        let sql = format!(
            "SELECT {schema}, {name}, {kind}, SQL_MODE, CHARACTER_SET_CLIENT, COLLATION_CONNECTION, \
             DATABASE_COLLATION, {zone} FROM information_schema.{view} WHERE {schema} IN ({databases})"
        );
        let rows = query::rows(conn, sql, what).await.map_err(|e| target_error(e, facts))?;
        for row in rows {
            let text = |column| query::text(&row, column);
            let (database, name, kind) =
                (text(0).unwrap_or_default(), text(1).unwrap_or_default(), text(2));
            let object = catalog.stored.iter().find(|object| {
                object.database == database
                    && object.name == name
                    && kind
                        .as_ref()
                        .is_some_and(|k| object.kind.to_string().eq_ignore_ascii_case(k))
            });
            let Some(object) = object else { continue };
            let found = Settings {
                sql_mode: text(3),
                charset: text(4),
                collation: text(5),
                database_collation: text(6),
                time_zone: text(7),
            };
            warnings.extend(found.differ(object, facts.flavor));
        }
    }
    Ok(warnings)
}

/// What a server notes of code.
struct Settings {
    sql_mode: Option<String>,
    charset: Option<String>,
    collation: Option<String>,
    database_collation: Option<String>,
    time_zone: Option<String>,
}

impl Settings {
    fn differ(&self, object: &StoredObject, target: Flavor) -> Vec<String> {
        let told = |what: &str, is: &str, was: &str| {
            format!(
                "the {} {} has the {what} `{is}` now, and had `{was}` at the source",
                object.kind,
                object.full_name()
            )
        };
        let mut warnings = Vec::new();
        let modes = |text: &str| -> BTreeSet<String> {
            let modes = text.split(',').map(str::trim).filter(|mode| !mode.is_empty());
            // The only mode of MySQL 5.7 that 8.0 refuses; it was about GRANT.
            let known = |mode: &&str| target == Flavor::MariaDb || *mode != "NO_AUTO_CREATE_USER";
            modes.filter(known).map(str::to_owned).collect()
        };
        if let (Some(is), Some(was)) = (&self.sql_mode, &object.sql_mode)
            && modes(is) != modes(was)
        {
            warnings.push(told("sql_mode", is, was));
        }
        // The old name of a character set, and of its collations.
        let named = |name: &str| match name.strip_prefix("utf8") {
            Some(rest) if rest.is_empty() || rest.starts_with('_') => format!("utf8mb3{rest}"),
            _ => name.to_owned(),
        };
        for (what, is, was) in [
            ("character_set_client", &self.charset, &object.charset),
            ("collation_connection", &self.collation, &object.collation),
            ("database collation", &self.database_collation, &object.database_collation),
            ("time zone", &self.time_zone, &object.time_zone),
        ] {
            if let (Some(is), Some(was)) = (is, was)
                && named(is) != named(was)
            {
                warnings.push(told(what, is, was));
            }
        }
        warnings
    }
}
