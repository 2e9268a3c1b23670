//! What the archive of a cluster ends with.

use std::cmp::Ordering;
use std::collections::HashMap;

use backup_core::{
    BinlogFile, BinlogServer, ClusterName, Context, Error, ErrorKind, Event as Told, ListedSegment,
    Result, SegmentInfo, SegmentStore,
};

use super::segment::Head;
use super::source::{Archived, BinlogSource, Covered};

/// The last segment of every server.
pub(super) struct Archive {
    pub(super) tips: Vec<SegmentInfo>,
    /// Up to where each file is archived, by its server, its name, and when it was begun.
    ends: HashMap<(BinlogServer, String, u32), u64>,
}

/// What an earlier receiver left, beside what is archived: others may have gone on without it.
#[derive(Debug)]
pub(super) enum Leftover {
    /// It comes next.
    Next,
    /// It is archived.
    Archived,
    /// The rest of it comes next: what is not archived yet, under another number.
    Rest(Box<Head>),
}

impl Archive {
    pub(super) async fn read(
        cx: &Context,
        store: &dyn SegmentStore,
        cluster: &ClusterName,
    ) -> Result<Self> {
        Ok(Archive::of(cx, &store.segments(cx, cluster).await?))
    }

    /// Of segments that were listed.
    pub(super) fn of(cx: &Context, listed: &[ListedSegment]) -> Self {
        let mut archive = Archive { tips: Vec::new(), ends: HashMap::new() };
        archive.take_up(cx, listed);
        archive
    }

    /// Adds what others archived since.
    pub(super) async fn refresh(
        &mut self,
        cx: &Context,
        store: &dyn SegmentStore,
        cluster: &ClusterName,
    ) -> Result<()> {
        self.take_up(cx, &store.segments(cx, cluster).await?);
        Ok(())
    }

    fn take_up(&mut self, cx: &Context, listed: &[ListedSegment]) {
        for listed in listed {
            match &listed.info {
                Ok(info) => self.add(info.clone()),
                Err(e) => cx.event(Told::Warning {
                    text: format!(
                        "segment {}/{} is damaged: {}; run `holdfast binlog check`",
                        listed.server,
                        listed.seq,
                        e.chain()
                    ),
                }),
            }
        }
    }

    /// The number of the next segment of a server.
    pub(super) fn next_seq(&self, server: &BinlogServer) -> u64 {
        let tip = self.tips.iter().find(|tip| tip.server == *server);
        tip.map_or(1, |tip| tip.seq + 1)
    }

    pub(super) fn add(&mut self, info: SegmentInfo) {
        let end = self.ends.entry(file_of(&info)).or_default();
        *end = info.range.end.max(*end);
        match self.tips.iter_mut().find(|tip| tip.server == info.server) {
            Some(tip) if tip.seq < info.seq => *tip = info,
            Some(_) => {}
            None => self.tips.push(info),
        }
    }

    /// The transactions of all servers; `None` where nothing is archived.
    pub(super) fn covered(&self) -> Result<Option<Covered>> {
        let mut covered: Option<Covered> = None;
        for tip in &self.tips {
            let of_tip = Covered::of(tip);
            covered = Some(match covered {
                None => of_tip,
                Some(all) => all.union(&of_tip)?,
            });
        }
        Ok(covered)
    }

    /// Whether the archive has a file of this name, and this is not that one.
    pub(super) fn is_another(&self, server: &BinlogServer, file: &str, started: u32) -> bool {
        let of_name = |(of, name, _): &&(BinlogServer, String, u32)| of == server && name == file;
        let mut known = self.ends.keys().filter(of_name).map(|(_, _, started)| *started).peekable();
        known.peek().is_some() && known.all(|known| known != started && known != 0)
    }

    /// What a segment in the spool is to the archive.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] when it joins the archive nowhere.
    pub(super) fn leftover(&self, info: &SegmentInfo) -> Result<Leftover> {
        let Some(tip) = self.tips.iter().find(|tip| tip.server == info.server) else {
            return Ok(Leftover::Next);
        };
        if self.ends.get(&file_of(info)).is_some_and(|end| *end >= info.range.end) {
            return Ok(Leftover::Archived);
        }
        let same = tip.range.same_file(&info.range);
        let is_newer = info.seq > tip.seq;
        // Higher than both: files of the spool are named by numbers.
        let seq = info.seq.max(tip.seq + 1);
        if same && info.range.start <= tip.range.end {
            if is_newer && info.range.start == tip.range.end {
                return Ok(Leftover::Next);
            }
            return Ok(Leftover::Rest(Box::new(Head {
                seq,
                start: tip.range.end,
                before: tip.after.clone(),
                state_before: tip.state_after.clone(),
                begins_inside: tip.ends_inside,
                gap_before: None,
                ..Head::of(info)
            })));
        }
        let number = |info: &SegmentInfo| info.range.file.parse::<BinlogFile>().ok();
        let is_later = same || number(info).partial_cmp(&number(tip)).is_none_or(Ordering::is_gt);
        if is_newer && is_later {
            return Ok(Leftover::Next);
        }
        if is_later && !same && info.range.start == 0 {
            let lacks = match self.covered()? {
                Some(covered) => covered.lacks(&info.before, info.state_before.as_ref())?,
                None => None,
            };
            if lacks.is_none() {
                return Ok(Leftover::Rest(Box::new(Head { seq, ..Head::of(info) })));
            }
        }
        Err(Error::new(
            ErrorKind::Busy,
            format!(
                "{} of {} waits in the spool, and the archive went on without it, to {}",
                info.range, info.server, tip.range
            ),
        ))
    }

    /// Whether another server wrote later what this one had not, up to where it is archived.
    pub(super) fn went_on_elsewhere(&self, tip: &SegmentInfo) -> Result<bool> {
        for later in self.tips.iter().filter(|other| other.archived_at > tip.archived_at) {
            if Covered::of(tip).lacks(&later.after, later.state_after.as_ref())?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn seen_from(&self, source: &BinlogSource) -> Result<Archived> {
        let tip = self.tips.iter().find(|tip| tip.server == source.server).cloned();
        let went_on_elsewhere = match &tip {
            Some(tip) => self.went_on_elsewhere(tip)?,
            None => false,
        };
        Ok(Archived { tip, covered: self.covered()?, went_on_elsewhere })
    }
}

fn file_of(info: &SegmentInfo) -> (BinlogServer, String, u32) {
    (info.server.clone(), info.range.file.clone(), info.range.file_started)
}
