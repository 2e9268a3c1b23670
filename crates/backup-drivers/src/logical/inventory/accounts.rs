//! Users, roles and what they may do.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{ErrorKind, Flavor, Result};
use mysql_async::Conn;

use super::super::account::{Account, AccountName, GrantedRole, PUBLIC};
use super::super::ddl::{account_create, account_grant, quote_text};
use super::super::settings::{self, wanted};
use super::{ServerFacts, query};

/// Accounts that every server makes for itself.
const OWN: [&str; 4] = ["mysql.infoschema", "mysql.session", "mysql.sys", "mariadb.sys"];

/// What the reading was for, in messages.
const WHAT: &str = "cannot read the accounts";

/// Every account and role but the server's own, sorted by name.
///
/// # Errors
/// [`ErrorKind::Privilege`] without `SELECT` on the database `mysql`; else those of
/// [`sql_error`](crate::connect::sql_error).
pub async fn accounts(conn: &mut Conn, facts: &ServerFacts) -> Result<Vec<Account>> {
    // Hashes hold bytes that are no text.
    settings::apply(conn, &[wanted("print_identified_with_as_hex", "ON")]).await?;
    let read = match facts.flavor {
        Flavor::MySql => mysql(conn, facts).await,
        Flavor::MariaDb => mariadb(conn).await,
    };
    let mut accounts = read.map_err(|e| match e.kind() {
        ErrorKind::Privilege => e.with_remedy(
            "grant SELECT ON mysql.* to the account, or leave users and roles out with --no-users",
        ),
        _ => e,
    })?;
    accounts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(accounts)
}

fn is_own(name: &AccountName) -> bool {
    name.host == "localhost" && OWN.contains(&name.user.as_str())
}

/// Which roles each account has.
type Roles = BTreeMap<AccountName, BTreeSet<GrantedRole>>;

/// An account without its roles.
async fn account(conn: &mut Conn, name: AccountName, create: String) -> Result<Account> {
    let rows = query::rows(conn, format!("SHOW GRANTS FOR {}", name.sql()), WHAT).await?;
    let lines = rows.iter().filter_map(|row| query::text(row, 0));
    let grants = lines.filter_map(|line| account_grant(&line, &name)).collect();
    Ok(Account {
        name,
        create,
        grants,
        roles: Vec::new(),
        default_roles: Vec::new(),
        second_password: None,
    })
}

/// The definition of an account; `x509` are issuer and subject of the certificate that it needs,
/// which both servers print without regard to the quotes in them.
async fn show_create(
    conn: &mut Conn,
    name: &AccountName,
    x509: [Option<String>; 2],
) -> Result<String> {
    let rows = query::rows(conn, format!("SHOW CREATE USER {}", name.sql()), WHAT).await?;
    let row = rows.first().ok_or_else(|| backup_core::Error::new(ErrorKind::Source, WHAT))?;
    let mut create = query::required(row, 0)?;
    for (word, value) in ["ISSUER", "SUBJECT"].into_iter().zip(x509) {
        let Some(value) = value.filter(|v| v.contains(['\'', '\\'])) else { continue };
        let shown = format!("{word} '{value}'");
        create = create.replacen(&shown, &format!("{word} {}", quote_text(&value)), 1);
    }
    Ok(account_create(&create))
}

async fn mysql(conn: &mut Conn, facts: &ServerFacts) -> Result<Vec<Account>> {
    // Of 8.0.14.
    let second = if facts.version.at_least(8, 0, 14) {
        "User_attributes->'$.additional_password'"
    } else {
        "NULL"
    };
    let sql = format!(
        "SELECT User, Host, CAST({second} AS CHAR), x509_issuer, x509_subject FROM mysql.user"
    );
    let rows = query::rows(conn, sql, WHAT).await?;
    let (mut roles, mut defaults) = (Roles::new(), BTreeMap::<_, BTreeSet<_>>::new());
    if facts.capabilities().roles {
        let sql = "SELECT TO_USER, TO_HOST, FROM_USER, FROM_HOST, WITH_ADMIN_OPTION \
                   FROM mysql.role_edges";
        for row in query::rows(conn, sql, WHAT).await? {
            let admin = query::text(&row, 4).as_deref() == Some("Y");
            let role = GrantedRole { role: name(&row, 2)?, admin };
            roles.entry(name(&row, 0)?).or_default().insert(role);
        }
        let sql =
            "SELECT USER, HOST, DEFAULT_ROLE_USER, DEFAULT_ROLE_HOST FROM mysql.default_roles";
        for row in query::rows(conn, sql, WHAT).await? {
            defaults.entry(name(&row, 0)?).or_default().insert(name(&row, 2)?);
        }
    }
    let mut accounts = Vec::with_capacity(rows.len());
    for row in rows {
        let name = name(&row, 0)?;
        if is_own(&name) {
            continue;
        }
        let x509 = [query::text(&row, 3), query::text(&row, 4)];
        let create = show_create(conn, &name, x509).await?;
        let mut account = account(conn, name, create).await?;
        account.roles = roles.remove(&account.name).into_iter().flatten().collect();
        account.default_roles = defaults.remove(&account.name).into_iter().flatten().collect();
        account.second_password = query::text(&row, 2);
        accounts.push(account);
    }
    Ok(accounts)
}

async fn mariadb(conn: &mut Conn) -> Result<Vec<Account>> {
    let sql = "SELECT User, Host, is_role, default_role, x509_issuer, x509_subject FROM mysql.user";
    let rows = query::rows(conn, sql, WHAT).await?;
    let mut roles = Roles::new();
    let sql = "SELECT User, Host, Role, Admin_option FROM mysql.roles_mapping";
    for row in query::rows(conn, sql, WHAT).await? {
        let role = AccountName { user: query::required(&row, 2)?, host: String::new() };
        let admin = query::text(&row, 3).as_deref() == Some("Y");
        roles.entry(name(&row, 0)?).or_default().insert(GrantedRole { role, admin });
    }
    let mut accounts = Vec::with_capacity(rows.len());
    for row in rows {
        let name = name(&row, 0)?;
        if is_own(&name) {
            continue;
        }
        let is_role = query::text(&row, 2).as_deref() == Some("Y");
        let create = if !is_role {
            show_create(conn, &name, [query::text(&row, 4), query::text(&row, 5)]).await?
        } else if name.user == PUBLIC {
            String::new()
        } else {
            format!("CREATE ROLE {}", name.sql())
        };
        let mut account = account(conn, name, create).await?;
        account.roles = roles.remove(&account.name).into_iter().flatten().collect();
        let default = query::text(&row, 3).filter(|role| !role.is_empty());
        account.default_roles =
            default.into_iter().map(|user| AccountName { user, host: String::new() }).collect();
        accounts.push(account);
    }
    Ok(accounts)
}

/// A name in two columns next to each other.
fn name(row: &mysql_async::Row, column: usize) -> Result<AccountName> {
    Ok(AccountName {
        user: query::required(row, column)?,
        host: query::text(row, column + 1).unwrap_or_default(),
    })
}
