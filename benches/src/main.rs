//! Measures holdfast beside other tools, in one run on one server: see docs/benchmarks.md.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::path::PathBuf;
use std::process::ExitCode;

use backup_core::Result;
use clap::{Parser, ValueEnum};

mod bench;
mod binlog;
mod clone;
mod contest;
mod measure;
mod physical;
mod report;
mod repository;
mod round;
mod server;
mod shop;
mod tools;

/// Measures holdfast beside other tools and prints a table in Markdown.
#[derive(Parser)]
#[command(name = "holdfast-benches", disable_version_flag = true)]
struct Arguments {
    /// What to measure
    #[arg(value_enum)]
    work: Work,
    /// How much data: 1 is 0.9 GB of TSV
    #[arg(long, default_value_t = 0.1, value_parser = scale)]
    scale: f64,
    /// The server
    #[arg(long, default_value = "mysql-9.7")]
    server: String,
    /// How often each tool runs
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Use this program instead of building one
    #[arg(long, value_name = "PROGRAM")]
    holdfast: Option<PathBuf>,
    /// With what holdfast compresses; in the repository contest several may be given
    #[arg(long, default_value = "zstd:1")]
    compression: Vec<String>,
    /// How large the redo log of the server of dumps and loads is; as servers come, MySQL's has 100M
    #[arg(long, value_name = "SIZE", default_value = "2G")]
    redo_log: String,
    /// How many transactions the binlogs hold
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(100..))]
    transactions: u64,
    /// With how many workers binlogs are applied, one run each
    #[arg(long, value_delimiter = ',', default_value = "4")]
    workers: Vec<usize>,
    /// How long to wait before each run for others to leave the machine alone
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    patience: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Work {
    /// Dump everything
    Dump,
    /// Load the dumps into an empty server
    Load,
    /// Back up again after 1 % of the rows of the largest table changed
    SecondDay,
    /// Copy a data directory twice, check, restore: beside restic and tar
    Repository,
    /// Data files of a running MariaDB: beside mariadb-backup and mbstream
    Physical,
    /// A running MySQL over the wire: beside `CLONE LOCAL` and a copy of the files
    Clone,
    /// The most memory for one huge file, and for very many small ones
    Memory,
    /// Apply archived binlogs to a server: beside mysqlbinlog | mysql
    Pitr,
    /// Receive binlogs from a server: beside mysqlbinlog --raw
    Receive,
}

fn scale(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(scale) if (0.001..=100.0).contains(&scale) => Ok(scale),
        _ => Err("a scale is a number from 0.001 to 100".into()),
    }
}

/// The `target` directory of this workspace.
fn target_directory() -> PathBuf {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let workspace = std::fs::canonicalize(&workspace).unwrap_or(workspace);
    workspace.join(std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from))
}

async fn run() -> Result<String> {
    // For holdfast's side of the repository contest this program calls itself.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == repository::OURS) {
        let ours = repository::Ours::parse_from(std::env::args_os().skip(1));
        return ours.run().await.map(|()| String::new());
    }
    let words: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if let [word, socket, place] = &words[..]
        && word.as_os_str() == binlog::RECEIVE
    {
        return binlog::ours(socket, place).await.map(|()| String::new());
    }
    if let [word, socket] = &words[..]
        && word.as_os_str() == tools::drain::DRAIN
    {
        return tools::drain::run(socket).await.map(|()| String::new());
    }
    let arguments = Arguments::parse();
    match arguments.work {
        Work::Repository => return repository::contest(&arguments).await,
        Work::Physical => return physical::contest(&arguments).await,
        Work::Clone => return clone::contest(&arguments).await,
        Work::Memory => return repository::memory(),
        Work::Pitr => return binlog::replay(&arguments).await,
        Work::Receive => return binlog::receive(&arguments).await,
        Work::Dump | Work::Load | Work::SecondDay => {}
    }
    let bench = bench::Bench::prepare(&arguments).await?;
    match arguments.work {
        Work::Dump => bench.dump().await,
        Work::Load => bench.load().await,
        _ => bench.second_day().await,
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}", error.report());
            ExitCode::from(error.kind().exit_code())
        }
    }
}
