//! Rows: blocks, kinds, counts, digests, and the order of keys.

use backup_core::{ArtifactSource, Context, ErrorKind, Result};

use super::super::catalog::{Chunk, Column, LoadMode, Table};
use super::Found;
use super::keys::Keys;
use crate::rows::{BlockReader, Kind, RowDigest, fields};

pub(super) async fn check(
    cx: &Context,
    table: &Table,
    artifacts: &dyn ArtifactSource,
    found: &mut Found,
) -> Result<()> {
    let mut keys = Keys::of(table);
    let mut kinds: Option<Vec<Kind>> = None;
    for chunk in &table.chunks {
        match chunk_of(cx, table, chunk, artifacts, &mut keys, &mut kinds, found).await {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), ErrorKind::Damaged | ErrorKind::Source) => {
                let problem = format!("{} cannot be read: {}", chunk.artifact, e.chain());
                found.error(&table.full_name().to_string(), problem);
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

async fn chunk_of(
    cx: &Context,
    table: &Table,
    chunk: &Chunk,
    artifacts: &dyn ArtifactSource,
    keys: &mut Keys,
    kinds: &mut Option<Vec<Kind>>,
    found: &mut Found,
) -> Result<()> {
    let shown = table.full_name().to_string();
    let mut source = artifacts.open(&chunk.artifact).await?;
    let mut blocks = BlockReader::default();
    let mut digest = RowDigest::default();
    keys.begin(chunk);
    while let Some(bytes) = source.next().await? {
        blocks.push(bytes);
        while let Some(block) = blocks.next_block()? {
            cx.check()?;
            let of_block: Vec<Kind> = block.kinds().collect();
            match kinds {
                None => {
                    if let Some(problem) = misfit(table, &of_block) {
                        found.error(&shown, format!("{}: {problem}", chunk.artifact));
                    }
                    *kinds = Some(of_block.clone());
                }
                Some(before) if *before != of_block => found.error(
                    &shown,
                    format!("{} has columns of other kinds than the blocks before", chunk.artifact),
                ),
                Some(_) => {}
            }
            let says = block.digest();
            let mut counted = RowDigest::default();
            let mut problems = Vec::new();
            block.packets(|packet| {
                counted.add(packet.get(1..).unwrap_or_default());
                if keys.wanted() {
                    let values = fields(packet, &of_block)?;
                    problems.extend(keys.next(&values, &of_block));
                }
                Ok(())
            })?;
            for problem in problems {
                found.error(&shown, format!("{}: {problem}", chunk.artifact));
            }
            if counted != says {
                found.error(
                    &shown,
                    format!(
                        "a block of {} has {} rows with digest {counted}, and says {} with digest {says}",
                        chunk.artifact, counted.rows, says.rows
                    ),
                );
            }
            digest = digest.merge(counted);
            cx.progress().add_rows(counted.rows);
            cx.progress().add_bytes(block.raw_bytes());
        }
    }
    blocks.finish()?;
    if digest != chunk.digest {
        found.error(
            &shown,
            format!(
                "{} has {} rows with digest {digest}, and the catalogue says {} with digest {}",
                chunk.artifact, digest.rows, chunk.digest.rows, chunk.digest
            ),
        );
    }
    Ok(())
}

/// Why rows of such kinds are not of the table.
fn misfit(table: &Table, kinds: &[Kind]) -> Option<String> {
    // A table of generated columns alone has rows of one NULL each.
    let expected = table.columns.len().max(1);
    if kinds.len() != expected {
        return Some(format!("its rows have {} columns, and the table {expected}", kinds.len()));
    }
    let fits = |column: &Column, kind: Kind| match column.data_type.as_str() {
        "tinyint" => matches!(kind, Kind::I8 | Kind::U8),
        "smallint" => matches!(kind, Kind::I16 | Kind::U16),
        "mediumint" | "int" => matches!(kind, Kind::I32 | Kind::U32),
        "bigint" => matches!(kind, Kind::I64 | Kind::U64),
        "float" => kind == Kind::F32,
        "double" => kind == Kind::F64,
        "date" => kind == Kind::Date,
        "time" => kind == Kind::Time,
        "datetime" | "timestamp" => kind == Kind::DateTime,
        "year" if column.load == LoadMode::ShortYear => kind == Kind::Bytes,
        "year" => kind == Kind::Year,
        "decimal" | "bit" | "json" => kind == Kind::Bytes,
        // An ENUM by number, and what servers invent.
        _ => true,
    };
    let wrong = table.columns.iter().zip(kinds).find(|(c, kind)| !fits(c, **kind));
    wrong.map(|(column, kind)| {
        format!("column {} is {}, and its values are {kind:?}", column.name, column.column_type)
    })
}
