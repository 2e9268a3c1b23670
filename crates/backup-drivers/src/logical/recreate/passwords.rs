//! Accounts that the target's rules for passwords, or a plugin that it lacks, keep from being made.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{ErrorKind, Finding, Flavor, Result, Severity};
use mysql_async::Conn;

use super::super::account::{Account, AccountName};
use super::super::catalog::Catalog;
use super::super::ddl::{Dialect, TokenKind, significant, unquote_text};
use super::super::inventory::{ServerFacts, query};
use super::compat::listed;

/// A way to sign in that a definition names.
#[derive(Debug, PartialEq, Eq)]
struct Way {
    /// Nothing where the server chooses.
    plugin: Option<String>,
    /// Whether a hash, or something else for the plugin, comes along.
    has_secret: bool,
}

/// What the accounts that are to be made would be refused for. They are warnings: everything else comes.
///
/// # Errors
/// When the connection is lost.
pub(in crate::logical) async fn refused_accounts(
    conn: &mut Conn,
    facts: &ServerFacts,
    catalog: &Catalog,
) -> Result<Vec<Finding>> {
    if catalog.accounts.is_empty() || catalog.header.flavor != facts.flavor {
        return Ok(Vec::new());
    }
    let what = "cannot ask what the target takes of accounts";
    // What the account may not see is told where it matters.
    let sql = "SELECT User, Host FROM mysql.user";
    let there: BTreeSet<AccountName> = match query::rows(conn, sql, what).await {
        Err(e) if e.server().is_some() => return Ok(Vec::new()),
        rows => rows?
            .iter()
            .filter_map(|row| {
                Some(AccountName {
                    user: query::text(row, 0)?,
                    host: query::text(row, 1).unwrap_or_default(),
                })
            })
            .collect(),
    };
    let rules = Rules::read(conn, facts).await?;
    let mut refused: BTreeMap<Refusal, Vec<String>> = BTreeMap::new();
    for account in catalog.accounts.iter().filter(|a| !there.contains(&a.name)) {
        if let Some(refusal) = rules.refuse(account) {
            refused.entry(refusal).or_default().push(account.name.to_string());
        }
    }
    let finding = |(refusal, names): (Refusal, Vec<String>)| {
        let (problem, remedy) = refusal.told(facts.flavor);
        Finding::new(Severity::Warning, listed(&names), problem, remedy)
            .with_kind(ErrorKind::Target)
    };
    Ok(refused.into_iter().map(finding).collect())
}

/// Why an account is not made.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Refusal {
    Plugin(String),
    NoPassword,
    Hash,
}

impl Refusal {
    fn told(&self, flavor: Flavor) -> (String, String) {
        let later = "create them by hand afterwards; or restore with --no-users";
        match self {
            Refusal::Plugin(name) => (
                format!(
                    "the account is not created: the target has no authentication plugin {name} (ERROR 1524)"
                ),
                format!("have the target load it, or {later}"),
            ),
            Refusal::NoPassword => (
                "the account has no password and is not created: the target's rules for passwords refuse that \
                 (ERROR 1819)"
                    .to_owned(),
                match flavor {
                    Flavor::MySql => format!(
                        "UNINSTALL COMPONENT 'file://component_validate_password' (the plugin: UNINSTALL PLUGIN \
                         validate_password) at the target for the time of the restore, or {later}"
                    ),
                    Flavor::MariaDb => format!(
                        "UNINSTALL SONAME the plugin that checks passwords (information_schema.PLUGINS, PASSWORD \
                         VALIDATION) at the target for the time of the restore, or {later}"
                    ),
                },
            ),
            Refusal::Hash => (
                "the account is not created: the target checks passwords, and takes none that comes as a hash \
                 (strict_password_validation, ERROR 1290)"
                    .to_owned(),
                format!(
                    "SET GLOBAL strict_password_validation = OFF at the target for the time of the restore, or \
                     {later}"
                ),
            ),
        }
    }
}

/// What a target takes.
struct Rules {
    flavor: Flavor,
    /// The plugins that it can sign accounts in by.
    plugins: BTreeSet<String>,
    /// Whether it checks passwords when they are set.
    checked: bool,
    /// Whether it takes none that it cannot check (MariaDB).
    strict: bool,
}

impl Rules {
    async fn read(conn: &mut Conn, facts: &ServerFacts) -> Result<Rules> {
        let what = "cannot ask what the target takes of accounts";
        let sql = "SELECT PLUGIN_TYPE, PLUGIN_NAME FROM information_schema.PLUGINS WHERE PLUGIN_STATUS = \
                   'ACTIVE' AND PLUGIN_TYPE IN ('AUTHENTICATION', 'PASSWORD VALIDATION')";
        let mut plugins = BTreeSet::new();
        let mut checked = false;
        for row in query::rows(conn, sql, what).await? {
            let kind = query::text(&row, 0).unwrap_or_default();
            match kind.as_str() {
                "AUTHENTICATION" => {
                    plugins.insert(query::text(&row, 1).unwrap_or_default().to_lowercase());
                }
                _ => checked = true,
            }
        }
        let sql = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('strict_password_validation', \
                   'validate_password.policy', 'validate_password_policy')";
        let mut strict = false;
        for row in query::rows(conn, sql, what).await? {
            match query::text(&row, 0).as_deref() {
                Some("strict_password_validation") => {
                    strict = query::text(&row, 1).as_deref() == Some("ON");
                }
                _ => checked = true,
            }
        }
        Ok(Rules { flavor: facts.flavor, plugins, checked, strict })
    }

    fn refuse(&self, account: &Account) -> Option<Refusal> {
        let ways = ways(&account.create);
        let missing =
            ways.iter().filter_map(|way| way.plugin.as_ref()).find(|p| !self.plugins.contains(*p));
        if let Some(missing) = missing {
            return Some(Refusal::Plugin(missing.clone()));
        }
        if !self.checked || is_role(&account.create) {
            return None;
        }
        let hashes = |way: &&Way| way.plugin.as_ref().is_none_or(|p| HASHES.contains(&p.as_str()));
        let mut by_hash = ways.iter().filter(hashes).peekable();
        by_hash.peek()?;
        if by_hash.any(|way| !way.has_secret) {
            return Some(Refusal::NoPassword);
        }
        (self.flavor == Flavor::MariaDb && self.strict).then_some(Refusal::Hash)
    }
}

/// Plugins whose accounts have a password of the server's.
const HASHES: [&str; 6] = [
    "caching_sha2_password",
    "sha256_password",
    "mysql_native_password",
    "mysql_old_password",
    "ed25519",
    "parsec",
];

/// `CREATE ROLE` with what else the definition of an account without a password says, for one that nobody can sign in by: a
/// role, as far as MySQL knows.
pub(super) fn as_role(account: &Account) -> Option<[String; 2]> {
    if !is_role(&account.create) || !account.create.starts_with("CREATE USER ") {
        return None;
    }
    let rest = account.create.strip_prefix("CREATE USER ")?;
    Some([format!("CREATE ROLE {}", account.name.sql()), format!("ALTER USER {rest}")])
}

/// `CREATE ROLE`, where that alone makes the account.
pub(in crate::logical) fn plain_role(account: &Account) -> Option<String> {
    let [create, _] = as_role(account)?;
    let (_, rest) = account.create.split_once(" IDENTIFIED WITH 'caching_sha2_password' ")?;
    (rest == PLAIN).then_some(create)
}

/// What MySQL makes of `CREATE ROLE`.
const PLAIN: &str = "REQUIRE NONE PASSWORD EXPIRE ACCOUNT LOCK PASSWORD HISTORY DEFAULT PASSWORD REUSE INTERVAL \
                     DEFAULT PASSWORD REQUIRE CURRENT DEFAULT";

/// Whether an account is made as a role: locked, and without a password.
fn is_role(create: &str) -> bool {
    let tokens = significant(create, Dialect::default());
    let words = |one: &str, other: &str| {
        tokens.windows(2).any(|w| w[0].is_word(one) && w[1].is_word(other))
    };
    words("CREATE", "ROLE")
        || words("IDENTIFIED", "WITH")
            && words("ACCOUNT", "LOCK")
            && words("PASSWORD", "EXPIRE")
            && matches!(ways(create).as_slice(), [Way { plugin: Some(_), has_secret: false }])
}

/// The ways to sign in that a definition names.
fn ways(create: &str) -> Vec<Way> {
    let tokens = significant(create, Dialect::default());
    if tokens.get(1).is_none_or(|token| token.is_word("ROLE")) {
        return Vec::new();
    }
    let mut ways: Vec<Way> = Vec::new();
    let Some(begin) = tokens.iter().position(|t| t.is_word("IDENTIFIED")) else {
        return vec![Way { plugin: None, has_secret: false }];
    };
    let mut at = begin + 1;
    while let Some(token) = tokens.get(at) {
        let named = tokens.get(at + 1).and_then(|t| t.name().or_else(|| unquote_text(t.text)));
        match token {
            // Behind these comes a plugin; OR is MariaDB's word for another way.
            t if t.is_word("WITH") || t.is_word("VIA") || t.is_word("OR") => {
                let plugin = named.map(|name| name.to_lowercase());
                ways.push(Way { plugin, has_secret: false });
                at += 2;
            }
            t if t.is_word("AND") || t.is_word("IDENTIFIED") => at += 1,
            t if t.is_word("AS") || t.is_word("USING") => {
                if let Some(way) = ways.last_mut() {
                    way.has_secret = named.is_none_or(|secret| !secret.is_empty());
                }
                at += 2;
            }
            t if t.is_word("BY") => {
                ways.push(Way { plugin: None, has_secret: true });
                at += 1;
            }
            t if t.is_word("PASSWORD")
                && tokens.get(at + 1).is_some_and(|t| t.kind == TokenKind::Text) =>
            {
                at += 2;
            }
            _ => break,
        }
    }
    ways
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_sign_in_are_read() {
        let way = |plugin: &str, has_secret| Way {
            plugin: (!plugin.is_empty()).then(|| plugin.to_owned()),
            has_secret,
        };
        for (create, expected) in [
            ("CREATE ROLE `r`", vec![]),
            ("CREATE USER `a`@`%`", vec![way("", false)]),
            ("CREATE USER `a`@`%` IDENTIFIED BY PASSWORD '*AB' REQUIRE SSL", vec![way("", true)]),
            ("CREATE USER `a`@`%` IDENTIFIED VIA unix_socket", vec![way("unix_socket", false)]),
            (
                "CREATE USER `a`@`%` IDENTIFIED VIA ed25519 USING 'x' OR unix_socket ACCOUNT LOCK",
                vec![way("ed25519", true), way("unix_socket", false)],
            ),
            (
                "CREATE USER `a`@`%` IDENTIFIED WITH 'caching_sha2_password' AS 0x2441 REQUIRE NONE",
                vec![way("caching_sha2_password", true)],
            ),
            (
                "CREATE USER `a`@`%` IDENTIFIED WITH 'sha256_password' AND IDENTIFIED WITH \
                 'authentication_webauthn' AS 'x' REQUIRE NONE PASSWORD EXPIRE",
                vec![way("sha256_password", false), way("authentication_webauthn", true)],
            ),
        ] {
            assert_eq!(ways(create), expected, "{create}");
        }
    }
}
