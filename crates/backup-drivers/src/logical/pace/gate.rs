//! Permits to read a chunk.

use std::sync::Arc;

use tokio::sync::watch;

/// Lets so many readers through at once, or none. Clones are the same gate.
#[derive(Clone)]
pub(in crate::logical) struct Gate(Arc<watch::Sender<State>>);

struct State {
    allowed: usize,
    inside: usize,
    shut: bool,
    over: bool,
}

/// A reader is inside until this is dropped.
pub(in crate::logical) struct Permit<'a>(&'a Gate);

impl Gate {
    /// A gate for so many at once, which may be shut at first.
    pub(super) fn new(allowed: usize, shut: bool) -> Self {
        let state = State { allowed, inside: 0, shut, over: false };
        Gate(Arc::new(watch::Sender::new(state)))
    }

    /// Waits for a permit. There is none when everything is read.
    pub(in crate::logical) async fn enter(&self) -> Option<Permit<'_>> {
        // From before the look at the state, so that no change of it is missed.
        let mut changes = self.0.subscribe();
        loop {
            let (mut over, mut entered) = (false, false);
            self.0.send_if_modified(|state| {
                over = state.over;
                entered = !over && !state.shut && state.inside < state.allowed;
                state.inside += usize::from(entered);
                // Nobody waits for more to be inside.
                false
            });
            if entered {
                return Some(Permit(self));
            }
            if over || changes.changed().await.is_err() {
                return None;
            }
        }
    }

    /// A permit at once, however many are inside, and though it be shut.
    pub(in crate::logical) fn hurry(&self) -> Permit<'_> {
        self.0.send_if_modified(|state| {
            state.inside += 1;
            false
        });
        Permit(self)
    }

    /// Says that everything is being read: who waits need not.
    pub(in crate::logical) fn end(&self) {
        self.0.send_modify(|state| state.over = true);
    }

    /// Lets nobody in, or again as many as are allowed. Those inside stay.
    pub(super) fn shut(&self, shut: bool) {
        self.0.send_if_modified(|state| std::mem::replace(&mut state.shut, shut) != shut);
    }

    /// Lets another number in. Those inside stay.
    pub(super) fn allow(&self, allowed: usize) {
        self.0.send_modify(|state| state.allowed = allowed);
    }

    /// Whether no more are inside than are allowed.
    pub(super) fn is_settled(&self) -> bool {
        let state = self.0.borrow();
        state.inside <= state.allowed
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|state| state.inside -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn as_many_enter_as_are_allowed_and_none_while_it_is_shut() {
        let gate = Gate::new(1, true);
        let mut first = std::pin::pin!(gate.enter());
        assert!(futures::poll!(&mut first).is_pending());
        gate.shut(false);
        let first = first.await;
        assert!(first.is_some());
        let mut second = std::pin::pin!(gate.enter());
        assert!(futures::poll!(&mut second).is_pending());
        gate.allow(2);
        let second = second.await;
        gate.allow(1);
        assert!(second.is_some() && !gate.is_settled());
        drop(first);
        assert!(gate.is_settled());
        let mut third = std::pin::pin!(gate.enter());
        assert!(futures::poll!(&mut third).is_pending());
        gate.shut(true);
        drop(second);
        let urgent = gate.hurry();
        assert!(futures::poll!(&mut third).is_pending());
        drop(urgent);
        gate.end();
        assert!(third.await.is_none() && gate.enter().await.is_none());
    }
}
