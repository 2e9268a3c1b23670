//! What a child process took: time, processor, memory; and what everything else took meanwhile.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use backup_core::{Error, ErrorKind, Result, io_error};
use wait4::Wait4;

/// What one run of a program took.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    /// From start to end, in seconds.
    pub(crate) wall: f64,
    /// Processor time of the program and its children, in seconds.
    pub(crate) cpu: f64,
    /// Processor time of the server meanwhile, in seconds.
    pub(crate) server_cpu: f64,
    /// The largest resident set, in bytes.
    pub(crate) memory: u64,
    /// Which part of the machine's processors others used meanwhile, 0 to 1.
    pub(crate) others: f64,
}

/// Runs a program to its end, beside the server with process id `server`; what it says on stderr
/// goes to `log`. The inner error says how it failed.
pub(crate) fn run(
    command: &mut Command,
    server: u32,
    good: &[i32],
    log: &Path,
) -> Result<Result<Run, String>> {
    let failed = |e| io_error(e, ErrorKind::Internal, "cannot measure a program");
    let stderr = File::create(log).map_err(failed)?;
    // What earlier runs left to be written must not be written in the time of this one.
    rustix::fs::sync();
    let (busy, of_server) =
        (Ticks::of_machine().map_err(failed)?, Ticks::of(server).map_err(failed)?);
    let began = Instant::now();
    let mut child = command.stderr(stderr).spawn().map_err(|e| {
        io_error(e, ErrorKind::Usage, format!("cannot run {}", command.get_program().display()))
    })?;
    let used = child.wait4().map_err(failed)?;
    let wall = began.elapsed();
    let server_cpu = Ticks::of(server).map_err(failed)?.since(&of_server);
    let busy = Ticks::of_machine().map_err(failed)?.since(&busy);
    if !used.status.code().is_some_and(|code| good.contains(&code)) {
        let said = std::fs::read(log).map_err(failed)?;
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        return Ok(Err(match used.status.signal() {
            Some(_) => used.status.to_string(),
            None => format!("{}; {}", used.status, last.trim()),
        }));
    }
    let cpu = used.rusage.utime + used.rusage.stime;
    let others = busy.saturating_sub(server_cpu).saturating_sub(cpu);
    Ok(Ok(Run {
        wall: wall.as_secs_f64(),
        cpu: cpu.as_secs_f64(),
        server_cpu: server_cpu.as_secs_f64(),
        memory: used.rusage.maxrss,
        others: others.as_secs_f64() / (wall.as_secs_f64() * processors()),
    }))
}

/// The number of processors.
pub(crate) fn processors() -> f64 {
    let number = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

/// Which part of the machine's processors is in use, over two seconds.
pub(crate) fn busy() -> Result<f64> {
    let failed = |e| io_error(e, ErrorKind::Internal, "cannot read /proc/stat");
    let before = Ticks::of_machine().map_err(failed)?;
    let began = Instant::now();
    std::thread::sleep(Duration::from_secs(2));
    let used = Ticks::of_machine().map_err(failed)?.since(&before);
    Ok(used.as_secs_f64() / (began.elapsed().as_secs_f64() * processors()))
}

/// The middle one; of an even number the mean of both.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        n if n % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// The bytes of all files below a directory, or of one file.
pub(crate) fn size(path: &Path) -> Result<u64> {
    fn sum(path: &Path) -> std::io::Result<u64> {
        let metadata = std::fs::symlink_metadata(path)?;
        if !metadata.is_dir() {
            return Ok(metadata.len());
        }
        std::fs::read_dir(path)?.try_fold(0, |bytes, entry| Ok(bytes + sum(&entry?.path())?))
    }
    sum(path).map_err(|e| {
        Error::internal(format!("cannot tell the size of {}", path.display())).with_source(e)
    })
}

/// Processor time in the kernel's clock ticks.
struct Ticks(u64);

impl Ticks {
    /// Of everything that runs on this machine: user, nice, system, irq, softirq, steal
    /// (proc_stat(5)).
    fn of_machine() -> std::io::Result<Ticks> {
        let text = std::fs::read_to_string("/proc/stat")?;
        let values: Vec<u64> = text
            .lines()
            .next()
            .unwrap_or_default()
            .split(' ')
            .filter_map(|v| v.parse().ok())
            .collect();
        Ok(Ticks([0, 1, 2, 5, 6, 7].iter().filter_map(|&i| values.get(i)).sum()))
    }

    /// Of one process: utime and stime, the 14th and 15th field (proc_pid_stat(5)). The second
    /// field, its name in parentheses, may hold spaces.
    fn of(process: u32) -> std::io::Result<Ticks> {
        let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
        let rest = text.rsplit_once(") ").map_or("", |(_, rest)| rest);
        Ok(Ticks(rest.split(' ').skip(11).take(2).filter_map(|v| v.parse::<u64>().ok()).sum()))
    }

    fn since(&self, earlier: &Ticks) -> Duration {
        let per_second = rustix::param::clock_ticks_per_second();
        Duration::from_millis((self.0 - earlier.0) * 1000 / per_second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0]), Some(2.5));
        assert_eq!(median([]), None);
    }

    #[test]
    fn a_program_that_works_and_one_that_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let sh = |script: &str| {
            run(Command::new("sh").args(["-c", script]), std::process::id(), &[0, 14], &log)
                .unwrap()
        };
        let run = sh("i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; exit 14").unwrap();
        assert!(run.cpu > 0.0 && run.cpu <= run.wall * processors(), "{run:?}");
        assert!(run.memory > 100_000, "{run:?}");
        let failure = sh("echo no such table >&2; echo >&2; exit 3").unwrap_err();
        assert!(failure.contains('3') && failure.ends_with("no such table"), "{failure}");
        assert!(sh("kill -SEGV $$").unwrap_err().contains("11"));
    }
}
