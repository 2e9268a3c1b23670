//! A tool that runs: its log read line by line, its end waited for.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use backup_core::{Context, Error, ErrorKind, Event, Result, io_error};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::log::{Line, LogEvent, Severity, diagnose};
use super::tool::Tool;

/// Bytes that a pipe from a tool holds, where the system allows it.
const PIPE: usize = 1 << 20;
/// Lines of the log that are kept for an error.
const TAIL: usize = 40;
/// A line longer than this is cut.
const LINE: u64 = 4096;
/// Lines with errors and warnings that are kept.
const KEPT: usize = 20;
/// What a prepare says of each tablespace that its redo log knows and that is not there. Where single tables are
/// prepared, that is each of the others.
const ABSENT: &str = "when restoring a (partial?) backup";

/// What a tool said until its end.
#[derive(Debug, Default)]
pub(super) struct Log {
    tail: VecDeque<String>,
    pub(super) errors: Vec<String>,
    pub(super) warnings: Vec<String>,
    /// The last line is the one of a success.
    pub(super) completed: bool,
    /// How long commits waited.
    pub(super) locked: Duration,
    /// Tablespaces that were not there for a prepare.
    pub(super) absent: usize,
}

/// A tool that was started. Dropping it kills it.
pub(super) struct Running {
    name: String,
    child: Child,
    log: JoinHandle<Log>,
    /// Since when commits wait.
    lock: watch::Receiver<Option<Instant>>,
}

impl Running {
    pub(super) fn start(cx: &Context, tool: &Tool, arguments: &[OsString]) -> Result<Running> {
        Running::start_with(cx, tool, arguments, Stdio::null())
    }

    /// The same, with something else than nothing for it to hold, and not to read.
    pub(super) fn start_with(
        cx: &Context,
        tool: &Tool,
        arguments: &[OsString],
        stdin: Stdio,
    ) -> Result<Running> {
        let name = tool.name();
        let mut command = tool.command();
        command.args(arguments).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut command = tokio::process::Command::from(command);
        // A group of its own: Ctrl-C in a terminal is for us, who end it in order.
        let mut child = command
            .kill_on_drop(true)
            .process_group(0)
            .spawn()
            .map_err(|e| io_error(e, ErrorKind::Usage, format!("cannot run {name}")))?;
        let stderr = child.stderr.take().ok_or_else(|| Error::internal("no pipe to the tool"))?;
        let (held, lock) = watch::channel(None);
        let log = tokio::spawn(read_log(cx.clone(), name.clone(), stderr, held));
        Ok(Running { name, child, log, lock })
    }

    pub(super) fn stdout(&mut self) -> Result<ChildStdout> {
        let stdout = self.child.stdout.take();
        let stdout = stdout.ok_or_else(|| Error::internal("no pipe to the tool"))?;
        // A tool that finds the pipe full waits, and so do its reads. That a user has no more pipes of
        // that size is no reason to fail.
        let _ = rustix::pipe::fcntl_setpipe_size(&stdout, PIPE);
        Ok(stdout)
    }

    /// Ends when commits have waited longer than that, else never.
    pub(super) fn overdue(&self, deadline: Duration) -> impl Future<Output = Error> + use<> {
        let mut lock = self.lock.clone();
        let name = self.name.clone();
        async move {
            loop {
                let since = *lock.borrow_and_update();
                let left = since.map(|since| deadline.saturating_sub(since.elapsed()));
                let over = async {
                    match left {
                        Some(left) => tokio::time::sleep(left).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    changed = lock.changed() => if changed.is_err() {
                        std::future::pending::<()>().await;
                    },
                    () = over => break,
                }
            }
            Error::new(
                ErrorKind::Source,
                format!("{name} blocked commits for {deadline:?}, and was ended"),
            )
            .with_remedy("a slow repository holds the tool up: allow more with --lock-timeout, or back up to a faster one")
        }
    }

    /// Waits that long for its end, then kills it. Gives how it ended by itself, and what it said.
    pub(super) async fn end(mut self, grace: Duration) -> (Option<ExitStatus>, Log) {
        let status = tokio::time::timeout(grace, self.child.wait()).await;
        if status.is_err() {
            // It may have ended by itself just now, which is as good.
            let _ = self.child.kill().await;
        }
        (status.ok().and_then(std::result::Result::ok), self.log.await.unwrap_or_default())
    }

    /// Waits for its end: every proof of success that log and exit code can give.
    pub(super) async fn finish(mut self, cx: &Context) -> Result<Log> {
        let status = tokio::select! {
            status = self.child.wait() => status,
            () = cx.cancellation().cancelled() => {
                let _ = self.child.kill().await;
                return Err(Error::interrupted());
            }
        };
        let status = status.map_err(|e| {
            io_error(e, ErrorKind::Internal, format!("cannot wait for {}", self.name))
        })?;
        let log = self.log.await.unwrap_or_default();
        match log.complaint(&self.name, Some(status)) {
            Some(error) => Err(error),
            None => Ok(log),
        }
    }
}

impl Log {
    /// Why a tool is not to be believed; `None` when everything speaks for it.
    pub(super) fn complaint(&self, name: &str, status: Option<ExitStatus>) -> Option<Error> {
        let problem = match status {
            Some(status) if !status.success() => format!("{name} ended with {status}"),
            None => format!("{name} was ended"),
            Some(_) if !self.completed => {
                format!("{name} ended without saying that it completed")
            }
            Some(_) if !self.errors.is_empty() => {
                format!("{name} says that it completed, and that something is wrong")
            }
            Some(_) => return None,
        };
        let cause = diagnose(self.errors.iter().chain(&self.tail).map(String::as_str));
        let said = match self.errors.is_empty() {
            true => self.tail.iter().rev().take(3).rev().cloned().collect::<Vec<_>>().join(" | "),
            false => self.errors.join(" | "),
        };
        Some(match cause {
            Some((kind, what, remedy)) => {
                Error::new(kind, format!("{problem}: {what}")).with_source(said).with_remedy(remedy)
            }
            None => Error::new(ErrorKind::Source, problem)
                .with_source(if said.is_empty() { "it said nothing".to_owned() } else { said })
                .with_remedy("see the tool's own words"),
        })
    }

    fn take(
        &mut self,
        cx: &Context,
        name: &str,
        line: &str,
        held: &watch::Sender<Option<Instant>>,
    ) {
        let read = Line::parse(line);
        if read.text.is_empty() {
            return;
        }
        self.completed = read.event == Some(LogEvent::Completed);
        match read.event {
            Some(LogEvent::Locked) if held.borrow().is_none() => {
                held.send_replace(Some(Instant::now()));
            }
            Some(LogEvent::Unlocked) => {
                if let Some(since) = held.send_replace(None) {
                    self.locked += since.elapsed();
                }
            }
            _ => {}
        }
        match read.severity {
            Severity::Warning if read.text.contains(ABSENT) => self.absent += 1,
            Severity::Error if self.errors.len() < KEPT => self.errors.push(read.text.clone()),
            Severity::Warning if self.warnings.len() < KEPT => {
                self.warnings.push(format!("{name}: {}", read.text));
                cx.event(Event::Note { text: format!("{name}: {}", read.text) });
            }
            _ => {}
        }
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(read.text);
    }
}

async fn read_log(
    cx: Context,
    name: String,
    stderr: impl AsyncRead + Unpin,
    held: watch::Sender<Option<Instant>>,
) -> Log {
    let mut log = Log::default();
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut lines).take(LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => break,
            Ok(_) => log.take(&cx, &name, &String::from_utf8_lossy(&line), &held),
        }
    }
    // A tool that died held its locks until now.
    if let Some(since) = held.send_replace(None) {
        log.locked += since.elapsed();
    }
    log
}
