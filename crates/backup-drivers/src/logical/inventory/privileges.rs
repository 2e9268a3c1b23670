//! What an account needs, to see everything and to do what is asked for.
//!
//! Without TRIGGER, EVENT or the right to see routines the servers show empty lists, and no error:
//! the only way to know that a list is complete is to know the account's privileges.

use backup_core::{Error, ErrorKind, Flavor, Result};
use mysql_async::Conn;

use super::super::select::{Selection, TableName};
use super::ServerFacts;
use super::grants::Grants;

/// A privilege that an account lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Privilege {
    /// What and where, such as `TRIGGER ON shop.*`.
    pub name: String,
    /// The statement that grants it.
    pub grant: String,
}

/// What a logical backup of the selection needs and the account of this connection does not have,
/// itself or by its active roles. Empty = all is well.
///
/// # Errors
/// Those of [`sql_error`](crate::connect::sql_error).
pub async fn missing_privileges(
    conn: &mut Conn,
    facts: &ServerFacts,
    selection: &Selection,
) -> Result<Vec<Privilege>> {
    let grants = Grants::read(conn, facts).await?;
    let mut needs = definition_needs(facts, selection);
    needs.extend(consistency_needs(facts));
    Ok(grants.missing(&needs))
}

/// What a physical backup does beside what each one does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ToolNeeds {
    /// It kills statements that stand in the way of its lock.
    pub kills: bool,
    /// It notes the position of a replica.
    pub replica_position: bool,
    /// It stops the applier of a replica for a while.
    pub pauses_replication: bool,
}

/// What `mariadb-backup` and `xtrabackup` need and the account of this connection does not have, as their
/// manuals have it.
///
/// # Errors
/// When the server does not tell the account's privileges.
pub async fn missing_for_tool(
    conn: &mut Conn,
    facts: &ServerFacts,
    needs: ToolNeeds,
) -> Result<Vec<Privilege>> {
    Ok(Grants::read(conn, facts).await?.missing(&tool_needs(facts, needs)))
}

fn tool_needs(facts: &ServerFacts, more: ToolNeeds) -> Vec<Need> {
    let mysql = facts.flavor == Flavor::MySql;
    let since = |major, minor, patch| facts.version.at_least(major, minor, patch);
    let mut any: Vec<&[&'static str]> =
        vec![&["RELOAD"], &["PROCESS"], &["LOCK TABLES"], monitor(facts)];
    if mysql && since(8, 0, 0) {
        any.push(&["BACKUP_ADMIN"]);
        any.push(&["SELECT ON performance_schema.log_status"]);
        if since(8, 0, 24) {
            any.push(&["SELECT ON performance_schema.keyring_component_status"]);
        }
        any.push(&["SELECT ON performance_schema.replication_group_members"]);
    }
    if more.kills {
        any.push(match (mysql, since(8, 0, 0)) {
            (true, true) => &["CONNECTION_ADMIN", "SUPER"],
            (false, _) if since(10, 5, 2) => &["CONNECTION ADMIN", "SUPER"],
            _ => &["SUPER"],
        });
    }
    if more.replica_position && !mysql && since(10, 5, 9) {
        any.push(&["SLAVE MONITOR", "REPLICA MONITOR", "SUPER"]);
    }
    if more.pauses_replication {
        any.push(match (mysql, since(8, 0, 0)) {
            (true, true) => &["REPLICATION_SLAVE_ADMIN", "SUPER"],
            (false, _) if since(10, 5, 2) => &["REPLICATION SLAVE ADMIN", "SUPER"],
            _ => &["SUPER"],
        });
    }
    any.into_iter().map(|any| Need::new(Scope::Global, any)).collect()
}

/// What a copy of the files of a running server needs, under a lock or from a snapshot, and the account of this connection
/// does not have: to lock all of it, to see where its files are, and the position in the binary log.
///
/// # Errors
/// When the server does not tell the account's privileges.
pub(crate) async fn missing_for_copies(
    conn: &mut Conn,
    facts: &ServerFacts,
) -> Result<Vec<Privilege>> {
    let any = [&["RELOAD"][..], &["PROCESS"], monitor(facts)];
    let needs: Vec<Need> = any.into_iter().map(|any| Need::new(Scope::Global, any)).collect();
    Ok(Grants::read(conn, facts).await?.missing(&needs))
}

/// What the account lacks to change settings of the server.
///
/// # Errors
/// When the server does not tell the account's privileges.
pub async fn missing_for_settings(conn: &mut Conn, facts: &ServerFacts) -> Result<Vec<Privilege>> {
    let any: &[&'static str] = match facts.flavor {
        Flavor::MySql if facts.version.at_least(8, 0, 0) => &["SYSTEM_VARIABLES_ADMIN", "SUPER"],
        _ => &["SUPER"],
    };
    Ok(Grants::read(conn, facts).await?.missing(&[Need::new(Scope::Global, any)]))
}

/// What the account lacks to bring users and roles back.
///
/// # Errors
/// When the server does not tell the account's privileges.
pub(in crate::logical) async fn missing_for_accounts(
    conn: &mut Conn,
    facts: &ServerFacts,
) -> Result<Vec<Privilege>> {
    let needs = [
        Need::new(Scope::Global, &["CREATE USER"]),
        // To see which are there already.
        Need::new(Scope::Database("mysql".into()), &["SELECT"]),
    ];
    Ok(Grants::read(conn, facts).await?.missing(&needs))
}

/// The privilege to see tablespaces and the numbers of tables, where the account lacks it. Nothing but
/// some tables needs it.
///
/// # Errors
/// When the server does not tell the account's privileges.
pub(in crate::logical) async fn missing_process(
    conn: &mut Conn,
    facts: &ServerFacts,
) -> Result<Option<Privilege>> {
    let needs = [Need::new(Scope::Global, &["PROCESS"])];
    Ok(Grants::read(conn, facts).await?.missing(&needs).pop())
}

/// What the account lacks of these needs.
///
/// # Errors
/// When the server does not tell the account's privileges.
pub(crate) async fn lacking(
    conn: &mut Conn,
    facts: &ServerFacts,
    needs: &[Need],
) -> Result<Vec<Privilege>> {
    Ok(Grants::read(conn, facts).await?.missing(needs))
}

/// For each of these needs what the account lacks.
///
/// # Errors
/// When the server does not tell the account's privileges.
pub(crate) async fn lacking_each(
    conn: &mut Conn,
    facts: &ServerFacts,
    needs: &[Need],
) -> Result<Vec<Option<Privilege>>> {
    let grants = Grants::read(conn, facts).await?;
    Ok(needs.iter().map(|need| grants.missing(std::slice::from_ref(need)).pop()).collect())
}

/// Fails when a kind of object could be hidden from the account.
pub(super) async fn require_definitions(
    conn: &mut Conn,
    facts: &ServerFacts,
    selection: &Selection,
) -> Result<()> {
    let grants = Grants::read(conn, facts).await?;
    let missing = grants.missing(&definition_needs(facts, selection));
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|p| p.name.as_str()).collect();
    let statements: Vec<&str> = missing.iter().map(|p| p.grant.as_str()).collect();
    Err(Error::new(
        ErrorKind::Privilege,
        format!(
            "the account {} may not see all definitions, and the server would hide some silently: \
             it lacks {}",
            grants.account,
            names.join(", ")
        ),
    )
    .with_remedy(format!("run {}", statements.join("; "))))
}

/// A need is met by any of its privileges.
pub(crate) struct Need {
    pub(super) scope: Scope,
    pub(super) any: Vec<&'static str>,
}

impl Need {
    /// Any of these privileges for the whole server.
    pub(crate) fn global(any: &[&'static str]) -> Self {
        Need::new(Scope::Global, any)
    }

    /// Any of these privileges for the whole server. The last one is SUPER, which counts where it stands for the
    /// others.
    pub(crate) fn or_super(facts: &ServerFacts, any: &[&'static str]) -> Self {
        let count = if super_is_all(facts) { any.len() } else { any.len() - 1 };
        Need::global(&any[..count])
    }

    /// Any of these privileges for a database.
    pub(crate) fn on(database: &str, any: &[&'static str]) -> Self {
        Need::new(Scope::Database(database.to_owned()), any)
    }

    /// Any of these privileges for a table, or its database.
    pub(crate) fn of_table(name: TableName, any: &[&'static str]) -> Self {
        Need::new(Scope::Table(name), any)
    }

    pub(super) fn new(scope: Scope, any: &[&'static str]) -> Self {
        Need { scope, any: any.to_vec() }
    }
}

/// From this version on SUPER of a MariaDB no longer stands for what has a privilege of its own.
fn super_is_all(facts: &ServerFacts) -> bool {
    facts.flavor == Flavor::MySql || !facts.version.at_least(11, 0, 1)
}

/// Where a privilege is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    Global,
    Database(String),
    Table(TableName),
}

/// Where privileges on tables are needed: everywhere when everything is meant, as a database that
/// the account may not see is not even listed.
fn scopes(selection: &Selection) -> Vec<Scope> {
    if selection.only_tables() {
        selection.tables.iter().cloned().map(Scope::Table).collect()
    } else if selection.databases.is_empty() {
        vec![Scope::Global]
    } else {
        selection.databases.iter().cloned().map(Scope::Database).collect()
    }
}

fn definition_needs(facts: &ServerFacts, selection: &Selection) -> Vec<Need> {
    let mut needs = Vec::new();
    for scope in scopes(selection) {
        let mut privileges = vec!["SELECT", "TRIGGER"];
        if !selection.only_tables() {
            privileges.extend(["SHOW VIEW", "EVENT"]);
        }
        needs.extend(privileges.into_iter().map(|p| Need::new(scope.clone(), &[p])));
        if !selection.only_tables() && facts.flavor == Flavor::MariaDb {
            let any: &[&str] = if facts.version.at_least(11, 3, 0) {
                &["SHOW CREATE ROUTINE", "SELECT ON mysql.proc"]
            } else {
                &["SELECT ON mysql.proc"]
            };
            needs.push(Need::new(scope, any));
        }
    }
    if !selection.only_tables() && facts.flavor == Flavor::MySql {
        // On a database neither is enough: other accounts' routines stay hidden.
        let any: &[&str] = if facts.version.at_least(8, 0, 20) {
            &["SHOW_ROUTINE", "SELECT"]
        } else {
            &["SELECT"]
        };
        needs.push(Need::new(Scope::Global, any));
    }
    needs
}

/// For locks, and for the position in the binary log.
///
/// RELOAD locks the server for a moment; where it cannot be had, as on managed servers, all tables
/// are locked one by one. Without BACKUP_ADMIN (MySQL) DDL is kept off by a transaction.
fn consistency_needs(facts: &ServerFacts) -> Vec<Need> {
    const LOCK: &[&str] = &["RELOAD", "FLUSH_TABLES", "LOCK TABLES"];
    [LOCK, monitor(facts)].iter().map(|any| Need::new(Scope::Global, any)).collect()
}

/// Any of these lets an account see the position in the binary log.
fn monitor(facts: &ServerFacts) -> &'static [&'static str] {
    match facts.flavor {
        Flavor::MariaDb if facts.capabilities().show_binlog_status => {
            &["BINLOG MONITOR", "REPLICATION CLIENT", "SUPER"]
        }
        _ => &["REPLICATION CLIENT", "SUPER"],
    }
}
