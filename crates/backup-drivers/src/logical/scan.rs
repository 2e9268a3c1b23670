//! Reading the rows of a range: into blocks, or into a digest alone.

use backup_core::{ArtifactWriter, Context, Error, ErrorKind, Flavor, Result, ResultExt};

use mysql_async::consts::ColumnFlags;
use tokio::sync::{Semaphore, mpsc};

use super::catalog::{Column, Table};
use super::mask::TableMask;
use super::no_text::NoText;
use super::plan::{self, Range};
use crate::rows::{BlockEncoder, EncodedBlock, Kind, RowDigest, TextForm};
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

/// What a range that was read into blocks has in it.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub digest: RowDigest,
    pub no_text: Vec<NoText>,
}

impl Scanned {
    /// Takes what is known of a block.
    fn add(
        &mut self,
        table: &Table,
        mask: Option<&TableMask>,
        kinds: &[Kind],
        block: &EncodedBlock,
    ) -> Result<()> {
        self.digest = self.digest.merge(block.digest);
        let hidden = mask.is_some_and(|mask| mask.hides_key(table));
        if let Some(found) = block.no_document.first() {
            return Err(no_document(table, &NoText::of(table, kinds, block, *found, hidden)?));
        }
        for found in &block.no_text {
            let column = &table.columns[found.column].name;
            match self.no_text.iter_mut().find(|known| known.column == *column) {
                Some(known) => known.values += found.values,
                None => {
                    self.no_text.push(NoText::of(table, kinds, block, *found, hidden)?);
                }
            }
        }
        Ok(())
    }
}

/// The server sends a document whose text is too long for it as an empty string, without a word.
fn no_document(table: &Table, found: &NoText) -> Error {
    let first = found.first.as_ref().map(|key| format!(" ({key})")).unwrap_or_default();
    Error::new(
        ErrorKind::Source,
        format!(
            "the server gives out nothing of a JSON document in {}.{}{first}: as text it is longer than \
             max_allowed_packet",
            table.full_name(),
            found.column
        ),
    )
    .with_remedy(
        "raise max_allowed_packet at the source (SET GLOBAL max_allowed_packet = 1073741824 allows the longest), \
         and run the backup again",
    )
}

/// Reads a range into blocks.
pub(super) async fn into_blocks(
    cx: &Context,
    reader: &mut wire::Connection,
    table: &Table,
    range: &Range,
    mask: Option<&TableMask>,
    writer: &mut dyn ArtifactWriter,
) -> Result<Scanned> {
    let statement =
        reader.prepare(&plan::select_wanted(table, range)).await.map_err(|e| changed(e, table))?;
    let kinds = kinds(&statement)?;
    let flavor = if reader.is_mariadb() { Flavor::MariaDb } else { Flavor::MySql };
    let form = |charset: &str| TextForm::of(charset, flavor);
    let texts = table.columns.iter().map(|c| c.charset.as_deref().and_then(form));
    let documents = table.columns.iter().map(Column::holds_documents);
    let encoder = BlockEncoder::new(&kinds, BlockEncoder::DEFAULT_TARGET)?;
    let mut encoder = encoder.with_texts(texts).with_documents(documents);
    let mut masked = Vec::new();
    // One block is written while the next one is read: the server would have to wait otherwise.
    let turn = Semaphore::new(1);
    let (blocks, mut coming) = mpsc::unbounded_channel();
    let read = async {
        let blocks = blocks;
        let mut scanned = Scanned::default();
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
                    let permit = turn.acquire().await;
                    let block = finish(cx, &mut encoder);
                    scanned.add(table, mask, &kinds, &block)?;
                    // What writes is gone only after an error, which is the one that counts.
                    let _ = blocks.send((block.bytes, permit));
                }
            }
        }
        drop(rows);
        if !encoder.is_empty() {
            let block = finish(cx, &mut encoder);
            scanned.add(table, mask, &kinds, &block)?;
            let _ = blocks.send((block.bytes, turn.acquire().await));
        }
        Ok::<_, Error>(scanned)
    };
    let write = async {
        while let Some((bytes, _permit)) = coming.recv().await {
            writer.write(bytes).await?;
        }
        Ok::<_, Error>(())
    };
    let (scanned, ()) = tokio::try_join!(read, write)?;
    reader.close_statement(statement).await?;
    Ok(scanned)
}

fn finish(cx: &Context, encoder: &mut BlockEncoder) -> EncodedBlock {
    let block = encoder.finish();
    cx.progress().add_rows(u64::from(block.rows));
    cx.progress().add_bytes(block.raw_bytes);
    block
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
