//! Statements about accounts, as `SHOW CREATE USER` and `SHOW GRANTS` give them.

use std::ops::Range;

use super::lexer::{Dialect, Token, TokenKind, significant};
use super::literal::unquote_text;
use super::{Edits, quote_text};
use crate::logical::account::AccountName;
use crate::logical::select::{TableName, quote_name};

/// `CREATE USER` without `DEFAULT ROLE`, which names what may not be there yet.
pub(in crate::logical) fn account_create(create: &str) -> String {
    let tokens = significant(create, Dialect::default());
    let at = tokens.windows(2).position(|w| w[0].is_word("DEFAULT") && w[1].is_word("ROLE"));
    let Some(at) = at else { return create.to_owned() };
    // The list of roles is names, signs and nothing else.
    let end = tokens[at + 2..].iter().find(|t| t.kind == TokenKind::Word && !t.is_word("NONE"));
    let mut edits = Edits::default();
    edits.replace(tokens[at].start..end.map_or(create.len(), |t| t.start), "");
    edits.apply(create).trim_end().to_owned()
}

/// A line of `SHOW GRANTS` as a statement about `account` alone. `None` for what is told elsewhere
/// (roles), what grants nothing, and what the account has by way of others.
pub(in crate::logical) fn account_grant(line: &str, account: &AccountName) -> Option<String> {
    let tokens = significant(line, Dialect::default());
    let revoke = tokens.first()?.is_word("REVOKE");
    if !revoke && !tokens.first()?.is_word("GRANT") {
        return None;
    }
    let on = tokens.iter().position(|t| t.is_word("ON"))?;
    let to = if revoke { "FROM" } else { "TO" };
    let to = on + tokens[on..].iter().position(|t| t.is_word(to))?;
    let (grantee, next) = named(&tokens, to + 1)?;
    if grantee != *account {
        return None;
    }
    let options = &tokens[next..];
    let grant_option = options.windows(2).any(|w| w[0].is_word("GRANT") && w[1].is_word("OPTION"));
    if !revoke && !grant_option && on == 2 && tokens[1].is_word("USAGE") {
        return None;
    }
    let end = tokens[next - 1].range().end;
    Some(format!("{}{}", &line[..end], if grant_option { " WITH GRANT OPTION" } else { "" }))
}

/// The name at `at`, and where what follows it begins.
fn named(tokens: &[Token<'_>], at: usize) -> Option<(AccountName, usize)> {
    let part = |at: usize| {
        let token = tokens.get(at)?;
        token.name().or_else(|| unquote_text(token.text))
    };
    let user = part(at)?;
    if tokens.get(at + 1).is_some_and(|t| t.is_sign('@')) {
        return Some((AccountName { user, host: part(at + 2)? }, at + 3));
    }
    Some((AccountName { user, host: String::new() }, at + 1))
}

/// What a grant on a routine, a package or a library is about.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::logical) struct RoutineGrant {
    /// `procedure`, `package body`, …
    pub kind: String,
    pub routine: TableName,
    pub account: AccountName,
}

/// Reads a grant that `SHOW GRANTS` gives; `None` where it is about something else.
pub(in crate::logical) fn routine_grant(grant: &str) -> Option<RoutineGrant> {
    let tokens = significant(grant, Dialect::default());
    let on = tokens.iter().position(|t| t.is_word("ON"))?;
    let kind = tokens.get(on + 1)?;
    let kinds = ["PROCEDURE", "FUNCTION", "PACKAGE", "LIBRARY"];
    if !kinds.iter().any(|word| kind.is_word(word)) {
        return None;
    }
    let body = tokens.get(on + 2).is_some_and(|t| t.is_word("BODY"));
    let at = on + 2 + usize::from(body);
    tokens.get(at + 1).filter(|t| t.is_sign('.'))?;
    tokens.get(at + 3).filter(|t| t.is_word("TO"))?;
    Some(RoutineGrant {
        kind: kind.text.to_lowercase() + if body { " body" } else { "" },
        routine: TableName { database: tokens[at].name()?, table: tokens.get(at + 2)?.name()? },
        account: named(&tokens, at + 4)?.0,
    })
}

/// One statement for each privilege of a `GRANT` or `REVOKE`, for a server that does not know all of
/// them. `None` where there is but one.
pub(in crate::logical) fn single_privileges(statement: &str) -> Option<Vec<String>> {
    let tokens = significant(statement, Dialect::default());
    let on = tokens.iter().position(|t| t.is_word("ON"))?;
    let verb = tokens.first()?.text;
    let mut parts: Vec<Range<usize>> = Vec::new();
    let mut start = tokens.get(1)?.start;
    let mut depth = 0;
    for token in &tokens[1..on] {
        match token.text {
            "(" => depth += 1,
            ")" => depth -= 1,
            "," if depth == 0 => {
                parts.push(start..token.start);
                start = token.range().end;
            }
            _ => {}
        }
    }
    parts.push(start..tokens[on].start);
    let rest = &statement[tokens[on].start..];
    let one = |part: Range<usize>| format!("{verb} {} {rest}", statement[part].trim());
    (parts.len() > 1).then(|| parts.into_iter().map(one).collect())
}

/// Where the definer is in `CREATE DEFINER=`a`@`b` …`: the whole clause, and who it is.
pub(in crate::logical) fn definer(
    create: &str,
    dialect: Dialect,
) -> Option<(Range<usize>, AccountName)> {
    let tokens = significant(create, dialect);
    let kinds = ["VIEW", "TRIGGER", "PROCEDURE", "FUNCTION", "EVENT", "PACKAGE"];
    let at = tokens
        .iter()
        .take_while(|t| !kinds.iter().any(|kind| t.is_word(kind)))
        .position(|t| t.is_word("DEFINER"))?;
    tokens.get(at + 1).filter(|t| t.is_sign('='))?;
    let (name, next) = named(&tokens, at + 2)?;
    let end = tokens.get(next).map_or(create.len(), |t| t.start);
    Some((tokens[at].start..end, name))
}

/// Gives a definition another definer; none = whoever creates it.
pub(in crate::logical) fn set_definer(
    create: &str,
    dialect: Dialect,
    new: Option<&AccountName>,
) -> String {
    let Some((range, _)) = definer(create, dialect) else { return create.to_owned() };
    let quote = |name: &str| {
        if dialect.ansi_quotes {
            format!("\"{}\"", name.replace('"', "\"\""))
        } else {
            quote_name(name)
        }
    };
    let clause = match new {
        None => String::new(),
        Some(name) if name.host.is_empty() => format!("DEFINER={} ", quote(&name.user)),
        Some(name) => format!("DEFINER={}@{} ", quote(&name.user), quote(&name.host)),
    };
    let mut edits = Edits::default();
    edits.replace(range, clause);
    edits.apply(create)
}

/// `'text'` where a statement takes a string whatever the `sql_mode` is: as hexadecimal digits.
pub(in crate::logical) fn hex_text(text: &str) -> String {
    if text.is_ascii() && !text.contains('\\') {
        return quote_text(text);
    }
    let digits: String = text.bytes().map(|b| format!("{b:02x}")).collect();
    format!("CONVERT(0x{digits} USING utf8mb4)")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(user: &str, host: &str) -> AccountName {
        AccountName { user: user.into(), host: host.into() }
    }

    #[test]
    fn default_roles_are_taken_out() {
        let create = "CREATE USER `u`@`%` IDENTIFIED WITH 'p' AS 0x2441 DEFAULT ROLE `REQUIRE`@`%`,`b`@`h` \
                      REQUIRE NONE PASSWORD EXPIRE DEFAULT ACCOUNT UNLOCK ATTRIBUTE '{\"a\": \"DEFAULT ROLE\"}'";
        let without = account_create(create);
        assert_eq!(without, create.replace("DEFAULT ROLE `REQUIRE`@`%`,`b`@`h` ", ""));
        assert_eq!(account_create(&without), without);
    }

    #[test]
    fn grants_are_those_of_the_account_alone() {
        let account = name("it's", "10.%");
        let line = "GRANT SELECT (`to`, `b`) ON `d`.`TO` TO `it's`@`10.%`";
        assert_eq!(account_grant(line, &account).as_deref(), Some(line));
        assert_eq!(account_grant(line, &name("it's", "%")), None);
        let old = "GRANT USAGE ON *.* TO 'it''s'@'10.%' IDENTIFIED BY PASSWORD '*AB' REQUIRE SSL WITH GRANT OPTION \
                   MAX_USER_CONNECTIONS 4";
        assert_eq!(
            account_grant(old, &account).as_deref(),
            Some("GRANT USAGE ON *.* TO 'it''s'@'10.%' WITH GRANT OPTION")
        );
        for nothing in [
            "GRANT USAGE ON *.* TO `it's`@`10.%` IDENTIFIED VIA ed25519 USING 'x'",
            "GRANT `r`@`%` TO `it's`@`10.%`",
            "SET DEFAULT ROLE `r` FOR `it's`@`10.%`",
            "GRANT SELECT ON `d`.* TO PUBLIC",
        ] {
            assert_eq!(account_grant(nothing, &account), None, "{nothing}");
        }
        let public = "GRANT SELECT ON `d`.* TO PUBLIC";
        assert_eq!(account_grant(public, &name("PUBLIC", "")).as_deref(), Some(public));
        let revoke = "REVOKE SELECT ON `mysql`.* FROM `it's`@`10.%`";
        assert_eq!(account_grant(revoke, &account).as_deref(), Some(revoke));
    }

    #[test]
    fn a_grant_on_a_routine_is_told_from_others() {
        let found = routine_grant(
            "GRANT EXECUTE, ALTER ROUTINE ON PACKAGE BODY `d`.`TO` TO `it's`@`%` WITH GRANT OPTION",
        );
        let found = found.unwrap();
        assert_eq!(
            (found.kind.as_str(), found.routine.quoted()),
            ("package body", "`d`.`TO`".into())
        );
        assert_eq!(found.account, name("it's", "%"));
        let role = routine_grant("GRANT EXECUTE ON FUNCTION `d`.`f` TO `r`").unwrap();
        assert_eq!((role.kind.as_str(), role.account), ("function", name("r", "")));
        for other in ["GRANT SELECT ON `d`.`procedure` TO `a`@`b`", "GRANT `r` TO `a`@`b`"] {
            assert_eq!(routine_grant(other), None, "{other}");
        }
    }

    #[test]
    fn a_grant_is_split_into_its_privileges() {
        let grant = "GRANT SELECT (`a`, `b`), SHOW VIEW ON `d`.`t` TO `u`@`%` WITH GRANT OPTION";
        assert_eq!(
            single_privileges(grant).unwrap(),
            [
                "GRANT SELECT (`a`, `b`) ON `d`.`t` TO `u`@`%` WITH GRANT OPTION",
                "GRANT SHOW VIEW ON `d`.`t` TO `u`@`%` WITH GRANT OPTION"
            ]
        );
        assert_eq!(single_privileges("GRANT SELECT ON *.* TO `u`@`%`"), None);
    }

    #[test]
    fn definers_are_found_and_changed() {
        let view = "CREATE ALGORITHM=MERGE DEFINER=`a`@`b` SQL SECURITY DEFINER VIEW `definer` AS select 1";
        let plain = Dialect::default();
        assert_eq!(definer(view, plain).unwrap().1, name("a", "b"));
        assert_eq!(set_definer(view, plain, None), view.replace("DEFINER=`a`@`b` ", ""));
        let mapped = set_definer(view, plain, Some(&name("x`", "%")));
        assert_eq!(mapped, view.replace("`a`@`b`", "`x```@`%`"));
        let ansi = Dialect::of("ANSI_QUOTES");
        let event =
            "CREATE DEFINER=\"a\"@\"b\" EVENT \"e\" ON SCHEDULE EVERY 1 DAY DO SELECT \"DEFINER\"";
        assert_eq!(
            set_definer(event, ansi, Some(&name("r", ""))),
            event.replace("\"a\"@\"b\"", "\"r\"")
        );
        assert_eq!(
            definer("CREATE TRIGGER t BEFORE INSERT ON definer FOR EACH ROW SET @a=1", plain),
            None
        );
    }
}
