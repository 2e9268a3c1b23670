//! Conditions that choose rows.

use super::lexer::{Dialect, TokenKind, significant};

/// Words that a parenthesis may follow without being the arguments of a function.
const OPERATORS: [&str; 19] = [
    "AND", "BETWEEN", "BINARY", "CASE", "DIV", "ELSE", "IN", "INTERVAL", "IS", "LIKE", "MOD",
    "NOT", "OR", "REGEXP", "RLIKE", "THEN", "WHEN", "XOR", "ESCAPE",
];
/// Words that read other rows, other tables, who asks, or the clock.
const OTHERS: [&str; 17] = [
    "CURRENT_DATE",
    "CURRENT_ROLE",
    "CURRENT_TIME",
    "CURRENT_TIMESTAMP",
    "CURRENT_USER",
    "LOCALTIME",
    "LOCALTIMESTAMP",
    "NEXT",
    "PREVIOUS",
    "SELECT",
    "SYSDATE",
    "TABLE",
    "UTC_DATE",
    "UTC_TIME",
    "UTC_TIMESTAMP",
    "VALUES",
    "WITH",
];

/// Whether an expression stays one with parentheses around it: none of its own closes what it did not open.
pub(in crate::logical) fn is_whole(expression: &str) -> bool {
    let mut open = 0_u64;
    for token in significant(expression, Dialect::default()) {
        if token.is_sign('(') {
            open += 1;
        } else if token.is_sign(')') {
            match open.checked_sub(1) {
                Some(rest) => open = rest,
                None => return false,
            }
        }
    }
    open == 0
}

/// Whether nothing but the row itself decides whether a condition chooses it, as far as that can be told from its
/// text: no query, no function, no variable, no clock. Of a function nobody knows what it reads.
pub(in crate::logical) fn is_of_its_row(condition: &str) -> bool {
    let tokens = significant(condition, Dialect::default());
    let calls = tokens.windows(2).any(|pair| {
        let operator = OPERATORS.iter().any(|operator| pair[0].is_word(operator));
        pair[1].is_sign('(')
            && matches!(pair[0].kind, TokenKind::Word | TokenKind::Name)
            && !operator
    });
    let reads = tokens
        .iter()
        .any(|token| token.is_sign('@') || OTHERS.iter().any(|other| token.is_word(other)));
    !calls && !reads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_its_row_is_told_from_what_may_be_of_others() {
        for condition in [
            "id > 100",
            "NOT (a = 1) AND (b IN (1, 2) or c BETWEEN (3) and 4)",
            "`current_date` < '2026-01-01' -- now()",
            "note = 'SELECT now()' AND `t`.`values` IS NULL",
            "next_run > 5 AND table_id = current_price",
            "CASE WHEN (a) THEN (b) ELSE (c) END",
        ] {
            assert!(is_of_its_row(condition), "{condition}");
        }
        for condition in [
            "id IN (SELECT id FROM t2)",
            "id in (table d.t2)",
            "EXISTS (VALUES ROW(1))",
            "keep(id)",
            "d.`keep` (id)",
            "ts < NOW()",
            "ts < current_timestamp",
            "day = UTC_DATE",
            "id < @last",
            "id < @@GLOBAL.offset",
            "id < NEXT VALUE FOR s",
        ] {
            assert!(!is_of_its_row(condition), "{condition}");
        }
    }
}
