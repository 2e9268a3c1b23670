//! From the server's greeting to a session that takes commands.

use std::collections::HashMap;

use backup_core::Result;
use mysql_common::constants::{CapabilityFlags, UTF8MB4_GENERAL_CI};
use mysql_common::packets::{AuthPlugin, HandshakeResponse, SslRequest};
use mysql_common::proto::MySerialize;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::auth;
use super::channel::{Channel, MAX_PACKET, Stream};
use super::compress::Compression;
use super::message;
use crate::connect::{
    ConnectOptions, Endpoint, SslMode, connect_io_error, no_compression_offered, no_tls_offered,
    protocol, server_error, tls, tls_failure,
};

/// What the client can do; the session has what the server can do too.
const WANTED: CapabilityFlags = CapabilityFlags::CLIENT_LONG_PASSWORD
    .union(CapabilityFlags::CLIENT_LONG_FLAG)
    .union(CapabilityFlags::CLIENT_LOCAL_FILES)
    .union(CapabilityFlags::CLIENT_PROTOCOL_41)
    .union(CapabilityFlags::CLIENT_TRANSACTIONS)
    .union(CapabilityFlags::CLIENT_SECURE_CONNECTION)
    .union(CapabilityFlags::CLIENT_PLUGIN_AUTH)
    .union(CapabilityFlags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA)
    .union(CapabilityFlags::CLIENT_CONNECT_ATTRS)
    .union(CapabilityFlags::CLIENT_DEPRECATE_EOF);
/// What every server since 4.1 can do, and this client cannot do without.
const NEEDED: CapabilityFlags =
    CapabilityFlags::CLIENT_PROTOCOL_41.union(CapabilityFlags::CLIENT_SECURE_CONNECTION);

/// The server's first packet.
///
/// Parsed here and not by `mysql_common` 0.37, whose arithmetic on the nonce's length overflows on
/// some lengths that no server sends, but anybody may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) version: String,
    pub(super) connection_id: u32,
    pub(super) capabilities: CapabilityFlags,
    pub(super) plugin: Vec<u8>,
    pub(super) nonce: Vec<u8>,
}

impl Greeting {
    pub(super) fn parse(payload: &[u8]) -> Option<Greeting> {
        // 10, version NUL, id u32, nonce[8], 0, capabilities u16, charset u8, status u16,
        // capabilities u16, length of the nonce u8, 10 reserved, rest of the nonce NUL, plugin NUL
        let [10, rest @ ..] = payload else { return None };
        let mut rest = rest;
        let version = String::from_utf8_lossy(message::until_nul(&mut rest)?).into_owned();
        let (fixed, mut rest) = rest.split_at_checked(31)?;
        let connection_id = u32::from_le_bytes(fixed[..4].try_into().ok()?);
        let capabilities = u32::from_le_bytes([fixed[13], fixed[14], fixed[18], fixed[19]]);
        let capabilities = CapabilityFlags::from_bits_truncate(capabilities);
        let mut nonce = fixed[4..12].to_vec();
        if capabilities.contains(CapabilityFlags::CLIENT_SECURE_CONNECTION) {
            let len = usize::from(fixed[20]).saturating_sub(8).max(13);
            let (second, after) = rest.split_at_checked(len)?;
            nonce.extend_from_slice(second.strip_suffix(&[0]).unwrap_or(second));
            rest = after;
        }
        let plugin = match capabilities.contains(CapabilityFlags::CLIENT_PLUGIN_AUTH) {
            // Some servers leave the NUL out.
            true => rest.split(|&b| b == 0).next().unwrap_or_default().to_vec(),
            false => auth::NATIVE.to_vec(),
        };
        Some(Greeting { version, connection_id, capabilities, plugin, nonce })
    }

    /// MariaDB says so in its version, before 11 behind a `5.5.5-`.
    pub(super) fn is_mariadb(&self) -> bool {
        self.version.to_ascii_lowercase().contains("mariadb")
    }
}

/// A session that takes commands.
pub(super) struct Session {
    pub(super) channel: Channel,
    pub(super) greeting: Greeting,
    pub(super) capabilities: CapabilityFlags,
    pub(super) tls: bool,
}

/// A connection that nobody has signed in on yet.
struct Greeted {
    channel: Channel,
    greeting: Greeting,
    capabilities: CapabilityFlags,
    tls: bool,
    /// Over TLS or a socket, so that nobody can listen.
    secure: bool,
}

/// Greeting, TLS and authentication over `stream`.
pub(super) async fn sign_in(stream: Box<dyn Stream>, options: &ConnectOptions) -> Result<Session> {
    let Greeted { mut channel, greeting, capabilities, tls, secure } =
        greet(stream, options).await?;
    let mut auth = auth::Auth::new(options, &greeting, secure);
    let answer = auth.first_answer();
    channel.write(&login(options, capabilities, answer, auth.plugin())).await?;
    auth.run(&mut channel).await?;
    if let Some(compression) = options.compression {
        channel = channel.compress(compression)?;
    }
    Ok(Session { channel, greeting, capabilities, tls })
}

/// The packet that names the account.
fn login(
    options: &ConnectOptions,
    capabilities: CapabilityFlags,
    answer: Vec<u8>,
    plugin: &[u8],
) -> Vec<u8> {
    let response = HandshakeResponse::new(
        Some(answer),
        (8, 0, 0), // only picks utf8mb4 over the older utf8
        Some(options.user.as_bytes()),
        None::<Vec<u8>>,
        Some(AuthPlugin::from_bytes(plugin)),
        capabilities,
        Some(options.attributes.clone().into_iter().collect::<HashMap<_, _>>()),
        MAX_PACKET as u32,
    );
    let mut bytes = Vec::with_capacity(256);
    response.serialize(&mut bytes);
    if let Some(Compression::Zstd(level)) = options.compression {
        // Behind the attributes, of which mysql_common knows nothing more.
        bytes.push(level);
    }
    bytes
}

/// Reads the greeting, and starts TLS where it is wanted.
async fn greet(stream: Box<dyn Stream>, options: &ConnectOptions) -> Result<Greeted> {
    let what = || options.cannot_connect();
    let mut channel = Channel::new(stream, options.read_timeout);
    let first = channel.read().await?;
    if let Some(refusal) = message::server_error(&first) {
        return Err(server_error(refusal, what()));
    }
    let greeting = Greeting::parse(&first)
        .ok_or_else(|| protocol("its greeting is not that of a MySQL or MariaDB server", what()))?;
    if !greeting.capabilities.contains(NEEDED) {
        return Err(protocol("it is older than MySQL 4.1", what()));
    }
    let mut capabilities = greeting.capabilities & WANTED | CapabilityFlags::CLIENT_LONG_PASSWORD;

    if let Some(compression) = options.compression {
        let needed = match compression {
            Compression::Zlib => CapabilityFlags::CLIENT_COMPRESS,
            Compression::Zstd(_) => CapabilityFlags::CLIENT_ZSTD_COMPRESSION_ALGORITHM,
        };
        if !greeting.capabilities.contains(needed) {
            return Err(no_compression_offered(compression, what()));
        }
        capabilities |= needed;
    }
    let mut tls = false;
    let mut secure = matches!(options.endpoint, Endpoint::Socket(_));
    if let Endpoint::Tcp { host, .. } = &options.endpoint {
        let offered = greeting.capabilities.contains(CapabilityFlags::CLIENT_SSL);
        if !offered && options.tls.mode >= SslMode::Required {
            return Err(no_tls_offered(what()));
        }
        if offered && options.tls.mode != SslMode::Disabled {
            capabilities |= CapabilityFlags::CLIENT_SSL;
            channel = start_tls(channel, host, capabilities, options).await?;
            (tls, secure) = (true, true);
        }
    }
    Ok(Greeted { channel, greeting, capabilities, tls, secure })
}

async fn start_tls(
    mut channel: Channel,
    host: &str,
    capabilities: CapabilityFlags,
    options: &ConnectOptions,
) -> Result<Channel> {
    let what = || options.cannot_connect();
    let config = tls::client_config(&options.tls)?;
    let name = match ServerName::try_from(host.to_owned()) {
        Ok(name) => name,
        // An underscore, say: no certificate can carry it, so it matters only where it is compared.
        Err(e) if options.tls.mode == SslMode::VerifyIdentity => {
            return Err(tls_failure(e, what()));
        }
        Err(_) => ServerName::try_from("localhost").expect("localhost is a valid name"),
    };
    let mut request = Vec::with_capacity(32);
    SslRequest::new(capabilities, MAX_PACKET as u32, UTF8MB4_GENERAL_CI as u8)
        .serialize(&mut request);
    channel.write(&request).await?;
    let seq = channel.sequence();
    let stream = TlsConnector::from(config)
        .connect(name, channel.into_stream()?)
        .await
        .map_err(|e| connect_io_error(e, what()))?;
    let mut channel = Channel::new(Box::new(stream), options.read_timeout);
    channel.set_sequence(seq);
    Ok(channel)
}
