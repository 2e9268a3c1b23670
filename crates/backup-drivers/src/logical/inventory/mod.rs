//! What a server is, and the exact definitions of everything on it.
//!
//! Definitions are read with `SHOW CREATE …`, which is the servers' own promise of a statement that
//! makes the same object again; the information schema says what there is, in a few queries for
//! each database.

mod accounts;
mod grants;
mod history;
mod privileges;
pub(super) mod query;
mod repair;
mod server;
mod statement;
mod stored;
mod tables;

use std::collections::BTreeSet;

use backup_core::{Capabilities, Error, ErrorKind, Flavor, Result, ServerVersion};
use mysql_async::{Conn, Row};

use super::catalog::{Catalog, Database, Header, VERSION};
use super::ddl::quote_text;
use super::pattern::{Glob, TableGlob};
use super::select::{SYSTEM_DATABASES, Selection, TableName, quote_name};
use super::settings::{self, Setting, required, wanted};

pub use accounts::accounts;
pub(in crate::logical) use history::counts_transactions;
pub(crate) use privileges::missing_for_copies;
pub(crate) use privileges::{Need, lacking, lacking_each};
pub use privileges::{
    Privilege, ToolNeeds, missing_for_settings, missing_for_tool, missing_privileges,
};
pub(in crate::logical) use privileges::{missing_for_accounts, missing_process};
pub(super) use statement::is_utf8;
pub(crate) use statement::{decode, encode, unhex};
pub(in crate::logical) use tables::{unreadable_tables, without_files};

/// What a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// MySQL or MariaDB.
    pub flavor: Flavor,
    /// Its version.
    pub version: ServerVersion,
    /// Its version as it says it.
    pub version_text: String,
    /// `@@server_uuid` (MySQL) or `@@server_uid` (MariaDB, where there is one).
    pub server_uuid: Option<String>,
    /// `@@server_id`.
    pub server_id: u64,
    /// `@@hostname`.
    pub hostname: Option<String>,
    /// `@@lower_case_table_names`: 0 = names are case sensitive, 1 = stored in lower case, 2 =
    /// compared in lower case.
    pub lower_case_table_names: u8,
}

impl ServerFacts {
    /// What a server of this version can do.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.version.capabilities()
    }
}

/// Asks a server what it is.
///
/// # Errors
/// Those of [`sql_error`](crate::connect::sql_error), and
/// [`ErrorKind::Source`] for a version that cannot be read.
pub async fn server(conn: &mut Conn) -> Result<ServerFacts> {
    let sql = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version', 'version_comment', \
               'server_uuid', 'server_uid', 'server_id', 'hostname', 'lower_case_table_names')";
    let rows = query::rows(conn, sql, "cannot ask the server what it is").await?;
    let value = |name: &str| {
        let row = rows.iter().find(|row| query::text(row, 0).as_deref() == Some(name));
        row.and_then(|row| query::text(row, 1)).filter(|value| !value.is_empty())
    };
    let version_text = value("version").unwrap_or_default();
    let version =
        ServerVersion::parse(&version_text, &value("version_comment").unwrap_or_default())?;
    let number = |name: &str| value(name).and_then(|value| value.parse::<u64>().ok()).unwrap_or(0);
    Ok(ServerFacts {
        flavor: version.flavor(),
        server_uuid: value("server_uuid").or_else(|| value("server_uid")),
        server_id: number("server_id"),
        hostname: value("hostname"),
        lower_case_table_names: number("lower_case_table_names").min(2) as u8,
        version,
        version_text,
    })
}

/// The base tables that are wanted, in the order of their names. Quick enough for under a lock: it
/// opens no table.
///
/// # Errors
/// Those of [`sql_error`](crate::connect::sql_error).
pub async fn list_tables(conn: &mut Conn, selection: &Selection) -> Result<Vec<TableName>> {
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES \
         WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND {}",
        databases_condition("TABLE_SCHEMA", selection)
    );
    let rows = query::rows(conn, sql, "cannot list the tables").await?;
    let mut tables = Vec::with_capacity(rows.len());
    for row in &rows {
        let (database, table) = (query::required(row, 0)?, query::required(row, 1)?);
        if selection.wants_table(&database, &table) {
            tables.push(TableName { database, table });
        }
    }
    tables.sort();
    Ok(tables)
}

/// The same with the engine of each, without a name where the server cannot open the table.
///
/// # Errors
/// Those of [`sql_error`](crate::connect::sql_error).
pub(super) async fn list_engines(
    conn: &mut Conn,
    selection: &Selection,
) -> Result<Vec<(TableName, String)>> {
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, ENGINE FROM information_schema.TABLES \
         WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND {}",
        databases_condition("TABLE_SCHEMA", selection)
    );
    let rows = query::rows(conn, sql, "cannot list the engines of the tables").await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let (database, table) = (query::required(row, 0)?, query::required(row, 1)?);
        if selection.wants_table(&database, &table) {
            let engine = query::text(row, 2).unwrap_or_default();
            found.push((TableName { database, table }, engine));
        }
    }
    Ok(found)
}

/// The tables among those that are wanted whose engine takes no part in a snapshot.
///
/// # Errors
/// Those of [`sql_error`](crate::connect::sql_error).
pub(super) async fn list_non_transactional(
    conn: &mut Conn,
    selection: &Selection,
) -> Result<Vec<TableName>> {
    let mut listed = list_engines(conn, selection).await?;
    listed.retain(|(_, engine)| {
        let own_rows = !tables::is_transactional(engine) && !tables::has_rows_elsewhere(engine);
        own_rows && !engine.is_empty()
    });
    Ok(listed.into_iter().map(|(name, _)| name).collect())
}

/// A condition for queries of `information_schema.TABLES` that want what it takes to open a table to know: without
/// those that show rows of other tables or servers, one of which may be gone.
///
/// # Errors
/// Those of [`sql_error`](crate::connect::sql_error).
pub async fn but_elsewhere(conn: &mut Conn) -> Result<String> {
    let mut listed = list_engines(conn, &Selection::default()).await?;
    listed.retain(|(_, engine)| tables::has_rows_elsewhere(engine));
    Ok(tables::but_not(&listed.into_iter().map(|(name, _)| name).collect::<Vec<_>>()))
}

/// Reads every definition that is wanted.
///
/// The connection is one of its own: `sql_mode`, time zone, character sets and current database are
/// changed. Tables that come and go meanwhile are for the caller to notice or to prevent
/// ([`list_tables`], backup locks).
///
/// # Errors
/// [`ErrorKind::Privilege`] when the account cannot see a kind of object (the servers would hide
/// them silently) or a definition; [`ErrorKind::Usage`] when the selection names what does not
/// exist; else those of [`sql_error`](crate::connect::sql_error).
pub async fn read(conn: &mut Conn, facts: &ServerFacts, selection: &Selection) -> Result<Catalog> {
    let selection = &in_servers_case(facts, selection);
    prepare(conn).await?;
    privileges::require_definitions(conn, facts, selection).await?;
    let mut catalog = Catalog {
        header: Header {
            version: VERSION,
            flavor: facts.flavor,
            server_version: facts.version_text.clone(),
            lower_case_table_names: facts.lower_case_table_names,
        },
        databases: databases(conn, selection).await?,
        tables: Vec::new(),
        stored: Vec::new(),
        accounts: Vec::new(),
        warnings: Vec::new(),
    };
    for database in catalog.databases.clone() {
        let name = &database.name;
        // Views are printed without the name of the database when it is the current one.
        let what = format!("cannot use the database {name}");
        query::run(conn, format!("USE {}", quote_name(name)), &what).await?;
        let mut scope = Scope { conn, facts, selection, database: name, catalog: &mut catalog };
        let relations = tables::relations(&mut scope).await?;
        tables::read(&mut scope, &relations).await?;
        stored::read(&mut scope, &relations).await?;
    }
    tables::tablespaces(conn, facts, selection, &mut catalog).await?;
    server::objects(conn, facts, selection, &mut catalog).await?;
    catalog.tables.sort_by_key(super::catalog::Table::full_name);
    // The order in which they are created again; within a kind as found.
    catalog.stored.sort_by_key(|object| object.kind);
    missing_tables(selection, &catalog)?;
    Ok(catalog)
}

/// What is being read, and where it goes.
struct Scope<'a> {
    conn: &'a mut Conn,
    facts: &'a ServerFacts,
    selection: &'a Selection,
    database: &'a str,
    catalog: &'a mut Catalog,
}

impl Scope<'_> {
    /// A condition for the information schema; it narrows down, and [`Scope::wants`] decides.
    fn condition(&self, database: &str, table: &str) -> String {
        let mut condition = format!("{database} = {}", quote_text(self.database));
        if self.selection.only_tables() {
            let tables: Vec<String> = self
                .selection
                .tables
                .iter()
                .filter(|t| t.database == self.database)
                .map(|t| quote_text(&t.table))
                .collect();
            condition.push_str(&format!(" AND {table} IN ({})", tables.join(", ")));
        }
        condition
    }

    /// MariaDB compares names in the information schema without regard to case and accents.
    fn is_here(&self, row: &Row, column: usize) -> bool {
        query::bytes(row, column) == Some(self.database.as_bytes())
    }

    fn wants(&self, table: &str) -> bool {
        self.selection.wants_table(self.database, table)
    }

    /// The full name of an object, for messages.
    fn name(&self, object: &str) -> String {
        TableName { database: self.database.to_owned(), table: object.to_owned() }.to_string()
    }
}

/// The settings under which definitions are read, and written down again.
pub(super) const DEFINITION_SETTINGS: [Setting; 12] = [
    // Constants of TIMESTAMP columns are printed in the session's time zone.
    required("time_zone", "+00:00"),
    required("sql_quote_show_create", "ON"),
    required("show_gipk_in_create_table_and_information_schema", "ON"),
    wanted("show_create_table_skip_secondary_engine", "OFF"),
    wanted("show_create_table_verbosity", "OFF"),
    // Cached figures can be a day old, and say 0 rows for a table that has millions.
    wanted("information_schema_stats_expiry", "0"),
    // Views would be printed with it.
    wanted("sql_buffer_result", "OFF"),
    required("character_set_collations", ""),
    // Nobody waits for hours behind somebody's ALTER TABLE, and reading may take long itself.
    wanted("lock_wait_timeout", "300"),
    wanted("max_execution_time", "0"),
    wanted("max_statement_time", "0.000000"),
    // The connection may be idle while rows are read or loaded.
    wanted("wait_timeout", "2592000"),
];

/// Makes `SHOW CREATE` print what can be read back anywhere.
pub(super) async fn prepare(conn: &mut Conn) -> Result<()> {
    let what = "cannot set up the session for reading definitions";
    query::run(conn, "SET NAMES utf8mb4", what).await?;
    // No conversion: it would lose what is not in the session's character set.
    query::run(conn, "SET SESSION sql_mode = '', character_set_results = NULL", what).await?;
    settings::apply(conn, &DEFINITION_SETTINGS).await
}

/// The selection with the names as the server stores them.
fn in_servers_case(facts: &ServerFacts, selection: &Selection) -> Selection {
    if facts.lower_case_table_names != 1 {
        return selection.clone();
    }
    let tables = |tables: &BTreeSet<TableName>| {
        let lower = |t: &TableName| TableName {
            database: t.database.to_lowercase(),
            table: t.table.to_lowercase(),
        };
        tables.iter().map(lower).collect()
    };
    Selection {
        databases: selection.databases.iter().map(|d| d.to_lowercase()).collect(),
        tables: tables(&selection.tables),
        exclude_tables: tables(&selection.exclude_tables),
        database_globs: selection.database_globs.iter().map(Glob::to_lowercase).collect(),
        table_globs: selection.table_globs.iter().map(TableGlob::to_lowercase).collect(),
        exclude_databases: selection.exclude_databases.iter().map(Glob::to_lowercase).collect(),
        exclude_table_globs: selection
            .exclude_table_globs
            .iter()
            .map(TableGlob::to_lowercase)
            .collect(),
    }
}

/// The selection with names as the server stores them, and in place of patterns.
///
/// # Errors
/// [`ErrorKind::Usage`] for a pattern that fits nothing; else those of
/// [`sql_error`](crate::connect::sql_error).
pub async fn resolve(
    conn: &mut Conn,
    facts: &ServerFacts,
    selection: &Selection,
) -> Result<Selection> {
    let selection = in_servers_case(facts, selection);
    if !selection.has_globs() {
        return Ok(selection);
    }
    let databases = list_databases(conn).await?;
    let tables = list_tables(conn, &Selection::default()).await?;
    selection.resolve(&databases, &tables)
}

/// The patterns of what a backup is to leave out, tables or rows, that fit nothing.
///
/// # Errors
/// [`ErrorKind::Usage`] for a name that is not there; else those of [`sql_error`](crate::connect::sql_error).
pub(super) async fn idle_exclusions(
    conn: &mut Conn,
    facts: &ServerFacts,
    selection: &Selection,
    no_rows: &BTreeSet<TableGlob>,
) -> Result<Vec<String>> {
    let selection = in_servers_case(facts, selection);
    let mut idle = Vec::new();
    if selection.has_exclusions() {
        let sql = "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES";
        let rows = query::rows(conn, sql, "cannot list the tables").await?;
        let table = |row| {
            let (database, table) = (query::required(row, 0)?, query::required(row, 1)?);
            Ok(TableName { database, table })
        };
        let tables = rows.iter().map(table).collect::<Result<Vec<_>>>()?;
        idle.extend(selection.idle_exclusions(&list_databases(conn).await?, &tables)?);
    }
    // All rows of whatever there is are another matter.
    let everything: TableGlob = "*.*".parse()?;
    let no_rows: BTreeSet<&TableGlob> = no_rows.iter().filter(|g| **g != everything).collect();
    if !no_rows.is_empty() {
        let selection = resolve(conn, facts, &selection).await?;
        let tables = list_tables(conn, &selection).await?;
        for glob in no_rows {
            let folded = in_servers_case_glob(facts, glob);
            match folded.as_literal() {
                _ if tables.iter().any(|t| folded.matches(&t.database, &t.table)) => {}
                Some(name) => {
                    let problem =
                        format!("there is no table {name}, whose rows are to be left out");
                    return Err(Error::usage(problem).with_remedy("correct --no-rows"));
                }
                None => idle.push(glob.to_string()),
            }
        }
    }
    Ok(idle)
}

/// A pattern for names as the server stores them.
pub(super) fn in_servers_case_glob(facts: &ServerFacts, glob: &TableGlob) -> TableGlob {
    match facts.lower_case_table_names {
        1 => glob.to_lowercase(),
        _ => glob.clone(),
    }
}

async fn list_databases(conn: &mut Conn) -> Result<Vec<String>> {
    let sql = "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA";
    let rows = query::rows(conn, sql, "cannot list the databases").await?;
    rows.iter().map(|row| query::required(row, 0)).collect()
}

fn databases_condition(column: &str, selection: &Selection) -> String {
    let list = |names: &mut dyn Iterator<Item = &str>| {
        let names: Vec<&str> = names.collect();
        let quoted: Vec<String> = names.iter().map(|name| quote_text(name)).collect();
        let folded: BTreeSet<String> = names.iter().map(|name| name.to_lowercase()).collect();
        let apart: BTreeSet<&str> = names.iter().copied().collect();
        // Of names that are the same in the view's collation MariaDB looks for the first one only. Bytes are the same
        // where the names are; looking for them takes reading everything.
        let exact =
            folded.len() < apart.len() || apart.len() > 1 && !apart.iter().all(|n| n.is_ascii());
        (if exact { "BINARY " } else { "" }, quoted.join(", "))
    };
    if selection.only_tables() {
        let (exact, names) = list(&mut selection.tables.iter().map(|t| t.database.as_str()));
        format!("{exact}{column} IN ({names})")
    } else if selection.databases.is_empty() {
        format!("{column} NOT IN ({})", list(&mut SYSTEM_DATABASES.into_iter()).1)
    } else {
        let (exact, names) = list(&mut selection.databases.iter().map(String::as_str));
        format!("{exact}{column} IN ({names})")
    }
}

async fn databases(conn: &mut Conn, selection: &Selection) -> Result<Vec<Database>> {
    let sql = format!(
        "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE {}",
        databases_condition("SCHEMA_NAME", selection)
    );
    let rows = query::rows(conn, sql, "cannot list the databases").await?;
    let mut names = rows.iter().map(|row| query::required(row, 0)).collect::<Result<Vec<_>>>()?;
    names.retain(|name| selection.wants_database(name));
    names.sort();
    let wanted = selection.tables.iter().map(|t| &t.database).chain(&selection.databases);
    if let Some(missing) = wanted.into_iter().find(|name| !names.contains(name)) {
        return Err(Error::usage(format!("the server has no database {missing}, or hides it"))
            .with_remedy("check the name, and that the account may see the database"));
    }
    let mut databases = Vec::with_capacity(names.len());
    for name in names {
        let what = format!("cannot read the definition of database {name}");
        let sql = format!("SHOW CREATE DATABASE {}", quote_name(&name));
        let rows = query::rows(conn, sql, &what).await?;
        let row = rows.first().ok_or_else(|| Error::new(ErrorKind::Source, what))?;
        databases.push(Database { name, create: query::required(row, 1)? });
    }
    Ok(databases)
}

/// Fails when a table that was asked for by name is not there.
fn missing_tables(selection: &Selection, catalog: &Catalog) -> Result<()> {
    let is_there = |wanted: &&TableName| {
        catalog.tables.iter().any(|t| t.database == wanted.database && t.name == wanted.table)
            || catalog
                .stored
                .iter()
                .any(|o| o.database == wanted.database && o.name == wanted.table)
    };
    match selection.tables.iter().find(|wanted| !is_there(wanted)) {
        None => Ok(()),
        Some(table) => Err(Error::usage(format!("the server has no table {table}"))
            .with_remedy("check the name; views are kept with their whole database only")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_quote_what_they_are_given() {
        let databases = ["it's", "a\\"].map(str::to_owned).into();
        let selection = Selection { databases, ..Selection::default() };
        assert_eq!(databases_condition("S", &selection), "S IN ('a\\\\', 'it''s')");
        assert!(databases_condition("S", &Selection::default()).starts_with("S NOT IN ('mysql', "));
    }
}
