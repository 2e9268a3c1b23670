//! What `SHOW CREATE TABLE` prints wrongly.
//!
//! Both servers keep definitions in three-byte UTF-8 and print a question mark for every character
//! beyond it in members of ENUM and SET, and MariaDB in literal defaults too, though the column has
//! the right value. Where a question mark is seen there, the value itself is asked for.

use std::collections::HashMap;

use backup_core::Result;

use super::super::ddl::{fix_default, fix_members, members, quote_text};
use super::super::select::quote_name;
use super::tables::ReadColumn;
use super::{Scope, query};

/// The definition with what it should say.
pub(super) async fn repair(
    scope: &mut Scope<'_>,
    table: &str,
    mut create: String,
    columns: &[ReadColumn],
) -> Result<String> {
    for column in columns.iter().filter(|c| may_be_wrong(c)) {
        let name = &column.column.name;
        if column.column.column_type.contains('?')
            && matches!(column.column.data_type.as_str(), "enum" | "set")
        {
            let shown = members(&column.column.column_type);
            let known = used_members(scope, table, column, &shown).await?;
            if known != shown {
                create = fix_members(&create, name, &known);
            }
            let double =
                |m: &String| m.contains('?') && known.iter().filter(|k| *k == m).count() > 1;
            if known.iter().any(double) {
                scope.catalog.warnings.push(format!(
                    "the server does not tell the names of all members of {}.{}, and no row \
                     has them: restoring this table will need them by hand",
                    scope.name(table),
                    quote_name(name)
                ));
            }
        }
        if column.default.as_ref().is_some_and(|d| d.starts_with('\'') && d.contains('?')) {
            // A join that finds nothing has the defaults all the same.
            let sql = format!(
                "SELECT CONVERT(DEFAULT(t.{}) USING utf8mb4) FROM (SELECT 1 AS one) AS x \
                 LEFT JOIN {} AS t ON FALSE",
                quote_name(name),
                quote_name(table)
            );
            let what = format!("cannot read the defaults of table {}", scope.name(table));
            let rows = query::rows(scope.conn, sql, &what).await?;
            let value = rows.first().and_then(|row| query::text(row, 0));
            if let Some(value) = value
                && column.default.as_deref() != Some(quote_text(&value).as_str())
            {
                create = fix_default(&create, name, &value);
            }
        }
    }
    Ok(create)
}

/// Only these character sets have characters beyond three bytes of UTF-8.
fn may_be_wrong(column: &ReadColumn) -> bool {
    column.column.charset.as_deref().is_some_and(|charset| {
        ["utf8mb4", "utf16", "utf16le", "utf32", "gb18030"].contains(&charset)
    })
}

/// The members as the rows have them; those that no row has, as shown.
async fn used_members(
    scope: &mut Scope<'_>,
    table: &str,
    column: &ReadColumn,
    shown: &[String],
) -> Result<Vec<String>> {
    let name = quote_name(&column.column.name);
    let what = format!("cannot read the members of {}.{name}", scope.name(table));
    let sql = format!(
        "SELECT DISTINCT CAST({name} + 0 AS UNSIGNED), CONVERT({name} USING utf8mb4) FROM {} \
         WHERE {name} + 0 > 0",
        quote_name(table)
    );
    let mut known: HashMap<usize, String> = HashMap::new();
    for row in query::rows(scope.conn, sql, &what).await? {
        let (number, value) = (query::number(&row, 0), query::required(&row, 1)?);
        if column.column.data_type == "enum" {
            known.insert(number as usize - 1, value);
        } else {
            let bits = (0..64).filter(|bit| number >> bit & 1 == 1);
            known.extend(bits.zip(value.split(',').map(str::to_owned)));
        }
    }
    let value = |(i, shown): (usize, &String)| known.remove(&i).unwrap_or_else(|| shown.clone());
    Ok(shown.iter().enumerate().map(value).collect())
}
