//! Data files of a running server by its own tool: ours beside `mariadb-backup --stream | zstd`, restores beside
//! `mbstream -x` and a prepare, and an older restore brought up to date beside a whole one.

use std::path::Path;
use std::process::{Command, Stdio};

use backup_core::{Error, Result};

use crate::contest::Sample;
use crate::measure;
use crate::report::{self, Goal, Measure};
use crate::repository::{Data, describe};
use crate::round::{Round, rounds};
use crate::server::{Server, file_error};
use crate::{Arguments, bench};

/// What is measured, with those who take part: ours first.
const STEPS: [(&str, Option<&str>, [&str; 2]); 3] = [
    ("backup of a running server", Some("stored"), [OURS, PEER]),
    ("restore, ready to start", None, [OURS, PEER]),
    ("restore of the second day", None, [DELTA, WHOLE]),
];
const OURS: &str = "holdfast, encrypted";
const PEER: &str = "mariadb-backup, zstd -1 -T2, mbstream";
const DELTA: &str = "holdfast --delta over the first day";
const WHOLE: &str = "holdfast into an empty directory";

/// A round with the server's own tool.
struct WithTool<'a>(&'a Round<'a>);

impl WithTool<'_> {
    fn tool(&self) -> Result<Vec<String>> {
        let mut words = Vec::new();
        for name in ["mariadb-backup", "mbstream"] {
            let command = self.0.install.command(name)?;
            let all = std::iter::once(command.get_program()).chain(command.get_args());
            words.push(all.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "));
        }
        Ok(words)
    }

    /// Where the tool is.
    fn installation(&self) -> String {
        let base = self.0.install.base();
        base.parent().unwrap_or(Path::new("/")).to_string_lossy().into_owned()
    }

    fn back_up(&self, server: &Server) -> Result<Sample> {
        let words = ["--strategy", "physical", "--threads", "2", "--tool", &self.installation()];
        self.0.back_up(server, &words)
    }

    fn restore(&self, what: &str, to: &Path, more: &[&str]) -> Result<Sample> {
        let (to, tool) = (to.to_string_lossy(), self.installation());
        let words =
            ["restore", "latest", "--cluster", "bench", "--target-dir", &to, "--tool", &tool];
        let mut command = self.0.ours(&[&words[..], &["--threads", "2"], more].concat());
        self.0.measured(what, &mut command, std::process::id())
    }

    fn peer(&self, what: &str, script: &str, arguments: &[&Path], pid: u32) -> Result<Sample> {
        let [backup, stream] = &self.tool()?[..] else {
            return Err(Error::internal("two programs"));
        };
        let mut command = Command::new("bash");
        command.args(["-o", "pipefail", "-c", script, "bash"]).args(arguments);
        command.env("BACKUP", backup).env("STREAM", stream);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        self.0.measured(&format!("mariadb-backup, {what}"), &mut command, pid)
    }

    /// All steps, both sides of each; who begins changes from round to round.
    async fn run(&self, data: &Data) -> Result<[[Sample; 2]; 3]> {
        let archive = self.0.at("backup.mb.zst");
        let server = self.0.serve(&data.first()).await?;
        let pid = server.pid()?;
        let by_peer = || -> Result<Sample> {
            let script = r#"$BACKUP --no-defaults --backup --stream=mbstream --parallel=2 --user=root --socket="$1" \
                            --target-dir="$2" | zstd -q -1 -T2 -o "$3""#;
            let arguments = [&*server.socket(), &*self.0.at("scratch"), &*archive];
            let mut sample = self.peer("backup", script, &arguments, pid)?;
            sample.bytes = Some(measure::size(&archive)?);
            Ok(sample)
        };
        let backups = match self.0.number.is_multiple_of(2) {
            false => {
                let ours = self.back_up(&server)?;
                [ours, by_peer()?]
            }
            true => {
                let peer = by_peer()?;
                [self.back_up(&server)?, peer]
            }
        };
        self.0.end(server, &data.first()).await?;

        let (ours, theirs) = (self.0.at("ours"), self.0.at("theirs"));
        std::fs::create_dir(&theirs).map_err(file_error(&theirs))?;
        let restored = self.restore("holdfast, restore", &ours, &[])?;
        let script = r#"zstd -q -dc "$1" | $STREAM -x -C "$2" --parallel=2 && $BACKUP --no-defaults --prepare \
                        --target-dir="$2" --use-memory=256M && sync -f "$2""#;
        let peer = self.peer("restore", script, &[&archive, &theirs], std::process::id())?;
        let restores = [restored, peer];

        let server = self.0.serve(&data.second()).await?;
        self.back_up(&server)?;
        self.0.end(server, &data.second()).await?;
        let delta = self.restore("holdfast, restore --delta", &ours, &["--delta"])?;
        let whole =
            self.restore("holdfast, restore of the second day", &self.0.at("whole"), &[])?;
        Ok([backups, restores, [delta, whole]])
    }
}

/// Every round takes all steps.
pub(crate) async fn contest(arguments: &Arguments) -> Result<String> {
    let data = Data::have(&arguments.server, arguments.scale).await?;
    let names = STEPS.map(|(.., sides)| sides);
    let run = async |round: &Round<'_>, data: &Data| WithTool(round).run(data).await;
    let steps = rounds(arguments, &data, names, run).await?;
    let bytes = measure::size(&data.first())? / 1_000_000;
    let notes = [
        format!("data: {bytes} MB of files, {}", arguments.server),
        describe(),
        format!("machine: {}", bench::machine()),
        format!("holdfast compresses with {}", arguments.compression.join(", ")),
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
