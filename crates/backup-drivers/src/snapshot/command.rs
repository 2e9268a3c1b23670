//! Commands of others: fixed arguments, a clean environment, what they say on standard error kept.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backup_core::{Error, ErrorKind, Result, io_error};

/// Where commands are looked for.
const PLACES: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of what a command says is kept, in bytes.
const KEPT: usize = 2000;

/// A command with an environment of its own.
pub(super) fn command(program: impl AsRef<OsStr>) -> Command {
    let program = program.as_ref();
    let found = PLACES
        .split(':')
        .map(|place| Path::new(place).join(program))
        .find(|path| path.is_file())
        .unwrap_or_else(|| PathBuf::from(program));
    let mut command = Command::new(found);
    command
        .env_clear()
        .env("PATH", PLACES)
        .env("LC_ALL", "C")
        // Descriptors of ours that are open are no concern of LVM's.
        .env("LVM_SUPPRESS_FD_WARNINGS", "1")
        .stdin(Stdio::null());
    command
}

/// Runs a command to its end. Gives what it wrote on standard output.
///
/// # Errors
/// [`ErrorKind::Source`] with what it wrote on standard error, when it is not there or fails.
pub(super) fn run(command: &mut Command) -> Result<String> {
    let shown = describe(command);
    let output = command.output().map_err(|e| {
        let missing = e.kind() == std::io::ErrorKind::NotFound;
        let error = io_error(e, ErrorKind::Source, format!("cannot run `{shown}`"));
        if missing {
            error.with_remedy("install the program, or choose another method")
        } else {
            error
        }
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.trim();
    let from = (said.len().saturating_sub(KEPT)..).find(|&at| said.is_char_boundary(at));
    let said = &said[from.unwrap_or(0)..];
    let kind = match said.contains("insufficient free space") || said.contains("No space left") {
        true => ErrorKind::Space,
        false => ErrorKind::Source,
    };
    Err(Error::new(kind, format!("`{shown}` failed with {}", output.status))
        .with_source(std::io::Error::other(said.to_owned())))
}

fn describe(command: &Command) -> String {
    let name = Path::new(command.get_program()).file_name().unwrap_or_default();
    std::iter::once(name)
        .chain(command.get_args())
        .map(|part| part.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_command_says_is_in_the_error_and_nothing_of_ours_in_its_environment() {
        let mut sh = command("sh");
        let e = run(sh.args(["-c", "echo went wrong >&2; exit 3"])).unwrap_err();
        assert!(
            e.report().contains("went wrong") && e.report().contains("sh -c"),
            "{}",
            e.report()
        );
        let mut env = command("env");
        let said = run(&mut env).unwrap();
        assert!(
            said.lines().all(|line| {
                ["PATH=", "LC_ALL=C", "LVM_"].iter().any(|start| line.starts_with(start))
            }),
            "{said}"
        );
        let e = run(&mut command("no-such-program")).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Source);
        assert!(e.report().contains("install the program"), "{}", e.report());
    }
}
