//! A store that does one call at a time, when the scheduler says so; with a clock of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{Clock, Random};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Random numbers that a seed repeats.
#[derive(Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03)
    }

    pub(crate) fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// True so many times in a thousand.
    pub(crate) fn permille(&mut self, n: usize) -> bool {
        self.below(1000) < n
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        if from.is_empty() { None } else { Some(&from[self.below(from.len())]) }
    }
}

/// [`Dice`] for a context.
pub(crate) struct SeededRandom(pub(crate) Mutex<Dice>);

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        let mut dice = self.0.lock().unwrap();
        bytes.iter_mut().for_each(|b| *b = dice.next() as u8);
    }
}

/// What the scheduler says to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Go,
    /// The work is done, and the answer never comes: the process dies.
    Die,
    /// Nothing is done, and the answer is this error of the system.
    Fail(i32),
    /// The work is done, and the answer is this error of the system.
    LoseAnswer(i32),
}

pub(crate) struct Waiting {
    pub(crate) actor: usize,
    pub(crate) call: String,
    pub(crate) since: Instant,
    answer: oneshot::Sender<Turn>,
}

impl Waiting {
    pub(crate) fn say(self, turn: Turn) {
        let _ = self.answer.send(turn);
    }
}

#[derive(Default)]
pub(crate) struct State {
    /// Everything but the locks.
    pub(crate) objects: BTreeMap<String, Bytes>,
    times: BTreeMap<Path, Timestamp>,
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) dead: BTreeSet<usize>,
    /// Calls are answered at once.
    pub(crate) open: bool,
    /// By how much the store's clock is ahead.
    pub(crate) skew: SignedDuration,
    /// Objects were created or removed since the laws were checked.
    pub(crate) changed: bool,
    /// What was done, for those who look for a mistake.
    pub(crate) trace: Vec<String>,
}

/// What all actors share.
pub(crate) struct World {
    pub(crate) start: Instant,
    inner: InMemory,
    /// A copy of the repository that has every backup that was ever finished. Nothing disturbs it.
    pub(crate) elsewhere: Arc<InMemory>,
    state: Mutex<State>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

pub(crate) fn epoch() -> Timestamp {
    "2026-11-20T10:00:00Z".parse().unwrap()
}

impl World {
    pub(crate) fn new() -> Arc<World> {
        Arc::new(World {
            start: Instant::now(),
            inner: InMemory::new(),
            elsewhere: Arc::default(),
            state: Mutex::new(State { open: true, ..State::default() }),
        })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // A law that was broken spoils nothing for those who look at the trace.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time by nobody's clock.
    pub(crate) fn true_now(&self) -> Timestamp {
        epoch() + SignedDuration::try_from(self.start.elapsed()).unwrap()
    }

    fn store_now(&self) -> Timestamp {
        self.true_now() + self.state().skew
    }

    /// Takes what there is of these directories and objects to the copy.
    pub(crate) async fn carry_off(&self, paths: &[String]) {
        let found: Vec<(String, Bytes)> = {
            let state = self.state();
            let wanted = |path: &String| paths.iter().any(|p| path.starts_with(p));
            let wanted = state.objects.iter().filter(|(path, _)| wanted(path));
            wanted.map(|(path, bytes)| (path.clone(), bytes.clone())).collect()
        };
        for (path, bytes) in found {
            self.elsewhere.put(&Path::from(path), bytes.into()).await.unwrap();
        }
    }

    /// Kills an actor: what it still asks for never happens.
    pub(crate) fn kill(&self, actor: usize) {
        let mut state = self.state();
        state.dead.insert(actor);
        state.waiting.retain(|w| w.actor != actor);
        state.trace.push(format!("{actor} dies"));
    }
}

/// The clock of one machine.
pub(crate) struct MachineClock(pub(crate) Arc<World>, pub(crate) SignedDuration);

impl Clock for MachineClock {
    fn now(&self) -> Timestamp {
        self.0.true_now() + self.1
    }
}

/// The store as one actor sees it.
#[derive(Debug, Clone)]
pub(crate) struct View {
    world: Arc<World>,
    actor: usize,
    /// Locks of its own: then every lease is free for everybody, and prunes run side by side.
    locks: Option<Arc<InMemory>>,
}

impl View {
    pub(crate) fn new(world: &Arc<World>, actor: usize, own_locks: bool) -> Arc<Self> {
        let locks = own_locks.then(Arc::default);
        Arc::new(View { world: Arc::clone(world), actor, locks })
    }

    fn inner(&self, path: &Path) -> &InMemory {
        match &self.locks {
            Some(locks) if path.as_ref().starts_with("locks") => locks,
            _ => &self.world.inner,
        }
    }

    async fn call<T>(&self, call: String, work: impl Future<Output = Result<T>>) -> Result<T> {
        let answer = {
            let mut state = self.world.state();
            if state.open && !state.dead.contains(&self.actor) {
                None
            } else {
                let (answer, turn) = oneshot::channel();
                let since = Instant::now();
                if !state.dead.contains(&self.actor) {
                    state.waiting.push(Waiting {
                        actor: self.actor,
                        call: call.clone(),
                        since,
                        answer,
                    });
                }
                Some(turn)
            }
        };
        let turn = match answer {
            None => Turn::Go,
            Some(turn) => match turn.await {
                Ok(turn) => turn,
                Err(_) => std::future::pending().await,
            },
        };
        let failure = |errno| object_store::Error::Generic {
            store: "simulation",
            source: Box::new(std::io::Error::from_raw_os_error(errno)),
        };
        {
            let time = self.world.true_now();
            let mut state = self.world.state();
            state.trace.push(format!("{time} {} {call} {turn:?}", self.actor));
        }
        match turn {
            Turn::Go => work.await,
            Turn::Fail(errno) => Err(failure(errno)),
            Turn::LoseAnswer(errno) => {
                let _ = work.await;
                Err(failure(errno))
            }
            Turn::Die => {
                let _ = work.await;
                self.world.kill(self.actor);
                std::future::pending().await
            }
        }
    }

    fn put_done(&self, at: &Path, bytes: Bytes) {
        let now = self.world.store_now();
        let mut state = self.world.state();
        state.times.insert(at.clone(), now);
        if !at.as_ref().starts_with("locks") {
            state.objects.insert(at.to_string(), bytes);
            state.changed = true;
        }
    }

    fn stamp(&self, meta: &mut ObjectMeta) {
        let time = self.world.state().times.get(&meta.location).copied().unwrap_or_default();
        meta.last_modified =
            DateTime::<Utc>::from_timestamp(time.as_second(), time.subsec_nanosecond() as u32)
                .unwrap();
    }
}

impl fmt::Display for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulation")
    }
}

#[async_trait]
impl ObjectStore for View {
    async fn put_opts(
        &self,
        at: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        assert_eq!(opts.mode, PutMode::Create, "{at} could be overwritten");
        let bytes = Bytes::from(payload.iter().flat_map(|b| b.to_vec()).collect::<Vec<u8>>());
        self.call(format!("put {at}"), async {
            let done = self.inner(at).put_opts(at, payload, opts).await?;
            self.put_done(at, bytes);
            Ok(done)
        })
        .await
    }
    async fn put_multipart_opts(
        &self,
        at: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        panic!("{at} could be overwritten")
    }
    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.call(format!("get {at}"), async {
            let mut found = self.inner(at).get_opts(at, options).await?;
            self.stamp(&mut found.meta);
            Ok(found)
        })
        .await
    }
    async fn get_ranges(&self, at: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.call(format!("get {at}"), self.inner(at).get_ranges(at, ranges)).await
    }
    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let view = self.clone();
        at.and_then(move |path| {
            let view = view.clone();
            async move {
                view.call(format!("delete {path}"), async {
                    view.inner(&path)
                        .delete_stream(stream::iter([Ok(path.clone())]).boxed())
                        .try_collect::<Vec<_>>()
                        .await?;
                    let mut state = view.world.state();
                    if state.objects.remove(path.as_ref()).is_some() {
                        state.changed = true;
                    }
                    Ok(())
                })
                .await?;
                Ok(path)
            }
        })
        .boxed()
    }
    fn list(&self, _: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        panic!("nothing here lists without a delimiter")
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let shown = prefix.map(ToString::to_string).unwrap_or_default();
        self.call(format!("list {shown}"), async {
            let inner = self.inner(prefix.unwrap_or(&Path::default()));
            let mut found = inner.list_with_delimiter(prefix).await?;
            found.objects.iter_mut().for_each(|meta| self.stamp(meta));
            Ok(found)
        })
        .await
    }
    async fn copy_opts(&self, _: &Path, to: &Path, _: CopyOptions) -> Result<()> {
        panic!("{to} could be overwritten")
    }
}

/// Lets time pass.
pub(crate) async fn pass(time: Duration) {
    tokio::time::advance(time).await;
}
