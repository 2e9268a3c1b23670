//! Whether the account may make code in the name of others.

use std::collections::BTreeSet;

use backup_core::{Finding, Flavor, Result};

use super::super::account::AccountName;
use super::super::catalog::{Catalog, StoredObject};
use super::super::ddl::definer;
use super::super::inventory::{Need, ServerFacts, lacking};
use super::super::recreate::dialect;
use super::allowed::finding;
use crate::connect::Session;

/// What the account lacks for the definers of the catalogue, which are those that objects will have.
pub(super) async fn findings(
    session: &mut Session,
    facts: &ServerFacts,
    catalog: &Catalog,
) -> Result<Vec<Finding>> {
    let ourselves = ourselves(session, facts).await?;
    let made = catalog.stored.iter().filter(|o| !o.keep_existing && !o.database.is_empty());
    let others: Vec<(AccountName, &StoredObject)> = made
        .filter_map(|object| Some((definer(&object.create, dialect(object))?.1, object)))
        .filter(|(name, _)| !ourselves.contains(name))
        .collect();
    let Some((name, first)) = others.first() else { return Ok(Vec::new()) };
    let modern = facts.flavor == Flavor::MySql && facts.version.at_least(8, 2, 0);
    let mut needs = vec![(
        match facts.flavor {
            Flavor::MySql if modern => Need::global(&["SET_ANY_DEFINER"]),
            Flavor::MySql => Need::global(&["SET_USER_ID", "SUPER"]),
            Flavor::MariaDb => Need::or_super(facts, &["SET USER", "SUPER"]),
        },
        name,
        first,
    )];
    if facts.flavor == Flavor::MySql {
        // Who may not see the accounts is told by the server in its time.
        let mighty = accounts(session, "mysql.global_grants WHERE PRIV = 'SYSTEM_USER'").await?;
        let is_mighty = |name: &AccountName| mighty.as_ref().is_some_and(|all| all.contains(name));
        if let Some((name, first)) = others.iter().find(|(name, _)| is_mighty(name)) {
            needs.push((Need::global(&["SYSTEM_USER"]), name, first));
        }
    }
    // Accounts of the backup are made before code is.
    let comes = |name: &AccountName| catalog.accounts.iter().any(|a| a.name == *name);
    if modern
        && let Some(there) = accounts(session, "mysql.user").await?
        && let Some((name, first)) =
            others.iter().find(|(name, _)| !there.contains(name) && !comes(name))
    {
        needs.push((Need::global(&["ALLOW_NONEXISTENT_DEFINER"]), name, first));
    }
    let mut findings = Vec::new();
    for (need, name, first) in needs {
        findings.extend(lacking(session.conn(), facts, &[need]).await?.iter().map(|privilege| {
            finding(
                first.full_name().to_string(),
                format!(
                    "its definer is {name}, and the account lacks {} to make it in that name",
                    privilege.name
                ),
                format!(
                    "{}; or restore with --definers strip, or --map-definer {name}=…",
                    privilege.grant
                ),
            )
        }));
    }
    Ok(findings)
}

/// The account that is signed in, and on MariaDB its role.
async fn ourselves(session: &mut Session, facts: &ServerFacts) -> Result<BTreeSet<AccountName>> {
    let user: Option<String> = session.query_first("SELECT CURRENT_USER()").await?;
    let user = user.unwrap_or_default();
    let (user, host) = user.rsplit_once('@').unwrap_or((&user, ""));
    let mut all = BTreeSet::from([AccountName { user: user.into(), host: host.into() }]);
    if facts.flavor == Flavor::MariaDb {
        let role: Option<Option<String>> = session.query_first("SELECT CURRENT_ROLE()").await?;
        let role = role.flatten().unwrap_or_default();
        all.insert(AccountName { user: role, host: String::new() });
    }
    Ok(all)
}

/// Accounts out of a table of a MySQL; `None` where it may not be read.
async fn accounts(session: &mut Session, from: &str) -> Result<Option<BTreeSet<AccountName>>> {
    let sql = format!("SELECT USER, HOST FROM {from}");
    match session.query_rows::<(String, String)>(&sql).await {
        Ok(rows) => {
            Ok(Some(rows.into_iter().map(|(user, host)| AccountName { user, host }).collect()))
        }
        Err(e) if e.server().is_some() => Ok(None),
        Err(e) => Err(e),
    }
}
