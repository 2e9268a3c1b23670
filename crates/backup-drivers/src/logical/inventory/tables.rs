//! Tables: definition, columns, key, size.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use backup_core::{Error, ErrorKind, Finding, Flavor, Result, Severity, shell_word};
use mysql_async::Conn;

use super::super::catalog::{Catalog, Column, LoadMode, StoredKind, StoredObject, Table};
use super::super::damage::is_corruption;
use super::super::ddl::{hex_literals, quote_text};
use super::super::select::{Selection, TableName, quote_name};
use super::{Scope, ServerFacts, history, query, repair};
use crate::innodb::TableFile;
use crate::rows::RowDigest;

/// What a name in a database is.
pub(super) struct Relation {
    pub name: String,
    pub kind: RelationKind,
    engine: String,
    rows: u64,
    bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RelationKind {
    Table,
    Versioned,
    View,
    Sequence,
}

/// A column with what only the reading of it needs.
pub(super) struct ReadColumn {
    pub column: Column,
    pub generated: bool,
    pub default: Option<String>,
    position: u64,
}

/// Everything that has a name among the tables of the database.
pub(super) async fn relations(scope: &mut Scope<'_>) -> Result<Vec<Relation>> {
    // Not narrowed down to the selection: defaults of chosen tables may use other sequences.
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, ENGINE FROM information_schema.TABLES \
         WHERE TABLE_SCHEMA = {}",
        quote_text(scope.database)
    );
    let what = format!("cannot list the tables of database {}", scope.database);
    let mut relations = Vec::new();
    for row in query::rows(scope.conn, sql, &what).await? {
        let kind = match query::text(&row, 2).as_deref() {
            Some("BASE TABLE") => RelationKind::Table,
            Some("SYSTEM VERSIONED") => RelationKind::Versioned,
            Some("VIEW") => RelationKind::View,
            Some("SEQUENCE") => RelationKind::Sequence,
            // TEMPORARY (MariaDB) is of this session; SYSTEM VIEW is of the server.
            _ => continue,
        };
        if scope.is_here(&row, 0) {
            relations.push(Relation {
                name: query::required(&row, 1)?,
                kind,
                engine: query::text(&row, 3).unwrap_or_default(),
                rows: 0,
                bytes: 0,
            });
        }
    }
    relations.sort_by(|a, b| a.name.cmp(&b.name));
    sizes(scope, &mut relations, &what).await?;
    Ok(relations)
}

/// How large they are.
async fn sizes(scope: &mut Scope<'_>, relations: &mut [Relation], what: &str) -> Result<()> {
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_ROWS, DATA_LENGTH FROM information_schema.TABLES \
         WHERE TABLE_SCHEMA = {}{}",
        quote_text(scope.database),
        not_elsewhere(scope.database, relations)
    );
    for row in query::rows(scope.conn, sql, what).await? {
        let name = query::required(&row, 1)?;
        if scope.is_here(&row, 0)
            && let Ok(at) = relations.binary_search_by(|r| r.name.cmp(&name))
        {
            (relations[at].rows, relations[at].bytes) =
                (query::number(&row, 2), query::number(&row, 3));
        }
    }
    Ok(())
}

/// A condition without the tables that have no rows of their own.
fn not_elsewhere(database: &str, relations: &[Relation]) -> String {
    let elsewhere = relations.iter().filter(|r| has_rows_elsewhere(&r.engine));
    let name = |r: &Relation| TableName { database: database.to_owned(), table: r.name.clone() };
    but_not(&elsewhere.map(name).collect::<Vec<_>>())
}

/// A condition that leaves tables out by name, so that the server does not open them: one that shows rows of
/// another server fails the whole query where that server, or its table, is gone.
pub(super) fn but_not(names: &[TableName]) -> String {
    let other = |name: &TableName| {
        let (database, table) = (quote_text(&name.database), quote_text(&name.table));
        format!(" AND (TABLE_SCHEMA <> {database} OR TABLE_NAME <> {table})")
    };
    names.iter().map(other).collect()
}

/// Reads the tables among `relations` that are wanted.
pub(super) async fn read(scope: &mut Scope<'_>, relations: &[Relation]) -> Result<()> {
    let is_table = |r: &&Relation| matches!(r.kind, RelationKind::Table | RelationKind::Versioned);
    let wanted: Vec<&Relation> =
        relations.iter().filter(is_table).filter(|r| scope.wants(&r.name)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let mut columns = columns(scope).await?;
    let mut keys = unique_keys(scope, relations).await?;
    let mut histograms = histograms(scope).await?;
    for relation in wanted {
        let create = show_create(scope, &relation.name).await?;
        let columns = columns.remove(&relation.name).unwrap_or_default();
        let create = repair::repair(scope, &relation.name, create, &columns).await?;
        let mut kept: Vec<Column> =
            columns.into_iter().filter(|c| !c.generated).map(|c| c.column).collect();
        if kept.is_empty() && relation.engine.is_empty() {
            return Err(unreadable(scope, &relation.name));
        }
        let key = key(&create, keys.remove(&relation.name).unwrap_or_default(), &kept);
        kept.shrink_to_fit();
        let history = relation.kind == RelationKind::Versioned
            && history::add_columns(scope, &relation.name, &create, &mut kept);
        scope.catalog.tables.push(Table {
            database: scope.database.to_owned(),
            name: relation.name.clone(),
            create,
            transactional: is_transactional(&relation.engine),
            rows_elsewhere: has_rows_elsewhere(&relation.engine),
            engine: relation.engine.clone(),
            columns: kept,
            key,
            histograms: histograms.remove(&relation.name).unwrap_or_default(),
            history,
            filter: None,
            rows_left_out: false,
            masked: Vec::new(),
            documents: BTreeMap::new(),
            estimated_rows: relation.rows,
            data_bytes: relation.bytes,
            digest: RowDigest::default(),
            chunks: Vec::new(),
        });
    }
    Ok(())
}

fn unreadable(scope: &Scope<'_>, table: &str) -> Error {
    let name = scope.name(table);
    Error::new(ErrorKind::Source, format!("the server cannot open the table {name}"))
        .with_remedy(left_out(&name))
}

async fn show_create(scope: &mut Scope<'_>, table: &str) -> Result<String> {
    let what = format!("cannot read the definition of table {}", scope.name(table));
    let sql = format!("SHOW CREATE TABLE {}", quote_name(table));
    let rows = query::rows(scope.conn, sql, &what).await;
    let rows = rows.map_err(|e| no_definition(e, &scope.name(table)))?;
    let raw = rows.first().and_then(|row| query::bytes(row, 1));
    Ok(hex_literals(raw.ok_or_else(|| Error::new(ErrorKind::Source, what))?))
}

/// The remedy for a table that cannot be opened.
fn left_out(name: &str) -> String {
    let exclude = shell_word(name);
    format!("see what CHECK TABLE says of it; --exclude-tables {exclude} leaves it out")
}

/// A table that the server refuses to open is no reason to have no backup of the others.
fn no_definition(error: Error, name: &str) -> Error {
    let has_none = error.remedy() == ErrorKind::Source.default_remedy();
    match error.kind() {
        ErrorKind::Source if error.server().is_some() && has_none => {
            error.with_remedy(left_out(name))
        }
        _ => error,
    }
}

/// What the server says of tables that it cannot open. Those of InnoDB are left to the backup: there may be many, and
/// they depend on no others.
pub(in crate::logical) async fn unreadable_tables(
    conn: &mut Conn,
    selection: &Selection,
) -> Result<Vec<Finding>> {
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES \
         WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND COALESCE(ENGINE, '') <> 'InnoDB' AND {}",
        super::databases_condition("TABLE_SCHEMA", selection)
    );
    let mut findings = Vec::new();
    for row in query::rows(conn, sql, "cannot list the tables").await? {
        let (database, table) = (query::required(&row, 0)?, query::required(&row, 1)?);
        if !selection.wants_table(&database, &table) {
            continue;
        }
        let name = TableName { database, table };
        let sql = format!("SHOW CREATE TABLE {}", name.quoted());
        let what = format!("cannot read the definition of table {name}");
        let said =
            query::rows(conn, sql, &what).await.map_err(|e| no_definition(e, &name.to_string()));
        match said {
            Err(e) if e.kind() == ErrorKind::Source && e.server().is_some() => {
                let (object, remedy) = (name.to_string(), e.remedy().to_owned());
                let finding = Finding::new(Severity::Error, object, e.chain(), remedy);
                findings.push(finding.with_kind(ErrorKind::Source));
            }
            // What the account lacks is another finding, and one that went meanwhile is none.
            Err(e) if e.server().is_none() => return Err(e),
            _ => {}
        }
    }
    Ok(findings)
}

/// The tables of InnoDB that are wanted and have no file, as after `DISCARD TABLESPACE`, with what the server says
/// when they are read. An account without PROCESS cannot see them.
pub(in crate::logical) async fn without_files(
    conn: &mut Conn,
    facts: &ServerFacts,
    selection: &Selection,
) -> Result<Vec<(TableName, Error)>> {
    let sql = match facts.flavor {
        Flavor::MySql => {
            "SELECT NAME FROM information_schema.INNODB_TABLESPACES WHERE STATE = 'discarded'"
        }
        Flavor::MariaDb => {
            "SELECT t.NAME FROM information_schema.INNODB_SYS_TABLES t LEFT JOIN \
             information_schema.INNODB_SYS_TABLESPACES s ON s.SPACE = t.SPACE \
             WHERE t.SPACE <> 0 AND s.SPACE IS NULL"
        }
    };
    let rows = match query::rows(conn, sql, "cannot list the tables without files").await {
        Err(e) if e.server().is_some() => return Ok(Vec::new()),
        rows => rows?,
    };
    let mut names = BTreeSet::new();
    for row in &rows {
        names.extend(named(facts.flavor, &query::required(row, 0)?));
    }
    names.retain(|name| selection.wants_table(&name.database, &name.table));
    let mut found = Vec::new();
    for name in names {
        let sql = format!("SELECT 1 FROM {} LIMIT 1", name.quoted());
        match query::rows(conn, sql, &format!("cannot read table {name}")).await {
            Err(e) if is_corruption(&e) => found.push((name, e)),
            // It may be that the server had only not opened it yet, or that it is gone.
            Err(e) if e.server().is_none() => return Err(e),
            _ => {}
        }
    }
    Ok(found)
}

/// The tables that a tablespace of this name may belong to: MariaDB writes it as the file has it, MySQL as people do.
fn named(flavor: Flavor, name: &str) -> Vec<TableName> {
    let table = |database: &str, table: &str| TableName {
        database: database.to_owned(),
        table: table.to_owned(),
    };
    match (flavor, name.split_once('/')) {
        (Flavor::MariaDb, _) => {
            let file = TableFile::of(&format!("{name}.ibd"));
            file.map(|file| table(&file.database, &file.table)).into_iter().collect()
        }
        (Flavor::MySql, Some((database, rest))) => {
            let partition = rest.split_once("#p#").map(|(name, _)| table(database, name));
            partition.into_iter().chain([table(database, rest)]).collect()
        }
        (Flavor::MySql, None) => Vec::new(),
    }
}

/// The columns of every table of the database that is wanted, in their order.
async fn columns(scope: &mut Scope<'_>) -> Result<HashMap<String, Vec<ReadColumn>>> {
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, ORDINAL_POSITION, COLUMN_TYPE, DATA_TYPE, \
         DATETIME_PRECISION, CHARACTER_SET_NAME, EXTRA, COLUMN_DEFAULT \
         FROM information_schema.COLUMNS WHERE {}",
        scope.condition("TABLE_SCHEMA", "TABLE_NAME")
    );
    let what = format!("cannot list the columns of database {}", scope.database);
    let mut tables: HashMap<String, Vec<ReadColumn>> = HashMap::new();
    for row in query::rows(scope.conn, sql, &what).await? {
        if !scope.is_here(&row, 0) {
            continue;
        }
        let data_type = query::required(&row, 5)?.to_ascii_lowercase();
        let extra = query::text(&row, 8).unwrap_or_default().to_ascii_uppercase();
        let column_type = query::required(&row, 4)?;
        let column = Column {
            name: query::required(&row, 2)?,
            load: load_mode(scope.facts.flavor, &data_type, &column_type),
            column_type,
            data_type,
            fraction_digits: query::text(&row, 6).and_then(|digits| digits.parse().ok()),
            charset: query::text(&row, 7),
        };
        tables.entry(query::required(&row, 1)?).or_default().push(ReadColumn {
            column,
            // MySQL says DEFAULT_GENERATED of expressions as defaults: those are values like any.
            generated: extra.contains("VIRTUAL GENERATED") || extra.contains("STORED GENERATED"),
            default: query::text(&row, 9),
            position: query::number(&row, 3),
        });
    }
    for columns in tables.values_mut() {
        columns.sort_by_key(|c| c.position);
    }
    Ok(tables)
}

fn load_mode(flavor: Flavor, data_type: &str, column_type: &str) -> LoadMode {
    match (flavor, data_type) {
        (Flavor::MySql, "json") | (Flavor::MariaDb, "inet4" | "inet6" | "uuid") => LoadMode::Utf8,
        (_, "enum" | "set") if has_empty_member(column_type) => LoadMode::Number,
        (Flavor::MariaDb, "year") if column_type == "year(2)" => LoadMode::ShortYear,
        _ => LoadMode::Direct,
    }
}

/// Whether `''` is among the members of `enum('a','','b')`.
fn has_empty_member(column_type: &str) -> bool {
    let mut inside = false;
    let mut length = 0;
    let mut characters = column_type.chars().peekable();
    while let Some(c) = characters.next() {
        match (c, inside) {
            ('\'', false) => (inside, length) = (true, 0),
            ('\'', true) if characters.peek() == Some(&'\'') => {
                characters.next();
                length += 1;
            }
            ('\'', true) if length == 0 => return true,
            ('\'', true) => inside = false,
            _ => length += 1,
        }
    }
    false
}

/// Unique keys by name, for each table: the columns, or nothing where the key does not identify a
/// row by plain columns alone.
type UniqueKeys = BTreeMap<String, Option<Vec<(u64, String)>>>;

/// Those of tables that have rows, which are read along them.
async fn unique_keys(
    scope: &mut Scope<'_>,
    relations: &[Relation],
) -> Result<HashMap<String, UniqueKeys>> {
    // Functional parts are of MySQL 8.0.13; they have no column name there.
    let sql = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX, COLUMN_NAME, SUB_PART, NULLABLE, \
         INDEX_TYPE FROM information_schema.STATISTICS WHERE NON_UNIQUE = 0 AND {}{}",
        scope.condition("TABLE_SCHEMA", "TABLE_NAME"),
        not_elsewhere(scope.database, relations)
    );
    let what = format!("cannot list the indexes of database {}", scope.database);
    let mut tables: HashMap<String, UniqueKeys> = HashMap::new();
    for row in query::rows(scope.conn, sql, &what).await? {
        if !scope.is_here(&row, 0) {
            continue;
        }
        let keys = tables.entry(query::required(&row, 1)?).or_default();
        let key = keys.entry(query::required(&row, 2)?).or_insert_with(|| Some(Vec::new()));
        let whole = query::bytes(&row, 5).is_none();
        let nullable = query::text(&row, 6).is_some_and(|nullable| nullable == "YES");
        match query::text(&row, 4) {
            Some(column) if whole && !nullable => {
                if let Some(columns) = key {
                    columns.push((query::number(&row, 3), column));
                }
            }
            _ => *key = None,
        }
    }
    Ok(tables)
}

/// The primary key, or the first unique key as the definition has them, by its columns.
fn key(create: &str, keys: UniqueKeys, columns: &[Column]) -> Vec<String> {
    let usable = keys.into_iter().filter_map(|(name, parts)| {
        let mut parts = parts?;
        parts.sort();
        let names: Vec<String> = parts.into_iter().map(|(_, name)| name).collect();
        // Columns are found whatever their case is: indexes may write it differently.
        let names: Option<Vec<String>> = names
            .iter()
            .map(|n| {
                let same = |c: &&Column| c.name.to_lowercase() == n.to_lowercase();
                columns.iter().find(same).map(|c| c.name.clone())
            })
            .collect();
        let at = if name == "PRIMARY" {
            0
        } else {
            create.find(&format!("UNIQUE KEY {}", quote_name(&name)))?
        };
        Some((at, names?))
    });
    usable.min().map(|(_, names)| names).unwrap_or_default()
}

pub(super) fn is_transactional(engine: &str) -> bool {
    ["innodb", "rocksdb", "tokudb"].contains(&engine.to_ascii_lowercase().as_str())
}

/// Engines whose tables show the rows of other tables or servers, or that keep none.
pub(super) fn has_rows_elsewhere(engine: &str) -> bool {
    let engine = engine.to_ascii_lowercase();
    ["mrg_myisam", "merge", "federated", "blackhole", "spider", "connect", "sequence"]
        .contains(&engine.as_str())
}

/// The histograms of every table (MySQL), by column.
async fn histograms(scope: &mut Scope<'_>) -> Result<HashMap<String, BTreeMap<String, String>>> {
    let mut tables: HashMap<String, BTreeMap<String, String>> = HashMap::new();
    if scope.facts.flavor != Flavor::MySql || !scope.facts.version.at_least(8, 0, 3) {
        return Ok(tables);
    }
    let sql = format!(
        "SELECT SCHEMA_NAME, TABLE_NAME, COLUMN_NAME, CAST(HISTOGRAM AS CHAR) \
         FROM information_schema.COLUMN_STATISTICS WHERE {}",
        scope.condition("SCHEMA_NAME", "TABLE_NAME")
    );
    let what = format!("cannot list the histograms of database {}", scope.database);
    for row in query::rows(scope.conn, sql, &what).await? {
        if scope.is_here(&row, 0) {
            let columns = tables.entry(query::required(&row, 1)?).or_default();
            columns.insert(query::required(&row, 2)?, query::required(&row, 3)?);
        }
    }
    Ok(tables)
}

/// The general tablespaces (MySQL): all of a whole server, else those that tables are in.
pub(super) async fn tablespaces(
    conn: &mut Conn,
    facts: &ServerFacts,
    selection: &Selection,
    catalog: &mut Catalog,
) -> Result<()> {
    let everything = selection.is_whole_server();
    let needed = catalog.tables.iter().any(|t| t.create.contains("/*!50100 TABLESPACE "));
    if facts.flavor != Flavor::MySql || !(needed || everything) {
        return Ok(());
    }
    let tables = if facts.version.at_least(8, 0, 3) { "INNODB" } else { "INNODB_SYS" };
    let column = |name: &str, since: (u16, u16, u16)| match facts
        .version
        .at_least(since.0, since.1, since.2)
    {
        true => format!("s.{name}"),
        false => "NULL".to_owned(),
    };
    let sql = format!(
        "SELECT s.NAME, f.FILE_NAME, s.ZIP_PAGE_SIZE, {}, {} FROM information_schema.{tables}_TABLESPACES s \
         JOIN information_schema.FILES f ON f.FILE_ID = s.SPACE WHERE s.SPACE_TYPE = 'General' \
         AND s.NAME <> 'mysql'",
        column("ENCRYPTION", (8, 0, 13)),
        column("AUTOEXTEND_SIZE", (8, 0, 23)),
    );
    let rows = match query::rows(conn, sql, "cannot read the definitions of tablespaces").await {
        // Without PROCESS nobody can tell whether there are some that no table is in.
        Err(e) if !needed && e.kind() == ErrorKind::Privilege => return Ok(()),
        rows => rows.map_err(|e| {
            e.with_remedy("grant the privilege PROCESS, which tables in general tablespaces need")
        })?,
    };
    for row in rows {
        let (name, path) = (query::required(&row, 0)?, query::required(&row, 1)?);
        if !everything && !catalog.tables.iter().any(|t| t.is_in_tablespace(&name)) {
            continue;
        }
        // The target has directories of its own.
        let file = path.rsplit('/').next().unwrap_or(&path);
        let mut create =
            format!("CREATE TABLESPACE {} ADD DATAFILE {}", quote_name(&name), quote_text(file));
        if query::number(&row, 2) > 0 {
            create.push_str(&format!(" FILE_BLOCK_SIZE = {}", query::number(&row, 2)));
        }
        if query::number(&row, 4) > 0 {
            create.push_str(&format!(" AUTOEXTEND_SIZE = {}", query::number(&row, 4)));
        }
        if query::text(&row, 3).as_deref() == Some("Y") {
            create.push_str(" ENCRYPTION = 'Y'");
        }
        create.push_str(" ENGINE = InnoDB");
        catalog.stored.push(StoredObject {
            create,
            ..StoredObject::new(StoredKind::Tablespace, String::new(), name)
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str) -> Column {
        Column {
            name: name.into(),
            column_type: "int".into(),
            data_type: "int".into(),
            fraction_digits: None,
            charset: None,
            load: LoadMode::Direct,
        }
    }

    #[test]
    fn an_empty_member_is_found_among_quoted_ones() {
        for yes in ["enum('')", "enum('a','')", "set('','b')", "enum('it''s','','x')"] {
            assert!(has_empty_member(yes), "{yes}");
        }
        for no in ["enum('a')", "enum('''')", "enum('a'',''','b')", "set(',','()')"] {
            assert!(!has_empty_member(no), "{no}");
        }
    }

    #[test]
    fn the_key_is_the_primary_or_the_first_unique_one_of_plain_columns() {
        let columns = [column("a"), column("B")];
        let create = "CREATE TABLE `t` (UNIQUE KEY `z` (`b`,`a`), UNIQUE KEY `k` (`a`))";
        let part = |n, c: &str| (n, c.to_owned());
        let z = ("z".to_owned(), Some(vec![part(2, "a"), part(1, "b")]));
        let k = ("k".to_owned(), Some(vec![part(1, "a")]));
        let both = UniqueKeys::from([z.clone(), k.clone()]);
        assert_eq!(key(create, both.clone(), &columns), ["B", "a"]);
        let primary = ("PRIMARY".to_owned(), Some(vec![part(1, "a")]));
        let all = UniqueKeys::from([z, k.clone(), primary]);
        assert_eq!(key(create, all, &columns), ["a"]);
        // Not by a generated column, nor by a part of one.
        assert_eq!(key(create, both, &columns[..1]), ["a"]);
        let prefix = ("k".to_owned(), None);
        assert!(key(create, UniqueKeys::from([prefix]), &columns).is_empty());
    }
}
