//! String literals: reading them, writing them, and putting right what the servers print wrongly.

use super::lexer::{Dialect, TokenKind};
use super::{Edits, significant};

/// A string as an SQL literal, for an `sql_mode` without `NO_BACKSLASH_ESCAPES`.
pub(in crate::logical) fn quote_text(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// The value of a literal in single quotes, as the servers print one.
pub(in crate::logical) fn unquote_text(literal: &str) -> Option<String> {
    let inner = literal.strip_prefix('\'')?.strip_suffix('\'')?;
    String::from_utf8(unescape(inner.as_bytes())).ok()
}

/// Resolves `''` and backslashes. `\%` and `\_` stand for themselves, backslash and all.
fn unescape(inner: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter().copied();
    while let Some(b) = bytes.next() {
        match b {
            b'\'' => {
                bytes.next();
                value.push(b'\'');
            }
            b'\\' => match bytes.next() {
                Some(b'0') => value.push(0),
                Some(b'n') => value.push(b'\n'),
                Some(b'r') => value.push(b'\r'),
                Some(b't') => value.push(b'\t'),
                Some(b'b') => value.push(8),
                Some(b'Z') => value.push(26),
                Some(c @ (b'%' | b'_')) => value.extend([b'\\', c]),
                Some(c) => value.push(c),
                None => value.push(b'\\'),
            },
            _ => value.push(b),
        }
    }
    value
}

/// A definition as text: string literals whose bytes are no UTF-8 (the servers print `DEFAULT`s of
/// binary columns and `_latin1'…'` raw) become hexadecimal literals, which mean the same and print
/// the same again. Bytes that are no text anywhere else become U+FFFD.
pub(in crate::logical) fn hex_literals(raw: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(raw) {
        return text.to_owned();
    }
    let mut fixed = Vec::with_capacity(raw.len() + 64);
    let mut at = 0;
    while at < raw.len() {
        let quote = raw[at];
        if quote != b'\'' && quote != b'`' {
            fixed.push(quote);
            at += 1;
            continue;
        }
        let end = literal_end(raw, at);
        let token = &raw[at..end];
        if quote == b'\'' && token.len() >= 2 && std::str::from_utf8(token).is_err() {
            // An introducer must not run into the x.
            if fixed.last().is_some_and(u8::is_ascii_alphanumeric) {
                fixed.push(b' ');
            }
            fixed.extend_from_slice(b"x'");
            for byte in unescape(&token[1..token.len() - 1]) {
                fixed.extend_from_slice(format!("{byte:02x}").as_bytes());
            }
            fixed.push(b'\'');
        } else {
            fixed.extend_from_slice(token);
        }
        at = end;
    }
    String::from_utf8_lossy(&fixed).into_owned()
}

fn literal_end(raw: &[u8], start: usize) -> usize {
    let quote = raw[start];
    let mut at = start + 1;
    while at < raw.len() {
        if raw[at] == b'\\' && quote == b'\'' {
            at += 2;
        } else if raw[at] == quote {
            if raw.get(at + 1) != Some(&quote) {
                return at + 1;
            }
            at += 2;
        } else {
            at += 1;
        }
    }
    raw.len()
}

/// The members of a column type such as `enum('a','it''s')`.
pub(in crate::logical) fn members(column_type: &str) -> Vec<String> {
    significant(column_type, Dialect::default())
        .iter()
        .filter(|t| t.kind == TokenKind::Text)
        .filter_map(|t| unquote_text(t.text))
        .collect()
}

/// Puts the members of an ENUM or SET column into `CREATE TABLE`, in the order of the type.
pub(in crate::logical) fn fix_members(create: &str, column: &str, members: &[String]) -> String {
    let mut edits = Edits::default();
    if let Some(range) = column_definition(create, column) {
        let tokens = significant(&create[range.clone()], Dialect::default());
        // After the name: ENUM ( 'a' , 'b' )
        let literals = tokens.iter().skip(3).take_while(|t| !t.is_sign(')'));
        let literals = literals.filter(|t| t.kind == TokenKind::Text);
        for (token, member) in literals.zip(members) {
            let at = token.range();
            edits.replace(range.start + at.start..range.start + at.end, quote_text(member));
        }
    }
    edits.apply(create)
}

/// Puts the default of a text column into `CREATE TABLE`.
pub(in crate::logical) fn fix_default(create: &str, column: &str, value: &str) -> String {
    let mut edits = Edits::default();
    if let Some(range) = column_definition(create, column) {
        let tokens = significant(&create[range.clone()], Dialect::default());
        let literal = tokens
            .windows(2)
            .find(|w| w[0].is_word("DEFAULT") && w[1].kind == TokenKind::Text)
            .map(|w| w[1].range());
        if let Some(at) = literal {
            edits.replace(range.start + at.start..range.start + at.end, quote_text(value));
        }
    }
    edits.apply(create)
}

/// Where in `CREATE TABLE` the definition of a column is, from its name to before the comma.
fn column_definition(create: &str, column: &str) -> Option<std::ops::Range<usize>> {
    let mut depth = 0;
    let mut item_starts = false;
    let mut found = None;
    for token in significant(create, Dialect::default()) {
        match (depth, token.text) {
            (1, ",") | (1, ")") if found.is_some() => return Some(found?..token.start),
            (_, "(") => depth += 1,
            (_, ")") => depth -= 1,
            _ => {
                if item_starts && token.kind == TokenKind::Name && token.name()? == column {
                    found = Some(token.start);
                }
            }
        }
        item_starts = depth == 1 && (token.text == "(" || token.text == ",");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_bytes_become_hexadecimal_literals() {
        let raw =
            b"CREATE TABLE `t` (`a` binary(3) DEFAULT '\xff\\0''\xfe', `b` int COMMENT '\xc3\xa9',\
                   CHECK (`c` <> _latin1'\xe9'))";
        assert_eq!(
            hex_literals(raw),
            "CREATE TABLE `t` (`a` binary(3) DEFAULT x'ff0027fe', `b` int COMMENT 'é',\
             CHECK (`c` <> _latin1 x'e9'))"
        );
    }

    #[test]
    fn members_and_defaults_are_put_right() {
        let create = "CREATE TABLE `e` (\n  `e` enum('?','a,b','it''s') DEFAULT '?' COMMENT 'e',\n  \
                      `d` varchar(9) DEFAULT 'a?'\n) ENGINE=InnoDB";
        assert_eq!(members("enum('?','a,b','it''s')"), ["?", "a,b", "it's"]);
        let fixed = fix_members(create, "e", &["🎉".into(), "a,b".into(), "it's".into()]);
        let fixed = fix_default(&fixed, "e", "🎉");
        let fixed = fix_default(&fixed, "d", "a🎉");
        assert_eq!(
            fixed,
            "CREATE TABLE `e` (\n  `e` enum('🎉','a,b','it''s') DEFAULT '🎉' COMMENT 'e',\n  \
             `d` varchar(9) DEFAULT 'a🎉'\n) ENGINE=InnoDB"
        );
        assert_eq!(fix_default(create, "none", "x"), create);
    }
}
