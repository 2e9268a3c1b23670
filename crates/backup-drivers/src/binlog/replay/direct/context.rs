//! What a statement of a binlog was run under, and how a session is brought into that state.
//!
//! Numbers of the status variables of a QUERY: `Query_event_status_vars` of MySQL
//! (`libs/mysql/binlog/event/statement_events.h`), `Q_…_CODE` of MariaDB (`sql/log_event.h`). They stand in
//! rising order but for those of MariaDB from 128 on; the length of one that is not known is not known
//! either, and everything behind it is lost.

use backup_core::{Error, Flavor, Result};

use super::super::super::event::Header;
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
/// MariaDB: IF EXISTS is meant everywhere.
const IF_EXISTS: u32 = 1 << 28;

impl Statement {
    /// Reads the body of a QUERY, or of an EXECUTE_LOAD_QUERY, which has `extra` bytes more in front of
    /// its status variables. Gives those bytes too.
    pub(in super::super) fn read(
        flavor: Flavor,
        header: &Header,
        body: &[u8],
        extra: usize,
        compressed: bool,
    ) -> Result<(Statement, Vec<u8>)> {
        Statement::parse(flavor, header, body, extra, compressed)
            .ok_or_else(|| Error::damaged("a QUERY event cannot be read"))
    }

    fn parse(
        flavor: Flavor,
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
        let settings = settings(flavor, header, status)?;
        Some((Statement { thread, error, database, sql, settings }, extra))
    }
}

/// The assignments for the status variables; `None` where they are cut off.
fn settings(flavor: Flavor, header: &Header, status: &[u8]) -> Option<Vec<String>> {
    let mut set = Vec::new();
    let mut micros = 0;
    let mut collation_database = "DEFAULT".to_owned();
    let (mut increment, mut offset) = (1, 1);
    let mut names = "0".to_owned();
    let mut zone = None;
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
                    set.push(format!("sql_if_exists = {}", on(flags & IF_EXISTS != 0)));
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
            // Nothing behind it can be read; those before are what statements depend on.
            _ => break,
        }
    }
    set.push(format!("auto_increment_increment = {increment}"));
    set.push(format!("auto_increment_offset = {offset}"));
    set.push(format!("lc_time_names = {names}"));
    set.push(format!("collation_database = {collation_database}"));
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
        let (statement, _) = Statement::read(Flavor::MySql, &header, &body, 0, false).unwrap();
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
            let _ = Statement::read(Flavor::MySql, &header, &body[..end], 0, false);
        }
    }
}
