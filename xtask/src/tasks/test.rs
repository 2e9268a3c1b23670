//! `cargo xtask test`: every test of the workspace, against real servers.

use std::process::Command;

use backup_core::{Context, Error, ErrorKind, Result, io_error};
use xtask::servers::{SERVERS, fetch};

/// Fetches what is missing, then lets cargo run the tests. `arguments` go to `cargo test`.
pub(crate) fn run(arguments: &[String], cx: &Context) -> Result<()> {
    for server in &SERVERS {
        if server.present()?.is_none() {
            fetch(server, false, cx)?;
        }
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["test", "--locked"]);
    if arguments.is_empty() {
        command.args(["--workspace", "--no-fail-fast"]);
    }
    let status = command
        .args(arguments)
        .status()
        .map_err(|e| io_error(e, ErrorKind::Internal, "cannot run cargo"))?;
    if status.success() { Ok(()) } else { Err(Error::internal("tests failed")) }
}
