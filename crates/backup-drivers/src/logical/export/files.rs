//! The artifacts of a backup of any strategy as files.

use backup_core::{ArtifactSource, Context, Result};

use super::Exported;
use crate::exchange::FileSet;

/// Writes every artifact of a backup into a file of its name: data files of a physical backup as they
/// were, row blocks and catalogue of a logical one.
///
/// # Errors
/// [`ErrorKind::Damaged`](backup_core::ErrorKind::Damaged) when an artifact does not match its
/// digest; what the operating system says of the files.
pub async fn export_artifacts(
    cx: &Context,
    artifacts: &dyn ArtifactSource,
    files: &FileSet,
) -> Result<Exported> {
    let listed = artifacts.list().await?;
    cx.progress().expect_bytes(listed.iter().map(|a| a.bytes).sum());
    for artifact in listed {
        let mut reader = artifacts.open(&artifact.name).await?;
        // The names of artifacts are safe as paths.
        let mut file = files.create(artifact.name.as_str())?;
        while let Some(bytes) = reader.next().await? {
            cx.check()?;
            cx.progress().add_bytes(bytes.len() as u64);
            if !bytes.is_empty() {
                file.write(bytes).await?;
            }
        }
        file.finish(files).await?;
    }
    Ok(Exported::default())
}
