//! What a statement of a binlog was run under, and how a session is brought into that state.
//!
//! Numbers of the status variables of a QUERY: `Query_event_status_vars` of MySQL
//! (`libs/mysql/binlog/event/statement_events.h`), `Q_…_CODE` of MariaDB (`sql/log_event.h`). They stand in
//! rising order but for those of MariaDB from 128 on, of which 131 stands in the middle; the length of one
//! that is not known is not known either, and everything behind it is lost.

use backup_core::{Error, Flavor, Result, ServerVersion};

use super::super::super::event::{Format, Header};
use super::super::super::inflate;
use super::super::super::read::Reader;

/// A QUERY with everything that it was run under.
#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct Statement {
    pub(in super::super) thread: u32,
    pub(in super::super) error: u16,
    pub(in super::super) database: Vec<u8>,
    pub(in super::super) sql: Vec<u8>,
    /// Assignments that the session needs before it.
    pub(in super::super) settings: Vec<String>,
}

const NO_FOREIGN_KEY_CHECKS: u32 = 1 << 26;
const RELAXED_UNIQUE_CHECKS: u32 = 1 << 27;
const AUTO_IS_NULL: u32 = 1 << 14;
/// MariaDB.
const NO_CHECK_CONSTRAINTS: u32 = 1 << 15;
/// MariaDB.
const EXPLICIT_DEFAULTS: u32 = 1 << 24;
/// MariaDB: IF EXISTS is meant everywhere.
const IF_EXISTS: u32 = 1 << 28;
/// MariaDB: rows of the past may be inserted.
const INSERT_HISTORY: u32 = 1 << 30;

/// Settings that not every server knows, as they are where a server does not know them.
const NEUTRAL: [&str; 3] =
    ["sql_if_exists = 0", "system_versioning_insert_history = 0", "character_set_collations = ''"];
/// `ER_UNKNOWN_SYSTEM_VARIABLE`
const UNKNOWN_VARIABLE: u16 = 1193;

/// Whether a server refuses a setting because it does not know it, and is as it says.
pub(in super::super) fn needs_no_setting(setting: &str, error: &Error) -> bool {
    NEUTRAL.contains(&setting) && error.server().is_some_and(|said| said.code == UNKNOWN_VARIABLE)
}

/// What is known of the server that wrote a binlog.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Writer {
    flavor: Flavor,
    /// MariaDB: it writes [`IF_EXISTS`].
    if_exists: bool,
    /// MariaDB: it writes [`EXPLICIT_DEFAULTS`].
    explicit_defaults: bool,
}

impl Writer {
    pub(in super::super) fn flavor(self) -> Flavor {
        self.flavor
    }

    /// Of a file with this format.
    pub(in super::super) fn of(format: &Format) -> Self {
        let flavor = if format.is_mariadb() { Flavor::MariaDb } else { Flavor::MySql };
        let version = ServerVersion::parse(&format.version, "").ok();
        let since = |major, minor, patch| {
            version.as_ref().is_none_or(|version| version.at_least(major, minor, patch))
        };
        // `Format_description_log_event::deduct_options_written_to_bin_log`
        let first = [(10, 5, 17), (10, 6, 9), (10, 7, 5), (10, 8, 4), (10, 9, 2), (10, 10, 0)];
        let explicit_defaults = first.iter().enumerate().any(|(n, &(major, minor, patch))| {
            let before_next = first.get(n + 1).is_none_or(|&(_, next, _)| !since(10, next, 0));
            since(major, minor, patch) && (n + 1 == first.len() || before_next)
        });
        Writer { flavor, if_exists: since(10, 5, 2), explicit_defaults }
    }
}

impl Statement {
    /// Reads the body of a QUERY, or of an EXECUTE_LOAD_QUERY, which has `extra` bytes more in front of
    /// its status variables. Gives those bytes too.
    pub(in super::super) fn read(
        writer: Writer,
        header: &Header,
        body: &[u8],
        extra: usize,
        compressed: bool,
    ) -> Result<(Statement, Vec<u8>)> {
        Statement::parse(writer, header, body, extra, compressed)
            .ok_or_else(|| Error::damaged("a QUERY event cannot be read"))
    }

    fn parse(
        writer: Writer,
        header: &Header,
        body: &[u8],
        extra: usize,
        compressed: bool,
    ) -> Option<(Statement, Vec<u8>)> {
        // thread u32, seconds u32, length of the database u8, error u16, length of the status u16
        let mut body = Reader::new(body);
        let thread = body.u32()?;
        body.skip(4)?;
        let database = body.u8()?;
        let error = body.u16()?;
        let status = body.u16()?;
        let extra = body.take(extra)?.to_vec();
        let status = body.take(status.into())?;
        let database = body.take(database.into())?.to_vec();
        body.skip(1)?;
        let sql = match compressed {
            false => body.rest().to_vec(),
            true => inflate::mariadb(body.rest())?,
        };
        let settings = settings(writer, header, status)?;
        Some((Statement { thread, error, database, sql, settings }, extra))
    }
}

/// The assignments for the status variables; `None` where they are cut off.
fn settings(writer: Writer, header: &Header, status: &[u8]) -> Option<Vec<String>> {
    let mut set = Vec::new();
    let mut micros = 0;
    let mut collation_database = "DEFAULT".to_owned();
    let (mut increment, mut offset) = (1, 1);
    let mut names = "0".to_owned();
    let mut zone = None;
    let mut collations = "''".to_owned();
    let flavor = writer.flavor;
    let on = |flag: bool| u8::from(flag);
    let mut vars = Reader::new(status);
    while let Some(code) = vars.u8() {
        match code {
            0 => {
                let flags = vars.u32()?;
                let without = |flag| on(flags & flag == 0);
                set.push(format!("foreign_key_checks = {}", without(NO_FOREIGN_KEY_CHECKS)));
                set.push(format!("unique_checks = {}", without(RELAXED_UNIQUE_CHECKS)));
                set.push(format!("sql_auto_is_null = {}", on(flags & AUTO_IS_NULL != 0)));
                if flavor == Flavor::MariaDb {
                    let checks = without(NO_CHECK_CONSTRAINTS);
                    set.push(format!("check_constraint_checks = {checks}"));
                    let history = on(flags & INSERT_HISTORY != 0);
                    set.push(format!("system_versioning_insert_history = {history}"));
                    if writer.if_exists {
                        set.push(format!("sql_if_exists = {}", on(flags & IF_EXISTS != 0)));
                    }
                    if writer.explicit_defaults {
                        let explicit = on(flags & EXPLICIT_DEFAULTS != 0);
                        set.push(format!("explicit_defaults_for_timestamp = {explicit}"));
                    }
                }
            }
            1 => set.push(format!("sql_mode = {}", vars.u64()?)),
            2 => {
                let len = vars.u8()?;
                vars.skip(usize::from(len) + 1)?;
            }
            3 => (increment, offset) = (vars.u16()?, vars.u16()?),
            4 => {
                set.push(format!("character_set_client = {}", vars.u16()?));
                set.push(format!("collation_connection = {}", vars.u16()?));
                set.push(format!("collation_server = {}", vars.u16()?));
            }
            5 => {
                let len = vars.u8()?;
                zone = Some(std::str::from_utf8(vars.take(len.into())?).ok()?.to_owned());
            }
            6 => {
                let len = vars.u8()?;
                vars.skip(len.into())?;
            }
            7 => names = vars.u16()?.to_string(),
            8 => collation_database = vars.u16()?.to_string(),
            9 => drop(vars.u64()?),
            10 => drop(vars.u32()?),
            11 => {
                for _ in 0..2 {
                    let len = vars.u8()?;
                    vars.skip(len.into())?;
                }
            }
            12 => {
                let count = vars.u8()?;
                // 254: too many to be named.
                for _ in 0..if count == 254 { 0 } else { count } {
                    while vars.u8()? != 0 {}
                }
            }
            13 => micros = vars.uint(3)?,
            16 if flavor == Flavor::MySql => {
                set.push(format!("explicit_defaults_for_timestamp = {}", on(vars.u8()? != 0)));
            }
            17 if flavor == Flavor::MySql => drop(vars.u64()?),
            18 if flavor == Flavor::MySql => {
                set.push(format!("default_collation_for_utf8mb4 = {}", vars.u16()?));
            }
            19 if flavor == Flavor::MySql => {
                set.push(format!("sql_require_primary_key = {}", on(vars.u8()? != 0)));
            }
            20 if flavor == Flavor::MySql => {
                set.push(format!("default_table_encryption = {}", on(vars.u8()? != 0)));
            }
            128 => micros = vars.uint(3)?,
            129 => drop(vars.u64()?),
            // Of an ALTER TABLE in two halves, of which the second one says where the first one is.
            130 => {
                const COMMIT_OR_ROLLBACK: u8 = 4 | 8;
                if vars.u8()? & COMMIT_OR_ROLLBACK != 0 {
                    vars.u64()?;
                }
            }
            // u8 count, then a collation that stands for its character set, and its default collation, u16 each
            131 if flavor == Flavor::MariaDb => {
                let count = vars.u8()?;
                let pairs: Option<Vec<String>> =
                    (0..count).map(|_| Some(format!("{}:{}", vars.u16()?, vars.u16()?))).collect();
                collations = pairs?.join(",");
            }
            // Nothing behind it can be read; those before are what statements depend on.
            _ => break,
        }
    }
    set.push(format!("auto_increment_increment = {increment}"));
    set.push(format!("auto_increment_offset = {offset}"));
    set.push(format!("lc_time_names = {names}"));
    set.push(format!("collation_database = {collation_database}"));
    if flavor == Flavor::MariaDb {
        set.push(format!("character_set_collations = {collations}"));
    }
    if let Some(zone) = zone {
        set.push(format!("time_zone = '{}'", zone.replace('\'', "''")));
    }
    set.push(format!("timestamp = {}.{micros:06}", header.time));
    Some(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_statement_was_run_under() {
        let header = Header { time: 7, kind: 2, server_id: 1, len: 0, end: 0, flags: 0 };
        let mysql = Writer { flavor: Flavor::MySql, if_exists: true, explicit_defaults: true };
        let status = [
            &[0, 0, 0, 0, 4, 1][..],
            &[5, 0, 0, 0, 0, 0, 0, 0],
            &[4, 45, 0, 45, 0, 255, 0, 5, 6],
            b"+02:00",
            &[13, 1, 0, 0],
        ]
        .concat();
        let mut body = vec![9, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, status.len() as u8, 0];
        body.extend(&status);
        body.extend(b"d\0SELECT 1");
        let (statement, _) = Statement::read(mysql, &header, &body, 0, false).unwrap();
        assert_eq!((statement.thread, &statement.sql[..]), (9, &b"SELECT 1"[..]));
        let set = statement.settings.join(", ");
        for part in [
            "foreign_key_checks = 0",
            "unique_checks = 1",
            "sql_mode = 5",
            "collation_server = 255",
            "time_zone = '+02:00'",
            "timestamp = 7.000001",
            "collation_database = DEFAULT",
        ] {
            assert!(set.contains(part), "{part}: {set}");
        }
        for end in 0..body.len() {
            let _ = Statement::read(mysql, &header, &body[..end], 0, false);
        }
    }

    #[test]
    fn what_only_mariadb_writes() {
        let header = Header { time: 7, kind: 2, server_id: 1, len: 0, end: 0, flags: 0 };
        let status = [
            // All flags but foreign keys.
            &[0, 0, 0xc0, 0, 0x59][..],
            // In the middle, as the server writes it.
            &[131, 1, 45, 0, 0, 9],
            &[4, 45, 0, 45, 0, 45, 0],
            &[130, 8, 1, 2, 3, 4, 5, 6, 7, 8],
            &[128, 2, 0, 0],
        ]
        .concat();
        let mut body = vec![9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, status.len() as u8, 0];
        body.extend(&status);
        body.extend(b"\0SELECT 1");
        let set = |writer| {
            Statement::read(writer, &header, &body, 0, false).unwrap().0.settings.join(", ")
        };
        let flavor = Flavor::MariaDb;
        let all = set(Writer { flavor, if_exists: true, explicit_defaults: true });
        for part in [
            "sql_auto_is_null = 1",
            "check_constraint_checks = 0",
            "sql_if_exists = 1",
            "explicit_defaults_for_timestamp = 1",
            "system_versioning_insert_history = 1",
            "character_set_collations = 45:2304",
            "collation_server = 45",
            "timestamp = 7.000002",
        ] {
            assert!(all.contains(part), "{part}: {all}");
        }
        let old = set(Writer { flavor, if_exists: false, explicit_defaults: false });
        assert!(!old.contains("sql_if_exists") && !old.contains("explicit"), "{old}");
    }
}
