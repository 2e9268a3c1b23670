//! Names with wildcards.

use std::fmt;
use std::str::FromStr;

use backup_core::{Error, Result};

use super::select::{TableName, quote_name, split_parts};

/// A name in which `*` stands for any text and `?` for any character; in backticks it is what it
/// says.
///
/// ```
/// use backup_drivers::logical::Glob;
/// let logs: Glob = "log_*".parse()?;
/// assert!(logs.matches("log_2026") && !logs.matches("catalog_1"));
/// assert!("`a*`".parse::<Glob>()?.matches("a*") && !"`a*`".parse::<Glob>()?.matches("ab"));
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Glob {
    text: String,
    literal: bool,
}

impl Glob {
    fn new(text: String, quoted: bool) -> Self {
        let literal = quoted || !text.contains(['*', '?']);
        Glob { text, literal }
    }

    /// The name, where there are no wildcards in it.
    #[must_use]
    pub fn as_literal(&self) -> Option<&str> {
        self.literal.then_some(self.text.as_str())
    }

    /// Whether `name` fits.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        if self.literal {
            return self.text == name;
        }
        let (pattern, name): (Vec<char>, Vec<char>) =
            (self.text.chars().collect(), name.chars().collect());
        let (mut at, mut i) = (0, 0);
        // Where the last star was, and how much of the name it has taken so far.
        let mut star: Option<(usize, usize)> = None;
        while i < name.len() {
            match pattern.get(at) {
                Some('*') => {
                    star = Some((at, i));
                    at += 1;
                }
                Some(&c) if c == '?' || c == name[i] => {
                    at += 1;
                    i += 1;
                }
                _ => match &mut star {
                    Some((begin, taken)) => {
                        *taken += 1;
                        (at, i) = (*begin + 1, *taken);
                    }
                    None => return false,
                },
            }
        }
        pattern[at..].iter().all(|&c| c == '*')
    }

    /// The same for names in lower case.
    #[must_use]
    pub fn to_lowercase(&self) -> Self {
        Glob { text: self.text.to_lowercase(), literal: self.literal }
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.literal && self.text.contains(['*', '?', '.', '`']) {
            f.write_str(&quote_name(&self.text))
        } else {
            f.write_str(&self.text)
        }
    }
}

impl FromStr for Glob {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match <[(String, bool); 1]>::try_from(split_parts(text)?) {
            Ok([(name, quoted)]) => Ok(Glob::new(name, quoted)),
            Err(_) => Err(Error::usage(format!("`{}` is no single name", text.escape_debug()))
                .with_remedy("put names with dots in backticks")),
        }
    }
}

impl From<String> for Glob {
    /// The name as it is.
    fn from(name: String) -> Self {
        Glob::new(name, true)
    }
}

/// Tables, by patterns of database and name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableGlob {
    /// The database.
    pub database: Glob,
    /// The table.
    pub table: Glob,
}

impl TableGlob {
    /// Whether the table fits.
    #[must_use]
    pub fn matches(&self, database: &str, table: &str) -> bool {
        self.database.matches(database) && self.table.matches(table)
    }

    /// The table, where there are no wildcards.
    #[must_use]
    pub fn as_literal(&self) -> Option<TableName> {
        let (database, table) = (self.database.as_literal()?, self.table.as_literal()?);
        Some(TableName { database: database.to_owned(), table: table.to_owned() })
    }

    /// The same for names in lower case.
    #[must_use]
    pub fn to_lowercase(&self) -> Self {
        TableGlob { database: self.database.to_lowercase(), table: self.table.to_lowercase() }
    }
}

impl fmt::Display for TableGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.database, self.table)
    }
}

impl FromStr for TableGlob {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match <[(String, bool); 2]>::try_from(split_parts(text)?) {
            Ok([(database, a), (table, b)]) => {
                Ok(TableGlob { database: Glob::new(database, a), table: Glob::new(table, b) })
            }
            Err(_) => Err(Error::usage(format!("`{}` names no table", text.escape_debug()))
                .with_remedy("write db.table; put names with dots or spaces in backticks")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wildcards() {
        let matches = |glob: &str, name: &str| glob.parse::<Glob>().unwrap().matches(name);
        for (glob, yes, no) in [
            ("a*", "a", "ba"),
            ("*a", "ba", "ab"),
            ("a*b*c", "axbbxc", "axbx"),
            ("a?c", "aéc", "ac"),
            ("*", "", "\0never"),
            ("a*a", "aa", "a"),
        ] {
            assert!(matches(glob, yes), "{glob} {yes}");
            assert!(no == "\0never" || !matches(glob, no), "{glob} {no}");
        }
        let table: TableGlob = "*.log_*".parse().unwrap();
        assert!(table.matches("shop", "log_1") && !table.matches("shop", "logs"));
        assert!("a".parse::<TableGlob>().is_err() && "a.b".parse::<Glob>().is_err());
    }

    proptest! {
        #[test]
        fn display_parses_back(name in "[a*?.`é]{1,6}", other in "[ab]{0,5}") {
            let literal = Glob::from(name.clone());
            prop_assert!(literal.matches(&name));
            let again: Glob = literal.to_string().parse().unwrap();
            prop_assert_eq!(again.matches(&other), literal.matches(&other));
        }
    }
}
