//! `mydumper` and `myloader`: those of the PATH, else Debian's, unpacked below `target/peers`.

use std::path::{Path, PathBuf};
use std::process::Command;

use backup_core::{Error, ErrorKind, Result, io_error};

use super::peers;
use crate::server::{Server, file_error};
use crate::shop;

/// The package, and the libraries that it needs.
const PACKAGE: &str = "mydumper";
const LIBRARIES: [&str; 5] = ["libc6", "libglib2.0-0t64", "libmariadb3", "libpcre2-8-0", "zlib1g"];

/// The default of mydumper itself.
const THREADS: &str = "4";

/// Where MariaDB's client library looks for its plugins.
const PLUGINS: &str = "MARIADB_PLUGIN_DIR";

/// Both programs.
pub(crate) struct Mydumper {
    directory: PathBuf,
    /// The loader and the libraries of an unpacked tree.
    runtime: Option<(PathBuf, PathBuf)>,
    version: String,
}

impl Mydumper {
    /// Finds it on the PATH, or fetches it.
    pub(crate) fn have() -> Result<Mydumper> {
        if let Some(directory) = peers::on_path(&["mydumper", "myloader"]) {
            return Mydumper::of(directory, None);
        }
        let root = peers::have(PACKAGE, &LIBRARIES)?;
        let runtime = peers::runtime(&root)?;
        Mydumper::of(root.join("usr/bin"), Some(runtime))
    }

    fn of(directory: PathBuf, runtime: Option<(PathBuf, PathBuf)>) -> Result<Mydumper> {
        let mut mydumper = Mydumper { directory, runtime, version: String::new() };
        let output = mydumper
            .command("mydumper")
            .arg("--version")
            .output()
            .map_err(|e| io_error(e, ErrorKind::Usage, "cannot run mydumper"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        mydumper.version = version(&text)
            .ok_or_else(|| {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                Error::usage("mydumper does not tell its version").with_source(said)
            })?
            .to_owned();
        Ok(mydumper)
    }

    /// Its version and how it is called.
    pub(crate) fn describe(&self) -> String {
        let codec = if self.has_zstd() { "zstd" } else { "gzip" };
        format!("{}, {THREADS} threads, {codec}", self.version)
    }

    /// Whether it compresses with zstd, which came with 0.11.
    pub(crate) fn has_zstd(&self) -> bool {
        let mut numbers = self.version.split(['.', '-']).map(|n| n.parse::<u32>().unwrap_or(0));
        (numbers.next(), numbers.next()) >= (Some(0), Some(11))
    }

    /// The command that dumps into the directory `out`.
    pub(crate) fn dump(&self, server: &Server, out: &Path) -> Result<Command> {
        // Older ones do not make it themselves.
        std::fs::create_dir(out).map_err(file_error(out))?;
        let mut command = self.command("mydumper");
        command.args(["--database", shop::DATABASE, "--user", "root", "--threads", THREADS]);
        command.args(["--routines", "--triggers", "--events"]);
        command.arg(if self.has_zstd() { "--compress=ZSTD" } else { "--compress" });
        if self.has_zstd() {
            // It was made a moment ago, for the older ones.
            command.arg("--dirty");
        }
        command.arg("--socket").arg(server.socket()).arg("--outputdir").arg(out);
        Ok(command)
    }

    /// The command that loads from the directory `from`.
    pub(crate) fn load(&self, server: &Server, from: &Path) -> Result<Command> {
        let mut command = self.command("myloader");
        command.args(["--user", "root", "--threads", THREADS]);
        command.arg("--socket").arg(server.socket()).arg("--directory").arg(from);
        Ok(command)
    }

    /// A command with nothing in its environment but where it looks for `zstd` and for the plugins
    /// of its client library, without which it cannot sign in to MySQL.
    fn command(&self, program: &str) -> Command {
        let program = self.directory.join(program);
        let mut command = match &self.runtime {
            Some((loader, libraries)) => {
                let mut command = Command::new(loader);
                command.arg("--library-path").arg(libraries).arg(program);
                command
            }
            None => Command::new(program),
        };
        let plugins = match &self.runtime {
            Some((_, libraries)) => Some(libraries.join("libmariadb3/plugin").into()),
            None => std::env::var_os(PLUGINS),
        };
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
        command.envs(plugins.map(|plugins| (PLUGINS, plugins)));
        command
    }
}

/// `mydumper v1.0.1-3, built against …`, `mydumper 0.10.1, built against …`
fn version(text: &str) -> Option<&str> {
    let word = text.strip_prefix("mydumper ")?.split([',', ' ', '\n']).next()?;
    let version = word.trim_start_matches('v');
    version.starts_with(|c: char| c.is_ascii_digit()).then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_old_and_new() {
        let of = |text| version(text).map(str::to_owned);
        let new = of("mydumper v1.0.1-3, built against MariaDB 10.11.19 with SSL support").unwrap();
        let old = of("mydumper 0.10.1, built against MySQL 3.4.9\n").unwrap();
        assert_eq!((new.as_str(), old.as_str()), ("1.0.1-3", "0.10.1"));
        assert_eq!(of("mydumper: error while loading shared libraries"), None);
        let has =
            |version: String| Mydumper { directory: "".into(), runtime: None, version }.has_zstd();
        assert!(has(new));
        assert!(!has(old));
    }
}
