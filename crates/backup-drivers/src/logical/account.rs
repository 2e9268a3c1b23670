//! Accounts of a server: users and roles, with what they may do.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ddl::quote_text;
use super::select::quote_name;

/// Name of an account or role.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AccountName {
    /// The user; empty for the anonymous one.
    pub user: String,
    /// The host, a pattern; empty for a role of MariaDB.
    #[serde(default)]
    pub host: String,
}

impl AccountName {
    /// As SQL takes it, ``'user'@'host'``, or `` `role` `` for a role of MariaDB.
    #[must_use]
    pub fn sql(&self) -> String {
        if !self.host.is_empty() || self.user.is_empty() {
            format!("{}@{}", quote_text(&self.user), quote_text(&self.host))
        } else if self.user == PUBLIC {
            PUBLIC.to_owned()
        } else {
            quote_name(&self.user)
        }
    }
}

/// The role of MariaDB that everybody has; it is never created.
pub(super) const PUBLIC: &str = "PUBLIC";

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.is_empty() && !self.user.is_empty() {
            f.write_str(&self.user)
        } else {
            write!(f, "{}@{}", self.user, self.host)
        }
    }
}

/// A role that an account was granted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GrantedRole {
    /// The role.
    pub role: AccountName,
    /// Whether the account may grant it to others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
}

/// An account or a role, with its privileges.
///
/// Its definition holds the hash of its password, which is why it is not printed with `{:?}`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Its name.
    pub name: AccountName,
    /// `SHOW CREATE USER` without default roles, or `CREATE ROLE`; nothing for `PUBLIC`.
    pub create: String,
    /// `GRANT` and `REVOKE` statements as `SHOW GRANTS` gives them, without roles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<String>,
    /// The roles that it was granted, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<GrantedRole>,
    /// The roles that are active when it signs in, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub default_roles: Vec<AccountName>,
    /// The second password of an account (`RETAIN CURRENT PASSWORD`, MySQL): the JSON string of
    /// its hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second_password: Option<String>,
}

impl Account {
    /// Whether it is the role of MariaDB that everybody has.
    pub(super) fn is_public(&self) -> bool {
        self.name.user == PUBLIC && self.name.host.is_empty()
    }

    /// Whether privileges on everything were taken from it on single databases (MySQL).
    pub(super) fn has_revokes(&self) -> bool {
        self.grants.iter().any(|grant| grant.starts_with("REVOKE"))
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("name", &self.name)
            .field("grants", &self.grants)
            .field("roles", &self.roles)
            .field("default_roles", &self.default_roles)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(user: &str, host: &str) -> AccountName {
        AccountName { user: user.into(), host: host.into() }
    }

    #[test]
    fn names_are_quoted_as_each_kind_needs_it() {
        assert_eq!(name("it's", "10.%").sql(), "'it''s'@'10.%'");
        assert_eq!(name("", "h").sql(), "''@'h'");
        assert_eq!(name("a`b", "").sql(), "`a``b`");
        assert_eq!(name("PUBLIC", "").sql(), "PUBLIC");
        assert_eq!(
            (name("a", "b").to_string(), name("r", "").to_string()),
            ("a@b".into(), "r".into())
        );
    }

    #[test]
    fn the_hash_is_not_in_debug_output() {
        let account = Account {
            name: name("a", "b"),
            create: "CREATE USER `a`@`b` IDENTIFIED WITH 'x' AS 0x5345435245".into(),
            grants: Vec::new(),
            roles: Vec::new(),
            default_roles: Vec::new(),
            second_password: Some("\"SECRET\"".into()),
        };
        let shown = format!("{account:?}");
        assert!(!shown.contains("5345435245") && !shown.contains("SECRET"), "{shown}");
    }
}
