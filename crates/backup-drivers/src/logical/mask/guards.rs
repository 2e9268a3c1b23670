//! What tables ask of their values that masks may not keep. What is sure to fail is refused, the rest is warned of.

use backup_core::{Error, Result};

use super::super::catalog::{Catalog, Column, Table};
use super::super::ddl::Parts;
use super::column::ColumnMask;
use super::rules::MaskWith;
use super::table::Masks;

/// What a table asks of its masked columns.
pub(super) fn of_table(table: &Table, masked: &[(&Column, &MaskWith)]) -> Result<Vec<String>> {
    let parts = Parts::of(&table.create);
    let (checks, periods, partitions) = (parts.checks(), parts.periods(), parts.partitions());
    let mut warnings = Vec::new();
    for (column, with) in masked {
        let name = format!("{}.{}", table.full_name(), column.name);
        let has = |columns: &[String]| columns.iter().any(|c| same_name(c, &column.name));
        let refuse = |why: &str| {
            Error::usage(format!("{name} cannot be masked so: {why}"))
                .with_remedy("choose another way for this column, or leave it as it is")
        };
        if checks.iter().any(|check| check.is_json && has(&check.columns)) {
            let problem = "it holds JSON, and would hold none";
            match with {
                MaskWith::Hash | MaskWith::Shape => return Err(refuse(problem)),
                MaskWith::Fixed(text) if serde_json::from_str::<serde_json::Value>(text).is_err() => {
                    return Err(refuse(problem));
                }
                MaskWith::Regex { .. } => warnings.push(format!(
                    "{name} is masked and holds JSON: where a match is more than text, it does so no longer"
                )),
                MaskWith::Null | MaskWith::Fixed(_) => {}
            }
        }
        if checks.iter().any(|check| !check.is_json && has(&check.columns)) {
            warnings.push(format!(
                "{name} is masked and part of a CHECK: where a value does not meet it, a restore fails on MySQL, and \
                 MariaDB has rows that do not"
            ));
        }
        if periods.iter().any(|period| has(period)) {
            warnings.push(format!(
                "{name} is masked and an end of a period: after a restore some may end before they begin"
            ));
        }
        if partitions.as_ref().is_some_and(|by| by.closed && has(&by.columns)) {
            // A fixed value may have a partition, and dates stay in their years.
            let date = ["date", "datetime", "timestamp"].contains(&column.data_type.as_str());
            match with {
                MaskWith::Hash | MaskWith::Shape | MaskWith::Regex { .. } if !date => {
                    return Err(refuse(
                        "it says in which partition a row is, and there is not one for every value",
                    ));
                }
                _ => warnings.push(format!(
                    "{name} is masked and says in which partition a row is: a restore fails where there is none for a value"
                )),
            }
        }
    }
    Ok(warnings)
}

/// The foreign keys whose rows would not find their parents any more.
pub(super) fn of_foreign_keys(masks: &Masks, catalog: &Catalog) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for table in &catalog.tables {
        let parts = Parts::of(&table.create);
        for key in parts.foreign_keys(&table.database) {
            let Some(parent) = catalog.tables.iter().find(|t| t.full_name() == key.parent) else {
                continue;
            };
            for (child_column, parent_column) in key.columns.iter().zip(&key.parent_columns) {
                let (ours, theirs) =
                    (masks.column(table, child_column)?, masks.column(parent, parent_column)?);
                let with = [&ours, &theirs].map(|mask| mask.as_ref().map(|mask| &mask.with));
                let digits = [&ours, &theirs].map(|mask| mask.as_ref().map(ColumnMask::digits));
                let problem = match (with[0], with[1]) {
                    (None, None) | (Some(MaskWith::Null), _) => continue,
                    (ours, theirs) if ours != theirs => "are masked in different ways",
                    (Some(MaskWith::Hash), _) if digits[0] != digits[1] => {
                        "have not the same length, nor have their digits"
                    }
                    (Some(MaskWith::Hash | MaskWith::Shape), _)
                        if is_text(table, child_column) && parts.folds(child_column) =>
                    {
                        "have a collation to which texts of different characters are equal, and masks are not"
                    }
                    _ => continue,
                };
                warnings.push(format!(
                    "{}.{child_column} refers to {}.{parent_column}, and they {problem}: after a restore rows may refer to none",
                    table.full_name(),
                    parent.full_name()
                ));
            }
        }
    }
    Ok(warnings)
}

fn is_text(table: &Table, column: &str) -> bool {
    table.columns.iter().any(|c| same_name(&c.name, column) && c.charset.is_some())
}

/// Column names ignore case.
fn same_name(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
}
