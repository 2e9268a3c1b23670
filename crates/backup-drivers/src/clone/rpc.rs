//! The clone plugin's remote calls, over a connection in clone mode.
//!
//! COM_CLONE turns a session into one that takes these calls. Each request and each answer is one
//! packet, and each begins again with sequence number 0. One request has any number of answers, the
//! last of which is COMPLETE or ERROR. Numbers of this layer are little-endian.

use backup_core::{Error, ErrorKind, Result, ServerError};
use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::broken;
use super::descriptor::{Descriptor, Locator, State};
use crate::connect::{ConnectOptions, server_error};
use crate::wire::Connection;

const COM_CLONE: u8 = 0x20;
const COM_RESET_CONNECTION: u8 = 0x1f;

/// InnoDB, the only engine that can be cloned.
const INNODB: u8 = 12;
/// The newest version of the protocol: that of MySQL 9.7. An older donor answers with its own.
const PROTOCOL: u32 = 0x0103;
/// In the time-out of INIT: do not block DDL.
const CONCURRENT_DDL: u32 = 1 << 31;

mod command {
    pub(super) const INIT: u8 = 1;
    pub(super) const REINIT: u8 = 3;
    pub(super) const EXECUTE: u8 = 4;
    pub(super) const ACK: u8 = 5;
    pub(super) const EXIT: u8 = 6;
}

mod answer {
    pub(super) const LOCATORS: u8 = 1;
    pub(super) const DESCRIPTOR: u8 = 2;
    pub(super) const DATA: u8 = 3;
    pub(super) const PLUGIN: u8 = 4;
    pub(super) const CONFIG: u8 = 5;
    pub(super) const COLLATION: u8 = 6;
    pub(super) const PLUGIN_V2: u8 = 7;
    pub(super) const CONFIG_V3: u8 = 8;
    pub(super) const CONFIG_V4: u8 = 9;
    pub(super) const COMPLETE: u8 = 99;
    pub(super) const ERROR: u8 = 100;
}

/// What a donor says of itself when a clone begins.
#[derive(Debug, Clone, Default)]
pub(super) struct Announced {
    /// Names and libraries of its plugins.
    pub(super) plugins: Vec<(String, String)>,
    pub(super) collations: Vec<String>,
    /// Settings that a server has to have in common with it.
    pub(super) settings: Vec<(String, String)>,
}

/// How DDL of other sessions goes together with a clone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ddl {
    /// It goes on (from 8.0.27).
    Concurrent,
    /// It waits until the clone ends. The donor waits for DDL that is under way first.
    Blocked {
        /// The longest that either may take, in seconds (at least 1).
        limit: u32,
    },
}

impl Ddl {
    fn bits(self) -> u32 {
        match self {
            // The time-out counts for what cannot be concurrent.
            Ddl::Concurrent => CONCURRENT_DDL | 300,
            Ddl::Blocked { limit } => limit.clamp(1, CONCURRENT_DDL - 1),
        }
    }
}

/// One answer in a stream.
#[derive(Debug)]
pub(super) enum Sent {
    Descriptor(Descriptor),
    Data(Bytes),
    Complete,
}

/// A connection in clone mode.
#[derive(Debug)]
pub(super) struct Rpc {
    connection: Connection,
}

impl Rpc {
    /// Connects, signs in, and enters clone mode.
    pub(super) async fn enter(donor: &ConnectOptions) -> Result<Rpc> {
        let mut connection = Connection::connect(donor).await?;
        connection.write_command(COM_CLONE, &[]).await?;
        let answer = connection.read_packet().await.map_err(explained)?;
        match answer.first() {
            Some(0) => Ok(Rpc { connection }),
            _ => Err(broken("it answers COM_CLONE with something else")),
        }
    }

    /// Whether nobody can read along.
    pub(super) fn is_encrypted(&self) -> bool {
        self.connection.is_tls()
    }

    /// What is in clone mode already.
    #[cfg(test)]
    pub(super) fn over(connection: Connection) -> Rpc {
        Rpc { connection }
    }

    /// Asks for a new clone.
    pub(super) async fn init(&mut self, ddl: Ddl) -> Result<(Locator, Announced)> {
        self.begin(command::INIT, ddl, &Locator::of_version()).await
    }

    /// Asks a donor that waits to go on.
    pub(super) async fn reinit(&mut self, ddl: Ddl, resume: &Locator) -> Result<()> {
        self.begin(command::REINIT, ddl, resume).await.map(drop)
    }

    async fn begin(
        &mut self,
        command: u8,
        ddl: Ddl,
        locator: &Locator,
    ) -> Result<(Locator, Announced)> {
        let mut request = BytesMut::new();
        request.put_u32_le(PROTOCOL);
        request.put_u32_le(ddl.bits());
        put_locator(&mut request, locator);
        self.connection.write_command(command, &request).await?;
        let mut announced = Announced::default();
        let mut locator = None;
        loop {
            let (kind, mut body) = self.answer().await?;
            match kind {
                answer::PLUGIN => announced.plugins.push((text(&mut body)?, String::new())),
                answer::PLUGIN_V2 => {
                    announced.plugins.push((text(&mut body)?, text(&mut body)?));
                }
                answer::COLLATION => announced.collations.push(text(&mut body)?),
                answer::CONFIG | answer::CONFIG_V3 | answer::CONFIG_V4 => {
                    announced.settings.push((text(&mut body)?, text(&mut body)?));
                }
                answer::LOCATORS => locator = Some(locators(body)?),
                answer::COMPLETE => break,
                kind => return Err(broken(format!("it answers a greeting with {kind}"))),
            }
            if announced.plugins.len() + announced.collations.len() + announced.settings.len()
                > MAX_ANNOUNCED
            {
                return Err(broken("it has more plugins, collations and settings than any server"));
            }
        }
        let locator = locator.ok_or_else(|| broken("it names no clone"))?;
        Ok((locator, announced))
    }

    /// Asks for the data, which [`Rpc::next`] gives.
    pub(super) async fn execute(&mut self) -> Result<()> {
        self.connection.write_command(command::EXECUTE, &[]).await
    }

    /// The next answer of a stream.
    pub(super) async fn next(&mut self) -> Result<Sent> {
        let (kind, mut body) = self.answer().await?;
        match kind {
            answer::DESCRIPTOR => {
                let head = body.try_get_u16().map_err(|_| broken("a descriptor is empty"))?;
                if head.to_be_bytes()[0] != INNODB {
                    return Err(broken("it clones an unknown engine"));
                }
                Descriptor::parse(&body).map(Sent::Descriptor)
            }
            answer::DATA => Ok(Sent::Data(body)),
            answer::COMPLETE => Ok(Sent::Complete),
            kind => Err(broken(format!("an answer {kind} stands in the data"))),
        }
    }

    /// Says that all of a stage is kept.
    pub(super) async fn acknowledge(&mut self, locator: &Locator, state: &State) -> Result<()> {
        self.ack(0, locator, &state.acknowledgement()).await
    }

    /// Tells the donor to give up.
    pub(super) async fn cancel(&mut self, locator: &Locator) -> Result<()> {
        // ER_QUERY_INTERRUPTED
        self.ack(1317, locator, &[]).await
    }

    async fn ack(&mut self, error: u32, locator: &Locator, descriptor: &[u8]) -> Result<()> {
        let mut request = BytesMut::new();
        request.put_u32_le(error);
        put_locator(&mut request, locator);
        request.put_u32_le(descriptor.len() as u32);
        request.put_slice(descriptor);
        self.connection.write_command(command::ACK, &request).await?;
        self.complete().await
    }

    /// Leaves clone mode: the donor frees what it holds for us. Then signs off.
    pub(super) async fn exit(mut self) -> Result<()> {
        self.connection.write_command(command::EXIT, &[]).await?;
        self.complete().await?;
        self.connection.write_command(COM_RESET_CONNECTION, &[]).await?;
        self.connection.read_packet().await?;
        self.connection.close().await;
        Ok(())
    }

    async fn complete(&mut self) -> Result<()> {
        match self.answer().await? {
            (answer::COMPLETE, _) => Ok(()),
            (kind, _) => Err(broken(format!("it answers a request with {kind}"))),
        }
    }

    /// One answer; an ERROR is an error.
    async fn answer(&mut self) -> Result<(u8, Bytes)> {
        let mut packet = self.connection.read_restarted().await?;
        let kind = packet.try_get_u8().map_err(|_| broken("an answer is empty"))?;
        if kind != answer::ERROR {
            return Ok((kind, packet));
        }
        let code = packet.try_get_u32_le().map_err(|_| broken("an error is cut short"))?;
        let said = ServerError {
            code: u16::try_from(code).unwrap_or_default(),
            state: "HY000".into(),
            message: String::from_utf8_lossy(&packet).into_owned(),
        };
        Err(explained(server_error(said, "the donor gave the clone up")))
    }
}

/// Servers have some hundreds of collations, and some tens of plugins.
const MAX_ANNOUNCED: usize = 100_000;

fn put_locator(request: &mut BytesMut, locator: &Locator) {
    request.put_u8(INNODB);
    request.put_u32_le(locator.bytes().len() as u32);
    request.put_slice(locator.bytes());
}

fn text(body: &mut Bytes) -> Result<String> {
    let length = body.try_get_u32_le().map_err(|_| broken("a text is cut short"))? as usize;
    if length > body.len() {
        return Err(broken("a text is cut short"));
    }
    Ok(String::from_utf8_lossy(&body.split_to(length)).into_owned())
}

fn locators(mut body: Bytes) -> Result<Locator> {
    let short = |_| broken("a locator is cut short");
    let _version = body.try_get_u32_le().map_err(short)?;
    let engine = body.try_get_u8().map_err(short)?;
    let length = body.try_get_u32_le().map_err(short)? as usize;
    if engine != INNODB || length > body.len() {
        return Err(broken("a locator is cut short, or of an unknown engine"));
    }
    Locator::parse(&body.split_to(length))
}

/// Reads a body as texts and as locators, for fuzzing.
pub(super) fn read_body(bytes: &Bytes) {
    let mut texts = bytes.clone();
    while text(&mut texts).is_ok() {}
    let _ = (locators(bytes.clone()), Locator::parse(bytes));
}

/// What to do about the errors that a donor knows.
fn explained(error: Error) -> Error {
    let Some(said) = error.server() else { return error };
    let (kind, remedy) = match said.code {
        // ER_PLUGIN_IS_NOT_LOADED
        1524 => {
            (ErrorKind::Source, "run INSTALL PLUGIN clone SONAME 'mysql_clone.so' at the source")
        }
        // ER_CANT_OPEN_FILE, ER_FILE_NOT_FOUND
        1016 | 1017 => (
            ErrorKind::Source,
            "DDL at the source removed a file that its clone was about to read (its own recipients fail so, \
             too); try again",
        ),
        1227 => (ErrorKind::Privilege, "run GRANT BACKUP_ADMIN ON *.* TO the account"),
        1205 => (
            ErrorKind::Source,
            "DDL or another backup holds the backup lock; try again later, or without --clone-block-ddl",
        ),
        // ER_QUERY_INTERRUPTED
        1317 => (
            ErrorKind::Source,
            "the source was shut down, somebody stopped it with KILL, or it could not archive its redo log (its error log \
             tells; a full disk, say): see to that, then try again; where that does not help, restart it",
        ),
        // ER_CLONE_DDL_IN_PROGRESS
        3633 => (ErrorKind::Source, "DDL runs at the source; try again"),
        // ER_CLONE_TOO_MANY_CONCURRENT_CLONES
        3634 => (
            ErrorKind::Source,
            "another clone runs at the source (performance_schema.clone_status, or SHOW PROCESSLIST); \
             wait until it ends",
        ),
        // ER_CLONE_ENCRYPTION
        3872 => (
            ErrorKind::Source,
            "encrypted tablespaces are sent over TLS only: use ssl-mode=required over TCP",
        ),
        // ER_CLONE_NETWORK_PACKET
        3957 => (ErrorKind::Source, "run SET GLOBAL max_allowed_packet = 2097152 (or more)"),
        // ER_INNODB_REDO_DISABLED
        3983 => (ErrorKind::Source, "run ALTER INSTANCE ENABLE INNODB REDO_LOG at the source"),
        _ => return error,
    };
    error.with_kind(kind).with_remedy(remedy)
}
