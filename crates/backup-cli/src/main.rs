//! `holdfast`, the command line: it parses, calls the libraries, and prints.
//!
//! ```text
//! args ─┬─ config ── app ── cmd/<one file a command> ── answer ── stdout
//!       ├─ login              │
//!       └─ unlock             │
//!                             ├─ progress ── stderr
//!                             └─ failure ─── stderr, and the exit code
//! ```

mod answer;
mod app;
mod args;
mod cmd;
mod config;
mod failure;
mod human;
mod login;
mod progress;
mod prompt;
mod signals;
mod store;
mod unlock;

fn main() -> std::process::ExitCode {
    app::main()
}
