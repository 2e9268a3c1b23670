//! Values that are no text of the character set of their column. They are kept as they are, and told
//! of by table, column and key.

use backup_core::{Error, Finding, Result, Severity};
use serde::{Deserialize, Serialize};

use super::catalog::{Catalog, Table};
use super::ddl::as_binary;
use crate::rows::{Block, EncodedBlock, Kind, TextForm, TextFormat, append_text, fields};

/// Values of one column in one range of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoText {
    /// The column.
    pub column: String,
    /// How many values.
    pub values: u64,
    /// The key of the first row with one, as `id = 5`; `None` where the table has no key, or its
    /// values are masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
}

impl NoText {
    /// What was found in a block. With `hidden` no value of the key is told.
    pub(super) fn of(
        table: &Table,
        kinds: &[Kind],
        block: &EncodedBlock,
        found: crate::rows::NoText,
        hidden: bool,
    ) -> Result<NoText> {
        let first = match hidden || table.key.is_empty() {
            true => None,
            false => Some(key_of(table, kinds, block, found.first_row)?),
        };
        let column = table.columns[found.column].name.clone();
        Ok(NoText { column, values: found.values, first })
    }
}

/// The key of a row of a block, for people.
fn key_of(table: &Table, kinds: &[Kind], block: &EncodedBlock, row: u32) -> Result<String> {
    let mut at = 0;
    let mut key = String::new();
    Block::parse(block.bytes.clone())?.packets(|packet| {
        at += 1;
        if at != row + 1 {
            return Ok(());
        }
        let values = fields(packet, kinds)?;
        for (i, column) in table.columns.iter().enumerate() {
            if !table.key.contains(&column.name) {
                continue;
            }
            let (Some(kind), Some(value)) = (kinds.get(i), values.get(i).copied().flatten()) else {
                return Err(Error::internal("a key has no value"));
            };
            let format = TextFormat { decimals: column.fraction_digits.unwrap_or(0) };
            let mut text = Vec::new();
            append_text(*kind, value, format, &mut text)?;
            let and = if key.is_empty() { "" } else { ", " };
            let text = match std::str::from_utf8(&text) {
                Ok(text) => text.escape_debug().to_string(),
                Err(_) => text.escape_ascii().to_string(),
            };
            key.push_str(&format!("{and}{} = {text}", column.name));
        }
        Ok(())
    })?;
    Ok(key)
}

/// What a restore does about them: no server takes them as text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum InvalidText {
    /// It does not begin.
    #[default]
    Refuse,
    /// Their columns become columns of bytes.
    Binary,
}

/// Makes a catalogue one that the target takes, or says why it is none.
pub(super) fn adapt(catalog: &mut Catalog, how: InvalidText) -> Vec<Finding> {
    let flavor = catalog.header.flavor;
    let mut findings = Vec::new();
    for table in &mut catalog.tables {
        let mut columns: Vec<(String, String)> = Vec::new();
        for found in found(std::slice::from_ref(table)) {
            columns.push((found.column.to_owned(), found.problem()));
        }
        for (name, problem) in columns {
            let object = format!("{}.{name}", table.full_name());
            let column = table.columns.iter_mut().find(|column| column.name == name);
            let form = column.as_ref().and_then(|c| TextForm::of(c.charset.as_deref()?, flavor));
            let changed = match (how, form) {
                (InvalidText::Binary, Some(form)) => as_binary(&table.create, &name, form.width()),
                _ => None,
            };
            let (severity, remedy) = match changed.zip(column) {
                Some((create, column)) => {
                    table.create = create;
                    column.charset = None;
                    (
                        Severity::Warning,
                        "the column is restored as one of bytes, which are the same",
                    )
                }
                None => (
                    Severity::Error,
                    "no server takes them as text: restore with --invalid-text binary, which makes the \
                     column one of bytes; or without the table; or correct them at the source and back \
                     it up again",
                ),
            };
            findings.push(Finding::new(severity, object, problem, remedy));
        }
    }
    findings
}

/// What a column of a table has of them.
#[derive(Debug, Serialize)]
pub(super) struct Found<'a> {
    table: String,
    column: &'a str,
    charset: &'a str,
    values: u64,
    first: Option<&'a str>,
}

/// All of them, by table and column.
pub(super) fn found(tables: &[Table]) -> Vec<Found<'_>> {
    let mut all = Vec::new();
    for table in tables {
        let mut of_table: Vec<Found<'_>> = Vec::new();
        for found in table.chunks.iter().flat_map(|chunk| &chunk.no_text) {
            match of_table.iter_mut().find(|known| known.column == found.column) {
                Some(known) => known.values += found.values,
                None => {
                    let column = table.columns.iter().find(|c| c.name == found.column);
                    of_table.push(Found {
                        table: table.full_name().to_string(),
                        column: &found.column,
                        charset: column.and_then(|c| c.charset.as_deref()).unwrap_or_default(),
                        values: found.values,
                        first: found.first.as_deref(),
                    });
                }
            }
        }
        all.extend(of_table);
    }
    all
}

impl Found<'_> {
    fn problem(&self) -> String {
        let Found { charset, values, .. } = self;
        let first = self.first.map(|first| format!(", the first where {first}"));
        let values = match values {
            1 => "a value is".to_owned(),
            n => format!("{n} values are"),
        };
        format!("{values} no text of {charset}{}", first.unwrap_or_default())
    }
}

impl std::fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Found { table, column, .. } = self;
        write!(f, "column {column} of table {table}: {}; their bytes are kept", self.problem())
    }
}
