//! Private, throw-away servers: a mysqld or mariadbd on a directory, for drills, for preparing
//! physical backups, for demonstrations and for tests.
//!
//! A sandbox listens on a Unix socket in a directory that only its user can enter, and on TCP only
//! when asked, on 127.0.0.1. It reads no option file and has no environment. It dies with the value
//! that holds it and, where util-linux's `setpriv` is there, with the process, however that ends.
//!
//! ```no_run
//! # async fn run() -> backup_core::Result<()> {
//! use backup_drivers::sandbox::{Sandbox, ServerInstall};
//!
//! let cx = backup_core::Context::builder().build();
//! let install = ServerInstall::detect("/usr")?;
//! let mut server = Sandbox::builder(&install).option("max_connections", "20").start(&cx).await?;
//! println!("mysql --user=root --socket={}", server.socket().display());
//! server.stop().await
//! # }
//! ```

mod builder;
mod config;
mod directories;
mod initialize;
mod install;
mod keyring;
mod log;
mod process;
mod scratch;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use backup_core::{Context, Error, ErrorKind, Result, io_error};
use rustix::process::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

pub use builder::SandboxBuilder;
pub use config::ServerConfig;
pub use install::ServerInstall;
pub(crate) use install::plugin_directory;
pub use scratch::Scratch;

use builder::Launch;
use directories::Directories;
use log::Log;
use process::Process;

/// A throw-away server. Dropping it kills the server and removes everything but a data directory
/// that the caller named.
pub struct Sandbox {
    // The order of the fields is the order of dropping: the server first, its directories then.
    process: Option<Process>,
    launch: Launch,
    port: Option<u16>,
    directories: Directories,
}

impl Sandbox {
    /// Starts to describe a sandbox that runs the server of `install`.
    #[must_use]
    pub fn builder(install: &ServerInstall) -> SandboxBuilder {
        SandboxBuilder::new(install.clone())
    }

    /// The Unix socket. `root` has no password when the sandbox initialised the data directory.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.directories.socket()
    }

    /// The port on 127.0.0.1, when TCP was asked for.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// A directory that only its user can enter, and that goes with the sandbox.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directories.private()
    }

    /// The data directory.
    #[must_use]
    pub fn datadir(&self) -> &Path {
        self.directories.data()
    }

    /// The server's error log, of every start of this sandbox.
    #[must_use]
    pub fn error_log(&self) -> PathBuf {
        self.directories.error_log()
    }

    /// The file in which it keeps its keys, where it has a keyring.
    pub(crate) fn keyring_file(&self) -> Option<PathBuf> {
        Some(keyring::keys(self.directory())).filter(|path| path.exists())
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

    /// Shuts the server down in order (SIGTERM) and waits until it ended; one that was stopped
    /// before stays so. After [`SandboxBuilder::stop_timeout`] it is killed.
    ///
    /// # Errors
    /// [`ErrorKind::Target`] when the server died before, was killed, or did not end well.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(process) = &self.process else {
            return Ok(());
        };
        process.signal(Signal::TERM);
        let how = match timeout(self.launch.stop_timeout, process.wait()).await {
            Ok(Some(status)) if status.success() => None,
            Ok(Some(status)) => Some(format!("ended with {status}")),
            Ok(None) => Some("ended in an unknown way".into()),
            Err(_) => {
                Some(format!("did not shut down within {:?}, killed it", self.launch.stop_timeout))
            }
        };
        self.process = None;
        how.map_or(Ok(()), |how| {
            let message = format!("{} {how}", self.launch.describe("stopping", &self.directories));
            Err(Error::new(ErrorKind::Target, message)
                .with_source(Log::whole(self.error_log()).excerpt())
                .with_remedy("the data directory needs crash recovery: start it again"))
        })
    }

    /// SIGKILL: what a crash leaves in the data directory is there then.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts the server again on the same directory, socket and port; stops it first when it
    /// runs.
    ///
    /// # Errors
    /// Those of [`stop`](Self::stop) and of [`SandboxBuilder::start`].
    pub async fn restart(&mut self, cx: &Context) -> Result<()> {
        self.stop().await?;
        self.launch(cx).await
    }

    /// Starts the process and waits until it takes connections.
    async fn launch(&mut self, cx: &Context) -> Result<()> {
        self.directories.clear_socket();
        let log = Log::from_here(self.error_log());
        let command = self.launch.command(&self.directories, self.port);
        let describe = |what| self.launch.describe(what, &self.directories);
        let process = Process::spawn(&command, Stdio::null(), log.append()?)
            .map_err(|e| io_error(e, ErrorKind::Usage, describe("cannot start")))?;
        let failed = |how: String| {
            Error::new(ErrorKind::Target, format!("{} {how}", describe("starting")))
                .with_source(log.excerpt())
                .with_remedy("see the server's own words for what it lacks")
        };
        let socket = self.socket();
        tokio::select! {
            biased;
            () = cx.cancellation().cancelled() => return Err(Error::interrupted()),
            status = process.wait() => {
                let status = status.map_or_else(|| "unknown status".into(), |s| s.to_string());
                return Err(failed(format!("failed with {status}")));
            }
            () = greeting(&socket) => {}
            () = sleep(self.launch.start_timeout) => {
                return Err(failed(format!("took longer than {:?}", self.launch.start_timeout)));
            }
        }
        self.process = Some(process);
        Ok(())
    }
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox")
            .field("version", &self.install().version())
            .field("datadir", &self.datadir())
            .field("socket", &self.socket())
            .field("pid", &self.pid())
            .finish_non_exhaustive()
    }
}

/// Waits until the server greets a client. The first packet of a server that takes connections is
/// a handshake, whose fifth byte is the version of the protocol, 10; that of one that does not is
/// an error, 0xff.
/// (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_connection_phase.html>)
async fn greeting(socket: &Path) {
    let ask = async || -> std::io::Result<bool> {
        let mut start = [0; 5];
        UnixStream::connect(socket).await?.read_exact(&mut start).await?;
        Ok(start[4] == 10)
    };
    // A server that recovers may have the socket and not answer on it yet.
    while !matches!(timeout(Duration::from_secs(5), ask()).await, Ok(Ok(true))) {
        sleep(Duration::from_millis(20)).await;
    }
}
