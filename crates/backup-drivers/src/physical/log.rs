//! What tools say on their standard error.
//!
//! ```text
//! [00] 2026-11-27 23:04:48 completed OK!                                                       mariadb-backup
//! [00] FATAL ERROR: 2026-11-27 23:04:48 …
//! 2026-11-27 23:04:48 0 [Note] InnoDB: …
//! 2024-01-01T00:00:00.000000-00:00 0 [ERROR] [MY-011825] [Xtrabackup] …                        xtrabackup 8.0 and later
//! 240101 00:00:00 completed OK!                                                                xtrabackup 2.4
//! xtrabackup: error: …
//! ```

use backup_core::ErrorKind;

/// How serious a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Says what is done.
    Note,
    /// Needs a look.
    Warning,
    /// The tool cannot go on, or says that something is wrong.
    Error,
}

/// What a line says that matters for how the backup goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogEvent {
    /// A file is copied from now on.
    File(String),
    /// A lock is held now that commits wait for.
    Locked,
    /// It is given back.
    Unlocked,
    /// The last line of a tool that has nothing to complain of.
    Completed,
}

/// A line, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// How serious it is.
    pub severity: Severity,
    /// Without thread, time and what else stands before it.
    pub text: String,
    /// What it says, if it is one of those.
    pub event: Option<LogEvent>,
}

impl Line {
    /// Reads a line, whatever it holds.
    #[must_use]
    pub fn parse(line: &str) -> Line {
        let text = strip(line);
        let has = |mark: &str| line.contains(mark);
        let begins = |mark: &str| text.starts_with(mark);
        let error = has("[ERROR]")
            || has("FATAL ERROR")
            || begins("xtrabackup: error")
            || begins("xtrabackup: Error")
            || begins("mariabackup: error")
            || begins("mariabackup: Error")
            || begins("mariadb-backup: Error")
            || begins("Error:")
            || begins("ERROR")
            || begins("Failed to connect")
            || begins("failed to execute query");
        // Said only of what it was told to take along.
        let taken = has("The corruption is ignored due to log-innodb-page-corruption")
            || has("corrupted innodb pages are found and logged to");
        let warning =
            taken || has("[Warning]") || has("[WARNING]") || begins("WARNING") || begins("Warning");
        let severity = match (error && !taken, warning) {
            (true, _) => Severity::Error,
            (_, true) => Severity::Warning,
            _ => Severity::Note,
        };
        let file = || {
            let rest = ["Streaming ", "Copying ", "[01] Streaming ", "[01] Copying "]
                .iter()
                .find_map(|start| text.strip_prefix(start))?;
            let path = rest.split(" to ").next().unwrap_or(rest);
            Some(LogEvent::File(path.trim_start_matches("./").to_owned()))
        };
        let event = if text == "completed OK!" {
            Some(LogEvent::Completed)
        } else if begins("Acquired locks for BACKUP STAGE BLOCK_COMMIT")
            || begins("Executing FLUSH TABLES WITH READ LOCK")
            || begins("Executing LOCK BINLOG FOR BACKUP")
        {
            Some(LogEvent::Locked)
        } else if begins("All tables unlocked")
            || begins("Executing UNLOCK TABLES")
            || begins("Executing BACKUP STAGE END")
        {
            Some(LogEvent::Unlocked)
        } else {
            file()
        };
        Line { severity, text: text.to_owned(), event }
    }
}

/// Takes thread, time, number, severity and sender off the front.
fn strip(line: &str) -> &str {
    let mut text = line.trim();
    loop {
        let word = text.split(' ').next().unwrap_or_default();
        let bracketed = word.starts_with('[') && word.ends_with(']') && word.len() > 2;
        // Dates and times, thread numbers.
        let counting = word.len() > 1
            && word.starts_with(|c: char| c.is_ascii_digit())
            && word.chars().all(|c| c.is_ascii_digit() || "-:.TZ+".contains(c));
        let number = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
        let fatal = text.strip_prefix("FATAL ERROR:");
        text = match fatal {
            Some(rest) => rest.trim_start(),
            None if bracketed || counting || number => text[word.len()..].trim_start(),
            None => return text,
        };
    }
}

/// What went wrong, as the lines of a tool tell: the kind, what it means, and what to do. `None` where
/// none of them is known.
#[must_use]
pub fn diagnose<'a>(
    lines: impl IntoIterator<Item = &'a str>,
) -> Option<(ErrorKind, &'static str, &'static str)> {
    let lines: Vec<String> = lines.into_iter().map(str::to_ascii_lowercase).collect();
    let known = lines.iter().find_map(|line| {
        CAUSES
            .iter()
            .find(|cause| cause.marks.iter().any(|mark| line.contains(mark)))
            .map(|cause| (cause.kind, cause.problem, cause.remedy))
    });
    let has = |mark: &str| lines.iter().any(|line| line.contains(mark));
    // The number alone is also said of files that nobody misses.
    known.or_else(|| (has(NOT_THERE) && has(NOT_COPIED)).then_some(GONE))
}

/// How `mariadb-backup` says that a file was not there, and that one was not copied.
const NOT_THERE: &str = "error number 2 in a file operation";
const NOT_COPIED: &str = "copy_file() failed";
/// What both together mean.
const GONE: (ErrorKind, &str, &str) = (
    ErrorKind::Source,
    "a file was gone when the tool came to copy it: its table was dropped, renamed or made anew meanwhile",
    "take the backup again, at a time when no DDL runs",
);

struct Cause {
    marks: &'static [&'static str],
    kind: ErrorKind,
    problem: &'static str,
    remedy: &'static str,
}

/// What a tool says of pages, in our words.
pub(super) const DAMAGED: &str = "a data file of the server is damaged";

/// In the sources of both tools; the first that fits is told.
const CAUSES: [Cause; 13] = [
    Cause {
        marks: &[
            "try increasing innodb_log_file_size",
            "redo log block is overwritten",
            "log has wrapped around",
            "log block numbers mismatch",
            "redo log files being wrapped",
            "log copying being too slow",
            "was only able to copy log from",
        ],
        kind: ErrorKind::Source,
        problem: "the server wrote over its redo log before the tool had copied it",
        remedy: "make the redo log larger (innodb_log_file_size, innodb_redo_log_capacity), so that it holds \
                 what is written during a backup; or take the backup when less is written",
    },
    Cause {
        marks: &[
            "missing required privilege",
            "you need (at least one of) the",
            "command denied to user",
        ],
        kind: ErrorKind::Privilege,
        problem: "the account lacks a privilege",
        remedy: "MariaDB: GRANT RELOAD, PROCESS, LOCK TABLES, BINLOG MONITOR ON *.* TO the account; MySQL: GRANT \
                 BACKUP_ADMIN, RELOAD, PROCESS, LOCK TABLES, REPLICATION CLIENT ON *.* and SELECT ON \
                 performance_schema.log_status, .keyring_component_status, .replication_group_members",
    },
    Cause {
        marks: &["access denied for user"],
        kind: ErrorKind::Connect,
        problem: "the tool could not sign in",
        remedy: "check user and password; the account must exist for the host that the tool comes from",
    },
    Cause {
        marks: &[
            "can't connect to",
            "failed to connect to mysql",
            "failed to connect to mariadb",
            "lost connection to",
            "server has gone away",
        ],
        kind: ErrorKind::Connect,
        problem: "the tool could not reach the server, or lost it",
        remedy: "check that the server runs, and its address",
    },
    Cause {
        marks: &[
            "no space left on device",
            "errno: 28",
            "error: 28",
            "error 28",
            "error number 28",
            "disk is full",
        ],
        kind: ErrorKind::Space,
        problem: "a disk that the tool writes to is full",
        remedy: "make room: for a restore in the directory, where the redo log makes files longer than they came; for \
                 a backup where the operating system has temporary files (TMPDIR)",
    },
    Cause {
        marks: &[
            "unsupported server version",
            "unsupported mysql version",
            "not supported by percona xtrabackup",
            "unsupported redo log format",
            "please use percona xtrabackup",
        ],
        kind: ErrorKind::Source,
        problem: "the tool does not know this version of the server",
        remedy: "install the tool of the server's own series, not older than the server",
    },
    Cause {
        marks: &[
            "without redo logging",
            "ddl operation detected",
            "ddl was executed",
            "tablespace is missing for table",
            "an optimized (without",
        ],
        kind: ErrorKind::Source,
        problem: "a DDL statement ran during the backup that the tool cannot follow",
        remedy: "take the backup again when no DDL runs, or with --lock-ddl on",
    },
    Cause {
        marks: &[
            "unable to obtain lock",
            "lock wait timeout",
            "waited too long for",
            "timed out waiting",
            "max_statement_time exceeded",
        ],
        kind: ErrorKind::Source,
        problem: "the lock was not to be had in time: a long statement stood in the way",
        remedy: "see SHOW PROCESSLIST; --long-queries kill ends SELECTs that hold it up",
    },
    Cause {
        marks: &[
            "page corruption",
            "corrupt page",
            "corrupted page",
            "corrupted innodb pages",
            "database page corruption",
            "is corrupted",
        ],
        kind: ErrorKind::Source,
        problem: DAMAGED,
        remedy: "run CHECK TABLE on the table that is named, and bring it back from an earlier backup",
    },
    Cause {
        marks: &["too many levels of symbolic links", "errno: 40"],
        kind: ErrorKind::Source,
        problem: "a table of Aria is behind a symbolic link, which the tool does not follow",
        remedy: "move it into the data directory (ALTER TABLE … ENGINE=InnoDB), or use --lock-and-copy, --strategy \
                 logical, or a copy of the stopped server",
    },
    Cause {
        marks: &["too many open files", "errno: 24"],
        kind: ErrorKind::Source,
        problem: "the tool may not open as many files as there are tables",
        remedy: "raise the limit (ulimit -n, LimitNOFILE=)",
    },
    Cause {
        marks: &["permission denied", "errno: 13", "operation not permitted"],
        kind: ErrorKind::Source,
        problem: "the tool may not read the files of the server",
        remedy: "run holdfast as the user of the server, or as root",
    },
    Cause {
        marks: &["unknown option", "unknown variable", "unrecognized option", "ambiguous option"],
        kind: ErrorKind::Usage,
        problem: "the tool does not know an option",
        remedy: "see the option in the words of the tool, and use a current version of it",
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lines_of_all_tools() {
        use LogEvent::{Completed, File, Locked, Unlocked};
        use Severity::{Error, Note, Warning};
        let file = |path: &str| Some(File(path.to_owned()));
        for (line, severity, event) in [
            ("[00] 2026-11-27 23:04:48 completed OK!", Note, Some(Completed)),
            (
                "2024-01-01T00:00:00.000000-00:00 0 [Note] [MY-011825] [Xtrabackup] completed OK!",
                Note,
                Some(Completed),
            ),
            ("240101 00:00:00 completed OK!", Note, Some(Completed)),
            ("the backup completed OK! or not", Note, None),
            (
                "[00] 2026-11-27 23:04:48 Acquired locks for BACKUP STAGE BLOCK_COMMIT",
                Note,
                Some(Locked),
            ),
            ("240101 00:00:00 Executing FLUSH TABLES WITH READ LOCK...", Note, Some(Locked)),
            ("[00] 2026-11-27 23:04:48 All tables unlocked", Note, Some(Unlocked)),
            ("[01] 2026-11-27 23:04:47 Streaming ./shop/t.ibd", Note, file("shop/t.ibd")),
            (
                "[01] 2026-11-27 23:04:47 Streaming ./sys/version.frm to <STDOUT>",
                Note,
                file("sys/version.frm"),
            ),
            (
                "2024-01-01T00:00:00.000000-00:00 2 [Note] [MY-011825] [Xtrabackup] Streaming ./shop/t.ibd",
                Note,
                file("shop/t.ibd"),
            ),
            ("[00] FATAL ERROR: 2026-11-27 23:04:48 cannot go on", Error, None),
            ("2026-11-27 23:04:48 0 [ERROR] InnoDB: bad", Error, None),
            (
                "2024-01-01T00:00:00.000000-00:00 0 [ERROR] [MY-011825] [Xtrabackup] log block numbers mismatch",
                Error,
                None,
            ),
            ("xtrabackup: error: xtrabackup_copy_logfile() failed.", Error, None),
            (
                "[00] 2026-11-27 23:04:38 Failed to connect to MariaDB server: Access denied for user 'b'@'localhost' (using password: YES).",
                Error,
                None,
            ),
            // Of a table that was renamed meanwhile: the tool goes on.
            ("[00] 2026-11-27 23:04:48 Error on aria table file open ./shop/aria.MAD", Note, None),
            ("2026-11-27 23:04:48 0 [Warning] InnoDB: odd", Warning, None),
            (
                "[00] 2026-11-27 23:04:48 Error: corrupted innodb pages are found and logged to innodb_corrupted_pages file",
                Warning,
                None,
            ),
            ("", Note, None),
        ] {
            let read = Line::parse(line);
            assert_eq!((read.severity, read.event), (severity, event), "{line}");
        }
        let text = Line::parse("[00] FATAL ERROR: 2026-11-27 23:04:48 cannot go on").text;
        assert_eq!(text, "cannot go on");
    }

    #[test]
    fn what_goes_wrong_has_a_kind_and_a_remedy() {
        for (line, kind) in [
            (
                "mariabackup: Was only able to copy log from 100 to 200, not 300; try increasing innodb_log_file_size",
                ErrorKind::Source,
            ),
            (
                "Failed to connect to MariaDB server: Access denied for user 'b'@'localhost' (using password: YES).",
                ErrorKind::Connect,
            ),
            (
                "Error: failed to execute query BACKUP STAGE START: Access denied; you need (at least one of) the RELOAD privilege(s) for this operation",
                ErrorKind::Privilege,
            ),
            (
                "Can't create/write to file (Errcode: 28 \"No space left on device\")",
                ErrorKind::Space,
            ),
            (
                "InnoDB: preallocating 79691776 bytes for file ./ibdata1 failed with error 28",
                ErrorKind::Space,
            ),
            (
                "mariadb-backup: Can't find file: './shop/aria.MAD' (errno: 40 \"Too many levels of symbolic links\")",
                ErrorKind::Source,
            ),
            (
                "[ERROR] [MY-011825] [Xtrabackup] Unsupported server version 9.7.4. Please use Percona XtraBackup 9.7 for this database.",
                ErrorKind::Source,
            ),
        ] {
            assert_eq!(diagnose([line]).map(|(kind, ..)| kind), Some(kind), "{line}");
        }
        assert_eq!(diagnose(["all is well"]), None);
        let gone = "InnoDB: Operating system error number 2 in a file operation.";
        assert_eq!(diagnose([gone]), None);
        let said = diagnose([gone, "Error: copy_file() failed."]).unwrap();
        assert!(said.1.contains("was dropped, renamed"), "{said:?}");
        let full = ["Error: copy_file() failed.", gone, "Error on write: no space left on device"];
        assert_eq!(diagnose(full).map(|(kind, ..)| kind), Some(ErrorKind::Space));
    }

    proptest! {
        #[test]
        fn any_line_is_read(line in "\\PC{0,60}|[\\[\\]0-9 :.TZ-]{0,40}[a-zA-Z! ]{0,20}") {
            let _ = Line::parse(&line);
            let _ = diagnose([&*line]);
        }
    }
}
