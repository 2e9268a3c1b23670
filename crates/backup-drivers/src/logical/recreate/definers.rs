//! In whose name code runs.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use backup_core::{Error, Flavor, Result};
use mysql_async::Conn;

use super::super::account::AccountName;
use super::super::catalog::{Catalog, StoredObject};
use super::super::ddl::{Dialect, definer, set_definer};
use super::super::inventory::{ServerFacts, query};

/// What becomes of the `DEFINER` of views, routines, triggers and events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Definers {
    /// They stay.
    #[default]
    Keep,
    /// Whoever restores becomes the definer of everything.
    Strip,
    /// Some are replaced by others; the rest stays.
    Map(BTreeMap<AccountName, AccountName>),
}

/// Changes the definers of a catalogue. What needs a look is added to its warnings.
pub fn change_definers(catalog: &mut Catalog, definers: &Definers) {
    if let Definers::Map(map) = definers {
        let there = list_definers(catalog);
        let idle = map.keys().filter(|old| !there.contains_key(old));
        catalog.warnings.extend(idle.map(|old| {
            format!("nothing has the definer {old}, which --map-definer is to replace")
        }));
    }
    for object in &mut catalog.stored {
        let dialect = dialect(object);
        let Some((_, old)) = definer(&object.create, dialect) else { continue };
        let new = match definers {
            Definers::Keep => return,
            Definers::Strip => None,
            Definers::Map(map) => match map.get(&old) {
                None => continue,
                some => some,
            },
        };
        object.create = set_definer(&object.create, dialect, new);
        if object.create_bytes.take().is_some() {
            catalog.warnings.push(format!(
                "{} {} holds bytes that are no text, and is restored without them because its definer \
                 is changed",
                object.kind,
                object.full_name()
            ));
        }
    }
}

/// The definers of everything, with how many objects each has.
#[must_use]
pub fn list_definers(catalog: &Catalog) -> BTreeMap<AccountName, usize> {
    let mut found = BTreeMap::new();
    for object in &catalog.stored {
        if let Some((_, name)) = definer(&object.create, dialect(object)) {
            *found.entry(name).or_default() += 1;
        }
    }
    found
}

/// Warns of definers that are not at the target, for what they define cannot be used there; not of
/// those that the source did not have either, as far as the backup tells.
///
/// # Errors
/// When the connection is lost.
pub async fn missing_definers(
    conn: &mut Conn,
    facts: &ServerFacts,
    catalog: &Catalog,
    of_source: &BTreeSet<AccountName>,
) -> Result<Option<String>> {
    let sql = match facts.flavor {
        Flavor::MySql => "SELECT User, Host FROM mysql.user",
        Flavor::MariaDb => "SELECT User, IF(is_role = 'Y', '', Host) FROM mysql.user",
    };
    let there: BTreeSet<AccountName> =
        match query::rows(conn, sql, "cannot list the accounts").await {
            Ok(rows) => rows
                .iter()
                .map(|row| AccountName {
                    user: query::text(row, 0).unwrap_or_default(),
                    host: query::text(row, 1).unwrap_or_default(),
                })
                .collect(),
            // Not for the account that restores to see.
            Err(e) if e.server().is_some() => return Ok(None),
            Err(e) => return Err(e),
        };
    let missing: Vec<String> = list_definers(catalog)
        .into_iter()
        .filter(|(name, _)| !there.contains(name))
        .filter(|(name, _)| of_source.is_empty() || of_source.contains(name))
        .map(|(name, objects)| format!("{name} ({objects})"))
        .collect();
    if missing.is_empty() {
        return Ok(None);
    }
    Ok(Some(format!(
        "views, routines, triggers or events are defined by accounts that are not at the target, and \
         cannot be used until they are: {}; create them, or restore with --definers strip or \
         --map-definer OLD=NEW",
        missing.join(", ")
    )))
}

pub(in crate::logical) fn dialect(object: &StoredObject) -> Dialect {
    Dialect::of(object.sql_mode.as_deref().unwrap_or_default())
}

impl FromStr for AccountName {
    type Err = Error;

    /// Reads `user@host`, each with or without quotes; a name alone is a role of MariaDB.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::usage(format!("`{}` is no account", text.escape_debug()))
                .with_remedy("write it as user@host")
        };
        let plain = |part: &str| {
            let quoted = ['\'', '`', '"']
                .into_iter()
                .find_map(|q| Some((part.strip_prefix(q)?.strip_suffix(q)?, q)));
            match quoted {
                Some((inner, q)) => inner.replace(&format!("{q}{q}"), &q.to_string()),
                None => part.to_owned(),
            }
        };
        let (user, host) = text.rsplit_once('@').unwrap_or((text, ""));
        let name = AccountName { user: plain(user), host: plain(host) };
        if name.user.is_empty() && name.host.is_empty() { Err(bad()) } else { Ok(name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_read_with_and_without_quotes() {
        let name = |text: &str| text.parse::<AccountName>().map(|n| (n.user, n.host)).ok();
        assert_eq!(name("a@%"), Some(("a".into(), "%".into())));
        assert_eq!(name("'it''s'@'10.%'"), Some(("it's".into(), "10.%".into())));
        assert_eq!(name("a@b@localhost"), Some(("a@b".into(), "localhost".into())));
        assert_eq!(name("role"), Some(("role".into(), String::new())));
        assert_eq!(name("@"), None);
    }
}
