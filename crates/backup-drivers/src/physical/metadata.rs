//! The files in which tools say what a backup is.

use backup_core::{Error, Flavor, GtidSet, Position, Result};

/// `xtrabackup_checkpoints`, `mariadb_backup_checkpoints`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoints {
    /// `full-backuped`, `incremental`, `log-applied`, `full-prepared`.
    pub backup_type: String,
    /// Where an increment begins; 0 for a full backup.
    pub from_lsn: u64,
    /// The checkpoint that the next increment begins at.
    pub to_lsn: u64,
    /// The end of the redo log that was copied.
    pub last_lsn: u64,
}

impl Checkpoints {
    /// Reads the file.
    ///
    /// # Errors
    /// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when a value is missing, comes twice, or is no
    /// number.
    pub fn parse(text: &str) -> Result<Checkpoints> {
        let bad = |name: &str| {
            Error::damaged(format!("the tool's file of checkpoints has no valid {name}"))
        };
        let value = |name: &str| {
            let mut found = text.lines().filter_map(|line| {
                let (key, value) = line.split_once('=')?;
                (key.trim() == name).then(|| value.trim())
            });
            match (found.next(), found.next()) {
                (Some(value), None) if !value.is_empty() => Ok(value),
                _ => Err(bad(name)),
            }
        };
        let number = |name: &str| value(name)?.parse::<u64>().map_err(|_| bad(name));
        Ok(Checkpoints {
            backup_type: value("backup_type")?.chars().take(40).collect(),
            from_lsn: number("from_lsn")?,
            to_lsn: number("to_lsn")?,
            last_lsn: number("last_lsn")?,
        })
    }
}

/// A value of `xtrabackup_info`, `mariadb_backup_info`: lines `name = value`.
#[must_use]
pub fn info_value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(" = ")?;
        (key.trim() == name).then(|| value.trim())
    })
}

/// The position in `xtrabackup_binlog_info`, `mariadb_backup_binlog_info`: file, offset and GTIDs, separated by
/// tabs. MariaDB may write several lines: the last one counts. MySQL breaks long sets over lines.
///
/// # Errors
/// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when it is none.
pub fn binlog_position(text: &str, flavor: Flavor) -> Result<Position> {
    let bad = || Error::damaged("the tool's file of the binlog position cannot be understood");
    let joined;
    let line = match flavor {
        Flavor::MariaDb => text.lines().rfind(|line| !line.trim().is_empty()).ok_or_else(bad)?,
        Flavor::MySql => {
            joined = text.lines().collect::<String>();
            joined.as_str()
        }
    };
    let mut fields = line.split('\t').map(str::trim);
    let file = fields.next().filter(|file| !file.is_empty()).ok_or_else(bad)?;
    let offset = fields.next().and_then(|text| text.parse().ok()).ok_or_else(bad)?;
    let gtid = match fields.next().filter(|text| !text.is_empty()) {
        Some(text) => Some(text.parse::<GtidSet>().map_err(|e| bad().with_source(e))?),
        None => None,
    };
    let file = file.parse::<backup_core::BinlogFile>().map_err(|e| bad().with_source(e))?;
    Ok(Position { gtid, ..Position::at(file.to_string(), offset) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "backup_type = full-backuped\nfrom_lsn = 0\nto_lsn = 44760\nlast_lsn = 7119390\nrecover_binlog_info = 0\n";

    #[test]
    fn checkpoints_are_whole_or_refused() {
        let read = Checkpoints::parse(GOOD).unwrap();
        assert_eq!((read.from_lsn, read.to_lsn, read.last_lsn), (0, 44_760, 7_119_390));
        for (from, to) in [
            ("to_lsn", "other"),
            ("44760", "x"),
            ("from_lsn = 0", "to_lsn = 0"),
            ("last_lsn = 7119390", "last_lsn ="),
        ] {
            assert!(Checkpoints::parse(&GOOD.replace(from, to)).is_err(), "{to}");
        }
    }

    #[test]
    fn positions_of_both_servers() {
        let mariadb = "binlog.000001\t1200\t0-1-7\nbinlog.000002\t1855\t0-1-9,1-2-3\n";
        let at = binlog_position(mariadb, Flavor::MariaDb).unwrap();
        assert_eq!(at.to_string(), "binlog.000002:1855 (GTID 0-1-9,1-2-3)");
        let mysql = "binlog.000003\t157\t3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5,\n4e11fa47-71ca-11e1-9e33-c80aa9429562:1\n";
        let at = binlog_position(mysql, Flavor::MySql).unwrap();
        assert!(at.gtid.unwrap().to_string().ends_with("562:1"));
        assert_eq!(binlog_position("binlog.000003\t157\n", Flavor::MySql).unwrap().gtid, None);
        for bad in ["", "binlog.000003", "binlog.000003\tx", "../b.000003\t4", "\t4"] {
            assert!(binlog_position(bad, Flavor::MariaDb).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_of_the_info_file() {
        let text =
            "uuid = f1\nname = \ntool_command = --x = y\nserver_version = 10.11.19-MariaDB\n";
        assert_eq!(info_value(text, "server_version"), Some("10.11.19-MariaDB"));
        assert_eq!(info_value(text, "tool_command"), Some("--x = y"));
        assert_eq!(info_value(text, "nothing"), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "([a-z_]{0,9} ?= ?[0-9a-z]{0,22}\n?|\\PC{0,20}\t?){0,5}") {
            let _ = Checkpoints::parse(&text);
            let _ = binlog_position(&text, Flavor::MySql);
            let _ = binlog_position(&text, Flavor::MariaDb);
            let _ = info_value(&text, "a");
        }
    }
}
