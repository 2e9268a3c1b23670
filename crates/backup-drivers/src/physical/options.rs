//! What a tool is asked for, by our own names, and its arguments.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use backup_core::{Error, Result};

use super::tool::Tool;
use crate::files::OPTIONS;
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
/// tells whether no further increment follows, `plugins` where the plugin is that has the keys of encrypted files.
#[must_use]
pub(super) fn prepare_arguments(
    tool: &Tool,
    directory: &Path,
    increment: Option<&Path>,
    last: bool,
    memory: u64,
    plugins: Option<&Path>,
) -> Vec<OsString> {
    // The size of pages, the files of the system tablespace, and the plugin that has the keys, the tool has only from
    // the option file of the backup; of the source's places in there none may be touched.
    let mut arguments: Vec<OsString> = vec![
        option("defaults-file", directory.join(OPTIONS)),
        "--prepare".into(),
        "--innodb-undo-directory=./".into(),
    ];
    arguments.extend(plugins.map(|plugins| option("plugin-dir", plugins)));
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

/// The options of the tools as their manuals and sources have them. `mariadb-backup` is run by other tests; no
/// `xtrabackup` was to be had, so this is the contract with it.
#[cfg(test)]
mod tests {
    use backup_core::ErrorKind;

    use super::super::tool::tests::tool_of;
    use super::*;

    fn everything() -> ToolOptions {
        ToolOptions {
            kill_long_queries: Some(Duration::from_secs(10)),
            wait_for_queries: Some(Duration::from_millis(100)),
            replica_position: true,
            safe_replica: Some(Duration::from_secs(300)),
            galera_position: true,
            throttle: Some(50),
            ..ToolOptions::default()
        }
    }

    fn backup(options: &ToolOptions, tool: &Tool, since: Option<u64>) -> Result<Vec<String>> {
        let (secrets, work) = (Path::new("/s/my.cnf"), Path::new("/s/work"));
        let arguments = options.backup_arguments(tool, secrets, work, 4, since)?;
        Ok(arguments.into_iter().map(|word| word.into_string().unwrap()).collect())
    }

    const COMMON: [&str; 14] = [
        "--defaults-file=/s/my.cnf",
        "--backup",
        "--stream=",
        "--target-dir=/s/work",
        "--parallel=4",
        "--incremental-lsn=77",
        "--kill-long-queries-timeout=10",
        "--kill-long-query-type=SELECT",
        "--ftwrl-wait-timeout=1",
        "--slave-info",
        "--safe-slave-backup",
        "--safe-slave-backup-timeout=300",
        "--galera-info",
        "--throttle=50",
    ];

    #[test]
    fn every_option_of_every_tool() {
        for (dialect, versions) in [
            (Dialect::MariaDb, &[(10, 6, 1), (10, 11, 19), (11, 8, 9)][..]),
            (Dialect::XtraBackup, &[(2, 4, 29), (8, 0, 35), (8, 4, 0), (9, 7, 1)]),
        ] {
            for &version in versions {
                let found = backup(&everything(), &tool_of(dialect, version), Some(77)).unwrap();
                let stream = match dialect {
                    Dialect::MariaDb => "--stream=mbstream",
                    Dialect::XtraBackup => "--stream=xbstream",
                };
                let expected = COMMON.map(|word| if word == "--stream=" { stream } else { word });
                assert_eq!(found, expected, "{version:?}");
            }
        }
        // Nothing that was not asked for, and no name or password.
        let plain =
            backup(&ToolOptions::default(), &tool_of(Dialect::XtraBackup, (8, 0, 35)), None);
        assert_eq!(plain.unwrap().len(), 5);
    }

    #[test]
    fn what_only_some_have_is_asked_of_these() {
        let xtrabackup = |version| tool_of(Dialect::XtraBackup, version);
        let mariadb = tool_of(Dialect::MariaDb, (10, 11, 19));
        let with = |lock_ddl, keep_redo, allow_bad_pages| ToolOptions {
            lock_ddl,
            keep_redo,
            allow_bad_pages,
            ..ToolOptions::default()
        };
        let cases = [
            (with(LockDdl::On, false, false), xtrabackup((2, 4, 29)), Some("--lock-ddl")),
            (with(LockDdl::On, false, false), xtrabackup((8, 0, 35)), Some("--lock-ddl")),
            (with(LockDdl::Off, false, false), xtrabackup((8, 0, 35)), Some("--skip-lock-ddl")),
            (with(LockDdl::Reduced, false, false), xtrabackup((8, 0, 35)), None),
            (with(LockDdl::On, false, false), xtrabackup((8, 4, 0)), Some("--lock-ddl=ON")),
            (with(LockDdl::Off, false, false), xtrabackup((9, 7, 1)), Some("--lock-ddl=OFF")),
            (
                with(LockDdl::Reduced, false, false),
                xtrabackup((8, 4, 0)),
                Some("--lock-ddl=REDUCED"),
            ),
            (with(LockDdl::On, false, false), mariadb.clone(), None),
            (
                with(LockDdl::Default, true, false),
                xtrabackup((8, 0, 30)),
                Some("--register-redo-log-consumer"),
            ),
            (with(LockDdl::Default, true, false), xtrabackup((8, 0, 29)), None),
            (with(LockDdl::Default, true, false), mariadb.clone(), None),
            (with(LockDdl::Default, false, true), mariadb, Some("--log-innodb-page-corruption")),
            (with(LockDdl::Default, false, true), xtrabackup((8, 4, 0)), None),
        ];
        for (options, tool, expected) in cases {
            let found = backup(&options, &tool, None);
            match expected {
                Some(expected) => assert_eq!(found.unwrap()[5..], [expected]),
                None => assert_eq!(found.unwrap_err().kind(), ErrorKind::Usage, "{options:?}"),
            }
        }
    }

    #[test]
    fn prepares_keep_what_increments_follow_on() {
        let prepare = |dialect, increment: Option<&str>, last| {
            let tool = tool_of(dialect, (8, 0, 35));
            let increment = increment.map(Path::new);
            let words =
                prepare_arguments(&tool, Path::new("/data"), increment, last, 1 << 30, None);
            words.into_iter().map(|word| word.into_string().unwrap()).collect::<Vec<_>>()
        };
        let memory = "--use-memory=1073741824";
        let (defaults, undo) =
            ("--defaults-file=/data/backup-my.cnf", "--innodb-undo-directory=./");
        let first = [defaults, "--prepare", undo, "--apply-log-only", "--target-dir=/data", memory];
        assert_eq!(prepare(Dialect::XtraBackup, None, false), first);
        let words = prepare(Dialect::XtraBackup, Some("/i"), false);
        assert!(words.contains(&"--apply-log-only".to_owned()), "{words:?}");
        assert!(words.contains(&"--incremental-dir=/i".to_owned()), "{words:?}");
        let last =
            [defaults, "--prepare", undo, "--target-dir=/data", "--incremental-dir=/i", memory];
        assert_eq!(prepare(Dialect::XtraBackup, Some("/i"), true), last);
        // The other tool has no such option, and needs none.
        assert_eq!(prepare(Dialect::MariaDb, Some("/i"), false), last);
    }

    #[test]
    fn a_prepare_of_encrypted_files_reads_the_option_file_of_the_backup() {
        let tool = tool_of(Dialect::MariaDb, (10, 11, 19));
        let (data, increment, plugins) = (Path::new("/data"), Path::new("/i"), Path::new("/p"));
        let words = prepare_arguments(&tool, data, Some(increment), true, 1 << 30, Some(plugins));
        // The first of them must be the first.
        assert_eq!(
            words,
            [
                "--defaults-file=/data/backup-my.cnf",
                "--prepare",
                "--innodb-undo-directory=./",
                "--plugin-dir=/p",
                "--target-dir=/data",
                "--incremental-dir=/i",
                "--use-memory=1073741824",
            ]
        );
    }
}
