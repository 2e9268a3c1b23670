//! An installation of a server: what is there and how to run it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backup_core::{Error, ErrorKind, Flavor, Result, io_error};

/// An installation of MySQL or MariaDB: the system's own, an unpacked tarball, or Debian packages
/// unpacked into a directory (with their own libc and loader).
///
/// Programs are run with an empty environment: no variable changes what they do, and no secret of
/// ours is in theirs.
#[derive(Debug, Clone)]
pub struct ServerInstall {
    flavor: Flavor,
    version: String,
    base: PathBuf,
    server: PathBuf,
    share: Option<PathBuf>,
    plugins: Option<PathBuf>,
    runtime: Option<Runtime>,
}

/// The libc of a relocated tree. Programs must run with it: that of the machine may be older.
#[derive(Debug, Clone)]
struct Runtime {
    loader: PathBuf,
    libraries: OsString,
}

impl ServerInstall {
    /// Finds out what is in `dir`: a root with `usr/sbin/mysqld` (`/` for the machine's own
    /// server), a `usr` directory, or the base directory of a tarball. Runs the server's
    /// `--version`, which blocks for some tens of milliseconds.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when there is no server, or it cannot be run.
    pub fn detect(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let mut root = std::fs::canonicalize(dir).map_err(|e| {
            let message = format!("cannot open the server installation {}", dir.display());
            io_error(e, ErrorKind::Usage, message)
        })?;
        if root.ends_with("usr") {
            root.pop();
        }
        let (base, server) = [root.join("usr"), root.clone()]
            .into_iter()
            .find_map(|base| {
                let server = find_program(&base, &["mariadbd", "mysqld"])?;
                Some((base, server))
            })
            .ok_or_else(|| {
                Error::usage(format!("there is no mysqld or mariadbd under {}", dir.display()))
                    .with_remedy("name the directory that holds bin/mysqld or usr/sbin/mysqld")
            })?;
        let runtime = if root == Path::new("/") { None } else { Runtime::find(&root) };
        let share = ["share/mysql", "share/mariadb", "share"]
            .iter()
            .map(|dir| base.join(dir))
            .find(|dir| dir.join("english/errmsg.sys").is_file());
        let plugins = plugin_directory(&base);
        let mut install = ServerInstall {
            flavor: Flavor::MySql,
            version: String::new(),
            base,
            server,
            share,
            plugins,
            runtime,
        };
        (install.flavor, install.version) = install.ask_version()?;
        Ok(install)
    }

    fn ask_version(&self) -> Result<(Flavor, String)> {
        let failed = || {
            let server = self.server.display();
            Error::usage(format!("cannot tell the version of {server}"))
                .with_remedy("run it with --version and see why it does not answer")
        };
        let output = self
            .run(&self.server)
            .args(["--no-defaults", "--version"])
            .stdin(Stdio::null())
            .output()
            .map_err(|e| failed().with_source(e))?;
        let text = String::from_utf8_lossy(&output.stdout);
        parse_version(&text).ok_or_else(|| {
            let said = String::from_utf8_lossy(&output.stderr);
            failed().with_source(format!("{} {}", text.trim(), said.trim()))
        })
    }

    /// MySQL or MariaDB.
    #[must_use]
    pub fn flavor(&self) -> Flavor {
        self.flavor
    }

    /// The version as the server itself spells it, such as `9.7.4-2` or `10.11.19-MariaDB-0+deb12u1`.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The server's `basedir`.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The server's own program.
    #[must_use]
    pub fn server_path(&self) -> &Path {
        &self.server
    }

    /// The directory of error messages, character sets and bootstrap scripts, where there is one.
    #[must_use]
    pub fn share(&self) -> Option<&Path> {
        self.share.as_deref()
    }

    /// The directory of plugins, where there is one.
    pub(crate) fn plugins(&self) -> Option<&Path> {
        self.plugins.as_deref()
    }

    /// The libraries of the plugins that have these storage engines, of those that the installation has. The
    /// server loads none by itself.
    #[must_use]
    pub fn engine_libraries<'a>(
        &self,
        engines: impl IntoIterator<Item = &'a str>,
    ) -> BTreeSet<String> {
        let Some(directory) = &self.plugins else { return BTreeSet::new() };
        let library = |engine: &str| match engine.to_ascii_lowercase().as_str() {
            "innodb" | "myisam" | "aria" | "memory" | "csv" | "mrg_myisam" | "sequence" => None,
            // The one of that name is its predecessor, which has bugs that nobody mends.
            "federated" if self.flavor == Flavor::MariaDb => Some("ha_federatedx.so".to_owned()),
            name if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => {
                Some(format!("ha_{name}.so"))
            }
            _ => None,
        };
        let libraries = engines.into_iter().filter_map(library);
        libraries.filter(|library| directory.join(library).is_file()).collect()
    }

    /// The same installation with its server and its plugins in other places.
    pub(super) fn moved(&self, server: PathBuf, plugins: PathBuf) -> ServerInstall {
        ServerInstall { server, plugins: Some(plugins), ..self.clone() }
    }

    /// Where a helper program is, such as `mysqldump`. The names of both families are understood:
    /// `mysqldump` finds `mariadb-dump` in an installation of MariaDB.
    #[must_use]
    pub fn find(&self, program: &str) -> Option<PathBuf> {
        let names: Vec<&str> = std::iter::once(program)
            .chain(ALIASES.iter().filter(|pair| pair.contains(&program)).flatten().copied())
            .collect();
        find_program(&self.base, &names)
    }

    /// A command that runs a program of this installation, with an empty environment.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when the program is not there.
    pub fn command(&self, program: &str) -> Result<Command> {
        let path = self.find(program).ok_or_else(|| {
            let base = self.base.display();
            Error::usage(format!("{program} is not in the {} installation {base}", self.flavor))
                .with_remedy(format!("install the package with {program}, of the same version"))
        })?;
        Ok(self.run(&path))
    }

    fn run(&self, program: &Path) -> Command {
        let mut command = match &self.runtime {
            Some(runtime) if !is_script(program) => {
                let mut command = Command::new(&runtime.loader);
                command.arg("--library-path").arg(&runtime.libraries).arg(program);
                command
            }
            _ => Command::new(program),
        };
        command.env_clear();
        command
    }

    /// The server with what it needs to find its own files; `--no-defaults` is the first option.
    pub(super) fn server_command(&self) -> Command {
        self.server_command_with("--no-defaults".into())
    }

    /// The same with another first option, which says what option files are read.
    pub(super) fn server_command_with(&self, defaults: OsString) -> Command {
        let mut command = self.run(&self.server);
        command.arg(defaults).arg(option("basedir", &self.base));
        if let Some(share) = &self.share {
            command.arg(option("lc-messages-dir", share));
            command.arg(option("character-sets-dir", share.join("charsets")));
        }
        if let Some(plugins) = &self.plugins {
            command.arg(option("plugin-dir", plugins));
        }
        if rustix::process::geteuid().is_root() {
            command.arg("--user=root");
        }
        command
    }
}

/// Where a release that is unpacked at `base` has its plugins.
pub(crate) fn plugin_directory(base: &Path) -> Option<PathBuf> {
    [
        "lib/mysql/plugin",
        "lib64/mysql/plugin",
        "lib/mariadb/plugin",
        "lib64/mariadb/plugin",
        "lib/plugin",
    ]
    .iter()
    .map(|dir| base.join(dir))
    .find(|dir| dir.is_dir())
}

impl Runtime {
    /// Looks for `lib/<architecture triple>/ld-*.so.*` beside a libc under `root`.
    fn find(root: &Path) -> Option<Runtime> {
        let mut directories: Vec<PathBuf> = Vec::new();
        let mut loader = None;
        for lib in [root.join("lib"), root.join("usr/lib")] {
            let Ok(entries) = std::fs::read_dir(lib) else {
                continue;
            };
            for dir in entries.flatten().map(|e| e.path()).filter(|p| is_triple(p)) {
                if dir.join("libc.so.6").exists() {
                    loader = loader.or_else(|| find_loader(&dir));
                }
                directories.push(dir);
            }
        }
        let libraries = std::env::join_paths(directories).ok()?;
        Some(Runtime { loader: loader?, libraries })
    }
}

/// `x86_64-linux-gnu`, `aarch64-linux-gnu`, `arm-linux-gnueabihf`, …
fn is_triple(dir: &Path) -> bool {
    dir.file_name().is_some_and(|name| name.to_string_lossy().contains("-linux-gnu"))
}

/// `ld-linux-x86-64.so.2`, `ld-linux-aarch64.so.1`, `ld64.so.2`, …
fn find_loader(dir: &Path) -> Option<PathBuf> {
    std::fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        (name.starts_with("ld-") || name.starts_with("ld64")) && name.contains(".so.")
    })
}

fn find_program(base: &Path, names: &[&str]) -> Option<PathBuf> {
    ["sbin", "bin", "libexec", "scripts"]
        .iter()
        .flat_map(|dir| names.iter().map(move |name| base.join(dir).join(name)))
        .find(|path| path.is_file())
}

/// The names of one program in MariaDB and in MySQL.
const ALIASES: [[&str; 2]; 9] = [
    ["mariadb", "mysql"],
    ["mariadb-admin", "mysqladmin"],
    ["mariadb-binlog", "mysqlbinlog"],
    ["mariadb-check", "mysqlcheck"],
    ["mariadb-dump", "mysqldump"],
    ["mariadb-import", "mysqlimport"],
    ["mariadb-install-db", "mysql_install_db"],
    ["mariadb-upgrade", "mysql_upgrade"],
    ["mariadbd", "mysqld"],
];

fn is_script(program: &Path) -> bool {
    let mut start = [0; 2];
    std::fs::File::open(program).and_then(|mut f| f.read_exact(&mut start)).is_ok()
        && &start == b"#!"
}

/// `--name=value`.
pub(super) fn option(name: &str, value: impl AsRef<std::ffi::OsStr>) -> OsString {
    let mut argument = OsString::from(format!("--{name}="));
    argument.push(value);
    argument
}

/// Reads what `mysqld --version` prints: `… Ver 9.7.4-2 for Linux on x86_64 ((Debian))`.
fn parse_version(text: &str) -> Option<(Flavor, String)> {
    let mut words = text.split_whitespace().skip_while(|word| *word != "Ver").skip(1);
    let version = words.next().filter(|v| v.starts_with(|c: char| c.is_ascii_digit()))?;
    let flavor = if text.contains("MariaDB") { Flavor::MariaDb } else { Flavor::MySql };
    Some((flavor, version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_line_of_both_families_is_understood() {
        let parse = |text| parse_version(text).unwrap();
        assert_eq!(
            parse("/x/mysqld  Ver 9.7.4-2 for Linux on x86_64 ((Debian))\n"),
            (Flavor::MySql, "9.7.4-2".into())
        );
        assert_eq!(
            parse("mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu on x86_64"),
            (Flavor::MariaDb, "10.11.19-MariaDB-0+deb12u1".into())
        );
        assert_eq!(parse_version("error while loading shared libraries"), None);
        assert_eq!(parse_version("mysqld Ver"), None);
    }

    #[test]
    fn a_directory_without_a_server_is_named_in_the_error() {
        let dir = tempfile::tempdir().unwrap();
        let error = ServerInstall::detect(dir.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains(dir.path().to_str().unwrap()), "{error:?}");
    }

    #[test]
    fn the_loader_is_found_beside_the_libc_of_the_tree() {
        let dir = tempfile::tempdir().unwrap();
        let lib = dir.path().join("lib/aarch64-linux-gnu");
        let usr = dir.path().join("usr/lib/aarch64-linux-gnu");
        for dir in [&lib, &usr] {
            std::fs::create_dir_all(dir).unwrap();
        }
        assert!(Runtime::find(dir.path()).is_none());
        std::fs::write(lib.join("libc.so.6"), "").unwrap();
        std::fs::write(lib.join("ld-linux-aarch64.so.1"), "").unwrap();
        let runtime = Runtime::find(dir.path()).unwrap();
        assert_eq!(runtime.loader, lib.join("ld-linux-aarch64.so.1"));
        assert_eq!(std::env::split_paths(&runtime.libraries).collect::<Vec<_>>(), [lib, usr]);
    }
}
