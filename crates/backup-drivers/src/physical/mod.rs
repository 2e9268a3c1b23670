//! Physical backups by the servers' own tools: `mariadb-backup` and `xtrabackup`, one adapter, two dialects.
//!
//! ```text
//! tool ─ stdout ─▶ stream ─▶ a task a file: page checks ─▶ artifacts, catalog     (nothing on disk)
//!      └ stderr ─▶ log: progress, locks, warnings, errors
//! full, increments ─▶ files ─▶ prepare ─▶ a data directory                         (restore)
//! ```
//!
//! A tool is believed only when everything says the same: its exit code, the last line of its log, every
//! file of the stream to its end, the metadata files, the LSNs in them, and what tables the server has.

mod backup;
mod complete;
mod demux;
mod details;
mod history;
mod log;
mod metadata;
mod options;
mod preflight;
mod prepare;
mod restore;
mod run;
mod secret;
mod tool;

pub use backup::PhysicalBackup;
pub(crate) use complete::{CHECKPOINT, some};
pub use details::{Parent, PhysicalDetails, details};
pub use log::{Line, LogEvent, Severity as LogSeverity, diagnose};
pub use metadata::{Checkpoints, binlog_position, info_value};
pub use options::{LockDdl, ToolOptions};
pub use restore::{Link, PhysicalRestore, check_lsn_chain};
pub use tool::{Tool, ToolVersion};
