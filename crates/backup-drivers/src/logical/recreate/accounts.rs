//! Users and roles.
//!
//! An account that is there already stays as it is, with everything it may do: a backup must not
//! bring back the password of last year, nor lock out who restores. What may be granted only on
//! things that are not there yet waits until they are.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{Error, ErrorKind, Finding, Flavor, Result, Severity};
use mysql_async::Conn;

use super::super::account::{Account, AccountName};
use super::super::catalog::Catalog;
use super::super::ddl::{hex_text, routine_grant, single_privileges};
use super::super::inventory::{self, ServerFacts, query};
use super::definitions::prepare;
use super::passwords::as_role;

/// `ER_NOT_VALID_PASSWORD`.
const NOT_VALID_PASSWORD: u16 = 1819;

/// What is still to be granted, and what went wrong so far.
#[derive(Debug, Default)]
pub struct AccountsInWork {
    grants: Vec<String>,
    /// For the end: default roles, second passwords.
    last: Vec<(AccountName, String)>,
    warnings: Vec<String>,
}

/// Creates the accounts of the catalogue that the target does not have, and grants them what can be
/// granted now. [`AccountsInWork::grant`] does the rest when tables, views and routines are there.
///
/// `lost` are grants that accounts of the target had on what was dropped, to be given again.
///
/// An account that the target does not take (a plugin that it lacks) is a warning, not an error.
///
/// # Errors
/// [`ErrorKind::Privilege`] when the account that restores may not read or create accounts.
pub async fn create_accounts(
    conn: &mut Conn,
    facts: &ServerFacts,
    catalog: &Catalog,
    lost: &[String],
) -> Result<AccountsInWork> {
    let mut work = created(conn, facts, catalog, lost).await?;
    // What they are about is made after this.
    work.grants.extend(lost.iter().cloned());
    Ok(work)
}

async fn created(
    conn: &mut Conn,
    facts: &ServerFacts,
    catalog: &Catalog,
    lost: &[String],
) -> Result<AccountsInWork> {
    let mut work = AccountsInWork::default();
    if catalog.accounts.is_empty() {
        return Ok(work);
    }
    if catalog.header.flavor != facts.flavor {
        work.warnings.push(of_another_flavor(facts, catalog));
        return Ok(work);
    }
    let (session, chosen) = Chosen::of(conn, facts, catalog, lost).await?;
    work.warnings.extend(chosen.warnings);
    let mut created: Vec<&Account> = Vec::new();
    for account in chosen.accounts {
        // Everybody has this one.
        if account.is_public() || work.create(conn, account).await? {
            created.push(account);
        }
    }
    for account in &created {
        work.roles(conn, facts, account).await?;
    }
    work.give_up_roles(conn, facts, &created, catalog, &session).await?;
    for account in &created {
        let revokes = account.has_revokes();
        let usable = |grant: &&String| {
            !revokes
                || session.partial_revokes
                || !(grant.starts_with("REVOKE") || grant.contains(" ON *.* "))
        };
        work.grants.extend(account.grants.iter().filter(usable).cloned());
        work.later(facts, account);
    }
    work.grant(conn).await?;
    Ok(work)
}

/// What [`create_accounts`] will tell of accounts that the target has already, or does not take as they are.
///
/// # Errors
/// Those of [`sql_error`](crate::connect::sql_error).
pub(in crate::logical) async fn foreseen_accounts(
    conn: &mut Conn,
    facts: &ServerFacts,
    catalog: &Catalog,
    lost: &[String],
) -> Result<Vec<Finding>> {
    let warnings = match catalog.accounts.is_empty() {
        true => Vec::new(),
        false if catalog.header.flavor != facts.flavor => vec![of_another_flavor(facts, catalog)],
        false => Chosen::of(conn, facts, catalog, lost).await?.1.warnings,
    };
    let remedy = "decide by hand what it may do; --no-users leaves users and roles out";
    let finding = |text| Finding::new(Severity::Warning, "users and roles", text, remedy);
    Ok(warnings.into_iter().map(finding).collect())
}

fn of_another_flavor(facts: &ServerFacts, catalog: &Catalog) -> String {
    let (from, to) = (catalog.header.flavor, facts.flavor);
    format!("users and roles are not restored: those of {from} mean nothing to {to}")
}

/// Which accounts of a catalogue a target takes.
struct Chosen<'a> {
    accounts: Vec<&'a Account>,
    /// What there is to say of the others, and of some of them.
    warnings: Vec<String>,
}

impl<'a> Chosen<'a> {
    async fn of(
        conn: &mut Conn,
        facts: &ServerFacts,
        catalog: &'a Catalog,
        lost: &[String],
    ) -> Result<(Session, Self)> {
        prepare(conn, facts).await?;
        let mut session = Session::read(conn, facts).await?;
        let ours = catalog.accounts.iter().filter(|a| a.name == session.current);
        let ours = ours.flat_map(|a| &a.roles).map(|granted| granted.role.clone());
        session.roles.extend(ours);
        let there = inventory::accounts(conn, facts).await?;
        let there: BTreeMap<&AccountName, &Account> = there.iter().map(|a| (&a.name, a)).collect();

        let mut chosen = Chosen { accounts: Vec::new(), warnings: Vec::new() };
        for account in &catalog.accounts {
            let name = &account.name;
            match there.get(name) {
                Some(other) if account.is_public() && *other == account => continue,
                // What it may do is added.
                Some(_) if account.is_public() => {}
                Some(other) => {
                    if !may_the_same(other, lost, account) && *name != session.current {
                        chosen.warnings.push(format!(
                            "the account {name} is there already and stays as it is; that of the backup may do \
                             other things"
                        ));
                    }
                    continue;
                }
                None if session.would_be_hidden_by(name) => {
                    chosen.warnings.push(format!(
                        "the account {name} is not created: the account that restores ({}) could not sign in any \
                         more, as this one would be taken for it; create it by hand",
                        session.current
                    ));
                    continue;
                }
                None => {}
            }
            if account.has_revokes() && !session.partial_revokes {
                chosen.warnings.push(format!(
                    "the account {name} gets no privileges on everything: some were revoked from it on single \
                     databases, which the target does not allow; SET GLOBAL partial_revokes = ON there and grant \
                     them by hand"
                ));
            }
            chosen.accounts.push(account);
        }
        Ok((session, chosen))
    }
}

/// Whether an account of the target, with the grants that it lost for the time being, and one of the backup may do the
/// same. Their passwords differ more often than not.
fn may_the_same(there: &Account, lost: &[String], account: &Account) -> bool {
    let of_it =
        |grant: &&String| routine_grant(grant).is_some_and(|found| found.account == there.name);
    let grants: BTreeSet<&String> = there.grants.iter().chain(lost.iter().filter(of_it)).collect();
    grants == account.grants.iter().collect()
        && there.roles == account.roles
        && there.default_roles == account.default_roles
}

impl AccountsInWork {
    /// Grants what waits for things that may be there now. Gives whether anything came of it.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn grant(&mut self, conn: &mut Conn) -> Result<bool> {
        let mut progress = false;
        for grant in std::mem::take(&mut self.grants) {
            match run(conn, &grant).await? {
                Outcome::Done => progress = true,
                Outcome::Missing(_) => self.grants.push(grant),
                Outcome::Refused(error) => {
                    progress |= self.one_by_one(conn, &grant, error).await?;
                }
            }
        }
        Ok(progress)
    }

    /// Ends the work. Gives warnings for what could not be granted.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn finish(mut self, conn: &mut Conn) -> Result<Vec<String>> {
        if self.grants.is_empty() && self.last.is_empty() {
            return Ok(self.warnings);
        }
        // Code is created under settings of its own.
        query::run(conn, "SET NAMES utf8mb4", "cannot set up the session").await?;
        query::run(conn, "SET SESSION sql_mode = ''", "cannot set up the session").await?;
        self.grant(conn).await?;
        for grant in std::mem::take(&mut self.grants) {
            if let Outcome::Missing(e) | Outcome::Refused(e) = run(conn, &grant).await? {
                self.warnings.push(format!("not granted: {grant}: {e}"));
            }
        }
        let mut flush = false;
        for (name, statement) in std::mem::take(&mut self.last) {
            flush |= statement.starts_with("UPDATE");
            if let Outcome::Missing(e) | Outcome::Refused(e) = run(conn, &statement).await? {
                let what = if statement.starts_with("UPDATE") {
                    "second password"
                } else {
                    "default role"
                };
                self.warnings.push(format!("the account {name} has no {what}: {e}"));
            }
        }
        if flush && let Outcome::Refused(e) = run(conn, "FLUSH PRIVILEGES").await? {
            self.warnings
                .push(format!("second passwords are in effect after FLUSH PRIVILEGES: {e}"));
        }
        Ok(self.warnings)
    }

    /// Creates an account. Gives whether it is there now.
    async fn create(&mut self, conn: &mut Conn, account: &Account) -> Result<bool> {
        if account.create.is_empty() {
            return Ok(true);
        }
        let what = format!("cannot create the account {}", account.name);
        let error = match query::run(conn, account.create.clone(), &what).await {
            Ok(()) => return Ok(true),
            Err(e) => e,
        };
        // Rules for passwords are for roles too, where they are not made as such.
        if error.server().is_some_and(|s| s.code == NOT_VALID_PASSWORD)
            && let Some([create, alter]) = as_role(account)
            && query::run(conn, create, &what).await.is_ok()
        {
            if let Err(e) = query::run(conn, alter, &what).await {
                self.warnings.push(format!(
                    "the role {} lacks its options: {}",
                    account.name,
                    e.chain()
                ));
            }
            return Ok(true);
        }
        match (error.kind(), error.server()) {
            (ErrorKind::Privilege, _) => Err(error.with_remedy(
                "restore with an account that has CREATE USER on *.*, or leave users and roles out \
                 with --no-users",
            )),
            (_, None) => Err(error),
            // A syntax error repeats the statement, and in it the hash of the password.
            (_, Some(server)) if server.code == 1064 => {
                self.warnings
                    .push(format!("{what}: the target does not understand its definition"));
                Ok(false)
            }
            _ => {
                self.warnings.push(error.chain());
                Ok(false)
            }
        }
    }

    async fn roles(
        &mut self,
        conn: &mut Conn,
        facts: &ServerFacts,
        account: &Account,
    ) -> Result<()> {
        for granted in &account.roles {
            let option = if granted.admin { " WITH ADMIN OPTION" } else { "" };
            let sql = format!("GRANT {} TO {}{option}", granted.role.sql(), account.name.sql());
            match run(conn, &sql).await? {
                Outcome::Done => {}
                Outcome::Missing(e) | Outcome::Refused(e) => {
                    self.warnings.push(format!("not granted: {sql}: {e}"));
                }
            }
        }
        let defaults: Vec<String> = account.default_roles.iter().map(AccountName::sql).collect();
        if !defaults.is_empty() {
            let word = if facts.flavor == Flavor::MySql { "TO" } else { "FOR" };
            let sql =
                format!("SET DEFAULT ROLE {} {word} {}", defaults.join(", "), account.name.sql());
            self.last.push((account.name.clone(), sql));
        }
        Ok(())
    }

    /// MariaDB gives each new role to whoever creates it. It is taken away again where the source
    /// had it otherwise. Where nobody is left then who could grant the role, that is told.
    async fn give_up_roles(
        &mut self,
        conn: &mut Conn,
        facts: &ServerFacts,
        created: &[&Account],
        catalog: &Catalog,
        session: &Session,
    ) -> Result<()> {
        if facts.flavor != Flavor::MariaDb {
            return Ok(());
        }
        let has = |account: &Account, role: &AccountName| {
            account.roles.iter().any(|granted| granted.admin && granted.role == *role)
        };
        for role in created.iter().filter(|a| a.name.host.is_empty() && !a.create.is_empty()) {
            if session.roles.contains(&role.name) {
                continue;
            }
            let (name, current) = (role.name.sql(), session.current.sql());
            if let Outcome::Refused(e) = run(conn, &format!("REVOKE {name} FROM {current}")).await?
            {
                self.warnings.push(format!("{} kept the role {}: {e}", session.current, role.name));
                continue;
            }
            if created.iter().any(|account| has(account, &role.name)) {
                continue;
            }
            let admins = catalog.accounts.iter().filter(|account| has(account, &role.name));
            let admins: Vec<String> = admins.map(|account| account.name.to_string()).collect();
            if !admins.is_empty() {
                self.warnings.push(format!(
                    "nobody at the target may grant the role {}: at the source {} might; to grant it, create it \
                     again there",
                    role.name,
                    admins.join(", ")
                ));
            }
        }
        Ok(())
    }

    fn later(&mut self, facts: &ServerFacts, account: &Account) {
        if let Some(json) =
            account.second_password.as_ref().filter(|_| facts.flavor == Flavor::MySql)
        {
            // No statement takes its hash.
            let sql = format!(
                "UPDATE mysql.user SET User_attributes = JSON_SET(COALESCE(User_attributes, JSON_OBJECT()), \
                 '$.additional_password', CAST({} AS JSON)) WHERE User = {} AND Host = {}",
                hex_text(json),
                hex_text(&account.name.user),
                hex_text(&account.name.host),
            );
            self.last.push((account.name.clone(), sql));
        }
    }

    /// Grants what can be granted of several privileges; the others become warnings.
    async fn one_by_one(&mut self, conn: &mut Conn, grant: &str, error: String) -> Result<bool> {
        let mut progress = false;
        let Some(singles) = single_privileges(grant) else {
            self.warnings.push(format!("not granted: {grant}: {error}"));
            return Ok(false);
        };
        for single in singles {
            match run(conn, &single).await? {
                Outcome::Done => progress = true,
                Outcome::Missing(e) | Outcome::Refused(e) => {
                    self.warnings.push(format!("not granted: {single}: {e}"));
                }
            }
        }
        Ok(progress)
    }
}

/// How a statement about privileges ended.
enum Outcome {
    Done,
    /// Something that it names is not there, maybe not yet.
    Missing(String),
    Refused(String),
}

async fn run(conn: &mut Conn, sql: &str) -> Result<Outcome> {
    let what = "cannot grant";
    // MariaDB before 11.4 knows packages in this mode only.
    let oracle = sql.contains(" ON PACKAGE ");
    if oracle {
        query::run(conn, "SET SESSION sql_mode = 'ORACLE'", what).await?;
    }
    let done = query::run(conn, sql.to_owned(), what).await;
    if oracle {
        query::run(conn, "SET SESSION sql_mode = ''", what).await?;
    }
    match done {
        Ok(()) => Ok(Outcome::Done),
        Err(e) => match e.server() {
            // No such table, column, database or routine.
            Some(s) if [1146, 1054, 1049, 1305].contains(&s.code) => {
                Ok(Outcome::Missing(s.message.clone()))
            }
            Some(s) => Ok(Outcome::Refused(s.message.clone())),
            None => Err(e),
        },
    }
}

/// Who restores.
struct Session {
    /// The account that the server took it for.
    current: AccountName,
    /// The name that it signed in with.
    user: String,
    /// Roles that it had before, here or on the source (MariaDB).
    roles: BTreeSet<AccountName>,
    /// Whether privileges may be revoked on single databases (MySQL).
    partial_revokes: bool,
}

impl Session {
    async fn read(conn: &mut Conn, facts: &ServerFacts) -> Result<Self> {
        let what = "cannot ask who restores";
        let rows = query::rows(conn, "SELECT CURRENT_USER(), USER()", what).await?;
        let text =
            |column| rows.first().and_then(|row| query::text(row, column)).unwrap_or_default();
        let split = |text: String| match text.rsplit_once('@') {
            Some((user, host)) => (user.to_owned(), host.to_owned()),
            None => (text, String::new()),
        };
        let ((user, host), (signed_in, _)) = (split(text(0)), split(text(1)));
        let sql = "SHOW GLOBAL VARIABLES LIKE 'partial_revokes'";
        let rows = query::rows(conn, sql, what).await?;
        let partial_revokes =
            rows.first().and_then(|row| query::text(row, 1)).as_deref() == Some("ON");
        let current = AccountName { user, host };
        let mut roles = BTreeSet::new();
        if facts.flavor == Flavor::MariaDb {
            let sql = format!(
                "SELECT Role FROM mysql.roles_mapping WHERE User = {} AND Host = {}",
                hex_text(&current.user),
                hex_text(&current.host)
            );
            let mapped = query::rows(conn, sql, what).await;
            let mapped = mapped
                .map_err(|e: Error| e.with_remedy("grant SELECT ON mysql.*, or use --no-users"))?;
            let name = |user| AccountName { user, host: String::new() };
            roles = mapped.iter().filter_map(|row| query::text(row, 0)).map(name).collect();
        }
        Ok(Session { current, user: signed_in, roles, partial_revokes })
    }

    /// Whether the server could take a new connection of this session for `account`: the most
    /// specific host wins, and at the same host a name before the anonymous one.
    fn would_be_hidden_by(&self, account: &AccountName) -> bool {
        let same_user = account.user == self.user || account.user.is_empty();
        let is_role = account.host.is_empty();
        let from_anywhere = self.current.host.contains(['%', '_', '/']);
        same_user && !is_role && (from_anywhere || self.current.user.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_that_would_take_our_place_is_known() {
        let name = |user: &str, host: &str| AccountName { user: user.into(), host: host.into() };
        let session = |host: &str| Session {
            current: name("admin", host),
            user: "admin".into(),
            roles: BTreeSet::new(),
            partial_revokes: false,
        };
        assert!(session("%").would_be_hidden_by(&name("admin", "localhost")));
        assert!(session("%").would_be_hidden_by(&name("", "localhost")));
        assert!(!session("%").would_be_hidden_by(&name("other", "localhost")));
        assert!(!session("%").would_be_hidden_by(&name("admin", "")));
        assert!(!session("localhost").would_be_hidden_by(&name("admin", "%")));
    }
}
