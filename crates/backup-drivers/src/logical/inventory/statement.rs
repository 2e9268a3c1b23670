//! The exact text of stored code.
//!
//! With `character_set_results` at NULL, `SHOW CREATE` gives the body in the character set of the
//! client that created it. But the servers put the parts that they compose themselves (names,
//! comments, types) in front of it in UTF-8, mostly, and tell nobody where one ends: with
//! `character_set_results=utf8mb4` they convert it all from the client's character set and so
//! spoil those parts; converting is lossy besides, as bodies may hold bytes that are no text
//! (`_binary'…'`, `_latin1'…'`). So the raw bytes are read, and the composed parts, which the
//! information schema tells, are looked for in them.

use backup_core::{Error, Result};
use mysql_async::Conn;

use super::super::ddl::Dialect;
use super::query;

/// A statement that creates something stored.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statement {
    pub text: String,
    /// The bytes to send under its character set, in hexadecimal, where `text` does not give them.
    pub bytes: Option<String>,
}

/// Whether text in this character set is UTF-8.
pub(in crate::logical) fn is_utf8(charset: &str) -> bool {
    charset.starts_with("utf8")
}

/// A part of a statement that the server composes.
pub(super) struct Composed {
    /// What it looks like in the statement.
    shown: String,
    /// What it should look like.
    meant: String,
}

impl Composed {
    /// A name or a type.
    pub(super) fn plain(text: &str) -> Self {
        Composed { shown: text.to_owned(), meant: text.to_owned() }
    }

    /// A comment. The servers escape it with backslashes even where the `sql_mode` of the statement
    /// makes them characters like any other.
    pub(super) fn comment(text: &str, dialect: Dialect) -> Self {
        let quoted = text.replace('\'', "''");
        let escaped = quoted
            .replace('\\', "\\\\")
            .replace('\n', "\\n")
            .replace('\r', "\\r")
            .replace('\0', "\\0")
            .replace('\x1a', "\\Z");
        let written = |text: &str| format!("COMMENT '{text}'");
        let meant = if dialect.no_backslash_escapes { written(&quoted) } else { written(&escaped) };
        Composed { shown: written(&escaped), meant }
    }

    /// Whether it needs care.
    fn matters(&self) -> bool {
        !self.shown.is_ascii() || self.shown != self.meant
    }
}

/// Makes a [`Statement`] of raw bytes; `composed` are parts that may stand in it as UTF-8, in the
/// order in which they do.
pub(super) async fn statement(
    conn: &mut Conn,
    raw: &[u8],
    charset: &str,
    composed: &[Composed],
) -> Result<Statement> {
    let mut text = String::new();
    let mut bytes = Vec::new();
    let mut exact = true;
    for section in sections(raw, composed) {
        match section {
            Section::Composed(part) => {
                text.push_str(&part.meant);
                bytes.extend(encode(conn, &part.meant, charset).await?);
            }
            Section::Raw(part) => {
                let decoded = decode(conn, part, charset).await?;
                // Bytes that are no text do not come back.
                exact &= encode(conn, &decoded, charset).await? == part;
                text.push_str(&decoded);
                bytes.extend_from_slice(part);
            }
        }
    }
    Ok(Statement { text, bytes: (!exact).then(|| hex(&bytes)) })
}

enum Section<'a> {
    Composed(&'a Composed),
    Raw(&'a [u8]),
}

/// Cuts the bytes at the composed parts that are found, each after the one before.
fn sections<'a>(raw: &'a [u8], composed: &'a [Composed]) -> Vec<Section<'a>> {
    let mut sections = Vec::new();
    let mut rest = raw;
    for part in composed.iter().filter(|part| part.matters()) {
        if let Some(at) = memchr::memmem::find(rest, part.shown.as_bytes()) {
            sections.push(Section::Raw(&rest[..at]));
            sections.push(Section::Composed(part));
            rest = &rest[at + part.shown.len()..];
        }
    }
    sections.push(Section::Raw(rest));
    sections
}

/// A character set's name goes into statements as it is, and may come from a damaged catalogue.
fn check_name(charset: &str) -> Result<()> {
    if charset.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') && !charset.is_empty() {
        return Ok(());
    }
    Err(Error::damaged(format!("`{}` is no character set", charset.escape_debug())))
}

/// Text in another character set, converted by the server. What it cannot hold becomes `?`.
pub(crate) async fn encode(conn: &mut Conn, text: &str, charset: &str) -> Result<Vec<u8>> {
    if text.is_ascii() || is_utf8(charset) {
        return Ok(text.as_bytes().to_vec());
    }
    check_name(charset)?;
    let sql = format!(
        "SELECT CAST(CONVERT(_utf8mb4 x'{}' USING {charset}) AS BINARY)",
        hex(text.as_bytes())
    );
    one(conn, sql, charset).await.map(Option::unwrap_or_default)
}

/// Text out of another character set, converted by the server.
pub(crate) async fn decode(conn: &mut Conn, raw: &[u8], charset: &str) -> Result<String> {
    if raw.is_ascii() || is_utf8(charset) {
        return Ok(String::from_utf8_lossy(raw).into_owned());
    }
    check_name(charset)?;
    let sql = format!("SELECT CAST(CONVERT(_{charset} x'{}' USING utf8mb4) AS BINARY)", hex(raw));
    let decoded = match one(conn, sql, charset).await {
        // "Invalid … character string": the bytes are no text in that character set.
        Err(e) if e.server().is_some_and(|s| s.code == 1300) => None,
        other => other?,
    };
    let decoded = decoded.as_deref().unwrap_or(raw);
    Ok(String::from_utf8_lossy(decoded).into_owned())
}

async fn one(conn: &mut Conn, sql: String, charset: &str) -> Result<Option<Vec<u8>>> {
    let what = format!("cannot convert a definition from or to the character set {charset}");
    let rows = query::rows(conn, sql, &what).await?;
    Ok(rows.first().and_then(|row| query::bytes(row, 0)).map(<[u8]>::to_vec))
}

/// Bytes in hexadecimal.
pub(in crate::logical) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Hexadecimal back into bytes.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    digits
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn composed_parts_are_found_in_their_order() {
        let raw = b"CREATE PROCEDURE `\xc3\xa9`(\xe9 int) COMMENT '\xc3\xa9' select '\xc3\xa9'";
        let comment = Composed::comment("é", Dialect::default());
        let composed = [Composed::plain("root"), Composed::plain("é"), comment];
        let found: Vec<Vec<u8>> = sections(raw, &composed)
            .into_iter()
            .map(|section| match section {
                Section::Composed(part) => format!("<{}>", part.meant).into_bytes(),
                Section::Raw(bytes) => bytes.to_vec(),
            })
            .collect();
        let expected: [&[u8]; 5] = [
            b"CREATE PROCEDURE `",
            "<é>".as_bytes(),
            b"`(\xe9 int) ",
            "<COMMENT 'é'>".as_bytes(),
            b" select '\xc3\xa9'",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn comments_are_written_for_the_mode_of_their_statement() {
        let plain = Composed::comment("C:\\ it's\n", Dialect::default());
        assert_eq!((plain.shown.as_str(), plain.matters()), ("COMMENT 'C:\\\\ it''s\\n'", false));
        let other = Composed::comment("C:\\", Dialect::of("NO_BACKSLASH_ESCAPES"));
        assert_eq!(
            (other.shown.as_str(), other.meant.as_str()),
            ("COMMENT 'C:\\\\'", "COMMENT 'C:\\'")
        );
    }

    proptest! {
        #[test]
        fn hexadecimal_there_and_back(bytes in any::<Vec<u8>>(), text in "\\PC{0,8}") {
            prop_assert_eq!(unhex(&hex(&bytes)), Some(bytes));
            let _ = unhex(&text);
        }
    }
}
