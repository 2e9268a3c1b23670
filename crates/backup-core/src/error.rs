//! Errors: few kinds, each with an exit code and with what to do next.
//!
//! A library function says *what* failed and *on what* in [`Error::new`]; the cause goes into
//! [`Error::with_source`] (or [`Error::with_server`] for what a database server answered), and the
//! remedy into [`Error::with_remedy`]. [`Error::report`] is the one place that joins them.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// What `Result` means in the Holdfast crates.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn StdError + Send + Sync + 'static>;

/// The kinds of failure that a caller can act on. Each one is an exit code of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// A bug in Holdfast, or an operating-system failure nobody planned for.
    Internal,
    /// The command line or the configuration is wrong.
    Usage,
    /// A server cannot be reached, or refuses to sign us in.
    Connect,
    /// The account lacks a privilege.
    Privilege,
    /// A disk, a quota or a tablespace is full.
    Space,
    /// The source is in a state that does not allow the backup (version, replication, locks).
    Source,
    /// The repository or the store under it failed.
    Store,
    /// A backup is damaged, or its chain is broken.
    Damaged,
    /// The target is not empty, or in a state that does not allow the restore.
    Target,
    /// The point in time, GTID or position asked for cannot be reached.
    Unreachable,
    /// A verification ran to its end and found problems.
    Findings,
    /// Somebody else holds the lease.
    Busy,
    /// Interrupted by the user; what was done is kept and can be resumed.
    Interrupted,
    /// Finished, with warnings that need a look.
    Warnings,
}

impl ErrorKind {
    /// Every kind, in the order of the exit codes.
    pub const ALL: [ErrorKind; 14] = [
        ErrorKind::Internal,
        ErrorKind::Usage,
        ErrorKind::Connect,
        ErrorKind::Privilege,
        ErrorKind::Space,
        ErrorKind::Source,
        ErrorKind::Store,
        ErrorKind::Damaged,
        ErrorKind::Target,
        ErrorKind::Unreachable,
        ErrorKind::Findings,
        ErrorKind::Busy,
        ErrorKind::Interrupted,
        ErrorKind::Warnings,
    ];

    /// The exit code of the command line for this kind (1 to 14).
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Internal => 1,
            ErrorKind::Usage => 2,
            ErrorKind::Connect => 3,
            ErrorKind::Privilege => 4,
            ErrorKind::Space => 5,
            ErrorKind::Source => 6,
            ErrorKind::Store => 7,
            ErrorKind::Damaged => 8,
            ErrorKind::Target => 9,
            ErrorKind::Unreachable => 10,
            ErrorKind::Findings => 11,
            ErrorKind::Busy => 12,
            ErrorKind::Interrupted => 13,
            ErrorKind::Warnings => 14,
        }
    }

    /// What to do next when the place that failed knew nothing better.
    #[must_use]
    pub fn default_remedy(self) -> &'static str {
        match self {
            ErrorKind::Internal => {
                "run the command again with -v and report it with the output if it persists"
            }
            ErrorKind::Usage => "see `holdfast help` for what the command takes",
            ErrorKind::Connect => {
                "check host, port or socket, user and password, and that the server runs"
            }
            ErrorKind::Privilege => {
                "grant the privilege named above; `holdfast check` prints the statement"
            }
            ErrorKind::Space => "free space or choose another place, then run the command again",
            ErrorKind::Source => "run `holdfast check` against the source and follow its findings",
            ErrorKind::Store => {
                "check that the repository is reachable and writable, then try again"
            }
            ErrorKind::Damaged => {
                "run `holdfast verify --level content` to see what is damaged and what is not; restore \
                 another backup"
            }
            ErrorKind::Target => "choose an empty target, or read what --overwrite would destroy",
            ErrorKind::Unreachable => {
                "choose a point that the archive leads to: `holdfast binlog check` says from which backup to where"
            }
            ErrorKind::Findings => "read the findings; each one names its remedy",
            ErrorKind::Busy => "wait until the other run ends, then try again",
            ErrorKind::Interrupted => "run the command again",
            ErrorKind::Warnings => "read the warnings above",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ErrorKind::Internal => "internal error",
            ErrorKind::Usage => "usage",
            ErrorKind::Connect => "connection",
            ErrorKind::Privilege => "missing privilege",
            ErrorKind::Space => "not enough space",
            ErrorKind::Source => "source in the wrong state",
            ErrorKind::Store => "repository or store failure",
            ErrorKind::Damaged => "backup damaged or chain broken",
            ErrorKind::Target => "target in the wrong state",
            ErrorKind::Unreachable => "target point not reachable",
            ErrorKind::Findings => "verification found problems",
            ErrorKind::Busy => "busy",
            ErrorKind::Interrupted => "interrupted",
            ErrorKind::Warnings => "finished with warnings",
        })
    }
}

/// What a database server answered: its own number, SQLSTATE and text, unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the server said: ERROR {code} ({state}): {message}")]
pub struct ServerError {
    /// The server's error number, such as 1045.
    pub code: u16,
    /// The SQLSTATE, five characters.
    pub state: String,
    /// The server's text.
    pub message: String,
}

/// An error of any Holdfast crate.
///
/// `Display` gives the message alone and never repeats [`source`](StdError::source);
/// [`Error::report`] gives the whole paragraph a person reads.
///
/// ```
/// use backup_core::{Error, ErrorKind};
/// let e = Error::new(ErrorKind::Space, "cannot write pack-3")
///     .with_source(std::io::Error::other("No space left on device"))
///     .with_remedy("free space under /backup");
/// assert_eq!(e.kind().exit_code(), 5);
/// assert_eq!(
///     e.report(),
///     "cannot write pack-3: No space left on device. What to do: free space under /backup."
/// );
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    remedy: Option<Cow<'static, str>>,
    source: Option<Source>,
}

impl Error {
    /// An error of `kind`; `message` says what failed and on what.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Error(Box::new(Inner { kind, message: message.into(), remedy: None, source: None }))
    }

    /// A state that only a bug can bring about.
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Error::new(ErrorKind::Internal, message)
    }

    /// A wrong command line, configuration or argument.
    pub fn usage(message: impl Into<Cow<'static, str>>) -> Self {
        Error::new(ErrorKind::Usage, message)
    }

    /// A damaged backup or a broken chain.
    pub fn damaged(message: impl Into<Cow<'static, str>>) -> Self {
        Error::new(ErrorKind::Damaged, message)
    }

    /// The answer to a cancelled [`Context`](crate::Context).
    #[must_use]
    pub fn interrupted() -> Self {
        Error::new(ErrorKind::Interrupted, "interrupted")
    }

    /// Says what to do next; replaces the remedy of the kind.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<Cow<'static, str>>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Keeps the server's own code and text as the cause.
    #[must_use]
    pub fn with_server(self, server: ServerError) -> Self {
        self.with_source(server)
    }

    /// Puts what was being done in front: a new error of the same kind and remedy whose cause is
    /// this one.
    #[must_use]
    pub fn context(self, message: impl Into<Cow<'static, str>>) -> Self {
        Error::new(self.kind(), message).with_source(self)
    }

    /// The same error under another kind, for a caller that knows better what it means.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What to do next: the most specific remedy of the chain, else that of the kind.
    #[must_use]
    pub fn remedy(&self) -> &str {
        let mut error = Some(self);
        while let Some(e) = error {
            if let Some(remedy) = &e.0.remedy {
                return remedy;
            }
            error = e.0.source.as_deref().and_then(|s| s.downcast_ref::<Error>());
        }
        self.0.kind.default_remedy()
    }

    /// The server's answer, where one is among the causes.
    #[must_use]
    pub fn server(&self) -> Option<&ServerError> {
        self.causes().find_map(|cause| cause.downcast_ref())
    }

    /// The causes, nearest first, without this error itself.
    pub fn causes(&self) -> impl Iterator<Item = &(dyn StdError + 'static)> {
        std::iter::successors(StdError::source(self), |&cause| cause.source())
    }

    /// What failed, on what and why, without the remedy.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.0.message.clone().into_owned();
        for cause in self.causes() {
            let cause = cause.to_string();
            // Causes from other crates often quote their own source; do not say it twice.
            if !cause.is_empty() && !text.ends_with(&cause) {
                text.push_str(": ");
                text.push_str(cause.trim_end_matches('.'));
            }
        }
        text
    }

    /// The paragraph for a person: what failed, on what, why, and what to do next.
    #[must_use]
    pub fn report(&self) -> String {
        format!("{}. What to do: {}.", self.chain(), self.remedy().trim_end_matches('.'))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.report())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|s| s as &(dyn StdError + 'static))
    }
}

/// Adds what was being done to a failed `Result`.
pub trait ResultExt<T> {
    /// See [`Error::context`].
    ///
    /// # Errors
    /// The error of `self`, with `message` in front.
    fn context<M: Into<Cow<'static, str>>>(self, message: impl FnOnce() -> M) -> Result<T>;
}

impl<T> ResultExt<T> for Result<T> {
    fn context<M: Into<Cow<'static, str>>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|e| e.context(message()))
    }
}

/// A remedy, and after it to run the command again, which `again` says better; where the remedy asks for that too,
/// it is said once.
#[must_use]
pub fn and_again(remedy: &str, again: &str) -> String {
    let remedy = remedy.trim_end_matches('.');
    let said = ["run the command again", "try again"].iter().find_map(|words| {
        let (before, after) = remedy.split_once(words)?;
        // More may belong to it, such as a flag.
        (after.is_empty() || after.starts_with(';')).then_some((before, after))
    });
    let (before, after) = said.unwrap_or((remedy, ""));
    let before = match said {
        Some(_) => ["then", "and"].iter().fold(before.trim_end(), |text, word| {
            text.strip_suffix(word).unwrap_or(text).trim_end().trim_end_matches([',', ';'])
        }),
        None => before,
    };
    let first: Vec<&str> = [before, after.trim_start_matches([';', ' '])]
        .into_iter()
        .filter(|t| !t.is_empty())
        .collect();
    match first.is_empty() {
        true => again.to_owned(),
        false => format!("{}; then {again}", first.join("; ")),
    }
}

/// Turns an I/O failure into an [`Error`], choosing the kind by the operating system's code.
///
/// `fallback` is the kind where the code says nothing special: [`ErrorKind::Store`] for a
/// repository, [`ErrorKind::Target`] for a restore directory, and so on.
pub fn io_error(
    error: std::io::Error,
    fallback: ErrorKind,
    message: impl Into<Cow<'static, str>>,
) -> Error {
    use std::io::ErrorKind as Io;
    let (kind, remedy) = match error.kind() {
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => (ErrorKind::Space, None),
        Io::PermissionDenied => {
            (fallback, Some("give the user that runs holdfast the right to it, or run as another"))
        }
        Io::ReadOnlyFilesystem => (fallback, Some("mount the file system read-write")),
        Io::NotADirectory => (fallback, Some("name a directory, not a file")),
        _ => (fallback, None),
    };
    let result = Error::new(kind, message).with_source(error);
    match remedy {
        Some(remedy) => result.with_remedy(remedy),
        None => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn to_run_a_command_again_is_said_once() {
        for (remedy, said) in [
            ("run the command again", "AGAIN"),
            (
                "free space or choose another place, then run the command again",
                "free space or choose another place; then AGAIN",
            ),
            (
                "mount it and run the command again; what was stored is whole",
                "mount it; what was stored is whole; then AGAIN",
            ),
            ("run the command again; it was a deadlock", "it was a deadlock; then AGAIN"),
            (
                "wait until the other run ends, then try again.",
                "wait until the other run ends; then AGAIN",
            ),
            ("run the command again with -v", "run the command again with -v; then AGAIN"),
            ("grant it", "grant it; then AGAIN"),
            ("", "AGAIN"),
        ] {
            assert_eq!(and_again(remedy, "AGAIN"), said);
        }
    }

    #[test]
    fn exit_codes_are_distinct_and_in_order() {
        let codes: Vec<u8> = ErrorKind::ALL.iter().map(|k| k.exit_code()).collect();
        assert_eq!(codes, (1..=14).collect::<Vec<u8>>());
    }

    #[test]
    fn the_report_names_every_cause_once_and_keeps_the_inner_remedy() {
        let server =
            ServerError { code: 1045, state: "28000".into(), message: "Access denied".into() };
        let e = Error::new(ErrorKind::Connect, "cannot sign in to db:3306")
            .with_server(server.clone())
            .with_remedy("check the password")
            .context("backup of cluster c1 failed");
        assert_eq!(e.kind(), ErrorKind::Connect);
        assert_eq!(e.server(), Some(&server));
        assert_eq!(
            e.report(),
            "backup of cluster c1 failed: cannot sign in to db:3306: the server said: ERROR 1045 \
             (28000): Access denied. What to do: check the password."
        );
        assert_eq!(e.to_string(), "backup of cluster c1 failed");
    }

    #[test]
    fn a_full_disk_is_a_space_error_whatever_the_fallback() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert_eq!(io_error(full, ErrorKind::Store, "x").kind(), ErrorKind::Space);
    }
}
