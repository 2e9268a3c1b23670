//! Where a sandbox has its files.

use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use backup_core::{Error, ErrorKind, Result, io_error};

use super::scratch::Scratch;

/// The shortest limit on the path of a Unix socket is that of the BSDs: 104 bytes with the final
/// zero (Linux: 108).
const SOCKET_PATH_MAX: usize = 103;
const SOCKET: &str = "server.sock";

/// The data directory, and a private directory for everything else, removed on drop.
pub(super) struct Directories {
    data: PathBuf,
    run: Scratch,
    /// Only when a socket in `run` would have too long a path.
    socket: Option<Scratch>,
}

impl Directories {
    /// Makes what is missing: a private directory in `parent`, or where the operating system has
    /// temporary files; the data directory `data`, or one in the private directory.
    pub(super) fn create(data: Option<&Path>, parent: Option<&Path>) -> Result<Directories> {
        let temporary = |parent: &Path| Scratch::new(&std::path::absolute(parent)?, "sandbox");
        let create = || {
            let run = temporary(parent.unwrap_or(&std::env::temp_dir()))?;
            let long = run.path().join(SOCKET).as_os_str().len() > SOCKET_PATH_MAX;
            let socket = if long { Some(temporary(Path::new("/tmp"))?) } else { None };
            let data = data.map_or_else(|| run.path().join("data"), Path::to_owned);
            std::fs::create_dir_all(&data)?;
            let data = std::fs::canonicalize(data)?;
            let directories = Directories { data, run, socket };
            std::fs::create_dir_all(directories.temporary())?;
            Ok(directories)
        };
        create().map_err(|e| failed(e, "cannot make the directories of a sandbox server"))
    }

    /// The private directory.
    pub(super) fn private(&self) -> &Path {
        self.run.path()
    }

    /// Whether nothing is in the data directory.
    pub(super) fn data_is_empty(&self) -> Result<bool> {
        let mut entries = std::fs::read_dir(&self.data)
            .map_err(|e| failed(e, format!("cannot read {}", self.data.display())))?;
        Ok(entries.next().is_none())
    }

    /// Copies the data directory `template`, but for the identity of its server.
    pub(super) fn fill_from(&self, template: &Path) -> Result<()> {
        copy(template, &self.data)
            .map_err(|e| failed(e, format!("cannot copy the template {}", template.display())))
    }

    /// An unnamed file for what the server is to read.
    pub(super) fn input(&self, text: &[u8]) -> Result<File> {
        let write = || {
            let mut file = tempfile::tempfile_in(self.run.path())?;
            file.write_all(text)?;
            file.rewind()?;
            Ok(file)
        };
        write().map_err(|e| failed(e, format!("cannot write to {}", self.run.path().display())))
    }

    /// Removes the socket that a killed server left; with it a new one may refuse to start.
    pub(super) fn clear_socket(&self) {
        let socket = self.socket();
        let _ = std::fs::remove_file(&socket);
        let _ = std::fs::remove_file(socket.with_extension("sock.lock"));
    }

    pub(super) fn data(&self) -> &Path {
        &self.data
    }
    pub(super) fn socket(&self) -> PathBuf {
        self.socket.as_ref().unwrap_or(&self.run).path().join(SOCKET)
    }
    pub(super) fn temporary(&self) -> PathBuf {
        self.run.path().join("tmp")
    }
    pub(super) fn pid_file(&self) -> PathBuf {
        self.run.path().join("server.pid")
    }
    pub(super) fn error_log(&self) -> PathBuf {
        self.run.path().join("error.log")
    }
    pub(super) fn initialize_log(&self) -> PathBuf {
        self.run.path().join("initialize.log")
    }
}

/// Copies what is in `from` into `to`, which is there. `auto.cnf` holds the UUID of a server: with a
/// copy of it two servers could not replicate.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir(&target)?;
            copy(&entry.path(), &target)?;
        } else if entry.file_name() != "auto.cnf" {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

fn failed(error: std::io::Error, message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    io_error(error, ErrorKind::Target, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_moves_where_its_path_is_short_enough() {
        let parent = tempfile::tempdir().unwrap();
        let short = Directories::create(None, Some(parent.path())).unwrap();
        assert!(short.socket().starts_with(parent.path()));
        let deep = parent.path().join("d".repeat(100));
        std::fs::create_dir(&deep).unwrap();
        let long = Directories::create(None, Some(&deep)).unwrap();
        assert!(long.socket().as_os_str().len() <= SOCKET_PATH_MAX);
        assert!(long.error_log().starts_with(&deep));
        let socket = long.socket();
        drop(long);
        assert!(!socket.parent().unwrap().exists());
        assert_eq!(std::fs::read_dir(&deep).unwrap().count(), 0);
    }

    #[test]
    fn a_data_directory_of_the_caller_stays() {
        let parent = tempfile::tempdir().unwrap();
        let data = parent.path().join("a/b");
        let directories = Directories::create(Some(&data), Some(parent.path())).unwrap();
        assert!(directories.data_is_empty().unwrap());
        std::fs::write(data.join("ibdata1"), "").unwrap();
        assert!(!directories.data_is_empty().unwrap());
        drop(directories);
        assert!(data.join("ibdata1").exists());
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 1);
    }
}
