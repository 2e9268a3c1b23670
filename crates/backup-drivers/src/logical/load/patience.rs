//! Trying again what failed through no fault of its own.

use std::time::{Duration, Instant};

use backup_core::{Context, Error, ErrorKind, Event, Result};

/// The first pause; each is twice the one before.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(2);

/// How long one piece of work has been failing, and how long it may.
pub(super) struct Patience {
    limit: Duration,
    since: Option<Instant>,
    pause: Duration,
}

impl Patience {
    pub(super) fn new(limit: Duration) -> Self {
        Patience { limit, since: None, pause: FIRST }
    }

    /// Waits before the next attempt, or gives the error back: it would come again, or came for too
    /// long.
    pub(super) async fn after(&mut self, cx: &Context, error: Error) -> Result<()> {
        let since = *self.since.get_or_insert_with(Instant::now);
        if !passes(&error) || since.elapsed() + self.pause > self.limit {
            return Err(error);
        }
        let text = format!("trying again: {}", error.chain());
        cx.event(Event::Warning { text });
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST);
        Ok(())
    }

    /// Whether something failed before.
    pub(super) fn was_tried(&self) -> bool {
        self.since.is_some()
    }
}

/// Whether the same may well succeed later: a deadlock, a lock that was held for too long, a server
/// or a connection that went away.
fn passes(error: &Error) -> bool {
    match error.server().map(|server| server.code) {
        // Deadlock, lock wait timeout, and the same at the commit of a cluster.
        Some(1213 | 1205 | 1180) => true,
        // Too many connections; shutdown, aborted, network; killed, gone, lost, timed out.
        Some(1040 | 1053 | 1080 | 1152 | 1158..=1161 | 1184 | 1203 | 1927) => true,
        Some(2002 | 2003 | 2006 | 2013 | 2055 | 3169 | 4031) => true,
        // A server that just came up again forbids it until it is told otherwise.
        Some(1148 | 3948 | 4166) => true,
        Some(_) => false,
        None => error.kind() == ErrorKind::Connect,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connect::{lost, server_error};
    use backup_core::ServerError;

    fn server(code: u16) -> Error {
        server_error(ServerError { code, state: "HY000".into(), message: "m".into() }, "load")
    }

    #[tokio::test]
    async fn only_what_passes_is_tried_again_and_not_for_ever() {
        let cx = Context::builder().build();
        for error in [server(1213), server(1927), lost("load").context("table t")] {
            let mut patience = Patience::new(Duration::from_secs(60));
            assert!(!patience.was_tried());
            assert!(patience.after(&cx, error).await.is_ok());
            assert!(patience.was_tried());
        }
        for error in [server(1062), server(1045), Error::damaged("x"), server(1317)] {
            assert!(Patience::new(Duration::from_secs(60)).after(&cx, error).await.is_err());
        }
        assert!(Patience::new(Duration::ZERO).after(&cx, server(1213)).await.is_err());
    }
}
