//! A `mysql_async` connection for [`ConnectOptions`].

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use backup_core::{Error, ErrorKind, Result, Secret};
use futures::FutureExt;
use mysql_async::{ClientIdentity, Conn, DriverError, IoError, Opts, OptsBuilder, SslOpts};

use super::{ConnectOptions, Endpoint, SslMode, connect_io_error, sql_error, timed_out, tls};
use crate::wire;

/// The largest packet of the protocol.
const MAX_PACKET: usize = 1 << 30;
/// After so long without a byte the kernel asks whether the peer is still there.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(30);
/// The server's default of wait_timeout; given so that `mysql_async` does not ask for it.
const WAIT_TIMEOUT: usize = 28_800;

/// What every session begins with, whatever the server's configuration or `init_connect` say.
///
/// A limit on the rows of a `SELECT` would make lists, and tables, silently shorter; without
/// autocommit what was loaded is gone with the connection; an `sql_mode` would change what literals and
/// operators mean; safe updates refuse a `DELETE` by anything but a key; the others end statements or idle
/// connections of a long backup. The comments are for
/// one flavor each.
pub(crate) const SESSION: &str = "SET SESSION sql_select_limit = 18446744073709551615, \
    sql_mode = '', autocommit = 1, completion_type = 0, sql_big_selects = 1, sql_safe_updates = 0, \
    wait_timeout = 2147483 \
    /*!80000 , max_execution_time = 0 */ /*M!100304 , max_statement_time = 0, \
    idle_transaction_timeout = 0, idle_readonly_transaction_timeout = 0, \
    system_versioning_asof = DEFAULT */";

/// For sessions that write: a server may be set to begin transactions that only read.
pub(crate) const READ_WRITE: &str = "SET SESSION TRANSACTION READ WRITE";

/// `ER_ACCESS_DENIED_ERROR`: unknown account or wrong password.
const ACCESS_DENIED: u16 = 1045;

/// Connects and signs in.
///
/// # Errors
/// [`ErrorKind::Connect`], with the address: the name is unknown, nothing listens there, no answer
/// within [`ConnectOptions::connect_timeout`], the server refuses the account (its own code and
/// text are in [`Error::server`]), or TLS fails. [`ErrorKind::Usage`] if a certificate or key
/// cannot be read.
pub async fn open(options: &ConnectOptions) -> Result<Conn> {
    let conn = tokio::time::timeout(options.connect_timeout, connect(options))
        .await
        .unwrap_or_else(|_| Err(timed_out(options.connect_timeout, options.cannot_connect())))?;
    options.opened.add(conn.id());
    Ok(conn)
}

async fn connect(options: &ConnectOptions) -> Result<Conn> {
    prove(options).await?;
    let mut opts = OptsBuilder::default()
        .user(Some(&options.user))
        .pass(options.password.as_ref().map(Secret::expose))
        // Otherwise it asks the server for its socket, and quietly reconnects over that: wrong
        // through a tunnel, and it would throw away a verified TLS connection.
        .prefer_socket(false)
        .max_allowed_packet(Some(MAX_PACKET))
        .wait_timeout(Some(WAIT_TIMEOUT))
        .init(vec![SESSION, READ_WRITE])
        .enable_cleartext_plugin(options.may_send_cleartext())
        .connect_attributes(options.attributes.clone().into_iter().collect::<HashMap<_, _>>());
    let mut tls = None;
    match &options.endpoint {
        Endpoint::Socket(path) => {
            let path = path.to_str().ok_or_else(|| {
                Error::usage(format!("the socket's path {} is not UTF-8", path.display()))
            })?;
            opts = opts.socket(Some(path));
        }
        Endpoint::Tcp { host, port } => {
            opts = opts
                .ip_or_hostname(host)
                .tcp_port(*port)
                .resolved_ips(Some(resolve(options, host, *port).await?))
                .tcp_keepalive(Some(KEEPALIVE));
            if options.tls.mode != SslMode::Disabled {
                tls::ensure_crypto_provider();
                // Reads the files once itself, for errors that name them.
                tls::client_config(&options.tls)?;
                tls = Some(ssl_opts(options));
            }
        }
    }
    let Some(tls) = tls else { return sign_in(options, opts.into()).await };
    match attempt(options, opts.clone().ssl_opts(Some(tls)).into()).await {
        Err(mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer))
            if options.tls.mode == SslMode::Preferred =>
        {
            sign_in(options, opts.into()).await
        }
        result => result.map_err(|e| connect_error(options, e)),
    }
}

async fn sign_in(options: &ConnectOptions, opts: Opts) -> Result<Conn> {
    attempt(options, opts).await.map_err(|e| connect_error(options, e))
}

/// A wrong password is one failed sign-in, as servers lock accounts after some of them. But a right one may be
/// refused: `mysql_common` 0.37 takes a last byte 0 off the nonce of every plugin, and those of MariaDB's
/// `client_ed25519` and `parsec` are 32 random bytes, of which the last is 0 once in 256 times. So the first
/// sign-in with a password is one of [`wire`], which takes nonces as they are; with one that was right there,
/// a sign-in that is refused, or that `mysql_async` gives up (parsec with such a nonce), is tried once more.
async fn attempt(options: &ConnectOptions, opts: Opts) -> Result<Conn, mysql_async::Error> {
    let lost = |error: &mysql_async::Error| match error {
        mysql_async::Error::Server(e) => e.code == ACCESS_DENIED,
        mysql_async::Error::Driver(DriverError::UnexpectedPacket { .. }) => true,
        _ => false,
    };
    match once(opts.clone()).await {
        Err(e) if lost(&e) && options.proven.holds_for(options) => once(opts).await,
        result => result,
    }
}

/// Fails where the server refuses the password. What else goes wrong is left to the sign-in that follows.
async fn prove(options: &ConnectOptions) -> Result<()> {
    let has_password = options.password.as_ref().is_some_and(|p| !p.expose().is_empty());
    if !has_password || options.proven.holds_for(options) {
        return Ok(());
    }
    match wire::Connection::connect(options).await {
        Ok(connection) => {
            connection.close().await;
            options.proven.remember(options);
            Ok(())
        }
        Err(e) if e.server().is_some_and(|said| said.code == ACCESS_DENIED) => Err(e),
        Err(_) => Ok(()),
    }
}

/// `mysql_async` 0.37 panics on some answers that no server should give, but anybody may (a version
/// number above 65535, an empty packet where a key is due), and on parsec without a password: that
/// is an error like any other.
async fn once(opts: Opts) -> Result<Conn, mysql_async::Error> {
    AssertUnwindSafe(Conn::new(opts)).catch_unwind().await.unwrap_or_else(|_| {
        Err(mysql_async::Error::Driver(DriverError::UnexpectedPacket { payload: Vec::new() }))
    })
}

fn connect_error(options: &ConnectOptions, error: mysql_async::Error) -> Error {
    let what = options.cannot_connect();
    match error {
        mysql_async::Error::Io(IoError::Io(e)) => connect_io_error(e, what),
        mysql_async::Error::Driver(DriverError::UnexpectedPacket { .. }) => {
            Error::new(ErrorKind::Connect, what)
                .with_source("the server's answer to the sign-in is none that the client knows")
                .with_remedy(
                    "check that the address is that of a MySQL or MariaDB server, and the \
                     password; of an account with several plugins, the first one's counts",
                )
        }
        // Whatever the code: no connection came about.
        e => match sql_error(e, what) {
            e if e.kind() == ErrorKind::Usage => e,
            e => e.with_kind(ErrorKind::Connect),
        },
    }
}

/// The addresses of `host`, looked up here so that an unknown name is an error of its own.
pub(crate) async fn resolve(
    options: &ConnectOptions,
    host: &str,
    port: u16,
) -> Result<Vec<IpAddr>> {
    let unknown = |e: io::Error| {
        Error::new(ErrorKind::Connect, options.cannot_connect())
            .with_source(e)
            .with_remedy(format!("check the host name `{host}`, or use the server's address"))
    };
    let found: Vec<IpAddr> =
        tokio::net::lookup_host((host, port)).await.map_err(unknown)?.map(|a| a.ip()).collect();
    if found.is_empty() {
        return Err(unknown(io::Error::other("the name has no address")));
    }
    Ok(found)
}

fn ssl_opts(options: &ConnectOptions) -> SslOpts {
    let tls = &options.tls;
    let ssl = SslOpts::default()
        .with_danger_accept_invalid_certs(tls.mode < SslMode::VerifyCa)
        .with_danger_skip_domain_validation(tls.mode < SslMode::VerifyIdentity)
        .with_client_identity(
            tls.cert
                .as_ref()
                .zip(tls.key.as_ref())
                .map(|(c, k)| ClientIdentity::new(c.clone().into(), k.clone().into())),
        );
    let ssl = match &tls.ca {
        Some(ca) => ssl.with_root_certs(vec![ca.clone().into()]).with_disable_built_in_roots(true),
        None => ssl,
    };
    if tls.mode == SslMode::VerifyCa {
        // mysql_async 0.37 means to let a wrong name pass here, but looks for the word
        // "NotValidForName" in the error's text, where rustls has since put the name that was
        // asked for. rustls checks the chain first and the name last, so asking for just that name
        // gives the text only for a chain that holds. The servers ignore the name (SNI).
        return ssl.with_danger_tls_hostname_override(Some("NotValidForName"));
    }
    ssl
}
