//! Looking for transactions in the archive.

use std::collections::HashSet;

use backup_core::{Context, ErrorKind, Result, SegmentInfo, SegmentStore};
use bytes::Bytes;
use futures::StreamExt;

use super::ahead::read_segments;
use super::group::Part;
use super::segment::{Placed, SegmentReader};
use super::summary::{Summary, Transaction};

/// Transactions that were looked for.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundTransactions {
    /// The newest, in the order of the archive.
    pub transactions: Vec<Transaction>,
    /// How many more were found, all of them older.
    pub left_out: u64,
    /// Segments that are damaged, one line each: what is in them, from there on, was not looked at.
    pub damaged: Vec<String>,
}

/// The transactions of `segments` that `wanted` takes, the newest `limit` of them. The segments are
/// those of one archive, sorted by server and number; a transaction that begins before the first of
/// them is not looked at, nor one of which a part is damaged.
///
/// # Errors
/// What the store fails with.
pub async fn find_transactions(
    cx: &Context,
    store: &dyn SegmentStore,
    segments: &[SegmentInfo],
    limit: usize,
    mut wanted: impl FnMut(&Transaction) -> bool,
) -> Result<FoundTransactions> {
    let mut found = Vec::new();
    let mut left_out = 0;
    let mut damaged = Vec::new();
    let mut open: Option<Summary> = None;
    let mut last: Option<&SegmentInfo> = None;
    let mut reads = read_segments(cx, store, segments.iter().map(|segment| ((), segment)));
    while let Some(((), segment, content)) = reads.next().await {
        if !last.is_some_and(|last| last.continues_in(segment)) {
            open = None;
        }
        last = Some(segment);
        let mut take = |transaction: Transaction| {
            if wanted(&transaction) {
                found.push(transaction);
                if found.len() / 2 > limit {
                    left_out += keep_newest(&mut found, limit);
                }
            }
        };
        let looked =
            content.and_then(|content| look_through(cx, segment, content, &mut open, &mut take));
        match looked {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::Damaged => {
                damaged.push(format!("segment {} is damaged: {}", segment.name(), e.chain()));
                (open, last) = (None, None);
            }
            Err(e) => return Err(e),
        }
    }
    left_out += keep_newest(&mut found, limit);
    Ok(FoundTransactions { transactions: found, left_out, damaged })
}

/// Gives the transactions that end in a segment; `open` is the one that goes on in the next one.
fn look_through(
    cx: &Context,
    segment: &SegmentInfo,
    content: Bytes,
    open: &mut Option<Summary>,
    take: &mut impl FnMut(Transaction),
) -> Result<()> {
    let mut reader = SegmentReader::new(segment, content)?;
    cx.progress().add_bytes(segment.bytes());
    while let Some(Placed { event, part, start, end }) = reader.next_event()? {
        match &part {
            Part::Begin(begin) => {
                *open = Some(Summary::begin(begin, &segment.range.file, start, end));
            }
            Part::Inside | Part::End => {
                if let Some(open) = open {
                    open.add(&event, end)?;
                }
            }
            Part::Between => *open = None,
        }
        if part == Part::End
            && let Some(transaction) = open.take().map(Summary::end)
        {
            take(transaction);
        }
    }
    Ok(())
}

/// Removes all but the newest `limit`; gives how many those were.
fn keep_newest(found: &mut Vec<Transaction>, limit: usize) -> u64 {
    let more = found.len().saturating_sub(limit);
    let mut by_time: Vec<usize> = (0..found.len()).collect();
    by_time.sort_by_key(|&at| found[at].time);
    let oldest: HashSet<usize> = by_time.into_iter().take(more).collect();
    let mut at = 0..;
    found.retain(|_| at.next().is_some_and(|at| !oldest.contains(&at)));
    more as u64
}
