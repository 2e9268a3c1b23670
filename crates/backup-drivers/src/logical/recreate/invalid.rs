//! Views that the source itself could not use any more.
//!
//! A server refuses to create a view of tables or columns that are not there; yet it keeps one whose
//! tables went away later, and its text may be all that is left of somebody's work. So before
//! any table is created, the view gets empty tables to be created on, under a name of its own, and
//! these are dropped again: what stays is the view as it was, as unusable as it was.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{ErrorKind, Result};
use mysql_async::Conn;

use super::super::catalog::{Catalog, StoredKind, StoredObject};
use super::super::ddl::{ViewReferences, name_view, quote_text, view_references};
use super::super::inventory::{ServerFacts, query};
use super::super::select::{TableName, quote_name};
use super::code::Creator;
use super::definitions::prepare;

/// Where the statements go that set the scene: to a server, or into a file.
pub(in crate::logical) trait Stage: Send {
    /// Runs a statement. `there` is the code of the error that says that what it creates is there
    /// already. Gives whether it was created.
    fn create(
        &mut self,
        sql: String,
        there: u16,
        what: &str,
    ) -> impl Future<Output = Result<bool>> + Send;
    /// Runs a statement.
    fn run(&mut self, sql: String, what: &str) -> impl Future<Output = Result<()>> + Send;
    /// Creates a view as it was created.
    fn view(&mut self, view: &StoredObject) -> impl Future<Output = Result<()>> + Send;
    /// Makes names be read as UTF-8; the view before was created under settings of its own.
    fn names(&mut self, what: &str) -> impl Future<Output = Result<()>> + Send;
}

/// A server.
struct Server<'a> {
    conn: &'a mut Conn,
    facts: &'a ServerFacts,
}

impl Stage for Server<'_> {
    async fn create(&mut self, sql: String, there: u16, what: &str) -> Result<bool> {
        match query::run(self.conn, sql, what).await {
            Ok(()) => Ok(true),
            Err(e) if e.server().is_some_and(|s| s.code == there) => Ok(false),
            Err(e) => Err(e),
        }
    }

    async fn run(&mut self, sql: String, what: &str) -> Result<()> {
        query::run(self.conn, sql, what).await
    }

    async fn view(&mut self, view: &StoredObject) -> Result<()> {
        Creator::new(self.conn, self.facts).await?.create(view).await
    }

    async fn names(&mut self, what: &str) -> Result<()> {
        query::run(self.conn, "SET NAMES utf8mb4", what).await?;
        query::run(self.conn, "SET SESSION sql_mode = ''", what).await
    }
}

/// Marks the tables, so that those of a restore that was killed are known.
const MARK: &str = "holdfast: stands in for a table of a view";

/// Creates the views that were not valid on the source, before there are tables. Those that could be
/// created are marked to be kept. Gives a warning for each.
///
/// # Errors
/// When the connection is lost, or what was made for the views cannot be dropped again.
pub async fn create_invalid_views(
    conn: &mut Conn,
    facts: &ServerFacts,
    catalog: &mut Catalog,
) -> Result<Vec<String>> {
    let views: Vec<usize> = (0..catalog.stored.len())
        .filter(|&i| catalog.stored[i].kind == StoredKind::View && catalog.stored[i].invalid)
        .filter(|&i| !catalog.stored[i].keep_existing)
        .collect();
    if views.is_empty() {
        return Ok(Vec::new());
    }
    prepare(conn, facts).await?;
    let mut scene = Scene::new(catalog);
    Scene::sweep(conn).await?;
    let mut made = Vec::new();
    let mut failed = None;
    for (n, &i) in views.iter().enumerate() {
        let name = format!("holdfast_view_{n}");
        match scene.create(&mut Server { conn, facts }, &catalog.stored[i], &name).await {
            Ok(true) => made.push((i, name)),
            Ok(false) => {}
            Err(e) => {
                failed = Some(e);
                break;
            }
        }
    }
    prepare(conn, facts).await?;
    scene.strike(&mut Server { conn, facts }).await?;
    if let Some(e) = failed {
        return Err(e);
    }
    let mut warnings = Vec::new();
    for (i, name) in made {
        let view = &mut catalog.stored[i];
        let database = quote_name(&view.database);
        let (from, to) = (quote_name(&name), quote_name(&view.name));
        let sql = format!("RENAME TABLE {database}.{from} TO {database}.{to}");
        let what = format!("cannot create the view {}", view.full_name());
        match query::run(conn, sql, &what).await {
            Ok(()) => {
                view.keep_existing = true;
                warnings.push(format!(
                    "the view {} is as it was on the source: it reads from what is not there",
                    view.full_name()
                ));
            }
            Err(e) if e.server().is_some() => {
                query::run(conn, format!("DROP VIEW {database}.{from}"), &what).await?;
                warnings.push(e.chain());
            }
            Err(e) => return Err(e),
        }
    }
    Ok(warnings)
}

/// Marks the views that were not valid on the source and are at the target to be kept: an earlier run
/// of the restore made them.
///
/// # Errors
/// Those of [`sql_error`](crate::connect::sql_error).
pub async fn keep_invalid_views(conn: &mut Conn, catalog: &mut Catalog) -> Result<()> {
    let invalid = |o: &&mut StoredObject| o.kind == StoredKind::View && o.invalid;
    for view in catalog.stored.iter_mut().filter(invalid) {
        let sql = format!(
            "SELECT 1 FROM information_schema.VIEWS WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
            quote_text(&view.database),
            quote_text(&view.name)
        );
        let what = format!("cannot look for the view {}", view.full_name());
        view.keep_existing = !query::rows(conn, sql, &what).await?.is_empty();
    }
    Ok(())
}

/// The table that a view stands on which itself stands in for a view.
const BASE: &str = "holdfast_base_";

/// What is set up for the views alone.
#[derive(Default)]
pub(in crate::logical) struct Scene {
    /// What is a view in the backup: MariaDB writes a column of a view down otherwise than one of a
    /// table, so that a view has to stand in for it.
    views: BTreeSet<TableName>,
    /// The number of the last table below a view.
    numbered: u32,
    databases: Vec<String>,
    /// What was made, under the names that the views use.
    made: BTreeMap<TableName, StandIn>,
    functions: Vec<TableName>,
}

/// Stands in for a table or view.
struct StandIn {
    /// The table: itself, or the one below a view.
    table: TableName,
    columns: BTreeSet<String>,
}

impl Scene {
    /// A scene for the views of a catalogue.
    pub(in crate::logical) fn new(catalog: &Catalog) -> Self {
        let views = catalog.stored.iter().filter(|o| o.kind == StoredKind::View);
        Scene { views: views.map(StoredObject::full_name).collect(), ..Scene::default() }
    }

    /// Drops what a restore that was killed left.
    async fn sweep(conn: &mut Conn) -> Result<()> {
        let what = "cannot look for what an earlier restore left";
        let sql = format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_COMMENT = {}",
            quote_text(MARK)
        );
        for row in query::rows(conn, sql, what).await? {
            let table =
                TableName { database: query::required(&row, 0)?, table: query::required(&row, 1)? };
            if table.table.starts_with(BASE) {
                let sql = format!(
                    "SELECT TABLE_NAME FROM information_schema.VIEWS WHERE TABLE_SCHEMA = {} \
                     AND LOCATE({}, VIEW_DEFINITION)",
                    quote_text(&table.database),
                    quote_text(&format!("{}.`holdfast`", quote_name(&table.table)))
                );
                for row in query::rows(conn, sql, what).await? {
                    let view = TableName {
                        database: table.database.clone(),
                        table: query::required(&row, 0)?,
                    };
                    query::run(conn, format!("DROP VIEW {}", full(&view)), what).await?;
                }
            }
            query::run(conn, format!("DROP TABLE {}", full(&table)), what).await?;
        }
        Ok(())
    }

    /// Drops everything again.
    pub(in crate::logical) async fn strike(&mut self, stage: &mut impl Stage) -> Result<()> {
        let what = "cannot drop what was made for views that are not valid";
        for (name, stand_in) in std::mem::take(&mut self.made) {
            if name != stand_in.table {
                stage.run(format!("DROP VIEW IF EXISTS {}", full(&name)), what).await?;
            }
            stage.run(format!("DROP TABLE IF EXISTS {}", full(&stand_in.table)), what).await?;
        }
        for name in std::mem::take(&mut self.functions) {
            stage.run(format!("DROP FUNCTION IF EXISTS {}", full(&name)), what).await?;
        }
        for database in std::mem::take(&mut self.databases) {
            stage.run(format!("DROP DATABASE {}", quote_name(&database)), what).await?;
        }
        Ok(())
    }

    /// Creates a view under `name`. Gives whether that worked.
    pub(in crate::logical) async fn create(
        &mut self,
        stage: &mut impl Stage,
        view: &StoredObject,
        name: &str,
    ) -> Result<bool> {
        let references = view_references(&view.create);
        let mut temporary = view.clone();
        temporary.create = name_view(&view.create, name);
        temporary.create_bytes = None;
        let set_up = async {
            self.set_up(stage, view, &references).await?;
            stage.view(&temporary).await
        };
        match set_up.await {
            Ok(()) => {}
            // It is tried again when all the others are there, and told of then.
            Err(e) if e.server().is_some() && e.kind() != ErrorKind::Privilege => return Ok(false),
            Err(e) => return Err(e),
        }
        Ok(true)
    }

    async fn set_up(
        &mut self,
        stage: &mut impl Stage,
        view: &StoredObject,
        references: &ViewReferences,
    ) -> Result<()> {
        let what = format!("cannot create the view {}", view.full_name());
        stage.names(&what).await?;
        let mut by_qualifier: BTreeMap<&str, Vec<TableName>> = BTreeMap::new();
        for table in &references.tables {
            let name = TableName {
                database: table.database.clone().unwrap_or_else(|| view.database.clone()),
                table: table.name.clone(),
            };
            by_qualifier.entry(&table.name).or_default().push(name.clone());
            by_qualifier.entry("").or_default().push(name.clone());
            if let Some(alias) = &table.alias {
                by_qualifier.entry(alias).or_default().push(name.clone());
            }
            // It was a table then, whatever it is now.
            let as_table = references
                .columns
                .iter()
                .any(|c| c.database.as_ref() == Some(&name.database) && c.qualifier == name.table);
            self.table(stage, &name, self.views.contains(&name) && !as_table, &what).await?;
        }
        for column in &references.columns {
            let qualifier = column.qualifier.as_str();
            let found = by_qualifier.get(qualifier).map(Vec::as_slice).unwrap_or_default();
            // One without a table is given to the first: twice, it would be ambiguous.
            let wanted =
                if qualifier.is_empty() { found.get(..1).unwrap_or_default() } else { found };
            for name in wanted {
                self.column(stage, name, &column.name, &what).await?;
            }
        }
        self.cover(stage, &what).await?;
        for function in &references.functions {
            // Without a database it is one of the server's own, mostly.
            let Some(database) = function.database.clone() else { continue };
            let name = TableName { database, table: function.name.clone() };
            self.function(stage, &name, function.arguments, &what).await?;
        }
        Ok(())
    }

    async fn database(&mut self, stage: &mut impl Stage, database: &str, what: &str) -> Result<()> {
        let sql = format!("CREATE DATABASE {}", quote_name(database));
        // "database exists"
        if stage.create(sql, 1007, what).await? {
            self.databases.push(database.to_owned());
        }
        Ok(())
    }

    async fn table(
        &mut self,
        stage: &mut impl Stage,
        name: &TableName,
        is_view: bool,
        what: &str,
    ) -> Result<()> {
        if let Some(there) = self.made.get(name) {
            if is_view == (there.table != *name) {
                return Ok(());
            }
            // Another view saw a table where this one saw a view, or the other way round.
            let there = there.table.clone();
            self.made.remove(name);
            if !is_view {
                stage.run(format!("DROP VIEW {}", full(name)), what).await?;
            }
            stage.run(format!("DROP TABLE {}", full(&there)), what).await?;
        }
        self.database(stage, &name.database, what).await?;
        let table = if is_view {
            self.numbered += 1;
            TableName { database: name.database.clone(), table: format!("{BASE}{}", self.numbered) }
        } else {
            name.clone()
        };
        let create = format!(
            "CREATE TABLE {} (`holdfast` INT) COMMENT = {}",
            full(&table),
            quote_text(MARK)
        );
        // What is there is used as it is.
        if stage.create(create, 1050, what).await? {
            let columns = BTreeSet::from(["holdfast".to_owned()]);
            self.made.insert(name.clone(), StandIn { table, columns });
        }
        Ok(())
    }

    async fn column(
        &mut self,
        stage: &mut impl Stage,
        name: &TableName,
        column: &str,
        what: &str,
    ) -> Result<()> {
        let Some(stand_in) = self.made.get_mut(name) else { return Ok(()) };
        if !stand_in.columns.insert(column.to_lowercase()) {
            return Ok(());
        }
        let table = full(&stand_in.table);
        let sql = format!("ALTER TABLE {table} ADD COLUMN {} VARCHAR(20)", quote_name(column));
        stage.run(sql, what).await
    }

    /// Puts the views that stand in on their tables, whose columns are known now.
    async fn cover(&mut self, stage: &mut impl Stage, what: &str) -> Result<()> {
        for (name, StandIn { table, .. }) in &self.made {
            if name != table {
                let sql = format!(
                    "CREATE OR REPLACE VIEW {} AS SELECT * FROM {}",
                    full(name),
                    full(table)
                );
                stage.run(sql, what).await?;
            }
        }
        Ok(())
    }

    async fn function(
        &mut self,
        stage: &mut impl Stage,
        name: &TableName,
        arguments: usize,
        what: &str,
    ) -> Result<()> {
        if self.functions.contains(name) {
            return Ok(());
        }
        self.database(stage, &name.database, what).await?;
        let arguments: Vec<String> = (0..arguments).map(|n| format!("a{n} VARCHAR(20)")).collect();
        let sql = format!(
            "CREATE FUNCTION {} ({}) RETURNS VARCHAR(20) DETERMINISTIC NO SQL RETURN NULL",
            full(name),
            arguments.join(", ")
        );
        // "already exists"
        if stage.create(sql, 1304, what).await? {
            self.functions.push(name.clone());
        }
        Ok(())
    }
}

fn full(name: &TableName) -> String {
    format!("{}.{}", quote_name(&name.database), quote_name(&name.table))
}
