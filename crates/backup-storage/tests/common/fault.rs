//! A store that fails, or dies, at a chosen call; and that holds the repository to its rules: objects
//! are created and deleted, never overwritten, copied or renamed.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::Notify;

/// The medium is damaged.
pub const EIO: i32 = 5;
/// Permission denied.
pub const EACCES: i32 = 13;
/// No space left on device.
pub const ENOSPC: i32 = 28;
/// Connection timed out.
pub const ETIMEDOUT: i32 = 110;

/// What happens at the chosen call; numbers are those of the operating system's errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails and does nothing; later calls work.
    FailBefore(i32),
    /// It does its work, but the answer is an error; later calls work.
    FailAfter(i32),
    /// The process dies before it: it and all later calls never happen.
    CrashBefore,
    /// The process dies after it: its work is done, all later calls never happen.
    CrashAfter,
    /// When it writes, other bytes are kept than were given, and nobody says a word.
    Garble,
}

#[derive(Debug)]
struct Gate {
    calls: AtomicU64,
    at: u64,
    /// Only writes of objects of this name count.
    only: Option<&'static str>,
    fault: Fault,
    crashed: Notify,
}

impl Gate {
    async fn call<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.pass(self.only.is_none(), work).await
    }

    async fn write<T>(&self, at: &Path, work: impl Future<Output = Result<T>>) -> Result<T> {
        let counts = self.only.is_none_or(|name| at.filename() == Some(name));
        self.pass(counts, work).await
    }

    async fn pass<T>(&self, counts: bool, work: impl Future<Output = Result<T>>) -> Result<T> {
        let number = match counts {
            true => self.calls.fetch_add(1, Ordering::SeqCst),
            false => self.calls.load(Ordering::SeqCst),
        };
        let dies = matches!(self.fault, Fault::CrashBefore | Fault::CrashAfter);
        if number > self.at && dies {
            return std::future::pending().await;
        }
        if !counts || number != self.at {
            return work.await;
        }
        match self.fault {
            Fault::FailBefore(errno) => return Err(failure(errno)),
            Fault::FailAfter(errno) => return work.await.and(Err(failure(errno))),
            Fault::Garble => return work.await,
            Fault::CrashBefore => {}
            Fault::CrashAfter => drop(work.await),
        }
        self.crashed.notify_one();
        std::future::pending().await
    }
}

fn failure(errno: i32) -> object_store::Error {
    let source = Box::new(io::Error::from_raw_os_error(errno));
    object_store::Error::Generic { store: "fault", source }
}

/// Counts calls and hurts one of them.
#[derive(Debug)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    gate: Arc<Gate>,
    read: AtomicU64,
}

impl FaultStore {
    /// Hurts call number `at`, counted from 0.
    pub fn new(inner: &Arc<dyn ObjectStore>, at: u64, fault: Fault) -> Arc<Self> {
        Self::with_gate(inner, at, None, fault)
    }

    /// Hurts the first write of an object of this name, whichever call that is.
    #[allow(dead_code, reason = "each test binary uses some of it")]
    pub fn at_object(inner: &Arc<dyn ObjectStore>, name: &'static str, fault: Fault) -> Arc<Self> {
        Self::with_gate(inner, 0, Some(name), fault)
    }

    fn with_gate(
        inner: &Arc<dyn ObjectStore>,
        at: u64,
        only: Option<&'static str>,
        fault: Fault,
    ) -> Arc<Self> {
        let gate = Gate { calls: AtomicU64::new(0), at, only, fault, crashed: Notify::new() };
        let read = AtomicU64::new(0);
        Arc::new(FaultStore { inner: Arc::clone(inner), gate: Arc::new(gate), read })
    }

    /// Whether the chosen call was made.
    pub fn struck(&self) -> bool {
        self.gate.calls.load(Ordering::SeqCst) > self.gate.at
    }

    /// How many bytes of objects were read.
    #[allow(dead_code, reason = "each test binary uses some of it")]
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::SeqCst)
    }

    /// Waits until the process has died.
    pub async fn crashed(&self) {
        self.gate.crashed.notified().await;
    }

    fn stream<T: Send + 'static>(
        &self,
        work: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        let gate = Arc::clone(&self.gate);
        stream::once(async move {
            let all: Result<Vec<T>> = gate.call(work.try_collect()).await;
            all.map(|all| stream::iter(all.into_iter().map(Ok)))
        })
        .try_flatten()
        .boxed()
    }
}

/// The same length, and another last byte.
fn garbled(payload: &PutPayload) -> PutPayload {
    let mut bytes = payload.iter().flatten().copied().collect::<Vec<u8>>();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    bytes.into()
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(
        &self,
        at: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        assert_eq!(opts.mode, PutMode::Create, "{at} could be overwritten");
        let calls = self.gate.calls.load(Ordering::SeqCst);
        let payload = match self.gate.fault == Fault::Garble && calls == self.gate.at {
            true => garbled(&payload),
            false => payload,
        };
        self.gate.write(at, self.inner.put_opts(at, payload, opts)).await
    }
    async fn put_multipart_opts(
        &self,
        at: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        panic!("{at} could be overwritten: multipart has no create-only mode")
    }
    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let got = self.gate.call(self.inner.get_opts(at, options)).await?;
        self.read.fetch_add(got.range.end - got.range.start, Ordering::SeqCst);
        Ok(got)
    }
    async fn get_ranges(&self, at: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.gate.call(self.inner.get_ranges(at, ranges)).await
    }
    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.stream(self.inner.delete_stream(at))
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.stream(self.inner.list(prefix))
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.gate.call(self.inner.list_with_delimiter(prefix)).await
    }
    async fn copy_opts(&self, _: &Path, to: &Path, _: CopyOptions) -> Result<()> {
        panic!("{to} could be overwritten by a copy or rename")
    }
}
