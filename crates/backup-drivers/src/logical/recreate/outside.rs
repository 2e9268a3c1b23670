//! What tables need that are restored, and that is not restored with them.

use std::collections::BTreeSet;

use backup_core::{ErrorKind, Finding, Result, Severity};
use mysql_async::Conn;

use super::super::catalog::{Catalog, StoredKind, StoredObject, Table};
use super::super::ddl::{Dialect, Parts, quote_text, significant};
use super::super::inventory::query;
use super::super::rename::Rename;
use super::super::select::{TableName, quote_name};

/// Looks for the parents of foreign keys and the sequences of defaults that do not come along. `rename` says what
/// gets another name, `how` how to name one more table of the backup in the command.
///
/// # Errors
/// Those of [`sql_error`](crate::connect::sql_error).
pub(in crate::logical) async fn outside(
    conn: &mut Conn,
    catalog: &Catalog,
    rename: &Rename,
    how: &(dyn Fn(&TableName) -> String + Sync),
) -> Result<Vec<Finding>> {
    let restored: BTreeSet<TableName> = catalog.tables.iter().map(Table::full_name).collect();
    let mut findings = children(conn, &restored, how).await?;
    for table in &catalog.tables {
        let name = table.full_name().to_string();
        let parents = Parts::of(&table.create).parents(&table.database);
        for parent in BTreeSet::from_iter(parents).difference(&restored) {
            let refers =
                format!("its foreign key refers to {parent}, which is not restored with it");
            findings.extend(match is_there(conn, parent).await? {
                // A child depends on the parent that is there, and keeps that from changing.
                true => (!rename.is_empty()).then(|| {
                    let problem = format!("{refers}: it is tied to the target's own {parent}");
                    let remedy = "restore both, and rename both, to have them apart";
                    Finding::new(Severity::Info, &name, problem, remedy)
                }),
                false => Some(Finding::new(
                    Severity::Warning,
                    &name,
                    format!("{refers} and not at the target: it takes no more rows until {parent} is there"),
                    format!("restore both: {}; or drop the foreign key", how(parent)),
                )),
            });
        }
        for sequence in sequences(&table.create) {
            let along = catalog.stored.iter().find(|object| {
                object.kind == StoredKind::Sequence && object.full_name() == sequence
            });
            // That it is put back is what was asked for.
            if along.is_some_and(|object| !object.keep_existing) {
                continue;
            }
            let there = is_there(conn, &sequence).await?;
            // What does not come along keeps its name.
            let in_backup = along.map_or_else(|| sequence.clone(), |_| rename.before(&sequence));
            findings.extend(match (there, along) {
                (true, _) => Some(Finding::new(
                    Severity::Warning,
                    &name,
                    format!("it takes numbers of {sequence}, and will draw from the one that the target has"),
                    format!("see that this one is right; or restore both: {}", how(&in_backup)),
                )),
                (false, Some(_)) => None,
                (false, None) => Some(
                    Finding::new(
                        Severity::Error,
                        &name,
                        format!("it takes numbers of the sequence {sequence}, which is not restored with it and not at the target"),
                        format!("restore both: {}; or create the sequence there first", how(&sequence)),
                    )
                    .with_kind(ErrorKind::Target),
                ),
            });
        }
    }
    Ok(findings)
}

/// Tables of the target that refer to what is restored, and stay as they are.
async fn children(
    conn: &mut Conn,
    restored: &BTreeSet<TableName>,
    how: &(dyn Fn(&TableName) -> String + Sync),
) -> Result<Vec<Finding>> {
    let databases: BTreeSet<String> =
        restored.iter().map(|name| quote_text(&name.database)).collect();
    if databases.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT DISTINCT REFERENCED_TABLE_SCHEMA, REFERENCED_TABLE_NAME, TABLE_SCHEMA, TABLE_NAME FROM \
         information_schema.KEY_COLUMN_USAGE WHERE REFERENCED_TABLE_SCHEMA IN ({})",
        Vec::from_iter(databases).join(", ")
    );
    let mut findings = Vec::new();
    for row in query::rows(conn, &sql, "cannot look for foreign keys at the target").await? {
        let name = |at: usize| {
            let (database, table) = (query::text(&row, at)?, query::text(&row, at + 1)?);
            Some(TableName { database, table })
        };
        let (Some(parent), Some(child)) = (name(0), name(2)) else { continue };
        if !restored.contains(&parent) || restored.contains(&child) {
            continue;
        }
        let sql = format!(
            "SELECT 1 FROM {}.{} LIMIT 1",
            quote_name(&child.database),
            quote_name(&child.table)
        );
        // One that is empty has nothing that could refer to none. Of one that may not be read it is not known.
        if query::rows(conn, sql, "").await.map_or(true, |rows| !rows.is_empty()) {
            findings.push(Finding::new(
                Severity::Warning,
                parent.to_string(),
                format!("{child} of the target refers to it and is not restored with it: rows of that may refer to none then"),
                format!("restore both: {}; or look for such rows afterwards", how(&child)),
            ));
        }
    }
    Ok(findings)
}

/// The sequences that a definition takes numbers of.
#[must_use]
pub fn sequences(create: &str) -> BTreeSet<TableName> {
    let tokens = significant(create, Dialect::default());
    let calls = tokens.windows(5).filter(|w| {
        ["NEXTVAL", "LASTVAL", "SETVAL"].iter().any(|call| w[0].is_word(call))
            && w[1].is_sign('(')
            && w[3].is_sign('.')
    });
    let name = |w: &[super::super::ddl::Token<'_>]| {
        Some(TableName { database: w[2].name()?, table: w[4].name()? })
    };
    calls.filter_map(name).collect()
}

/// Whether the target has a table or sequence of this name.
async fn is_there(conn: &mut Conn, name: &TableName) -> Result<bool> {
    let sql = format!(
        "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} AND TABLE_TYPE <> 'VIEW'",
        quote_text(&name.database),
        quote_text(&name.table)
    );
    let what = format!("cannot look for {name} at the target");
    Ok(!query::rows(conn, sql, &what).await?.is_empty())
}

/// A sequence of which the name alone is known.
pub(in crate::logical) fn unknown_sequence(name: TableName, keep_existing: bool) -> StoredObject {
    StoredObject {
        keep_existing,
        ..StoredObject::new(StoredKind::Sequence, name.database, name.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_found_in_defaults_alone() {
        let create = "CREATE TABLE `t` (`a` bigint DEFAULT nextval(`m`.`s q`), `b` int DEFAULT (lastval(`m`.`r`) + 1) \
                      COMMENT 'nextval(`m`.`no`)')";
        let found: Vec<String> = sequences(create).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["m.r", "m.`s q`"]);
    }
}
