//! `CREATE TABLE` taken apart: what is needed to take rows, and what is quicker to add afterwards.

mod constraints;

use std::ops::Range;

use super::lexer::{Dialect, Token, TokenKind};
use super::literal::unquote_text;
use super::table::qualified;
use super::{Edits, significant};
use crate::logical::select::TableName;

/// A table's definition, whose indexes and foreign keys can be left for later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::logical) struct Parts<'a> {
    create: &'a str,
    elements: Vec<Element<'a>>,
    /// Where the list of columns and keys ends: at its closing parenthesis.
    end: usize,
}

/// What stands between two commas of a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Element<'a> {
    kind: Kind,
    range: Range<usize>,
    /// The name of the column, index or constraint.
    name: Option<String>,
    /// The first column of an index.
    leads_with: Option<String>,
    /// What a foreign key refers to, as it is written.
    parent: Option<Vec<String>>,
    auto_increment: bool,
    text: &'a str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A column, a CHECK, a period: nothing that could be added later.
    Other,
    Primary,
    Unique,
    Key,
    /// An index of a kind of its own, which the servers do not build from sorted entries.
    Special,
    ForeignKey,
}

impl<'a> Parts<'a> {
    /// Takes what `SHOW CREATE TABLE` printed apart.
    pub(in crate::logical) fn of(create: &'a str) -> Self {
        let tokens = significant(create, Dialect::default());
        let mut parts = Parts { create, elements: Vec::new(), end: create.len() };
        let Some(open) = tokens.iter().position(|t| t.is_sign('(')) else { return parts };
        let (mut depth, mut first, mut start) = (0_i32, open + 1, tokens[open].range().end);
        for (i, token) in tokens.iter().enumerate().skip(open) {
            if token.is_sign('(') {
                depth += 1;
            } else if token.is_sign(')') {
                depth -= 1;
            }
            let last = depth == 0;
            if last || (depth == 1 && token.is_sign(',')) {
                parts.elements.push(element(create, &tokens[first..i], start..token.start));
                (first, start) = (i + 1, token.range().end);
            }
            if last {
                parts.end = token.start;
                break;
            }
        }
        parts
    }

    /// The definition without foreign keys, and where `indexes` says so without the indexes that
    /// can be built afterwards and then stand where they stood.
    pub(in crate::logical) fn without(&self, indexes: bool, foreign_keys: bool) -> String {
        let later: Vec<usize> = if indexes { self.later() } else { Vec::new() };
        let mut edits = Edits::default();
        for (i, element) in self.elements.iter().enumerate() {
            if later.contains(&i) || (foreign_keys && element.kind == Kind::ForeignKey) {
                // With the comma before it; the first element is always a column.
                edits.replace(element.range.start - 1..element.range.end, "");
            }
        }
        edits.apply(self.create)
    }

    /// The indexes that [`Parts::without`] leaves out and `there` has not, as parts of an
    /// `ALTER TABLE`.
    pub(in crate::logical) fn indexes_not_in(&self, there: &Parts<'_>) -> Vec<String> {
        let later = self.later();
        self.additions(there, |i, _| later.contains(&i))
    }

    /// The foreign keys that `there` has not, as parts of an `ALTER TABLE`.
    pub(in crate::logical) fn foreign_keys_not_in(&self, there: &Parts<'_>) -> Vec<String> {
        self.additions(there, |_, e| e.kind == Kind::ForeignKey)
    }

    fn additions(
        &self,
        there: &Parts<'_>,
        wanted: impl Fn(usize, &Element<'_>) -> bool,
    ) -> Vec<String> {
        let has = |e: &Element<'_>| {
            let mut others = there.elements.iter();
            others.any(|o| o.kind != Kind::Other && (o.kind, &o.name) == (e.kind, &e.name))
        };
        let wanted = self.elements.iter().enumerate().filter(|(i, e)| wanted(*i, e) && !has(e));
        wanted.map(|(_, e)| format!("ADD {}", e.text)).collect()
    }

    /// The columns of the primary key and of each unique key, in their order; of an expression, those that it names.
    pub(in crate::logical) fn unique_keys(&self) -> Vec<Vec<String>> {
        let unique =
            self.elements.iter().filter(|e| matches!(e.kind, Kind::Primary | Kind::Unique));
        unique
            .map(|element| {
                let tokens = significant(element.text, Dialect::default());
                let open = tokens.iter().position(|t| t.is_sign('(')).unwrap_or(tokens.len());
                let names = tokens[open..].iter().filter(|t| t.kind == TokenKind::Name);
                names.filter_map(Token::name).collect()
            })
            .collect()
    }

    /// The columns of each index that sorts, with the length of which the index has no more.
    pub(in crate::logical) fn indexed(&self) -> Vec<Vec<(String, Option<u64>)>> {
        let sorts = |e: &&Element<'_>| matches!(e.kind, Kind::Primary | Kind::Unique | Kind::Key);
        let mut indexes = Vec::new();
        for element in self.elements.iter().filter(sorts) {
            let mut columns = Vec::new();
            let tokens = significant(element.text, Dialect::default());
            let mut depth = 0_i32;
            for (i, token) in tokens.iter().enumerate() {
                if token.is_sign('(') {
                    depth += 1;
                } else if token.is_sign(')') {
                    depth -= 1;
                } else if depth == 1 && token.kind == TokenKind::Name {
                    let opens = tokens.get(i + 1).filter(|t| t.is_sign('('));
                    let length = opens.and(tokens.get(i + 2)).and_then(|t| t.text.parse().ok());
                    columns.extend(token.name().map(|name| (name, length)));
                }
            }
            indexes.push(columns);
        }
        indexes
    }

    /// Whether [`Parts::without`] can leave indexes out.
    pub(in crate::logical) fn has_indexes_for_later(&self) -> bool {
        !self.later().is_empty()
    }

    /// The tables that foreign keys of a table of `database` refer to.
    pub(in crate::logical) fn parents(&self, database: &str) -> Vec<TableName> {
        let parents = self.elements.iter().filter_map(|e| e.parent.as_deref());
        parents.map(|parts| table_name(database, parts)).collect()
    }

    /// The definition with one more table option; options that follow win over it.
    pub(in crate::logical) fn with_option(create: &str, option: &str) -> String {
        let end = Parts::of(create).end;
        match create.get(end..end + 1) {
            Some(")") => format!("{}) {option}{}", &create[..end], &create[end + 1..]),
            _ => create.to_owned(),
        }
    }

    /// The value of a table option such as `STATS_AUTO_RECALC=1`.
    pub(in crate::logical) fn option(&self, name: &str) -> Option<&'a str> {
        let tokens = significant(&self.create[self.end..], Dialect::default());
        let at = tokens.iter().position(|t| t.is_word(name))?;
        let value = tokens.get(at + 1).filter(|t| t.is_sign('=')).and(tokens.get(at + 2))?;
        Some(value.text)
    }

    /// The value of an option, in quotes or not, which MariaDB may print with its name in quotes.
    pub(in crate::logical) fn engine_option(&self, name: &str) -> Option<String> {
        let tokens = significant(&self.create[self.end..], Dialect::default());
        let is_it = |t: &Token<'_>| t.name().is_some_and(|found| found.eq_ignore_ascii_case(name));
        let at = tokens.iter().position(is_it)?;
        let value = tokens.get(at + 1).filter(|t| t.is_sign('=')).and(tokens.get(at + 2))?;
        value.name().or_else(|| unquote_text(value.text))
    }

    /// The definition without what `AUTO_INCREMENT` gives next, which every new row changes.
    pub(in crate::logical) fn without_counter(&self) -> String {
        let options = significant(&self.create[self.end..], Dialect::default());
        let mut edits = Edits::default();
        if let Some(at) = options.iter().position(|t| t.is_word("AUTO_INCREMENT"))
            && let Some(value) = options.get(at + 2)
        {
            edits.replace(self.end + options[at].start..self.end + value.range().end, "");
        }
        edits.apply(self.create)
    }

    /// The column with `AUTO_INCREMENT`.
    pub(in crate::logical) fn counter(&self) -> Option<String> {
        self.elements.iter().find(|e| e.auto_increment).and_then(|e| e.name.clone())
    }

    /// Whether a word stands among the table's options, such as `VERSIONING`.
    pub(in crate::logical) fn has_option_word(&self, word: &str) -> bool {
        significant(&self.create[self.end..], Dialect::default()).iter().any(|t| t.is_word(word))
    }

    /// Whether some index is of a kind of its own: FULLTEXT, SPATIAL, VECTOR.
    pub(in crate::logical) fn has_special(&self) -> bool {
        self.elements.iter().any(|e| e.kind == Kind::Special)
    }

    /// Which elements are indexes that can be built afterwards.
    ///
    /// Servers print unique keys first, and else in the order of creation, so what is left for later
    /// must come after all that is not. The first unique key of a table without a primary key is
    /// what the rows are kept by, and a counter needs its index at once.
    fn later(&self) -> Vec<usize> {
        let has = |kind| self.elements.iter().any(|e| e.kind == kind);
        let counter = self.counter();
        let leads = |e: &Element<'_>| counter.is_some() && e.leads_with == counter;
        let served = self.elements.iter().any(|e| e.kind == Kind::Primary && leads(e));
        let mut served = served || counter.is_none();
        let mut later = Vec::new();
        for (i, element) in self.elements.iter().enumerate() {
            let kept = match element.kind {
                Kind::Unique | Kind::Key if !served && leads(element) => {
                    served = true;
                    true
                }
                Kind::Unique => !has(Kind::Primary),
                _ => false,
            };
            if kept {
                later.clear();
            } else if matches!(element.kind, Kind::Unique | Kind::Key) {
                later.push(i);
            }
        }
        // A counter whose index was not recognised: better slow than refused.
        if served { later } else { Vec::new() }
    }
}

/// A table by the parts of its name, of which the first may be missing.
fn table_name(database: &str, parts: &[String]) -> TableName {
    match parts {
        [database, table] => TableName { database: database.clone(), table: table.clone() },
        _ => TableName { database: database.to_owned(), table: parts.concat() },
    }
}

fn element<'a>(create: &'a str, tokens: &[Token<'_>], range: Range<usize>) -> Element<'a> {
    let word = |i: usize, word: &str| tokens.get(i).is_some_and(|t: &Token<'_>| t.is_word(word));
    let kind = match () {
        () if word(0, "PRIMARY") && word(1, "KEY") => Kind::Primary,
        () if word(0, "UNIQUE") && word(1, "KEY") => Kind::Unique,
        () if word(0, "KEY") => Kind::Key,
        () if word(1, "KEY") => Kind::Special,
        () if word(0, "CONSTRAINT") && word(2, "FOREIGN") => Kind::ForeignKey,
        () => Kind::Other,
    };
    let name = match kind {
        Kind::Other => 0,
        Kind::Key | Kind::ForeignKey => 1,
        Kind::Primary | Kind::Unique | Kind::Special => 2,
    };
    let name = tokens.get(name).and_then(Token::name);
    let open = tokens.iter().position(|t| t.is_sign('('));
    let leads_with = open.and_then(|at| tokens.get(at + 1)).and_then(Token::name);
    let parent = (kind == Kind::ForeignKey).then(|| {
        let at = tokens.iter().position(|t| t.is_word("REFERENCES"))?;
        qualified(tokens, at + 1).map(|(_, parts)| parts)
    });
    Element {
        kind,
        name,
        leads_with,
        parent: parent.flatten(),
        auto_increment: kind == Kind::Other && tokens.iter().any(|t| t.is_word("AUTO_INCREMENT")),
        text: create[range.clone()].trim(),
        range,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CREATE: &str = "CREATE TABLE `t` (\n  `id` int NOT NULL AUTO_INCREMENT COMMENT 'a, KEY (`b`)',\n  `b` \
        decimal(5,2) DEFAULT NULL,\n  `KEY` int,\n  PRIMARY KEY (`id`),\n  UNIQUE KEY `u` (`b`),\n  KEY `k` \
        (`b`,`KEY`) /*!80000 INVISIBLE */,\n  FULLTEXT KEY `f` (`c`),\n  CONSTRAINT `x` FOREIGN KEY (`b`) \
        REFERENCES `o`.`p` (`q`) ON DELETE CASCADE,\n  CONSTRAINT `c` CHECK (`b` > 0)\n) ENGINE=InnoDB \
        AUTO_INCREMENT=7 STATS_AUTO_RECALC=1 COMMENT='STATS_PERSISTENT=0'";

    #[test]
    fn the_counter_is_no_part_of_what_a_table_is() {
        let without = Parts::of(CREATE).without_counter();
        assert_eq!(without, CREATE.replace("AUTO_INCREMENT=7", ""));
        assert_eq!(Parts::of(&without).without_counter(), without);
    }

    #[test]
    fn unique_keys_by_their_columns() {
        let create = "CREATE TABLE `t` (\n  `a` int,\n  `b` text,\n  `it``s (` int,\n  PRIMARY KEY (`a`),\n  UNIQUE KEY `u` \
                      (`b`(10),`it``s (` DESC) USING BTREE,\n  UNIQUE KEY `f` ((lower(`b`))),\n  KEY `k` (`b`(9))\n)";
        let keys = Parts::of(create).unique_keys();
        assert_eq!(keys, [vec!["a"], vec!["b", "it`s ("], vec!["b"]]);
        let columns = Parts::of(create).indexed().concat();
        let columns: Vec<_> =
            columns.iter().map(|(name, length)| (name.as_str(), *length)).collect();
        assert_eq!(columns, [("a", None), ("b", Some(10)), ("it`s (", None), ("b", Some(9))]);
    }

    #[test]
    fn indexes_and_foreign_keys_are_left_for_later() {
        let parts = Parts::of(CREATE);
        assert_eq!(
            parts.without(true, true),
            "CREATE TABLE `t` (\n  `id` int NOT NULL AUTO_INCREMENT COMMENT 'a, KEY (`b`)',\n  `b` \
             decimal(5,2) DEFAULT NULL,\n  `KEY` int,\n  PRIMARY KEY (`id`),\n  FULLTEXT KEY `f` (`c`),\n  \
             CONSTRAINT `c` CHECK (`b` > 0)\n) ENGINE=InnoDB AUTO_INCREMENT=7 STATS_AUTO_RECALC=1 \
             COMMENT='STATS_PERSISTENT=0'"
        );
        let nothing = Parts::of("");
        assert_eq!(
            parts.indexes_not_in(&nothing),
            ["ADD UNIQUE KEY `u` (`b`)", "ADD KEY `k` (`b`,`KEY`) /*!80000 INVISIBLE */"]
        );
        let foreign =
            "ADD CONSTRAINT `x` FOREIGN KEY (`b`) REFERENCES `o`.`p` (`q`) ON DELETE CASCADE";
        assert_eq!(parts.foreign_keys_not_in(&nothing), [foreign]);
        let without = parts.without(true, false);
        assert_eq!(parts.indexes_not_in(&Parts::of(&without)).len(), 2);
        assert!(parts.foreign_keys_not_in(&Parts::of(&without)).is_empty());
        assert!(parts.indexes_not_in(&parts).is_empty() && parts.has_indexes_for_later());
        assert_eq!(parts.parents("s"), ["o.p".parse().unwrap()]);
        assert!(parts.has_special());
        assert_eq!(parts.option("STATS_AUTO_RECALC"), Some("1"));
        assert_eq!(parts.option("STATS_PERSISTENT"), None);
        assert_eq!(parts.without(false, false), CREATE);
        let with = Parts::with_option(CREATE, "STATS_AUTO_RECALC=0");
        assert!(with.contains("\n) STATS_AUTO_RECALC=0 ENGINE=InnoDB"), "{with}");
    }

    #[test]
    fn what_rows_are_kept_by_and_what_counts_stays() {
        let later = |keys: &str| {
            let create = format!(
                "CREATE TABLE `t` (\n  `a` int AUTO_INCREMENT,\n  `b` int,\n  {keys}\n) E=I"
            );
            Parts::of(&create).indexes_not_in(&Parts::of(""))
        };
        // No primary key: unique keys stay.
        assert_eq!(later("UNIQUE KEY `u` (`a`),\n  KEY `k` (`b`)"), ["ADD KEY `k` (`b`)"]);
        // The counter's index stays, and all before it.
        let keys = "PRIMARY KEY (`b`),\n  KEY `x` (`b`,`a`),\n  KEY `y` (`a`),\n  KEY `z` (`b`)";
        assert_eq!(later(keys), ["ADD KEY `z` (`b`)"]);
        // Of two that would do, one.
        let keys = "PRIMARY KEY (`b`),\n  KEY `x` (`a`),\n  KEY `y` (`a`)";
        assert_eq!(later(keys), ["ADD KEY `y` (`a`)"]);
        assert_eq!(later("PRIMARY KEY (`b`,`a`),\n  KEY `z` (`b`)"), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn nothing_panics(create in "[a-z`'(),\\n ]{0,60}|CREATE TABLE `t` \\([A-Z`(), ]{0,60}") {
            let parts = Parts::of(&create);
            let _ = (parts.without(true, true), parts.indexes_not_in(&parts), parts.option("A"));
            let _ = (parts.foreign_keys_not_in(&parts), parts.parents("s"), Parts::with_option(&create, "X=1"));
        }
    }
}
