//! What a statement needs of the account that runs it, told by its words alone. What is not understood needs
//! nothing: the server has the last word.

use super::account::definer;
use super::lexer::{Dialect, Token, TokenKind};
use super::significant;
use super::touch::OBJECTS;
use crate::logical::account::AccountName;
use crate::logical::select::TableName;

/// What a statement needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Privileges, and where.
    pub(crate) privileges: Vec<(&'static str, Place)>,
    /// In whose name the code is to run.
    pub(crate) definer: Option<AccountName>,
    /// What a server with a binary log takes from few: functions and triggers.
    pub(crate) code: Option<Code>,
    /// The account that it creates.
    pub(crate) account: Option<AccountName>,
    /// The temporary table that it creates, for which nothing is needed from then on.
    pub(crate) temporary: Option<Place>,
}

/// Where a privilege is needed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// Everywhere.
    Server,
    /// In a database.
    Database(String),
    /// For a table.
    Table(TableName),
}

/// Code, as servers with a binary log tell it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Code {
    /// A trigger, or a function that says what it does.
    Declared,
    /// A function that says nothing of what makes it safe.
    Undeclared,
}

/// What stands behind `ALTER DATABASE` where it names none.
const DATABASE_OPTIONS: [&str; 8] =
    ["DEFAULT", "CHARACTER", "CHARSET", "COLLATE", "ENCRYPTION", "READ", "COMMENT", "UPGRADE"];

impl Demand {
    /// Reads a statement that was run with this default database.
    pub(crate) fn of(sql: &str, database: &str, dialect: Dialect) -> Demand {
        let tokens = significant(sql, dialect);
        let mut demand = Demand::default();
        let Some(first) = tokens.first() else { return demand };
        let is = |word: &str| first.is_word(word);
        if is("TRUNCATE") {
            let at = if tokens.get(1).is_some_and(|t| t.is_word("TABLE")) { 2 } else { 1 };
            demand.privileges.extend(table(&tokens, at, database).map(|place| ("DROP", place)));
            return demand;
        }
        if let Some(privileges) = changes(&tokens, database) {
            demand.privileges = privileges;
            return demand;
        }
        let (create, alter, drop) = (is("CREATE"), is("ALTER"), is("DROP"));
        if !(create || alter || drop) {
            return demand;
        }
        let object = tokens.iter().enumerate().take(16).skip(1).find_map(|(at, token)| {
            let object = OBJECTS.into_iter().find(|object| token.is_word(object))?;
            Some((object, at))
        });
        let Some((object, at)) = object else { return demand };
        if create || alter {
            demand.definer = definer(sql, dialect).map(|(_, name)| name);
        }
        let privilege = |whole: &'static str, rest: &'static str| if create { whole } else { rest };
        let needed = match object {
            "TEMPORARY" => {
                demand.temporary = table(&tokens, at + 2, database).filter(|_| create);
                None
            }
            "VIEW" => {
                let name = if drop { "DROP" } else { "CREATE VIEW" };
                table(&tokens, at + 1, database).map(|place| (name, place))
            }
            "PROCEDURE" | "FUNCTION" | "PACKAGE" => {
                demand.code = (create && object == "FUNCTION").then(|| Code::of(&tokens));
                let name = privilege("CREATE ROUTINE", "ALTER ROUTINE");
                in_database(&tokens, at + 1, database).map(|place| (name, place))
            }
            "TRIGGER" if create => {
                demand.code = Some(Code::Declared);
                let on = tokens.iter().position(|t| t.is_word("ON"));
                let of = on.and_then(|on| table(&tokens, on + 1, database));
                of.map(|place| ("TRIGGER", place))
            }
            "EVENT" => in_database(&tokens, at + 1, database).map(|place| ("EVENT", place)),
            "USER" => {
                if create {
                    demand.account = account(&tokens, at + 1);
                }
                Some(("CREATE USER", Place::Server))
            }
            "DATABASE" | "SCHEMA" => {
                let name = if create { "CREATE" } else { first_word(first) };
                // ALTER may leave the name out.
                let option = tokens
                    .get(at + 1)
                    .is_some_and(|token| DATABASE_OPTIONS.iter().any(|word| token.is_word(word)));
                let named = name_at(&tokens, at + 1).filter(|_| !(alter && option));
                let database = named.map_or(database.to_owned(), |(name, _)| name);
                (!database.is_empty()).then_some((name, Place::Database(database)))
            }
            "TABLE" | "SEQUENCE" => {
                table(&tokens, at + 1, database).map(|place| (first_word(first), place))
            }
            "INDEX" => {
                let on = tokens.iter().position(|t| t.is_word("ON"));
                on.and_then(|on| table(&tokens, on + 1, database)).map(|place| ("INDEX", place))
            }
            _ => None,
        };
        demand.privileges.extend(needed);
        demand
    }
}

impl Code {
    /// What the words of a function say. What only its body says counts too, and the server is asked.
    fn of(tokens: &[Token<'_>]) -> Code {
        let said = |words: &[&str]| {
            tokens
                .windows(words.len())
                .any(|part| part.iter().zip(words).all(|(t, w)| t.is_word(w)))
        };
        let deterministic = tokens.iter().enumerate().any(|(i, token)| {
            token.is_word("DETERMINISTIC") && !(i > 0 && tokens[i - 1].is_word("NOT"))
        });
        match deterministic || said(&["NO", "SQL"]) || said(&["READS", "SQL", "DATA"]) {
            true => Code::Declared,
            false => Code::Undeclared,
        }
    }

    /// That of a `CREATE FUNCTION`.
    pub(in crate::logical) fn of_function(create: &str) -> Code {
        Code::of(&significant(create, Dialect::default()))
    }
}

/// What a change of the rows of one table needs; `None` where it is none, or of more than one.
fn changes(tokens: &[Token<'_>], database: &str) -> Option<Vec<(&'static str, Place)>> {
    const MODIFIERS: [&str; 5] = ["LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED", "IGNORE", "QUICK"];
    let first = tokens.first()?;
    let words = ["INSERT", "REPLACE", "UPDATE", "DELETE", "LOAD"];
    let verb = words.into_iter().find(|word| first.is_word(word))?;
    let has = |word: &str| tokens.iter().any(|t| t.is_word(word));
    let mut at = 1;
    while MODIFIERS.iter().any(|word| tokens.get(at).is_some_and(|t| t.is_word(word))) {
        at += 1;
    }
    let is = |at: usize, word: &str| tokens.get(at).is_some_and(|t| t.is_word(word));
    let place = match verb {
        "LOAD" => {
            let into = (0..tokens.len()).find(|at| is(*at, "INTO") && is(at + 1, "TABLE"))?;
            table(tokens, into + 2, database)?
        }
        "DELETE" => table(tokens, is(at, "FROM").then_some(at + 1)?, database)?,
        "UPDATE" => table(tokens, at, database)?,
        _ => table(tokens, if is(at, "INTO") { at + 1 } else { at }, database)?,
    };
    let mut before = tokens.iter().take_while(|t| !t.is_word("SET") && !t.is_word("WHERE"));
    let several = |t: &Token<'_>| t.is_sign(',') || t.is_word("JOIN") || t.is_word("USING");
    let mut names = match verb {
        "UPDATE" | "DELETE" if before.any(several) => return None,
        "UPDATE" => vec!["UPDATE"],
        "DELETE" => vec!["DELETE"],
        "REPLACE" => vec!["INSERT", "DELETE"],
        _ if has("DUPLICATE") => vec!["INSERT", "UPDATE"],
        _ => vec!["INSERT"],
    };
    if matches!(verb, "UPDATE" | "DELETE") && has("WHERE") {
        names.push("SELECT");
    }
    Some(names.into_iter().map(|name| (name, place.clone())).collect())
}

/// `CREATE`, `ALTER` or `DROP`, as a privilege.
fn first_word(token: &Token<'_>) -> &'static str {
    ["CREATE", "ALTER", "DROP"].into_iter().find(|word| token.is_word(word)).unwrap_or("CREATE")
}

/// The name at `at`, behind `IF [NOT] EXISTS`, and where what follows it begins.
fn name_at(tokens: &[Token<'_>], mut at: usize) -> Option<(String, usize)> {
    if tokens.get(at)?.is_word("IF") {
        while !tokens.get(at)?.is_word("EXISTS") {
            at += 1;
        }
        at += 1;
    }
    Some((tokens.get(at)?.name()?, at + 1))
}

/// The database, and the name in it.
fn qualified(tokens: &[Token<'_>], at: usize, database: &str) -> Option<(String, String)> {
    let (first, next) = name_at(tokens, at)?;
    if tokens.get(next).is_some_and(|t| t.is_sign('.')) {
        return Some((first, tokens.get(next + 1)?.name()?));
    }
    (!database.is_empty()).then(|| (database.to_owned(), first))
}

fn table(tokens: &[Token<'_>], at: usize, database: &str) -> Option<Place> {
    let (database, table) = qualified(tokens, at, database)?;
    Some(Place::Table(TableName { database, table }))
}

fn in_database(tokens: &[Token<'_>], at: usize, database: &str) -> Option<Place> {
    // Behind `PACKAGE` there may be a `BODY`.
    let at = if tokens.get(at).is_some_and(|t| t.is_word("BODY")) { at + 1 } else { at };
    qualified(tokens, at, database).map(|(database, _)| Place::Database(database))
}

/// The first account that is created.
fn account(tokens: &[Token<'_>], at: usize) -> Option<AccountName> {
    let text = |token: &Token<'_>| match token.kind {
        TokenKind::Text => Some(token.text.trim_matches(['\'', '"']).to_owned()),
        _ => token.name(),
    };
    let mut at = at;
    if tokens.get(at)?.is_word("IF") {
        while !tokens.get(at)?.is_word("EXISTS") {
            at += 1;
        }
        at += 1;
    }
    let user = text(tokens.get(at)?)?;
    let host = match tokens.get(at + 1).is_some_and(|t| t.is_sign('@')) {
        true => text(tokens.get(at + 2)?)?,
        false => "%".to_owned(),
    };
    Some(AccountName { user, host })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sql: &str) -> Demand {
        Demand::of(sql, "shop", Dialect::default())
    }

    fn needs(sql: &str) -> Vec<(&'static str, String)> {
        let shown = |(name, place): (&'static str, Place)| {
            let place = match place {
                Place::Server => "*.*".to_owned(),
                Place::Database(name) => format!("{name}.*"),
                Place::Table(name) => name.to_string(),
            };
            (name, place)
        };
        of(sql).privileges.into_iter().map(shown).collect()
    }

    #[test]
    fn privileges_of_definitions() {
        for (sql, name, place) in [
            ("CREATE TABLE IF NOT EXISTS `a b` (event INT)", "CREATE", "shop.`a b`"),
            ("ALTER TABLE crm.people ADD view INT", "ALTER", "crm.people"),
            ("DROP TABLE IF EXISTS `t` /* generated by server */", "DROP", "shop.t"),
            ("TRUNCATE TABLE t", "DROP", "shop.t"),
            ("TRUNCATE crm.t", "DROP", "crm.t"),
            ("CREATE UNIQUE INDEX i USING BTREE ON t (a)", "INDEX", "shop.t"),
            ("CREATE DATABASE IF NOT EXISTS crm", "CREATE", "crm.*"),
            ("DROP SCHEMA crm", "DROP", "crm.*"),
            ("ALTER DATABASE COLLATE utf8mb4_bin", "ALTER", "shop.*"),
            ("CREATE OR REPLACE DEFINER=`u`@`%` VIEW v AS SELECT 1", "CREATE VIEW", "shop.v"),
            ("DROP VIEW crm.v", "DROP", "crm.v"),
            ("CREATE DEFINER=`u`@`%` PROCEDURE crm.p() SELECT 1", "CREATE ROUTINE", "crm.*"),
            ("DROP FUNCTION IF EXISTS f", "ALTER ROUTINE", "shop.*"),
            (
                "CREATE DEFINER=`u`@`%` TRIGGER x BEFORE INSERT ON crm.t FOR EACH ROW SET @a = 1",
                "TRIGGER",
                "crm.t",
            ),
            (
                "CREATE DEFINER=`u`@`%` EVENT e ON SCHEDULE EVERY 1 DAY DO SELECT 1",
                "EVENT",
                "shop.*",
            ),
            ("CREATE USER 'a'@'%' IDENTIFIED BY 'x'", "CREATE USER", "*.*"),
            ("CREATE SEQUENCE s", "CREATE", "shop.s"),
        ] {
            assert_eq!(needs(sql), [(name, place.to_owned())], "{sql}");
        }
        for sql in [
            "",
            "SELECT 'CREATE TABLE x'",
            "INSERT INTO",
            "UPDATE a, b SET a.x = 1",
            "DELETE a FROM a JOIN b",
            "LOAD DATA INFILE 'x'",
            "CREATE TEMPORARY TABLE t (a INT)",
            "DROP TEMPORARY TABLE IF EXISTS t",
            "DROP TRIGGER x",
            "GRANT SELECT ON *.* TO a",
            "CREATE",
            "CREATE TABLE",
        ] {
            assert_eq!(needs(sql), [], "{sql}");
        }
        assert_eq!(Demand::of("CREATE TABLE t (a INT)", "", Dialect::default()), Demand::default());
    }

    #[test]
    fn privileges_of_changes() {
        for (sql, names, place) in [
            ("INSERT IGNORE INTO crm.t VALUES (1), (2)", &["INSERT"][..], "crm.t"),
            (
                "insert t (a) VALUES (1) ON DUPLICATE KEY UPDATE a = 2",
                &["INSERT", "UPDATE"],
                "shop.t",
            ),
            ("REPLACE INTO t SELECT 1", &["INSERT", "DELETE"], "shop.t"),
            ("UPDATE LOW_PRIORITY t SET a = 1, b = 2", &["UPDATE"], "shop.t"),
            ("UPDATE t SET a = 1 WHERE b IN (1, 2)", &["UPDATE", "SELECT"], "shop.t"),
            ("DELETE FROM `t` WHERE a = 1", &["DELETE", "SELECT"], "shop.t"),
            ("LOAD DATA INFILE 'x' REPLACE INTO TABLE `crm`.`t`", &["INSERT"], "crm.t"),
        ] {
            let wanted: Vec<_> = names.iter().map(|name| (*name, place.to_owned())).collect();
            assert_eq!(needs(sql), wanted, "{sql}");
        }
        let made = of("CREATE TEMPORARY TABLE IF NOT EXISTS tmp (a INT)");
        let tmp = Place::Table(TableName { database: "shop".into(), table: "tmp".into() });
        assert_eq!((made.privileges, made.temporary), (vec![], Some(tmp)));
    }

    #[test]
    fn whose_name_and_what_kind_of_code() {
        let name = |user: &str, host: &str| AccountName { user: user.into(), host: host.into() };
        let function = of("CREATE DEFINER=`it's`@`10.%` FUNCTION f() RETURNS INT RETURN 1");
        assert_eq!(function.definer, Some(name("it's", "10.%")));
        assert_eq!(function.code, Some(Code::Undeclared));
        let function = of("CREATE FUNCTION f() RETURNS INT READS SQL DATA RETURN 1");
        assert_eq!((function.definer, function.code), (None, Some(Code::Declared)));
        assert_eq!(of("DROP FUNCTION f").code, None);
        assert_eq!(of("CREATE USER IF NOT EXISTS 'a'@'b'").account, Some(name("a", "b")));
        assert_eq!(of("CREATE USER a").account, Some(name("a", "%")));
    }
}
