//! What the archive of a cluster ends with.

use backup_core::{ClusterName, Context, Event as Told, Result, SegmentInfo, SegmentStore};

use super::source::{Archived, BinlogSource, Covered};

/// The last segment of every server.
pub(super) struct Archive {
    pub(super) tips: Vec<SegmentInfo>,
}

impl Archive {
    pub(super) async fn read(
        cx: &Context,
        store: &dyn SegmentStore,
        cluster: &ClusterName,
    ) -> Result<Self> {
        let mut tips: Vec<SegmentInfo> = Vec::new();
        for listed in store.segments(cx, cluster).await? {
            let last = tips.last_mut().filter(|tip| tip.server == listed.server);
            match (listed.info, last) {
                (Ok(info), Some(tip)) => *tip = info,
                (Ok(info), None) => tips.push(info),
                (Err(e), _) => cx.event(Told::Warning {
                    text: format!(
                        "segment {}/{} is damaged: {}; run `holdfast binlog check`",
                        listed.server,
                        listed.seq,
                        e.chain()
                    ),
                }),
            }
        }
        Ok(Archive { tips })
    }

    pub(super) fn add(&mut self, info: SegmentInfo) {
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

    pub(super) fn of(&self, source: &BinlogSource) -> Result<Archived> {
        let tip = self.tips.iter().find(|tip| tip.server == source.server).cloned();
        let mut went_on_elsewhere = false;
        if let Some(tip) = &tip {
            for later in self.tips.iter().filter(|other| other.archived_at > tip.archived_at) {
                let more = Covered::of(tip).lacks(&later.after, later.state_after.as_ref())?;
                went_on_elsewhere |= more.is_some();
            }
        }
        Ok(Archived { tip, covered: self.covered()?, went_on_elsewhere })
    }
}
