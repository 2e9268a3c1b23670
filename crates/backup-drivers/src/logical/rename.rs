//! Restoring under other names: `--rename old=new`.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use backup_core::{Error, Result};

use super::select::{SYSTEM_DATABASES, TableName, split_name};

/// Which databases and tables get another name.
///
/// ```
/// use backup_drivers::logical::{Rename, TableName};
/// let rename: Rename = ["shop=shop_test", "crm.people=shop_test.crm_people"]
///     .iter().map(|rule| rule.parse()).collect::<backup_core::Result<_>>()?;
/// let table = |text: &str| text.parse::<TableName>();
/// assert_eq!(rename.table(&table("shop.orders")?), table("shop_test.orders")?);
/// assert_eq!(rename.table(&table("crm.people")?), table("shop_test.crm_people")?);
/// assert_eq!(rename.table(&table("crm.firms")?), table("crm.firms")?);
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rename {
    databases: BTreeMap<String, String>,
    tables: BTreeMap<TableName, TableName>,
}

/// One rule: `db=db2`, `db.t=db.t2` or `db.t=db2.t`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RenameRule {
    /// A database, with all that is in it.
    Database {
        /// The name in the backup.
        old: String,
        /// The name at the target.
        new: String,
    },
    /// A table; stronger than a rule for its database.
    Table {
        /// The name in the backup.
        old: TableName,
        /// The name at the target.
        new: TableName,
    },
}

impl FromStr for RenameRule {
    type Err = Error;

    /// Names with dots, spaces, commas or `=` stand in backticks.
    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            Error::usage(format!("`{}` is no rule for renaming", text.escape_debug()))
                .with_remedy("write db=db2, db.table=db.table2 or db.table=db2.table")
        };
        let (old, new) = split_rule(text).ok_or_else(bad)?;
        for part in [old, new] {
            one_rule(text, part)?;
        }
        let [old, new] = [split_name(old)?, split_name(new)?];
        check_new(&new)?;
        match (<[String; 2]>::try_from(old), <[String; 2]>::try_from(new)) {
            (Ok([database, table]), Ok([new_database, new_table])) => Ok(RenameRule::Table {
                old: TableName { database, table },
                new: TableName { database: new_database, table: new_table },
            }),
            (Err(old), Err(new)) if old.len() == 1 && new.len() == 1 => {
                Ok(RenameRule::Database { old: old.concat(), new: new.concat() })
            }
            _ => Err(bad()),
        }
    }
}

impl RenameRule {
    /// The name in the backup, as a rule has it.
    #[must_use]
    pub fn old(&self) -> String {
        match self {
            RenameRule::Database { old, .. } => old.clone(),
            RenameRule::Table { old, .. } => old.to_string(),
        }
    }

    /// Whether another rule is for the same name.
    #[must_use]
    pub fn is_of_same(&self, other: &RenameRule) -> bool {
        match (self, other) {
            (RenameRule::Database { old, .. }, RenameRule::Database { old: other, .. }) => {
                old == other
            }
            (RenameRule::Table { old, .. }, RenameRule::Table { old: other, .. }) => old == other,
            _ => false,
        }
    }
}

/// The longest name that servers take, in characters.
const LONGEST: usize = 64;

/// Fails for a new name that no server takes, or that would put what is restored among what is the server's own.
fn check_new(new: &[String]) -> Result<()> {
    let refuse = |problem: String| Error::usage(problem).with_remedy("choose another name");
    if let Some(long) = new.iter().find(|name| name.chars().count() > LONGEST) {
        return Err(refuse(format!(
            "`{}` is longer than the {LONGEST} characters that a name may have",
            long.escape_debug()
        )));
    }
    let theirs = |name: &&String| SYSTEM_DATABASES.contains(&name.to_lowercase().as_str());
    match new.first().filter(theirs) {
        Some(name) => Err(refuse(format!("{name} is the server's own database"))),
        None => Ok(()),
    }
}

/// Splits at the first `=` that is not in backticks.
fn split_rule(text: &str) -> Option<(&str, &str)> {
    let mut quoted = false;
    let at = text.char_indices().find_map(|(i, c)| {
        quoted ^= c == '`';
        (c == '=' && !quoted).then_some(i)
    })?;
    Some((text[..at].trim(), text[at + 1..].trim()))
}

/// Fails for what looks like several rules in one, which would be a name that nobody wants.
fn one_rule(text: &str, part: &str) -> Result<()> {
    let mut quoted = false;
    let several = part.chars().any(|c| {
        quoted ^= c == '`';
        !quoted && matches!(c, ',' | '=')
    });
    match several {
        false => Ok(()),
        true => Err(Error::usage(format!("`{}` is more than one rule", text.escape_debug()))
            .with_remedy(
                "repeat --rename for each name; names with commas or `=` stand in backticks",
            )),
    }
}

impl FromIterator<RenameRule> for Rename {
    /// The last of several rules for one name counts.
    fn from_iter<I: IntoIterator<Item = RenameRule>>(rules: I) -> Self {
        let mut rename = Rename::default();
        for rule in rules {
            match rule {
                RenameRule::Database { old, new } => drop(rename.databases.insert(old, new)),
                RenameRule::Table { old, new } => drop(rename.tables.insert(old, new)),
            }
        }
        rename
    }
}

impl Rename {
    /// Whether nothing gets another name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.databases.is_empty() && self.tables.is_empty()
    }

    /// The name of a database at the target.
    #[must_use]
    pub fn database<'a>(&'a self, old: &'a str) -> &'a str {
        self.databases.get(old).map_or(old, String::as_str)
    }

    /// The name of a table at the target.
    #[must_use]
    pub fn table(&self, old: &TableName) -> TableName {
        self.tables.get(old).cloned().unwrap_or_else(|| TableName {
            database: self.database(&old.database).to_owned(),
            table: old.table.clone(),
        })
    }

    /// What a table was called that is at the target under this name. One that no rule gives it is its own.
    #[must_use]
    pub(super) fn before(&self, new: &TableName) -> TableName {
        if let Some((old, _)) = self.tables.iter().find(|(_, to)| *to == new) {
            return old.clone();
        }
        let rule = self.databases.iter().find(|(_, to)| **to == new.database);
        let database = rule.map_or(&new.database, |(old, _)| old).clone();
        TableName { database, table: new.table.clone() }
    }

    /// These rules for a restore of `tables`, without those that are for `others` alone.
    #[must_use]
    pub fn without(&self, others: &BTreeSet<TableName>, tables: &BTreeSet<TableName>) -> Rename {
        let mut rename = self.clone();
        let is_in = |database: &String, names: &BTreeSet<TableName>| {
            names.iter().any(|name| name.database == *database)
        };
        rename.databases.retain(|old, _| !is_in(old, others) || is_in(old, tables));
        rename.tables.retain(|old, _| !others.contains(old));
        rename
    }

    /// The same rules for names that are spelled in another way.
    ///
    /// # Errors
    /// A usage error where two rules are for one name then.
    pub(super) fn spelled(
        &self,
        database: impl Fn(&str) -> String,
        table: impl Fn(&TableName) -> TableName,
    ) -> Result<Rename> {
        let two = |name: &dyn std::fmt::Display| {
            Error::usage(format!("two new names are given for {name}"))
                .with_remedy("leave one of the --rename out")
        };
        let mut rename = Rename::default();
        for (old, new) in &self.databases {
            let old = database(old);
            if rename.databases.insert(old.clone(), new.clone()).is_some() {
                return Err(two(&old));
            }
        }
        for (old, new) in &self.tables {
            let old = table(old);
            if rename.tables.insert(old.clone(), new.clone()).is_some() {
                return Err(two(&old));
            }
        }
        Ok(rename)
    }

    /// The names on the left side, as the rules say them.
    pub(super) fn sources(
        &self,
    ) -> (impl Iterator<Item = &String>, impl Iterator<Item = &TableName>) {
        (self.databases.keys(), self.tables.keys())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_with_quoted_names() {
        let rule: RenameRule = "`a=b`.`c``d` = e.f".parse().unwrap();
        let expected = RenameRule::Table {
            old: TableName { database: "a=b".into(), table: "c`d".into() },
            new: TableName { database: "e".into(), table: "f".into() },
        };
        assert_eq!(rule, expected);
        assert!("`a,b`=`c,d=e`".parse::<RenameRule>().is_ok());
        let several = ["a=b,c=d", "a=b=c", "a,b=c", "a=b,c", "a.b=c.d,e.f=g.h", "a=`b`,c=`d`"];
        let bad = ["", "a", "a=", "=b", "a.b=c", "a=b.c", "a.b.c=d.e", "`a=b"];
        for bad in bad.into_iter().chain(several) {
            let error = bad.parse::<RenameRule>().unwrap_err();
            assert_eq!(error.kind(), backup_core::ErrorKind::Usage, "{bad}");
            let repeat = error.report().contains("repeat --rename");
            assert_eq!(repeat, several.contains(&bad), "{}", error.report());
        }
    }

    #[test]
    fn a_rule_for_a_table_is_stronger_than_one_for_its_database() {
        let rename: Rename =
            ["a=b", "a.t=a.t2"].iter().map(|r| r.parse::<RenameRule>().unwrap()).collect();
        assert_eq!(rename.table(&"a.t".parse().unwrap()).to_string(), "a.t2");
        assert_eq!(rename.table(&"a.u".parse().unwrap()).to_string(), "b.u");
        assert_eq!(rename.database("a"), "b");
    }

    #[test]
    fn a_part_keeps_the_rules_that_are_not_for_others() {
        let rules = ["a=a2", "b=b2", "c=c2", "a.t=x.t", "a.u=x.u"];
        let rename: Rename = rules.iter().map(|r| r.parse::<RenameRule>().unwrap()).collect();
        let tables = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
        let part = rename.without(&tables(&["a.u", "b.t"]), &tables(&["a.t"]));
        let kept = ["a=a2", "c=c2", "a.t=x.t"];
        assert_eq!(part, kept.iter().map(|r| r.parse::<RenameRule>().unwrap()).collect());
        for (new, old) in [("x.t", "a.t"), ("a2.v", "a.v"), ("d.t", "d.t")] {
            assert_eq!(rename.before(&new.parse().unwrap()).to_string(), old);
        }
    }
}
