//! A transaction of a route, by what a target lacks.

use std::fmt;

use backup_core::{Context, Gtid, GtidSet, Result, SegmentStore};

use super::super::group::Part;
use super::super::route::Route;
use super::super::segment::{Placed, SegmentReader};
use super::super::summary::{Summary, Transaction};

/// A transaction as an error names it: GTID, place, tables.
pub(super) struct Named(Transaction);

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Transaction { gtid, file, start, end, tables, statements, time, .. } = &self.0;
        if let Some(gtid) = gtid {
            write!(f, "{gtid} ")?;
        }
        write!(f, "({file}:{start}-{end}, committed {time}")?;
        let names: Vec<&str> = tables.keys().take(3).map(String::as_str).collect();
        if !names.is_empty() {
            let more = if tables.len() > 3 { ", …" } else { "" };
            write!(f, "; {}{more}", names.join(", "))?;
        }
        if let Some(statement) = statements.first() {
            write!(f, "; `{}`", statement.replace('\n', " "))?;
        }
        f.write_str(")")
    }
}

/// The transaction `wanted`; without it, the first one that a target with `executed` lacks.
pub(super) async fn find(
    cx: &Context,
    store: &dyn SegmentStore,
    route: &Route,
    executed: &GtidSet,
    wanted: Option<&Gtid>,
) -> Result<Option<Named>> {
    for file in &route.files {
        let mut open: Option<Summary> = None;
        for segment in &file.segments {
            let has_it = match wanted {
                Some(gtid) => segment.holds(gtid) && !segment.held_before(gtid),
                None => !segment.after.is_subset(executed).unwrap_or(false),
            };
            if open.is_none() && !has_it && !segment.ends_inside {
                continue;
            }
            let mut reader = SegmentReader::new(segment, store.read(cx, segment).await?)?;
            while let Some(Placed { event, part, start, end }) = reader.next_event()? {
                match &part {
                    Part::Begin(begin) => {
                        let is_it = match (wanted, &begin.gtid) {
                            (Some(wanted), Some(gtid)) => wanted == gtid,
                            (None, Some(gtid)) => {
                                file.serves(begin, start, route.applied.as_ref())?
                                    && !executed.contains(gtid)?
                            }
                            _ => false,
                        };
                        let name = &segment.range.file;
                        open = is_it.then(|| Summary::begin(begin, name, start, end));
                    }
                    Part::Inside | Part::End => {
                        if let Some(open) = &mut open {
                            open.add(&event, end)?;
                        }
                    }
                    Part::Between => {}
                }
                if part == Part::End
                    && let Some(summary) = open.take()
                {
                    return Ok(Some(Named(summary.end())));
                }
            }
        }
    }
    Ok(None)
}
