//! What a definition asks of the values of its columns.

use super::super::table::qualified;
use super::super::{Dialect, Token, TokenKind, significant};
use super::{Kind, Parts, table_name};
use crate::logical::select::TableName;

/// A condition that each row has to meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::logical) struct Check {
    /// The columns that it names.
    pub columns: Vec<String>,
    /// Whether it says that its column holds JSON, and no more: so MariaDB has the type.
    pub is_json: bool,
}

/// A foreign key: columns, and in the same order those that they refer to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::logical) struct ForeignKey {
    pub columns: Vec<String>,
    pub parent: TableName,
    pub parent_columns: Vec<String>,
}

/// By what the rows of a table are parted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::logical) struct Partitions {
    /// The columns that it names.
    pub columns: Vec<String>,
    /// Whether there may be values that are in no partition.
    pub closed: bool,
}

impl Parts<'_> {
    /// The conditions that are enforced.
    pub(in crate::logical) fn checks(&self) -> Vec<Check> {
        let mut checks = Vec::new();
        for element in self.elements.iter().filter(|e| e.kind == Kind::Other) {
            let tokens = significant(element.text, Dialect::default());
            for at in 0..tokens.len() {
                if !tokens[at].is_word("CHECK") {
                    continue;
                }
                let Some(inner) = group(&tokens, at + 1) else { continue };
                let after = tokens.get(at + inner.len() + 3..).unwrap_or_default();
                if after.first().is_some_and(|t| t.is_word("NOT"))
                    && after.get(1).is_some_and(|t| t.is_word("ENFORCED"))
                {
                    continue;
                }
                checks.push(Check {
                    columns: names(inner),
                    is_json: inner.len() == 4 && inner[0].is_word("JSON_VALID"),
                });
            }
        }
        checks
    }

    /// The columns of which one says from when, the other until when a row is valid (MariaDB).
    pub(in crate::logical) fn periods(&self) -> Vec<Vec<String>> {
        let mut periods = Vec::new();
        for element in self.elements.iter().filter(|e| e.kind == Kind::Other) {
            let tokens = significant(element.text, Dialect::default());
            if tokens.first().is_some_and(|t| t.is_word("PERIOD")) {
                periods.extend(group(&tokens, 3).map(names));
            }
        }
        periods
    }

    /// The foreign keys of a table of `database`.
    pub(in crate::logical) fn foreign_keys(&self, database: &str) -> Vec<ForeignKey> {
        let foreign = self.elements.iter().filter(|e| e.kind == Kind::ForeignKey);
        foreign
            .filter_map(|element| {
                let tokens = significant(element.text, Dialect::default());
                let open = tokens.iter().position(|t| t.is_sign('('))?;
                let to = tokens.iter().position(|t| t.is_word("REFERENCES"))? + 1;
                let (_, parent) = qualified(&tokens, to)?;
                let open_parent = to + tokens.get(to..)?.iter().position(|t| t.is_sign('('))?;
                Some(ForeignKey {
                    columns: names(group(&tokens, open)?),
                    parent: table_name(database, &parent),
                    parent_columns: names(group(&tokens, open_parent)?),
                })
            })
            .collect()
    }

    /// By what the rows are parted, if they are.
    pub(in crate::logical) fn partitions(&self) -> Option<Partitions> {
        let tokens = significant(self.create.get(self.end..)?, Dialect::default());
        let two = |at: usize, first: &str, second: &str| {
            tokens[at].is_word(first) && tokens.get(at + 1).is_some_and(|t| t.is_word(second))
        };
        let at = (0..tokens.len()).find(|at| two(*at, "PARTITION", "BY"))?;
        let open = at + tokens[at..].iter().position(|t| t.is_sign('('))?;
        let inner = group(&tokens, open)?;
        let how = |word: &str| tokens[at..open].iter().any(|t| t.is_word(word));
        let rest = &tokens[open + inner.len()..];
        let catches_all = rest.iter().enumerate().any(|(i, token)| {
            let opens = |n: usize| rest.get(n).is_some_and(|t| t.is_sign('('));
            let next = if opens(i + 1) { i + 2 } else { i + 1 };
            let highest = rest.get(next).is_some_and(|t| t.is_word("MAXVALUE"));
            token.is_word("DEFAULT") || (token.is_word("THAN") && highest)
        });
        // Some versions write plain names; a word before a parenthesis is a function.
        let columns = inner.iter().enumerate().filter_map(|(i, token)| {
            let calls = inner.get(i + 1).is_some_and(|t| t.is_sign('('));
            token.name().filter(|_| token.kind == TokenKind::Name || !calls)
        });
        Some(Partitions {
            columns: columns.collect(),
            closed: (how("RANGE") || how("LIST")) && !catches_all,
        })
    }

    /// Whether a column of text takes some texts for equal that are not the same.
    pub(in crate::logical) fn folds(&self, column: &str) -> bool {
        let mut elements = self.elements.iter().filter(|e| e.kind == Kind::Other);
        let element = elements.find(|e| {
            e.name.as_ref().is_some_and(|name| name.to_lowercase() == column.to_lowercase())
        });
        let tokens = element.map(|e| significant(e.text, Dialect::default())).unwrap_or_default();
        let word = |word: &str| tokens.iter().position(|t| t.is_word(word));
        let own = word("COLLATE").and_then(|at| tokens.get(at + 1)).map(|t| t.text);
        // The collations that come with character sets do.
        let inherited = || word("SET").is_none().then(|| self.option("COLLATE")).flatten();
        let collation = own.or_else(inherited).unwrap_or_default();
        !collation.ends_with("_bin") && !collation.ends_with("_cs") && collation != "binary"
    }
}

/// What is between the parenthesis at `open` and its end.
fn group<'t, 'a>(tokens: &'t [Token<'a>], open: usize) -> Option<&'t [Token<'a>]> {
    tokens.get(open).filter(|t| t.is_sign('('))?;
    let mut depth = 0_i32;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        if token.is_sign('(') {
            depth += 1;
        } else if token.is_sign(')') {
            depth -= 1;
        }
        if depth == 0 {
            return tokens.get(open + 1..i);
        }
    }
    None
}

fn names(tokens: &[Token<'_>]) -> Vec<String> {
    tokens.iter().filter(|t| t.kind == TokenKind::Name).filter_map(Token::name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_of_values() {
        let create = "CREATE TABLE `t` (\n  `a` int CHECK (`a` > 0),\n  `doc` longtext CHARACTER SET utf8mb4 COLLATE utf8mb4_bin \
            DEFAULT NULL COMMENT 'CHECK (`x`)' CHECK (json_valid(`doc`)),\n  `s` date NOT NULL,\n  `e` date NOT NULL,\n  `n` \
            varchar(9) CHARACTER SET latin1,\n  `m` varchar(9),\n  PRIMARY KEY (`a`),\n  CONSTRAINT `f` FOREIGN KEY (`a`,`m`) \
            REFERENCES `o`.`p` (`q`,`r`) ON DELETE CASCADE,\n  PERIOD FOR `p` (`s`, `e`),\n  CONSTRAINT `c` CHECK ((`a` > 0) or \
            (`m` is null)),\n  CONSTRAINT `off` CHECK ((`n` > 0)) /*!80016 NOT ENFORCED */\n) ENGINE=InnoDB \
            COLLATE=utf8mb4_0900_as_cs\n/*!50100 PARTITION BY RANGE (to_days(`s`))\n(PARTITION p0 VALUES LESS THAN (10))";
        let parts = Parts::of(create);
        let check = |columns: &[&str], is_json| Check {
            columns: columns.iter().map(|&c| c.to_owned()).collect(),
            is_json,
        };
        assert_eq!(
            parts.checks(),
            [check(&["a"], false), check(&["doc"], true), check(&["a", "m"], false)]
        );
        assert_eq!(parts.periods(), [["s", "e"]]);
        let keys = parts.foreign_keys("d");
        assert_eq!((&keys[0].columns, keys.len()), (&vec!["a".to_owned(), "m".to_owned()], 1));
        assert_eq!(keys[0].parent_columns, ["q", "r"]);
        assert_eq!(keys[0].parent, "o.p".parse().unwrap());
        let partitions = parts.partitions().unwrap();
        assert_eq!((partitions.columns, partitions.closed), (vec!["s".to_owned()], true));
        let folds = ["doc", "n", "m"].map(|column| parts.folds(column));
        assert_eq!(folds, [false, true, false]);
    }

    #[test]
    fn which_values_have_no_partition() {
        for (by, columns, closed) in [
            ("RANGE (`a`) (PARTITION p VALUES LESS THAN (1))", &["a"][..], true),
            ("RANGE (`a`) (PARTITION p VALUES LESS THAN MAXVALUE)", &["a"], false),
            ("RANGE  COLUMNS(a,b) (PARTITION p VALUES LESS THAN (1,2))", &["a", "b"], true),
            ("RANGE COLUMNS(`a`) (PARTITION p VALUES LESS THAN (MAXVALUE))", &["a"], false),
            ("LIST (`a`) (PARTITION p VALUES IN (1,2))", &["a"], true),
            ("LIST (`a`) (PARTITION p VALUES IN (1), PARTITION `o` DEFAULT)", &["a"], false),
            ("HASH (year(`a`)) PARTITIONS 4", &["a"], false),
            ("LINEAR KEY (a)", &["a"], false),
        ] {
            let create =
                format!("CREATE TABLE `t` (\n  `a` int\n) ENGINE=InnoDB PARTITION BY {by}");
            let partitions = Parts::of(&create).partitions().unwrap();
            assert_eq!(partitions.columns, columns, "{by}");
            assert_eq!(partitions.closed, closed, "{by}");
        }
        assert_eq!(Parts::of("CREATE TABLE `t` (`a` int)").partitions(), None);
    }
}
