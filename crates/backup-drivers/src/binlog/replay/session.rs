//! What a replica says before it asks for events.

use std::io;

use backup_core::{Clock, Flavor, GtidSet, MySqlGtidSet, Secret, SystemClock, Uuid};
use tokio::io::{AsyncRead, AsyncWrite};

use super::super::event::Checksum;
use super::super::read::Reader;
use super::packet::{Answers, Requests};

/// Who we are to the target.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) flavor: Flavor,
    /// The version that the archived binlogs are of.
    pub(super) version: String,
    pub(super) server_id: u32,
    pub(super) uuid: Uuid,
    pub(super) user: String,
    pub(super) password: Secret,
    /// The target's own, which it wants of its source.
    pub(super) gtid_mode: String,
    /// That of the first file: the first event that we make up has it.
    pub(super) checksum: Checksum,
    /// Whether the target has to encrypt the connection.
    pub(super) tls: bool,
}

/// What a replica asks for.
#[derive(Debug)]
pub(super) struct DumpRequest {
    /// The transactions it has, where it asks by GTID.
    pub(super) have: Option<GtidSet>,
    /// File and position, where it does not.
    pub(super) file: String,
    pub(super) position: u64,
    /// How often it wants a sign of life, in nanoseconds; 0 = never.
    pub(super) heartbeat: u64,
    /// The second form of it.
    pub(super) heartbeat_v2: bool,
}

// Of the client/server protocol: LONG_PASSWORD, LONG_FLAG, CONNECT_WITH_DB, PROTOCOL_41, TRANSACTIONS,
// SECURE_CONNECTION, PLUGIN_AUTH, CONNECT_ATTRS, PLUGIN_AUTH_LENENC_CLIENT_DATA.
const CAPABILITIES: u32 = 1 | 4 | 8 | 0x200 | 0x2000 | 0x8000 | 0x8_0000 | 0x10_0000 | 0x20_0000;
/// `CLIENT_SSL`: the server offers TLS; a client asks for it.
const SSL: u32 = 0x800;
const NONCE: usize = 20;
/// A replica on 9.7 asks for heartbeats of the second form.
const HEARTBEAT_V2: u16 = 2;

/// Whether the answer to a greeting asks for TLS first: the beginning of a login, and nothing more.
pub(super) fn wants_tls(login: &[u8]) -> bool {
    let capabilities = login.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    login.len() == 32 && capabilities.is_some_and(|capabilities| capabilities & SSL != 0)
}

impl Identity {
    fn plugin(&self) -> &'static str {
        match self.flavor {
            Flavor::MySql => "caching_sha2_password",
            Flavor::MariaDb => "mysql_native_password",
        }
    }

    pub(super) fn greeting(&self, nonce: &[u8; NONCE]) -> Vec<u8> {
        let prefix = if self.flavor == Flavor::MariaDb { "5.5.5-" } else { "" };
        let mut greeting = vec![10];
        greeting.extend(prefix.bytes().chain(self.version.bytes()));
        greeting.extend([0, 1, 0, 0, 0]);
        greeting.extend(&nonce[..8]);
        let tls = if self.tls { SSL } else { 0 };
        let [a, b, c, d] = (CAPABILITIES | tls).to_le_bytes();
        greeting.extend([0, a, b, 0x2d, 2, 0, c, d, NONCE as u8 + 1]);
        greeting.extend([0; 10]);
        greeting.extend(&nonce[8..]);
        greeting.push(0);
        greeting.extend(self.plugin().bytes());
        greeting.push(0);
        greeting
    }

    /// Lets a replica sign in that was greeted and answered with `login`; `false` when it is none of
    /// ours.
    pub(super) async fn sign_in<R, W>(
        &self,
        nonce: &[u8; NONCE],
        login: &[u8],
        requests: &mut Requests<R>,
        answers: &mut Answers<W>,
    ) -> io::Result<bool>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let Some(login) = Login::parse(login) else {
            answers.error(1043, "08S01", "Bad handshake").await?;
            return Ok(false);
        };
        let mut auth = login.auth;
        if login.plugin != self.plugin().as_bytes() {
            let mut switch = vec![0xfe];
            switch.extend(self.plugin().bytes());
            switch.push(0);
            switch.extend(nonce);
            switch.push(0);
            answers.send(&switch).await?;
            auth = requests.read().await?;
            answers.seq = requests.seq.wrapping_add(1);
        }
        let expected = self.answer(nonce);
        let same = aws_lc_rs::constant_time::verify_slices_are_equal(&expected, &auth).is_ok();
        if login.user != self.user.as_bytes() || !same {
            answers.error(1045, "28000", "Access denied").await?;
            return Ok(false);
        }
        if self.flavor == Flavor::MySql {
            // "Fast authentication succeeded"
            answers.write(&[&[1, 3]]).await?;
        }
        answers.ok().await?;
        Ok(true)
    }

    /// What who knows the password answers to the nonce.
    fn answer(&self, nonce: &[u8; NONCE]) -> Vec<u8> {
        use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
        let password = self.password.expose().as_bytes();
        let (first, mask) = match self.flavor {
            Flavor::MySql => {
                let first = digest(&SHA256, password);
                let twice = digest(&SHA256, first.as_ref());
                let mask = digest(&SHA256, &[twice.as_ref(), nonce].concat());
                (first, mask)
            }
            Flavor::MariaDb => {
                let first = digest(&SHA1_FOR_LEGACY_USE_ONLY, password);
                let twice = digest(&SHA1_FOR_LEGACY_USE_ONLY, first.as_ref());
                let mask = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[nonce, twice.as_ref()].concat());
                (first, mask)
            }
        };
        first.as_ref().iter().zip(mask.as_ref()).map(|(a, b)| a ^ b).collect()
    }

    /// Answers what a replica asks until it asks for events; `None` when it leaves.
    pub(super) async fn negotiate<R, W>(
        &self,
        requests: &mut Requests<R>,
        answers: &mut Answers<W>,
    ) -> io::Result<Option<DumpRequest>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut asked = Asked::default();
        loop {
            let request = requests.read().await?;
            answers.seq = requests.seq.wrapping_add(1);
            let Some((&command, argument)) = request.split_first() else { return Ok(None) };
            match command {
                0x01 => return Ok(None),
                0x03 => self.query(&String::from_utf8_lossy(argument), &mut asked, answers).await?,
                0x0e | 0x15 => answers.ok().await?,
                0x12 | 0x1e => match asked.dump(command, argument) {
                    Some(dump) => return Ok(Some(dump)),
                    None => {
                        answers.error(1236, "HY000", "the request for events is malformed").await?;
                        return Ok(None);
                    }
                },
                _ => answers.error(1047, "08S01", "Unknown command").await?,
            }
        }
    }

    async fn query<W: AsyncWrite + Unpin>(
        &self,
        sql: &str,
        asked: &mut Asked,
        answers: &mut Answers<W>,
    ) -> io::Result<()> {
        let upper = sql.to_ascii_uppercase();
        let has = |part: &str| upper.contains(part);
        let number = self.server_id.to_string();
        if upper.trim_start().starts_with("SET") {
            asked.set(sql);
            return answers.ok().await;
        }
        if has("UNIX_TIMESTAMP") {
            let now = SystemClock.now().as_second().to_string();
            answers.row(&one("UNIX_TIMESTAMP()", Some(&now))).await
        } else if has("SHOW VARIABLES") && has("SERVER_ID") {
            answers.row(&[("Variable_name", Some("server_id")), ("Value", Some(&number))]).await
        } else if has("SERVER_ID") {
            answers.row(&one("@@GLOBAL.SERVER_ID", Some(&number))).await
        } else if has("BINLOG_CHECKSUM") {
            let name = if self.checksum == Checksum::Crc32 { "CRC32" } else { "NONE" };
            answers.row(&one("@source_binlog_checksum", Some(name))).await
        } else if has("GTID_MODE") {
            answers.row(&one("@@GLOBAL.GTID_MODE", Some(&self.gtid_mode))).await
        } else if has("SERVER_UUID") {
            let uuid = self.uuid.to_string();
            answers.row(&one("@@GLOBAL.SERVER_UUID", Some(&uuid))).await
        } else if has("GTID_DOMAIN_ID") {
            answers.row(&one("@@GLOBAL.gtid_domain_id", Some("0"))).await
        } else if has("BINLOG_GTID_POS") {
            answers.row(&one("binlog_gtid_pos", None)).await
        } else {
            // Semi-sync among them: the replica goes on without.
            answers.error(1193, "HY000", "Unknown system variable").await
        }
    }
}

/// What SET statements said.
#[derive(Debug, Default)]
struct Asked {
    heartbeat: u64,
    /// MariaDB: where it stands.
    state: Option<String>,
}

impl Asked {
    fn set(&mut self, sql: &str) {
        let after = |name: &str| {
            let at = sql.to_ascii_lowercase().find(name)? + name.len();
            Some(sql.get(at..)?.trim_start().strip_prefix('=')?.trim_start())
        };
        if let Some(value) = after("heartbeat_period") {
            let digits = value.split(|c: char| !c.is_ascii_digit()).next();
            self.heartbeat = digits.and_then(|digits| digits.parse().ok()).unwrap_or(0);
        }
        if let Some(value) = after("@slave_connect_state") {
            self.state = Some(value.trim_matches(['\'', '"', ' ', ';']).to_owned());
        }
    }

    fn dump(&self, command: u8, argument: &[u8]) -> Option<DumpRequest> {
        let mut reader = Reader::new(argument);
        let (have, file, position, flags);
        if command == 0x12 {
            position = u64::from(reader.u32()?);
            flags = reader.u16()?;
            reader.skip(4)?;
            file = reader.rest().to_vec();
            have = match &self.state {
                Some(state) => Some(GtidSet::parse(Flavor::MariaDb, state).ok()?),
                None => None,
            };
        } else {
            flags = reader.u16()?;
            reader.skip(4)?;
            let len = reader.u32()?;
            file = reader.take(len.try_into().ok()?)?.to_vec();
            position = reader.u64()?;
            let len = reader.u32()?;
            let set = reader.take(len.try_into().ok()?)?;
            have = Some(MySqlGtidSet::decode(set).ok()?.into());
        }
        Some(DumpRequest {
            have,
            file: String::from_utf8_lossy(&file).into_owned(),
            position,
            heartbeat: self.heartbeat,
            // MariaDB has other flags.
            heartbeat_v2: flags & HEARTBEAT_V2 != 0,
        })
    }
}

/// A row of one column.
fn one<'a>(name: &'a str, value: Option<&'a str>) -> [(&'a str, Option<&'a str>); 1] {
    [(name, value)]
}

struct Login {
    user: Vec<u8>,
    auth: Vec<u8>,
    plugin: Vec<u8>,
}

impl Login {
    fn parse(payload: &[u8]) -> Option<Login> {
        let mut reader = Reader::new(payload);
        let capabilities = reader.u32()?;
        reader.skip(4 + 1 + 23)?;
        let until_nul = |reader: &mut Reader<'_>| {
            let len = memchr::memchr(0, reader.rest())?;
            let text = reader.take(len)?.to_vec();
            reader.skip(1)?;
            Some(text)
        };
        let user = until_nul(&mut reader)?;
        let len = reader.u8()?;
        let auth = reader.take(len.into())?.to_vec();
        if capabilities & 8 != 0 {
            until_nul(&mut reader)?;
        }
        let plugin = until_nul(&mut reader).unwrap_or_default();
        Some(Login { user, auth, plugin })
    }
}
