//! File-level backups: the files of a data directory as artifacts, and back.
//!
//! ```text
//! DataDirectory → Tree → one artifact a file, and the Catalog        (cold copy, lock-and-copy, snapshot)
//! Catalog → Target → files, synced, with their owners                (restore, also of changes only)
//! ```
//!
//! Every way that copies the files of a server shares the catalog, the restore and the drill; they
//! differ in how the files come to be of one moment.

pub(crate) mod absent;
mod catalog;
mod changes;
mod cold;
mod copy;
mod directory;
mod drill;
mod due;
mod elsewhere;
mod encrypted;
mod fit;
mod idle;
mod key_plugin;
mod left_out;
pub(crate) mod live;
pub(crate) mod lock;
pub(crate) mod locked;
mod names;
mod place;
mod point;
mod recover;
mod redo;
mod rekey;
mod restore;
mod settle;
mod still;
mod stream;
pub(crate) mod system;
mod target;
mod transport;
pub(crate) mod tree;
mod unclosed;
mod whole;

pub use catalog::{
    CATALOG, CATALOG_FORMAT, Catalog, Entry, Header, Kind, LeftOut, Settings, State,
};
pub(crate) use changes::ChangesWriter;
pub(crate) use cold::objects as count_objects;
pub use cold::{ColdBackup, ColdOptions};
pub(crate) use copy::copy_tree;
pub use directory::DataDirectory;
pub use drill::{OnFiles, data, drill, has_room, starts_by_itself};
pub use encrypted::is_encrypted;
pub use fit::{Successor, advice};
pub(crate) use key_plugin::{KeyPlugin, OPTIONS};
pub(crate) use left_out::unexpected;
pub use lock::LockOptions;
pub use locked::LockedBackup;
pub use point::{bring_to, make_replica};
pub use restore::{FilesRestore, FilesRestoreOptions};
pub(crate) use settle::settle;
pub use stream::export_stream;
pub use target::Mark;
pub(crate) use target::Room;
pub use transport::Transport;
pub use whole::WholeFile;
