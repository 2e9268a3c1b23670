//! Cutting tables into key ranges.

use backup_core::{Error, Result};
use serde::{Deserialize, Serialize};

use super::catalog::{Column, LoadMode, Table};
use super::damage::is_corruption;
use super::select::quote_name;
use crate::connect::Session;

/// A range of a table's key: `from` inclusive, `to` exclusive, both as SQL literals.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Range {
    pub from: Option<String>,
    pub to: Option<String>,
    /// No more rows than these, in the order of the key: where damage follows.
    #[serde(skip)]
    pub limit: Option<u64>,
    /// Along the primary key, whatever the server would choose: another way meets the damage at once.
    #[serde(skip)]
    pub by_key: bool,
}

/// How many bytes of a table one chunk should hold. Large enough that a chunk's own cost (a query,
/// an artifact) does not count, small enough that the last chunk does not keep one worker busy
/// while the others are done.
pub(super) const CHUNK_BYTES: u64 = 64 << 20;

/// The key column that ranges are made of, where the table has one: the first column of the key,
/// when it is an integer.
pub(super) fn range_column(table: &Table) -> Option<&Column> {
    let first = table.key.first()?;
    let column = table.columns.iter().find(|c| &c.name == first)?;
    matches!(column.data_type.as_str(), "tinyint" | "smallint" | "mediumint" | "int" | "bigint")
        .then_some(column)
}

/// Cuts a table by the lowest and highest value of its key. The first and the last range are open,
/// so that every row is in exactly one range, whatever the values were when they were asked for. Where it
/// was cut `before` and still fits, it is cut there again.
pub(super) async fn ranges(
    session: &mut Session,
    table: &Table,
    chunk_bytes: u64,
    before: Option<&[i128]>,
) -> Result<Vec<Range>> {
    let wanted = table.data_bytes.div_ceil(chunk_bytes.max(1)).max(1);
    let cuts = wanted > 1 || before.is_some();
    let Some(column) = range_column(table).filter(|_| cuts) else {
        return Ok(vec![Range::default()]);
    };
    let column = quote_name(&column.name);
    let sql = format!(
        "SELECT CAST(MIN({column}) AS CHAR), CAST(MAX({column}) AS CHAR) FROM {}",
        source(table)
    );
    let bounds: Option<(Option<String>, Option<String>)> = match session.query_first(&sql).await {
        // Whoever reads the rows finds the same, and knows what is to be done.
        Err(e) if is_corruption(&e) => None,
        bounds => bounds?,
    };
    let Some((Some(low), Some(high))) = bounds else {
        return Ok(vec![Range::default()]);
    };
    let parse = |text: &str| {
        text.parse::<i128>()
            .map_err(|e| Error::internal("the key's bounds are no integers").with_source(e))
    };
    let (low, high) = (parse(&low)?, parse(&high)?);
    let again = before.and_then(|before| continued(before, low, high, wanted));
    Ok(between(&again.unwrap_or_else(|| cut(low, high, wanted))))
}

/// The cuts of the last time, with more behind them where the table grew on. `None` where so many
/// ranges are not what is wanted any more.
fn continued(before: &[i128], low: i128, high: i128, wanted: u64) -> Option<Vec<i128>> {
    let (first, last) = (*before.first()?, *before.last()?);
    let width = match before.len() {
        1 => first - low,
        n => (last - first) / (n as i128 - 1),
    };
    let wanted = i128::from(wanted);
    // The last range holds half as much as the others, up to half as much again.
    let more = if width > 0 { ((high - last) * 2 / width + 1) / 2 - 1 } else { -1 };
    let count = before.len() as i128 + 1 + more.max(0);
    if width <= 0 || count > 2 * wanted || 2 * count < wanted {
        return None;
    }
    let behind = (1..=more).map(|n| last + n * width);
    Some(before.iter().copied().chain(behind).collect())
}

/// The ranges between cuts.
fn between(cuts: &[i128]) -> Vec<Range> {
    let cuts: Vec<String> = cuts.iter().map(i128::to_string).collect();
    let from = std::iter::once(None).chain(cuts.iter().cloned().map(Some));
    let to = cuts.iter().cloned().map(Some).chain(std::iter::once(None));
    from.zip(to).map(|(from, to)| Range { from, to, ..Range::default() }).collect()
}

/// The cuts between `count` ranges of equal width over `low..=high`, fewer where there are fewer values.
fn cut(low: i128, high: i128, count: u64) -> Vec<i128> {
    let width = (high - low + 1).max(1);
    let count = i128::from(count).min(width);
    (1..count).map(|i| low + width * i / count).collect()
}

/// What stands for a column in a query for rows.
fn value(column: &Column) -> String {
    let name = quote_name(&column.name);
    match column.load {
        LoadMode::Number => format!("CAST({name} AS UNSIGNED)"),
        // The only function that gives the whole year: 1900, which is none, for 0000.
        LoadMode::ShortYear => format!("LPAD(IF(YEAR({name}) = 1900, 0, YEAR({name})), 4, '0')"),
        LoadMode::RowEnd => {
            format!("IF({name} = '{LAST_MOMENT}', TIMESTAMP'{LAST_MOMENT_BEFORE_11_5}', {name})")
        }
        LoadMode::Direct | LoadMode::Utf8 => name,
    }
}

/// Where the time of a row of the present ends (system-versioned tables of MariaDB).
pub(super) const LAST_MOMENT: &str = "2106-02-07 06:28:15.999999";

/// The same in MariaDB before 11.5, whose timestamps had a bit less.
pub(super) const LAST_MOMENT_BEFORE_11_5: &str = "2038-01-19 03:14:07.999999";

/// What stands for the table in a query for rows.
pub(super) fn source(table: &Table) -> String {
    let past = if table.history { " FOR SYSTEM_TIME ALL" } else { "" };
    format!("{}.{}{past}", quote_name(&table.database), quote_name(&table.name))
}

/// The query for the rows of a range of the source, in the order of the key: those that are wanted.
pub(super) fn select_wanted(table: &Table, range: &Range) -> String {
    query(table, range, table.filter.as_deref())
}

/// The query for the same rows, the value of the key's first column before them as eight bytes where
/// it is told whether that is an integer without a sign.
pub(super) fn select_with_key(table: &Table, range: &Range, unsigned: Option<bool>) -> String {
    let sql = select_wanted(table, range);
    let (Some(unsigned), Some(first)) = (unsigned, table.key.first()) else { return sql };
    let sign = if unsigned { "UNSIGNED" } else { "SIGNED" };
    sql.replacen("SELECT ", &format!("SELECT CAST({} AS {sign}), ", quote_name(first)), 1)
}

/// The query for all rows of a range, in the order of the key.
pub(super) fn select(table: &Table, range: &Range) -> String {
    query(table, range, None)
}

fn query(table: &Table, range: &Range, filter: Option<&str>) -> String {
    let columns: Vec<String> = table.columns.iter().map(value).collect();
    // A table of generated columns alone still has rows to count.
    let columns = if columns.is_empty() { "NULL".to_owned() } else { columns.join(", ") };
    let mut sql = format!("SELECT {columns} FROM {}", source(table));
    // InnoDB has its rows in the order of the key. Of others MySQL would sort them, and on the way cut
    // text off where it is none any more.
    let sorted = table.engine.eq_ignore_ascii_case("InnoDB");
    if range.by_key || (!sorted && table.has_primary_key()) {
        sql.push_str(" FORCE INDEX (PRIMARY)");
    }
    let mut conditions = Vec::new();
    if let Some(first) = table.key.first() {
        let first = quote_name(first);
        let bounds = [("<=", &range.from), (">", &range.to)];
        let bounds = bounds
            .into_iter()
            .filter_map(|(op, bound)| bound.as_ref().map(|b| format!("{b} {op} {first}")));
        conditions.extend(bounds);
    }
    // On a line of its own, lest a comment in it take the rest along.
    conditions.extend(filter.map(|filter| format!("({filter}\n)")));
    if !conditions.is_empty() {
        sql.push_str(" WHERE ");
        sql.push_str(&conditions.join(" AND "));
    }
    if !table.key.is_empty() {
        let key: Vec<String> = table.key.iter().map(|c| quote_name(c)).collect();
        sql.push_str(" ORDER BY ");
        sql.push_str(&key.join(", "));
    }
    if let Some(limit) = range.limit {
        sql.push_str(&format!(" LIMIT {limit}"));
    }
    sql
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_value_is_in_exactly_one_range(
            low in -(1_i128 << 63)..(1_i128 << 64), span in 0_i128..(1 << 64), count in 1_u64..50,
            value in -(1_i128 << 64)..(1_i128 << 65),
        ) {
            let ranges = between(&cut(low, low + span, count));
            prop_assert!(ranges.len() as u64 <= count);
            let holds = |r: &&Range| {
                r.from.as_ref().is_none_or(|f| f.parse::<i128>().unwrap() <= value)
                    && r.to.as_ref().is_none_or(|t| value < t.parse::<i128>().unwrap())
            };
            prop_assert_eq!(ranges.iter().filter(holds).count(), 1);
        }

        #[test]
        fn cuts_stay_where_they_were_and_go_on(
            low in -(1_i128 << 63)..(1_i128 << 64), span in 0_i128..(1 << 64), count in 2_u64..50,
            more in 0_i128..(1 << 65), less in 0_u64..60,
        ) {
            let before = cut(low, low + span, count);
            prop_assume!(!before.is_empty());
            let wanted = (count + 30).saturating_sub(less).max(1);
            if let Some(again) = continued(&before, low, low + span + more, wanted) {
                prop_assert_eq!(&again[..before.len()], &before[..]);
                prop_assert!(again.is_sorted_by(|a, b| a < b));
                prop_assert!((again.len() as u64) < 2 * wanted);
            }
        }
    }

    #[test]
    fn ranges_are_even() {
        let ends: Vec<_> = between(&cut(1, 100, 4)).into_iter().map(|r| r.to).collect();
        assert_eq!(ends, [Some("26".into()), Some("51".into()), Some("76".into()), None]);
        assert_eq!(between(&cut(5, 5, 9)), [Range::default()]);
    }

    #[test]
    fn what_grew_is_cut_behind_the_last_cut() {
        let before = [26, 51, 76];
        for (high, more) in [(100, &[][..]), (113, &[]), (114, &[101]), (139, &[101, 126])] {
            let expected = [&before[..], more].concat();
            assert_eq!(continued(&before, 1, high, 4), Some(expected), "{high}");
        }
        assert_eq!(continued(&[26], 1, 80, 3), Some(vec![26, 51]));
        assert_eq!(continued(&before, 1, 1 << 60, 4), None);
        assert_eq!(continued(&before, 1, 100, 1), None);
        assert_eq!(continued(&before, 1, 100, 9), None);
        assert_eq!(continued(&[26], 30, 80, 3), None);
    }
}
