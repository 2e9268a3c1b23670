//! Scheduled events that come with a replay. A replica makes every event that it is told of one that
//! only its source runs (`SLAVESIDE_DISABLED`, `Event_parse_data::check_originator_id` of the
//! servers), and here is no source any more: what it was there is told by the statements themselves.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use backup_core::Result;

use super::super::body::Query;
use super::serve::State;
use crate::connect::Session;

/// Database and name of an event; names are case-insensitive.
type Name = (String, String);

/// Whether a server runs an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Enabled,
    Disabled,
    /// Its source was to run it there, too.
    Elsewhere,
}

/// What statements said of events, by where they are in the route: a target that connects again is told
/// some of them twice.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<(usize, u64), Statement>);

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

impl Told {
    /// Looks at a statement that is sent, at this place of the route.
    pub(super) fn hear(&mut self, place: (usize, u64), query: &Query) {
        let database = String::from_utf8_lossy(&query.database);
        if let Some(statement) = Statement::parse(&String::from_utf8_lossy(&query.sql), &database) {
            self.0.insert(place, statement);
        }
    }

    fn apply(&self, events: &mut BTreeMap<Name, Status>) {
        for statement in self.0.values().cloned() {
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

/// An event of the target.
struct Event {
    name: Name,
    /// As it is written.
    quoted: String,
    definer: String,
    status: Status,
}

async fn events(session: &mut Session) -> Result<Vec<Event>> {
    let sql = "SELECT EVENT_SCHEMA, EVENT_NAME, STATUS, DEFINER FROM information_schema.EVENTS";
    let rows: Vec<(String, String, String, String)> = session.query_rows(sql).await?;
    let event = |(database, name, status, definer): (String, String, String, String)| {
        let status = match status.as_str() {
            "ENABLED" => Status::Enabled,
            "DISABLED" => Status::Disabled,
            _ => Status::Elsewhere,
        };
        let definer = definer.rsplit_once('@').map_or_else(
            || quote(&definer),
            |(user, host)| format!("{}@{}", quote(user), quote(host)),
        );
        let quoted = format!("{}.{}", quote(&database), quote(&name));
        Event { name: key(&database, &name), quoted, definer, status }
    };
    Ok(rows.into_iter().map(event).collect())
}

fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn key(database: &str, name: &str) -> Name {
    (database.to_lowercase(), name.to_lowercase())
}

/// What the target's events are before a replay.
#[derive(Debug, Default)]
pub(super) struct Events(BTreeMap<Name, Status>);

impl Events {
    pub(super) async fn of(session: &mut Session) -> Result<Self> {
        let events = events(session).await?;
        Ok(Events(events.into_iter().map(|event| (event.name, event.status)).collect()))
    }

    /// Makes the target's events what they were at the source; gives what needs a look.
    pub(super) async fn put_right(
        mut self,
        session: &mut Session,
        state: &State,
    ) -> Result<Vec<String>> {
        state.events.lock().unwrap_or_else(PoisonError::into_inner).apply(&mut self.0);
        let mut wrong = Vec::new();
        for event in events(session).await? {
            let wanted = self.0.get(&event.name).copied().unwrap_or(Status::Elsewhere);
            if event.status != Status::Elsewhere || wanted == Status::Elsewhere {
                continue;
            }
            wrong.push((event, if wanted == Status::Enabled { "ENABLE" } else { "DISABLE" }));
        }
        alter(session, &wrong, "is not run by the target, since a replay leaves it to a source")
            .await
    }
}

/// What to say of events that a run which was killed may have left as a replica has them: what they were at their
/// source is not known any more.
pub(super) async fn left_disabled(session: &mut Session) -> Result<Option<String>> {
    let mut left = events(session).await?;
    left.retain(|event| event.status == Status::Elsewhere);
    let names: Vec<&str> = left.iter().map(|event| event.quoted.as_str()).collect();
    Ok((!names.is_empty()).then(|| {
        format!(
            "an earlier run was killed, and these events are not run by the target, as they would not be by a \
             replica: {}; where their source ran them, run ALTER EVENT … ENABLE there",
            names.join(", ")
        )
    }))
}

/// Leaves every event of a server that becomes a replica to its source, or both would run
/// it. Gives what needs a look.
pub(crate) async fn leave_to_source(session: &mut Session) -> Result<Vec<String>> {
    let mut enabled = events(session).await?;
    enabled.retain(|event| event.status == Status::Enabled);
    // The word that all servers take.
    let changes: Vec<_> = enabled.into_iter().map(|event| (event, "DISABLE ON SLAVE")).collect();
    alter(session, &changes, "is run by the replica too, and not by its source alone").await
}

/// Changes events, and gives what needs a look where one could not be: that it `is` what it was.
async fn alter(session: &mut Session, changes: &[(Event, &str)], is: &str) -> Result<Vec<String>> {
    if changes.is_empty() {
        return Ok(Vec::new());
    }
    let mut warnings = Vec::new();
    // It is no change of the data: no transaction of the target's own tells of it.
    let unlogged = session.run("SET SESSION sql_log_bin = 0").await;
    for (event, word) in changes {
        let sql = format!("ALTER DEFINER = {} EVENT {} {word}", event.definer, event.quoted);
        let done = match &unlogged {
            Ok(_) => session.run(&sql).await.map(drop),
            Err(e) => Err(backup_core::Error::new(e.kind(), e.chain())),
        };
        if let Err(e) = done {
            let (name, why) = (&event.quoted, e.chain());
            warnings.push(format!("event {name} {is}; run `{sql}` there ({why})"));
        }
    }
    if unlogged.is_ok() {
        session.run("SET SESSION sql_log_bin = 1").await?;
    }
    Ok(warnings)
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

fn name(tokens: &mut std::iter::Peekable<Tokens<'_>>, database: &str) -> Option<Name> {
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
            let query = Query { database: b"d".to_vec(), sql: sql.as_bytes().to_vec(), error: 0 };
            told.hear((0, n as u64), &query);
            told.hear((0, n as u64), &query);
        }
        let mut events = BTreeMap::from([
            (key("d", "A"), Status::Enabled),
            (key("d", "z"), Status::Disabled),
            (key("d", "y"), Status::Disabled),
        ]);
        told.apply(&mut events);
        let expected = [
            ("a", Status::Disabled),
            ("c", Status::Disabled),
            ("y", Status::Enabled),
            ("z", Status::Disabled),
        ];
        assert_eq!(events, expected.map(|(name, status)| (key("d", name), status)).into());
    }
}
