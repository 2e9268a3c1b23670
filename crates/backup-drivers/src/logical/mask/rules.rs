//! The rules as a user writes them.

use backup_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::super::pattern::Glob;
use super::super::select::split_parts;

/// What becomes of a value. NULL stays NULL always.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum MaskWith {
    /// NULL.
    Null,
    /// Always this text, which must be a value of the column.
    Fixed(String),
    /// Digits that stand for the value: the same for the same value, in every column.
    Hash,
    /// Letters become letters, digits digits; length, case and everything else stay. The same for
    /// the same value. Dates stay in their year, numbers keep the number of their digits.
    Shape,
    /// Every match of a regular expression is replaced; `$1` in the replacement is its first group.
    Regex {
        /// The expression, in the syntax of the crate `regex`.
        pattern: String,
        /// What takes the place of a match.
        replace: String,
    },
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskRule {
    /// `db.table.column`, each with wildcards if need be.
    pub column: String,
    /// What becomes of its values.
    pub with: MaskWith,
}

/// A file of rules. The first rule that fits a column counts.
///
/// ```
/// use backup_drivers::logical::{MaskRules, MaskWith};
/// let rules: MaskRules = serde_json::from_str(
///     r#"{"mask": [{"column": "shop.customers.email", "with": "hash"},
///                  {"column": "*.*.phone", "with": {"fixed": "555-0100"}}]}"#,
/// ).unwrap();
/// assert_eq!(rules.mask[0].with, MaskWith::Hash);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskRules {
    /// The rules, in order.
    pub mask: Vec<MaskRule>,
}

/// A rule that can be asked.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) text: String,
    parts: [Glob; 3],
    ignores_case: bool,
    pub(super) with: MaskWith,
    pub(super) regex: Option<regex::Regex>,
}

impl Compiled {
    pub(super) fn new(rule: &MaskRule) -> Result<Self> {
        let parts = split_parts(&rule.column)?;
        let parts: Vec<Glob> = parts
            .into_iter()
            .map(|(name, quoted)| match quoted {
                true => Ok(Glob::from(name)),
                false => name.parse(),
            })
            .collect::<Result<_>>()?;
        let parts = <[Glob; 3]>::try_from(parts).map_err(|_| {
            Error::usage(format!("`{}` in the rules names no column", rule.column.escape_debug()))
                .with_remedy("write db.table.column")
        })?;
        let regex = match &rule.with {
            MaskWith::Regex { pattern, .. } => Some(regex::Regex::new(pattern).map_err(|e| {
                Error::usage(format!("the expression for {} cannot be read", rule.column))
                    .with_source(e)
                    .with_remedy("see the syntax at https://docs.rs/regex")
            })?),
            _ => None,
        };
        Ok(Compiled {
            text: rule.column.clone(),
            parts,
            ignores_case: false,
            with: rule.with.clone(),
            regex,
        })
    }

    /// From now on names of databases and tables are compared without case.
    pub(super) fn ignore_case(&mut self) {
        self.ignores_case = true;
    }

    pub(super) fn matches(&self, database: &str, table: &str, column: &str) -> bool {
        let [d, t, c] = &self.parts;
        let fits = |glob: &Glob, name: &str| match self.ignores_case {
            true => glob.to_lowercase().matches(&name.to_lowercase()),
            false => glob.matches(name),
        };
        // Column names ignore case.
        fits(d, database) && fits(t, table) && c.to_lowercase().matches(&column.to_lowercase())
    }
}
