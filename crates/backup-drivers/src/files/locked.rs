//! The copy of a running server that stands still for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backup_core::{
    ArtifactSink, Backup, Consistency, ConsistencyLevel, Context, Error, ErrorKind, Event, Finding,
    Outcome, Position, Result, Severity, Strategy,
};

use super::absent;
use super::catalog::{CATALOG_FORMAT, Catalog, Header, State};
use super::cold::objects;
use super::copy::{Held, Was, copy_in};
use super::left_out::{unexpected, unexpected_finding};
use super::live::LiveServer;
use super::lock::{GlobalLock, LockOptions, Waits};
use super::still::{Eager, check_still, rest};
use super::tree::Tree;
use crate::connect::{ConnectOptions, Session};
use crate::innodb::CopiedPages;
use crate::logged;
use crate::logical::inventory::{self, ServerFacts};

/// Copies the files of a running server of this machine under a global read lock, with InnoDB at rest
/// from before the first file to behind the last. Nobody can write meanwhile.
#[derive(Debug, Clone)]
pub struct LockedBackup {
    source: ConnectOptions,
    options: LockOptions,
    allow_bad_pages: bool,
}

impl LockedBackup {
    /// A copy of `source`.
    #[must_use]
    pub fn new(source: ConnectOptions, options: LockOptions) -> Self {
        LockedBackup { source, options, allow_bad_pages: false }
    }

    /// Goes on where a page is damaged.
    #[must_use]
    pub fn allow_bad_pages(mut self, allow: bool) -> Self {
        self.allow_bad_pages = allow;
        self
    }

    /// What is done while the server stands still.
    async fn copy(
        &self,
        cx: &Context,
        live: &LiveServer,
        lock: &mut GlobalLock,
        sink: &Arc<dyn ArtifactSink>,
    ) -> Result<(Tree, Position, CopiedPages)> {
        let flavor = live.facts.flavor;
        lock.flush_engine_logs().await?;
        let until = lock.is_lost_at().into_std();
        let Some(level) = rest(cx, lock.session(), flavor, until).await? else {
            return Err(lock.lost());
        };
        let position = lock.position(&live.facts).await?;
        let roots = live.directory.roots();
        let tree = Tree::walk(&roots, false)?;
        tree.refuse_dangling()?;
        absent::refuse_live(&absent::of_definitions(&tree)?)?;
        cx.phase("copying files");
        let pages = copy_in(cx, &tree, sink, &Held::default(), Was::Still).await?;
        live.refuse_unlinked(lock.session()).await?;
        check_still(lock.session(), flavor, level).await?;
        tree.check_unchanged(&roots, false)?;
        Ok((tree, position, pages))
    }
}

#[async_trait]
impl Backup for LockedBackup {
    fn strategy(&self) -> Strategy {
        Strategy::Physical
    }

    async fn preflight(&self, _: &Context) -> Result<Vec<Finding>> {
        let mut findings = privileges(&self.source).await?;
        let live = match LiveServer::find_whole(&self.source).await {
            // Told by then, with the others.
            Err(e) if e.kind() == ErrorKind::Privilege && !findings.is_empty() => {
                return Ok(findings);
            }
            found => found?,
        };
        findings.push(Finding::new(
            Severity::Info,
            "server",
            format!("{} {}", live.facts.flavor, live.facts.version_text),
            "",
        ));
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
        findings.extend(unexpected_finding(&tree.left_out));
        findings.extend(tree.refuse_dangling().err().map(|e| {
            let finding = Finding::new(Severity::Error, "files", e.chain(), e.remedy());
            finding.with_kind(e.kind())
        }));
        let lacking = lacking(&live, &tree).await?;
        findings.extend(absent::refuse_live(&lacking).err().map(|e| {
            let finding = Finding::new(Severity::Error, "files", e.chain(), e.remedy());
            finding.with_kind(e.kind())
        }));
        let mut session = Session::open(&self.source).await?;
        let missing = inventory::missing_for_settings(session.conn(), &live.facts).await?;
        session.close().await?;
        findings.extend(missing.into_iter().map(|missing| {
            let problem = format!(
                "{} has no {} privilege, and cannot have InnoDB write what waits in memory: the copy is refused where \
                 something does",
                self.source.user, missing.name
            );
            Finding::new(Severity::Warning, "privileges", problem, missing.grant)
        }));
        findings.extend(log_bin(&self.source).await?);
        Ok(findings)
    }

    async fn run(&self, cx: &Context, sink: Arc<dyn ArtifactSink>) -> Result<Outcome> {
        let live = LiveServer::find_whole(&self.source).await?;
        // Before anybody has to wait.
        let tree = Tree::walk(&live.directory.roots(), false)?;
        tree.refuse_dangling()?;
        absent::refuse_live(&lacking(&live, &tree).await?)?;
        let mut session = Session::open(&self.source).await?;
        // Most of it is written before anybody has to wait.
        let eager = Eager::begin(cx, &mut session, live.facts.flavor, &self.source).await?;
        let until = Instant::now() + Duration::from_secs(10);
        let refused = match rest(cx, &mut session, live.facts.flavor, until).await {
            // It would not write them under the lock either, and nobody is to wait for that.
            Ok(None) if !eager.allowed => Some(not_at_rest(&mut session, &live.facts).await?),
            rested => rested.err(),
        };
        if let Some(e) = refused {
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
                    (Ok((tree, position, pages)), Ok(held)) => Ok((tree, position, pages, held)),
                    // A lock that was taken away is the cause of what failed after it.
                    (_, Err(e)) => Err(e),
                    (Err(e), Ok(_)) => Err(e),
                }
            }
        };
        let put_back = eager.end().await;
        let (tree, position, pages, held) = copied?;
        let mut warnings = Vec::from_iter(pages.judge(self.allow_bad_pages)?);
        warnings.extend(no_position(&position));
        warnings.extend(unexpected(&tree.left_out));
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
            details: pages.details(),
        })
    }
}

/// Files that tables need and that are not there, of a server that may go on to make and drop some.
pub(crate) async fn lacking(live: &LiveServer, tree: &Tree) -> Result<Vec<String>> {
    let mut missing = absent::of_definitions(tree)?;
    if !missing.is_empty() {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = absent::of_definitions(&Tree::walk(&live.directory.roots(), false)?)?;
        missing.retain(|path| now.contains(path));
    }
    Ok(missing)
}

/// The error where InnoDB has something to write, and the account may not make it.
async fn not_at_rest(session: &mut Session, facts: &ServerFacts) -> Result<Error> {
    let missing = inventory::missing_for_settings(session.conn(), facts).await?;
    let grants: Vec<String> = missing.into_iter().map(|missing| missing.grant).collect();
    Ok(Error::new(
        ErrorKind::Privilege,
        "InnoDB has pages in memory that are not in their files yet, and the account may not have it write them",
    )
    .with_remedy(format!(
        "{}; or SET GLOBAL innodb_max_dirty_pages_pct_lwm=0, GLOBAL innodb_max_dirty_pages_pct=0 as another account, \
         and take the copy when nobody writes",
        grants.join("; ")
    )))
}

/// What the account lacks to lock the server and to see its files, as errors.
pub(crate) async fn privileges(source: &ConnectOptions) -> Result<Vec<Finding>> {
    let mut session = Session::open(source).await?;
    let facts = inventory::server(session.conn()).await?;
    let missing = inventory::missing_for_copies(session.conn(), &facts).await?;
    session.close().await?;
    let finding = |privilege: inventory::Privilege| {
        let problem = format!("{} has no {} privilege", source.user, privilege.name);
        Finding::new(Severity::Error, "privileges", problem, privilege.grant)
            .with_kind(ErrorKind::Privilege)
    };
    Ok(missing.into_iter().map(finding).collect())
}

/// What is to be said of a backup without a position.
pub(crate) fn no_position(position: &Position) -> Option<String> {
    position.is_unknown().then(|| {
        "the position is not known, for the binary log is off: nothing after this backup can be restored"
            .to_owned()
    })
}

/// What is missing for a point in time, if anything.
pub(crate) async fn log_bin(source: &ConnectOptions) -> Result<Vec<Finding>> {
    let mut session = Session::open(source).await?;
    let facts = inventory::server(session.conn()).await?;
    let findings = logged::findings(&mut session, &facts).await?;
    session.close().await?;
    Ok(findings)
}
