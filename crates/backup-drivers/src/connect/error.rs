//! From what a server or a client library says to the kinds of error that a caller can act on.

use std::borrow::Cow;
use std::io;
use std::time::Duration;

use crate::wire::Compression;
use backup_core::{Error, ErrorKind, ServerError};
use mysql_async::{DriverError, IoError};

/// The kind of a server's error number, the same for MySQL and MariaDB except where noted.
///
/// Numbers that say nothing about connection, privilege or space are [`ErrorKind::Source`]; code
/// that works on a restore target turns those into [`ErrorKind::Target`] with
/// [`Error::with_kind`].
#[must_use]
pub fn kind_of_server_error(code: u16) -> ErrorKind {
    match code {
        // Too many connections, bad handshake, shutdown, aborted, blocked or foreign host.
        1040 | 1043 | 1053 | 1080 | 1129 | 1130 | 1152 | 1158..=1161 | 1184 | 1203 | 1226 => {
            ErrorKind::Connect
        }
        // Access denied to the account, its password or plugin; expired; locked; TLS required;
        // MariaDB 4151: account locked.
        1045 | 1251 | 1275 | 1524 | 1698 | 1820 | 1862 | 2059 | 2061 | 3118 | 3159 | 3955
        | 4151 => ErrorKind::Connect,
        // Gone away, lost, killed (MariaDB 1927), disconnected for idling.
        1927 | 2002 | 2003 | 2005 | 2006 | 2013 | 2055 | 3169 | 4031 => ErrorKind::Connect,
        // A privilege on a database, table, column, routine, or globally; role not granted.
        1044
        | 1095
        | 1142
        | 1143
        | 1211
        | 1227
        | 1370
        | 1410
        | 1419
        | 3530
        | 3879
        | 3955..=3956 => ErrorKind::Privilege,
        // Disk full, table full, temporary tables full, no memory for the tablespace, no room for a
        // temporary file.
        3 | 1021 | 1114 | 1713 | 1878 | 3675 => ErrorKind::Space,
        _ => ErrorKind::Source,
    }
}

/// Whether the text of an error whose number says nothing of it tells that a disk is full.
fn is_full(said: &ServerError) -> bool {
    let text = &said.message;
    let number = || text.split(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty());
    match said.code {
        // Files that cannot be created, renamed or written.
        1 | 1004..=1006 | 1025 | 1026 => {
            // The last one is what InnoDB's DB_OUT_OF_FILE_SPACE becomes.
            ["No space left on device", "rrno: 28 ", "rrcode: 28 ", "rrno: 135 "]
                .iter()
                .any(|t| text.contains(t))
        }
        // What InnoDB names so is an I/O error, of a file that an index is built with.
        1030 if text.contains("'InnoDB error'") => number() == Some("100"),
        1030 => number() == Some("28"),
        // A temporary file of InnoDB (MariaDB).
        1296 => number() == Some("59") && text.contains("InnoDB"),
        _ => false,
    }
}

/// Whether a server refused to sign us in, so that it does the next time too; more tries may even lock the
/// account.
pub(crate) fn is_refused(error: &Error) -> bool {
    let refused = |code| {
        // The host; the account, its password or plugin; expired; blocked; locked; TLS required.
        matches!(
            code,
            1045 | 1129
                | 1130
                | 1251
                | 1275
                | 1524
                | 1698
                | 1820
                | 1862
                | 2059
                | 2061
                | 3118
                | 3159
                | 3955
                | 4150
                | 4151
        )
    };
    error.kind() == ErrorKind::Connect && error.server().is_some_and(|said| refused(said.code))
}

/// What to do about a server's error number, where there is more to say than for its kind.
fn remedy(code: u16, kind: ErrorKind) -> Option<&'static str> {
    Some(match code {
        1040 | 1203 => "raise max_connections (or the account's limit), or use fewer --threads",
        1226 => {
            "the account has a limit of its own: ALTER USER … WITH MAX_USER_CONNECTIONS 0 MAX_QUERIES_PER_HOUR 0 \
             MAX_UPDATES_PER_HOUR 0 MAX_CONNECTIONS_PER_HOUR 0"
        }
        1045 => {
            "check user, password and the host the account is for; an account that requires TLS \
             needs ssl-mode=required over TCP"
        }
        1129 => "run FLUSH HOSTS (or TRUNCATE performance_schema.host_cache) on the server",
        1130 => "create the account for the host that holdfast connects from",
        1698 => {
            "the account signs in by its operating-system user (auth_socket, unix_socket): run \
             holdfast as that user over the socket, or use an account with a password"
        }
        1053 => "wait until the server is up again, then run the command again",
        1142 | 1143 | 1044 | 1227 | 1370 => {
            "grant the privilege that the server names; `holdfast check` prints the statement"
        }
        1148 | 3948 | 4166 => "run SET GLOBAL local_infile = ON on the server",
        1153 | 1301 => "raise max_allowed_packet on the server",
        1197 | 1705 => {
            "raise max_binlog_cache_size (for tables without transactions max_binlog_stmt_cache_size) with SET GLOBAL at \
             the server, or keep the restore out of its binary log with --binlog off"
        }
        1461 => "raise max_prepared_stmt_count with SET GLOBAL at the server",
        1205 | 3572 => {
            "find the session that holds the lock in the process list, or raise the lock time-out"
        }
        1213 => "run the command again; the server chose this transaction to end a deadlock",
        1290 | 1836 => "turn off the server option that the message names",
        1317 | 1927 | 3169 => {
            "somebody stopped it with KILL; find out who, then run the command again"
        }
        1 | 3 | 1004..=1006 | 1025 | 1026 | 1030 | 1296 | 1878 if kind == ErrorKind::Space => {
            "free space at the server: what is full may be its directory for temporary files (tmpdir, \
             innodb_tmpdir) instead of that of its data; its error log says which"
        }
        1114 => {
            "free space at the server; a table of MEMORY is full at the max_heap_table_size of the session that made it"
        }
        1820 | 1862 => "give the account a new password with ALTER USER",
        1251 | 1524 | 2059 | 2061 => {
            "use an account with caching_sha2_password, mysql_native_password, ed25519 or parsec"
        }
        1969 | 3024 => "raise max_statement_time (MariaDB) or max_execution_time (MySQL)",
        3118 | 4151 => "unlock the account with ALTER USER … ACCOUNT UNLOCK",
        3159 => "the server takes secure connections only: use ssl-mode=required, or the socket",
        _ => return None,
    })
}

/// What to do where a server does not send a binlog, for its gtid_mode was another one when it wrote that.
const BOTH_KINDS: &str = "gtid_mode was another when the server wrote that binlog, and as it is set now it sends none of those: run SET \
                          GLOBAL gtid_mode = OFF_PERMISSIVE (from ON: ON_PERMISSIVE) there while they are archived, or begin behind \
                          them (--from backup, --from now)";

/// An error for what a server answered; `what` says what was being done.
///
/// The kind comes from [`kind_of_server_error`]; the server's code, state and text stay available
/// through [`Error::server`].
pub fn server_error(server: ServerError, what: impl Into<Cow<'static, str>>) -> Error {
    let kind = match is_full(&server) {
        true => ErrorKind::Space,
        false => kind_of_server_error(server.code),
    };
    let error = Error::new(kind, what);
    let of_another_mode = server.code == 1236 && server.message.contains("GTID_MODE");
    let remedy = if of_another_mode { Some(BOTH_KINDS) } else { remedy(server.code, kind) };
    let error = match remedy {
        Some(remedy) => error.with_remedy(remedy),
        None => error,
    };
    error.with_server(server)
}

/// An error for what `mysql_async` reports; `what` says what was being done.
///
/// Server errors go through [`server_error`]; a lost connection is [`ErrorKind::Connect`]; what
/// only a programming error can cause is [`ErrorKind::Internal`].
pub fn sql_error(error: mysql_async::Error, what: impl Into<Cow<'static, str>>) -> Error {
    use mysql_async::Error as Sql;
    match error {
        Sql::Server(e) => {
            let server = ServerError { code: e.code, state: e.state, message: e.message };
            server_error(server, what)
        }
        Sql::Io(IoError::Io(e)) => io_failure(e, what),
        Sql::Io(IoError::Tls(e)) => tls_failure(e, what),
        Sql::Driver(DriverError::ConnectionClosed | DriverError::PoolDisconnected) => lost(what),
        Sql::Driver(DriverError::PacketTooLarge) => Error::new(ErrorKind::Source, what)
            .with_source("a packet is larger than 1 GiB, the most that the protocol allows"),
        Sql::Driver(DriverError::NoClientSslFlagFromServer) => no_tls_offered(what),
        Sql::Driver(DriverError::CleartextPluginDisabled) => cleartext_refused(what),
        Sql::Driver(
            e @ (DriverError::UnknownAuthPlugin { .. } | DriverError::MysqlOldPasswordDisabled),
        ) => Error::new(ErrorKind::Connect, what)
            .with_source(e)
            .with_remedy(remedy(2059, ErrorKind::Connect).expect("2059 is in the table above")),
        Sql::Driver(e @ DriverError::NoKeyFound) => Error::usage(what).with_source(e),
        // The payload is the server's raw bytes; the Display of the variant leaves it out.
        Sql::Driver(e @ (DriverError::UnexpectedPacket { .. } | DriverError::PacketOutOfOrder)) => {
            protocol(e.to_string(), what)
        }
        Sql::Driver(e) => Error::new(ErrorKind::Internal, what).with_source(e.to_string()),
        e => Error::new(ErrorKind::Internal, what).with_source(e),
    }
}

/// The connection broke while it was in use.
pub(crate) fn lost(what: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Connect, what)
        .with_source("the server closed the connection")
        .with_remedy(
            "look into the server's error log: it stopped, was restarted, killed the session or \
             ran into net_write_timeout",
        )
}

/// The peer sent bytes that the protocol does not allow.
pub(crate) fn protocol(problem: impl Into<String>, what: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Connect, what)
        .with_source(format!("the server broke the protocol: {}", problem.into()))
        .with_remedy("check that the address is that of a MySQL or MariaDB server")
}

/// Nothing came within `limit`.
pub(crate) fn timed_out(limit: Duration, what: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Connect, what)
        .with_source(format!("no answer within {} s", limit.as_secs_f64()))
        .with_remedy("check the network between here and the server, and the server's load")
}

/// TLS was asked for, and the server has none.
pub(crate) fn no_tls_offered(what: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Connect, what)
        .with_source("the server offers no TLS")
        .with_remedy("set up TLS on the server, or use ssl-mode=preferred")
}

/// Compression was asked for, and the server has none of that kind.
pub(crate) fn no_compression_offered(
    compression: Compression,
    what: impl Into<Cow<'static, str>>,
) -> Error {
    let name = match compression {
        Compression::Zlib => "zlib",
        Compression::Zstd(_) => "zstd",
    };
    Error::new(ErrorKind::Connect, what)
        .with_source(format!("the server does not compress with {name}"))
        .with_remedy(
            "take compression= out of the URL, or name the other one (zlib, zstd); MySQL offers what \
             protocol_compression_algorithms says, MariaDB zlib",
        )
}

/// The server wants the password itself, on a connection where it must not be sent.
pub(crate) fn cleartext_refused(what: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Connect, what)
        .with_source("the account's plugin (mysql_clear_password) wants the password as it is")
        .with_remedy(
            "add enable-cleartext-plugin=on together with ssl-mode=required or stricter, or use \
             an account with another plugin",
        )
}

/// An I/O failure on an established connection.
pub(crate) fn io_failure(error: io::Error, what: impl Into<Cow<'static, str>>) -> Error {
    use io::ErrorKind as Io;
    match error.kind() {
        Io::UnexpectedEof | Io::ConnectionReset | Io::BrokenPipe | Io::ConnectionAborted => {
            lost(what)
        }
        // rustls reports its own errors through io::Error.
        _ if matches!(error.get_ref(), Some(e) if e.is::<tokio_rustls::rustls::Error>()) => {
            tls_failure(error, what)
        }
        _ => Error::new(ErrorKind::Connect, what).with_source(error),
    }
}

/// TLS failed: certificate, version, name.
pub(crate) fn tls_failure(
    error: impl std::error::Error + Send + Sync + 'static,
    what: impl Into<Cow<'static, str>>,
) -> Error {
    let text = error.to_string();
    let remedy = if text.contains("not valid for name") || text.contains("NotValidForName") {
        "connect by a name that the server's certificate carries, or use ssl-mode=verify-ca, which \
         does not compare names"
    } else if text.contains("UnknownIssuer") || text.contains("BadSignature") {
        "name the certificate of the authority that signed the server's with ssl-ca=FILE"
    } else if text.contains("CaUsedAsEndEntity") {
        "the server uses its authority's certificate as its own: issue it one of its own, or use \
         ssl-mode=required, which does not verify"
    } else if text.contains("expired") || text.contains("Expired") {
        "renew the server's certificate, or use ssl-mode=required, which does not verify"
    } else {
        "check ssl-mode, ssl-ca, ssl-cert and ssl-key against what the server is set up for; \
         ssl-mode=disabled does without TLS"
    };
    Error::new(ErrorKind::Connect, what).with_source(error).with_remedy(remedy)
}

/// An I/O failure while connecting; `what` names the address.
pub(crate) fn connect_io_error(error: io::Error, what: impl Into<Cow<'static, str>>) -> Error {
    use io::ErrorKind as Io;
    let remedy = match error.kind() {
        Io::ConnectionRefused => "check that the server runs and listens there",
        Io::NotFound => "check that the server runs, and where its socket is (its option `socket`)",
        Io::PermissionDenied => "let the user that runs holdfast into the socket's directory",
        Io::HostUnreachable | Io::NetworkUnreachable | Io::TimedOut => {
            "check the network and its firewalls between here and the server"
        }
        _ => return io_failure(error, what),
    };
    Error::new(ErrorKind::Connect, what).with_source(error).with_remedy(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: u16) -> ServerError {
        ServerError { code, state: "HY000".into(), message: "text".into() }
    }

    #[test]
    fn server_codes_have_the_kind_a_caller_acts_on() {
        for (code, kind) in [
            (1044, ErrorKind::Privilege),
            (1142, ErrorKind::Privilege),
            (1143, ErrorKind::Privilege),
            (1227, ErrorKind::Privilege),
            (1370, ErrorKind::Privilege),
            (1045, ErrorKind::Connect),
            (1698, ErrorKind::Connect),
            (2006, ErrorKind::Connect),
            (2013, ErrorKind::Connect),
            (1053, ErrorKind::Connect),
            (1205, ErrorKind::Source),
            (3572, ErrorKind::Source),
            (1317, ErrorKind::Source),
            (1064, ErrorKind::Source),
            (3, ErrorKind::Space),
            (1021, ErrorKind::Space),
            (1114, ErrorKind::Space),
        ] {
            assert_eq!(kind_of_server_error(code), kind, "{code}");
        }
    }

    #[test]
    fn a_full_disk_is_told_by_any_of_its_names() {
        let said = |code, message: &str| {
            let said = ServerError { code, state: "HY000".into(), message: message.into() };
            server_error(said, "x")
        };
        for (code, message) in [
            (1, "Can't create/write to file '/t/MLfd=4' (OS errno 28 - No space left on device)"),
            (3, "Error writing file '/t/MLfd=4' (OS errno 28 - No space left on device)"),
            (1005, r#"Can't create table `d`.`t` (errno: 28 "No space left on device")"#),
            (1005, r#"Can't create table `d`.`t` (errno: 135 "No more room in record file")"#),
            (1026, r#"Error writing file './d/t' (errno: 28 "Kein Platz")"#),
            (1030, "Got error 28 - 'No space left on device' from storage engine"),
            (1030, r#"Got error 28 "No space left on device" from storage engine InnoDB"#),
            (1030, "Got error 100 - 'InnoDB error' from storage engine"),
            (1296, "Got error 59 'Temp file write failure' from InnoDB"),
            (1878, "Temporary file write failure."),
        ] {
            let e = said(code, message);
            assert_eq!(e.kind(), ErrorKind::Space, "{message}");
            assert!(e.remedy().contains("innodb_tmpdir"), "{message}: {}", e.remedy());
        }
        for (code, message) in [
            (1005, r#"Can't create table `d`.`t` (errno: 150 "Foreign key constraint")"#),
            (
                1030,
                "Got error 194 \"Tablespace is missing for a table\" from storage engine InnoDB",
            ),
            (1030, "Got error 168 - 'Unknown (generic) error from engine' from storage engine"),
            (1062, "Duplicate entry 'errno: 28 No space left on device' for key 't.a'"),
            (1296, "Got error 59 'anything' from NDB"),
        ] {
            let e = said(code, message);
            assert_eq!(e.kind(), ErrorKind::Source, "{message}");
            assert!(!e.remedy().contains("tmpdir"), "{message}");
        }
    }

    #[test]
    fn the_servers_own_words_survive_with_what_was_done_in_front() {
        let e = server_error(server(1205), "cannot lock db.t");
        assert_eq!(e.server(), Some(&server(1205)));
        assert!(e.report().starts_with(
            "cannot lock db.t: the server said: ERROR 1205 (HY000): text. What to do: find"
        ));
        let e = sql_error(
            mysql_async::ServerError { code: 1227, message: "m".into(), state: "42000".into() }
                .into(),
            "x",
        );
        assert_eq!(e.kind(), ErrorKind::Privilege);
        assert_eq!(e.server().map(|s| s.code), Some(1227));
    }

    #[test]
    fn a_broken_connection_is_a_connection_error() {
        let broken = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(sql_error(broken.into(), "x").kind(), ErrorKind::Connect);
        let closed = mysql_async::Error::Driver(DriverError::ConnectionClosed);
        assert_eq!(sql_error(closed, "x").kind(), ErrorKind::Connect);
    }
}
