//! One connection description, for both clients: [`crate::wire`] and `mysql_async`.
//!
//! [`ConnectOptions`] comes from a URL (`mysql://user@host:3306/?ssl-mode=verify-ca&ssl-ca=ca.pem`),
//! from an option file in the syntax of the servers' own clients, or from both. [`open`] gives a
//! `mysql_async` connection for it, [`Session`] the same with errors that name the statement, and
//! [`crate::wire::Connection::connect`] the lean client for the hot paths.
//!
//! Nothing here reads the environment or looks for files on its own: who calls names them.

mod error;
mod open;
mod opened;
mod option_file;
mod options;
mod proven;
mod secrets;
mod session;
pub(crate) mod tls;
mod url;

pub use error::{kind_of_server_error, server_error, sql_error};
pub use open::open;
pub use opened::Opened;
pub use options::{ConnectOptions, Endpoint, SslMode, TlsOptions};
pub use proven::Proven;
pub use session::Session;
pub use url::without_password;

pub(crate) use error::{
    cleartext_refused, connect_io_error, io_failure, is_refused, lost, no_compression_offered,
    no_tls_offered, protocol, timed_out, tls_failure,
};
pub(crate) use open::{KEEPALIVE, READ_WRITE, SESSION, resolve};
pub(crate) use secrets::{applier_said, refused_statement, statement_error, without_secrets};
pub(crate) use session::cannot_run;
