//! Snapshots by a pair of commands of the user's: for a SAN, ZFS, a cloud.
//!
//! The contract is in `docs/snapshots.md`.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use backup_core::{Error, ErrorKind, Result, io_error};

use super::command::{command, run};
use super::volume::{MARK, Volume};

/// Two commands.
pub(super) struct Pair {
    create: PathBuf,
    remove: PathBuf,
    datadir: PathBuf,
    /// Where it is noted which snapshots there may be, so that a run that was killed is known of.
    notes: PathBuf,
    /// What the first command said.
    path: Mutex<Option<PathBuf>>,
}

impl Pair {
    pub(super) fn new(create: PathBuf, remove: PathBuf, datadir: &Path, notes: PathBuf) -> Self {
        let datadir = datadir.to_owned();
        Pair { create, remove, datadir, notes, path: Mutex::new(None) }
    }

    fn note(&self, name: &str) -> PathBuf {
        self.notes.join(name)
    }
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> Error {
    let message = format!("cannot keep a note of the snapshot in {}", path.display());
    move |e| io_error(e, ErrorKind::Source, message.clone())
}

impl Volume for Pair {
    fn describe(&self) -> String {
        format!("snapshots by {}", self.create.display())
    }

    fn sweep(&self) -> Result<Vec<String>> {
        let mut gone = Vec::new();
        let Ok(entries) = std::fs::read_dir(&self.notes) else { return Ok(gone) };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| name.starts_with(MARK)) else { continue };
            let of = std::fs::read_to_string(entry.path()).map_err(failed(&self.notes))?;
            if Path::new(of.trim_end()) == self.datadir {
                self.remove(name)?;
                gone.push(name.to_owned());
            }
        }
        Ok(gone)
    }

    fn create(&self, name: &str) -> Result<()> {
        let write = || {
            std::fs::create_dir_all(&self.notes)?;
            std::fs::write(self.note(name), format!("{}\n", self.datadir.display()))?;
            std::fs::File::open(self.note(name))?.sync_all()?;
            std::fs::File::open(&self.notes)?.sync_all()
        };
        write().map_err(failed(&self.notes))?;
        let said = run(command(&self.create).arg(name).arg(&self.datadir))?;
        let path = PathBuf::from(said.trim_end_matches(['\n', '\r']));
        if !path.is_absolute() || said.trim_end().contains('\n') {
            return Err(Error::new(
                ErrorKind::Source,
                format!("{} did not say where its snapshot is", self.create.display()),
            )
            .with_remedy(
                "let it write one line: the absolute path of the data directory in the snapshot",
            ));
        }
        *self.path.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(path);
        Ok(())
    }

    fn open(&self, _: &str) -> Result<PathBuf> {
        let path = self.path.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        path.ok_or_else(|| Error::internal("a snapshot is opened before it was taken"))
    }

    fn check(&self, _: &str) -> Result<Option<f64>> {
        Ok(None)
    }

    fn close(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<()> {
        if !self.note(name).exists() {
            return Ok(());
        }
        run(command(&self.remove).arg(name).arg(&self.datadir))?;
        std::fs::remove_file(self.note(name)).map_err(failed(&self.notes))
    }
}
