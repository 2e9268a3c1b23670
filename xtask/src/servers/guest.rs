//! A Linux kernel that runs as an ordinary process (User-Mode Linux), for tests of what needs a kernel
//! of its own: NFS servers and mounts, broken disks. It sees the files of this machine.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use backup_core::{Error, ErrorKind, Result, io_error};

use super::sources::Mirror;
use super::{directory, lock, tree};

const NAME: &str = "guest";
const SUITE: &str = "bookworm";
const PACKAGES: [&str; 2] = ["user-mode-linux", "busybox-static"];

/// The kernel, its modules, and a program with the commands to use them.
#[derive(Debug, Clone)]
pub struct Guest {
    /// `linux.uml`.
    pub kernel: PathBuf,
    /// A static `busybox`.
    pub busybox: PathBuf,
    modules: PathBuf,
}

/// The guest; it is fetched when it is missing. Test processes that ask at the same time wait for the
/// one that fetches.
///
/// # Errors
/// [`ErrorKind::Usage`] when this machine has no apt, [`ErrorKind::Connect`] when the mirror does not
/// answer, [`ErrorKind::Space`].
pub fn guest() -> Result<Guest> {
    let root = directory().join(NAME);
    if let Some(guest) = Guest::detect(&root) {
        return Ok(guest);
    }
    let _lock = lock()?;
    if let Some(guest) = Guest::detect(&root) {
        return Ok(guest);
    }
    let suites = [(Mirror::of_this_machine().archive, SUITE.to_owned())];
    tree::unpack(&root, &suites, |_| Ok(PACKAGES.map(str::to_owned).into()))
        .map_err(|e| e.context(format!("cannot fetch {} from Debian {SUITE}", PACKAGES[0])))?;
    Guest::detect(&root)
        .ok_or_else(|| Error::internal("the packages of the guest hold no kernel and busybox"))
}

impl Guest {
    fn detect(root: &Path) -> Option<Guest> {
        let modules =
            std::fs::read_dir(root.join("usr/lib/uml/modules")).ok()?.next()?.ok()?.path();
        let guest = Guest {
            kernel: root.join("usr/bin/linux.uml"),
            busybox: root.join("bin/busybox"),
            modules,
        };
        let there = [&guest.kernel, &guest.busybox, &guest.modules.join("modules.dep")];
        there.iter().all(|path| path.is_file()).then_some(guest)
    }

    /// The files of modules such as `kernel/fs/nfsd/nfsd.ko` and of all that they need, in the order
    /// in which `insmod` takes them.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] when the kernel has no such module.
    pub fn modules(&self, names: &[&str]) -> Result<Vec<PathBuf>> {
        let list = self.modules.join("modules.dep");
        let text = std::fs::read_to_string(&list).map_err(|e| {
            io_error(e, ErrorKind::Usage, format!("cannot read {}", list.display()))
        })?;
        let mut found: Vec<PathBuf> = Vec::new();
        for name in names {
            let needs = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let needs =
                needs.ok_or_else(|| Error::usage(format!("the guest has no module {name}")))?;
            // What stands last is needed first.
            for module in needs.split_whitespace().rev().chain([*name]) {
                let path = self.modules.join(module);
                if !found.contains(&path) {
                    found.push(path);
                }
            }
        }
        Ok(found)
    }

    /// A command that boots it with `megabytes` of memory. `init`, a program or script, is its first
    /// process, reads and writes what the command does, and ends it with `busybox halt -f`.
    #[must_use]
    pub fn command(&self, megabytes: u32, init: &Path) -> Command {
        let option = |name: &str, value: &Path| {
            let mut option = OsString::from(name);
            option.push(value);
            option
        };
        let mut command = Command::new(&self.kernel);
        command
            .arg(format!("mem={megabytes}M"))
            .args(["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "rw", "quiet"])
            .args(["con=null", "con0=fd:0,fd:1"])
            .arg(option("init=", init));
        command
    }
}
