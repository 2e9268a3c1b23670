//! The programs that are measured: how each is called to dump and to load.

pub(crate) mod drain;
mod holdfast;
mod mydumper;
mod peers;
mod restic;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backup_core::{Error, Flavor, Result};
use backup_drivers::sandbox::ServerInstall;

use crate::server::{Server, file_error};
use crate::shop;

pub(crate) use holdfast::{Holdfast, Phase, phases};
pub(crate) use mydumper::Mydumper;
pub(crate) use restic::Restic;

/// A program that dumps or loads.
pub(crate) enum Tool {
    /// Ours.
    Holdfast(Holdfast),
    /// `mysqldump` or `mariadb-dump`, and `mysql` or `mariadb` to load, of the server's own release.
    Client(ServerInstall),
    /// `mydumper` and `myloader`.
    Mydumper(Mydumper),
    /// `LOAD DATA LOCAL INFILE`, one table after the other, from the files in a directory: what
    /// people do who have TSV.
    LoadData(ServerInstall, PathBuf),
    /// Reading all rows, and nothing else.
    Drain,
}

impl Tool {
    /// What the report calls it when it dumps.
    pub(crate) fn dumper(&self) -> String {
        match self {
            Tool::Holdfast(holdfast) => format!("holdfast backup{}", holdfast.describe()),
            Tool::Client(install) if install.flavor() == Flavor::MySql => "mysqldump".into(),
            Tool::Client(_) => "mariadb-dump".into(),
            Tool::Mydumper(mydumper) => format!("mydumper {}", mydumper.describe()),
            Tool::LoadData(..) => "(its files are there)".into(),
            Tool::Drain => "rows read and dropped".into(),
        }
    }

    /// What the report calls it when it loads.
    pub(crate) fn loader(&self) -> String {
        match self {
            Tool::Holdfast(_) => "holdfast restore".into(),
            Tool::Client(install) => format!("{} < dump.sql", client(install)),
            Tool::Mydumper(mydumper) => format!("myloader {}", mydumper.describe()),
            Tool::LoadData(..) => "LOAD DATA, table after table".into(),
            Tool::Drain => "(it loads nothing)".into(),
        }
    }

    /// Which exit codes say that it did its work. That of holdfast for warnings is one.
    pub(crate) fn good(&self) -> &'static [i32] {
        if matches!(self, Tool::Holdfast(_)) { &[0, 14] } else { &[0] }
    }

    /// Prepares `out`, which does not exist, and gives the command that dumps into it, if it is one
    /// that dumps.
    pub(crate) fn dump(&self, server: &Server, out: &Path) -> Result<Option<Command>> {
        let mut command = match self {
            Tool::Holdfast(holdfast) => {
                holdfast.init(out)?;
                holdfast.backup(server, out)
            }
            Tool::Client(install) => {
                let mut command = install.command("mysqldump")?;
                command.args(["--no-defaults", "--single-transaction", "--routines", "--triggers"]);
                command.args(["--events", "--user=root"]);
                command.arg(format!("--socket={}", server.socket().display()));
                if install.flavor() == Flavor::MySql {
                    // The default writes a position that only an empty server takes.
                    command.arg("--set-gtid-purged=OFF");
                }
                command.arg(format!("--result-file={}", out.display()));
                command.args(["--databases", shop::DATABASE]);
                command
            }
            Tool::Mydumper(mydumper) => mydumper.dump(server, out)?,
            Tool::Drain => drain::command(server)?,
            Tool::LoadData(..) => return Ok(None),
        };
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Some(command))
    }

    /// The command that loads what [`Self::dump`] left in `from` into a server without the
    /// database.
    pub(crate) async fn load(&self, server: &mut Server, from: &Path) -> Result<Command> {
        let mut command = match self {
            Tool::Holdfast(holdfast) => holdfast.restore(server, from),
            Tool::Client(install) => {
                let mut command = mysql(install, server)?;
                command.stdin(File::open(from).map_err(file_error(from))?);
                command.stdout(Stdio::null());
                return Ok(command);
            }
            Tool::Mydumper(mydumper) => mydumper.load(server, from)?,
            Tool::Drain => return Err(Error::internal("nothing was kept that could be loaded")),
            Tool::LoadData(install, directory) => {
                server.make_tables().await?;
                let statements: Vec<String> =
                    shop::TABLES.iter().map(|table| table.load(directory, true)).collect();
                let mut command = mysql(install, server)?;
                command.args(["--local-infile=1", shop::DATABASE]);
                command.arg(format!("--execute={}", statements.join("; ")));
                command
            }
        };
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok(command)
    }
}

fn client(install: &ServerInstall) -> &'static str {
    if install.flavor() == Flavor::MySql { "mysql" } else { "mariadb" }
}

/// The server's own client. Like the other loaders it leaves no trace in the binary log.
fn mysql(install: &ServerInstall, server: &Server) -> Result<Command> {
    let mut command = install.command("mysql")?;
    command.args(["--no-defaults", "--user=root"]);
    command.arg(format!("--socket={}", server.socket().display()));
    command.arg("--init-command=SET sql_log_bin = 0, unique_checks = 0, foreign_key_checks = 0");
    Ok(command)
}
