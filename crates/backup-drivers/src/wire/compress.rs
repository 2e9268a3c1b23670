//! The compressed protocol: packets of the protocol, put into packets of another that are compressed.
//!
//! Such a packet is `len u24 LE, seq u8, uncompressed len u24 LE, payload`, as MySQL's documentation has it under
//! "Compression"; an uncompressed length of 0 says that the payload is as it is. Where one packet of the inside ends
//! has nothing to do with where one of the outside does. Their numbers begin at 0 with each command. Those of the
//! packets inside then say nothing: a server sets them to those of the outside whenever it sends.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::str::FromStr;
use std::task::{Context, Poll, ready};

use backup_core::Error;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::bufread::ZlibDecoder;
use flate2::write::ZlibEncoder;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;
use zstd::bulk::{Compressor, Decompressor};

use super::channel::Stream;

const HEADER: usize = 7;
/// As much is compressed at once.
const PIECE: usize = 256 << 10;
/// Fewer bytes are sent as they are, as the servers do it.
const SHORT: usize = 50;
/// What is read at once.
const BLOCK: usize = 256 << 10;

/// How what goes over a connection is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// zlib, which every server knows.
    Zlib,
    /// zstd, which MySQL knows from 8.0.18, with the level at which the server compresses, 1 to 22.
    Zstd(u8),
}

impl Compression {
    /// The level of zstd where none is named, as of the servers' own clients.
    const LEVEL: u8 = 3;
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::usage(format!("compression cannot be `{text}`"))
                .with_remedy("use zlib, zstd, or zstd:LEVEL with a level from 1 to 22")
        };
        match text.split_once(':') {
            None if text == "zlib" => Ok(Compression::Zlib),
            None if text == "zstd" => Ok(Compression::Zstd(Compression::LEVEL)),
            Some(("zstd", level)) => {
                let level = level.parse().ok().filter(|level| (1..=22).contains(level));
                level.map(Compression::Zstd).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Compression::Zlib => f.write_str("zlib"),
            Compression::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

/// What compresses and decompresses; zstd keeps its tables from packet to packet.
enum Codec {
    Zlib,
    Zstd { compressor: Box<Compressor<'static>>, decompressor: Box<Decompressor<'static>> },
}

impl Codec {
    fn new(compression: Compression) -> io::Result<Self> {
        Ok(match compression {
            Compression::Zlib => Codec::Zlib,
            Compression::Zstd(level) => Codec::Zstd {
                compressor: Box::new(Compressor::new(level.into())?),
                decompressor: Box::new(Decompressor::new()?),
            },
        })
    }

    fn compress(&mut self, raw: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Codec::Zlib => {
                let mut encoder = ZlibEncoder::new(Vec::new(), flate2::Compression::default());
                io::Write::write_all(&mut encoder, raw)?;
                encoder.finish()
            }
            Codec::Zstd { compressor, .. } => compressor.compress(raw),
        }
    }

    /// At most one byte more than `raw_len`, so that what is too long shows.
    fn decompress(&mut self, payload: &[u8], raw_len: usize) -> io::Result<Vec<u8>> {
        let raw = match self {
            Codec::Zlib => {
                let mut raw = Vec::new();
                let mut limited = io::Read::take(ZlibDecoder::new(payload), raw_len as u64 + 1);
                io::Read::read_to_end(&mut limited, &mut raw).map(|_| raw)
            }
            Codec::Zstd { decompressor, .. } => decompressor.decompress(payload, raw_len),
        };
        raw.map_err(|_| broken("a compressed packet cannot be decompressed"))
    }
}

/// A stream inside of which everything is compressed.
pub(super) struct Compressed {
    stream: Box<dyn Stream>,
    codec: Codec,
    /// The number of the next packet that is sent.
    seq: u8,
    /// What came, compressed.
    input: BytesMut,
    /// What came, and was not read yet.
    read: Bytes,
    /// What is to be sent, and not compressed yet.
    waiting: BytesMut,
    /// What is to be sent, compressed.
    output: BytesMut,
}

fn broken(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

impl Compressed {
    pub(super) fn new(stream: Box<dyn Stream>, compression: Compression) -> io::Result<Self> {
        Ok(Compressed {
            stream,
            codec: Codec::new(compression)?,
            seq: 0,
            input: BytesMut::new(),
            read: Bytes::new(),
            waiting: BytesMut::new(),
            output: BytesMut::new(),
        })
    }

    /// A command begins.
    pub(super) fn restart(&mut self) {
        self.seq = 0;
    }

    /// Takes a packet off what came; `None` if there is not a whole one.
    fn take(&mut self) -> io::Result<Option<Bytes>> {
        let Some(&[a, b, c, seq, d, e, f]) = self.input.first_chunk() else { return Ok(None) };
        let len = u32::from_le_bytes([a, b, c, 0]) as usize;
        let raw_len = u32::from_le_bytes([d, e, f, 0]) as usize;
        if len == 0 {
            // Any number of them would keep us busy with nothing.
            return Err(broken("a compressed packet is empty"));
        }
        if self.input.len() < HEADER + len {
            return Ok(None);
        }
        self.input.advance(HEADER);
        let payload = self.input.split_to(len).freeze();
        // The stream keeps the order; what is sent next is counted from here.
        self.seq = seq.wrapping_add(1);
        if raw_len == 0 {
            return Ok(Some(payload));
        }
        let raw = self.codec.decompress(&payload, raw_len)?;
        match raw.len() == raw_len {
            true => Ok(Some(raw.into())),
            false => Err(broken("a compressed packet is shorter than it says")),
        }
    }

    /// Makes one packet of what waits.
    fn pack(&mut self) -> io::Result<()> {
        let raw = self.waiting.split_to(self.waiting.len().min(PIECE));
        let compressed = match raw.len() {
            ..SHORT => None,
            _ => Some(self.codec.compress(&raw)?),
        };
        let compressed = compressed.filter(|compressed| compressed.len() < raw.len());
        let (payload, raw_len) = match &compressed {
            Some(compressed) => (&compressed[..], raw.len()),
            None => (&raw[..], 0),
        };
        self.output.reserve(HEADER + payload.len());
        self.output.put_uint_le(payload.len() as u64, 3);
        self.output.put_u8(self.seq);
        self.output.put_uint_le(raw_len as u64, 3);
        self.output.extend_from_slice(payload);
        self.seq = self.seq.wrapping_add(1);
        Ok(())
    }

    /// Sends what is compressed.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.output))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(sent);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Compressed {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        target: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.read.is_empty() {
            if let Some(raw) = this.take()? {
                this.read = raw;
                break;
            }
            // The memory grows with what comes, not with what a header announces.
            this.input.reserve(BLOCK);
            let stream = Pin::new(&mut this.stream);
            let came = ready!(poll_read_buf(stream, cx, &mut this.input))?;
            if came == 0 {
                return Poll::Ready(match this.input.is_empty() {
                    true => Ok(()),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                });
            }
        }
        let len = this.read.len().min(target.remaining());
        target.put_slice(&this.read.split_to(len));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Compressed {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.waiting.len() >= PIECE {
            ready!(this.poll_send(cx))?;
            this.pack()?;
        }
        let len = bytes.len().min(PIECE - this.waiting.len());
        this.waiting.extend_from_slice(&bytes[..len]);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            ready!(this.poll_send(cx))?;
            if this.waiting.is_empty() {
                break;
            }
            this.pack()?;
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().poll_flush(cx))?;
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
