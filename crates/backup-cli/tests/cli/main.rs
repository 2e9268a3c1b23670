//! The command line as its users meet it: arguments in; exit code, standard output and standard
//! error out. Servers, where a test needs one, are real.

#![expect(clippy::unwrap_used, reason = "a test ends at what it does not expect")]

mod backup;
mod backup_killed;
mod binlog;
mod binlog_allowed;
mod binlog_damage;
mod binlog_histories;
mod binlog_kill;
mod binlog_kin;
mod binlog_points;
mod binlog_rescue;
mod binlog_stream;
mod check;
mod clone;
mod compared;
mod completions;
mod config;
mod copy;
mod crash;
mod damaged;
mod engines;
mod export;
mod files;
mod files_aria;
mod files_elsewhere;
mod files_point;
mod files_replica;
mod files_system;
mod foreseen;
mod home;
mod init;
mod interrupt;
mod keys;
mod left_out;
mod list;
mod masked;
mod prompt;
mod python;
mod restore;
mod restore_allowed;
mod restore_killed;
mod server;
mod server_config;
mod server_killed;
mod show;
mod snapshots;
mod table_locks;
mod target_settings;
mod tool;
mod usage;
mod verify;
