//! What a task of its own finds, given out piece by piece.

use std::future::Future;

use backup_core::{Error, Result};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

/// The pieces of one artifact. Dropping it ends the task.
pub(crate) struct Pieces<T> {
    /// `None` after the last piece or an error was given out.
    pieces: Option<mpsc::Receiver<Result<Option<T>>>>,
    /// Whether the end was reached with everything right.
    whole: bool,
    _work: AbortOnDropHandle<()>,
}

impl<T: Send + 'static> Pieces<T> {
    /// Starts what `work` makes of the sender; up to `waiting` pieces wait for their consumer.
    pub(crate) fn start<W>(
        waiting: usize,
        work: impl FnOnce(mpsc::Sender<Result<Option<T>>>) -> W,
    ) -> Self
    where
        W: Future<Output = Result<()>> + Send + 'static,
    {
        let (sender, pieces) = mpsc::channel(waiting);
        let work = work(sender.clone());
        let work = tokio::spawn(async move {
            let result = work.await;
            // Nobody listens any more only when this was dropped.
            let _ = sender.send(result.map(|()| None)).await;
        });
        Pieces { pieces: Some(pieces), whole: false, _work: AbortOnDropHandle::new(work) }
    }

    /// The next piece; `None` once everything was given out and found right.
    pub(crate) async fn next(&mut self) -> Result<Option<T>> {
        let ended = || Error::internal("the reader of an artifact ended early");
        let Some(pieces) = &mut self.pieces else {
            return if self.whole { Ok(None) } else { Err(ended()) };
        };
        let next = pieces.recv().await.unwrap_or_else(|| Err(ended()));
        if !matches!(next, Ok(Some(_))) {
            self.whole = next.is_ok();
            self.pieces = None;
        }
        next
    }
}
