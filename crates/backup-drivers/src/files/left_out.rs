//! What of a data directory does not go into a backup, and why.

use std::collections::BTreeSet;
use std::fs::{File, Metadata};
use std::os::unix::fs::FileExt;
use std::path::Path;

use backup_core::{Finding, Severity};

use super::catalog::LeftOut;
use crate::physical::some;

/// Why a name that is not UTF-8 is passed over: a path of the catalog is text.
pub(super) const NO_TEXT: &str = "its name is no text";
/// Why a repository of backups below the data directory is: it would be in each of its own backups.
pub(super) const REPOSITORY: &str = "a repository of backups";

/// Why the logs of a server are not backed up that are not for itself.
pub(super) const FOR_PEOPLE: &str = "a log for people";

/// Whether a file tells a replica what it replicates (MariaDB; MySQL has it in tables). A server that finds one without the
/// relay logs that it names does not start, and one that did would go on from half a state.
pub(crate) fn is_replication(place: &str) -> bool {
    let Some(name) = place.strip_suffix(".info") else { return false };
    // One of each for every connection with a name.
    let of = |kind: &str| {
        name.strip_prefix(kind).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    !name.contains('/') && (name == "multi-master" || of("master") || of("relay-log"))
}

/// Why it is not backed up, with where the applier stood in the binlogs of its source.
pub(super) fn replication(source: &Path, place: &str) -> String {
    let text = std::fs::read_to_string(source).unwrap_or_default();
    let mut lines = text.lines().peekable();
    // How many lines it has; then the relay log and the place in it.
    lines.next_if(|line| line.parse::<u32>().is_ok());
    let at = match (lines.nth(2), lines.next()) {
        (Some(file), Some(offset)) if place.starts_with("relay-log") && !file.is_empty() => {
            format!("; unless it goes by GTIDs, the applier had come up to {file}:{offset}")
        }
        _ => String::new(),
    };
    format!("what the server replicates, with relay logs that are not in the backup{at}")
}

/// Whether something belongs to a running server or is for people, by its name.
pub(super) fn is_of_a_process(place: &str) -> bool {
    let ends = |ending: &str| place.ends_with(ending);
    let there_while_it_runs = ends(".pid") || ends(".lock") || ends(".sock");
    !place.contains('/') && (there_while_it_runs || is_for_people(place))
}

/// Whether it is a log of a server that has its usual name.
fn is_for_people(name: &str) -> bool {
    [".err", "-slow.log", "general.log"].iter().any(|ending| name.ends_with(ending))
}

/// Why something is not backed up, if it is not.
pub(super) fn left_out(
    source: &Path,
    place: &str,
    metadata: &Metadata,
    binlogs: bool,
) -> Option<&'static str> {
    if !metadata.is_file() && !metadata.is_dir() {
        return Some("no file: a socket or a device");
    }
    let (parent, name) = place.rsplit_once('/').unwrap_or(("", place));
    let ends = |ending: &str| name.ends_with(ending);
    if parent.starts_with("#innodb_redo") && ends("_tmp") {
        return Some("a spare redo log, which the server makes anew");
    }
    if !parent.is_empty() {
        return None;
    }
    let temporary = "temporary tables, which the server makes anew";
    match name {
        "lost+found" => return Some("belongs to the file system"),
        "#innodb_temp" => return Some(temporary),
        "auto.cnf" => {
            return Some("the identity of the server: two servers with one could not replicate");
        }
        _ => {}
    }
    if name.starts_with(".holdfast") {
        return Some("a mark of holdfast");
    }
    if metadata.is_dir() {
        return None;
    }
    if name.starts_with("ibtmp") {
        return Some(temporary);
    }
    if ends(".pid") || ends(".lock") {
        return Some("belongs to the running server");
    }
    if is_for_people(name) {
        return Some(FOR_PEOPLE);
    }
    if name.starts_with("core")
        && name[4..].trim_start_matches('.').bytes().all(|b| b.is_ascii_digit())
    {
        return Some("what a crash left");
    }
    (!binlogs && is_binlog(source, name)).then_some("a binary log; `holdfast binlog` archives them")
}

/// Whether it is a binary log, a relay log, or an index of them.
fn is_binlog(source: &Path, name: &str) -> bool {
    let Some((_, extension)) = name.rsplit_once('.') else { return false };
    let digits = extension.len() >= 6 && extension.bytes().all(|b| b.is_ascii_digit());
    let start = || {
        let mut start = [0; 4];
        let read = File::open(source).and_then(|file| file.read_exact_at(&mut start, 0));
        read.map(|()| start).unwrap_or_default()
    };
    match extension {
        // Plain, or encrypted by the server.
        _ if digits => {
            matches!(start(), [0xfe | 0xfd, b'b', b'i', b'n'])
                || source.metadata().is_ok_and(|m| m.len() == 0)
        }
        "index" => std::fs::read_to_string(source).is_ok_and(|text| {
            text.lines().all(|line| {
                line.rsplit_once('.').is_some_and(|(_, number)| number.parse::<u64>().is_ok())
            })
        }),
        "state" => name.ends_with("bin.state") || name.starts_with("binlog"),
        _ => name.ends_with(".idx") || name.ends_with(".index_crash_safe"),
    }
}

/// The same as a finding of a preflight.
pub(super) fn unexpected_finding(left_out: &[LeftOut]) -> Option<Finding> {
    let remedy = "move them out of the data directory";
    let problem = unexpected(left_out)?;
    Some(Finding::new(Severity::Warning, "files", problem, remedy))
}

/// Whether a directory holds a repository of backups.
pub(super) fn is_repository(directory: &Path) -> bool {
    directory.join("holdfast.json").is_file()
}

/// What is to be said of things that were left out and that nobody expects to be.
pub(crate) fn unexpected(left_out: &[LeftOut]) -> Option<String> {
    let told = left_out.iter().filter(|left| [NO_TEXT, REPOSITORY].contains(&left.reason.as_str()));
    let told: BTreeSet<String> =
        told.map(|left| format!("{} ({})", left.path, left.reason)).collect();
    (!told.is_empty()).then(|| {
        format!("{}: not in the backup, for no server makes such names or directories", some(&told))
    })
}
