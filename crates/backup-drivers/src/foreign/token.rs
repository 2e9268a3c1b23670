//! What a stream of SQL is cut into, and what the reader of it wants next.

/// A place in a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line, from 1.
    pub line: u64,
    /// The byte, from 0.
    pub offset: u64,
}

/// A piece of a statement. Of long ones only the beginning is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A keyword, a name without quotes, a number.
    Word(&'a [u8]),
    /// A name in backticks, without them.
    Name(&'a [u8]),
    /// A string, without its quotes and with its escapes.
    Text(&'a [u8]),
    /// Any other byte.
    Sign(u8),
    /// A NUL, which no dump has outside of escapes.
    Nul,
    /// The text of a comment of one line.
    Comment(&'a [u8]),
    /// The end of a statement.
    End,
    /// Statements begin again here, after tokens that made no sense.
    Found,
}

/// What the reader of tokens wants next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// The next token.
    Go,
    /// The beginning of the next statement that can be told for sure: these tokens make no sense.
    Lost,
    /// The next token, where strings are written in another way.
    Set(Dialect),
}

/// What a `SET` changes of how strings are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialect {
    /// By the `sql_mode`.
    pub(super) mode: Option<Mode>,
    /// By the character set of the client.
    pub(super) charset: Option<Charset>,
}

/// Which character set the client speaks from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Charset {
    /// That of `SET NAMES`.
    Names(Wide),
    /// Another one for a while, for definitions and code.
    Client(Wide),
    /// That of `SET NAMES` again: dumps keep it in a variable, and set that.
    Kept,
}

/// What the `sql_mode` says of strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mode {
    /// Whether double quotes are around names.
    pub(super) ansi_quotes: bool,
    /// Whether a backslash escapes what follows it.
    pub(super) backslashes: bool,
}

/// Character sets in which the second byte of a character may look like a quote or a backslash.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Wide {
    /// It may not.
    #[default]
    No,
    /// Shift JIS.
    Sjis,
    /// GBK, GB18030, Big5.
    Chinese,
}

impl Wide {
    /// That of a character set.
    pub(super) fn of(charset: &str) -> Self {
        match charset {
            "SJIS" | "CP932" => Wide::Sjis,
            "GBK" | "GB18030" | "BIG5" => Wide::Chinese,
            _ => Wide::No,
        }
    }

    /// Whether a byte is the first of two.
    pub(super) fn leads(self, byte: u8) -> bool {
        match self {
            Wide::No => false,
            Wide::Sjis => matches!(byte, 0x81..=0x9f | 0xe0..=0xfc),
            Wide::Chinese => (0x81..=0xfe).contains(&byte),
        }
    }
}
