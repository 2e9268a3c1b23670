//! From the spool to the store, one segment after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backup_core::{
    Appended, Context, Error, ErrorKind, Event as Told, Result, SegmentInfo, SegmentStore,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::segment::{Upto, examine, sha256};
use super::spool::Waiting;

/// The longest pause between attempts.
const PAUSE: Duration = Duration::from_secs(30);

/// What became of the segments.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) segments: u64,
    pub(super) bytes: u64,
    pub(super) stored: u64,
    pub(super) transactions: u64,
    pub(super) waiting: u64,
}

/// Takes segments from the spool to the store, one after the other.
pub(super) struct Uploader {
    queue: Option<mpsc::UnboundedSender<(Waiting, u64)>>,
    task: JoinHandle<(Counts, Option<Error>)>,
    waiting: Arc<AtomicU64>,
    hurry: Context,
}

impl Uploader {
    pub(super) fn start(cx: &Context, store: Arc<dyn SegmentStore>, for_ever: bool) -> Self {
        let (queue, mut segments) = mpsc::unbounded_channel::<(Waiting, u64)>();
        let waiting = Arc::new(AtomicU64::new(0));
        let left = Arc::clone(&waiting);
        // Not cancelled with the receiver: what is in the spool then is still stored.
        let cx = cx.clone();
        let hurry = Context::builder().build();
        let ending = hurry.clone();
        let task = tokio::spawn(async move {
            let mut counts = Counts::default();
            let mut failed = None;
            while let Some((segment, len)) = segments.recv().await {
                if failed.is_none() {
                    match upload(&cx, &ending, &*store, &segment, for_ever, &mut counts).await {
                        Ok(()) => {
                            left.fetch_sub(len, Ordering::Relaxed);
                        }
                        Err(e) => {
                            segments.close();
                            failed = Some(e);
                        }
                    }
                }
            }
            counts.waiting = left.load(Ordering::Relaxed);
            (counts, failed)
        });
        Uploader { queue: Some(queue), task, waiting, hurry }
    }

    pub(super) fn push(&self, segment: Waiting, len: u64) -> Result<()> {
        self.waiting.fetch_add(len, Ordering::Relaxed);
        let sent = self.queue.as_ref().is_some_and(|queue| queue.send((segment, len)).is_ok());
        // It stays in the spool; why it cannot be stored is told at the end.
        if sent { Ok(()) } else { Err(stopped()) }
    }

    /// Whether it failed for good; why is told at the end.
    pub(super) fn has_stopped(&self) -> bool {
        self.task.is_finished() || self.queue.as_ref().is_none_or(mpsc::UnboundedSender::is_closed)
    }

    pub(super) fn check(&self, limit: u64) -> Result<()> {
        if self.has_stopped() {
            return Err(stopped());
        }
        let waiting = self.waiting.load(Ordering::Relaxed);
        if waiting <= limit {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Space,
            format!("{waiting} bytes wait in the spool for the store, which is the limit"),
        )
        .with_remedy(
            "bring the store back, or allow more with --spool-limit; nothing is lost as long as the \
             server keeps its binlogs",
        ))
    }

    pub(super) async fn finish(&mut self, patient: bool) -> (Counts, Option<Error>) {
        self.queue = None;
        if !patient {
            self.hurry.cancel();
        }
        let limit = Duration::from_secs(60);
        let hurry = self.hurry.clone();
        let late = tokio::spawn(async move {
            tokio::time::sleep(limit).await;
            hurry.cancel();
        });
        let done = (&mut self.task).await.unwrap_or_else(|e| {
            let lost = Error::internal("the task that stores segments ended early").with_source(e);
            (Counts::default(), Some(lost))
        });
        late.abort();
        done
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Store, "segments can no longer be stored")
}

async fn upload(
    cx: &Context,
    ending: &Context,
    store: &dyn SegmentStore,
    segment: &Waiting,
    for_ever: bool,
    counts: &mut Counts,
) -> Result<()> {
    let content = segment.content()?;
    let head = segment.head.clone();
    let now = cx.now();
    let bytes = content.clone();
    let info = tokio::task::spawn_blocking(move || examine(&head, &bytes, Upto::End, sha256, now))
        .await
        .map_err(|e| Error::internal("a task of the receiver ended early").with_source(e))??;
    let Some(info) = info else { return segment.remove() };
    let mut failures = 0_u32;
    let stored = loop {
        // With a context of its own: what is on its way when the user ends us, is sent.
        match store.append(ending, &info, content.clone()).await {
            Ok(Appended::Stored(stored)) => break stored,
            Ok(Appended::Taken) => break same(store, &info).await?,
            Err(e) if for_ever && matches!(e.kind(), ErrorKind::Store | ErrorKind::Space) => {
                failures += 1;
                let pause = PAUSE.min(Duration::from_millis(500) * (1 << failures.min(10)));
                cx.event(Told::Warning {
                    text: format!(
                        "segment {} waits in the spool: {}; trying again in {pause:?}",
                        info.name(),
                        e.chain()
                    ),
                });
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = ending.cancellation().cancelled() => return Err(e),
                }
            }
            Err(e) => return Err(e),
        }
    };
    segment.remove()?;
    counts.segments += 1;
    counts.bytes += info.bytes();
    counts.stored += stored;
    counts.transactions += info.transactions;
    cx.progress().add_stored(stored);
    cx.event(Told::Done {
        kind: "segment".into(),
        name: format!("{} {}", info.name(), info.range),
        rows: None,
    });
    Ok(())
}

/// The number is taken: by ourselves, when we died before we could remove the segment from the spool,
/// or by another receiver.
async fn same(store: &dyn SegmentStore, info: &SegmentInfo) -> Result<u64> {
    let there = store.segment(&info.cluster, &info.server, info.seq).await?;
    if there.is_some_and(|there| there.range == info.range && there.sha256 == info.sha256) {
        return Ok(0);
    }
    Err(Error::new(
        ErrorKind::Busy,
        format!("another receiver archives the binlogs of {} too", info.server),
    )
    .with_remedy("end one of them; then start this one again"))
}
