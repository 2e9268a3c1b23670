//! What a restore will do, for people.

use backup_core::{Finding, RestoreSteps, Severity};

use super::super::catalog::StoredKind;
use super::super::load::Mark;
use super::{Earlier, LogicalRestoreOptions, Parts, Prepared};
use crate::connect::ConnectOptions;

/// The plan of a restore.
pub(super) fn of(
    prepared: &Prepared,
    target: &ConnectOptions,
    options: &LogicalRestoreOptions,
) -> RestoreSteps {
    let Prepared { catalog, plan, shapes, earlier, .. } = prepared;
    let mut findings = plan.findings.clone();
    findings.extend(
        catalog
            .warnings
            .iter()
            .map(|text| Finding::new(Severity::Warning, target.to_string(), text.as_str(), "")),
    );
    let mut steps = Vec::new();
    if options.parts == Parts::Data {
        steps.extend(catalog.tables.iter().map(|t| {
            format!("load {} rows into table {}, read them back", t.digest.rows, t.full_name())
        }));
        return RestoreSteps { steps, destroys: Vec::new(), findings };
    }
    let state = match earlier {
        Earlier::Work(state) => Some(state),
        Earlier::Nothing | Earlier::Lost(_) => None,
    };
    if state.is_some() {
        steps.push("go on with the restore that was interrupted".to_owned());
    }
    if !prepared.settings.binary_log {
        steps.push("keep everything out of the target's binary log: no replica gets it".to_owned());
    }
    if !options.redo_log {
        steps.push("switch the redo log of the target off until the rows are in".to_owned());
    }
    for database in &catalog.databases {
        steps.push(format!("create database {} at {target} if it is not there", database.name));
    }
    for (i, (table, shape)) in catalog.tables.iter().zip(shapes).enumerate() {
        let has = |mark| state.is_some_and(|state| state.has(mark));
        let loaded = (0..shape.units(table)).all(|unit| has(Mark::Loaded(i, unit)));
        let name = table.full_name();
        let rows = table.digest.rows;
        steps.push(match () {
            () if has(Mark::Finished(i)) || (has(Mark::Created(i)) && loaded) => {
                format!("table {name} has its {rows} rows already: read them back")
            }
            () if has(Mark::Created(i)) => {
                format!("load what table {name} lacks of {rows} rows, read them back")
            }
            () if shape.indexes_later => {
                format!("create table {name}, load {rows} rows, build its indexes, read them back")
            }
            () => format!("create table {name}, load {rows} rows, read them back"),
        });
    }
    let mut stored: Vec<_> = catalog.stored.iter().collect();
    // The order in which they are created.
    stored.sort_by_key(|o| match o.kind {
        StoredKind::Trigger => 1,
        StoredKind::Event => 2,
        _ => 0,
    });
    steps.extend(stored.iter().map(|o| match o.database.as_str() {
        "" => format!("create {} {}", o.kind, o.name),
        _ => format!("create {} {}", o.kind, o.full_name()),
    }));
    let accounts = catalog.accounts.iter();
    steps.extend(accounts.map(|a| format!("create account {} if it is not there", a.name)));
    let destroys = match state {
        Some(_) => Vec::new(),
        None => plan.existing.iter().map(ToString::to_string).collect(),
    };
    RestoreSteps { steps, destroys, findings }
}
