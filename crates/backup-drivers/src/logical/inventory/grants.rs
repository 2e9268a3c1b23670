//! What an account was granted, and where that holds.

use backup_core::{Flavor, Result};
use mysql_async::Conn;

use super::super::ddl::{Dialect, Token, TokenKind, significant};
use super::super::select::{TableName, quote_name};
use super::privileges::{Need, Privilege, Scope};
use super::{ServerFacts, query};

/// The privileges of an account.
#[derive(Debug, Default)]
pub(super) struct Grants {
    /// The account as SQL takes it, `'user'@'host'`.
    pub(super) account: String,
    grants: Vec<Grant>,
}

/// A line of `SHOW GRANTS`.
#[derive(Debug, PartialEq, Eq)]
struct Grant {
    /// A partial revoke (MySQL).
    revoked: bool,
    privileges: Vec<String>,
    /// Nothing = everything; a pattern of LIKE.
    database: Option<String>,
    /// Nothing = every table.
    table: Option<String>,
}

impl Grants {
    /// Asks the server.
    ///
    /// # Errors
    /// When it does not tell them.
    pub(super) async fn read(conn: &mut Conn, facts: &ServerFacts) -> Result<Self> {
        let what = "cannot read the account's privileges";
        let rows = query::rows(conn, "SELECT CURRENT_USER()", what).await?;
        let user = rows.first().map(|row| query::required(row, 0)).transpose()?.unwrap_or_default();
        let (name, host) = user.rsplit_once('@').unwrap_or((&user, "%"));
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let account = format!("{}@{}", quoted(name), quoted(host));
        // MariaDB shows the grants of the active role along with the others.
        let mut sql = "SHOW GRANTS".to_owned();
        if facts.flavor == Flavor::MySql && facts.capabilities().roles {
            let rows = query::rows(conn, "SELECT CURRENT_ROLE()", what).await?;
            let roles = rows.first().and_then(|row| query::text(row, 0));
            if let Some(roles) = roles.filter(|roles| roles.contains('@')) {
                sql = format!("SHOW GRANTS FOR CURRENT_USER() USING {roles}");
            }
        }
        let rows = query::rows(conn, sql, what).await?;
        let grants = rows.iter().filter_map(|row| Grant::parse(&query::text(row, 0)?)).collect();
        Ok(Grants { account, grants })
    }

    /// Which of these needs no privilege meets, each by the first that would.
    pub(super) fn missing(&self, needs: &[Need]) -> Vec<Privilege> {
        let unmet = needs
            .iter()
            .filter(|need| !need.any.iter().any(|privilege| self.has(privilege, &need.scope)));
        // One privilege may be what several needs ask for first.
        let mut missing: Vec<Privilege> = Vec::new();
        for privilege in unmet.map(|need| self.privilege(need)) {
            if !missing.contains(&privilege) {
                missing.push(privilege);
            }
        }
        missing
    }

    fn privilege(&self, need: &Need) -> Privilege {
        let first = need.any.first().copied().unwrap_or_default();
        let name = match (first.split_once(" ON "), &need.scope) {
            (Some(_), _) => first.to_owned(),
            (None, Scope::Global) => format!("{first} ON *.*"),
            (None, Scope::Database(database)) => {
                format!("{first} ON {}.*", quote_name(&as_pattern(database)))
            }
            // No pattern here.
            (None, Scope::Table(TableName { database, table })) => {
                format!("{first} ON {}.{}", quote_name(database), quote_name(table))
            }
        };
        Privilege { grant: format!("GRANT {name} TO {}", self.account), name }
    }

    fn has(&self, privilege: &str, scope: &Scope) -> bool {
        if let Some((privilege, place)) = privilege.split_once(" ON ") {
            let (database, table) = place.split_once('.').unwrap_or((place, ""));
            let (database, table) = (database.to_owned(), table.to_owned());
            return self.has(privilege, &Scope::Table(TableName { database, table }));
        }
        if let Scope::Table(TableName { database, table }) = scope {
            let on_table = self.grants.iter().any(|g| {
                g.database.as_ref() == Some(database)
                    && g.table.as_ref() == Some(table)
                    && g.holds(privilege)
            });
            return on_table || self.has(privilege, &Scope::Database(database.clone()));
        }
        let global =
            self.grants.iter().any(|g| !g.revoked && g.database.is_none() && g.holds(privilege));
        let Scope::Database(database) = scope else {
            // A partial revoke leaves a hole in what is called everything.
            let hole = self.grants.iter().any(|g| {
                let of_users = !matches!(g.database.as_deref(), Some("mysql" | "sys"));
                g.revoked && of_users && g.holds(privilege)
            });
            return global && !hole;
        };
        let revoked = self
            .grants
            .iter()
            .any(|g| g.revoked && g.database.as_deref() == Some(database) && g.holds(privilege));
        if global && !revoked {
            return true;
        }
        // Of several patterns that fit, the servers take the most specific one alone.
        let fitting = self.grants.iter().filter(|g| !g.revoked && g.table.is_none());
        let fitting: Vec<(usize, &Grant)> = fitting
            .filter_map(|g| Some((specificity(g.database.as_deref()?, database)?, g)))
            .collect();
        let best = fitting.iter().map(|(rank, _)| *rank).max();
        fitting.iter().any(|(rank, g)| Some(*rank) == best && g.holds(privilege))
    }
}

impl Grant {
    fn holds(&self, privilege: &str) -> bool {
        // GRANT OPTION is the only one that ALL leaves out.
        self.privileges.iter().any(|p| p == privilege || p == "ALL PRIVILEGES" || p == "ALL")
    }

    /// Reads a line such as ``GRANT SELECT, SHOW VIEW ON `shop`.* TO `u`@`%` ``. Lines that grant
    /// roles, proxies and single routines are none.
    fn parse(line: &str) -> Option<Grant> {
        let tokens = significant(line, Dialect::default());
        let revoked = tokens.first()?.is_word("REVOKE");
        if !revoked && !tokens.first()?.is_word("GRANT") {
            return None;
        }
        let on = tokens.iter().position(|t| t.is_word("ON"))?;
        let mut privileges = Vec::new();
        let mut words: Vec<String> = Vec::new();
        let mut columns = false;
        for token in &tokens[1..=on] {
            match token.kind {
                TokenKind::Word if !token.is_word("ON") => {
                    words.push(token.text.to_ascii_uppercase());
                }
                // A privilege on columns is not one on the table.
                TokenKind::Sign if token.text == "(" => columns = true,
                TokenKind::Sign if token.text == "," && columns && is_inside(&tokens, token) => {}
                _ if token.text == "," || token.is_word("ON") => {
                    if !columns && !words.is_empty() {
                        privileges.push(words.join(" "));
                    }
                    words.clear();
                    columns = false;
                }
                _ => {}
            }
        }
        let mut at = on + 1;
        if tokens.get(at)?.is_word("TABLE") {
            at += 1;
        }
        let part = |at: usize| {
            let token = tokens.get(at)?;
            if token.is_sign('*') { Some(None) } else { Some(Some(token.name()?)) }
        };
        let database = part(at)?;
        tokens.get(at + 1).filter(|t| t.is_sign('.'))?;
        let table = part(at + 2)?;
        Some(Grant { revoked, privileges, database, table })
    }
}

/// Whether a token is between parentheses.
fn is_inside(tokens: &[Token<'_>], token: &Token<'_>) -> bool {
    let before = tokens.iter().take_while(|t| t.start < token.start);
    before.fold(0i32, |depth, t| match t.text {
        "(" => depth + 1,
        ")" => depth - 1,
        _ => depth,
    }) > 0
}

/// How well a pattern of LIKE fits a database: not at all, or the better the more of it is literal.
fn specificity(pattern: &str, database: &str) -> Option<usize> {
    let mut literal = 0;
    let mut wild = false;
    let mut parts = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let part = match c {
            '\\' => Part::Is(chars.next().unwrap_or('\\')),
            '%' => Part::Any,
            '_' => Part::One,
            c => Part::Is(c),
        };
        wild |= !matches!(part, Part::Is(_));
        literal += usize::from(!wild);
        parts.push(part);
    }
    let name: Vec<char> = database.chars().collect();
    fits(&parts, &name).then_some(if wild { literal } else { usize::MAX })
}

#[derive(Clone, Copy)]
enum Part {
    Is(char),
    One,
    Any,
}

fn fits(pattern: &[Part], name: &[char]) -> bool {
    // For each prefix of the name, whether the pattern so far fits it.
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for part in pattern {
        let before = reached.clone();
        for end in 0..=name.len() {
            reached[end] = match part {
                Part::Any => before[..=end].iter().any(|&fits| fits),
                Part::One => end > 0 && before[end - 1],
                Part::Is(c) => end > 0 && before[end - 1] && name[end - 1] == *c,
            };
        }
    }
    reached[name.len()]
}

/// A database's name as `GRANT … ON` takes it, where `_` and `%` are wildcards.
fn as_pattern(database: &str) -> String {
    database.replace('\\', "\\\\").replace('_', "\\_").replace('%', "\\%")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants(lines: &[&str]) -> Grants {
        let grants = lines.iter().filter_map(|line| Grant::parse(line)).collect();
        Grants { account: "'u'@'%'".into(), grants }
    }

    fn database(name: &str) -> Scope {
        Scope::Database(name.into())
    }

    #[test]
    fn lines_of_show_grants_are_read() {
        let grant = Grant::parse("GRANT SELECT, SHOW VIEW ON `a``b`.* TO `u`@`%`").unwrap();
        assert_eq!(grant.privileges, ["SELECT", "SHOW VIEW"]);
        assert_eq!(grant.database.as_deref(), Some("a`b"));
        let columns =
            Grant::parse("GRANT SELECT (`a`, `b`), INSERT ON `d`.`t` TO `u`@`%`").unwrap();
        assert_eq!(columns.privileges, ["INSERT"]);
        assert_eq!(columns.table.as_deref(), Some("t"));
        for line in [
            "GRANT `role`@`%` TO `u`@`%`",
            "GRANT PROXY ON ''@'%' TO 'root'@'localhost' WITH GRANT OPTION",
            "GRANT EXECUTE ON PROCEDURE `d`.`p` TO `u`@`%`",
            "",
        ] {
            assert_eq!(Grant::parse(line), None, "{line}");
        }
    }

    #[test]
    fn privileges_are_held_globally_or_on_the_database() {
        let some = grants(&[
            "GRANT USAGE ON *.* TO `u`@`%`",
            "GRANT SELECT, EVENT ON `a\\_b`.* TO `u`@`%`",
        ]);
        assert!(some.has("SELECT", &database("a_b")) && !some.has("SELECT", &database("axb")));
        assert!(!some.has("TRIGGER", &database("a_b")) && !some.has("SELECT", &Scope::Global));
        let root = grants(&["GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION"]);
        assert!(root.has("SHOW CREATE ROUTINE", &Scope::Global));
        assert!(root.has("SELECT ON mysql.proc", &database("x")));
        let table = Scope::Table("d_1.t".parse().unwrap());
        assert!(grants(&["GRANT SELECT ON `d_1`.`t` TO `u`@`%`"]).has("SELECT", &table));
        assert!(!grants(&["GRANT SELECT ON `d_1`.`u` TO `u`@`%`"]).has("SELECT", &table));
        let proc = grants(&["GRANT SELECT ON `mysql`.`proc` TO `u`@`%`"]);
        assert!(proc.has("SELECT ON mysql.proc", &database("x")));
        assert!(!proc.has("SELECT", &database("mysql")));
    }

    #[test]
    fn the_most_specific_pattern_counts_and_revokes_leave_holes() {
        let patterns = grants(&[
            "GRANT SELECT, TRIGGER ON `shop%`.* TO `u`@`%`",
            "GRANT SELECT ON `shop1`.* TO `u`@`%`",
        ]);
        assert!(patterns.has("TRIGGER", &database("shop2")));
        assert!(!patterns.has("TRIGGER", &database("shop1")));
        let revoked =
            grants(&["GRANT SELECT ON *.* TO `u`@`%`", "REVOKE SELECT ON `hr`.* FROM `u`@`%`"]);
        assert!(
            revoked.has("SELECT", &database("shop")) && !revoked.has("SELECT", &database("hr"))
        );
        assert!(!revoked.has("SELECT", &Scope::Global));
    }

    #[test]
    fn a_missing_privilege_comes_with_its_statement() {
        let need = Need::new(database("a_b"), &["TRIGGER"]);
        assert_eq!(
            grants(&[]).privilege(&need),
            Privilege {
                name: "TRIGGER ON `a\\_b`.*".into(),
                grant: "GRANT TRIGGER ON `a\\_b`.* TO 'u'@'%'".into()
            }
        );
    }
}
