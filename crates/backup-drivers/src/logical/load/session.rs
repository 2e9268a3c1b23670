//! Connections that load, and what the target as a whole has to be set to meanwhile.

use backup_core::{Error, ErrorKind, Flavor, Result};
use mysql_async::Conn;

use super::super::inventory::ServerFacts;
use super::super::recreate;
use super::super::settings::{self, Setting, wanted};
use super::super::waits;
use crate::connect::{ConnectOptions, READ_WRITE, SESSION, Session};
use crate::wire;

/// How the connections of a restore are set up.
#[derive(Debug, Clone)]
pub(in crate::logical) struct LoadSettings {
    pub facts: ServerFacts,
    /// Whether what is done goes into the target's binary log, where it has one.
    pub binary_log: bool,
    /// Whether the target logs statements. MariaDB takes no rows then that may have numbers of a sequence, and no
    /// server takes any from sessions that do not read repeatably.
    pub statements: bool,
}

/// Rows of one transaction wait this long for those of a process that died to be rolled back.
const LOCK_WAIT: u32 = 600;

/// What building indexes goes quicker with. MySQL sorts in memory that is split among the threads.
const BUILD: [Setting; 2] = [
    wanted("innodb_ddl_buffer_size", "67108864"),
    // Where the variable is unknown it is passed over.
    wanted("innodb_ddl_threads", "2"),
];

impl LoadSettings {
    /// Statements that make a connection take values exactly as they are given.
    ///
    /// `sql_mode` accepts every date that a server may hold and keeps 0 in `AUTO_INCREMENT` columns;
    /// what it lets through is caught when the rows are read back.
    fn statements(&self) -> Vec<String> {
        let mut settings = vec![
            SESSION.to_owned(),
            READ_WRITE.to_owned(),
            "SET NAMES utf8mb4".to_owned(),
            format!(
                "SET SESSION time_zone = '+00:00', foreign_key_checks = 0, unique_checks = 0, \
                 sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES', \
                 net_read_timeout = 3600, net_write_timeout = 3600, \
                 innodb_lock_wait_timeout = {LOCK_WAIT}"
            ),
        ];
        settings.push(waits::at_most(waits::RESTORE));
        // A server that came up anew makes tables of MEMORY when they are opened.
        let memory = recreate::LARGEST_IN_MEMORY;
        settings.push(format!("SET SESSION max_heap_table_size = {memory}"));
        if self.facts.flavor == Flavor::MariaDb {
            settings.push(
                "SET SESSION check_constraint_checks = 0 \
                 /*M!101100 , system_versioning_insert_history = 1 */"
                    .to_owned(),
            );
        }
        settings
    }

    /// Opens a connection that loads rows.
    pub(super) async fn loader(&self, target: &ConnectOptions) -> Result<wire::Connection> {
        let mut connection = wire::Connection::connect(target).await?;
        for setting in self.statements() {
            connection.query(&setting).await?;
        }
        if !self.binary_log {
            connection.query(NO_BINARY_LOG).await.map_err(may_not_leave_out)?;
        } else if self.statements {
            match connection.query("SET SESSION binlog_format = ROW").await {
                // Told beforehand where it matters.
                Err(e) if e.kind() == ErrorKind::Privilege => {}
                other => drop(other?),
            }
        }
        Ok(connection)
    }

    /// Opens a connection that creates and alters tables.
    pub(super) async fn definer(&self, target: &ConnectOptions) -> Result<Session> {
        let mut session = Session::open(target).await?;
        self.prepare(&mut session).await?;
        Ok(session)
    }

    /// Sets a session up for creating and altering tables.
    pub(in crate::logical) async fn prepare(&self, session: &mut Session) -> Result<()> {
        self.leave_out(session).await?;
        let conn: &mut Conn = session.conn();
        recreate::prepare(conn, &self.facts).await?;
        settings::apply(conn, &BUILD).await
    }

    /// Keeps what the session does out of the binary log, where that is wanted.
    pub(in crate::logical) async fn leave_out(&self, session: &mut Session) -> Result<()> {
        if !self.binary_log {
            session.run(NO_BINARY_LOG).await.map_err(may_not_leave_out)?;
        }
        Ok(())
    }
}

const NO_BINARY_LOG: &str = "SET SESSION sql_log_bin = 0";

fn may_not_leave_out(error: Error) -> Error {
    error.context("the restore cannot be kept out of the target's binary log").with_remedy(
        "grant the account SESSION_VARIABLES_ADMIN (MariaDB: BINLOG ADMIN), or restore with \
         --binlog on",
    )
}

/// Whether the target writes a binary log.
pub(in crate::logical) async fn has_binary_log(session: &mut Session) -> Result<bool> {
    let on: Option<u8> = session.query_first("SELECT @@GLOBAL.log_bin").await?;
    Ok(on == Some(1))
}

/// Whether sessions of the target log statements unless they are told otherwise.
pub(in crate::logical) async fn logs_statements(session: &mut Session) -> Result<bool> {
    let format: Option<(String, String)> =
        session.query_first("SHOW GLOBAL VARIABLES LIKE 'binlog\\_format'").await?;
    Ok(format.is_some_and(|(_, format)| format == "STATEMENT"))
}

/// Whether the target is part of a Galera cluster, which every transaction goes through as a whole.
pub(in crate::logical) async fn is_clustered(session: &mut Session) -> Result<bool> {
    let on: Option<(String, String)> =
        session.query_first("SHOW GLOBAL VARIABLES LIKE 'wsrep_on'").await?;
    Ok(on.is_some_and(|(_, value)| value == "ON"))
}

/// Allows `LOAD DATA LOCAL` at the target where it is off. Gives whether it has to be put back.
pub(in crate::logical) async fn allow_local_infile(session: &mut Session) -> Result<bool> {
    let on: Option<u8> = session.query_first("SELECT @@GLOBAL.local_infile").await?;
    if on == Some(1) {
        return Ok(false);
    }
    session.run("SET GLOBAL local_infile = ON").await.map_err(|e| {
        e.context("the target does not accept LOAD DATA LOCAL").with_remedy(
            "SET GLOBAL local_infile = ON at the target, or give the account the privilege \
             SYSTEM_VARIABLES_ADMIN (MariaDB: SUPER) so that holdfast may do it for the restore",
        )
    })?;
    Ok(true)
}

/// Forbids `LOAD DATA LOCAL` again.
pub(in crate::logical) async fn forbid_local_infile(session: &mut Session) -> Result<()> {
    session.run("SET GLOBAL local_infile = OFF").await.map(|_| ())
}

/// InnoDB's redo log as a whole, which MySQL 8.0.21 and later can do without.
pub(in crate::logical) struct RedoLog;

impl RedoLog {
    /// Switches it off. A crash of the server meanwhile destroys every InnoDB table that it has, so
    /// it must have none but what is being restored.
    pub(in crate::logical) async fn off(
        session: &mut Session,
        facts: &ServerFacts,
        ours: &[String],
    ) -> Result<()> {
        if facts.flavor != Flavor::MySql || !facts.version.at_least(8, 0, 21) {
            return Err(Error::usage(format!(
                "{} {} cannot do without its redo log",
                facts.flavor, facts.version_text
            ))
            .with_remedy("restore without --redo-log off"));
        }
        let sql = "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE \
                   = 'BASE TABLE' AND TABLE_SCHEMA NOT IN ('mysql', 'sys', 'information_schema', \
                   'performance_schema')";
        let tables: Vec<(String, String)> = session.query_rows(sql).await?;
        if let Some((database, table)) = tables.iter().find(|(d, _)| !ours.contains(d)) {
            return Err(Error::new(
                ErrorKind::Target,
                format!("without its redo log the target would risk {database}.{table}"),
            )
            .with_remedy(
                "restore without --redo-log off: a crash meanwhile would destroy every table of \
                 the server",
            ));
        }
        session.run("ALTER INSTANCE DISABLE INNODB REDO_LOG").await.map_err(|e| {
            e.context("the redo log of the target cannot be switched off").with_remedy(
                "grant the account INNODB_REDO_LOG_ENABLE, or restore without --redo-log off",
            )
        })?;
        Ok(())
    }

    /// Switches it on; where it is on this does nothing.
    pub(in crate::logical) async fn on(session: &mut Session) -> Result<()> {
        session.run("ALTER INSTANCE ENABLE INNODB REDO_LOG").await.map(drop)
    }

    /// How large it is, in bytes, where that can be changed while the server runs (MySQL 8.0.30).
    pub(in crate::logical) async fn size(session: &mut Session) -> Result<Option<u64>> {
        let size: Option<(String, u64)> =
            session.query_first("SHOW GLOBAL VARIABLES LIKE 'innodb_redo_log_capacity'").await?;
        Ok(size.map(|(_, size)| size))
    }

    /// Makes it so large from now on.
    pub(in crate::logical) async fn resize(session: &mut Session, size: u64) -> Result<()> {
        session.run(&format!("SET GLOBAL innodb_redo_log_capacity = {size}")).await.map(drop)
    }

    /// Whether it is on. A server that does not say has one.
    pub(in crate::logical) async fn is_on(session: &mut Session) -> Result<bool> {
        let status: Option<(String, String)> =
            session.query_first("SHOW GLOBAL STATUS LIKE 'Innodb_redo_log_enabled'").await?;
        Ok(status.is_none_or(|(_, value)| value != "OFF"))
    }
}
