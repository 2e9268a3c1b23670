//! Frames that were decoded a moment ago, and those that somebody is about to decode.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::watch;

use crate::frames::FrameAt;
use crate::sync::lock;

/// How many frames are kept at most, however short they are.
const KEPT: usize = 256;

/// A few contents, the last used first; and who is to bring others.
pub(crate) struct Recent {
    state: Mutex<State>,
    /// How many bytes of content are kept.
    limit: usize,
}

#[derive(Default)]
struct State {
    kept: VecDeque<(FrameAt, Bytes)>,
    coming: HashMap<FrameAt, watch::Receiver<Option<Bytes>>>,
}

/// What is known of a frame.
pub(crate) enum Look<C> {
    /// Its content.
    Here(Bytes),
    /// Somebody is about to decode it. Gives the content; nothing where that came to nothing.
    Coming(C),
    /// It is for whoever asked to decode.
    Yours(Turn),
}

/// The duty to decode a frame. Whoever drops it frees those that wait.
pub(crate) struct Turn {
    recent: Arc<Recent>,
    at: FrameAt,
    sender: watch::Sender<Option<Bytes>>,
}

impl Recent {
    pub(crate) fn new(limit: usize) -> Self {
        Recent { state: Mutex::default(), limit }
    }

    /// Looks for a frame, and for somebody who brings it.
    pub(crate) fn look(
        self: &Arc<Self>,
        at: &FrameAt,
    ) -> Look<impl Future<Output = Option<Bytes>> + Send + use<>> {
        let mut state = lock(&self.state);
        let found = state.kept.iter().position(|(frame, _)| frame == at);
        if let Some(frame) = found.and_then(|found| state.kept.remove(found)) {
            let content = frame.1.clone();
            state.kept.push_front(frame);
            return Look::Here(content);
        }
        if let Some(coming) = state.coming.get(at) {
            let mut coming = coming.clone();
            return Look::Coming(async move {
                coming.wait_for(Option::is_some).await.ok().and_then(|content| content.clone())
            });
        }
        let (sender, receiver) = watch::channel(None);
        state.coming.insert(at.clone(), receiver);
        Look::Yours(Turn { recent: Arc::clone(self), at: at.clone(), sender })
    }

    /// Keeps a content for a while.
    pub(crate) fn keep(&self, at: &FrameAt, content: &Bytes) {
        let mut state = lock(&self.state);
        if state.kept.iter().any(|(frame, _)| frame == at) {
            return;
        }
        state.kept.push_front((at.clone(), content.clone()));
        let mut sum = 0;
        state.kept.retain(|(_, content)| {
            sum += content.len();
            sum <= self.limit
        });
        state.kept.truncate(KEPT);
    }
}

impl Turn {
    /// Gives the content to those that wait, and keeps it where it may be wanted again.
    pub(crate) fn give(self, content: &Bytes, keep: bool) {
        if keep {
            self.recent.keep(&self.at, content);
        }
        self.sender.send_replace(Some(content.clone()));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        lock(&self.recent.state).coming.remove(&self.at);
    }
}
