//! The `metadata` of mydumper: whether it finished, and how many rows it wrote of each table.

use std::collections::BTreeMap;

use backup_core::Position;

/// What the file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Metadata {
    pub(super) finished: bool,
    /// Rows by ``db.table``.
    pub(super) rows: BTreeMap<String, u64>,
    /// The files that have to be there, by what they begin and end with, and what is in them.
    pub(super) files: Vec<Promised>,
    /// Where the server's own binary log stood.
    pub(super) position: Position,
}

/// A file that mydumper says it wrote.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Promised {
    /// What the database is called in the names of its files; of one whose name is none for a file, something else.
    pub(super) database: String,
    /// The rest of its name.
    pub(super) ending: String,
    /// What it holds.
    pub(super) what: String,
}

/// How files of triggers end, one for a database or one for each table.
pub(super) const TRIGGERS: &str = "-schema-triggers.sql";

impl Metadata {
    /// Reads it; lines that are not known mean nothing.
    pub(super) fn parse(text: &str) -> Self {
        let mut metadata = Metadata::default();
        // A database, and a table of one: what it is called in the names of its files, and its own name.
        let (mut database, mut table) = (None, None);
        // Others are of the server that it replicates from.
        let mut own = false;
        for line in text.lines().map(str::trim) {
            match line {
                "SHOW MASTER STATUS:" | "[master]" | "[source]" => own = true,
                _ if line.starts_with("SHOW ") || line.starts_with('[') => own = false,
                _ if own => metadata.place(line),
                _ => {}
            }
            if line.starts_with("# Finished dump at") || line.starts_with("Finished dump at") {
                metadata.finished = true;
            } else if let Some(section) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                let name = section.strip_prefix('`').and_then(|s| s.strip_suffix('`'));
                let pair = name.and_then(|name| name.split_once("`.`"));
                database = name.filter(|_| pair.is_none());
                table = pair.map(|(database, called)| (database, called, called));
            } else if let (Some((database, called, table)), Some((key, value))) =
                (&mut table, line.split_once('='))
            {
                let ending = match (key.trim(), value.trim()) {
                    ("schema_checksum", _) => Some("-schema.sql"),
                    ("is_view", "1") => Some("-schema-view.sql"),
                    _ => None,
                };
                metadata.files.extend(ending.map(|ending| Promised {
                    database: (*database).to_owned(),
                    ending: format!(".{called}{ending}"),
                    what: format!("the definition of {database}.{table}"),
                }));
                match (key.trim(), value.trim().parse()) {
                    // Files of names that are none for a file are called otherwise.
                    ("real_table_name", _) => *table = value.trim(),
                    ("rows", Ok(rows)) => {
                        metadata.rows.insert(format!("{database}.{table}"), rows);
                    }
                    _ => {}
                }
            } else if let (Some(database), Some((key, value))) = (database, line.split_once('='))
                && !matches!(value.trim(), "" | "0")
            {
                metadata.promise(database, key.trim());
            }
        }
        metadata
    }

    /// A checksum of what a database has, which is in files of its own.
    fn promise(&mut self, database: &str, key: &str) {
        let (ending, what) = match key {
            "schema_checksum" => ("-schema-create.sql", "the definition"),
            "post_checksum" => ("-schema-post.sql", "the routines"),
            "events_checksum" => ("-schema-post.sql", "the events"),
            "triggers_checksum" => (TRIGGERS, "the triggers"),
            _ => return,
        };
        self.files.push(Promised {
            database: database.to_owned(),
            ending: ending.to_owned(),
            what: format!("{what} of {database}"),
        });
    }

    /// A line about the position: `Log: binlog.000001`, or of later releases `File = binlog.000001`.
    fn place(&mut self, line: &str) {
        let Some((key, value)) = line.split_once([':', '=']) else { return };
        let value = value.trim().trim_matches(['\'', '"']);
        let key = key.trim_start_matches(['#', ' ']).trim_end();
        match key.to_ascii_lowercase().as_str() {
            "log" | "file" | "source_log_file" | "master_log_file" if !value.is_empty() => {
                self.position.file = Some(value.to_owned());
            }
            "pos" | "position" | "source_log_pos" | "master_log_pos" => {
                self.position.offset = value.parse().ok();
            }
            "gtid" | "executed_gtid_set" if !value.is_empty() => {
                self.position.gtid = value.parse().ok();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Metadata;

    #[test]
    fn what_it_says_is_read() {
        let text = "# Started dump at: 2026-11-20 10:00:00\n[config]\nquote-character = BACKTICK\n\n\
                    [`shop`.`orders`]\nreal_table_name=orders\nrows = 512\n\n[`shop`.`mydumper_0`]\n\
                    real_table_name=we.ird\nrows = 1\n# Finished dump at: 2026-11-20 10:00:01\n";
        let metadata = Metadata::parse(text);
        assert!(metadata.finished);
        let rows = [("shop.orders".to_owned(), 512), ("shop.we.ird".to_owned(), 1)];
        assert_eq!(metadata.rows, rows.into());
        assert!(!Metadata::parse("# Started dump at: x\n").finished);

        let old = "Started dump at: x\nSHOW MASTER STATUS:\n\tLog: binlog.000002\n\tPos: 342\n\tGTID:0-1-7\n\n\
                   SHOW SLAVE STATUS:\n\tHost: h\n\tLog: other.000009\n\tPos: 4\n\nFinished dump at: x\n";
        let new = "[master]\nFile = binlog.000002\nPosition = 342\nExecuted_Gtid_Set = 0-1-7\n[config]\n\
                   file = x\n";
        let later = "[source]\n# Channel_Name = '' # It can be use to setup replication FOR CHANNEL\n\
                     # executed_gtid_set = \"0-1-7\"\n# SOURCE_LOG_FILE = \"binlog.000002\"\n# SOURCE_LOG_POS = 342\n";
        for text in [old, new, later] {
            let position = Metadata::parse(text).position;
            assert_eq!(position.file.as_deref(), Some("binlog.000002"), "{text}");
            assert_eq!(position.offset, Some(342), "{text}");
            assert_eq!(position.gtid.map(|gtid| gtid.to_string()).as_deref(), Some("0-1-7"));
        }
    }
}
