//! Verification: levels, findings, reports.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::artifact::ArtifactSource;
use crate::context::Context;
use crate::error::{ErrorKind, Result};
use crate::manifest::Manifest;

/// How deep a verification looks; each level includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Every object of the backup is there and has the right length.
    Objects,
    /// Every byte was read, and matches the digests.
    Content,
    /// The content means what it should: structure, rows, digests of rows.
    Logical,
    /// A server was started on it and every table read.
    Drill,
}

impl Level {
    /// The word used in JSON and on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Objects => "objects",
            Level::Content => "content",
            Level::Logical => "logical",
            Level::Drill => "drill",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Needs a look; the work can be done.
    Warning,
    /// The work cannot be done, or a backup is damaged.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// One thing found by a check or a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about: an object of the repository, a table, a setting.
    pub object: String,
    /// What is wrong.
    pub problem: String,
    /// What to do.
    pub remedy: String,
    /// The kind of error a run would end with because of it; for the exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<ErrorKind>,
}

impl Finding {
    /// A finding of `severity`.
    pub fn new(
        severity: Severity,
        object: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Finding {
            severity,
            object: object.into(),
            problem: problem.into(),
            remedy: remedy.into(),
            kind: None,
        }
    }

    /// Says which kind of error a run would end with because of it.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = Some(kind);
        self
    }
}

/// The result of one verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The level that was reached.
    pub level: Level,
    /// What was found; worst first is up to the printer.
    pub findings: Vec<Finding>,
    /// How much was read, where it was not everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled: Option<Sampled>,
    /// Why the proof is not in the history; `None` where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unrecorded: Option<String>,
}

/// What a verification read of a backup when it did not read all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sampled {
    /// How many packs were read.
    pub packs: u64,
    /// How many the backup has, or needs of other backups.
    pub of: u64,
    /// Length of the packs that were read, in bytes.
    pub bytes: u64,
    /// A sample like this on each of so many days has looked at every pack once.
    pub days: u64,
}

impl Report {
    /// A report about everything that `level` looks at.
    #[must_use]
    pub fn new(level: Level, findings: Vec<Finding>) -> Self {
        Report { level, findings, sampled: None, unrecorded: None }
    }

    /// True when nothing of severity [`Severity::Error`] was found.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.findings.iter().all(|f| f.severity < Severity::Error)
    }
}

/// A way to verify a backup.
#[async_trait]
pub trait Verifier: Send + Sync {
    /// The level this verifier stands for.
    fn level(&self) -> Level;

    /// Verifies one backup. Damage is a finding, not an `Error`; the verifier goes on after it.
    ///
    /// # Errors
    /// Only when the verification itself could not be carried out.
    async fn verify(
        &self,
        cx: &Context,
        backup: &Manifest,
        artifacts: Arc<dyn ArtifactSource>,
    ) -> Result<Report>;
}
