//! What a statement of a dump is, and whether it makes sense.

use super::lines::Format;
use super::token::{Charset, Dialect, Mode, Place, Token, Wide};

/// So many tokens of its beginning are kept of a statement.
const HEAD: usize = 48;

/// A token of the beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// In capitals.
    Word(String),
    Name(String),
    Text(String),
    Sign(u8),
}

impl Part {
    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(self, Part::Word(w) if w == word)
    }
}

/// A statement, token by token.
#[derive(Debug, Default)]
pub(super) struct Statement {
    pub(super) head: Vec<Part>,
    pub(super) start: Place,
    /// Rows of an INSERT that were complete.
    pub(super) rows: u64,
    /// Behind the last of them.
    pub(super) good_end: Option<Place>,
    depth: i64,
    /// How many columns its first list has, where it loads a file.
    columns: u64,
    in_columns: bool,
    /// The list behind VALUES.
    list: Option<List>,
}

#[derive(Debug, Default)]
struct List {
    width: u64,
    first_width: Option<u64>,
    expects_value: bool,
    /// The last token says how the string behind it is read: `_binary`, `x`.
    introduces: bool,
    done: bool,
}

/// The words that statements of a dump begin with.
const FIRST: [&str; 41] = [
    "SET",
    "CREATE",
    "DROP",
    "INSERT",
    "REPLACE",
    "LOCK",
    "UNLOCK",
    "USE",
    "ALTER",
    "CHANGE",
    "START",
    "COMMIT",
    "BEGIN",
    "GRANT",
    "REVOKE",
    "FLUSH",
    "ANALYZE",
    "DO",
    "SELECT",
    "LOAD",
    "TRUNCATE",
    "UPDATE",
    "DELETE",
    "CALL",
    "RENAME",
    "STOP",
    "RESET",
    "INSTALL",
    "PREPARE",
    "EXECUTE",
    "DEALLOCATE",
    "ROLLBACK",
    "OPTIMIZE",
    "WITH",
    "CHARSET",
    "SIGNAL",
    "IMPORT",
    "SHOW",
    "CHECK",
    "REPAIR",
    "SAVEPOINT",
];

impl Statement {
    pub(super) fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    fn is_insert(&self) -> bool {
        self.head.first().is_some_and(|p| p.is_word("INSERT") || p.is_word("REPLACE"))
    }

    /// Takes the next token. Gives what makes no sense.
    pub(super) fn take(&mut self, token: Token<'_>, place: Place, behind: Place) -> Option<String> {
        if self.head.is_empty() {
            self.start = place;
            match token {
                Token::Word(word) => {
                    let word = upper(word);
                    if !FIRST.contains(&word.as_str()) {
                        return Some(format!("`{}` begins no statement", word.escape_debug()));
                    }
                }
                Token::Sign(b'(') => {}
                Token::Nul => return Some("there are NUL bytes".to_owned()),
                _ => return Some("this begins no statement".to_owned()),
            }
        }
        if token == Token::Nul {
            return Some("there are NUL bytes".to_owned());
        }
        if self.head.len() < HEAD {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            self.head.push(match token {
                Token::Word(word) => Part::Word(upper(word)),
                Token::Name(name) => Part::Name(text(name).replace("``", "`")),
                Token::Text(value) => Part::Text(text(value)),
                Token::Sign(sign) => Part::Sign(sign),
                Token::Nul | Token::Comment(_) | Token::End | Token::Found => return None,
            });
        }
        if self.list.as_ref().is_some_and(|list| !list.done) {
            return self.in_list(token, behind);
        }
        match token {
            Token::Sign(b'(') => {
                self.in_columns = self.depth == 0 && self.columns == 0;
                self.columns += u64::from(self.in_columns);
                self.depth += 1;
            }
            Token::Sign(b',') if self.in_columns && self.depth == 1 => self.columns += 1,
            Token::Sign(b')') => {
                self.in_columns &= self.depth > 1;
                self.depth -= 1;
                if self.depth < 0 {
                    return Some("a parenthesis is closed that was never opened".to_owned());
                }
            }
            Token::Word(word)
                if self.depth == 0
                    && self.is_insert()
                    && matches!(&upper(word)[..], "VALUES" | "VALUE") =>
            {
                self.list = Some(List::default());
            }
            _ => {}
        }
        None
    }

    fn in_list(&mut self, token: Token<'_>, behind: Place) -> Option<String> {
        let list = self.list.as_mut()?;
        let introduces = std::mem::take(&mut list.introduces);
        match (self.depth, token) {
            (0, Token::Sign(b'(')) => {
                self.depth = 1;
                list.width = 1;
                list.expects_value = true;
            }
            (0, Token::Sign(b',')) => {}
            (0, Token::Word(word)) if matches!(&upper(word)[..], "ON" | "AS" | "RETURNING") => {
                list.done = true;
            }
            (0, _) => return Some("there is something between two rows".to_owned()),
            (1, Token::Sign(b',')) => {
                if list.expects_value {
                    return Some("a value is missing in a row".to_owned());
                }
                list.width += 1;
                list.expects_value = true;
            }
            (1, Token::Sign(b')')) => {
                self.depth = 0;
                let width = if list.expects_value && list.width == 1 { 0 } else { list.width };
                if list.expects_value && list.width > 1 {
                    return Some("a value is missing in a row".to_owned());
                }
                let first = *list.first_width.get_or_insert(width);
                if width != first {
                    return Some(format!("a row has {width} values, and the first one {first}"));
                }
                self.rows += 1;
                self.good_end = Some(behind);
            }
            (_, Token::Sign(b'(')) => self.depth += 1,
            (_, Token::Sign(b')')) => self.depth -= 1,
            (1, Token::Word(word)) => {
                if !list.expects_value {
                    return Some(format!("`{}` stands behind a value", upper(word).escape_debug()));
                }
                let prefix = upper(word);
                list.introduces = prefix.starts_with('_') || ["X", "B", "N"].contains(&&prefix[..]);
                list.expects_value = false;
            }
            (1, Token::Text(_)) => {
                if !list.expects_value && !introduces {
                    return Some("a string stands behind a value".to_owned());
                }
                list.expects_value = false;
            }
            (1, Token::Name(_)) => return Some("a name stands among values".to_owned()),
            (1, Token::Sign(b'-' | b'+')) if list.expects_value => {}
            (1, Token::Sign(sign)) => {
                return Some(format!("`{}` stands among values", sign.escape_ascii()));
            }
            _ => {}
        }
        None
    }

    /// What makes no sense at its end.
    pub(super) fn at_end(&self) -> Option<String> {
        if self.depth != 0 {
            return Some("a parenthesis is never closed".to_owned());
        }
        match &self.list {
            Some(_) if self.rows == 0 => Some("it inserts no row".to_owned()),
            None if self.is_insert()
                && !self.head.iter().any(|p| p.is_word("SELECT") || p.is_word("SET")) =>
            {
                Some("it inserts nothing".to_owned())
            }
            _ => None,
        }
    }

    /// What it sets of how strings are written. One statement may set both.
    pub(super) fn dialect(&self) -> Option<Dialect> {
        if !self.head.first()?.is_word("SET") {
            return None;
        }
        let value =
            |at: usize| self.head[at + 1..].iter().find(|p| !matches!(p, Part::Sign(b'=' | b':')));
        let is_charset = |part: &Part| matches!(part, Part::Word(w) if w == "NAMES" || (w.ends_with("CHARACTER_SET_CLIENT") && !w.contains("OLD_")));
        let charset = self.head.iter().position(is_charset).map(|at| {
            let wide = match value(at) {
                Some(Part::Word(name)) if name.starts_with('@') => return Charset::Kept,
                Some(Part::Word(name)) => Wide::of(name),
                Some(Part::Text(name)) => Wide::of(&name.to_uppercase()),
                _ => Wide::No,
            };
            match self.head[at].is_word("NAMES") {
                true => Charset::Names(wide),
                false => Charset::Client(wide),
            }
        });
        let is_mode = |part: &Part| matches!(part, Part::Word(w) if w.trim_start_matches('@').ends_with("SQL_MODE") && !w.contains("OLD_"));
        let mode = self.head.iter().rposition(is_mode).map(|at| {
            let mode = match value(at) {
                Some(Part::Text(mode)) => mode.to_uppercase(),
                _ => String::new(),
            };
            Mode {
                ansi_quotes: mode.contains("ANSI_QUOTES")
                    || mode.contains("ANSI,")
                    || mode == "ANSI",
                backslashes: !mode.contains("NO_BACKSLASH_ESCAPES"),
            }
        });
        (charset.is_some() || mode.is_some()).then_some(Dialect { mode, charset })
    }

    /// The variables that it keeps settings of the session in (`SET @OLD_SQL_MODE=@@SQL_MODE`), with true, and those
    /// that it sets them by again.
    pub(super) fn old_variables(&self) -> impl Iterator<Item = (&str, bool)> {
        let sets = self.head.first().is_some_and(|part| part.is_word("SET"));
        let head = if sets { &self.head[..] } else { &[] };
        head.iter().enumerate().filter_map(move |(at, part)| match part {
            Part::Word(name) if name.starts_with("@OLD_") || name.starts_with("@PREV_") => {
                let mut behind = head[at + 1..].iter().skip_while(|p| **p == Part::Sign(b':'));
                let assigned = behind.next() == Some(&Part::Sign(b'='));
                let of_session =
                    matches!(behind.next(), Some(Part::Word(word)) if word.starts_with("@@"));
                Some((name.as_str(), assigned && of_session))
            }
            _ => None,
        })
    }

    /// What it creates: the kind and the name.
    pub(super) fn creates(&self) -> Option<(&'static str, Named)> {
        const KINDS: [&str; 12] = [
            "TABLE",
            "VIEW",
            "TRIGGER",
            "PROCEDURE",
            "FUNCTION",
            "EVENT",
            "DATABASE",
            "SCHEMA",
            "SEQUENCE",
            "PACKAGE",
            "USER",
            "ROLE",
        ];
        if !self.head.first()?.is_word("CREATE") {
            return None;
        }
        let found = self.head.iter().enumerate().find_map(|(at, part)| {
            KINDS.iter().find(|kind| part.is_word(kind)).map(|kind| (at, *kind))
        });
        let (at, kind) = found?;
        let kind = if kind == "SCHEMA" { "DATABASE" } else { kind };
        Some((kind, name_at(&self.head[at + 1..])?))
    }

    /// The table that it inserts into.
    pub(super) fn inserts_into(&self) -> Option<Named> {
        if !self.is_insert() {
            return None;
        }
        let at = self.head.iter().position(|p| p.is_word("INTO"))?;
        name_at(&self.head[at + 1..])
    }

    /// The file that it loads, the table, and how the file is written, where that is known.
    pub(super) fn loads(&self) -> Option<(String, Named, Option<Format>)> {
        if !self.head.first()?.is_word("LOAD") {
            return None;
        }
        let behind = |word: &str, from: usize| {
            let at = self.head[from..].iter().position(|part| part.is_word(word))?;
            Some(from + at + 1)
        };
        let text = |at: usize| match self.head.get(at)? {
            Part::Text(text) => unescaped(text),
            _ => None,
        };
        let file = behind("INFILE", 1)?;
        let table = behind("TABLE", file)?;
        let name = name_at(&self.head[table..])?;
        let fields = behind("FIELDS", table).or_else(|| behind("COLUMNS", table));
        let lines = behind("LINES", fields.unwrap_or(table));
        // What stands behind such a word, before the other list begins.
        let clause = |word: &str, from: Option<usize>, to: Option<usize>| {
            let at = behind(word, from?).filter(|at| to.is_none_or(|to| *at < to))?;
            text(at + usize::from(self.head.get(at)?.is_word("BY")))
        };
        let one = |bytes: Option<Vec<u8>>, usual: &[u8]| bytes.unwrap_or_else(|| usual.to_vec());
        let field = one(clause("TERMINATED", fields, lines), b"\t");
        let enclosed = one(clause("ENCLOSED", fields, lines), b"");
        let escape = one(clause("ESCAPED", fields, lines), b"\\");
        let line = one(clause("TERMINATED", lines, None), b"\n");
        let starting = one(clause("STARTING", lines, None), b"");
        let ignored = behind("IGNORE", lines.or(fields).unwrap_or(table)).and_then(|at| {
            let Part::Word(number) = self.head.get(at)? else { return None };
            number.parse().ok()
        });
        // Another list may come first, or none.
        let mut before = self.head.iter().take_while(|part| **part != Part::Sign(b'('));
        let is_list = !before.any(|part| part.is_word("PARTITION") || part.is_word("SET"));
        let is_known = !field.is_empty() && !line.is_empty() && starting.is_empty();
        let format = (is_known && enclosed.len() <= 1 && escape.len() <= 1).then(|| Format {
            field,
            enclosed: enclosed.first().copied(),
            escape: escape.first().copied(),
            line,
            ignored: ignored.unwrap_or(0),
            columns: (is_list && self.columns > 0).then_some(self.columns),
        });
        Some((String::from_utf8_lossy(&text(file)?).into_owned(), name, format))
    }

    /// The database that it makes the current one.
    pub(super) fn uses(&self) -> Option<String> {
        if !self.head.first()?.is_word("USE") {
            return None;
        }
        name_at(&self.head[1..]).map(|named| named.name)
    }
}

/// A name, with its database where that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) database: Option<String>,
    pub(super) name: String,
}

/// The bytes that a string in quotes means.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut plain = Vec::new();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'\\' => match bytes.next()? {
                b't' => b'\t',
                b'n' => b'\n',
                b'r' => b'\r',
                b'0' => 0,
                b'b' => 8,
                b'Z' => 26,
                other => other,
            },
            byte => byte,
        });
    }
    Some(plain)
}

fn upper(word: &[u8]) -> String {
    String::from_utf8_lossy(word).to_uppercase()
}

/// The name at the beginning.
fn name_at(parts: &[Part]) -> Option<Named> {
    let skip = ["IF", "NOT", "EXISTS", "OR", "REPLACE", "BODY"];
    let mut parts = parts.iter().skip_while(|p| skip.iter().any(|s| p.is_word(s))).peekable();
    let one = |part: &Part| match part {
        Part::Name(name) | Part::Text(name) => Some(name.clone()),
        Part::Word(word) => Some(word.to_lowercase()),
        Part::Sign(_) => None,
    };
    let mut named = Named { database: None, name: one(parts.next()?)? };
    while parts.next_if(|p| **p == Part::Sign(b'.')).is_some() {
        let name = one(parts.next()?)?;
        named.database = Some(std::mem::replace(&mut named.name, name));
    }
    Some(named)
}
