//! The error log of a sandbox.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use backup_core::{ErrorKind, Result, io_error};

use crate::connect::applier_said;

/// How much of the end of a log is looked at.
const WINDOW: u64 = 64 << 10;
/// How many lines are quoted.
const LINES: usize = 8;

/// The part of a log file that one start of the server writes.
pub(super) struct Log {
    path: PathBuf,
    start: u64,
}

impl Log {
    /// The part that begins at the present end of the file.
    pub(super) fn from_here(path: PathBuf) -> Log {
        let start = std::fs::metadata(&path).map_or(0, |file| file.len());
        Log { path, start }
    }

    /// All of the file.
    pub(super) fn whole(path: PathBuf) -> Log {
        Log { path, start: 0 }
    }

    /// The file, for appending.
    pub(super) fn append(&self) -> Result<File> {
        File::options().create(true).append(true).open(&self.path).map_err(|e| {
            let message = format!("cannot write the error log {}", self.path.display());
            io_error(e, ErrorKind::Target, message)
        })
    }

    /// The lines that tell a person why the server failed.
    pub(super) fn excerpt(&self) -> String {
        match self.tail() {
            Ok(tail) => excerpt(&tail),
            Err(e) => format!("its error log {} cannot be read: {e}", self.path.display()),
        }
    }

    fn tail(&self) -> std::io::Result<String> {
        let mut file = File::open(&self.path)?;
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(self.start.max(end.saturating_sub(WINDOW))))?;
        let mut bytes = Vec::new();
        file.take(WINDOW).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The last lines that are errors, or the last lines where none is.
fn excerpt(log: &str) -> String {
    let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut quoted: Vec<&str> =
        lines.iter().copied().filter(|line| line.contains("ERROR")).collect();
    if quoted.is_empty() {
        quoted = lines;
    }
    if quoted.is_empty() {
        return "its error log is empty".into();
    }
    let last = quoted[quoted.len().saturating_sub(LINES)..].iter();
    // An applier logs the statement that it could not run.
    let last: Vec<String> = last.map(|line| applier_said(line)).collect();
    format!("its error log says: {}", last.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn errors_are_preferred_to_what_follows_them() {
        let log = "1 [Note] start\n2 [ERROR] no ibdata1\n\n3 [Note] bye\n";
        assert_eq!(excerpt(log), "its error log says: 2 [ERROR] no ibdata1");
        assert_eq!(excerpt("a\nb\n"), "its error log says: a | b");
        assert_eq!(excerpt("\n"), "its error log is empty");
        let applier =
            "[ERROR] Slave SQL: Error on query. Query: 'CREATE USER u IDENTIFIED BY 'hunter22''";
        assert!(excerpt(applier).ends_with("CREATE USER u IDENTIFIED BY '…"));
    }

    #[test]
    fn only_this_start_and_only_the_end_of_it_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("error.log");
        std::fs::write(&path, "[ERROR] of yesterday\n").unwrap();
        let log = Log::from_here(path);
        let mut file = log.append().unwrap();
        file.write_all(&vec![b'x'; 3 * WINDOW as usize]).unwrap();
        file.write_all("\n[ERROR] é of today\n".as_bytes()).unwrap();
        assert_eq!(log.excerpt(), "its error log says: [ERROR] é of today");
    }
}
