//! What a tool is asked for, by our own names, and its arguments.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use backup_core::{Error, Result};

use super::tool::Tool;
use crate::xbstream::Dialect;

/// When DDL of others is kept off (`xtrabackup` only; MariaDB's `BACKUP STAGE` needs no choice).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LockDdl {
    /// As the tool does by itself.
    #[default]
    Default,
    /// All the time.
    On,
    /// Only at the end; what changed before is copied again. XtraBackup 8.4 and later.
    Reduced,
    /// Never: DDL in mid-backup fails it.
    Off,
}

/// How a tool is to read the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOptions {
    /// When DDL is kept off.
    pub lock_ddl: LockDdl,
    /// Statements that hold the lock up for longer than this are killed (SELECTs).
    pub kill_long_queries: Option<Duration>,
    /// How long to wait for long statements before the lock is asked for.
    pub wait_for_queries: Option<Duration>,
    /// A lock that blocks commits longer than this fails the backup, which gives it back.
    pub lock_deadline: Duration,
    /// Keeps the position in the source of a replica, too.
    pub replica_position: bool,
    /// Stops the applier of a replica while it has temporary tables open; waits that long for them.
    pub safe_replica: Option<Duration>,
    /// Keeps the state of a Galera node.
    pub galera_position: bool,
    /// Makes the server keep its redo log until it is copied (`xtrabackup` 8.0.30 and later).
    pub keep_redo: bool,
    /// Pairs of reads and writes a second.
    pub throttle: Option<u32>,
    /// Goes on when a page of the source is damaged, and says so.
    pub allow_bad_pages: bool,
}

impl Default for ToolOptions {
    fn default() -> Self {
        ToolOptions {
            lock_ddl: LockDdl::Default,
            kill_long_queries: None,
            wait_for_queries: None,
            lock_deadline: Duration::from_secs(120),
            replica_position: false,
            safe_replica: None,
            galera_position: false,
            keep_redo: false,
            throttle: None,
            allow_bad_pages: false,
        }
    }
}

fn option(name: &str, value: impl AsRef<std::ffi::OsStr>) -> OsString {
    let mut option = OsString::from(format!("--{name}="));
    option.push(value);
    option
}

impl ToolOptions {
    /// The arguments of a backup into a stream. `secrets` is the private option file, `work` a private
    /// directory for what the tool keeps meanwhile, `since` the LSN that an increment begins at.
    ///
    /// # Errors
    /// A usage error for what this tool does not have.
    pub fn backup_arguments(
        &self,
        tool: &Tool,
        secrets: &Path,
        work: &Path,
        threads: usize,
        since: Option<u64>,
    ) -> Result<Vec<OsString>> {
        let xtrabackup = tool.dialect() == Dialect::XtraBackup;
        let version = tool.version().own;
        // It must be the first.
        let mut arguments = vec![option("defaults-file", secrets), "--backup".into()];
        arguments.push(match tool.dialect() {
            Dialect::XtraBackup => "--stream=xbstream".into(),
            Dialect::MariaDb => "--stream=mbstream".into(),
        });
        arguments.push(option("target-dir", work));
        arguments.push(option("parallel", threads.max(1).to_string()));
        if let Some(lsn) = since {
            arguments.push(option("incremental-lsn", lsn.to_string()));
        }
        let seconds = |duration: Duration| duration.as_secs().max(1).to_string();
        if let Some(limit) = self.kill_long_queries {
            arguments.push(option("kill-long-queries-timeout", seconds(limit)));
            arguments.push("--kill-long-query-type=SELECT".into());
        }
        if let Some(limit) = self.wait_for_queries {
            arguments.push(option("ftwrl-wait-timeout", seconds(limit)));
        }
        if self.replica_position {
            arguments.push("--slave-info".into());
        }
        if let Some(limit) = self.safe_replica {
            arguments.push("--safe-slave-backup".into());
            arguments.push(option("safe-slave-backup-timeout", seconds(limit)));
        }
        if self.galera_position {
            arguments.push("--galera-info".into());
        }
        if let Some(throttle) = self.throttle {
            arguments.push(option("throttle", throttle.to_string()));
        }
        if self.allow_bad_pages {
            if xtrabackup {
                return Err(lacks(tool, "takes no damaged pages"));
            }
            arguments.push("--log-innodb-page-corruption".into());
        }
        if self.keep_redo {
            if !xtrabackup || version < (8, 0, 30) {
                return Err(lacks(tool, "cannot make a server keep its redo log"));
            }
            arguments.push("--register-redo-log-consumer".into());
        }
        arguments.extend(self.lock_ddl(tool)?);
        Ok(arguments)
    }

    fn lock_ddl(&self, tool: &Tool) -> Result<Option<OsString>> {
        let version = tool.version().own;
        let argument = match (self.lock_ddl, tool.dialect()) {
            (LockDdl::Default, _) => None,
            (_, Dialect::MariaDb) => {
                return Err(lacks(tool, "always follows DDL, and takes no choice"));
            }
            (LockDdl::Reduced, Dialect::XtraBackup) if version < (8, 4, 0) => {
                return Err(lacks(tool, "cannot lock DDL at the end only"));
            }
            (LockDdl::Reduced, _) => Some("--lock-ddl=REDUCED"),
            (LockDdl::On, _) if version < (8, 4, 0) => Some("--lock-ddl"),
            (LockDdl::On, _) => Some("--lock-ddl=ON"),
            (LockDdl::Off, _) if version < (8, 4, 0) => Some("--skip-lock-ddl"),
            (LockDdl::Off, _) => Some("--lock-ddl=OFF"),
        };
        Ok(argument.map(Into::into))
    }
}

fn lacks(tool: &Tool, what: &str) -> Error {
    let (major, minor, patch) = tool.version().own;
    Error::usage(format!("{} {major}.{minor}.{patch} {what}", tool.name()))
}

/// The arguments of a prepare of `directory`, with the increment in `increment` applied to it. `last`
/// tells whether no further increment follows.
#[must_use]
pub(super) fn prepare_arguments(
    tool: &Tool,
    directory: &Path,
    increment: Option<&Path>,
    last: bool,
    memory: u64,
) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["--no-defaults".into(), "--prepare".into()];
    // MariaDB's tool needs no preparation of what increments follow on.
    if !last && tool.dialect() == Dialect::XtraBackup {
        arguments.push("--apply-log-only".into());
    }
    arguments.push(option("target-dir", directory));
    if let Some(increment) = increment {
        arguments.push(option("incremental-dir", increment));
    }
    arguments.push(option("use-memory", memory.to_string()));
    arguments
}
