//! Reading every row back from a target, and comparing it with the backup.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};

use backup_core::{ArtifactSource, Context, Error, Event, Result};
use futures::future::try_join_all;
use tokio::task::JoinSet;

use super::catalog::{Chunk, Column, Table};
use super::plan::Range;
use super::reader::reader;
use super::scan;
use crate::connect::ConnectOptions;
use crate::rows::{BlockReader, Kind, RowDigest, fields};
use crate::wire;

/// A chunk of a table.
struct Job {
    table: usize,
    chunk: usize,
}

struct Shared {
    tables: Vec<Table>,
    jobs: Mutex<VecDeque<Job>>,
}

impl Shared {
    /// All chunks of all tables, largest table first.
    fn new(tables: &[Table]) -> Arc<Self> {
        let tables: Vec<Table> = tables
            .iter()
            .map(|table| Table { chunks: in_ranges(table), ..table.clone() })
            .collect();
        let mut order: Vec<usize> = (0..tables.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(tables[i].data_bytes));
        let jobs = order
            .into_iter()
            .flat_map(|table| {
                (0..tables[table].chunks.len()).map(move |chunk| Job { table, chunk })
            })
            .collect();
        Arc::new(Shared { tables, jobs: Mutex::new(jobs) })
    }

    fn next(&self) -> Option<(&Table, &Chunk)> {
        let job = self.jobs.lock().expect("no panic while the queue is locked").pop_front()?;
        let table = &self.tables[job.table];
        Some((table, &table.chunks[job.chunk]))
    }
}

/// The chunks of a table, by what can be asked for at the target: where a masked key was read around damage, which
/// rows are of which chunk is not known, and all of them are compared as one.
fn in_ranges(table: &Table) -> Vec<Chunk> {
    let unknown = |chunk: &Chunk| chunk.from.is_none() && chunk.to.is_none();
    match &table.chunks[..] {
        [first, _, ..] if table.chunks.iter().all(unknown) => {
            vec![Chunk { digest: table.digest, ..first.clone() }]
        }
        chunks => chunks.to_vec(),
    }
}

async fn join_all<T: 'static>(mut workers: JoinSet<Result<T>>) -> Result<Vec<T>> {
    let mut results = Vec::new();
    // The first failure ends the others: dropping the set aborts them.
    while let Some(ended) = workers.join_next().await {
        results.push(ended.map_err(|e| Error::internal("a worker panicked").with_source(e))??);
    }
    Ok(results)
}

/// Compares the digests of all rows of `tables` at the target with those of the backup. Gives
/// warnings.
pub(super) async fn run(
    cx: &Context,
    target: &ConnectOptions,
    tables: &[Table],
    artifacts: Arc<dyn ArtifactSource>,
) -> Result<Vec<String>> {
    let shared = Shared::new(tables);
    let readers = (0..cx.threads()).map(|_| reader(target));
    let mut workers = JoinSet::new();
    for mut reader in try_join_all(readers).await? {
        let (cx, shared, artifacts) = (cx.clone(), Arc::clone(&shared), Arc::clone(&artifacts));
        workers.spawn(async move {
            let mut rounded = BTreeSet::new();
            while let Some((table, chunk)) = shared.next() {
                if check_chunk(&cx, &mut reader, table, chunk, &*artifacts).await? == Match::Rounded
                {
                    rounded.insert(table.full_name());
                }
            }
            reader.close().await;
            Ok(rounded)
        });
    }
    let rounded: BTreeSet<_> = join_all(workers).await?.into_iter().flatten().collect();
    for table in tables {
        cx.event(Event::Done {
            kind: "table".into(),
            name: table.full_name().to_string(),
            rows: Some(table.digest.rows),
        });
    }
    let warning = |table| {
        format!(
            "decimal numbers inside the JSON documents of table {table} came back as doubles, for its rows \
             are too long for one statement (max_allowed_packet of the target); everything else is the same"
        )
    };
    Ok(rounded.iter().map(warning).collect())
}

/// The same for one table, over a connection that is there. Gives whether numbers inside documents have
/// another form than in the backup.
pub(super) async fn table(
    cx: &Context,
    reader: &mut wire::Connection,
    table: &Table,
    artifacts: &dyn ArtifactSource,
) -> Result<bool> {
    let mut rounded = false;
    for chunk in &in_ranges(table) {
        rounded |= check_chunk(cx, reader, table, chunk, artifacts).await? == Match::Rounded;
    }
    Ok(rounded)
}

/// How a chunk at the target agrees with the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    /// Byte by byte.
    Exact,
    /// But for the form of numbers inside JSON documents.
    Rounded,
}

async fn check_chunk(
    cx: &Context,
    reader: &mut wire::Connection,
    table: &Table,
    chunk: &Chunk,
    artifacts: &dyn ArtifactSource,
) -> Result<Match> {
    let range = Range { from: chunk.from.clone(), to: chunk.to.clone(), ..Range::default() };
    let found = scan::digest(cx, reader, table, &range).await?;
    if found == chunk.digest {
        return Ok(Match::Exact);
    }
    let json: Vec<bool> = table.columns.iter().map(Column::holds_documents).collect();
    if found.rows == chunk.digest.rows && json.contains(&true) {
        let expected = rounded_digest(chunk, &json, artifacts).await?;
        let mut rounded = Rounded::new(&json);
        scan::each_row(cx, reader, table, &range, |row, kinds| rounded.add(row, kinds)).await?;
        if rounded.digest == expected {
            return Ok(Match::Rounded);
        }
    }
    Err(Error::damaged(format!(
        "table {} does not hold what was backed up: {} rows with digest {found} instead of {} rows \
         with digest {}",
        table.full_name(),
        found.rows,
        chunk.digest.rows,
        chunk.digest
    ))
    .with_remedy(
        "make sure that nobody else writes to the target, and that its version and character sets \
         can hold the data",
    ))
}

/// The digest of the backup's rows of a chunk, with the numbers inside documents rounded. Fails where the
/// rows are not those that the chunk's own digest is of: then they stand for nothing.
async fn rounded_digest(
    chunk: &Chunk,
    json: &[bool],
    artifacts: &dyn ArtifactSource,
) -> Result<RowDigest> {
    let mut source = artifacts.open(&chunk.artifact).await?;
    let mut blocks = BlockReader::default();
    let mut rounded = Rounded::new(json);
    let mut exact = RowDigest::default();
    while let Some(bytes) = source.next().await? {
        blocks.push(bytes);
        while let Some(block) = blocks.next_block()? {
            let kinds: Vec<Kind> = block.kinds().collect();
            block.packets(|packet| {
                // Digests are of a row without its header.
                exact.add(packet.get(1..).unwrap_or_default());
                rounded.add(packet, &kinds)
            })?;
        }
    }
    blocks.finish()?;
    if exact != chunk.digest {
        let text = format!(
            "{} holds {} rows with digest {exact}, the catalogue has {} with {}",
            chunk.artifact, exact.rows, chunk.digest.rows, chunk.digest
        );
        return Err(Error::damaged(text).with_remedy("restore another backup"));
    }
    Ok(rounded.digest)
}

/// A digest of rows that does not see in which form a number inside a document is kept.
struct Rounded<'a> {
    json: &'a [bool],
    digest: RowDigest,
    row: Vec<u8>,
}

impl<'a> Rounded<'a> {
    fn new(json: &'a [bool]) -> Self {
        Rounded { json, digest: RowDigest::default(), row: Vec::new() }
    }

    fn add(&mut self, packet: &[u8], kinds: &[Kind]) -> Result<()> {
        self.row.clear();
        for (i, value) in fields(packet, kinds)?.into_iter().enumerate() {
            let document = value.filter(|_| self.json.get(i) == Some(&true)).and_then(round);
            let value = document.as_deref().or(value);
            self.row.push(u8::from(value.is_some()));
            let value = value.unwrap_or_default();
            self.row.extend_from_slice(&(value.len() as u64).to_le_bytes());
            self.row.extend_from_slice(value);
        }
        self.digest.add(&self.row);
        Ok(())
    }
}

/// A document with every number that is no integer in 15 digits, which both a DECIMAL and the DOUBLE
/// made of it agree in. `None` for what is no document.
fn round(document: &[u8]) -> Option<Vec<u8>> {
    fn walk(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Number(number) if number.is_f64() => {
                let rounded = format!("{:.14e}", number.as_f64().unwrap_or_default());
                // A string would do, but must not equal one that the document holds.
                *value = serde_json::json!({ "\0number": rounded });
            }
            serde_json::Value::Array(values) => values.iter_mut().for_each(walk),
            serde_json::Value::Object(members) => members.values_mut().for_each(walk),
            _ => {}
        }
    }
    let mut value = serde_json::from_slice(document).ok()?;
    walk(&mut value);
    serde_json::to_vec(&value).ok()
}

#[cfg(test)]
mod tests {
    use super::round;

    #[test]
    fn only_the_form_of_numbers_is_passed_over() {
        let same = |a: &str, b: &str| round(a.as_bytes()) == round(b.as_bytes());
        assert!(same(r#"{"a": [1.50]}"#, r#"{"a": [1.5]}"#));
        assert!(same("12345678901234567890123.25", "1.2345678901234568e22"));
        for (a, b) in [
            (r#""1.50""#, r#""1.5""#),
            ("1.5", "1.5000001"),
            ("1", "2"),
            ("18446744073709551615", "18446744073709551614"),
            (r#"{"a": 1}"#, r#"{"b": 1}"#),
            ("[1.5, 2.5]", "[2.5, 1.5]"),
            ("null", "0.0"),
            ("1.5", r#"{"\u0000number": "x"}"#),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
        assert_eq!(round(b"no document"), None);
    }
}
