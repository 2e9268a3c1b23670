//! What a view reads from, for one whose tables are gone.

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
}
