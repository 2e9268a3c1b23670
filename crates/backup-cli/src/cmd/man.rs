//! `holdfast man`

use std::path::PathBuf;

use backup_core::{ErrorKind, Result, io_error};
use clap::CommandFactory;

use crate::answer::print_text;
use crate::args::Cli;

/// Print the manual page, or write one for each command
#[derive(clap::Args)]
pub(crate) struct Man {
    /// Write holdfast.1, holdfast-backup.1 and so on into this directory
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

impl Man {
    /// Prints or writes.
    pub(crate) fn run(&self) -> Result<()> {
        let Some(dir) = &self.output else {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command())
                .render(&mut page)
                .map_err(|e| io_error(e, ErrorKind::Internal, "cannot make the manual page"))?;
            return print_text(&String::from_utf8_lossy(&page));
        };
        std::fs::create_dir_all(dir)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
            .map_err(|e| {
                let message = format!("cannot write manual pages into {}", dir.display());
                io_error(e, ErrorKind::Usage, message)
            })
    }
}
