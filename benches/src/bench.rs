//! The works that are measured, and what they need.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use backup_core::{Context, Error, ErrorKind, Flavor, Result, io_error};
use tempfile::TempDir;

use crate::contest::{Contestant, Sample};
use crate::measure;
use crate::report::{self, Goal, Measure};
use crate::server::{Server, file_error};
use crate::tools::{Holdfast, Mydumper, Tool, phases};
use crate::{Arguments, Work, shop, target_directory};

/// The machine counts as left alone when others use less than this part of it.
const ALONE: f64 = 0.1;

/// How many times as many rounds more there are at most, for runs that were disturbed.
const MORE_ROUNDS: u32 = 1;

/// A server with the data set, and those who are measured.
pub(crate) struct Bench {
    server: Server,
    contestants: Vec<Contestant>,
    notes: Vec<String>,
    scale: f64,
    /// Whether ours compresses with lz4, of which there are other goals.
    lz4: bool,
    rounds: u32,
    patience: Duration,
    // Last, for it is removed when everything else is gone.
    directory: TempDir,
}

impl Bench {
    /// Builds holdfast, finds the others, starts the server and loads the data.
    pub(crate) async fn prepare(arguments: &Arguments) -> Result<Bench> {
        let holdfast = match &arguments.holdfast {
            Some(program) => Holdfast::at(program.clone()),
            None => Holdfast::build()?,
        };
        let holdfast = holdfast.with(arguments.compression.first().cloned());
        let parent = target_directory().join("benches");
        std::fs::create_dir_all(&parent).map_err(file_error(&parent))?;
        let directory = tempfile::tempdir_in(&parent).map_err(file_error(&parent))?;
        let load = load_average();

        eprintln!("making the data set at scale {}", arguments.scale);
        let tsv = directory.path().join("shop");
        std::fs::create_dir(&tsv).map_err(file_error(&tsv))?;
        let bytes = shop::write(&tsv, arguments.scale).map_err(file_error(&tsv))?;

        // Some loaders keep their work out of the binary log and some do not; without one they are
        // compared on equal terms.
        let binary_log = !matches!(arguments.work, Work::Load);
        eprintln!("starting {} and loading", arguments.server);
        let cx = Context::builder().build();
        let mut server = Server::start(
            &arguments.server,
            directory.path(),
            binary_log,
            &arguments.redo_log,
            &cx,
        )
        .await?;
        server.fill(&tsv).await?;

        let rows: u32 = shop::TABLES.iter().map(|table| table.rows(arguments.scale)).sum();
        let notes = vec![
            format!(
                "data: {rows} rows in {} tables, {} MB as TSV",
                shop::TABLES.len(),
                bytes / 1_000_000
            ),
            format!("server: {}", server.describe()),
            format!("machine: {}; load average before: {load}", machine()),
            format!(
                "of up to {} runs of each tool, one after another, the {} during which others used \
                 the machine least",
                arguments.rounds * (1 + MORE_ROUNDS),
                arguments.rounds
            ),
            "holdfast: a repository without encryption; digests and fsync are in its times"
                .to_owned(),
        ];
        let mydumper = Mydumper::have();
        let client = server.install().clone();
        let contestants = vec![
            Contestant::new("holdfast".into(), Tool::Holdfast(holdfast)),
            match mydumper {
                Ok(mydumper) => Contestant::new("mydumper".into(), Tool::Mydumper(mydumper)),
                Err(why) => Contestant::not_had("mydumper and myloader", &why),
            },
            Contestant::new("client".into(), Tool::Client(client.clone())),
            Contestant::new("LOAD DATA".into(), Tool::LoadData(client, tsv)),
            Contestant::new("rows read and dropped".into(), Tool::Drain),
        ];
        Ok(Bench {
            server,
            contestants,
            notes,
            scale: arguments.scale,
            lz4: arguments.compression.first().is_some_and(|how| how == "lz4"),
            rounds: arguments.rounds,
            patience: Duration::from_secs(arguments.patience),
            directory,
        })
    }

    /// Every tool dumps.
    pub(crate) async fn dump(mut self) -> Result<String> {
        self.contestants.retain(|c| !matches!(c.tool, Some(Tool::LoadData(..))));
        self.name(Tool::dumper);
        self.server.calm().await?;
        let out = self.path("dump");
        for (round, i) in self.order() {
            if self.has_enough(i) {
                continue;
            }
            let Some(tool) = self.contestants[i].takes_part() else { continue };
            let Some(mut command) = tool.dump(&self.server, &out)? else { continue };
            let leaves = !matches!(tool, Tool::Drain);
            let outcome = self.run(round, i, &mut command, leaves.then_some(&*out))?;
            self.contestants[i].record(outcome)?;
            remove(&out)?;
        }
        let gzip = self.gzip();
        let goal = |measure, peer, limit| Goal { measure, peer, limit, but: None };
        let to_mydumper =
            |measure, limit| Goal { measure, peer: "mydumper", limit, but: gzip.clone() };
        let mut goals = vec![match self.server.flavor() {
            Flavor::MySql => goal(Measure::Wall, "mysqldump", 0.35),
            Flavor::MariaDb => to_mydumper(Measure::Wall, 0.40),
        }];
        goals.push(to_mydumper(Measure::Cpu, 0.25));
        goals.push(to_mydumper(Measure::Bytes, 0.85));
        if self.lz4 {
            goals = vec![goal(Measure::Wall, "rows read", 1.2)];
        }
        self.finish("Dump", &goals, Some("stored")).await
    }

    /// Every tool dumps once, and then loads into a server without the database.
    pub(crate) async fn load(mut self) -> Result<String> {
        self.contestants.retain(|c| !matches!(c.tool, Some(Tool::Drain)));
        let expected = self.server.checksums().await?;
        for i in 0..self.contestants.len() {
            let dump = self.path(&format!("dump-{i}"));
            let Some(tool) = self.contestants[i].takes_part() else { continue };
            let Some(mut command) = tool.dump(&self.server, &dump)? else { continue };
            if let Err(how) = self.run(0, i, &mut command, None)? {
                self.contestants[i].record(Err(format!("there is no dump to load: {how}")))?;
            }
        }
        self.name(Tool::loader);
        for (round, i) in self.order() {
            if self.has_enough(i) {
                continue;
            }
            self.server.empty().await?;
            let dump = self.path(&format!("dump-{i}"));
            let Some(tool) = self.contestants[i].takes_part() else { continue };
            let mut command = tool.load(&mut self.server, &dump).await?;
            self.server.calm().await?;
            let mut outcome = self.run(round, i, &mut command, None)?;
            // Whoever loads something else has not won.
            let found = self.server.checksums().await?;
            let wrong = expected.iter().zip(&found).find(|(expected, found)| expected != found);
            if let (Ok(_), Some(((table, _), _))) = (&outcome, wrong) {
                outcome = Err(format!("{table} does not hold what was dumped"));
            }
            self.contestants[i].record(outcome)?;
        }
        self.notes.push(
            "each load was into a server without the database, and the server's CHECKSUM TABLE \
             agreed afterwards; holdfast itself reads back and compares every row, in its time"
                .to_owned(),
        );
        let gzip = self.gzip();
        let goals = [match self.server.flavor() {
            Flavor::MySql => {
                Goal { measure: Measure::Wall, peer: "LOAD DATA", limit: 0.32, but: None }
            }
            Flavor::MariaDb => {
                Goal { measure: Measure::Wall, peer: "myloader", limit: 0.6, but: gzip }
            }
        }];
        self.finish("Load", &goals, None).await
    }

    /// holdfast backs up, 1 % of the rows of the largest table change at random, and it backs up
    /// again into the same repository.
    pub(crate) async fn second_day(mut self) -> Result<String> {
        let repository = self.path("repository");
        let ours = self.contestants.swap_remove(0);
        let Some(Tool::Holdfast(holdfast)) = ours.tool else {
            return Err(Error::internal("the first contestant is not holdfast"));
        };
        let mut days = ["second backup", "first backup"].map(|name| Contestant {
            name: name.to_owned(),
            tool: None,
            samples: Vec::new(),
            out: None,
        });
        for round in 1..=self.rounds * (1 + MORE_ROUNDS) {
            let alone = |days: &[Contestant; 2]| {
                let pairs = days[0].samples.iter().zip(&days[1].samples);
                pairs.filter(|(a, b)| a.run.others.max(b.run.others) < ALONE).count()
            };
            if alone(&days) >= self.rounds as usize {
                break;
            }
            holdfast.init(&repository)?;
            for (day, at) in [1, 0].into_iter().enumerate() {
                if day > 0 {
                    self.change(round).await?;
                }
                self.server.calm().await?;
                let before = measure::size(&repository)?;
                let mut command = holdfast.backup(&self.server, &repository);
                let what = format!("round {round}: {}", days[at].name);
                let sample = self.measure(&what, &[0, 14], &mut command, Some(&repository))?;
                let mut sample =
                    sample.map_err(|how| Error::internal(format!("{what} failed: {how}")))?;
                sample.bytes = sample.bytes.map(|bytes| bytes - before);
                days[at].samples.push(sample);
            }
            remove(&repository)?;
        }
        self.contestants = days.into();
        self.notes.push(
            "between the two, 1 % of the rows of lineitem were updated at random; for mysqldump and \
             mydumper a second dump is another whole one"
                .to_owned(),
        );
        let goal = |measure, limit| Goal { measure, peer: "first", limit, but: None };
        let goals = [goal(Measure::Bytes, 0.02), goal(Measure::Wall, 1.15)];
        self.finish("Second day", &goals, Some("new")).await
    }

    async fn change(&mut self, round: u32) -> Result<()> {
        let table = format!("{}.{}", shop::DATABASE, shop::TABLES[0].name);
        let sql = format!(
            "UPDATE {table} SET qty = qty + 1, updated = NOW(6) WHERE CRC32(id) % 100 = {}",
            round % 100
        );
        self.server.sql(&sql).await.map(drop)
    }

    /// Who runs when: in every round another one is first.
    fn order(&self) -> Vec<(u32, usize)> {
        let count = self.contestants.len();
        (1..=self.rounds * (1 + MORE_ROUNDS))
            .flat_map(|round| (0..count).map(move |i| (round, (i + round as usize - 1) % count)))
            .collect()
    }

    /// Whether a contestant had its rounds, with the machine for itself.
    fn has_enough(&self, i: usize) -> bool {
        let alone = self.contestants[i].samples.iter().filter(|s| s.run.others < ALONE);
        alone.count() >= self.rounds as usize
    }

    fn name(&mut self, name: fn(&Tool) -> String) {
        for contestant in &mut self.contestants {
            if let Some(tool) = &contestant.tool {
                contestant.name = name(tool);
            }
        }
    }

    /// What to say of goals where the peer compresses with gzip.
    fn gzip(&self) -> Option<String> {
        let old = |c: &Contestant| matches!(&c.tool, Some(Tool::Mydumper(m)) if !m.has_zstd());
        self.contestants.iter().any(old).then(|| "not judged: the goal is of its zstd".to_owned())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(
        &self,
        round: u32,
        i: usize,
        command: &mut Command,
        out: Option<&Path>,
    ) -> Result<Result<Sample, String>> {
        let contestant = &self.contestants[i];
        let good = contestant.tool.as_ref().map_or(&[0][..], Tool::good);
        self.measure(&format!("round {round}: {}", contestant.name), good, command, out)
    }

    /// Runs a command when the machine is quiet; it leaves its work in `out`.
    fn measure(
        &self,
        what: &str,
        good: &[i32],
        command: &mut Command,
        out: Option<&Path>,
    ) -> Result<Result<Sample, String>> {
        let began = Instant::now();
        while began.elapsed() < self.patience && measure::busy()? > ALONE {}
        let log = self.path("log");
        let run = match measure::run(command, self.server.pid()?, good, &log)? {
            Ok(run) => run,
            Err(how) => return Ok(Err(how)),
        };
        eprintln!(
            "  {what}: {:.2} s, CPU {:.2} s, others used {:.0} % of the machine",
            run.wall,
            run.cpu,
            run.others * 100.0
        );
        let log = std::fs::read(&log).map_err(file_error(&log))?;
        Ok(Ok(Sample {
            run,
            bytes: out.map(measure::size).transpose()?,
            phases: phases(&String::from_utf8_lossy(&log)),
        }))
    }

    async fn finish(mut self, work: &str, goals: &[Goal], bytes: Option<&str>) -> Result<String> {
        for contestant in &mut self.contestants {
            contestant.keep_least_disturbed(self.rounds as usize);
        }
        let install = self.server.install();
        let title = format!(
            "{work}: {} {}, scale {}, medians of {}, {}",
            install.flavor(),
            install.version(),
            self.scale,
            self.rounds,
            jiff::Zoned::now().date()
        );
        let report = report::write(&title, &self.notes, &self.contestants, goals, bytes);
        self.server.stop().await?;
        Ok(report)
    }
}

fn remove(path: &Path) -> Result<()> {
    let removed = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        _ => std::fs::remove_file(path),
    };
    removed
        .map_err(|e| io_error(e, ErrorKind::Internal, format!("cannot remove {}", path.display())))
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Processors, memory and kernel.
pub(crate) fn machine() -> String {
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or("", |(_, value)| value.trim()).to_owned()
    };
    let kib: u64 = field("/proc/meminfo", "MemTotal")
        .split(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0);
    format!(
        "{} × {}, {} GiB, Linux {}",
        measure::processors(),
        field("/proc/cpuinfo", "model name"),
        kib >> 20,
        rustix::system::uname().release().to_string_lossy()
    )
}
