//! Snapshots of btrfs subvolumes.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use backup_core::{Error, ErrorKind, Result, io_error};

use super::command::{command, run};
use super::mount::Mounted;
use super::volume::{MARK, Volume};

/// The inode of the root of every subvolume.
const ROOT: u64 = 256;

/// A subvolume.
pub(super) struct Btrfs {
    subvolume: PathBuf,
    /// Where its snapshots go: beside it, or in it where nothing of the file system is above.
    place: PathBuf,
    /// The data directory, from the subvolume.
    inside: PathBuf,
}

impl Btrfs {
    /// The subvolume that a data directory is on.
    pub(super) fn find(datadir: &Path) -> Result<Self> {
        let failed =
            |e| io_error(e, ErrorKind::Source, format!("cannot find {}", datadir.display()));
        let mounted = Mounted::of(datadir)?;
        if mounted.kind != "btrfs" {
            return Err(Error::new(
                ErrorKind::Source,
                format!("{} is on {}, not on btrfs", datadir.display(), mounted.kind),
            )
            .with_remedy("use --snapshot lvm or a command pair, or another strategy"));
        }
        let datadir = datadir.canonicalize().map_err(failed)?;
        let is_root = |path: &&Path| path.metadata().is_ok_and(|metadata| metadata.ino() == ROOT);
        let subvolume = datadir.ancestors().find(is_root).unwrap_or(&mounted.at).to_owned();
        let inside = datadir.strip_prefix(&subvolume).unwrap_or(Path::new("")).to_owned();
        let above = subvolume.parent().filter(|parent| parent.starts_with(&mounted.at));
        let place = match above {
            Some(parent) => parent.to_owned(),
            None if inside.as_os_str().is_empty() => {
                return Err(Error::new(
                    ErrorKind::Source,
                    format!(
                        "the data directory {} is the root of its file system: there is no place for a \
                         snapshot outside of it",
                        datadir.display()
                    ),
                )
                .with_remedy(
                    "mount the file system itself elsewhere and the subvolume in it, or use another \
                     strategy",
                ));
            }
            None => subvolume.clone(),
        };
        Ok(Btrfs { subvolume, place, inside })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.join(format!(".{name}"))
    }
}

impl Volume for Btrfs {
    fn describe(&self) -> String {
        format!("btrfs subvolume {}", self.subvolume.display())
    }

    fn sweep(&self) -> Result<Vec<String>> {
        let failed = |e| {
            io_error(e, ErrorKind::Source, format!("cannot look into {}", self.place.display()))
        };
        let mut gone = Vec::new();
        for entry in std::fs::read_dir(&self.place).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_str().and_then(|name| name.strip_prefix('.'));
            if let Some(name) = name.filter(|name| name.starts_with(MARK)) {
                self.remove(name)?;
                gone.push(name.to_owned());
            }
        }
        Ok(gone)
    }

    fn create(&self, name: &str) -> Result<()> {
        let mut create = command("btrfs");
        create.args(["subvolume", "snapshot", "-r"]).arg(&self.subvolume).arg(self.path(name));
        run(&mut create).map(drop)
    }

    fn open(&self, name: &str) -> Result<PathBuf> {
        Ok(self.path(name).join(&self.inside))
    }

    fn check(&self, _: &str) -> Result<Option<f64>> {
        // It shares the room of its file system: a full one fails the server, not the snapshot.
        Ok(None)
    }

    fn close(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        if !path.exists() {
            return Ok(());
        }
        let mut delete = command("btrfs");
        run(delete.args(["subvolume", "delete"]).arg(&path)).map(drop)
    }
}
