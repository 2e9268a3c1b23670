//! A child process that does not outlive us.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::sync::watch;

/// A child with a keeper: a thread that starts it, waits for it and reaps it.
///
/// The thread is not a convenience. `PR_SET_PDEATHSIG` fires when the *thread* that started the
/// child ends, and threads of an async runtime or of a test come and go; this one lives exactly as
/// long as the child.
pub(super) struct Process {
    pid: Pid,
    /// Locked while a signal is sent and while the child is reaped, so that a signal never meets
    /// a process that was given the same id later.
    reaped: Arc<Mutex<bool>>,
    status: watch::Receiver<Option<ExitStatus>>,
    keeper: Option<JoinHandle<()>>,
}

impl Process {
    /// Starts `program`, which reads `input` and writes to `log`, in a process group of its own:
    /// a Ctrl-C in the terminal is for us, who stop the server in order.
    pub(super) fn spawn(program: &Command, input: Stdio, log: File) -> io::Result<Process> {
        let mut command = tied_to_parent(program);
        command.process_group(0).stdin(input).stdout(log.try_clone()?).stderr(log);
        let reaped = Arc::new(Mutex::new(false));
        let (report, status) = watch::channel(None);
        let (started, start) = std::sync::mpsc::sync_channel(1);
        let keeper = std::thread::Builder::new().name("sandbox-keeper".into()).spawn({
            let reaped = Arc::clone(&reaped);
            move || {
                let mut child = match command.spawn() {
                    Ok(child) => child,
                    Err(error) => return drop(started.send(Err(error))),
                };
                let pid = Pid::from_child(&child);
                // The receiver is there until it got this one message.
                let _ = started.send(Ok(pid));
                let exited = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
                while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), exited) {}
                let mut reaped = lock(&reaped);
                let status = child.wait();
                *reaped = true;
                drop(reaped);
                report.send_replace(status.ok());
            }
        })?;
        let pid = start
            .recv()
            .map_err(|_| io::Error::other("the thread that starts the process died"))??;
        Ok(Process { pid, reaped, status, keeper: Some(keeper) })
    }

    /// The process id.
    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Whether the process was not yet seen to end.
    pub(super) fn is_running(&self) -> bool {
        !*lock(&self.reaped)
    }

    /// Sends a signal; a process that ended gets none.
    pub(super) fn signal(&self, signal: Signal) {
        let reaped = lock(&self.reaped);
        if !*reaped {
            // It is our own child and not reaped, so the only failure left is a changed user id.
            let _ = kill_process(self.pid, signal);
        }
    }

    /// Waits for the end; safe to drop and to call again. `None`: how it ended is not known.
    pub(super) async fn wait(&self) -> Option<ExitStatus> {
        let mut status = self.status.clone();
        // An error means that the keeper is gone, and with it the child.
        status.wait_for(Option::is_some).await.ok().and_then(|status| *status)
    }
}

impl Drop for Process {
    /// SIGKILL, and waits (blocking, for moments) until the kernel took it all back.
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        if let Some(keeper) = self.keeper.take() {
            let _ = keeper.join();
        }
    }
}

fn lock(reaped: &Mutex<bool>) -> MutexGuard<'_, bool> {
    reaped.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `program`, without our environment, and wrapped so that the kernel kills it when its parent
/// dies, where that can be had: `setpriv` of util-linux can do it, the one of busybox cannot.
fn tied_to_parent(program: &Command) -> Command {
    let tie = ["--pdeathsig", "KILL", "--"];
    let probe = Command::new("setpriv")
        .args(tie)
        .arg("true")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let mut command = if probe.is_ok_and(|status| status.success()) {
        let mut setpriv = Command::new("setpriv");
        setpriv.args(tie).arg(program.get_program());
        setpriv
    } else {
        Command::new(program.get_program())
    };
    command.args(program.get_args()).env_clear();
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Process {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        let log = tempfile::tempfile().unwrap();
        Process::spawn(&command, Stdio::null(), log).unwrap()
    }

    #[tokio::test]
    async fn the_exit_status_is_told_to_everybody_who_waits() {
        let process = sh("exit 3");
        assert_eq!(process.wait().await.unwrap().code(), Some(3));
        assert_eq!(process.wait().await.unwrap().code(), Some(3));
        assert!(!process.is_running());
        process.signal(Signal::KILL);
    }

    #[tokio::test]
    async fn the_child_outlives_the_thread_that_asked_for_it_but_not_its_value() {
        let process = std::thread::spawn(|| sh("kill -STOP $$; sleep 100")).join().unwrap();
        let proc = std::path::PathBuf::from(format!("/proc/{}", process.pid()));
        assert!(process.is_running());
        drop(process);
        assert!(!proc.exists());
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error_or_a_failed_child() {
        let missing = Command::new("/no/such/program");
        let log = tempfile::tempfile().unwrap();
        if let Ok(process) = Process::spawn(&missing, Stdio::null(), log) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            assert!(!runtime.block_on(process.wait()).unwrap().success());
        }
    }
}
