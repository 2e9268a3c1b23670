//! Users and roles, each privilege as soon as what it is about is there.

use std::collections::BTreeSet;

use backup_core::Flavor;

use super::super::account::{Account, AccountName, GrantedRole};
use super::super::catalog::{Catalog, StoredKind, StoredObject};
use super::super::ddl::{Dialect, hex_text, quote_text, significant};
use super::super::recreate::plain_role;
use super::super::select::TableName;
use super::script::Script;

/// What is still to be written.
pub(super) struct Accounts<'a> {
    accounts: &'a [Account],
    flavor: Flavor,
    waiting: Vec<Grant<'a>>,
    views: BTreeSet<TableName>,
    relations: BTreeSet<TableName>,
}

struct Grant<'a> {
    statement: &'a str,
    on: On,
}

/// What a privilege is about.
#[derive(Debug, PartialEq, Eq)]
enum On {
    /// Everything, a database, another account.
    Wide,
    /// A table, a view, a sequence.
    Relation(TableName),
    /// A routine or a package.
    Code,
}

impl<'a> Accounts<'a> {
    pub(super) fn new(catalog: &'a Catalog) -> Self {
        let views = catalog.stored.iter().filter(|o| o.kind == StoredKind::View);
        let grants = catalog.accounts.iter().flat_map(|a| &a.grants);
        Accounts {
            accounts: &catalog.accounts,
            flavor: catalog.header.flavor,
            waiting: grants.map(|g| Grant { statement: g, on: on(g) }).collect(),
            views: views.map(StoredObject::full_name).collect(),
            relations: super::sql::relations(catalog).collect(),
        }
    }

    /// Creates the accounts, and grants what needs nothing but tables.
    pub(super) fn create(&mut self, script: &mut Script) {
        if self.accounts.is_empty() {
            return;
        }
        script.heading("Users and roles; one that is there already keeps its password");
        let roles = |a: &&Account| self.is_role(a);
        // Accounts first, lest a role have nobody to be given to.
        let (roles, users): (Vec<&Account>, Vec<&Account>) = self.accounts.iter().partition(roles);
        let mut created: Vec<&AccountName> = Vec::new();
        for account in users.into_iter().chain(roles) {
            // Of a role of MySQL, which rules for passwords may refuse as the account without one that it is.
            let role = plain_role(account);
            let create = role.as_ref().unwrap_or(&account.create);
            let Some((kind, rest)) =
                create.split_once(' ').and_then(|(_, rest)| rest.split_once(' '))
            else {
                // PUBLIC is there always.
                continue;
            };
            if self.flavor == Flavor::MariaDb
                && kind.eq_ignore_ascii_case("ROLE")
                && self.has_admin(&account.name)
            {
                created.push(&account.name);
                let own = self.is_own(&account.name);
                script.run(format!("SET @holdfast_own_{} = {own}", created.len()));
            }
            script.run(format!("CREATE {kind} IF NOT EXISTS {rest}"));
        }
        for account in self.accounts {
            for granted in &account.roles {
                self.grant_role(&account.name, granted, script);
            }
        }
        // Whoever creates a role of MariaDB has it, and is to have it no longer where it had it neither here before nor at
        // the source.
        for (n, role) in created.into_iter().enumerate() {
            let revoke = quote_text(&format!("REVOKE {} FROM CURRENT_USER", role.sql()));
            script.run(format!(
                "SET @holdfast_sql = IF({} AND NOT @holdfast_own_{}, {revoke}, 'DO 0')",
                is_member(role),
                n + 1
            ));
            script.run("EXECUTE IMMEDIATE @holdfast_sql");
        }
        let views = self.views.clone();
        self.write(script, |on| match on {
            On::Wide => true,
            On::Relation(name) => !views.contains(name),
            On::Code => false,
        });
    }

    fn is_role(&self, account: &Account) -> bool {
        account.create.starts_with("CREATE ROLE") || account.is_public()
    }

    /// Whether somebody may grant a role to others.
    fn has_admin(&self, role: &AccountName) -> bool {
        let granted = self.accounts.iter().flat_map(|account| &account.roles);
        granted.into_iter().any(|granted| granted.admin && granted.role == *role)
    }

    /// An expression for whether whoever loads the file has a role of MariaDB, or had it at the source.
    fn is_own(&self, role: &AccountName) -> String {
        let has = |a: &&Account| a.roles.iter().any(|granted| granted.role == *role);
        let members = self.accounts.iter().filter(has).map(|account| {
            let AccountName { user, host } = &account.name;
            format!(" OR CURRENT_USER() = {}", hex_text(&format!("{user}@{host}")))
        });
        is_member(role) + &String::from_iter(members)
    }

    /// Grants a role. MariaDB lets nobody do so who may not grant the role to others, even where there is nothing to be
    /// done.
    fn grant_role(&self, account: &AccountName, granted: &GrantedRole, script: &mut Script) {
        let option = if granted.admin { " WITH ADMIN OPTION" } else { "" };
        let grant = format!("GRANT {} TO {}{option}", granted.role.sql(), account.sql());
        if self.flavor == Flavor::MySql {
            script.run(grant);
            return;
        }
        let admin = if granted.admin { " AND Admin_option = 'Y'" } else { "" };
        script.run(format!(
            "SET @holdfast_sql = IF(EXISTS (SELECT 1 FROM mysql.roles_mapping WHERE Role = {} AND User = {} AND Host = \
             {}{admin}), 'DO 0', {})",
            hex_text(&granted.role.user),
            hex_text(&account.user),
            hex_text(&account.host),
            quote_text(&grant)
        ));
        script.run("EXECUTE IMMEDIATE @holdfast_sql");
    }

    /// Grants what is about routines.
    pub(super) fn on_code(&mut self, script: &mut Script) {
        self.write(script, |on| *on == On::Code);
    }

    /// Grants what is about a view that is there now: the definer of the next may need it.
    pub(super) fn on_relation(&mut self, name: &TableName, script: &mut Script) {
        self.write(script, |on| matches!(on, On::Relation(n) if n == name));
    }

    fn write(&mut self, script: &mut Script, now: impl Fn(&On) -> bool) {
        let (ready, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition(|g| now(&g.on));
        self.waiting = waiting;
        let ready: Vec<Grant<'_>> = ready;
        for grant in ready {
            if let On::Relation(name) = &grant.on
                && !self.relations.contains(name)
            {
                script.warn(format!("not granted, for {name} is not there: {}", grant.statement));
                continue;
            }
            // MariaDB before 11.4 knows packages in this mode only.
            if grant.statement.contains(" ON PACKAGE ") {
                script.raw("SET SESSION sql_mode = 'ORACLE';\n");
                script.statement(grant.statement.as_bytes());
                script.settings = Some(String::new());
                script.base();
            } else {
                script.run(grant.statement);
            }
        }
    }

    /// Default roles, second passwords, and what is still waiting.
    pub(super) fn finish(&mut self, script: &mut Script) {
        self.write(script, |_| true);
        let mut flush = false;
        for account in self.accounts {
            let name = account.name.sql();
            let defaults: Vec<String> =
                account.default_roles.iter().map(AccountName::sql).collect();
            if !defaults.is_empty() {
                let word = if self.flavor == Flavor::MySql { "TO" } else { "FOR" };
                script.run(format!("SET DEFAULT ROLE {} {word} {name}", defaults.join(", ")));
            }
            if let Some(json) =
                account.second_password.as_ref().filter(|_| self.flavor == Flavor::MySql)
            {
                // No statement takes its hash.
                script.run(format!(
                    "UPDATE mysql.user SET User_attributes = JSON_SET(COALESCE(User_attributes, JSON_OBJECT()), \
                     '$.additional_password', CAST({} AS JSON)) WHERE User = {} AND Host = {}",
                    hex_text(json),
                    hex_text(&account.name.user),
                    hex_text(&account.name.host),
                ));
                flush = true;
            }
        }
        if flush {
            script.run("FLUSH PRIVILEGES");
        }
    }
}

/// An expression for whether whoever loads the file has a role of MariaDB.
fn is_member(role: &AccountName) -> String {
    format!(
        "EXISTS (SELECT 1 FROM mysql.roles_mapping WHERE Role = {} AND CONCAT(User, '@', Host) = CURRENT_USER())",
        hex_text(&role.user)
    )
}

/// What `GRANT … ON what` is about.
fn on(grant: &str) -> On {
    let tokens = significant(grant, Dialect::default());
    let Some(at) = tokens.iter().position(|t| t.is_word("ON")) else { return On::Wide };
    let next = |n: usize| tokens.get(at + n);
    let word = |word: &str| next(1).is_some_and(|t| t.is_word(word));
    if word("PROCEDURE") || word("FUNCTION") || word("PACKAGE") || word("LIBRARY") {
        return On::Code;
    }
    let start = 1 + usize::from(word("TABLE") || word("SEQUENCE"));
    match (next(start), next(start + 1), next(start + 2)) {
        (Some(database), Some(dot), Some(name)) if dot.is_sign('.') => {
            match (database.name(), name.name()) {
                (Some(database), Some(table)) => On::Relation(TableName { database, table }),
                _ => On::Wide,
            }
        }
        _ => On::Wide,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_grant_is_about() {
        assert_eq!(on("GRANT SELECT ON *.* TO `a`@`b`"), On::Wide);
        assert_eq!(on("GRANT SELECT ON `d`.* TO `a`@`b`"), On::Wide);
        assert_eq!(on("GRANT PROXY ON `a`@`b` TO `c`@`d`"), On::Wide);
        let name = TableName { database: "d".into(), table: "ON".into() };
        assert_eq!(on("GRANT SELECT (`x`) ON `d`.`ON` TO `a`@`b`"), On::Relation(name));
        assert_eq!(on("GRANT EXECUTE ON PACKAGE BODY `d`.`p` TO `a`@`b`"), On::Code);
    }
}
