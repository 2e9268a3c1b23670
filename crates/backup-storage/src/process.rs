//! Which process writes a backup, and whether it still does.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde::{Deserialize, Serialize};

/// A process on a Linux machine, known again only from the same boot and process namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    /// The random id of the boot (random(4), `/proc/sys/kernel/random/boot_id`).
    boot: String,
    /// The inode of the process namespace (pid_namespaces(7)): a number means another process in
    /// another container.
    namespace: u64,
    /// Its number.
    id: u32,
    /// When it began, in clock ticks after the boot: numbers are used again.
    began: u64,
}

impl Process {
    /// This one; `None` where that cannot be told.
    pub(crate) fn this() -> Option<Self> {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        let namespace = fs::metadata("/proc/self/ns/pid").ok()?.ino();
        let id = std::process::id();
        Some(Process { boot, namespace, id, began: began(id)? })
    }

    /// Whether it still runs; `None` where that cannot be seen from here.
    pub(crate) fn runs(&self) -> Option<bool> {
        let this = Process::this()?;
        let visible = this.boot == self.boot && this.namespace == self.namespace;
        visible.then(|| began(self.id) == Some(self.began))
    }
}

/// The 22nd field of `/proc/<id>/stat` (proc_pid_stat(5)). The second one, a name in parentheses, may
/// hold spaces.
fn began(id: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    // A zombie writes nothing any more.
    let mut fields = rest.split(' ');
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_runs_until_it_ends_and_others_cannot_be_told() {
        let this = Process::this().unwrap();
        assert_eq!(this.runs(), Some(true));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let other = Process { id: child.id(), began: began(child.id()).unwrap(), ..this.clone() };
        assert_eq!(other.runs(), Some(true));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(other.runs(), Some(false));
        assert_eq!(Process { began: 1, ..this.clone() }.runs(), Some(false));
        assert_eq!(Process { boot: "another".into(), ..this }.runs(), None);
    }
}
