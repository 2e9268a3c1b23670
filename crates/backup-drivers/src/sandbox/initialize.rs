//! Filling an empty data directory.

use std::process::Stdio;

use backup_core::{Context, Error, ErrorKind, Flavor, Result, io_error};

use super::builder::Launch;
use super::directories::Directories;
use super::install::ServerInstall;
use super::log::Log;
use super::process::Process;

/// Initialises the data directory; `root@localhost` gets no password.
pub(super) async fn initialize(
    launch: &Launch,
    directories: &Directories,
    cx: &Context,
) -> Result<()> {
    let install = &launch.install;
    let mut command = launch.base_command(directories);
    let input = match install.flavor() {
        Flavor::MySql => {
            command.arg("--initialize-insecure");
            Stdio::null()
        }
        Flavor::MariaDb => {
            command.args(MARIADB_BOOTSTRAP);
            Stdio::from(directories.input(&bootstrap_script(install)?)?)
        }
    };
    command.args(launch.shaping_options());
    let log = Log::from_here(directories.initialize_log());
    let failed = |how: String| {
        let message = format!("{} {how}", launch.describe("initialising", directories));
        Error::new(ErrorKind::Target, message)
            .with_source(log.excerpt())
            .with_remedy("see the server's own words for what it lacks")
    };
    let process = Process::spawn(&command, input, log.append()?)
        .map_err(|e| io_error(e, ErrorKind::Usage, launch.describe("cannot start", directories)))?;
    let ended = async { Ok(tokio::time::timeout(launch.start_timeout, process.wait()).await) };
    match cx.run(ended).await? {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(Some(status)) => Err(failed(format!("failed with {status}"))),
        Ok(None) => Err(failed("ended in an unknown way".into())),
        Err(_) => Err(failed(format!("took longer than {:?}", launch.start_timeout))),
    }
}

/// How `mariadb-install-db` runs the server. That script itself cannot be used: it starts programs
/// without the loader of a relocated installation.
const MARIADB_BOOTSTRAP: [&str; 5] = [
    "--bootstrap",
    "--log-warnings=0",
    "--enforce-storage-engine=",
    "--max-allowed-packet=8M",
    "--net-buffer-length=16K",
];

/// What `mariadb-install-db --auth-root-authentication-method=normal --skip-test-db` feeds it.
fn bootstrap_script(install: &ServerInstall) -> Result<Vec<u8>> {
    let share = install.share().ok_or_else(|| {
        Error::usage(format!("{} has no directory share/mysql", install.base().display()))
            .with_remedy("install the whole server package")
    })?;
    let mut script = Vec::from(
        "create database if not exists mysql;\nuse mysql;\nSET @auth_root_socket=NULL;\n",
    );
    let parts = [
        "system_tables",
        "performance_tables",
        "system_tables_data",
        "fill_help_tables",
        "maria_add_gis_sp_bootstrap",
        "sys_schema",
    ];
    for part in parts {
        // MariaDB 11 renamed `mysql_…` to `mariadb_…`.
        let text = ["mariadb_", "mysql_", ""]
            .iter()
            .map(|prefix| share.join(format!("{prefix}{part}.sql")))
            .find(|file| file.is_file())
            .ok_or_else(|| {
                let message = format!("{} has no {part}.sql", share.display());
                Error::usage(message).with_remedy("install the whole server package")
            })
            .and_then(|file| {
                std::fs::read(&file).map_err(|e| {
                    io_error(e, ErrorKind::Usage, format!("cannot read {}", file.display()))
                })
            })?;
        script.extend(text);
    }
    Ok(script)
}
