//! Data files of a running server by its own tool: ours beside `mariadb-backup --stream | zstd`, restores beside
//! `mbstream -x` and a prepare, and an older restore brought up to date beside a whole one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backup_core::{Context, Error, ErrorKind, Result, io_error};
use backup_drivers::sandbox::ServerInstall;

use crate::contest::{Contestant, Sample};
use crate::measure;
use crate::report::{self, Goal, Measure};
use crate::repository::{Data, describe};
use crate::server::{Server, file_error};
use crate::tools::Holdfast;
use crate::{Arguments, bench};

/// What is measured, with those who take part: ours first.
const STEPS: [(&str, Option<&str>, [&str; 2]); 3] = [
    ("backup of a running server", Some("stored"), [OURS, PEER]),
    ("restore, ready to start", None, [OURS, PEER]),
    ("restore of the second day", None, [DELTA, WHOLE]),
];
const OURS: &str = "holdfast zstd:1, encrypted";
const PEER: &str = "mariadb-backup, zstd -1 -T2, mbstream";
const DELTA: &str = "holdfast --delta over the first day";
const WHOLE: &str = "holdfast into an empty directory";

/// One round in a place of its own.
struct Round<'a> {
    number: u32,
    holdfast: &'a Holdfast,
    install: ServerInstall,
    work: &'a Path,
    server: &'a str,
}

impl Round<'_> {
    fn at(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    fn measured(&self, what: &str, command: &mut Command, pid: u32) -> Result<Sample> {
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

    /// Starts the server on the files of a day, which are given back at the end.
    async fn serve(&self, day: &Path) -> Result<Server> {
        std::fs::rename(day, self.at("data")).map_err(file_error(day))?;
        Server::on(self.server, &self.at("data"), &Context::builder().build()).await
    }

    async fn end(&self, server: Server, day: &Path) -> Result<()> {
        server.stop().await?;
        std::fs::rename(self.at("data"), day).map_err(file_error(day))
    }

    fn tool(&self) -> Result<Vec<String>> {
        let mut words = Vec::new();
        for name in ["mariadb-backup", "mbstream"] {
            let command = self.install.command(name)?;
            let all = std::iter::once(command.get_program()).chain(command.get_args());
            words.push(all.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "));
        }
        Ok(words)
    }

    fn ours(&self, words: &[&str]) -> Command {
        let mut command = self.holdfast.command(&self.at("repository"));
        // No secret, like the data here.
        command.env("HOLDFAST_PASSPHRASE", "bench").args(words).stdout(Stdio::null());
        command
    }

    fn back_up(&self, server: &Server) -> Result<Sample> {
        let (url, tool) = (server.url(), self.install.base().parent().unwrap_or(Path::new("/")));
        let tool = tool.to_string_lossy();
        let words = ["backup", "--strategy", "physical", "--cluster", "bench", "--source", &url];
        let more = ["--tool", &tool, "--threads", "2", "--compression", "zstd:1"];
        let before = measure::size(&self.at("repository"))?;
        let mut sample = self.measured(
            "holdfast, backup",
            &mut self.ours(&[&words[..], &more].concat()),
            server.pid()?,
        )?;
        sample.bytes = Some(measure::size(&self.at("repository"))? - before);
        Ok(sample)
    }

    fn restore(&self, what: &str, to: &Path, more: &[&str]) -> Result<Sample> {
        let (to, tool) =
            (to.to_string_lossy(), self.install.base().parent().unwrap_or(Path::new("/")));
        let tool = tool.to_string_lossy();
        let words =
            ["restore", "latest", "--cluster", "bench", "--target-dir", &to, "--tool", &tool];
        let mut command = self.ours(&[&words[..], &["--threads", "2"], more].concat());
        self.measured(what, &mut command, std::process::id())
    }

    fn peer(&self, what: &str, script: &str, arguments: &[&Path], pid: u32) -> Result<Sample> {
        let [backup, stream] = &self.tool()?[..] else {
            return Err(Error::internal("two programs"));
        };
        let mut command = Command::new("bash");
        command.args(["-o", "pipefail", "-c", script, "bash"]).args(arguments);
        command.env("BACKUP", backup).env("STREAM", stream);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        self.measured(&format!("mariadb-backup, {what}"), &mut command, pid)
    }

    /// All steps, both sides of each; who begins changes from round to round.
    async fn run(&self, data: &Data) -> Result<[[Sample; 2]; 3]> {
        self.ours(&["init"])
            .status()
            .ok()
            .filter(std::process::ExitStatus::success)
            .ok_or_else(|| Error::internal("holdfast cannot make a repository"))?;
        let archive = self.at("backup.mb.zst");
        let server = self.serve(&data.first()).await?;
        let pid = server.pid()?;
        let by_peer = || -> Result<Sample> {
            let script = r#"$BACKUP --no-defaults --backup --stream=mbstream --parallel=2 --user=root --socket="$1" \
                            --target-dir="$2" | zstd -q -1 -T2 -o "$3""#;
            let arguments = [&*server.socket(), &*self.at("scratch"), &*archive];
            let mut sample = self.peer("backup", script, &arguments, pid)?;
            sample.bytes = Some(measure::size(&archive)?);
            Ok(sample)
        };
        let backups = match self.number.is_multiple_of(2) {
            false => {
                let ours = self.back_up(&server)?;
                [ours, by_peer()?]
            }
            true => {
                let peer = by_peer()?;
                [self.back_up(&server)?, peer]
            }
        };
        self.end(server, &data.first()).await?;

        let (ours, theirs) = (self.at("ours"), self.at("theirs"));
        std::fs::create_dir(&theirs).map_err(file_error(&theirs))?;
        let restored = self.restore("holdfast, restore", &ours, &[])?;
        let script = r#"zstd -q -dc "$1" | $STREAM -x -C "$2" --parallel=2 && $BACKUP --no-defaults --prepare \
                        --target-dir="$2" --use-memory=256M && sync -f "$2""#;
        let peer = self.peer("restore", script, &[&archive, &theirs], std::process::id())?;
        let restores = [restored, peer];

        let server = self.serve(&data.second()).await?;
        self.back_up(&server)?;
        self.end(server, &data.second()).await?;
        let delta = self.restore("holdfast, restore --delta", &ours, &["--delta"])?;
        let whole = self.restore("holdfast, restore of the second day", &self.at("whole"), &[])?;
        Ok([backups, restores, [delta, whole]])
    }
}

/// Every round takes all steps.
pub(crate) async fn contest(arguments: &Arguments) -> Result<String> {
    let holdfast = match &arguments.holdfast {
        Some(program) => Holdfast::at(program.clone()),
        None => Holdfast::build()?,
    };
    let data = Data::have(&arguments.server, arguments.scale).await?;
    let parent = crate::target_directory().join("benches");
    std::fs::create_dir_all(&parent).map_err(file_error(&parent))?;
    let contestant = |name: &str| Contestant {
        name: name.to_owned(),
        tool: None,
        samples: Vec::new(),
        out: None,
    };
    let mut steps = STEPS.map(|(.., sides)| sides.map(contestant));
    for number in 1..=arguments.rounds {
        let work = tempfile::tempdir_in(&parent).map_err(file_error(&parent))?;
        let install = xtask::servers::install(&arguments.server)?;
        let round = Round {
            number,
            holdfast: &holdfast,
            install,
            work: work.path(),
            server: &arguments.server,
        };
        std::fs::create_dir(round.at("scratch"))
            .map_err(|e| io_error(e, ErrorKind::Internal, "cannot make a directory"))?;
        for (step, samples) in steps.iter_mut().zip(round.run(&data).await?) {
            for (side, sample) in step.iter_mut().zip(samples) {
                side.samples.push(sample);
            }
        }
    }
    let bytes = measure::size(&data.first())? / 1_000_000;
    let notes = [
        format!("data: {bytes} MB of files, {}", arguments.server),
        describe(),
        format!("machine: {}", bench::machine()),
        "the server is idle; nothing waits for the machine to be quiet: see the CPU of others".to_owned(),
        "the private option file and the check before it are in the time of holdfast, and so are digests, page \
         checks, catalogue and encryption"
            .to_owned(),
    ];
    let goal = |peer, limit| Goal { measure: Measure::Wall, peer, limit, but: None };
    let goals = [
        vec![goal("mariadb-backup", 1.1)],
        vec![goal("mariadb-backup", 1.0)],
        vec![goal("holdfast into", 0.3)],
    ];
    let mut report = String::new();
    for (((what, bytes, _), contestants), goals) in STEPS.iter().zip(&steps).zip(&goals) {
        let title = format!(
            "Data files, {what}: scale {}, medians of {}, {}",
            arguments.scale,
            arguments.rounds,
            jiff::Zoned::now().date()
        );
        report += &report::write(&title, &notes, contestants, goals, *bytes);
        report.push('\n');
    }
    Ok(report)
}
