//! What the pipeline needs of a repository; `backup-storage` implements it.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::artifact::{ArtifactSink, ArtifactSource};
use crate::context::Context;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BackupId, BackupType, ClusterName, Strategy};
use crate::manifest::{Manifest, Outcome};
use crate::verify::{Finding, Level, Sampled};

/// What a new backup will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupSpec {
    /// The cluster it belongs to.
    pub cluster: ClusterName,
    /// How it is made.
    pub strategy: Strategy,
    /// How much it holds by itself.
    pub backup_type: BackupType,
    /// The backup it builds on; `None` for a full one.
    pub parent: Option<BackupId>,
}

/// A backup as the repository lists it. A manifest that cannot be read does not hide the others.
#[derive(Debug)]
pub struct Listed {
    /// The cluster.
    pub cluster: ClusterName,
    /// The backup.
    pub backup: BackupId,
    /// Its manifest, or why it cannot be read.
    pub manifest: Result<Manifest>,
}

/// An entry of a cluster's history. Never rewritten.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When it happened.
    pub time: Timestamp,
    /// The backup it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupId>,
    /// What happened.
    #[serde(flatten)]
    pub event: RecordEvent,
}

/// What a [`Record`] tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum RecordEvent {
    /// A backup was verified.
    Proof {
        /// The level of the verification.
        level: Level,
        /// Whether no error was found.
        ok: bool,
        /// What was found.
        findings: Vec<Finding>,
        /// How long it took, in seconds.
        duration_seconds: f64,
        /// How much was read where it was only a sample: no proof of the whole.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sampled: Option<Sampled>,
    },
    /// A copy of a backup was written elsewhere.
    Copied {
        /// Where: the address without secrets.
        to: String,
        /// The id of the repository there, 32 hex digits. The same as this one's: a copy byte for
        /// byte.
        repository: String,
        /// Length of what the copy holds there, in bytes.
        bytes: u64,
        /// Whether all of it was read back and compared.
        verified: bool,
    },
    /// A run failed before it made a backup.
    FailedRun {
        /// The exit code of the error's kind.
        exit_code: u8,
        /// The error's report.
        error: String,
    },
}

impl RecordEvent {
    /// The word that names a proof.
    pub const PROOF: &'static str = "proof";

    /// Whether it proves that every byte of a backup is what it was: a verification of level
    /// `content` or above, of all of it, that found no error.
    #[must_use]
    pub fn proves_content(&self) -> bool {
        matches!(self, RecordEvent::Proof { level, ok: true, sampled: None, .. }
            if *level >= Level::Content)
    }

    /// The word that names the kind in an object's name.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            RecordEvent::Proof { .. } => Self::PROOF,
            RecordEvent::Copied { .. } => "copied",
            RecordEvent::FailedRun { .. } => "failed-run",
        }
    }
}

/// A repository of backups.
#[async_trait]
pub trait Repository: Send + Sync {
    /// Every backup (of one cluster, or of all), sorted by id. A backup exists if and only if its
    /// manifest does: unfinished ones are not listed.
    async fn backups(&self, cx: &Context, cluster: Option<&ClusterName>) -> Result<Vec<Listed>>;

    /// The artifacts of a backup.
    async fn artifacts(&self, cx: &Context, manifest: &Manifest)
    -> Result<Arc<dyn ArtifactSource>>;

    /// Begins a backup.
    async fn begin(&self, cx: &Context, spec: BackupSpec) -> Result<Arc<dyn BackupSession>>;

    /// Adds to the history of a cluster.
    async fn record(&self, cx: &Context, cluster: &ClusterName, record: &Record) -> Result<()>;

    /// The history of a cluster, oldest first. Records that cannot be read are left out with a
    /// warning to the monitor.
    async fn records(&self, cx: &Context, cluster: &ClusterName) -> Result<Vec<Record>>;
}

/// A backup being written. Until [`commit`](Self::commit) has returned there is no backup; whatever
/// happens before leaves every other backup as it was.
#[async_trait]
pub trait BackupSession: ArtifactSink {
    /// The id of the backup-to-be.
    fn id(&self) -> &BackupId;

    /// Writes what is left, then the index, then the manifest. All artifacts must be finished; a
    /// second call is an error.
    async fn commit(&self, outcome: Outcome) -> Result<Manifest>;

    /// Gives the backup up, and removes what was written of it as far as the store allows; unless a
    /// checkpoint was made and something is there that a later backup can go on from. True when that
    /// stays.
    async fn abort(&self) -> Result<bool>;
}

/// Which backup a user means: an id, a unique prefix of one, or `latest`.
///
/// `listed` must be sorted by id. `latest` is the newest one even when its manifest is damaged: to
/// fall back to an older backup is the user's decision.
///
/// # Errors
/// A usage error when nothing or more than one backup fits; the manifest's own error when it cannot
/// be read.
pub fn select(listed: Vec<Listed>, wanted: &str) -> Result<Manifest> {
    if listed.is_empty() {
        return Err(Error::usage("there is no backup here")
            .with_remedy("check --repo and --cluster; `holdfast list` shows every backup"));
    }
    if wanted.is_empty() {
        return Err(Error::usage("the id of the backup is empty")
            .with_remedy("give an id from `holdfast list`, a unique prefix of one, or `latest`"));
    }
    let mut fitting: Vec<Listed> = if wanted == "latest" {
        listed.into_iter().next_back().into_iter().collect()
    } else {
        listed.into_iter().filter(|l| l.backup.as_str().starts_with(wanted)).collect()
    };
    match (fitting.pop(), fitting.pop()) {
        (Some(one), None) => {
            one.manifest.map_err(|e| e.context(format!("backup {} cannot be used", one.backup)))
        }
        (Some(a), Some(b)) => Err(Error::usage(format!(
            "`{wanted}` fits more than one backup, among them {} and {}",
            b.backup, a.backup
        ))
        .with_remedy("give more of the id")),
        _ => Err(Error::new(ErrorKind::Usage, format!("there is no backup `{wanted}`"))
            .with_remedy("take an id from `holdfast list`")),
    }
}
