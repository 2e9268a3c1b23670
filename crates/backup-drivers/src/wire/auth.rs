//! How the account proves that it knows its password.
//!
//! `mysql_native_password` and `caching_sha2_password` (MySQL), `client_ed25519` and `parsec`
//! (MariaDB), `mysql_clear_password` where it is allowed; accounts that sign in by their
//! operating-system user need no answer at all.

use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use backup_core::{Error, ErrorKind, Result};
use mysql_common::packets::parse_parsec_salt;
use mysql_common::scramble;
use tokio_rustls::rustls::pki_types::SubjectPublicKeyInfoDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::channel::Channel;
use super::handshake::Greeting;
use super::message;
use crate::connect::{ConnectOptions, cleartext_refused, protocol, server_error};

pub(super) const NATIVE: &[u8] = b"mysql_native_password";
const SHA2: &[u8] = b"caching_sha2_password";
const ED25519: &[u8] = b"client_ed25519";
const PARSEC: &[u8] = b"parsec";
const CLEAR: &[u8] = b"mysql_clear_password";

/// First byte of a packet with more data for the plugin at work.
const MORE: u8 = 0x01;
/// An account of MariaDB may have several plugins, each of which the server tries in turn.
const MAX_SWITCHES: usize = 8;

/// What takes about a second. MariaDB asks for 8192; a hostile server might for a thousand million.
const MAX_ITERATIONS: u32 = 1 << 20;

/// The client's side of the exchange.
pub(super) struct Auth<'a> {
    options: &'a ConnectOptions,
    /// Over TLS or a socket, so that nobody can listen.
    secure: bool,
    plugin: Vec<u8>,
    nonce: Vec<u8>,
}

impl<'a> Auth<'a> {
    pub(super) fn new(options: &'a ConnectOptions, greeting: &Greeting, secure: bool) -> Self {
        // A default plugin we do not know is the server's choice, not yet the account's: start
        // with one that we know, and it will ask for the right one.
        let plugin = match greeting.plugin.as_slice() {
            SHA2 => SHA2,
            _ => NATIVE,
        };
        Auth { options, secure, plugin: plugin.to_vec(), nonce: greeting.nonce.clone() }
    }

    pub(super) fn plugin(&self) -> &[u8] {
        &self.plugin
    }

    /// The answer to the nonce of the greeting.
    pub(super) fn first_answer(&self) -> Vec<u8> {
        match self.plugin.as_slice() {
            SHA2 => self.sha2(),
            _ => self.native(),
        }
    }

    fn what(&self) -> String {
        self.options.cannot_connect()
    }

    fn password(&self) -> &'a [u8] {
        self.options.password.as_ref().map_or(&[][..], |password| password.expose().as_bytes())
    }

    fn native(&self) -> Vec<u8> {
        scramble::scramble_native(&self.nonce, self.password())
            .map_or_else(Vec::new, |answer| answer.to_vec())
    }

    fn sha2(&self) -> Vec<u8> {
        scramble::scramble_sha256(&self.nonce, self.password())
            .map_or_else(Vec::new, |answer| answer.to_vec())
    }

    /// The password as a C string.
    fn terminated(&self) -> Vec<u8> {
        let mut bytes = self.password().to_vec();
        bytes.push(0);
        bytes
    }

    /// Answers the server until it takes us in or refuses.
    pub(super) async fn run(&mut self, channel: &mut Channel) -> Result<()> {
        let mut switches = 0;
        loop {
            let packet = channel.read().await?;
            if let Some(refusal) = message::server_error(&packet) {
                // Whatever the number: no connection came about.
                return Err(server_error(refusal, self.what()).with_kind(ErrorKind::Connect));
            }
            match *packet {
                [message::OK, ..] => return Ok(()),
                [message::EOF, ref rest @ ..] if switches < MAX_SWITCHES => {
                    switches += 1;
                    self.switch(rest, channel).await?;
                }
                [MORE, ref more @ ..] => self.go_on(more, channel).await?,
                // The first releases of parsec leave the MORE out.
                ref more if self.plugin == PARSEC => self.go_on(more, channel).await?,
                _ => return Err(protocol("an unknown answer to the sign-in", self.what())),
            }
        }
    }

    /// The server asks for another plugin, with a new nonce.
    async fn switch(&mut self, mut request: &[u8], channel: &mut Channel) -> Result<()> {
        self.plugin = message::until_nul(&mut request).unwrap_or(request).to_vec();
        self.nonce = request.strip_suffix(&[0]).unwrap_or(request).to_vec();
        let answer = match self.plugin.as_slice() {
            NATIVE => self.native(),
            SHA2 => self.sha2(),
            ED25519 => {
                // A nonce of 32 bytes, of which the last may be 0 and belongs to it.
                let nonce = request.get(..32).unwrap_or(request);
                scramble::create_response_for_ed25519(self.password(), nonce).to_vec()
            }
            // The server first tells salt and iterations, once it is asked with an empty packet.
            PARSEC => {
                self.nonce = request.get(..32).unwrap_or(request).to_vec();
                Vec::new()
            }
            CLEAR if self.secure && self.options.may_send_cleartext() => self.terminated(),
            CLEAR => return Err(cleartext_refused(self.what())),
            other => {
                let name = String::from_utf8_lossy(other).into_owned();
                return Err(Error::new(ErrorKind::Connect, self.what())
                    .with_source(format!("the account uses the plugin `{name}`"))
                    .with_remedy(
                        "use an account with caching_sha2_password, mysql_native_password, \
                         ed25519 or parsec",
                    ));
            }
        };
        channel.write(&answer).await
    }

    /// The plugin at work has more to say.
    async fn go_on(&mut self, more: &[u8], channel: &mut Channel) -> Result<()> {
        match (self.plugin.as_slice(), more) {
            // It knew the password's hash and is content; an OK follows.
            (SHA2, [3]) => Ok(()),
            // It has to see the password once.
            (SHA2, [4]) if self.secure => channel.write(&self.terminated()).await,
            (SHA2, [4]) => {
                channel.write(&[2]).await?;
                let packet = channel.read().await?;
                if let Some(refusal) = message::server_error(&packet) {
                    return Err(server_error(refusal, self.what()).with_kind(ErrorKind::Connect));
                }
                let encrypted = packet
                    .strip_prefix(&[MORE])
                    .and_then(|pem| self.encrypted(pem))
                    .ok_or_else(|| protocol("its public key cannot be used", self.what()))?;
                channel.write(&encrypted).await
            }
            (PARSEC, salt) => {
                let nonce: Option<&[u8; 32]> = self.nonce.as_slice().try_into().ok();
                let answer = parse_parsec_salt(salt)
                    .filter(|(iterations, _)| *iterations <= MAX_ITERATIONS)
                    .zip(nonce)
                    .map(|((iterations, salt), nonce)| {
                        scramble::create_response_for_parsec(
                            self.password(),
                            nonce,
                            iterations,
                            salt,
                        )
                    })
                    .ok_or_else(|| protocol("its salt for parsec cannot be used", self.what()))?;
                channel.write(&answer).await
            }
            _ => Err(protocol("more to sign in with than its plugin defines", self.what())),
        }
    }

    /// The password, hidden by the nonce and encrypted with the server's RSA key.
    fn encrypted(&self, pem: &[u8]) -> Option<Vec<u8>> {
        let mut hidden = self.terminated();
        for (byte, mask) in hidden.iter_mut().zip(self.nonce.iter().cycle()) {
            *byte ^= mask;
        }
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).ok()?;
        let key = PublicEncryptingKey::from_der(&der).ok()?;
        let key = OaepPublicEncryptingKey::new(key).ok()?;
        let mut encrypted = vec![0; key.ciphertext_size()];
        let len = key.encrypt(&OAEP_SHA1_MGF1SHA1, &hidden, &mut encrypted, None).ok()?.len();
        encrypted.truncate(len);
        Some(encrypted)
    }
}
