//! Chunks: whether their ranges cover the table, and whether their artifacts are what it says.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{ArtifactInfo, ArtifactName};

use super::super::catalog::{Chunk, Table};
use super::Found;
use crate::rows::RowDigest;

pub(super) fn check(
    table: &Table,
    listed: &BTreeMap<ArtifactName, ArtifactInfo>,
    named: &mut BTreeSet<ArtifactName>,
    found: &mut Found,
) {
    let shown = table.full_name().to_string();
    coverage(table, &shown, found);
    let sum: RowDigest = table.chunks.iter().map(|c| c.digest).sum();
    if sum != table.digest {
        found.error(
            &shown,
            format!(
                "its chunks have {} rows with digest {sum}, and the table {} with digest {}",
                sum.rows, table.digest.rows, table.digest
            ),
        );
    }
    if table.rows_left_out && table.digest.rows != 0 {
        found.error(&shown, "its rows were left out, and yet it has some".to_owned());
    }
    for chunk in &table.chunks {
        if !named.insert(chunk.artifact.clone()) {
            found.error(&shown, format!("{} is the artifact of another chunk too", chunk.artifact));
        }
        match listed.get(&chunk.artifact) {
            None => found.error(&shown, format!("the backup has no artifact {}", chunk.artifact)),
            Some(info) => attributes(chunk, info, &shown, found),
        }
    }
}

/// The first range is open at its beginning, the last at its end, and each begins where the one before
/// it ends.
fn coverage(table: &Table, shown: &str, found: &mut Found) {
    let (Some(first), Some(last)) = (table.chunks.first(), table.chunks.last()) else {
        if table.digest.rows != 0 {
            found.error(shown, format!("it has {} rows and no chunk", table.digest.rows));
        }
        return;
    };
    let is_open = |chunk: &Chunk| chunk.from.is_none() && chunk.to.is_none();
    if table.chunks.len() > 1
        && table.key.iter().any(|key| table.masked.contains(key))
        && table.chunks.iter().all(is_open)
    {
        found.error(
            shown,
            "it was read around damage: between its pieces, which are not told by the key as that is masked, rows are \
             missing"
                .to_owned(),
        );
        return;
    }
    if let Some(from) = &first.from {
        found.error(
            shown,
            format!("there is a hole before its first range, which begins at {from}"),
        );
    }
    if let Some(to) = &last.to {
        found.error(shown, format!("there is a hole behind its last range, which ends at {to}"));
    }
    for (n, pair) in table.chunks.windows(2).enumerate() {
        let problem = match (&pair[0].to, &pair[1].from) {
            (Some(to), Some(from)) if to == from => continue,
            (Some(to), Some(from)) => match (to.parse::<i128>(), from.parse::<i128>()) {
                (Ok(a), Ok(b)) if a < b => format!("a hole from {to} to {from}"),
                (Ok(_), Ok(_)) => format!("an overlap from {from} to {to}"),
                _ => format!("a gap or an overlap: one ends at {to}, the next begins at {from}"),
            },
            _ => "an overlap: one of them is open".to_owned(),
        };
        found.error(shown, format!("between its ranges {} and {} is {problem}", n + 1, n + 2));
    }
}

fn attributes(chunk: &Chunk, info: &ArtifactInfo, shown: &str, found: &mut Found) {
    let says = &info.attributes;
    if says.is_null() {
        return;
    }
    let range = |key: &str| says.get(key).and_then(|v| v.as_str()).map(str::to_owned);
    let digest =
        says.get("digest").and_then(|d| serde_json::from_value::<RowDigest>(d.clone()).ok());
    if digest.is_some_and(|d| d != chunk.digest) {
        found.error(
            shown,
            format!("{} was written with other rows than the catalogue says", chunk.artifact),
        );
    }
    if (range("from"), range("to")) != (chunk.from.clone(), chunk.to.clone()) {
        found.error(
            shown,
            format!("{} was written for another range than the catalogue says", chunk.artifact),
        );
    }
}
