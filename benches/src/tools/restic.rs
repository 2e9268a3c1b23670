//! `restic`: that of the PATH, else Debian's, unpacked below `target/peers`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use backup_core::{Error, ErrorKind, Result, io_error};

use super::peers;

const PACKAGE: &str = "restic";
const LIBRARIES: [&str; 1] = ["libc6"];

/// A backup program with deduplication, compression and encryption.
pub(crate) struct Restic {
    program: PathBuf,
    /// The loader and the libraries of an unpacked tree.
    runtime: Option<(PathBuf, PathBuf)>,
    version: String,
}

impl Restic {
    /// Finds it on the PATH, or fetches it.
    pub(crate) fn have() -> Result<Restic> {
        if let Some(directory) = peers::on_path(&[PACKAGE]) {
            return Restic::of(directory.join(PACKAGE), None);
        }
        let root = peers::have(PACKAGE, &LIBRARIES)?;
        let program = root.join("usr/bin").join(PACKAGE);
        // A program without a loader of its own is linked statically, and takes none.
        Restic::of(program.clone(), None).or_else(|_| {
            let runtime = peers::runtime(&root)?;
            Restic::of(program, Some(runtime))
        })
    }

    fn of(program: PathBuf, runtime: Option<(PathBuf, PathBuf)>) -> Result<Restic> {
        let mut restic = Restic { program, runtime, version: String::new() };
        let output = restic
            .command()
            .arg("version")
            .output()
            .map_err(|e| io_error(e, ErrorKind::Usage, "cannot run restic"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        restic.version = version(&text)
            .ok_or_else(|| {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                Error::usage("restic does not tell its version").with_source(said)
            })?
            .to_owned();
        Ok(restic)
    }

    /// Its name and version.
    pub(crate) fn describe(&self) -> String {
        format!("restic {}", self.version)
    }

    /// A command on the repository in `repository`, with its cache beside it. Its passphrase is no
    /// secret.
    pub(crate) fn on(&self, repository: &Path) -> Command {
        let mut command = self.command();
        command.env("RESTIC_PASSWORD", "bench").env("RESTIC_REPOSITORY", repository);
        command.env("RESTIC_CACHE_DIR", repository.with_extension("cache"));
        command.arg("--quiet").stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    fn command(&self) -> Command {
        let mut command = match &self.runtime {
            Some((loader, libraries)) => {
                let mut command = Command::new(loader);
                command.arg("--library-path").arg(libraries).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command.env_clear();
        command
    }
}

/// `restic 0.18.1 compiled with go1.24 on linux/amd64`
fn version(text: &str) -> Option<&str> {
    text.strip_prefix("restic ")?.split([' ', '\n']).next()
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions() {
        let version = super::version("restic 0.14.0 compiled with go1.19.5 on linux/amd64\n");
        assert_eq!(version, Some("0.14.0"));
        assert_eq!(super::version("command not found"), None);
    }
}
