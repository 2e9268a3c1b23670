//! What a view reads from, for one whose tables are gone.

use std::collections::BTreeSet;

use super::code::{chain, table_expected};
use super::lexer::{Dialect, Token, TokenKind, significant};
use super::{Edits, table::qualified};
use crate::logical::select::quote_name;

/// The names that a view uses, as the servers print them: in backticks, and with the name of the
/// database where that is not the current one.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::logical) struct ViewReferences {
    pub tables: Vec<ViewTable>,
    pub columns: Vec<ViewColumn>,
    pub functions: Vec<ViewFunction>,
}

/// A table that a view reads.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::logical) struct ViewTable {
    pub database: Option<String>,
    pub name: String,
    pub alias: Option<String>,
}

/// A column that a view uses.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::logical) struct ViewColumn {
    pub database: Option<String>,
    /// A table or an alias; empty for none.
    pub qualifier: String,
    pub name: String,
}

/// A stored function that a view calls.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::logical) struct ViewFunction {
    pub database: Option<String>,
    pub name: String,
    pub arguments: usize,
}

/// Finds them.
pub(in crate::logical) fn view_references(create: &str) -> ViewReferences {
    let tokens = significant(create, Dialect::default());
    let mut found = ViewReferences::default();
    // Behind the name of the view itself.
    let Some(view) = tokens.iter().position(|t| t.is_word("VIEW")) else { return found };
    let mut i = chain(&tokens, view + 1).last().map_or(view + 1, |last| last + 1);
    // From is the only place where a comma separates tables.
    while i < tokens.len() {
        let chain = chain(&tokens, i);
        let Some(&last) = chain.last() else {
            i += 1;
            continue;
        };
        let names: Vec<String> = chain.iter().filter_map(|&at| tokens[at].name()).collect();
        let after = tokens.get(last + 1);
        let name = names.last().cloned().unwrap_or_default();
        let database = (names.len() > 1).then(|| names[names.len() - 2].clone());
        if after.is_some_and(|t| t.is_sign('(')) && !is_alias(&tokens, i) {
            let arguments = arguments(&tokens, last + 1);
            found.functions.push(ViewFunction { database, name, arguments });
        } else if table_expected(&tokens, i) && names.len() <= 2 {
            let at = last + 1 + usize::from(after.is_some_and(|t| t.is_word("AS")));
            let alias = tokens.get(at).filter(|t| t.kind == TokenKind::Name);
            found.tables.push(ViewTable { database, name, alias: alias.and_then(Token::name) });
            // The alias is no column.
            i = last + 1 + usize::from(alias.is_some()) * (at - last);
            continue;
        } else if !is_alias(&tokens, i) {
            let qualifier = database.unwrap_or_default();
            let database = (names.len() > 2).then(|| names[names.len() - 3].clone());
            found.columns.push(ViewColumn { database, qualifier, name });
        }
        i = last + 1;
    }
    found
}

/// Whether the name at `at` is one that the view gives: after AS, or in a WITH.
fn is_alias(tokens: &[Token<'_>], at: usize) -> bool {
    at > 0 && tokens[at - 1].is_word("AS")
}

/// How many arguments stand in the parentheses that begin at `at`.
fn arguments(tokens: &[Token<'_>], at: usize) -> usize {
    let (mut depth, mut count) = (0, 0);
    for (i, token) in tokens[at..].iter().enumerate() {
        match token.text {
            "(" => depth += 1,
            ")" => {
                depth -= 1;
                if depth == 0 {
                    return count + usize::from(i > 1);
                }
            }
            "," if depth == 1 => count += 1,
            _ => {}
        }
    }
    count
}

/// Every name that a view's definition has in backticks, in small letters.
pub(in crate::logical) fn names(create: &str) -> BTreeSet<String> {
    let tokens = significant(create, Dialect::default());
    let names = tokens.iter().filter(|t| t.kind == TokenKind::Name).filter_map(Token::name);
    names.map(|name| name.to_lowercase()).collect()
}

/// Whether a table of the view's own `database`, which is named without an alias, may be taken for something else of that
/// name: a table of another database, an alias, a subquery. The columns of such a table say of which table they are, and not of
/// which database.
///
/// Says yes too often rather than too seldom: the name may be that of a column only.
pub(in crate::logical) fn has_ambiguous_names(create: &str, database: &str) -> bool {
    let tokens = significant(create, Dialect::default());
    let is_here = |name: Option<&str>| name.is_none_or(|name| name == database);
    let own: BTreeSet<String> = view_references(create)
        .tables
        .into_iter()
        .filter(|table| is_here(table.database.as_deref()) && table.alias.is_none())
        .map(|table| table.name.to_lowercase())
        .collect();
    let is_own =
        |at: usize| tokens[at].name().is_some_and(|name| own.contains(&name.to_lowercase()));
    // Behind the name of the view itself.
    let Some(view) = tokens.iter().position(|t| t.is_word("VIEW")) else { return false };
    let mut i = chain(&tokens, view + 1).last().map_or(view + 1, |last| last + 1);
    while i < tokens.len() {
        let chain = chain(&tokens, i);
        let found = match chain[..] {
            [only] => !table_expected(&tokens, i) && is_own(only),
            // A table of another database, or a column of one.
            [database, table] if table_expected(&tokens, i) => {
                !is_here(tokens[database].name().as_deref()) && is_own(table)
            }
            [database, table, _] => !is_here(tokens[database].name().as_deref()) && is_own(table),
            _ => false,
        };
        if found {
            return true;
        }
        i = chain.last().map_or(i, |last| *last) + 1;
    }
    false
}

/// Gives the view another name, in the current database.
pub(in crate::logical) fn name_view(create: &str, new: &str) -> String {
    let tokens = significant(create, Dialect::default());
    let mut edits = Edits::default();
    let at = tokens.iter().position(|t| t.is_word("VIEW"));
    if let Some((range, _)) = at.and_then(|at| qualified(&tokens, at + 1)) {
        edits.replace(range, quote_name(new));
    }
    edits.apply(create)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_columns_and_functions_are_told_apart() {
        let create = "CREATE ALGORITHM=UNDEFINED DEFINER=`r`@`h` SQL SECURITY DEFINER VIEW `v` AS select `t`.`a` AS \
                      `x`,`e`.`u`.`b` AS `y`,`d`.`f`(`t`.`c`,concat('a,b',1)) AS `z`,`n` AS `n`,`g`() AS `q` from ((`t` join \
                      `e`.`u` `al` on((`al`.`k` = `t`.`a`))) left join `w` on(1))";
        let found = view_references(create);
        let tables: Vec<_> = found
            .tables
            .iter()
            .map(|t| (t.database.as_deref(), t.name.as_str(), t.alias.as_deref()))
            .collect();
        assert_eq!(tables, [(None, "t", None), (Some("e"), "u", Some("al")), (None, "w", None)]);
        let columns: Vec<_> =
            found.columns.iter().map(|c| format!("{}.{}", c.qualifier, c.name)).collect();
        assert_eq!(columns, ["t.a", "u.b", "t.c", ".n", "al.k", "t.a"]);
        let functions: Vec<_> =
            found.functions.iter().map(|f| (f.name.as_str(), f.arguments)).collect();
        assert_eq!(functions, [("f", 2), ("g", 0)]);
        assert!(name_view(create, "n`").contains("VIEW `n``` AS"));
    }

    #[test]
    fn names_that_may_be_of_something_else() {
        for (body, ambiguous) in [
            ("select `t`.`a` AS `a` from `t`", false),
            ("select `t`.`a` AS `a` from (`t` join `e`.`u` on(`e`.`u`.`a` = `t`.`a`))", false),
            ("select `x`.`a` AS `a` from (`t` `x` join `e`.`t` on(`e`.`t`.`a` = `x`.`a`))", false),
            ("select `t`.`a` AS `a` from (`t` join `e`.`t` on(`e`.`t`.`a` = `t`.`a`))", true),
            ("select `t`.`a` AS `a` from `t` where exists(select 1 from `e`.`T`)", true),
            ("select `t`.`a` AS `a` from `t` where exists(select 1 from `u` `t`)", true),
            (
                "select `t`.`a` AS `a` from `t` where exists(select 1 from (select 1 AS `a`) `t`)",
                true,
            ),
            ("select `d`.`t`.`a` AS `a` from `d`.`t` where exists(select 1 from `d`.`u`)", false),
            (
                "select `d`.`t`.`a` AS `a` from `d`.`t` where exists(select 1 from `d`.`u` `t`)",
                true,
            ),
            ("with `t` as (select 1 AS `a`) select `t`.`a` AS `a` from `t`", true),
        ] {
            let create = format!(
                "CREATE ALGORITHM=UNDEFINED DEFINER=`t`@`t` SQL SECURITY DEFINER VIEW `t` AS {body}"
            );
            assert_eq!(has_ambiguous_names(&create, "d"), ambiguous, "{create}");
        }
    }
}
