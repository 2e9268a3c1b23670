//! A store in memory whose clock, and that of the machine, can be set forward.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use backup_core::Clock;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// Everything in a store, with its times.
pub type Snapshot = BTreeMap<Path, (Bytes, Timestamp)>;

/// The time here.
#[derive(Debug, Clone)]
pub struct Time(Arc<Mutex<Timestamp>>);

impl Time {
    pub fn new() -> Self {
        Time(Arc::new(Mutex::new("2026-11-20T10:15:30Z".parse().unwrap())))
    }

    pub fn pass(&self, time: SignedDuration) {
        *self.0.lock().unwrap() += time;
    }
}

impl Clock for Time {
    /// A millisecond passes each time it is looked at.
    fn now(&self) -> Timestamp {
        self.pass(SignedDuration::from_millis(1));
        *self.0.lock().unwrap()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Aged {
    inner: InMemory,
    times: Mutex<BTreeMap<Path, Timestamp>>,
    time: Time,
}

impl Aged {
    pub async fn new(time: &Time, objects: &Snapshot) -> Arc<Self> {
        let inner = InMemory::new();
        let mut times = BTreeMap::new();
        for (path, (bytes, modified)) in objects {
            inner.put(path, bytes.clone().into()).await.unwrap();
            times.insert(path.clone(), *modified);
        }
        Arc::new(Aged { inner, times: Mutex::new(times), time: time.clone() })
    }

    pub async fn snapshot(&self) -> Snapshot {
        let metas: Vec<_> = self.inner.list(None).try_collect().await.unwrap();
        let mut all = Snapshot::new();
        for meta in metas {
            let bytes = self.inner.get(&meta.location).await.unwrap().bytes().await.unwrap();
            let modified = self.times.lock().unwrap()[&meta.location];
            all.insert(meta.location, (bytes, modified));
        }
        all
    }

    fn stamp(&self, meta: &mut ObjectMeta) {
        let time = self.times.lock().unwrap().get(&meta.location).copied().unwrap_or_default();
        let (seconds, nanos) = (time.as_second(), time.subsec_nanosecond() as u32);
        meta.last_modified = DateTime::<Utc>::from_timestamp(seconds, nanos).unwrap();
    }
}

impl fmt::Display for Aged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Aged")
    }
}

#[async_trait]
impl ObjectStore for Aged {
    async fn put_opts(
        &self,
        at: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        assert_eq!(opts.mode, PutMode::Create, "{at} could be overwritten");
        let done = self.inner.put_opts(at, payload, opts).await?;
        self.times.lock().unwrap().insert(at.clone(), self.time.now());
        Ok(done)
    }
    async fn put_multipart_opts(
        &self,
        at: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        panic!("{at} could be overwritten")
    }
    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        let mut found = self.inner.get_opts(at, options).await?;
        self.stamp(&mut found.meta);
        Ok(found)
    }
    async fn get_ranges(&self, at: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(at, ranges).await
    }
    fn delete_stream(
        &self,
        at: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(at)
    }
    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix).boxed()
    }
    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut found = self.inner.list_with_delimiter(prefix).await?;
        found.objects.iter_mut().for_each(|meta| self.stamp(meta));
        Ok(found)
    }
    async fn copy_opts(&self, _: &Path, to: &Path, _: CopyOptions) -> Result<()> {
        panic!("{to} could be overwritten")
    }
}
