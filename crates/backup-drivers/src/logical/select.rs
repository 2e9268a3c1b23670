//! Which databases and tables are meant.

use std::collections::BTreeSet;

use backup_core::{Error, Result};

use super::pattern::{Glob, TableGlob};

/// The databases of the server itself, which no logical backup copies.
pub const SYSTEM_DATABASES: [&str; 4] =
    ["mysql", "information_schema", "performance_schema", "sys"];

/// Name of a table with its database.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// The database.
    pub database: String,
    /// The table.
    pub table: String,
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", quote_name_if_needed(&self.database), quote_name_if_needed(&self.table))
    }
}

impl TableName {
    /// `db`.`table`, in backticks.
    #[must_use]
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote_name(&self.database), quote_name(&self.table))
    }
}

/// Puts a name in backticks.
#[must_use]
pub fn quote_name(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn quote_name_if_needed(name: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '$' || c == '-';
    if !name.is_empty() && name.chars().all(plain) { name.to_owned() } else { quote_name(name) }
}

/// Splits a possibly quoted, dot-separated name such as ``shop.orders`` or `` `my.db`.`a``b` ``.
///
/// # Errors
/// A usage error on unbalanced quotes or empty parts.
pub fn split_name(text: &str) -> Result<Vec<String>> {
    Ok(split_parts(text)?.into_iter().map(|(name, _)| name).collect())
}

/// The same, with whether each part was in quotes.
pub(super) fn split_parts(text: &str) -> Result<Vec<(String, bool)>> {
    let bad = || {
        Error::usage(format!("`{}` is no name", text.escape_debug()))
            .with_remedy("write db.table; put names with dots or spaces in backticks")
    };
    let mut parts = Vec::new();
    let mut rest = text;
    loop {
        let (part, is_quoted);
        if let Some(quoted) = rest.strip_prefix('`') {
            let mut name = String::new();
            let mut chars = quoted.char_indices();
            let end = loop {
                match chars.next() {
                    Some((i, '`')) if quoted[i + 1..].starts_with('`') => {
                        name.push('`');
                        chars.next();
                    }
                    Some((i, '`')) => break i + 1,
                    Some((_, c)) => name.push(c),
                    None => return Err(bad()),
                }
            };
            (part, is_quoted) = (name, true);
            rest = &quoted[end..];
        } else {
            let end = rest.find('.').unwrap_or(rest.len());
            (part, is_quoted) = (rest[..end].to_owned(), false);
            rest = &rest[end..];
        }
        if part.is_empty() {
            return Err(bad());
        }
        parts.push((part, is_quoted));
        match rest.strip_prefix('.') {
            Some(after) => rest = after,
            None if rest.is_empty() => return Ok(parts),
            None => return Err(bad()),
        }
    }
}

impl std::str::FromStr for TableName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match <[String; 2]>::try_from(split_name(text)?) {
            Ok([database, table]) => Ok(TableName { database, table }),
            Err(_) => Err(Error::usage(format!("`{}` names no table", text.escape_debug()))
                .with_remedy("write db.table; put names with dots or spaces in backticks")),
        }
    }
}

/// A choice of databases and tables. Empty = everything but the server's own databases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Only these databases.
    pub databases: BTreeSet<String>,
    /// Only these tables (and nothing that is not a table or one of its triggers).
    pub tables: BTreeSet<TableName>,
    /// Not these tables.
    pub exclude_tables: BTreeSet<TableName>,
    /// Databases by patterns, besides those by name. They have to be [resolved](Self::resolve).
    pub database_globs: BTreeSet<Glob>,
    /// Tables by patterns, besides those by name. They have to be [resolved](Self::resolve).
    pub table_globs: BTreeSet<TableGlob>,
    /// Not these databases.
    pub exclude_databases: BTreeSet<Glob>,
    /// Nor these tables, by patterns.
    pub exclude_table_globs: BTreeSet<TableGlob>,
}

impl Selection {
    /// Whether everything is meant.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self == &Selection::default()
    }

    /// Fails when the server's own databases are asked for.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`](backup_core::ErrorKind::Usage).
    pub fn check(&self) -> Result<()> {
        let named = self.databases.iter().chain(self.tables.iter().map(|t| &t.database));
        match named.into_iter().find(|d| SYSTEM_DATABASES.contains(&d.to_lowercase().as_str())) {
            None => Ok(()),
            Some(own) => Err(Error::usage(format!("{own} is the server's own database"))
                .with_remedy("leave it out: no other server could take it back")),
        }
    }

    /// Whether the server is meant, though maybe without some of its databases and tables.
    #[must_use]
    pub fn is_whole_server(&self) -> bool {
        self.databases.is_empty() && self.tables.is_empty() && !self.has_globs()
    }

    /// Whether names are still to be found for patterns.
    #[must_use]
    pub fn has_globs(&self) -> bool {
        !self.database_globs.is_empty() || !self.table_globs.is_empty()
    }

    /// Finds the names for the patterns of what is wanted, among `tables`, all there are, and
    /// `databases`.
    ///
    /// # Errors
    /// A usage error for a pattern that fits nothing: silence would be a backup of nothing.
    pub fn resolve(&self, databases: &[String], tables: &[TableName]) -> Result<Selection> {
        let mut resolved = self.clone();
        let nothing = |what: &dyn std::fmt::Display| {
            Error::usage(format!("nothing fits `{what}`"))
                .with_remedy("check the pattern, and that the account may see what is meant")
        };
        for glob in std::mem::take(&mut resolved.database_globs) {
            let own = |name: &str| SYSTEM_DATABASES.contains(&name);
            let fitting = databases.iter().filter(|d| glob.matches(d) && !own(d));
            let before = resolved.databases.len();
            resolved.databases.extend(fitting.cloned());
            if resolved.databases.len() == before && !self.databases.iter().any(|d| glob.matches(d))
            {
                return Err(nothing(&glob));
            }
        }
        for glob in std::mem::take(&mut resolved.table_globs) {
            let mut fitting = tables.iter().filter(|t| {
                glob.matches(&t.database, &t.table)
                    && !SYSTEM_DATABASES.contains(&t.database.as_str())
            });
            let first = fitting.next().ok_or_else(|| nothing(&glob))?;
            resolved.tables.insert(first.clone());
            resolved.tables.extend(fitting.cloned());
        }
        resolved.databases.retain(|d| !self.exclude_databases.iter().any(|g| g.matches(d)));
        let kept: BTreeSet<TableName> = resolved
            .tables
            .iter()
            .filter(|t| !self.excludes(&t.database, &t.table))
            .cloned()
            .collect();
        if self.has_globs() {
            resolved.tables = kept;
            if resolved.databases.is_empty() && resolved.tables.is_empty() {
                return Err(Error::usage("everything that was asked for is excluded too")
                    .with_remedy("take one of the --exclude options away"));
            }
        }
        Ok(resolved)
    }

    /// Whether something is to be left out by name or pattern.
    #[must_use]
    pub fn has_exclusions(&self) -> bool {
        !self.exclude_databases.is_empty() || !self.exclude_table_globs.is_empty()
    }

    /// The patterns of what is to be left out that fit nothing among `databases` and `tables`, all there are, views
    /// among them.
    ///
    /// # Errors
    /// A usage error for a name that is not there: what was meant would not be left out.
    pub fn idle_exclusions(
        &self,
        databases: &[String],
        tables: &[TableName],
    ) -> Result<Vec<String>> {
        // The server's own never come along.
        let own = |glob: &Glob| {
            let name = glob.as_literal().map(str::to_lowercase);
            name.is_some_and(|name| SYSTEM_DATABASES.contains(&name.as_str()))
        };
        let missing = |what: String| {
            Error::usage(format!("there is no {what}, which is to be left out"))
                .with_remedy("correct the name, or take it out of what is left out")
        };
        let mut idle = Vec::new();
        for glob in self.exclude_databases.iter().filter(|glob| !own(glob)) {
            match glob.as_literal() {
                _ if databases.iter().any(|name| glob.matches(name)) => {}
                Some(name) => return Err(missing(format!("database {name}"))),
                None => idle.push(glob.to_string()),
            }
        }
        for glob in self.exclude_table_globs.iter().filter(|glob| !own(&glob.database)) {
            match glob.as_literal() {
                _ if tables.iter().any(|t| glob.matches(&t.database, &t.table)) => {}
                Some(name) => return Err(missing(format!("table {name}"))),
                None => idle.push(glob.to_string()),
            }
        }
        Ok(idle)
    }

    fn excludes(&self, database: &str, table: &str) -> bool {
        self.exclude_databases.iter().any(|g| g.matches(database))
            || self.exclude_table_globs.iter().any(|g| g.matches(database, table))
    }

    /// Whether only single tables are meant.
    #[must_use]
    pub fn only_tables(&self) -> bool {
        !self.tables.is_empty()
    }

    /// Whether the database is wanted, itself or for one of its tables.
    #[must_use]
    pub fn wants_database(&self, database: &str) -> bool {
        if self.exclude_databases.iter().any(|g| g.matches(database)) {
            return false;
        }
        if self.only_tables() {
            self.tables.iter().any(|t| t.database == database)
        } else if self.databases.is_empty() {
            !SYSTEM_DATABASES.contains(&database)
        } else {
            self.databases.contains(database)
        }
    }

    /// Whether the table's rows and triggers are wanted.
    #[must_use]
    pub fn wants_table(&self, database: &str, table: &str) -> bool {
        let name = TableName { database: database.to_owned(), table: table.to_owned() };
        self.wants_database(database)
            && (self.tables.is_empty() || self.tables.contains(&name))
            && !self.exclude_tables.contains(&name)
            && !self.excludes(database, table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_with_dots_and_backticks() {
        let t: TableName = "`my.db`.`a``b`".parse().unwrap();
        assert_eq!((t.database.as_str(), t.table.as_str()), ("my.db", "a`b"));
        assert_eq!(t.to_string(), "`my.db`.`a``b`");
        for bad in ["", "a", "a.", ".b", "a.b.c", "`a.b", "`a`b.c", "``.b"] {
            assert!(bad.parse::<TableName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_empty_selection_wants_all_but_the_servers_own() {
        let all = Selection::default();
        assert!(all.wants_table("shop", "x") && !all.wants_database("mysql"));
        let own = Selection { databases: ["MySQL".into()].into(), ..Default::default() };
        assert!(all.check().is_ok() && own.check().is_err());
        let one = Selection { tables: ["shop.x".parse().unwrap()].into(), ..Default::default() };
        assert!(one.wants_table("shop", "x") && !one.wants_table("shop", "y"));
        assert!(one.wants_database("shop") && !one.wants_database("other"));
    }

    #[test]
    fn patterns_become_names() {
        let databases = ["shop", "shop_eu", "hr", "mysql"].map(str::to_owned);
        let tables: Vec<TableName> =
            ["shop.a", "shop.log_1", "shop_eu.log_2", "hr.log_3", "mysql.log_4"]
                .iter()
                .map(|t| t.parse().unwrap())
                .collect();
        let glob = |text: &str| text.parse::<Glob>().unwrap();
        let some = Selection { database_globs: [glob("shop*")].into(), ..Default::default() };
        assert!(!some.is_whole_server());
        let some = some.resolve(&databases, &tables).unwrap();
        assert_eq!(some.databases.iter().collect::<Vec<_>>(), ["shop", "shop_eu"]);
        let logs = Selection {
            table_globs: ["*.log_*".parse().unwrap()].into(),
            exclude_databases: [glob("h?")].into(),
            ..Default::default()
        };
        let logs = logs.resolve(&databases, &tables).unwrap();
        assert_eq!(logs.tables.len(), 2);
        assert!(!logs.wants_table("hr", "log_3") && logs.wants_table("shop", "log_1"));
        let without = Selection {
            exclude_table_globs: ["*.log_*".parse().unwrap()].into(),
            ..Default::default()
        };
        assert!(without.is_whole_server() && !without.is_all());
        assert!(!without.wants_table("hr", "log_3") && without.wants_table("shop", "a"));
        for nothing in ["none*", "mysq?"] {
            let selection =
                Selection { database_globs: [glob(nothing)].into(), ..Default::default() };
            assert!(selection.resolve(&databases, &tables).is_err(), "{nothing}");
        }
    }

    #[test]
    fn what_is_left_out_has_to_be_there() {
        let databases = ["shop", "hr"].map(str::to_owned);
        let tables: Vec<TableName> = ["shop.a", "hr.b"].map(|t| t.parse().unwrap()).into();
        let idle = |database: &str, table: &str| {
            Selection {
                exclude_databases: [database.parse().unwrap()].into(),
                exclude_table_globs: [table.parse().unwrap()].into(),
                ..Selection::default()
            }
            .idle_exclusions(&databases, &tables)
        };
        assert!(idle("hr", "shop.a").unwrap().is_empty());
        assert!(idle("mysql", "mysql.user").unwrap().is_empty(), "never there anyway");
        assert_eq!(idle("h*", "shop.x*").unwrap(), ["shop.x*"]);
        assert_eq!(idle("t*", "*.b").unwrap(), ["t*"]);
        assert_eq!(idle("?r", "*.x*").unwrap(), ["*.x*"]);
        assert!(idle("shop", "shop.b").is_err() && idle("sohp", "shop.a").is_err());
    }

    proptest! {
        #[test]
        fn display_parses_back(database in "\\PC{1,8}", table in "\\PC{1,8}") {
            let name = TableName { database, table };
            prop_assert_eq!(name.to_string().parse::<TableName>().unwrap(), name);
        }
    }
}
