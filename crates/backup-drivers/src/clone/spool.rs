//! Where pages and redo rest that come in no order, until the donor is free.
//!
//! The donor keeps a growing archive of its redo log while it sends changed pages, so these must not
//! wait for a slow store. They go to one file without a name, which no crash leaves behind.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use backup_core::{Error, ErrorKind, Result, io_error};
use bytes::Bytes;

/// What is written with one call.
const BUFFER: usize = 1 << 20;

/// A piece of a file, and where it is in the spool.
#[derive(Debug, Clone, Copy)]
struct Piece {
    at: u64,
    bytes: u32,
}

/// The pieces of one file. One that begins where an earlier one did replaces it.
#[derive(Debug, Default)]
pub(super) struct Pieces(BTreeMap<u64, Piece>);

impl Pieces {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a piece begins at `offset`.
    pub(super) fn begins_at(&self, offset: u64) -> bool {
        self.0.contains_key(&offset)
    }

    /// Offset and length of each, by offset.
    pub(super) fn extents(&self) -> impl Iterator<Item = (u64, u32)> {
        self.0.iter().map(|(offset, piece)| (*offset, piece.bytes))
    }
}

/// The file.
#[derive(Debug)]
pub(super) struct Spool {
    directory: PathBuf,
    limit: u64,
    file: Arc<File>,
    /// What was not written yet.
    buffer: Vec<u8>,
    /// What was.
    written: u64,
}

impl Spool {
    /// A spool of at most `limit` bytes in `directory`.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] where nothing can be kept there.
    pub(super) fn new(directory: &Path, limit: u64) -> Result<Spool> {
        let file = tempfile::tempfile_in(directory).map_err(failed(
            "changed pages",
            directory,
            ErrorKind::Usage,
        ))?;
        let (directory, buffer) = (directory.to_owned(), Vec::new());
        Ok(Spool { directory, limit, file: Arc::new(file), buffer, written: 0 })
    }

    fn failed(&self) -> impl FnOnce(std::io::Error) -> Error {
        failed("changed pages", &self.directory, ErrorKind::Internal)
    }

    /// Keeps `bytes` as the piece of a file that begins at `offset`.
    ///
    /// # Errors
    /// [`ErrorKind::Space`] beyond the limit or when the disk is full.
    pub(super) async fn keep(
        &mut self,
        pieces: &mut Pieces,
        offset: u64,
        bytes: &[u8],
    ) -> Result<()> {
        let at = self.written + self.buffer.len() as u64;
        if at + bytes.len() as u64 > self.limit {
            return Err(Error::new(
                ErrorKind::Space,
                format!(
                    "more than {} MiB of pages changed while the clone was taken",
                    self.limit >> 20
                ),
            )
            .with_remedy("raise --clone-spool-limit, or take the backup at a quieter time"));
        }
        let length = u32::try_from(bytes.len()).map_err(|_| Error::internal("a piece of 4 GiB"))?;
        pieces.0.insert(offset, Piece { at, bytes: length });
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER {
            self.flush().await?;
        }
        Ok(())
    }

    /// Writes what is left.
    pub(super) async fn flush(&mut self) -> Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let file = Arc::clone(&self.file);
        let (buffer, at) = (std::mem::take(&mut self.buffer), self.written);
        let work =
            tokio::task::spawn_blocking(move || file.write_all_at(&buffer, at).map(|()| buffer));
        let mut buffer = joined(work.await)?.map_err(self.failed())?;
        self.written += buffer.len() as u64;
        buffer.clear();
        self.buffer = buffer;
        Ok(())
    }

    /// The piece of `pieces` that begins at `offset`. Everything has to be flushed.
    pub(super) async fn read(&self, pieces: &Pieces, offset: u64) -> Result<Bytes> {
        let Some(piece) = pieces.0.get(&offset).copied() else {
            return Err(Error::internal("a piece is not in the spool"));
        };
        let file = Arc::clone(&self.file);
        let work = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; piece.bytes as usize];
            file.read_exact_at(&mut bytes, piece.at).map(|()| bytes)
        });
        joined(work.await)?.map(Bytes::from).map_err(self.failed())
    }
}

/// What goes wrong with `what` where it rests.
pub(super) fn failed(
    what: &str,
    directory: &Path,
    fallback: ErrorKind,
) -> impl FnOnce(std::io::Error) -> Error {
    let what = format!("cannot keep {what} in {}", directory.display());
    move |e| {
        io_error(e, fallback, what)
            .with_remedy("make room there, or name another directory with --clone-spool")
    }
}

/// The outcome of a thread that wrote or read.
pub(super) fn joined<T>(outcome: Result<T, tokio::task::JoinError>) -> Result<T> {
    outcome.map_err(|e| Error::internal("the spool's worker failed").with_source(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pieces_come_back_and_later_ones_count() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(dir.path(), 8 << 20).unwrap();
        let (mut a, mut b) = (Pieces::default(), Pieces::default());
        for n in 0..100u8 {
            spool.keep(&mut a, u64::from(n) * 16384, &[n; 16384]).await.unwrap();
        }
        spool.keep(&mut b, 0, b"header").await.unwrap();
        spool.keep(&mut a, 16384, &[200; 16384]).await.unwrap();
        spool.flush().await.unwrap();
        assert_eq!(spool.read(&a, 16384).await.unwrap()[..], [200; 16384]);
        assert_eq!(spool.read(&a, 99 * 16384).await.unwrap()[..], [99; 16384]);
        assert_eq!(spool.read(&b, 0).await.unwrap(), "header");
        assert_eq!(a.extents().count(), 100);
        // Nothing is left in the directory.
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn the_limit_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(dir.path(), 100).unwrap();
        let mut pieces = Pieces::default();
        spool.keep(&mut pieces, 0, &[0; 60]).await.unwrap();
        let error = spool.keep(&mut pieces, 60, &[0; 60]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Space);
    }
}
