//! The past of system-versioned tables (MariaDB).
//!
//! Every row has two timestamps that say from when to when it was valid. The servers let them be
//! loaded since 10.11 (`system_versioning_insert_history`), but not the numbers of transactions that
//! take their place in tables with columns of the type BIGINT.

use super::super::catalog::{Column, LoadMode};
use super::super::ddl::{Dialect, significant};
use super::Scope;

/// Adds the two columns where the past can be kept, and says whether it can; else warns.
pub(super) fn add_columns(
    scope: &mut Scope<'_>,
    table: &str,
    create: &str,
    columns: &mut Vec<Column>,
) -> bool {
    let why = if !scope.facts.version.at_least(10, 11, 0) {
        "the server is older than 10.11, which can load it"
    } else {
        let names = period(create);
        if names.by_transaction {
            "it counts transactions, whose numbers mean nothing elsewhere"
        } else {
            for name in [names.start, names.end] {
                columns.retain(|c| c.name != name);
                columns.push(Column {
                    name,
                    column_type: "timestamp(6)".to_owned(),
                    data_type: "timestamp".to_owned(),
                    fraction_digits: Some(6),
                    charset: None,
                    load: LoadMode::Direct,
                });
            }
            return true;
        }
    };
    let name = scope.name(table);
    scope.catalog.warnings.push(format!(
        "the history of the system-versioned table {name} is not kept, only its present rows: {why}"
    ));
    false
}

#[derive(Debug, PartialEq, Eq)]
struct Period {
    start: String,
    end: String,
    by_transaction: bool,
}

/// Whether a table is system-versioned by numbers of transactions, and not by times.
pub(in crate::logical) fn counts_transactions(create: &str) -> bool {
    let tokens = significant(create, Dialect::default());
    tokens.iter().any(|token| token.is_word("VERSIONING")) && period(create).by_transaction
}

/// The columns of `GENERATED ALWAYS AS ROW START` and `… END`; those that every table has unless it
/// says otherwise.
fn period(create: &str) -> Period {
    let tokens = significant(create, Dialect::default());
    let mut period =
        Period { start: "row_start".into(), end: "row_end".into(), by_transaction: false };
    for (at, window) in tokens.windows(3).enumerate() {
        if !(window[0].is_word("AS") && window[1].is_word("ROW")) {
            continue;
        }
        // Back to the name: after the comma or parenthesis that ends what is before.
        let mut begin = at;
        let mut depth = 0;
        while begin > 0 {
            match tokens[begin - 1].text {
                ")" => depth += 1,
                "(" if depth == 0 => break,
                "(" => depth -= 1,
                "," if depth == 0 => break,
                _ => {}
            }
            begin -= 1;
        }
        let Some(name) = tokens[begin].name() else { continue };
        period.by_transaction |= tokens[begin..at].iter().any(|t| t.is_word("bigint"));
        if window[2].is_word("START") {
            period.start = name;
        } else if window[2].is_word("END") {
            period.end = name;
        }
    }
    period
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_of_the_period_are_found() {
        let create = "CREATE TABLE `v` (\n `a` int(11) DEFAULT NULL,\n `x,1` timestamp(6) GENERATED ALWAYS AS ROW START \
                      INVISIBLE,\n `b` enum('AS ROW END'),\n `x2` timestamp(6) GENERATED ALWAYS AS ROW END,\n PERIOD FOR \
                      SYSTEM_TIME (`x,1`, `x2`)\n) WITH SYSTEM VERSIONING";
        let expected = Period { start: "x,1".into(), end: "x2".into(), by_transaction: false };
        assert_eq!(period(create), expected);
        assert!(period(&create.replace("timestamp(6)", "bigint(20) unsigned")).by_transaction);
        assert!(!counts_transactions(create));
        assert!(counts_transactions(&create.replace("timestamp(6)", "bigint(20) unsigned")));
        assert_eq!(period("CREATE TABLE `v` (`a` int) WITH SYSTEM VERSIONING").end, "row_end");
    }
}
