//! From a server to an archive.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use backup_core::{Context, Error, ErrorKind, Result, io_error};
use backup_drivers::sandbox::Sandbox;

use super::{Archive, binlogs, durable, load};
use crate::Arguments;
use crate::measure::{self, Run};

/// The word by which this program calls itself to receive.
pub(crate) const RECEIVE: &str = "receive-from";

/// Receives all binlogs of a server into a new repository.
pub(crate) async fn ours(socket: &Path, place: &Path) -> Result<()> {
    use backup_drivers::binlog::{ReceiveOptions, receive};
    use backup_drivers::connect::ConnectOptions;
    let cx = Context::builder().build();
    let archive = Archive::begin(&cx, &place.join("repo")).await?;
    let options = ReceiveOptions::new(archive.cluster.clone(), place.join("spool"));
    let source = ConnectOptions::socket(socket, "root");
    receive(&cx, &source, std::sync::Arc::new(archive.repo.clone()), options).await.map(drop)
}

/// Receives with both, and prints what that took.
pub(crate) async fn measure(arguments: &Arguments) -> Result<String> {
    let cx = Context::builder().build();
    let failed = |e| io_error(e, ErrorKind::Space, "cannot make a directory to work in");
    let place = tempfile::tempdir().map_err(failed)?;
    let name = arguments.server.as_str();
    let source = durable(name, &[("binlog_format", "ROW")], &cx).await?;
    load::prepare(&source).await?;
    let (_, before) = binlogs(&source).await?;
    // How fast this machine commits, with each commit on disk.
    let began = Instant::now();
    load::run(&source, arguments.transactions, 8).await?;
    let seconds = began.elapsed().as_secs_f64();
    let (files, bytes) = binlogs(&source).await?;
    let commits = arguments.transactions as f64 / seconds;
    let mut report = format!(
        "{name} commits {commits:.0} transactions/s here (8 clients, each commit on disk): {:.1} MiB/s of \
         binlog.\n\n| | wall (s) | MiB/s | processor (s) | memory (MiB) | of the rate of commits |\n\
         |---|---|---|---|---|---|\n",
        (bytes - before) as f64 / 1_048_576.0 / seconds
    );
    let rate = (bytes - before) as f64 / seconds;
    for round in 0..arguments.rounds {
        let here = place.path().join(format!("ours-{round}"));
        std::fs::create_dir(&here).map_err(failed)?;
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command.arg(RECEIVE).arg(source.socket()).arg(&here);
        let run = one(command, &source, &here)?;
        report.push_str(&row("holdfast (checked, compressed, archived)", &run, bytes, rate));
        let here = place.path().join(format!("theirs-{round}"));
        std::fs::create_dir(&here).map_err(failed)?;
        let run = one(raw(&source, &files, &here)?, &source, &here)?;
        report.push_str(&row("mysqlbinlog --raw", &run, bytes, rate));
    }
    report.push_str("\nGoal: at least 5 times the rate of commits.\n");
    Ok(report)
}

fn raw(source: &Sandbox, files: &[String], place: &Path) -> Result<Command> {
    let mut command = source.install().command("mysqlbinlog")?;
    command.args(["--no-defaults", "--read-from-remote-server", "--raw", "--user=root"]);
    command.arg(format!("--socket={}", source.socket().display()));
    let prefix: PathBuf = place.join("raw-");
    command.arg(format!("--result-file={}", prefix.display())).args(files);
    Ok(command)
}

fn one(mut command: Command, source: &Sandbox, place: &Path) -> Result<Run> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let server = source.pid().unwrap_or_default();
    let program = command.get_program().display().to_string();
    measure::run(&mut command, server, &[0], &place.join("log"))?
        .map_err(|problem| Error::internal(format!("{program} failed: {problem}")))
}

fn row(name: &str, run: &Run, bytes: u64, rate: f64) -> String {
    let speed = bytes as f64 / run.wall;
    format!(
        "| {name} | {:.2} | {:.0} | {:.2} | {:.0} | {:.1} |\n",
        run.wall,
        speed / 1_048_576.0,
        run.cpu,
        run.memory as f64 / 1_048_576.0,
        speed / rate
    )
}
