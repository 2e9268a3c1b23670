//! Where in its binlog a server is.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::gtid::GtidSet;

/// A place in the binlogs of a server, as far as it is known.
///
/// The GTID set means the same on every server of a cluster; file and offset only on the one that
/// wrote them.
///
/// ```
/// use backup_core::Position;
/// let position: Position = "binlog.000012:4711".parse()?;
/// assert_eq!(position.offset, Some(4711));
/// assert_eq!(position.to_string(), "binlog.000012:4711");
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The transactions up to this place; `None` where the server keeps no GTIDs, or has none yet.
    #[serde(default)]
    pub gtid: Option<GtidSet>,
    /// There are GTIDs, and which ones is not known; `gtid` is `None` then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gtid_unknown: bool,
    /// The binlog file, without a directory; `None` where the binlog is off.
    #[serde(default)]
    pub file: Option<String>,
    /// The offset in bytes into `file`.
    #[serde(default)]
    pub offset: Option<u64>,
}

impl Position {
    /// A place that is known by file and offset only.
    #[must_use]
    pub fn at(file: impl Into<String>, offset: u64) -> Self {
        Position { file: Some(file.into()), offset: Some(offset), ..Position::default() }
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.gtid.is_none() && self.file.is_none()
    }

    /// Compares file and offset; both must be of the same server. `None` when one of them is not
    /// known, or the files do not belong to one series.
    #[must_use]
    pub fn compare_file(&self, other: &Self) -> Option<Ordering> {
        let place = |p: &Self| Some((p.file.as_ref()?.parse::<BinlogFile>().ok()?, p.offset?));
        place(self)?.partial_cmp(&place(other)?)
    }

    /// Whether everything up to `other` is also up to here: by GTIDs where both have them, else by
    /// file and offset, which must then be of the same server. `None` when that cannot be said.
    #[must_use]
    pub fn covers(&self, other: &Self) -> Option<bool> {
        match (&self.gtid, &other.gtid) {
            (Some(here), Some(there)) => there.is_subset(here).ok(),
            _ => self.compare_file(other).map(Ordering::is_ge),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.offset) {
            (Some(file), Some(offset)) => write!(f, "{file}:{offset}")?,
            (Some(file), None) => f.write_str(file)?,
            (None, _) if self.gtid.is_none() => f.write_str("unknown position")?,
            (None, _) => {}
        }
        if self.gtid_unknown {
            f.write_str(" (GTIDs not known)")?;
        }
        if let Some(gtid) = &self.gtid {
            let space = if self.file.is_some() { " " } else { "" };
            if gtid.is_empty() {
                write!(f, "{space}(no GTIDs yet)")?;
            } else {
                write!(f, "{space}(GTID {gtid})")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Position {
    type Err = Error;

    /// Reads `FILE:POS`.
    fn from_str(text: &str) -> Result<Self> {
        let malformed = || {
            let shown: String = text.chars().take(80).collect();
            Error::usage(format!("\"{}\" is no binlog position", shown.escape_debug()))
                .with_remedy("write file and offset, such as binlog.000012:4711")
        };
        let (file, offset) = text.trim_ascii().rsplit_once(':').ok_or_else(malformed)?;
        let file: BinlogFile = file.parse()?;
        let digits = !offset.is_empty() && offset.bytes().all(|b| b.is_ascii_digit());
        let offset = digits.then(|| offset.parse().ok()).flatten().ok_or_else(malformed)?;
        Ok(Position::at(file.to_string(), offset))
    }
}

/// The name of a binlog file: a series, and a number that the server counts up.
///
/// Servers write the number with six digits, and with more once six do not suffice, so that names do
/// not sort as text: `binlog.999999` comes before `binlog.1000000`. MariaDB's InnoDB binlog counts
/// before its extension: `binlog-000003.ibb`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BinlogFile {
    /// All before the number, with the separator.
    prefix: String,
    number: u64,
    /// All after the number: nothing, or `.ibb`.
    extension: &'static str,
}

impl BinlogFile {
    const INNODB: &str = ".ibb";

    /// The number in the name.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether the two are of one series, so that their numbers can be compared.
    #[must_use]
    pub fn same_series(&self, other: &Self) -> bool {
        self.prefix == other.prefix && self.extension == other.extension
    }

    /// The file that the server opens after this one.
    #[must_use]
    pub fn next(&self) -> Self {
        BinlogFile { number: self.number.saturating_add(1), ..self.clone() }
    }

    /// The file that the server had open before this one; `None` for the first one.
    #[must_use]
    pub fn previous(&self) -> Option<Self> {
        let number = self.number.checked_sub(1).filter(|number| *number > 0)?;
        Some(BinlogFile { number, ..self.clone() })
    }
}

impl PartialOrd for BinlogFile {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.same_series(other).then(|| self.number.cmp(&other.number))
    }
}

impl fmt::Display for BinlogFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:06}{}", self.prefix, self.number, self.extension)
    }
}

impl FromStr for BinlogFile {
    type Err = Error;

    /// Refuses what no server writes: a directory, fewer than six digits, or more with a leading 0.
    fn from_str(name: &str) -> Result<Self> {
        let parse = || {
            let (stem, separator, extension) = match name.strip_suffix(BinlogFile::INNODB) {
                Some(stem) => (stem, '-', BinlogFile::INNODB),
                None => (name, '.', ""),
            };
            let digits = stem.len() - stem.trim_end_matches(|c: char| c.is_ascii_digit()).len();
            let (prefix, number) = stem.split_at(stem.len() - digits);
            let foreign = |c: char| c == '/' || c == '\\' || c.is_control();
            let valid = digits >= 6
                && (digits == 6 || !number.starts_with('0'))
                && prefix.len() > 1
                && prefix.ends_with(separator)
                && !prefix.contains(foreign);
            let number = valid.then(|| number.parse().ok()).flatten()?;
            Some(BinlogFile { prefix: prefix.to_owned(), number, extension })
        };
        parse().ok_or_else(|| {
            let shown: String = name.chars().take(80).collect();
            Error::usage(format!("\"{}\" is no name of a binlog file", shown.escape_debug()))
                .with_remedy("name it as SHOW BINARY LOGS does, such as binlog.000012")
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(name: &str) -> BinlogFile {
        name.parse().unwrap()
    }

    #[test]
    fn names_of_servers() {
        for (name, number, next) in [
            ("binlog.000001", 1, "binlog.000002"),
            ("mysql-bin-changelog.000099", 99, "mysql-bin-changelog.000100"),
            ("db.example.com-bin.999999", 999_999, "db.example.com-bin.1000000"),
            ("mariadb-bin.1234567", 1_234_567, "mariadb-bin.1234568"),
            ("binlog-000003.ibb", 3, "binlog-000004.ibb"),
            ("log2.000010", 10, "log2.000011"),
        ] {
            let parsed = file(name);
            assert_eq!(parsed.number(), number);
            assert_eq!(parsed.to_string(), name);
            assert_eq!(parsed.next(), file(next));
            assert!(parsed < parsed.next());
        }
    }

    #[test]
    fn what_no_server_writes_is_refused() {
        for name in [
            "",
            "binlog",
            "binlog.",
            ".000001",
            "binlog.12345",
            "binlog.0000012",
            "000001",
            "binlog000001",
            "../binlog.000001",
            "a\\b.000001",
            "a\n.000001",
            "binlog.000001.gz",
            "binlog-000001",
            "binlog.99999999999999999999",
            "binlog.٠٠٠٠٠١",
        ] {
            assert!(name.parse::<BinlogFile>().is_err(), "{name}");
        }
    }

    #[test]
    fn files_are_ordered_by_number_within_a_series() {
        assert!(file("binlog.999999") < file("binlog.1000000"));
        assert_eq!(file("a.000001").partial_cmp(&file("b.000002")), None);
        let at = |file, offset| Position::at(file, offset);
        assert_eq!(at("b.000002", 4).compare_file(&at("b.000001", 9000)), Some(Ordering::Greater));
        assert_eq!(at("b.000002", 4).compare_file(&at("b.000002", 5)), Some(Ordering::Less));
        assert_eq!(at("b.000002", 5).compare_file(&at("b.000002", 5)), Some(Ordering::Equal));
        assert_eq!(at("b.000002", 4).compare_file(&at("c.000001", 4)), None);
        assert_eq!(at("b.000002", 4).compare_file(&Position::default()), None);
    }

    #[test]
    fn gtids_decide_before_files() {
        let position = |gtid: &str, file: &str| Position {
            gtid: Some(gtid.parse().unwrap()),
            ..Position::at(file, 4)
        };
        let early = position("0-1-5", "a.000009");
        let late = position("0-2-6", "a.000001");
        assert_eq!(late.covers(&early), Some(true));
        assert_eq!(early.covers(&late), Some(false));
        assert_eq!(early.covers(&early), Some(true));
        let plain = Position::at("a.000005", 4);
        assert_eq!(plain.covers(&plain), Some(true));
        assert_eq!(early.covers(&plain), Some(true));
        assert_eq!(late.covers(&plain), Some(false));
        let foreign = position("3e11fa47-71ca-11e1-9e33-c80aa9429562:1", "a.000001");
        assert_eq!(foreign.covers(&early), None);
        assert_eq!(Position::default().covers(&early), None);
    }

    #[test]
    fn json_has_the_three_keys() {
        let position =
            Position { gtid: Some("0-1-5".parse().unwrap()), ..Position::at("b.000001", 4) };
        let json = serde_json::to_string(&position).unwrap();
        assert_eq!(json, r#"{"gtid":"0-1-5","file":"b.000001","offset":4}"#);
        assert_eq!(serde_json::from_str::<Position>(&json).unwrap(), position);
        let unknown = r#"{"gtid":null,"file":null,"offset":null}"#;
        assert_eq!(serde_json::to_string(&Position::default()).unwrap(), unknown);
        assert_eq!(serde_json::from_str::<Position>("{}").unwrap(), Position::default());
        assert!(serde_json::from_str::<Position>(r#"{"gtid":"nonsense"}"#).is_err());
    }

    #[test]
    fn people_read_positions() {
        let gtid = |text: &str| Some(text.parse().unwrap());
        let shown = |gtid, file: Option<&str>, offset| {
            Position { gtid, file: file.map(str::to_owned), offset, ..Position::default() }
                .to_string()
        };
        assert_eq!(shown(None, None, None), "unknown position");
        assert_eq!(shown(gtid("0-1-5"), None, None), "(GTID 0-1-5)");
        assert_eq!(shown(gtid(""), Some("b.000001"), Some(4)), "b.000001:4 (no GTIDs yet)");
        assert_eq!(shown(gtid("0-1-5"), Some("b.000001"), Some(4)), "b.000001:4 (GTID 0-1-5)");
    }

    #[test]
    fn malformed_positions_are_usage_errors() {
        for text in ["", "4", ":4", "binlog.000001", "binlog.000001:", "binlog.000001:+4", "x:4"] {
            let error = text.parse::<Position>().unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Usage, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC*|[a-z.:/-]{0,6}[0-9]{0,30}(:[0-9]{0,30})?") {
            let _ = text.parse::<Position>();
            if let Ok(file) = text.parse::<BinlogFile>() {
                prop_assert_eq!(file.to_string(), text);
            }
        }

        #[test]
        fn positions_survive_their_text(number in 0..u64::MAX, offset in any::<u64>()) {
            let text = format!("binlog.{number:06}:{offset}");
            prop_assert_eq!(text.parse::<Position>().unwrap().to_string(), text);
        }
    }
}
