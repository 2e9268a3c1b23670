//! Packets over a byte stream.
//!
//! A packet is `len u24 LE, seq u8, payload`; a payload of 0xffffff bytes or more goes in parts of
//! 0xffffff with a last shorter (maybe empty) one. `seq` starts at 0 with each command and counts
//! the packets of both directions, modulo 256.

use std::fmt;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use backup_core::{Error, ErrorKind, Result, ServerError, io_error};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::compress::{Compressed, Compression};
use super::message;
use crate::connect::{io_failure, lost, protocol, timed_out};

/// The longest payload of one packet; as long as this means that another part follows.
pub(super) const PART: usize = 0xff_ffff;
/// What is read at once, if the stream gives as much.
const BLOCK: usize = 512 << 10;
/// Less room than this is not worth a system call.
const MIN_ROOM: usize = 64 << 10;
/// A longer packet gets memory of its own, so that the buffer stays small.
const LONG: usize = 1 << 20;
/// The longest packet that either server sends or takes (max_allowed_packet's upper bound).
pub(super) const MAX_PACKET: usize = 1 << 30;

const READ: &str = "cannot read from the server";
const WRITE: &str = "cannot write to the server";

/// What the protocol runs over: TCP, TLS, a Unix socket; in tests a pipe in memory.
pub trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// What packets go through.
enum Line {
    Plain(Box<dyn Stream>),
    Compressed(Compressed),
}

impl Line {
    fn stream(&mut self) -> &mut dyn Stream {
        match self {
            Line::Plain(stream) => stream,
            Line::Compressed(stream) => stream,
        }
    }
}

/// Reads and writes packets.
pub(super) struct Channel {
    line: Line,
    input: BytesMut,
    /// A long packet under way. It is kept here so that a cancelled read loses nothing.
    long: Option<Long>,
    /// The number that the next packet of either side must carry; unknown after an out-of-band
    /// packet.
    seq: Option<u8>,
    read_timeout: Option<Duration>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("seq", &self.seq).finish_non_exhaustive()
    }
}

struct Long {
    payload: BytesMut,
    /// What the current part still lacks.
    missing: usize,
    /// Another part follows the current one.
    continued: bool,
}

/// One packet's header.
struct Header {
    len: usize,
    seq: u8,
}

impl Header {
    const LEN: usize = 4;

    fn parse(bytes: &[u8]) -> Option<Header> {
        let [a, b, c, seq, ..] = *bytes else { return None };
        Some(Header { len: u32::from_le_bytes([a, b, c, 0]) as usize, seq })
    }
}

impl Long {
    fn new(header: &Header) -> Self {
        Long { payload: BytesMut::new(), missing: header.len, continued: header.len == PART }
    }
}

fn out_of_order() -> Error {
    protocol("a packet is out of order", READ)
}

/// Reads at least one byte.
async fn read_some(
    stream: &mut dyn Stream,
    target: &mut impl BufMut,
    limit: Option<Duration>,
) -> Result<usize> {
    let read = stream.read_buf(target);
    let count = match limit {
        None => read.await,
        Some(limit) => {
            tokio::time::timeout(limit, read).await.map_err(|_| timed_out(limit, READ))?
        }
    };
    match count {
        Ok(0) => Err(lost(READ)),
        Ok(count) => Ok(count),
        Err(e) => Err(io_failure(e, READ)),
    }
}

impl Channel {
    pub(super) fn new(stream: Box<dyn Stream>, read_timeout: Option<Duration>) -> Self {
        let line = Line::Plain(stream);
        Channel { line, input: BytesMut::new(), long: None, seq: Some(0), read_timeout }
    }

    /// Has everything from here on compressed. What is in the buffer came before.
    pub(super) fn compress(self, compression: Compression) -> Result<Self> {
        let read_timeout = self.read_timeout;
        let compressed = Compressed::new(self.into_stream()?, compression)
            .map_err(|e| io_error(e, ErrorKind::Internal, "cannot compress a connection"))?;
        let line = Line::Compressed(compressed);
        Ok(Channel { line, input: BytesMut::new(), long: None, seq: None, read_timeout })
    }

    /// Takes the stream out, to wrap it (TLS, compression). What is in the buffer was sent before and must
    /// not be taken for something that came through the wrapper.
    pub(super) fn into_stream(self) -> Result<Box<dyn Stream>> {
        match self.line {
            Line::Plain(stream) if self.input.is_empty() => Ok(stream),
            Line::Plain(_) => Err(protocol("it sent bytes before their turn", READ)),
            Line::Compressed(_) => Err(Error::internal("a compressed connection is wrapped")),
        }
    }

    pub(super) fn sequence(&self) -> Option<u8> {
        self.seq
    }

    /// The number that the next packet of either side has. Numbers inside of compressed packets say nothing;
    /// of those of the outside one knows only where they begin.
    pub(super) fn set_sequence(&mut self, seq: Option<u8>) {
        match &mut self.line {
            Line::Plain(_) => self.seq = seq,
            Line::Compressed(stream) if seq == Some(0) => stream.restart(),
            Line::Compressed(_) => {}
        }
    }

    /// Reads at least one byte into the buffer, room for `wanted` more being made first.
    async fn fill(&mut self, wanted: usize) -> Result<()> {
        let room = self.input.capacity() - self.input.len();
        if room < wanted.max(MIN_ROOM) {
            // Moves what is left to the front if no batch holds on to the memory any more.
            self.input.reserve(wanted.max(BLOCK));
        }
        read_some(self.line.stream(), &mut self.input, self.read_timeout).await.map(drop)
    }

    /// The number that comes after that of a packet.
    fn next(&self, header: &Header) -> Option<u8> {
        match self.line {
            Line::Plain(_) => Some(header.seq.wrapping_add(1)),
            Line::Compressed(_) => None,
        }
    }

    /// Takes a header off the buffer; false if its number is not the one that is due.
    fn take(&mut self, header: &Header) -> bool {
        self.input.advance(Header::LEN);
        let in_order = self.seq.is_none_or(|expected| expected == header.seq);
        self.seq = self.next(header);
        in_order
    }

    /// The next packet, put together from its parts. Cancelling this loses nothing.
    pub(super) async fn read(&mut self) -> Result<Bytes> {
        while self.long.is_none() {
            let missing = match Header::parse(&self.input) {
                None => Header::LEN,
                Some(header) if header.len > LONG => {
                    if !self.take(&header) {
                        return Err(out_of_order());
                    }
                    self.long = Some(Long::new(&header));
                    break;
                }
                Some(header) => {
                    let end = Header::LEN + header.len;
                    if end <= self.input.len() {
                        let in_order = self.take(&header);
                        let payload = self.input.split_to(header.len).freeze();
                        // A server that gives up on an idle client says so unasked, with number 0.
                        return if in_order || payload.first() == Some(&message::ERR) {
                            Ok(payload)
                        } else {
                            Err(out_of_order())
                        };
                    }
                    end - self.input.len()
                }
            };
            self.fill(missing).await?;
        }
        self.read_long().await
    }

    /// The rest of a long packet. The memory grows with what really arrives, not with what a
    /// header announces.
    async fn read_long(&mut self) -> Result<Bytes> {
        while let Some(long) = &mut self.long {
            if long.missing > 0 && !self.input.is_empty() {
                let buffered = self.input.split_to(long.missing.min(self.input.len()));
                long.payload.extend_from_slice(&buffered);
                long.missing -= buffered.len();
            } else if long.missing > 0 {
                long.payload.reserve(long.missing.min(BLOCK));
                let mut target = (&mut long.payload).limit(long.missing);
                long.missing -=
                    read_some(self.line.stream(), &mut target, self.read_timeout).await?;
            } else if !long.continued {
                break;
            } else if let Some(header) = Header::parse(&self.input) {
                if long.payload.len() + header.len > MAX_PACKET {
                    return Err(protocol("a packet is longer than 1 GiB", READ));
                }
                (long.missing, long.continued) = (header.len, header.len == PART);
                if !self.take(&header) {
                    return Err(out_of_order());
                }
            } else {
                self.fill(Header::LEN).await?;
            }
        }
        Ok(self.long.take().map(|long| long.payload.freeze()).unwrap_or_default())
    }

    /// Every row packet that has arrived, waiting for at least one packet; `None` if the next
    /// packet is no row, or too long for this way: then [`Channel::read`] gives it.
    ///
    /// The end of a result set begins with 0xfe and an error with 0xff, which a row of less than
    /// 16 MiB never does: in the binary protocol it begins with 0, in the text protocol 0xfe
    /// announces a value of at least 16 MiB.
    pub(super) async fn read_rows(&mut self, rows: &mut Vec<(u32, u32)>) -> Result<Option<Bytes>> {
        if self.long.is_some() {
            return Ok(None);
        }
        loop {
            let mut at = 0;
            let mut expected = self.seq;
            while let Some(header) = Header::parse(&self.input[at..]) {
                let start = at + Header::LEN;
                let fits = header.len <= LONG && expected.is_none_or(|seq| seq == header.seq);
                match self.input.get(start) {
                    // Something else than a row, or wrong: not our business here.
                    _ if !fits || header.len == 0 => {
                        if at == 0 {
                            return Ok(None);
                        }
                        break;
                    }
                    Some(&(message::EOF | message::ERR)) => {
                        if at == 0 {
                            return Ok(None);
                        }
                        break;
                    }
                    Some(_) if self.input.len() >= start + header.len => {
                        rows.push((start as u32, header.len as u32));
                        expected = self.next(&header);
                        at = start + header.len;
                    }
                    _ => break,
                }
            }
            if at > 0 {
                self.seq = expected;
                return Ok(Some(self.input.split_to(at).freeze()));
            }
            let wanted = Header::parse(&self.input)
                .map_or(Header::LEN, |h| (Header::LEN + h.len).saturating_sub(self.input.len()));
            self.fill(wanted).await?;
        }
    }

    /// Sends one packet (in parts, if it is that long).
    pub(super) async fn write(&mut self, payload: &[u8]) -> Result<()> {
        let mut rest = payload;
        loop {
            let (part, more) = rest.split_at(rest.len().min(PART));
            self.write_part(part).await?;
            rest = more;
            if part.len() < PART {
                break;
            }
        }
        self.flush().await
    }

    /// Sends a packet of less than [`PART`] bytes, header and payload in one system call where the
    /// stream can, without copying, and without flushing.
    pub(super) async fn write_part(&mut self, payload: &[u8]) -> Result<()> {
        let [a, b, c, _] = (payload.len() as u32).to_le_bytes();
        let seq = self.seq.unwrap_or(0);
        let header = [a, b, c, seq];
        self.seq = self.next(&Header { len: payload.len(), seq });
        let mut packet = Buf::chain(&header[..], payload);
        let sent = AsyncWriteExt::write_all_buf(&mut self.line.stream(), &mut packet).await;
        match sent {
            Ok(()) => Ok(()),
            Err(e) => Err(self.farewell().await.unwrap_or_else(|| io_failure(e, WRITE))),
        }
    }

    pub(super) async fn flush(&mut self) -> Result<()> {
        match AsyncWriteExt::flush(&mut self.line.stream()).await {
            Ok(()) => Ok(()),
            Err(e) => Err(self.farewell().await.unwrap_or_else(|| io_failure(e, WRITE))),
        }
    }

    /// A server that ends a session mostly says why before it closes the connection. That is worth
    /// more than "broken pipe".
    async fn farewell(&mut self) -> Option<Error> {
        let last = tokio::time::timeout(Duration::from_secs(1), self.read()).await.ok()?.ok()?;
        message::server_error(&last).map(|e| crate::connect::server_error(e, WRITE))
    }

    /// What the server has sent unasked, without waiting for it: `None` if nothing.
    pub(super) async fn read_unasked(&mut self) -> Result<Option<ServerError>> {
        if self.input.is_empty() {
            let mut bytes = [0; 512];
            let mut target = ReadBuf::new(&mut bytes);
            let stream = self.line.stream();
            let ready = std::future::poll_fn(|cx| {
                Poll::Ready(match Pin::new(&mut *stream).poll_read(cx, &mut target) {
                    Poll::Ready(result) => Some(result),
                    Poll::Pending => None,
                })
            });
            match ready.await {
                None => return Ok(None),
                Some(Err(e)) => return Err(io_failure(e, READ)),
                Some(Ok(())) if target.filled().is_empty() => return Err(lost(READ)),
                Some(Ok(())) => self.input.extend_from_slice(target.filled()),
            }
        }
        match message::server_error(&self.read().await?) {
            Some(error) => Ok(Some(error)),
            None => Err(protocol("it answered before its turn", READ)),
        }
    }

    /// Closes the sending side; the server sees the end of the connection.
    pub(super) async fn shutdown(mut self) {
        // The peer may have closed already, which is what is wanted.
        let _ = AsyncWriteExt::shutdown(&mut self.line.stream()).await;
    }
}
