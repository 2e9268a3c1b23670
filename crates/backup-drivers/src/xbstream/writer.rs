//! Writing a stream.

use std::collections::{BTreeMap, BTreeSet};

use backup_core::{Error, ErrorKind, Result, io_error};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{MAGIC, PATH_LIMIT};

/// The longest payload of a chunk: that of the tools' own buffers.
const CHUNK: usize = 10 << 20;

/// Writes a stream that `xbstream`, `mbstream` and [`StreamReader`](super::StreamReader) take: chunks with
/// a payload, and ends, which both dialects have in common.
pub struct StreamWriter<W> {
    sink: W,
    open: BTreeMap<String, u64>,
    finished: BTreeSet<String>,
}

impl<W: AsyncWrite + Unpin + Send> StreamWriter<W> {
    /// Writes to `sink`.
    pub fn new(sink: W) -> Self {
        StreamWriter { sink, open: BTreeMap::new(), finished: BTreeSet::new() }
    }

    /// Goes on with a file. Several may be written in turns.
    ///
    /// # Errors
    /// A usage error for a path that a reader would refuse, or whose file was finished; errors of writing.
    pub async fn write(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.check(path)?;
        for piece in bytes.chunks(CHUNK) {
            let offset = self.open.entry(path.to_owned()).or_default();
            let mut header = common(b'P', path);
            header.extend((piece.len() as u64).to_le_bytes());
            header.extend(offset.to_le_bytes());
            header.extend(crc32fast::hash(piece).to_le_bytes());
            *offset += piece.len() as u64;
            self.sink.write_all(&header).await.map_err(cannot_write)?;
            self.sink.write_all(piece).await.map_err(cannot_write)?;
        }
        Ok(())
    }

    /// Ends a file; an empty one where nothing was written.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn end(&mut self, path: &str) -> Result<()> {
        self.check(path)?;
        self.open.remove(path);
        self.finished.insert(path.to_owned());
        self.sink.write_all(&common(b'E', path)).await.map_err(cannot_write)
    }

    /// Ends the stream, and gives back where it went.
    ///
    /// # Errors
    /// An internal error when a file is not at its end; errors of writing.
    pub async fn finish(mut self) -> Result<W> {
        if let Some(path) = self.open.keys().next() {
            return Err(Error::internal(format!("the stream ends before {path} does")));
        }
        self.sink.flush().await.map_err(cannot_write)?;
        Ok(self.sink)
    }

    fn check(&self, path: &str) -> Result<()> {
        let safe = |part: &str| !part.is_empty() && part != "." && part != "..";
        let fits = path.len() < PATH_LIMIT && !path.contains(['\0', '\\']);
        if !fits || !path.split('/').all(safe) || self.finished.contains(path) {
            let shown: String = path.chars().take(80).collect();
            return Err(Error::usage(format!(
                "a stream cannot take the file `{}`",
                shown.escape_debug()
            )));
        }
        Ok(())
    }
}

fn common(kind: u8, path: &str) -> Vec<u8> {
    let mut header = Vec::with_capacity(path.len() + 40);
    header.extend_from_slice(MAGIC);
    header.extend([0, kind]);
    // Checked to be below 512.
    header.extend((path.len() as u32).to_le_bytes());
    header.extend_from_slice(path.as_bytes());
    header
}

fn cannot_write(error: std::io::Error) -> Error {
    io_error(error, ErrorKind::Target, "cannot write the stream of files")
}
