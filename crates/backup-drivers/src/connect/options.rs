//! Where a server is, who we are to it, and how safe the line must be.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use backup_core::{Error, Result, Secret};

use super::opened::Opened;
use super::proven::Proven;
use super::{option_file, url};
use crate::wire::Compression;

/// The port of MySQL and MariaDB.
pub(super) const DEFAULT_PORT: u16 = 3306;
/// Long enough for a slow name server and a loaded host, short enough for a person.
const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// How to reach a server and sign in.
///
/// `Display` shows user and address, never the password: `backup@db1:3306`.
///
/// ```
/// use backup_drivers::connect::{ConnectOptions, SslMode};
/// let options = ConnectOptions::from_url("mysql://backup@db1/?ssl-mode=verify-identity")?;
/// assert_eq!(options.to_string(), "backup@db1:3306");
/// assert_eq!(options.tls.mode, SslMode::VerifyIdentity);
/// # Ok::<(), backup_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// The address.
    pub endpoint: Endpoint,
    /// The account's name.
    pub user: String,
    /// Its password; none for accounts without one.
    pub password: Option<Secret>,
    /// TLS; without effect on a socket, which never leaves the machine.
    pub tls: TlsOptions,
    /// The most time that connecting and signing in may take.
    pub connect_timeout: Duration,
    /// The most time to wait for the next bytes of an answer ([`crate::wire`] only); no limit if
    /// none, since a statement may rightly take hours. TCP keep-alive finds dead peers either way.
    pub read_timeout: Option<Duration>,
    /// How what goes over the connections of [`crate::wire`] is compressed: rows, data files of clones and binary
    /// logs. The server pays for it with processor time; it gains where the network is slow.
    pub compression: Option<Compression>,
    /// Lets the server have the password as it is (`mysql_clear_password`: PAM, LDAP), and only
    /// over TLS with [`SslMode::Required`] or stricter, or over a socket.
    pub enable_cleartext_plugin: bool,
    /// Connection attributes, as shown in `performance_schema.session_connect_attrs`.
    pub attributes: BTreeMap<String, String>,
    /// The password was part of the URL, where the process list and the shell's history show it:
    /// worth a warning.
    pub password_in_url: bool,
    /// The password that a server has taken; filled by [`open`](super::open).
    pub proven: Proven,
    /// The connections that were opened with these, by their numbers on the server.
    pub opened: Opened,
}

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A host name or address (IPv6 without brackets), and a port.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// A Unix socket.
    Socket(PathBuf),
}

/// TLS for connections over TCP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// Whether, and what is verified.
    pub mode: SslMode,
    /// PEM file with the certificates of the authorities to trust, instead of the public ones.
    pub ca: Option<PathBuf>,
    /// PEM file with our own certificate (and its chain).
    pub cert: Option<PathBuf>,
    /// PEM file with the key of our own certificate.
    pub key: Option<PathBuf>,
}

/// What TLS must give, with the names and meanings of the MySQL clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum SslMode {
    /// No TLS.
    Disabled,
    /// TLS where the server offers it; the certificate is not verified.
    #[default]
    Preferred,
    /// TLS or nothing; the certificate is not verified.
    Required,
    /// TLS, and a trusted authority signed the certificate.
    VerifyCa,
    /// TLS, a trusted authority signed the certificate, and it is for the host we connect to.
    VerifyIdentity,
}

impl FromStr for SslMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.to_ascii_lowercase().replace('_', "-").as_str() {
            "disabled" => Ok(SslMode::Disabled),
            "preferred" => Ok(SslMode::Preferred),
            "required" => Ok(SslMode::Required),
            "verify-ca" => Ok(SslMode::VerifyCa),
            "verify-identity" => Ok(SslMode::VerifyIdentity),
            _ => Err(Error::usage(format!("ssl-mode cannot be `{text}`"))
                .with_remedy("use disabled, preferred, required, verify-ca or verify-identity")),
        }
    }
}

impl ConnectOptions {
    /// Over TCP, with the defaults for everything else.
    pub fn tcp(host: impl Into<String>, port: u16, user: impl Into<String>) -> Self {
        ConnectOptions::new(Endpoint::Tcp { host: host.into(), port }, user.into())
    }

    /// Over a Unix socket, with the defaults for everything else.
    pub fn socket(path: impl Into<PathBuf>, user: impl Into<String>) -> Self {
        ConnectOptions::new(Endpoint::Socket(path.into()), user.into())
    }

    fn new(endpoint: Endpoint, user: String) -> Self {
        ConnectOptions {
            endpoint,
            user,
            password: None,
            tls: TlsOptions::default(),
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            read_timeout: None,
            compression: None,
            enable_cleartext_plugin: false,
            attributes: BTreeMap::from([
                ("program_name".into(), "holdfast".into()),
                ("_client_name".into(), "holdfast".into()),
                ("_client_version".into(), env!("CARGO_PKG_VERSION").into()),
            ]),
            password_in_url: false,
            proven: Proven::default(),
            opened: Opened::default(),
        }
    }

    /// Parses `mysql://user[:password]@host[:port]/?name=value&…` or
    /// `mysql://user@localhost/?socket=/path`.
    ///
    /// Names, passwords and values may be percent-encoded; an IPv6 address stands in brackets.
    /// Parameters: `socket`, `ssl-mode`, `ssl-ca`, `ssl-cert`, `ssl-key`, `connect-timeout` and
    /// `read-timeout` (seconds), `compression` (`zlib`, `zstd`, `zstd:LEVEL`), `enable-cleartext-plugin`.
    ///
    /// # Errors
    /// [`backup_core::ErrorKind::Usage`], with the part of the URL that is wrong; never with the
    /// password.
    pub fn from_url(url: &str) -> Result<Self> {
        ConnectOptions::resolve(Some(url), None, None)
    }

    /// Puts a URL, an option file and a password together; at least one of the first two.
    ///
    /// What the URL says wins over the file; `password` (from the environment or a prompt) wins
    /// over both.
    ///
    /// # Errors
    /// [`backup_core::ErrorKind::Usage`]: a URL or file that cannot be parsed, or that together
    /// name no user.
    pub fn resolve(
        url: Option<&str>,
        defaults_file: Option<&Path>,
        password: Option<Secret>,
    ) -> Result<Self> {
        let from_url = url.map(url::parse).transpose()?.unwrap_or_default();
        let from_file = defaults_file.map(option_file::read).transpose()?.unwrap_or_default();
        let password_in_url = from_url.password.is_some();
        let settings = from_url.or(from_file);

        let user = settings.user.clone().filter(|user| !user.is_empty()).ok_or_else(|| {
            Error::usage("no user to sign in with").with_remedy(
                "name one in the URL (mysql://USER@host/) or in the option file (user=…)",
            )
        })?;
        let mut options = ConnectOptions::new(settings.endpoint(), user);
        options.tls = settings.tls();
        if options.tls.cert.is_some() != options.tls.key.is_some() {
            return Err(Error::usage("ssl-cert and ssl-key go together, and one is missing"));
        }
        options.password = password.or(settings.password).filter(|p| !p.expose().is_empty());
        options.password_in_url = password_in_url;
        if let Some(timeout) = settings.connect_timeout {
            options.connect_timeout = timeout;
        }
        options.read_timeout = settings.read_timeout;
        options.compression = settings.compression;
        options.enable_cleartext_plugin = settings.enable_cleartext_plugin.unwrap_or(false);
        Ok(options)
    }

    /// The same with this password.
    #[must_use]
    pub fn with_password(mut self, password: Secret) -> Self {
        self.password = Some(password);
        self
    }

    /// The same with this TLS mode.
    #[must_use]
    pub fn with_ssl_mode(mut self, mode: SslMode) -> Self {
        self.tls.mode = mode;
        self
    }

    /// Whether the password may be sent as it is, given what TLS this connection is sure to have.
    pub(crate) fn may_send_cleartext(&self) -> bool {
        self.enable_cleartext_plugin
            && (matches!(self.endpoint, Endpoint::Socket(_)) || self.tls.mode >= SslMode::Required)
    }

    /// "cannot connect to USER@ADDRESS".
    pub(crate) fn cannot_connect(&self) -> String {
        format!("cannot connect to {self}")
    }
}

impl fmt::Display for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.user, self.endpoint)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Endpoint::Tcp { host, port } => write!(f, "{host}:{port}"),
            Endpoint::Socket(path) => write!(f, "localhost (socket {})", path.display()),
        }
    }
}

/// What a URL or an option file says; everything it leaves open is `None`.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    pub(super) host: Option<String>,
    pub(super) port: Option<u16>,
    pub(super) socket: Option<PathBuf>,
    pub(super) protocol: Option<Protocol>,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) ssl_mode: Option<SslMode>,
    pub(super) ssl_ca: Option<PathBuf>,
    pub(super) ssl_cert: Option<PathBuf>,
    pub(super) ssl_key: Option<PathBuf>,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) read_timeout: Option<Duration>,
    pub(super) compression: Option<Compression>,
    pub(super) enable_cleartext_plugin: Option<bool>,
}

/// `protocol=` of an option file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Socket,
}

impl Settings {
    /// `self`, with `fallback` for what it leaves open: name by name, except that a socket of the
    /// fallback must not meet a host or port of `self`, nor a host of it a socket of `self`.
    fn or(self, fallback: Settings) -> Settings {
        let names_local = self.host.as_deref().is_none_or(|host| host == "localhost");
        let (socket, protocol) = if names_local && self.port.is_none() && self.socket.is_none() {
            (fallback.socket, fallback.protocol)
        } else {
            (self.socket.clone(), self.protocol)
        };
        Settings {
            host: self.host.or(fallback.host.filter(|_| self.socket.is_none())),
            port: self.port.or(fallback.port),
            socket,
            protocol,
            user: self.user.or(fallback.user),
            password: self.password.or(fallback.password),
            ssl_mode: self.ssl_mode.or(fallback.ssl_mode),
            ssl_ca: self.ssl_ca.or(fallback.ssl_ca),
            ssl_cert: self.ssl_cert.or(fallback.ssl_cert),
            ssl_key: self.ssl_key.or(fallback.ssl_key),
            connect_timeout: self.connect_timeout.or(fallback.connect_timeout),
            read_timeout: self.read_timeout.or(fallback.read_timeout),
            compression: self.compression.or(fallback.compression),
            enable_cleartext_plugin: self
                .enable_cleartext_plugin
                .or(fallback.enable_cleartext_plugin),
        }
    }

    /// As the servers' own clients decide: a socket is for the local host, and `localhost` without
    /// a socket is reached over TCP.
    fn endpoint(&self) -> Endpoint {
        let local = self.host.as_deref().is_none_or(|host| host == "localhost");
        match &self.socket {
            Some(socket)
                if self.protocol == Some(Protocol::Socket)
                    || (local && self.protocol.is_none()) =>
            {
                Endpoint::Socket(socket.clone())
            }
            _ => Endpoint::Tcp {
                host: self.host.clone().unwrap_or_else(|| "localhost".into()),
                port: self.port.unwrap_or(DEFAULT_PORT),
            },
        }
    }

    /// A named authority without a mode means that it is to be used, as in the MySQL clients.
    fn tls(&self) -> TlsOptions {
        let implied = if self.ssl_ca.is_some() { SslMode::VerifyCa } else { SslMode::default() };
        TlsOptions {
            mode: self.ssl_mode.unwrap_or(implied),
            ca: self.ssl_ca.clone(),
            cert: self.ssl_cert.clone(),
            key: self.ssl_key.clone(),
        }
    }
}

/// `on`, `off`, `1`, `0`, `true`, `false`, as option files write them.
pub(super) fn parse_bool(name: &str, value: &str) -> Result<bool> {
    match value.to_ascii_lowercase().as_str() {
        "" | "1" | "on" | "true" | "yes" => Ok(true),
        "0" | "off" | "false" | "no" => Ok(false),
        _ => Err(Error::usage(format!("{name} is on or off, not `{value}`"))),
    }
}

/// Whole seconds, at least one.
pub(super) fn parse_seconds(name: &str, value: &str) -> Result<Duration> {
    match value.parse::<u32>() {
        Ok(seconds @ 1..) => Ok(Duration::from_secs(seconds.into())),
        _ => Err(Error::usage(format!("{name} is a number of seconds, not `{value}`"))),
    }
}

/// 1 to 65535.
pub(super) fn parse_port(value: &str) -> Result<u16> {
    match value.parse::<u16>() {
        Ok(port @ 1..) => Ok(port),
        // In a mistyped URL the password may stand here, so the value is not repeated.
        _ => Err(Error::usage("a port is a number from 1 to 65535")),
    }
}
