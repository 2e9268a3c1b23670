//! What stands in the way of a backup by a tool, all of it at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use backup_core::{Error, ErrorKind, Finding, Flavor, Result, Severity, io_error};
use rustix::process::{Resource, getrlimit};

use super::backup::{Known, PhysicalBackup};
use super::tool::Tool;
use crate::connect::Session;
use crate::files::locked::log_bin;
use crate::logical::inventory::{self, ServerFacts, ToolNeeds};
use crate::logical::refuse_until;

/// A redo log that holds less than what is written in so many seconds makes a tool fail that something
/// holds up for a moment.
const SHORT_REDO: u64 = 60;
/// What a server has written in less time than this, in seconds, is no average: its first load would count
/// as what it writes for ever, and the redo log asked for would be larger than its disk.
const FAIR_AVERAGE: u64 = 60;
/// Files that a tool has open beside the tablespaces.
const OTHER_FILES: u64 = 100;
/// From this on, tables that are copied while nobody can write to them are worth a word, in bytes.
const MUCH_LOCKED: u64 = 1 << 30;

/// Looks at everything. An error is what keeps from looking.
pub(super) async fn look(backup: &PhysicalBackup) -> Result<Vec<Finding>> {
    let mut session = Session::open(backup.source()).await?;
    let facts = inventory::server(session.conn()).await?;
    let mut findings = vec![info("server", format!("{} {}", facts.flavor, facts.version_text))];
    let tool = match backup.find_tool(facts.flavor) {
        Ok(tool) => {
            findings.push(tool_finding(&tool, &facts));
            Some(tool)
        }
        Err(e) => {
            findings.push(error("tool", &e));
            None
        }
    };
    let server = Server::ask(&mut session, facts.flavor).await?;
    findings.extend(privileges(backup, &mut session, &facts).await?);
    if backup.options().safe_replica.is_some() {
        findings.extend(
            refuse_until(&mut session, &facts).await.err().map(|e| error("replication", &e)),
        );
    }
    session.close().await?;
    findings.extend(server.redo_room(&facts));
    findings.extend(server.open_files());
    findings.extend(server.locked_files());
    if server.variable("innodb_log_archive") == Some("ON") {
        findings.push(
            Finding::new(
                Severity::Error,
                "innodb_log_archive",
                "mariadb-backup cannot copy an archived redo log",
                "SET GLOBAL innodb_log_archive=OFF",
            )
            .with_kind(ErrorKind::Source),
        );
    }
    findings.extend(log_bin(backup.source()).await?);
    // What only somebody who runs on the machine of the server sees.
    match backup.examine().await {
        Ok(Known { datadir, .. }) => {
            findings.extend(links_of_aria(&datadir));
            findings.extend(unreadable(&datadir).map(|e| error("source", &e)));
        }
        // Told above already.
        Err(_) if tool.is_none_or(|tool| tool.check(&facts.version).is_err()) => {}
        Err(e) if e.kind() == ErrorKind::Connect => return Err(e),
        Err(e) => findings.push(error("source", &e)),
    }
    Ok(findings)
}

fn info(object: &str, problem: String) -> Finding {
    Finding::new(Severity::Info, object, problem, "")
}

fn error(object: &str, error: &Error) -> Finding {
    Finding::new(Severity::Error, object, error.chain(), error.remedy().to_owned())
        .with_kind(error.kind())
}

/// Tables of Aria behind symbolic links (`DATA DIRECTORY`), at which `mariadb-backup` fails.
fn links_of_aria(datadir: &Path) -> Option<Finding> {
    let entries = |at: &Path| std::fs::read_dir(at).into_iter().flatten().flatten();
    let is_linked = |entry: &std::fs::DirEntry| {
        let path = entry.path();
        let of_aria = path.extension().is_some_and(|ending| ending == "MAD" || ending == "MAI");
        of_aria && entry.file_type().is_ok_and(|kind| kind.is_symlink())
    };
    let first = entries(datadir)
        .filter(|entry| entry.path().is_dir())
        .flat_map(|database| entries(&database.path()))
        .find(is_linked)?;
    Some(
        Finding::new(
            Severity::Error,
            "links",
            format!(
                "{} is a symbolic link, and mariadb-backup does not follow those of Aria",
                first.path().display()
            ),
            "move the table into the data directory (ALTER TABLE … ENGINE=InnoDB), or use --lock-and-copy, \
             --strategy logical, or a copy of the stopped server",
        )
        .with_kind(ErrorKind::Source),
    )
}

/// The first file that a tool copies and may not read, as this user.
fn unreadable(datadir: &Path) -> Option<Error> {
    let look = |path: PathBuf| -> Option<Error> {
        let name = path.file_name()?.to_string_lossy().into_owned();
        let opened = match path.is_dir() {
            // What is not a database is not looked into.
            true if name == "lost+found" => return None,
            true => std::fs::read_dir(&path).map(drop),
            false if !path.is_file() => return None,
            false => std::fs::File::open(&path).map(drop),
        };
        // Files come and go.
        let e = opened.err().filter(|e| e.kind() == std::io::ErrorKind::PermissionDenied)?;
        let message = format!("cannot read {}", path.display());
        let remedy = "run holdfast as the user of the server, or as root";
        Some(io_error(e, ErrorKind::Source, message).with_remedy(remedy))
    };
    let entries = |at: &Path| std::fs::read_dir(at).into_iter().flatten().flatten();
    let copied = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        path.is_dir() || ["ib", "undo", "aria_log"].iter().any(|start| name.starts_with(start))
    };
    let top = entries(datadir).map(|entry| entry.path()).filter(copied);
    let top: Vec<PathBuf> = std::iter::once(datadir.to_owned()).chain(top).collect();
    top.iter().cloned().find_map(look).or_else(|| {
        let databases = top[1..].iter().filter(|path| path.is_dir());
        databases.flat_map(|path| entries(path)).map(|entry| entry.path()).find_map(look)
    })
}

fn tool_finding(tool: &Tool, facts: &ServerFacts) -> Finding {
    if let Err(e) = tool.check(&facts.version) {
        return error("tool", &e);
    }
    let (major, minor, patch) = tool.version().own;
    if facts.version.patch() > tool.version().server.2 {
        return Finding::new(
            Severity::Warning,
            "tool",
            format!(
                "{} {major}.{minor}.{patch} is older than the server, {}",
                tool.name(),
                facts.version
            ),
            "install the tool of the server's own version",
        );
    }
    info("tool", format!("{} {major}.{minor}.{patch}", tool.name()))
}

async fn privileges(
    backup: &PhysicalBackup,
    session: &mut Session,
    facts: &ServerFacts,
) -> Result<Vec<Finding>> {
    let options = backup.options();
    let needs = ToolNeeds {
        kills: options.kill_long_queries.is_some(),
        replica_position: options.replica_position,
        pauses_replication: options.safe_replica.is_some(),
    };
    let missing = inventory::missing_for_tool(session.conn(), facts, needs).await?;
    let finding = |privilege: inventory::Privilege| {
        let problem = format!("{} has no {} privilege", backup.source().user, privilege.name);
        Finding::new(Severity::Error, "privileges", problem, privilege.grant)
            .with_kind(ErrorKind::Privilege)
    };
    Ok(missing.into_iter().map(finding).collect())
}

/// What the server tells of itself.
struct Server {
    variables: BTreeMap<String, String>,
    /// What was written to the redo log, in bytes, and in how many seconds, of which there are at least
    /// [`FAIR_AVERAGE`].
    written: u64,
    seconds: u64,
    tablespaces: u64,
    /// Bytes in tables of users that a tool can only copy while nobody writes to them.
    locked: u64,
}

impl Server {
    async fn ask(session: &mut Session, flavor: Flavor) -> Result<Server> {
        let sql = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('innodb_log_file_size', \
                   'innodb_log_files_in_group', 'innodb_redo_log_capacity', 'innodb_log_archive')";
        let rows: Vec<(String, String)> = session.query_rows(sql).await?;
        let variables = rows.into_iter().collect();
        let sql = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Uptime', 'Innodb_os_log_written')";
        let rows: Vec<(String, u64)> = session.query_rows(sql).await?;
        let status: BTreeMap<String, u64> = rows.into_iter().collect();
        let get = |name: &str| status.get(name).copied().unwrap_or_default();
        let sql = match flavor {
            Flavor::MariaDb => "SELECT COUNT(*) FROM information_schema.INNODB_SYS_TABLESPACES",
            Flavor::MySql => "SELECT COUNT(*) FROM information_schema.FILES",
        };
        // An account without PROCESS may not see it, which is told as such.
        let tablespaces = session.query_first(sql).await.unwrap_or_default();
        let sql = format!(
            "SELECT CAST(COALESCE(SUM(DATA_LENGTH + INDEX_LENGTH), 0) AS UNSIGNED) FROM \
             information_schema.TABLES WHERE ENGINE IN ('MyISAM', 'Aria', 'CSV', 'ARCHIVE') AND \
             TABLE_SCHEMA NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys'){}",
            inventory::but_elsewhere(session.conn()).await?
        );
        let locked = session.query_first(&sql).await?;
        Ok(Server {
            variables,
            written: get("Innodb_os_log_written"),
            seconds: get("Uptime").max(FAIR_AVERAGE),
            tablespaces: tablespaces.unwrap_or_default(),
            locked: locked.unwrap_or_default(),
        })
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// How far a tool may fall behind before the server writes over what it has not copied.
    fn redo_room(&self, facts: &ServerFacts) -> Option<Finding> {
        let number = |name: &str| self.variable(name)?.parse::<u64>().ok();
        let files = || {
            let count = match facts.flavor {
                Flavor::MySql => number("innodb_log_files_in_group").unwrap_or(2),
                Flavor::MariaDb => number("innodb_log_files_in_group").unwrap_or(1),
            };
            Some(number("innodb_log_file_size")?.saturating_mul(count))
        };
        let capacity = number("innodb_redo_log_capacity").or_else(files)?;
        let rate = self.written / self.seconds;
        let mib = |bytes: u64| bytes >> 20;
        let holds = capacity.checked_div(rate);
        let Some(holds) = holds.filter(|&holds| holds < SHORT_REDO) else {
            let rate = rate as f64 / f64::from(1 << 20);
            let text =
                format!("{} MiB; {rate:.1} MiB a second are written on average", mib(capacity));
            return Some(info("redo log", text));
        };
        let variable = match self.variable("innodb_redo_log_capacity") {
            Some(_) => "innodb_redo_log_capacity",
            None => "innodb_log_file_size",
        };
        let enough = (rate.saturating_mul(10 * SHORT_REDO)).next_multiple_of(1 << 20);
        let how = match (facts.flavor, variable) {
            // It takes it at run time since 10.9.
            (Flavor::MariaDb, _) if facts.version.at_least(10, 9, 0) => format!(
                "SET GLOBAL {variable}={enough}, and the same in the my.cnf (the server's disk needs {} \
                 MiB free for it)",
                mib(enough)
            ),
            (Flavor::MySql, "innodb_redo_log_capacity") => {
                format!("SET PERSIST {variable}={enough}")
            }
            _ => format!("write {variable}={enough} into the my.cnf and restart the server"),
        };
        Some(Finding::new(
            Severity::Warning,
            "redo log",
            format!(
                "{} MiB hold what is written in {holds} s: a tool that is held up for longer fails",
                mib(capacity)
            ),
            how,
        ))
    }

    /// A tool has every tablespace open.
    fn open_files(&self) -> Option<Finding> {
        let needed = self.tablespaces + OTHER_FILES;
        let allowed = getrlimit(Resource::Nofile).current?;
        (allowed < needed).then(|| {
            Finding::new(
                Severity::Warning,
                "open files",
                format!(
                    "a process may open {allowed} files here, and there are {} tablespaces",
                    self.tablespaces
                ),
                format!("ulimit -n {needed}, or LimitNOFILE={needed} in the unit of systemd"),
            )
        })
    }

    fn locked_files(&self) -> Option<Finding> {
        (self.locked >= MUCH_LOCKED).then(|| {
            Finding::new(
                Severity::Warning,
                "lock",
                format!(
                    "{} MiB in tables that are not InnoDB's are copied while nobody can write to them",
                    self.locked >> 20
                ),
                "ALTER TABLE … ENGINE=InnoDB, or use --strategy snapshot",
            )
        })
    }
}
