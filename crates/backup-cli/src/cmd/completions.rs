//! `holdfast completions`

use backup_core::Result;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::answer::print_text;
use crate::args::Cli;

/// Print a completion script for a shell
///
/// bash: holdfast completions bash > /etc/bash_completion.d/holdfast
#[derive(clap::Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    /// Prints the script.
    pub(crate) fn run(&self) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "holdfast", &mut script);
        print_text(&String::from_utf8_lossy(&script))
    }
}
