//! The `metadata` of mydumper: whether it finished, and how many rows it wrote of each table.

use std::collections::BTreeMap;

/// What the file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) finished: bool,
    /// Rows by ``db.table``.
    pub(super) rows: BTreeMap<String, u64>,
}

impl Metadata {
    /// Reads it; lines that are not known mean nothing.
    pub(super) fn parse(text: &str) -> Self {
        let mut metadata = Metadata::default();
        let mut table = None;
        for line in text.lines().map(str::trim) {
            if line.starts_with("# Finished dump at") || line.starts_with("Finished dump at") {
                metadata.finished = true;
            } else if let Some(section) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                table = section
                    .strip_prefix('`')
                    .and_then(|s| s.strip_suffix('`'))
                    .and_then(|s| s.split_once("`.`"))
                    .map(|(database, table)| format!("{database}.{table}"));
            } else if let (Some(table), Some((key, value))) = (&table, line.split_once('='))
                && key.trim() == "rows"
                && let Ok(rows) = value.trim().parse()
            {
                metadata.rows.insert(table.clone(), rows);
            }
        }
        metadata
    }
}

#[cfg(test)]
mod tests {
    use super::Metadata;

    #[test]
    fn what_it_says_is_read() {
        let text = "# Started dump at: 2026-11-20 10:00:00\n[config]\nquote-character = BACKTICK\n\n\
                    [`shop`.`orders`]\nreal_table_name=orders\nrows = 512\n\n# Finished dump at: 2026-11-20 10:00:01\n";
        let metadata = Metadata::parse(text);
        assert!(metadata.finished);
        assert_eq!(metadata.rows, [("shop.orders".to_owned(), 512)].into());
        assert!(!Metadata::parse("# Started dump at: x\n").finished);
    }
}
