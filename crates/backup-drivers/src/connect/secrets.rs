//! Passwords and their hashes in statements, and in what servers repeat of them.

use std::borrow::Cow;

use backup_core::{Error, ServerError};

use super::{server_error, sql_error};

/// From this length on, in bytes, a part of a secret is hidden too: servers cut what they repeat.
const PART: usize = 4;

/// A statement up to where a password or its hash may begin.
pub(crate) fn without_secrets(sql: &str) -> &str {
    let upper = sql.to_ascii_uppercase();
    let secret = ["IDENTIFIED", "PASSWORD"].iter().filter_map(|word| upper.find(word)).min();
    &sql[..secret.unwrap_or(sql.len())]
}

/// [`sql_error`] for a statement, without the secrets that the server repeats of it.
pub(crate) fn statement_error(
    error: mysql_async::Error,
    sql: &str,
    what: impl Into<Cow<'static, str>>,
) -> Error {
    use mysql_async::Error::Server;
    match error {
        Server(mut e) => {
            e.message = hidden(&e.message, sql);
            sql_error(Server(e), what)
        }
        other => sql_error(other, what),
    }
}

/// [`server_error`] for a statement, without the secrets that the server repeats of it.
pub(crate) fn refused_statement(
    mut error: ServerError,
    sql: &str,
    what: impl Into<Cow<'static, str>>,
) -> Error {
    error.message = hidden(&error.message, sql);
    server_error(error, what)
}

/// What an applier says of a statement that it could not run (`… Query: 'CREATE USER …'`), without the
/// secrets in it.
pub(crate) fn applier_said(said: &str) -> String {
    match said.find("uery: '") {
        Some(at) => hidden(said, &said[at + "uery: '".len()..]),
        None => said.to_owned(),
    }
}

/// What a server says about `sql`, without the passwords and hashes of it: servers repeat the rest of a
/// statement from where they do not understand it.
fn hidden(said: &str, sql: &str) -> String {
    let mut said = said.to_owned();
    for secret in secrets(sql) {
        // In its quotation marks even a short one stands for nothing else.
        for quote in ["'", "\""] {
            said = said.replace(&format!("{quote}{secret}{quote}"), &format!("{quote}…{quote}"));
        }
        let ends = (PART..=secret.len()).rev().filter(|&end| secret.is_char_boundary(end));
        for part in ends.map(|end| &secret[..end]) {
            if said.contains(part) {
                said = said.replace(part, "…");
                break;
            }
        }
    }
    said
}

/// The literals of a statement that may be passwords or hashes, without their quotation marks. One that
/// names how to sign in (`IDENTIFIED WITH 'caching_sha2_password'`) is none.
fn secrets(sql: &str) -> Vec<&str> {
    let mut rest = &sql[without_secrets(sql).len()..];
    let mut found = Vec::new();
    let mut word = "";
    while let Some(first) = rest.chars().next() {
        let (token, behind) = match first {
            '\'' | '"' => {
                let end = end_of_quoted(rest, first);
                (&rest[1..end], rest.get(end + 1..).unwrap_or_default())
            }
            c if c.is_alphanumeric() => {
                let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
                let (token, behind) = rest.split_at(end);
                let number = token.starts_with("0x") || token.starts_with("0X");
                if !number {
                    word = token;
                    rest = behind;
                    continue;
                }
                (token, behind)
            }
            c => {
                rest = &rest[c.len_utf8()..];
                continue;
            }
        };
        let names_a_way = ["WITH", "VIA"].iter().any(|way| word.eq_ignore_ascii_case(way));
        if !names_a_way && !token.is_empty() {
            found.push(token);
        }
        word = "";
        rest = behind;
    }
    found
}

/// Where the literal that `text` begins with ends, in bytes: at its last quotation mark, or at the end.
fn end_of_quoted(text: &str, quote: char) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == '\\' {
            chars.next();
        } else if c == quote && chars.next_if(|&(_, next)| next == quote).is_none() {
            return at;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{applier_said, hidden, secrets};

    #[test]
    fn secrets_of_a_statement_are_its_literals_but_for_the_way_to_sign_in() {
        let sql = "CREATE USER 'u'@'%' IDENTIFIED WITH 'caching_sha2_password' AS '$A$00''5$x' REQUIRE NONE";
        assert_eq!(secrets(sql), ["$A$00''5$x"]);
        let sql = "CREATE USER u IDENTIFIED VIA ed25519 USING PASSWORD('p\\'q') OR unix_socket";
        assert_eq!(secrets(sql), ["p\\'q"]);
        assert_eq!(secrets("SET PASSWORD FOR u = 0x2441ff"), ["0x2441ff"]);
        assert_eq!(secrets("SELECT 'x'"), [""; 0]);
        assert_eq!(secrets("ALTER USER u IDENTIFIED BY 'never ends"), ["never ends"]);
    }

    #[test]
    fn what_a_server_repeats_of_them_is_hidden() {
        let sql = "CREATE USER u IDENTIFIED WITH 'caching_sha2_password' AS '$A$005$abcdefgh' REQUIRE NONE";
        let near =
            "You have an error in your SQL syntax near ''$A$005$abcdefgh' REQUIRE NONE' at line 1";
        assert_eq!(
            hidden(near, sql),
            "You have an error in your SQL syntax near ''…' REQUIRE NONE' at line 1"
        );
        assert_eq!(
            hidden("syntax near ''$A$005$abc' at line 1", sql),
            "syntax near ''…' at line 1"
        );
        let plugin = "Plugin 'caching_sha2_password' is not loaded";
        assert_eq!(hidden(plugin, sql), plugin);
        assert_eq!(hidden("near ''ab''", "SET PASSWORD = 'ab'"), "near ''…''");
        let applier = "Error 'Operation CREATE USER failed for 'u'@'%'' on query. Default database: ''. \
                       Query: 'CREATE USER 'u'@'%' IDENTIFIED BY PASSWORD '*6BB4837EB7''";
        let said = applier_said(applier);
        assert!(!said.contains("*6BB") && said.contains("failed for 'u'@'%'"), "{said}");
    }

    proptest! {
        #[test]
        fn no_text_makes_it_fail(said in ".*", before in ".*", after in "['\"\\\\0x]*.*") {
            hidden(&said, &format!("{before}IDENTIFIED{after}"));
            applier_said(&format!("{said}uery: '{before}PASSWORD{after}"));
        }

        #[test]
        fn a_repeated_password_is_never_seen(password in "[a-zA-Z0-9*$ ]{4,40}", before in "[a-z ]{0,20}") {
            let sql = format!("ALTER USER u IDENTIFIED BY '{password}' {before}");
            let said = hidden(&format!("{before} near ''{password}' {before}' at line 1"), &sql);
            prop_assert!(!said.contains(&password));
        }
    }
}
