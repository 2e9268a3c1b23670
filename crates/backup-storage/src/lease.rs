//! Leases: at most one at a time does a kind of work, and a dead holder blocks nobody for long.
//!
//! The epochs of a lease are objects that are only ever created, each by one writer; the highest is
//! the state. A holder that stood still may go on after another took over, so what it does must be
//! safe even then: a lease saves work, it does not guard data.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use backup_core::{Context, Error, ErrorKind, Event, FORMAT, Result};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::format::hex;
use crate::key::{self, Key, LeaseName};
use crate::process::Process;
use crate::scan::is_damage;
use crate::store::{Created, Store};

/// The longest epoch.
const MAX_BYTES: u64 = 1 << 20;
/// No holder asks for more; an epoch that says so is not believed.
const MAX_TTL: Duration = Duration::from_secs(24 * 3600);

/// What an epoch says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Hold,
    Release,
}

/// The content of an epoch.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Epoch {
    format: u32,
    kind: Kind,
    /// Who it is, for people.
    holder: String,
    /// The same in all epochs of one holder, and in nobody else's.
    nonce: String,
    /// By the clock of the holder, for people.
    at: Timestamp,
    ttl_ms: u64,
    /// When the holder took it, by its clock, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    /// Which process that is: on its own machine it can be seen that it is dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    process: Option<Process>,
}

/// What others are told of this process, as the holder of a lease for `command`.
///
/// ```
/// assert!(backup_storage::holder("prune").starts_with("holdfast prune, process "));
/// ```
#[must_use]
pub fn holder(command: &str) -> String {
    let machine = rustix::system::uname();
    let name = machine.nodename().to_string_lossy();
    format!("holdfast {command}, process {} on {name}", std::process::id())
}

/// Somebody who may still hold a lease.
struct Holder {
    name: String,
    ttl: Duration,
    since: Option<Timestamp>,
    process: Option<Process>,
}

impl Holder {
    /// Who wrote what cannot be read.
    fn unknown() -> Holder {
        Holder { name: "somebody unknown".to_owned(), ttl: MAX_TTL, since: None, process: None }
    }
}

/// A lease that is held. It is renewed in the background until it is released or dropped.
#[derive(Debug)]
pub struct Lease {
    shared: Arc<Shared>,
    token: u64,
    renewing: Option<AbortOnDropHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    cx: Context,
    store: Store,
    name: LeaseName,
    holder: String,
    nonce: String,
    ttl: Duration,
    since: Timestamp,
    process: Option<Process>,
    epoch: AtomicU64,
    lost: AtomicBool,
    /// When it was renewed last, in milliseconds since `start`.
    renewed: AtomicU64,
    start: Instant,
}

impl Lease {
    /// Takes a lease for `holder`, a name that people know it by, such as host and process. It is
    /// renewed three times within `ttl`.
    ///
    /// Where the last holder died without a word on this machine, it is taken at once. Of one on
    /// another machine nobody can know that: when it is silent for twice its `ttl`, this waits for
    /// half of that to see that it is really dead, and says so.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] when somebody else holds it, and when the store fails.
    pub async fn acquire(
        cx: &Context,
        store: &Store,
        name: LeaseName,
        holder: &str,
        ttl: Duration,
    ) -> Result<Lease> {
        let ttl = ttl.clamp(Duration::from_millis(30), MAX_TTL);
        let last = highest(store, &name).await?;
        if let Some((epoch, modified)) = last {
            Self::wait_for_dead(cx, store, &name, epoch, modified).await?;
        }
        let token = last.map_or(1, |(epoch, _)| epoch + 1);
        let shared = Arc::new(Shared {
            cx: cx.clone(),
            store: store.clone(),
            name,
            holder: holder.to_owned(),
            nonce: hex(&cx.random::<16>()),
            ttl,
            since: cx.now(),
            process: Process::this(),
            epoch: AtomicU64::new(token),
            lost: AtomicBool::new(false),
            renewed: AtomicU64::new(0),
            start: Instant::now(),
        });
        // From before the store got it: what counts is when others may take over.
        let asked = Instant::now();
        if !shared.create(token, Kind::Hold).await? {
            return Err(busy(&shared.name, "somebody else was quicker"));
        }
        shared.renewed_at(asked);
        let renewer = Arc::clone(&shared);
        let renewing = tokio::spawn(async move { renewer.renew().await });
        Ok(Lease { shared, token, renewing: Some(AbortOnDropHandle::new(renewing)) })
    }

    /// Fails unless the epoch was a release, or its holder is dead.
    async fn wait_for_dead(
        cx: &Context,
        store: &Store,
        name: &LeaseName,
        epoch: u64,
        modified: Timestamp,
    ) -> Result<()> {
        let holder = match store.get(&Key::Lease(name.clone(), epoch), MAX_BYTES).await {
            // It became old just now, because there is a higher one.
            Ok(None) => return Err(busy(name, "somebody else was quicker")),
            Ok(Some(bytes)) => match serde_json::from_slice::<Epoch>(&bytes) {
                Ok(Epoch { kind: Kind::Release, .. }) => return Ok(()),
                Ok(Epoch { holder: name, ttl_ms, since, process, .. }) => {
                    let ttl = Duration::from_millis(ttl_ms).min(MAX_TTL);
                    Holder { name, ttl, since, process }
                }
                Err(_) => Holder::unknown(),
            },
            Err(e) if is_damage(&e) => Holder::unknown(),
            Err(e) => return Err(e),
        };
        let Holder { name: holder, ttl, since, process } = holder;
        if process.as_ref().and_then(Process::runs) == Some(false) {
            let text = format!("the lease `{name}` of {holder} was taken over: it has died");
            cx.event(Event::Warning { text });
            return Ok(());
        }
        let age = store.now(cx).await?.duration_since(modified);
        let shown = SignedDuration::from_secs(age.as_secs());
        let signed = |d: Duration| SignedDuration::try_from(d).unwrap_or(SignedDuration::MAX);
        let time = |at: Timestamp| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string();
        let since = since.map(|at| format!(" since {}", time(at))).unwrap_or_default();
        // It is watched for a while before it is taken over.
        let ends = modified.saturating_add(signed(2 * ttl + ttl / 2)).unwrap_or(Timestamp::MAX);
        let held = || {
            let ends = time(ends);
            busy(
                name,
                &format!(
                    "{holder} holds it{since}, and renewed it {shown:#} ago; if it has died, it \
                     holds it until {ends}"
                ),
            )
        };
        let watch = if age > signed(2 * ttl) {
            // Longer than a living one takes to the next renewal.
            ttl / 2
        } else if age < -signed(ttl) {
            // The store's clock was set back: what it says about the past is worth nothing.
            2 * ttl
        } else {
            return Err(held());
        };
        cx.phase(format!(
            "waits {:#} for the lease `{name}`: held by {holder}{since}, which seems to be dead",
            SignedDuration::from_secs(signed(watch).as_secs())
        ));
        cx.run(async {
            tokio::time::sleep(watch).await;
            Ok(())
        })
        .await?;
        if highest(store, name).await?.map(|(epoch, _)| epoch) != Some(epoch) {
            return Err(held());
        }
        let text =
            format!("the lease `{name}` of {holder} was taken over: it did nothing for {shown:#}");
        cx.event(Event::Warning { text });
        Ok(())
    }

    /// The number of the epoch at which it was taken: higher than that of every earlier holder.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Fails when the lease is, or may be, somebody else's by now. To be asked before each step
    /// that another holder should not find half done.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`].
    pub fn check(&self) -> Result<()> {
        let shared = &self.shared;
        let since = shared
            .start
            .elapsed()
            .saturating_sub(Duration::from_millis(shared.renewed.load(Ordering::SeqCst)));
        if shared.lost.load(Ordering::SeqCst) {
            return Err(busy(&shared.name, "it was taken over while this run stood still"));
        }
        if since > shared.ttl {
            return Err(busy(&shared.name, &format!("it could not be renewed for {since:.0?}")));
        }
        Ok(())
    }

    /// Whether it is known that somebody else took it over. Unlike [`check`](Self::check), this bears a store
    /// that is away for long: it is for work that two may do at once, only better not.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.shared.lost.load(Ordering::SeqCst)
    }

    /// Gives the lease back, so that the next one need not wait.
    ///
    /// # Errors
    /// When the store fails; then it ends by itself after a while.
    pub async fn release(mut self) -> Result<()> {
        if let Some(renewing) = self.renewing.take() {
            renewing.abort();
            let _ = renewing.await;
        }
        let shared = Arc::clone(&self.shared);
        // A drop must not do it again.
        if shared.lost.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        shared.release().await
    }
}

impl Drop for Lease {
    /// Gives it back as far as that is possible without waiting.
    fn drop(&mut self) {
        self.renewing.take();
        if !self.shared.lost.swap(true, Ordering::SeqCst)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let shared = Arc::clone(&self.shared);
            runtime.spawn(async move {
                let _ = shared.release().await;
            });
        }
    }
}

impl Shared {
    fn renewed_at(&self, at: Instant) {
        let since = u64::try_from(at.saturating_duration_since(self.start).as_millis());
        self.renewed.store(since.unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Creates an epoch. False when it is not the highest then: somebody else holds the lease.
    async fn create(&self, epoch: u64, kind: Kind) -> Result<bool> {
        let content = Epoch {
            format: FORMAT,
            kind,
            holder: self.holder.clone(),
            nonce: self.nonce.clone(),
            at: self.cx.now(),
            ttl_ms: u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX),
            since: Some(self.since),
            process: self.process.clone(),
        };
        let mut json = serde_json::to_vec_pretty(&content)
            .map_err(|e| Error::internal("a lease cannot be written as JSON").with_source(e))?;
        json.push(b'\n');
        let key = Key::Lease(self.name.clone(), epoch);
        match self.store.create(&key, json).await? {
            Created::Exists => Ok(false),
            // Old epochs are removed: one that was free because of that is not ours.
            Created::New => {
                let highest = highest(&self.store, &self.name).await?;
                Ok(highest.map(|(epoch, _)| epoch) == Some(epoch))
            }
        }
    }

    async fn renew(&self) {
        loop {
            tokio::time::sleep(self.ttl / 3).await;
            let asked = Instant::now();
            let last = self.epoch.load(Ordering::SeqCst);
            match self.create(last + 1, Kind::Hold).await {
                Ok(true) => {
                    self.epoch.store(last + 1, Ordering::SeqCst);
                    self.renewed_at(asked);
                    // One that cannot be removed is removed by a later prune.
                    let _ = self.store.delete(&Key::Lease(self.name.clone(), last)).await;
                }
                // It may be ours: what the store did may not have been told.
                Ok(false) => match self.has_renewed(last + 1).await {
                    Ok(true) => {
                        self.epoch.store(last + 1, Ordering::SeqCst);
                        self.renewed_at(asked);
                    }
                    Ok(false) => {
                        self.lost.store(true, Ordering::SeqCst);
                        return;
                    }
                    Err(e) => self.not_renewed(&e),
                },
                // The next turn may be luckier; until then `check` counts.
                Err(e) => self.not_renewed(&e),
            }
        }
    }

    fn not_renewed(&self, e: &Error) {
        self.cx.note(format!("the lease `{}` was not renewed: {}", self.name, e.chain()));
    }

    /// Whether the highest epoch is this one, and ours.
    async fn has_renewed(&self, epoch: u64) -> Result<bool> {
        let highest = highest(&self.store, &self.name).await?.map(|(epoch, _)| epoch);
        Ok(highest == Some(epoch) && self.is_ours(epoch).await?)
    }

    async fn release(&self) -> Result<()> {
        // A renewal that was cut off may have taken the next one.
        let last = highest(&self.store, &self.name).await?.map_or(0, |(epoch, _)| epoch);
        let own = self.epoch.load(Ordering::SeqCst);
        if last > own + 1 {
            return Ok(());
        }
        if last == own + 1 && !self.is_ours(last).await? {
            return Ok(());
        }
        self.create(last + 1, Kind::Release).await?;
        for old in own..=last {
            self.store.delete(&Key::Lease(self.name.clone(), old)).await?;
        }
        Ok(())
    }

    async fn is_ours(&self, epoch: u64) -> Result<bool> {
        let bytes = self.store.get(&Key::Lease(self.name.clone(), epoch), MAX_BYTES).await?;
        let content = bytes.and_then(|bytes| serde_json::from_slice::<Epoch>(&bytes).ok());
        Ok(content.is_some_and(|content| content.nonce == self.nonce))
    }
}

/// The highest epoch, and when the store got it.
async fn highest(store: &Store, name: &LeaseName) -> Result<Option<(u64, Timestamp)>> {
    Ok(epochs(store, name).await?.pop())
}

/// The epochs of a lease with their times, sorted.
pub(crate) async fn epochs(store: &Store, name: &LeaseName) -> Result<Vec<(u64, Timestamp)>> {
    let found = store.list(&key::lease(name)).await?.objects;
    let mut epochs: Vec<(u64, Timestamp)> = found
        .into_iter()
        .filter_map(|(name, meta)| {
            let number: u64 = name.parse().ok()?;
            (number.to_string() == name).then_some((number, meta.modified))
        })
        .collect();
    epochs.sort_unstable();
    Ok(epochs)
}

fn busy(name: &LeaseName, why: &str) -> Error {
    Error::new(ErrorKind::Busy, format!("the lease `{name}` cannot be had: {why}"))
        .with_remedy("wait until the other run ends, then try again")
}
