//! What a sandbox is to be, and the command line that makes it so.

use std::ffi::OsString;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use backup_core::{Context, ErrorKind, Flavor, Result, io_error};

use super::Sandbox;
use super::directories::Directories;
use super::initialize::initialize;
use super::install::{ServerInstall, option};
use super::keyring::equip;

/// Describes a [`Sandbox`]; [`start`](Self::start) starts it.
#[derive(Debug, Clone)]
pub struct SandboxBuilder {
    launch: Launch,
    data: Option<PathBuf>,
    parent: Option<PathBuf>,
    template: Option<PathBuf>,
    durable: Option<bool>,
    keyring: bool,
    port: Port,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Port {
    None,
    Free,
    Fixed(u16),
}

/// What every start of one sandbox has in common.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    pub(super) install: ServerInstall,
    pub(super) start_timeout: Duration,
    pub(super) stop_timeout: Duration,
    durable: bool,
    binary_log: bool,
    /// What it reads before its own options.
    option_file: Option<PathBuf>,
    options: Vec<(String, Option<String>)>,
}

impl SandboxBuilder {
    pub(super) fn new(install: ServerInstall) -> Self {
        let launch = Launch {
            install,
            start_timeout: Duration::from_secs(60),
            stop_timeout: Duration::from_secs(60),
            durable: true,
            binary_log: true,
            option_file: None,
            options: Vec::new(),
        };
        SandboxBuilder {
            launch,
            data: None,
            parent: None,
            template: None,
            durable: None,
            keyring: false,
            port: Port::None,
        }
    }

    /// The data directory. It is made and initialised when it is missing or empty, and it stays.
    /// Without this the sandbox has one of its own, which goes with it.
    #[must_use]
    pub fn datadir(mut self, data: impl Into<PathBuf>) -> Self {
        self.data = Some(data.into());
        self
    }

    /// In which directory the sandbox makes its private one (log, socket, temporary tables, and
    /// its own data directory); without this, where the operating system has temporary files.
    #[must_use]
    pub fn directory(mut self, parent: impl Into<PathBuf>) -> Self {
        self.parent = Some(parent.into());
        self
    }

    /// Fills an empty data directory with a copy of this one, that of a server of the same
    /// installation that was shut down in order, which is quicker than to initialise it. Where an
    /// option shapes the data directory (`innodb_…` but for statistics, character sets), it is initialised all the
    /// same.
    #[must_use]
    pub fn template(mut self, data: impl Into<PathBuf>) -> Self {
        self.template = Some(data.into());
        self
    }

    /// Whether the data must survive a crash of the machine, not just of the server. By default
    /// that of the caller's directory does, and that of the sandbox's own does not: without waiting
    /// for the disk, commits are ten times as fast.
    #[must_use]
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = Some(durable);
        self
    }

    /// Whether the server has a keyring: an empty one of its own, which goes with the sandbox. Only
    /// MySQL from 8.0.24 on knows such ones; others do not start with it.
    #[must_use]
    pub fn keyring(mut self, on: bool) -> Self {
        self.keyring = on;
        self
    }

    /// An option of the server, written with dashes or underscores; it wins over what the sandbox
    /// itself chooses. No place for secrets: it is on the server's command line.
    #[must_use]
    pub fn option(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.launch.options.push((name.into(), Some(value.into())));
        self
    }

    /// An option without a value, such as `skip-grant-tables`.
    #[must_use]
    pub fn flag(mut self, name: impl Into<String>) -> Self {
        self.launch.options.push((name.into(), None));
        self
    }

    /// An option file that the server reads, and no other one; what is given here as an option wins over it. A
    /// place for secrets, which nobody is to see on a command line.
    #[must_use]
    pub fn option_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.launch.option_file = Some(file.into());
        self
    }

    /// Whether the server writes a binary log, in MySQL with GTIDs. It does by default.
    #[must_use]
    pub fn binary_log(mut self, on: bool) -> Self {
        self.launch.binary_log = on;
        self
    }

    /// Whether the server also listens on a free port of 127.0.0.1. It does not by default.
    #[must_use]
    pub fn tcp(mut self, on: bool) -> Self {
        self.port = if on { Port::Free } else { Port::None };
        self
    }

    /// Listens on this port of 127.0.0.1 too.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = Port::Fixed(port);
        self
    }

    /// How long initialising and starting may take, each; 60 seconds by default. Crash recovery of
    /// a large data directory needs more.
    #[must_use]
    pub fn start_timeout(mut self, timeout: Duration) -> Self {
        self.launch.start_timeout = timeout;
        self
    }

    /// How long an orderly shutdown may take before the server is killed; 60 seconds by default.
    #[must_use]
    pub fn stop_timeout(mut self, timeout: Duration) -> Self {
        self.launch.stop_timeout = timeout;
        self
    }

    /// Initialises the data directory when it is empty, starts the server, and waits until it
    /// takes connections.
    ///
    /// # Errors
    /// [`ErrorKind::Target`] with the errors of the server's log when it does not start;
    /// [`ErrorKind::Space`] or [`ErrorKind::Target`] when a directory cannot be made;
    /// [`ErrorKind::Usage`] when the installation is not whole, or has not what a keyring needs;
    /// [`ErrorKind::Interrupted`].
    pub async fn start(mut self, cx: &Context) -> Result<Sandbox> {
        self.launch.durable = self.durable.unwrap_or(self.data.is_some());
        let directories = Directories::create(self.data.as_deref(), self.parent.as_deref())?;
        if self.keyring {
            self.launch.install = equip(&self.launch.install, directories.private())?;
        }
        if directories.data_is_empty()? {
            match self.template {
                Some(template) if self.launch.shaping_options().next().is_none() => {
                    directories.fill_from(&template)?;
                }
                _ => initialize(&self.launch, &directories, cx).await?,
            }
        }
        let mut sandbox = Sandbox { process: None, launch: self.launch, port: None, directories };
        match self.port {
            Port::None => sandbox.launch(cx).await?,
            Port::Fixed(port) => {
                sandbox.port = Some(port);
                sandbox.launch(cx).await?;
            }
            Port::Free => {
                // Somebody else may take the port between our looking and the server's binding.
                let mut tries = 0..3;
                loop {
                    sandbox.port = Some(free_port()?);
                    match sandbox.launch(cx).await {
                        Err(e)
                            if e.chain().contains("Address already in use")
                                && tries.next().is_some() => {}
                        result => break result?,
                    }
                }
            }
        }
        Ok(sandbox)
    }
}

fn free_port() -> Result<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|e| io_error(e, ErrorKind::Target, "cannot find a free port on 127.0.0.1"))
}

impl Launch {
    /// The server on the directories of the sandbox.
    pub(super) fn base_command(&self, directories: &Directories) -> Command {
        let mut command = match &self.option_file {
            Some(file) => self.install.server_command_with(option("defaults-file", file)),
            None => self.install.server_command(),
        };
        command.arg(option("datadir", directories.data()));
        command.arg(option("tmpdir", directories.temporary()));
        // Small machines must do; whoever needs more asks for it.
        command.arg("--innodb-buffer-pool-size=64M");
        if !self.durable {
            command.arg("--innodb-flush-method=nosync");
            command.arg(match self.install.flavor() {
                Flavor::MySql => "--sync-binlog=0",
                Flavor::MariaDb => "--debug-no-sync=1",
            });
        }
        command
    }

    /// The command that starts the server.
    pub(super) fn command(&self, directories: &Directories, port: Option<u16>) -> Command {
        let mut command = self.base_command(directories);
        command.arg(option("socket", directories.socket()));
        command.arg(option("pid-file", directories.pid_file()));
        match port {
            Some(port) => command.arg("--bind-address=127.0.0.1").arg(format!("--port={port}")),
            None => command.arg("--skip-networking"),
        };
        // The default names hold the name of the host, which the server warns of.
        command.arg("--relay-log=relay");
        let mysql = self.install.flavor() == Flavor::MySql;
        if mysql {
            // The X protocol has a socket of its own, in a place that is not ours. The default of
            // secure_file_priv is a directory that only an installed package has.
            command.args(["--loose-mysqlx=0", "--secure-file-priv="]);
        }
        if self.binary_log {
            command.args(["--server-id=1", "--log-bin=binlog"]);
            if mysql {
                command.args(["--gtid-mode=ON", "--enforce-gtid-consistency=ON"]);
            }
        } else {
            command.arg("--skip-log-bin");
        }
        command.args(self.options.iter().map(argument));
        command
    }

    /// Those options of the caller that an initialisation must know too, since they shape the data
    /// directory. Others may not even exist yet: a plugin brings them.
    pub(super) fn shaping_options(&self) -> impl Iterator<Item = OsString> {
        let shapes = |name: &str| {
            let name = name.replace('_', "-");
            // Statistics are about what comes into it.
            !name.starts_with("innodb-stats-")
                && ["innodb", "lower-case-table-names", "character-set", "collation"]
                    .iter()
                    .any(|prefix| name.starts_with(prefix))
        };
        self.options.iter().filter(move |(name, _)| shapes(name)).map(argument)
    }

    /// `what` MySQL 9.7.4 on /directory.
    pub(super) fn describe(&self, what: &str, directories: &Directories) -> String {
        let (flavor, version) = (self.install.flavor(), self.install.version());
        format!("{what} {flavor} {version} on {}", directories.data().display())
    }
}

fn argument((name, value): &(String, Option<String>)) -> OsString {
    match value {
        Some(value) => option(name, Path::new(value)),
        None => format!("--{name}").into(),
    }
}
