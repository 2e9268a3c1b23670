//! From the dump to the spool, event by event.

use std::time::{Duration, Instant};

use backup_core::{Error, ErrorKind, Event as Told, GtidSet, MariaDbBinlogState, Result};
use futures::FutureExt;

use super::super::dump::{Dump, Sent};
use super::super::event::MAGIC;
use super::super::group::Part;
use super::super::gtid::transactions_before;
use super::super::segment::{Head, hex_of};
use super::super::semisync::Rpo;
use super::super::source::{BinlogSource, check_kept};
use super::super::track::Tracker;
use super::Receiver;

/// How often we ask the server whether commits wait for us.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long the last answer may take.
const LAST_LOOK: Duration = Duration::from_secs(2);
/// As how many bytes a sign of life counts.
const SIGN_OF_LIFE: u64 = 64 << 10;
/// How many bytes are taken between two looks at the clock.
const BURST: u64 = 1 << 20;

impl Receiver<'_, '_> {
    /// Reads until the dump ends.
    pub(super) async fn read(&mut self, source: &BinlogSource, dump: &mut Dump) -> Result<()> {
        // Whether this file has to say that nothing is missing before it.
        let mut first = true;
        let mut wants_ack = false;
        let mut taken = 0;
        let mut tick = tokio::time::interval(self.options.sync_every);
        self.watch.begin();
        let mut looked: Option<Instant> = None;
        loop {
            let ready = if taken < BURST { dump.next().now_or_never() } else { None };
            let sent = match ready {
                Some(sent) => sent?,
                None => {
                    taken = 0;
                    if wants_ack {
                        self.sync().await?;
                        dump.acknowledge().await?;
                        wants_ack = false;
                    }
                    self.uploader.check(self.options.spool_limit)?;
                    self.roll(dump).await?;
                    tokio::select! {
                        sent = dump.next() => sent?,
                        _ = tick.tick() => {
                            self.sync().await?;
                            self.claims.check()?;
                            if self.options.follow
                                && looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY)
                            {
                                self.look(dump.is_semi_sync()).await;
                                looked = Some(Instant::now());
                            }
                            continue;
                        }
                        () = self.cx.cancellation().cancelled() => {
                            self.sync().await?;
                            // What is said at the end is to be of the end; not at any price.
                            let look = self.look(dump.is_semi_sync());
                            let _ = tokio::time::timeout(LAST_LOOK, look).await;
                            return Ok(());
                        }
                    }
                }
            };
            match sent {
                Sent::Heartbeat => {
                    self.lag.is_level(self.cx.now());
                    // However many come, the clock is looked at.
                    taken += SIGN_OF_LIFE;
                }
                Sent::End => return Ok(()),
                Sent::File { name, format, position } => {
                    self.close_draft().await?;
                    let tracker = dump.tracker();
                    let from_start = position == (MAGIC.len() + format.event.bytes().len()) as u64;
                    let head = Head {
                        cluster: self.options.cluster.clone(),
                        server: source.server.clone(),
                        seq: self.archived.next_seq(&source.server),
                        file: name,
                        start: if from_start { 0 } else { position },
                        format_description: hex_of(&format),
                        before: tracker
                            .map_or(GtidSet::empty(source.flavor), |t| t.after().clone()),
                        state_before: tracker.and_then(|t| t.state().cloned()),
                        begins_inside: tracker.is_some_and(Tracker::is_inside),
                        gap_before: self.gap.take(),
                    };
                    first &= from_start;
                    if from_start {
                        let mut draft = self.spool.begin(head)?;
                        draft.add(&MAGIC)?;
                        draft.add(format.event.bytes())?;
                        self.draft = Some((draft, Instant::now()));
                    } else {
                        let draft = self.spool.begin(head)?;
                        self.draft = Some((draft, Instant::now()));
                    }
                }
                Sent::Event { event, part, wants_ack: wanted } => {
                    if let Part::Begin(begin) = &part {
                        self.lag.comes(begin.time, self.cx.now());
                    }
                    if let Some(before) = transactions_before(&event)?
                        && std::mem::take(&mut first)
                    {
                        let state = dump.tracker().and_then(|t| t.state().cloned());
                        self.check_joined(source, dump.file(), &before, state.as_ref())?;
                    }
                    let len = event.bytes().len() as u64;
                    taken += len;
                    wants_ack |= wanted;
                    self.draft(source, dump, len)?.add(event.bytes())?;
                    self.cx.progress().add_bytes(len);
                    self.roll_if_full(dump).await?;
                }
            }
        }
    }

    /// The first file of a connection says which transactions came before it: all of them have to be
    /// archived, unless a gap was accepted, or this is where the archive begins.
    fn check_joined(
        &mut self,
        source: &BinlogSource,
        file: &str,
        before: &GtidSet,
        state: Option<&MariaDbBinlogState>,
    ) -> Result<()> {
        let archived = self.archived.seen_from(source)?;
        if let Some(tip) = &archived.tip
            && source.has_gtids
            && !archived.went_on_elsewhere
        {
            check_kept(source.server_id, &source.executed, tip, file, before, state)?;
        }
        let covered = match archived.covered {
            Some(covered) if source.has_gtids => covered,
            _ => return Ok(()),
        };
        let accepted = self.draft.as_ref().is_some_and(|(d, _)| d.head.gap_before.is_some());
        let missing = match covered.lacks(before, state)? {
            Some(missing) if !accepted => missing,
            _ => return Ok(()),
        };
        let text = format!(
            "transactions are missing between the archive and the server's binlog: {missing}"
        );
        match &mut self.draft {
            Some((draft, _)) if self.options.accept_gap => {
                draft.head.gap_before = Some(missing);
                self.warn(format!("{text}; take a full backup now"));
                Ok(())
            }
            _ => Err(Error::new(ErrorKind::Source, text)
                .with_remedy("take a full backup now, then go on with --accept-gap")),
        }
    }

    async fn sync(&mut self) -> Result<()> {
        if let Some((draft, _)) = &mut self.draft {
            draft.sync().await?;
        }
        self.lag.is_safe();
        Ok(())
    }

    /// Finds out what may be lost with the server now, and says so when that is other than before.
    async fn look(&mut self, semi_sync: bool) {
        let why = match semi_sync {
            true => self.watch.look().await,
            false => Some("commits do not wait for us (--semi-sync)".to_owned()),
        };
        let before = self.result.rpo.as_ref().map(|rpo| rpo.why.as_str());
        let now = why.as_deref().unwrap_or_default();
        if semi_sync && before.is_some_and(|before| before != now) {
            let text = match &why {
                None => "every commit waits for us again".to_owned(),
                Some(why) => format!("commits may be lost with the server: {why}"),
            };
            self.cx.event(Told::Warning { text });
        }
        let as_of = self.cx.now();
        let seconds = if why.is_none() { Some(0.0) } else { self.lag.seconds(as_of) };
        self.result.rpo = Some(Rpo { seconds, why: why.unwrap_or_default(), as_of });
    }

    /// The connection is gone: whatever was so, from now on nothing waits for us.
    pub(super) fn is_away(&mut self) {
        let as_of = self.cx.now();
        if let Some(rpo) = &mut self.result.rpo {
            let why = "the server was away".to_owned();
            *rpo = Rpo { seconds: self.lag.seconds(as_of), why, as_of };
        }
    }
}
