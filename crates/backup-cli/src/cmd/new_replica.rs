//! `restore --as-replica-of`: the restored server goes on as a replica.

use backup_core::{Context, Error, ErrorKind, Flavor, GtidSet, Manifest, ReplayBase, Result};
use backup_drivers::connect::ConnectOptions;
use backup_drivers::follow::{Following, can_be_followed, can_follow, follow};
use serde_json::{Value, json};

use super::point::Way;
use crate::login::Server;

/// The source that the target is made a replica of.
pub(super) struct NewReplica {
    pub(super) source: ConnectOptions,
}

impl NewReplica {
    /// Of the address that the flag names.
    pub(super) async fn of(cx: &Context, url: &str) -> Result<Self> {
        let source = Server {
            role: "source",
            variable: "HOLDFAST_SOURCE_PASSWORD",
            url: Some(url),
            defaults_file: None,
        };
        Ok(NewReplica { source: source.resolve(cx).await? })
    }

    /// The transactions that the target has when everything is restored and applied.
    pub(super) fn start(manifest: &Manifest, way: Option<&Way>) -> Option<GtidSet> {
        let reached = way.and_then(|way| way.route.reached.clone());
        reached.or_else(|| manifest.outcome.position.gtid.clone())
    }

    /// Fails where nobody knows that.
    fn known(manifest: &Manifest) -> Result<()> {
        if !manifest.outcome.position.gtid_unknown {
            return Ok(());
        }
        let problem = format!("which transactions {} has is not known", manifest.backup);
        Err(Error::new(ErrorKind::Unreachable, problem).with_remedy(
            "take another backup; or start a server on what it restores, which knows, and make that a replica \
             (CHANGE REPLICATION SOURCE TO … SOURCE_AUTO_POSITION = 1)",
        ))
    }

    /// Whether it will go on from there.
    pub(super) async fn check(
        &self,
        cx: &Context,
        target: &ConnectOptions,
        manifest: &Manifest,
        way: Option<&Way>,
    ) -> Result<()> {
        NewReplica::known(manifest)?;
        let at = NewReplica::start(manifest, way);
        let base = ReplayBase::of(manifest);
        cx.run(can_follow(cx, target, &self.source, &base, at.as_ref())).await
    }

    /// Whether a server on the restored files could go on from there.
    pub(super) async fn check_source(
        &self,
        cx: &Context,
        manifest: &Manifest,
        way: Option<&Way>,
    ) -> Result<()> {
        NewReplica::known(manifest)?;
        let at = NewReplica::start(manifest, way);
        let flavor = manifest.outcome.source.flavor;
        let base = ReplayBase::of(manifest);
        cx.run(can_be_followed(cx, &self.source, flavor, &base, at.as_ref())).await
    }

    /// Starts it and waits until it has caught up.
    pub(super) async fn start_following(
        &self,
        cx: &Context,
        target: &ConnectOptions,
        manifest: &Manifest,
        way: Option<&Way>,
    ) -> Result<Following> {
        cx.phase("catching up");
        let at = NewReplica::start(manifest, way)
            .unwrap_or_else(|| GtidSet::empty(manifest.outcome.source.flavor));
        follow(cx, target, &self.source, &at)
            .await
            .map_err(|e| e.context("everything is restored; the target does not replicate yet"))
    }

    /// The line of a plan.
    pub(super) fn step(&self) -> String {
        format!(
            "Then it is made a replica of {}, and waited for until it has caught up.\n",
            self.source
        )
    }

    /// What is said at the end of a directory.
    pub(super) fn done_files(&self, flavor: Flavor) -> String {
        let start = match flavor {
            Flavor::MySql => "; `START REPLICA` there begins it",
            Flavor::MariaDb => "; it begins at once",
        };
        format!(
            "A server that is started on it, with a server_id of its own, is a replica of {}{start}.\n",
            self.source
        )
    }

    pub(super) fn as_json(&self, following: Option<&Following>) -> Value {
        json!({
            "source": self.source.to_string(),
            "gtid": following.map(|following| &following.gtid),
            "lag_seconds": following.and_then(|following| following.lag_seconds),
        })
    }

    /// What is said at the end.
    pub(super) fn done(&self, following: &Following) -> String {
        // What the source wrote meanwhile, and how old that is, a replica tells by its own clock.
        let lag = match following.lag_seconds {
            Some(0) | None => String::new(),
            Some(seconds) => format!("; it says that it is {seconds} s behind"),
        };
        format!("It replicates from {}, and has what that had when it began{lag}.\n", self.source)
    }
}
