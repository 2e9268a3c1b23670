//! Where segments begin and end.

use std::time::Instant;

use backup_core::{Error, Position, Result, SegmentInfo};

use super::super::dump::Dump;
use super::super::segment::{Head, Upto, examine, hex_of};
use super::super::source::BinlogSource;
use super::super::spool::{Draft, Waiting};
use super::super::track::Tracker;
use super::Receiver;

/// A transaction that is so much longer than a segment is cut.
const LONG_TRANSACTION: u64 = 4;

impl Receiver<'_, '_> {
    /// The segment that an event of `len` bytes goes to, which `dump` has just given.
    pub(super) fn draft(
        &mut self,
        source: &BinlogSource,
        dump: &Dump,
        len: u64,
    ) -> Result<&mut Draft> {
        if self.draft.is_none() {
            let lost = || Error::internal("a segment was closed before it was begun");
            let tracker = dump.tracker().ok_or_else(lost)?;
            let tip = self.archived.tips.iter().find(|tip| tip.server == source.server);
            let tip = tip.ok_or_else(lost)?;
            let head = Head {
                cluster: self.options.cluster.clone(),
                server: source.server.clone(),
                seq: self.archived.next_seq(&source.server),
                file: dump.file().to_owned(),
                start: tracker.position() - len,
                format_description: hex_of(tracker.format()),
                before: tip.after.clone(),
                state_before: tip.state_after.clone(),
                begins_inside: tip.ends_inside,
                gap_before: None,
            };
            self.draft = Some((self.spool.begin(head)?, Instant::now()));
        }
        let draft = self.draft.as_mut().map(|(draft, _)| draft);
        draft.ok_or_else(|| Error::internal("there is no segment to add to"))
    }

    /// Closes the segment when it has waited long enough.
    pub(super) async fn roll(&mut self, dump: &Dump) -> Result<()> {
        let Some((_, since)) = &self.draft else { return Ok(()) };
        let tracker = dump.tracker();
        let inside = tracker.is_some_and(Tracker::is_inside);
        // The start of a file alone is worth no segment: nothing is lost with it.
        let only_start = tracker.is_some_and(|t| !t.has_transactions() && !t.is_closed());
        if since.elapsed() >= self.options.store_every && !inside && !only_start {
            self.close_draft().await?;
        }
        Ok(())
    }

    pub(super) async fn roll_if_full(&mut self, dump: &Dump) -> Result<()> {
        let Some((draft, _)) = &self.draft else { return Ok(()) };
        let inside = dump.tracker().is_some_and(Tracker::is_inside);
        let limit = self.options.segment_bytes;
        let full = draft.len >= if inside { limit.saturating_mul(LONG_TRANSACTION) } else { limit };
        if full { self.close_draft_at(inside).await } else { Ok(()) }
    }

    /// Closes the segment that is being received, at the end of its last whole transaction.
    pub(super) async fn close_draft(&mut self) -> Result<()> {
        self.close_draft_at(false).await
    }

    async fn close_draft_at(&mut self, inside: bool) -> Result<()> {
        let Some((draft, _)) = self.draft.take() else { return Ok(()) };
        let len = draft.len;
        let waiting = draft.close().await?;
        let content = waiting.content()?;
        let upto = if inside { Upto::End } else { Upto::LastTransaction };
        let head = waiting.head.clone();
        let now = self.cx.now();
        let info = tokio::task::spawn_blocking(move || {
            examine(&head, &content, upto, |_| String::new(), now)
        })
        .await
        .map_err(|e| Error::internal("a task of the receiver ended early").with_source(e))??;
        let Some(info) = info else { return waiting.remove() };
        if info.bytes() < len {
            waiting.truncate(info.bytes())?;
        }
        self.queue(waiting, info)
    }

    /// Sends a segment on its way to the archive.
    pub(super) fn queue(&mut self, waiting: Waiting, info: SegmentInfo) -> Result<()> {
        self.result.position = Position {
            gtid: Some(info.after.clone()).filter(|set| !set.is_empty()),
            ..Position::at(info.range.file.clone(), info.range.end)
        };
        let len = info.bytes();
        self.archived.add(info);
        self.uploader.push(waiting, len)
    }
}
