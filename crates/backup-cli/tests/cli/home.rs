//! A directory to run `holdfast` in, with nothing of the machine's own settings.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// A home directory that holds the repository `repo`, when there is one.
pub(crate) struct Home(TempDir);

impl Home {
    /// An empty one.
    pub(crate) fn new() -> Home {
        Home(tempfile::tempdir().unwrap())
    }

    /// One with an empty repository.
    pub(crate) fn with_repo() -> Home {
        let home = Home::new();
        home.run(["init", "--repo", "repo", "--no-encryption"]).expect(0);
        home
    }

    /// A path in it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The program, to run here with an empty environment.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("holdfast"));
        command.env_clear().env("HOME", self.0.path()).current_dir(self.0.path());
        command.args(args).stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        Run::of(&mut self.command(args))
    }

    /// Runs the program on the repository `repo`.
    pub(crate) fn on_repo<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Run {
        Run::of(self.command(args).env("HOLDFAST_REPO", "repo"))
    }

    /// Pastes a command that was printed into a shell: the one between backticks that holds `part`.
    #[track_caller]
    pub(crate) fn paste(&self, printed: &str, part: &str) -> Run {
        let mut lines = printed.split('`').filter(|line| line.starts_with("holdfast "));
        let line = lines.find(|line| line.contains(part));
        let line = line.unwrap_or_else(|| panic!("no command with {part} in {printed}"));
        let program = Path::new(assert_cmd::cargo::cargo_bin!("holdfast")).parent().unwrap();
        let mut shell = Command::new("/bin/sh");
        shell.env_clear().env("HOME", self.0.path()).current_dir(self.0.path());
        shell.env("PATH", program).args(["-c", line]).stdin(Stdio::null());
        Run::of(&mut shell)
    }

    /// Fails unless the archive of `shop`, of which there is no backup, is whole.
    #[track_caller]
    pub(crate) fn archive_is_whole(&self) {
        let check = self.on_repo(["binlog", "check", "--cluster", "shop", "--json"]).expect(14);
        let check = check.json();
        assert_eq!(check["ok"], true, "{check:#}");
        assert_eq!(check["findings"].as_array().unwrap().len(), 1, "{check:#}");
    }

    /// Every file below `name`, with its length.
    pub(crate) fn files(&self, name: &str) -> Vec<(PathBuf, u64)> {
        let mut files = Vec::new();
        collect(&self.path(name), &mut files);
        files.sort();
        files
    }
}

fn collect(dir: &Path, files: &mut Vec<(PathBuf, u64)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), files);
        } else {
            match entry.metadata() {
                Ok(meta) => files.push((entry.path(), meta.len())),
                // A program that runs takes away what it has half written.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => panic!("{}: {e}", entry.path().display()),
            }
        }
    }
}

/// What a run of the program left behind.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// Runs a command to its end.
    pub(crate) fn of(command: &mut Command) -> Run {
        Run::from(command.output().unwrap())
    }

    /// Fails unless the exit code is `code`.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Run {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Fails unless standard error holds `part`.
    #[track_caller]
    pub(crate) fn says(self, part: &str) -> Run {
        assert!(self.stderr.contains(part), "no \"{part}\" in {self:#?}");
        self
    }

    /// The one JSON document on standard output.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }

    /// Fails when `secret` was printed anywhere.
    #[track_caller]
    pub(crate) fn hides(self, secret: &str) -> Run {
        let printed = self.stdout.contains(secret) || self.stderr.contains(secret);
        assert!(!printed, "{self:#?}");
        self
    }
}

impl From<std::process::Output> for Run {
    fn from(output: std::process::Output) -> Run {
        Run {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}
