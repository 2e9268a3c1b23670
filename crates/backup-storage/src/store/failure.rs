//! What the errors of object stores mean: which pass, and what a person can do about the others.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use backup_core::{Error, ErrorKind, io_error};
use object_store::client::{HttpError, HttpErrorKind};

use super::s3::Answer;
use crate::key::Key;

/// What a store is made of; the same error means different things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Medium {
    /// Whatever [`Store::new`](super::Store::new) was given.
    Any,
    /// A disk of this machine.
    Disk,
    /// A directory on an NFS server.
    Nfs,
    /// An object store.
    Bucket,
}

const EIO: i32 = 5;

const NFS_REMEDY: &str = "see that the NFS server runs, exports the directory and can be reached \
                          (`dmesg`, `showmount -e SERVER`), mount it again where needed, and run the \
                          command again; what was stored before is whole";

/// An error and all that brought it about. [`io::Error`] hides the error it wraps from
/// [`StdError::source`]; this does not.
fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&e| {
        let wrapped = e.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped.map(|inner| inner as &(dyn StdError + 'static)).or_else(|| e.source())
    })
}

fn find<T: StdError + 'static>(error: &object_store::Error) -> Option<&T> {
    chain(error).find_map(|e| e.downcast_ref())
}

/// What the server of an object store answered.
pub(super) fn answer(error: &object_store::Error) -> Option<&Answer> {
    find(error)
}

/// The I/O error nearest to the root.
fn io_cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    chain(error).filter_map(|e| e.downcast_ref::<io::Error>()).last()
}

/// Whether the store does not allow it: a lock, or a missing permission.
pub(super) fn is_refused(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::PermissionDenied { .. })
        || answer(error).is_some_and(|answer| answer.is_locked() || answer.is_denied())
        || io_cause(error).is_some_and(|e| e.kind() == io::ErrorKind::PermissionDenied)
}

/// Whether a medium could not give back what it took.
pub(super) fn is_lost(error: &object_store::Error, medium: Medium) -> bool {
    matches!(medium, Medium::Any | Medium::Disk) && raw(error) == Some(EIO)
}

fn raw(error: &(dyn StdError + 'static)) -> Option<i32> {
    io_cause(error).and_then(io::Error::raw_os_error)
}

/// Whether a soft mount answered for its server, which may come back.
pub(super) fn is_of_a_mount(error: &(dyn StdError + 'static)) -> bool {
    raw(error) == Some(EIO)
}

/// Whether the same call may succeed a little later.
pub(super) fn is_transient(error: &object_store::Error, medium: Medium) -> bool {
    use io::ErrorKind as Io;
    if let Some(answer) = answer(error) {
        return answer.is_transient();
    }
    if is_refused_by_tls(error) || is_unknown_host(error) {
        return false;
    }
    if let Some(http) = find::<HttpError>(error) {
        return http.kind() != HttpErrorKind::Decode;
    }
    (medium == Medium::Nfs && is_of_a_mount(error))
        || io_cause(error).is_some_and(|e| {
            matches!(
                e.kind(),
                Io::Interrupted
                    | Io::WouldBlock
                    | Io::TimedOut
                    | Io::ConnectionReset
                    | Io::ConnectionAborted
                    | Io::ConnectionRefused
                    | Io::NotConnected
                    | Io::BrokenPipe
                    | Io::NetworkDown
                    | Io::NetworkUnreachable
                    | Io::HostUnreachable
                    | Io::StaleNetworkFileHandle
            )
        })
}

/// Whether no connection came about.
pub(super) fn is_unreachable(error: &object_store::Error) -> bool {
    find::<HttpError>(error).is_some_and(|e| e.kind() == HttpErrorKind::Connect)
}

fn is_refused_by_tls(error: &object_store::Error) -> bool {
    // What rustls finds wrong comes as invalid data.
    is_unreachable(error) && io_cause(error).is_some_and(|e| e.kind() == io::ErrorKind::InvalidData)
}

fn is_unknown_host(error: &object_store::Error) -> bool {
    // The text is all that the resolver of the standard library tells.
    is_unreachable(error)
        && chain(error).any(|e| e.to_string().ends_with("Name or service not known"))
}

/// How long the store asks us to wait.
pub(super) fn retry_after(error: &object_store::Error) -> Duration {
    answer(error).and_then(|answer| answer.retry_after).unwrap_or_default()
}

/// The error that callers see; `message` says what failed, on what, and where.
pub(super) fn failure(error: object_store::Error, message: String, medium: Medium) -> Error {
    if let Some(answer) = answer(&error) {
        let (kind, remedy) = answer.judge();
        return Error::new(kind, message).with_remedy(remedy).with_source(answer.clone());
    }
    if find::<Error>(&error).is_some() {
        return with_inner(error, message);
    }
    if let Some(http) = find::<HttpError>(&error) {
        return unanswered(&error, http, message);
    }
    let Some(cause) = io_cause(&error) else {
        return Error::new(ErrorKind::Store, message).with_source(error);
    };
    // The same cause without the layers in between, which say "Unable to copy data to file".
    let plain = cause.raw_os_error().map(io::Error::from_raw_os_error);
    let judged = io_error(io::Error::from(cause.kind()), ErrorKind::Store, message.clone());
    let server = medium == Medium::Nfs && is_transient(&error, medium);
    let remedy = if server { NFS_REMEDY.to_owned() } else { judged.remedy().to_owned() };
    let result = Error::new(judged.kind(), message).with_remedy(remedy);
    match plain {
        Some(plain) => result.with_source(plain),
        None => result.with_source(error),
    }
}

/// An error of ours that came through the layers of the object store.
fn with_inner(error: object_store::Error, message: String) -> Error {
    match error {
        object_store::Error::Generic { store, source } => match source.downcast::<Error>() {
            Ok(inner) => inner.context(message),
            Err(source) => Error::new(ErrorKind::Store, message)
                .with_source(object_store::Error::Generic { store, source }),
        },
        other => Error::new(ErrorKind::Store, message).with_source(other),
    }
}

/// No answer came.
fn unanswered(error: &object_store::Error, http: &HttpError, message: String) -> Error {
    let remedy = if is_refused_by_tls(error) {
        "if the store's certificate is of an authority of your own, name its file with ca=FILE in the \
         URL; check that the endpoint's host is the one in the certificate, and that the port speaks \
         TLS (http:// in the endpoint for one that does not)"
    } else if is_unknown_host(error) {
        "correct the endpoint in the URL; for a bucket in the host's name that cannot be resolved, add \
         path-style=true"
    } else {
        match http.kind() {
            HttpErrorKind::Connect => {
                "check the endpoint's host and port, the firewall and the proxy, and that the store runs"
            }
            HttpErrorKind::Timeout => {
                "the store or the network stands still; check both, then run the command again"
            }
            _ => {
                "the connection broke; check the network and the store, then run the command again"
            }
        }
    };
    // The innermost cause says it all: "Connection refused", "invalid peer certificate".
    let cause = chain(http).last().map_or_else(|| http.to_string(), ToString::to_string);
    Error::new(ErrorKind::Store, message).with_remedy(remedy).with_source(cause)
}

/// Somebody else writes what only we can be writing.
pub(crate) fn taken(key: &Key) -> Error {
    Error::new(
        ErrorKind::Store,
        format!("{key} exists already, though this backup has only begun to write it"),
    )
    .with_remedy("see that nothing else writes below this directory, then run the backup again")
}
