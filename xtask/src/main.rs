//! Developer tasks: `cargo xtask --help`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::process::ExitCode;
use std::sync::Arc;

use backup_core::{Context, Event, Monitor};
use clap::{Parser, Subcommand};

mod tasks;

/// Developer tasks of Holdfast.
#[derive(Parser)]
#[command(name = "cargo xtask", disable_version_flag = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// The MySQL and MariaDB servers of tests, benchmarks and demonstrations
    #[command(subcommand)]
    Servers(tasks::servers::Task),
    /// Back up, verify, lose and restore a sample database on a real server
    Demo {
        /// Keep the repository in this directory
        #[arg(long)]
        keep: Option<std::path::PathBuf>,
    },
    /// Run every test against the real servers
    Test {
        /// Arguments for `cargo test`, instead of --workspace
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

/// Says on stderr what the libraries do.
struct Stderr;

impl Monitor for Stderr {
    fn event(&self, event: Event) {
        match event {
            Event::Note { text } => eprintln!("{text}"),
            Event::Warning { text } => eprintln!("warning: {text}"),
            Event::Phase { name } => eprintln!("{name} …"),
            _ => {}
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let cx = Context::builder().monitor(Arc::new(Stderr)).build();
    let result = match Arguments::parse().task {
        Task::Servers(task) => tasks::servers::run(task, &cx).await,
        Task::Demo { keep } => tasks::demo::run(keep, &cx).await,
        Task::Test { arguments } => tasks::test::run(&arguments, &cx),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", error.report());
            ExitCode::from(error.kind().exit_code())
        }
    }
}
