//! Databases, tablespaces, sequences and tables.

use backup_core::{Error, ErrorKind, Finding, Result, Severity};
use mysql_async::Conn;

use super::super::catalog::{Catalog, Database, SequenceState, StoredKind, StoredObject, Table};
use super::super::ddl::{inherit_collation, quote_text};
use super::super::inventory::{DEFINITION_SETTINGS, ServerFacts, query};
use super::super::select::{TableName, quote_name};
use super::super::settings::{self, Setting, required, wanted};
use super::extras::spatial_reference_system;
use super::{compat, target_error};

/// As much as a table of MEMORY may have.
pub(in crate::logical) const LARGEST_IN_MEMORY: &str = "18446744073709550592";

/// The settings under which every definition that a server may hold is taken as it is.
const CREATE_SETTINGS: [Setting; 17] = [
    // Tables come in any order, and foreign keys may form circles.
    required("foreign_key_checks", "OFF"),
    required("unique_checks", "OFF"),
    // MySQL 8.4 refuses foreign keys to keys that are not unique, even with the checks off.
    required("restrict_fk_on_non_standard_key", "OFF"),
    // No column that the source does not have, and no refusal of tables without a primary key.
    required("sql_generate_invisible_primary_key", "OFF"),
    required("sql_require_primary_key", "OFF"),
    required("explicit_defaults_for_timestamp", "ON"),
    required("default_collation_for_utf8mb4", "utf8mb4_0900_ai_ci"),
    required("system_versioning_alter_history", "KEEP"),
    // What MariaDB writes into every definition that does not name it, where it is not what it is by itself.
    wanted("innodb_compression_default", "OFF"),
    wanted("innodb_default_encryption_key_id", "1"),
    wanted("mhnsw_default_distance", "euclidean"),
    wanted("mhnsw_default_m", "6"),
    // A ROW_FORMAT that the target cannot have is passed over, as on the source.
    wanted("innodb_strict_mode", "OFF"),
    // Cached figures can be a day old, and call a table empty that is to be destroyed.
    wanted("information_schema_stats_expiry", "0"),
    wanted("sql_if_exists", "OFF"),
    // A table of MEMORY may grow as far as the session allows that makes it; servers round this down.
    wanted("max_heap_table_size", LARGEST_IN_MEMORY),
    // MariaDB sets no sequence where statements are logged; who may not is told beforehand.
    wanted("binlog_format", "ROW"),
];

/// Zero and impossible dates are valid as defaults where they were created; an engine that the
/// target lacks must fail instead of silently becoming another.
const CREATE_MODE: &str = "NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION,ALLOW_INVALID_DATES";

/// Sets up the session for creating objects. The functions of this module that take a connection
/// do so themselves; [`create_table`] alone does not, as it is called for each table.
///
/// # Errors
/// [`ErrorKind::Privilege`] when a setting that matters may not be set.
pub async fn prepare(conn: &mut Conn, facts: &ServerFacts) -> Result<()> {
    let what = "cannot set up the session for creating objects";
    let run = async {
        query::run(conn, "SET NAMES utf8mb4", what).await?;
        query::run(conn, format!("SET SESSION sql_mode = '{CREATE_MODE}'"), what).await?;
        settings::apply(conn, &DEFINITION_SETTINGS).await?;
        settings::apply(conn, &CREATE_SETTINGS).await
    };
    run.await.map_err(|e| target_error(e, facts))
}

/// Creates the databases that are not there yet. Gives warnings: a database that is there keeps its
/// own character set.
///
/// # Errors
/// [`ErrorKind::Privilege`], [`ErrorKind::Target`] with the server's own words.
pub async fn create_databases(
    conn: &mut Conn,
    facts: &ServerFacts,
    catalog: &Catalog,
) -> Result<Vec<String>> {
    prepare(conn, facts).await?;
    let mut warnings = Vec::new();
    for database in &catalog.databases {
        let name = quote_name(&database.name);
        let what = format!("cannot create the database {}", database.name);
        let existing = query::rows(conn, format!("SHOW CREATE DATABASE {name}"), &what).await;
        match existing {
            Ok(rows) => {
                let there = rows.first().and_then(|row| query::text(row, 1)).unwrap_or_default();
                warnings.extend(stays(database, &there));
            }
            Err(e) if e.server().is_some_and(|s| s.code == 1049) => {
                query::run(conn, database.create.clone(), &what)
                    .await
                    .map_err(|e| target_error(e, facts))?;
            }
            // Not allowed to look: it is there, or the account may not create it either.
            Err(e) if e.kind() == ErrorKind::Privilege => {
                let start = "CREATE DATABASE ";
                let rest = database.create.strip_prefix(start).unwrap_or(&database.create);
                query::run(conn, format!("{start}IF NOT EXISTS {rest}"), &what)
                    .await
                    .map_err(|e| target_error(e, facts))?;
            }
            Err(e) => return Err(target_error(e, facts)),
        }
    }
    Ok(warnings)
}

/// What there is to say of a database that is there, as `there` defines it.
fn stays(database: &Database, there: &str) -> Option<String> {
    // Servers may not tell cases of names apart.
    let options = |create: &str| {
        let name = quote_name(&database.name);
        let rest = create.strip_prefix("CREATE DATABASE ").unwrap_or(create);
        match rest.get(..name.len()) {
            Some(start) if start.to_lowercase() == name.to_lowercase() => {
                rest[name.len()..].to_owned()
            }
            _ => rest.to_owned(),
        }
    };
    // A database made up for renamed tables has no options.
    let has_options = database.create.contains("/*!");
    (has_options && options(there) != options(&database.create)).then(|| {
        format!(
            "the database {} is there already and stays as it is: `{there}`, not `{}`",
            database.name, database.create
        )
    })
}

/// What [`create_databases`] will tell of those that are there.
///
/// # Errors
/// Those of [`sql_error`](crate::connect::sql_error).
pub(in crate::logical) async fn foreseen_databases(
    conn: &mut Conn,
    facts: &ServerFacts,
    catalog: &Catalog,
) -> Result<Vec<Finding>> {
    prepare(conn, facts).await?;
    let mut findings = Vec::new();
    for database in &catalog.databases {
        let what = format!("cannot look at the database {}", database.name);
        let sql = format!("SHOW CREATE DATABASE {}", quote_name(&database.name));
        let rows = match query::rows(conn, sql, &what).await {
            // It is not there, or nobody may look.
            Err(e) if e.kind() == ErrorKind::Privilege => continue,
            Err(e) if e.server().is_some_and(|s| s.code == 1049) => continue,
            other => other?,
        };
        let there = rows.first().and_then(|row| query::text(row, 1)).unwrap_or_default();
        let finding = |text| {
            let remedy = "change it with ALTER DATABASE where it matters; new tables that name no character set take its";
            Finding::new(Severity::Warning, "databases", text, remedy)
        };
        findings.extend(stays(database, &there).map(finding));
    }
    Ok(findings)
}

/// Whether a database takes no changes (MySQL 8.0.22), which its definition says in a comment.
pub(in crate::logical) fn is_read_only(create: &str) -> bool {
    create.contains("/* READ ONLY = 1 */")
}

/// Creates spatial reference systems, tablespaces, sequences (where they stood), and all tables,
/// empty.
///
/// # Errors
/// [`ErrorKind::Privilege`], [`ErrorKind::Target`] with the server's own words.
pub async fn create_tables(conn: &mut Conn, facts: &ServerFacts, catalog: &Catalog) -> Result<()> {
    create_before_tables(conn, facts, catalog, false).await?;
    for table in &catalog.tables {
        let create = inherit_collation(&table.create);
        create_table(conn, facts, table, &create).await?;
    }
    Ok(())
}

/// Creates what tables need: spatial reference systems, tablespaces, and sequences where they stood. `keep` says that what is
/// there already may stay.
///
/// # Errors
/// [`ErrorKind::Privilege`], [`ErrorKind::Target`] with the server's own words.
pub async fn create_before_tables(
    conn: &mut Conn,
    facts: &ServerFacts,
    catalog: &Catalog,
    keep: bool,
) -> Result<()> {
    prepare(conn, facts).await?;
    for object in &catalog.stored {
        match object.kind {
            StoredKind::SpatialReferenceSystem => {
                spatial_reference_system(conn, facts, object).await?;
            }
            StoredKind::Tablespace => tablespace(conn, facts, object).await?,
            StoredKind::Sequence => {
                let keep = keep || object.keep_existing;
                sequence(conn, facts, object, keep).await?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Creates one table by `create`, which is its own definition or one with fewer indexes, without
/// the collations that columns have from the table. The session must have been set up by
/// [`prepare`].
///
/// # Errors
/// [`ErrorKind::Privilege`], [`ErrorKind::Target`] with the server's own words.
pub async fn create_table(
    conn: &mut Conn,
    facts: &ServerFacts,
    table: &Table,
    create: &str,
) -> Result<()> {
    use_database(conn, facts, &table.database).await?;
    let what = format!("cannot create the table {}", table.full_name());
    query::run(conn, create, &what).await.map_err(|e| target_error(e, facts))
}

/// Makes `database` the current one: definitions do not say theirs.
pub(super) async fn use_database(
    conn: &mut Conn,
    facts: &ServerFacts,
    database: &str,
) -> Result<()> {
    let what = format!("cannot use the database {database}");
    query::run(conn, format!("USE {}", quote_name(database)), &what)
        .await
        .map_err(|e| target_error(e, facts))
}

async fn tablespace(conn: &mut Conn, facts: &ServerFacts, object: &StoredObject) -> Result<()> {
    if !compat::has_tablespaces(facts) {
        // Of one that a table is in was told before.
        return Ok(());
    }
    let what = format!("cannot create the tablespace {}", object.name);
    match query::run(conn, object.create.clone(), &what).await {
        // "already exists".
        Err(e) if e.server().is_some_and(|s| s.code == 3511 || s.code == 1813) => Ok(()),
        other => other.map_err(|e| target_error(e, facts)),
    }
}

async fn sequence(
    conn: &mut Conn,
    facts: &ServerFacts,
    object: &StoredObject,
    keep: bool,
) -> Result<()> {
    let name = object.full_name();
    let what = format!("cannot create the sequence {name}");
    use_database(conn, facts, &object.database).await?;
    if keep {
        let sql = format!(
            "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
            quote_text(&object.database),
            quote_text(&object.name)
        );
        if !query::rows(conn, sql, &what).await?.is_empty() {
            return Ok(());
        }
    }
    query::run(conn, object.create.clone(), &what).await.map_err(|e| target_error(e, facts))?;
    match &object.sequence {
        Some(state) => set_sequence(conn, &name, state).await.map_err(|e| target_error(e, facts)),
        None => Ok(()),
    }
}

/// Puts every sequence of the catalogue where it stood, for a target where it was used since.
///
/// # Errors
/// [`ErrorKind::Privilege`], [`ErrorKind::Target`] with the server's own words.
pub async fn set_sequences(conn: &mut Conn, facts: &ServerFacts, catalog: &Catalog) -> Result<()> {
    let mut ready = false;
    for object in catalog.stored.iter().filter(|o| !o.keep_existing) {
        if let Some(state) = &object.sequence {
            if !std::mem::replace(&mut ready, true) {
                // The session may be another one than that which made them.
                prepare(conn, facts).await?;
            }
            set_sequence(conn, &object.full_name(), state)
                .await
                .map_err(|e| target_error(e, facts))?;
        }
    }
    Ok(())
}

async fn set_sequence(conn: &mut Conn, name: &TableName, state: &SequenceState) -> Result<()> {
    let damaged = || Error::damaged(format!("the sequence {name} stands at no number"));
    let next: i128 = state.next.parse().map_err(|_| damaged())?;
    let cycle: i128 = state.cycle.parse().map_err(|_| damaged())?;
    let what = format!("cannot set the sequence {name}");
    let quoted = format!("{}.{}", quote_name(&name.database), quote_name(&name.table));
    let sql =
        format!("SELECT CAST(minimum_value AS CHAR), CAST(maximum_value AS CHAR) FROM {quoted}");
    let rows = query::rows(conn, sql, &what).await?;
    let limit = |column| {
        let text = rows.first().and_then(|row| query::text(row, column));
        text.and_then(|text| text.parse::<i128>().ok()).unwrap_or(next)
    };
    // One that has given out its last value stands beyond its limit, which SETVAL does not take:
    // there the last value is marked as used.
    let within = next.clamp(limit(0), limit(1));
    let used = u8::from(within != next);
    query::rows(conn, format!("SELECT SETVAL({quoted}, {within}, {used}, {cycle})"), &what)
        .await
        .map(drop)
}
