//! One round of a contest of data files, in a place of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backup_core::{Context, Error, ErrorKind, Result, io_error};
use backup_drivers::sandbox::ServerInstall;

use crate::Arguments;
use crate::contest::{Contestant, Sample};
use crate::measure;
use crate::repository::Data;
use crate::server::{Server, file_error};
use crate::tools::Holdfast;

/// One round in a place of its own.
pub(crate) struct Round<'a> {
    pub(crate) number: u32,
    pub(crate) install: ServerInstall,
    holdfast: &'a Holdfast,
    work: &'a Path,
    server: &'a str,
    compression: &'a str,
}

impl Round<'_> {
    /// A path in it.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    /// Runs a program beside the server with process id `pid`.
    pub(crate) fn measured(&self, what: &str, command: &mut Command, pid: u32) -> Result<Sample> {
        let log = self.at("log");
        // A server without a binary log is worth a warning to holdfast.
        let run = measure::run(command, pid, &[0, 14], &log)?
            .map_err(|how| Error::internal(format!("{what}: {how}")))?;
        eprintln!(
            "  round {}: {what}: {:.2} s, CPU {:.2} s, {} MiB, others used {:.0} % of the machine",
            self.number,
            run.wall,
            run.cpu,
            run.memory >> 20,
            run.others * 100.0
        );
        Ok(Sample { run, bytes: None, phases: Vec::new() })
    }

    /// Starts the server on the files of a day.
    pub(crate) async fn serve(&self, day: &Path) -> Result<Server> {
        std::fs::rename(day, self.at("data")).map_err(file_error(day))?;
        Server::on(self.server, &self.at("data"), &Context::builder().build()).await
    }

    /// Stops it, and gives the files back.
    pub(crate) async fn end(&self, server: Server, day: &Path) -> Result<()> {
        server.stop().await?;
        std::fs::rename(self.at("data"), day).map_err(file_error(day))
    }

    /// Holdfast, on the repository of the round.
    pub(crate) fn ours(&self, words: &[&str]) -> Command {
        let mut command = self.holdfast.command(&self.at("repository"));
        // No secret, like the data here.
        command.env("HOLDFAST_PASSPHRASE", "bench").args(words).stdout(Stdio::null());
        command
    }

    /// Makes its repository, an encrypted one.
    pub(crate) fn init(&self) -> Result<()> {
        self.ours(&["init"])
            .status()
            .ok()
            .filter(std::process::ExitStatus::success)
            .map(drop)
            .ok_or_else(|| Error::internal("holdfast cannot make a repository"))
    }

    /// A backup of `server` by holdfast, with what it stored.
    pub(crate) fn back_up(&self, server: &Server, words: &[&str]) -> Result<Sample> {
        let url = server.url();
        let all =
            ["backup", "--cluster", "bench", "--source", &url, "--compression", self.compression];
        let before = measure::size(&self.at("repository"))?;
        let mut sample = self.measured(
            "holdfast, backup",
            &mut self.ours(&[&all[..], words].concat()),
            server.pid()?,
        )?;
        sample.bytes = Some(measure::size(&self.at("repository"))? - before);
        Ok(sample)
    }
}

/// The rounds that are asked for, of steps with contestants each.
pub(crate) async fn rounds<const STEPS: usize, const SIDES: usize>(
    arguments: &Arguments,
    data: &Data,
    names: [[&str; SIDES]; STEPS],
    run: impl AsyncFn(&Round<'_>, &Data) -> Result<[[Sample; SIDES]; STEPS]>,
) -> Result<[[Contestant; SIDES]; STEPS]> {
    let holdfast = match &arguments.holdfast {
        Some(program) => Holdfast::at(program.clone()),
        None => Holdfast::build()?,
    };
    let parent = crate::target_directory().join("benches");
    std::fs::create_dir_all(&parent).map_err(file_error(&parent))?;
    let contestant = |name: &str| Contestant {
        name: name.to_owned(),
        tool: None,
        samples: Vec::new(),
        out: None,
    };
    let mut steps = names.map(|sides| sides.map(contestant));
    for number in 1..=arguments.rounds {
        let work = tempfile::tempdir_in(&parent).map_err(file_error(&parent))?;
        let round = Round {
            number,
            install: xtask::servers::install(&arguments.server)?,
            holdfast: &holdfast,
            work: work.path(),
            server: &arguments.server,
            compression: arguments.compression.first().map_or("zstd:1", String::as_str),
        };
        std::fs::create_dir(round.at("scratch"))
            .map_err(|e| io_error(e, ErrorKind::Internal, "cannot make a directory"))?;
        round.init()?;
        for (step, samples) in steps.iter_mut().zip(run(&round, data).await?) {
            for (side, sample) in step.iter_mut().zip(samples) {
                side.samples.push(sample);
            }
        }
    }
    Ok(steps)
}
