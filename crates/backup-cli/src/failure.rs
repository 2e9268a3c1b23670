//! Errors on the way out: one paragraph on stderr, and with `--json` one document on stdout.

use std::io::{self, Write};

use backup_core::Error;
use serde_json::json;

use crate::answer::print_json;
use crate::human::plain;

/// Prints an error and gives its exit code.
pub(crate) fn print(error: &Error, json: bool) -> u8 {
    // When not even this can be printed, the exit code is all that is left to say.
    let _ = writeln!(io::stderr(), "holdfast: {}", plain(&error.report()));
    if json {
        let _ = print_json(&document(error));
    }
    error.kind().exit_code()
}

/// Prints what clap has to say: help and version (exit code 0), or a usage error (2).
pub(crate) fn print_clap(error: &clap::Error, json: bool) -> u8 {
    let _ = error.print();
    if !error.use_stderr() {
        return 0;
    }
    let text = error.render().to_string();
    // The first paragraph; arguments that are missing have lines of their own.
    let lines: Vec<&str> =
        text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let said = lines.join(" ");
    let usage = Error::usage(said.strip_prefix("error: ").unwrap_or(&said).to_owned());
    if json {
        let _ = print_json(&document(&usage));
    }
    usage.kind().exit_code()
}

fn document(error: &Error) -> serde_json::Value {
    json!({ "error": described(error) })
}

/// What `error` is in a document.
pub(crate) fn described(error: &Error) -> serde_json::Value {
    let server = error.server().map(
        |server| json!({ "code": server.code, "state": server.state, "message": server.message }),
    );
    json!({
        "kind": error.kind(),
        "exit_code": error.kind().exit_code(),
        "message": error.chain(),
        "remedy": error.remedy(),
        "server": server,
    })
}
