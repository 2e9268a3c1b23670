//! What statements of a binlog say of scheduled events.

use std::collections::BTreeMap;
use std::iter::Peekable;

use backup_core::Gtid;

use super::events::{Name, Status, key};

/// What statements said of events, by where they are in the route: a target that connects again is told
/// some of them twice.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<(usize, u64), (Option<Gtid>, Statement)>);

/// What a statement does to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Statement {
    Create {
        name: Name,
        status: Status,
        /// Only where there is none of that name.
        unless_there: bool,
    },
    Alter {
        name: Name,
        /// Another name from here on.
        renamed: Option<Name>,
        /// `None` where nothing is said of it.
        status: Option<Status>,
    },
    Drop(Name),
    /// All of a database.
    DropAll(String),
}

/// Whether a statement has a server run an event.
pub(super) fn switches_on(sql: &str, database: &str) -> bool {
    match Statement::parse(sql, database) {
        Some(Statement::Create { status, .. }) => status == Status::Enabled,
        Some(Statement::Alter { status, .. }) => status == Some(Status::Enabled),
        _ => false,
    }
}

impl Told {
    /// Looks at a statement that is applied, or sent, at this place of the route and in this transaction. Gives the event that there is then, what it
    /// is to be, and whether that only counts where there is none of that name.
    pub(super) fn hear(
        &mut self,
        place: (usize, u64),
        gtid: Option<&Gtid>,
        database: &[u8],
        sql: &[u8],
    ) -> Option<(Name, Status, bool)> {
        let database = String::from_utf8_lossy(database);
        // What is no UTF-8 is read as the character set that most other clients have, which the servers call latin1.
        let sql = match std::str::from_utf8(sql) {
            Ok(sql) => sql.into(),
            Err(_) => encoding_rs::WINDOWS_1252.decode_without_bom_handling(sql).0,
        };
        let statement = Statement::parse(&sql, &database)?;
        let said = match &statement {
            Statement::Create { name, status, unless_there } => {
                Some((name.clone(), *status, *unless_there))
            }
            Statement::Alter { name, renamed, status: Some(status) } => {
                Some((renamed.as_ref().unwrap_or(name).clone(), *status, false))
            }
            Statement::Alter { .. } | Statement::Drop(_) | Statement::DropAll(_) => None,
        };
        self.0.insert(place, (gtid.cloned(), statement));
        said
    }

    /// What events are after those of the transactions that are there.
    pub(super) fn apply(
        &self,
        events: &mut BTreeMap<Name, Status>,
        is_there: impl Fn(&Gtid) -> bool,
    ) {
        let there = self.0.values().filter(|(gtid, _)| gtid.as_ref().is_none_or(&is_there));
        for (_, statement) in there.cloned() {
            match statement {
                Statement::Create { name, unless_there: true, .. }
                    if events.contains_key(&name) => {}
                Statement::Create { name, status, .. } => {
                    events.insert(name, status);
                }
                Statement::Alter { name, renamed, status } => {
                    let before = events.remove(&name);
                    let status = status.or(before).unwrap_or(Status::Enabled);
                    events.insert(renamed.unwrap_or(name), status);
                }
                Statement::Drop(name) => {
                    events.remove(&name);
                }
                Statement::DropAll(database) => events.retain(|(of, _), _| *of != database),
            }
        }
    }
}

impl Statement {
    /// Reads what defines or drops events; `None` for everything else.
    fn parse(sql: &str, database: &str) -> Option<Statement> {
        // Quickly past what is none: it is asked of every statement.
        let start = sql.trim_start();
        let verb = ["CREATE", "ALTER", "DROP"]
            .into_iter()
            .find(|word| start.get(..word.len()).is_some_and(|s| s.eq_ignore_ascii_case(word)))?;
        let mut tokens = Tokens(start).peekable();
        // Up to EVENT only these may come: [OR REPLACE] [DEFINER = user].
        let mut seen = 0;
        loop {
            match tokens.next()? {
                token if token.is("EVENT") => break,
                token if verb == "DROP" && (token.is("DATABASE") || token.is("SCHEMA")) => {
                    tokens.next_if(|token| token.is("IF"));
                    tokens.next_if(|token| token.is("EXISTS"));
                    return Some(Statement::DropAll(name(&mut tokens, "")?.1));
                }
                token if OTHERS.iter().any(|other| token.is(other)) => return None,
                _ if seen > 12 => return None,
                _ => seen += 1,
            }
        }
        let unless_there = tokens.next_if(|token| token.is("IF")).is_some();
        for word in ["NOT", "EXISTS"] {
            tokens.next_if(|token| token.is(word));
        }
        let name = name(&mut tokens, database)?;
        let (mut renamed, mut status, mut depth) = (None, None, 0_u32);
        while let Some(token) = tokens.next() {
            match token {
                Token::Other('(') => depth += 1,
                Token::Other(')') => depth = depth.saturating_sub(1),
                _ if depth > 0 => {}
                token if token.is("DO") => break,
                token if token.is("RENAME") => {
                    tokens.next_if(|token| token.is("TO"));
                    renamed = self::name(&mut tokens, database);
                }
                token if token.is("ENABLE") => status = Some(Status::Enabled),
                token if token.is("DISABLE") => {
                    let elsewhere = tokens.next_if(|token| token.is("ON")).is_some();
                    status = Some(if elsewhere { Status::Elsewhere } else { Status::Disabled });
                }
                _ => {}
            }
        }
        Some(match verb {
            "CREATE" => {
                let status = status.unwrap_or(Status::Enabled);
                Statement::Create { name, status, unless_there }
            }
            "ALTER" => Statement::Alter { name, renamed, status },
            _ => Statement::Drop(name),
        })
    }
}

/// What else may be created, altered and dropped.
const OTHERS: [&str; 12] = [
    "TABLE",
    "PROCEDURE",
    "FUNCTION",
    "TRIGGER",
    "VIEW",
    "USER",
    "DATABASE",
    "SCHEMA",
    "INDEX",
    "ROLE",
    "SERVER",
    "SEQUENCE",
];

fn name(tokens: &mut Peekable<Tokens<'_>>, database: &str) -> Option<Name> {
    let part = |token| match token {
        Token::Word(word) => Some(word.to_owned()),
        Token::Name(name) => Some(name),
        Token::Text | Token::Other(_) => None,
    };
    let first = part(tokens.next()?)?;
    if tokens.next_if(|token| matches!(token, Token::Other('.'))).is_none() {
        return Some(key(database, &first));
    }
    Some(key(&first, &part(tokens.next()?)?))
}

#[derive(Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    /// Between backticks, or between double quotes (which may be a string, too).
    Name(String),
    Text,
    Other(char),
}

impl Token<'_> {
    fn is(&self, word: &str) -> bool {
        matches!(self, Token::Word(other) if other.eq_ignore_ascii_case(word))
    }
}

/// Takes tokens off the front of a statement.
struct Tokens<'a>(&'a str);

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            self.0 = self.0.trim_start();
            let end = if self.0.starts_with("/*") {
                self.0.find("*/").map(|at| at + 2)
            } else if self.0.starts_with('#') || self.0.starts_with("-- ") {
                self.0.find('\n')
            } else {
                break;
            };
            self.0 = self.0.get(end?..)?;
        }
        let first = self.0.chars().next()?;
        if matches!(first, '`' | '"' | '\'') {
            let mut text = String::new();
            let mut chars = self.0.char_indices().skip(1).peekable();
            while let Some((at, c)) = chars.next() {
                if c == '\\' && first != '`' {
                    text.extend(chars.next().map(|(_, c)| c));
                } else if c != first {
                    text.push(c);
                } else if chars.next_if(|(_, next)| *next == first).is_some() {
                    text.push(first);
                } else {
                    self.0 = &self.0[at + 1..];
                    return Some(if first == '\'' { Token::Text } else { Token::Name(text) });
                }
            }
            return None;
        }
        let is_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '$');
        let len = self.0.find(|c| !is_word(c)).unwrap_or(self.0.len());
        if len == 0 {
            self.0 = &self.0[first.len_utf8()..];
            return Some(Token::Other(first));
        }
        let (word, rest) = self.0.split_at(len);
        self.0 = rest;
        Some(Token::Word(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sql: &str) -> Option<Statement> {
        Statement::parse(sql, "d")
    }

    #[test]
    fn statements_on_events() {
        let create = |database: &str, name: &str, status, unless_there| {
            Some(Statement::Create { name: key(database, name), status, unless_there })
        };
        let alter = |name: &str, renamed: Option<Name>, status| {
            Some(Statement::Alter { name: key("d", name), renamed, status })
        };
        assert_eq!(
            read(
                "CREATE DEFINER=`r`@`h` EVENT IF NOT EXISTS `E``1` ON SCHEDULE EVERY 1 DAY \
                 DO SELECT 'DISABLE'"
            ),
            create("d", "e`1", Status::Enabled, true)
        );
        assert_eq!(
            read(
                "create /* EVENT x */ event other.e on schedule at (now() + interval 1 day) \
                 comment 'ENABLE DO it''s' disable do begin end"
            ),
            create("other", "e", Status::Disabled, false)
        );
        assert_eq!(
            read("ALTER EVENT e DISABLE ON SLAVE COMMENT 'x'"),
            alter("e", None, Some(Status::Elsewhere))
        );
        assert_eq!(read("ALTER EVENT e ON SCHEDULE EVERY 2 HOUR"), alter("e", None, None));
        assert_eq!(
            read("ALTER DEFINER = 'a'@'%' EVENT `d`.`b` RENAME TO `c`.`D` ENABLE"),
            alter("b", Some(key("c", "d")), Some(Status::Enabled))
        );
        assert_eq!(read("DROP EVENT IF EXISTS e"), Some(Statement::Drop(key("d", "e"))));
        assert_eq!(read("drop schema if exists `X`"), Some(Statement::DropAll("x".into())));
        for none in [
            "CREATE TABLE event (event INT)",
            "ALTER TABLE t ADD event INT",
            "CREATE PROCEDURE p() CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO SELECT 1",
            "INSERT INTO t VALUES ('CREATE EVENT')",
            "CREATE EVENT",
            "CREATE EVENT `e",
            "DROP TABLE event",
            "ALTER",
            "",
        ] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn the_last_word_counts() {
        let mut told = Told::default();
        let statements = [
            "ALTER EVENT a DISABLE",
            "CREATE EVENT b ON SCHEDULE EVERY 1 DAY DISABLE DO SELECT 1",
            "ALTER EVENT b RENAME TO c",
            "CREATE EVENT IF NOT EXISTS c ON SCHEDULE EVERY 1 DAY DO SELECT 1",
            "ALTER EVENT z ON SCHEDULE EVERY 1 DAY",
            "DROP EVENT y",
            "CREATE EVENT IF NOT EXISTS y ON SCHEDULE EVERY 1 DAY DO SELECT 1",
            "CREATE EVENT gone.e ON SCHEDULE EVERY 1 DAY DO SELECT 1",
            "DROP DATABASE gone",
        ];
        for (n, sql) in statements.iter().enumerate() {
            for _ in 0..2 {
                told.hear((0, n as u64), None, b"d", sql.as_bytes());
            }
        }
        let mut events = BTreeMap::from([
            (key("d", "A"), Status::Enabled),
            (key("d", "z"), Status::Disabled),
            (key("d", "y"), Status::Disabled),
        ]);
        // What was sent, and is not there.
        let gtid = "0-1-7".parse().unwrap();
        told.hear((1, 0), Some(&gtid), b"d", b"ALTER EVENT z ENABLE");
        told.apply(&mut events, |_| false);
        let expected = [
            ("a", Status::Disabled),
            ("c", Status::Disabled),
            ("y", Status::Enabled),
            ("z", Status::Disabled),
        ];
        assert_eq!(events, expected.map(|(name, status)| (key("d", name), status)).into());
    }
}
