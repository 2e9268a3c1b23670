//! A repository of files beside restic, and beside `tar | zstd`: a data directory on two days.

mod data;
mod memory;
mod ours;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backup_core::{Error, ErrorKind, Result, io_error};

use crate::contest::{Contestant, Sample};
use crate::measure::{self, Run};
use crate::report::{self, Goal, Measure};
use crate::server::file_error;
use crate::tools::Restic;
use crate::{Arguments, bench};

pub(crate) use data::{Data, describe};
pub(crate) use memory::measure as memory;
pub(crate) use ours::Ours;

/// The word by which this program calls itself for holdfast's side.
pub(crate) const OURS: &str = "ours";

/// Who takes part.
pub(super) enum Side {
    /// Ours, with this compression.
    Holdfast(String),
    /// A program with deduplication, compression and encryption, like ours.
    Restic(Restic),
    /// Neither digests, nor encryption, nor anything but a compressed file.
    Tar,
}

impl Side {
    fn name(&self) -> String {
        match self {
            Side::Holdfast(compression) => format!("holdfast {compression}"),
            Side::Restic(restic) => restic.describe(),
            Side::Tar => "tar, zstd -1 -T2".to_owned(),
        }
    }

    fn ours(repository: &Path, compression: &str, work: &str) -> Result<Command> {
        let program = std::env::current_exe()
            .map_err(|e| io_error(e, ErrorKind::Internal, "cannot find this program"))?;
        let mut command = Command::new(program);
        command.arg(OURS).arg("--repository").arg(repository);
        command.args(["--compression", compression, work]).stdin(Stdio::null());
        Ok(command)
    }

    fn init(&self, repository: &Path) -> Result<()> {
        let mut command = match self {
            Side::Holdfast(compression) => Side::ours(repository, compression, "init")?,
            Side::Restic(restic) => {
                let mut command = restic.on(repository);
                command.arg("init");
                command
            }
            Side::Tar => return std::fs::create_dir(repository).map_err(file_error(repository)),
        };
        let status = command
            .status()
            .map_err(|e| io_error(e, ErrorKind::Internal, "cannot make a repository"))?;
        if status.success() {
            Ok(())
        } else {
            Err(Error::internal(format!("{} cannot make a repository", self.name())))
        }
    }

    fn back_up(&self, repository: &Path, data: &Path) -> Result<Command> {
        Ok(match self {
            Side::Holdfast(compression) => {
                let mut command = Side::ours(repository, compression, "back-up")?;
                command.arg(data);
                command
            }
            Side::Restic(restic) => {
                let mut command = restic.on(repository);
                // A server's files keep their inodes from day to day, copies do not.
                command.args(["backup", "--ignore-inode", "."]).current_dir(data);
                command
            }
            Side::Tar => {
                let next = (1..).map(|n| archive(repository, n)).find(|file| !file.exists());
                pipe(
                    r#"tar -C "$1" -cf - . | zstd -q -1 -T2 -o "$2""#,
                    &[data, &next.unwrap_or_default()],
                )
            }
        })
    }

    fn verify(&self, repository: &Path) -> Result<Command> {
        Ok(match self {
            Side::Holdfast(compression) => Side::ours(repository, compression, "verify")?,
            Side::Restic(restic) => {
                let mut command = restic.on(repository);
                command.args(["check", "--read-data"]);
                command
            }
            Side::Tar => pipe(
                r#"zstd -q -t "$1" && zstd -q -t "$2""#,
                &[&archive(repository, 1), &archive(repository, 2)],
            ),
        })
    }

    fn restore(&self, repository: &Path, to: &Path) -> Result<Command> {
        Ok(match self {
            Side::Holdfast(compression) => {
                let mut command = Side::ours(repository, compression, "restore")?;
                command.arg(to);
                command
            }
            Side::Restic(restic) => {
                let mut command = restic.on(repository);
                command.args(["restore", "latest", "--target"]).arg(to);
                command
            }
            Side::Tar => {
                pipe(r#"zstd -q -dc "$1" | tar -C "$2" -xf -"#, &[&archive(repository, 2), to])
            }
        })
    }
}

fn archive(repository: &Path, day: u32) -> PathBuf {
    repository.join(format!("{day}.tar.zst"))
}

fn pipe(script: &str, arguments: &[&Path]) -> Command {
    let mut command = Command::new("bash");
    command.args(["-o", "pipefail", "-c", script, "bash"]).args(arguments).stdin(Stdio::null());
    command
}

/// Runs a command and says what it took.
fn measured(what: &str, command: &mut Command, log: &Path) -> Result<Result<Run, String>> {
    // There is no server beside it; this process does nothing meanwhile.
    let run = measure::run(command, std::process::id(), &[0], log)?;
    if let Ok(run) = &run {
        eprintln!(
            "  {what}: {:.2} s, CPU {:.2} s, {} MiB, others used {:.0} % of the machine",
            run.wall,
            run.cpu,
            run.memory >> 20,
            run.others * 100.0
        );
    }
    Ok(run)
}

/// A file of a directory.
struct Item {
    path: PathBuf,
    bytes: u64,
}

/// The files below a directory, by their paths in it.
fn files(root: &Path) -> Result<Vec<Item>> {
    fn walk(root: &Path, below: &Path, all: &mut Vec<Item>) -> std::io::Result<()> {
        for entry in std::fs::read_dir(root.join(below))? {
            let entry = entry?;
            let (path, kind) = (below.join(entry.file_name()), entry.file_type()?);
            if kind.is_dir() {
                walk(root, &path, all)?;
            } else if kind.is_file() {
                all.push(Item { path, bytes: entry.metadata()?.len() });
            }
        }
        Ok(())
    }
    let mut all = Vec::new();
    walk(root, Path::new(""), &mut all).map_err(file_error(root))?;
    Ok(all)
}

/// The steps, in their order, and what is left after each.
const STEPS: [(&str, Option<&str>); 4] = [
    ("first copy", Some("stored")),
    ("second copy", Some("new")),
    ("verify every byte", None),
    ("restore of the second copy", None),
];

/// Every side copies both days, checks, and restores the second day.
pub(crate) async fn contest(arguments: &Arguments) -> Result<String> {
    let data = Data::have(&arguments.server, arguments.scale).await?;
    let parent = crate::target_directory().join("benches");
    std::fs::create_dir_all(&parent).map_err(file_error(&parent))?;
    let work = tempfile::tempdir_in(&parent).map_err(file_error(&parent))?;
    let mut sides: Vec<Result<Side, (String, Error)>> =
        arguments.compression.iter().map(|c| Ok(Side::Holdfast(c.clone()))).collect();
    sides.push(Restic::have().map(Side::Restic).map_err(|e| ("restic".to_owned(), e)));
    sides.push(Ok(Side::Tar));
    let mut steps = STEPS.map(|_| -> Vec<Contestant> {
        let contestant = |side: &Result<Side, (String, Error)>| match side {
            Ok(side) => {
                Contestant { name: side.name(), tool: None, samples: Vec::new(), out: None }
            }
            Err((name, why)) => Contestant::not_had(name, why),
        };
        sides.iter().map(contestant).collect()
    });
    for round in 1..=arguments.rounds {
        for turn in 0..sides.len() {
            let at = (turn + round as usize - 1) % sides.len();
            let Ok(side) = &sides[at] else { continue };
            match in_turn(side, round, &data, work.path())? {
                Ok(samples) => {
                    for (step, sample) in steps.iter_mut().zip(samples) {
                        step[at].samples.push(sample);
                    }
                }
                Err(how) if matches!(side, Side::Holdfast(_)) => return Err(Error::internal(how)),
                Err(how) => steps.iter_mut().for_each(|step| step[at].out = Some(how.clone())),
            }
        }
    }
    let bytes = [data.first(), data.second()].map(|day| measure::size(&day));
    let [first, second] = bytes;
    let notes = [
        format!("data: {} MB on the first day, {} MB on the second", first? / MB, second? / MB),
        describe(),
        format!("machine: {}", bench::machine()),
        "nothing waits for the machine to be quiet: see the CPU of others".to_owned(),
    ];
    let goal = |measure, peer, limit| Goal { measure, peer, limit, but: None };
    let goals = [
        vec![
            goal(Measure::Wall, "restic", 0.5),
            goal(Measure::Wall, "tar", 1.1),
            goal(Measure::Bytes, "restic", 1.0),
        ],
        vec![goal(Measure::Bytes, "restic", 0.05), goal(Measure::Wall, "restic", 0.5)],
        vec![goal(Measure::Wall, "restic", 0.5)],
        vec![],
    ];
    let mut report = String::new();
    for (((what, bytes), contestants), goals) in STEPS.iter().zip(&steps).zip(&goals) {
        let title = format!(
            "Repository, {what}: scale {}, medians of {}, {}",
            arguments.scale,
            arguments.rounds,
            jiff::Zoned::now().date()
        );
        report += &report::write(&title, &notes, contestants, goals, *bytes);
        report.push('\n');
    }
    Ok(report)
}

const MB: u64 = 1_000_000;

/// One side goes through all steps, in a place of its own. The inner error says how it failed.
fn in_turn(
    side: &Side,
    round: u32,
    data: &Data,
    work: &Path,
) -> Result<Result<Vec<Sample>, String>> {
    let turn = tempfile::tempdir_in(work).map_err(file_error(work))?;
    let (repository, log) = (turn.path().join("repository"), turn.path().join("log"));
    let restored = turn.path().join("restored");
    std::fs::create_dir(&restored).map_err(file_error(&restored))?;
    side.init(&repository)?;
    // Both days are in one place, as those of a server are.
    let place = turn.path().join("data");
    let mut samples = Vec::new();
    for (step, (what, _)) in STEPS.iter().enumerate() {
        let before = measure::size(&repository)?;
        let day = [data.first(), data.second()].into_iter().nth(step);
        if let Some(day) = &day {
            std::fs::rename(day, &place).map_err(file_error(day))?;
        }
        let run = match step {
            0 | 1 => side.back_up(&repository, &place),
            2 => side.verify(&repository),
            _ => side.restore(&repository, &restored),
        }
        .and_then(|mut command| {
            measured(&format!("round {round}: {}, {what}", side.name()), &mut command, &log)
        });
        if let Some(day) = &day {
            std::fs::rename(&place, day).map_err(file_error(day))?;
        }
        match run? {
            Ok(run) => {
                let bytes = Some(measure::size(&repository)? - before).filter(|_| step < 2);
                samples.push(Sample { run, bytes, phases: Vec::new() });
            }
            Err(how) => return Ok(Err(format!("{}, {what}: {how}", side.name()))),
        }
    }
    Ok(match differs(&data.second(), &restored)? {
        None => Ok(samples),
        Some(path) => Err(format!("{} restored {} differently", side.name(), path.display())),
    })
}

/// The first file of `expected` that is missing or differs below `found`.
fn differs(expected: &Path, found: &Path) -> Result<Option<PathBuf>> {
    let same = |path: &Path| {
        use std::io::Read;
        let open = |root: &Path| std::fs::File::open(root.join(path));
        let (Ok(mut a), Ok(mut b)) = (open(expected), open(found)) else { return false };
        let (mut x, mut y) = (Vec::new(), Vec::new());
        loop {
            x.clear();
            y.clear();
            let read = a.by_ref().take(1 << 20).read_to_end(&mut x).is_ok()
                && b.by_ref().take(1 << 20).read_to_end(&mut y).is_ok();
            if !read || x != y {
                return false;
            }
            if x.is_empty() {
                return true;
            }
        }
    };
    let different = files(expected)?.into_iter().map(|item| item.path).find(|path| !same(path));
    if different.is_none() && files(found)?.len() != files(expected)?.len() {
        return Ok(Some("more files than there were".into()));
    }
    Ok(different)
}
