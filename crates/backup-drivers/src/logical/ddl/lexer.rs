//! Cutting SQL into tokens, as the servers' own lexers do (`sql/sql_lex.cc` of both).

/// What the `sql_mode` changes about tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Dialect {
    /// `"x"` is a name, not a string.
    pub ansi_quotes: bool,
    /// A backslash in a string is a character like any other.
    pub no_backslash_escapes: bool,
}

impl Dialect {
    /// The dialect of an `sql_mode` as a number, as binlogs have it: the same bits in both families.
    pub(crate) fn of_bits(sql_mode: u64) -> Self {
        let has = |bit| sql_mode & bit != 0;
        Dialect { ansi_quotes: has(4), no_backslash_escapes: has(1 << 20) }
    }

    /// The dialect of an `sql_mode`.
    pub(in crate::logical) fn of(sql_mode: &str) -> Self {
        let has = |mode| sql_mode.split(',').any(|m| m.eq_ignore_ascii_case(mode));
        Dialect {
            ansi_quotes: has("ANSI_QUOTES"),
            no_backslash_escapes: has("NO_BACKSLASH_ESCAPES"),
        }
    }
}

/// Kinds of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::logical) enum TokenKind {
    /// White space, comments, and the marks around conditional code (`/*!50100`, `*/`).
    Space,
    /// A keyword, a name without quotes, or a number.
    Word,
    /// A name in quotes.
    Name,
    /// A string.
    Text,
    /// Any other single character.
    Sign,
}

/// A piece of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::logical) struct Token<'a> {
    pub kind: TokenKind,
    pub text: &'a str,
    /// Where it begins.
    pub start: usize,
}

impl Token<'_> {
    pub(in crate::logical) fn range(&self) -> std::ops::Range<usize> {
        self.start..self.start + self.text.len()
    }

    pub(in crate::logical) fn is_word(&self, word: &str) -> bool {
        self.kind == TokenKind::Word && self.text.eq_ignore_ascii_case(word)
    }

    pub(in crate::logical) fn is_sign(&self, sign: char) -> bool {
        self.kind == TokenKind::Sign && self.text.starts_with(sign)
    }

    /// The name that it stands for, if it can be one.
    pub(in crate::logical) fn name(&self) -> Option<String> {
        match self.kind {
            TokenKind::Word => Some(self.text.to_owned()),
            TokenKind::Name => {
                let quote = &self.text[..1];
                let inner = self.text.strip_prefix(quote)?.strip_suffix(quote)?;
                Some(inner.replace(&quote.repeat(2), quote))
            }
            _ => None,
        }
    }
}

/// Every token of `sql`; joined they are `sql` again, whatever it is.
pub(super) fn tokens(sql: &str, dialect: Dialect) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut lexer = Lexer { sql, dialect, conditional: 0 };
    let mut at = 0;
    while at < sql.len() {
        let (kind, length) = lexer.next(at);
        tokens.push(Token { kind, text: &sql[at..at + length], start: at });
        at += length;
    }
    tokens
}

/// The tokens that mean something.
pub(in crate::logical) fn significant(sql: &str, dialect: Dialect) -> Vec<Token<'_>> {
    let mut tokens = tokens(sql, dialect);
    tokens.retain(|t| t.kind != TokenKind::Space);
    tokens
}

/// A part of a statement that only some servers read: `/*!80023 …*/`, `/*M!100301 …*/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::logical) struct Condition<'a> {
    /// Only MariaDB reads it.
    pub mariadb: bool,
    /// The first version that reads it, as 80023 for 8.0.23; 0 for all.
    pub since: u32,
    /// What stands in it.
    pub text: &'a str,
}

/// All such parts of a definition in the default dialect; they do not nest there.
pub(in crate::logical) fn conditions(sql: &str) -> Vec<Condition<'_>> {
    let tokens = tokens(sql, Dialect::default());
    let mut found = Vec::new();
    let mut open: Option<(bool, u32, usize)> = None;
    for token in &tokens {
        if token.kind != TokenKind::Space {
            continue;
        }
        let mark = token.text.strip_prefix("/*!").map(|digits| (false, digits));
        let mark = mark.or_else(|| token.text.strip_prefix("/*M!").map(|digits| (true, digits)));
        if let Some((mariadb, digits)) = mark {
            open = Some((mariadb, digits.parse().unwrap_or(0), token.range().end));
        } else if token.text == "*/"
            && let Some((mariadb, since, start)) = open.take()
        {
            found.push(Condition { mariadb, since, text: sql[start..token.start].trim() });
        }
    }
    found
}

struct Lexer<'a> {
    sql: &'a str,
    dialect: Dialect,
    /// How many `/*!` are open.
    conditional: usize,
}

impl Lexer<'_> {
    /// Kind and length (at least one character) of the token at `at`.
    fn next(&mut self, at: usize) -> (TokenKind, usize) {
        let rest = &self.sql[at..];
        let first = rest.chars().next().expect("only called before the end of the text");
        match first {
            '`' => (TokenKind::Name, quoted(rest, '`', false)),
            '"' if self.dialect.ansi_quotes => (TokenKind::Name, quoted(rest, '"', false)),
            '\'' | '"' => {
                (TokenKind::Text, quoted(rest, first, !self.dialect.no_backslash_escapes))
            }
            '#' => (TokenKind::Space, line(rest)),
            '-' if rest.starts_with("--") && rest[2..].chars().next().is_none_or(is_space) => {
                (TokenKind::Space, line(rest))
            }
            '/' if rest.starts_with("/*!") || rest.starts_with("/*M!") => {
                self.conditional += 1;
                let mark = rest.find('!').map_or(rest.len(), |i| i + 1);
                let digits = rest[mark..].bytes().take_while(u8::is_ascii_digit).count();
                (TokenKind::Space, mark + digits)
            }
            '/' if rest.starts_with("/*") => {
                (TokenKind::Space, rest[2..].find("*/").map_or(rest.len(), |i| i + 4))
            }
            '*' if self.conditional > 0 && rest.starts_with("*/") => {
                self.conditional -= 1;
                (TokenKind::Space, 2)
            }
            c if is_space(c) => {
                (TokenKind::Space, rest.find(|c| !is_space(c)).unwrap_or(rest.len()))
            }
            c if is_word(c) => (TokenKind::Word, rest.find(|c| !is_word(c)).unwrap_or(rest.len())),
            c => (TokenKind::Sign, c.len_utf8()),
        }
    }
}

fn is_space(c: char) -> bool {
    c.is_ascii_whitespace() || c == '\x0b' || c.is_ascii_control()
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

fn line(rest: &str) -> usize {
    rest.find('\n').unwrap_or(rest.len())
}

/// The length of a quoted token; one that never ends goes to the end.
fn quoted(rest: &str, quote: char, escapes: bool) -> usize {
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((i, c)) = chars.next() {
        if c == '\\' && escapes {
            chars.next();
        } else if c == quote {
            match chars.peek() {
                Some((_, next)) if *next == quote => {
                    chars.next();
                }
                _ => return i + 1,
            }
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kinds(sql: &str, dialect: Dialect) -> Vec<(TokenKind, &str)> {
        significant(sql, dialect).into_iter().map(|t| (t.kind, t.text)).collect()
    }

    #[test]
    fn names_strings_comments_and_conditional_code() {
        use TokenKind::{Name, Sign, Text, Word};
        let sql = "a/* `x` */`b``c`.'it''s \\' /*'--1 -- y\n# z\n/*!50100 d*/ \"e\"";
        assert_eq!(
            kinds(sql, Dialect::default()),
            [
                (Word, "a"),
                (Name, "`b``c`"),
                (Sign, "."),
                (Text, "'it''s \\' /*'"),
                (Sign, "-"),
                (Sign, "-"),
                (Word, "1"),
                (Word, "d"),
                (Text, "\"e\""),
            ]
        );
        let ansi = Dialect::of("STRICT_ALL_TABLES,ANSI_QUOTES,NO_BACKSLASH_ESCAPES");
        assert_eq!(kinds("\"e\"'\\'x", ansi), [(Name, "\"e\""), (Text, "'\\'"), (Word, "x")]);
    }

    #[test]
    fn parts_for_some_servers_are_found() {
        let sql = "CREATE TABLE `t` (`a` int /*!80023 INVISIBLE */ COMMENT '/*!99999 x */', `b` text /*M!100301 \
                   COMPRESSED*/) /*! Y */ /* not this */";
        let condition = |mariadb, since, text| Condition { mariadb, since, text };
        assert_eq!(
            conditions(sql),
            [
                condition(false, 80_023, "INVISIBLE"),
                condition(true, 100_301, "COMPRESSED"),
                condition(false, 0, "Y")
            ]
        );
    }

    #[test]
    fn names_lose_their_quotes() {
        let token = significant("`a``b`", Dialect::default())[0];
        assert_eq!(token.name().unwrap(), "a`b");
    }

    proptest! {
        #[test]
        fn tokens_join_to_the_text(sql in "[a-z`'\"\\\\/*!#\\-\\n é1(),.]{0,40}|\\PC{0,40}") {
            for dialect in [Dialect::default(), Dialect::of("ANSI_QUOTES,NO_BACKSLASH_ESCAPES")] {
                let joined: String = tokens(&sql, dialect).iter().map(|t| t.text).collect();
                prop_assert_eq!(&joined, &sql);
                for token in tokens(&sql, dialect) {
                    let _ = token.name();
                }
            }
        }
    }
}
