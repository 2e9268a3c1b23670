//! Tables and their rows into a target: created, loaded over several connections, completed.
//!
//! ```text
//! create   tables as their way of loading wants them: Way, shape
//! units    rows, each unit in one transaction with its mark in the progress: exactly once
//! finish   indexes that were left out, statistics, as soon as a table has its rows
//! keys     foreign keys that were left out, when every table is whole
//! counters what AUTO_INCREMENT gives next, where rows had been taken back
//! ```
//!
//! The tables are those of the backup under the names that they have at the target.

mod alter;
mod documents;
mod patience;
mod progress;
mod rows;
mod session;
mod shape;
mod tables;
mod work;

pub(super) use alter::{add_foreign_keys, set_counters};
pub(super) use progress::{Mark, Progress, State};
pub(super) use rows::{column_list, text_formats};
pub(super) use session::{
    LoadSettings, RedoLog, allow_local_infile, forbid_local_infile, has_binary_log, is_clustered,
    logs_statements,
};
pub(super) use shape::{Shape, Way};
pub(super) use tables::{chosen, create_tables, not_ours, referenced};
pub(super) use work::Load;
