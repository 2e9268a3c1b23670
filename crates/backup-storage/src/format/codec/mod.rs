//! Codecs: how the bytes of a frame are compressed.

mod compression;
mod context;
mod pool;

use std::io::{BufRead, Read, Write};

use backup_core::{Error, Result};
use bytes::Bytes;

pub use compression::Compression;

use super::frame::DeltaLengths;

/// A codec as a frame names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// The bytes themselves.
    None = 0,
    /// One Zstandard frame (RFC 8878).
    Zstd = 1,
    /// One LZ4 block, without the LZ4 frame format around it.
    Lz4 = 2,
    /// One gzip member (RFC 1952).
    Gzip = 3,
    /// One xz stream.
    Xz = 4,
    /// One bzip2 stream. Read, never written.
    Bzip2 = 5,
}

impl Codec {
    /// All of them.
    pub const ALL: [Codec; 6] =
        [Codec::None, Codec::Zstd, Codec::Lz4, Codec::Gzip, Codec::Xz, Codec::Bzip2];

    /// The codec of a number; `Err` says which one it is that this build does not have.
    pub(super) fn from_number(number: u8) -> Result<Self, String> {
        Codec::ALL
            .into_iter()
            .find(|codec| *codec as u8 == number)
            .ok_or_else(|| format!("codec {number}"))
    }
}

/// Bytes ready to become the payload of a frame.
#[derive(Debug, Clone)]
pub struct Packed {
    /// How they are compressed.
    pub codec: Codec,
    /// Their length before.
    pub raw_len: u32,
    /// Where they are a delta: the lengths of the base and of the list of its parts, with which
    /// `stored` begins.
    pub delta: Option<DeltaLengths>,
    /// The payload.
    pub stored: Bytes,
}

/// Compresses `raw`, or leaves it as it is where that gains nothing.
///
/// # Errors
/// When the compressor cannot be set up (out of memory).
pub fn compress(compression: Compression, raw: Bytes) -> Result<Packed> {
    let raw_len = u32::try_from(raw.len())
        .map_err(|_| Error::internal(format!("a frame of {} bytes", raw.len())))?;
    let (codec, smaller) = match compression {
        Compression::None => {
            return Ok(Packed { codec: Codec::None, raw_len, delta: None, stored: raw });
        }
        Compression::Auto => (Codec::Zstd, context::compress(&raw, 1)),
        Compression::Zstd(level) => (Codec::Zstd, context::compress(&raw, level)),
        Compression::Lz4 => (Codec::Lz4, Ok(lz4_flex::block::compress(&raw))),
        Compression::Gzip(level) => (Codec::Gzip, gzip(&raw, level)),
        Compression::Xz(preset) => (Codec::Xz, xz(&raw, preset)),
    };
    let mut smaller = smaller.map_err(|e| {
        Error::internal(format!("{compression} cannot compress a frame")).with_source(e)
    })?;
    if smaller.len() < raw.len() {
        // What is kept until its pack is stored takes no more than is accounted for.
        smaller.shrink_to_fit();
        return Ok(Packed { codec, raw_len, delta: None, stored: smaller.into() });
    }
    Ok(Packed { codec: Codec::None, raw_len, delta: None, stored: raw })
}

fn gzip(raw: &[u8], level: u8) -> std::io::Result<Vec<u8>> {
    let mut encoder =
        flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(u32::from(level)));
    encoder.write_all(raw)?;
    encoder.finish()
}

fn xz(raw: &[u8], preset: u8) -> std::io::Result<Vec<u8>> {
    use liblzma::stream::{Check, Filters, LzmaOptions, Stream};
    let preset = u32::from(preset);
    // The presets come with dictionaries of up to 64 MiB. More than the frame is no use to anybody,
    // and the reader would have to reserve it too.
    let dictionary = xz_dictionary(raw.len()).min(match preset {
        0 => 256 << 10,
        1 => 1 << 20,
        2 => 2 << 20,
        3 | 4 => 4 << 20,
        _ => 8 << 20,
    });
    let mut options = LzmaOptions::new_preset(preset)?;
    options.dict_size(dictionary);
    let stream = Stream::new_stream_encoder(Filters::new().lzma2(&options), Check::Crc32)?;
    let mut encoder = liblzma::write::XzEncoder::new_stream(Vec::new(), stream);
    encoder.write_all(raw)?;
    encoder.finish()
}

/// The greatest dictionary of an xz stream that holds `raw_len` bytes: the next power of two, and no
/// less than xz allows.
fn xz_dictionary(raw_len: usize) -> u32 {
    u32::try_from(raw_len.next_power_of_two()).unwrap_or(u32::MAX).max(4096)
}

/// The inverse of [`compress`]; takes no more memory than `raw_len`, a window of at most twice that
/// size, and 4 MiB.
///
/// # Errors
/// What is wrong with `stored`, when it does not give exactly `raw_len` bytes, or when there is
/// something behind them.
pub fn decompress(codec: Codec, raw_len: u32, stored: Bytes) -> Result<Bytes, String> {
    let raw_len = raw_len as usize;
    let raw = match codec {
        Codec::None => stored,
        Codec::Zstd => {
            let mut raw = Vec::with_capacity(raw_len);
            context::decompress(&stored, &mut raw)
                .map_err(|e| format!("zstd cannot decompress it: {e}"))?;
            raw.into()
        }
        Codec::Lz4 => lz4_flex::block::decompress(&stored, raw_len)
            .map_err(|e| format!("lz4 cannot decompress it: {e}"))?
            .into(),
        Codec::Gzip => {
            let mut decoder = flate2::bufread::GzDecoder::new(&stored[..]);
            let raw = read("gzip", &mut decoder, raw_len)?;
            nothing_behind("gzip", decoder.into_inner(), raw)?
        }
        Codec::Xz => {
            // Tables and the dictionary; the stream is refused before more is reserved.
            let memory = (1 << 20) + u64::from(xz_dictionary(raw_len));
            let stream = liblzma::stream::Stream::new_stream_decoder(memory, 0)
                .map_err(|e| format!("xz cannot be set up: {e}"))?;
            let mut decoder = liblzma::bufread::XzDecoder::new_stream(&stored[..], stream);
            let raw = read("xz", &mut decoder, raw_len)?;
            nothing_behind("xz", decoder.into_inner(), raw)?
        }
        Codec::Bzip2 => {
            let mut decoder = bzip2::bufread::BzDecoder::new(&stored[..]);
            let raw = read("bzip2", &mut decoder, raw_len)?;
            nothing_behind("bzip2", decoder.into_inner(), raw)?
        }
    };
    if raw.len() == raw_len {
        Ok(raw)
    } else {
        Err(format!("{} bytes came out where {raw_len} went in", raw.len()))
    }
}

/// Reads to the end, or until there is a byte more than there may be.
fn read(name: &str, decoder: &mut impl Read, raw_len: usize) -> Result<Vec<u8>, String> {
    let mut raw = Vec::with_capacity(raw_len);
    let failed = |e| format!("{name} cannot decompress it: {e}");
    decoder.by_ref().take(raw_len as u64).read_to_end(&mut raw).map_err(failed)?;
    // The checksum of a stream is only looked at when its end is read.
    match decoder.read(&mut [0]).map_err(failed)? {
        0 => Ok(raw),
        _ => Err(format!("more than {raw_len} bytes came out")),
    }
}

fn nothing_behind(name: &str, mut rest: impl BufRead, raw: Vec<u8>) -> Result<Bytes, String> {
    match rest.fill_buf() {
        Ok([]) => Ok(raw.into()),
        _ => Err(format!("there is something behind the end of the {name} stream")),
    }
}

#[cfg(test)]
mod tests;
