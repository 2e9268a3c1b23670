//! A shell that runs one command after the other.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// What the shell prints after each command, with its exit code.
const MARK: &str = "--- end of command, exit code";

/// A shell that keeps its variables from command to command.
pub(crate) struct Shell {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// The command to run next.
    script: PathBuf,
}

impl Shell {
    /// Starts one that finds programs in `bin` first, and has nothing else of our environment.
    pub(crate) fn start(directory: &Path, bin: &Path) -> Shell {
        let mut child = Command::new("sh")
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
            .env("HOME", directory)
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        writeln!(stdin, "exec 2>&1").unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Shell { child, stdin, stdout, script: directory.join(".command") }
    }

    /// Runs a command to its end. Gives what it printed to both outputs, and its exit code.
    pub(crate) fn run(&mut self, command: &str) -> (String, i32) {
        std::fs::write(&self.script, format!("{command}\n")).unwrap();
        let script = self.script.display();
        writeln!(self.stdin, ". '{script}' </dev/null; printf '\\n{MARK} %d\\n' $?").unwrap();
        let mut printed = String::new();
        loop {
            let mut line = Vec::new();
            let length = self.stdout.read_until(b'\n', &mut line).unwrap();
            assert_ne!(length, 0, "the shell ended in: {command}\n{printed}");
            let line = String::from_utf8_lossy(&line);
            if let Some(code) = line.strip_prefix(MARK) {
                printed.pop();
                return (printed, code.trim().parse().unwrap());
            }
            printed.push_str(&line);
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn variables_stay_and_outputs_are_joined() {
    let home = tempfile::tempdir().unwrap();
    let mut shell = Shell::start(home.path(), home.path());
    assert_eq!(shell.run("export A=1; b=2"), (String::new(), 0));
    assert_eq!(shell.run("echo $b; sh -c 'echo $A >&2; exit 3'"), ("2\n1\n".into(), 3));
    assert_eq!(shell.run("printf x; false"), ("x".into(), 1));
}
