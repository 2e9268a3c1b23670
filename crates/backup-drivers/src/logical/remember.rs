//! Where the backup before cut each table. The same cuts make the same blocks of what did not change, and
//! let what did be a delta, however much came behind the last cut.

use std::collections::BTreeMap;

use backup_core::{ArtifactSink, ErrorKind, Result};

use super::catalog::{Catalog, Table};
use super::plan;

/// The values at which tables were cut, by database and table, each with the column they are of.
#[derive(Debug, Default)]
pub(super) struct Cuts(BTreeMap<(String, String), (String, Vec<i128>)>);

impl Cuts {
    /// Those of the backup that the sink compares with. None where there is none, or it cannot be read:
    /// other cuts cost room, and nothing else.
    pub(super) async fn of(sink: &dyn ArtifactSink) -> Result<Cuts> {
        let read = async {
            match sink.previous().await? {
                Some(artifacts) => Catalog::read(&*artifacts).await.map(Some),
                None => Ok(None),
            }
        };
        match read.await {
            Ok(Some(catalog)) => Ok(Cuts::in_catalog(&catalog)),
            Err(e) if e.kind() == ErrorKind::Interrupted => Err(e),
            Ok(None) | Err(_) => Ok(Cuts::default()),
        }
    }

    fn in_catalog(catalog: &Catalog) -> Cuts {
        let cuts = catalog.tables.iter().filter_map(|table| {
            let column = plan::range_column(table)?;
            let cuts = whole(table).filter(|cuts| !cuts.is_empty())?;
            let name = (table.database.clone(), table.name.clone());
            Some((name, (column.name.clone(), cuts)))
        });
        Cuts(cuts.collect())
    }

    /// Those of a table, in ascending order.
    pub(super) fn of_table(&self, table: &Table) -> Option<&[i128]> {
        let (column, cuts) = self.0.get(&(table.database.clone(), table.name.clone()))?;
        let same = plan::range_column(table).is_some_and(|now| now.name == *column);
        same.then_some(cuts)
    }
}

/// The cuts between the chunks of a table, if these are the whole of it: one that was damaged has gaps.
fn whole(table: &Table) -> Option<Vec<i128>> {
    let mut cuts: Vec<i128> = Vec::new();
    let mut next: Option<&String> = None;
    for chunk in &table.chunks {
        if chunk.from.as_ref() != next {
            return None;
        }
        next = chunk.to.as_ref();
        if let Some(to) = next {
            let to = to.parse().ok()?;
            if cuts.last().is_some_and(|last| *last >= to) {
                return None;
            }
            cuts.push(to);
        }
    }
    // The last one is open, and so there is one chunk more than there are cuts.
    (cuts.len() + 1 == table.chunks.len()).then_some(cuts)
}
