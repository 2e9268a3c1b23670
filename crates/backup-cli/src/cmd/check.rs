//! `holdfast check`

use std::path::Path;

use backup_core::{
    Backup, Error, ErrorKind, Finding, Flavor, Result, Severity, Strategy, io_error,
};
use backup_drivers::clone::{CloneBackup, CloneOptions};
use backup_drivers::connect::{ConnectOptions, Session};
use backup_drivers::files::LockOptions;
use backup_drivers::logical::{
    Glob, LogicalBackup, LogicalOptions, SYSTEM_DATABASES, TableGlob, inventory,
};
use backup_storage::{RepoUrl, RepositoryOptions};
use rustix::fs::{Access, access, statvfs};
use serde_json::json;

use super::backup::{Names, Wanted, globs, source, table_globs};
use super::backup_clone::{OthersFlag, others};
use super::backup_files::FilesFlags;
use super::backup_tool::ToolFlags;
use crate::answer::Answer;
use crate::app::App;
use crate::args;
use crate::human;
use crate::login::DefaultsFile;

/// Look at a source, and at the repository where one is named, before a backup
#[derive(clap::Args)]
pub(crate) struct Check {
    /// The server to look at: mysql://user@host:port/ or mysql://user@localhost/?socket=/path
    #[arg(long, value_name = "DSN")]
    source: Option<String>,
    #[command(flatten)]
    defaults_file: DefaultsFile,
    /// How a backup would read it
    #[arg(long, value_parser = args::strategy(), default_value = "logical")]
    strategy: Strategy,
    /// For a logical backup of these databases alone
    #[arg(long, value_name = "DB,…", value_parser = globs, conflicts_with = "tables")]
    databases: Vec<Names<Glob>>,
    /// For one without these databases
    #[arg(long, value_name = "DB,…", value_parser = globs)]
    exclude_databases: Vec<Names<Glob>>,
    /// For one of these tables alone
    #[arg(long, value_name = "DB.TABLE,…", value_parser = table_globs)]
    tables: Vec<Names<TableGlob>>,
    /// For one without these tables
    #[arg(long, value_name = "DB.TABLE,…", value_parser = table_globs)]
    exclude_tables: Vec<Names<TableGlob>>,
    #[command(flatten)]
    files: FilesFlags,
    #[command(flatten)]
    tool: ToolFlags,
    #[command(flatten)]
    others: OthersFlag,
}

impl Check {
    /// What a logical backup is going to be asked for.
    fn options(&self) -> LogicalOptions {
        let wanted = Wanted {
            databases: &self.databases,
            exclude_databases: &self.exclude_databases,
            tables: &self.tables,
            exclude_tables: &self.exclude_tables,
        };
        LogicalOptions { selection: wanted.selection(), ..LogicalOptions::default() }
    }

    /// Looks.
    pub(crate) async fn run(&self, app: &App) -> Result<Answer> {
        let cx = &app.cx;
        let options = self.options();
        if self.strategy != Strategy::Logical && !options.selection.is_all() {
            return Err(Error::usage(format!("a {} backup is of a whole server", self.strategy))
                .with_remedy("leave --databases, --tables and their like out"));
        }
        if self.strategy != Strategy::Clone && self.others.clone_others {
            return Err(Error::usage("--clone-others does nothing without --strategy clone"));
        }
        let directory = FilesFlags::is_directory(app, self.source.as_deref());
        let (shown, data) = if directory && self.strategy != Strategy::Logical {
            let url = self.source.as_deref().or(app.config.source.as_deref());
            (url.unwrap_or_default().to_owned(), None)
        } else {
            let source = source(app, self.source.as_deref(), &self.defaults_file);
            let source = source.resolve(cx).await?;
            (source.to_string(), Some(source))
        };
        let driver: Box<dyn Backup> = match (self.strategy, &data) {
            (Strategy::Logical, Some(source)) => {
                Box::new(LogicalBackup::new(source.clone(), options))
            }
            (Strategy::Clone, Some(source)) => {
                let options = CloneOptions {
                    // What keeps it from being asked is a finding of its own.
                    encrypted_repository: !app.has_repo()
                        || app.is_encrypted().await.unwrap_or(true),
                    takes_others: self.others.clone_others,
                    // Nothing is written, so the spool may be anywhere.
                    ..CloneOptions::new("/")
                };
                Box::new(CloneBackup::new(source.clone(), options))
            }
            (Strategy::Physical, Some(source))
                if !self.files.copies(app, self.source.as_deref()) =>
            {
                Box::new(self.tool.driver(source.clone(), self.tool.options()))
            }
            (strategy, _) => {
                let (url, lock) = (self.source.as_deref(), LockOptions::default());
                self.files.driver(app, strategy, url, &self.defaults_file, lock, false).await?
            }
        };
        // What keeps files from being looked at is what the check is to find.
        let files = matches!(self.strategy, Strategy::Physical | Strategy::Snapshot);
        let mut findings = match cx.run(driver.preflight(cx)).await {
            Ok(findings) => findings,
            Err(e) if e.kind() == ErrorKind::Source && files => {
                let problem = e.chain();
                let remedy = e.remedy().to_owned();
                vec![Finding::new(Severity::Error, "source", problem, remedy).with_kind(e.kind())]
            }
            Err(e) => return Err(e),
        };
        if let (true, Some(source)) = (self.others.clone_others, &data)
            && let Some(options) = others(cx, source).await?
        {
            // As the backup looks before it reads anything.
            let dump = LogicalBackup::new(source.clone(), options);
            let of_dump = cx.run(dump.preflight(cx)).await?;
            findings.extend(of_dump.into_iter().filter(|f| f.severity != Severity::Info));
        }
        if app.has_repo() {
            let bytes = match data {
                Some(source) => cx.run(data_bytes(&source, self.strategy)).await?,
                None => None,
            };
            findings.extend(repository(app, bytes).await?);
        }
        findings.sort_by_key(|f| std::cmp::Reverse(f.severity));
        let worst = findings.iter().find(|f| f.severity == Severity::Error);
        let ending = worst.map(|f| f.kind.unwrap_or(ErrorKind::Source));

        let document = json!({
            "source": shown,
            "strategy": self.strategy,
            "ok": ending.is_none(),
            "findings": findings,
        });
        let verdict = match ending {
            None => "can be backed up",
            Some(_) => "cannot be backed up yet",
        };
        let mut text = format!("{shown} {verdict}.\n");
        for finding in &findings {
            text.push_str(&human::finding(finding));
        }
        Ok(Answer::new(&document, text)?.ending(ending))
    }
}

/// What the server says that a backup reads, of rows without its own tables; `None` where the account sees no others.
async fn data_bytes(source: &ConnectOptions, strategy: Strategy) -> Result<Option<u64>> {
    let mut session = Session::open(source).await?;
    // MySQL answers with figures of up to a day ago; this asks for those of now.
    let facts = inventory::server(session.conn()).await?;
    if facts.flavor == Flavor::MySql {
        session.run("SET SESSION information_schema_stats_expiry = 0").await?;
    }
    let own = SYSTEM_DATABASES.map(|name| format!("'{name}'")).join(", ");
    let but_elsewhere = inventory::but_elsewhere(session.conn()).await?;
    let tables = |what: &str, which: &str| {
        format!(
            "SELECT CAST(SUM({what}) AS UNSIGNED) FROM information_schema.tables \
             WHERE table_schema NOT IN ({own}){which}{but_elsewhere}"
        )
    };
    let files = match strategy {
        // Rows alone.
        Strategy::Logical => None,
        // What is estimated of tables lags behind young data. An account without PROCESS may not see the files.
        _ => session.query_first::<Option<u64>>(tablespaces(facts.flavor)).await.ok().flatten(),
    };
    let sql = match (strategy, files.flatten()) {
        (Strategy::Logical, _) => tables("data_length", ""),
        (_, None) => tables("data_length + index_length", ""),
        (Strategy::Clone, Some(files)) => format!("SELECT {files}"),
        (_, Some(files)) => {
            let others = tables("data_length + index_length", " AND engine <> 'InnoDB'");
            format!("SELECT {files} + COALESCE(({others}), 0)")
        }
    };
    let bytes: Option<Option<u64>> = session.query_first(&sql).await?;
    session.close().await?;
    Ok(bytes.flatten())
}

/// Asks for the length of InnoDB's files, which the file system tells.
fn tablespaces(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::MySql => {
            "SELECT CAST(SUM(file_size) AS UNSIGNED) FROM information_schema.innodb_tablespaces \
             WHERE name <> 'innodb_temporary'"
        }
        Flavor::MariaDb => {
            "SELECT CAST(SUM(file_size) AS UNSIGNED) FROM information_schema.innodb_sys_tablespaces \
             WHERE name <> 'innodb_temporary'"
        }
    }
}

/// Whether the repository can be used, and has room for `data` bytes.
async fn repository(app: &App, data: Option<u64>) -> Result<Vec<Finding>> {
    let url = app.repo_url()?;
    let opened = app.repo(RepositoryOptions { writes: true, ..RepositoryOptions::default() }).await;
    if let Err(e) = opened.and_then(|repo| repo.refuse_clear_text("the backup")) {
        return Ok(vec![finding(&url, &e)]);
    }
    match &url {
        RepoUrl::Local(path) | RepoUrl::Nfs(path) => Ok(vec![match room(path, data) {
            Ok(finding) => finding,
            Err(e) => finding(&url, &e),
        }]),
        // Object stores do not say how much room they have.
        _ => Ok(Vec::new()),
    }
}

fn finding(url: &RepoUrl, error: &Error) -> Finding {
    Finding::new(Severity::Error, url.to_string(), error.chain(), error.remedy().to_owned())
        .with_kind(error.kind())
}

/// A backup that does not shrink at all is rare, and one that shrinks to less than a tenth too.
const BEST_RATIO: u64 = 10;

fn room(path: &Path, data: Option<u64>) -> Result<Finding> {
    let failed = |what: &str| format!("cannot {what} {}", path.display());
    // For root this still tells of a file system that is mounted read-only.
    access(path, Access::WRITE_OK)
        .map_err(|e| io_error(e.into(), ErrorKind::Store, failed("write to")))?;
    let stat = statvfs(path)
        .map_err(|e| io_error(e.into(), ErrorKind::Store, failed("ask for the free space of")))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let free_text = format!("{} free", human::bytes(free));
    let problem = match data {
        Some(data) => {
            let data = human::bytes(data);
            format!("{free_text}; the source has {data} of data before compression")
        }
        None => free_text,
    };
    let data = data.unwrap_or_default();
    let object = path.display().to_string();
    Ok(if free < data / BEST_RATIO {
        Finding::new(Severity::Error, object, problem, "free space, or choose another repository")
            .with_kind(ErrorKind::Space)
    } else if free < data {
        let remedy = "watch the first backup; free space if it does not shrink enough";
        Finding::new(Severity::Warning, object, problem, remedy)
    } else {
        Finding::new(Severity::Info, object, problem, "")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_judged_by_what_compression_can_do() {
        let dir = tempfile::tempdir().unwrap();
        let free = statvfs(dir.path()).map(|s| s.f_bavail * s.f_frsize).unwrap();
        let severity = |data| room(dir.path(), Some(data)).unwrap().severity;
        assert_eq!(severity(0), Severity::Info);
        assert_eq!(severity(free.saturating_mul(3)), Severity::Warning);
        assert_eq!(severity(free.saturating_mul(100)), Severity::Error);
        let e = room(&dir.path().join("none"), None).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Store);
    }
}
