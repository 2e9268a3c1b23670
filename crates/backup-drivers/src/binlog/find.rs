//! Looking for transactions in the archive.

use backup_core::{Context, Result, SegmentInfo, SegmentStore};

use super::group::Part;
use super::segment::{Placed, SegmentReader};
use super::summary::{Summary, Transaction};

/// Every transaction of `segments` that `wanted` takes, in their order. The segments are those of one
/// archive, sorted by server and number; a transaction that begins before the first of them is left
/// out.
///
/// # Errors
/// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) for a damaged segment, and what the store
/// fails with.
pub async fn find_transactions(
    cx: &Context,
    store: &dyn SegmentStore,
    segments: &[SegmentInfo],
    mut wanted: impl FnMut(&Transaction) -> bool,
) -> Result<Vec<Transaction>> {
    let mut found = Vec::new();
    let mut open: Option<Summary> = None;
    let mut last: Option<&SegmentInfo> = None;
    for segment in segments {
        cx.check()?;
        if !last.is_some_and(|last| last.continues_in(segment)) {
            open = None;
        }
        last = Some(segment);
        let mut reader = SegmentReader::new(segment, store.read(cx, segment).await?)?;
        cx.progress().add_bytes(segment.bytes());
        while let Some(Placed { event, part, start, end }) = reader.next_event()? {
            match &part {
                Part::Begin(begin) => {
                    open = Some(Summary::begin(begin, &segment.range.file, start, end));
                }
                Part::Inside | Part::End => {
                    if let Some(open) = &mut open {
                        open.add(&event, end)?;
                    }
                }
                Part::Between => open = None,
            }
            if part == Part::End
                && let Some(transaction) = open.take().map(Summary::end)
                && wanted(&transaction)
            {
                found.push(transaction);
            }
        }
    }
    Ok(found)
}
