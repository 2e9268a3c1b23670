//! Views, triggers, routines, events, sequences.

use backup_core::{Error, ErrorKind, Flavor, Result};
use mysql_async::Row;

use super::super::catalog::{SequenceState, StoredKind, StoredObject};
use super::super::ddl::{Dialect, has_ambiguous_names, names, quote_text};
use super::super::select::quote_name;
use super::statement::{Composed, encode, statement};
use super::tables::{Relation, RelationKind};
use super::{Scope, query};

/// Reads everything of the database that has no rows of its own.
pub(super) async fn read(scope: &mut Scope<'_>, relations: &[Relation]) -> Result<()> {
    sequences(scope, relations).await?;
    if !scope.selection.only_tables() {
        libraries(scope).await?;
        routines(scope).await?;
        views(scope, relations).await?;
    }
    triggers(scope).await?;
    if !scope.selection.only_tables() {
        events(scope).await?;
    }
    Ok(())
}

/// `SHOW CREATE …` of one object: the only row, and what was being done for messages.
async fn show(scope: &mut Scope<'_>, kind: &str, name: &str) -> Result<(Row, String)> {
    let what =
        format!("cannot read the definition of {} {}", kind.to_lowercase(), scope.name(name));
    let sql = format!("SHOW CREATE {kind} {}", quote_name(name));
    let mut rows = query::rows(scope.conn, sql, &what).await?;
    match rows.pop() {
        Some(row) => Ok((row, what)),
        None => Err(Error::new(ErrorKind::Source, what)),
    }
}

/// Which columns of `SHOW CREATE …` say what.
struct Columns {
    create: usize,
    charset: usize,
    sql_mode: Option<usize>,
    time_zone: Option<usize>,
}

const VIEW: Columns = Columns { create: 1, charset: 2, sql_mode: None, time_zone: None };
const CODE: Columns = Columns { create: 2, charset: 3, sql_mode: Some(1), time_zone: None };
const EVENT: Columns = Columns { create: 3, charset: 4, sql_mode: Some(1), time_zone: Some(2) };

/// Makes the object of a row of `SHOW CREATE …`.
async fn object(
    scope: &mut Scope<'_>,
    kind: StoredKind,
    name: &str,
    (row, what): (Row, String),
    columns: &Columns,
    composed: &[Composed],
) -> Result<StoredObject> {
    let raw = query::bytes(&row, columns.create).ok_or_else(|| hidden_code(what))?;
    let charset = query::required(&row, columns.charset)?;
    let statement = statement(scope.conn, raw, &charset, composed).await?;
    let text = |column: Option<usize>| column.and_then(|column| query::text(&row, column));
    Ok(StoredObject {
        create: statement.text,
        create_bytes: statement.bytes,
        sql_mode: text(columns.sql_mode),
        collation: text(Some(columns.charset + 1)),
        // Views do not depend on it, and do not say it.
        database_collation: columns.sql_mode.and_then(|_| query::text(&row, columns.charset + 2)),
        time_zone: text(columns.time_zone),
        charset: Some(charset),
        ..StoredObject::new(kind, scope.database.to_owned(), name.to_owned())
    })
}

async fn sequences(scope: &mut Scope<'_>, relations: &[Relation]) -> Result<()> {
    for relation in relations.iter().filter(|r| r.kind == RelationKind::Sequence) {
        let name = &relation.name;
        if !scope.wants(name) && !is_used(scope, name) {
            continue;
        }
        let (row, what) = show(scope, "SEQUENCE", name).await?;
        let create = query::required(&row, 1)?;
        let sql = format!(
            "SELECT CAST(next_not_cached_value AS CHAR), CAST(cycle_count AS CHAR) FROM {}",
            quote_name(name)
        );
        let rows = query::rows(scope.conn, sql, &what).await?;
        let state = rows.first().ok_or_else(|| Error::new(ErrorKind::Source, what))?;
        scope.catalog.stored.push(StoredObject {
            create,
            sequence: Some(SequenceState {
                next: query::required(state, 0)?,
                cycle: query::required(state, 1)?,
            }),
            ..StoredObject::new(StoredKind::Sequence, scope.database.to_owned(), name.clone())
        });
    }
    Ok(())
}

/// Whether a default of a table that is kept takes values from the sequence.
fn is_used(scope: &Scope<'_>, sequence: &str) -> bool {
    let call = format!("({}.{})", quote_name(scope.database), quote_name(sequence));
    scope.catalog.tables.iter().any(|table| table.create.contains(&call))
}

/// Libraries come without a character set: their code is UTF-8.
async fn libraries(scope: &mut Scope<'_>) -> Result<()> {
    if scope.facts.flavor != Flavor::MySql || !scope.facts.version.at_least(9, 2, 0) {
        return Ok(());
    }
    let sql = format!(
        "SELECT LIBRARY_SCHEMA, LIBRARY_NAME FROM information_schema.LIBRARIES \
         WHERE LIBRARY_SCHEMA = {} ORDER BY LIBRARY_NAME",
        quote_text(scope.database)
    );
    let what = format!("cannot list the libraries of database {}", scope.database);
    for row in query::rows(scope.conn, sql, &what).await? {
        if !scope.is_here(&row, 0) {
            continue;
        }
        let name = query::required(&row, 1)?;
        let (row, what) = show(scope, "LIBRARY", &name).await?;
        let create = query::text(&row, 2).ok_or_else(|| hidden_code(what))?;
        scope.catalog.stored.push(StoredObject {
            create,
            sql_mode: query::text(&row, 1),
            ..StoredObject::new(StoredKind::Library, scope.database.to_owned(), name)
        });
    }
    Ok(())
}

/// The server shows an object, and NULL for its code.
fn hidden_code(what: String) -> Error {
    Error::new(ErrorKind::Privilege, what)
        .with_source("the server shows that it is there, but not its code")
        .with_remedy(
            "grant SHOW_ROUTINE ON *.* (MySQL), SHOW CREATE ROUTINE ON *.* (MariaDB 11.3) or \
             SELECT ON mysql.proc (older MariaDB)",
        )
}

async fn views(scope: &mut Scope<'_>, relations: &[Relation]) -> Result<()> {
    for relation in relations.iter().filter(|r| r.kind == RelationKind::View) {
        let name = &relation.name;
        if !scope.wants(name) {
            continue;
        }
        let shown = match show(scope, "VIEW", name).await {
            // MySQL refuses to show a view in a circle, one of a database that is gone, and one with
            // literals that it cannot read back itself (GBK with a backslash as second byte).
            Err(e) if e.server().is_some() && e.kind() == ErrorKind::Source => {
                let view = hidden_view(scope, name, e).await?;
                scope.catalog.stored.extend(view);
                continue;
            }
            other => other?,
        };
        let mut is_invalid = false;
        if scope.conn.get_warnings() > 0 {
            let rows = query::rows(scope.conn, "SHOW WARNINGS", &shown.1).await?;
            let invalid = rows.iter().find(|row| query::number(row, 1) == 1356);
            if let Some(message) = invalid.and_then(|row| query::text(row, 2)) {
                is_invalid = true;
                scope.catalog.warnings.push(format!(
                    "the view {} is not valid; it is kept as it is: {message}",
                    scope.name(name)
                ));
            }
        }
        let mut view = object(scope, StoredKind::View, name, shown, &VIEW, &[]).await?;
        if has_ambiguous_names(&view.create, scope.database) {
            let shown = show_qualified(scope, name, &view.create).await?;
            view = object(scope, StoredKind::View, name, shown, &VIEW, &[]).await?;
        }
        view.invalid = is_invalid;
        scope.catalog.stored.push(view);
    }
    Ok(())
}

/// `SHOW CREATE VIEW` with every name in full. The servers leave the current database out of what they print, MySQL
/// everywhere and MariaDB in some places, and then `` `t`.`a` `` is one of the innermost table that is called so, whatever it was.
async fn show_qualified(scope: &mut Scope<'_>, name: &str, create: &str) -> Result<(Row, String)> {
    let what = format!("cannot read the definition of view {}", scope.name(name));
    let mentioned = names(create);
    let mut others = Vec::new();
    for row in query::rows(scope.conn, "SHOW DATABASES", &what).await? {
        others.extend(query::text(&row, 0));
    }
    // Those that nobody needs a privilege for first.
    others.sort_by_key(|name| (!name.ends_with("_schema"), name.clone()));
    others.retain(|other| other != scope.database && !mentioned.contains(&other.to_lowercase()));
    let mut other = None;
    for name in others {
        if query::run(scope.conn, format!("USE {}", quote_name(&name)), &what).await.is_ok() {
            other = Some(name);
            break;
        }
    }
    if other.is_none() {
        return Err(Error::new(ErrorKind::Privilege, what)
            .with_source("it reads tables of one name in several databases, and there is no database that it does not use")
            .with_remedy("let the account that backs up see another database"));
    }
    let full = format!("{}.{}", quote_name(scope.database), quote_name(name));
    let rows = query::rows(scope.conn, format!("SHOW CREATE VIEW {full}"), &what).await;
    query::run(scope.conn, format!("USE {}", quote_name(scope.database)), &what).await?;
    match rows?.pop() {
        Some(row) => Ok((row, what)),
        None => Err(Error::new(ErrorKind::Source, what)),
    }
}

/// What the information schema tells of a view that `SHOW CREATE VIEW` does not show.
async fn hidden_view(
    scope: &mut Scope<'_>,
    name: &str,
    error: Error,
) -> Result<Option<StoredObject>> {
    let sql = format!(
        "SELECT VIEW_DEFINITION, CHECK_OPTION, DEFINER, SECURITY_TYPE, CHARACTER_SET_CLIENT, \
         COLLATION_CONNECTION FROM information_schema.VIEWS \
         WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
        quote_text(scope.database),
        quote_text(name)
    );
    let what = format!("cannot read the definition of view {}", scope.name(name));
    let rows = query::rows(scope.conn, sql, &what).await?;
    let text = |column| rows.first().and_then(|row| query::text(row, column)).unwrap_or_default();
    let (definition, check, definer) = (text(0), text(1), text(2));
    if definition.is_empty() {
        scope.catalog.warnings.push(format!("a view is not kept: {}", error.chain()));
        return Ok(None);
    }
    scope.catalog.warnings.push(format!(
        "the view {} is not valid; it is kept as it is, but for names of columns and an ALGORITHM of \
         its own, which the server does not tell: {}",
        scope.name(name),
        error.server().map(|s| s.message.clone()).unwrap_or_default()
    ));
    let (user, host) = definer.rsplit_once('@').unwrap_or((&definer, "%"));
    let check = match check.as_str() {
        "LOCAL" | "CASCADED" => format!(" WITH {check} CHECK OPTION"),
        _ => String::new(),
    };
    Ok(Some(StoredObject {
        create: format!(
            "CREATE ALGORITHM=UNDEFINED DEFINER={}@{} SQL SECURITY {} VIEW {} AS {definition}{check}",
            quote_name(user),
            quote_name(host),
            text(3),
            quote_name(name)
        ),
        charset: Some(text(4)),
        collation: Some(text(5)),
        invalid: true,
        ..StoredObject::new(StoredKind::View, scope.database.to_owned(), name.to_owned())
    }))
}

/// The name part of a definer `name@host`.
fn definer_name(definer: &str) -> Composed {
    Composed::plain(definer.rsplit_once('@').map_or(definer, |(name, _)| name))
}

/// The type that a function gives back, as it is in its definition.
///
/// It is UTF-8 there; the information schema of MariaDB takes it for text in the character set of
/// the function and converts it once more.
async fn returned_type(scope: &mut Scope<'_>, shown: &Row, listed: String) -> Result<String> {
    let charset = query::text(shown, CODE.charset).unwrap_or_default();
    if scope.facts.flavor == Flavor::MySql || listed.is_ascii() {
        return Ok(listed);
    }
    let bytes = encode(scope.conn, &listed, &charset).await?;
    Ok(String::from_utf8(bytes).unwrap_or(listed))
}

/// The dialect that code was written in: its `sql_mode` is the second column of all of them.
fn dialect(shown: &Row) -> Dialect {
    Dialect::of(&query::text(shown, 1).unwrap_or_default())
}

async fn routines(scope: &mut Scope<'_>) -> Result<()> {
    let sql = format!(
        "SELECT ROUTINE_SCHEMA, ROUTINE_NAME, ROUTINE_TYPE, DEFINER, DTD_IDENTIFIER, ROUTINE_COMMENT \
         FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {}",
        quote_text(scope.database)
    );
    let what = format!("cannot list the routines of database {}", scope.database);
    let mut found = Vec::new();
    for row in query::rows(scope.conn, sql, &what).await? {
        let kind = match query::text(&row, 2).as_deref() {
            Some("FUNCTION") => (StoredKind::Function, "FUNCTION"),
            Some("PROCEDURE") => (StoredKind::Procedure, "PROCEDURE"),
            Some("PACKAGE") => (StoredKind::Package, "PACKAGE"),
            Some("PACKAGE BODY") => (StoredKind::PackageBody, "PACKAGE BODY"),
            other => {
                return Err(Error::new(
                    ErrorKind::Source,
                    format!("{what}: there is one of the unknown type {}", other.unwrap_or("NULL")),
                ));
            }
        };
        if scope.is_here(&row, 0) {
            found.push((kind, query::required(&row, 1)?, row));
        }
    }
    found.sort_by(|a, b| (a.0.0, &a.1).cmp(&(b.0.0, &b.1)));
    for ((kind, word), name, row) in found {
        let text = |column| query::text(&row, column).unwrap_or_default();
        let shown = show(scope, word, &name).await?;
        let returns = returned_type(scope, &shown.0, text(4)).await?;
        let composed = [
            definer_name(&text(3)),
            Composed::plain(&name),
            Composed::plain(&returns),
            Composed::comment(&text(5), dialect(&shown.0)),
        ];
        let routine = object(scope, kind, &name, shown, &CODE, &composed).await?;
        scope.catalog.stored.push(routine);
    }
    Ok(())
}

async fn triggers(scope: &mut Scope<'_>) -> Result<()> {
    let sql = format!(
        "SELECT EVENT_OBJECT_SCHEMA, EVENT_OBJECT_TABLE, TRIGGER_NAME, ACTION_TIMING, \
         EVENT_MANIPULATION, ACTION_ORDER, DEFINER FROM information_schema.TRIGGERS WHERE {}",
        scope.condition("TRIGGER_SCHEMA", "EVENT_OBJECT_TABLE")
    );
    let what = format!("cannot list the triggers of database {}", scope.database);
    let mut found = Vec::new();
    for row in query::rows(scope.conn, sql, &what).await? {
        let table = query::required(&row, 1)?;
        if scope.is_here(&row, 0) && scope.wants(&table) {
            let text = |column| query::text(&row, column).unwrap_or_default();
            // Created in this order, each goes behind those of the same time and event.
            let order = (table, text(3), text(4), query::number(&row, 5));
            found.push((order, text(2), text(6)));
        }
    }
    found.sort();
    let mut done = std::collections::BTreeSet::new();
    for ((table, ..), name, definer) in found {
        // One for several events (MariaDB 12) is there once for each.
        if !done.insert(name.clone()) {
            continue;
        }
        let shown = show(scope, "TRIGGER", &name).await?;
        let composed = [definer_name(&definer), Composed::plain(&name), Composed::plain(&table)];
        let mut trigger =
            object(scope, StoredKind::Trigger, &name, shown, &CODE, &composed).await?;
        trigger.table = Some(table);
        scope.catalog.stored.push(trigger);
    }
    Ok(())
}

async fn events(scope: &mut Scope<'_>) -> Result<()> {
    let sql = format!(
        "SELECT EVENT_SCHEMA, EVENT_NAME, DEFINER, EVENT_COMMENT FROM information_schema.EVENTS \
         WHERE EVENT_SCHEMA = {}",
        quote_text(scope.database)
    );
    let what = format!("cannot list the events of database {}", scope.database);
    let mut found = Vec::new();
    for row in query::rows(scope.conn, sql, &what).await? {
        if scope.is_here(&row, 0) {
            let text = |column| query::text(&row, column).unwrap_or_default();
            found.push((text(1), text(2), text(3)));
        }
    }
    found.sort();
    for (name, definer, comment) in found {
        let shown = show(scope, "EVENT", &name).await?;
        let comment = Composed::comment(&comment, dialect(&shown.0));
        let composed = [definer_name(&definer), Composed::plain(&name), comment];
        let event = object(scope, StoredKind::Event, &name, shown, &EVENT, &composed).await?;
        scope.catalog.stored.push(event);
    }
    Ok(())
}
