//! The catalogue of a logical backup: every object with its definition, and where its rows are.
//!
//! It is stored as the artifact [`CATALOG`], one JSON document a line: first a [`Header`], then one
//! [`Object`] a line in the order in which a restore creates them. Lines keep the memory of a
//! reader small, and a reader ignores keys it does not know.

use std::collections::BTreeMap;

use backup_core::{ArtifactName, ArtifactSource, Error, Flavor, Result};
use serde::{Deserialize, Serialize};

use super::account::Account;
use super::documents;
use super::no_text::NoText;
use super::select::{TableName, quote_name};
use crate::rows::{DocumentTypes, RowDigest, SqlForm};

/// Name of the catalogue's artifact.
pub const CATALOG: &str = "logical/catalog";

/// The version of the catalogue's form that this code writes and reads.
pub(super) const VERSION: u32 = 1;

/// The first line of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Version of this catalogue's form, 1.
    pub version: u32,
    /// MySQL or MariaDB.
    pub flavor: Flavor,
    /// The server's version as it says it.
    pub server_version: String,
    /// `@@lower_case_table_names` of the source.
    pub lower_case_table_names: u8,
}

/// The whole catalogue in memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Catalog {
    /// What it is a catalogue of.
    pub header: Header,
    /// Databases, in the order of their names.
    pub databases: Vec<Database>,
    /// Tables, in the order of database and name.
    pub tables: Vec<Table>,
    /// Views, triggers, routines, events, sequences.
    pub stored: Vec<StoredObject>,
    /// Users and roles, in the order of their names; none where they were not asked for.
    pub accounts: Vec<Account>,
    /// What the reading of the definitions found worth a look; kept in the manifest.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

impl Catalog {
    /// The lines of the artifact, each with its line feed.
    pub fn to_lines(&self) -> impl Iterator<Item = Result<Vec<u8>>> {
        let line = |json: serde_json::Result<Vec<u8>>| match json {
            Ok(mut line) => {
                line.push(b'\n');
                Ok(line)
            }
            Err(e) => Err(Error::internal("a definition cannot be written").with_source(e)),
        };
        let header = std::iter::once_with(|| serde_json::to_vec(&self.header));
        let databases = self.databases.iter().cloned().map(Object::Database);
        let tables = self.tables.iter().cloned().map(|t| Object::Table(Box::new(t)));
        let stored = self.stored.iter().cloned().map(|o| Object::Stored(Box::new(o)));
        let accounts = self.accounts.iter().cloned().map(|a| Object::Account(Box::new(a)));
        let objects = databases.chain(tables).chain(stored).chain(accounts);
        header.chain(objects.map(|o| serde_json::to_vec(&o))).map(line)
    }

    /// Reads the artifact of a backup.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when a line is no object, or the
    /// catalogue is of a later version.
    pub async fn read(artifacts: &dyn ArtifactSource) -> Result<Catalog> {
        let mut reader = artifacts.open(&CATALOG.parse()?).await?;
        let mut catalog: Option<Catalog> = None;
        let mut pending = Vec::new();
        let mut number = 0;
        while let Some(bytes) = reader.next().await? {
            let mut rest = &bytes[..];
            while let Some(end) = memchr::memchr(b'\n', rest) {
                pending.extend_from_slice(&rest[..end]);
                rest = &rest[end + 1..];
                number += 1;
                add_line(&mut catalog, &pending).map_err(|problem| {
                    Error::damaged(format!("line {number} of {CATALOG}: {problem}"))
                })?;
                pending.clear();
            }
            pending.extend_from_slice(rest);
        }
        match catalog {
            Some(catalog) if pending.is_empty() => Ok(catalog),
            _ => Err(Error::damaged(format!("{CATALOG} ends too early"))),
        }
    }
}

fn add_line(catalog: &mut Option<Catalog>, line: &[u8]) -> std::result::Result<(), String> {
    let Some(catalog) = catalog else {
        let header: Header = serde_json::from_slice(line).map_err(|e| e.to_string())?;
        if header.version != VERSION {
            return Err(format!("version {} is not known; use a newer holdfast", header.version));
        }
        *catalog = Some(Catalog {
            header,
            databases: Vec::new(),
            tables: Vec::new(),
            stored: Vec::new(),
            accounts: Vec::new(),
            warnings: Vec::new(),
        });
        return Ok(());
    };
    match serde_json::from_slice(line).map_err(|e| e.to_string())? {
        Object::Database(database) => catalog.databases.push(database),
        Object::Table(table) => catalog.tables.push(*table),
        Object::Stored(object) => catalog.stored.push(*object),
        Object::Account(account) => catalog.accounts.push(*account),
    }
    Ok(())
}

/// One line of the catalogue after the first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "object", rename_all = "snake_case")]
pub enum Object {
    /// A database.
    Database(Database),
    /// A base table with its rows.
    Table(Box<Table>),
    /// Anything made of code or definition alone.
    Stored(Box<StoredObject>),
    /// A user or role.
    Account(Box<Account>),
}

/// A database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// `SHOW CREATE DATABASE`, as the server gives it.
    pub create: String,
}

/// A base table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// Its database.
    pub database: String,
    /// Its name.
    pub name: String,
    /// `SHOW CREATE TABLE`, as the server gives it (no database name in it).
    pub create: String,
    /// The storage engine.
    pub engine: String,
    /// Whether the engine reads from the snapshot; rows of other engines may be of a later moment.
    pub transactional: bool,
    /// The columns whose values are kept, in the order of the table; generated columns are not
    /// among them.
    pub columns: Vec<Column>,
    /// The columns of the primary key, or of the first unique key without NULLs; empty when the
    /// table has neither.
    pub key: Vec<String>,
    /// Whether the rows belong to other tables or servers (MERGE, FEDERATED, …), so that they are
    /// neither read nor loaded here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rows_elsewhere: bool,
    /// Histograms of the optimizer (MySQL), by column.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub histograms: BTreeMap<String, String>,
    /// The condition that chose the rows, where not all of them were wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Whether the rows were left out because nobody asked for them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rows_left_out: bool,
    /// The columns whose values were masked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub masked: Vec<String>,
    /// Types of JSON inside documents that their text does not tell (MySQL), by column, as far as some rows
    /// have them; with those that look the same.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub documents: BTreeMap<String, Vec<String>>,
    /// Whether the rows of the past are kept too (system-versioned tables of MariaDB), with the
    /// columns that say from when to when each was valid.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub history: bool,
    /// The server's estimate of rows when the backup began.
    pub estimated_rows: u64,
    /// The server's figure of data bytes when the backup began.
    pub data_bytes: u64,
    /// Rows and digest of the whole table.
    #[serde(default)]
    pub digest: RowDigest,
    /// Where the rows are, in the order of the key.
    #[serde(default)]
    pub chunks: Vec<Chunk>,
}

impl Table {
    /// A table of InnoDB, which every server has, of which nothing but its name is known yet.
    pub(super) fn new(database: String, name: String) -> Self {
        Table {
            database,
            name,
            create: String::new(),
            engine: "InnoDB".to_owned(),
            transactional: true,
            columns: Vec::new(),
            key: Vec::new(),
            rows_elsewhere: false,
            histograms: BTreeMap::new(),
            filter: None,
            rows_left_out: false,
            masked: Vec::new(),
            documents: BTreeMap::new(),
            history: false,
            estimated_rows: 0,
            data_bytes: 0,
            digest: RowDigest::default(),
            chunks: Vec::new(),
        }
    }

    /// Database and name.
    #[must_use]
    pub fn full_name(&self) -> TableName {
        TableName { database: self.database.clone(), table: self.name.clone() }
    }

    /// Whether it has a primary key. Servers give it a line of its own, and write line ends in comments and
    /// defaults as `\n`.
    pub(super) fn has_primary_key(&self) -> bool {
        self.create.contains("\n  PRIMARY KEY (")
    }

    /// What is known of the documents in a column.
    pub(super) fn document_types(&self, column: &Column) -> DocumentTypes {
        self.documents.get(&column.name).map(|types| documents::known(types)).unwrap_or_default()
    }

    /// How the values of each column are written in SQL.
    pub(super) fn sql_forms(&self) -> Vec<SqlForm> {
        self.columns.iter().map(|column| column.sql_form(self.document_types(column))).collect()
    }

    /// Whether it is in this general tablespace (MySQL).
    pub(super) fn is_in_tablespace(&self, name: &str) -> bool {
        self.create.contains(&format!("TABLESPACE {} ", quote_name(name)))
    }
}

/// A column whose values are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// `COLUMN_TYPE` of the information schema, such as `decimal(12,2) unsigned`.
    pub column_type: String,
    /// `DATA_TYPE` of the information schema, such as `decimal`.
    pub data_type: String,
    /// Digits of the fraction of seconds, for temporal types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction_digits: Option<u8>,
    /// Character set, for text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charset: Option<String>,
    /// How a value goes back in.
    #[serde(default)]
    pub load: LoadMode,
}

impl Column {
    /// Whether its values are documents that the server keeps in a form of its own (MySQL); MariaDB keeps
    /// their text.
    pub(super) fn holds_documents(&self) -> bool {
        self.data_type == "json" && self.load == LoadMode::Utf8
    }

    /// How its values are written in SQL. `types` is what is known of its documents.
    fn sql_form(&self, types: DocumentTypes) -> SqlForm {
        match self.load {
            LoadMode::Number => return SqlForm::Number,
            LoadMode::Utf8 if self.holds_documents() => return SqlForm::Document(types),
            LoadMode::Utf8 => return SqlForm::Utf8,
            LoadMode::Direct | LoadMode::ShortYear | LoadMode::RowEnd => {}
        }
        match (self.data_type.as_str(), self.charset.as_deref()) {
            ("tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal", _) => {
                SqlForm::Number
            }
            ("float" | "double", _) => SqlForm::Float,
            ("year" | "date" | "time" | "datetime" | "timestamp", _) => {
                SqlForm::Time(self.fraction_digits.unwrap_or(0))
            }
            (_, Some("utf8mb4" | "utf8mb3" | "utf8" | "ascii")) => SqlForm::Utf8,
            (_, Some("latin1")) => SqlForm::Latin1,
            // Character sets in which each byte below 128 is the ASCII character and nothing else.
            (
                _,
                Some(
                    "latin2" | "latin5" | "latin7" | "cp1250" | "cp1251" | "cp1256" | "cp1257"
                    | "cp850" | "cp852" | "cp866" | "koi8r" | "koi8u" | "greek" | "hebrew"
                    | "gb2312" | "euckr" | "ujis" | "eucjpms" | "tis620",
                ),
            ) => SqlForm::Ascii,
            _ => SqlForm::Hex,
        }
    }
}

/// How `LOAD DATA … CHARACTER SET binary` gives a column its value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LoadMode {
    /// The bytes are the value.
    #[default]
    Direct,
    /// Through a variable and `CONVERT(@v USING utf8mb4)`: the type refuses binary strings (JSON of
    /// MySQL; INET4, INET6 and UUID of MariaDB, whose *binary* strings mean packed values).
    Utf8,
    /// As the number of the member: an ENUM or SET with an empty member, whose text does not tell
    /// that member from the value 0.
    Number,
    /// As text of four digits: a `YEAR(2)` (MariaDB) gives out two, of years that it knows from 1901 to
    /// 2155, and the same two for the year 2000 and for none, 0000.
    ShortYear,
    /// The end of a row version's time (system-versioned tables of MariaDB before 11.5) at a server
    /// whose last moment, which marks the rows of the present, is a later one.
    RowEnd,
}

/// A range of a table's rows, one artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The artifact that holds the row blocks.
    pub artifact: ArtifactName,
    /// Rows and digest.
    pub digest: RowDigest,
    /// The lowest key of the range, inclusive, as the text of an SQL literal; `None` = open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The end of the range, exclusive; `None` = open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Columns with values that are no text of their character set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub no_text: Vec<NoText>,
}

/// A view, trigger, routine, event or sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredObject {
    /// What it is.
    pub kind: StoredKind,
    /// Its database.
    pub database: String,
    /// Its name.
    pub name: String,
    /// The table it belongs to, for a trigger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// `SHOW CREATE …`, as the server gives it.
    pub create: String,
    /// The `sql_mode` it was created under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql_mode: Option<String>,
    /// `character_set_client` at creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charset: Option<String>,
    /// `collation_connection` at creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation: Option<String>,
    /// The collation of the database at creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_collation: Option<String>,
    /// Time zone of an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// The statement's bytes in `charset`, in hexadecimal, where the text in `create` does not give
    /// them back: a body may hold bytes that are no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create_bytes: Option<String>,
    /// Whether the server itself could not use it (a view of a table that is gone).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub invalid: bool,
    /// Where a sequence stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<SequenceState>,
    /// At a restore: where the target has one of this name, that one stays.
    #[serde(skip)]
    pub keep_existing: bool,
}

impl StoredObject {
    /// An object of which nothing but its name is known yet.
    pub(super) fn new(kind: StoredKind, database: String, name: String) -> Self {
        StoredObject {
            kind,
            database,
            name,
            table: None,
            create: String::new(),
            sql_mode: None,
            charset: None,
            collation: None,
            database_collation: None,
            time_zone: None,
            create_bytes: None,
            invalid: false,
            sequence: None,
            keep_existing: false,
        }
    }

    /// Database and name; the database of what belongs to none is empty.
    #[must_use]
    pub fn full_name(&self) -> TableName {
        TableName { database: self.database.clone(), table: self.name.clone() }
    }
}

/// Where a sequence stands. Numbers are text: some are beyond a signed 64-bit integer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceState {
    /// `next_not_cached_value`: values below it may have been handed out.
    pub next: String,
    /// `cycle_count`: how often it began again.
    pub cycle: String,
}

/// Kinds of objects that have no rows of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoredKind {
    /// A spatial reference system that is not the server's own (MySQL); belongs to no database, and
    /// is named by its number.
    SpatialReferenceSystem,
    /// A resource group (MySQL); belongs to no database.
    ResourceGroup,
    /// A general tablespace (MySQL); belongs to no database, and is created before tables.
    Tablespace,
    /// A sequence (MariaDB); created before tables, whose defaults may use it.
    Sequence,
    /// A library of code that routines import (MySQL 9.2).
    Library,
    /// A stored function.
    Function,
    /// A stored procedure.
    Procedure,
    /// A package's declarations (MariaDB).
    Package,
    /// A package's code (MariaDB).
    PackageBody,
    /// A view.
    View,
    /// A trigger; created after the rows are in.
    Trigger,
    /// An event; created last.
    Event,
}

impl std::fmt::Display for StoredKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            StoredKind::SpatialReferenceSystem => "spatial reference system",
            StoredKind::ResourceGroup => "resource group",
            StoredKind::Tablespace => "tablespace",
            StoredKind::Sequence => "sequence",
            StoredKind::Library => "library",
            StoredKind::Function => "function",
            StoredKind::Procedure => "procedure",
            StoredKind::Package => "package",
            StoredKind::PackageBody => "package body",
            StoredKind::View => "view",
            StoredKind::Trigger => "trigger",
            StoredKind::Event => "event",
        })
    }
}
