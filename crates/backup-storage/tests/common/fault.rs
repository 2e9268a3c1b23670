//! A store that fails or stops at a chosen call.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What happens at the chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails and does nothing; later calls work.
    FailBefore(io::ErrorKind),
    /// It does its work, but the answer is an error; later calls work.
    FailAfter(io::ErrorKind),
    /// The process dies before it: it and all later calls never happen.
    CrashBefore,
    /// The process dies after it: its work is done, all later calls never happen.
    CrashAfter,
}

/// Counts calls that change the store or read it, and hurts one of them.
#[derive(Debug)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    calls: AtomicU64,
    at: u64,
    fault: Fault,
}

impl FaultStore {
    /// Hurts call number `at`, counted from 0.
    pub fn new(inner: Arc<dyn ObjectStore>, at: u64, fault: Fault) -> Arc<Self> {
        Arc::new(FaultStore { inner, calls: AtomicU64::new(0), at, fault })
    }

    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    async fn call<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        let crash = matches!(self.fault, Fault::CrashBefore | Fault::CrashAfter);
        if number > self.at && crash {
            std::future::pending::<()>().await;
        }
        if number != self.at {
            return work.await;
        }
        match self.fault {
            Fault::FailBefore(kind) => Err(failure(kind)),
            Fault::FailAfter(kind) => {
                work.await?;
                Err(failure(kind))
            }
            Fault::CrashBefore => std::future::pending().await,
            Fault::CrashAfter => {
                let _ = work.await;
                std::future::pending().await
            }
        }
    }
}

fn failure(kind: io::ErrorKind) -> object_store::Error {
    object_store::Error::Generic { store: "fault", source: Box::new(io::Error::from(kind)) }
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
        self.call(self.inner.put_opts(at, payload, opts)).await
    }
    async fn put_multipart_opts(
        &self,
        at: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.call(self.inner.put_multipart_opts(at, opts)).await
    }
    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.call(self.inner.get_opts(at, options)).await
    }
    async fn get_ranges(&self, at: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.call(self.inner.get_ranges(at, ranges)).await
    }
    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        // The repository deletes one object a call.
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        let crash = matches!(self.fault, Fault::CrashBefore | Fault::CrashAfter);
        if (number > self.at && crash) || (number == self.at && self.fault == Fault::CrashBefore) {
            return futures::stream::pending().boxed();
        }
        let work = self.inner.delete_stream(at);
        if number != self.at {
            return work;
        }
        match self.fault {
            Fault::FailBefore(kind) => {
                futures::stream::once(async move { Err(failure(kind)) }).boxed()
            }
            Fault::FailAfter(kind) => {
                work.then(move |r| async move { r.and(Err(failure(kind))) }).boxed()
            }
            Fault::CrashBefore | Fault::CrashAfter => work.then(|_| std::future::pending()).boxed(),
        }
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::FailBefore(kind) | Fault::FailAfter(kind) if number == self.at => {
                futures::stream::once(async move { Err(failure(kind)) }).boxed()
            }
            Fault::CrashBefore | Fault::CrashAfter if number >= self.at => {
                futures::stream::pending().boxed()
            }
            _ => self.inner.list(prefix),
        }
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.call(self.inner.list_with_delimiter(prefix)).await
    }
    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.call(self.inner.copy_opts(from, to, options)).await
    }
}
