//! A server's binlog as it is sent to a replica.
//!
//! Over [`wire`](crate::wire): a few settings, COM_REGISTER_REPLICA, then COM_BINLOG_DUMP, after which
//! the server sends one event a packet without end
//! (<https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_replication.html>,
//! <https://mariadb.com/kb/en/replication-protocol/>). Files are asked for by name and position, so
//! that what arrives are the bytes of the file, one after the other.

use std::time::Duration;

use backup_core::{Context, Error, ErrorKind, GtidSet, MariaDbBinlogState, Result, Uuid};
use bytes::Bytes;

use super::body::{self, Rotate};
use super::event::{self, Checksum, Event, Format, Header, kind};
use super::group::Part;
use super::track::Tracker;
use crate::connect::{ConnectOptions, protocol};
use crate::wire::Connection;

const COM_BINLOG_DUMP: u8 = 0x12;
const COM_BINLOG_DUMP_GTID: u8 = 0x1e;
const COM_REGISTER_REPLICA: u8 = 0x15;
/// MariaDB: send ANNOTATE_ROWS events too.
const SEND_ANNOTATIONS: u16 = 2;
/// Say so at the end of the last file, rather than wait for more.
const NON_BLOCK: u16 = 1;
/// First byte of what goes before an event, and of an acknowledgement, where semi-sync is on.
const SEMI_SYNC: u8 = 0xef;
/// The first packet byte of an event, and of the end.
const EVENT: u8 = 0;
const END: u8 = 0xfe;

/// A server that has everything on its disk, and tells us so many times without an event that it is
/// alive, sends none: at two seconds each, half an hour.
const IDLE: u32 = 1000;

/// How a binlog is read.
#[derive(Debug, Clone)]
pub struct DumpOptions {
    /// The id that we go by at the server; no server or replica of the cluster may have it.
    pub server_id: u32,
    /// The uuid that we go by (MySQL). The server ends an older dump of the same one.
    pub uuid: Uuid,
    /// How often the server gives a sign of life while there is nothing to send.
    pub heartbeat: Duration,
    /// Whether the server's commits wait for our acknowledgements, where it has semi-synchronous
    /// replication on.
    pub semi_sync: bool,
    /// Whether to wait for what the server will write; otherwise the dump ends where the last file
    /// ends now.
    pub follow: bool,
}

impl DumpOptions {
    /// For a look at what is there now, as somebody whom no other run is.
    #[must_use]
    pub fn once(cx: &Context) -> Self {
        DumpOptions {
            // Servers choose small ones.
            server_id: 1 << 30 | u32::from_le_bytes(cx.random()) >> 2,
            uuid: Uuid::from_bytes(cx.random()),
            heartbeat: Duration::from_secs(2),
            semi_sync: false,
            follow: false,
        }
    }
}

/// What a server sends.
#[derive(Debug)]
pub enum Sent {
    /// A file begins, or goes on where we asked; what follows are its events.
    File {
        /// Its name.
        name: String,
        /// Its first event, with the bytes that it has in the file.
        format: Format,
        /// Where the next event is.
        position: u64,
    },
    /// An event of the current file.
    Event {
        /// The event.
        event: Event,
        /// What it is to the transactions around it.
        part: Part,
        /// Whether the server waits for an acknowledgement.
        wants_ack: bool,
    },
    /// The server has nothing to send.
    Heartbeat,
    /// Everything up to now was sent; comes only without [`DumpOptions::follow`].
    End,
}

/// A dump under way.
#[derive(Debug)]
pub struct Dump {
    connection: Connection,
    mariadb: bool,
    semi_sync: bool,
    /// Of the next event that belongs to no file.
    checksum: Checksum,
    /// The file that a ROTATE named and whose first event has not come yet, and where it goes on.
    pending: Option<(String, u64)>,
    file: String,
    tracker: Option<Tracker>,
    /// What is known of the file that is asked for in its middle.
    resumed: Option<Tracker>,
    /// An event that comes after one we had to put in.
    held: Option<Sent>,
    /// Signs of life since the last event; `None` where we wait for more than is there.
    idle: Option<u32>,
    /// The server may begin where it likes, even in the middle of a file: MariaDB does since 11.4, which has
    /// an index of GTIDs.
    anywhere: bool,
}

impl Dump {
    /// Begins at the start of a file.
    ///
    /// # Errors
    /// As [`Connection::connect`]; [`ErrorKind::Source`] when the server refuses.
    pub async fn begin(source: &ConnectOptions, file: &str, options: &DumpOptions) -> Result<Dump> {
        Dump::open(source, file, None, options).await
    }

    /// Goes on in the middle of a file, where `tracker` left off.
    ///
    /// # Errors
    /// As [`Dump::begin`].
    pub async fn resume(
        source: &ConnectOptions,
        file: &str,
        tracker: Tracker,
        options: &DumpOptions,
    ) -> Result<Dump> {
        Dump::open(source, file, Some(tracker), options).await
    }

    /// The file with which the server would begin for a replica that has these transactions: the
    /// newest one before which there is nothing else. `state` is what MariaDB wants to be told instead
    /// of the set, where it is known.
    ///
    /// # Errors
    /// As [`Dump::begin`]; [`ErrorKind::Source`] with the server's own words when there is no such
    /// file.
    pub async fn first_file(
        source: &ConnectOptions,
        have: &GtidSet,
        state: Option<&MariaDbBinlogState>,
        options: &DumpOptions,
    ) -> Result<String> {
        let options = DumpOptions { follow: false, semi_sync: false, ..options.clone() };
        let mut dump = Dump::connect(source, None, &options).await?;
        dump.anywhere = true;
        let first = u32::try_from(event::MAGIC.len()).unwrap_or_default();
        match have {
            GtidSet::MySql(set) => {
                let set = set.encode();
                let mut request = NON_BLOCK.to_le_bytes().to_vec();
                request.extend(options.server_id.to_le_bytes());
                // No name; the set decides.
                request.extend(0_u32.to_le_bytes());
                request.extend(u64::from(first).to_le_bytes());
                request.extend((set.len() as u32).to_le_bytes());
                request.extend(set);
                dump.connection.write_command(COM_BINLOG_DUMP_GTID, &request).await?;
            }
            GtidSet::MariaDb(set) => {
                // The last transaction of every domain.
                let position = state.map_or_else(|| set.clone(), MariaDbBinlogState::position);
                let sql = format!("SET @slave_connect_state = '{position}'");
                dump.connection.query(&sql).await?;
                dump.ask(first, NON_BLOCK, options.server_id).await?;
            }
        }
        loop {
            match dump.next().await? {
                Sent::File { name, .. } => return Ok(name),
                Sent::Heartbeat | Sent::Event { .. } => {}
                Sent::End => {
                    return Err(protocol("no file at all", "cannot read the server's binlog"));
                }
            }
        }
    }

    async fn open(
        source: &ConnectOptions,
        file: &str,
        resumed: Option<Tracker>,
        options: &DumpOptions,
    ) -> Result<Dump> {
        let start = resumed.as_ref().map_or(event::MAGIC.len() as u64, Tracker::position);
        let mut dump = Dump::connect(source, resumed, options).await?;
        file.clone_into(&mut dump.file);
        let mut flags = if options.follow { 0 } else { NON_BLOCK };
        if dump.mariadb {
            flags |= SEND_ANNOTATIONS;
        }
        // Positions of the protocol have four bytes: a longer file is read again from its start.
        let asked = u32::try_from(start).unwrap_or(event::MAGIC.len() as u32);
        dump.ask(asked, flags, options.server_id).await?;
        Ok(dump)
    }

    /// Asks for the events of [`Dump::file`] from a position on.
    async fn ask(&mut self, position: u32, flags: u16, server_id: u32) -> Result<()> {
        let mut request = position.to_le_bytes().to_vec();
        request.extend(flags.to_le_bytes());
        request.extend(server_id.to_le_bytes());
        request.extend(self.file.as_bytes());
        self.connection.write_command(COM_BINLOG_DUMP, &request).await
    }

    /// Signs in as a replica that has not asked for anything yet.
    async fn connect(
        source: &ConnectOptions,
        resumed: Option<Tracker>,
        options: &DumpOptions,
    ) -> Result<Dump> {
        let mut source = source.clone();
        // Three heartbeats may get lost, as in a replica; and a server that reads a long file to
        // find its place is slow.
        source.read_timeout = Some(options.heartbeat * 3 + Duration::from_secs(30));
        let mut connection = Connection::connect(&source).await?;
        let mariadb = connection.is_mariadb();
        let period = options.heartbeat.as_nanos();
        connection
            .query(&format!(
                "SET @master_heartbeat_period = {period}, @source_heartbeat_period = {period}, \
                 @master_binlog_checksum = @@global.binlog_checksum, \
                 @source_binlog_checksum = @@global.binlog_checksum"
            ))
            .await?;
        let agreed = connection.query_values("SELECT @master_binlog_checksum").await?;
        let agreed = agreed.first().and_then(|row| row.first()?.clone());
        let checksum = match agreed.as_deref() {
            Some(b"CRC32") => Checksum::Crc32,
            _ => Checksum::None,
        };
        if mariadb {
            connection.query("SET @mariadb_slave_capability = 4").await?;
        } else {
            let uuid = options.uuid;
            connection
                .query(&format!("SET @slave_uuid = '{uuid}', @replica_uuid = '{uuid}'"))
                .await?;
        }
        let semi_sync = options.semi_sync && semi_sync_is_on(&mut connection).await?;
        if semi_sync {
            connection.query("SET @rpl_semi_sync_slave = 1, @rpl_semi_sync_replica = 1").await?;
        }
        register(&mut connection, options.server_id).await?;
        Ok(Dump {
            connection,
            mariadb,
            semi_sync,
            checksum,
            pending: None,
            file: String::new(),
            tracker: None,
            resumed,
            held: None,
            idle: (!options.follow).then_some(0),
            anywhere: false,
        })
    }

    /// Whether the server's commits wait for [`Dump::acknowledge`].
    #[must_use]
    pub fn is_semi_sync(&self) -> bool {
        self.semi_sync
    }

    /// Whether we wait for what the server will write.
    fn follows(&self) -> bool {
        self.idle.is_none()
    }

    /// The current file.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Where we are in the current file; `None` before it began.
    #[must_use]
    pub fn tracker(&self) -> Option<&Tracker> {
        self.tracker.as_ref()
    }

    /// What comes next. Every event has been checked: its checksum, and that it joins the one before.
    /// Cancelling this loses nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] if the connection breaks, the server shuts down, or it breaks the protocol;
    /// [`ErrorKind::Source`] when the server cannot read its own files;
    /// [`ErrorKind::Damaged`] for an event that is not what the server wrote.
    pub async fn next(&mut self) -> Result<Sent> {
        loop {
            if let Some(sent) = self.held.take() {
                return Ok(sent);
            }
            let packet = self.connection.read_packet().await?;
            if let Some(sent) = self.take(&packet)? {
                return Ok(sent);
            }
        }
    }

    fn take(&mut self, packet: &Bytes) -> Result<Option<Sent>> {
        const WHAT: &str = "cannot read the server's binlog";
        match packet.first() {
            Some(&EVENT) => {}
            // Where we wait for more there is no end: a server in an orderly shutdown says this.
            Some(&END) if packet.len() < 9 && self.follows() => {
                return Err(Error::new(
                    ErrorKind::Connect,
                    "the server ended the dump of its binlog, as it does when it shuts down",
                ));
            }
            Some(&END) if packet.len() < 9 => return Ok(Some(Sent::End)),
            _ => return Err(protocol("a packet that is no event", WHAT)),
        }
        let mut bytes = packet.slice(1..);
        let mut wants_ack = false;
        if self.semi_sync {
            match bytes.get(..2) {
                Some(&[SEMI_SYNC, wanted]) => wants_ack = wanted == 1,
                _ => return Err(protocol("an event without the mark of semi-sync", WHAT)),
            }
            bytes = bytes.slice(2..);
        }
        let header = Header::parse(&bytes).ok_or_else(|| protocol("an event too short", WHAT))?;
        let event = Event::check(bytes, self.checksum)
            .map_err(|e| e.context(format!("the server sent a damaged event of {}", self.file)))?;
        if header.kind == kind::FORMAT_DESCRIPTION {
            return self.file_begins(event).map(Some);
        }
        if let Some(rotate) = Rotate::parse(&event)?
            && header.is_artificial()
        {
            self.pending = Some((rotate.file, rotate.position));
            return Ok(None);
        }
        if matches!(header.kind, kind::HEARTBEAT | kind::HEARTBEAT_V2) {
            if let Some(idle) = &mut self.idle {
                *idle += 1;
                if *idle > IDLE {
                    return Err(protocol("nothing but signs of life", WHAT));
                }
            }
            return self.heartbeat(&event).map(Some);
        }
        if let Some(idle) = &mut self.idle {
            *idle = 0;
        }
        // MariaDB tells a replica of its GTIDs with events that are in no file; and to one that begins
        // behind its start, that the file was encrypted.
        let untold = header.kind == kind::MARIADB_START_ENCRYPTION && header.end == 0;
        if header.is_artificial() || untold {
            return Ok(None);
        }
        if let Some((file, _)) = &self.pending {
            return Err(protocol("an event before the first one of its file", file.clone()));
        }
        let Some(tracker) = &mut self.tracker else {
            return Err(protocol("an event before the file's first", WHAT));
        };
        let mut put_in = None;
        if self.mariadb
            && let Some(len) = hidden(tracker, &header)
        {
            put_in = Some(encryption_began(tracker, len));
            tracker.pass(len);
        }
        let at = tracker.position();
        let part = tracker.feed(&event).map_err(|e| {
            e.context(format!("the server did not send {} without a gap", self.file))
        })?;
        if let Some(resumed) = &self.resumed {
            // A file of more than 4 GiB, read again from its start.
            if tracker.position() <= resumed.position() {
                return Ok(None);
            }
            if at != resumed.position() {
                return Err(Error::damaged(format!("{} is not the file it was", self.file)));
            }
            self.resumed = None;
        }
        let sent = Sent::Event { event, part, wants_ack };
        match put_in {
            None => Ok(Some(sent)),
            Some(event) => {
                self.held = Some(sent);
                Ok(Some(Sent::Event { event, part: Part::Between, wants_ack: false }))
            }
        }
    }

    /// The FORMAT_DESCRIPTION: of the file that was named last, or of the one we asked for.
    fn file_begins(&mut self, event: Event) -> Result<Sent> {
        let format = Format::parse(event)?;
        if self.pending.is_none() && self.tracker.is_some() {
            return Err(protocol("the first event of a file twice", self.file.clone()));
        }
        self.checksum = format.checksum;
        let (name, position) = self.pending.take().unwrap_or((self.file.clone(), 4));
        self.file.clone_from(&name);
        if self.anywhere {
            return Ok(Sent::File { name, format, position });
        }
        let from_start = position <= event::MAGIC.len() as u64;
        if let Some(resumed) = &self.resumed {
            let known = resumed.format().started();
            if known != 0 && known != format.started() {
                return Err(Error::new(
                    ErrorKind::Source,
                    format!("{name} is not the file of that name that was archived"),
                )
                .with_remedy(
                    "the server began its binlogs anew (RESET BINARY LOGS, or another data \
                     directory)",
                ));
            }
            if !from_start {
                // What comes in the middle of a file has no position; the archived one is the
                // file's own.
                if position != resumed.position() {
                    return Err(protocol("another place than was asked for", name));
                }
                let tracker = self.resumed.take().expect("it was there three lines above");
                let format = tracker.format().clone();
                self.tracker = Some(tracker);
                return Ok(Sent::File { name, format, position });
            }
        } else if !from_start {
            return Err(protocol("the middle of a file that was not asked for", name));
        }
        let tracker = Tracker::begin(format.clone());
        let position = tracker.position();
        self.tracker = Some(tracker);
        let position = self.resumed.as_ref().map_or(position, Tracker::position);
        Ok(Sent::File { name, format, position })
    }

    /// A heartbeat tells where the server is: not behind us, or events were lost.
    fn heartbeat(&self, event: &Event) -> Result<Sent> {
        let (Some((file, position)), Some(tracker)) = (body::heartbeat(event), &self.tracker)
        else {
            return Ok(Sent::Heartbeat);
        };
        // Only the lower half of the position is there in version 1. Before the first event of a
        // file the server may tell of the file before.
        if file == self.file
            && self.resumed.is_none()
            && position as u32 > tracker.position() as u32
        {
            return Err(Error::damaged(format!(
                "the server is at byte {position} of {file}, and what it sent ends at {}",
                tracker.position()
            )));
        }
        Ok(Sent::Heartbeat)
    }

    /// Tells the server that everything up to here is safe; its commits wait for it.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] if the connection breaks.
    pub async fn acknowledge(&mut self) -> Result<()> {
        let Some(tracker) = &self.tracker else { return Ok(()) };
        let mut packet = vec![SEMI_SYNC];
        packet.extend(tracker.position().to_le_bytes());
        packet.extend(self.file.as_bytes());
        self.connection.write_out_of_band(&packet).await
    }
}

/// Length of the event that a MariaDB keeps to itself: the one that says that the rest of the file is
/// encrypted. It comes directly behind the first event.
fn hidden(tracker: &Tracker, next: &Header) -> Option<u64> {
    let first = (event::MAGIC.len() + tracker.format().event.bytes().len()) as u64;
    let len = ENCRYPTION_LEN + tracker.format().checksum.len() as u64;
    let end = tracker.position() + u64::from(next.len);
    (tracker.position() == first && u64::from(next.end) == end + len).then_some(len)
}

/// Header, scheme u8, version of the key u32, nonce of 12 bytes.
const ENCRYPTION_LEN: u64 = event::HEADER_LEN as u64 + 1 + 4 + 12;

/// What stands for the event that says that the file is encrypted: one without scheme and key, since
/// what we have is in the clear.
fn encryption_began(tracker: &Tracker, len: u64) -> Event {
    let header = Header {
        kind: kind::MARIADB_START_ENCRYPTION,
        end: (tracker.position() + len) as u32,
        flags: 0,
        ..*tracker.format().event.header()
    };
    let checksum = tracker.format().checksum;
    Event::build(header, &[0; ENCRYPTION_LEN as usize - event::HEADER_LEN], checksum)
}

async fn register(connection: &mut Connection, server_id: u32) -> Result<()> {
    let mut request = server_id.to_le_bytes().to_vec();
    // Host, user and password, each with its length; port, rank, id of the source.
    request.extend([0; 3 + 2 + 4 + 4]);
    connection.write_command(COM_REGISTER_REPLICA, &request).await?;
    let answer = connection.read_packet().await.map_err(|e| {
        e.context("the server does not take us for a replica")
            .with_remedy("GRANT REPLICATION SLAVE ON *.* to the account")
    })?;
    match answer.first() {
        Some(&EVENT) => Ok(()),
        _ => Err(protocol("a strange answer to COM_REGISTER_REPLICA", "cannot read the binlog")),
    }
}

/// Whether commits of the server wait for replicas.
async fn semi_sync_is_on(connection: &mut Connection) -> Result<bool> {
    let sql = "SHOW GLOBAL VARIABLES WHERE Variable_name IN \
               ('rpl_semi_sync_source_enabled', 'rpl_semi_sync_master_enabled')";
    let rows = connection.query_values(sql).await?;
    let on = |row: &Vec<Option<Bytes>>| row.get(1).is_some_and(|v| v.as_deref() == Some(b"ON"));
    Ok(rows.iter().any(on))
}
