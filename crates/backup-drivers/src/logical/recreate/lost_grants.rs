//! What accounts of the target may do with routines that are dropped: the servers take it away with the routine, unlike
//! privileges on tables and views.

use std::collections::BTreeSet;

use backup_core::{ErrorKind, Finding, Result, Severity};
use mysql_async::Conn;

use super::super::account::AccountName;
use super::super::catalog::StoredKind;
use super::super::ddl::{account_grant, routine_grant};
use super::super::inventory::{ServerFacts, query};
use super::super::select::TableName;
use super::compat::listed;
use super::plan::{Existing, ExistingKind};

/// The grants that are lost when `dropped` is dropped, as statements that give them again.
///
/// # Errors
/// [`ErrorKind::Privilege`] where the account may not see them.
pub(in crate::logical) async fn lost_grants(
    conn: &mut Conn,
    facts: &ServerFacts,
    dropped: &[Existing],
) -> Result<Vec<String>> {
    let folded = |kind: &str, name: &TableName| {
        let database = match facts.lower_case_table_names {
            0 => name.database.clone(),
            _ => name.database.to_lowercase(),
        };
        (kind.to_lowercase(), database, name.table.to_lowercase())
    };
    let routines: BTreeSet<_> =
        routines(dropped).map(|(kind, name)| folded(&kind.to_string(), name)).collect();
    if routines.is_empty() {
        return Ok(Vec::new());
    }
    let what = "cannot read what accounts may do with routines";
    let sql = "SELECT Routine_type, Db, Routine_name, User, Host FROM mysql.procs_priv";
    let mut accounts = BTreeSet::new();
    for row in query::rows(conn, sql, what).await? {
        let text = |column| query::text(&row, column).unwrap_or_default();
        let name = TableName { database: text(1), table: text(2) };
        if routines.contains(&folded(&text(0), &name)) {
            accounts.insert(AccountName { user: text(3), host: text(4) });
        }
    }
    let mut grants = Vec::new();
    for account in accounts {
        let sql = format!("SHOW GRANTS FOR {}", account.sql());
        let rows = match query::rows(conn, sql, what).await {
            Ok(rows) => rows,
            // Of an account that is gone, or of a server that looks at no privileges.
            Err(e) if e.server().is_some_and(|s| [1141, 1290].contains(&s.code)) => continue,
            Err(e) => return Err(e),
        };
        let lines = rows.iter().filter_map(|row| account_grant(&query::text(row, 0)?, &account));
        grants.extend(lines.filter(|grant| {
            routine_grant(grant)
                .is_some_and(|found| routines.contains(&folded(&found.kind, &found.routine)))
        }));
    }
    Ok(grants)
}

/// Tells that the grants on routines cannot be seen, and so not be given again.
pub(in crate::logical) fn unseen_grants(dropped: &[Existing]) -> Finding {
    let names: Vec<String> =
        routines(dropped).map(|(kind, name)| format!("{kind} {name}")).collect();
    Finding::new(
        Severity::Warning,
        listed(&names),
        "to be dropped and made again, which takes from accounts of the target what they were granted on it; the \
         account that restores may not see their grants",
        "run GRANT SELECT ON mysql.* TO the account that restores, which then grants it again; or do so by hand",
    )
    .with_kind(ErrorKind::Privilege)
}

fn routines(dropped: &[Existing]) -> impl Iterator<Item = (StoredKind, &TableName)> {
    use StoredKind::{Function, Library, Package, PackageBody, Procedure};
    dropped.iter().filter_map(|existing| match existing.kind {
        ExistingKind::Stored(kind @ (Function | Procedure | Package | PackageBody | Library)) => {
            Some((kind, &existing.name))
        }
        _ => None,
    })
}
