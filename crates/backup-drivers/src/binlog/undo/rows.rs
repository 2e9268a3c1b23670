//! Row changes with all their values, and the statements that undo them.

use backup_core::Flavor;

use super::super::read::Reader;
use super::super::rows::{self, Bits, TableMap};
use super::table::Table;
use super::value::{self, Value};

/// The values of a row, by the numbers of their columns; those that the server computes are not among
/// them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row(Vec<(usize, Value)>);

/// A row that was changed.
#[derive(Debug, Clone)]
pub(super) struct Change {
    /// What it was; `None` where it was not there.
    pub(super) before: Option<Row>,
    /// What it became; `None` where it is gone.
    pub(super) after: Option<Row>,
    /// The number of the statement that changed it.
    pub(super) statement: usize,
    /// What foreign keys did beside is in the binlog too, as rows of the same statement.
    pub(super) cascades_told: bool,
    /// Foreign keys were not looked at (`foreign_key_checks = 0`).
    pub(super) unchecked: bool,
}

/// The flags of a rows event, behind the number of its table (`enum_flag` of `rows_event.h`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Flags(u64);

impl Flags {
    const STMT_END: u64 = 1;
    const NO_FOREIGN_KEY_CHECKS: u64 = 2;
    /// Foreign keys are the work of the server, not of InnoDB: MySQL 9.6 and later.
    const USE_SQL_FOREIGN_KEY: u64 = 0x10;

    pub(super) fn of(body: &[u8]) -> Self {
        let mut reader = Reader::new(body);
        Flags(reader.take(6).and_then(|_| reader.uint(2)).unwrap_or(0))
    }

    pub(super) fn ends_statement(self) -> bool {
        self.0 & Self::STMT_END != 0
    }

    fn leaves_keys_unchecked(self) -> bool {
        self.0 & Self::NO_FOREIGN_KEY_CHECKS != 0
    }

    fn tells_cascades(self) -> bool {
        self.0 & Self::USE_SQL_FOREIGN_KEY != 0
    }
}

/// Reads a rows event.
///
/// # Errors
/// Why its rows cannot be undone.
pub(super) fn read(
    map: &TableMap,
    table: &Table,
    event_kind: u8,
    body: &[u8],
    statement: usize,
) -> Result<Vec<Change>, String> {
    let flags = Flags::of(body);
    let (cascades_told, unchecked) = (flags.tells_cascades(), flags.leaves_keys_unchecked());
    let mut changes = Vec::new();
    let mut problem: Option<String> = None;
    let done = map.rows(event_kind, body, |images, rows| {
        let refused = |problem: &mut Option<String>, why: String| {
            problem.get_or_insert(why);
        };
        let first =
            row(map, table, &images.first, rows).map_err(|why| refused(&mut problem, why)).ok()?;
        let (before, after) = match (&images.second, images.change) {
            (Some(second), _) => {
                if map.partial_json(event_kind, rows)? {
                    let why = "its JSON is in the binlog as differences only \
                               (binlog_row_value_options = PARTIAL_JSON)";
                    refused(&mut problem, why.into());
                    return None;
                }
                let second =
                    row(map, table, second, rows).map_err(|why| refused(&mut problem, why)).ok()?;
                (Some(first), Some(second))
            }
            (None, rows::Change::Insert) => (None, Some(first)),
            (None, _) => (Some(first), None),
        };
        changes.push(Change { before, after, statement, cascades_told, unchecked });
        Some(())
    });
    match (done, problem) {
        (_, Some(problem)) => Err(problem),
        (None, None) => Err("its rows cannot be read".into()),
        (Some(()), None) => Ok(changes),
    }
}

fn row(
    map: &TableMap,
    table: &Table,
    present: &Bits<'_>,
    rows: &mut Reader<'_>,
) -> Result<Row, String> {
    let there = || (0..map.columns.len()).filter(|at| present.get(*at));
    let lacking = table
        .columns
        .iter()
        .enumerate()
        .find(|(at, column)| !present.get(*at) && !column.generated);
    if let Some((_, column)) = lacking {
        return Err(format!(
            "its row images have no {} (binlog_row_image is not FULL)",
            column.quoted()
        ));
    }
    let cut = || "a row is cut off".to_owned();
    let nulls = Bits(rows.take(there().count().div_ceil(8)).ok_or_else(cut)?);
    let mut values = Vec::new();
    for (n, at) in there().enumerate() {
        let column = &table.columns[at];
        let value = match nulls.get(n) {
            true => Value::Null,
            false if column.generated => {
                map.columns[at].value(rows).ok_or_else(cut)?;
                continue;
            }
            false => value::read(map.columns[at], column, rows)
                .map_err(|why| format!("column {}: {why}", column.quoted()))?,
        };
        if !column.generated {
            values.push((at, value));
        }
    }
    Ok(Row(values))
}

fn all(conditions: impl Iterator<Item = String>) -> String {
    conditions.collect::<Vec<_>>().join(" AND ")
}

impl Row {
    /// What names the row: its key, or all of it.
    pub(super) fn key(&self, table: &Table) -> Row {
        let of_key = |at: &usize| table.key.is_empty() || table.key.contains(at);
        Row(self.0.iter().filter(|(at, _)| of_key(at)).cloned().collect())
    }

    /// A condition that holds for the row as it is.
    pub(super) fn exactly(&self, table: &Table, flavor: Flavor) -> String {
        let exact = self.0.iter().map(|(at, value)| value.exactly(&table.columns[*at], flavor));
        match table.key.is_empty() {
            true => all(exact),
            // By the index first.
            false => format!("{} AND {}", self.key(table).found_by(table, flavor), all(exact)),
        }
    }

    /// A condition that finds the row.
    pub(super) fn found_by(&self, table: &Table, flavor: Flavor) -> String {
        let named = self.key(table);
        let conditions = named.0.iter().map(|(at, value)| match table.key.is_empty() {
            true => value.exactly(&table.columns[*at], flavor),
            false => value.found_by(&table.columns[*at], flavor),
        });
        all(conditions)
    }

    pub(super) fn get(&self, at: usize) -> Option<&Value> {
        self.0.iter().find(|(column, _)| *column == at).map(|(_, value)| value)
    }
}

impl Change {
    /// Whether the row was deleted.
    pub(super) fn is_gone(&self) -> bool {
        self.before.is_some() && self.after.is_none()
    }

    /// Whether an UPDATE changes the value of a column.
    pub(super) fn changes(&self, at: usize) -> bool {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => before.get(at) != after.get(at),
            _ => false,
        }
    }

    /// The statement that undoes it; `None` where nothing changed.
    pub(super) fn inverse(&self, table: &Table, flavor: Flavor) -> Option<String> {
        let name = &table.name;
        let literal = |at: usize, value: &Value| value.literal(&table.columns[at], flavor);
        match (&self.before, &self.after) {
            (None, Some(after)) => {
                Some(format!("DELETE FROM {name} WHERE {} LIMIT 1", after.found_by(table, flavor)))
            }
            (Some(before), None) => {
                let columns: Vec<String> =
                    before.0.iter().map(|(at, _)| table.columns[*at].quoted()).collect();
                let values: Vec<String> =
                    before.0.iter().map(|(at, value)| literal(*at, value)).collect();
                Some(format!(
                    "INSERT INTO {name} ({}) VALUES ({})",
                    columns.join(", "),
                    values.join(", ")
                ))
            }
            (Some(before), Some(after)) => {
                let differs = |at: usize, value: &Value| after.get(at) != Some(value);
                if !before.0.iter().any(|(at, value)| differs(*at, value)) {
                    return None;
                }
                let set: Vec<String> = before
                    .0
                    .iter()
                    .filter(|(at, value)| differs(*at, value) || table.columns[*at].on_update)
                    .map(|(at, value)| {
                        format!("{} = {}", table.columns[*at].quoted(), literal(*at, value))
                    })
                    .collect();
                Some(format!(
                    "UPDATE {name} SET {} WHERE {} LIMIT 1",
                    set.join(", "),
                    after.found_by(table, flavor)
                ))
            }
            (None, None) => None,
        }
    }
}
