//! Files of several moments into files that a server starts on.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use backup_core::{Context, Error, ErrorKind, Result, io_error};

use super::log::DAMAGED;
use super::metadata::Checkpoints;
use super::options::prepare_arguments;
use super::run::Running;
use super::tool::Tool;
use crate::files::{KeyPlugin, Mark};

/// What a prepare may take of memory for pages at least, in bytes; a tool takes no less.
const LEAST_MEMORY: u64 = 100 << 20;

/// Prepares `directory`, which `mark` keeps others out of, with the increments in order; `keys` is the plugin that has
/// the keys of encrypted files.
pub(super) async fn prepare(
    cx: &Context,
    tool: &Tool,
    directory: &Path,
    mark: &Mark,
    increments: &[PathBuf],
    keys: Option<&KeyPlugin>,
) -> Result<()> {
    let memory = LEAST_MEMORY.max(cx.memory().bytes());
    let plugins = keys.map(|keys| keys.find(tool.plugins().as_deref())).transpose()?;
    let plugins = plugins.as_deref();
    let arguments = |increment: Option<&Path>, last: bool| {
        prepare_arguments(tool, directory, increment, last, memory, plugins)
    };
    cx.phase("preparing");
    // The full backup first, by itself.
    let mut wanted = checkpoints(directory)?.to_lsn;
    let last = increments.is_empty();
    step(cx, tool, (directory, mark), &arguments(None, last), keys).await?;
    for (n, increment) in increments.iter().enumerate() {
        wanted = wanted.max(checkpoints(increment)?.to_lsn);
        cx.phase(format!("applying increment {} of {}", n + 1, increments.len()));
        let last = n + 1 == increments.len();
        step(cx, tool, (directory, mark), &arguments(Some(increment), last), keys).await?;
    }
    let prepared = checkpoints(directory)?;
    let full = matches!(prepared.backup_type.as_str(), "full-prepared" | "log-applied");
    if !full || prepared.to_lsn < wanted {
        return Err(Error::new(
            ErrorKind::Target,
            format!(
                "{} says that it completed, but {} is {} up to LSN {} instead of {wanted}",
                tool.name(),
                directory.display(),
                prepared.backup_type,
                prepared.to_lsn
            ),
        ));
    }
    Ok(())
}

async fn step(
    cx: &Context,
    tool: &Tool,
    (directory, mark): (&Path, &Mark),
    arguments: &[OsString],
    keys: Option<&KeyPlugin>,
) -> Result<()> {
    let failed = format!("cannot prepare {}", directory.display());
    // It works on when we are killed: with the lock, so that nobody begins anew below it.
    let lock = mark.for_program().map_err(|e| io_error(e, ErrorKind::Internal, failed.clone()))?;
    let mut running = Running::start_with(cx, tool, arguments, lock.into())?;
    // It has nothing to say there, but must not wait for somebody who listens.
    let mut output = running.stdout()?;
    let drained = tokio::spawn(async move {
        let _ = tokio::io::copy(&mut output, &mut tokio::io::sink()).await;
    });
    let ended = running.finish(cx).await;
    drained.abort();
    let log = ended.map_err(|e| {
        // Of a backup that took damaged pages along.
        let e = match e.chain().contains(DAMAGED) {
            true => e.with_kind(ErrorKind::Damaged).with_remedy(
                "restore an earlier backup; tables that are sound come out of this one with --tables, into a server \
                 that runs",
            ),
            false => e,
        };
        // With other keys than its own, what is encrypted looks like anything.
        let e = match keys {
            Some(keys) if matches!(e.kind(), ErrorKind::Source | ErrorKind::Damaged) => {
                let remedy = format!("{}; or {}", keys.remedy(), e.remedy());
                e.with_kind(ErrorKind::Target).with_remedy(remedy)
            }
            _ => e,
        };
        let remedy = format!(
            "{}; the files in {} are not ready for a server",
            e.remedy().trim_end_matches('.'),
            directory.display()
        );
        e.context(failed).with_remedy(remedy)
    })?;
    if log.absent > 0 {
        cx.note(format!(
            "{}: {} tablespaces that the redo log names are not among the files",
            tool.name(),
            log.absent
        ));
    }
    Ok(())
}

fn checkpoints(directory: &Path) -> Result<Checkpoints> {
    for name in ["xtrabackup_checkpoints", "mariadb_backup_checkpoints"] {
        if let Ok(text) = std::fs::read_to_string(directory.join(name)) {
            return Checkpoints::parse(&text);
        }
    }
    Err(Error::damaged(format!("the files in {} have no checkpoints", directory.display())))
}
