//! Compressed streams of the common tools.

use std::fmt;
use std::io::{self, BufRead, Read, Write};
use std::path::Path;
use std::str::FromStr;

use backup_core::{Error, Result};

/// A decoder in a box, with all that a codec's reader has.
macro_rules! decoder {
    ($codec:expr, $from:expr) => {
        match $codec {
            Codec::Plain => Box::new($from),
            Codec::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new($from)),
            Codec::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new($from)),
            Codec::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder($from)),
            Codec::Zstd => Box::new(zstd::Decoder::with_buffer($from)?),
            Codec::Lz4 => {
                Box::new(Lz4Frames { decoder: Some(lz4_flex::frame::FrameDecoder::new($from)) })
            }
        }
    };
}

/// How a file is compressed, in the formats of the common tools.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    #[default]
    Plain,
    /// `.gz`, RFC 1952.
    Gzip,
    /// `.bz2`.
    Bzip2,
    /// `.xz`.
    Xz,
    /// `.zst`, RFC 8878.
    Zstd,
    /// `.lz4`, the LZ4 frame format.
    Lz4,
}

impl Codec {
    /// Every codec.
    pub const ALL: [Codec; 6] =
        [Codec::Plain, Codec::Gzip, Codec::Bzip2, Codec::Xz, Codec::Zstd, Codec::Lz4];

    /// The word of the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Codec::Plain => "none",
            Codec::Gzip => "gzip",
            Codec::Bzip2 => "bzip2",
            Codec::Xz => "xz",
            Codec::Zstd => "zstd",
            Codec::Lz4 => "lz4",
        }
    }

    /// What it adds to the name of a file, with its dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Codec::Plain => "",
            Codec::Gzip => ".gz",
            Codec::Bzip2 => ".bz2",
            Codec::Xz => ".xz",
            Codec::Zstd => ".zst",
            Codec::Lz4 => ".lz4",
        }
    }

    /// The codec that a file's name tells.
    #[must_use]
    pub fn of_name(path: &Path) -> Codec {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let fits = |codec: &Codec| *codec != Codec::Plain && name.ends_with(codec.extension());
        Codec::ALL.into_iter().find(fits).unwrap_or_default()
    }

    /// The codec of a stream that begins with `head`, by its magic number; whatever has none is
    /// plain.
    #[must_use]
    pub fn of_head(head: &[u8]) -> Codec {
        match head {
            [0x1f, 0x8b, ..] => Codec::Gzip,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, ..] => Codec::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Codec::Xz,
            // A frame, and one of a dictionary or of an application before it.
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Codec::Zstd,
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Codec::Zstd,
            [0x04, 0x22, 0x4d, 0x18, ..] => Codec::Lz4,
            _ => Codec::Plain,
        }
    }

    /// Compresses what is written into `to`. `Encoder::finish` ends the stream.
    ///
    /// # Errors
    /// Those of `to`.
    pub fn encoder<W: Write + Send + 'static>(self, to: W) -> io::Result<Encoder> {
        let boxed: Box<dyn Finish> = match self {
            Codec::Plain => Box::new(Plain(to)),
            Codec::Gzip => Box::new(flate2::write::GzEncoder::new(to, flate2::Compression::new(6))),
            Codec::Bzip2 => {
                Box::new(bzip2::write::BzEncoder::new(to, bzip2::Compression::default()))
            }
            Codec::Xz => Box::new(liblzma::write::XzEncoder::new(to, 6)),
            Codec::Zstd => {
                let mut encoder = zstd::Encoder::new(to, 3)?;
                encoder.include_checksum(true)?;
                Box::new(encoder)
            }
            Codec::Lz4 => {
                let frame = lz4_flex::frame::FrameInfo::new()
                    .content_checksum(true)
                    .block_size(lz4_flex::frame::BlockSize::Max1MB);
                Box::new(lz4_flex::frame::FrameEncoder::with_frame_info(frame, to))
            }
        };
        Ok(Encoder(boxed))
    }

    /// Decompresses `from`, with everything that was appended to it later, as the tools do.
    ///
    /// # Errors
    /// Those of `from`.
    pub fn decoder<'a>(
        self,
        from: impl BufRead + Send + 'a,
    ) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(decoder!(self, from))
    }

    /// The same for one thread.
    pub(crate) fn local_decoder<'a>(
        self,
        from: impl BufRead + 'a,
    ) -> io::Result<Box<dyn Read + 'a>> {
        Ok(decoder!(self, from))
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Codec {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Codec::ALL.into_iter().find(|codec| codec.as_str() == text).ok_or_else(|| {
            Error::usage(format!("`{}` is no compression", text.escape_debug()))
                .with_remedy("write one of none, gzip, bzip2, xz, zstd, lz4")
        })
    }
}

/// LZ4 frames one after the other; the library reads one.
struct Lz4Frames<R: BufRead> {
    decoder: Option<lz4_flex::frame::FrameDecoder<R>>,
}

impl<R: BufRead> Read for Lz4Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(decoder) = &mut self.decoder else { return Ok(0) };
            let read = decoder.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let mut rest = self.decoder.take().expect("it was there a moment ago").into_inner();
            if rest.fill_buf()?.is_empty() {
                return Ok(0);
            }
            self.decoder = Some(lz4_flex::frame::FrameDecoder::new(rest));
        }
    }
}

/// A stream being compressed.
pub struct Encoder(Box<dyn Finish>);

impl Encoder {
    /// Writes what is left.
    ///
    /// # Errors
    /// Those of the writer below.
    pub fn finish(self) -> io::Result<()> {
        self.0.finish()
    }
}

impl Write for Encoder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// A writer that has something to write at its end.
trait Finish: Write + Send {
    fn finish(self: Box<Self>) -> io::Result<()>;
}

struct Plain<W>(W);

impl<W: Write> Write for Plain<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl<W: Write + Send> Finish for Plain<W> {
    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.0.flush()
    }
}

macro_rules! finishes {
    ($($encoder:ty),*) => {$(
        impl<W: Write + Send> Finish for $encoder {
            fn finish(self: Box<Self>) -> io::Result<()> {
                <$encoder>::finish(*self)?.flush()
            }
        }
    )*};
}

finishes!(
    flate2::write::GzEncoder<W>,
    bzip2::write::BzEncoder<W>,
    liblzma::write::XzEncoder<W>,
    zstd::Encoder<'static, W>
);

impl<W: Write + Send> Finish for lz4_flex::frame::FrameEncoder<W> {
    fn finish(self: Box<Self>) -> io::Result<()> {
        lz4_flex::frame::FrameEncoder::finish(*self)?.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn compressed(codec: Codec, text: &[u8]) -> Vec<u8> {
        let to = Shared::default();
        let mut encoder = codec.encoder(to.clone()).unwrap();
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap();
        to.0.lock().unwrap().clone()
    }

    #[test]
    fn every_codec_is_known_by_its_head_reads_members_and_notices_a_cut() {
        let text = b"INSERT INTO t VALUES (1);\n".repeat(1000);
        for codec in Codec::ALL {
            let bytes = compressed(codec, &text);
            assert_eq!(Codec::of_head(&bytes), codec);
            let name = format!("d.sql{}", codec.extension());
            assert_eq!(Codec::of_name(Path::new(&name)), codec);
            assert_eq!(codec.as_str().parse::<Codec>().unwrap(), codec);
            let twice = [bytes.clone(), bytes.clone()].concat();
            let mut back = Vec::new();
            codec.decoder(&twice[..]).unwrap().read_to_end(&mut back).unwrap();
            assert_eq!(back.len(), 2 * text.len(), "{codec}");
            if codec != Codec::Plain {
                let cut = &bytes[..bytes.len() - 3];
                let read = codec.decoder(cut).unwrap().read_to_end(&mut Vec::new());
                assert!(read.is_err(), "{codec} did not notice that its end is missing");
            }
        }
    }
}
