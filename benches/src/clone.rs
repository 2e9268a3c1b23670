//! A clone of a running MySQL: ours beside the server's own `CLONE LOCAL`, and beside copying the files.

use std::process::{Command, Stdio};

use backup_core::Result;

use crate::contest::Sample;
use crate::measure;
use crate::report;
use crate::repository::{Data, describe};
use crate::round::{Round, rounds};
use crate::server::{Server, file_error};
use crate::{Arguments, bench};

/// What is measured, with those who take part: ours first.
const STEPS: [(&str, [&str; 3]); 2] =
    [("first backup", [OURS, LOCAL, COPY]), ("second backup", [OURS, LOCAL, COPY])];
const OURS: &str = "holdfast --strategy clone, encrypted";
const LOCAL: &str = "CLONE LOCAL DATA DIRECTORY";
const COPY: &str = "cp of the files, and sync";

/// All three on one day; who begins changes from round to round.
fn day(round: &Round<'_>, server: &Server) -> Result<[Sample; 3]> {
    let (copy, data) = (round.at("copy"), round.at("data"));
    let ours = || round.back_up(server, &["--strategy", "clone"]);
    let with_size = |mut sample: Sample| -> Result<Sample> {
        sample.bytes = Some(measure::size(&copy)?);
        std::fs::remove_dir_all(&copy).map_err(file_error(&copy))?;
        Ok(sample)
    };
    let local = || -> Result<Sample> {
        let mut client = round.install.command("mysql")?;
        client.args(["--no-defaults", "--user=root"]);
        client.arg(format!("--socket={}", server.socket().display()));
        // What ours has when it ends is on the disk.
        let sql = format!("CLONE LOCAL DATA DIRECTORY = '{}'", copy.display());
        client.arg("--execute").arg(sql).stdin(Stdio::null()).stdout(Stdio::null());
        with_size(round.measured("CLONE LOCAL", &mut client, server.pid()?)?)
    };
    let copied = || -> Result<Sample> {
        let mut command = Command::new("sh");
        command.args(["-c", "cp -r \"$1\" \"$2\" && sync -f \"$2\"", "sh"]).args([&data, &copy]);
        with_size(round.measured("cp", &mut command, server.pid()?)?)
    };
    Ok(match round.number.is_multiple_of(2) {
        false => [ours()?, local()?, copied()?],
        true => {
            let (copied, local) = (copied()?, local()?);
            [ours()?, local, copied]
        }
    })
}

async fn run(round: &Round<'_>, data: &Data) -> Result<[[Sample; 3]; 2]> {
    let mut server = round.serve(&data.first()).await?;
    // It stays in the files, which are kept for other contests.
    let _ = server.sql("INSTALL PLUGIN clone SONAME 'mysql_clone.so'").await;
    let first = day(round, &server)?;
    round.end(server, &data.first()).await?;
    let mut server = round.serve(&data.second()).await?;
    let _ = server.sql("INSTALL PLUGIN clone SONAME 'mysql_clone.so'").await;
    let second = day(round, &server)?;
    round.end(server, &data.second()).await?;
    Ok([first, second])
}

/// Every round takes all steps.
pub(crate) async fn contest(arguments: &Arguments) -> Result<String> {
    let data = Data::have(&arguments.server, arguments.scale).await?;
    let steps = rounds(arguments, &data, STEPS.map(|(_, sides)| sides), run).await?;
    let bytes = measure::size(&data.first())? / 1_000_000;
    let notes = [
        format!("data: {bytes} MB of files, {}", arguments.server),
        describe(),
        format!("machine: {}", bench::machine()),
        format!("holdfast compresses with {}", arguments.compression.join(", ")),
        "the server is idle; nothing waits for the machine to be quiet: see the CPU of others"
            .to_owned(),
        "over a socket; digests, page checks, catalogue and encryption are in the time of holdfast"
            .to_owned(),
        "cp makes no backup: of a server that writes its copy is good for nothing".to_owned(),
    ];
    let mut report = String::new();
    for ((what, _), contestants) in STEPS.iter().zip(&steps) {
        let title = format!(
            "Clone, {what}: scale {}, medians of {}, {}",
            arguments.scale,
            arguments.rounds,
            jiff::Zoned::now().date()
        );
        report += &report::write(&title, &notes, contestants, &[], Some("stored"));
        report.push('\n');
    }
    Ok(report)
}
