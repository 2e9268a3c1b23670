//! The traits that strategies implement.

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::artifact::{ArtifactSink, ArtifactSource};
use crate::context::Context;
use crate::error::Result;
use crate::id::Strategy;
use crate::manifest::{Manifest, Outcome};
use crate::position::Position;
use crate::verify::Finding;

/// A way to read a source into artifacts.
#[async_trait]
pub trait Backup: Send + Sync {
    /// Which strategy this is.
    fn strategy(&self) -> Strategy;

    /// Looks at the source before anything is written: version, privileges, settings, space. Gives
    /// every finding, each with a remedy; an `Error` only when the source cannot be examined.
    ///
    /// # Errors
    /// When the source cannot be reached or examined.
    async fn preflight(&self, cx: &Context) -> Result<Vec<Finding>>;

    /// Reads the source into `sink`. Whatever it changed at the source (locks, stopped appliers) is
    /// put back on every way out. Ends soon after `cx` is cancelled, by itself: the pipeline does
    /// not drop it.
    ///
    /// # Errors
    /// When the source fails, changes in a way that spoils the backup, or the sink fails.
    async fn run(&self, cx: &Context, sink: Arc<dyn ArtifactSink>) -> Result<Outcome>;
}

/// A way to bring artifacts back to life.
#[async_trait]
pub trait Restore: Send + Sync {
    /// Says what [`run`](Self::run) would do, and fails where it would: a target that is not empty,
    /// a missing privilege, too little space.
    ///
    /// # Errors
    /// [`ErrorKind::Target`](crate::ErrorKind::Target) and others, before a byte is written.
    async fn plan(
        &self,
        cx: &Context,
        manifest: &Manifest,
        artifacts: Arc<dyn ArtifactSource>,
    ) -> Result<RestoreSteps>;

    /// Restores, then compares what the target holds with the digests of the backup. Ends soon
    /// after `cx` is cancelled, by itself: the pipeline does not drop it.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](crate::ErrorKind::Damaged) when the target does not hold what was
    /// backed up, and whatever target and source of the artifacts fail with.
    async fn run(
        &self,
        cx: &Context,
        manifest: &Manifest,
        artifacts: Arc<dyn ArtifactSource>,
    ) -> Result<Restored>;
}

/// What a restore would do, for `--dry-run`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreSteps {
    /// One line a step, in order.
    pub steps: Vec<String>,
    /// What would be destroyed, one line an object; empty without `--overwrite`.
    pub destroys: Vec<String>,
    /// What of the backup the target would take otherwise than it was.
    #[serde(default)]
    pub findings: Vec<Finding>,
}

/// What a restore did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Restored {
    /// Where the data went, without credentials.
    pub target: String,
    /// The point that the target now stands at.
    pub reached: Position,
    /// Rows written.
    pub rows: u64,
    /// Bytes of artifacts that were read.
    pub bytes: u64,
    /// What needs a look.
    pub warnings: Vec<String>,
}
