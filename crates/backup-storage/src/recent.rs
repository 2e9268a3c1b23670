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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: u64) -> FrameAt {
        let backup = "20261120T101530Z-full-7f3a9c".parse().unwrap();
        FrameAt { backup, pack: 0, offset, frame_len: 100, check: [0; 8] }
    }

    #[tokio::test]
    async fn one_decodes_and_all_have_it() {
        let recent = Arc::new(Recent::new(100));
        let Look::Yours(turn) = recent.look(&at(1)) else { panic!() };
        let Look::Coming(first) = recent.look(&at(1)) else { panic!() };
        let Look::Coming(second) = recent.look(&at(1)) else { panic!() };
        let give = async {
            tokio::task::yield_now().await;
            turn.give(&Bytes::from_static(b"x"), false);
        };
        let ((), first, second) = tokio::join!(give, first, second);
        assert_eq!((first.as_deref(), second.as_deref()), (Some(&b"x"[..]), Some(&b"x"[..])));
        assert!(matches!(recent.look(&at(1)), Look::Yours(_)), "it was not to be kept");
    }

    #[tokio::test]
    async fn who_gives_up_keeps_nobody_waiting() {
        let recent = Arc::new(Recent::new(100));
        let Look::Yours(turn) = recent.look(&at(1)) else { panic!() };
        let Look::Coming(coming) = recent.look(&at(1)) else { panic!() };
        drop(turn);
        assert_eq!(coming.await, None);
        assert!(matches!(recent.look(&at(1)), Look::Yours(_)));
    }

    #[test]
    fn what_was_used_last_is_kept() {
        let recent = Arc::new(Recent::new(100));
        let content = Bytes::from(vec![0; 40]);
        for offset in [1, 2] {
            let Look::Yours(turn) = recent.look(&at(offset)) else { panic!() };
            turn.give(&content, true);
        }
        assert!(matches!(recent.look(&at(1)), Look::Here(_)));
        recent.keep(&at(3), &content);
        assert!(matches!(recent.look(&at(1)), Look::Here(_)));
        assert!(matches!(recent.look(&at(3)), Look::Here(_)));
        assert!(matches!(recent.look(&at(2)), Look::Yours(_)));
    }
}
