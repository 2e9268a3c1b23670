//! Which tool there is, and whether it fits a server.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backup_core::{Error, ErrorKind, Flavor, Result, ServerVersion, io_error};

use crate::sandbox::{ServerInstall, plugin_directory};
use crate::xbstream::Dialect;

/// The names of the tools, newest first.
const MARIADB: [&str; 2] = ["mariadb-backup", "mariabackup"];
const XTRABACKUP: [&str; 1] = ["xtrabackup"];

/// A tool that is there.
#[derive(Debug, Clone)]
pub struct Tool {
    program: OsString,
    /// What comes before its own arguments: the loader of a relocated installation has some.
    first: Vec<OsString>,
    dialect: Dialect,
    version: ToolVersion,
}

/// The version of a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ToolVersion {
    /// Its own: that of the server for `mariadb-backup`, 2.4, 8.0, 8.4, 9.7 for `xtrabackup`.
    pub own: (u16, u16, u16),
    /// That of the server whose InnoDB is in it.
    pub server: (u16, u16, u16),
}

impl ToolVersion {
    /// Reads what `--version` says, of both dialects.
    #[must_use]
    pub fn parse(text: &str) -> Option<(Dialect, ToolVersion)> {
        let after = |mark: &str| numbers(text.split_once(mark)?.1);
        if let Some(server) = after("based on MariaDB server ") {
            return Some((Dialect::MariaDb, ToolVersion { own: server, server }));
        }
        let server = after("based on MySQL server ")?;
        let own = after("xtrabackup version ").or_else(|| after("xtrabackup  Ver "))?;
        Some((Dialect::XtraBackup, ToolVersion { own, server }))
    }
}

/// `10.11.19-MariaDB…`, `8.0.35-31…`, `2.4.29`.
fn numbers(text: &str) -> Option<(u16, u16, u16)> {
    let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let (major, minor) = (parts.next()?.ok()?, parts.next()?.ok()?);
    Some((major, minor, parts.next().and_then(std::result::Result::ok).unwrap_or(0)))
}

impl Tool {
    /// Finds the tool for servers of that flavor: `named`, a program or the directory of an installation,
    /// else by its names in `directories` (those of `PATH`).
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when there is none, or it does not say its version.
    pub fn find(flavor: Flavor, named: Option<&Path>, directories: &[PathBuf]) -> Result<Tool> {
        let names: &[&str] = match flavor {
            Flavor::MariaDb => &MARIADB,
            Flavor::MySql => &XTRABACKUP,
        };
        if let Some(path) = named {
            if path.is_dir() {
                let install = ServerInstall::detect(path)?;
                let found = names.iter().find_map(|name| install.command(name).ok());
                let command = found.ok_or_else(|| missing(names, &path.display().to_string()))?;
                return Tool::from_command(&command);
            }
            // A bare name is one of PATH, as everywhere.
            let bare = path.components().count() == 1 && !path.exists();
            let found = directories.iter().map(|dir| dir.join(path)).find(|path| path.is_file());
            return match (bare, found) {
                (true, Some(found)) => Tool::from_command(&Command::new(found)),
                _ => Tool::from_command(&Command::new(
                    std::path::absolute(path).unwrap_or(path.to_owned()),
                )),
            };
        }
        let found = names
            .iter()
            .flat_map(|name| directories.iter().map(move |dir| dir.join(name)))
            .find(|path| path.is_file());
        match found {
            Some(path) => Tool::from_command(&Command::new(path)),
            None => Err(missing(names, "the directories of PATH")),
        }
    }

    /// The tool that this command runs.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub fn from_command(command: &Command) -> Result<Tool> {
        let mut tool = Tool {
            program: command.get_program().to_owned(),
            first: command.get_args().map(ToOwned::to_owned).collect(),
            dialect: Dialect::MariaDb,
            version: ToolVersion { own: (0, 0, 0), server: (0, 0, 0) },
        };
        let name = tool.name();
        let mut ask = tool.command();
        let output = ask
            .args(["--no-defaults", "--version"])
            .stdin(Stdio::null())
            .output()
            .map_err(|e| io_error(e, ErrorKind::Usage, format!("cannot run {name}")))?;
        // One prints it here, the other there.
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        (tool.dialect, tool.version) = ToolVersion::parse(&said).ok_or_else(|| {
            let said: String = said.trim().chars().take(200).collect();
            Error::usage(format!("{name} is no backup tool that is known here"))
                .with_source(said)
                .with_remedy("name mariadb-backup or xtrabackup with --tool")
        })?;
        Ok(tool)
    }

    /// Who writes the stream.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> ToolVersion {
        self.version
    }

    /// The name of the program.
    #[must_use]
    pub fn name(&self) -> String {
        let program = self.first.last().unwrap_or(&self.program);
        Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned()
    }

    /// Where the plugins of its release are.
    pub(super) fn plugins(&self) -> Option<PathBuf> {
        let program = std::fs::canonicalize(self.first.last().unwrap_or(&self.program)).ok()?;
        plugin_directory(program.parent()?.parent()?)
    }

    /// A command that runs it, with an empty environment.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.first).env_clear();
        command
    }

    /// Whether it can back up such a server, or prepare a backup of one.
    ///
    /// # Errors
    /// [`ErrorKind::Source`] with what would fit, before anything was run.
    pub fn check(&self, server: &ServerVersion) -> Result<()> {
        let (major, minor, patch) = self.version.server;
        let tool = format!("{} {major}.{minor}.{patch}", self.name());
        let (wanted_major, wanted_minor) = server.series();
        let mismatch = |why: String, remedy: String| {
            Err(Error::new(ErrorKind::Source, format!("{tool} does not fit {server}: {why}"))
                .with_remedy(remedy))
        };
        let logical = "or take a logical backup";
        match (self.dialect, server.flavor()) {
            (Dialect::XtraBackup, Flavor::MariaDb) => {
                return mismatch(
                    "xtrabackup understands no MariaDB since 10.3".to_owned(),
                    format!("install mariadb-backup {wanted_major}.{wanted_minor}, {logical}"),
                );
            }
            (Dialect::MariaDb, Flavor::MySql) => {
                return mismatch(
                    "mariadb-backup understands MariaDB only".to_owned(),
                    format!("install {}, {logical}", xtrabackup_for(server)),
                );
            }
            _ => {}
        }
        if (major, minor) != (wanted_major, wanted_minor) {
            let remedy = match server.flavor() {
                Flavor::MariaDb => format!("install mariadb-backup {wanted_major}.{wanted_minor}"),
                Flavor::MySql => format!("install {}", xtrabackup_for(server)),
            };
            return mismatch(
                "a tool works with its own series only".to_owned(),
                format!("{remedy}, {logical}"),
            );
        }
        // XtraBackup 8.0.34 and later refuse newer servers by themselves; older ones may misread them.
        if self.dialect == Dialect::XtraBackup && major >= 8 && server.patch() > patch {
            return mismatch(
                "the server is newer than the tool".to_owned(),
                format!(
                    "install xtrabackup {major}.{minor}.{} or later, {logical}",
                    server.patch()
                ),
            );
        }
        Ok(())
    }
}

/// The XtraBackup that goes with a server.
fn xtrabackup_for(server: &ServerVersion) -> String {
    match server.series() {
        (5, _) => "xtrabackup 2.4".to_owned(),
        (major, _) if major >= 26 => {
            format!("an xtrabackup for {major}.x, where Percona has one by now")
        }
        (major, minor) => format!("xtrabackup {major}.{minor}"),
    }
}

fn missing(names: &[&str], place: &str) -> Error {
    Error::usage(format!("there is no {} in {place}", names.join(" or ")))
        .with_remedy("install it on the host of the server, or name it with --tool")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn versions_that_tools_print() {
        for (text, dialect, own, server) in [
            (
                "/usr/bin/mariadb-backup based on MariaDB server 10.11.19-MariaDB debian-linux-gnu (x86_64)",
                Dialect::MariaDb,
                (10, 11, 19),
                (10, 11, 19),
            ),
            (
                "xtrabackup version 2.4.29 based on MySQL server 5.7.44 Linux (x86_64) (revision id: 2e6c0951)",
                Dialect::XtraBackup,
                (2, 4, 29),
                (5, 7, 44),
            ),
            (
                "2024-01-01T00:00:00.000000-00:00 0 [Note] [MY-011825] [Xtrabackup] recognized server arguments: --x\n\
                 xtrabackup version 8.0.35-31 based on MySQL server 8.0.35 Linux (x86_64) (revision id: 55ec21d7)",
                Dialect::XtraBackup,
                (8, 0, 35),
                (8, 0, 35),
            ),
            (
                "xtrabackup version 8.4.0-5 based on MySQL server 8.4.0 Linux (x86_64) (revision id: x)",
                Dialect::XtraBackup,
                (8, 4, 0),
                (8, 4, 0),
            ),
        ] {
            let (found, version) = ToolVersion::parse(text).unwrap();
            assert_eq!((found, version), (dialect, ToolVersion { own, server }), "{text}");
        }
        assert_eq!(ToolVersion::parse("mysqldump  Ver 8.0.36"), None);
    }

    /// A tool of that version, which is not run.
    pub(in super::super) fn tool_of(dialect: Dialect, server: (u16, u16, u16)) -> Tool {
        let version = ToolVersion { own: server, server };
        let program = if dialect == Dialect::MariaDb { "mariadb-backup" } else { "xtrabackup" };
        Tool { program: program.into(), first: Vec::new(), dialect, version }
    }

    #[test]
    fn a_tool_fits_its_own_series_only() {
        let cases = [
            (Dialect::MariaDb, (10, 11, 19), "10.11.6-MariaDB", None),
            (Dialect::MariaDb, (10, 11, 5), "10.11.6-MariaDB", None),
            (Dialect::MariaDb, (10, 6, 5), "10.11.6-MariaDB", Some("mariadb-backup 10.11")),
            (Dialect::MariaDb, (10, 11, 19), "8.0.36", Some("xtrabackup 8.0")),
            (Dialect::XtraBackup, (8, 0, 35), "10.11.6-MariaDB", Some("mariadb-backup 10.11")),
            (Dialect::XtraBackup, (8, 0, 35), "8.0.35", None),
            (Dialect::XtraBackup, (8, 0, 35), "8.0.36-28", Some("8.0.36 or later")),
            (Dialect::XtraBackup, (5, 7, 44), "5.7.30-log", None),
            (Dialect::XtraBackup, (8, 0, 35), "5.7.30-log", Some("xtrabackup 2.4")),
            (Dialect::XtraBackup, (8, 0, 35), "8.4.3", Some("xtrabackup 8.4")),
            (Dialect::XtraBackup, (9, 7, 1), "26.7.0", Some("xtrabackup for 26.x")),
        ];
        for (dialect, version, server, advice) in cases {
            let server = ServerVersion::parse(server, "").unwrap();
            let result = tool_of(dialect, version).check(&server);
            match advice {
                None => result.unwrap(),
                Some(advice) => {
                    let error = result.unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::Source);
                    assert!(error.report().contains(advice), "{}", error.report());
                }
            }
        }
    }
}
