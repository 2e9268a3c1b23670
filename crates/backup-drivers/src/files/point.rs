//! Restored files, brought to a point by the applier of a private server on them, and left for a server of the
//! user's as it leaves them when it is shut down.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use backup_core::{
    Context, Error, ErrorKind, Event, Flavor, GtidSet, Result, SegmentStore, io_error,
};

use super::catalog::Catalog;
use super::drill::OnFiles;
use super::rekey::{Keyring, rekey};
use super::settle::settle;
use crate::binlog::Route;
use crate::binlog::replay::{Applied, ApplyOptions, apply};
use crate::clone::Emptied;
use crate::connect::{ConnectOptions, Session};
use crate::follow::configure;
use crate::sandbox::Sandbox;

/// `innodb_page_size`, where nobody said another.
const DEFAULT_PAGE: u32 = 16 << 10;

/// Applies `route` to the files that `server` is described by, which are restored and stand where the route
/// begins. The server is gone at the end, shut down in order, and so is what it had of its own.
///
/// `emptied` is what came without its rows where the files are a clone's, and the command that goes on from them.
///
/// # Errors
/// As [`Emptied::refuse_route`], before anything is applied; as [`apply`]: what was applied until then stays, and
/// `holdfast binlog apply` can go on from there to a server on the files.
pub async fn bring_to(
    cx: &Context,
    server: OnFiles<'_>,
    store: Arc<dyn SegmentStore>,
    route: Arc<Route>,
    emptied: Option<(Emptied, &str)>,
) -> Result<Applied> {
    let before = names(&server.data)?;
    let server = server.for_binlogs(&route);
    let (install, data) = (server.install, server.data.clone());
    cx.phase(format!("starting {} {}", install.flavor(), install.version()));
    let catalog = server.catalog;
    let opened = server.open(cx).await;
    let (mut sandbox, target) = opened.or_else(|e| gone(cx, e, &data, &before, catalog))?;
    let applied = async {
        if let Some((emptied, apply)) = emptied {
            let emptied = cx.run(emptied.seen_by(&target)).await?;
            emptied.refuse_route(cx, &*store, &route, &data, apply).await?;
        }
        cx.phase("binlogs");
        apply(cx, &target, store, route, &ApplyOptions::private()).await
    };
    let applied = applied.await;
    // Not cut off with the run: what is applied is to be whole.
    let left = leave(&target).await;
    let stopped = sandbox.stop().await;
    let rekeyed = keys_back(&sandbox, &data, catalog);
    drop(sandbox);
    let cleaned = clean(&data, &before, &[]).and_then(|()| settle(&data, catalog));
    let applied = match applied {
        Ok(applied) => applied,
        Err(e) => {
            for problem in [left, stopped, rekeyed, cleaned].into_iter().filter_map(Result::err) {
                cx.event(Event::Warning { text: problem.chain() });
            }
            return Err(e);
        }
    };
    left.and(stopped).and(rekeyed).and(cleaned).map(|()| applied)
}

/// Makes the files, which have the transactions `at`, those of a replica of `source`: the next server that starts
/// on them replicates from there, a MariaDB at once, a MySQL when it is told `START REPLICA`. The server that `server` describes is gone at the end, shut down in order, and so
/// is what it had of its own.
///
/// # Errors
/// When the server does not start on the files, or refuses what it is told.
pub async fn make_replica(
    cx: &Context,
    server: OnFiles<'_>,
    source: &ConnectOptions,
    at: &GtidSet,
) -> Result<()> {
    let before = names(&server.data)?;
    let data = server.data.clone();
    let server = server.for_replication();
    cx.phase(format!("starting {} {}", server.install.flavor(), server.install.version()));
    let catalog = server.catalog;
    let opened = server.open(cx).await;
    let (mut sandbox, target) = opened.or_else(|e| gone(cx, e, &data, &before, catalog))?;
    let configured = configure(&target, source, at).await;
    let left = leave(&target).await;
    let stopped = sandbox.stop().await;
    let rekeyed = keys_back(&sandbox, &data, catalog);
    drop(sandbox);
    configured.and(left).and(stopped).and(rekeyed)?;
    clean(&data, &before, &["master.info", "multi-master.info"])?;
    settle(&data, catalog)
}

impl OnFiles<'_> {
    /// Set up so that it can be told what to replicate.
    fn for_replication(mut self) -> Self {
        let path = |name: &str| self.scratch.join(name).to_string_lossy().into_owned();
        let mut options = vec![("relay_log", path("relay"))];
        match self.install.flavor() {
            Flavor::MySql => {
                options.push(("gtid_mode", "ON".to_owned()));
                options.push(("enforce_gtid_consistency", "ON".to_owned()));
            }
            // Where to go on is in `master.info` among the files; all else is the next server's own.
            Flavor::MariaDb => options.push(("relay_log_info_file", path("relay-log.info"))),
        }
        self.options.extend(options);
        self
    }

    /// Set up so that the transactions of `route` can be applied, with what a replica writes elsewhere than
    /// among the files.
    #[must_use]
    pub fn for_binlogs(mut self, route: &Route) -> Self {
        let path = |name: &str| self.scratch.join(name).to_string_lossy().into_owned();
        let mut options = vec![("relay_log", path("relay"))];
        match self.install.flavor() {
            Flavor::MySql if route.applied.is_some() => {
                options.push(("gtid_mode", "ON".to_owned()));
                options.push(("enforce_gtid_consistency", "ON".to_owned()));
            }
            // Whatever the files say: the transactions have none.
            Flavor::MySql => options.push(("gtid_mode", "OFF".to_owned())),
            Flavor::MariaDb => {
                options.push(("relay_log_info_file", path("relay-log.info")));
                options.push(("master_info_file", path("master.info")));
            }
        }
        self.options.extend(options);
        self
    }
}

/// Has keys that the private server took into its keyring stand in the files again, as in the backup.
fn keys_back(sandbox: &Sandbox, data: &Path, catalog: &Catalog) -> Result<()> {
    let Some(keyring) = sandbox.keyring_file() else { return Ok(()) };
    let page_size = catalog.header.settings.page_size.unwrap_or(DEFAULT_PAGE);
    rekey(data, page_size, &Keyring::read(&keyring)?).map(drop)
}

/// Takes our account away: nobody signs in with it any more.
async fn leave(target: &ConnectOptions) -> Result<()> {
    let mut session = Session::open(target).await?;
    session.run(&format!("DROP USER '{}'@'localhost'", target.user)).await?;
    session.close().await
}

/// The error of a server that did not come up, without what it may have left of its own all the same.
fn gone<T>(
    cx: &Context,
    e: Error,
    data: &Path,
    before: &BTreeSet<OsString>,
    catalog: &Catalog,
) -> Result<T> {
    if let Err(problem) = clean(data, before, &[]).and_then(|()| settle(data, catalog)) {
        cx.event(Event::Warning { text: problem.chain() });
    }
    Err(e)
}

/// Names of what is in a directory.
fn names(directory: &Path) -> Result<BTreeSet<OsString>> {
    let failed = |e| io_error(e, ErrorKind::Target, format!("cannot read {}", directory.display()));
    let entries = std::fs::read_dir(directory).map_err(failed)?;
    entries.map(|entry| entry.map(|entry| entry.file_name()).map_err(failed)).collect()
}

/// Takes away what says who the private server was, but `kept`: the next one is somebody else.
fn clean(directory: &Path, before: &BTreeSet<OsString>, kept: &[&str]) -> Result<()> {
    for name in names(directory)?.difference(before) {
        let Some(text) = name.to_str() else { continue };
        let ours =
            matches!(text, "auto.cnf" | "multi-master.info" | "master.info" | "relay-log.info")
                || text.ends_with(".pem")
                || text.starts_with("relay.")
                || text.starts_with("relay-");
        if ours && !kept.contains(&text) {
            let path = directory.join(name);
            std::fs::remove_file(&path).map_err(|e| {
                io_error(e, ErrorKind::Target, format!("cannot remove {}", path.display()))
            })?;
        }
    }
    Ok(())
}
