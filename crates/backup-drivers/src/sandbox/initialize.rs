//! Filling an empty data directory.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backup_core::{Context, Error, ErrorKind, Flavor, Result, io_error};

use super::Directories;
use super::builder::Launch;
use super::install::ServerInstall;
use super::log::Log;
use super::process::Process;

/// Initialises the data directory; `root@localhost` gets no password.
///
/// # Errors
/// [`ErrorKind::Target`] with the server's own words, or
/// [`ErrorKind::Usage`] when the installation lacks the scripts.
pub(super) async fn initialize(
    launch: &Launch,
    directories: &Directories,
    cx: &Context,
) -> Result<()> {
    let install = &launch.install;
    let (command, input) = match install.flavor() {
        Flavor::MySql => {
            let mut command = launch.base_command(directories);
            command.arg("--initialize-insecure");
            (command, Stdio::null())
        }
        Flavor::MariaDb => {
            let script = directories.run.path().join("bootstrap.sql");
            let script = write_bootstrap(install, &script).map_err(|e| {
                let message = format!("cannot write the bootstrap script {}", script.display());
                io_error(e, ErrorKind::Target, message)
            })??;
            (bootstrap_command(launch, directories), Stdio::from(script))
        }
    };
    let mut command = command;
    launch.shape(&mut command);
    let log = Log::from_here(directories.run.path().join("initialize.log"));
    let failed = |how: String| {
        let (flavor, version) = (install.flavor(), install.version());
        let data = directories.data.display();
        Error::new(ErrorKind::Target, format!("initialising {data} with {flavor} {version} {how}"))
            .with_source(log.excerpt())
            .with_remedy("see the server's words above for what it lacks")
    };
    let process = Process::spawn(&command, input, log.append()?)
        .map_err(|e| io_error(e, ErrorKind::Usage, "cannot start the server"))?;
    let ended = async { Ok(tokio::time::timeout(launch.start_timeout, process.wait()).await) };
    match cx.run(ended).await? {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(Some(status)) => Err(failed(format!("failed with {status}"))),
        Ok(None) => Err(failed("ended, and how is not known".into())),
        Err(_) => Err(failed(format!("took longer than {:?}", launch.start_timeout))),
    }
}
