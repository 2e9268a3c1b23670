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
    if !arguments.is_empty() {
        return cargo_test(arguments.iter().map(String::as_str));
    }
    // Examples of the documentation first: the last words are those of the tests then.
    cargo_test(["--workspace", "--doc"])?;
    cargo_test(["--workspace", "--all-targets", "--no-fail-fast"])
}

fn cargo_test<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["test", "--locked"])
        .args(arguments)
        .status()
        .map_err(|e| io_error(e, ErrorKind::Internal, "cannot run cargo"))?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::internal("tests failed").with_remedy("see above which"))
    }
}
