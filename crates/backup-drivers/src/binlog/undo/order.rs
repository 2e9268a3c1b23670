//! The order in which changes are undone.

use std::collections::{HashMap, HashSet};

use super::Changes;
use super::rows::{Change, Row};
use super::table::{Parent, Table};
use super::value::Value;

/// The changes in the order in which they are undone: the last first.
///
/// What a statement deleted with all that followed by foreign keys comes back in another order, for the server looks
/// at the keys again: first what others refer to. The binlog has those rows from each to what refers to it, and the one
/// that the statement named at the end. All were there at once before the statement, so none is in another's way.
pub(super) fn of(changes: &Changes) -> Vec<&(usize, Change)> {
    let mut order = Vec::new();
    for statement in changes.changes.chunk_by(|a, b| a.1.statement == b.1.statement).rev() {
        let mut undone: Vec<&(usize, Change)> = statement.iter().rev().collect();
        let followed = |(table, change): &&(usize, Change)| {
            change.cascades_told && (change.is_gone() || changes.tables[*table].is_let_go(change))
        };
        if undone.iter().all(followed) {
            undone = from_above(&changes.tables, undone);
        }
        order.extend(undone);
    }
    order
}

/// Rows that come back, those before that others refer to; then those that are there and referred to them.
fn from_above<'a>(tables: &[Table], undone: Vec<&'a (usize, Change)>) -> Vec<&'a (usize, Change)> {
    let (back, changed): (Vec<_>, Vec<_>) =
        undone.into_iter().partition(|(_, change)| change.is_gone());
    let levels = levels(tables, &back);
    let mut ranks = vec![None; tables.len()];
    let mut back: Vec<_> = std::iter::zip(levels, back).collect();
    back.sort_by_cached_key(|(level, (table, _))| {
        (rank(tables, *table, &mut ranks, &mut HashSet::new()), *level)
    });
    back.into_iter().map(|(_, change)| change).chain(changed).collect()
}

/// How many tables are above one, of those whose rows are undone. What refers to each other in a circle has no order:
/// there the server may refuse the statements, all of them.
fn rank(
    tables: &[Table],
    number: usize,
    ranks: &mut [Option<usize>],
    open: &mut HashSet<usize>,
) -> usize {
    if let Some(rank) = ranks[number] {
        return rank;
    }
    if !open.insert(number) {
        return 0;
    }
    let above = |parent: &Parent| tables.iter().position(|table| parent.is_of(table));
    let above = tables[number].parents.iter().filter_map(above).filter(|at| *at != number);
    let rank = above.map(|at| rank(tables, at, ranks, open) + 1).max().unwrap_or(0);
    open.remove(&number);
    ranks[number] = Some(rank);
    rank
}

/// How many rows of its own table have to be there before each row.
fn levels(tables: &[Table], rows: &[&(usize, Change)]) -> Vec<usize> {
    let own = |table: usize| {
        let table = &tables[table];
        table.parents.iter().filter(move |parent| parent.is_of(table))
    };
    let mut named: HashMap<(usize, &str, Vec<&Value>), usize> = HashMap::new();
    for (at, (table, change)) in rows.iter().enumerate() {
        let Some(row) = &change.before else { continue };
        for key in own(*table) {
            let values = key.referred(&tables[*table], row);
            named.extend(values.map(|values| ((*table, key.name.as_str(), values), at)));
        }
    }
    let mut below = vec![Vec::new(); rows.len()];
    let mut waits = vec![0_usize; rows.len()];
    for (at, (table, change)) in rows.iter().enumerate() {
        let Some(row) = &change.before else { continue };
        for key in own(*table) {
            let Some(values) = key.referring(row) else { continue };
            match named.get(&(*table, key.name.as_str(), values)) {
                // A row may refer to itself.
                Some(above) if *above != at => {
                    below[*above].push(at);
                    waits[at] += 1;
                }
                _ => {}
            }
        }
    }
    let mut ready: Vec<usize> = (0..rows.len()).filter(|at| waits[*at] == 0).collect();
    let mut levels: Vec<usize> =
        waits.iter().map(|n| if *n == 0 { 0 } else { usize::MAX }).collect();
    let mut level = 0;
    while !ready.is_empty() {
        level += 1;
        let mut next = Vec::new();
        for at in ready.iter().flat_map(|above| &below[*above]) {
            waits[*at] -= 1;
            if waits[*at] == 0 {
                levels[*at] = level;
                next.push(*at);
            }
        }
        ready = next;
    }
    levels
}

impl Table {
    /// Whether an UPDATE only takes away what a row refers to, as ON DELETE SET NULL does.
    fn is_let_go(&self, change: &Change) -> bool {
        let refers =
            |at: &usize| self.parents.iter().any(|key| key.columns.iter().any(|(c, _)| c == at));
        let (Some(_), Some(after)) = (&change.before, &change.after) else { return false };
        let mut changed = (0..self.columns.len()).filter(|at| change.changes(*at));
        changed.all(|at| refers(&at) && after.get(at) == Some(&Value::Null))
    }
}

impl Parent {
    fn is_of(&self, table: &Table) -> bool {
        self.table == table.name
    }

    /// The values by which a row refers to another one, if it does.
    fn referring<'a>(&self, row: &'a Row) -> Option<Vec<&'a Value>> {
        let values = self.columns.iter().map(|(at, _)| row.get(*at));
        values.map(|value| value.filter(|value| **value != Value::Null)).collect()
    }

    /// The values by which others refer to a row.
    fn referred<'a>(&self, table: &Table, row: &'a Row) -> Option<Vec<&'a Value>> {
        let at = |name: &str| table.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name));
        self.columns.iter().map(|(_, name)| row.get(at(name)?)).collect()
    }
}
