//! Rows whose JSON documents hold decimal numbers, dates or times (MySQL): by `INSERT`, with these as
//! literals, for `LOAD DATA` makes doubles and strings of them.

use backup_core::{ArtifactSource, Context, Error, Result};

use super::super::catalog::{Chunk, Column, Table};
use super::super::select::quote_name;
use super::rows::all_taken;
use crate::rows::{Block, BlockReader, DocumentTypes, SqlForm};
use crate::wire;

/// About how long a statement is.
const STATEMENT_BYTES: usize = 512 << 10;

/// The blocks of a table that do not go by `LOAD DATA`.
pub(super) struct Documents {
    /// The columns with documents, by number. None on MariaDB, which keeps their text.
    columns: Vec<(usize, DocumentTypes)>,
    forms: Vec<SqlForm>,
    /// The start of a statement.
    head: String,
    /// The longest statement that the server takes.
    longest: u64,
    /// How many rows were left out so far.
    pub rows: u64,
}

impl Documents {
    pub(super) async fn of(
        connection: &mut wire::Connection,
        table: &Table,
        id: &str,
    ) -> Result<Self> {
        let has_some =
            table.columns.iter().any(Column::holds_documents) && !connection.is_mariadb();
        let numbered = table.columns.iter().enumerate();
        let columns = match has_some {
            true => numbered
                .filter(|(_, c)| c.holds_documents())
                .map(|(i, c)| (i, table.document_types(c)))
                .collect(),
            false => Vec::new(),
        };
        let names: Vec<String> = table.columns.iter().map(|c| quote_name(&c.name)).collect();
        let head = format!(
            "INSERT /* holdfast-{id} */ INTO {}.{} ({}) VALUES ",
            quote_name(&table.database),
            quote_name(&table.name),
            names.join(",")
        );
        let forms = table.sql_forms();
        let longest = if has_some { longest_statement(connection).await? } else { 0 };
        Ok(Documents { columns, forms, head, longest, rows: 0 })
    }

    /// Whether a block goes by `INSERT` and not by `LOAD DATA`. One of so large rows that a statement might
    /// not hold them goes by `LOAD DATA` all the same: what that makes of it is seen when it is read back.
    pub(super) fn leaves_out(&mut self, block: &Block) -> Result<bool> {
        let fits = block.raw_bytes() < self.longest / 4;
        let leaves = !self.columns.is_empty() && fits && block.holds_types(&self.columns)?;
        if leaves {
            self.rows += u64::from(block.rows());
        }
        Ok(leaves)
    }

    /// Inserts what was left out, which is in these chunks.
    pub(super) async fn insert(
        mut self,
        cx: &Context,
        connection: &mut wire::Connection,
        table: &Table,
        chunks: Vec<&Chunk>,
        artifacts: &dyn ArtifactSource,
    ) -> Result<()> {
        let (rows, mut taken) = (std::mem::take(&mut self.rows), 0);
        for chunk in chunks {
            let mut source = artifacts.open(&chunk.artifact).await?;
            let mut blocks = BlockReader::default();
            while let Some(bytes) = source.next().await? {
                blocks.push(bytes);
                while let Some(block) = blocks.next_block()? {
                    cx.check()?;
                    if !self.leaves_out(&block)? {
                        continue;
                    }
                    for statement in self.statements(&block)? {
                        cx.progress().add_bytes(statement.len() as u64);
                        taken += connection.query(&statement).await?.affected_rows;
                    }
                    cx.progress().add_rows(u64::from(block.rows()));
                }
            }
        }
        all_taken(connection, table, taken, rows).await
    }

    fn statements(&self, block: &Block) -> Result<Vec<String>> {
        let mut statements = Vec::new();
        let mut sql = String::new();
        block.each_sql_row(&self.forms, &mut |row| {
            let row = std::str::from_utf8(row)
                .map_err(|e| Error::internal("a row is no text as SQL").with_source(e))?;
            if sql.len() + row.len() > STATEMENT_BYTES && !sql.is_empty() {
                statements.push(std::mem::take(&mut sql));
            }
            sql.push_str(if sql.is_empty() { &self.head } else { "," });
            sql.push_str(row);
            Ok(())
        })?;
        statements.push(sql);
        Ok(statements)
    }
}

async fn longest_statement(connection: &mut wire::Connection) -> Result<u64> {
    let rows = connection.query_values("SELECT @@max_allowed_packet").await?;
    let value = rows.into_iter().flatten().flatten().next();
    let number = value.and_then(|value| std::str::from_utf8(&value).ok()?.parse().ok());
    number.ok_or_else(|| Error::internal("the target does not tell its max_allowed_packet"))
}
