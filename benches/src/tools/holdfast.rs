//! `holdfast` itself, as a user would run it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backup_core::{Error, ErrorKind, Result, io_error};
use jiff::Timestamp;
use serde_json::Value;

use crate::server::Server;
use crate::shop;

/// The release build of the command line.
pub(crate) struct Holdfast {
    program: PathBuf,
    /// What it compresses with, if not with its default.
    compression: Option<String>,
}

/// The cluster of the benchmarks' backups.
const CLUSTER: &str = "bench";

impl Holdfast {
    /// Builds it.
    pub(crate) fn build() -> Result<Holdfast> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(["build", "--release", "--locked", "--package", "backup-cli"])
            .args(["--message-format", "json-render-diagnostics"])
            .stderr(Stdio::inherit())
            .output()
            .map_err(|e| io_error(e, ErrorKind::Internal, "cannot run cargo"))?;
        if !output.status.success() {
            return Err(Error::internal("holdfast cannot be built"));
        }
        let program = String::from_utf8_lossy(&output.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .ok_or_else(|| Error::internal("cargo named no program"))?;
        Ok(Holdfast::at(program))
    }

    /// One that is there already.
    pub(crate) fn at(program: PathBuf) -> Holdfast {
        Holdfast { program, compression: None }
    }

    /// The same with another compression.
    pub(crate) fn with(self, compression: Option<String>) -> Holdfast {
        Holdfast { compression, ..self }
    }

    /// What it is called in a report.
    pub(crate) fn describe(&self) -> String {
        self.compression.as_ref().map(|how| format!(", {how}")).unwrap_or_default()
    }

    /// Makes a repository.
    pub(crate) fn init(&self, repository: &Path) -> Result<()> {
        let output = self
            .command(repository)
            .args(["init", "--no-encryption"])
            .output()
            .map_err(|e| io_error(e, ErrorKind::Internal, "cannot run holdfast"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(Error::internal("holdfast cannot make a repository").with_source(said))
    }

    /// The command that backs the database up.
    pub(crate) fn backup(&self, server: &Server, repository: &Path) -> Command {
        let mut command = self.command(repository);
        command.args(["backup", "--progress", "json", "--json", "--cluster", CLUSTER]);
        command.args(["--source", &server.url(), "--databases", shop::DATABASE]);
        command.args(self.compression.iter().flat_map(|how| ["--compression", how]));
        command
    }

    /// The command that restores the latest backup.
    pub(crate) fn restore(&self, server: &Server, repository: &Path) -> Command {
        let mut command = self.command(repository);
        command.args(["restore", "latest", "--progress", "json", "--json", "--cluster", CLUSTER]);
        command.args(["--target", &server.url()]);
        command
    }

    /// A command on a repository, with an empty environment.
    pub(crate) fn command(&self, repository: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().env("HOLDFAST_REPO", repository).stdin(Stdio::null());
        command
    }
}

/// A part of holdfast's work.
#[derive(Debug, PartialEq)]
pub(crate) struct Phase {
    /// Its name.
    pub(crate) name: String,
    /// How long it took, in seconds.
    pub(crate) seconds: f64,
}

/// The phases that `--progress json` told: each lasts until the next begins, the last one until
/// the last line.
pub(crate) fn phases(log: &str) -> Vec<Phase> {
    let mut begun: Vec<(String, Timestamp)> = Vec::new();
    let mut last = None;
    for line in log.lines() {
        let Ok(line) = serde_json::from_str::<Value>(line) else { continue };
        let Some(time) = line["time"].as_str().and_then(|t| t.parse().ok()) else { continue };
        last = Some(time);
        if line["event"] == "phase" {
            begun.push((line["name"].as_str().unwrap_or_default().to_owned(), time));
        }
    }
    let ends = begun.iter().skip(1).map(|(_, time)| *time).chain(last);
    let phases = begun.iter().zip(ends).map(|((name, began), ended)| Phase {
        name: name.clone(),
        seconds: ended.duration_since(*began).as_secs_f64(),
    });
    phases.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_last_until_the_next_one() {
        let log = r#"{"time":"2026-11-20T10:00:00Z","event":"phase","name":"load"}
not json
{"time":"2026-11-20T10:00:01.5Z","event":"progress","rows":1}
{"time":"2026-11-20T10:00:02Z","event":"phase","name":"check"}
{"time":"2026-11-20T10:00:02.25Z","event":"progress","rows":2}
"#;
        let phase = |name: &str, seconds| Phase { name: name.into(), seconds };
        assert_eq!(phases(log), [phase("load", 2.0), phase("check", 0.25)]);
        assert_eq!(phases(""), []);
    }
}
