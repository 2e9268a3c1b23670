//! Renaming in views, triggers, routines and events.
//!
//! The text of views is the servers' own: names in backticks, databases written out. It can be
//! rewritten. The bodies of the others are what a person typed: they are left alone, and
//! [`mentions_database`] tells who should have a look.

use std::ops::Range;

use super::lexer::{Dialect, Token, TokenKind};
use super::table::qualified;
use super::{Edits, significant};
use crate::logical::select::{TableName, quote_name};

/// Renames the database in `CREATE DATABASE`.
pub(in crate::logical) fn rename_database(create: &str, new: &str) -> String {
    let tokens = significant(create, Dialect::default());
    let mut edits = Edits::default();
    let name = tokens.iter().position(|t| t.is_word("DATABASE")).and_then(|at| tokens.get(at + 1));
    if let Some(name) = name {
        edits.replace(name.range(), quote_name(new));
    }
    edits.apply(create)
}

/// Rewrites the database in every name of a view, for each database that `target` gives a new name.
///
/// `` `a`.`b` `` alone may be a table of database `a`, or a column of alias `a`: it is the former
/// where a table or a sequence is expected, or before a parenthesis (a function).
pub(in crate::logical) fn rename_view(
    create: &str,
    target: &dyn Fn(&str) -> Option<String>,
) -> String {
    let tokens = significant(create, Dialect::default());
    let mut edits = Edits::default();
    let mut i = 0;
    while i < tokens.len() {
        let chain = chain(&tokens, i);
        let database = match chain.len() {
            0 | 1 => false,
            2 => {
                table_expected(&tokens, i)
                    || sequence_expected(&tokens, i)
                    || tokens.get(chain[1] + 1).is_some_and(|t| t.is_sign('('))
            }
            _ => true,
        };
        if database && let Some(new) = tokens[i].name().and_then(|old| target(&old)) {
            edits.replace(tokens[i].range(), quote_name(&new));
        }
        i = chain.last().map_or(i, |last| *last) + 1;
    }
    edits.apply(create)
}

/// The places of the parts of the name that begins at `at`.
pub(super) fn chain(tokens: &[Token<'_>], at: usize) -> Vec<usize> {
    let mut parts = Vec::new();
    let mut i = at;
    while tokens.get(i).is_some_and(|t| t.kind == TokenKind::Name) {
        parts.push(i);
        if !tokens.get(i + 1).is_some_and(|t| t.is_sign('.')) {
            break;
        }
        i += 2;
    }
    parts
}

/// Whether a table is named at `at`: after FROM, JOIN or VIEW, or after parentheses there.
pub(super) fn table_expected(tokens: &[Token<'_>], at: usize) -> bool {
    let before = tokens[..at].iter().rev().find(|t| !t.is_sign('('));
    before.is_some_and(|t| {
        ["FROM", "JOIN", "STRAIGHT_JOIN", "VIEW"].iter().any(|word| t.is_word(word))
    })
}

/// Whether a sequence is named at `at`.
fn sequence_expected(tokens: &[Token<'_>], at: usize) -> bool {
    let words = ["NEXTVAL", "LASTVAL", "SETVAL"];
    at > 1 && tokens[at - 1].is_sign('(') && words.iter().any(|word| tokens[at - 2].is_word(word))
}

/// Rewrites the databases of the libraries that a routine in another language than SQL uses, for each that `target`
/// gives a new name.
pub(in crate::logical) fn rename_libraries(
    create: &str,
    dialect: Dialect,
    target: &dyn Fn(&str) -> Option<String>,
) -> String {
    let tokens = significant(create, dialect);
    let mut edits = Edits::default();
    // Behind AS comes the body, which is no SQL.
    let language = tokens.iter().position(|t| t.is_word("LANGUAGE"));
    let using = language.and_then(|at| {
        let header = tokens[at..].iter().take_while(|t| !t.is_word("AS"));
        header.clone().position(|t| t.is_word("USING")).map(|using| at + using)
    });
    let Some(using) = using else { return create.to_owned() };
    let list = tokens[using..].iter().take_while(|t| !t.is_sign(')')).count();
    for i in using..using + list {
        // `` `database`.`library` ``, after the parenthesis or a comma.
        let first = i > using && (tokens[i - 1].is_sign('(') || tokens[i - 1].is_sign(','));
        if first
            && tokens.get(i + 1).is_some_and(|t| t.is_sign('.'))
            && let Some(new) = tokens[i].name().and_then(|old| target(&old))
        {
            edits.replace(tokens[i].range(), quoted_as(create, &tokens[i].range(), &new));
        }
    }
    edits.apply(create)
}

/// Renames a trigger and its table; both lose their database, which is the current one.
pub(in crate::logical) fn rename_trigger(
    create: &str,
    dialect: Dialect,
    name: &str,
    table: &str,
) -> String {
    let tokens = significant(create, dialect);
    let mut edits = Edits::default();
    let found = tokens.iter().position(|t| t.is_word("TRIGGER"));
    let on = tokens.iter().position(|t| t.is_word("ON"));
    for (at, new) in [(found, name), (on, table)] {
        if let Some((range, _)) = at.and_then(|at| qualified(&tokens, at + 1)) {
            edits.replace(range, quoted_as(create, &range_of(&tokens, at), new));
        }
    }
    edits.apply(create)
}

fn range_of(tokens: &[Token<'_>], at: Option<usize>) -> Range<usize> {
    at.and_then(|at| tokens.get(at + 1)).map_or(0..0, Token::range)
}

/// A name in the quotes that stand at `range`, or in backticks.
fn quoted_as(create: &str, range: &Range<usize>, name: &str) -> String {
    if create[range.clone()].starts_with('"') {
        format!("\"{}\"", name.replace('"', "\"\""))
    } else {
        quote_name(name)
    }
}

/// Takes the database out of the name that a routine, package or event is created under.
pub(in crate::logical) fn rename_header(create: &str, dialect: Dialect) -> String {
    let tokens = significant(create, dialect);
    let mut edits = Edits::default();
    let kind = tokens.iter().position(|t| {
        ["PROCEDURE", "FUNCTION", "PACKAGE", "EVENT"].iter().any(|word| t.is_word(word))
    });
    let at =
        kind.map(|at| at + 1 + usize::from(tokens.get(at + 1).is_some_and(|t| t.is_word("BODY"))));
    if let Some((range, parts)) = at.and_then(|at| qualified(&tokens, at))
        && let [_, name] = &parts[..]
    {
        edits.replace(range.clone(), quoted_as(create, &range, name));
    }
    edits.apply(create)
}

/// Switches an event off. `None` when it is off already.
pub(in crate::logical) fn switch_off(create: &str, dialect: Dialect) -> Option<String> {
    let tokens = significant(create, dialect);
    let header = tokens.iter().take_while(|t| !t.is_word("DO"));
    let state = header.filter(|t| t.is_word("ENABLE")).last()?;
    let mut edits = Edits::default();
    edits.replace(state.range(), "DISABLE".to_owned());
    Some(edits.apply(create))
}

/// Whether a definition names something of `database`, or the table itself where one is given.
pub(in crate::logical) fn mentions_database(
    create: &str,
    dialect: Dialect,
    database: &str,
    table: Option<&TableName>,
) -> bool {
    let tokens = significant(create, dialect);
    tokens.windows(2).any(|pair| {
        let Some(name) = pair[0].name() else { return false };
        (pair[1].is_sign('.') && name == database) || table.is_some_and(|t| t.table == name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_switched_off_in_its_header_alone() {
        let create = "CREATE DEFINER=`a`@`b` EVENT `enable` ON SCHEDULE EVERY 1 DAY STARTS '2030-01-01' ON \
                      COMPLETION NOT PRESERVE ENABLE COMMENT 'ENABLE DO' DO SELECT 'ENABLE', enable";
        let off = switch_off(create, Dialect::default()).unwrap();
        assert_eq!(off, create.replace("PRESERVE ENABLE", "PRESERVE DISABLE"));
        assert_eq!(switch_off(&off, Dialect::default()), None);
    }

    #[test]
    fn databases_in_views_are_renamed_and_aliases_are_not() {
        let create = "CREATE ALGORITHM=UNDEFINED DEFINER=`s`@`s` SQL SECURITY DEFINER VIEW `v` AS select \
                      `s`.`t`.`a` AS `s`,`s`.`a` AS `b`,`s`.`f`(`s`.`a`) AS `c`,'`s`.`t`.`a`' AS `d` from \
                      ((`s`.`t` join `k`.`t` `s`) left join `s`.`u` on((`s`.`u`.`a` = `s`.`a`)))";
        let renamed = rename_view(create, &|d| (d == "s").then(|| "n`".to_owned()));
        assert_eq!(
            renamed,
            "CREATE ALGORITHM=UNDEFINED DEFINER=`s`@`s` SQL SECURITY DEFINER VIEW `v` AS select \
             `n```.`t`.`a` AS `s`,`s`.`a` AS `b`,`n```.`f`(`s`.`a`) AS `c`,'`s`.`t`.`a`' AS `d` from \
             ((`n```.`t` join `k`.`t` `s`) left join `n```.`u` on((`n```.`u`.`a` = `s`.`a`)))"
        );
    }

    #[test]
    fn sequences_in_views_are_renamed() {
        let create = "CREATE VIEW `s`.`v` AS select nextval(`s`.`q`) AS `a`,setval(`s`.`q`,5,1,0) AS `b`,\
                      lastval(`k`.`q`) AS `c`,`nextval`(`s`.`q`) AS `d` from `s`.`t` `s`";
        let renamed = rename_view(create, &|d| (d == "s").then(|| "n".to_owned()));
        assert_eq!(
            renamed,
            "CREATE VIEW `n`.`v` AS select nextval(`n`.`q`) AS `a`,setval(`n`.`q`,5,1,0) AS `b`,\
             lastval(`k`.`q`) AS `c`,`nextval`(`s`.`q`) AS `d` from `n`.`t` `s`"
        );
    }

    #[test]
    fn libraries_are_renamed_in_the_header_alone() {
        let target = |d: &str| (d == "s").then(|| "n`".to_owned());
        let create = "CREATE DEFINER=`r`@`%` FUNCTION `f`(`using` int) RETURNS int\n LANGUAGE JAVASCRIPT\n USING \
                      (`s`.`l` AS `s`, `k`.`l2`, `s`.`l3`)\nAS $$ using (`s`.`l`) $$";
        assert_eq!(
            rename_libraries(create, Dialect::default(), &target),
            create.replace("(`s`.`l` AS", "(`n```.`l` AS").replace("`s`.`l3`", "`n```.`l3`")
        );
        for other in [
            "CREATE PROCEDURE `p`() select 1 from s.t join s.u using (a)",
            "CREATE FUNCTION `f`() RETURNS int LANGUAGE JAVASCRIPT AS $$ USING (`s`.`l`) $$",
        ] {
            assert_eq!(rename_libraries(other, Dialect::default(), &target), other);
        }
    }

    #[test]
    fn triggers_are_renamed_in_their_header_only() {
        for (create, renamed) in [
            (
                "CREATE DEFINER=`on`@`%` TRIGGER `tr` BEFORE INSERT ON `t` FOR EACH ROW set @a='ON `t`'",
                "CREATE DEFINER=`on`@`%` TRIGGER `n` BEFORE INSERT ON `x` FOR EACH ROW set @a='ON `t`'",
            ),
            (
                "CREATE DEFINER=`r`@`%` trigger s.tr before insert on s.t for each row set @b=1",
                "CREATE DEFINER=`r`@`%` trigger `n` before insert on `x` for each row set @b=1",
            ),
        ] {
            assert_eq!(rename_trigger(create, Dialect::default(), "n", "x"), renamed);
        }
    }

    #[test]
    fn routines_lose_their_database() {
        let create = "CREATE DEFINER=\"r\"@\"%\" PACKAGE BODY \"s\".\"p\" as end";
        let ansi = Dialect::of("ANSI_QUOTES");
        assert_eq!(
            rename_header(create, ansi),
            "CREATE DEFINER=\"r\"@\"%\" PACKAGE BODY \"p\" as end"
        );
        let plain = "CREATE DEFINER=`r`@`%` PROCEDURE `p`() select 1 from s.t";
        assert_eq!(rename_header(plain, Dialect::default()), plain);
        assert!(mentions_database(plain, Dialect::default(), "s", None));
        assert!(!mentions_database(plain, Dialect::default(), "t", None));
    }

    #[test]
    fn a_database_is_renamed() {
        assert_eq!(
            rename_database("CREATE DATABASE `a` /*!40100 DEFAULT CHARACTER SET utf8mb4 */", "b"),
            "CREATE DATABASE `b` /*!40100 DEFAULT CHARACTER SET utf8mb4 */"
        );
    }
}
