//! A lean client for the paths where speed counts: rows as raw packets, LOAD DATA from memory, and
//! the protocols that start with a login and go on by themselves (binlog dump, clone).
//!
//! `mysql_async` turns every row into a tree of values, which costs more than the server spends on
//! reading it. Here a row stays the packet that came from the network:
//! [`RowStream::next_batch`] gives all the rows that one read brought, in one piece of memory, with
//! their places. For everything else use [`crate::connect::open`].
//!
//! A connection runs one command at a time. If a command is abandoned (its future or its
//! [`RowStream`] or [`LoadStream`] is dropped before the end), the connection is of no more use:
//! further commands fail, and dropping it closes it.
//!
//! ```no_run
//! # async fn example() -> backup_core::Result<()> {
//! use backup_drivers::{connect::ConnectOptions, wire::{Connection, Param}};
//! let options = ConnectOptions::from_url("mysql://backup@db1/")?;
//! let mut connection = Connection::connect(&options).await?;
//! connection.query("SET NAMES binary").await?;
//! let statement = connection.prepare("SELECT * FROM shop.orders WHERE id >= ?").await?;
//! let mut rows = connection.execute(&statement, &[Param::Int(1000)]).await?;
//! while let Some(batch) = rows.next_batch().await? {
//!     for row in &batch {
//!         assert_eq!(row[0], 0x00, "the header of a binary row");
//!     }
//! }
//! # Ok(()) }
//! ```

mod auth;
mod channel;
mod compress;
mod handshake;
mod load;
mod message;
mod rows;
mod statement;
#[cfg(test)]
mod tests;

use std::fmt;

use backup_core::{Error, ErrorKind, Result};
use bytes::{Bytes, BytesMut};
use mysql_common::constants::{CapabilityFlags, Command};
use tokio::net::{TcpStream, UnixStream};

use crate::connect::{
    ConnectOptions, Endpoint, KEEPALIVE, cannot_run, connect_io_error, protocol, refused_statement,
    resolve, server_error, timed_out,
};
use channel::{Channel, MAX_PACKET};

pub use channel::Stream;
pub use compress::Compression;
pub use load::LoadStream;
pub use message::OkInfo;
pub use mysql_async::Column;
pub use rows::{RowBatch, RowStream};
pub use statement::{Param, Statement};

/// The size of the server's buffer after [`Connection::widen`]; more gains nothing, because that is
/// about what a socket holds.
const WIDE: usize = 256 << 10;

/// A signed-in session.
pub struct Connection {
    channel: Channel,
    options: ConnectOptions,
    id: u32,
    version: String,
    mariadb: bool,
    capabilities: CapabilityFlags,
    tls: bool,
    /// A command is under way; still so at the start of the next one if it was abandoned.
    busy: bool,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("server", &format_args!("{}", self.options))
            .field("id", &self.id)
            .field("version", &self.version)
            .field("busy", &self.busy)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects and signs in.
    ///
    /// # Errors
    /// As [`crate::connect::open`].
    pub async fn connect(options: &ConnectOptions) -> Result<Self> {
        let connecting = async {
            let stream = dial(options).await?;
            Connection::over(stream, options).await
        };
        tokio::time::timeout(options.connect_timeout, connecting)
            .await
            .unwrap_or_else(|_| Err(timed_out(options.connect_timeout, options.cannot_connect())))
    }

    /// Signs in over a stream that leads to a server (a tunnel, say); TLS is started as `options`
    /// say.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] as [`Connection::connect`], without its time limit.
    pub async fn over(stream: Box<dyn Stream>, options: &ConnectOptions) -> Result<Self> {
        let session = handshake::sign_in(stream, options).await.map_err(|e| {
            let what = options.cannot_connect();
            // What fails in the packets below does not know where they go.
            let named = e.kind() == ErrorKind::Usage || e.to_string() == what;
            if named { e } else { e.context(what) }
        })?;
        options.opened.add(session.greeting.connection_id);
        Ok(Connection {
            channel: session.channel,
            options: options.clone(),
            id: session.greeting.connection_id,
            mariadb: session.greeting.is_mariadb(),
            version: session.greeting.version,
            capabilities: session.capabilities,
            tls: session.tls,
            busy: false,
        })
    }

    /// The connection's number on the server, as `KILL` takes it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The server's version as it greets, such as `9.7.4` or `5.5.5-10.11.19-MariaDB`.
    #[must_use]
    pub fn server_version(&self) -> &str {
        &self.version
    }

    /// Whether the server is a MariaDB.
    #[must_use]
    pub fn is_mariadb(&self) -> bool {
        self.mariadb
    }

    /// Whether the connection runs over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// A handle that stops what this connection does, from elsewhere.
    #[must_use]
    pub fn kill_handle(&self) -> KillHandle {
        KillHandle { options: self.options.clone(), id: self.id }
    }

    /// Runs a statement and drops its rows, if any.
    ///
    /// # Errors
    /// The server's, with the statement, of the kind of
    /// [`kind_of_server_error`](crate::connect::kind_of_server_error); [`ErrorKind::Connect`] if
    /// the connection breaks.
    pub async fn query(&mut self, sql: &str) -> Result<OkInfo> {
        let first = self.command(Command::COM_QUERY as u8, sql.as_bytes(), sql).await?;
        match first.first() {
            Some(&message::OK) => self.finished(&first),
            Some(&message::LOCAL_INFILE) => Err(protocol("it asks for a file", cannot_run(sql))),
            _ => {
                let mut rows = RowStream::start(self, &first, false, sql).await?;
                while rows.next_batch().await?.is_some() {}
                Ok(rows.into_info())
            }
        }
    }

    /// Runs a query; the rows come in the text protocol: each value is NULL (0xfb) or a
    /// length-encoded string. See [`RowBatch`] and [`Connection::query_values`].
    ///
    /// # Errors
    /// As [`Connection::query`]; also if the statement has no result set.
    pub async fn query_rows(&mut self, sql: &str) -> Result<RowStream<'_>> {
        let first = self.command(Command::COM_QUERY as u8, sql.as_bytes(), sql).await?;
        self.result_set(&first, false, sql).await
    }

    /// Runs a query for a handful of rows, as text; NULL is `None`.
    ///
    /// # Errors
    /// As [`Connection::query_rows`].
    pub async fn query_values(&mut self, sql: &str) -> Result<Vec<Vec<Option<Bytes>>>> {
        let mut rows = self.query_rows(sql).await?;
        let mut values = Vec::new();
        while let Some(row) = rows.next().await? {
            values.push(rows.text_values(&row)?);
        }
        Ok(values)
    }

    /// Prepares a statement, for [`Connection::execute`].
    ///
    /// # Errors
    /// As [`Connection::query`].
    pub async fn prepare(&mut self, sql: &str) -> Result<Statement> {
        let first = self.command(Command::COM_STMT_PREPARE as u8, sql.as_bytes(), sql).await?;
        let statement = Statement::read(self, &first, sql).await?;
        self.busy = false;
        Ok(statement)
    }

    /// Runs a prepared statement that gives rows; they come in the binary protocol: each begins
    /// with 0x00 and a bitmap of the NULLs, shifted by two.
    ///
    /// # Errors
    /// As [`Connection::query`]; [`ErrorKind::Internal`] if the number of parameters is wrong.
    pub async fn execute(
        &mut self,
        statement: &Statement,
        params: &[Param<'_>],
    ) -> Result<RowStream<'_>> {
        let request = statement.request(params)?;
        let sql = statement.sql();
        let first = self.command(Command::COM_STMT_EXECUTE as u8, &request, sql).await?;
        self.result_set(&first, true, sql).await
    }

    /// Frees a prepared statement on the server. The server does not answer.
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn close_statement(&mut self, statement: Statement) -> Result<()> {
        self.idle()?;
        self.write_command(Command::COM_STMT_CLOSE as u8, &statement.id().to_le_bytes()).await
    }

    /// Makes the server send rows in pieces of up to 256 KiB instead of 16 KiB
    /// (`net_buffer_length`), for as long as the connection lives: about a third less CPU on the
    /// server, and two thirds less here, for a large table.
    ///
    /// `net_buffer_length` itself cannot be set for a session; but the server reads and writes
    /// with one buffer, which grows when it receives a long packet and does not shrink again. So
    /// this sends it one: a ping, whose argument both servers ignore and nobody logs.
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn widen(&mut self) -> Result<()> {
        const SQL: &str = "SELECT @@SESSION.max_allowed_packet";
        let limit = self.query_values(SQL).await?;
        let limit = limit.first().and_then(|row| row.first()?.as_deref());
        let limit = limit.and_then(|text| std::str::from_utf8(text).ok()?.parse::<usize>().ok());
        // A packet that is longer than the server allows would cost the connection.
        let size = WIDE.min(limit.unwrap_or(0) / 2);
        let answer = self.command(Command::COM_PING as u8, &vec![0; size], "PING").await?;
        self.finished(&answer).map(drop)
    }

    /// Starts `LOAD DATA LOCAL INFILE 'any name' INTO TABLE …`, whose data the caller writes into
    /// the stream. The server must have `local_infile` on.
    ///
    /// # Errors
    /// As [`Connection::query`]; [`ErrorKind::Internal`] if the statement does not ask for data.
    pub async fn start_load(&mut self, sql: &str) -> Result<LoadStream<'_>> {
        let first = self.command(Command::COM_QUERY as u8, sql.as_bytes(), sql).await?;
        match first.first() {
            Some(&message::LOCAL_INFILE) => Ok(LoadStream::new(self, sql)),
            Some(&message::OK) => {
                self.finished(&first)?;
                Err(Error::internal(format!("{}: it asks for no data", cannot_run(sql))))
            }
            _ => Err(Error::internal(format!("{}: it asks for no data", cannot_run(sql)))),
        }
    }

    /// Signs off. Dropping the connection closes it too, without the farewell.
    pub async fn close(mut self) {
        if !self.busy {
            // The server may have gone already; there is nothing left to lose.
            let _ = self.write_command(Command::COM_QUIT as u8, &[]).await;
        }
        self.channel.shutdown().await;
    }

    /// Sends a command of another protocol (binlog dump, clone), with sequence number 0. What the
    /// server answers is read with [`Connection::read_packet`].
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] if the connection breaks, with the server's parting word if it sent
    /// one.
    pub async fn write_command(&mut self, command: u8, argument: &[u8]) -> Result<()> {
        if argument.len() >= MAX_PACKET {
            return Err(Error::internal("a command is longer than 1 GiB"));
        }
        self.channel.set_sequence(Some(0));
        let mut packet = BytesMut::with_capacity(1 + argument.len());
        packet.extend_from_slice(&[command]);
        packet.extend_from_slice(argument);
        self.channel.write(&packet).await
    }

    /// Sends a packet that is no answer to the last one, with sequence number 0, as semi-sync
    /// acknowledgements are. The server's next packet may carry any number.
    ///
    /// # Errors
    /// As [`Connection::write_command`].
    pub async fn write_out_of_band(&mut self, payload: &[u8]) -> Result<()> {
        self.channel.set_sequence(Some(0));
        self.channel.write(payload).await?;
        self.channel.set_sequence(None);
        Ok(())
    }

    /// The server's next packet, whatever it is, put together from its parts.
    ///
    /// Cancelling this loses nothing: the next call goes on where it was.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`] if the connection breaks or the server breaks the protocol; a packet
    /// with the server's error (0xff) becomes that error.
    pub async fn read_packet(&mut self) -> Result<Bytes> {
        let packet = self.channel.read().await?;
        match message::server_error(&packet) {
            Some(e) => Err(server_error(e, format!("{} reports an error", self.options))),
            None => Ok(packet),
        }
    }

    /// As [`Connection::read_packet`], where each packet of the answer begins again with sequence number
    /// 0, as those of clones do.
    ///
    /// # Errors
    /// As [`Connection::read_packet`].
    pub async fn read_restarted(&mut self) -> Result<Bytes> {
        self.channel.set_sequence(None);
        self.read_packet().await
    }

    fn idle(&self) -> Result<()> {
        if self.busy {
            return Err(Error::new(
                ErrorKind::Connect,
                format!("the connection to {} was left in the middle of a statement", self.options),
            ));
        }
        Ok(())
    }

    /// Sends a command and reads the first packet of its answer, which is not an error.
    async fn command(&mut self, command: u8, argument: &[u8], sql: &str) -> Result<Bytes> {
        self.idle()?;
        self.busy = true;
        let answer = match self.write_command(command, argument).await {
            Ok(()) => self.channel.read().await,
            Err(e) => Err(e),
        };
        let answer = answer.map_err(|e| e.context(cannot_run(sql)))?;
        self.check(&answer, sql)?;
        Ok(answer)
    }

    /// An error packet ends a command.
    fn check(&mut self, packet: &[u8], sql: &str) -> Result<()> {
        match message::server_error(packet) {
            Some(e) => {
                self.busy = false;
                Err(refused_statement(e, sql, cannot_run(sql)))
            }
            None => Ok(()),
        }
    }

    /// An OK ends a command.
    fn finished(&mut self, ok: &[u8]) -> Result<OkInfo> {
        let info = message::ok(ok, self.capabilities)?;
        self.busy = false;
        Ok(info)
    }

    async fn result_set(&mut self, first: &[u8], binary: bool, sql: &str) -> Result<RowStream<'_>> {
        if first.first() == Some(&message::OK) {
            self.finished(first)?;
            return Err(Error::internal(format!("{}: it gives no rows", cannot_run(sql))));
        }
        RowStream::start(self, first, binary, sql).await
    }
}

/// Stops what a connection does, over a connection of its own.
#[derive(Debug, Clone)]
pub struct KillHandle {
    options: ConnectOptions,
    id: u32,
}

impl KillHandle {
    /// Stops the running statement; the connection stays.
    ///
    /// # Errors
    /// As [`Connection::connect`] and [`Connection::query`].
    pub async fn kill_query(&self) -> Result<()> {
        self.run(&format!("KILL QUERY {}", self.id)).await
    }

    /// Ends the connection, and with it every lock it holds.
    ///
    /// # Errors
    /// As [`KillHandle::kill_query`].
    pub async fn kill_connection(&self) -> Result<()> {
        self.run(&format!("KILL {}", self.id)).await
    }

    async fn run(&self, sql: &str) -> Result<()> {
        let mut connection = Connection::connect(&self.options).await?;
        connection.query(sql).await?;
        connection.close().await;
        Ok(())
    }
}

async fn dial(options: &ConnectOptions) -> Result<Box<dyn Stream>> {
    let failed = |e| connect_io_error(e, options.cannot_connect());
    match &options.endpoint {
        Endpoint::Socket(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(failed)?)),
        Endpoint::Tcp { host, port } => {
            let addresses: Vec<_> = resolve(options, host, *port)
                .await?
                .into_iter()
                .map(|address| (address, *port).into())
                .collect();
            let stream = TcpStream::connect(&*addresses).await.map_err(failed)?;
            stream.set_nodelay(true).map_err(failed)?;
            socket2::SockRef::from(&stream)
                .set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEPALIVE))
                .map_err(failed)?;
            Ok(Box::new(stream))
        }
    }
}
