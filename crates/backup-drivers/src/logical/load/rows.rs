//! Rows of artifacts into one `LOAD DATA LOCAL` statement.

use backup_core::{ArtifactSource, Context, Error, Result};
use bytes::Bytes;

use super::super::catalog::{Chunk, Column, LoadMode, Table};
use super::super::ddl::Parts;
use super::super::plan::{self, LAST_MOMENT, LAST_MOMENT_BEFORE_11_5};
use super::super::select::quote_name;
use super::documents::Documents;
use crate::rows::{BlockReader, TextFormat};
use crate::wire;

/// How many bytes of text are collected before they are sent.
const SEND_BYTES: usize = 256 << 10;

/// The statement that takes rows as [`crate::rows::Block::write_tsv`] gives them.
fn load_statement(table: &Table, id: &str) -> String {
    format!(
        "LOAD DATA LOCAL INFILE 'holdfast-{id}' INTO TABLE {}.{} CHARACTER SET binary \
         FIELDS TERMINATED BY '\\t' ESCAPED BY '\\\\' LINES TERMINATED BY '\\n' {}",
        quote_name(&table.database),
        quote_name(&table.name),
        column_list(table)
    )
}

/// The end of a `LOAD DATA`: the columns of the lines, and what has to be done with some of them.
pub(in crate::logical) fn column_list(table: &Table) -> String {
    let mut columns = Vec::new();
    let mut assignments = Vec::new();
    let assigned = |column: &Column| !matches!(column.load, LoadMode::Direct | LoadMode::ShortYear);
    // Where some columns are assigned, a MariaDB takes 0 for the next number in all that are not
    // (its `fill_record` forgets that the line had one).
    let counter = match table.columns.iter().any(assigned) {
        true => Parts::of(&table.create).counter(),
        false => None,
    };
    for (i, column) in table.columns.iter().enumerate() {
        let name = quote_name(&column.name);
        match column.load {
            LoadMode::Direct if counter.as_ref() == Some(&column.name) => {
                columns.push(format!("@c{i}"));
                assignments.push(format!("{name} = @c{i}"));
            }
            LoadMode::Direct | LoadMode::ShortYear => columns.push(name),
            LoadMode::Utf8 => {
                columns.push(format!("@c{i}"));
                assignments.push(format!("{name} = CONVERT(@c{i} USING utf8mb4)"));
            }
            LoadMode::RowEnd => {
                columns.push(format!("@c{i}"));
                assignments.push(format!(
                    "{name} = IF(@c{i} = '{LAST_MOMENT_BEFORE_11_5}', '{LAST_MOMENT}', @c{i})"
                ));
            }
            LoadMode::Number => {
                columns.push(format!("@c{i}"));
                assignments.push(format!("{name} = CAST(@c{i} AS UNSIGNED)"));
            }
        }
    }
    let columns = if columns.is_empty() { "@none".to_owned() } else { columns.join(", ") };
    match assignments.is_empty() {
        true => format!("({columns})"),
        false => format!("({columns}) SET {}", assignments.join(", ")),
    }
}

/// How the columns of a table are printed.
pub(in crate::logical) fn text_formats(columns: &[Column]) -> Vec<TextFormat> {
    if columns.is_empty() {
        return vec![TextFormat::default()];
    }
    columns.iter().map(|c| TextFormat { decimals: c.fraction_digits.unwrap_or(0) }).collect()
}

/// Sends the rows of `chunks`, and checks that the server took all of them. `id` is in the statements,
/// so that they can be found at the server.
pub(super) async fn load(
    cx: &Context,
    connection: &mut wire::Connection,
    table: &Table,
    chunks: &[Chunk],
    artifacts: &dyn ArtifactSource,
    id: &str,
) -> Result<()> {
    let formats = text_formats(&table.columns);
    let mut documents = Documents::of(connection, table, id).await?;
    let mut left: Vec<&Chunk> = Vec::new();
    let mut text = Vec::with_capacity(2 * SEND_BYTES);
    let mut load = connection.start_load(&load_statement(table, id)).await?;
    for chunk in chunks {
        let left_before = documents.rows;
        let mut source = artifacts.open(&chunk.artifact).await?;
        let mut blocks = BlockReader::default();
        while let Some(bytes) = source.next().await? {
            blocks.push(bytes);
            while let Some(block) = blocks.next_block()? {
                cx.check()?;
                if documents.leaves_out(&block)? {
                    continue;
                }
                block.write_tsv(&mut text, &formats)?;
                cx.progress().add_rows(u64::from(block.rows()));
                if text.len() >= SEND_BYTES {
                    cx.progress().add_bytes(text.len() as u64);
                    load.write(Bytes::from(std::mem::take(&mut text))).await?;
                }
            }
        }
        blocks.finish()?;
        if documents.rows > left_before {
            left.push(chunk);
        }
    }
    cx.progress().add_bytes(text.len() as u64);
    load.write(Bytes::from(text)).await?;
    let done = load.finish().await?;
    let all: u64 = chunks.iter().map(|chunk| chunk.digest.rows).sum();
    all_taken(connection, table, done.affected_rows, all.saturating_sub(documents.rows)).await?;
    documents.insert(cx, connection, table, left, artifacts).await
}

/// Whether the table has rows. One is as good as all: sorted entries go in together, or none does.
pub(super) async fn are_there(connection: &mut wire::Connection, table: &Table) -> Result<bool> {
    let sql = format!("SELECT 1 FROM {} LIMIT 1", plan::source(table));
    Ok(!connection.query_values(&sql).await?.is_empty())
}

/// Fails where the server took fewer rows than it was given.
pub(super) async fn all_taken(
    connection: &mut wire::Connection,
    table: &Table,
    taken: u64,
    given: u64,
) -> Result<()> {
    if taken == given {
        return Ok(());
    }
    let warning = first_warning(connection).await?;
    let error = Error::damaged(format!("the target took {taken} of {given} rows{warning}"));
    Err(match table.masked.is_empty() {
        true => error,
        false => error.with_remedy(format!(
            "{} are masked: where the server does not take what the masks made of their values, back up with other masks; \
             the backup's own warnings tell of keys, partitions and CHECKs",
            table.masked.join(", ")
        )),
    })
}

/// What the server has to say about the last statement, for an error message.
async fn first_warning(connection: &mut wire::Connection) -> Result<String> {
    let rows = connection.query_values("SHOW WARNINGS LIMIT 1").await?;
    Ok(rows
        .into_iter()
        .next()
        .map(|row| {
            let fields: Vec<String> = row
                .into_iter()
                .flatten()
                .map(|field| String::from_utf8_lossy(&field).into_owned())
                .collect();
            format!("; the server warned: {}", fields.join(" "))
        })
        .unwrap_or_default())
}
