//! Reading the rows of a range: into blocks, or into a digest alone.

use backup_core::{ArtifactWriter, Context, Error, ErrorKind, Result, ResultExt};

use mysql_async::consts::ColumnFlags;

use super::catalog::Table;
use super::mask::TableMask;
use super::plan::{self, Range};
use crate::rows::{BlockEncoder, Kind, RowDigest};
use crate::wire;

/// How the server sends the columns of a statement.
pub(super) fn kinds(statement: &wire::Statement) -> Result<Vec<Kind>> {
    statement
        .columns()
        .iter()
        .map(|c| {
            Kind::from_column(c.column_type() as u8, c.flags().contains(ColumnFlags::UNSIGNED_FLAG))
        })
        .collect()
}

/// The server says that the table is not what it was when the snapshot began.
fn changed(error: Error, table: &Table) -> Error {
    let code = error.server().map(|s| s.code);
    let name = table.full_name();
    // ER_TABLE_DEF_CHANGED, ER_NO_SUCH_TABLE, ER_BAD_FIELD_ERROR, ER_NEED_REPREPARE
    if table.filter.is_some() && matches!(code, Some(1054 | 1064 | 1305)) {
        error
            .context(format!("the condition for the rows of {name} is not understood"))
            .with_kind(ErrorKind::Usage)
            .with_remedy("correct --where")
    } else if matches!(code, Some(1412 | 1146 | 1054 | 1615)) {
        error
            .context(format!("table {name} was changed by DDL during the backup"))
            .with_kind(ErrorKind::Source)
            .with_remedy("run the backup again when no DDL is running")
    } else {
        error.context(format!("cannot read table {name}"))
    }
}

/// Reads a range into blocks. Gives rows, digest, and bytes of row packets.
pub(super) async fn into_blocks(
    cx: &Context,
    reader: &mut wire::Connection,
    table: &Table,
    range: &Range,
    mask: Option<&TableMask>,
    writer: &mut dyn ArtifactWriter,
) -> Result<RowDigest> {
    let statement =
        reader.prepare(&plan::select_wanted(table, range)).await.map_err(|e| changed(e, table))?;
    let kinds = kinds(&statement)?;
    let mut encoder = BlockEncoder::new(&kinds, BlockEncoder::DEFAULT_TARGET)?;
    let mut masked = Vec::new();
    let mut digest = RowDigest::default();
    let mut rows = reader.execute(&statement, &[]).await.map_err(|e| changed(e, table))?;
    while let Some(batch) = rows.next_batch().await.map_err(|e| changed(e, table))? {
        cx.check()?;
        for packet in batch.iter() {
            let pushed = match mask {
                None => encoder.push(packet),
                Some(mask) => {
                    mask.apply(packet, &kinds, &mut masked).and_then(|()| encoder.push(&masked))
                }
            };
            pushed.context(|| format!("a row of {}", table.full_name()))?;
            if encoder.is_full() {
                digest = digest.merge(flush(cx, &mut encoder, writer).await?);
            }
        }
    }
    drop(rows);
    if !encoder.is_empty() {
        digest = digest.merge(flush(cx, &mut encoder, writer).await?);
    }
    reader.close_statement(statement).await?;
    Ok(digest)
}

async fn flush(
    cx: &Context,
    encoder: &mut BlockEncoder,
    writer: &mut dyn ArtifactWriter,
) -> Result<RowDigest> {
    let block = encoder.finish();
    cx.progress().add_rows(u64::from(block.rows));
    cx.progress().add_bytes(block.raw_bytes);
    writer.write(block.bytes).await?;
    Ok(block.digest)
}

/// Reads a range for its digest alone.
pub(super) async fn digest(
    cx: &Context,
    reader: &mut wire::Connection,
    table: &Table,
    range: &Range,
) -> Result<RowDigest> {
    let mut digest = RowDigest::default();
    each_row(cx, reader, table, range, |packet, _| {
        digest.add(packet.get(1..).ok_or_else(|| Error::internal("an empty row packet"))?);
        Ok(())
    })
    .await?;
    Ok(digest)
}

/// Reads a range and gives every row packet, with the kinds of its columns, to `each`.
pub(super) async fn each_row(
    cx: &Context,
    reader: &mut wire::Connection,
    table: &Table,
    range: &Range,
    mut each: impl FnMut(&[u8], &[Kind]) -> Result<()>,
) -> Result<()> {
    let cannot = |e: Error| e.context(format!("cannot read table {} back", table.full_name()));
    let statement = reader.prepare(&plan::select(table, range)).await.map_err(cannot)?;
    let kinds = kinds(&statement)?;
    let mut rows = reader.execute(&statement, &[]).await.map_err(cannot)?;
    while let Some(batch) = rows.next_batch().await.map_err(cannot)? {
        cx.check()?;
        for packet in batch.iter() {
            each(packet, &kinds)?;
        }
    }
    drop(rows);
    reader.close_statement(statement).await
}
