//! `cargo xtask servers`: fetch, list and run the servers of tests.

use std::path::PathBuf;
use std::time::Instant;

use backup_core::{Context, Error, ErrorKind, Result, io_error};
use backup_drivers::sandbox::Sandbox;
use clap::Subcommand;
use tokio::signal::unix::{SignalKind, signal};
use xtask::servers::{SERVERS, Server, fetch, install};

#[derive(Subcommand)]
pub(crate) enum Task {
    /// Download servers and unpack them below target/servers; nothing is installed
    Fetch {
        /// Which ones; all of them when none is named
        names: Vec<String>,
        /// Fetch again what is there, for newer packages
        #[arg(long)]
        again: bool,
    },
    /// Show which servers there are, their versions and places
    List,
    /// Run a throw-away server until Ctrl-C
    Start {
        /// The server, such as mysql-9.7
        name: String,
        /// Also listen on this port of 127.0.0.1
        #[arg(long)]
        port: Option<u16>,
        /// Keep the data in this directory; made and initialised when it is missing or empty
        #[arg(long)]
        datadir: Option<PathBuf>,
        /// An option of the server, name=value or name alone
        #[arg(short, long = "option", value_name = "NAME[=VALUE]")]
        options: Vec<String>,
    },
    /// Run a program of an installation, such as mysqldump
    Exec {
        /// The server, such as mysql-9.7
        name: String,
        /// The program
        program: String,
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

pub(crate) async fn run(task: Task, cx: &Context) -> Result<()> {
    match task {
        Task::Fetch { names, again } => fetch_all(&names, again, cx),
        Task::List => list(),
        Task::Start { name, port, datadir, options } => {
            start(&name, port, datadir, &options, cx).await
        }
        Task::Exec { name, program, arguments } => exec(&name, &program, &arguments),
    }
}

fn fetch_all(names: &[String], again: bool, cx: &Context) -> Result<()> {
    let named: Vec<&Server> = if names.is_empty() {
        SERVERS.iter().collect()
    } else {
        names.iter().map(|name| Server::named(name)).collect::<Result<_>>()?
    };
    let started = Instant::now();
    for server in named {
        fetch(server, again, cx)?;
    }
    list()?;
    println!("in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

fn list() -> Result<()> {
    for server in &SERVERS {
        let version = server.present()?.map_or_else(
            || "missing".into(),
            |install| format!("{} {}", install.flavor(), install.version()),
        );
        println!("{:14} {version:40} {}", server.name, server.directory().display());
    }
    Ok(())
}

async fn start(
    name: &str,
    port: Option<u16>,
    datadir: Option<PathBuf>,
    options: &[String],
    cx: &Context,
) -> Result<()> {
    let install = install(name)?;
    let signals = |kind| signal(kind).map_err(|e| io_error(e, ErrorKind::Internal, "no signals"));
    let mut interrupt = signals(SignalKind::interrupt())?;
    let mut terminate = signals(SignalKind::terminate())?;
    let mut builder = Sandbox::builder(&install);
    if let Some(datadir) = datadir {
        builder = builder.datadir(datadir);
    }
    if let Some(port) = port {
        builder = builder.port(port);
    }
    for option in options {
        builder = match option.split_once('=') {
            Some((name, value)) => builder.option(name, value),
            None => builder.flag(option),
        };
    }
    let until_asked = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    };
    tokio::pin!(until_asked);
    let mut server = tokio::select! {
        () = &mut until_asked => return Err(Error::interrupted()),
        server = builder.start(cx) => server?,
    };
    println!("{} {}", install.flavor(), install.version());
    println!("socket  {}", server.socket().display());
    println!("log     {}", server.error_log().display());
    println!("source  mysql://root@localhost/?socket={}", server.socket().display());
    if let Some(port) = server.port() {
        println!("        mysql://root@127.0.0.1:{port}/");
    }
    println!("Ctrl-C stops it");
    until_asked.await;
    server.stop().await
}

/// Becomes the program, so that it has the terminal and its exit code is ours.
fn exec(name: &str, program: &str, arguments: &[String]) -> Result<()> {
    use std::os::unix::process::CommandExt;
    let mut command = install(name)?.command(program)?;
    let terminal = ["HOME", "LANG", "PATH", "TERM"];
    command.envs(std::env::vars_os().filter(|(name, _)| terminal.iter().any(|t| name == t)));
    let failed = command.args(arguments).exec();
    Err(io_error(failed, ErrorKind::Usage, format!("cannot run {program}")))
}
