//! The logical strategy: rows and definitions, read and written by SQL.

mod catalog;
mod dump;
mod load;
mod plan;
mod reader;
mod scan;
mod select;

pub use catalog::{
    CATALOG, Catalog, Chunk, Column, Database, Header, LoadMode, Object, StoredKind, StoredObject,
    Table,
};
pub use select::{SYSTEM_DATABASES, Selection, TableName, quote_name, split_name};
