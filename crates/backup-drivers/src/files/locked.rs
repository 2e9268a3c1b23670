//! The copy of a running server that stands still for it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backup_core::{
    ArtifactSink, Backup, Consistency, ConsistencyLevel, Context, Event, Finding, Outcome,
    Position, Result, Severity, Strategy,
};

use super::catalog::{CATALOG_FORMAT, Catalog, Header, State};
use super::cold::objects;
use super::copy::{Held, copy_in};
use super::live::LiveServer;
use super::lock::{GlobalLock, LockOptions, Waits};
use super::still::{Eager, check_still, rest};
use super::tree::Tree;
use crate::connect::{ConnectOptions, Session};

/// Copies the files of a running server of this machine under a global read lock, with InnoDB at rest
/// from before the first file to behind the last. Nobody can write meanwhile.
#[derive(Debug, Clone)]
pub struct LockedBackup {
    source: ConnectOptions,
    options: LockOptions,
}

impl LockedBackup {
    /// A copy of `source`.
    #[must_use]
    pub fn new(source: ConnectOptions, options: LockOptions) -> Self {
        LockedBackup { source, options }
    }

    /// What is done while the server stands still.
    async fn copy(
        &self,
        cx: &Context,
        live: &LiveServer,
        lock: &mut GlobalLock,
        sink: &Arc<dyn ArtifactSink>,
    ) -> Result<(Tree, Position)> {
        let flavor = live.facts.flavor;
        lock.flush_engine_logs().await?;
        let level = rest(cx, lock.session(), flavor).await?;
        let position = lock.position(&live.facts).await?;
        let roots = live.directory.roots();
        let tree = Tree::walk(&roots, false)?;
        cx.phase("copying files");
        copy_in(cx, &tree, sink, &Held::default()).await?;
        check_still(lock.session(), flavor, level).await?;
        tree.check_unchanged(&roots, false)?;
        Ok((tree, position))
    }
}

#[async_trait]
impl Backup for LockedBackup {
    fn strategy(&self) -> Strategy {
        Strategy::Physical
    }

    async fn preflight(&self, _: &Context) -> Result<Vec<Finding>> {
        let live = LiveServer::find(&self.source).await?;
        let mut findings = vec![Finding::new(
            Severity::Info,
            "server",
            format!("{} {}", live.facts.flavor, live.facts.version_text),
            "",
        )];
        let tree = Tree::walk(&live.directory.roots(), false)?;
        findings.push(Finding::new(
            Severity::Info,
            "lock",
            format!(
                "nobody can write while {} bytes are copied, at most {} s",
                tree.bytes(),
                self.options.limit.as_secs()
            ),
            "",
        ));
        findings.extend(log_bin(&self.source).await?);
        Ok(findings)
    }

    async fn run(&self, cx: &Context, sink: Arc<dyn ArtifactSink>) -> Result<Outcome> {
        let live = LiveServer::find(&self.source).await?;
        let mut session = Session::open(&self.source).await?;
        // Most of it is written before anybody has to wait.
        let eager = Eager::begin(&mut session, &self.source).await?;
        let before = tokio::time::timeout(
            Duration::from_secs(10),
            rest(cx, &mut session, live.facts.flavor),
        );
        if let Ok(Err(e)) = before.await {
            eager.end().await?;
            return Err(e);
        }
        cx.phase("lock");
        // Nothing less keeps InnoDB still: open transactions would go on to change pages.
        let taken = GlobalLock::take(cx, &self.source, self.options, Waits::Statements).await;
        let copied = match taken {
            Err(e) => Err(e),
            Ok(mut lock) => {
                // Without it there is no end worth waiting for.
                let (until, lost) = (lock.is_lost_at(), lock.lost());
                let copy = cx.run(self.copy(cx, &live, &mut lock, &sink));
                let copied = tokio::time::timeout_at(until, copy).await.unwrap_or(Err(lost));
                match (copied, lock.release().await) {
                    (Ok((tree, position)), Ok(held)) => Ok((tree, position, held)),
                    // A lock that was taken away is the cause of what failed after it.
                    (_, Err(e)) => Err(e),
                    (Err(e), Ok(_)) => Err(e),
                }
            }
        };
        let put_back = eager.end().await;
        let (tree, position, held) = copied?;
        let mut warnings = Vec::new();
        if let Err(e) = put_back {
            warnings.push(format!(
                "innodb_max_dirty_pages_pct was not put back to what it was: {}",
                e.chain()
            ));
        }
        let catalog = Catalog {
            header: Header {
                files_format: CATALOG_FORMAT,
                state: State::Crashed,
                settings: live.settings.clone(),
                left_out: tree.left_out.clone(),
            },
            entries: tree.found.iter().map(|found| found.entry.clone()).collect(),
        };
        catalog.write(&*sink).await?;
        for text in &warnings {
            cx.event(Event::Warning { text: text.clone() });
        }
        let reason = "the server stood still under a global read lock, and InnoDB wrote nothing from \
                      before the first file until after the last";
        Ok(Outcome {
            source: live.source_info(),
            position,
            consistency: Consistency { level: ConsistencyLevel::Exact, reason: reason.to_owned() },
            lock_seconds: held.as_secs_f64(),
            rows: None,
            objects: objects(&catalog),
            masked: false,
            partial: false,
            warnings,
            details: serde_json::Value::Null,
        })
    }
}

/// What is missing for a point in time, if anything.
pub(crate) async fn log_bin(source: &ConnectOptions) -> Result<Option<Finding>> {
    let mut session = Session::open(source).await?;
    let on: Option<u8> = session.query_first("SELECT @@GLOBAL.log_bin").await?;
    session.close().await?;
    Ok((on != Some(1)).then(|| {
        Finding::new(
            Severity::Warning,
            "log_bin",
            "the binary log is off, so nothing after this backup can be restored",
            "set log_bin in the server's configuration and restart it",
        )
    }))
}
