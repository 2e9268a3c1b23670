//! Which process does a piece of work, and whether it still does.

use std::fs;
use std::os::unix::fs::MetadataExt;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
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
        let State::Runs { began } = State::of(id)? else { return None };
        Some(Process { boot, namespace, id, began })
    }

    /// Whether it still runs; `None` where that cannot be seen from here.
    pub(crate) fn runs(&self) -> Option<bool> {
        let this = Process::this()?;
        let visible = this.boot == self.boot && this.namespace == self.namespace;
        if !visible {
            return None;
        }
        match State::of(self.id) {
            Some(State::Runs { began }) => Some(began == self.began),
            Some(State::Ended) => Some(false),
            // Processes of other users may be hidden (`hidepid` of proc(5)); not from kill(2).
            None => {
                let id = i32::try_from(self.id).ok().and_then(Pid::from_raw)?;
                (test_kill_process(id) == Err(Errno::SRCH)).then_some(false)
            }
        }
    }
}

/// What there is to see of a process.
enum State {
    /// It runs.
    Runs { began: u64 },
    /// It is a zombie, which writes nothing any more.
    Ended,
}

impl State {
    /// By `/proc/<id>/stat` (proc_pid_stat(5)), of which the third and the 22nd field count. The second
    /// one, a name in parentheses, may hold spaces. `None` where there is nothing to see.
    fn of(id: u32) -> Option<State> {
        let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let (_, rest) = text.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        match fields.next()? {
            "Z" | "X" => Some(State::Ended),
            _ => fields.nth(18)?.parse().ok().map(|began| State::Runs { began }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_runs_until_it_ends_and_others_cannot_be_told() {
        let this = Process::this().unwrap();
        assert_eq!(this.runs(), Some(true));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let Some(State::Runs { began }) = State::of(child.id()) else { panic!("it sleeps") };
        let other = Process { id: child.id(), began, ..this.clone() };
        assert_eq!(other.runs(), Some(true));
        child.kill().unwrap();
        // A zombie first.
        while other.runs() != Some(false) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        child.wait().unwrap();
        assert_eq!(other.runs(), Some(false));
        assert_eq!(Process { began: 1, ..this.clone() }.runs(), Some(false));
        assert_eq!(Process { boot: "another".into(), ..this }.runs(), None);
    }
}
