//! LOAD DATA LOCAL INFILE, fed from memory.

use backup_core::Result;
use bytes::{Bytes, BytesMut};

use super::message::OkInfo;
use super::{Connection, message};
use crate::connect::{cannot_run, protocol, server_error};

/// The payload of one packet of data: far below 16 MiB, because `max_allowed_packet` of the server
/// limits it, and large enough that the system calls do not count.
const PACKET: usize = 256 << 10;
/// What is shorter is gathered; copying is cheaper than a system call each.
const SMALL: usize = 64 << 10;

/// The data of a LOAD DATA LOCAL statement, as it is written.
///
/// Dropping it before [`LoadStream::finish`] makes the connection useless; when the connection is
/// dropped then, the server fails the statement and rolls it back (in a transactional table).
#[derive(Debug)]
pub struct LoadStream<'a> {
    connection: &'a mut Connection,
    sql: String,
    gathered: BytesMut,
}

impl<'a> LoadStream<'a> {
    pub(super) fn new(connection: &'a mut Connection, sql: &str) -> Self {
        LoadStream { connection, sql: sql.to_owned(), gathered: BytesMut::new() }
    }

    /// Sends data; where one piece ends and the next begins is of no importance. Pieces of 64 KiB
    /// and more go out as they are, without being copied.
    ///
    /// # Errors
    /// [`ErrorKind::Connect`](backup_core::ErrorKind::Connect) if the connection breaks. The
    /// server's own error as soon as it sends it; for most failures (a broken value, a duplicate
    /// key) it first reads all the data, so that [`LoadStream::finish`] reports them.
    pub async fn write(&mut self, data: Bytes) -> Result<()> {
        if data.len() < SMALL {
            self.gathered.extend_from_slice(&data);
            if self.gathered.len() < PACKET {
                return Ok(());
            }
        }
        self.send_gathered().await?;
        if data.len() >= SMALL {
            self.send(&data).await?;
        }
        Ok(())
    }

    async fn send_gathered(&mut self) -> Result<()> {
        let gathered = std::mem::take(&mut self.gathered);
        self.send(&gathered).await?;
        self.gathered = gathered;
        self.gathered.clear();
        Ok(())
    }

    async fn send(&mut self, data: &[u8]) -> Result<()> {
        let what = || cannot_run(&self.sql);
        let channel = &mut self.connection.channel;
        for packet in data.chunks(PACKET) {
            if let Some(e) = channel.read_unasked().await.map_err(|e| e.context(what()))? {
                return Err(server_error(e, what()));
            }
            channel.write_part(packet).await.map_err(|e| e.context(what()))?;
        }
        Ok(())
    }

    /// Ends the data and waits until the server has taken it in.
    ///
    /// # Errors
    /// The server's, with the statement; the kinds are those of [`Connection::query`].
    pub async fn finish(mut self) -> Result<OkInfo> {
        self.send_gathered().await?;
        let what = || cannot_run(&self.sql);
        let channel = &mut self.connection.channel;
        channel.write(&[]).await.map_err(|e| e.context(what()))?;
        let answer = channel.read().await.map_err(|e| e.context(what()))?;
        self.connection.check(&answer, &self.sql)?;
        if answer.first() != Some(&message::OK) {
            return Err(protocol("no OK after the data", what()));
        }
        self.connection.finished(&answer)
    }
}
