//! What a server is: its flavor, its version, and what it can do.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};

/// The two families of servers that Holdfast knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavor {
    /// MySQL, and the servers built from it (Percona Server, RDS and Aurora for MySQL).
    MySql,
    /// MariaDB, and the servers built from it.
    MariaDb,
}

impl fmt::Display for Flavor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Flavor::MySql => "MySQL",
            Flavor::MariaDb => "MariaDB",
        })
    }
}

/// The version of a server.
///
/// Two versions are equal when flavor and numbers are, whatever else the text says; they are ordered
/// within a flavor only. Ask [`ServerVersion::capabilities`] what a server can do rather than
/// comparing numbers: MySQL went from 9.7 to 26.7.
///
/// ```
/// use backup_core::{Flavor, ServerVersion};
/// let v = ServerVersion::parse("5.5.5-10.11.19-MariaDB-log", "Debian 12")?;
/// assert_eq!((v.flavor(), v.series(), v.patch()), (Flavor::MariaDb, (10, 11), 19));
/// assert!(v.capabilities().backup_stage);
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(into = "Recorded", try_from = "Recorded")]
pub struct ServerVersion {
    flavor: Flavor,
    major: u16,
    minor: u16,
    patch: u16,
    build: Option<u32>,
    text: String,
}

/// How a version is written down: the flavor cannot always be told from the text alone.
#[derive(Serialize, Deserialize)]
struct Recorded {
    flavor: Flavor,
    version: String,
}

/// What MariaDB before 11.0 puts in front of its version in the greeting, because replicas of
/// MySQL 5.x refuse a source whose version does not start with "5".
const REPLICATION_PREFIX: &str = "5.5.5-";

/// A version longer than this is not one; `SERVER_VERSION_LENGTH` of both servers is 60.
const MAX_TEXT: usize = 255;

impl ServerVersion {
    /// Reads what `SELECT VERSION()` says; `comment` is `@@version_comment`, which knows the flavor
    /// where the version was renamed (`--version=` of MariaDB), and may be empty.
    ///
    /// Takes two to four numbers (`26.7`, `8.0.36`, `8.0.36-28`, `8.0.36.28`) and ignores what
    /// follows (`-log`, `-MariaDB-0+deb12u1`, `.mysql_aurora.3.04.0`).
    ///
    /// # Errors
    /// [`ErrorKind::Source`] when `version` does not start with two numbers below 65536, is longer
    /// than 255 bytes, or holds control characters.
    pub fn parse(version: &str, comment: &str) -> Result<Self> {
        Self::parse_as(None, version, comment)
    }

    /// Reads the version that the greeting of the protocol carries.
    ///
    /// # Errors
    /// See [`ServerVersion::parse`].
    pub fn from_greeting(version: &str) -> Result<Self> {
        Self::parse(version, "")
    }

    fn parse_as(flavor: Option<Flavor>, version: &str, comment: &str) -> Result<Self> {
        let invalid = || {
            let shown: String = version.chars().take(60).collect();
            Error::new(
                ErrorKind::Source,
                format!("cannot read the server version \"{}\"", shown.escape_debug()),
            )
            .with_remedy("check that the address is that of a MySQL or MariaDB server")
        };
        let text = version.trim();
        if text.len() > MAX_TEXT || text.chars().any(char::is_control) {
            return Err(invalid());
        }
        let unprefixed = text
            .strip_prefix(REPLICATION_PREFIX)
            .filter(|rest| leading_number::<u16>(rest).is_some_and(|(_, r)| r.starts_with('.')));

        let (major, rest) = leading_number(unprefixed.unwrap_or(text)).ok_or_else(invalid)?;
        let (minor, rest) = rest.strip_prefix('.').and_then(leading_number).ok_or_else(invalid)?;
        let (patch, rest) = match rest.strip_prefix('.') {
            // More digits than a number holds are no patch level; a word (Aurora) is a suffix.
            Some(tail) if tail.starts_with(|c: char| c.is_ascii_digit()) => {
                leading_number(tail).ok_or_else(invalid)?
            }
            _ => (0, rest),
        };
        let build = rest
            .strip_prefix(['-', '.'])
            .and_then(leading_number)
            .filter(|(_, rest)| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
            .map(|(build, _)| build);

        let says_mariadb = |s: &str| s.to_ascii_lowercase().contains("mariadb");
        // No MySQL was ever numbered 10 to 25, so a build that hides its name is MariaDB there.
        let is_mariadb = says_mariadb(text) || says_mariadb(comment) || (10..=25).contains(&major);
        let flavor = flavor.unwrap_or(if is_mariadb { Flavor::MariaDb } else { Flavor::MySql });
        Ok(ServerVersion { flavor, major, minor, patch, build, text: text.to_owned() })
    }

    /// MySQL or MariaDB.
    #[must_use]
    pub fn flavor(&self) -> Flavor {
        self.flavor
    }

    /// The first two numbers: what backup tools must match (an 8.4 tool for an 8.4 server).
    #[must_use]
    pub fn series(&self) -> (u16, u16) {
        (self.major, self.minor)
    }

    /// The third number; 0 where the server does not say it.
    #[must_use]
    pub fn patch(&self) -> u16 {
        self.patch
    }

    /// The fourth number: the release of Percona Server (`8.0.36-28`) or MariaDB Enterprise.
    #[must_use]
    pub fn build(&self) -> Option<u32> {
        self.build
    }

    /// What the server said, unchanged.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether this is `major.minor.patch` of its flavor, or later.
    #[must_use]
    pub fn at_least(&self, major: u16, minor: u16, patch: u16) -> bool {
        (self.major, self.minor, self.patch) >= (major, minor, patch)
    }

    /// What this server can do, as far as its version tells.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        Capabilities::of(self)
    }

    fn numbers(&self) -> (u16, u16, u16, Option<u32>) {
        (self.major, self.minor, self.patch, self.build)
    }
}

/// Splits a decimal number off the front; `None` where there is none or it does not fit.
fn leading_number<T: std::str::FromStr>(text: &str) -> Option<(T, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

impl PartialEq for ServerVersion {
    fn eq(&self, other: &Self) -> bool {
        self.flavor == other.flavor && self.numbers() == other.numbers()
    }
}

impl Eq for ServerVersion {}

impl PartialOrd for ServerVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        (self.flavor == other.flavor).then(|| self.numbers().cmp(&other.numbers()))
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}.{}.{}", self.flavor, self.major, self.minor, self.patch)?;
        self.build.map_or(Ok(()), |build| write!(f, "-{build}"))
    }
}

impl From<ServerVersion> for Recorded {
    fn from(version: ServerVersion) -> Self {
        Recorded { flavor: version.flavor, version: version.text }
    }
}

impl TryFrom<Recorded> for ServerVersion {
    type Error = Error;

    fn try_from(recorded: Recorded) -> Result<Self> {
        ServerVersion::parse_as(Some(recorded.flavor), &recorded.version, "")
    }
}

/// What a server of a version can do.
///
/// "Can" is what the version has built in; whether it is switched on, installed or allowed is for a
/// preflight to ask. The versions are those of the vendors' release notes and manuals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Capabilities {
    /// `LOCK INSTANCE FOR BACKUP` blocks DDL but not DML. MySQL 8.0.3.
    pub backup_lock: bool,
    /// `BACKUP STAGE START … END`. MariaDB 10.4.1.
    pub backup_stage: bool,
    /// `performance_schema.log_status` gives GTIDs, binlog position and LSN in one row. MySQL
    /// 8.0.11.
    pub log_status: bool,
    /// The status variables `Binlog_snapshot_file` and `Binlog_snapshot_position` belong to the
    /// snapshot of the connection. MariaDB 5.3.
    pub binlog_snapshot_status: bool,
    /// `SHOW BINARY LOG STATUS`. MySQL 8.2.0; `SHOW MASTER STATUS` is gone since 8.4.0.
    pub show_binary_log_status: bool,
    /// `SHOW BINLOG STATUS`, beside `SHOW MASTER STATUS`, and the privilege BINLOG MONITOR. MariaDB
    /// 10.5.2.
    pub show_binlog_status: bool,
    /// `SHOW REPLICA STATUS`. MySQL 8.0.22 (the old word is gone since 8.4.0), MariaDB 10.5.1.
    pub show_replica_status: bool,
    /// GTIDs with a tag, `uuid:tag:number`. MySQL 8.3.0.
    pub tagged_gtids: bool,
    /// The binlog may be kept in InnoDB's page format (`.ibb`), so that its files cannot be copied
    /// as they are. MariaDB 12.3.
    pub innodb_binlog: bool,
    /// The clone plugin. MySQL 8.0.17.
    pub clone_plugin: bool,
    /// New accounts sign in with `caching_sha2_password` unless told otherwise. MySQL 8.0.4.
    pub caching_sha2_default: bool,
    /// Roles. MySQL 8.0.0, MariaDB 10.0.5.
    pub roles: bool,
    /// Columns that `SELECT *` leaves out. MySQL 8.0.23, MariaDB 10.3.3.
    pub invisible_columns: bool,
    /// `information_schema.COLUMNS.GENERATION_EXPRESSION`. MySQL 5.7.6, MariaDB 10.2.5.
    pub generated_columns: bool,
    /// CHECK constraints that are enforced. MySQL 8.0.16, MariaDB 10.2.1.
    pub check_constraints: bool,
    /// `CREATE SEQUENCE`. MariaDB 10.3.0.
    pub sequences: bool,
    /// `WITH SYSTEM VERSIONING`. MariaDB 10.3.4.
    pub system_versioning: bool,
    /// `CREATE PACKAGE`. MariaDB 10.3.5.
    pub packages: bool,
    /// JSON is a type of its own (MySQL 5.7.8); in MariaDB it is LONGTEXT with a CHECK.
    pub native_json: bool,
    /// The type VECTOR. MySQL 9.0.0, MariaDB 11.7.1.
    pub vector: bool,
    /// The type INET6. MariaDB 10.5.0.
    pub inet6: bool,
    /// The type UUID. MariaDB 10.7.0.
    pub uuid: bool,
    /// The type INET4. MariaDB 10.10.0.
    pub inet4: bool,
}

impl Capabilities {
    fn of(version: &ServerVersion) -> Self {
        let since = |flavor| {
            move |major, minor, patch| {
                version.flavor == flavor && version.at_least(major, minor, patch)
            }
        };
        let mysql = since(Flavor::MySql);
        let mariadb = since(Flavor::MariaDb);
        Capabilities {
            backup_lock: mysql(8, 0, 3),
            backup_stage: mariadb(10, 4, 1),
            log_status: mysql(8, 0, 11),
            binlog_snapshot_status: mariadb(5, 3, 0),
            show_binary_log_status: mysql(8, 2, 0),
            show_binlog_status: mariadb(10, 5, 2),
            show_replica_status: mysql(8, 0, 22) || mariadb(10, 5, 1),
            tagged_gtids: mysql(8, 3, 0),
            innodb_binlog: mariadb(12, 3, 0),
            clone_plugin: mysql(8, 0, 17),
            caching_sha2_default: mysql(8, 0, 4),
            roles: mysql(8, 0, 0) || mariadb(10, 0, 5),
            invisible_columns: mysql(8, 0, 23) || mariadb(10, 3, 3),
            generated_columns: mysql(5, 7, 6) || mariadb(10, 2, 5),
            check_constraints: mysql(8, 0, 16) || mariadb(10, 2, 1),
            sequences: mariadb(10, 3, 0),
            system_versioning: mariadb(10, 3, 4),
            packages: mariadb(10, 3, 5),
            native_json: mysql(5, 7, 8),
            vector: mysql(9, 0, 0) || mariadb(11, 7, 1),
            inet6: mariadb(10, 5, 0),
            uuid: mariadb(10, 7, 0),
            inet4: mariadb(10, 10, 0),
        }
    }

    /// The statement that shows the current binlog file and position.
    ///
    /// MariaDB keeps the old statement as an alias, so it is used there for every version.
    #[must_use]
    pub fn binlog_status_statement(&self) -> &'static str {
        if self.show_binary_log_status { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" }
    }

    /// The statement that shows the state of replication.
    #[must_use]
    pub fn replica_status_statement(&self) -> &'static str {
        if self.show_replica_status { "SHOW REPLICA STATUS" } else { "SHOW SLAVE STATUS" }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(text: &str) -> ServerVersion {
        ServerVersion::parse(text, "").unwrap()
    }

    #[test]
    fn versions_that_servers_print() {
        use Flavor::{MariaDb, MySql};
        for (text, flavor, numbers) in [
            ("5.7.44-log", MySql, (5, 7, 44, None)),
            ("8.0.36", MySql, (8, 0, 36, None)),
            ("8.0.36-28", MySql, (8, 0, 36, Some(28))),
            ("8.0.36-28.1", MySql, (8, 0, 36, Some(28))),
            ("8.0.36-28-debug", MySql, (8, 0, 36, Some(28))),
            ("8.0.42-0ubuntu0.22.04.2", MySql, (8, 0, 42, None)),
            ("8.0.40-u2-cloud", MySql, (8, 0, 40, None)),
            ("8.4.0", MySql, (8, 4, 0, None)),
            ("9.7.4-2", MySql, (9, 7, 4, Some(2))),
            ("9.7.4.1-commercial", MySql, (9, 7, 4, Some(1))),
            ("26.7.0", MySql, (26, 7, 0, None)),
            ("26.10", MySql, (26, 10, 0, None)),
            ("8.0.mysql_aurora.3.04.0", MySql, (8, 0, 0, None)),
            ("8.0.35-rds.20240529", MySql, (8, 0, 35, None)),
            ("10.11.19-MariaDB-0+deb12u1-log", MariaDb, (10, 11, 19, None)),
            ("5.5.5-10.11.19-MariaDB", MariaDb, (10, 11, 19, None)),
            ("5.5.5-10.6.18-14-MariaDB-enterprise-log", MariaDb, (10, 6, 18, Some(14))),
            ("11.8.9-MariaDB-4 from Debian", MariaDb, (11, 8, 9, None)),
            ("12.3.1-MariaDB-log", MariaDb, (12, 3, 1, None)),
            ("13.0.1-MariaDB", MariaDb, (13, 0, 1, None)),
            ("10.6.14", MariaDb, (10, 6, 14, None)),
            // A real 5.5.5, not the prefix.
            ("5.5.5-m3-log", MySql, (5, 5, 5, None)),
        ] {
            let v = version(text);
            assert_eq!((v.flavor(), v.numbers()), (flavor, numbers), "{text}");
            assert_eq!(v.as_str(), text);
        }
    }

    #[test]
    fn the_comment_tells_a_renamed_mariadb() {
        let v = ServerVersion::parse("5.7.30-log", "mariadb.org binary distribution").unwrap();
        assert_eq!(v.flavor(), Flavor::MariaDb);
        let v = ServerVersion::parse("5.7.30-33", "Percona Server (GPL), Release 33").unwrap();
        assert_eq!(v.flavor(), Flavor::MySql);
    }

    #[test]
    fn what_is_no_version_is_an_error_of_the_source() {
        let long = format!("8.0.36-{}", "x".repeat(300));
        for text in [
            "",
            " ",
            "8",
            "8.",
            "8.x",
            "x.8.0",
            "-8.0.1",
            "70000.0.1",
            "8.0.70000",
            "8.0\n.1",
            "٨.٠.٣",
            &long,
        ] {
            let error = ServerVersion::parse(text, "").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Source, "{text}");
            assert!(error.report().len() < 400);
        }
    }

    #[test]
    fn versions_are_ordered_within_a_flavor_only() {
        let sorted =
            ["5.7.44", "8.0.4", "8.0.36", "8.0.36-28", "8.0.36-30", "8.4.0", "9.7.4", "26.7.0"]
                .map(version);
        assert!(sorted.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(version("8.0.36-log"), version("8.0.36"));
        assert_eq!(version("10.11.2-MariaDB").partial_cmp(&version("9.7.4")), None);
        assert_ne!(
            ServerVersion::parse("5.7.30", "MariaDB Server").unwrap(),
            ServerVersion::parse("5.7.30", "").unwrap()
        );
    }

    #[test]
    fn a_recorded_version_keeps_flavor_and_text() {
        let renamed = ServerVersion::parse("5.7.30-log", "MariaDB Server").unwrap();
        let json = serde_json::to_string(&renamed).unwrap();
        assert_eq!(json, r#"{"flavor":"mariadb","version":"5.7.30-log"}"#);
        let read: ServerVersion = serde_json::from_str(&json).unwrap();
        assert_eq!(read, renamed);
        assert_eq!(read.to_string(), "MariaDB 5.7.30");
        assert_eq!(version("8.0.36-28").to_string(), "MySQL 8.0.36-28");
    }

    #[test]
    fn capabilities_follow_the_version() {
        let of = |text| version(text).capabilities();

        let old = of("5.7.44-log");
        assert!(old.generated_columns && old.native_json);
        assert!(!old.backup_lock && !old.log_status && !old.clone_plugin && !old.roles);
        assert_eq!(old.binlog_status_statement(), "SHOW MASTER STATUS");
        assert_eq!(old.replica_status_statement(), "SHOW SLAVE STATUS");

        let lts = of("8.0.36");
        assert!(lts.backup_lock && lts.log_status && lts.clone_plugin && lts.invisible_columns);
        assert!(!lts.tagged_gtids && !lts.vector && !lts.show_binary_log_status);
        assert!(!of("8.0.16").clone_plugin && !of("8.0.22").invisible_columns);
        assert!(!of("8.0.15").check_constraints && of("8.0.16").check_constraints);

        assert!(of("8.2.0").show_binary_log_status && !of("8.2.0").tagged_gtids);
        assert!(of("8.4.0").tagged_gtids);

        // Calendar versions have all that 9.x has.
        assert_eq!(of("26.7.0"), of("9.7.4"));
        assert_eq!(of("26.7").binlog_status_statement(), "SHOW BINARY LOG STATUS");
        assert_eq!(of("9.7.4").replica_status_statement(), "SHOW REPLICA STATUS");

        let maria = of("10.11.19-MariaDB");
        assert!(maria.backup_stage && maria.binlog_snapshot_status && maria.sequences);
        assert!(maria.inet6 && maria.uuid && maria.inet4 && maria.system_versioning);
        assert!(!maria.vector && !maria.backup_lock && !maria.native_json && !maria.innodb_binlog);
        assert_eq!(maria.binlog_status_statement(), "SHOW MASTER STATUS");
        assert!(of("11.7.1-MariaDB").vector && of("12.3.1-MariaDB").innodb_binlog);
        assert!(!of("10.4.0-MariaDB").backup_stage && !of("10.9.9-MariaDB").inet4);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>(), comment in any::<String>()) {
            let _ = ServerVersion::parse(&text, &comment);
        }

        #[test]
        fn numbers_survive_any_suffix(
            (major, minor, patch) in any::<(u16, u16, u16)>(),
            suffix in "(-[a-z][ -~]{0,40})?",
        ) {
            let v = version(&format!("{major}.{minor}.{patch}{suffix}"));
            prop_assert_eq!(v.numbers(), (major, minor, patch, None));
        }
    }
}
