//! The logical strategy: rows and definitions, read and written by SQL.

mod account;
mod backup;
mod catalog;
mod census;
mod check;
mod damage;
mod ddl;
mod documents;
mod drill;
mod dump;
mod examine;
mod export;
mod fingerprint;
mod identity;
mod idle;
pub mod inventory;
mod load;
mod mask;
mod no_text;
mod outcome;
mod pace;
mod pattern;
mod plan;
mod prepared;
mod reader;
pub mod recreate;
mod remember;
mod rename;
mod replica;
mod restore;
mod resume;
mod scan;
mod scope;
mod select;
mod settings;
mod snapshot;
mod waits;

pub use account::{Account, AccountName, GrantedRole};
pub use backup::{LogicalBackup, LogicalOptions};
pub use catalog::{
    CATALOG, Catalog, Chunk, Column, Database, Header, LoadMode, Object, SequenceState, StoredKind,
    StoredObject, Table,
};
pub use census::Census;
pub use damage::OnCorrupt;
pub(crate) use ddl::{Code, Demand, Dialect, Place, Reach, Touch, Wanted};
pub use drill::{DrillReport, drill};
pub use examine::examine;
pub use export::{ExportFormat, ExportOptions, Exported, export, export_artifacts};
pub use idle::IdleSource;
pub use mask::{MaskRule, MaskRules, MaskWith};
pub use no_text::{InvalidText, NoText};
pub use pace::Throttle;
pub use pattern::{Glob, TableGlob};
pub use recreate::sequences;
pub use rename::{Rename, RenameRule};
pub use replica::Applied;
pub(crate) use replica::{followed, refuse_until_at as refuse_until};
pub use restore::{Known, LogicalRestore, LogicalRestoreOptions, Parts};
pub use scope::Scope;
pub use select::{SYSTEM_DATABASES, Selection, TableName, quote_name, split_name};
pub use snapshot::{LongQueries, SnapshotOptions};
pub(crate) use snapshot::{clear_long_queries, current_position, logged_until};
