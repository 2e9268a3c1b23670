//! The files of a backup as one stream, for the tools of the servers.

use backup_core::{ArtifactSource, Context, Error, Manifest, Result};
use tokio::io::AsyncReadExt;

use super::catalog::Catalog;
use super::whole::WholeFile;
use crate::exchange::FileSet;
use crate::xbstream::StreamWriter;

/// Bytes on their way to the file.
const PIPE: usize = 1 << 20;

/// Writes the files of a backup of data files as the one stream of `files`, in the format of `xbstream` and
/// `mbstream`. Gives how many there are.
///
/// # Errors
/// A usage error when it is a backup of rows; [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when
/// an artifact does not match its digest; what the operating system says.
pub async fn export_stream(
    cx: &Context,
    manifest: &Manifest,
    artifacts: &dyn ArtifactSource,
    files: &FileSet,
) -> Result<u64> {
    if !manifest.strategy.has_data_files() {
        return Err(Error::usage(format!(
            "{} is a {} backup, which has no data files for a stream",
            manifest.backup, manifest.strategy
        ))
        .with_remedy("export it with --format sql, tsv, csv or files"));
    }
    let catalog = Catalog::read(artifacts).await?;
    cx.progress().expect_bytes(catalog.files().map(|entry| entry.bytes).sum());
    let mut file = files.create("backup.xbstream")?;
    let (ours, mut theirs) = tokio::io::duplex(PIPE);
    let write = async {
        let mut stream = StreamWriter::new(ours);
        for entry in catalog.files() {
            let mut whole = WholeFile::open(entry, artifacts).await?;
            while let Some(bytes) = whole.next().await? {
                cx.check()?;
                cx.progress().add_bytes(bytes.len() as u64);
                stream.write(&entry.path, &bytes).await?;
            }
            stream.end(&entry.path).await?;
        }
        // Closes the pipe, which is the end for the other side.
        stream.finish().await.map(drop)
    };
    let take = async {
        loop {
            let mut bytes = bytes::BytesMut::with_capacity(PIPE);
            match theirs.read_buf(&mut bytes).await {
                Ok(0) => return Ok(file),
                Ok(_) => file.write(bytes).await?,
                Err(e) => return Err(Error::internal("a pipe to ourselves broke").with_source(e)),
            }
        }
    };
    // What the file fails with ends the stream, so it is the cause.
    tokio::pin!(take);
    let file = tokio::select! {
        biased;
        taken = &mut take => match taken {
            Ok(_) => return Err(Error::internal("the stream ended before its last file")),
            Err(e) => return Err(e),
        },
        written = write => { written?; take.await? }
    };
    file.finish(files).await?;
    Ok(catalog.files().count() as u64)
}
