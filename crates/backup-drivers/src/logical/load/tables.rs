//! Tables at the target: made, and known again by a restore that goes on.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{Error, ErrorKind, Result};

use super::super::catalog::Table;
use super::super::ddl::quote_text;
use super::super::recreate;
use super::super::select::TableName;
use super::progress::{Mark, Progress, State};
use super::session::LoadSettings;
use super::shape::Shape;
use crate::connect::Session;

/// Stands for the identity of a table that is being altered or made anew.
const IN_FLUX: &str = "?";

/// What tells a table from another one of the same name that somebody made later: the time of its
/// creation. `None` where there is no such table.
async fn identity(session: &mut Session, name: &TableName) -> Result<Option<String>> {
    let sql = format!(
        "SELECT IFNULL(CAST(UNIX_TIMESTAMP(CREATE_TIME) AS CHAR), '') FROM information_schema.TABLES WHERE \
         TABLE_SCHEMA = {} AND TABLE_NAME = {}",
        quote_text(&name.database),
        quote_text(&name.table)
    );
    session.query_first(&sql).await
}

/// Creates a table in its shape.
pub(super) async fn create(
    session: &mut Session,
    settings: &LoadSettings,
    table: &Table,
    shape: &Shape,
) -> Result<()> {
    recreate::create_table(session.conn(), &settings.facts, table, &shape.create).await
}

/// Creates those of `tables` that are not marked. What is there and not marked is of an attempt that
/// ended before the mark: [`not_ours`] has seen that it is empty. What an engine without transactions
/// holds after an interruption is known to nobody: those tables begin again.
pub(in crate::logical) async fn create_tables(
    session: &mut Session,
    settings: &LoadSettings,
    tables: &[Table],
    shapes: &[Shape],
    progress: Option<&Progress>,
    state: &mut State,
) -> Result<()> {
    settings.prepare(session).await?;
    for (i, (table, shape)) in tables.iter().zip(shapes).enumerate() {
        if state.has(Mark::Created(i)) && table.transactional {
            continue;
        }
        if let (Some(progress), true) = (progress, state.is_resumed()) {
            // Whoever goes on after this was killed must not take it for somebody else's.
            if state.has(Mark::Created(i)) {
                in_flux(session, progress, i, shape).await?;
            }
            let name = table.full_name().quoted();
            session.run(&format!("DROP TABLE IF EXISTS {name}")).await?;
            for mark in [Mark::Loaded(i, 0), Mark::Finished(i)] {
                progress.unset(session, mark).await?;
                state.forget(mark);
            }
        }
        create(session, settings, table, shape).await?;
        if let Some(progress) = progress {
            known(session, progress, i, &table.full_name(), shape).await?;
        }
    }
    Ok(())
}

/// How [`create_tables`] made those tables that are marked.
pub(in crate::logical) fn chosen(tables: &[Table], state: &State) -> BTreeMap<usize, String> {
    let noted = |i| Some((i, state.value(Mark::Created(i))?.split_once('/')?.1.to_owned()));
    (0..tables.len()).filter_map(noted).collect()
}

/// The tables that foreign keys refer to, of tables that are not among `tables`.
pub(in crate::logical) async fn referenced(
    session: &mut Session,
    tables: &[Table],
) -> Result<BTreeSet<TableName>> {
    let ours: BTreeSet<TableName> = tables.iter().map(Table::full_name).collect();
    let sql = "SELECT CONSTRAINT_SCHEMA, TABLE_NAME, UNIQUE_CONSTRAINT_SCHEMA, REFERENCED_TABLE_NAME \
               FROM information_schema.REFERENTIAL_CONSTRAINTS";
    let keys: Vec<(String, String, String, String)> = session.query_rows(sql).await?;
    let names = keys.into_iter().map(|(database, table, parents, parent)| {
        (TableName { database, table }, TableName { database: parents, table: parent })
    });
    Ok(names.filter(|(child, _)| !ours.contains(child)).map(|(_, parent)| parent).collect())
}

/// Notes which table it is, after it was created or altered.
pub(super) async fn known(
    session: &mut Session,
    progress: &Progress,
    number: usize,
    name: &TableName,
    shape: &Shape,
) -> Result<()> {
    let identity = identity(session, name).await?.unwrap_or_default();
    let value = format!("{identity}/{}", shape.note());
    progress.set(session, Mark::Created(number), &value).await
}

/// The identity in the value of a mark.
fn identity_in(noted: &str) -> &str {
    noted.split_once('/').map_or("", |(identity, _)| identity)
}

/// Notes that the table will be another one in a moment.
pub(super) async fn in_flux(
    session: &mut Session,
    progress: &Progress,
    number: usize,
    shape: &Shape,
) -> Result<()> {
    progress.set(session, Mark::Created(number), &format!("{IN_FLUX}/{}", shape.note())).await
}

/// What servers say of a table of MyISAM whose index file is empty, or not there: a wrong format, a file that is not
/// found. No server reads a row of it.
const HALF_MADE: [u16; 2] = [130, 1017];

fn is_half_made(error: &Error) -> bool {
    error.server().is_some_and(|said| HALF_MADE.contains(&said.code))
}

/// Why the tables at the target are not those that an interrupted restore made, if they are not: a
/// restore must go on with its own work only, and never over somebody else's rows.
pub(in crate::logical) async fn not_ours(
    session: &mut Session,
    tables: &[Table],
    state: &State,
) -> Result<Option<String>> {
    for (i, table) in tables.iter().enumerate() {
        let name = table.full_name();
        let there = identity(session, &name).await?;
        match (state.value(Mark::Created(i)), there) {
            (None, None) => {}
            (None, Some(_)) if table.rows_elsewhere => {}
            (None, Some(_)) => {
                let sql = format!("SELECT 1 FROM {} LIMIT 1", name.quoted());
                let holds_rows = match session.query_first::<u8>(&sql).await {
                    Ok(row) => row.is_some(),
                    // Its files were being made when the target died.
                    Err(e) if !table.transactional && is_half_made(&e) => false,
                    Err(e) => return Err(e),
                };
                if holds_rows {
                    return Ok(Some(format!("table {name} is not of the interrupted restore")));
                }
            }
            // It was about to be made anew.
            (Some(noted), None) if identity_in(noted) == IN_FLUX && !table.transactional => {}
            (Some(_), None) => return Ok(Some(format!("table {name} was dropped meanwhile"))),
            (Some(noted), Some(found))
                if identity_in(noted) == IN_FLUX || identity_in(noted) == found => {}
            (Some(_), Some(_)) => {
                return Ok(Some(format!("table {name} was altered or made anew meanwhile")));
            }
        }
    }
    Ok(None)
}

/// The definition of a table as the target has it.
pub(super) async fn definition(session: &mut Session, name: &TableName) -> Result<String> {
    let sql = format!("SHOW CREATE TABLE {}", name.quoted());
    let row: Option<(String, String)> = session.query_first(&sql).await?;
    row.map(|(_, create)| create).ok_or_else(|| {
        Error::new(ErrorKind::Target, format!("the target does not say what table {name} is"))
    })
}
