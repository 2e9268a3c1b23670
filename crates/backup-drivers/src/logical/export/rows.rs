//! Rows out of their blocks.

use backup_core::{Context, Error, Result, ResultExt};

use super::super::catalog::Table;
use super::super::select::quote_name;
use super::Job;
use super::script::Script;
use crate::rows::{Block, BlockReader, RowDigest, SqlForm};

/// Gives every block of a table to `each`, and sees that it is what the catalogue says.
pub(super) async fn each_block(
    job: &Job<'_>,
    table: &Table,
    mut each: impl AsyncFnMut(&Block) -> Result<()>,
) -> Result<()> {
    let cx: &Context = job.cx;
    for chunk in &table.chunks {
        let read = async {
            let mut source = job.artifacts.open(&chunk.artifact).await?;
            let mut blocks = BlockReader::default();
            let mut digest = RowDigest::default();
            while let Some(bytes) = source.next().await? {
                blocks.push(bytes);
                while let Some(block) = blocks.next_block()? {
                    cx.check()?;
                    digest = digest.merge(block.digest());
                    each(&block).await?;
                    cx.progress().add_rows(u64::from(block.rows()));
                    cx.progress().add_bytes(block.raw_bytes());
                }
            }
            blocks.finish()?;
            if digest != chunk.digest {
                return Err(Error::damaged(format!(
                    "{} holds {} rows with digest {digest} instead of {} with digest {}",
                    chunk.artifact, digest.rows, chunk.digest.rows, chunk.digest
                )));
            }
            Ok(())
        };
        read.await.context(|| format!("cannot export table {}", table.full_name()))?;
    }
    Ok(())
}

/// Writes the rows of a table as statements of many rows each.
pub(super) async fn inserts(job: &Job<'_>, table: &Table, script: &mut Script) -> Result<()> {
    if table.digest.rows == 0 {
        return Ok(());
    }
    script.base();
    let name = format!("{}.{}", quote_name(&table.database), quote_name(&table.name));
    if table.columns.is_empty() {
        // Nothing is kept of a row but that it is there.
        let mut left = table.digest.rows;
        while left > 0 {
            let rows = left.min(10_000);
            let values = vec!["()"; rows as usize].join(",");
            script.run(format!("INSERT INTO {name} () VALUES {values}"));
            script.flush().await?;
            left -= rows;
        }
        return Ok(());
    }
    let forms: Vec<SqlForm> = table.sql_forms();
    let columns: Vec<String> = table.columns.iter().map(|c| quote_name(&c.name)).collect();
    let head = format!("INSERT INTO {name} ({}) VALUES\n", columns.join(","));
    let mut length = 0;
    let most = job.options.statement_bytes;
    each_block(job, table, async |block| {
        // A block is about as long as a statement, and so is what it makes of memory.
        block.each_sql_row(&forms, &mut |row| {
            if length > 0 && length + row.len() + 2 > most {
                script.raw(";\n");
                script.note_length(length);
                length = 0;
            }
            if length == 0 {
                script.raw(&head);
                length = head.len();
            } else {
                script.raw(",\n");
                length += 2;
            }
            script.raw(row);
            length += row.len();
            Ok(())
        })?;
        script.flush().await
    })
    .await?;
    if length > 0 {
        script.raw(";\n");
        script.note_length(length);
    }
    script.flush().await
}
