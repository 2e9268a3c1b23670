//! What stands in the way at a target.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use backup_core::{ErrorKind, Finding, Flavor, Result, Severity};
use mysql_async::Conn;

use super::super::catalog::{Catalog, StoredKind, Table};
use super::super::ddl::{Dialect, TokenKind, quote_text, significant};
use super::super::inventory::{self, ServerFacts, query};
use super::super::select::{TableName, quote_name};
use super::compat;
use super::definitions::prepare;
use super::{encrypted, target_error};

/// What a target holds that the restore would make again, and what it lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What would have to be destroyed, in the order of databases and names.
    pub existing: Vec<Existing>,
    /// What the target lacks ([`Severity::Error`]), and what may come out otherwise.
    pub findings: Vec<Finding>,
}

/// An object of the target with the name of one that is to be restored.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Existing {
    /// Database and name.
    pub name: TableName,
    /// What it is.
    pub kind: ExistingKind,
    /// The server's estimate of its rows, for a table.
    pub estimated_rows: Option<u64>,
}

/// What an object of the target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ExistingKind {
    /// A base table.
    Table,
    /// Anything else.
    Stored(StoredKind),
}

impl fmt::Display for Existing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            ExistingKind::Table => write!(f, "table {}", self.name)?,
            ExistingKind::Stored(kind) => write!(f, "{kind} {}", self.name)?,
        }
        match self.estimated_rows {
            Some(rows) => write!(f, " (about {rows} rows)"),
            None => Ok(()),
        }
    }
}

/// Compares the catalogue, as [`choose`](super::choose) gave it, with what the target holds.
///
/// # Errors
/// Those of [`sql_error`](crate::connect::sql_error).
pub async fn plan(conn: &mut Conn, facts: &ServerFacts, catalog: &Catalog) -> Result<Plan> {
    prepare(conn, facts).await?;
    let planner = Planner { facts, catalog };
    let mut existing = BTreeSet::new();
    for database in &catalog.databases {
        existing.extend(planner.existing(conn, &database.name).await?);
    }
    let mut findings = super::merged::findings(catalog, facts);
    findings.extend(planner.flavors());
    findings.extend(compat::findings(catalog, facts));
    findings.extend(planner.lacking(conn).await?);
    findings.extend(encrypted::findings(conn, facts, catalog).await?);
    findings.extend(accounts(conn, facts, catalog).await?);
    findings.extend(planner.directories());
    Ok(Plan { existing: existing.into_iter().collect(), findings })
}

/// The engines, character sets and collations that the target does not have.
///
/// # Errors
/// Those of [`sql_error`](crate::connect::sql_error).
pub(in crate::logical) async fn lacking(
    conn: &mut Conn,
    facts: &ServerFacts,
    catalog: &Catalog,
) -> Result<Vec<Finding>> {
    Planner { facts, catalog }.lacking(conn).await
}

/// Destroys what [`plan`] found. Foreign keys of other tables do not hinder it.
///
/// # Errors
/// [`ErrorKind::Privilege`], [`ErrorKind::Target`] with the server's own words.
pub async fn drop_existing(
    conn: &mut Conn,
    facts: &ServerFacts,
    existing: &[Existing],
) -> Result<()> {
    prepare(conn, facts).await?;
    // Events first, lest they run meanwhile; a package takes its body along.
    let order = |e: &&Existing| match e.kind {
        ExistingKind::Stored(StoredKind::Event) => 0,
        ExistingKind::Stored(StoredKind::Trigger) => 1,
        ExistingKind::Stored(StoredKind::View) => 2,
        ExistingKind::Stored(StoredKind::PackageBody) => 3,
        ExistingKind::Table => 4,
        ExistingKind::Stored(_) => 5,
    };
    let mut sorted: Vec<&Existing> = existing.iter().collect();
    sorted.sort_by_key(order);
    for object in sorted {
        let what = format!("cannot drop the {object}");
        let kind = match object.kind {
            ExistingKind::Table => "TABLE".to_owned(),
            ExistingKind::Stored(kind) => kind.to_string().to_uppercase(),
        };
        let name = &object.name;
        let sql = format!(
            "DROP {kind} IF EXISTS {}.{}",
            quote_name(&name.database),
            quote_name(&name.table)
        );
        // MariaDB before 11.4 knows packages in this mode only.
        let package = kind.starts_with("PACKAGE");
        let run = async {
            if package {
                query::run(conn, "SET SESSION sql_mode = 'ORACLE'", &what).await?;
            }
            query::run(conn, sql, &what).await?;
            if package {
                query::run(conn, "SET SESSION sql_mode = ''", &what).await?;
            }
            Ok(())
        };
        run.await.map_err(|e| target_error(e, facts))?;
    }
    Ok(())
}

/// The name of a database, table or view as the target compares it.
pub(super) fn folded(facts: &ServerFacts, name: &str) -> String {
    if facts.lower_case_table_names == 0 { name.to_owned() } else { name.to_lowercase() }
}

struct Planner<'a> {
    facts: &'a ServerFacts,
    catalog: &'a Catalog,
}

impl Planner<'_> {
    fn folded(&self, name: &str) -> String {
        folded(self.facts, name)
    }

    async fn existing(&self, conn: &mut Conn, database: &str) -> Result<Vec<Existing>> {
        let mut found = Vec::new();
        let mut add = |name: String, kind, rows| {
            let name = TableName { database: database.to_owned(), table: name };
            found.push(Existing { name, kind, estimated_rows: rows });
        };
        let what = format!("cannot list what the target holds in database {database}");
        let list = |columns: &str, view: &str, schema: &str| {
            format!(
                "SELECT {schema}, {columns} FROM information_schema.{view} WHERE {schema} = {}",
                quote_text(database)
            )
        };
        let here = |row: &mysql_async::Row| {
            let name = query::text(row, 0).unwrap_or_default();
            self.folded(&name) == self.folded(database)
        };

        // Tables, views and sequences share their names.
        let wanted = self.relations(database);
        let sql = list("TABLE_NAME, TABLE_TYPE, TABLE_ROWS", "TABLES", "TABLE_SCHEMA");
        let mut dropped = BTreeSet::new();
        for row in query::rows(conn, sql, &what).await?.iter().filter(|row| here(row)) {
            let name = query::required(row, 1)?;
            if !wanted.contains(&self.folded(&name)) {
                continue;
            }
            let kind = match query::text(row, 2).as_deref() {
                Some("VIEW") => ExistingKind::Stored(StoredKind::View),
                Some("SEQUENCE") => ExistingKind::Stored(StoredKind::Sequence),
                _ => ExistingKind::Table,
            };
            let rows = (kind == ExistingKind::Table).then(|| query::number(row, 3));
            if kind == ExistingKind::Table {
                dropped.insert(name.clone());
            }
            add(name, kind, rows);
        }

        let sql = list("TRIGGER_NAME, EVENT_OBJECT_TABLE", "TRIGGERS", "TRIGGER_SCHEMA");
        let triggers = self.stored(database, |kind| kind == StoredKind::Trigger);
        let mut seen = BTreeSet::new();
        for row in query::rows(conn, sql, &what).await?.iter().filter(|row| here(row)) {
            let (name, table) = (query::required(row, 1)?, query::required(row, 2)?);
            // A trigger goes with its table, and comes back with it if the backup has it.
            let comes = triggers.contains_key(&name.to_lowercase());
            if comes != dropped.contains(&table) && seen.insert(name.clone()) {
                add(name, ExistingKind::Stored(StoredKind::Trigger), None);
            }
        }

        let routines = self.stored(database, |kind| {
            use StoredKind::{Function, Package, PackageBody, Procedure};
            [Function, Procedure, Package, PackageBody].contains(&kind)
        });
        let sql = list("ROUTINE_NAME, ROUTINE_TYPE", "ROUTINES", "ROUTINE_SCHEMA");
        for row in query::rows(conn, sql, &what).await?.iter().filter(|row| here(row)) {
            let (name, kind) = (query::required(row, 1)?, query::required(row, 2)?.to_lowercase());
            let wanted = routines.get(&name.to_lowercase());
            if let Some(kind) = wanted.and_then(|k| k.iter().find(|k| k.to_string() == kind)) {
                add(name, ExistingKind::Stored(*kind), None);
            }
        }

        let events = self.stored(database, |kind| kind == StoredKind::Event);
        let sql = list("EVENT_NAME", "EVENTS", "EVENT_SCHEMA");
        for row in query::rows(conn, sql, &what).await?.iter().filter(|row| here(row)) {
            let name = query::required(row, 1)?;
            if events.contains_key(&name.to_lowercase()) {
                add(name, ExistingKind::Stored(StoredKind::Event), None);
            }
        }

        let libraries = self.stored(database, |kind| kind == StoredKind::Library);
        if !libraries.is_empty() {
            let sql = list("LIBRARY_NAME", "LIBRARIES", "LIBRARY_SCHEMA");
            for row in query::rows(conn, sql, &what).await?.iter().filter(|row| here(row)) {
                let name = query::required(row, 1)?;
                if libraries.contains_key(&name.to_lowercase()) {
                    add(name, ExistingKind::Stored(StoredKind::Library), None);
                }
            }
        }
        Ok(found)
    }

    /// The names that tables, views and sequences of a database will have.
    fn relations(&self, database: &str) -> BTreeSet<String> {
        let tables = self.catalog.tables.iter().filter(|t| t.database == database);
        let stored = self.catalog.stored.iter().filter(|o| {
            o.database == database
                && !o.keep_existing
                && matches!(o.kind, StoredKind::View | StoredKind::Sequence)
        });
        let names = tables.map(|t| &t.name).chain(stored.map(|o| &o.name));
        names.map(|name| self.folded(name)).collect()
    }

    /// Objects of a database by name in lower case: their names ignore case everywhere.
    fn stored(
        &self,
        database: &str,
        wanted: impl Fn(StoredKind) -> bool,
    ) -> BTreeMap<String, Vec<StoredKind>> {
        let mut found: BTreeMap<String, Vec<StoredKind>> = BTreeMap::new();
        for object in &self.catalog.stored {
            if object.database == database && wanted(object.kind) {
                found.entry(object.name.to_lowercase()).or_default().push(object.kind);
            }
        }
        found
    }

    fn flavors(&self) -> Option<Finding> {
        let source = self.catalog.header.flavor;
        (source != self.facts.flavor).then(|| {
            Finding::new(
                Severity::Warning,
                "server",
                format!(
                    "the backup is of {source}, the target is {}: definitions that only {source} \
                     knows will fail",
                    self.facts.flavor
                ),
                "restore to the same kind of server, or try with --tables",
            )
        })
    }

    /// Engines, collations and character sets that the target does not have.
    async fn lacking(&self, conn: &mut Conn) -> Result<Vec<Finding>> {
        let engines = names(
            conn,
            "SELECT ENGINE FROM information_schema.ENGINES WHERE SUPPORT IN ('YES', 'DEFAULT')",
            "cannot list the target's storage engines",
        )
        .await?;
        let mut collations =
            names(conn, "SHOW COLLATION", "cannot list the target's collations").await?;
        let mut charsets =
            names(conn, "SHOW CHARACTER SET", "cannot list the target's character sets").await?;
        // MariaDB lists the one of its file names nowhere, and takes columns of it.
        if self.facts.flavor == Flavor::MariaDb {
            charsets.insert("filename".to_owned());
            collations.insert("filename".to_owned());
        }
        // MariaDB 10.10 lists the UCA collations once, without their character sets.
        let uca: Vec<String> = collations
            .iter()
            .filter(|name| name.starts_with("uca1400_"))
            .flat_map(|name| charsets.iter().map(move |charset| format!("{charset}_{name}")))
            .collect();
        collations.extend(uca);

        let mut lacking: BTreeMap<(&str, String), Vec<String>> = BTreeMap::new();
        for table in &self.catalog.tables {
            let mut note = |what, name: &str| {
                let tables = lacking.entry((what, name.to_owned())).or_default();
                tables.push(table.full_name().to_string());
            };
            if !engines.contains(&table.engine.to_lowercase()) {
                note("storage engine", &table.engine);
            }
            for (word, name) in character_sets(&table.create) {
                let name = name.to_lowercase();
                match word {
                    Charset::Set if !charsets.contains(&name) => note("character set", &name),
                    Charset::Collation if !collations.contains(&name) => note("collation", &name),
                    _ => {}
                }
            }
        }
        Ok(lacking
            .into_iter()
            .map(|((what, name), tables)| {
                let more = tables.len().saturating_sub(3);
                let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                let first: Vec<&str> = tables.iter().take(3).map(String::as_str).collect();
                Finding::new(
                    Severity::Error,
                    first.join(", ") + &more,
                    format!("the target has no {what} {name}"),
                    "restore to a server that has it, or leave these tables out",
                )
                .with_kind(ErrorKind::Target)
            })
            .collect())
    }

    fn directories(&self) -> Vec<Finding> {
        let elsewhere = |table: &&Table| {
            let tokens = significant(&table.create, Dialect::default());
            tokens.windows(2).any(|w| {
                (w[0].is_word("DATA") || w[0].is_word("INDEX")) && w[1].is_word("DIRECTORY")
            })
        };
        let finding = |table: &Table| {
            Finding::new(
                Severity::Warning,
                table.full_name().to_string(),
                "it was created in a DATA DIRECTORY of its own",
                "make sure that the target has that directory, and lists it in innodb_directories",
            )
        };
        self.catalog.tables.iter().filter(elsewhere).map(finding).collect()
    }
}

/// The first column of an answer, in lower case.
async fn names(conn: &mut Conn, sql: &str, what: &str) -> Result<BTreeSet<String>> {
    let rows = query::rows(conn, sql, what).await?;
    Ok(rows.iter().filter_map(|row| Some(query::text(row, 0)?.to_lowercase())).collect())
}

enum Charset {
    Set,
    Collation,
}

/// The character sets and collations that a definition names.
fn character_sets(create: &str) -> Vec<(Charset, &str)> {
    let tokens = significant(create, Dialect::default());
    let mut found = Vec::new();
    for i in 0..tokens.len() {
        let long = tokens[i].is_word("SET") && i > 0 && tokens[i - 1].is_word("CHARACTER");
        let what = if tokens[i].is_word("COLLATE") {
            Charset::Collation
        } else if tokens[i].is_word("CHARSET") || long {
            Charset::Set
        } else {
            continue;
        };
        let mut at = i + 1;
        if tokens.get(at).is_some_and(|t| t.is_sign('=')) {
            at += 1;
        }
        if let Some(token) = tokens.get(at).filter(|t| t.kind == TokenKind::Word) {
            found.push((what, token.text));
        }
    }
    found
}

/// What the account that restores lacks to bring users back: said before the first row, not after the
/// last.
async fn accounts(conn: &mut Conn, facts: &ServerFacts, catalog: &Catalog) -> Result<Vec<Finding>> {
    if catalog.accounts.is_empty() || catalog.header.flavor != facts.flavor {
        return Ok(Vec::new());
    }
    let missing = inventory::missing_for_accounts(conn, facts).await?;
    let finding = |privilege: inventory::Privilege| {
        Finding::new(
            Severity::Error,
            "users and roles",
            format!("the account that restores has no {} privilege", privilege.name),
            format!("{}; or restore with --no-users", privilege.grant),
        )
        .with_kind(ErrorKind::Privilege)
    };
    Ok(missing.into_iter().map(finding).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn character_sets_are_found_outside_of_strings() {
        let create = "CREATE TABLE `t` (`a` varchar(9) CHARACTER SET latin1 COLLATE latin1_bin COMMENT \
                      'COLLATE x', `s` set('CHARSET=y')) DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin";
        let found: Vec<&str> = character_sets(create).into_iter().map(|(_, name)| name).collect();
        assert_eq!(found, ["latin1", "latin1_bin", "utf8mb4", "utf8mb4_bin"]);
    }
}
