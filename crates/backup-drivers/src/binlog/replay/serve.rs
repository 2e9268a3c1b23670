//! The source that a target replicates from.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backup_core::{
    Context, Error, ErrorKind, Flavor, Gtid, GtidSet, Result, SegmentStore, io_error,
};
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite, BufWriter};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tokio_rustls::{TlsAcceptor, rustls};

use super::super::body::{Query, Rotate};
use super::super::event::{ARTIFICIAL, Checksum, Event, Header, kind};
use super::super::gtid::{Begin, begins};
use super::super::route::Route;
use super::events::{self, Heard};
use super::groups::{Amount, From, Groups, Step};
use super::packet::{Answers, Requests};
use super::replica::Replica;
use super::session::{DumpRequest, Identity, wants_tls};
use super::stall;

/// A place in what is sent: when the target has this transaction, it has so much more than at the
/// place before.
#[derive(Debug)]
struct Milestone {
    /// `None` where there are no GTIDs: what is sent counts as applied then.
    gtid: Option<Gtid>,
    time: Timestamp,
    amount: Amount,
}

/// How many bytes lie between two milestones.
const MILE: u64 = 256 << 10;

/// What the server has told and been told.
#[derive(Debug, Default)]
pub(super) struct State {
    sent: AtomicU64,
    /// The target has everything.
    pub(super) complete: AtomicBool,
    /// What was said of scheduled events.
    heard: Heard,
    /// A sequence comes, which is not sent to a target that is not careful.
    sequence_comes: AtomicBool,
    /// The target may be sent sequences.
    careful: AtomicBool,
    /// The target has asked for events.
    reached: AtomicBool,
    /// What was sent on the newest connection, and is not known to be applied.
    ahead: Mutex<VecDeque<Milestone>>,
    /// What was applied, or passed over, since the newest connection began: the next one passes it over again.
    behind: Mutex<Amount>,
    /// Why the archive cannot be served.
    failed: Mutex<Option<Error>>,
}

impl State {
    /// `careful`: the target applies at once only what was committed at once at its source, or is no MariaDB.
    pub(super) fn new(heard: Heard, careful: bool) -> Self {
        State { heard, careful: careful.into(), ..State::default() }
    }

    /// Whether sending waits until the target is careful.
    pub(super) fn waits_for_care(&self) -> bool {
        self.sequence_comes.load(Ordering::Acquire) && !self.careful.load(Ordering::Acquire)
    }

    /// The target is careful from now on.
    pub(super) fn is_careful(&self) {
        self.careful.store(true, Ordering::Release);
    }

    /// Whether the target has connected and asked for events.
    pub(super) fn is_reached(&self) -> bool {
        self.reached.load(Ordering::Acquire)
    }

    /// Bytes of events that were sent, over all connections.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn ahead(&self) -> std::sync::MutexGuard<'_, VecDeque<Milestone>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts what a target that has `executed` has applied since it was asked last.
    pub(super) fn count(&self, cx: &Context, executed: &GtidSet) {
        let mut ahead = self.ahead();
        while let Some(next) = ahead.front() {
            let there = next.gtid.as_ref().is_none_or(|g| executed.contains(g).unwrap_or(false));
            if !there {
                return;
            }
            cx.progress().add_bytes(next.amount.bytes);
            cx.progress().add_transactions(next.amount.transactions, next.time);
            self.behind().add(next.amount);
            ahead.pop_front();
        }
    }

    fn behind(&self) -> std::sync::MutexGuard<'_, Amount> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection begins, which reads the route from its beginning.
    fn begins_again(&self, cx: &Context) {
        self.ahead().clear();
        let behind = std::mem::take(&mut *self.behind());
        cx.progress().expect_bytes(behind.bytes);
        cx.progress().expect_transactions(behind.transactions);
    }

    /// What is passed over is nothing to wait for.
    fn passes(&self, cx: &Context, passed: Amount) {
        cx.progress().expect_less(passed.bytes, passed.transactions);
        self.behind().add(passed);
    }

    /// Why the archive cannot be served, once.
    pub(super) fn take_failure(&self) -> Option<Error> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A port on which the route is served.
pub(super) struct Server {
    /// What the target needs to know to replicate from here.
    pub(super) replica: Replica,
    pub(super) state: Arc<State>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Shared {
    cx: Context,
    store: Arc<dyn SegmentStore>,
    route: Arc<Route>,
    identity: Identity,
    tls: Option<TlsAcceptor>,
    state: Arc<State>,
}

impl Server {
    /// Listens on a free port of `host`.
    pub(super) async fn start(
        cx: &Context,
        host: std::net::IpAddr,
        store: Arc<dyn SegmentStore>,
        route: Arc<Route>,
        identity: Identity,
        state: State,
    ) -> Result<Server> {
        let failed = |e| io_error(e, ErrorKind::Target, format!("cannot listen on {host}"));
        let listener = TcpListener::bind((host, 0)).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let (user, password) = (identity.user.clone(), identity.password.clone());
        let replica = Replica { address, user, password, tls: identity.tls };
        let state = Arc::new(state);
        let tls = if identity.tls { Some(acceptor(host)?) } else { None };
        let state_of = Arc::clone(&state);
        let shared = Shared { cx: cx.clone(), store, route, identity, tls, state: state_of };
        let task = tokio::spawn(accept(listener, Arc::new(shared)));
        Ok(Server { replica, state, task })
    }
}

/// Takes TLS connections, with a certificate of this moment. The target cannot verify it, which would
/// need a file there: nobody listens, and who would stand between has no password that is of use
/// anywhere else.
fn acceptor(host: std::net::IpAddr) -> Result<TlsAcceptor> {
    let failed = |e: &dyn std::fmt::Display| {
        Error::internal(format!("cannot make a certificate for the replay: {e}"))
    };
    let made = rcgen::generate_simple_self_signed([host.to_string()]).map_err(|e| failed(&e))?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(&e))?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .map_err(|e| failed(&e))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The target connects again whenever it likes; a new connection ends the old one.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    let mut current: Option<tokio::task::AbortHandle> = None;
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // A replica asks with a second connection while it streams over the first; only one that
        // streams ends the other.
        let shared = Arc::clone(&shared);
        let (began, begins) = tokio::sync::oneshot::channel();
        let handle = connections.spawn(async move {
            if let Err(e) = connection(stream, &shared, began).await {
                shared.cx.note(format!("the target's connection to the replay server ended: {e}"));
            }
        });
        tokio::select! {
            started = begins => {
                if started.is_ok()
                    && let Some(old) = current.replace(handle)
                {
                    old.abort();
                }
            }
            () = tokio::time::sleep(Duration::from_secs(5)) => {}
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(
    mut stream: TcpStream,
    shared: &Shared,
    began: tokio::sync::oneshot::Sender<()>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut nonce: [u8; 20] = shared.cx.random();
    for byte in &mut nonce {
        // Neither NUL, which ends it, nor '$', which some plugins take for a separator.
        *byte = match *byte & 0x7f {
            0 | b'$' => b'x',
            other => other,
        };
    }
    let (read, write) = stream.split();
    let (mut requests, mut answers) = (Requests::new(read), Answers::new(write));
    answers.send(&shared.identity.greeting(&nonce)).await?;
    let login = requests.read().await?;
    let seq = requests.seq;
    answers.seq = seq.wrapping_add(1);
    match &shared.tls {
        None => {
            let (read, write) = stream.into_split();
            replica(shared, read, write, seq, login, &nonce, began).await
        }
        Some(tls) if wants_tls(&login) => {
            let (read, write) = tokio::io::split(tls.accept(stream).await?);
            let mut requests = Requests::new(read);
            let login = requests.read().await?;
            let seq = requests.seq;
            replica(shared, requests.into_inner(), write, seq, login, &nonce, began).await
        }
        Some(_) => answers.error(3159, "HY000", "Connections have to be encrypted").await,
    }
}

/// A connection of a replica that has sent its login.
async fn replica<R, W>(
    shared: &Shared,
    read: R,
    write: W,
    seq: u8,
    login: Vec<u8>,
    nonce: &[u8; 20],
    began: tokio::sync::oneshot::Sender<()>,
) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut requests = Requests::new(read);
    let mut answers = Answers::new(BufWriter::with_capacity(256 << 10, write));
    answers.seq = seq.wrapping_add(1);
    if !shared.identity.sign_in(nonce, &login, &mut requests, &mut answers).await? {
        return Ok(());
    }
    let Some(dump) = shared.identity.negotiate(&mut requests, &mut answers).await? else {
        return Ok(());
    };
    let _ = began.send(());
    shared.state.reached.store(true, Ordering::Release);
    let mut stream = EventStream {
        shared,
        answers,
        heartbeat: Duration::from_nanos(dump.heartbeat),
        v2: dump.heartbeat_v2 && shared.identity.flavor == Flavor::MySql,
        checksum: shared.identity.checksum,
        at: None,
    };
    let streaming = async {
        if let Err(e) = stream.run(dump).await {
            let Failure::Archive(error) = e else { return };
            let text = error.report();
            let end = (0..=text.len().min(400)).rev().find(|&at| text.is_char_boundary(at));
            let shown = &text[..end.unwrap_or(0)];
            let _ = stream.answers.error(1236, "HY000", shown).await;
            let mut failed = shared.state.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.get_or_insert(error);
        }
    };
    // What a replica says while it streams means nothing to us; that it goes does.
    let leaving = async { while requests.read().await.is_ok() {} };
    tokio::select! {
        () = streaming => {}
        () = leaving => {}
    }
    Ok(())
}

enum Failure {
    Line,
    Archive(Error),
}

impl std::convert::From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Failure::Line
    }
}

impl std::convert::From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Archive(error)
    }
}

struct EventStream<'a, W> {
    shared: &'a Shared,
    answers: Answers<W>,
    heartbeat: Duration,
    v2: bool,
    /// Of events that we make up.
    checksum: Checksum,
    /// Where the replica thinks it is: name and position.
    at: Option<(String, u64)>,
}

/// How much is sent between two looks at whether anything else is to be done.
const FLUSH: u64 = 1 << 20;

impl<W: AsyncWrite + Unpin> EventStream<'_, W> {
    async fn run(&mut self, dump: DumpRequest) -> Result<(), Failure> {
        let route = Arc::clone(&self.shared.route);
        let from = match dump.have {
            Some(have) => From::Lacking(have),
            None => {
                let file = route.files.iter().position(|file| file.name == dump.file);
                let file = file.ok_or_else(|| {
                    Error::internal(format!(
                        "the target asks for {}, which is not there",
                        dump.file
                    ))
                })?;
                self.at = Some((dump.file, dump.position));
                From::Position { file, position: dump.position }
            }
        };
        let mut groups =
            Groups::new(&self.shared.cx, Arc::clone(&self.shared.store), Arc::clone(&route), from);
        let mut between = true;
        let mut unflushed = 0;
        self.shared.state.begins_again(&self.shared.cx);
        let mut next =
            Milestone { gtid: None, time: Timestamp::UNIX_EPOCH, amount: Amount::default() };
        let mut looked_at = None;
        loop {
            let step = if let Some(step) = looked_at.take() {
                step
            } else {
                let next = groups.next();
                tokio::pin!(next);
                loop {
                    // Signs of life while the archive is slow; only between transactions.
                    tokio::select! {
                        biased;
                        step = &mut next => break step?,
                        () = pause(self.heartbeat), if between => self.beat().await?,
                    }
                }
            };
            self.shared.state.passes(&self.shared.cx, groups.take_passed());
            match step {
                Step::Seek { file, position } => {
                    let file = &route.files[file];
                    self.rotate(&file.name, position).await?;
                    let format = file.format.to_send(true);
                    self.checksum = file.format.checksum;
                    self.send(&format).await?;
                }
                Step::Event { event, last, place } => {
                    if self.shared.identity.flavor == Flavor::MariaDb && begins(event.kind()) {
                        let following = groups.next().await?;
                        if stall::makes_a_sequence(&following) {
                            self.wait_for_care().await?;
                        }
                        looked_at = Some(following);
                    }
                    self.hear(place, next.gtid.as_ref(), &event);
                    let len = event.bytes().len() as u64;
                    if let Some((_, position)) = &mut self.at {
                        *position += len;
                    }
                    self.send(&event).await?;
                    self.shared.state.sent.fetch_add(len, Ordering::Relaxed);
                    if let Some(begin) = Begin::parse(&event)? {
                        (next.gtid, next.time) = (begin.gtid, begin.time);
                        next.amount.transactions += 1;
                    }
                    next.amount.bytes += len;
                    if last && next.amount.bytes >= MILE {
                        let fresh = Milestone { gtid: None, amount: Amount::default(), ..next };
                        self.shared.state.ahead().push_back(std::mem::replace(&mut next, fresh));
                    }
                    unflushed += len;
                    if unflushed > FLUSH {
                        self.answers.flush().await?;
                        unflushed = 0;
                    }
                    between = last;
                }
                Step::End => break,
            }
        }
        self.answers.flush().await?;
        self.shared.state.ahead().push_back(next);
        self.shared.state.complete.store(true, Ordering::Release);
        // The replica stays until it is told to stop.
        loop {
            pause(self.heartbeat).await;
            self.beat().await?;
        }
    }

    /// Sends nothing more before the target may be sent a sequence. It connects again then, and asks for this once
    /// more.
    async fn wait_for_care(&mut self) -> io::Result<()> {
        self.shared.state.sequence_comes.store(true, Ordering::Release);
        self.answers.flush().await?;
        while self.shared.state.waits_for_care() {
            tokio::select! {
                () = pause(self.heartbeat) => self.beat().await?,
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
        Ok(())
    }

    /// Remembers what the target makes of its own.
    fn hear(&self, place: (usize, u64), gtid: Option<&Gtid>, event: &Event) {
        // It was read before, or it would not be sent.
        if let Ok(Some(query)) = Query::parse(event) {
            events::lock(&self.shared.state.heard).hear(place, gtid, &query.database, &query.sql);
        }
    }

    async fn send(&mut self, event: &Event) -> io::Result<()> {
        self.answers.write(&[&[0], event.bytes()]).await
    }

    /// An event that is in no file.
    fn made_up(&self, event_kind: u8, end: u64, flags: u16, body: &[u8]) -> Event {
        let header = Header {
            time: 0,
            kind: event_kind,
            server_id: self.shared.identity.server_id,
            len: 0,
            end: end as u32,
            flags,
        };
        Event::build(header, body, self.checksum)
    }

    async fn rotate(&mut self, file: &str, position: u64) -> io::Result<()> {
        let body = Rotate { position, file: file.to_owned() }.body();
        let event = self.made_up(kind::ROTATE, 0, ARTIFICIAL, &body);
        self.at = Some((file.to_owned(), position));
        self.send(&event).await
    }

    /// A sign of life.
    async fn beat(&mut self) -> io::Result<()> {
        let Some((file, position)) = self.at.clone() else { return Ok(()) };
        let event = if self.v2 {
            let mut body = vec![1, file.len() as u8];
            body.extend(file.bytes());
            body.extend([2, 9, 0xfe]);
            body.extend(position.to_le_bytes());
            body.push(0);
            self.made_up(kind::HEARTBEAT_V2, position, 0, &body)
        } else {
            self.made_up(kind::HEARTBEAT, position, 0, file.as_bytes())
        };
        self.send(&event).await?;
        self.answers.flush().await
    }
}

async fn pause(period: Duration) {
    match period.is_zero() {
        true => std::future::pending().await,
        false => tokio::time::sleep(period).await,
    }
}
