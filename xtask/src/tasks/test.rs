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

/// How many tests run at once, where nobody says so. Most of them wait for servers half of the time.
const TESTS_PER_PROCESSOR: usize = 2;

fn cargo_test<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let threads = std::env::var_os("RUST_TEST_THREADS").unwrap_or_else(|| {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        (processors * TESTS_PER_PROCESSOR).to_string().into()
    });
    let status = Command::new(cargo)
        .args(["test", "--locked"])
        .env("RUST_TEST_THREADS", threads)
        .args(arguments)
        .status()
        .map_err(|e| io_error(e, ErrorKind::Internal, "cannot run cargo"))?;
    if status.success() {
        Ok(())
    } else {
        Err(Error::internal("tests failed").with_remedy("see above which"))
    }
}
