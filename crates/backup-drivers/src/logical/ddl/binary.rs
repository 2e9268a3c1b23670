//! A column of text made one of bytes.

use super::lexer::{Dialect, TokenKind};
use super::{Edits, significant};

/// The definition with `column`, whose characters take up to `width` bytes, as one of bytes: as long,
/// without a character set. `None` where it is no column of text.
pub(in crate::logical) fn as_binary(create: &str, column: &str, width: u32) -> Option<String> {
    let tokens = significant(create, Dialect::default());
    let open = tokens.iter().position(|token| token.is_sign('('))?;
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        if token.is_sign('(') {
            depth += 1;
        } else if token.is_sign(')') {
            depth -= 1;
        }
        let begins = depth == 1 && (i == open || token.is_sign(','));
        let rest = &tokens[i + 1..];
        let here = rest.first().is_some_and(|name| {
            name.kind == TokenKind::Name && name.name().as_deref() == Some(column)
        });
        if !begins || !here {
            continue;
        }
        let kind = rest.get(1)?;
        let mut edits = Edits::default();
        let blob = ["tinytext", "text", "mediumtext", "longtext"];
        let mut at = 2;
        if let Some(text) = blob.into_iter().find(|text| kind.is_word(text)) {
            edits.replace(kind.range(), text.replace("text", "blob"));
        } else if kind.is_word("varchar") || kind.is_word("char") {
            let length: u32 = rest.get(3)?.text.parse().ok()?;
            edits.replace(kind.range(), "varbinary");
            edits.replace(rest[3].range(), length.checked_mul(width)?.to_string());
            at = 5;
        } else {
            return None;
        }
        // What follows the type at once is about its text.
        let mut end = rest[at - 1].range().end;
        let start = end;
        loop {
            let word = |n: usize, text| rest.get(at + n).is_some_and(|token| token.is_word(text));
            let length = match () {
                () if word(0, "CHARACTER") && word(1, "SET") => 3,
                () if word(0, "COLLATE") => 2,
                () => break,
            };
            at += length;
            end = rest.get(at - 1)?.range().end;
        }
        edits.replace(start..end, "");
        return Some(edits.apply(create));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_bytes_of_the_same_length() {
        let create = "CREATE TABLE `t` (\n  `id` int NOT NULL,\n  `a,b` varchar(20) CHARACTER SET gbk COLLATE \
                      gbk_bin NOT NULL DEFAULT 'char(3)',\n  `c` char(3) COLLATE utf8mb4_bin DEFAULT NULL,\n  \
                      `d` mediumtext,\n  PRIMARY KEY (`id`)\n) ENGINE=InnoDB";
        let of = |column, width| as_binary(create, column, width);
        let a = of("a,b", 2).unwrap();
        assert!(a.contains("`a,b` varbinary(40) NOT NULL DEFAULT 'char(3)',"), "{a}");
        assert!(of("c", 4).unwrap().contains("`c` varbinary(12) DEFAULT NULL,"));
        assert!(of("d", 4).unwrap().contains("`d` mediumblob,\n"));
        assert_eq!((of("id", 4), of("none", 4)), (None, None));
    }
}
