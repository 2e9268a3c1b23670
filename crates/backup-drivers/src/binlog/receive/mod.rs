//! The receiver: what a server writes into its binlogs goes to the spool, and from there to the
//! archive.

mod claims;
mod drafts;
mod intake;
mod lag;
mod leftovers;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backup_core::{
    BinlogServer, ClusterName, Context, Error, ErrorKind, Event as Told, Position, ReplayBase,
    Result, SegmentStore,
};

use self::claims::Claims;
use self::lag::Lag;
use super::dump::{Dump, DumpOptions};
use super::kin::check_source;
use super::segment::format_of;
use super::semisync::{Rpo, Watch};
use super::source::{Archived, BinlogSource, From, Start, locate};
use super::spool::{Draft, Spool};
use super::tips::Archive;
use super::track::Tracker;
use super::upload::Uploader;
use crate::connect::{ConnectOptions, Session, is_refused};
use crate::logged;
use crate::logical::inventory;

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
    /// The backups of the cluster, oldest first: which servers they were read from, and where those stood.
    pub backups: Vec<ReplayBase>,
    /// Take the server for one of the cluster's, whatever it says itself.
    pub anyway: bool,
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
            backups: Vec::new(),
            anyway: false,
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
    /// Segments that were damaged in the archive, and are whole again.
    pub put_right: u64,
    /// Transactions in them.
    pub transactions: u64,
    /// Up to where the last server's binlogs are archived.
    pub position: Position,
    /// Whether nothing of the cluster was archived before.
    pub new_archive: bool,
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

/// Archives the binlogs of `source`: from where the archive ends, to where they end now or, with
/// [`ReceiveOptions::follow`], until `cx` is cancelled.
///
/// # Errors
/// [`ErrorKind::Usage`] when nothing tells that the server is one of the cluster's;
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
    let spool = Spool::open(&options.spool, &options.cluster, cx.now())?;
    let mut claims = Claims::new(cx, Arc::clone(&store), &options.cluster);
    let received = receive_into(cx, source, store, &options, spool, &mut claims).await;
    claims.release().await;
    received
}

async fn receive_into(
    cx: &Context,
    source: &ConnectOptions,
    store: Arc<dyn SegmentStore>,
    options: &ReceiveOptions,
    spool: Spool,
    claims: &mut Claims<'_>,
) -> Result<Received> {
    let left = spool.waiting()?;
    for waiting in &left {
        claims.take(&waiting.head.server).await?;
    }
    let once = DumpOptions::once(cx);
    let dump = DumpOptions {
        server_id: options.server_id.unwrap_or(once.server_id),
        semi_sync: options.semi_sync,
        follow: options.follow,
        ..once
    };
    let uploader = Uploader::start(cx, Arc::clone(&store), options.follow);
    let archived = Archive::read(cx, &*store, &options.cluster).await?;
    let new_archive = archived.tips.is_empty() && left.is_empty();
    let mut receiver = Receiver {
        cx,
        source,
        store,
        options,
        dump,
        spool,
        claims,
        uploader,
        archived,
        draft: None,
        connected: false,
        gap: None,
        watch: Watch::new(source),
        lag: Lag::default(),
        result: Received { new_archive, ..Received::default() },
    };
    let outcome = match receiver.take_up(left) {
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

struct Receiver<'a, 'b> {
    cx: &'a Context,
    source: &'a ConnectOptions,
    store: Arc<dyn SegmentStore>,
    options: &'a ReceiveOptions,
    dump: DumpOptions,
    spool: Spool,
    claims: &'a mut Claims<'b>,
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

impl Receiver<'_, '_> {
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
            self.is_away();
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
                    self.is_away();
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
        if !self.options.anyway {
            let (address, options) = (self.source.to_string(), self.options);
            let (archived, backups) = (&self.archived, &options.backups);
            let cluster = &options.cluster;
            check_source(&mut session, &address, &source, archived, backups, cluster).await?;
        }
        self.look_at_log(&mut session).await?;
        // The server may be gone again; the dump will tell.
        let _ = session.close().await;
        self.claim(&source.server).await?;
        let archived = self.archived.seen_from(&source)?;
        let (start, warnings) = locate(
            self.source,
            &self.dump,
            &source,
            &archived,
            &self.options.from,
            self.options.accept_gap,
        )
        .await?;
        for text in warnings.into_iter().chain(self.stands_alone(&source, &archived)) {
            self.warn(text);
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
            self.warn(text.into());
        }
        self.connected = true;
        Ok((source, dump))
    }

    /// Tells something that needs a look, once.
    fn warn(&mut self, text: String) {
        if !self.result.warnings.contains(&text) {
            self.cx.event(Told::Warning { text: text.clone() });
            self.result.warnings.push(text);
        }
    }

    /// Refuses binlogs that lack what the server gets from others at this moment, and tells of databases that they leave
    /// out: nothing in them says so later.
    async fn look_at_log(&mut self, session: &mut Session) -> Result<()> {
        let facts = inventory::server(session.conn()).await?;
        if let Some(what) = logged::unlogged(session, &facts).await? {
            let text = format!("{what}: no point in time of this archive would have it");
            if !self.options.accept_gap {
                let remedy = format!(
                    "{}; --accept-gap archives what it writes itself all the same",
                    logged::UNLOGGED
                );
                return Err(Error::new(ErrorKind::Source, text).with_remedy(remedy));
            }
            self.warn(text);
        }
        if let Some(what) = logged::filters(session, &facts).await? {
            self.warn(format!("{what}: no point in time of this archive has what changes there"));
        }
        Ok(())
    }

    /// What has to be known of a server that comes into the archive, and whose binlogs lack what it got from
    /// the others: only a backup of its own leads on into them.
    fn stands_alone(&self, source: &BinlogSource, archived: &Archived) -> Option<String> {
        let own = |backup: &ReplayBase| backup.server.as_ref() == Some(&source.server);
        let is_new = archived.tip.is_none() && archived.covered.is_some();
        let unlogged = source.unlogged();
        let alone = is_new && !unlogged.is_empty() && !self.options.backups.iter().any(own);
        alone.then(|| {
            format!(
                "the binlogs of {} do not hold what it got as a replica or by a restore, up to {} \
                 (log_slave_updates=OFF): no backup of another server leads on into them; take a full backup of it \
                 now",
                source.server,
                unlogged.join(", ")
            )
        })
    }

    /// Sees to it that nobody else archives this server meanwhile.
    async fn claim(&mut self, server: &BinlogServer) -> Result<()> {
        let claimed = match self.claims.take(server).await {
            Ok(true) => self.catch_up_with_others(server).await,
            other => other.map(drop),
        };
        match claimed {
            // What is received waits in the spool while the store is away.
            Err(e) if self.connected && e.kind() != ErrorKind::Busy => {
                self.cx.note(format!(
                    "who else archives the binlogs of {server} is not known: {}",
                    e.chain()
                ));
            }
            Err(e) => return Err(e),
            Ok(()) => self.claims.keep_only(server).await,
        }
        Ok(())
    }

    /// Somebody may have gone on with the archive between our look at it and our claim.
    async fn catch_up_with_others(&mut self, server: &BinlogServer) -> Result<()> {
        let (cx, cluster) = (self.cx, &self.options.cluster);
        let next = self.archived.next_seq(server);
        match self.store.segment(cluster, server, next).await {
            Ok(None) => Ok(()),
            Err(e) if e.kind() != ErrorKind::Damaged => Err(e),
            Ok(Some(_)) | Err(_) => self.archived.refresh(cx, &*self.store, cluster).await,
        }
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
