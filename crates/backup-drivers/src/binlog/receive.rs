//! The receiver: what a server writes into its binlogs goes to the spool, and from there to the
//! archive.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_core::{
    ClusterName, Context, Error, ErrorKind, Event as Told, GtidSet, MariaDbBinlogState, Position,
    Result, SegmentInfo, SegmentStore, Uuid,
};
use futures::FutureExt;
use jiff::Timestamp;

use super::dump::{Dump, DumpOptions, Sent};
use super::event::MAGIC;
use super::group::Part;
use super::gtid::transactions_before;
use super::segment::{Head, Upto, examine, format_of, hex_of, sha256};
use super::semisync::{Rpo, Watch};
use super::source::{BinlogSource, From, Start, check_kept, locate};
use super::spool::{Draft, Spool, Waiting};
use super::tips::{Archive, Leftover};
use super::track::Tracker;
use super::upload::Uploader;
use crate::connect::{ConnectOptions, Session, is_refused};

/// How binlogs are archived.
#[derive(Debug, Clone)]
pub struct ReceiveOptions {
    /// The cluster whose archive it is.
    pub cluster: ClusterName,
    /// A directory of our own, where what was received waits for the store. One receiver a cluster
    /// uses it.
    pub spool: PathBuf,
    /// Whether to wait for what the server will write. Otherwise everything up to now is archived.
    pub follow: bool,
    /// Whether commits of the server wait until what they wrote is safe in the spool.
    pub semi_sync: bool,
    /// Where an archive begins that has nothing yet.
    pub from: From,
    /// Whether to go on where the server purged what was not archived.
    pub accept_gap: bool,
    /// Length in bytes at which a segment is closed. Default: 16 MiB.
    pub segment_bytes: u64,
    /// How long a segment waits for more. Default: 10 seconds.
    pub store_every: Duration,
    /// How often what was received is synced to the spool's disk. Default: 1 second.
    pub sync_every: Duration,
    /// How many bytes may wait for the store. Default: 64 GiB.
    pub spool_limit: u64,
    /// The server id we go by; without one, a random one.
    pub server_id: Option<u32>,
}

impl ReceiveOptions {
    /// The defaults.
    #[must_use]
    pub fn new(cluster: ClusterName, spool: PathBuf) -> Self {
        ReceiveOptions {
            cluster,
            spool,
            follow: false,
            semi_sync: false,
            from: From::Oldest,
            accept_gap: false,
            segment_bytes: 16 << 20,
            store_every: Duration::from_secs(10),
            sync_every: Duration::from_secs(1),
            spool_limit: 64 << 30,
            server_id: None,
        }
    }
}

/// What a receiver did.
#[derive(Debug, Clone, Default)]
pub struct Received {
    /// Segments that were archived.
    pub segments: u64,
    /// Their bytes, as the server has them.
    pub bytes: u64,
    /// What they take in the store.
    pub stored: u64,
    /// Transactions in them.
    pub transactions: u64,
    /// Up to where the last server's binlogs are archived.
    pub position: Position,
    /// Bytes that still wait in the spool.
    pub waiting: u64,
    /// What may be lost with the source; `None` where nobody waits for what it will write.
    pub rpo: Option<Rpo>,
    /// What needs a look.
    pub warnings: Vec<String>,
}

/// The longest pause between attempts.
const PAUSE: Duration = Duration::from_secs(30);
/// How often we try without getting anything, where we do not wait for the server for ever.
const ATTEMPTS: u32 = 5;
/// A transaction that is so much longer than a segment is cut.
const LONG_TRANSACTION: u64 = 4;
/// How often we ask the server whether commits wait for us.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// As how many bytes a sign of life counts.
const SIGN_OF_LIFE: u64 = 64 << 10;
/// How many bytes are taken between two looks at the clock.
const BURST: u64 = 1 << 20;

/// Archives the binlogs of `source`: from where the archive ends, to where they end now or, with
/// [`ReceiveOptions::follow`], until `cx` is cancelled.
///
/// # Errors
/// [`ErrorKind::Source`] when the server has purged what is not archived, or its history began anew;
/// [`ErrorKind::Busy`] when another receiver archives the same server; [`ErrorKind::Space`] when the
/// spool is full; [`ErrorKind::Connect`] when the server cannot be reached or refuses to sign us in,
/// with `follow` only before it was reached once; without `follow` also what the store fails with.
pub async fn receive(
    cx: &Context,
    source: &ConnectOptions,
    store: Arc<dyn SegmentStore>,
    options: ReceiveOptions,
) -> Result<Received> {
    let spool = Spool::open(&options.spool, &options.cluster)?;
    let dump = DumpOptions {
        // Servers choose small ones.
        server_id: options
            .server_id
            .unwrap_or_else(|| 1 << 30 | u32::from_le_bytes(cx.random()) >> 2),
        uuid: Uuid::from_bytes(cx.random()),
        heartbeat: Duration::from_secs(2),
        semi_sync: options.semi_sync,
        follow: options.follow,
    };
    let uploader = Uploader::start(cx, Arc::clone(&store), options.follow);
    let mut receiver = Receiver {
        cx,
        source,
        options: &options,
        dump,
        spool,
        uploader,
        archived: Archive::read(cx, &*store, &options.cluster).await?,
        draft: None,
        connected: false,
        gap: None,
        watch: Watch::new(source),
        lag: Lag::default(),
        result: Received::default(),
    };
    let outcome = match receiver.recover().await {
        Ok(()) => receiver.run().await,
        Err(e) => Err(e),
    };
    let stopped = receiver.uploader.has_stopped();
    let finished = receiver.finish(outcome.is_ok()).await;
    // That nothing can be stored any more says less than why.
    if !stopped || finished.is_ok() {
        outcome?;
    }
    finished
}

struct Receiver<'a> {
    cx: &'a Context,
    source: &'a ConnectOptions,
    options: &'a ReceiveOptions,
    dump: DumpOptions,
    spool: Spool,
    uploader: Uploader,
    archived: Archive,
    draft: Option<(Draft, Instant)>,
    /// The server sent its binlog to us once. Before, nobody knows whether it ever will.
    connected: bool,
    /// What is missing before the next segment, with the user's consent.
    gap: Option<String>,
    watch: Watch,
    lag: Lag,
    result: Received,
}

/// How long transactions took from their commit until they were safe here.
#[derive(Debug, Default)]
struct Lag {
    /// We have what the server had; before, the age of what comes says nothing.
    caught_up: bool,
    /// When the oldest one was committed that is not safe yet.
    oldest: Option<Timestamp>,
    longest: Option<f64>,
}

impl Lag {
    fn comes(&mut self, committed: Timestamp) {
        if self.caught_up {
            self.oldest.get_or_insert(committed);
        }
    }

    fn is_safe(&mut self, now: Timestamp) {
        if let Some(oldest) = self.oldest.take() {
            // Two clocks; none of them is asked to be right.
            let took = now.duration_since(oldest).as_secs_f64().max(0.0);
            self.longest = Some(self.longest.map_or(took, |longest| longest.max(took)));
        }
    }
}

impl Receiver<'_> {
    /// Takes up what an earlier receiver left in the spool.
    async fn recover(&mut self) -> Result<()> {
        let mut left = self.spool.waiting()?.into_iter().peekable();
        while let Some(waiting) = left.next() {
            // A long transaction goes on in the next one: there is nothing to cut off.
            let upto = match left.peek() {
                Some(next) if next.continues(&waiting)? => Upto::End,
                _ => Upto::LastTransaction,
            };
            let Some(info) = self.look_through(&waiting, upto)? else { continue };
            match self.archived.leftover(&info) {
                Ok(Leftover::Next) => self.take_up(waiting, info)?,
                Ok(Leftover::Archived) => {
                    let text =
                        format!("{} waited in the spool, and is archived already", info.range);
                    self.cx.note(text);
                    waiting.remove()?;
                }
                Ok(Leftover::Rest(head)) => {
                    let text = format!("others archived {} in part; the rest follows", info.range);
                    self.cx.note(text);
                    let waiting = waiting.rest(*head);
                    if let Some(info) = self.look_through(&waiting, upto)? {
                        self.take_up(waiting, info)?;
                    }
                }
                Err(e) => {
                    return Err(e.with_remedy(format!(
                        "move {}.* to a safe place, then start again; where a gap was accepted, take a \
                         full backup",
                        waiting.stem().display()
                    )));
                }
            }
        }
        Ok(())
    }

    /// What can be used of a segment in the spool; the rest is removed.
    fn look_through(&self, waiting: &Waiting, upto: Upto) -> Result<Option<SegmentInfo>> {
        let content = waiting.content()?;
        let now = self.cx.now();
        let found = examine(&waiting.head, &content, upto, sha256, now)
            .map_err(|e| e.context("the spool is damaged"))?;
        match &found {
            None => waiting.remove()?,
            Some(info) if info.bytes() < content.len() as u64 => waiting.truncate(info.bytes())?,
            Some(_) => {}
        }
        Ok(found)
    }

    fn take_up(&mut self, waiting: Waiting, info: SegmentInfo) -> Result<()> {
        let len = info.bytes();
        self.archived.add(info);
        self.uploader.push(waiting, len)
    }

    /// Connects, reads, and connects again.
    async fn run(&mut self) -> Result<()> {
        let mut failures = 0_u32;
        loop {
            let before = self.result.position.clone();
            let error = match self.attempt().await {
                Ok(()) if self.connected => return Ok(()),
                Ok(()) => return Err(Error::interrupted()),
                Err(e) => e,
            };
            self.close_draft().await?;
            if self.cx.cancellation().is_cancelled() {
                return if self.connected { Ok(()) } else { Err(error) };
            }
            failures = if self.result.position == before { failures + 1 } else { 1 };
            let passing = matches!(error.kind(), ErrorKind::Connect | ErrorKind::Damaged);
            // What arrives damaged may be a matter of the line; the server's file may be it too.
            let hopeless = error.kind() == ErrorKind::Damaged && failures >= ATTEMPTS;
            let patient = self.options.follow && self.connected;
            let enough = !patient && (failures >= ATTEMPTS || is_refused(&error));
            if !passing || hopeless || enough {
                return Err(error);
            }
            let pause = PAUSE.min(Duration::from_millis(250) * (1 << failures.min(10)));
            self.cx.event(Told::Warning {
                text: format!("{}; trying again in {pause:?}", error.chain()),
            });
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.cx.cancellation().cancelled() => {
                    return if self.connected { Ok(()) } else { Err(error) };
                }
            }
        }
    }

    async fn attempt(&mut self) -> Result<()> {
        let cancelled = self.cx.cancellation().clone();
        let (source, mut dump) = tokio::select! {
            begun = self.begin() => begun?,
            () = cancelled.cancelled() => return Ok(()),
        };
        let ended = self.read(&source, &mut dump).await;
        self.close_draft().await?;
        ended
    }

    /// Finds where to go on, and asks for it.
    async fn begin(&mut self) -> Result<(BinlogSource, Dump)> {
        let mut session = Session::open(self.source).await?;
        let source = BinlogSource::of(&mut session).await?;
        // The server may be gone again; the dump will tell.
        let _ = session.close().await;
        let archived = self.archived.of(&source)?;
        let (start, warnings) = locate(
            self.source,
            &self.dump,
            &source,
            &archived,
            &self.options.from,
            self.options.accept_gap,
        )
        .await?;
        for text in warnings {
            if !self.result.warnings.contains(&text) {
                self.cx.event(Told::Warning { text: text.clone() });
                self.result.warnings.push(text);
            }
        }
        let dump = match start {
            Start::Resume(tip) => {
                let tracker = Tracker::resume(
                    format_of(&tip.format_description)?,
                    tip.range.end,
                    tip.after.clone(),
                    tip.state_after.clone(),
                    tip.ends_inside,
                );
                self.cx.note(format!("going on with {} at {}", tip.range.file, tip.range.end));
                Dump::resume(self.source, &tip.range.file, tracker, &self.dump).await?
            }
            Start::File { name, gap } => {
                self.cx.note(format!("beginning with {name}"));
                self.gap = gap;
                Dump::begin(self.source, &name, &self.dump).await?
            }
        };
        if self.dump.semi_sync && !dump.is_semi_sync() {
            let text =
                "semi-sync was asked for, and the server has it off: its commits do not wait";
            if !self.result.warnings.iter().any(|known| known == text) {
                self.cx.event(Told::Warning { text: text.into() });
                self.result.warnings.push(text.into());
            }
        }
        self.connected = true;
        Ok((source, dump))
    }

    /// Reads until the dump ends.
    async fn read(&mut self, source: &BinlogSource, dump: &mut Dump) -> Result<()> {
        // Whether this file has to say that nothing is missing before it.
        let mut first = true;
        let mut wants_ack = false;
        let mut taken = 0;
        let mut tick = tokio::time::interval(self.options.sync_every);
        self.watch.begin();
        self.lag.caught_up = false;
        self.lag.oldest = None;
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
                            if self.options.follow
                                && looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY)
                            {
                                self.look(dump.is_semi_sync()).await;
                                looked = Some(Instant::now());
                            }
                            continue;
                        }
                        () = self.cx.cancellation().cancelled() => return Ok(()),
                    }
                }
            };
            match sent {
                Sent::Heartbeat => {
                    self.lag.caught_up = true;
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
                        seq: self.next_seq(source),
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
                        self.lag.comes(begin.time);
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

    /// The segment that an event of `len` bytes goes to, which `dump` has just given.
    fn draft(&mut self, source: &BinlogSource, dump: &Dump, len: u64) -> Result<&mut Draft> {
        if self.draft.is_none() {
            let lost = || Error::internal("a segment was closed before it was begun");
            let tracker = dump.tracker().ok_or_else(lost)?;
            let tip = self.archived.tips.iter().find(|tip| tip.server == source.server);
            let tip = tip.ok_or_else(lost)?;
            let head = Head {
                cluster: self.options.cluster.clone(),
                server: source.server.clone(),
                seq: self.next_seq(source),
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

    fn next_seq(&self, source: &BinlogSource) -> u64 {
        let tip = self.archived.tips.iter().find(|tip| tip.server == source.server);
        tip.map_or(1, |tip| tip.seq + 1)
    }

    /// The first file of a connection says which transactions came before it: all of them have to be
    /// archived, unless a gap was accepted, or this is where the archive begins.
    fn check_joined(
        &self,
        source: &BinlogSource,
        file: &str,
        before: &GtidSet,
        state: Option<&MariaDbBinlogState>,
    ) -> Result<()> {
        let archived = self.archived.of(source)?;
        if let Some(tip) = &archived.tip
            && source.has_gtids
            && !archived.went_on_elsewhere
        {
            check_kept(source, tip, file, before, state)?;
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
        Err(Error::new(
            ErrorKind::Source,
            format!(
                "transactions are missing between the archive and the server's binlog: {missing}"
            ),
        )
        .with_remedy("take a full backup now, then go on with --accept-gap"))
    }

    async fn sync(&mut self) -> Result<()> {
        if let Some((draft, _)) = &mut self.draft {
            draft.sync().await?;
        }
        self.lag.is_safe(self.cx.now());
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
        let seconds = if why.is_none() { Some(0.0) } else { self.lag.longest };
        self.result.rpo = Some(Rpo { seconds, why: why.unwrap_or_default(), as_of: self.cx.now() });
    }

    /// Closes the segment when it has waited long enough.
    async fn roll(&mut self, dump: &Dump) -> Result<()> {
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

    async fn roll_if_full(&mut self, dump: &Dump) -> Result<()> {
        let Some((draft, _)) = &self.draft else { return Ok(()) };
        let inside = dump.tracker().is_some_and(Tracker::is_inside);
        let limit = self.options.segment_bytes;
        let full = draft.len >= if inside { limit.saturating_mul(LONG_TRANSACTION) } else { limit };
        if full { self.close_draft_at(inside).await } else { Ok(()) }
    }

    /// Closes the segment that is being received, at the end of its last whole transaction.
    async fn close_draft(&mut self) -> Result<()> {
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
        self.result.position = Position {
            gtid: Some(info.after.clone()).filter(|set| !set.is_empty()),
            file: Some(info.range.file.clone()),
            offset: Some(info.range.end),
        };
        let len = info.bytes();
        self.archived.add(info);
        self.uploader.push(waiting, len)
    }

    /// Waits for the store.
    async fn finish(mut self, patient: bool) -> Result<Received> {
        let closed = self.close_draft().await;
        let done = self.uploader.finish(patient).await;
        let mut result = self.result;
        let (counts, error) = done;
        result.segments = counts.segments;
        result.bytes = counts.bytes;
        result.stored = counts.stored;
        result.transactions = counts.transactions;
        result.waiting = counts.waiting;
        match error {
            None => closed.map(|()| result),
            Some(e) => Err(e),
        }
    }
}
