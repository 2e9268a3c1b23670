//! LVM and the tools of file systems, unpacked, for tests of snapshots inside a [`Guest`](super::Guest).

use std::path::{Path, PathBuf};

use backup_core::{Error, Result};

use super::sources::Mirror;
use super::{directory, lock, tree};

const NAME: &str = "volumes-2";
const SUITE: &str = "bookworm";
const PACKAGES: [&str; 4] = ["lvm2", "btrfs-progs", "e2fsprogs", "xfsprogs"];

/// What LVM is told where there is no udev, and the disks are those of User-Mode Linux.
const CONFIG: &str = "devices{use_devicesfile=0 types=[\"ubd\",16]} \
                      activation{udev_sync=0 udev_rules=0 monitoring=0} \
                      global{locking_dir=\"/run/lock/lvm\" thin_check_executable=\"\"} \
                      backup{backup=0 archive=0}";

/// Programs, with the libraries that they need.
#[derive(Debug, Clone)]
pub struct VolumeTools {
    root: PathBuf,
}

/// The tools; they are fetched when they are missing.
///
/// # Errors
/// Those of [`guest`](super::guest).
pub fn volume_tools() -> Result<VolumeTools> {
    let root = directory().join(NAME);
    if let Some(tools) = VolumeTools::detect(&root) {
        return Ok(tools);
    }
    let _lock = lock()?;
    if let Some(tools) = VolumeTools::detect(&root) {
        return Ok(tools);
    }
    let suites = [(Mirror::of_this_machine().archive, SUITE.to_owned())];
    tree::unpack(&root, &suites, |apt| apt.closure(&PACKAGES))
        .map_err(|e| e.context(format!("cannot fetch {} from Debian {SUITE}", PACKAGES[0])))?;
    VolumeTools::detect(&root)
        .ok_or_else(|| Error::internal("the packages of the volume tools lack a program"))
}

impl VolumeTools {
    fn detect(root: &Path) -> Option<VolumeTools> {
        let tools = VolumeTools { root: root.to_owned() };
        ["lvm", "btrfs", "mkfs.btrfs", "mke2fs", "mkfs.xfs"]
            .iter()
            .all(|program| tools.find(program).is_some())
            .then_some(tools)
    }

    fn find(&self, program: &str) -> Option<PathBuf> {
        ["sbin", "bin", "usr/sbin", "usr/bin"]
            .iter()
            .map(|place| self.root.join(place).join(program))
            .find(|path| path.is_file())
    }

    /// A shell script that does what a program does: `lvcreate` and its like, `btrfs`, `mke2fs`, `mkfs.xfs`.
    ///
    /// # Errors
    /// A usage error for a program that is not among the tools.
    pub fn script(&self, name: &str, shell: &Path) -> Result<String> {
        let lvm = ["lv", "vg", "pv"].iter().any(|start| name.starts_with(start));
        let program = self
            .find(if lvm { "lvm" } else { name })
            .ok_or_else(|| Error::usage(format!("the volume tools have no {name}")))?;
        let root = self.root.display();
        let library = |place: &str| format!("{root}/{place}/x86_64-linux-gnu");
        let loader = format!("{}/ld-linux-x86-64.so.2", library("lib"));
        let libraries = format!("{}:{}", library("lib"), library("usr/lib"));
        let (before, after) = match lvm {
            // The options of LVM stand behind its command.
            true => (format!(" {name}"), format!(" --config '{CONFIG}'")),
            false => (String::new(), String::new()),
        };
        Ok(format!(
            "#!{} sh\nexec '{loader}' --library-path '{libraries}' '{}'{before}{after} \"$@\"\n",
            shell.display(),
            program.display()
        ))
    }
}
