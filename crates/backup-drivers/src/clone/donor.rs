//! What a donor is asked by SQL, beside the clone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use backup_core::{
    Error, ErrorKind, Finding, Flavor, GtidSet, Position, Result, ServerVersion, Severity,
};

use super::secrecy::Secrecy;
use super::unseen::Unseen;
use crate::connect::{ConnectOptions, Session};
use crate::files::Settings;
use crate::files::system::in_one_directory;
use crate::innodb::TableFile;
use crate::logged;
use crate::logical::TableName;
use crate::logical::inventory::{self, ServerFacts};

/// The smallest `max_allowed_packet` that a donor takes.
const MIN_PACKET: u64 = 2 << 20;

/// So many files the redo log has.
const REDO_FILES: u64 = 32;

/// A donor, with a session to ask it.
pub(super) struct Donor {
    pub(super) facts: ServerFacts,
    session: Session,
}

impl Donor {
    pub(super) async fn ask(options: &ConnectOptions) -> Result<Donor> {
        let mut session = Session::open(options).await?;
        let facts = inventory::server(session.conn()).await?;
        Ok(Donor { facts, session })
    }

    /// Whether the server can be a donor at all.
    pub(super) fn check(&self) -> Result<()> {
        let version = &self.facts.version;
        let able = version.flavor() == Flavor::MySql && version.at_least(8, 0, 17);
        if able {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Source,
            format!("{} {} cannot be cloned", self.facts.flavor, self.facts.version_text),
        )
        .with_remedy("MySQL can from 8.0.17 on; use --strategy logical or physical"))
    }

    /// Up to where the server has written now.
    pub(super) async fn position(&mut self) -> Result<Position> {
        let statement = self.facts.capabilities().binlog_status_statement();
        let row: Result<Option<mysql_async::Row>> = self.session.query_first(statement).await;
        let mut position = Position::default();
        match row {
            Ok(Some(row)) => {
                position.file = row.get_opt(0).and_then(Result::ok);
                position.offset = row.get_opt(1).and_then(Result::ok);
            }
            Ok(None) => {}
            // GTIDs are there for everybody.
            Err(e) if e.kind() == ErrorKind::Privilege => {}
            Err(e) => return Err(e),
        }
        let sql = "SELECT @@GLOBAL.gtid_mode, @@GLOBAL.gtid_executed";
        let row: Option<(String, String)> = self.session.query_first(sql).await?;
        let (mode, executed) = row.unwrap_or_default();
        if mode == "ON" {
            position.gtid = Some(GtidSet::parse(Flavor::MySql, &executed)?);
        }
        Ok(position)
    }

    /// What a server needs to be told that starts on the files.
    pub(super) async fn settings(&mut self) -> Result<Settings> {
        let sql = "SELECT @@GLOBAL.innodb_page_size, @@GLOBAL.lower_case_table_names, \
                   @@GLOBAL.innodb_data_file_path";
        let row: Option<(u32, u8, String)> = self.session.query_first(sql).await?;
        let (page_size, names, system) = row.unwrap_or_default();
        let mut variables = BTreeMap::new();
        if system != "ibdata1:12M:autoextend" {
            variables.insert("innodb_data_file_path".to_owned(), in_one_directory(&system));
        }
        Ok(Settings {
            page_size: Some(page_size),
            lower_case_table_names: Some(names),
            variables,
            ..Settings::default()
        })
    }

    /// The tables that a clone leaves empty, as far as the account may see them.
    pub(super) async fn left_empty(&mut self) -> Result<Vec<LeftEmpty>> {
        let sql = "SELECT TABLE_SCHEMA, TABLE_NAME, ENGINE FROM information_schema.TABLES \
                   WHERE TABLE_TYPE = 'BASE TABLE' AND TABLE_SCHEMA NOT IN \
                   ('mysql', 'sys', 'information_schema', 'performance_schema')";
        let rows: Vec<(String, String, Option<String>)> = self.session.query_rows(sql).await?;
        let empty = |engine: &str| !engine.eq_ignore_ascii_case("InnoDB");
        let tables = rows
            .into_iter()
            .filter(|(.., engine)| empty(engine.as_deref().unwrap_or_default()))
            .map(|(database, table, engine)| LeftEmpty {
                table: TableName { database, table },
                engine: engine.unwrap_or_else(|| "no engine".to_owned()),
            })
            .collect();
        Ok(tables)
    }

    /// What of the server's tables the account may not see. `databases` are those that have files, where that is
    /// known.
    pub(super) async fn unseen(
        &mut self,
        databases: Option<BTreeSet<String>>,
    ) -> Result<Option<Unseen>> {
        let grants: Vec<String> = self.session.query_rows("SHOW GRANTS").await?;
        let databases = match databases {
            Some(databases) => Some(databases),
            None => {
                // It needs PROCESS.
                let sql = "SELECT NAME FROM information_schema.INNODB_TABLESPACES";
                let names: Result<Vec<String>> = self.session.query_rows(sql).await;
                let of = |name: &String| Some(TableFile::of(name)?.database);
                names.ok().map(|names| names.iter().filter_map(of).collect())
            }
        };
        Ok(Unseen::of(&grants, databases))
    }

    /// Everything that would keep the clone from being taken.
    pub(super) async fn findings(
        &mut self,
        options: &ConnectOptions,
        encrypted_repository: bool,
    ) -> Result<Vec<Finding>> {
        let mut findings = vec![Finding::new(
            Severity::Info,
            "server",
            format!("{} {}", self.facts.flavor, self.facts.version_text),
            "",
        )];
        let mut error = |kind, object: &str, problem: String, remedy: String| {
            findings.push(Finding::new(Severity::Error, object, problem, remedy).with_kind(kind));
        };
        let sql = "SELECT COUNT(*) FROM information_schema.PLUGINS \
                   WHERE PLUGIN_NAME = 'clone' AND PLUGIN_STATUS = 'ACTIVE'";
        if self.session.query_first::<u64>(sql).await? != Some(1) {
            error(
                ErrorKind::Source,
                "clone",
                "the clone plugin is not loaded".into(),
                "run INSTALL PLUGIN clone SONAME 'mysql_clone.so'".into(),
            );
        }
        // Nobody needs a privilege to see what is granted to oneself; roles that are active count.
        let sql = "SHOW GRANTS";
        let grants: Vec<String> = self.session.query_rows(sql).await?;
        let has = |grant: &String| grant.contains("BACKUP_ADMIN");
        if !grants.iter().any(has) {
            let sql = "SELECT CURRENT_USER()";
            let account = self.session.query_first::<String>(sql).await?.unwrap_or_default();
            let (user, host) = account.rsplit_once('@').unwrap_or((&account, "%"));
            let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
            error(
                ErrorKind::Privilege,
                "privileges",
                format!("{} has no BACKUP_ADMIN privilege", options.user),
                format!(
                    "GRANT BACKUP_ADMIN ON *.* TO {account}, or a role that has it and is a default role \
                     of the account (SET DEFAULT ROLE ALL TO {account})",
                    account = format_args!("{}@{}", quoted(user), quoted(host))
                ),
            );
        }
        let sql = "SELECT @@GLOBAL.max_allowed_packet";
        let packet = self.session.query_first::<u64>(sql).await?.unwrap_or_default();
        if packet < MIN_PACKET {
            error(
                ErrorKind::Source,
                "max_allowed_packet",
                format!("it is {packet}, and a donor needs {MIN_PACKET}"),
                format!("SET GLOBAL max_allowed_packet = {MIN_PACKET}"),
            );
        }
        let sql = "SELECT VARIABLE_VALUE FROM performance_schema.global_status \
                   WHERE VARIABLE_NAME = 'Innodb_redo_log_enabled'";
        let redo: Result<Option<String>> = self.session.query_first(sql).await;
        if matches!(&redo, Ok(Some(value)) if value == "OFF") {
            error(
                ErrorKind::Source,
                "redo log",
                "redo logging is off".into(),
                "ALTER INSTANCE ENABLE INNODB REDO_LOG".into(),
            );
        }
        let sql = "SELECT @@GLOBAL.innodb_undo_log_encrypt + @@GLOBAL.innodb_redo_log_encrypt";
        let logs = self.session.query_first::<u8>(sql).await?.unwrap_or_default() > 0;
        // The first needs PROCESS, the second shows what the account may see. What neither shows, the
        // clone itself finds out.
        let looks = [
            "SELECT COUNT(*) FROM information_schema.INNODB_TABLESPACES WHERE ENCRYPTION = 'Y'",
            "SELECT COUNT(*) FROM information_schema.TABLES \
             WHERE CREATE_OPTIONS LIKE '%ENCRYPTION=_Y_%'",
        ];
        let mut encrypted = logs;
        for sql in looks {
            let found: Result<Option<u64>> = self.session.query_first(sql).await;
            encrypted |= matches!(found, Ok(Some(1..)));
        }
        let sql = "SHOW SESSION STATUS LIKE 'Ssl_cipher'";
        let cipher: Option<(String, String)> = self.session.query_first(sql).await?;
        let wire = cipher.is_some_and(|(_, cipher)| !cipher.is_empty());
        let secrecy = Secrecy { wire, repository: encrypted_repository };
        if encrypted {
            match secrecy.check("a tablespace or log") {
                Ok(()) => findings.push(Finding::new(
                    Severity::Info,
                    "encryption",
                    "tablespaces or logs are encrypted; a clone holds their keys",
                    "back up to an encrypted repository: another one is refused",
                )),
                Err(e) => findings.push(
                    Finding::new(
                        Severity::Error,
                        "encryption",
                        e.to_string(),
                        e.remedy().to_owned(),
                    )
                    .with_kind(e.kind()),
                ),
            }
        }
        // Without PROCESS one sees one's own sessions only; then the clone itself finds out.
        let sql = "SELECT ID, CONCAT_WS('@', USER, HOST), COALESCE(TIME, 0) FROM performance_schema.processlist \
                   WHERE COMMAND = 'Clone' OR INFO LIKE 'CLONE %' ORDER BY TIME DESC LIMIT 1";
        let clones: Result<Vec<(u64, String, i64)>> = self.session.query_rows(sql).await;
        if let Some((id, client, seconds)) = clones.ok().and_then(|mut clones| clones.pop()) {
            let problem = format!(
                "another clone of the source is under way, of session {id} ({client}), for {seconds} s"
            );
            findings.push(
                Finding::new(
                    Severity::Error,
                    "clone",
                    problem,
                    format!(
                        "wait until it ends: a server is cloned once at a time. If its client is gone, the source \
                         waits for it, for five minutes unless clone_donor_timeout_after_network_failure says \
                         otherwise; KILL {id} ends that at once"
                    ),
                )
                .with_kind(ErrorKind::Source),
            );
        }
        // 8.0.30 and later; before, the size is that of the files together.
        let sql = "SELECT @@GLOBAL.innodb_redo_log_capacity";
        let redo: Result<Option<u64>> = self.session.query_first(sql).await;
        let redo = redo.ok().flatten().map_or(String::new(), |bytes| {
            format!(", in steps of {} MiB", (bytes / REDO_FILES).div_ceil(1 << 20))
        });
        findings.push(Finding::new(
            Severity::Info,
            "#ib_archive",
            format!(
                "the source keeps there the redo log that it writes while changed pages are sent{redo}"
            ),
            "have room for it in the source's data directory; it goes with the end of the clone",
        ));
        findings.extend(logged::findings(&mut self.session, &self.facts).await?);
        Ok(findings)
    }

    /// The tables that a clone leaves empty, as findings.
    pub(super) async fn empty_tables(&mut self) -> Result<Vec<Finding>> {
        let tables = self.left_empty().await?;
        let finding = |table: LeftEmpty| {
            Finding::new(
                Severity::Warning,
                table.to_string(),
                "a clone holds no rows of tables that are not InnoDB's",
                "ALTER TABLE … ENGINE=InnoDB, or have it dumped beside the clone (--clone-others)",
            )
        };
        Ok(tables.into_iter().map(finding).collect())
    }

    pub(super) async fn close(self) -> Result<()> {
        self.session.close().await
    }
}

/// A table whose rows a clone does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftEmpty {
    /// Its name.
    pub table: TableName,
    /// What has its rows.
    pub engine: String,
}

impl fmt::Display for LeftEmpty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.table, self.engine)
    }
}

/// Whether a server of this version keeps its redo log in a directory of its own.
pub(super) fn has_redo_directory(version: &ServerVersion) -> bool {
    version.at_least(8, 0, 30)
}
