//! The commands, one file each: flags, the calls into the libraries, and the answer.

pub(crate) mod backup;
mod backup_clone;
mod backup_files;
mod backup_tool;
mod backup_ways;
pub(crate) mod binlog;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod copy;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod init;
pub(crate) mod key;
pub(crate) mod list;
pub(crate) mod man;
mod new_replica;
pub(crate) mod point;
pub(crate) mod prune;
pub(crate) mod repair;
pub(crate) mod restore;
mod restore_files;
mod restored;
pub(crate) mod show;
pub(crate) mod thaw;
pub(crate) mod tier;
mod time;
pub(crate) mod verify;
