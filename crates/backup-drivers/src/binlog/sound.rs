//! Ways through an archive that lead round what is damaged in it: every segment of a way is read, and
//! compared with its digest, before anything is done.

use std::collections::HashSet;

use backup_core::{
    BinlogChain, BinlogServer, Context, Error, ErrorKind, Event, ReplayBase, ReplayPlan,
    ReplayTarget, Result, SegmentInfo, SegmentStore,
};
use futures::StreamExt;

use super::ahead::read_segments;

/// What to do about a damaged segment that nothing leads round.
const PUT_BACK: &str = "`holdfast binlog check` names all that is damaged; put it back from a copy of the repository \
                        (`holdfast copy`), or from the server's own file with `holdfast binlog rescue`; or stop before \
                        it: --to-last-reachable";

/// An archive of which damaged segments are left out, once they are met.
#[derive(Debug)]
pub struct SoundChain {
    /// As it was listed.
    all: BinlogChain,
    /// What is left of it.
    chain: BinlogChain,
    whole: HashSet<(BinlogServer, u64)>,
    damaged: Vec<Damaged>,
    warnings: Vec<String>,
}

#[derive(Debug)]
struct Damaged {
    segment: SegmentInfo,
    why: String,
}

impl SoundChain {
    /// Nothing of it is known to be damaged yet.
    #[must_use]
    pub fn new(chain: BinlogChain) -> Self {
        SoundChain {
            all: chain.clone(),
            chain,
            whole: HashSet::new(),
            damaged: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// What is left: without what was found to be damaged.
    #[must_use]
    pub fn chain(&self) -> &BinlogChain {
        &self.chain
    }

    /// What was left out of it until now, each with the reason, as it was told.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Tells that something is left out of it.
    pub fn warn(&mut self, cx: &Context, text: String) {
        cx.event(Event::Warning { text: text.clone() });
        self.warnings.push(text);
    }

    /// As [`BinlogChain::plan`], through segments alone that are whole.
    ///
    /// # Errors
    /// As [`BinlogChain::plan`]; [`ErrorKind::Damaged`] where there is a way, and none that leads round what is
    /// damaged; what the store fails with.
    pub async fn plan(
        &mut self,
        cx: &Context,
        store: &dyn SegmentStore,
        base: &ReplayBase,
        target: &ReplayTarget,
    ) -> Result<ReplayPlan> {
        loop {
            let plan = match self.chain.plan(base, target) {
                Ok(plan) => plan,
                Err(e) if self.all.plan(base, target).is_err() => return Err(e.into()),
                Err(e) => return Err(self.damage(&e.to_string())),
            };
            // A last segment leaves no hole by which it would be missed.
            if *target == ReplayTarget::End
                && let Some(lost) = self.damaged.iter().find(|d| !plan.has_all(&d.segment))
            {
                return Err(self.damage(&format!("{} is behind the rest", lost.segment.range)));
            }
            if self.is_whole(cx, store, &plan).await? {
                return Ok(plan);
            }
        }
    }

    /// Whether all segments of a way are; what is not is left out from now on.
    async fn is_whole(
        &mut self,
        cx: &Context,
        store: &dyn SegmentStore,
        plan: &ReplayPlan,
    ) -> Result<bool> {
        let segments = plan.stretches.iter().flat_map(|stretch| &stretch.segments);
        let unread = segments.filter(|s| !self.whole.contains(&(s.server.clone(), s.seq)));
        let unread: Vec<_> = unread.map(|segment| ((), segment)).collect();
        let mut reads = read_segments(cx, store, unread);
        let mut found = Vec::new();
        while let Some(((), segment, read)) = reads.next().await {
            match read {
                Ok(_) => drop(self.whole.insert((segment.server.clone(), segment.seq))),
                Err(e) if e.kind() == ErrorKind::Damaged => {
                    found.push(Damaged { segment: segment.clone(), why: e.chain() });
                }
                Err(e) => return Err(e),
            }
        }
        drop(reads);
        for Damaged { segment, why } in &found {
            let text = format!("segment {} ({}) is left out: {why}", segment.name(), segment.range);
            self.warn(cx, text);
            self.chain = self.chain.without(segment);
        }
        let whole = found.is_empty();
        self.damaged.extend(found);
        Ok(whole)
    }

    /// The error of a way that leads through what is damaged.
    fn damage(&self, problem: &str) -> Error {
        let damaged = self.damaged.iter().map(|Damaged { segment, why }| {
            format!("segment {} ({}): {why}", segment.name(), segment.range)
        });
        let damaged: Vec<String> = damaged.collect();
        Error::damaged(format!(
            "the archived binlogs on the way are damaged, and nothing leads round that: {} ({problem})",
            damaged.join("; ")
        ))
        .with_remedy(PUT_BACK)
    }
}
