//! The logical strategy: rows and definitions, read and written by SQL.

mod catalog;
mod ddl;
mod dump;
pub mod inventory;
mod load;
mod plan;
mod reader;
mod rename;
mod scan;
mod select;
mod settings;

pub use catalog::{
    CATALOG, Catalog, Chunk, Column, Database, Header, LoadMode, Object, SequenceState, StoredKind,
    StoredObject, Table,
};
pub use rename::{Rename, RenameRule};
pub use select::{SYSTEM_DATABASES, Selection, TableName, quote_name, split_name};
